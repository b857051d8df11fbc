//! What WASI lacks, told where compilers and linkers only name a function or a header.

/// What WASI lacks, and the functions, macros and headers by whose absence it shows. A `*` stands for any ending.
const LACKS: [(&str, &str); 10] = [
    ("threads", "pthread.h pthread_* threads.h thrd_* mtx_* cnd_* tss_* semaphore.h sem_* omp.h omp_*"),
    (
        "sockets",
        "sys/socket.h sys/un.h netdb.h net/if.h ifaddrs.h socket socketpair bind listen accept accept4 \
         connect send sendto sendmsg recv recvfrom recvmsg setsockopt getsockopt getsockname getpeername \
         getaddrinfo freeaddrinfo gai_strerror gethostbyname gethostbyaddr gethostname inet_ntoa inet_addr \
         shutdown SO_* SOL_* AF_* PF_* SOCK_* sockaddr*",
    ),
    ("setjmp", "setjmp.h setjmp _setjmp __setjmp longjmp _longjmp sigsetjmp siglongjmp jmp_buf sigjmp_buf"),
    (
        "processes",
        "sys/wait.h spawn.h fork vfork execl execle execlp execv execve execvp execvpe fexecve posix_spawn* \
         wait wait3 wait4 waitpid waitid WNOHANG WIF* WEXITSTATUS system popen pclose pipe pipe2 dup dup2 \
         kill daemon setsid getppid sys/ptrace.h ptrace",
    ),
    (
        "signals from outside",
        "sigaction sigprocmask sigemptyset sigfillset sigaddset sigdelset sigsuspend sigwait SA_* alarm \
         ualarm pause setitimer timer_create",
    ),
    ("shared libraries", "dlfcn.h dlopen dlsym dlclose dlerror"),
    (
        "shared memory",
        "sys/ipc.h sys/shm.h sys/msg.h sys/sem.h shmget shmat shm_open msgget semget mqueue.h mq_open MAP_SHARED",
    ),
    ("terminals", "termios.h termio.h tcgetattr tcsetattr isatty ttyname curses.h ncurses.h TIOC*"),
    (
        "users",
        "pwd.h grp.h getpwuid getpwnam getgrgid getgrnam getuid geteuid getgid getegid setuid setgid getlogin",
    ),
    ("temporary files", "tmpfile tmpnam tempnam mkstemp mkdtemp mktemp"),
];

/// How errors tell that something is not there.
const ABSENT: [&str; 4] = ["undefined symbol: ", "' file not found", "undeclared ", "incomplete type "];

/// How they tell that C++ is not all there.
const NO_EXCEPTIONS: &str = "with exceptions disabled";

/// How a shell tells that it was to run what the build has made.
const FOREIGN: &str = "Exec format error";

/// What a build said, with what is behind it where that is WASI.
pub fn explained(output: &str) -> String {
    output.split_inclusive('\n').map(line_explained).collect()
}

fn line_explained(line: &str) -> String {
    let (text, end) = match line.strip_suffix('\n') {
        Some(text) => (text, "\n"),
        None => (line, ""),
    };
    if text.ends_with(FOREIGN) {
        return format!("error: {text} (what is built for WASI cannot run while building){end}");
    }
    match lack(text) {
        Some(what) => format!("{text} (WASI has no {what}){end}"),
        None => line.to_owned(),
    }
}

/// What WASI lacks that is the reason of this error.
fn lack(line: &str) -> Option<&'static str> {
    let (_, error) = line.split_once("error: ")?;
    if error.ends_with(NO_EXCEPTIONS) {
        return Some("exceptions");
    }
    if !ABSENT.iter().any(|absent| error.contains(absent)) {
        return None;
    }
    let is_part = |c: char| c.is_ascii_alphanumeric() || "_./".contains(c);
    error.split(|c| !is_part(c)).find_map(|word| {
        let names_it = |name: &str| match name.strip_suffix('*') {
            Some(beginning) => word.starts_with(beginning),
            None => word == name,
        };
        LACKS.iter().find(|(_, names)| names.split_whitespace().any(names_it)).map(|(what, _)| *what)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_told() {
        for (line, lacks) in [
            ("wasm-ld-14: error: /tmp/f-5.o: undefined symbol: fork", "processes"),
            ("wasm-ld: error: p.o: undefined symbol: pthread_create", "threads"),
            ("s.c:2:10: fatal error: 'setjmp.h' file not found", "setjmp"),
            ("s.c:2:10: fatal error: 'sys/wait.h' file not found", "processes"),
            (
                "s.c:9:1: error: call to undeclared function 'dlopen'; ISO C99 and later do not",
                "shared libraries",
            ),
            ("s.c:9:1: error: use of undeclared identifier 'SO_REUSEADDR'", "sockets"),
            ("s.c:9:1: error: variable has incomplete type 'struct sigaction'", "signals from outside"),
            ("s.cpp:9:1: error: cannot use 'throw' with exceptions disabled", "exceptions"),
        ] {
            assert_eq!(explained(line), format!("{line} (WASI has no {lacks})"));
        }
    }

    #[test]
    fn the_rest_stays_as_it_is() {
        for line in [
            "gcc fork.c\nfork.c:1:2: error: expected ';'\n",
            "a.o: undefined symbol: forked",
            "wasm-ld: error: a.o: undefined symbol: fork_all\n",
            "a.c:1:1: error: conflicting types for 'accept'",
            "a.c:1:1: warning: implicit declaration of function 'fork' is invalid in C99",
            "",
        ] {
            assert_eq!(explained(line), line);
        }
    }

    #[test]
    fn what_a_build_makes_and_runs_is_an_error_of_its_own() {
        assert_eq!(
            explained("gcc gen.c -o gen\n/bin/sh: 1: ./gen: Exec format error\nmake: *** Error 126\n"),
            "gcc gen.c -o gen\nerror: /bin/sh: 1: ./gen: Exec format error (what is built for WASI cannot run while \
             building)\nmake: *** Error 126\n"
        );
    }
}
