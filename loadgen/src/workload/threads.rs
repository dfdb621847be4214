//! Producers that are threads.

use std::sync::mpsc::SyncSender;
use std::time::Instant;

use super::arrivals::Arrivals;
use super::sampler::{Sample, Sampler};
use super::{Mode, Order, Plan, Tally, quota};
use crate::engine::Engine;
use crate::error::Error;
use crate::measure::usage::Usage;
use crate::stop::Stop;

/// Runs one producer thread.
pub(super) fn produce<E: Engine + ?Sized>(
    engine: &E,
    plan: &Plan,
    number: usize,
    stop: &Stop,
    samples: Option<SyncSender<Sample>>,
) -> Result<Tally, Error> {
    let left = quota(plan.records, plan.threads, number);
    let mut tally = match plan.mode {
        Mode::Blocking => blocking(engine, plan, number, stop, left),
        Mode::Pipelined => pipelined(engine, plan, number, stop, left, samples),
        Mode::Open(rate) => open(engine, plan, number, stop, left, samples, rate),
    }?;
    tally.usage = Usage::of_this_thread();
    Ok(tally)
}

fn blocking<E: Engine + ?Sized>(
    engine: &E,
    plan: &Plan,
    number: usize,
    stop: &Stop,
    mut left: u64,
) -> Result<Tally, Error> {
    let mut source = plan.source.producer(number);
    let mut tally = Tally::of(plan);
    let mut order = Order::default();
    while left > 0 && !stop.is_set() {
        let Some(payload) = source.next_payload()? else { break };
        let begun = Instant::now();
        let at = match engine.append_durable_at(payload) {
            Ok(at) => at,
            Err(e) => {
                tally.fail(plan.source.explain(e), stop)?;
                break;
            }
        };
        let latency = begun.elapsed();
        tally.latencies.record(latency);
        if let Some(intervals) = &plan.intervals {
            intervals.record(number, latency);
        }
        tally.count(at, payload);
        order.check(at)?;
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
    let mut tally = Tally::of(plan);
    let mut sampler = Sampler::new(samples, plan.intervals.clone(), number);
    let mut order = Order::default();
    while left > 0 && !stop.is_set() {
        let Some(payload) = source.next_payload()? else { break };
        let timed = sampler.begin();
        let at = match engine.append_at(payload) {
            Ok(at) => at,
            Err(e) => {
                tally.fail(plan.source.explain(e), stop)?;
                break;
            }
        };
        if let Some(begun) = timed {
            sampler.end(begun, at, &mut tally);
        }
        tally.count(at, payload);
        order.check(at)?;
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
    let mut arrivals = Arrivals::of(plan, rate, number, plan.threads);
    let mut source = plan.source.producer(number);
    let mut tally = Tally::of(plan);
    let mut sampler =
        Sampler::of_arrivals(samples, number, rate / plan.threads as f64, plan.threads);
    let mut order = Order::default();
    while left > 0 && !stop.is_set() {
        arrivals.wait(stop);
        // Counts the records that should have arrived by now, on time or late.
        while let Some(arrival) = arrivals.next_due() {
            let Some(payload) = source.payload_of(arrival.bytes)? else { break };
            let timed = sampler.begin();
            let at = match engine.append_at(payload) {
                Ok(at) => at,
                Err(e) => {
                    tally.fail(plan.source.explain(e), stop)?;
                    break;
                }
            };
            if timed.is_some() {
                sampler.end(arrivals.time(arrival), at, &mut tally);
            }
            tally.count(at, payload);
            order.check(at)?;
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
