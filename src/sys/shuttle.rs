//! The part of loom's interface that the models use, over shuttle. Shuttle runs random schedules of
//! any length instead of all schedules of a few steps. Every access is sequentially consistent
//! here: only loom finds what weaker orderings allow.
//!
//! `RINGWAL_SCHEDULES=n` is the number of schedules of each model, 2,000 by default.

pub(crate) use shuttle::{hint, thread};

pub(crate) mod sync {
    pub(crate) use shuttle::sync::{Arc, Condvar, Mutex, MutexGuard};

    pub(crate) mod atomic {
        pub(crate) use shuttle::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};
    }

    /// A flag for which one side waits.
    #[derive(Debug, Default)]
    pub(crate) struct Notify {
        told: Mutex<bool>,
        changed: Condvar,
    }

    impl Notify {
        pub(crate) fn new() -> Self {
            Self::default()
        }

        pub(crate) fn notify(&self) {
            *self.told.lock().unwrap() = true;
            self.changed.notify_all();
        }

        pub(crate) fn wait(&self) {
            let mut told = self.told.lock().unwrap();
            while !*told {
                told = self.changed.wait(told).unwrap();
            }
            *told = false;
        }
    }
}

pub(crate) mod cell {
    use shuttle::sync::atomic::{AtomicI64, Ordering};

    /// Fails the model when an exclusive access overlaps with another.
    #[derive(Debug)]
    pub(crate) struct UnsafeCell<T> {
        // Accesses in progress; -1: one exclusive access.
        inside: AtomicI64,
        value: std::cell::UnsafeCell<T>,
    }

    impl<T> UnsafeCell<T> {
        pub(crate) fn new(value: T) -> Self {
            UnsafeCell { inside: AtomicI64::new(0), value: std::cell::UnsafeCell::new(value) }
        }

        pub(crate) fn with<R>(&self, f: impl FnOnce(*const T) -> R) -> R {
            assert!(self.inside.fetch_add(1, Ordering::SeqCst) >= 0, "shared beside exclusive");
            let result = f(self.value.get());
            self.inside.fetch_sub(1, Ordering::SeqCst);
            result
        }

        pub(crate) fn with_mut<R>(&self, f: impl FnOnce(*mut T) -> R) -> R {
            let alone = self.inside.compare_exchange(0, -1, Ordering::SeqCst, Ordering::SeqCst);
            assert!(alone.is_ok(), "exclusive beside another");
            let result = f(self.value.get());
            self.inside.store(0, Ordering::SeqCst);
            result
        }
    }
}

pub(crate) mod model {
    use shuttle::scheduler::{PctScheduler, RandomScheduler};

    #[derive(Debug)]
    pub(crate) struct Builder {
        pub(crate) preemption_bound: Option<usize>,
        pub(crate) max_branches: usize,
    }

    impl Builder {
        pub(crate) fn new() -> Self {
            Builder { preemption_bound: None, max_branches: 0 }
        }

        /// Runs the model: half of the schedules are uniformly random, half have few preemptions at
        /// random places.
        pub(crate) fn check(&self, f: impl Fn() + Send + Sync + 'static) {
            let schedules = std::env::var("RINGWAL_SCHEDULES")
                .map_or(2_000, |n| n.parse().expect("RINGWAL_SCHEDULES is a number"));
            // The model's threads may happen to take turns: one more thread runs beside them.
            let f = std::sync::Arc::new(move || {
                let beside = super::thread::spawn(super::thread::yield_now);
                f();
                beside.join().unwrap();
            });
            let mut config = shuttle::Config::new();
            config.max_steps = shuttle::MaxSteps::FailAfter(1_000_000);
            let g = std::sync::Arc::clone(&f);
            shuttle::Runner::new(RandomScheduler::new(schedules / 2), config.clone())
                .run(move || g());
            let few = PctScheduler::new(self.preemption_bound.unwrap_or(3), schedules / 2);
            shuttle::Runner::new(few, config).run(move || f());
        }
    }
}
