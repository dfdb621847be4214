//! The block device under a directory, as the system reports it.
//!
//! A run needs none of this: an unknown value is `None`.

use std::path::{Path, PathBuf};

/// A directory's filesystem and block device.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Device {
    /// `major:minor` of the filesystem.
    pub number: Option<String>,
    /// Kernel name of the whole disk: `nvme0n1`.
    pub name: Option<String>,
    /// Type of the filesystem: `ext4`.
    pub filesystem: Option<String>,
    /// Mount options, separated by commas.
    pub options: Option<String>,
    /// True for a rotating disk.
    pub rotational: Option<bool>,
    /// `write back`, or `write through` for a device that needs no flush.
    pub write_cache: Option<String>,
    /// True if the device supports FUA.
    pub fua: Option<bool>,
    /// The disk's folder in /sys.
    sys: Option<PathBuf>,
}

impl Device {
    /// Finds the device under `directory`.
    #[must_use]
    pub fn under(directory: &Path) -> Device {
        let number = number(directory);
        let mounts = std::fs::read("/proc/self/mountinfo").unwrap_or_default();
        let mount = directory.canonicalize().ok().and_then(|d| mount_of(&mounts, &d));
        // Some filesystems have their own device number. The source of the mount is the device
        // then.
        let sys = number
            .as_deref()
            .and_then(disk)
            .or_else(|| disk(&source_number(Path::new(mount.as_ref()?.source.as_str()))?));
        let queue = |name: &str| {
            let text = std::fs::read_to_string(sys.as_ref()?.join("queue").join(name)).ok()?;
            Some(text.trim().to_string())
        };
        Device {
            name: sys.as_ref().and_then(|s| Some(s.file_name()?.to_string_lossy().into_owned())),
            options: mount.as_ref().map(|m| m.options.clone()),
            filesystem: mount.map(|m| m.filesystem),
            rotational: queue("rotational").map(|text| text != "0"),
            write_cache: queue("write_cache"),
            fua: queue("fua").map(|text| text != "0"),
            number,
            sys,
        }
    }

    /// Reads a setting in the disk's folder of /sys: `queue/scheduler`.
    #[must_use]
    pub fn setting(&self, name: &str) -> Option<String> {
        let text = std::fs::read_to_string(self.sys.as_ref()?.join(name)).ok()?;
        Some(text.trim().to_owned()).filter(|text| !text.is_empty())
    }

    /// Returns the flushes that the disk received since the system started, from all processes.
    #[must_use]
    pub fn flushes(&self) -> Option<u64> {
        const FLUSH_IOS: usize = 15;
        let stat = std::fs::read_to_string(self.sys.as_ref()?.join("stat")).ok()?;
        stat.split_whitespace().nth(FLUSH_IOS)?.parse().ok()
    }
}

#[cfg(target_os = "linux")]
fn numbered(device: u64) -> String {
    format!("{}:{}", nix::sys::stat::major(device), nix::sys::stat::minor(device))
}

#[cfg(target_os = "linux")]
fn number(directory: &Path) -> Option<String> {
    use std::os::unix::fs::MetadataExt;
    Some(numbered(std::fs::metadata(directory).ok()?.dev()))
}

#[cfg(target_os = "linux")]
fn source_number(source: &Path) -> Option<String> {
    use std::os::unix::fs::{FileTypeExt, MetadataExt};
    let found = std::fs::metadata(source).ok()?;
    found.file_type().is_block_device().then(|| numbered(found.rdev()))
}

#[cfg(not(target_os = "linux"))]
fn number(_: &Path) -> Option<String> {
    None
}

#[cfg(not(target_os = "linux"))]
fn source_number(_: &Path) -> Option<String> {
    None
}

/// Returns the folder in /sys of the whole disk that holds this device.
fn disk(number: &str) -> Option<PathBuf> {
    let device = Path::new("/sys/dev/block").join(number).canonicalize().ok()?;
    if device.join("partition").exists() { Some(device.parent()?.into()) } else { Some(device) }
}

#[derive(Debug, PartialEq, Eq)]
struct Mount {
    filesystem: String,
    source: String,
    /// Options of the mount and of the filesystem.
    options: String,
}

/// Returns the mount of a canonical `path`: the one with the longest mount point, the last of
/// equals.
fn mount_of(mountinfo: &[u8], path: &Path) -> Option<Mount> {
    let text = String::from_utf8_lossy(mountinfo);
    let mut best: Option<(usize, Mount)> = None;
    for line in text.lines() {
        let Some((left, right)) = line.split_once(" - ") else { continue };
        let Some(point) = left.split(' ').nth(4).map(unescape) else { continue };
        let of_mount = left.split(' ').nth(5).unwrap_or_default();
        let mut right = right.split(' ');
        let (Some(filesystem), Some(source)) = (right.next(), right.next()) else { continue };
        let longer = best.as_ref().is_none_or(|(len, _)| point.len() >= *len);
        if longer && path.starts_with(&point) {
            let options = format!("{of_mount},{}", right.next().unwrap_or_default());
            let (filesystem, source) = (filesystem.into(), unescape(source));
            best = Some((point.len(), Mount { filesystem, source, options }));
        }
    }
    best.map(|(_, mount)| mount)
}

/// Decodes the kernel's octal escapes of blanks and backslashes.
fn unescape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        out.push_str(&rest[..at]);
        let code = rest.get(at + 1..at + 4).and_then(|octal| u8::from_str_radix(octal, 8).ok());
        match code {
            Some(byte) => {
                out.push(char::from(byte));
                rest = &rest[at + 4..];
            }
            None => {
                out.push('\\');
                rest = &rest[at + 1..];
            }
        }
    }
    out + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTS: &[u8] = b"22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw\n\
        23 22 0:5 / /tmp rw - tmpfs tmpfs rw\n\
        broken line\n\
        24 22 0:40 /sub /data\\040one rw,noatime - btrfs /dev/sdb rw\n\
        25 22 8:2 / /tmp rw - xfs /dev/sda2 rw\n";

    fn found(path: &str) -> (String, String) {
        let mount = mount_of(MOUNTS, Path::new(path)).unwrap();
        (mount.filesystem, mount.source)
    }

    #[test]
    fn longest_and_last_mount_point_is_chosen() {
        assert_eq!(found("/home/x"), ("ext4".into(), "/dev/sda1".into()));
        assert_eq!(found("/tmp/x"), ("xfs".into(), "/dev/sda2".into()));
        assert_eq!(found("/tmpfoo").0, "ext4");
        assert_eq!(found("/data one/x"), ("btrfs".into(), "/dev/sdb".into()));
        assert_eq!(mount_of(b"", Path::new("/")), None);
        let data = mount_of(MOUNTS, Path::new("/data one/x")).unwrap();
        assert_eq!(data.options, "rw,noatime,rw");
    }

    #[test]
    fn escapes_are_undone() {
        assert_eq!(unescape("a\\040b\\134c\\"), "a b\\c\\");
        assert_eq!(unescape("\\9zz\\0"), "\\9zz\\0");
    }

    #[test]
    fn looking_never_fails() {
        let device = Device::under(&std::env::temp_dir());
        let _ = device.flushes();
        assert_eq!(Device::under(Path::new("/no/such/place")).name, None);
    }
}
