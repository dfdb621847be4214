//! Numbers and times on the command line: one grammar for all commands.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Splits a number from its unit: `4k`, `4Ki`, `4KiB`. `scale` of a decimal unit: 1000 or 1024.
fn scaled(text: &str, decimal: u64) -> Option<u64> {
    let lower = text.trim().to_ascii_lowercase();
    let bare = lower.strip_suffix('b').unwrap_or(&lower);
    let (bare, base) = match bare.strip_suffix('i') {
        Some(bare) => (bare, 1024_u64),
        None => (bare, decimal),
    };
    let power = match bare.as_bytes().last()? {
        b'k' => 1,
        b'm' => 2,
        b'g' => 3,
        b't' => 4,
        _ => 0,
    };
    let digits = if power > 0 { &bare[..bare.len() - 1] } else { bare };
    let plain = lower.len() == bare.len();
    let written = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
    if !written || (power == 0 && !plain) {
        return None;
    }
    digits.parse::<u64>().ok()?.checked_mul(base.pow(power))
}

/// A position in the log: bytes, with `k`, `m`, `g` or `t` for powers of 1024.
pub(crate) fn position(text: &str) -> Result<u64, String> {
    scaled(text, 1024).ok_or_else(|| {
        format!("{text:?} is not a position; write a number of bytes, as 8320, 64k or 64KiB")
    })
}

/// A number of records. `k`, `m`, `g` and `t` are powers of 1000; `Ki` and so on are powers of
/// 1024.
pub(crate) fn count(text: &str) -> Result<u64, String> {
    scaled(text, 1000).ok_or_else(|| {
        format!("{text:?} is not a number of records; write a whole number, as 1000, 20k or 4Ki")
    })
}

/// A version of an application: a number of 32 bits, in the grammar of [`count`].
pub(crate) fn version(text: &str) -> Result<u32, String> {
    let number = scaled(text, 1000).and_then(|number| u32::try_from(number).ok());
    number.ok_or_else(|| {
        format!("{text:?} is not a version; write a whole number from 0 to {}", u32::MAX)
    })
}

/// Permission bits.
pub(crate) fn mode(text: &str) -> Result<u32, String> {
    let digits = text.strip_prefix("0o").unwrap_or(text);
    match u32::from_str_radix(digits, 8) {
        Ok(mode) if mode & !0o777 == 0 && mode & 0o600 == 0o600 => Ok(mode),
        _ => Err(format!(
            "{text:?} is not a mode; write permission bits in octal, at least 0600, as 0640"
        )),
    }
}

/// A moment: RFC 3339, seconds since 1970, or how long ago.
pub(crate) fn time(text: &str) -> Result<SystemTime, String> {
    moment(text, SystemTime::now()).ok_or_else(|| {
        format!(
            "{text:?} is not a time; write RFC 3339, as 2026-12-31T23:59:59Z or 2026-12-31, seconds since 1970, or how long \
             ago, as 10m or 2h 30m"
        )
    })
}

/// A place in a log: by position, or by the time of its records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PositionOrTime {
    Position(u64),
    Time(SystemTime),
}

/// A position, or a time as RFC 3339. Other times are refused: `10m` is a position.
pub(crate) fn position_or_time(text: &str) -> Result<PositionOrTime, String> {
    if let Ok(position) = position(text) {
        return Ok(PositionOrTime::Position(position));
    }
    let is_date = text.trim().get(4..5) == Some("-");
    let time = is_date.then(|| moment(text, SystemTime::now())).flatten();
    time.map(PositionOrTime::Time).ok_or_else(|| {
        format!(
            "{text:?} is neither a position, as 8320 or 64k, nor a time, as 2026-12-31 or 2026-12-31T23:59:59Z; for an age \
             use --older-than"
        )
    })
}

/// The moment that lies so long ago.
pub(crate) fn age(text: &str) -> Result<SystemTime, String> {
    let ago = humantime::parse_duration(text.trim()).ok();
    ago.and_then(|ago| before(SystemTime::now(), ago))
        .ok_or_else(|| format!("{text:?} is not an age; write how long, as 12h, 30d or 1w 2d"))
}

/// The moment so long before `now`. No log is older than the clock of Unix.
fn before(now: SystemTime, ago: Duration) -> Option<SystemTime> {
    now.checked_sub(ago).filter(|at| *at >= UNIX_EPOCH)
}

fn moment(text: &str, now: SystemTime) -> Option<SystemTime> {
    let text = text.trim();
    if text == "now" {
        return Some(now);
    }
    if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit() || b == b'.') {
        let since = Duration::try_from_secs_f64(text.parse().ok()?).ok()?;
        return UNIX_EPOCH.checked_add(since);
    }
    let bare = text.strip_suffix("ago").map_or(text, str::trim_end);
    if let Ok(ago) = humantime::parse_duration(bare) {
        return before(now, ago);
    }
    let upper = text.to_ascii_uppercase();
    if upper.len() == 10 {
        return humantime::parse_rfc3339_weak(&format!("{upper}T00:00:00Z")).ok();
    }
    // The offset from UTC, after the date.
    let offset = upper.rfind(['+', '-']).filter(|at| *at > 10);
    let Some(at) = offset else { return humantime::parse_rfc3339_weak(&upper).ok() };
    let (local, offset) = upper.split_at(at);
    let (hours, minutes) = offset[1..].split_once(':')?;
    let part = |text: &str, most: u64| {
        let digits = text.len() == 2 && text.bytes().all(|b| b.is_ascii_digit());
        text.parse::<u64>().ok().filter(|n| digits && *n <= most)
    };
    let offset = Duration::from_secs(part(hours, 23)? * 3600 + part(minutes, 59)? * 60);
    let local = humantime::parse_rfc3339_weak(local).ok()?;
    if upper.as_bytes()[at] == b'+' { local.checked_sub(offset) } else { local.checked_add(offset) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_one_grammar() {
        for (text, bytes, records) in [
            ("0", 0, 0),
            ("8320", 8320, 8320),
            ("1k", 1024, 1000),
            ("4K", 4096, 4000),
            ("4Ki", 4096, 4096),
            ("64KiB", 65_536, 65_536),
            ("64kb", 65_536, 64_000),
            ("2m", 2 << 20, 2_000_000),
            ("18446744073709551615", u64::MAX, u64::MAX),
        ] {
            assert_eq!((position(text), count(text)), (Ok(bytes), Ok(records)), "{text}");
        }
        for bad in [
            "",
            "k",
            "abc",
            "-1",
            "1.5k",
            "1kk",
            "0x10",
            "1e3",
            "7i",
            "7ib",
            "1_000",
            "ü",
            "99999999999g",
        ] {
            assert!(position(bad).unwrap_err().contains("is not a position"), "{bad}");
            assert!(count(bad).unwrap_err().contains("is not a number"), "{bad}");
        }
        assert!(version("5g").is_err() && version("7") == Ok(7));
        assert!(version("x").unwrap_err().contains("not a version"));
        assert!(mode("0640") == Ok(0o640));
        for bad in ["9", "0400", "01777", "rw", ""] {
            assert!(mode(bad).unwrap_err().contains("octal"), "{bad}");
        }
    }

    #[test]
    fn places_are_positions_or_dates_and_never_ages() {
        let day = UNIX_EPOCH + Duration::from_secs(1_699_920_000);
        for (text, place) in [
            ("8320", PositionOrTime::Position(8320)),
            ("10m", PositionOrTime::Position(10 << 20)),
            ("1700000000", PositionOrTime::Position(1_700_000_000)),
            ("2023-11-14", PositionOrTime::Time(day)),
            ("2023-11-14T01:00:00+01:00", PositionOrTime::Time(day)),
        ] {
            assert_eq!(position_or_time(text), Ok(place), "{text}");
        }
        for bad in ["", "now", "30d", "10m ago", "1.5", "2023-13-01", "-5"] {
            assert!(position_or_time(bad).unwrap_err().contains("--older-than"), "{bad}");
        }
        assert!(age("30d").is_ok_and(|at| at < SystemTime::now()));
        for bad in ["", "30", "2023-11-14", "-1d", "now", "9999999999y"] {
            assert!(age(bad).unwrap_err().contains("not an age"), "{bad}");
        }
    }

    #[test]
    fn times_are_absolute_or_relative() {
        let now = UNIX_EPOCH + Duration::from_secs(1_800_000_000);
        let at = |text: &str| {
            moment(text, now).map(|time| time.duration_since(UNIX_EPOCH).unwrap().as_millis())
        };
        for (text, millis) in [
            ("0", 0),
            ("1700000000", 1_700_000_000_000),
            ("1700000000.25", 1_700_000_000_250),
            ("now", 1_800_000_000_000),
            ("10m", 1_799_999_400_000),
            ("10m ago", 1_799_999_400_000),
            ("1h 30m", 1_799_994_600_000),
            ("2023-11-14T22:13:20Z", 1_700_000_000_000),
            ("2023-11-14t22:13:20.5z", 1_700_000_000_500),
            ("2023-11-14 22:13:20", 1_700_000_000_000),
            ("2023-11-14T23:13:20+01:00", 1_700_000_000_000),
            ("2023-11-14T17:43:20-04:30", 1_700_000_000_000),
            ("2023-11-14", 1_699_920_000_000),
        ] {
            assert_eq!(at(text), Some(millis), "{text}");
        }
        for bad in [
            "",
            "yesterday",
            "10",
            "-5m",
            "2023-13-01",
            "2023-11-14T22:13:20+0100",
            "1.2.3",
            "5 parsecs",
        ] {
            assert!(bad == "10" || at(bad).is_none(), "{bad}");
        }
    }
}
