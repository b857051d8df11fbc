//! Modules do not use each other in circles: whoever reads one file need not know the others of a circle first.
//!
//! An edge goes from a file to the file of what it names by a path of `crate::…` or `super::…`, in an import or in the
//! middle of code, outside of tests. `mod` and re-exports of a module's own children are no edges. A circle is a
//! strongly connected component of more than one file. Those that are honestly one thing are in
//! [`super::allowed_circles`].

use std::collections::{BTreeMap, BTreeSet};

use super::Finding;
use super::allowed_circles::{ALLOWED, AllowedCircle};
use super::rust_source::RustSource;
use super::tree::Tree;

pub fn check(tree: &Tree) -> Vec<Finding> {
    check_against(tree, ALLOWED)
}

fn check_against(tree: &Tree, allowed: &[AllowedCircle]) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut met: BTreeSet<usize> = BTreeSet::new();
    for (folder, modules) in crates(tree) {
        let graph = Graph::of(&modules);
        for circle in graph.circles() {
            let names: Vec<String> = circle.iter().map(|module| module_name(module)).collect();
            let entry = allowed.iter().position(|entry| entry.folder == folder && entry.modules == names);
            match entry {
                Some(entry) => {
                    met.insert(entry);
                }
                None => findings.push(Finding {
                    path: modules[&circle[0]].path.to_owned(),
                    line: 1,
                    what: format!(
                        "{} modules use each other in a circle: {}",
                        names.len(),
                        graph.describe(&circle)
                    ),
                    remedy: "move what they share to a module below them".to_owned(),
                }),
            }
        }
    }
    for (index, entry) in allowed.iter().enumerate().filter(|(index, _)| !met.contains(index)) {
        findings.push(Finding {
            path: "xtask/src/tidy/allowed_circles.rs".to_owned(),
            line: 1,
            what: format!(
                "entry {index}, of {}, is no circle any more: {}",
                entry.folder,
                entry.modules.join(", ")
            ),
            remedy: "remove it, or correct its modules".to_owned(),
        });
    }
    findings
}

/// From the crate's root: `["wasm", "workers"]`.
type Module = Vec<String>;

struct Source<'a> {
    path: &'a str,
    text: &'a str,
}

/// The files of each crate by the folder of its root, `runtime/src` or `clients/rust/src/bin/offload-client`.
fn crates(tree: &Tree) -> BTreeMap<String, BTreeMap<Module, Source<'_>>> {
    let mut crates: BTreeMap<String, BTreeMap<Module, Source<'_>>> = BTreeMap::new();
    for file in tree.ours(&["rs"]).filter(|file| !file.is_test() || file.path.starts_with("tests/src/")) {
        let Some((package, inside)) = file.path.split_once("/src/").filter(|_| file.name() != "tests.rs")
        else {
            continue;
        };
        let (folder, inside) = match inside.strip_prefix("bin/").and_then(|rest| rest.split_once('/')) {
            Some((program, rest)) => (format!("{package}/src/bin/{program}"), rest),
            None => (format!("{package}/src"), inside),
        };
        let is_program_beside_library =
            inside == "main.rs" && tree.file(&format!("{folder}/lib.rs")).is_some();
        if !is_program_beside_library {
            let source = Source { path: &file.path, text: &file.text };
            crates.entry(folder).or_default().insert(module_of(inside), source);
        }
    }
    crates
}

fn module_of(inside: &str) -> Module {
    let mut parts: Module = inside.trim_end_matches(".rs").split('/').map(str::to_owned).collect();
    if parts.last().is_some_and(|last| last == "mod") || parts == ["lib"] || parts == ["main"] {
        parts.pop();
    }
    parts
}

fn module_name(module: &[String]) -> String {
    if module.is_empty() { "crate".to_owned() } else { module.join("::") }
}

struct Graph(BTreeMap<Module, BTreeSet<Module>>);

impl Graph {
    fn of(modules: &BTreeMap<Module, Source<'_>>) -> Graph {
        let edges = |(module, source): (&Module, &Source<'_>)| {
            let code = RustSource::new(source.text).code_outside_tests();
            let paths = paths(&code).into_iter().filter_map(|path| absolute(module, &path));
            let targets = paths.map(|path| nearest(modules, path)).filter(|target| target != module);
            (module.clone(), targets.collect())
        };
        Graph(modules.iter().map(edges).collect())
    }

    /// Strongly connected components of more than one module, each sorted.
    fn circles(&self) -> Vec<Vec<Module>> {
        let reached: BTreeMap<&Module, BTreeSet<&Module>> =
            self.0.keys().map(|module| (module, self.reached_from(module))).collect();
        let mut circles = Vec::new();
        let mut seen: BTreeSet<&Module> = BTreeSet::new();
        for (module, others) in &reached {
            if seen.contains(module) {
                continue;
            }
            let circle: Vec<Module> = others
                .iter()
                .filter(|other| reached[*other].contains(module))
                .map(|other| (*other).clone())
                .collect();
            if circle.len() > 1 {
                seen.extend(others.iter().filter(|other| circle.contains(other)));
                circles.push(circle);
            }
        }
        circles
    }

    fn reached_from<'a>(&'a self, module: &'a Module) -> BTreeSet<&'a Module> {
        let mut reached = BTreeSet::new();
        let mut next = vec![module];
        while let Some(module) = next.pop() {
            next.extend(self.0.get(module).into_iter().flatten().filter(|target| reached.insert(*target)));
        }
        reached
    }

    /// Who uses whom of them.
    fn describe(&self, circle: &[Module]) -> String {
        let uses = |module: &Module| {
            let used = self.0[module]
                .iter()
                .filter(|target| circle.contains(target))
                .map(|target| module_name(target));
            format!("{} -> {}", module_name(module), used.collect::<Vec<_>>().join(" + "))
        };
        circle.iter().map(uses).collect::<Vec<_>>().join("; ")
    }
}

/// The file that a path leads to: the longest part of it that is one.
fn nearest(modules: &BTreeMap<Module, Source<'_>>, mut path: Module) -> Module {
    while !path.is_empty() && !modules.contains_key(&path) {
        path.pop();
    }
    path
}

/// From the crate's root, of a path that begins with `crate` or `super`. `None` where it leads out of the crate.
fn absolute(module: &[String], path: &[String]) -> Option<Module> {
    let supers = path.iter().take_while(|part| *part == "super").count();
    let base = if supers == 0 { &[] } else { &module[..module.len().checked_sub(supers)?] };
    Some(base.iter().chain(&path[supers.max(1)..]).cloned().collect())
}

/// All paths that begin with `crate::` or `super::`, those in the braces of imports one by one.
fn paths(code: &str) -> Vec<Vec<String>> {
    let mut found = Vec::new();
    for start in ["crate", "super"] {
        for (at, _) in code.match_indices(start) {
            let before = code[..at].trim_end();
            let continues =
                before.ends_with("::") || code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_');
            if !continues && code[at + start.len()..].trim_start().starts_with("::") {
                parse(&code[at..], &[], &mut found);
            }
        }
    }
    found
}

/// Reads a path, with the tree of an import behind it if there is one, and returns what is behind that.
fn parse<'a>(code: &'a str, prefix: &[String], found: &mut Vec<Vec<String>>) -> &'a str {
    let mut path = prefix.to_vec();
    let mut rest = code.trim_start();
    loop {
        let length = rest.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(rest.len());
        if length > 0 {
            path.push(rest[..length].to_owned());
        }
        rest = rest[length..].trim_start();
        let Some(behind) = rest.strip_prefix("::") else { break };
        rest = behind.trim_start();
        if let Some(mut inside) = rest.strip_prefix('{') {
            loop {
                inside = inside.trim_start();
                if let Some(end) = inside.strip_prefix('}') {
                    return end;
                }
                let behind = parse(inside, &path, found);
                // Behind a part may be `as NAME`, and then a comma.
                let end = behind.find([',', '}']).unwrap_or(behind.len());
                inside = behind[end..].strip_prefix(',').unwrap_or(&behind[end..]);
                if inside.is_empty() {
                    return inside;
                }
            }
        }
    }
    found.push(path);
    rest
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(files: &[(&str, &str)], allowed: &[AllowedCircle]) -> Vec<String> {
        check_against(&Tree::of(files), allowed).into_iter().map(|finding| finding.what).collect()
    }

    const CIRCLE: &[(&str, &str)] = &[
        ("x/src/lib.rs", "mod a; mod b; mod c;"),
        ("x/src/a.rs", "use crate::b::B;"),
        ("x/src/b.rs", "fn f() { super::c::f() }"),
        ("x/src/c.rs", "use crate::{a::{A, self}, b as other};"),
    ];

    #[test]
    fn a_circle_is_found_with_who_uses_whom() {
        assert_eq!(found(CIRCLE, &[]), ["3 modules use each other in a circle: a -> b; b -> c; c -> a + b"]);
    }

    #[test]
    fn an_allowed_circle_is_none_and_one_that_is_gone_is_told() {
        let allowed = AllowedCircle { folder: "x/src", modules: &["a", "b", "c"], reason: "one thing" };
        assert_eq!(found(CIRCLE, &[allowed]), [""; 0]);
        let allowed = AllowedCircle { folder: "x/src", modules: &["a", "b"], reason: "one thing" };
        assert_eq!(found(&CIRCLE[..2], &[allowed]), ["entry 0, of x/src, is no circle any more: a, b"]);
    }

    #[test]
    fn tests_comments_literals_and_children_make_no_circle() {
        let files = [
            ("x/src/lib.rs", "mod a; pub use a::A; pub(crate) struct B;"),
            ("x/src/a.rs", "mod b; use crate::B; use b::C;"),
            (
                "x/src/a/b.rs",
                "// crate::a::A\nconst T: &str = \"super::A\";\n#[cfg(test)]\nmod tests { use crate::a::A; }",
            ),
        ];
        assert_eq!(found(&files, &[]), [""; 0]);
    }

    #[test]
    fn a_program_of_a_package_is_a_crate_of_its_own() {
        let files = [
            ("x/src/a.rs", "use crate::b::B;"),
            ("x/src/b.rs", ""),
            ("x/src/bin/y/a.rs", ""),
            ("x/src/bin/y/b.rs", "use crate::a::A;"),
        ];
        assert_eq!(found(&files, &[]), [""; 0]);
    }

    #[test]
    fn paths_of_imports_and_of_code_are_read() {
        let read = |code: &str| -> Vec<String> { paths(code).iter().map(|path| path.join("::")).collect() };
        assert_eq!(
            read("use crate::a::{B, c::{self, D as E}, f::*};"),
            ["crate::a::B", "crate::a::c::self", "crate::a::c::D", "crate::a::f"]
        );
        assert_eq!(read("let x: crate::a::B<u8> = super::super::c();"), ["crate::a::B", "super::super::c"]);
        assert_eq!(read("pub(crate) fn x() { my_crate::f(); a::super_b() }"), [""; 0]);
    }
}
