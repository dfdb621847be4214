//! Which jobs are out, which wait, which are done: a state machine that takes the time from
//! outside.
//!
//! 1. A job stays here from when it is read until every job before it is done too. So the number of
//!    jobs here bounds what a crash delivers again.
//! 2. A job has one lease at a time. The token tells a lease from the earlier ones of the same job.
//! 3. A worker may finish a job after its lease has ended, until another worker gets the job.
//! 4. A job that is given up is handed to the dead letters once, and then again after each failure
//!    of those.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum JobState {
    /// To be delivered at this time or later.
    Waiting {
        at: u64,
    },
    Leased {
        until: u64,
    },
    /// The dead letters get it, or have it.
    Dying,
    Done,
}

#[derive(Debug)]
struct Entry {
    payload: Arc<[u8]>,
    /// Deliveries so far.
    attempts: u32,
    /// Of the last lease. 0: the job was not delivered yet.
    token: u64,
    state: JobState,
}

/// A job as a worker gets it.
#[derive(Debug)]
pub(super) struct Leased {
    pub(super) lsn: u64,
    pub(super) payload: Arc<[u8]>,
    pub(super) attempt: u32,
    pub(super) token: u64,
}

/// Jobs in each state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Counts {
    pub(super) waiting: usize,
    pub(super) leased: usize,
    pub(super) done: usize,
}

/// A lease is not the job's last one, or has ended and the job is with another worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stale;

#[derive(Debug)]
pub(super) struct Leases {
    jobs: BTreeMap<u64, Entry>,
    /// Time and LSN of the jobs that wait, and of those that are leased.
    waiting: BTreeSet<(u64, u64)>,
    leased: BTreeSet<(u64, u64)>,
    /// Jobs for the dead letters.
    dying: Vec<u64>,
    /// LSN of the last of the jobs that are done with all before them.
    done_to: Option<u64>,
    /// How many of them are not committed yet.
    uncommitted: usize,
    tokens: u64,
    /// Jobs here, at most.
    limit: usize,
    /// Deliveries after which a job is given up.
    max_attempts: u32,
}

impl Leases {
    pub(super) fn new(limit: usize, max_attempts: u32) -> Self {
        Leases {
            jobs: BTreeMap::new(),
            waiting: BTreeSet::new(),
            leased: BTreeSet::new(),
            dying: Vec::new(),
            done_to: None,
            uncommitted: 0,
            tokens: 0,
            limit,
            max_attempts,
        }
    }

    /// How many more jobs may be read.
    pub(super) fn room(&self) -> usize {
        self.limit.saturating_sub(self.jobs.len())
    }

    /// How many jobs wait.
    pub(super) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.jobs.is_empty()
    }

    pub(super) fn counts(&self) -> Counts {
        let (waiting, leased) = (self.waiting.len(), self.leased.len());
        let done = self.jobs.values().filter(|job| job.state == JobState::Done).count();
        Counts { waiting, leased, done }
    }

    /// Enters a job that was read, unless it is here or done.
    pub(super) fn add(&mut self, lsn: u64, payload: &[u8]) {
        if self.done_to.is_some_and(|done| lsn <= done) || self.jobs.contains_key(&lsn) {
            return;
        }
        let state = JobState::Waiting { at: 0 };
        self.jobs.insert(lsn, Entry { payload: payload.into(), attempts: 0, token: 0, state });
        self.waiting.insert((0, lsn));
    }

    /// Jobs from `from` on are void.
    pub(super) fn cut(&mut self, from: u64) {
        self.jobs.split_off(&from);
        self.waiting.retain(|(_, lsn)| *lsn < from);
        self.leased.retain(|(_, lsn)| *lsn < from);
        self.dying.retain(|lsn| *lsn < from);
    }

    /// Leases the first job that waits, until `until`.
    pub(super) fn take(&mut self, now: u64, until: u64) -> Option<Leased> {
        let (at, lsn) = *self.waiting.first().filter(|(at, _)| *at <= now)?;
        self.waiting.remove(&(at, lsn));
        let job = self.jobs.get_mut(&lsn)?;
        self.tokens += 1;
        (job.token, job.attempts) = (self.tokens, job.attempts.saturating_add(1));
        job.state = JobState::Leased { until };
        self.leased.insert((until, lsn));
        let (payload, attempt, token) = (Arc::clone(&job.payload), job.attempts, job.token);
        Some(Leased { lsn, payload, attempt, token })
    }

    /// Ends the leases whose time has passed. Their jobs wait again, or are given up.
    pub(super) fn expire(&mut self, now: u64) {
        while let Some((_, lsn)) = self.leased.first().copied().filter(|(until, _)| *until <= now) {
            self.release(lsn, now);
        }
    }

    /// When after `now` the first lease ends, or the first job may be delivered.
    pub(super) fn next_event(&self, now: u64) -> Option<u64> {
        let later = (now.saturating_add(1), 0);
        let first = |set: &BTreeSet<(u64, u64)>| set.range(later..).next().map(|(at, _)| *at);
        first(&self.leased).into_iter().chain(first(&self.waiting)).min()
    }

    /// Whether a job may be delivered now.
    pub(super) fn is_due(&self, now: u64) -> bool {
        self.waiting.first().is_some_and(|(at, _)| *at <= now)
    }

    /// Whether a job waits for the dead letters.
    pub(super) fn has_dead(&self) -> bool {
        !self.dying.is_empty()
    }

    /// The job of a lease, if no other worker has it and it is not given up.
    fn of(&mut self, lsn: u64, token: u64) -> Result<&mut Entry, Stale> {
        let job = self.jobs.get_mut(&lsn).ok_or(Stale)?;
        let open = matches!(job.state, JobState::Leased { .. } | JobState::Waiting { .. });
        if open && job.token == token { Ok(job) } else { Err(Stale) }
    }

    /// Takes the job out of the orders of time.
    fn unlist(&mut self, lsn: u64) {
        match self.jobs.get(&lsn).map(|job| job.state) {
            Some(JobState::Waiting { at }) => self.waiting.remove(&(at, lsn)),
            Some(JobState::Leased { until }) => self.leased.remove(&(until, lsn)),
            _ => false,
        };
    }

    /// The job waits until `at`, or is given up if it was delivered often enough.
    fn release(&mut self, lsn: u64, at: u64) {
        self.unlist(lsn);
        let Some(job) = self.jobs.get_mut(&lsn) else { return };
        if job.attempts >= self.max_attempts {
            job.state = JobState::Dying;
            self.dying.push(lsn);
        } else {
            job.state = JobState::Waiting { at };
            self.waiting.insert((at, lsn));
        }
    }

    /// The worker is done with the job.
    pub(super) fn finish(&mut self, lsn: u64, token: u64) -> Result<(), Stale> {
        self.of(lsn, token)?;
        self.set_done(lsn);
        Ok(())
    }

    fn set_done(&mut self, lsn: u64) {
        self.unlist(lsn);
        if let Some(job) = self.jobs.get_mut(&lsn) {
            job.state = JobState::Done;
            job.payload = Arc::from([]);
        }
        while let Some(first) = self.jobs.first_entry()
            && first.get().state == JobState::Done
        {
            self.done_to = Some(first.remove_entry().0);
            self.uncommitted += 1;
        }
    }

    /// The worker gives the job back, to be delivered at `at` or later.
    pub(super) fn give_back(&mut self, lsn: u64, token: u64, at: u64) -> Result<(), Stale> {
        let job = self.of(lsn, token)?;
        if matches!(job.state, JobState::Leased { .. }) {
            self.release(lsn, at);
        }
        Ok(())
    }

    /// The worker gives the job up.
    pub(super) fn give_up(&mut self, lsn: u64, token: u64) -> Result<(), Stale> {
        self.of(lsn, token)?;
        self.unlist(lsn);
        if let Some(job) = self.jobs.get_mut(&lsn) {
            job.state = JobState::Dying;
            self.dying.push(lsn);
        }
        Ok(())
    }

    /// The lease lasts until `until`.
    pub(super) fn extend(&mut self, lsn: u64, token: u64, until: u64) -> Result<(), Stale> {
        self.of(lsn, token)?;
        self.unlist(lsn);
        if let Some(job) = self.jobs.get_mut(&lsn) {
            job.state = JobState::Leased { until };
            self.leased.insert((until, lsn));
        }
        Ok(())
    }

    /// A job for the dead letters. [`Leases::buried`] must follow.
    pub(super) fn next_dead(&mut self) -> Option<Leased> {
        let lsn = self.dying.pop()?;
        let job = self.jobs.get(&lsn)?;
        let (payload, attempt, token) = (Arc::clone(&job.payload), job.attempts, job.token);
        Some(Leased { lsn, payload, attempt, token })
    }

    /// The dead letters have taken the job, or, if not, it is delivered again at `again_at`.
    pub(super) fn buried(&mut self, lsn: u64, again_at: Option<u64>) {
        let Some(job) = self.jobs.get_mut(&lsn) else { return };
        match again_at {
            None => self.set_done(lsn),
            Some(at) => {
                job.state = JobState::Waiting { at };
                self.waiting.insert((at, lsn));
            }
        }
    }

    /// The last of the jobs that are done with all before them, if `enough` of them are not
    /// committed, or no job is left here.
    pub(super) fn commit_due(&self, enough: usize) -> Option<u64> {
        let due = self.uncommitted >= enough || self.jobs.is_empty();
        self.done_to.filter(|_| self.uncommitted > 0 && due)
    }

    /// The job at `lsn` is committed, with all before it.
    pub(super) fn committed(&mut self, lsn: u64) {
        if self.done_to == Some(lsn) {
            self.uncommitted = 0;
        }
    }
}

#[cfg(all(test, not(ringwal_loom)))]
mod tests {
    use super::*;

    const EVER: u64 = u64::MAX;

    fn leases(limit: usize, max_attempts: u32, jobs: u64) -> Leases {
        let mut leases = Leases::new(limit, max_attempts);
        (1..=jobs).for_each(|lsn| leases.add(lsn * 8, &[lsn as u8]));
        leases
    }

    #[test]
    fn jobs_finished_out_of_order_are_committed_in_order() {
        let mut leases = leases(10, u32::MAX, 3);
        let out: Vec<Leased> = (0..3).map(|_| leases.take(0, EVER).unwrap()).collect();
        assert!(leases.take(0, EVER).is_none());
        for (n, due) in [(1, None), (2, None), (0, Some(24))] {
            leases.finish(out[n].lsn, out[n].token).unwrap();
            assert_eq!(leases.commit_due(1), due, "{n}");
        }
        assert_eq!(leases.finish(out[0].lsn, out[0].token), Err(Stale), "done twice");
        leases.committed(24);
        assert_eq!(leases.commit_due(1), None);
        leases.add(16, b"read again after a failed read");
        assert!(leases.is_empty());
    }

    #[test]
    fn expired_lease_is_stale_once_another_worker_has_the_job() {
        let mut leases = leases(10, u32::MAX, 1);
        let first = leases.take(0, 100).unwrap();
        leases.expire(99);
        assert!(leases.take(99, EVER).is_none());
        assert_eq!((leases.next_event(99), leases.next_event(100)), (Some(100), None));
        leases.expire(100);
        let second = leases.take(100, 200).unwrap();
        assert_eq!((second.lsn, second.attempt), (first.lsn, 2));
        assert_eq!(leases.finish(first.lsn, first.token), Err(Stale));
        assert_eq!(leases.extend(first.lsn, first.token, EVER), Err(Stale));
        assert_eq!(leases.give_back(first.lsn, first.token, 0), Err(Stale));
        leases.extend(second.lsn, second.token, 300).unwrap();
        leases.expire(299);
        assert_eq!((leases.counts().leased, leases.is_due(299)), (1, false));
        leases.expire(300);
        assert!(leases.is_due(300));
        // No other worker has it: the work counts.
        leases.finish(second.lsn, second.token).unwrap();
        assert_eq!((leases.commit_due(9), leases.next_event(0)), (Some(8), None));
    }

    #[test]
    fn job_that_fails_too_often_is_buried_and_delivered_again_if_that_fails() {
        let mut leases = leases(10, 2, 2);
        for attempt in 1..=2 {
            let job = leases.take(50, EVER).unwrap();
            assert_eq!((job.lsn, job.attempt), (8, attempt));
            leases.give_back(job.lsn, job.token, 0).unwrap();
        }
        let dead = leases.next_dead().unwrap();
        assert_eq!((dead.lsn, dead.attempt, &*dead.payload), (8, 2, &[1][..]));
        assert!(leases.next_dead().is_none());
        leases.buried(8, Some(70));
        assert_eq!(leases.take(69, EVER).unwrap().lsn, 16);
        let again = leases.take(70, 80).unwrap();
        leases.expire(80);
        assert!(leases.has_dead());
        assert_eq!(leases.finish(again.lsn, again.token), Err(Stale), "it is given up");
        assert_eq!(leases.next_dead().unwrap().attempt, 3);
        leases.buried(8, None);
        assert_eq!(leases.commit_due(1), Some(8));
    }

    #[test]
    fn jobs_in_a_cut_are_gone() {
        let mut leases = leases(5, u32::MAX, 5);
        let out: Vec<Leased> = (0..4).map(|_| leases.take(0, 9).unwrap()).collect();
        assert_eq!(leases.room(), 0);
        leases.cut(24);
        assert_eq!((leases.room(), leases.counts().leased, leases.counts().waiting), (3, 2, 0));
        assert_eq!(leases.finish(out[2].lsn, out[2].token), Err(Stale));
        leases.finish(8, out[0].token).unwrap();
        leases.finish(16, out[1].token).unwrap();
        assert!(leases.is_empty());
    }
}
