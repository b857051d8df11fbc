//! System calls that a sandbox does without.
//!
//! What is refused answers as if the kernel lacked it, so that programs with a second way take it. A list of what is
//! allowed would be shorter only for one C library and one compiler; what it would add is caught otherwise: calls that
//! are newer than this list are refused unseen, and the large interfaces are all on it.

use rustix::process::Resource;
use seccompiler::{
    BackendError, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch, sock_filter,
};
use std::collections::BTreeMap;

/// Calls that are refused whatever their arguments.
const REFUSED: &[i64] = &[
    // Memory that belongs to no process, and so escapes the measurement of theirs.
    libc::SYS_memfd_create,
    libc::SYS_memfd_secret,
    libc::SYS_mq_open,
    libc::SYS_msgget,
    libc::SYS_semget,
    libc::SYS_shmat,
    libc::SYS_shmget,
    // There is no network to talk to, and buffers of sockets are the kernel's memory.
    libc::SYS_socket,
    // What a pair of sockets could do beside being read and written: have a name, take another's calls, larger buffers
    // and descriptors on their way.
    libc::SYS_accept,
    libc::SYS_accept4,
    libc::SYS_bind,
    libc::SYS_connect,
    libc::SYS_listen,
    libc::SYS_sendmmsg,
    libc::SYS_sendmsg,
    libc::SYS_sendto,
    libc::SYS_setsockopt,
    // Its flags are in memory, where no filter sees them; C libraries then take clone.
    libc::SYS_clone3,
    // Each watch holds an inode in the kernel's memory, and the toolchain has hundreds of thousands.
    libc::SYS_inotify_init1,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_inotify_init,
    // A sandbox runs after everyone else, in one session, and its threads stay so.
    libc::SYS_ioprio_set,
    libc::SYS_sched_setaffinity,
    libc::SYS_sched_setattr,
    libc::SYS_sched_setparam,
    libc::SYS_sched_setscheduler,
    libc::SYS_setpriority,
    libc::SYS_setsid,
    // Nothing of a sandbox's is on a disk, and everyone else would wait for what is.
    libc::SYS_sync,
    libc::SYS_syncfs,
    // Others' memory, threads and descriptors.
    libc::SYS_kcmp,
    libc::SYS_migrate_pages,
    libc::SYS_move_pages,
    libc::SYS_pidfd_getfd,
    libc::SYS_process_madvise,
    libc::SYS_process_mrelease,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_ptrace,
    // Namespaces, mounts and what leads around them.
    libc::SYS_chroot,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fsopen,
    libc::SYS_fspick,
    libc::SYS_mount,
    libc::SYS_mount_setattr,
    libc::SYS_move_mount,
    libc::SYS_name_to_handle_at,
    libc::SYS_open_by_handle_at,
    libc::SYS_open_tree,
    libc::SYS_pivot_root,
    libc::SYS_setns,
    libc::SYS_umount2,
    libc::SYS_unshare,
    // Large parts of the kernel that neither compilers nor ordinary programs need.
    libc::SYS_add_key,
    libc::SYS_bpf,
    libc::SYS_fanotify_init,
    libc::SYS_io_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_io_uring_setup,
    libc::SYS_keyctl,
    libc::SYS_perf_event_open,
    libc::SYS_personality,
    libc::SYS_request_key,
    libc::SYS_userfaultfd,
    libc::SYS_vmsplice,
    // The machine itself. Rights would be missing anyway.
    libc::SYS_acct,
    libc::SYS_adjtimex,
    libc::SYS_clock_adjtime,
    libc::SYS_clock_settime,
    libc::SYS_delete_module,
    libc::SYS_finit_module,
    libc::SYS_init_module,
    libc::SYS_kexec_load,
    libc::SYS_quotactl,
    libc::SYS_quotactl_fd,
    libc::SYS_reboot,
    libc::SYS_setdomainname,
    libc::SYS_sethostname,
    libc::SYS_settimeofday,
    libc::SYS_swapoff,
    libc::SYS_swapon,
    libc::SYS_syslog,
    libc::SYS_vhangup,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_ioperm,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_iopl,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_kexec_file_load,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_modify_ldt,
];

/// Calls that are refused where all these bits are set in one of their arguments: the call, which argument, the bits.
const REFUSED_BITS: &[(i64, u8, i32)] = &[
    (libc::SYS_clone, 0, libc::CLONE_NEWCGROUP),
    (libc::SYS_clone, 0, libc::CLONE_NEWIPC),
    (libc::SYS_clone, 0, libc::CLONE_NEWNET),
    (libc::SYS_clone, 0, libc::CLONE_NEWNS),
    (libc::SYS_clone, 0, libc::CLONE_NEWPID),
    (libc::SYS_clone, 0, libc::CLONE_NEWUSER),
    (libc::SYS_clone, 0, libc::CLONE_NEWUTS),
    // Memory that belongs to no process again, once its pages are in no process's tables any more; MAP_SHARED_VALIDATE
    // has the bit of MAP_SHARED. And pages that no process's figures count.
    (libc::SYS_mmap, 3, libc::MAP_SHARED | libc::MAP_ANONYMOUS),
    (libc::SYS_mmap, 3, libc::MAP_HUGETLB),
];

/// Calls that are refused where one of their arguments, of which the kernel reads 32 bits, is this.
const REFUSED_VALUES: &[(i64, u8, u32)] = &[
    // Typing into a terminal, and into the console.
    (libc::SYS_ioctl, 1, libc::TIOCSTI as u32),
    (libc::SYS_ioctl, 1, 0x541c),
    // A pipe beyond its usual size is the kernel's memory.
    (libc::SYS_fcntl, 1, libc::F_SETPIPE_SZ as u32),
    // Locks of parts of a file, which are as many as it has bytes; `flock` has one for each descriptor. And what
    // watches files.
    (libc::SYS_fcntl, 1, libc::F_SETLK as u32),
    (libc::SYS_fcntl, 1, libc::F_SETLKW as u32),
    (libc::SYS_fcntl, 1, libc::F_OFD_SETLK as u32),
    (libc::SYS_fcntl, 1, libc::F_OFD_SETLKW as u32),
    (libc::SYS_fcntl, 1, libc::F_SETLEASE as u32),
    (libc::SYS_fcntl, 1, libc::F_NOTIFY as u32),
    // A limit on core dumps that is lower would allow some: see `rlimits.rs`.
    (libc::SYS_setrlimit, 0, Resource::Core as u32),
];

/// Calls that are answered as done: files that can be written are in memory, and others' would have the disk wait.
const DONE: [i64; 3] = [libc::SYS_fdatasync, libc::SYS_fsync, libc::SYS_sync_file_range];

/// The newest call that the lists above have been looked through for, by its number, which is the same on all
/// architectures: mseal, of Linux 6.10.
const NEWEST: u32 = 462;

/// The pair of sockets by which a program of Rust's standard library hears from its child whether that could start:
/// compilers start linkers so. It is exactly this type.
const PAIR: u32 = (libc::SOCK_SEQPACKET | libc::SOCK_CLOEXEC) as u32;

/// What a sandbox is for, and so which calls it may make.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Calls {
    /// Only those that nothing on the lists is.
    Run,
    /// Pairs of sockets too, of the type [`PAIR`].
    Build,
}

/// The filters as bubblewrap takes them: the kernel's own instructions.
#[derive(Debug)]
pub struct Filters {
    run: Vec<u8>,
    build: Vec<u8>,
}

impl Filters {
    /// Makes them, or says why there are none for this CPU.
    pub fn new() -> Result<Self, BackendError> {
        Ok(Self { run: filter(Calls::Run)?, build: filter(Calls::Build)? })
    }

    /// The one of such sandboxes.
    pub fn of(&self, calls: Calls) -> &[u8] {
        match calls {
            Calls::Run => &self.run,
            Calls::Build => &self.build,
        }
    }
}

/// One filter. Calls by the numbers of another architecture end the process.
fn filter(calls: Calls) -> Result<Vec<u8>, BackendError> {
    let arch = TargetArch::try_from(std::env::consts::ARCH)?;
    let pairs = (calls == Calls::Run).then_some(&libc::SYS_socketpair);
    let mut refused: BTreeMap<i64, Vec<SeccompRule>> =
        REFUSED.iter().chain(pairs).map(|call| (*call, Vec::new())).collect();
    let mut refuse = |call, conditions| {
        refused.entry(call).or_default().push(SeccompRule::new(conditions)?);
        Ok::<(), BackendError>(())
    };
    let word =
        |argument, operator, value| SeccompCondition::new(argument, SeccompCmpArgLen::Dword, operator, value);
    for (call, argument, bits) in REFUSED_BITS {
        let bits = u64::from(*bits as u32);
        refuse(*call, vec![word(*argument, SeccompCmpOp::MaskedEq(bits), bits)?])?;
    }
    for (call, argument, value) in REFUSED_VALUES {
        refuse(*call, vec![word(*argument, SeccompCmpOp::Eq, u64::from(*value))?])?;
    }
    if calls == Calls::Build {
        for (argument, only) in [(0, libc::AF_UNIX as u32), (1, PAIR)] {
            refuse(libc::SYS_socketpair, vec![word(argument, SeccompCmpOp::Ne, u64::from(only))?])?;
        }
    }
    // Setting, beside which the same call reads.
    let new_limit = SeccompCondition::new(2, SeccompCmpArgLen::Qword, SeccompCmpOp::Ne, 0)?;
    let of_cores = word(1, SeccompCmpOp::Eq, Resource::Core as u64)?;
    refuse(libc::SYS_prlimit64, vec![of_cores, new_limit])?;
    let refusal = SeccompAction::Errno(libc::ENOSYS as u32);
    let filter = SeccompFilter::new(refused, SeccompAction::Allow, refusal, arch)?;
    let program: Vec<sock_filter> = filter.try_into()?;
    let mut bytes = Vec::new();
    for instruction in answer_first().into_iter().chain(program) {
        bytes.extend_from_slice(&instruction.code.to_ne_bytes());
        bytes.extend_from_slice(&[instruction.jt, instruction.jf]);
        bytes.extend_from_slice(&instruction.k.to_ne_bytes());
    }
    Ok(bytes)
}

/// What goes before the lists of refused calls. It refuses what is newer than [`NEWEST`], and with it the second
/// numbers that x86-64 kernels may know every call by, which have a high bit set; the lists name the first alone. And
/// it answers [`DONE`].
fn answer_first() -> Vec<sock_filter> {
    const LOAD_WORD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
    const JUMP_IF_ABOVE: u16 = (libc::BPF_JMP | libc::BPF_JGT | libc::BPF_K) as u16;
    const JUMP_IF_EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
    const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
    let answer = |jump, number, error: i32| {
        [
            sock_filter { code: jump, jt: 0, jf: 1, k: number },
            sock_filter { code: RETURN, jt: 0, jf: 0, k: libc::SECCOMP_RET_ERRNO | error as u32 },
        ]
    };
    let mut first = vec![sock_filter { code: LOAD_WORD, jt: 0, jf: 0, k: 0 }];
    first.extend(answer(JUMP_IF_ABOVE, NEWEST, libc::ENOSYS));
    first.extend(DONE.iter().flat_map(|call| answer(JUMP_IF_EQUAL, *call as u32, 0)));
    first
}
