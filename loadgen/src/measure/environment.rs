//! The conditions of a measurement. Without them, a figure cannot be compared with another.
//!
//! A run needs none of this: a value that the system does not report is `null`.

use std::fs::read_to_string;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use crate::log_dir::device::Device;

/// The key of the environment in every JSON.
pub const KEY: &str = "environment";

/// The conditions of a measurement in one directory, at its start.
#[derive(Debug, Clone)]
pub struct Environment {
    value: Value,
}

fn read(path: impl AsRef<Path>) -> Option<String> {
    let text = read_to_string(path).ok()?;
    let text = text.trim_matches(['\0', '\n', ' ', '\t']);
    (!text.is_empty()).then(|| text.to_owned())
}

/// Returns the value of a line `name : value`.
fn field(text: &str, name: &str) -> Option<String> {
    let of = |line: &str| {
        let (key, value) = line.split_once(':')?;
        (key.trim() == name).then(|| value.trim().to_owned())
    };
    text.lines().find_map(of)
}

impl Environment {
    /// Reads the conditions from the system.
    #[must_use]
    pub fn of(directory: &Path) -> Environment {
        let device = Device::under(directory);
        let cpu = read("/proc/cpuinfo").unwrap_or_default();
        let memory = read("/proc/meminfo").unwrap_or_default();
        let kilobytes = field(&memory, "MemTotal")
            .and_then(|text| text.strip_suffix("kB")?.trim().parse::<u64>().ok());
        let model = ["model name", "Model", "cpu model", "Processor"];
        let words = std::env::args_os().map(|word| quoted(&word.to_string_lossy()));
        let value = json!({
            "date": date(SystemTime::now()),
            "loadgen_version": env!("CARGO_PKG_VERSION"),
            "format_version": 1,
            "debug_build": cfg!(debug_assertions),
            "command_line": words.collect::<Vec<_>>().join(" "),
            "host": read("/proc/sys/kernel/hostname"),
            "system": read("/proc/sys/kernel/ostype").unwrap_or_else(|| std::env::consts::OS.into()),
            "kernel": read("/proc/sys/kernel/osrelease"),
            "architecture": std::env::consts::ARCH,
            "cpu": model.iter().find_map(|name| field(&cpu, name)),
            "processors": std::thread::available_parallelism().ok().map(usize::from),
            "governor": read("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
            "memory_bytes": kilobytes.map(|n| n * 1024),
            "virtual_machine": virtual_machine(&cpu),
            "container": container(),
            "mount_options": device.options,
            "filesystem": device.filesystem,
            "disk": device.name,
            "disk_model": device.setting("device/model"),
            "scheduler": device.setting("queue/scheduler").map(|text| chosen(&text)),
            "queue_requests": device.setting("queue/nr_requests").and_then(|n| n.parse::<u64>().ok()),
            "write_cache": device.write_cache,
            "load_average": read("/proc/loadavg")
                .and_then(|text| text.split_whitespace().next()?.parse::<f64>().ok()),
        });
        Environment { value }
    }

    /// Returns the JSON object.
    #[must_use]
    pub fn json(&self) -> Value {
        self.value.clone()
    }

    /// Returns one line for the table.
    #[must_use]
    pub fn line(&self) -> String {
        let text = |key: &str| match &self.value[key] {
            Value::String(text) => text.clone(),
            Value::Null => "unknown".into(),
            other => other.to_string(),
        };
        format!(
            "{}, host {}, kernel {}, {} x {}, loadgen {}",
            text("date"),
            text("host"),
            text("kernel"),
            text("processors"),
            text("cpu"),
            text("loadgen_version"),
        )
    }

    /// Returns the command line of this process.
    #[must_use]
    pub fn command_line(&self) -> &str {
        self.value["command_line"].as_str().unwrap_or_default()
    }
}

/// Quotes the words for a shell.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:,=+@%".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', "'\\''"))
    }
}

/// Returns the bracketed word of a setting such as `none [mq-deadline]`.
fn chosen(text: &str) -> String {
    let inner = text.split_once('[').and_then(|(_, rest)| rest.split_once(']'));
    inner.map_or(text, |(chosen, _)| chosen).to_owned()
}

fn virtual_machine(cpuinfo: &str) -> Option<String> {
    let flags = field(cpuinfo, "flags").unwrap_or_default();
    let vendor = read("/sys/class/dmi/id/sys_vendor");
    let product = read("/sys/class/dmi/id/product_name");
    let names: Vec<String> = [vendor, product].into_iter().flatten().collect();
    let names = names.join(" ");
    let known = [
        "QEMU",
        "KVM",
        "VMware",
        "VirtualBox",
        "Virtual Machine",
        "Xen",
        "Amazon EC2",
        "Google Compute Engine",
        "Bochs",
        "Firecracker",
        "HVM",
    ];
    let hypervisor = flags.split_whitespace().any(|flag| flag == "hypervisor");
    if known.iter().any(|name| names.contains(name)) {
        return Some(names);
    }
    hypervisor.then(|| if names.is_empty() { "a hypervisor".into() } else { names })
}

fn container() -> Option<String> {
    if Path::new("/.dockerenv").exists() {
        return Some("docker".into());
    }
    if Path::new("/run/.containerenv").exists() {
        return Some("podman".into());
    }
    let groups = read("/proc/1/cgroup").unwrap_or_default();
    let known = ["kubepods", "docker", "containerd", "lxc", "libpod"];
    known.iter().find(|name| groups.contains(**name)).map(|name| (*name).to_owned())
}

/// Formats a time as `2026-11-28T23:48:00Z`.
#[must_use]
pub fn date(time: SystemTime) -> String {
    let seconds = time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    // Counts days of the Gregorian calendar from the first of March of the year 0.
    let shifted = days + 719_468;
    let (era, of_era) = (shifted / 146_097, shifted % 146_097);
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = year + era * 400 + u64::from(month <= 2);
    let (hour, minute, second) = (rest / 3600, rest / 60 % 60, rest % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn dates_follow_the_gregorian_calendar() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (951_868_799, "2000-02-29T23:59:59Z"),
            (1_709_164_800, "2024-02-29T00:00:00Z"),
            (1_735_689_599, "2024-12-31T23:59:59Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
        ] {
            assert_eq!(date(UNIX_EPOCH + Duration::from_secs(seconds)), text);
        }
    }

    #[test]
    fn environment_has_what_the_system_reports() {
        let environment = Environment::of(&std::env::temp_dir());
        let value = environment.json();
        for key in ["date", "loadgen_version", "command_line", "processors", "architecture"] {
            assert!(!value[key].is_null(), "{key}: {value:#}");
        }
        assert!(environment.line().contains("loadgen"));
        assert_eq!(chosen("none [mq-deadline] kyber"), "mq-deadline");
        assert_eq!(chosen("none"), "none");
        assert_eq!([quoted("a=1"), quoted("a b"), quoted("")], ["a=1", "'a b'", "''"]);
        let cpu = "processor\t: 0\nmodel name\t: Some CPU\nflags\t\t: fpu hypervisor\n";
        assert_eq!(field(cpu, "model name").as_deref(), Some("Some CPU"));
        assert!(virtual_machine(cpu).is_some());
    }
}
