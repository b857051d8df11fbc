//! Code that serves does not panic without saying why that cannot happen: `expect` with the reason, and nothing
//! unfinished.

use super::Finding;
use super::rust_source::RustSource;
use super::tree::Tree;

/// Folders of programs that only test, measure or build: a panic there is a failure that someone sees.
const NOT_SERVING: &[&str] = &["tests/", "benches/", "xtask/"];

/// A call that is looked for.
struct Forbidden {
    call: &'static str,
    in_tests: bool,
    remedy: &'static str,
}

const FORBIDDEN: &[Forbidden] = &[
    Forbidden { call: "todo!", in_tests: true, remedy: "finish it, or leave it out" },
    Forbidden { call: "unimplemented!", in_tests: true, remedy: "finish it, or leave it out" },
    Forbidden { call: "dbg!", in_tests: true, remedy: "remove it, or log with `tracing`" },
    Forbidden {
        call: ".unwrap()",
        in_tests: false,
        remedy: "return the error, or `expect` with why it cannot happen",
    },
];

pub fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in tree.ours(&["rs"]) {
        let source = RustSource::new(&file.text);
        let serves = !file.is_test() && !NOT_SERVING.iter().any(|folder| file.path.starts_with(folder));
        let (all, serving) = (source.code(), source.code_outside_tests());
        for Forbidden { call, in_tests, remedy } in
            FORBIDDEN.iter().filter(|forbidden| serves || forbidden.in_tests)
        {
            let code = if *in_tests { &all } else { &serving };
            let lines =
                code.lines().enumerate().filter(|(_, line)| has_call(line, call) && !is_constant(line));
            findings.extend(lines.map(|(index, _)| Finding {
                path: file.path.clone(),
                line: index + 1,
                what: format!("`{call}`"),
                remedy: (*remedy).to_owned(),
            }));
        }
    }
    findings
}

/// What is wrong there is an error of the compiler.
fn is_constant(line: &str) -> bool {
    line.trim_start().trim_start_matches("pub ").starts_with("const ")
}

fn has_call(line: &str, call: &str) -> bool {
    let is_part = |letter: char| letter.is_alphanumeric() || letter == '_';
    line.match_indices(call).any(|(at, _)| call.starts_with('.') || !line[..at].ends_with(is_part))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(path: &str, text: &str) -> usize {
        check(&Tree::of(&[(path, text)])).len()
    }

    #[test]
    fn code_that_serves_does_not_unwrap_and_tests_may() {
        assert_eq!(found("a/src/b.rs", "fn f() { x.unwrap() }"), 1);
        assert_eq!(found("a/src/b.rs", "#[cfg(test)]\nmod tests { fn f() { x.unwrap() } }"), 0);
        assert_eq!(found("a/src/b.rs", "// x.unwrap()\nx.unwrap_or_default()"), 0);
        assert_eq!(found("a/src/b.rs", "const N: NonZero<u8> = NonZero::new(1).unwrap();"), 0);
        assert_eq!(found("a/tests/b.rs", "fn f() { x.unwrap() }"), 0);
        assert_eq!(found("xtask/src/b.rs", "fn f() { x.unwrap() }"), 0);
    }

    #[test]
    fn nothing_is_left_unfinished_anywhere() {
        assert_eq!(found("a/src/b.rs", "todo!()"), 1);
        assert_eq!(found("a/src/b.rs", "#[cfg(test)]\nmod tests { fn f() { todo!() } }"), 1);
        assert_eq!(found("a/tests/b.rs", "dbg!(1); unimplemented!()"), 2);
        assert_eq!(found("a/src/b.rs", "my_todo!()"), 0);
    }
}
