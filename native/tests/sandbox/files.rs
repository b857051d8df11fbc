//! Programs and builds that fill disks, and ways out of the work directory.

use crate::host::Secret;
use crate::sandbox::{GCC, args, build, limits, make_says, run, run_with, sandbox, stdout};
use offload_native::{Ending, Error, Input, Limit, NativeProgram, SandboxLimits};

#[tokio::test]
async fn only_the_work_directory_can_be_written() {
    let code = r#"
        #include <stdio.h>
        #include <fcntl.h>
        int main() {
            const char *paths[] = {"/x", "/usr/x", "/usr/lib/x", "/etc/x", "/dev/x", "/dev/shm/x", "/program/x",
                                   "/program/hello", "/work/x", "/tmp/y"};
            for (int i = 0; i < sizeof paths / sizeof *paths; i++)
                if (open(paths[i], O_CREAT | O_RDWR, 0600) != -1) puts(paths[i]);
        }"#;
    assert_eq!(stdout(&run(code).await), "/work/x\n/tmp/y\n");
}

#[tokio::test]
async fn the_work_directory_and_files_are_capped() {
    let code = r#"
        #include <errno.h>
        #include <fcntl.h>
        #include <stdio.h>
        #include <string.h>
        #include <unistd.h>
        static char block[1 << 20];
        int main() {
            long n = 0;
            for (int f = 0;; f++) {
                char name[9]; sprintf(name, "f%d", f);
                int fd = open(name, O_CREAT | O_WRONLY, 0600);
                for (int i = 0; i < 2; i++, n++)
                    if (write(fd, block, sizeof block) != sizeof block) { printf("%ld %s", n, strerror(errno)); return 0; }
                close(fd);
            }
        }"#;
    let few = SandboxLimits { work_dir: 8 << 20, ..limits() };
    assert_eq!(stdout(&run_with(code, Input::default(), few).await), "8 No space left on device");
    let small = SandboxLimits { file_size: 1 << 20, ..limits() };
    assert_eq!(run_with(code, Input::default(), small).await.ending, Ending::Limit(Limit::FileSize));
}

#[tokio::test]
async fn the_number_of_files_is_capped() {
    let code = |make: &str| {
        format!(
            "#include <fcntl.h>\n#include <stdio.h>\n#include <sys/stat.h>\n#include <unistd.h>\n
             int main() {{ for (int n = 0;; n++) {{ char name[20]; sprintf(name, \"%d\", n); {make}; }} }}"
        )
    };
    let few = SandboxLimits { files: 500, ..limits() };
    for make in [
        "close(open(name, O_CREAT | O_WRONLY, 0600))",
        "symlink(\"/etc/shadow\", name)",
        "mkfifo(name, 0600)",
        // Ever deeper.
        "mkdir(name, 0700); chdir(name)",
    ] {
        let outcome = run_with(&code(make), Input::default(), few.clone()).await;
        assert_eq!(outcome.ending, Ending::Limit(Limit::Files), "{make}");
    }
    let makefile = "all:\n\t@i=0; while :; do i=$$((i+1)); : >f$$i; done\n";
    match build("", makefile).await {
        Err(Error::BuildLimit { limit, .. }) => assert_eq!(limit, Limit::Files),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn open_files_are_capped() {
    let code = r#"
        #include <fcntl.h>
        #include <stdio.h>
        #include <sys/resource.h>
        int main() {
            struct rlimit all = {100000, 100000};
            printf("%d ", setrlimit(RLIMIT_NOFILE, &all));
            int n = 0; while (open("/dev/null", O_RDONLY) != -1) n++; printf("%d", n);
        }"#;
    // Three of them are its standard streams.
    let few = SandboxLimits { open_files: 20, ..limits() };
    assert_eq!(stdout(&run_with(code, Input::default(), few).await), "-1 17");
}

/// Neither by their names nor by links to them.
#[tokio::test]
async fn files_of_the_host_are_not_written() {
    let secret = Secret::new("written");
    let code = r#"
        #include <fcntl.h>
        #include <stdio.h>
        #include <sys/stat.h>
        #include <unistd.h>
        int main(int n, char **args) {
            if (open(args[1], O_WRONLY | O_TRUNC) != -1) puts("opened");
            if (link(args[1], "hard") == 0) puts("linked");
            if (rename(args[1], "stolen") == 0 || unlink(args[1]) == 0) puts("removed");
            symlink(args[1], "soft");
            if (open("soft", O_WRONLY | O_TRUNC) != -1) puts("followed");
            symlink("..", "up");
            char up[400]; sprintf(up, "up/../../../../..%s", args[1]);
            if (open(up, O_WRONLY | O_TRUNC) != -1) puts("climbed");
            symlink("/proc/1/root", "root");
            sprintf(up, "root%s", args[1]);
            if (open(up, O_WRONLY | O_TRUNC) != -1) puts("over the first process");
            // Within the work directory there are no surprises.
            close(open("own", O_CREAT | O_WRONLY, 0600));
            if (link("own", "again") != 0 || symlink("own", "soft again") != 0) puts("no links");
            if (link("/lib", "lib") == 0 || link("/program/hello", "program") == 0) puts("linked over file systems");
        }"#;
    assert_eq!(stdout(&run_with(code, args([secret.path()]), limits()).await), "");
    let path = secret.path();
    let said = make_says(&format!(
        "echo x >{path}; rm {path}; ln {path} hard; ln -s {path} soft; echo x >soft; cp -r /proc/1/root{path} y; \
         rm -f /usr/bin/gcc /lib; touch /usr/x {path}.x"
    ))
    .await;
    assert!(said.contains("Read-only file system"), "{said}");
    secret.assert_untouched();
}

/// What a build leaves is read inside, where a link leads nowhere else.
#[tokio::test]
async fn a_program_that_is_a_link_to_the_host_is_no_program() {
    let secret = Secret::new("linked");
    for makefile in [
        format!("all:\n\tln -s {} <name>\n", secret.path()),
        "all:\n\tln -s /etc/shadow <name>\n".to_owned(),
        "all:\n\tmkfifo <name>; chmod +x <name>\n".to_owned(),
        "all:\n\tmkdir <name>\n".to_owned(),
        "all:\n\tln -s /dev/random <name>\n".to_owned(),
    ] {
        match build("", &makefile).await {
            Err(Error::Build { first, .. }) => {
                assert!(first.starts_with("error: the build left no program hello"), "{makefile}{first}");
            }
            other => panic!("{makefile}: {other:?}"),
        }
    }
    secret.assert_untouched();
}

/// Each sandbox has a work directory of its own, and a new one.
#[tokio::test]
async fn nothing_is_left_for_the_next_one() {
    let code = r#"
        #include <fcntl.h>
        #include <stdio.h>
        #include <unistd.h>
        int main() { puts(access("mine", F_OK) == 0 ? "found" : "new"); close(open("mine", O_CREAT | O_WRONLY, 0600)); }"#;
    let program: NativeProgram = build(code, GCC).await.unwrap();
    for _ in 0..2 {
        let outcome = sandbox().run(&program, Input::default(), limits()).await.unwrap();
        assert_eq!(stdout(&outcome), "new\n");
    }
}

/// A core would be a stranger's memory, in a file or in what root's `core_pattern` starts.
#[tokio::test]
async fn there_are_no_core_dumps_of_either_kind() {
    let code = r#"
        #include <dirent.h>
        #include <stdio.h>
        #include <stdlib.h>
        #include <sys/resource.h>
        #include <sys/wait.h>
        #include <unistd.h>
        int main() {
            struct rlimit core; getrlimit(RLIMIT_CORE, &core);
            printf("%ld %ld\n", (long)core.rlim_cur, (long)core.rlim_max);
            fflush(stdout);
            if (fork() == 0) abort();
            int status; wait(&status);
            if (WCOREDUMP(status)) puts("dumped");
            DIR *here = opendir(".");
            for (struct dirent *file; file = readdir(here);) if (file->d_name[0] != '.') puts(file->d_name);
        }"#;
    // At 0 the kernel would still hand it to a program.
    assert_eq!(stdout(&run(code).await), "1 1\n");
}

/// The files that can be written are in memory, and the disk is everyone's: a descriptor is not even looked at.
#[tokio::test]
async fn nobody_has_the_disk_written() {
    let code = r#"
        #define _GNU_SOURCE
        #include <fcntl.h>
        #include <stdio.h>
        #include <unistd.h>
        int main() { printf("%d%d%d", fsync(-1), fdatasync(-1), sync_file_range(-1, 0, 0, 0)); }"#;
    assert_eq!(stdout(&run(code).await), "000");
}

#[tokio::test]
async fn whole_files_can_be_locked() {
    let code = r#"
        #include <fcntl.h>
        #include <stdio.h>
        #include <sys/file.h>
        int main() { printf("%d", flock(open("x", O_CREAT | O_RDWR, 0600), LOCK_EX)); }"#;
    assert_eq!(stdout(&run(code).await), "0");
    // make has its jobs take turns in writing by locks of another kind, and does without.
    let makefile = "all:\n\t@$(MAKE) -j2 -Otarget a b; echo error; false\na b:\n\t@echo made $@\n";
    match build("", makefile).await {
        Err(Error::Build { output, .. }) => {
            assert!(output.contains("made a\n") && output.contains("made b\n"), "{output}");
        }
        other => panic!("{other:?}"),
    }
}
