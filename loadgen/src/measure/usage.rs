//! Processor time and context switches of the process, of each thread, and of ended producers.

use std::collections::BTreeMap;

use serde_json::{Value, json};

/// Used processor time and context switches.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Usage {
    /// Seconds in user space.
    pub user: f64,
    /// Seconds in the kernel.
    pub system: f64,
    /// Voluntary switches: the thread waited.
    pub voluntary: u64,
    /// Involuntary switches: the system suspended the thread.
    pub involuntary: u64,
}

impl Usage {
    /// Adds another usage.
    pub fn add(&mut self, other: &Usage) {
        self.user += other.user;
        self.system += other.system;
        self.voluntary += other.voluntary;
        self.involuntary += other.involuntary;
    }

    /// Returns the usage since `before`.
    #[must_use]
    pub fn since(&self, before: &Usage) -> Usage {
        Usage {
            user: (self.user - before.user).max(0.0),
            system: (self.system - before.system).max(0.0),
            voluntary: self.voluntary.saturating_sub(before.voluntary),
            involuntary: self.involuntary.saturating_sub(before.involuntary),
        }
    }

    /// Reads the usage of all threads of this process, including ended ones.
    #[must_use]
    pub fn of_this_process() -> Usage {
        #[cfg(unix)]
        {
            Self::of(nix::sys::resource::UsageWho::RUSAGE_SELF)
        }
        #[cfg(not(unix))]
        {
            Usage::default()
        }
    }

    /// Reads the usage of the calling thread. Zero where the system does not report it.
    #[must_use]
    pub fn of_this_thread() -> Usage {
        #[cfg(target_os = "linux")]
        {
            Self::of(nix::sys::resource::UsageWho::RUSAGE_THREAD)
        }
        #[cfg(not(target_os = "linux"))]
        {
            Usage::default()
        }
    }

    #[cfg(unix)]
    fn of(who: nix::sys::resource::UsageWho) -> Usage {
        let Ok(found) = nix::sys::resource::getrusage(who) else { return Usage::default() };
        let seconds =
            |time: nix::sys::time::TimeVal| time.tv_sec() as f64 + time.tv_usec() as f64 / 1e6;
        let count = |n: i64| u64::try_from(n).unwrap_or(0);
        #[allow(clippy::useless_conversion, reason = "the types differ between systems")]
        Usage {
            user: seconds(found.user_time()),
            system: seconds(found.system_time()),
            voluntary: count(found.voluntary_context_switches().into()),
            involuntary: count(found.involuntary_context_switches().into()),
        }
    }

    /// Returns the JSON object.
    #[must_use]
    pub fn json(&self) -> Value {
        json!({
            "user_s": self.user,
            "system_s": self.system,
            "voluntary_switches": self.voluntary,
            "involuntary_switches": self.involuntary,
        })
    }
}

/// Returns the running threads by number, with their names. Empty where the system does not report
/// them.
#[must_use]
pub fn of_threads() -> BTreeMap<u64, (String, Usage)> {
    let Ok(entries) = std::fs::read_dir("/proc/self/task") else { return BTreeMap::new() };
    let of = |entry: std::fs::DirEntry| {
        let number = entry.file_name().to_str()?.parse().ok()?;
        let read = |name: &str| std::fs::read_to_string(entry.path().join(name)).ok();
        let name = read("comm")?.trim().to_owned();
        Some((number, (name, parse(&read("stat")?, &read("status")?)?)))
    };
    entries.flatten().filter_map(of).collect()
}

/// Parses the texts of /proc, which count ticks of a hundredth of a second.
fn parse(stat: &str, status: &str) -> Option<Usage> {
    const TICK: f64 = 0.01;
    // The name is in parentheses and may contain parentheses.
    let (_, rest) = stat.rsplit_once(')')?;
    let fields: Vec<&str> = rest.split_whitespace().collect();
    let ticks = |n: usize| fields.get(n)?.parse::<f64>().ok();
    let line = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        line.trim().parse::<u64>().ok()
    };
    Some(Usage {
        user: ticks(11)? * TICK,
        system: ticks(12)? * TICK,
        voluntary: line("voluntary_ctxt_switches:")?,
        involuntary: line("nonvoluntary_ctxt_switches:")?,
    })
}

/// The usage of a run, in total and by thread.
#[derive(Debug, Clone, Default)]
pub struct Spent {
    /// Usage of the process.
    pub all: Usage,
    /// Usage by thread name: threads that ran at both ends of the run, and the producers.
    pub threads: Vec<(String, Usage)>,
}

/// The usage at the start of a run.
#[derive(Debug)]
pub struct Meter {
    all: Usage,
    threads: BTreeMap<u64, (String, Usage)>,
}

impl Meter {
    /// Starts the meter.
    #[must_use]
    pub fn start() -> Meter {
        Meter { all: Usage::of_this_process(), threads: of_threads() }
    }

    /// Returns the usage since the start. `producers` is the usage of the ended producers.
    #[must_use]
    pub fn stop(&self, producers: Usage) -> Spent {
        let all = Usage::of_this_process().since(&self.all);
        let mut by_name: BTreeMap<String, Usage> = BTreeMap::new();
        for (number, (name, after)) in of_threads() {
            let before = self.threads.get(&number).map_or(Usage::default(), |(_, usage)| *usage);
            by_name.entry(name).or_default().add(&after.since(&before));
        }
        let used = |usage: &Usage| usage.user + usage.system > 0.0 || usage.voluntary > 0;
        let mut threads: Vec<_> = vec![("producers".to_owned(), producers)];
        threads.extend(by_name);
        threads.retain(|(_, usage)| used(usage));
        Spent { all, threads }
    }
}

impl Spent {
    /// Returns the processor microseconds per record.
    #[must_use]
    pub fn us_per_record(&self, records: u64) -> Option<f64> {
        let seconds = self.all.user + self.all.system;
        (records > 0 && seconds > 0.0).then(|| seconds * 1e6 / records as f64)
    }

    /// Returns the JSON object.
    #[must_use]
    pub fn json(&self, records: u64) -> Value {
        let mut value = self.all.json();
        value["us_per_record"] = json!(self.us_per_record(records));
        let threads = self.threads.iter().map(|(name, usage)| {
            let mut value = usage.json();
            value["name"] = json!(name);
            value
        });
        value["threads"] = threads.collect();
        value
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernel_texts_with_any_thread_name_are_parsed() {
        let stat = "7 (a) (b) S 1 7 7 0 -1 4194624 1 0 0 0 250 50 0 0 20 0 3 0 1 2 3";
        let status = "Name:\ta\nvoluntary_ctxt_switches:\t12\nnonvoluntary_ctxt_switches:\t3\n";
        let usage = parse(stat, status).unwrap();
        assert_eq!(usage, Usage { user: 2.5, system: 0.5, voluntary: 12, involuntary: 3 });
        assert_eq!(parse("", ""), None);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn processor_time_of_a_thread_is_counted() {
        let meter = Meter::start();
        let busy = || {
            let (begun, mut n) = (std::time::Instant::now(), 0_u64);
            while Usage::of_this_thread().user < 0.02 && begun.elapsed().as_secs() < 60 {
                n = std::hint::black_box(n + 1);
            }
            Usage::of_this_thread()
        };
        let producers = std::thread::spawn(busy).join().unwrap();
        let spent = meter.stop(producers);
        assert!(spent.all.user >= 0.02, "{spent:?}");
        assert_eq!(spent.threads[0].0, "producers");
        assert!(spent.us_per_record(1000).unwrap() >= 20.0);
        assert_eq!(spent.us_per_record(0), None);
    }
}
