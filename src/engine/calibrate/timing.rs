//! Times commits of one block in a separate file.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::io::backend::{Backend, Method, Part, StdBackend, UringBackend, WriteRequest};
use crate::io::fs::{Access, AlignedBuf, Device, Dir, File, write_full};
use crate::ring::Memory;
use crate::segment::Names;

/// Written blocks that the commits overwrite in turn.
const BLOCKS: u64 = 16;
const DEPTH: usize = 4;
/// Commits of a round: one after the other, and with four in flight.
const ALONE: u64 = 4;
const TOGETHER: u64 = 12;
/// Rounds at most, and at least. Between them the time decides.
const ROUNDS: usize = 16;
const ROUNDS_AT_LEAST: usize = 5;
const ENOUGH: Duration = Duration::from_millis(200);
/// A disk that takes longer for one commit is not measured further: the log needs it.
const HOPELESS: Duration = Duration::from_secs(5);

/// The typical time of a commit.
#[derive(Debug, Clone, Copy)]
pub(super) struct MethodPace {
    pub(super) alone: Duration,
    /// With four in flight: time divided by the number of commits.
    pub(super) together: Duration,
    /// On the thread that waits, without the ring.
    pub(super) direct: Duration,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Timings {
    pub(super) linked: MethodPace,
    pub(super) dsync: MethodPace,
    /// DSYNC commits made one after the other, and the flushes of the disk meanwhile. Other
    /// processes flush too: fewer flushes than commits prove that DSYNC did not flush, and more
    /// prove nothing.
    pub(super) dsync_commits: u64,
    pub(super) dsync_flushes: Option<u64>,
}

struct Bench {
    ring: UringBackend,
    direct: StdBackend,
    memory: Arc<Memory>,
    block: u32,
    next: u64,
}

/// Runs the rounds. `Interrupted`: the measurement was cancelled.
pub(super) fn run(
    dir: &dyn Dir,
    names: &Names,
    device: &Device,
    cancelled: &dyn Fn() -> bool,
) -> io::Result<Timings> {
    let file = scratch(dir, names)?;
    let block = dir.block_size();
    let memory = Memory::new(block as usize, DEPTH).ok_or(io::ErrorKind::OutOfMemory)?;
    let memory = Arc::new(memory);
    let mut ring = UringBackend::new(DEPTH, Arc::clone(&memory), DEPTH, block as usize, None)?;
    ring.attach(0, &file)?;
    let mut direct = StdBackend::for_committers();
    direct.attach(0, &file)?;
    let mut bench = Bench { ring, direct, memory, block, next: 0 };
    let begun = Instant::now();
    let mut samples: [[Vec<Duration>; 3]; 2] = Default::default();
    let (mut commits, mut flushes) = (0, Some(0));
    for round in 0..ROUNDS {
        // Each method comes first as often as second.
        let order = [round % 2, (round + 1) % 2];
        for which in order {
            let method = [Method::Linked, Method::Dsync][which];
            if cancelled() {
                return Err(io::ErrorKind::Interrupted.into());
            }
            let before = device.flushes();
            let alone = bench.commits(Through::Ring, method, ALONE, 1)?;
            if method == Method::Dsync {
                commits += ALONE;
                let rose = device.flushes().zip(before).map(|(after, before)| after - before);
                flushes = flushes.zip(rose).map(|(sum, rose)| sum + rose);
            }
            samples[which][0].push(alone);
            samples[which][1].push(bench.commits(Through::Ring, method, TOGETHER, DEPTH)?);
            samples[which][2].push(bench.commits(Through::Thread, method, ALONE, 1)?);
        }
        if round + 1 >= ROUNDS_AT_LEAST && begun.elapsed() > ENOUGH {
            break;
        }
    }
    let pace = |[alone, together, direct]: &mut [Vec<Duration>; 3]| MethodPace {
        alone: typical(alone),
        together: typical(together),
        direct: typical(direct),
    };
    let [linked, dsync] = &mut samples;
    Ok(Timings {
        linked: pace(linked),
        dsync: pace(dsync),
        dsync_commits: commits,
        dsync_flushes: flushes,
    })
}

/// The lower quartile: other work of the disk, such as the commits of the log, only makes a commit
/// slower.
fn typical(samples: &mut [Duration]) -> Duration {
    samples.sort_unstable();
    samples.get(samples.len() / 4).copied().unwrap_or_default()
}

/// A file of written blocks without a name.
fn scratch(dir: &dyn Dir, names: &Names) -> io::Result<Arc<dyn File>> {
    let name = names.scratch();
    let _ = dir.remove(&name);
    let file = dir.open(&name, Access::Create)?;
    dir.remove(&name)?;
    let zeroes = AlignedBuf::new((u64::from(dir.block_size()) * BLOCKS) as usize);
    write_full(&*file, &zeroes, 0)?;
    file.sync_data()?;
    Ok(file)
}

/// The backend that commits: the I/O thread's, or that of a committer that steps the loop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Through {
    Ring,
    Thread,
}

impl Bench {
    fn backend(&mut self, through: Through) -> &mut dyn Backend {
        match through {
            Through::Ring => &mut self.ring,
            Through::Thread => &mut self.direct,
        }
    }

    /// Time of one commit, measured over `count` commits with `depth` in flight.
    fn commits(
        &mut self,
        through: Through,
        method: Method,
        count: u64,
        depth: usize,
    ) -> io::Result<Duration> {
        let begun = Instant::now();
        let (mut started, mut done) = (0, 0);
        let mut flying = 0;
        while done < count {
            while flying < depth && started < count {
                self.start(through, method, started);
                started += 1;
                flying += 1;
            }
            self.backend(through).wait(Some(Duration::from_secs(1)))?;
            while let Some(completion) = self.backend(through).reap() {
                let n = completion.result?;
                if completion.part == Part::Write && n != self.block {
                    return Err(io::Error::other("a short write"));
                }
                if completion.part == Part::Sync || method == Method::Dsync {
                    done += 1;
                    flying -= 1;
                }
            }
            if begun.elapsed() > HOPELESS {
                return Err(io::ErrorKind::TimedOut.into());
            }
        }
        Ok(begun.elapsed() / count.max(1) as u32)
    }

    fn start(&mut self, through: Through, method: Method, n: u64) {
        let buffer = (n % DEPTH as u64) as usize;
        let offset = self.next % BLOCKS * u64::from(self.block);
        self.next += 1;
        let write = WriteRequest {
            token: n,
            slot: 0,
            offset,
            start: self.memory.buffer(buffer),
            len: self.block,
            buffer,
            method,
        };
        // SAFETY: the buffer is a block of `memory`, zeroed at allocation and never written to. The
        // ring holds the memory, and waits for what is in flight, or leaks it, when it is dropped;
        // the other backend has nothing in flight between its calls, which `self.memory` outlives.
        unsafe { self.backend(through).write(write) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn typical_time_ignores_disturbed_rounds() {
        let mut samples: Vec<_> = [900, 11, 12, 300, 10].map(Duration::from_micros).into();
        assert_eq!(typical(&mut samples), Duration::from_micros(11));
        assert_eq!(typical(&mut []), Duration::ZERO);
    }
}
