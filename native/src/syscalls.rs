//! System calls that a sandbox does without.

use seccompiler::{SeccompAction, SeccompFilter, TargetArch, sock_filter};
use std::collections::BTreeMap;

/// Calls that answer as if the kernel lacked them, so that programs with a second way take it.
const REFUSED: &[i64] = &[
    // Memory that belongs to no process, and so escapes the measurement of theirs.
    libc::SYS_memfd_create,
    libc::SYS_memfd_secret,
    libc::SYS_shmget,
    libc::SYS_shmat,
    libc::SYS_msgget,
    libc::SYS_semget,
    libc::SYS_mq_open,
    // There is no network to talk to, and buffers of sockets are the kernel's memory.
    libc::SYS_socket,
    libc::SYS_socketpair,
    // Large or lately added parts of the kernel that neither compilers nor ordinary programs need.
    libc::SYS_add_key,
    libc::SYS_bpf,
    libc::SYS_fanotify_init,
    libc::SYS_fsopen,
    libc::SYS_io_setup,
    libc::SYS_io_uring_setup,
    libc::SYS_kcmp,
    libc::SYS_keyctl,
    libc::SYS_mount,
    libc::SYS_move_mount,
    libc::SYS_name_to_handle_at,
    libc::SYS_open_by_handle_at,
    libc::SYS_open_tree,
    libc::SYS_perf_event_open,
    libc::SYS_personality,
    libc::SYS_pivot_root,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_ptrace,
    libc::SYS_quotactl,
    libc::SYS_request_key,
    libc::SYS_setns,
    libc::SYS_syslog,
    libc::SYS_umount2,
    libc::SYS_unshare,
    libc::SYS_userfaultfd,
    libc::SYS_vmsplice,
];

/// The filter as bubblewrap takes it: the kernel's own instructions, or why this CPU has none.
pub fn filter() -> Result<Vec<u8>, seccompiler::BackendError> {
    let arch = TargetArch::try_from(std::env::consts::ARCH)?;
    let refused: BTreeMap<_, _> = REFUSED.iter().map(|call| (*call, Vec::new())).collect();
    let refusal = SeccompAction::Errno(libc::ENOSYS as u32);
    let filter = SeccompFilter::new(refused, SeccompAction::Allow, refusal, arch)?;
    let program: Vec<sock_filter> = filter.try_into()?;
    let mut bytes = Vec::new();
    for instruction in refuse_x32().into_iter().chain(program) {
        bytes.extend_from_slice(&instruction.code.to_ne_bytes());
        bytes.extend_from_slice(&[instruction.jt, instruction.jf]);
        bytes.extend_from_slice(&instruction.k.to_ne_bytes());
    }
    Ok(bytes)
}

/// x86-64 kernels may know every call by a second number, with this bit set; the list above names the first alone.
#[cfg(target_arch = "x86_64")]
fn refuse_x32() -> Vec<sock_filter> {
    const X32_BIT: u32 = 0x4000_0000;
    const LOAD_WORD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
    const JUMP_IF_AT_LEAST: u16 = (libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K) as u16;
    const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
    vec![
        sock_filter { code: LOAD_WORD, jt: 0, jf: 0, k: 0 },
        sock_filter { code: JUMP_IF_AT_LEAST, jt: 0, jf: 1, k: X32_BIT },
        sock_filter { code: RETURN, jt: 0, jf: 0, k: libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32 },
    ]
}

#[cfg(not(target_arch = "x86_64"))]
fn refuse_x32() -> Vec<sock_filter> {
    Vec::new()
}
