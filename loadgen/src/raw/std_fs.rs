//! The baseline without io_uring: one write at a time.

use std::io;
use std::time::{Duration, Instant};

use super::area::{Aligned, Area, write_all_at};
use super::{Driver, Method, Request};
use crate::measure::latency::Latencies;
use crate::stop::Stop;

pub(super) struct StdDriver {
    area: Area,
    memory: Aligned,
    method: Method,
}

impl StdDriver {
    pub(super) fn new(area: Area, request: &Request, method: Method) -> Self {
        let memory = Aligned::random(request.group);
        StdDriver { area, memory, method }
    }
}

impl Driver for StdDriver {
    fn slice(
        &mut self,
        time: Duration,
        latencies: &mut Latencies,
        stop: &Stop,
    ) -> io::Result<(u64, f64)> {
        let (begun, mut bytes) = (Instant::now(), 0);
        let mut last = begun;
        // Writes at least once: zero writes give no rate.
        while last == begun || (last.duration_since(begun) < time && !stop.was_signalled()) {
            let offset = self.area.next_offset();
            let file = match (self.method, self.area.synced_file()) {
                (Method::WriteDsync, Some(synced)) => synced,
                _ => self.area.file(),
            };
            write_all_at(file, self.memory.as_slice(), offset)?;
            if self.method == Method::WriteFsync {
                self.area.file().sync_data()?;
            }
            let now = Instant::now();
            latencies.record(now.duration_since(last));
            last = now;
            bytes += self.memory.as_slice().len() as u64;
        }
        Ok((bytes, last.duration_since(begun).as_secs_f64()))
    }
}
