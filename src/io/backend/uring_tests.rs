//! What the kernel makes of the entries that the backend submits. Skipped where it refuses
//! io_uring.
#![allow(clippy::print_stderr, reason = "tests say what they skip")]

use std::os::fd::AsRawFd;

use super::*;
use crate::io::fs::hooked::TempPath;
use crate::io::fs::{Access, Dir, OsDir};

const BUFFER: usize = 4096;

fn backend(memory: &Arc<Memory>, lock: Option<Hold>) -> Option<UringBackend> {
    match UringBackend::new(4, Arc::clone(memory), 1, BUFFER, lock) {
        Ok(backend) => Some(backend),
        Err(e) => {
            eprintln!("io_uring is not tested here: {e}");
            None
        }
    }
}

fn write(memory: &Memory, method: Method) -> WriteRequest {
    let start = memory.buffer(0).cast_const();
    WriteRequest { token: 5, slot: 0, offset: 0, start, len: BUFFER as u32, buffer: 0, method }
}

/// A file of one block, open for `access`.
fn file(path: &TempPath, access: Access) -> Arc<dyn File> {
    let dir = OsDir::open_or_create(path).unwrap();
    let made = dir.open("file", Access::Create).unwrap();
    made.allocate(BUFFER as u64).unwrap();
    dir.open("file", access).unwrap()
}

/// The completions of a linked write and sync, in the order of the parts.
fn linked(access: Access) -> Option<[io::Result<u32>; 2]> {
    let path = TempPath::new();
    let memory = Arc::new(Memory::new(BUFFER, 1).unwrap());
    let mut backend = backend(&memory, None)?;
    backend.attach(0, &file(&path, access)).unwrap();
    // SAFETY: the buffer is initialised, and no thread writes to it while the backend lives.
    unsafe { backend.write(write(&memory, Method::Linked)) };
    let mut parts = [None, None];
    while parts.iter().any(Option::is_none) {
        backend.wait(None).unwrap();
        while let Some(done) = backend.reap() {
            parts[usize::from(done.part == Part::Sync)] = Some(done.result);
        }
    }
    Some(parts.map(Option::unwrap))
}

#[test]
fn a_failed_write_cancels_its_sync() {
    let Some([write, sync]) = linked(Access::Write) else { return };
    assert_eq!((write.unwrap(), sync.unwrap()), (BUFFER as u32, 0));
    let Some([write, sync]) = linked(Access::Read) else { return };
    assert_eq!(write.unwrap_err().raw_os_error(), Some(libc::EBADF));
    // A hard link, or none, lets it run, and it succeeds.
    assert_eq!(sync.unwrap_err().raw_os_error(), Some(libc::ECANCELED));
}

#[test]
fn a_chain_that_the_kernel_has_cut_is_noticed() {
    let queue = || {
        let mut queued = Queued::default();
        use Entry::{Alone, Linked};
        [Alone, Linked, Alone, Alone, Linked].into_iter().for_each(|entry| queued.push(entry));
        queued
    };
    for (taken, whole) in [(0, true), (1, false), (2, true), (3, true), (4, false), (5, true)] {
        assert_eq!(queue().taken(taken), whole, "{taken}");
    }
    let mut queued = queue();
    assert!(queued.taken(2) && queued.taken(1) && queued.taken(2) && queued.entries.is_empty());
    queued.push(Entry::Alone);
    queued.push(Entry::Linked);
    assert!(!queued.taken(1) && !queued.taken(1), "nothing mends it");
}

#[test]
fn a_dsync_group_asks_for_it_and_others_do_not() {
    let memory = Arc::new(Memory::new(BUFFER, 1).unwrap());
    let Some(mut backend) = backend(&memory, None) else { return };
    for registered in [backend.registered_buffers, false] {
        backend.registered_buffers = registered;
        for (method, expected) in
            [(Method::Dsync, libc::RWF_DSYNC), (Method::Linked, 0), (Method::Plain, 0)]
        {
            let entry = backend.write_entry(&write(&memory, method));
            const { assert!(size_of::<squeue::Entry>() == 64) };
            // SAFETY: an entry is the kernel's structure of 64 plain bytes and nothing else.
            let bytes: [u8; 64] = unsafe { std::mem::transmute(entry) };
            // The kernel's rw_flags lie at byte 28.
            let flags = i32::from_ne_bytes(*bytes[28..].first_chunk().unwrap());
            assert_eq!(flags, expected, "{method:?}");
        }
    }
}

#[test]
fn the_kernel_keeps_the_lock_while_the_ring_lives() {
    let path = TempPath::new();
    std::fs::create_dir(&*path).unwrap();
    let name = path.join("lock");
    let open =
        || std::fs::File::options().create(true).write(true).truncate(false).open(&name).unwrap();
    let holder = open();
    holder.try_lock().unwrap();
    let memory = Arc::new(Memory::new(BUFFER, 1).unwrap());
    let Some(backend) = backend(&memory, Some(Hold::new(holder.as_raw_fd()))) else { return };
    if !backend.registered_files {
        eprintln!("files cannot be registered here: the kernel's hold on the lock is not tested");
        return;
    }
    // As when the process dies: the descriptor is gone, and nothing has unlocked it.
    drop(holder);
    assert!(open().try_lock().is_err());
    drop(backend);
    // The kernel takes the ring apart a little later.
    while open().try_lock().is_err() {
        std::thread::yield_now();
    }
}

/// A backend with one operation in flight that ends when the pipe is written to, and whose latch
/// says that everything is over.
fn stuck(memory: &Arc<Memory>, hold: &Hold, pipe: &std::io::PipeReader) -> Option<UringBackend> {
    let mut backend = backend(memory, Some(hold.clone()))?;
    let entry = opcode::Read::new(Fd(pipe.as_raw_fd()), memory.buffer(0), 1).build();
    backend.push(&entry.user_data(1 << PART_BITS | PART_WRITE), Entry::Alone);
    backend.in_flight += 1;
    backend.submit().unwrap();
    // A chain that is cut: its sync stays behind, and never begins.
    backend.sync(2, 0);
    backend.queued.cut = true;
    Some(backend)
}

struct Locked {
    _path: TempPath,
    name: std::path::PathBuf,
    holder: std::fs::File,
}

impl Locked {
    fn new() -> Self {
        let path = TempPath::new();
        std::fs::create_dir(&*path).unwrap();
        let name = path.join("lock");
        let holder = std::fs::File::create(&name).unwrap();
        holder.try_lock().unwrap();
        Locked { name, _path: path, holder }
    }

    fn hold(&self) -> Hold {
        Hold::new(self.holder.as_raw_fd())
    }
}

#[test]
fn a_dropped_backend_waits_for_what_is_in_flight_whatever_failed_before() {
    let (memory, lock) = (Arc::new(Memory::new(BUFFER, 1).unwrap()), Locked::new());
    let (reader, mut writer) = std::io::pipe().unwrap();
    let hold = lock.hold();
    let (kept, is_kept) = std::sync::mpsc::channel();
    let begun = std::sync::Barrier::new(2);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            // Made and dropped by one thread.
            let backend = stuck(&memory, &hold, &reader);
            begun.wait();
            drop(backend);
            kept.send(hold.is_kept()).unwrap();
        });
        begun.wait();
        let early = is_kept.recv_timeout(Duration::from_millis(50));
        std::io::Write::write_all(&mut writer, b"x").unwrap();
        // Where there is no io_uring nothing was in flight.
        assert!(early.is_err() || backend(&memory, None).is_none(), "it did not wait");
        assert!(!early.or_else(|_| is_kept.recv()).unwrap(), "all of it has ended");
    });
}

#[test]
fn a_lock_is_kept_while_the_kernel_may_still_write_and_ends_with_the_last_operation() {
    let (memory, lock) = (Arc::new(Memory::new(BUFFER, 1).unwrap()), Locked::new());
    let (reader, mut writer) = std::io::pipe().unwrap();
    let hold = lock.hold();
    let Some(mut backend) = stuck(&memory, &hold, &reader) else { return };
    backend.last_wait = Duration::ZERO;
    drop(backend);
    assert!(hold.is_kept());
    // As the lock's owner does: closed, and not unlocked.
    let Locked { _path, name, holder } = lock;
    drop(holder);
    let is_held = || std::fs::File::open(&name).unwrap().try_lock().is_err();
    assert!(is_held(), "the kernel has it");
    std::io::Write::write_all(&mut writer, b"x").unwrap();
    while is_held() {
        std::thread::yield_now();
    }
}

#[test]
fn a_backend_that_cannot_keep_the_lock_is_refused() {
    let memory = Arc::new(Memory::new(BUFFER, 1).unwrap());
    if backend(&memory, None).is_none() {
        return;
    }
    // No descriptor of this process.
    let refused = UringBackend::new(4, memory, 1, BUFFER, Some(Hold::new(i32::MAX)));
    let e = refused.err().expect("the kernel refuses to register it");
    assert!(e.get_ref().unwrap().is::<LockNotRegistered>(), "{e}");
}

/// Refuses `io_uring_enter` to this thread from now on.
fn refuse_to_enter() {
    const ENTER: u32 = libc::SYS_io_uring_enter as u32;
    let step =
        |code: u32, jt: u8, jf: u8, k: u32| libc::sock_filter { code: code as u16, jt, jf, k };
    let mut steps = [
        step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0),
        step(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, 1, ENTER),
        step(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ERRNO | libc::EPERM as u32),
        step(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog { len: steps.len() as u16, filter: steps.as_mut_ptr() };
    // SAFETY: the arguments are those that the calls take, and the program lives for the second,
    // which copies it. The filter holds for this thread and those that it starts.
    let refused = unsafe {
        libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
        libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program)
    };
    assert_eq!(refused, 0, "{}", io::Error::last_os_error());
}

#[test]
fn a_backend_whose_calls_are_refused_after_its_start_ends_soon() {
    // Of its own: the filter stays with it.
    let ended = std::thread::spawn(|| {
        let memory = Arc::new(Memory::new(BUFFER, 1).unwrap());
        let Some(mut backend) = backend(&memory, None) else { return true };
        // The read of the eventfd is in flight then.
        backend.wait(Some(Duration::from_millis(1))).unwrap();
        assert_eq!(backend.taken(), (0, true));
        refuse_to_enter();
        let begun = Instant::now();
        drop(backend);
        begun.elapsed() < LAST_WAIT / 2
    });
    assert!(ended.join().unwrap(), "it waited for what cannot be heard of");
}
