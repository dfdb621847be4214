//! Which boot of the machine this is.

/// The id of this boot of the machine. `None`: the system cannot tell. Two boots never have the
/// same id; one boot may have two, which costs only time.
pub(crate) fn boot_id() -> Option<[u8; 16]> {
    imp::boot_id()
}

#[cfg(not(windows))]
mod imp {
    pub(super) fn boot_id() -> Option<[u8; 16]> {
        let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
        let digits: String = text.chars().filter(char::is_ascii_hexdigit).collect();
        Some(u128::from_str_radix(&digits, 16).ok()?.to_le_bytes())
    }
}

#[cfg(windows)]
mod imp {
    use windows_sys::Wdk::System::SystemInformation::{
        NtQuerySystemInformation, SystemTimeOfDayInformation,
    };

    /// The time of the boot, which the kernel noted to 100 ns, and the count of boots that the
    /// loader keeps. The time alone would repeat on a machine whose clock starts at the same hour.
    pub(super) fn boot_id() -> Option<[u8; 16]> {
        /// BootTime, CurrentTime, TimeZoneBias, TimeZoneId, BootTimeBias, SleepTimeBias.
        type TimeOfDay = [i64; 6];
        let mut times: TimeOfDay = [0; 6];
        // SAFETY: room for all fields of this class, with its size; no pointer to a result length.
        let status = unsafe {
            NtQuerySystemInformation(
                SystemTimeOfDayInformation,
                times.as_mut_ptr().cast(),
                size_of::<TimeOfDay>() as u32,
                std::ptr::null_mut(),
            )
        };
        // Setting the clock moves both by the same.
        let booted = times[0].wrapping_sub(times[4]);
        if status < 0 || booted == 0 {
            return None;
        }
        // SAFETY: Windows maps the page KUSER_SHARED_DATA at this address into every process, for
        // reading, and BootId has this place in it since Windows 8.
        let count = unsafe { std::ptr::read_volatile(0x7FFE_02C4 as *const u32) };
        let mut id = [0; 16];
        id[..8].copy_from_slice(&booted.to_le_bytes());
        id[8..12].copy_from_slice(&count.to_le_bytes());
        id[12..].copy_from_slice(b"boot");
        Some(id)
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn boot_id_is_the_same_for_as_long_as_the_machine_runs() {
        let first = super::boot_id();
        assert_eq!(first.is_some(), cfg!(any(windows, target_os = "linux")));
        std::thread::sleep(std::time::Duration::from_millis(20));
        assert_eq!(first, super::boot_id());
    }
}
