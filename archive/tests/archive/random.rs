//! Random appends, faults and restarts: what is restored is the log, up to any place.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use ringwal::Lsn;
use ringwal_archive::{Error, Until};

use crate::faults::{Fault, Faulty, shared};
use crate::support::{
    Records, SEGMENT, Temp, archive, archiver, before, builder, contents, eventually, memory, timed,
};

fn round(seed: u64) {
    let mut rng = fastrand::Rng::with_seed(seed);
    let temp = Temp::new();
    let (dir, inner) = (temp.join("log"), memory());
    let mut records = Records::new();
    let lives = rng.u32(2..5);
    for life in 0..lives {
        let (mut faults, rate) = (rng.fork(), rng.u64(2..20));
        let sound = Arc::new(AtomicBool::new(false));
        let is_sound = Arc::clone(&sound);
        let faulty = Faulty::new(&inner, move |_| {
            if is_sound.load(Ordering::SeqCst) || faults.u64(..rate) > 0 {
                return None;
            }
            let all = [Fault::Unavailable, Fault::LostAnswer, Fault::Torn, Fault::TornInSilence];
            Some(all[faults.usize(..all.len())])
        });
        let archiver = archiver(&archive(&shared(&faulty))).start().unwrap();
        let settings = builder(&dir).max_segments(rng.usize(2..6));
        let wal = archiver.attach(settings).open().unwrap();
        for _ in 0..rng.u32(20..150) {
            let payload = vec![rng.u8(..); rng.usize(1..24_000)];
            records.push((wal.append(&payload).unwrap(), payload));
            if rng.u32(..6) == 0 {
                wal.sync().unwrap();
            }
        }
        wal.sync().unwrap();
        if life + 1 == lives {
            // Its end is archived, whatever happened before.
            sound.store(true, Ordering::SeqCst);
            let sealed = wal.end().as_u64() / SEGMENT * SEGMENT;
            eventually("the end is archived", || archiver.stats().archived_to.as_u64() >= sealed);
        }
        archiver.stop();
        wal.close().unwrap();
    }
    let archive = archive(&inner);
    let listing = archive.list().unwrap();
    assert!(listing.gaps.is_empty(), "{listing:?}");
    assert_eq!(listing.segments[0].base, Lsn::ZERO);
    let to = temp.fresh();
    let whole = archive.restore().into(&to).unwrap();
    let all = timed(&to);
    let expected = before(&records, whole.end);
    assert!(all.iter().map(|(lsn, payload, _)| (*lsn, payload.clone())).eq(expected));
    for _ in 0..6 {
        let (lsn, _, time) = all[rng.usize(..all.len())].clone();
        let lsn = Lsn::new(lsn.as_u64() + [0, 0, 1, 8][rng.usize(..4)]);
        let reached = all.iter().position(|(_, _, written)| *written >= time);
        let cases = [
            (Until::Lsn(lsn), before(&records, lsn)),
            (Until::Time(time), records[..reached.unwrap_or(all.len())].to_vec()),
        ];
        for (until, expected) in cases {
            let to = temp.fresh();
            match archive.restore().until(until).into(&to) {
                Ok(_) => assert!(contents(&to) == expected, "{until:?}"),
                Err(Error::BeforeStart { .. }) => assert!(expected.is_empty(), "{until:?}"),
                Err(e) => panic!("{until:?}: {e}"),
            }
            let _ = std::fs::remove_dir_all(to);
        }
    }
}

#[test]
fn whatever_happened_the_archive_is_the_log() {
    let rounds = if std::env::var_os("RINGWAL_LONG").is_some() { 200 } else { 6 };
    for seed in 0..rounds {
        let done = std::panic::catch_unwind(|| round(seed));
        assert!(done.is_ok(), "seed {seed}");
    }
}
