//! Ways out by sockets: to the network, to the machine's own services, to names that are no files.

use crate::sandbox::{args, limits, make_says, run, run_with, sandbox, stdout};
use offload_native::{Input, Node, Platform, Project};
use std::net::TcpListener;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};

/// A program that asks for sockets is told that there are none, of no family.
#[tokio::test]
async fn no_family_of_sockets_is_there() {
    let code = r#"
        #include <errno.h>
        #include <stdio.h>
        #include <sys/socket.h>
        int main() {
            int ends[2];
            for (int family = 0; family < 64; family++)
                for (int type = 1; type <= 10; type++) {
                    errno = 0;
                    if (socket(family, type, 0) != -1 || errno != ENOSYS) printf("socket %d %d\n", family, type);
                    errno = 0;
                    if (socketpair(family, type, 0, ends) != -1 || errno != ENOSYS) printf("pair %d %d\n", family, type);
                }
        }"#;
    assert_eq!(stdout(&run(code).await), "");
}

/// Neither a listener on loopback nor one in the abstract name space is reached, and nothing comes of trying.
#[tokio::test]
async fn listeners_of_the_host_are_not_reached() {
    let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
    tcp.set_nonblocking(true).unwrap();
    let port = tcp.local_addr().unwrap().port().to_string();
    let name = crate::host::mark("abstract");
    let address = SocketAddr::from_abstract_name(&name).unwrap();
    let local = UnixListener::bind_addr(&address).unwrap();
    local.set_nonblocking(true).unwrap();

    let code = r#"
        #include <arpa/inet.h>
        #include <stddef.h>
        #include <stdio.h>
        #include <stdlib.h>
        #include <string.h>
        #include <sys/socket.h>
        #include <sys/un.h>
        int main(int n, char **args) {
            // Where no socket can be made, perhaps one was left open.
            for (int fd = -1; fd < 64; fd++) {
                int s = fd == -1 ? socket(AF_INET, SOCK_STREAM, 0) : fd;
                struct sockaddr_in in = {AF_INET, htons(atoi(args[1])), {htonl(INADDR_LOOPBACK)}};
                if (connect(s, (void *)&in, sizeof in) == 0) puts("connected to loopback");
                int u = fd == -1 ? socket(AF_UNIX, SOCK_STREAM, 0) : fd;
                struct sockaddr_un un = {AF_UNIX};
                strcpy(un.sun_path + 1, args[2]);
                if (connect(u, (void *)&un, offsetof(struct sockaddr_un, sun_path) + 1 + strlen(args[2])) == 0)
                    puts("connected to the abstract name");
            }
        }"#;
    let outcome = run_with(code, args([&port, &name]), limits()).await;
    assert_eq!(stdout(&outcome), "");
    let said = make_says(&format!("bash -c ': </dev/tcp/127.0.0.1/{port}' && echo connected")).await;
    assert!(!said.contains("connected"), "{said}");

    for refused in [tcp.accept().map(|_| ()), local.accept().map(|_| ())] {
        assert_eq!(refused.unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
    }
}

/// The filter of system calls is one lock, the namespace another: it has no route, and no sockets of the host's.
#[tokio::test]
async fn the_network_is_another_one() {
    let name = crate::host::mark("listed");
    let _listener = UnixListener::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
    assert!(std::fs::read_to_string("/proc/net/unix").unwrap().contains(&name));
    let said = make_says("cat /proc/net/route /proc/net/unix /proc/net/tcp").await;
    let lines: Vec<&str> = said.lines().map(str::trim).take_while(|line| !line.is_empty()).collect();
    let [route, unix, tcp] = lines[..] else { panic!("{said}") };
    assert!(route.starts_with("Iface"), "{said}");
    assert!(unix.starts_with("Num") && tcp.starts_with("sl"), "{said}");
}

#[tokio::test]
async fn every_namespace_is_another_one() {
    let own = |kind| std::fs::read_link(format!("/proc/self/ns/{kind}")).unwrap().display().to_string();
    for kind in ["cgroup", "ipc", "mnt", "net", "pid", "user", "uts"] {
        let said = make_says(&format!("readlink /proc/self/ns/{kind}")).await;
        assert!(said.starts_with(&format!("{kind}:[")) && !said.contains(&own(kind)), "{said}");
    }
}

/// Starts a program as Rust's standard library does, which hears by a pair of sockets whether that could be executed:
/// as rustc starts the linker. What else such a pair could be, or do, is refused in builds as everywhere.
const STARTER: &str = r#"
    #include <errno.h>
    #include <stdio.h>
    #include <string.h>
    #include <sys/socket.h>
    #include <sys/un.h>
    #include <sys/wait.h>
    #include <unistd.h>
    #define REFUSED(call) if ((errno = 0, (call)) != -1 || errno != ENOSYS) fprintf(stderr, "allowed: %s\n", #call)
    int start(char **command) {
        int ends[2];
        if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends)) return perror("socketpair"), -1;
        if (!fork()) {
            execvp(command[0], command);
            write(ends[1], &errno, sizeof errno);
            _exit(1);
        }
        close(ends[1]);
        int error = 0, status;
        read(ends[0], &error, sizeof error);
        wait(&status);
        close(ends[0]);
        return error;
    }
    int main(int n, char **args) {
        fprintf(stderr, "missing: %s\n", strerror(start((char *[]){"no-such-linker", 0})));
        int ends[2], fd;
        socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends);
        fd = ends[0];
        for (int family = 0; family < 64; family++)
            for (int type = 0; type < 8; type++) {
                REFUSED(socket(family, type, 0));
                if (family == AF_UNIX && type == SOCK_SEQPACKET) continue;
                REFUSED(socketpair(family, type | SOCK_CLOEXEC, 0, ends));
            }
        REFUSED(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, ends));
        struct sockaddr_un name = {AF_UNIX, "/work/name"};
        REFUSED(bind(fd, (void *)&name, sizeof name));
        REFUSED(listen(fd, 1));
        REFUSED(connect(fd, (void *)&name, sizeof name));
        REFUSED(accept(fd, 0, 0));
        REFUSED(send(fd, "x", 1, 0));
        REFUSED(sendmsg(fd, &(struct msghdr){0}, 0));
        int size = 1 << 30;
        REFUSED(setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &size, sizeof size));
        return start(args + 1);
    }"#;

#[tokio::test]
async fn compilers_start_linkers_and_nothing_comes_of_their_sockets() {
    let project = Project {
        files: vec![
            ("starter.c", STARTER.as_bytes()),
            ("hello.c", b"#include <stdio.h>\nint main() { puts(\"linked\"); }"),
        ],
        makefile: Some(
            b"hello:\n\t@gcc starter.c -o starter\n\t@./starter gcc hello.c -o $@ 2>said; cat said\n",
        ),
        target: None,
    };
    let program = sandbox().build_project(&project, Platform::Native).await.unwrap();
    let folder = program.folder().unwrap();
    let said = folder.entries().iter().find(|entry| entry.path == "said").unwrap();
    let Node::File(range) = &said.node else { panic!("{said:?}") };
    let said = std::str::from_utf8(&folder.archive()[range.clone()]).unwrap();
    assert_eq!(said, "missing: No such file or directory\n");
    let outcome = sandbox().run(&program, Input::default(), limits()).await.unwrap();
    assert_eq!(stdout(&outcome), "linked\n");
}
