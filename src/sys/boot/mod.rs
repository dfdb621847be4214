//! Which boot of the machine this is: one file a kind of system, chosen here.
//!
//! 1. Two boots of a machine never have the same identity. What was true on one boot, and was never
//!    synced, may be false on the next.
//! 2. One boot may seem to be two, for example after the clock was set. That costs time only.
//! 3. `None` is an answer: the system does not tell.

#[cfg(any(target_os = "linux", target_os = "android"))]
#[path = "linux.rs"]
mod imp;

#[cfg(any(target_vendor = "apple", target_os = "freebsd", target_os = "dragonfly"))]
#[path = "sysctl.rs"]
mod imp;

#[cfg(windows)]
#[path = "windows.rs"]
mod imp;

#[cfg(not(any(
    windows,
    target_os = "linux",
    target_os = "android",
    target_vendor = "apple",
    target_os = "freebsd",
    target_os = "dragonfly"
)))]
mod imp {
    pub(super) fn identity() -> Option<u128> {
        None
    }
}

/// The id of this boot of the machine. `None`: the system does not tell.
pub(crate) fn boot_id() -> Option<[u8; 16]> {
    imp::identity().map(u128::to_le_bytes)
}

/// The number in a UUID's text, such as `8bb3bb07-0a0b-4ed8-a3a5-7cd1d7ee2bf4`.
#[cfg(any(test, unix))]
#[cfg_attr(not(target_os = "linux"), allow(dead_code, reason = "not every unix has one"))]
fn of_uuid(text: &str) -> Option<u128> {
    let digits: String = text.chars().filter(char::is_ascii_hexdigit).collect();
    (digits.len() == 32).then(|| u128::from_str_radix(&digits, 16).ok()).flatten()
}

/// The number of a boot that began at this time of the wall clock.
///
/// A machine without a battery for its clock may begin every boot at the same time, long ago. Such
/// a time identifies nothing.
#[cfg_attr(
    not(any(target_os = "freebsd", target_os = "dragonfly", target_vendor = "apple")),
    allow(dead_code, reason = "these systems have better")
)]
fn of_time(seconds: i64, nanoseconds: i64) -> Option<u128> {
    /// The beginning of 2020.
    const PLAUSIBLE: i64 = 1_577_836_800;
    let (seconds, nanoseconds) = (u64::try_from(seconds).ok()?, u64::try_from(nanoseconds).ok()?);
    (seconds >= PLAUSIBLE as u64).then_some(u128::from(seconds) << 64 | u128::from(nanoseconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uuid_is_a_number_and_anything_else_is_none() {
        let text = "8bb3bb07-0a0b-4ed8-a3a5-7cd1d7ee2bf4\n";
        assert_eq!(of_uuid(text), Some(0x8bb3_bb07_0a0b_4ed8_a3a5_7cd1_d7ee_2bf4));
        for nothing in ["", "8bb3bb07", "not a uuid", &text.repeat(2)] {
            assert_eq!(of_uuid(nothing), None, "{nothing:?}");
        }
    }

    #[test]
    fn time_of_a_boot_differs_by_its_parts_and_one_of_a_stopped_clock_is_none() {
        let now = 1_800_000_000;
        let all = [of_time(now, 0), of_time(now, 1), of_time(now + 1, 0)];
        assert!(all.iter().all(Option::is_some));
        assert!(all[0] != all[1] && all[1] != all[2] && all[0] != all[2]);
        for nothing in [of_time(0, 0), of_time(86_400, 17), of_time(-1, 0), of_time(now, -1)] {
            assert_eq!(nothing, None);
        }
    }

    #[test]
    fn boot_id_is_the_same_for_as_long_as_the_machine_runs() {
        let first = boot_id();
        let known = cfg!(any(windows, target_os = "linux", target_vendor = "apple"));
        assert!(first.is_some() || !known);
        std::thread::sleep(std::time::Duration::from_millis(20));
        assert_eq!(first, boot_id());
    }
}
