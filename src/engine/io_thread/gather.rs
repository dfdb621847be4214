//! Gathering: whether the next group waits for the committers of the last one.
//!
//! Committers whose group has become durable come back together, some microseconds apart. A group
//! that is sealed with the first of them leaves the others to the group after it, and so each
//! committer waits for two commits. The I/O thread can instead give way until as many records have
//! come as committers are known. docs/design/commit.md has the measurements.
//!
//! 1. A wait ends when the expected records are there, and at the latest after the time that the
//!    last commit took, or [`LONGEST`]. A record that is missed waits for one commit, so that a
//!    wait in vain costs no more than what it could have saved.
//! 2. A wait needs company: within the last [`BELIEF`] groups, records came while another group was
//!    in flight. So a lone committer does not wait, however many records it appends at a time.
//! 3. Groups gather only if that has proved faster: short trials compare the ages at which groups
//!    became durable, with gathering and without it. An age counts from when the oldest record may
//!    have waited. So a log whose records come at random, or whose device syncs groups side by side
//!    at no cost, does not gather.

/// Records for which a group waits, at most. More committers take longer to wake than they gain.
const MOST: u32 = 32;
/// Nanoseconds that a group waits, at most.
const LONGEST: u64 = 200_000;
/// Groups for which company is believed in without a new sign of it.
const BELIEF: u32 = 64;
/// Groups of a trial.
const TRIAL: usize = 32;
/// Groups that are not counted after a change: those in flight belong to the way before.
const SKIPPED: u32 = 8;
/// Groups until the first trial, and between two trials at most.
const FIRST_STAY: u32 = 32;
const LONGEST_STAY: u32 = 4096;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// A group is sealed as soon as it holds a record.
    AtOnce,
    Gathered,
}

impl Way {
    fn other(self) -> Way {
        match self {
            Way::AtOnce => Way::Gathered,
            Way::Gathered => Way::AtOnce,
        }
    }
}

/// The ages of the last groups of one way, in nanoseconds.
#[derive(Debug, Clone, Copy)]
struct Ages {
    last: [u64; TRIAL],
    count: usize,
}

impl Ages {
    const NONE: Ages = Ages { last: [0; TRIAL], count: 0 };

    fn add(&mut self, age: u64) {
        self.last[self.count % TRIAL] = age;
        self.count += 1;
    }

    fn median(&self) -> u64 {
        let mut sorted = self.last;
        let known = &mut sorted[..self.count.min(TRIAL)];
        known.sort_unstable();
        known.get(known.len() / 2).copied().unwrap_or(u64::MAX)
    }
}

#[derive(Debug)]
pub(super) struct Gather {
    /// Whether the log's mode lets a group wait at all.
    may: bool,
    way: Way,
    /// The way is on trial against the other one.
    on_trial: bool,
    /// Groups until the trial begins or ends.
    left: u32,
    stay: u32,
    skipped: u32,
    ages: [Ages; 2],
    /// Groups for which company is still believed in.
    company: u32,
    /// Records that the next group waits for. 0: it does not wait.
    expected: u32,
    /// When the wait ends, by the clock.
    due: Option<u64>,
    limit: u64,
}

impl Gather {
    pub(super) fn new(may: bool) -> Self {
        Gather {
            may,
            way: Way::AtOnce,
            on_trial: false,
            left: FIRST_STAY,
            stay: FIRST_STAY,
            skipped: 0,
            ages: [Ages::NONE; 2],
            company: 0,
            expected: 0,
            due: None,
            limit: 0,
        }
    }

    /// Gathers from now on whenever there is company, without trials.
    #[cfg(test)]
    pub(super) fn always(&mut self) {
        self.way = Way::Gathered;
        self.left = u32::MAX;
    }

    /// Whether groups gather now: then one is in flight at a time.
    pub(super) fn is_on(&self) -> bool {
        self.company > 0 && self.way == Way::Gathered
    }

    /// A group was submitted, `beside` another one in flight.
    pub(super) fn submitted(&mut self, records: u32, beside: bool) {
        self.expected = 0;
        self.due = None;
        if records > MOST {
            self.company = 0;
        } else if beside {
            self.believe();
        } else {
            self.company = self.company.saturating_sub(1);
        }
    }

    /// The last group of so many records is durable, nothing is in flight, and so many records came
    /// meanwhile.
    pub(super) fn landed(&mut self, records: u32, waiting: u32) {
        if waiting > 0 && records <= MOST {
            self.believe();
        }
        self.due = None;
        self.expected = if self.is_on() { records.saturating_add(waiting) } else { 0 };
    }

    fn believe(&mut self) {
        if !self.may {
            return;
        }
        if self.company == 0 {
            self.skipped = SKIPPED;
        }
        self.company = BELIEF;
    }

    /// Whether the next group would wait for more than the records that are there.
    pub(super) fn expects_more_than(&self, there: u32) -> bool {
        self.is_on() && (2..=MOST).contains(&self.expected) && there < self.expected
    }

    /// Whether the next group waits now for more than the records that are there.
    pub(super) fn waits(&mut self, there: u32, now: u64) -> bool {
        if self.expects_more_than(there)
            && now < *self.due.get_or_insert(now.saturating_add(self.limit))
        {
            return true;
        }
        self.expected = 0;
        self.due = None;
        false
    }

    /// When the wait ends, by the clock.
    pub(super) fn due(&self) -> Option<u64> {
        self.due
    }

    /// A group became durable at this age, `taken` after it was submitted.
    pub(super) fn durable(&mut self, age: u64, taken: u64) {
        self.limit = taken.min(LONGEST);
        if self.company == 0 {
            return;
        }
        if self.skipped > 0 {
            self.skipped -= 1;
            return;
        }
        self.ages[self.way as usize].add(age);
        self.left = self.left.saturating_sub(1);
        if self.left == 0 {
            self.turn();
        }
    }

    /// Begins or ends a trial.
    fn turn(&mut self) {
        if self.on_trial {
            let tried = self.ages[self.way as usize].median();
            let before = self.ages[self.way.other() as usize].median();
            // A smaller gain is noise.
            if tried < before - before / 16 {
                self.stay = FIRST_STAY;
            } else {
                self.way = self.way.other();
                self.stay = (self.stay * 2).min(LONGEST_STAY);
            }
            self.left = self.stay;
        } else {
            self.way = self.way.other();
            self.ages[self.way as usize] = Ages::NONE;
            self.left = TRIAL as u32;
        }
        self.on_trial = !self.on_trial;
        self.skipped = SKIPPED;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A closed loop of committers: `at_once` and `gathered` are the ages of its groups.
    fn groups(gather: &mut Gather, count: u32, at_once: u64, gathered: u64) -> u32 {
        let mut on = 0;
        for _ in 0..count {
            let is_on = gather.is_on();
            on += u32::from(is_on);
            gather.submitted(4, !is_on);
            let age = if is_on { gathered } else { at_once };
            gather.durable(age, age);
            gather.landed(4, u32::from(!is_on) * 4);
        }
        on
    }

    #[test]
    fn groups_gather_where_that_is_faster() {
        let mut gather = Gather::new(true);
        let on = groups(&mut gather, 20_000, 300_000, 200_000);
        assert!(on > 18_000, "{on} groups gathered");
    }

    #[test]
    fn groups_are_sealed_at_once_where_gathering_is_not_faster() {
        for gathered in [300_000, 290_000, 400_000] {
            let mut gather = Gather::new(true);
            let on = groups(&mut gather, 20_000, 300_000, gathered);
            assert!(on < 1000, "{on} groups gathered at {gathered}");
        }
    }

    #[test]
    fn what_is_faster_may_change() {
        let mut gather = Gather::new(true);
        groups(&mut gather, 20_000, 300_000, 200_000);
        let on = groups(&mut gather, 20_000, 100_000, 200_000);
        assert!(on < 6000, "{on} groups gathered when it had become slower");
    }

    /// One that gathers, with company.
    fn gathering() -> Gather {
        let mut gather = Gather::new(true);
        gather.way = Way::Gathered;
        gather.submitted(4, true);
        gather.durable(100_000, 100_000);
        gather
    }

    #[test]
    fn a_wait_ends_with_the_last_committer_or_the_time_of_a_commit() {
        let mut gather = gathering();
        gather.landed(4, 4);
        assert!(gather.waits(4, 1000));
        assert!(gather.waits(7, 100_999));
        assert!(!gather.waits(8, 50_000));
        assert!(!gather.waits(4, 50_000), "it has ended");

        gather.landed(4, 4);
        assert!(gather.waits(4, 1000));
        assert_eq!(gather.due(), Some(101_000));
        assert!(!gather.waits(4, 101_000));
        assert_eq!(gather.due(), None);

        gather.durable(900_000, 900_000);
        gather.landed(4, 4);
        assert!(gather.waits(4, 0));
        assert_eq!(gather.due(), Some(LONGEST));
    }

    #[test]
    fn a_lone_committer_does_not_wait() {
        let mut gather = gathering();
        let mut waited = 0;
        for _ in 0..1000 {
            gather.landed(3, 0);
            waited += u32::from(gather.waits(0, 0));
            gather.submitted(3, false);
            gather.durable(100_000, 100_000);
        }
        assert!(waited <= BELIEF, "{waited} groups waited");
    }

    #[test]
    fn a_crowd_does_not_wait() {
        let mut gather = gathering();
        gather.submitted(MOST + 1, true);
        gather.landed(MOST + 1, 40);
        assert!(!gather.waits(0, 0));
        gather.submitted(MOST, true);
        gather.landed(MOST, 1);
        assert!(!gather.waits(0, 0));
    }

    #[test]
    fn a_log_that_must_not_wait_does_not() {
        let mut gather = Gather::new(false);
        assert_eq!(groups(&mut gather, 5000, 300_000, 200_000), 0);
    }

    #[test]
    fn median_of_ages_is_that_of_the_last() {
        let mut ages = Ages::NONE;
        assert_eq!(ages.median(), u64::MAX);
        for age in [5, 1, 3] {
            ages.add(age);
        }
        assert_eq!(ages.median(), 3);
        for _ in 0..TRIAL {
            ages.add(7);
        }
        assert_eq!(ages.median(), 7);
    }
}
