//! How a thread waits for another one that is between two steps of a few instructions: the crosser.
//!
//! 1. The crosser is a microsecond away, or has lost its processor. The waiting thread first looks
//!    again and again, then yields its processor, and then sleeps. It never keeps the crosser from
//!    running, whatever their priorities, and costs next to nothing however long the wait is.

use std::time::Duration;

/// Looks after which the waiting thread gives way, and after which it sleeps.
const SPINS: u32 = 64;
const AWAKE: u32 = SPINS + 16;
const SLEEP: Duration = Duration::from_micros(200);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pause {
    Spin,
    Yield,
    Sleep,
}

/// What follows the look with this number.
fn after(looks: u32) -> Pause {
    match looks {
        0..SPINS => Pause::Spin,
        SPINS..AWAKE => Pause::Yield,
        _ => Pause::Sleep,
    }
}

/// Called after each look that found nothing, with the number of looks before it.
#[cfg(not(ringwal_loom))]
pub(super) fn pause(looks: u32) {
    match after(looks) {
        Pause::Spin => crate::sys::sync::spin_loop(),
        Pause::Yield => crate::sys::sync::yield_now(),
        Pause::Sleep => std::thread::sleep(SLEEP),
    }
}

/// In the models there is no time: each is a chance for the others.
#[cfg(ringwal_loom)]
pub(super) fn pause(looks: u32) {
    let _ = (after(looks), SLEEP);
    crate::sys::sync::spin_loop();
    crate::sys::sync::loom::thread::yield_now();
}

#[cfg(all(test, not(ringwal_loom)))]
mod tests {
    use super::*;
    use crate::ring::{HEADER, Placement, Ring, SEAL};
    use crate::sys::sync::Ordering;

    #[test]
    fn whoever_waits_long_sleeps() {
        let all: Vec<Pause> = (0..1000).map(after).collect();
        assert_eq!((all[0], all[999], after(u32::MAX)), (Pause::Spin, Pause::Sleep, Pause::Sleep));
        let awake = all.iter().filter(|&&pause| pause != Pause::Sleep).count();
        assert!(awake < 100 && all.contains(&Pause::Yield), "{awake}");
        assert!(all.iter().skip(awake).all(|&pause| pause == Pause::Sleep));
    }

    /// The crosser loses its processor between its addition and its lock. A caller that asks for
    /// the end pauses after each look, and gets the exact answer afterwards and none before.
    #[test]
    fn the_end_behind_a_crosser_that_does_not_run_is_waited_for_in_pauses() {
        let placement = Placement {
            next: 4096,
            segment_end: 1 << 20,
            prepared_end: 1 << 20,
            segment_size: 1 << 20,
            block: 4096,
        };
        let ring = Ring::new(8192, 2, placement);
        ring.start();
        ring.try_reserve(64).unwrap().publish(1);
        let found = ring.tail.fetch_add(SEAL, Ordering::SeqCst);
        let offset = HEADER + 64;
        assert_eq!(found & 0xFFFF, offset);
        let mut pauses = 0;
        let end = ring.reserved_end_with(|looks| {
            assert_eq!(looks, pauses, "one pause after each look");
            pauses += 1;
            if pauses == 500 {
                drop(ring.cross(0, offset));
            }
        });
        assert_eq!((end, pauses), (8192, 500));
    }
}
