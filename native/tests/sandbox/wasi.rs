//! Building for WASI: compilers by any name make wasm, what WASI lacks is told, and strangers gain nothing by it.

use crate::host::Secret;
use crate::projects::{self, files_of};
use crate::sandbox::{sandbox, sandbox_of, with_builds};
use offload_native::{
    Build, Config, Error, Language, Limit, NativeProgram, Platform, Project, Sandbox, Source, Wasi,
};
use std::fs;
use std::path::Path;
use std::sync::OnceLock;

fn wasi() -> &'static Wasi {
    static WASI: OnceLock<Wasi> = OnceLock::new();
    WASI.get_or_init(|| sandbox().probe_wasi().expect("clang and wasi-libc: cargo xtask setup"))
}

async fn build_in(sandbox: &Sandbox, code: &str, makefile: &str) -> Result<NativeProgram, Error> {
    let language = if makefile.contains("++") { Language::Cpp } else { Language::C };
    let build = Build::Makefile(makefile.into());
    let source = Source { name: "hello".to_owned(), code: code.into(), language, build };
    sandbox.build(source, Platform::Wasi(wasi())).await
}

async fn build(code: &str, makefile: &str) -> Result<NativeProgram, Error> {
    build_in(sandbox(), code, makefile).await
}

/// The first error.
async fn not_built(code: &str, makefile: &str) -> String {
    match build(code, makefile).await {
        Err(Error::Build { first, .. }) => first,
        other => panic!("{makefile}{code}: {other:?}"),
    }
}

fn has(program: &NativeProgram, part: &str) -> bool {
    program.bytes().windows(part.len()).any(|found| found == part.as_bytes())
}

const GCC: &str = "all:\n\tgcc <name>.c -o <name>\n";

#[tokio::test]
async fn projects_are_built_for_wasi_by_their_own_makefiles() {
    for folder in projects::folders() {
        let files = files_of(&folder);
        let files = files.iter().map(|(path, contents)| (path.as_str(), &contents[..])).collect();
        let project = Project { files, ..Project::default() };
        let program = sandbox().build_project(&project, Platform::Wasi(wasi())).await;
        let program = program.unwrap_or_else(|error| panic!("{}: {error:?}", folder.display()));
        assert!(program.bytes().starts_with(b"\0asm\x01\0\0\0"), "{}", folder.display());
        // Names of functions tell where a program trapped; what debuggers want is only weight.
        assert!(has(&program, "main") && !has(&program, ".debug_info"), "{}", folder.display());
    }
}

/// By all names that makefiles call compilers, with flags of another machine, and with what the wasm linker does not
/// know.
#[tokio::test]
async fn compilers_make_wasm_by_any_name_and_whatever_they_are_asked() {
    let hello = "#include <signal.h>\n#include <stdio.h>\n#include <sys/mman.h>\n#include <time.h>\n#include <unistd.h>\n\
                 int main(void) { signal(SIGINT, SIG_IGN); return printf(\"%ld %d %Lg\", (long)clock(), getpid(), 1.5L) < 0; }\n";
    for compiler in
        ["cc", "gcc", "clang", "tcc", "c99", "$(CC)", "gcc -Wall -Werror -Wno-stringop-truncation"]
    {
        let program = build(hello, &format!("all:\n\t{compiler} <name>.c -o <name>\n")).await;
        assert!(program.is_ok_and(|program| program.bytes().starts_with(b"\0asm")), "{compiler}");
    }
    for flags in [
        "-O3 -march=native -msse2 -m64 -fPIC -pie -static -rdynamic -pthread -flto=auto -fuse-ld=bfd",
        "-fstack-protector-strong -fcf-protection -D_FORTIFY_SOURCE=2 -Wl,-z,relro -Wl,--as-needed,-O1 -s",
        "-std=c11 -pedantic -g -lm -ldl -lrt -lpthread -lgcc -Wl,--start-group -lc -Wl,--end-group",
    ] {
        let program = build(hello, &format!("all:\n\tgcc -Werror {flags} <name>.c -o <name>\n")).await;
        assert!(program.is_ok(), "{flags}: {program:?}");
    }
    let library = "all: <name>.o\n\tar rc lib.a <name>.o; ranlib lib.a; nm lib.a\n\tgcc lib.a -o <name>; strip -s <name>\n";
    assert!(!has(&build(hello, library).await.unwrap(), "printf"), "stripped");
    let cpp =
        "#include <iostream>\n#include <vector>\nint main() { std::cout << std::vector<int>(3).size(); }\n";
    assert!(build(cpp, "all:\n\tg++ <name>.cpp -o <name> -lstdc++\n").await.is_ok());
}

/// Fuel is what unoptimized code costs; who asks for it gets it.
#[tokio::test]
async fn code_is_optimized_unless_something_else_is_asked_for() {
    let code = "#ifdef __OPTIMIZE__\n#error optimized\n#endif\nint main(void) { return 0; }\n";
    assert!(not_built(code, GCC).await.contains("optimized"));
    assert!(build(code, &GCC.replace("gcc", "gcc -O0")).await.is_ok());
}

/// The line that stands for the whole says it.
#[tokio::test]
async fn what_wasi_lacks_is_told() {
    for (code, lacks) in [
        ("#include <unistd.h>\nint main(void) { return fork(); }", "processes"),
        ("#include <stdlib.h>\nint main(void) { return system(\"ls\"); }", "processes"),
        ("#include <pthread.h>\nint main(void) { return 0; }", "threads"),
        ("#include <setjmp.h>\nint main(void) { return 0; }", "setjmp"),
        ("#include <netdb.h>\nint main(void) { return 0; }", "sockets"),
        ("#include <sys/socket.h>\nint main(void) { return socket(AF_INET, SOCK_STREAM, 0); }", "sockets"),
        ("#include <dlfcn.h>\nint main(void) { return 0; }", "shared libraries"),
    ] {
        let first = not_built(code, GCC).await;
        assert!(first.contains("error: ") && first.ends_with(&format!("(WASI has no {lacks})")), "{first}");
    }
    let throws = "int main(int n, char **) { if (n) throw n; }\n";
    let first = not_built(throws, "all:\n\tg++ <name>.cpp -o <name>\n").await;
    assert!(first.ends_with("(WASI has no exceptions)"), "{first}");
    let first = not_built("", "all:\n\tgcc -shared <name>.c -o <name>.so\n").await;
    assert_eq!(first, "error: WASI has no shared libraries: -shared");
    let generator = "all:\n\tgcc <name>.c -o gen && ./gen >gen.h\n";
    let first = not_built("int main(void) { return 0; }", generator).await;
    assert!(
        first.ends_with("./gen: Exec format error (what is built for WASI cannot run while building)"),
        "{first}"
    );
}

/// A program for this machine, by a compiler that is not redirected, or none at all.
#[tokio::test]
async fn what_is_no_wasm_is_refused() {
    let absolute = "all:\n\t/usr/bin/gcc <name>.c -o <name>\n";
    let said = "error: what the build left is no wasm: for WASI it has to call cc, gcc, clang or c++ by these names alone";
    assert_eq!(not_built("int main(void) { return 0; }", absolute).await, said);
    let project = Project {
        files: vec![("hello.c", b"int main(void) { return 0; }")],
        makefile: Some(b"all:\n\t/usr/bin/gcc hello.c -o bin\n"),
        target: None,
    };
    match sandbox().build_project(&project, Platform::Wasi(wasi())).await {
        Err(Error::Build { first, .. }) => assert_eq!(first, said),
        other => panic!("{other:?}"),
    }
    for (makefile, said) in [
        ("all:\n\techo '#!/bin/sh' ><name>; chmod +x <name>\n", "error: what the build left is no wasm"),
        ("all:\n\t@true\n", "error: the build left no program hello"),
    ] {
        let first = not_built("", makefile).await;
        assert!(first.starts_with(said), "{makefile}: {first}");
    }
}

/// The compilers' folder is there for one build and can be changed by nobody; the limits are those of any build.
#[tokio::test]
async fn builds_for_wasi_are_contained_as_any() {
    let secret = Secret::new("compiled for wasi");
    for code in [format!("#include \"{}\"\n", secret.path()), "#include \"/etc/passwd\"\n".to_owned()] {
        let first = not_built(&code, GCC).await;
        assert!(first.contains("file not found") && !first.contains(&secret.word), "{first}");
    }
    let attack = format!(
        "all:\n\t@echo x >/wasi/bin/cc; rm -f /wasi/bin/gcc /wasi/lib/*; cat {} /proc/1/environ; id -u; false\n",
        secret.path()
    );
    match build("", &attack).await {
        Err(Error::Build { output, .. }) => {
            assert!(output.contains("Read-only file system") && output.contains("\n1000\n"), "{output}");
            assert!(!output.contains(&secret.word) && !output.contains("PATH="), "{output}");
        }
        other => panic!("{other:?}"),
    }
    let small = with_builds(|limits| limits.stdout = 64 << 10);
    let large = "char filled[1 << 20] = { 1 };\nint main(void) { return filled[5]; }\n";
    match build_in(&small, large, GCC).await {
        Err(Error::BuildLimit { limit, .. }) => assert_eq!(limit, Limit::Stdout),
        other => panic!("{other:?}"),
    }
    secret.assert_untouched();
}

/// By doing it, and with what is missing.
#[test]
fn a_machine_without_the_compilers_is_found_out() {
    assert!(wasi().compiler().starts_with("C and C++, ") && wasi().compiler().contains("clang"));
    let mut config = Config::default();
    let usr = config.toolchain.iter().position(|path| path == Path::new("/usr")).unwrap();
    let below = fs::read_dir(config.toolchain.remove(usr)).unwrap().map(|entry| entry.unwrap().path());
    config.toolchain.extend(below.filter(|path| !path.ends_with("include")));
    let why = sandbox_of(config).probe_wasi().expect_err("no header is visible");
    assert!(why.contains("'err.h' file not found"), "{why}");
}
