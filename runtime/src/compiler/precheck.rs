//! Cheap counts over wasm before a compiler sees it.
//!
//! Validation accepts modules that take a compiler minutes and gigabytes: half a million empty functions, fifty
//! thousand element segments, twenty thousand nested blocks. Counting them costs a walk over the bytes; the child's
//! limits catch what no count foresees, and data segments that take code each, for those that take none are many.

mod component;
mod counter;
mod counts;
mod interface;
mod module;
mod refusal;

use crate::config::{Compiler, Limits};
use offload_protocol::error::WireError;
use wasmparser::Parser;

/// Refuses what is no WASI command, and what would cost a compiler more than the configuration allows.
///
/// # Errors
///
/// `malformed` for bytes that are neither a preview 1 command nor a component that is a WASI 0.2 command, `compile` for
/// a count over its limit, `memory` for a module that could never start within the guest's limits.
pub fn check(wasm: &[u8], compiler: &Compiler, limits: &Limits) -> Result<(), WireError> {
    if Parser::is_component(wasm) {
        component::check(wasm, compiler, limits)
    } else {
        module::check(wasm, compiler, limits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use offload_protocol::error::ErrorKind;

    fn check_wat(text: &str) -> Result<(), WireError> {
        check(&wat::parse_str(text).unwrap(), &Compiler::default(), &Limits::default())
    }

    fn kind(text: &str) -> ErrorKind {
        check_wat(text).unwrap_err().kind
    }

    fn command(body: &str) -> String {
        format!("(module (func (export \"_start\") {body}))")
    }

    #[test]
    fn a_command_passes() {
        check_wat(&command("")).unwrap();
        check_wat(include_str!("../../../guest-examples/add/add.wat")).unwrap();
    }

    #[test]
    fn what_is_no_command_is_malformed() {
        for (bytes, expected) in [
            (&b"\0asm"[..], "not valid wasm"),
            (b"\0asm\x01\0\0\0\xff", "not valid wasm"),
            (b"\0asm\x01\0\0\0", "_start"),
            (b"\0asm\x0d\0\x01\0", "wasi:cli/run"),
            (b"\0asm\x0d\0\x01\0\x04\x7f", "not valid wasm"),
        ] {
            let error = check(bytes, &Compiler::default(), &Limits::default()).unwrap_err();
            assert_eq!(error.kind, ErrorKind::Malformed);
            assert!(error.message.contains(expected), "{error}");
        }
        let error =
            check_wat("(module (import \"env\" \"system\" (func)) (func (export \"_start\")))").unwrap_err();
        assert_eq!(error.kind, ErrorKind::Malformed);
        assert!(error.message.contains("`env.system`"), "{error}");
    }

    #[test]
    fn bombs_are_counted() {
        let functions = "(func)".repeat(500_000);
        assert_eq!(kind(&format!("(module {functions} (func (export \"_start\")))")), ErrorKind::Compile);
        let segments = "(elem (i32.const 0) 0)".repeat(50_000);
        let segments = format!("(module (table 1 funcref) {segments} (func (export \"_start\")))");
        assert_eq!(kind(&segments), ErrorKind::Compile);
        let nested = format!("{}{}", "(if (i32.const 1) (then ".repeat(5_000), "))".repeat(5_000));
        assert_eq!(kind(&command(&nested)), ErrorKind::Compile);
        let sequence = "(if (i32.const 1) (then))".repeat(20_000);
        check_wat(&command(&sequence)).unwrap();
    }

    #[test]
    fn what_is_over_a_limit_is_told_with_its_key_and_both_figures() {
        let (compiler, limits) = (Compiler::default(), Limits::default());
        let own_limit = |text: &str, compiler: &Compiler| {
            check(&wat::parse_str(text).unwrap(), compiler, &limits).unwrap_err().message
        };
        let start = "(func (export \"_start\"))";
        let segments = format!("(module (memory 1) {start} {})", "(data (i32.const 0) \"x\")".repeat(12));
        assert_eq!(
            own_limit(&segments, &Compiler { data_segments: 11, ..compiler.clone() }),
            "it has at least 12 data segments, the limit compiler.data_segments is 11"
        );
        let nested = command(&format!("{}{}", "(block ".repeat(9), ")".repeat(9)));
        assert_eq!(
            own_limit(&nested, &Compiler { nesting: 7, ..compiler.clone() }),
            "it has at least 9 nested blocks, the limit compiler.nesting is 7"
        );
        let locals = command("(local i32 i32 i64)");
        assert_eq!(
            own_limit(&locals, &Compiler { locals: 2, ..compiler.clone() }),
            "it has at least 3 locals in one function, the limit compiler.locals is 2"
        );
        let twice = component(&"(core module (func) (func))".repeat(2));
        assert_eq!(
            own_limit(&twice, &Compiler { functions: 4, ..compiler.clone() }),
            "it has at least 5 functions, the limit compiler.functions is 4"
        );
        let tables = component("(core module (table 1 funcref) (table 1 funcref))");
        assert_eq!(
            own_limit(&tables, &Compiler { component_tables: 1, ..compiler.clone() }),
            "it has at least 2 tables, the limit compiler.component_tables is 1"
        );
        assert_eq!(
            own_limit(&format!("(module (memory 1025) {start})"), &compiler),
            "the module starts with 67174400 bytes of memory, the limit limits.memory is 67108864"
        );
    }

    #[test]
    fn what_is_missing_is_named_before_anything_is_compiled() {
        let start = "(func (export \"_start\"))";
        for (import, what) in [
            (("wasi_unstable", "fd_write"), "WASI before its preview 1"),
            (("wasi", "thread-spawn"), "WASI's threads"),
            (("gojs", "syscall/js.valueGet"), "GOOS=wasip1"),
            (("wasi:cli/stdout@0.2.0", "get-stdout"), "make a component"),
            (("env", "emscripten_memcpy_js"), "the linker found it nowhere"),
            (("wbg", "__wbindgen_throw"), "and nothing else"),
        ] {
            let (module, name) = import;
            let error =
                check_wat(&format!("(module (import \"{module}\" \"{name}\" (func)) {start})")).unwrap_err();
            assert_eq!(error.kind, ErrorKind::Malformed);
            assert!(error.message.contains(&format!("`{module}.{name}`")), "{error}");
            assert!(error.message.contains(what), "{error}");
        }
        let import = |name: &str| component(&format!(r#"(import "{name}" (instance))"#));
        let export = |name: &str| component("").replace("wasi:cli/run@0.2.3", name);
        for (text, what) in [
            (import("wasi:cli/stdin@0.3.0"), "WASI 0.3"),
            (import("wasi:http/types@0.2.10"), "`wasi:http`"),
            (import("wasi:io/streams@0.2.0-rc-2023-11-10"), "a pre-release of WASI 0.2"),
            (export("wasi:cli/run@0.3.0"), "WASI 0.3"),
            (export("wasi:cli/run@0.2.0-rc-2023-11-10"), "a pre-release of WASI 0.2"),
            (export("wasi:http/incoming-handler@0.2.0"), "`wasi:http`"),
            (export("wasi:cli/environment@0.2.0"), "as a WASI 0.2 command"),
        ] {
            let error = check_wat(&text).unwrap_err();
            assert_eq!(error.kind, ErrorKind::Malformed);
            assert!(error.message.contains(what), "{error}");
        }
    }

    #[test]
    fn a_start_that_takes_or_returns_something_is_malformed() {
        assert_eq!(kind("(module (func (export \"_start\") (param i32)))"), ErrorKind::Malformed);
        assert_eq!(
            kind("(module (func (export \"_start\") (result i32) i32.const 1))"),
            ErrorKind::Malformed
        );
    }

    #[test]
    fn tables_memories_and_locals_are_counted() {
        assert_eq!(
            kind("(module (table 1 funcref) (table 1 funcref) (func (export \"_start\")))"),
            ErrorKind::Compile
        );
        assert_eq!(kind("(module (memory 1) (memory 1) (func (export \"_start\")))"), ErrorKind::Compile);
        assert_eq!(kind(&command(&format!("(local {})", "i32 ".repeat(10_001)))), ErrorKind::Compile);
    }

    #[test]
    fn what_cannot_start_is_refused_before_it_is_compiled() {
        assert_eq!(kind("(module (memory 65536) (func (export \"_start\")))"), ErrorKind::Memory);
        assert_eq!(kind("(module (table 10000000 funcref) (func (export \"_start\")))"), ErrorKind::Memory);
    }

    /// A component that runs, with these definitions before.
    fn component(definitions: &str) -> String {
        format!(
            r#"(component {definitions}
                (core module $main (func (export "main") (result i32) i32.const 0))
                (core instance $main (instantiate $main))
                (func $run (result (result)) (canon lift (core func $main "main")))
                (instance $command (export "run" (func $run)))
                (export "wasi:cli/run@0.2.3" (instance $command)))"#
        )
    }

    #[test]
    fn a_component_that_runs_passes() {
        check_wat(&component("")).unwrap();
        let types = r#"(type (func)) (import "wasi:cli/environment@0.2.0" (instance))
            (import "offload:guest/context@0.1.0" (instance))"#;
        check_wat(&component(types)).unwrap();
        // What is named like the interface that a command exports, and is not it.
        for other in ["wasi:cli/run@0.3.0", "wasi:cli/runner@0.2.0"] {
            let text = component("").replace("wasi:cli/run@0.2.3", other);
            assert_eq!(kind(&text), ErrorKind::Malformed, "{other}");
        }
    }

    #[test]
    fn imports_of_a_component_are_named() {
        let error = check_wat(&component(r#"(import "example:a/b" (instance))"#)).unwrap_err();
        assert_eq!(error.kind, ErrorKind::Malformed);
        assert!(error.message.contains("`example:a/b`"), "{error}");
        // Inside of it, components may import from each other, but no code.
        let inner = r#"(component (import "b" (func)))"#;
        check_wat(&component(inner)).unwrap();
        for code in ["component", "core module"] {
            let inner = format!(r#"(component (import "b" ({code})))"#);
            assert_eq!(kind(&component(&inner)), ErrorKind::Compile, "{code}");
        }
    }

    #[test]
    fn counts_are_of_all_modules_of_a_component() {
        let modules = |count| "(core module (memory 0))".repeat(count);
        check_wat(&component(&modules(1))).unwrap();
        assert_eq!(kind(&component(&modules(2))), ErrorKind::Compile);
        let functions = format!("(core module {})", "(func)".repeat(30_000));
        check_wat(&component(&functions)).unwrap();
        let nested = format!("{functions} (component {functions})");
        assert_eq!(kind(&component(&nested)), ErrorKind::Compile);
    }

    #[test]
    fn what_a_component_defines_is_counted() {
        for (what, one) in [
            ("types", "(type (tuple u8 u8))"),
            ("adapters", "(core func (canon resource.drop $r))"),
            ("modules", "(core module)"),
            ("components", "(component)"),
            ("instances", "(core instance (instantiate $m))"),
        ] {
            let base = "(type $r (resource (rep i32))) (core module $m)";
            check_wat(&component(&format!("{base} {}", one.repeat(30)))).unwrap();
            let text = component(&format!("{base} {}", one.repeat(21_000)));
            assert_eq!(kind(&text), ErrorKind::Compile, "{what}");
        }
    }

    #[test]
    fn instances_that_double_at_each_level_are_counted() {
        let nested = |levels: usize| {
            (0..levels).fold("(core module $m) (core instance (instantiate $m))".to_string(), |inner, _| {
                format!("(component $c {inner}) (instance (instantiate $c)) (instance (instantiate $c))")
            })
        };
        check_wat(&component(&nested(3))).unwrap();
        let error = check_wat(&component(&nested(8))).unwrap_err();
        assert_eq!(error.kind, ErrorKind::Compile);
        assert!(error.message.contains("instances"), "{error}");
    }

    #[test]
    fn a_component_that_cannot_start_is_refused() {
        assert_eq!(kind(&component("(core module (memory 65536))")), ErrorKind::Memory);
        assert_eq!(kind(&component("(core module (table 10000000 funcref))")), ErrorKind::Memory);
    }
}
