//! The log beside the model: where it is stored, and how its lives start and end.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use ringwal::testing::SimulatedDisk;
use ringwal::{Error, Lsn, RecoveryCase, Wal, WalBuilder};

use super::consuming::Consumers;
use super::following::Following;
use super::operations::{Config, Op, Place, Retention};
use super::reference::{Records, Reference};

pub(crate) type Checked = Result<(), String>;

pub(crate) enum Home {
    Files { dir: PathBuf, uring: bool },
    Disk(SimulatedDisk),
}

/// The operation in progress when the power failed: it may have taken effect, or not.
pub(crate) enum Pending {
    Append(Vec<Vec<u8>>),
    Cut(u64),
}

pub(crate) struct Subject {
    home: Home,
    pub(crate) config: Option<Config>,
    pub(crate) wal: Option<Wal>,
    pub(crate) clones: Vec<Wal>,
    pub(crate) model: Reference,
    /// The highest position passed to `truncate_before`.
    pub(crate) truncate_to: u64,
    pub(crate) follower: Option<Following>,
    pub(crate) consumers: Consumers,
    hooked: Arc<Mutex<Hooked>>,
    pub(crate) pending: Option<Pending>,
    /// The settings of the next open, once the power has failed.
    after_power: Option<Config>,
    /// Whether the disk is full.
    pub(crate) full: bool,
    /// The log's application version, once the log exists.
    version: u8,
}

/// The calls of the hook on sealed segments.
#[derive(Debug, Default)]
struct Hooked {
    calls: u32,
    /// Base and end of the last segment, and whether the hook accepted it.
    last: Option<(u64, u64, bool)>,
    /// Whether every open since then had a hook.
    unbroken: bool,
    wrong: Option<String>,
}

impl Hooked {
    fn call(&mut self, base: u64, end: u64, may_fail: bool) -> Result<(), &'static str> {
        self.calls += 1;
        match self.last {
            // A repeated call: the last one failed, or its success was not stored.
            Some((at, _, _)) if at == base => {}
            Some((_, at, true)) if at == base => {}
            // Without a hook, retention removed segments meanwhile.
            Some((_, at, _)) if at <= base && !self.unbroken => {}
            None => {}
            other => self.wrong = Some(format!("the hook has {base}..{end} after {other:?}")),
        }
        self.unbroken = true;
        let fails = may_fail && self.calls.is_multiple_of(3);
        self.last = Some((base, end, !fails));
        if fails { Err("the model's hook fails now and then") } else { Ok(()) }
    }
}

pub(crate) fn wrong<T: std::fmt::Debug>(got: &T) -> Checked {
    Err(format!("got {got:?}"))
}

impl Subject {
    pub(crate) fn new(home: Home) -> Self {
        Subject {
            home,
            config: None,
            wal: None,
            clones: Vec::new(),
            model: Reference::default(),
            truncate_to: 0,
            follower: None,
            consumers: Consumers::default(),
            hooked: Arc::default(),
            pending: None,
            after_power: None,
            full: false,
            version: 0,
        }
    }

    pub(crate) fn files(dir: &Path, uring: bool) -> Self {
        Subject::new(Home::Files { dir: dir.into(), uring })
    }

    pub(crate) fn simulated(seed: u64) -> Self {
        Subject::new(Home::Disk(SimulatedDisk::new(seed)))
    }

    pub(crate) fn wal(&self) -> Wal {
        // Every handle must work equally.
        let handles = self.clones.iter().chain(&self.wal);
        handles.last().cloned().expect("sequences begin with an opening")
    }

    pub(crate) fn disk(&self) -> Option<&SimulatedDisk> {
        match &self.home {
            Home::Disk(disk) => Some(disk),
            Home::Files { .. } => None,
        }
    }

    fn is_off(&self) -> bool {
        self.disk().is_some_and(SimulatedDisk::is_off)
    }

    pub(crate) fn lsn(&self, place: Place) -> u64 {
        let records = &self.model.records;
        let record = |n: u32| records.get(n as usize % records.len().max(1)).map_or(0, |r| r.0);
        match place {
            Place::Record(n) => record(n),
            Place::Inside(n, offset) => record(n) + u64::from(offset),
            Place::Zero => 0,
            Place::DurableEnd => self.model.durable_end,
            Place::Beyond => 1 << 40,
        }
    }

    /// Whether `lsn` was surely appended. The log's end is not public, so a position slightly above
    /// the last record may or may not be below the end.
    pub(crate) fn surely_appended(&self, lsn: u64) -> Option<bool> {
        let last = self.model.records.last().map_or(0, |r| r.0);
        if lsn <= last || lsn < self.model.durable_end {
            Some(true)
        } else {
            (lsn > last + (1 << 20)).then_some(false)
        }
    }

    /// Whether retention may remove segments without a call.
    pub(crate) fn by_itself(&self) -> bool {
        self.config.is_some_and(|c| c.retention != Retention::None)
    }

    pub(crate) fn step(&mut self, op: &Op) -> Checked {
        let done = match op {
            Op::Reopen(config) => self.reopen(*config, true),
            Op::DropAndOpen(config) => self.reopen(*config, false),
            // A shortened sequence may lack its first open.
            _ if self.wal.is_none() => return Ok(()),
            Op::Crash(config) => return self.die(*config, SimulatedDisk::crash),
            Op::Kill(config) => return self.die(*config, SimulatedDisk::kill),
            Op::PowerOffAfter(operations, config) => {
                if let Some(disk) = self.disk() {
                    disk.power_off_after((*operations).into());
                    self.after_power = Some(*config);
                }
                Ok(())
            }
            Op::Full => {
                if let Some(disk) = self.disk() {
                    disk.set_capacity(0);
                    self.full = true;
                }
                Ok(())
            }
            Op::Room => self.room(),
            Op::Advance(ms) => {
                if let Some(disk) = self.disk() {
                    disk.advance(Duration::from_millis((*ms).into()));
                }
                Ok(())
            }
            _ => self.act(op),
        };
        self.note()?;
        if self.is_off() {
            let failed = ["oisoned", "cannot ", "Io {", "is off"];
            match done {
                Err(e) if !failed.iter().any(|by_power| e.contains(by_power)) => return Err(e),
                _ => {}
            }
            let config = self.after_power.take().or(self.config).ok_or("no configuration")?;
            return self.die(config, SimulatedDisk::crash);
        }
        done?;
        self.pending = None;
        self.consumers.settled();
        Ok(())
    }

    /// Checks what must hold after every operation.
    fn note(&mut self) -> Checked {
        self.look(self.config, self.truncate_to)
    }

    /// Checks the same after an operation on a log with `former` settings, which was asked to
    /// truncate before `truncate_to`.
    fn look(&mut self, former: Option<Config>, truncate_to: u64) -> Checked {
        let hooked = self.hooked.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(wrong) = &hooked.wrong {
            return Err(wrong.clone());
        }
        let Some(wal) = self.clones.iter().chain(&self.wal).last() else { return Ok(()) };
        self.model.durable(wal.durable_end().as_u64())?;
        let (before, oldest) = (self.model.oldest, wal.oldest_lsn().as_u64());
        self.model.kept_from(oldest)?;
        let (Some(config), Some(former)) = (self.config, former) else { return Ok(()) };
        if config.hook {
            let told = hooked.last.map_or(0, |(base, end, let_go)| if let_go { end } else { base });
            if hooked.last.is_some_and(|(_, end, _)| end > self.model.durable_end) {
                return Err(format!(
                    "the hook has {hooked:?}, durable to {}",
                    self.model.durable_end
                ));
            }
            if former.hook && oldest > before && oldest > told {
                return Err(format!("kept from {oldest}, and the hook has let go {told}"));
            }
        }
        let by_itself = [config, former].iter().any(|c| c.retention != Retention::None);
        if !by_itself && oldest > before && oldest > truncate_to.max(self.truncate_to) {
            return Err(format!("kept from {oldest}, asked for {truncate_to}"));
        }
        let limited = config.consumer_limit || former.consumer_limit;
        if limited { Ok(()) } else { self.consumers.held(before, oldest) }
    }

    /// Gives the disk space again. The log must find this without a call, so that more can be
    /// appended than the prepared segments hold.
    fn room(&mut self) -> Checked {
        if !std::mem::take(&mut self.full) {
            return Ok(());
        }
        let (Some(disk), Some(config)) = (self.disk().cloned(), self.config) else { return Ok(()) };
        disk.set_capacity(u64::MAX);
        let wal = self.wal();
        let (mut first, mut patience) = (None, 1000);
        loop {
            let payload = self.model.payload(config.max_record());
            match wal.append(&payload) {
                Ok(lsn) => {
                    self.model.append(lsn.as_u64(), vec![payload])?;
                    let first = *first.get_or_insert(lsn.as_u64());
                    if lsn.as_u64() - first > 4 * u64::from(config.segment_size) {
                        return Ok(());
                    }
                }
                Err(Error::NoSpace) if patience > 0 => {
                    patience -= 1;
                    disk.advance(Duration::from_millis(20));
                }
                Err(e) => {
                    self.pending = Some(Pending::Append(vec![payload]));
                    return wrong(&e);
                }
            }
        }
    }

    fn open(&self, config: Config) -> ringwal::Result<Wal> {
        let hooked = |builder: WalBuilder, may_fail: bool| {
            if !config.hook {
                return builder;
            }
            let hooked = Arc::clone(&self.hooked);
            builder.on_sealed(move |s| {
                let mut hooked = hooked.lock().unwrap_or_else(PoisonError::into_inner);
                let called = hooked.call(s.base.as_u64(), s.end.as_u64(), may_fail);
                called.map_err(Into::into)
            })
        };
        match &self.home {
            Home::Files { dir, uring } => {
                hooked(config.apply(Wal::builder(dir), *uring), false).open()
            }
            Home::Disk(disk) => {
                disk.open(&hooked(config.apply(Wal::builder("not looked at"), false), true))
            }
        }
    }

    fn let_go(&mut self) {
        self.follower = None;
        self.consumers.detach_all();
        self.clones.clear();
        self.wal = None;
    }

    fn shut(&mut self, close: bool) -> Checked {
        let Some(wal) = self.wal.take() else { return Ok(()) };
        if close {
            wal.close().map_err(|e| e.to_string())?;
            self.model.durable(wal.durable_end().as_u64())?;
            for refused in [wal.append(b"x"), wal.append_durable(b"x"), wal.append_batch(&[b"x"])] {
                if !matches!(refused, Err(Error::Closed)) {
                    return Err(format!("after close: {refused:?}"));
                }
            }
            self.wal = Some(wal);
            self.take()?;
            self.read_from(0)?;
            if let Some(f) = &mut self.follower
                && let Some(more) = f.follow.next()
            {
                return Err(format!("the follower of a closed log has {more:?}"));
            }
        }
        self.let_go();
        Ok(())
    }

    /// Opens the log. First tries another version if that must be refused.
    fn begin(&mut self, mut config: Config, patient: bool) -> Result<Wal, String> {
        if !config.hook {
            self.hooked.lock().unwrap_or_else(PoisonError::into_inner).unbroken = false;
        }
        let until = Instant::now() + Duration::from_secs(30);
        loop {
            let known = self.config.is_some();
            match self.open(config) {
                Err(Error::ApplicationVersion { found, .. })
                    if known && config.version != 0 && found == u32::from(self.version) =>
                {
                    config.version = 0;
                }
                // The drop of the last handle may take some time to close the log.
                Err(Error::Locked { .. }) if patient && Instant::now() < until => {
                    std::thread::yield_now();
                }
                Err(e) => return Err(format!("{e:?}")),
                Ok(_) if known && ![0, self.version].contains(&config.version) => {
                    return Err(format!("opened as of version {}", config.version));
                }
                Ok(wal) => {
                    if !known {
                        self.version = config.version;
                    }
                    self.config = Some(config);
                    (self.truncate_to, self.full) = (0, false);
                    return Ok(wal);
                }
            }
        }
    }

    pub(crate) fn reopen(&mut self, config: Config, close: bool) -> Checked {
        let first = self.config.is_none();
        if let Some(disk) = self.disk() {
            // A closing log tries once more to get space.
            disk.set_capacity(u64::MAX);
        }
        let (former, truncate_to) = (self.config, self.truncate_to);
        self.shut(close)?;
        let patient = !close && self.disk().is_none();
        let wal = self.begin(config, patient)?;
        let report = wal.recovery();
        let case = if first { RecoveryCase::New } else { RecoveryCase::Marked };
        if report.case != case || report.discarded_bytes != 0 {
            return Err(format!("closed, and found {report:?}"));
        }
        self.wal = Some(wal);
        self.look(former, truncate_to)?;
        self.consumers.compare(&self.wal())?;
        self.read_from(0)
    }

    /// Kills the machine or the process, and opens the log again. It must hold every acknowledged
    /// record, and a prefix of the others.
    fn die(&mut self, config: Config, how: fn(&SimulatedDisk)) -> Checked {
        let Some(disk) = self.disk().cloned() else {
            return self.reopen(config, false);
        };
        // Note the current state, which must hold after the death.
        self.note()?;
        how(&disk);
        self.let_go();
        disk.heal();
        disk.set_capacity(u64::MAX);
        self.after_power = None;
        let (former, truncate_to) = (self.config, self.truncate_to);
        let first = former.is_none();
        let wal = self.begin(config, false).map_err(|e| format!("after the crash: {e}"))?;
        let found: Records = wal
            .reader(Lsn::ZERO)
            .map(|r| r.map(|r| (r.lsn.as_u64(), r.payload)))
            .collect::<Result<_, _>>()
            .map_err(|e| format!("after the crash: {e}"))?;
        if first && !found.is_empty() {
            return Err(format!("{} records of nobody", found.len()));
        }
        let oldest = wal.oldest_lsn().as_u64();
        let end = wal.durable_end().as_u64();
        let survived = self.model.survived(&found, oldest, end, self.pending.take());
        survived.map_err(|e| format!("after the crash: {e}; {:?}", wal.recovery()))?;
        self.wal = Some(wal);
        let looked = self.look(former, truncate_to);
        looked.map_err(|e| format!("after the crash: {e}"))?;
        self.consumers.compare(&self.wal()).map_err(|e| format!("after the crash: {e}"))
    }

    /// Closes and opens the log once more. Every record must be there.
    pub(crate) fn end(&mut self) -> Checked {
        if let Some(disk) = self.disk() {
            // A planned power failure must not happen now.
            disk.heal();
        }
        match self.config {
            Some(config) => {
                self.reopen(config, true)?;
                self.shut(true)
            }
            None => Ok(()),
        }
    }
}
