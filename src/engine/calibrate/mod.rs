//! Measures which commit method is faster on this device, and whether the method can be trusted.
//!
//! 1. The measurement runs beside the log in a file without a name, and writes no segment.
//! 2. A verdict for DSYNC needs a gain beyond the noise and evidence that DSYNC writes reach the
//!    medium. If either is unknown, the verdict is the linked sync.
//! 3. An error here never fails the log: the default method stays.

pub(crate) mod memo;
mod timing;

use std::fmt;
use std::io;
use std::time::Duration;

use crate::io::backend::{ChosenMethod, Method, MethodReason};
use crate::io::fs::{Device, Dir, WriteCache, is_no_space};
use crate::segment::Names;
use timing::Timings;

/// The highest ratio of times at which DSYNC is chosen. A smaller gain is noise.
const WORTH: f64 = 0.95;
/// If the ratio of the times lies in this range, the verdict is not remembered, and the next
/// opening measures again.
const UNCLEAR: std::ops::Range<f64> = 0.88..1.12;

/// The highest ratio, of the time of a sync with four in flight to that of one alone, at which
/// groups are synced side by side. Above it, one sync serves all groups that came meanwhile.
const WORTH_PARALLEL: f64 = 0.85;

/// The remembered verdict of this process, or of another one in this directory.
pub(crate) fn remembered(dir: &dyn Dir, names: &Names) -> Option<ChosenMethod> {
    let device = Device::under(&dir.path_of(""))?;
    memo::recall(dir, names, &key(&device))
}

/// Times the methods. Takes some 30 ms on a fast disk and about a second on a slow one. Stops early
/// when `cancelled`.
pub(crate) fn measure(dir: &dyn Dir, names: &Names, cancelled: &dyn Fn() -> bool) -> ChosenMethod {
    let default = |detail: String| ChosenMethod {
        method: Method::Linked,
        alone: Method::Linked,
        reason: MethodReason::Default,
        parallel: true,
        detail,
    };
    let Some(device) = Device::under(&dir.path_of("")) else {
        return default("right on every device; this one is not known to /sys/dev/block".into());
    };
    match timing::run(dir, names, &device, cancelled) {
        Ok(timings) => {
            let Verdict { method, alone, detail } = decide(&timings, device.write_cache());
            let pace = if method == Method::Dsync { timings.dsync } else { timings.linked };
            let parallel = ratio(pace.together, pace.alone) < WORTH_PARALLEL;
            let reason = MethodReason::Measured;
            let chosen = ChosenMethod { method, alone, reason, parallel, detail };
            if timings.is_clear() {
                memo::remember(dir, names, &key(&device), &chosen);
            }
            chosen
        }
        Err(e) if e.kind() == io::ErrorKind::Interrupted => default("closed too early".into()),
        Err(e) if is_no_space(&e) => default("no space to measure in".into()),
        Err(e) => default(format!("right on every device; measuring failed: {e}")),
    }
}

/// Device, filesystem mount and kernel for which a verdict holds.
fn key(device: &Device) -> String {
    let release = |name| std::fs::read_to_string(format!("/proc/sys/kernel/{name}"));
    let line = |text: io::Result<String>| text.unwrap_or_default().trim().replace('\n', " ");
    let kernel = [line(release("osrelease")), line(release("version"))].join(" ");
    format!("{}; {kernel}", device.identity())
}

impl Timings {
    /// DSYNC's time divided by the linked sync's: the geometric mean of one alone and four in
    /// flight.
    fn gain(&self) -> f64 {
        let alone = ratio(self.dsync.alone, self.linked.alone);
        let together = ratio(self.dsync.together, self.linked.together);
        (alone * together).sqrt()
    }

    fn is_clear(&self) -> bool {
        !UNCLEAR.contains(&self.gain())
    }
}

impl fmt::Display for Timings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let us = |t: Duration| t.as_micros();
        write!(
            f,
            "4 KiB: linked-fsync {} us alone, {} us each with four in flight; dsync {} and {} us; \
             on the committer's thread fdatasync {} us, dsync {} us",
            us(self.linked.alone),
            us(self.linked.together),
            us(self.dsync.alone),
            us(self.dsync.together),
            us(self.linked.direct),
            us(self.dsync.direct),
        )
    }
}

fn ratio(a: Duration, b: Duration) -> f64 {
    a.as_secs_f64() / b.as_secs_f64().max(1e-9)
}

/// What the measurement decides, with its reason.
struct Verdict {
    method: Method,
    alone: Method,
    detail: String,
}

fn decide(timings: &Timings, cache: Option<WriteCache>) -> Verdict {
    let gains = timings.gain() <= WORTH;
    // Noise changes nothing: a lone committer then commits as the log does.
    let worth_alone = if gains { 1.0 / WORTH } else { WORTH };
    let gains_alone = ratio(timings.dsync.direct, timings.linked.direct) <= worth_alone;
    let linked = |detail| Verdict { method: Method::Linked, alone: Method::Linked, detail };
    if !gains && !gains_alone {
        return linked(format!("not slower here; {timings}"));
    }
    let trust = match cache {
        None => Err("whether the disk has a write cache is not known"),
        Some(WriteCache::Through) => Ok("the disk has no volatile cache"),
        Some(WriteCache::Back { fua: true }) => Ok("the disk writes past its cache (FUA)"),
        Some(WriteCache::Back { fua: false }) => match timings.dsync_flushes {
            None => Err("the disk counts no flushes"),
            Some(n) if n >= timings.dsync_commits => Ok("each write was followed by a flush"),
            Some(_) => Err("dsync writes were not followed by flushes"),
        },
    };
    match trust {
        Ok(why) => {
            let of = |gains| if gains { Method::Dsync } else { Method::Linked };
            let what = match (gains, gains_alone) {
                (true, true) => "faster here",
                (true, false) => "faster here, but not for a lone committer",
                (false, _) => "not slower here, and dsync for a lone committer",
            };
            let detail = format!("{what}; {timings}; {why}");
            Verdict { method: of(gains), alone: of(gains_alone), detail }
        }
        Err(why) => linked(format!("dsync is not trusted: {why}; {timings}")),
    }
}

#[cfg(test)]
mod tests {
    use super::timing::MethodPace;
    use super::*;

    fn timings(linked: (u64, u64), dsync: (u64, u64), flushes: Option<u64>) -> Timings {
        let pace = |(alone, together)| MethodPace {
            alone: Duration::from_micros(alone),
            together: Duration::from_micros(together),
            direct: Duration::from_micros(100),
        };
        Timings {
            linked: pace(linked),
            dsync: pace(dsync),
            dsync_commits: 20,
            dsync_flushes: flushes,
        }
    }

    fn method(t: &Timings, cache: Option<WriteCache>) -> Method {
        decide(t, cache).method
    }

    /// The method of a lone committer, whose two methods take these times.
    fn alone(t: Timings, (linked, dsync): (u64, u64)) -> Method {
        let direct = Duration::from_micros;
        let linked = MethodPace { direct: direct(linked), ..t.linked };
        let dsync = MethodPace { direct: direct(dsync), ..t.dsync };
        decide(&Timings { linked, dsync, ..t }, BACK).alone
    }

    const BACK: Option<WriteCache> = Some(WriteCache::Back { fua: false });
    const FUA: Option<WriteCache> = Some(WriteCache::Back { fua: true });

    #[test]
    fn dsync_that_is_faster_and_trusted_is_chosen() {
        // A datacentre disk, a consumer disk, and this kind of virtual one.
        assert_eq!(
            method(&timings((16, 8), (11, 6), Some(0)), Some(WriteCache::Through)),
            Method::Dsync
        );
        assert_eq!(method(&timings((1675, 500), (4019, 2000), Some(20)), FUA), Method::Linked);
        assert_eq!(method(&timings((110, 57), (95, 43), Some(20)), BACK), Method::Dsync);
    }

    #[test]
    fn dsync_with_a_gain_within_the_noise_is_not_chosen() {
        assert_eq!(method(&timings((100, 50), (98, 49), Some(20)), BACK), Method::Linked);
        // Faster alone, slower together.
        assert_eq!(method(&timings((100, 50), (90, 60), Some(20)), BACK), Method::Linked);
    }

    #[test]
    fn lone_committer_has_the_method_that_is_faster_for_it() {
        let dsync = timings((110, 57), (95, 43), Some(20));
        let linked = timings((100, 50), (240, 80), Some(20));
        for (direct, with_dsync, with_linked) in [
            ((100, 100), Method::Dsync, Method::Linked),
            ((100, 104), Method::Dsync, Method::Linked),
            ((100, 96), Method::Dsync, Method::Linked),
            ((100, 110), Method::Linked, Method::Linked),
            ((100, 90), Method::Dsync, Method::Dsync),
        ] {
            assert_eq!(alone(dsync, direct), with_dsync, "{direct:?}");
            assert_eq!(alone(linked, direct), with_linked, "{direct:?}");
        }
        let untrusted = timings((100, 50), (240, 80), Some(19));
        assert_eq!(alone(untrusted, (100, 50)), Method::Linked);
    }

    #[test]
    fn verdict_that_is_not_clear_is_not_remembered() {
        assert!(timings((130, 43), (98, 32), None).is_clear());
        assert!(timings((100, 50), (240, 80), None).is_clear());
        assert!(!timings((143, 45), (146, 41), None).is_clear());
    }

    #[test]
    fn dsync_without_proof_is_not_trusted() {
        let fast = |flushes| timings((110, 57), (50, 20), flushes);
        assert_eq!(method(&fast(Some(0)), BACK), Method::Linked);
        assert_eq!(method(&fast(Some(19)), BACK), Method::Linked);
        assert_eq!(method(&fast(None), BACK), Method::Linked);
        assert_eq!(method(&fast(Some(20)), None), Method::Linked);
        // FUA writes raise no counter.
        assert_eq!(method(&fast(Some(0)), FUA), Method::Dsync);
    }
}
