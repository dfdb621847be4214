//! The false-alarm rate of `ab` and `compare`: a command compared with itself.
//!
//! 1. `ab` with two equal sides measures it. Whatever such a comparison calls better or worse is a
//!    false alarm.
//! 2. The count is taken without tolerance, which would lower it, and with the tolerance of the
//!    command, which decides the exit status.
//! 3. A comparison has ten pairs, as by default. The comparisons are all runs of ten consecutive
//!    pairs, in the order in which they were measured, and many draws of ten pairs in which each
//!    pair is exchanged or not by chance. The draws have independent pairs. The consecutive ones
//!    keep whatever neighbours have in common.

use serde_json::{Value, json};

use crate::commands::ab::rows;
use crate::commands::compare::{Row, of_runs};
use crate::measure::statistics::Verdict;
use crate::random::SplitMix;

/// Pairs of a comparison, as `ab` makes by default.
const PAIRS: usize = 10;
/// Fewer pairs make no rate.
const FEWEST: usize = 2 * PAIRS;
/// Draws of ten pairs.
const DRAWS: usize = 2000;

/// Comparisons of equals, and those that call any row different.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Alarms {
    /// Comparisons.
    pub comparisons: usize,
    /// Comparisons with a row that is better or worse, without tolerance.
    pub different: usize,
    /// Comparisons with a row that is worse beyond the tolerance: exit status 1.
    pub worse: usize,
}

/// The false alarms of the three kinds of comparison.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FalseAlarms {
    /// `ab`, over all runs of consecutive pairs.
    pub consecutive: Alarms,
    /// `ab`, over draws of pairs with exchanged sides.
    pub drawn: Alarms,
    /// `compare`, over both runs of each pair, in both directions.
    pub compare: Alarms,
}

impl Alarms {
    fn add(&mut self, judge: impl Fn(f64) -> Vec<Row>, tolerance: f64) {
        let any = |rows: &[Row], verdicts: &[Verdict]| {
            usize::from(rows.iter().any(|row| verdicts.contains(&row.verdict)))
        };
        self.comparisons += 1;
        self.different += any(&judge(0.0), &[Verdict::Better, Verdict::Worse]);
        self.worse += any(&judge(tolerance), &[Verdict::Worse]);
    }

    fn line(&self, what: &str) -> String {
        let Alarms { comparisons, different, worse } = *self;
        let percent = |n: usize| 100.0 * n as f64 / comparisons.max(1) as f64;
        format!(
            "  {what:<34} {:>5.1} % different, {:>5.1} % worse, of {comparisons}\n",
            percent(different),
            percent(worse)
        )
    }

    fn json(&self) -> Value {
        let Alarms { comparisons, different, worse } = self;
        json!({ "comparisons": comparisons, "different": different, "worse": worse })
    }
}

impl FalseAlarms {
    /// Counts the false alarms over pairs of runs of one command. `None` for fewer than twenty
    /// pairs.
    #[must_use]
    pub(crate) fn of(pairs: &[[Value; 2]], tolerance: f64, seed: u64) -> Option<FalseAlarms> {
        if pairs.len() < FEWEST {
            return None;
        }
        let mut found = FalseAlarms::default();
        for some in pairs.windows(PAIRS) {
            found.consecutive.add(|tolerance| rows(some, tolerance), tolerance);
        }
        let mut random = SplitMix(seed);
        let mut order: Vec<usize> = (0..pairs.len()).collect();
        let slim: Vec<[Value; 2]> = pairs.iter().map(|pair| pair.each_ref().map(slim)).collect();
        for _ in 0..DRAWS {
            let some = draw(&slim, &mut order, &mut random);
            found.drawn.add(|tolerance| rows(&some, tolerance), tolerance);
        }
        for [a, b] in pairs {
            for (first, second) in [(a, b), (b, a)] {
                found.compare.add(|tolerance| of_runs(first, second, tolerance), tolerance);
            }
        }
        Some(found)
    }

    /// Returns lines for the table.
    #[must_use]
    pub fn lines(&self) -> String {
        let mut out = String::from(
            "\nboth sides are one command, so that every difference is a false alarm:\n",
        );
        out += &self.consecutive.line("ab, 10 consecutive pairs");
        out += &self.drawn.line("ab, 10 pairs drawn and exchanged");
        out + &self.compare.line("compare, the two runs of a pair")
    }

    /// Returns the JSON object.
    #[must_use]
    pub fn json(&self) -> Value {
        json!({
            "consecutive": self.consecutive.json(),
            "drawn": self.drawn.json(),
            "compare": self.compare.json(),
        })
    }
}

/// Returns a run without its series, which makes a copy cheap.
fn slim(run: &Value) -> Value {
    let mut run = run.clone();
    if let Some(keys) = run.as_object_mut() {
        keys.retain(|key, _| !["series", "environment", "raw_cells"].contains(&key.as_str()));
    }
    run
}

/// Draws ten different pairs, and exchanges the sides of each with probability one half.
fn draw(pairs: &[[Value; 2]], order: &mut [usize], random: &mut SplitMix) -> Vec<[Value; 2]> {
    for at in 0..PAIRS {
        let left = (order.len() - at) as u64;
        order.swap(at, at + (random.next() % left) as usize);
    }
    let one = |&n: &usize| {
        let [a, b] = pairs[n].clone();
        if random.next() & (1 << 40) == 0 { [a, b] } else { [b, a] }
    };
    order[..PAIRS].iter().map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(rate: f64) -> Value {
        json!({ "schema": "ringwal-loadgen/run/1", "records_per_s": rate })
    }

    /// Pairs whose logarithms differ by up to `noise` at random, and by `shift` always.
    fn pairs(count: usize, noise: f64, shift: f64) -> Vec<[Value; 2]> {
        let mut random = SplitMix(3);
        let mut near = || (noise * ((random.next() >> 40) as f64 / (1 << 24) as f64 - 0.5)).exp();
        (0..count).map(|_| [run(1000.0 * near()), run(1000.0 * near() * shift.exp())]).collect()
    }

    #[test]
    fn equal_sides_rarely_differ_and_unequal_sides_do() {
        let found = FalseAlarms::of(&pairs(200, 0.3, 0.0), 0.05, 1).unwrap();
        assert_eq!((found.consecutive.comparisons, found.drawn.comparisons), (191, DRAWS));
        assert_eq!(found.compare.comparisons, 400);
        let share = |a: Alarms| a.different as f64 / a.comparisons as f64;
        assert!(share(found.drawn) < 0.07 && share(found.drawn) > 0.0, "{found:?}");
        assert!(found.drawn.worse <= found.drawn.different, "{found:?}");
        // Pairs that always differ are found in their order. Exchanged, they are noise.
        let found = FalseAlarms::of(&pairs(60, 0.1, -0.3), 0.05, 1).unwrap();
        assert_eq!(found.consecutive.different, found.consecutive.comparisons, "{found:?}");
        assert_eq!(found.consecutive.worse, found.consecutive.comparisons, "{found:?}");
        assert!(share(found.drawn) < 0.2, "{found:?}");
        assert_eq!(FalseAlarms::of(&pairs(19, 0.1, 0.0), 0.05, 1), None);
    }

    #[test]
    fn draw_has_different_pairs_of_both_orders() {
        let pairs: Vec<[Value; 2]> = (0..40).map(|n| [json!(n), json!(n + 100)]).collect();
        let mut order: Vec<usize> = (0..40).collect();
        let mut random = SplitMix(5);
        let (mut exchanged, mut seen) = (0, std::collections::BTreeSet::new());
        for _ in 0..100 {
            let some = draw(&pairs, &mut order, &mut random);
            let of = |pair: &[Value; 2]| pair[0].as_u64().unwrap() % 100;
            let different: std::collections::BTreeSet<u64> = some.iter().map(of).collect();
            assert_eq!(different.len(), PAIRS);
            exchanged += some.iter().filter(|pair| pair[0].as_u64() >= Some(100)).count();
            seen.extend(different);
        }
        assert!((400..600).contains(&exchanged), "{exchanged} of 1000");
        assert_eq!(seen.len(), 40);
    }
}
