//! Producers that are threads.

use std::sync::mpsc::SyncSender;
use std::time::Instant;

use super::arrivals::Arrivals;
use super::sampler::{Sample, Sampler};
use super::{Mode, Plan, Tally, quota};
use crate::engine::{Engine, Position};
use crate::error::Error;
use crate::stop::Stop;

/// One thread's whole work.
pub(super) fn produce<E: Engine + ?Sized>(
    engine: &E,
    plan: &Plan,
    number: usize,
    stop: &Stop,
    samples: Option<SyncSender<Sample>>,
) -> Result<Tally, Error> {
    let left = quota(plan.records, plan.threads, number);
    match plan.mode {
        Mode::Blocking => blocking(engine, plan, number, stop, left),
        Mode::Pipelined => pipelined(engine, plan, number, stop, left, samples),
        Mode::Open(rate) => open(engine, plan, number, stop, left, samples, rate),
    }
}

fn blocking<E: Engine + ?Sized>(
    engine: &E,
    plan: &Plan,
    number: usize,
    stop: &Stop,
    mut left: u64,
) -> Result<Tally, Error> {
    let mut source = plan.source.producer(number);
    let mut tally = Tally::new(plan.ledger);
    let mut last = 0;
    while left > 0 && !stop.is_set() {
        let Some(payload) = source.next_payload()? else { break };
        let begun = Instant::now();
        let at = engine.append_durable_at(payload).map_err(|e| plan.source.explain(e))?;
        tally.latencies.record(begun.elapsed());
        tally.count(at, payload);
        rising(&mut last, at)?;
        left -= 1;
    }
    Ok(tally)
}

fn pipelined<E: Engine + ?Sized>(
    engine: &E,
    plan: &Plan,
    number: usize,
    stop: &Stop,
    mut left: u64,
    samples: Option<SyncSender<Sample>>,
) -> Result<Tally, Error> {
    let mut source = plan.source.producer(number);
    let mut tally = Tally::new(plan.ledger);
    let mut sampler = Sampler::new(samples, number);
    let mut last = 0;
    while left > 0 && !stop.is_set() {
        let Some(payload) = source.next_payload()? else { break };
        let timed = sampler.begin();
        let at = engine.append_at(payload).map_err(|e| plan.source.explain(e))?;
        if let Some(begun) = timed {
            sampler.end(begun, at, &mut tally);
        }
        tally.count(at, payload);
        rising(&mut last, at)?;
        left -= 1;
    }
    tally.skipped = sampler.skipped;
    Ok(tally)
}

fn open<E: Engine + ?Sized>(
    engine: &E,
    plan: &Plan,
    number: usize,
    stop: &Stop,
    mut left: u64,
    samples: Option<SyncSender<Sample>>,
    rate: f64,
) -> Result<Tally, Error> {
    let mut arrivals = Arrivals::new(rate, plan.arrivals, number, plan.threads);
    let mut source = plan.source.producer(number);
    let mut tally = Tally::new(plan.ledger);
    let mut sampler =
        Sampler::of_arrivals(samples, number, rate / plan.threads as f64, plan.threads);
    let mut last = 0;
    while left > 0 && !stop.is_set() {
        arrivals.wait(stop);
        // All that should have arrived by now, on time or late.
        while let Some(arrival) = arrivals.next_due() {
            let Some(payload) = source.next_payload()? else { break };
            let timed = sampler.begin();
            let at = engine.append_at(payload).map_err(|e| plan.source.explain(e))?;
            if timed.is_some() {
                sampler.end(arrivals.time(arrival), at, &mut tally);
            }
            tally.count(at, payload);
            rising(&mut last, at)?;
            left -= 1;
            if left == 0 || stop.is_set() {
                break;
            }
        }
    }
    tally.skipped = sampler.skipped;
    tally.overdue = if left == 0 { 0 } else { arrivals.overdue() };
    Ok(tally)
}

/// The log must keep each producer's order.
#[inline]
pub(super) fn rising(last: &mut Position, at: Option<Position>) -> Result<(), Error> {
    let Some(at) = at else { return Ok(()) };
    if at <= *last {
        return Err(Error::Verify(format!(
            "a producer was given LSN {at} after LSN {last}: its records are not in its order"
        )));
    }
    *last = at;
    Ok(())
}
