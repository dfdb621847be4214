//! Windows: when the boot began, and which of its boots it is.

use windows_sys::Wdk::System::SystemInformation::{
    NtQuerySystemInformation, SystemTimeOfDayInformation,
};

/// The time of the boot, which the kernel noted to 100 ns, and the count of boots that the
/// loader keeps. The time alone would repeat on a machine whose clock starts at the same hour.
pub(super) fn identity() -> Option<u128> {
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
    // SAFETY: Windows maps the page KUSER_SHARED_DATA at 0x7FFE_0000 into every process, for
    // reading. BootId, 32 bits, is at 0x2C4 in it since Windows 8; padding was there before.
    let count = unsafe { std::ptr::read_volatile(0x7FFE_02C4 as *const u32) };
    let mut id = [0; 16];
    id[..8].copy_from_slice(&booted.to_le_bytes());
    id[8..12].copy_from_slice(&count.to_le_bytes());
    id[12..].copy_from_slice(b"boot");
    Some(u128::from_le_bytes(id))
}
