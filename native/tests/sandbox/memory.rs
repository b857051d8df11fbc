//! Programs and compilers that take all memory, in one process or many, and memory that belongs to none.

use crate::sandbox::{GCC, build_in, limits, run, run_with, stdout, with_builds};
use offload_native::{Ending, Error, Input, Limit, SandboxLimits};
use std::time::Duration;

#[tokio::test]
async fn memory_is_limited_over_all_processes() {
    let alone = "#include <stdlib.h>\n#include <string.h>\nint main() { for (;;) memset(malloc(1 << 20), 1, 1 << 20); }";
    assert_eq!(run(alone).await.ending, Ending::Limit(Limit::Memory));
    // No one of them is over the limit.
    let spread = r#"
        #include <stdlib.h>
        #include <string.h>
        #include <unistd.h>
        int main() {
            for (int i = 0; i < 15 && fork(); i++);
            memset(malloc(8 << 20), 1, 8 << 20);
            pause();
        }"#;
    assert_eq!(run(spread).await.ending, Ending::Limit(Limit::Memory));
}

/// The first thread ends and another one goes on: the process then looks as if it had no memory.
#[tokio::test]
async fn threads_that_outlive_their_first_hide_nothing() {
    let code = r#"
        #include <pthread.h>
        #include <stdlib.h>
        #include <string.h>
        static void *bomb(void *_) { for (;;) memset(malloc(1 << 20), 1, 1 << 20); }
        int main() { pthread_t t; pthread_create(&t, 0, bomb, 0); pthread_exit(0); }"#;
    assert_eq!(run(code).await.ending, Ending::Limit(Limit::Memory));
}

/// Pages that are shared, and no longer in the tables of any process, are in no process's figures.
#[tokio::test]
async fn memory_that_belongs_to_no_process_is_not_to_be_had() {
    let code = r#"
        #define _GNU_SOURCE
        #include <fcntl.h>
        #include <stdio.h>
        #include <sys/ipc.h>
        #include <sys/mman.h>
        #include <sys/msg.h>
        #include <sys/shm.h>
        #include <unistd.h>
        #define MIB (1 << 20)
        int main() {
            if (mmap(0, MIB, 3, MAP_SHARED | MAP_ANONYMOUS, -1, 0) != MAP_FAILED) puts("shared");
            if (mmap(0, MIB, 3, MAP_SHARED_VALIDATE | MAP_ANONYMOUS, -1, 0) != MAP_FAILED) puts("validated");
            if (mmap(0, 2 * MIB, 3, MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB, -1, 0) != MAP_FAILED) puts("huge");
            if (open("/dev/zero", O_RDWR) != -1) puts("/dev/zero");
            if (open("/dev/shm/x", O_RDWR | O_CREAT, 0600) != -1) puts("/dev/shm");
            if (memfd_create("x", 0) != -1) puts("memfd");
            if (shmget(IPC_PRIVATE, MIB, 0600) != -1) puts("shmget");
            if (msgget(IPC_PRIVATE, 0600) != -1) puts("msgget");
            int ends[2]; pipe(ends);
            if (fcntl(ends[0], F_SETPIPE_SZ, MIB) != -1) puts("pipe");
            // A file is in the work directory, whose size is limited.
            int file = open("x", O_RDWR | O_CREAT, 0600); ftruncate(file, MIB);
            if (mmap(0, MIB, 3, MAP_SHARED, file, 0) == MAP_FAILED) puts("no file");
        }"#;
    assert_eq!(stdout(&run(code).await), "");
}

/// Memory that belongs to a chain of processes, each of which ends as soon as the next one has it.
#[tokio::test]
async fn memory_that_is_handed_on_all_the_time_is_seen() {
    let code = r#"
        #define _GNU_SOURCE
        #include <sched.h>
        #include <signal.h>
        #include <stdlib.h>
        #include <string.h>
        #include <unistd.h>
        static char stacks[64][16384];
        static int next(void *number) {
            long after = ((long)number + 1) % 64;
            clone(next, stacks[after] + sizeof *stacks, CLONE_VM | SIGCHLD, (void *)after);
            _exit(0);
        }
        int main() {
            memset(malloc(100 << 20), 1, 100 << 20);
            next(0);
        }"#;
    assert_eq!(run(code).await.ending, Ending::Limit(Limit::Memory));
}

/// Every other page has other rights, so that each is a mapping, of which the kernel keeps a record.
#[tokio::test]
async fn mappings_are_limited_over_all_processes() {
    let code = r#"
        #include <stdio.h>
        #include <sys/mman.h>
        #include <sys/wait.h>
        #include <unistd.h>
        #define PAGES 10000L
        int main() {
            long page = sysconf(_SC_PAGESIZE);
            char *all = mmap(0, PAGES * page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
            for (long i = 0; i < PAGES; i += 2) if (mprotect(all + i * page, page, PROT_READ) != 0) return 1;
            puts("one"); fflush(stdout);
            if (fork() == 0) pause();
            pause();
        }"#;
    let brief = SandboxLimits { wall: Duration::from_secs(30), ..limits() };
    let outcome = run_with(code, Input::default(), brief).await;
    assert_eq!((outcome.ending, stdout(&outcome)), (Ending::Limit(Limit::Memory), "one\n"));
}

#[tokio::test]
async fn a_compiler_that_takes_all_memory_is_ended() {
    let sandbox = with_builds(|limits| limits.memory = 128 << 20);
    let templates = "
        template<int N, int M> struct Deep : Deep<N - 1, M>, Deep<N - 1, M + (1 << N)> { char c[N]; };
        template<int M> struct Deep<0, M> {};
        Deep<20, 0> deep; int main() {}";
    let macros = "
        #define A(x) x x x x x x x x x x x x x x x x
        #define B(x) A(A(A(A(x))))
        const char *text = B(B(\"text\")); int main() {}";
    match build_in(&sandbox, templates, "g++ <name>.cpp -o <name>").await {
        Err(Error::BuildLimit { limit, .. }) => assert_eq!(limit, Limit::Memory),
        other => panic!("{other:?}"),
    }
    match build_in(&sandbox, macros, GCC).await {
        Err(Error::BuildLimit { limit, .. }) => assert_eq!(limit, Limit::Memory),
        // It asks for more at once than one process may have.
        Err(Error::Build { first, .. }) => assert!(first.contains("out of memory"), "{first}"),
        other => panic!("{other:?}"),
    }
}

/// What waits in the pairs of sockets that builds may have is in no process's figures, but counts.
#[tokio::test]
async fn what_fills_pairs_of_sockets_is_ended() {
    let sandbox = with_builds(|limits| limits.memory = 128 << 20);
    let code = r#"
        #define _GNU_SOURCE
        #include <fcntl.h>
        #include <sys/socket.h>
        #include <unistd.h>
        static char block[65536];
        int main() {
            for (int i = 0; i < 4; i++) fork();
            int ends[2];
            while (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) == 0)
                for (int i = 0; i < 2; i++) {
                    fcntl(ends[i], F_SETFL, O_NONBLOCK);
                    while (write(ends[i], block, sizeof block) > 0);
                }
            pause();
        }"#;
    match build_in(&sandbox, code, "all:\n\tgcc <name>.c -o <name>\n\t./<name>\n").await {
        Err(Error::BuildLimit { limit, .. }) => assert_eq!(limit, Limit::Memory),
        other => panic!("{other:?}"),
    }
}
