//! What a build leaves beside its program: there when the program runs, read-only, bounded, and for one run at a time.

use crate::sandbox::{args, build, limits, sandbox, sandbox_of, stdout};
use offload_native::{Config, Ending, Error, Input, NativeProgram, Platform, Project, Sandbox};

/// Prints what each file that it is told holds, or why it cannot be read; then whether each can be written.
const READER: &[u8] = br#"
    #include <errno.h>
    #include <stdio.h>
    #include <string.h>
    int main(int n, char **names) {
        for (int i = 1; i < n; i++) {
            FILE *file = fopen(names[i], "r");
            char text[99] = {0};
            if (file) fread(text, 1, sizeof text - 1, file);
            printf("%s|", file ? text : strerror(errno));
            if ((file = fopen(names[i], "r+")) || (file = fopen(names[i], "w"))) printf("written|");
        }
    }"#;

async fn project_in(
    sandbox: &Sandbox,
    files: &[(&str, &[u8])],
    makefile: &str,
) -> Result<NativeProgram, Error> {
    let files = [files, &[("main.c", READER)]].concat();
    let project = Project { files, makefile: Some(makefile.as_bytes()), target: None };
    sandbox.build_project(&project, Platform::Native).await
}

async fn project(files: &[(&str, &[u8])], makefile: &str) -> NativeProgram {
    project_in(sandbox(), files, makefile).await.unwrap()
}

async fn reads<const N: usize>(program: &NativeProgram, names: [&str; N]) -> String {
    let outcome = sandbox().run(program, args(names), limits()).await.unwrap();
    let stderr = String::from_utf8_lossy(&outcome.stderr);
    assert_eq!((outcome.ending, &*stderr), (Ending::Exit(0), ""));
    stdout(&outcome).to_owned()
}

#[tokio::test]
async fn files_that_were_sent_or_made_are_where_they_were() {
    let makefile = "app: main.c table.txt\n\tgcc -c main.c; gcc main.o -o $@\ntable.txt:\n\tmkdir -p out/deep; \
                    echo made >$@; cp $@ out/deep/; ln -s out/deep/table.txt link; cp /bin/true out/tool\n";
    let sent: [(&str, &[u8]); 2] = [("data.txt", b"sent"), ("dir with space/b", b"\xff")];
    let program = project(&sent, makefile).await;
    let read =
        reads(&program, ["data.txt", "/work/data.txt", "table.txt", "out/deep/table.txt", "link"]).await;
    assert_eq!(read, "sent|sent|made\n|made\n|made\n|");
    let gone = "No such file or directory|";
    // What only linkers read is not there, and the program is where programs are.
    assert_eq!(reads(&program, ["nothing"]).await, format!("{gone}written|"));
    let paths: Vec<&str> =
        program.folder().unwrap().entries().iter().map(|entry| entry.path.as_str()).collect();
    for (path, is_there) in [
        ("dir with space/b", true),
        ("out/tool", true),
        ("Makefile", true),
        ("main.o", false),
        ("app", false),
    ] {
        assert_eq!(paths.contains(&path), is_there, "{path} of {paths:?}");
    }
}

/// A run has a folder of its own, which the next one does not see; and it is not changed by opening it.
#[tokio::test]
async fn what_a_run_makes_is_gone_with_it() {
    let program = project(&[("data.txt", b"sent")], "app:\n\tmkdir sub; gcc main.c -o $@\n").await;
    for _ in 0..2 {
        assert_eq!(reads(&program, ["data.txt", "new", "sub/new"]).await.matches("written").count(), 1);
    }
}

#[tokio::test]
async fn one_file_of_source_has_a_folder_where_its_build_makes_files() {
    let code = std::str::from_utf8(READER).unwrap();
    let makefile = "all:\n\techo made >table.txt\n\tgcc -c <name>.c; gcc <name>.o -o <name>\n";
    let program = build(code, makefile).await.unwrap();
    assert_eq!(reads(&program, ["table.txt"]).await, "made\n|");
    assert!(reads(&program, ["hello.c"]).await.starts_with("\n    #include"));
    for how in [
        "gcc <name>.c -o <name>",
        "all:\n\tmkdir x .cache; >.cache/y; gcc -c <name>.c; gcc <name>.o -o <name>\n",
    ] {
        assert_eq!(build(code, how).await.unwrap().folder(), None, "{how}");
    }
}

#[tokio::test]
async fn a_folder_is_bounded() {
    let small = sandbox_of(Config { folder: 1 << 20, ..Config::default() });
    let all = |make: &str| format!("app:\n\t{make}; gcc main.c -o $@\n");
    let large = all("head -c 2000000 /dev/urandom >large");
    match project_in(&small, &[], &large).await {
        Err(Error::Build { first, .. }) => {
            let (bytes, limit) = first.split_once(" bytes in its folder, the limit is ").unwrap();
            assert!(bytes.starts_with("error: the build leaves 20"), "{first}");
            assert_eq!(limit, "1048576: have it remove some");
        }
        other => panic!("{other:?}"),
    }
    // What only the build needs does not count.
    let intermediate = all("head -c 2000000 /dev/urandom >large.o; cp large.o large.a");
    assert!(project_in(&small, &[], &intermediate).await.is_ok());
    let many = all("mkdir many; cd many; seq 5000 | xargs touch; cd ..");
    match project_in(&small, &[], &many).await {
        Err(Error::Build { first, .. }) => {
            assert!(first.contains("too many files in its folder, the limit is 2048"), "{first}");
        }
        other => panic!("{other:?}"),
    }
    // It takes its part of the run's work directory, as all else does.
    let half = project(&[], &all("yes | head -c 9000000 >half")).await;
    let outcome = sandbox().run(&half, args(["half"]), limits()).await.unwrap();
    assert_eq!(outcome.ending, Ending::Exit(0), "{:?}", String::from_utf8_lossy(&outcome.stderr));
}

/// Links lead to what a run sees anyway, and names are names.
#[tokio::test]
async fn a_folder_leads_to_no_files_of_the_host() {
    let makefile = "app:\n\tgcc main.c -o $@; ln -s /etc/passwd secret; ln -s .. up; ln -s / root; mkfifo pipe\n\
                    \ttouch -- '-x' '--to-command=id' 'a\\b' '*'; chmod 000 '*'\n";
    let program = project(&[], makefile).await;
    let gone = "No such file or directory|";
    assert_eq!(
        reads(&program, ["secret", "root/etc/passwd", "pipe-"]).await,
        format!("{gone}{gone}{gone}written|")
    );
    let outcome = sandbox().run(&program, Input::default(), limits()).await.unwrap();
    assert_eq!(outcome.ending, Ending::Exit(0));
}
