//! The host calls of WASI preview 1 on the files of a module's folder: read-only, in memory, and bounded as others are.
//!
//! A descriptor that is no file of the folder is wasmtime-wasi's. What would change the folder is refused as on a file
//! system that is mounted read-only. Layouts are those of the `wasi_snapshot_preview1` witx.

use super::abi::{
    ERRNO_BADF, ERRNO_FAULT, ERRNO_INVAL, Guest, HOSTCALL_BYTES, MAX_IO_VECTORS, MODULE, SUCCESS, io_vector,
    memory, slice, slice_mut, wasmtime_preview1, write_u32,
};
use crate::wasm::folder::{Folder, NoSuchPath, Node, NodeId};
use crate::wasm::guest_state::GuestState;
use crate::wasm::stdio::MAX_READ;
use wasmtime::{Linker, Result};
use wiggle::GuestMemory;

const ERRNO_ILSEQ: i32 = 25;
const ERRNO_ISDIR: i32 = 31;
const ERRNO_LOOP: i32 = 32;
const ERRNO_MFILE: i32 = 33;
const ERRNO_NAMETOOLONG: i32 = 37;
const ERRNO_NOENT: i32 = 44;
const ERRNO_NOTDIR: i32 = 54;
const ERRNO_ROFS: i32 = 69;
const ERRNO_NOTCAPABLE: i32 = 76;

/// Bytes of a path, as Linux has it.
const MAX_PATH: u32 = 4096;

const FILETYPE_DIRECTORY: u8 = 3;
const FILETYPE_REGULAR_FILE: u8 = 4;
const FILETYPE_SYMBOLIC_LINK: u8 = 7;

/// Rights of a file that is read (`fd_read`, `fd_seek`, `fd_tell`, `fd_advise`, `fd_filestat_get`,
/// `poll_fd_readwrite`), and those that C's `open` asks for only to write (`fd_datasync`, `fd_write`, `fd_allocate`,
/// `fd_filestat_set_size`).
const READING: u64 = (1 << 1) | (1 << 2) | (1 << 5) | (1 << 7) | (1 << 21) | (1 << 27);
const WRITING: u64 = (1 << 0) | (1 << 6) | (1 << 8) | (1 << 22);

/// A flag of lookups: a link at the path's end is followed.
const SYMLINK_FOLLOW: i32 = 1;

/// Flags of `path_open`.
const CREATE: i32 = 1;
const DIRECTORY: i32 = 2;
const TRUNCATE: i32 = 8;

/// A call on a descriptor of the folder: done, or the error's number.
type Done = std::result::Result<(), i32>;

/// Adds a call whose first parameter is a descriptor: ours where that is one of the folder's, else wasmtime-wasi's,
/// whose future is awaited where it has one (`[.await]`).
macro_rules! add {
    ($linker:ident, $name:ident [$($wait:tt)*], $($parameter:ident: $type:ty),*; $ours:expr) => {
        $linker.func_wrap_async(
            MODULE,
            stringify!($name),
            |mut caller: Guest<'_>, (fd, $($parameter,)*): (i32, $($type,)*)| {
                Box::new(async move {
                    let memory = memory(&mut caller)?;
                    let (data, state) = memory.data_and_store_mut(&mut caller);
                    let errno = if state.files.has(fd) {
                        let ours: fn(&mut [u8], &mut GuestState, i32, $($type),*) -> Done = $ours;
                        ours(data, state, fd, $($parameter),*).err().unwrap_or(SUCCESS)
                    } else {
                        let data = &mut GuestMemory::Unshared(data);
                        wasmtime_preview1::$name(&mut state.wasi, data, fd, $($parameter),*)$($wait)*?
                    };
                    Ok::<i32, wasmtime::Error>(errno)
                })
            },
        )?;
    };
}

/// Adds them to a linker, in place of those that are there.
pub fn add_to_linker(linker: &mut Linker<GuestState>) -> Result<()> {
    add!(linker, fd_advise [.await], offset: i64, length: i64, advice: i32; |_, _, _, _, _, _| Ok(()));
    add!(linker, fd_datasync [.await],; |_, _, _| Ok(()));
    add!(linker, fd_fdstat_get [.await], at: i32; fd_fdstat_get);
    add!(linker, fd_fdstat_set_flags [], flags: i32; |_, _, _, _| Ok(()));
    add!(linker, fd_filestat_get [.await], at: i32; fd_filestat_get);
    add!(linker, fd_pread [.await], list: i32, count: i32, offset: i64, read: i32; fd_pread);
    add!(linker, fd_prestat_dir_name [], at: i32, length: i32; fd_prestat_dir_name);
    add!(linker, fd_prestat_get [], at: i32; fd_prestat_get);
    add!(linker, fd_readdir [.await], at: i32, length: i32, cookie: i64, used: i32; fd_readdir);
    add!(linker, fd_seek [.await], offset: i64, whence: i32, position: i32; fd_seek);
    add!(linker, fd_sync [.await],; |_, _, _| Ok(()));
    add!(linker, fd_tell [], position: i32; |data, state, fd, position| fd_seek(data, state, fd, 0, 1, position));
    add!(linker, path_filestat_get [.await], flags: i32, path: i32, length: i32, at: i32; path_filestat_get);
    add!(linker, path_open [.await], flags: i32, path: i32, length: i32, how: i32, rights: i64, inherited: i64,
    status: i32, opened: i32;
    |data, state, fd, flags, path, length, how, rights, _, _, opened| {
        path_open(data, state, fd, [flags, path, length, how, opened], rights)
    });
    add!(linker, path_readlink [.await], path: i32, length: i32, at: i32, room: i32, used: i32;
    |data, state, fd, path, length, at, room, used| {
        path_readlink(data, state, fd, path, length, [at, room, used])
    });
    add!(linker, path_create_directory [.await], path: i32, length: i32; |_, _, _, _, _| Err(ERRNO_ROFS));
    add!(linker, path_filestat_set_times [.await], flags: i32, path: i32, length: i32, access: i64, change: i64,
        which: i32;
        |_, _, _, _, _, _, _, _, _| Err(ERRNO_ROFS));
    add!(linker, path_link [.await], flags: i32, path: i32, length: i32, to: i32, new: i32, new_length: i32;
        |_, _, _, _, _, _, _, _, _| Err(ERRNO_ROFS));
    add!(linker, path_remove_directory [.await], path: i32, length: i32; |_, _, _, _, _| Err(ERRNO_ROFS));
    add!(linker, path_rename [.await], path: i32, length: i32, to: i32, new: i32, new_length: i32;
        |_, _, _, _, _, _, _, _| Err(ERRNO_ROFS));
    add!(linker, path_unlink_file [.await], path: i32, length: i32; |_, _, _, _, _| Err(ERRNO_ROFS));
    Ok(())
}

/// `fd_read` of a file: from where the last one has ended.
pub fn fd_read(data: &mut [u8], state: &mut GuestState, fd: i32, list: i32, count: i32, read: i32) -> i32 {
    let position = state.files.at(fd).map_or(0, |(_, open)| open.position);
    let done = read_at(data, state, fd, [list, count, read], position).map(|read| {
        if let Some((_, open)) = state.files.at(fd) {
            open.position += u64::from(read);
        }
    });
    done.err().unwrap_or(SUCCESS)
}

fn fd_pread(
    data: &mut [u8],
    state: &mut GuestState,
    fd: i32,
    list: i32,
    count: i32,
    offset: i64,
    read: i32,
) -> Done {
    read_at(data, state, fd, [list, count, read], offset as u64).map(drop)
}

fn read_at(
    data: &mut [u8],
    state: &mut GuestState,
    fd: i32,
    [list, count, read]: [i32; 3],
    position: u64,
) -> std::result::Result<u32, i32> {
    let (folder, open) = state.files.at(fd).ok_or(ERRNO_BADF)?;
    let Node::File(range) = folder.node(open.node) else { return Err(ERRNO_ISDIR) };
    let bytes = folder.bytes(range);
    let mut left = &bytes[usize::try_from(position).unwrap_or(usize::MAX).min(bytes.len())..];
    let mut total = 0u32;
    for n in 0..(count as u32).min(MAX_IO_VECTORS) {
        let (at, length) = io_vector(data, list as u32, n).ok_or(ERRNO_FAULT)?;
        let length = length.min(MAX_READ as u32 - total).min(u32::try_from(left.len()).unwrap_or(u32::MAX));
        let (now, later) = left.split_at(length as usize);
        slice_mut(data, at, length).ok_or(ERRNO_FAULT)?.copy_from_slice(now);
        left = later;
        total += length;
    }
    write_u32(data, read as u32, total).ok_or(ERRNO_FAULT)?;
    Ok(total)
}

fn fd_seek(
    data: &mut [u8],
    state: &mut GuestState,
    fd: i32,
    offset: i64,
    whence: i32,
    position: i32,
) -> Done {
    let (folder, open) = state.files.at(fd).ok_or(ERRNO_BADF)?;
    let Node::File(range) = folder.node(open.node) else { return Err(ERRNO_ISDIR) };
    let start = match whence {
        0 => 0,
        1 => open.position,
        2 => range.len() as u64,
        _ => return Err(ERRNO_INVAL),
    };
    let new = start.checked_add_signed(offset).ok_or(ERRNO_INVAL)?;
    write_u64(data, position, new)?;
    open.position = new;
    Ok(())
}

fn fd_prestat_get(data: &mut [u8], state: &mut GuestState, fd: i32, at: i32) -> Done {
    let path = preopened(state, fd)?;
    // The only tag there is: a directory; then the length of its name.
    let mut prestat = [0; 8];
    prestat[4..].copy_from_slice(&(path.len() as u32).to_le_bytes());
    write(data, at, &prestat)
}

fn fd_prestat_dir_name(data: &mut [u8], state: &mut GuestState, fd: i32, at: i32, length: i32) -> Done {
    let path = preopened(state, fd)?;
    if (length as u32 as usize) < path.len() {
        return Err(ERRNO_NAMETOOLONG);
    }
    write(data, at, path.as_bytes())
}

fn preopened(state: &mut GuestState, fd: i32) -> std::result::Result<&'static str, i32> {
    state.files.at(fd).and_then(|(_, open)| open.preopened).ok_or(ERRNO_BADF)
}

fn fd_fdstat_get(data: &mut [u8], state: &mut GuestState, fd: i32, at: i32) -> Done {
    let (folder, open) = state.files.at(fd).ok_or(ERRNO_BADF)?;
    let node = folder.node(open.node);
    // C's `open` asks for no more than what a folder hands on: all, so that writing is refused as that.
    let (rights, inherited) = match node {
        Node::Folder(_) => (!WRITING, u64::MAX),
        Node::File(_) | Node::Link(_) => (READING, 0),
    };
    // filetype u8, padding, flags u16, padding, rights u64, rights that are handed on u64.
    let mut stat = [0; 24];
    stat[0] = filetype(node);
    stat[8..16].copy_from_slice(&rights.to_le_bytes());
    stat[16..].copy_from_slice(&inherited.to_le_bytes());
    write(data, at, &stat)
}

fn fd_filestat_get(data: &mut [u8], state: &mut GuestState, fd: i32, at: i32) -> Done {
    let (folder, open) = state.files.at(fd).ok_or(ERRNO_BADF)?;
    write(data, at, &filestat(folder, open.node))
}

fn path_filestat_get(
    data: &mut [u8],
    state: &mut GuestState,
    fd: i32,
    flags: i32,
    path: i32,
    length: i32,
    at: i32,
) -> Done {
    let (folder, id) = find(data, state, fd, path, length, flags & SYMLINK_FOLLOW != 0)?;
    let stat = filestat(folder, id);
    write(data, at, &stat)
}

fn path_open(
    data: &mut [u8],
    state: &mut GuestState,
    fd: i32,
    [flags, path, length, how, opened]: [i32; 5],
    rights: i64,
) -> Done {
    let writes = how & TRUNCATE != 0 || rights as u64 & WRITING != 0;
    let found = find(data, state, fd, path, length, flags & SYMLINK_FOLLOW != 0);
    let (folder, id) = match found {
        // What is not there cannot be made.
        Err(ERRNO_NOENT) if how & CREATE != 0 => return Err(ERRNO_ROFS),
        found => found?,
    };
    match folder.node(id) {
        Node::File(_) if how & DIRECTORY != 0 => return Err(ERRNO_NOTDIR),
        Node::File(_) if writes => return Err(ERRNO_ROFS),
        Node::Folder(_) if writes => return Err(ERRNO_ISDIR),
        Node::File(_) | Node::Folder(_) => {}
        Node::Link(_) => return Err(ERRNO_LOOP),
    }
    let GuestState { files, streams, .. } = state;
    let new = files.open(id, |fd| streams.at(fd).is_some()).ok_or(ERRNO_MFILE)?;
    write(data, opened, &new.to_le_bytes())
}

fn path_readlink(
    data: &mut [u8],
    state: &mut GuestState,
    fd: i32,
    path: i32,
    length: i32,
    [at, room, used]: [i32; 3],
) -> Done {
    let (folder, id) = find(data, state, fd, path, length, false)?;
    let Node::Link(to) = folder.node(id) else { return Err(ERRNO_INVAL) };
    let to = to.as_bytes()[..to.len().min(room as u32 as usize)].to_vec();
    write(data, at, &to)?;
    write(data, used, &(to.len() as u32).to_le_bytes())
}

/// Entries from the `cookie`-th on, `.` and `..` first, as many as there is room for; the last one may be cut.
fn fd_readdir(
    data: &mut [u8],
    state: &mut GuestState,
    fd: i32,
    at: i32,
    length: i32,
    cookie: i64,
    used: i32,
) -> Done {
    let (folder, open) = state.files.at(fd).ok_or(ERRNO_BADF)?;
    let Node::Folder(names) = folder.node(open.node) else { return Err(ERRNO_NOTDIR) };
    let room = (length as u32 as usize).min(HOSTCALL_BYTES);
    let dots = [(".", open.node), ("..", open.node)];
    let all = dots.into_iter().chain(names.iter().map(|(name, id)| (&**name, *id)));
    let first = usize::try_from(cookie as u64).unwrap_or(usize::MAX);
    let mut entries = Vec::new();
    for (n, (name, id)) in all.enumerate().skip(first) {
        if entries.len() >= room {
            break;
        }
        // next u64, inode u64, length of the name u32, filetype u8, padding; then the name.
        entries.extend_from_slice(&(n as u64 + 1).to_le_bytes());
        entries.extend_from_slice(&id.inode().to_le_bytes());
        entries.extend_from_slice(&(name.len() as u32).to_le_bytes());
        entries.extend_from_slice(&[filetype(folder.node(id)), 0, 0, 0]);
        entries.extend_from_slice(name.as_bytes());
    }
    entries.truncate(room);
    write(data, at, &entries)?;
    write(data, used, &(entries.len() as u32).to_le_bytes())
}

/// What is at a path of the guest's, from its descriptor `fd` on.
fn find<'s>(
    data: &[u8],
    state: &'s mut GuestState,
    fd: i32,
    path: i32,
    length: i32,
    follow: bool,
) -> std::result::Result<(&'s Folder, NodeId), i32> {
    if length as u32 > MAX_PATH {
        return Err(ERRNO_NAMETOOLONG);
    }
    let path = slice(data, path as u32, length as u32).ok_or(ERRNO_FAULT)?;
    let path = str::from_utf8(path).map_err(|_| ERRNO_ILSEQ)?;
    let (folder, open) = state.files.at(fd).ok_or(ERRNO_BADF)?;
    let found = folder.find(open.node, path, follow).map_err(|error| match error {
        NoSuchPath::Missing => ERRNO_NOENT,
        NoSuchPath::NoFolder => ERRNO_NOTDIR,
        NoSuchPath::Loop => ERRNO_LOOP,
        NoSuchPath::Outside => ERRNO_NOTCAPABLE,
    })?;
    Ok((folder, found))
}

/// device u64, inode u64, filetype u8, padding, links u64, size u64, and three times, which nobody has kept.
fn filestat(folder: &Folder, id: NodeId) -> [u8; 64] {
    let node = folder.node(id);
    let size = match node {
        Node::File(range) => range.len(),
        Node::Folder(_) => 0,
        Node::Link(to) => to.len(),
    };
    let mut stat = [0; 64];
    stat[8..16].copy_from_slice(&id.inode().to_le_bytes());
    stat[16] = filetype(node);
    stat[24] = 1;
    stat[32..40].copy_from_slice(&(size as u64).to_le_bytes());
    stat
}

fn filetype(node: &Node) -> u8 {
    match node {
        Node::Folder(_) => FILETYPE_DIRECTORY,
        Node::File(_) => FILETYPE_REGULAR_FILE,
        Node::Link(_) => FILETYPE_SYMBOLIC_LINK,
    }
}

fn write(data: &mut [u8], at: i32, bytes: &[u8]) -> Done {
    slice_mut(data, at as u32, bytes.len() as u32).ok_or(ERRNO_FAULT)?.copy_from_slice(bytes);
    Ok(())
}

fn write_u64(data: &mut [u8], at: i32, value: u64) -> Done {
    write(data, at, &value.to_le_bytes())
}
