//! Ways to more rights, and into the kernel.

use crate::sandbox::{make_says, run, stdout};
use offload_native::Ending;

/// As on every Linux.
const SIGSYS: i32 = 31;

#[tokio::test]
async fn there_is_no_way_to_more_rights() {
    let code = r#"
        #define _GNU_SOURCE
        #include <grp.h>
        #include <sched.h>
        #include <stdio.h>
        #include <sys/fsuid.h>
        #include <sys/mount.h>
        #include <sys/prctl.h>
        #include <sys/ptrace.h>
        #include <sys/stat.h>
        #include <sys/sysmacros.h>
        #include <sys/wait.h>
        #include <unistd.h>
        #define REFUSED(call) if ((call) != -1) puts(#call)
        int main() {
            REFUSED(setuid(0));
            REFUSED(setgid(0));
            REFUSED(setresuid(0, 0, 0));
            gid_t root = 0;
            REFUSED(setgroups(1, &root));
            setfsuid(0);
            if (setfsuid(-1) == 0) puts("setfsuid");
            REFUSED(mknod("zero", S_IFCHR | 0666, makedev(1, 5)));
            REFUSED(mknod("disk", S_IFBLK | 0666, makedev(8, 0)));
            REFUSED(chroot("/work"));
            REFUSED(mount("none", "/work", "tmpfs", 0, 0));
            REFUSED(mount("/", "/work", 0, MS_BIND, 0));
            REFUSED(mount(0, "/", 0, MS_REMOUNT | MS_BIND, 0));
            REFUSED(umount("/work"));
            REFUSED(sethostname("x", 1));
            REFUSED(chown("/work", 0, 0));
            REFUSED(nice(-1));
            REFUSED(prctl(PR_CAPBSET_READ, 0, 0, 0, 0) - 1);
            if (prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) != 1) puts("new privileges");
            // A set-uid program of one's own gives no other user.
            close(creat("own", 0700));
            chmod("own", 06755);
            struct stat own; stat("own", &own);
            if (own.st_uid == 0) puts("a file of root's");
            // Of processes of one's own, too, nobody becomes the debugger.
            REFUSED(ptrace(PTRACE_TRACEME, 0, 0, 0));
            REFUSED(ptrace(PTRACE_ATTACH, 1, 0, 0));
            REFUSED(ptrace(PTRACE_SEIZE, getppid(), 0, 0));
            int every[] = {CLONE_NEWUSER, CLONE_NEWNS, CLONE_NEWPID, CLONE_NEWNET, CLONE_NEWIPC, CLONE_NEWUTS, CLONE_NEWCGROUP};
            for (int i = 0; i < sizeof every / sizeof *every; i++) REFUSED(unshare(every[i]));
        }"#;
    let outcome = run(code).await;
    assert_eq!((outcome.ending, stdout(&outcome)), (Ending::Exit(0), ""));
}

/// Each of them answers as if the kernel lacked it: the filter, and not something behind it that may be had later.
#[tokio::test]
async fn dangerous_calls_are_refused_by_the_filter() {
    let code = r#"
        #define _GNU_SOURCE
        #include <errno.h>
        #include <fcntl.h>
        #include <sched.h>
        #include <stdio.h>
        #include <sys/ioctl.h>
        #include <sys/resource.h>
        #include <sys/syscall.h>
        #include <unistd.h>
        #define ABSENT(...) do { errno = 0; if (syscall(__VA_ARGS__) != -1 || errno != ENOSYS) puts(#__VA_ARGS__); } while (0)
        int main() {
            ABSENT(SYS_ptrace, 0, 0, 0, 0);
            ABSENT(SYS_process_vm_readv, 1, 0, 0, 0, 0, 0);
            ABSENT(SYS_mount, 0, 0, 0, 0, 0);
            ABSENT(SYS_umount2, "/work", 0);
            ABSENT(SYS_pivot_root, 0, 0);
            ABSENT(SYS_chroot, "/");
            ABSENT(SYS_keyctl, 0, 0, 0, 0, 0);
            ABSENT(SYS_add_key, 0, 0, 0, 0, 0);
            ABSENT(SYS_request_key, 0, 0, 0, 0);
            ABSENT(SYS_bpf, 0, 0, 0);
            ABSENT(SYS_perf_event_open, 0, 0, -1, -1, 0);
            ABSENT(SYS_userfaultfd, 0);
            ABSENT(SYS_io_uring_setup, 1, 0);
            ABSENT(SYS_io_uring_enter, 0, 0, 0, 0, 0, 0);
            ABSENT(SYS_unshare, 0);
            ABSENT(SYS_setns, 0, 0);
            ABSENT(SYS_clone3, 0, 0);
            ABSENT(SYS_clone, CLONE_NEWUSER | 17, 0, 0, 0, 0);
            ABSENT(SYS_clone, CLONE_NEWNS | 17, 0, 0, 0, 0);
            ABSENT(SYS_kexec_load, 0, 0, 0, 0);
            ABSENT(SYS_init_module, 0, 0, "");
            ABSENT(SYS_finit_module, 0, "", 0);
            ABSENT(SYS_delete_module, "", 0);
            ABSENT(SYS_reboot, 0, 0, 0, 0);
            ABSENT(SYS_swapon, "", 0);
            ABSENT(SYS_acct, "");
            ABSENT(SYS_inotify_init1, 0);
            ABSENT(SYS_open_by_handle_at, 0, 0, 0);
            ABSENT(SYS_settimeofday, 0, 0);
            ABSENT(SYS_ioctl, 0, TIOCSTI, "x");
            ABSENT(SYS_ioctl, 0, 0x541c /* TIOCLINUX */, "x");
            ABSENT(SYS_ioctl, 0, 0x100000000 | TIOCSTI, "x");
            ABSENT(SYS_open_tree, 0, "", 0);
            ABSENT(SYS_mount_setattr, 0, "", 0, 0, 0);
            ABSENT(SYS_pidfd_getfd, 0, 0, 0);
            // Away from behind everyone else.
            struct sched_param parameters = {0};
            ABSENT(SYS_sched_setscheduler, 0, SCHED_OTHER, &parameters);
            ABSENT(SYS_sched_setparam, 0, &parameters);
            ABSENT(SYS_sched_setattr, 0, 0, 0);
            ABSENT(SYS_sched_setaffinity, 0, 0, 0);
            ABSENT(SYS_setpriority, 0, 0, 19);
            ABSENT(SYS_ioprio_set, 1, 0, 0);
            ABSENT(SYS_setsid);
            // Others' files to the disk.
            ABSENT(SYS_sync);
            ABSENT(SYS_syncfs, 0);
            // What the kernel would remember for as long as there are processes.
            ABSENT(SYS_fcntl, 0, F_SETLK, 0);
            ABSENT(SYS_fcntl, 0, F_SETLKW, 0);
            ABSENT(SYS_fcntl, 0, F_OFD_SETLK, 0);
            ABSENT(SYS_fcntl, 0, F_OFD_SETLKW, 0);
            ABSENT(SYS_fcntl, 0, F_SETLEASE, F_RDLCK);
            ABSENT(SYS_fcntl, 0, F_NOTIFY, DN_ACCESS);
            struct rlimit none = {0, 0};
            ABSENT(SYS_setrlimit, RLIMIT_CORE, &none);
            ABSENT(SYS_prlimit64, 0, RLIMIT_CORE, &none, 0);
            // What kernels to come have.
            ABSENT(463);
            ABSENT(1000);
        #ifdef __x86_64__
            ABSENT(SYS_iopl, 3);
            ABSENT(SYS_ioperm, 0, 1, 1);
            ABSENT(SYS_modify_ldt, 0, 0, 0);
            // The second numbers of calls.
            ABSENT(0x40000000 | SYS_getpid);
            ABSENT(512);
        #endif
        }"#;
    let outcome = run(code).await;
    assert_eq!((outcome.ending, stdout(&outcome)), (Ending::Exit(0), ""));
}

/// Calls of 32-bit programs have other numbers, which the filter does not know.
#[cfg(target_arch = "x86_64")]
#[tokio::test]
async fn calls_by_the_numbers_of_another_architecture_are_the_end() {
    let code =
        "int main() { long n = 20; __asm__ volatile(\"int $0x80\" : \"+a\"(n)); return n > 0 ? 0 : 1; }";
    assert_eq!(run(code).await.ending, Ending::Signal(SIGSYS));
}

#[tokio::test]
async fn a_build_has_no_rights_either() {
    let said = make_says("cat /proc/self/status").await;
    let line = |name: &str| {
        let line = said.lines().find_map(|line| line.strip_prefix(name));
        line.unwrap_or_else(|| panic!("{said}")).split_ascii_whitespace().collect::<Vec<_>>().join(" ")
    };
    for capabilities in ["CapInh:", "CapPrm:", "CapEff:", "CapBnd:", "CapAmb:"] {
        assert_eq!(line(capabilities), "0000000000000000", "{capabilities}");
    }
    assert_eq!((line("NoNewPrivs:"), line("Seccomp:")), ("1".into(), "2".into()));
    assert_eq!((line("Uid:"), line("Gid:")), ("1000 1000 1000 1000".into(), "1000 1000 1000 1000".into()));
    // Only the real user is in it; the rest of the machine's are nobody's, and no file is set-uid.
    let said = make_says(
        "cat /proc/self/uid_map | wc -l; su -c id; mount -t tmpfs x /work; unshare -Ur id; nsenter -t 1 -a id; \
         mknod x b 8 0; chroot / id; setpriv --reuid 0 id; sysctl -w kernel.hostname=x; echo 0 >/proc/self/uid_map; \
         echo x >/proc/sys/kernel/hostname; echo c >/proc/sysrq-trigger; dmesg; cat /proc/kcore /proc/kmsg; \
         cat /dev/mem; echo only; ls /dev",
    )
    .await;
    assert_eq!(said.lines().next(), Some("1"), "{said}");
    assert!(!said.contains("uid="), "{said}");
    assert!(said.contains("\nonly\nfd\nfull\nnull\nrandom\nstderr\nstdin\nstdout\nurandom\n\n"), "{said}");
}
