//! Producers that are threads.

use std::sync::mpsc::SyncSender;
use std::time::Instant;

use ringwal::{Lsn, Wal};

use super::arrivals::Arrivals;
use super::sampler::{Sample, Sampler};
use super::{Mode, Plan, Tally, quota};
use crate::error::Error;
use crate::stop::Stop;

/// One thread's whole work.
pub(super) fn produce(
    wal: &Wal,
    plan: &Plan,
    number: usize,
    stop: &Stop,
    samples: Option<SyncSender<Sample>>,
) -> Result<Tally, Error> {
    let left = quota(plan.records, plan.threads, number);
    match plan.mode {
        Mode::Blocking => blocking(wal, plan, number, stop, left),
        Mode::Pipelined => pipelined(wal, plan, number, stop, left, samples),
        Mode::Open(rate) => {
            let arrivals = Arrivals::new(rate / plan.threads as f64, plan.arrivals, number);
            open(wal, plan, number, stop, left, samples, arrivals)
        }
    }
}

fn blocking(
    wal: &Wal,
    plan: &Plan,
    number: usize,
    stop: &Stop,
    mut left: u64,
) -> Result<Tally, Error> {
    let mut source = plan.source.producer(number);
    let mut tally = Tally::new(plan.ledger);
    let mut last = Lsn::ZERO;
    while left > 0 && !stop.is_set() {
        let Some(payload) = source.next_payload()? else { break };
        let begun = Instant::now();
        let lsn = wal.append_durable(payload).map_err(|e| plan.source.explain(e))?;
        tally.latencies.record(begun.elapsed());
        tally.count(lsn, payload);
        rising(&mut last, lsn)?;
        left -= 1;
    }
    Ok(tally)
}

fn pipelined(
    wal: &Wal,
    plan: &Plan,
    number: usize,
    stop: &Stop,
    mut left: u64,
    samples: Option<SyncSender<Sample>>,
) -> Result<Tally, Error> {
    let mut source = plan.source.producer(number);
    let mut tally = Tally::new(plan.ledger);
    let mut sampler = Sampler::new(samples, number);
    let mut last = Lsn::ZERO;
    while left > 0 && !stop.is_set() {
        let Some(payload) = source.next_payload()? else { break };
        let timed = sampler.begin();
        let lsn = wal.append(payload).map_err(|e| plan.source.explain(e))?;
        if let Some(begun) = timed {
            sampler.end(begun, lsn, &mut tally.latencies);
        }
        tally.count(lsn, payload);
        rising(&mut last, lsn)?;
        left -= 1;
    }
    tally.skipped = sampler.skipped;
    Ok(tally)
}

fn open(
    wal: &Wal,
    plan: &Plan,
    number: usize,
    stop: &Stop,
    mut left: u64,
    samples: Option<SyncSender<Sample>>,
    mut arrivals: Arrivals,
) -> Result<Tally, Error> {
    let mut source = plan.source.producer(number);
    let mut tally = Tally::new(plan.ledger);
    let mut sampler = Sampler::new(samples, number);
    let mut last = Lsn::ZERO;
    while left > 0 && !stop.is_set() {
        arrivals.wait(stop);
        // All that should have arrived by now, on time or late.
        while let Some(arrival) = arrivals.next_due() {
            let Some(payload) = source.next_payload()? else { break };
            let timed = sampler.begin();
            let lsn = wal.append(payload).map_err(|e| plan.source.explain(e))?;
            if timed.is_some() {
                sampler.end(arrivals.time(arrival), lsn, &mut tally.latencies);
            }
            tally.count(lsn, payload);
            rising(&mut last, lsn)?;
            left -= 1;
            if left == 0 || stop.is_set() {
                break;
            }
        }
    }
    tally.skipped = sampler.skipped;
    Ok(tally)
}

/// The log must keep each producer's order.
#[inline]
pub(super) fn rising(last: &mut Lsn, lsn: Lsn) -> Result<(), Error> {
    if lsn <= *last {
        return Err(Error::Verify(format!(
            "a producer was given LSN {lsn} after LSN {last}: its records are not in its order"
        )));
    }
    *last = lsn;
    Ok(())
}
