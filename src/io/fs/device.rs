//! What the system says of the disk under a path: `/sys/dev/block`.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// The whole disk under a filesystem; a partition's queue is its disk's.
#[derive(Debug, Clone)]
pub(crate) struct Device {
    node: PathBuf,
    number: String,
}

/// Whether the disk has a write cache that power loss empties.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WriteCache {
    /// None, or one that survives: writes are durable once they complete.
    Through,
    /// `fua`: single writes can go past it; without it they need a flush.
    Back { fua: bool },
}

impl Device {
    /// `None` where no single block device is behind the path: network filesystems, tmpfs, and
    /// filesystems that own several devices.
    pub(crate) fn under(path: &Path) -> Option<Device> {
        let device = fs::metadata(path).ok()?.dev();
        let (major, minor) = (nix::sys::stat::major(device), nix::sys::stat::minor(device));
        let number = format!("{major}:{minor}");
        let node = fs::canonicalize(format!("/sys/dev/block/{number}")).ok()?;
        let disk = [Some(node.as_path()), node.parent()];
        let node = disk.into_iter().flatten().find(|n| n.join("queue").is_dir())?.to_path_buf();
        Some(Device { node, number })
    }

    fn read(&self, name: &str) -> Option<String> {
        Some(fs::read_to_string(self.node.join(name)).ok()?.trim().to_owned())
    }

    /// max(physical block, logical block) in bytes: what a direct write is aligned to.
    pub(crate) fn block(&self) -> Option<u32> {
        let size = |name: &str| self.read(name)?.parse::<u32>().ok();
        Some(size("queue/physical_block_size")?.max(size("queue/logical_block_size")?))
    }

    pub(crate) fn write_cache(&self) -> Option<WriteCache> {
        match self.read("queue/write_cache")?.as_str() {
            "write through" => Some(WriteCache::Through),
            "write back" => {
                Some(WriteCache::Back { fua: self.read("queue/fua").as_deref() == Some("1") })
            }
            _ => None,
        }
    }

    /// Flushes that the disk has completed since it was found, for everybody. `None` before Linux
    /// 5.5.
    pub(crate) fn flushes(&self) -> Option<u64> {
        self.read("stat")?.split_ascii_whitespace().nth(15)?.parse().ok()
    }

    /// One line that another disk, or this one after a change that matters, does not have.
    pub(crate) fn identity(&self) -> String {
        let name = self.node.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let facts =
            ["size", "serial", "device/serial", "device/model", "queue/write_cache", "queue/fua"];
        facts.iter().filter_map(|fact| self.read(fact)).fold(
            format!("{} {name}", self.number),
            |mut line, fact| {
                line.push_str(" / ");
                line.extend(fact.chars().filter(|c| !c.is_control()));
                line
            },
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_disk_is_none() {
        assert!(Device::under(Path::new("/proc")).is_none());
        assert!(Device::under(Path::new("/nowhere/at/all")).is_none());
    }

    #[test]
    fn a_disk_has_a_block_and_an_identity_of_one_line() {
        // Where the tests run on no single disk there is nothing to look at.
        let Some(device) = Device::under(&std::env::current_dir().unwrap()) else { return };
        assert!(device.block().is_none_or(|b| b.is_power_of_two()));
        assert!(!device.identity().contains('\n'));
    }
}
