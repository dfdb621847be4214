//! Windows over files that record what is read of them, change, and fail.

use std::io;
use std::ops::Range;
use std::sync::{Arc, Mutex};

use fastrand::Rng;

use super::read_window::ReadWindow;
use crate::format::SegmentHeader;
use crate::io::fs::File;
use crate::sys::os_error::DEVICE_FAILED;

const BLOCK: u32 = 4096;
const MIB: u64 = 1 << 20;
/// What a reader may have in memory.
const BOUND: u64 = 8 * MIB;

/// A device. Its bytes are a function of their block and of a version.
#[derive(Debug)]
struct Device {
    size: u64,
    state: Mutex<State>,
    on_a_thread: bool,
}

#[derive(Debug, Default)]
struct State {
    /// Bytes from this block on are of the next version.
    rewritten_from: Option<u64>,
    bad: Vec<Range<u64>>,
    reads: Vec<Range<u64>>,
}

fn byte(offset: u64, version: u8) -> u8 {
    ((offset / u64::from(BLOCK)).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8 ^ version
}

impl Device {
    fn new(size: u64, on_a_thread: bool) -> Arc<Self> {
        Arc::new(Device { size, state: Mutex::default(), on_a_thread })
    }

    fn reads(&self) -> Vec<Range<u64>> {
        std::mem::take(&mut self.state.lock().unwrap().reads)
    }

    fn version(state: &State, offset: u64) -> u8 {
        u8::from(state.rewritten_from.is_some_and(|from| offset >= from))
    }
}

impl File for Device {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut state = self.state.lock().unwrap();
        let end = (offset + buf.len() as u64).min(self.size);
        state.reads.push(offset..offset + buf.len() as u64);
        if state.bad.iter().any(|bad| bad.start < end && bad.end > offset) {
            return Err(io::Error::from_raw_os_error(DEVICE_FAILED));
        }
        let n = end.saturating_sub(offset) as usize;
        for (at, to) in (offset..).step_by(BLOCK as usize).zip(buf[..n].chunks_mut(BLOCK as usize))
        {
            to.fill(byte(at, Device::version(&state, at)));
        }
        Ok(n)
    }

    fn write_at(&self, _: &[u8], _: u64) -> io::Result<usize> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.size)
    }

    fn links(&self) -> io::Result<u64> {
        Ok(1)
    }

    fn write_zeroes(&self, _: u64) -> io::Result<()> {
        Ok(())
    }

    fn allocate(&self, _: u64) -> io::Result<()> {
        Ok(())
    }

    fn is_direct(&self) -> bool {
        true
    }

    fn allows_helper(&self) -> bool {
        self.on_a_thread
    }

    fn raw_fd(&self) -> Option<i32> {
        None
    }
}

fn window_over(device: &Arc<Device>, size: u64, chunk: usize) -> ReadWindow {
    let header = SegmentHeader {
        log_id: [7; 16],
        block: BLOCK,
        size,
        base: 0,
        max_group: 4 << 20,
        created_at: 0,
        app_version: 0,
    };
    ReadWindow::reading_ahead(Arc::clone(device) as Arc<dyn File>, &header, chunk)
}

/// Reads groups of this size as a cursor does: the header's bytes, then the whole group. Returns
/// where it ended, and how.
fn read_groups(
    window: &mut ReadWindow,
    mut at: u64,
    end: u64,
    group: impl Fn(u64) -> u64,
    version: u8,
) -> (u64, io::Result<()>) {
    while at < end {
        let len = group(at).min(end - at);
        for asked in [128.min(len), len] {
            match window.bytes(at, asked as usize) {
                Err(e) => return (at, Err(e)),
                Ok(bytes) => {
                    assert_eq!(bytes.len() as u64, asked, "at {at}");
                    let ends = [0, bytes.len() / 2, bytes.len() - 1];
                    for i in ends {
                        assert_eq!(bytes[i], byte(at + i as u64, version), "{i} of {at}");
                    }
                }
            }
        }
        at += len;
    }
    (at, Ok(()))
}

#[test]
fn groups_of_every_size_are_read_whole_and_once_within_the_bound() {
    let size = 24 * MIB;
    for (on_a_thread, group) in [
        (false, 4096),
        (true, 4096),
        (false, 20_480),
        (true, 65_536),
        (false, 1_003_520),
        (true, 1_003_520),
        (false, 3 << 20),
    ] {
        let device = Device::new(size, on_a_thread);
        let mut window = window_over(&device, size, 512 << 10);
        let (at, ended) = read_groups(&mut window, 4096, size, |_| group, 0);
        assert!(ended.is_ok() && at == size, "{at} {ended:?}");
        let reads = device.reads();
        let read: u64 = reads.iter().map(|read| read.end - read.start).sum();
        assert!(read <= size, "{group}: read {read} bytes of {size}");
        assert!(reads.iter().any(|read| read.end - read.start == 2 * MIB), "{group}: {reads:?}");
        assert!(window.buffered() <= BOUND.max(6 * MIB + 2 * group), "{}", window.buffered());
        // Dropped reading ahead: the rest of the log goes on.
        window.rest();
        assert!(window.buffered() <= 2 * MIB.max(group), "{}", window.buffered());
    }
}

#[test]
fn point_read_and_short_reader_read_no_more_than_twice_what_they_take() {
    for taken in [4096, 256 << 10, MIB, 3 * MIB, 12 * MIB] {
        let device = Device::new(64 * MIB, false);
        let mut window = window_over(&device, 64 * MIB, 512 << 10);
        let (_, ended) = read_groups(&mut window, 4096, 4096 + taken, |_| 4096, 0);
        ended.unwrap();
        let read: u64 = device.reads().iter().map(|read| read.end - read.start).sum();
        assert!(read <= (512 << 10) + 2 * taken + MIB / 2, "{read} bytes for {taken}");
    }
    // Jumps, as over the headers of large groups.
    let device = Device::new(64 * MIB, false);
    let mut window = window_over(&device, 64 * MIB, 16 << 10);
    for n in 0..60 {
        window.bytes(4096 + n * MIB, 128).unwrap();
    }
    assert!(device.reads().iter().all(|read| read.end - read.start <= 16 << 10));
}

#[test]
fn nothing_above_the_limit_is_read_and_what_was_not_durable_is_read_later() {
    for (seed, on_a_thread) in [(1, false), (2, true), (3, false), (4, true)] {
        let mut rng = Rng::with_seed(seed);
        let device = Device::new(40 * MIB, on_a_thread);
        let mut window = window_over(&device, 40 * MIB, 512 << 10);
        let (mut at, mut limit) = (4096, 4096);
        while at < 39 * MIB {
            limit = (limit + rng.u64(1..900) * 4096).min(39 * MIB);
            // The writer has made these durable, and goes on writing above.
            device.state.lock().unwrap().rewritten_from = Some(limit);
            window.read_below(limit);
            let (reached, ended) = read_groups(&mut window, at, limit, |_| 4096, 0);
            ended.unwrap();
            at = reached;
            for read in device.reads() {
                assert!(read.end <= limit, "{read:?} above {limit}");
            }
        }
    }
}

#[test]
fn error_is_reported_only_for_the_group_that_cannot_be_read() {
    for (on_a_thread, group, bad) in [
        (false, 4096, 17 * MIB + 4096),
        (true, 4096, 17 * MIB + 4096),
        (true, 65_536, 15 * MIB),
        (false, 65_536, 300 << 10),
        (true, 1_003_520, 21 * MIB),
        (false, 3 << 20, 21 * MIB),
    ] {
        let device = Device::new(48 * MIB, on_a_thread);
        device.state.lock().unwrap().bad.push(bad..bad + 512);
        let mut window = window_over(&device, 48 * MIB, 512 << 10);
        let (at, ended) = read_groups(&mut window, 4096, 48 * MIB, |_| group, 0);
        let failing = (bad - 4096) / group * group + 4096;
        assert_eq!(
            (at, ended.unwrap_err().raw_os_error()),
            (failing, Some(DEVICE_FAILED)),
            "{group}"
        );
        // A reader that leaves the group out finds the rest, again at full speed.
        device.reads();
        let (at, ended) = read_groups(&mut window, failing + group, 48 * MIB, |_| group, 0);
        assert!(ended.is_ok() && at == 48 * MIB, "{group}: {at} {ended:?}");
        assert!(device.reads().iter().any(|read| read.end - read.start == 2 * MIB), "{group}");
    }
}

#[test]
fn file_cut_short_ends_where_it_ends() {
    for on_a_thread in [false, true] {
        let device = Device::new(9 * MIB + 100, on_a_thread);
        let mut window = window_over(&device, 32 * MIB, 512 << 10);
        let (at, ended) = read_groups(&mut window, 4096, 9 * MIB, |_| 8192, 0);
        assert!(ended.is_ok() && at == 9 * MIB);
        assert_eq!(window.bytes(9 * MIB, 8192).unwrap().len(), 100);
        assert_eq!(window.bytes(9 * MIB + 4096, 128).unwrap().len(), 0);
    }
}

#[test]
fn forgotten_bytes_are_read_again_also_those_that_were_read_ahead() {
    for on_a_thread in [false, true] {
        let device = Device::new(32 * MIB, on_a_thread);
        let mut window = window_over(&device, 32 * MIB, 512 << 10);
        let (at, ended) = read_groups(&mut window, 4096, 16 * MIB, |_| 4096, 0);
        ended.unwrap();
        device.state.lock().unwrap().rewritten_from = Some(at);
        window.forget();
        let (_, ended) = read_groups(&mut window, at, 32 * MIB, |_| 4096, 1);
        ended.unwrap();
    }
}

#[test]
fn next_segment_is_read_ahead_from_its_start() {
    for on_a_thread in [false, true] {
        let first = Device::new(16 * MIB, on_a_thread);
        let mut window = window_over(&first, 16 * MIB, 512 << 10);
        read_groups(&mut window, 4096, 16 * MIB, |_| 4096, 0).1.unwrap();
        let second = Device::new(16 * MIB, on_a_thread);
        let mut next = window_over(&second, 16 * MIB, 512 << 10);
        next.go_on_from(&mut window);
        read_groups(&mut next, 4096, 16 * MIB, |_| 4096, 0).1.unwrap();
        assert_eq!(second.reads().iter().map(|r| r.end - r.start).max(), Some(2 * MIB));
        assert!(next.buffered() <= BOUND, "{}", next.buffered());
        // The one before reads on by itself.
        window.forget();
        read_groups(&mut window, 4 * MIB, 16 * MIB, |_| 4096, 0).1.unwrap();
    }
}
