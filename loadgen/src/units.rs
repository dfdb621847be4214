//! Parsing and formatting of sizes and durations.

use std::time::Duration;

/// Bytes of a record: one size, or a range with uniform probability.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SizeRange {
    /// The smallest size.
    pub min: usize,
    /// The largest size, inclusive.
    pub max: usize,
}

/// Sizes of records: ranges with weights.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sizes(Vec<(SizeRange, u32)>);

impl From<SizeRange> for Sizes {
    fn from(range: SizeRange) -> Self {
        Sizes(vec![(range, 1)])
    }
}

impl Sizes {
    /// Returns the ranges with their weights, at least one.
    #[must_use]
    pub fn parts(&self) -> &[(SizeRange, u32)] {
        &self.0
    }

    /// Returns the smallest and the largest size of all ranges.
    #[must_use]
    pub fn range(&self) -> SizeRange {
        let ranges = || self.0.iter().map(|(range, _)| range);
        let min = ranges().map(|range| range.min).min().unwrap_or(0);
        SizeRange { min, max: ranges().map(|range| range.max).max().unwrap_or(0) }
    }
}

impl std::fmt::Display for Sizes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (n, (range, weight)) in self.0.iter().enumerate() {
            f.write_str(if n == 0 { "" } else { "," })?;
            match (range.min == range.max, self.0.len()) {
                (true, 1) => write!(f, "{}", range.max)?,
                (false, 1) => write!(f, "{}-{}", range.min, range.max)?,
                (true, _) => write!(f, "{}:{weight}", range.max)?,
                (false, _) => write!(f, "{}-{}:{weight}", range.min, range.max)?,
            }
        }
        Ok(())
    }
}

/// Parses `--size`: `N` or `A-B`, or several of them with weights: `100:9,4k-64k:1`.
///
/// # Errors
///
/// A description of the error.
pub fn parse_sizes(text: &str) -> Result<Sizes, String> {
    let part = |part: &str| {
        let (range, weight) = part.split_once(':').unwrap_or((part, "1"));
        match weight.parse() {
            Ok(weight) if (1..=1_000_000).contains(&weight) => {
                Ok((parse_size_range(range)?, weight))
            }
            _ => Err(format!("{weight:?} is no weight; write 1 to 1000000: 100:9,4k:1")),
        }
    };
    let parts: Vec<_> = text.split(',').map(part).collect::<Result<_, _>>()?;
    match parts.len() {
        1..=100 => Ok(Sizes(parts)),
        n => Err(format!("{n} sizes are more than 100")),
    }
}

/// Largest payload of any log.
const MAX_RECORD: u64 = 256 << 20;

/// Parses a number of bytes: digits, with `k`, `m`, `g` or `t` for powers of 1024. `KiB` and `kb`
/// mean the same.
///
/// ```
/// assert_eq!(loadgen::units::parse_bytes("64k"), Ok(65_536));
/// assert!(loadgen::units::parse_bytes("64q").is_err());
/// ```
///
/// # Errors
///
/// A description of the error.
pub fn parse_bytes(text: &str) -> Result<u64, String> {
    let lower = text.trim().to_ascii_lowercase();
    let bare = lower.strip_suffix("ib").or_else(|| lower.strip_suffix('b')).unwrap_or(&lower);
    let (digits, shift) = match bare.as_bytes().last() {
        Some(b'k') => (&bare[..bare.len() - 1], 10),
        Some(b'm') => (&bare[..bare.len() - 1], 20),
        Some(b'g') => (&bare[..bare.len() - 1], 30),
        Some(b't') => (&bare[..bare.len() - 1], 40),
        _ => (bare, 0),
    };
    let wrong = || {
        format!("{text:?} is not a size; write bytes, or a number with k, m, g or t: 64k, 64KiB")
    };
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Err(wrong());
    }
    let number: u64 = digits.parse().map_err(|_| wrong())?;
    number.checked_mul(1 << shift).ok_or_else(|| format!("{text:?} is too large a size"))
}

/// Parses a count or a rate: digits, optionally a fraction. `k`, `m`, `g` and `t` are powers of
/// 1000; `ki`, `mi`, `gi` and `ti` are powers of 1024.
///
/// ```
/// assert_eq!(loadgen::units::parse_number("1.5k"), Ok(1500.0));
/// assert_eq!(loadgen::units::parse_number("4Ki"), Ok(4096.0));
/// assert!(loadgen::units::parse_number("1e9").is_err());
/// ```
///
/// # Errors
///
/// A description of the error.
pub fn parse_number(text: &str) -> Result<f64, String> {
    let wrong = || format!("{text:?} is not a number; write 1000, 20k or 1.5m");
    let lower = text.trim().to_ascii_lowercase();
    let (bare, base) = match lower.strip_suffix('i') {
        Some(bare) => (bare, 1024.0_f64),
        None => (&lower[..], 1000.0),
    };
    let power = match bare.as_bytes().last() {
        Some(b'k') => 1,
        Some(b'm') => 2,
        Some(b'g') => 3,
        Some(b't') => 4,
        _ if base == 1000.0 => 0,
        _ => return Err(wrong()),
    };
    let digits = if power > 0 { &bare[..bare.len() - 1] } else { bare };
    let written = digits.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    if !written || !digits.bytes().any(|b| b.is_ascii_digit()) {
        return Err(wrong());
    }
    let number: f64 = digits.parse().map_err(|_| wrong())?;
    Ok(number * base.powi(power))
}

/// Parses a whole number with the grammar of [`parse_number`].
///
/// ```
/// assert_eq!(loadgen::units::parse_count("1.5k"), Ok(1500));
/// assert_eq!(loadgen::units::parse_count("18446744073709551615"), Ok(u64::MAX));
/// assert!(loadgen::units::parse_count("0.5").is_err());
/// ```
///
/// # Errors
///
/// A description of the error.
pub fn parse_count(text: &str) -> Result<u64, String> {
    let trimmed = text.trim();
    if !trimmed.is_empty() && trimmed.bytes().all(|b| b.is_ascii_digit()) {
        // The value exceeds the precision of a fraction.
        return trimmed.parse().map_err(|_| format!("{text:?} is more than {}", u64::MAX));
    }
    let number = parse_number(text)?;
    if number.fract() != 0.0 {
        return Err(format!("{text:?} is not a whole number"));
    }
    if number >= u64::MAX as f64 {
        return Err(format!("{text:?} is more than {}", u64::MAX));
    }
    Ok(number as u64)
}

/// Parses a whole number that fits in `usize`.
///
/// # Errors
///
/// A description of the error.
pub fn parse_usize(text: &str) -> Result<usize, String> {
    usize::try_from(parse_count(text)?).map_err(|_| format!("{text:?} is more than {}", usize::MAX))
}

/// Parses a whole number that fits in `u32`.
///
/// # Errors
///
/// A description of the error.
pub fn parse_u32(text: &str) -> Result<u32, String> {
    u32::try_from(parse_count(text)?).map_err(|_| format!("{text:?} is more than {}", u32::MAX))
}

/// Parses a percentage, with or without its sign, and returns the number as written.
///
/// # Errors
///
/// A description of the error.
pub fn parse_percent(text: &str) -> Result<f64, String> {
    let number = text.trim().strip_suffix('%').unwrap_or(text.trim()).trim_end();
    let wrong = || format!("{text:?} is not a percentage from 0 to 100");
    let percent = parse_number(number).map_err(|_| wrong())?;
    if (0.0..=100.0).contains(&percent) { Ok(percent) } else { Err(wrong()) }
}

/// Parses one range of `--size`: `N` or `A-B`.
///
/// # Errors
///
/// A description of the error.
pub fn parse_size_range(text: &str) -> Result<SizeRange, String> {
    let (low, high) = text.split_once('-').unwrap_or((text, text));
    let (min, max) = (parse_bytes(low)?, parse_bytes(high)?);
    if min > max {
        return Err(format!("the range {text} is reversed; write {high}-{low}"));
    }
    if max > MAX_RECORD {
        return Err(format!("{max} bytes are more than any log takes, {MAX_RECORD}"));
    }
    Ok(SizeRange { min: min as usize, max: max as usize })
}

/// Parses a duration: seconds, or a number with `us`, `ms`, `s`, `m` or `h`. Fractions are allowed.
///
/// ```
/// use std::time::Duration;
/// assert_eq!(loadgen::units::parse_duration("1.5s"), Ok(Duration::from_millis(1500)));
/// assert_eq!(loadgen::units::parse_duration("2m"), Ok(Duration::from_secs(120)));
/// ```
///
/// # Errors
///
/// A description of the error.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let trimmed = text.trim();
    let split = trimmed.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(trimmed.len());
    let (number, unit) = trimmed.split_at(split);
    let unit = unit.trim_start();
    let wrong =
        || format!("{text:?} is not a duration; write seconds, or a number with us, ms, s, m or h");
    let scale = match unit {
        "ns" => 1e-9,
        "us" | "µs" | "μs" => 1e-6,
        "ms" => 1e-3,
        "" | "s" => 1.0,
        "m" | "min" => 60.0,
        "h" => 3600.0,
        _ => return Err(wrong()),
    };
    let value: f64 = number.parse().map_err(|_| wrong())?;
    let long = || format!("{text:?} is too long a duration; a year is the most");
    let seconds = value * scale;
    if seconds > 31_557_600.0 {
        return Err(long());
    }
    Duration::try_from_secs_f64(seconds).map_err(|_| long())
}

/// Parses a duration above zero.
///
/// # Errors
///
/// A description of the error.
pub fn parse_positive_duration(text: &str) -> Result<Duration, String> {
    match parse_duration(text)? {
        Duration::ZERO => Err("must be longer than zero".into()),
        d => Ok(d),
    }
}

/// Formats a count with separated thousands: `1,234,567`.
#[must_use]
pub fn grouped(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::with_capacity(digits.len() * 4 / 3);
    for (i, c) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(c);
    }
    out
}

/// Formats bytes in the largest binary unit that keeps the number above one.
#[must_use]
pub fn bytes(n: f64) -> String {
    scaled(n, 1024.0, &[" B", " KiB", " MiB", " GiB", " TiB"])
}

/// Formats a count or a rate with a decimal unit: `28.1 M`.
#[must_use]
pub fn si(n: f64) -> String {
    scaled(n, 1000.0, &["", " k", " M", " G", " T"])
}

/// Formats a rate in bytes with decimal units, as vendors of disks do: `3.12 GB/s`.
#[must_use]
pub fn rate(bytes_per_s: f64) -> String {
    scaled(bytes_per_s, 1000.0, &[" B/s", " kB/s", " MB/s", " GB/s", " TB/s"])
}

/// Formats nanoseconds in the most readable unit.
#[must_use]
pub fn nanos(ns: u64) -> String {
    let ns = ns as f64;
    if ns < 1e3 {
        format!("{ns:.0} ns")
    } else if ns < 1e6 {
        format!("{} us", three(ns / 1e3))
    } else if ns < 1e9 {
        format!("{} ms", three(ns / 1e6))
    } else {
        format!("{} s", three(ns / 1e9))
    }
}

fn scaled(n: f64, base: f64, units: &[&str]) -> String {
    let mut value = n;
    let mut unit = 0;
    while value >= base && unit + 1 < units.len() {
        value /= base;
        unit += 1;
    }
    let name = units.get(unit).unwrap_or(&"");
    if unit == 0 && value.fract() == 0.0 {
        format!("{value:.0}{name}")
    } else {
        format!("{}{name}", three(value))
    }
}

/// Formats a number with about three significant digits.
fn three(value: f64) -> String {
    if value >= 100.0 {
        format!("{value:.0}")
    } else if value >= 10.0 {
        format!("{value:.1}")
    } else {
        format!("{value:.2}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_take_suffixes() {
        for (text, n) in [("0", 0), ("100", 100), ("4k", 4096), ("4K", 4096), ("2MiB", 2 << 20)] {
            assert_eq!(parse_bytes(text), Ok(n), "{text}");
        }
        assert_eq!(parse_bytes("1g"), Ok(1 << 30));
        assert_eq!(parse_bytes("7b"), Ok(7));
        for bad in ["", "k", "-1", "1.5k", "1kk", "ten", "0x10", "99999999999g", "ü", "1ü"] {
            assert!(parse_bytes(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn counts_have_one_grammar() {
        for (text, n) in [
            ("0", 0),
            ("20", 20),
            ("1k", 1000),
            ("1K", 1000),
            (" 2m ", 2_000_000),
            ("1.5k", 1500),
            ("4Ki", 4096),
            ("1g", 1_000_000_000),
            ("1Mi", 1 << 20),
            ("9007199254740993", 9_007_199_254_740_993),
        ] {
            assert_eq!(parse_count(text), Ok(n), "{text}");
        }
        for bad in [
            "",
            "k",
            "-1",
            "1.5",
            "1kk",
            "ten",
            "0x10",
            "1e3",
            "nan",
            "inf",
            ".",
            "1i",
            "ü",
            "1_000",
            "18446744073709551616",
            "99999999999t",
        ] {
            assert!(parse_count(bad).is_err(), "{bad}");
        }
        assert_eq!(parse_number("0.5"), Ok(0.5));
        for (text, percent) in [("5", 5.0), ("5%", 5.0), ("2.5 %", 2.5), ("0", 0.0), ("100", 100.0)]
        {
            assert_eq!(parse_percent(text), Ok(percent), "{text}");
        }
        for bad in ["-1", "101", "nan", "inf", "", "%", "five"] {
            assert!(parse_percent(bad).is_err(), "{bad}");
        }
        assert!(parse_u32("5g").is_err() && parse_usize("5").is_ok());
    }

    #[test]
    fn reversed_or_large_range_is_rejected() {
        assert_eq!(parse_size_range("64"), Ok(SizeRange { min: 64, max: 64 }));
        assert_eq!(parse_size_range("0-1k"), Ok(SizeRange { min: 0, max: 1024 }));
        assert!(parse_size_range("1k-64").unwrap_err().contains("reversed"));
        for bad in ["", "-", "1-", "-1", "1-2-3", "1g"] {
            assert!(parse_size_range(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn sizes_have_weights() {
        for (text, shown) in
            [("100", "100"), ("1-1k", "1-1024"), ("100:9,4k-8k:1", "100:9,4096-8192:1")]
        {
            assert_eq!(parse_sizes(text).unwrap().to_string(), shown);
        }
        assert_eq!(parse_sizes("9,1k:3").unwrap().range(), SizeRange { min: 9, max: 1024 });
        for bad in ["", ",", "100:", "100:0", "100:-1", "100:1.5", "9-1:2", "1,,2"] {
            assert!(parse_sizes(bad).is_err(), "{bad}");
        }
        assert!(parse_sizes(&["1"; 101].join(",")).is_err());
    }

    #[test]
    fn durations_accept_units_and_fractions() {
        for (text, ms) in [("10", 10_000), ("10s", 10_000), ("500ms", 500), ("2m", 120_000)] {
            assert_eq!(parse_duration(text), Ok(Duration::from_millis(ms)), "{text}");
        }
        assert_eq!(parse_duration("0.25"), Ok(Duration::from_millis(250)));
        assert_eq!(parse_duration("50us"), Ok(Duration::from_micros(50)));
        for bad in ["", "s", "-1", "1x", "1.2.3", "99999999999h", ".", "1 0", "1 k", "NaN", "inf"] {
            assert!(parse_duration(bad).is_err(), "{bad}");
        }
        assert!(parse_positive_duration("0ms").is_err());
        assert!(parse_positive_duration("1ms").is_ok());
    }

    #[test]
    fn numbers_read_well() {
        assert_eq!(grouped(0), "0");
        assert_eq!(grouped(999), "999");
        assert_eq!(grouped(1_234_567), "1,234,567");
        assert_eq!(bytes(100.0), "100 B");
        assert_eq!(bytes(4096.0), "4.00 KiB");
        assert_eq!(si(28_100_000.0), "28.1 M");
        assert_eq!(rate(3.12e9), "3.12 GB/s");
        assert_eq!(nanos(999), "999 ns");
        assert_eq!(nanos(109_400), "109 us");
        assert_eq!(nanos(2_500_000_000), "2.50 s");
    }
}
