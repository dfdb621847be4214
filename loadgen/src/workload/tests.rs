use super::*;
use std::sync::atomic::{AtomicU64, Ordering};

/// A log that takes no time, except for one stall.
struct Stalls {
    begun: Instant,
    from: Duration,
    until: Duration,
    at: AtomicU64,
}

impl Engine for Stalls {
    fn append_durable(&self, payload: &[u8]) -> crate::engine::Result<()> {
        self.append(payload)
    }

    fn append(&self, _: &[u8]) -> crate::engine::Result<()> {
        let passed = self.begun.elapsed();
        if (self.from..self.until).contains(&passed) {
            std::thread::sleep(self.until - passed);
        }
        Ok(())
    }

    fn append_at(&self, payload: &[u8]) -> crate::engine::Result<Option<Position>> {
        self.append(payload)?;
        Ok(Some(self.at.fetch_add(1, Ordering::Relaxed) + 1))
    }

    fn sync(&self) -> crate::engine::Result<()> {
        Ok(())
    }

    fn is_durable(&self, _: Option<Position>) -> bool {
        true
    }
}

/// A run of one second, of which the log stalls for 400 ms.
fn through_a_stall(plan: &Plan) -> Outcome {
    let ms = Duration::from_millis;
    let (begun, at) = (Instant::now(), AtomicU64::new(0));
    let engine = Stalls { begun, from: ms(300), until: ms(700), at };
    drive(&engine, &Plan { duration: Some(ms(1000)), ..plan.clone() }).unwrap()
}

fn ms_at(latencies: &Latencies, quantile: f64) -> f64 {
    latencies.quantile_ns(quantile) as f64 / 1e6
}

/// Checks that the quantiles lie above this many milliseconds and below 900, in at least one of
/// three runs. A machine that stalls itself may spoil one of them.
fn lie_above(what: &str, least: [(f64, f64); 3], run: impl Fn() -> Latencies) {
    let mut seen = Vec::new();
    for _ in 0..3 {
        let found = run();
        let at = least.map(|(quantile, _)| ms_at(&found, quantile));
        if at.iter().zip(least).all(|(at, (_, least))| *at > least && *at < 900.0) {
            return;
        }
        seen.push(at);
    }
    panic!("{what}: {least:?}, but {seen:?} ms");
}

#[test]
fn open_loop_stall_delays_every_arrival_in_it() {
    let open =
        Plan { mode: Mode::Open(20_000.0), meaning: Meaning::Arrival, ..Plan::blocking(2, 100) };
    for arrivals in [Pattern::Poisson, Pattern::Constant, Pattern::Burst(50)] {
        // Four tenths of the records were late: evenly, and by at most 400 ms.
        lie_above(&format!("{arrivals:?}"), [(0.7, 20.0), (0.8, 120.0), (0.9, 220.0)], || {
            let found = through_a_stall(&Plan { arrivals, ..open.clone() });
            assert_eq!((found.skipped, found.corrected.is_none()), (0, true));
            found.latencies
        });
    }
}

#[test]
fn closed_loop_stall_appears_in_the_corrected_latencies() {
    for mode in [Mode::Blocking, Mode::Pipelined] {
        let meaning = Meaning::of(mode, ringwal::Durability::EveryGroup);
        lie_above(&format!("{mode:?}"), [(0.85, 30.0), (0.9, 100.0), (0.95, 200.0)], || {
            let found = through_a_stall(&Plan { mode, meaning, ..Plan::blocking(1, 100) });
            found.corrected.unwrap()
        });
    }
}

#[test]
fn other_engine_that_fails_is_reported() {
    struct Fails;
    impl Engine for Fails {
        fn append_durable(&self, _: &[u8]) -> crate::engine::Result<()> {
            Err("no room".into())
        }
        fn append(&self, _: &[u8]) -> crate::engine::Result<()> {
            Ok(())
        }
        fn sync(&self) -> crate::engine::Result<()> {
            Err("no sync".into())
        }
    }
    let dynamic: &dyn Engine = &Fails;
    let e = drive(dynamic, &Plan::blocking(2, 9)).unwrap_err();
    assert_eq!(e.to_string(), "the engine failed: no room");
    let e = drive(dynamic, &Plan::synced(1, 9, Duration::from_millis(1))).unwrap_err();
    assert_eq!(e.to_string(), "the engine failed: no sync");
    let e = drive(dynamic, &Plan { tasks: 3, ..Plan::blocking(1, 9) }).unwrap_err();
    assert_eq!(e.exit_status(), 2);
}

#[test]
fn quotas_add_up() {
    for (records, producers) in [(0, 1), (1, 3), (10, 3), (1000, 4096), (4097, 4096)] {
        let sum: u64 = (0..producers).map(|i| quota(Some(records), producers, i)).sum();
        assert_eq!(sum, records);
    }
    assert_eq!(quota(None, 7, 3), u64::MAX);
}
