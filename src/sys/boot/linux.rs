//! Linux and Android: the kernel draws an identity at each boot.

use super::of_uuid;

pub(super) fn identity() -> Option<u128> {
    of_uuid(&std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?)
}
