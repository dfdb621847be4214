//! A survey of a log while its writer rotates, recycles, truncates and closes it: it disturbs
//! nothing, and reports no damage where there is none.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::support::{SetOnDrop, Temp, small};
use fastrand::Rng;
use ringwal::Lsn;
use ringwal::inspect::Directory;

/// The payload of record `n`: its number, and bytes derived from it.
fn payload(n: u64, len: usize) -> Vec<u8> {
    n.to_le_bytes().iter().copied().cycle().take(8 + len).collect()
}

fn is_one(payload: &[u8]) -> bool {
    payload == b"void" || payload.iter().zip(payload[..8].iter().cycle()).all(|(a, b)| a == b)
}

/// Runs lives of a writer until `stop` is set.
fn write(dir: &std::path::Path, stop: &AtomicBool, lives: &AtomicU64) {
    let mut rng = Rng::with_seed(7);
    let mut n = 0;
    while !stop.load(Ordering::Relaxed) {
        let wal = small(dir).max_segments(5).open().unwrap();
        let mut consumer = wal.consumer("reader").unwrap();
        for round in 0..rng.u32(20..200) {
            let mut last = Lsn::ZERO;
            for _ in 0..rng.usize(1..60) {
                n += 1;
                last = wal.append(&payload(n, rng.usize(..3000))).unwrap();
            }
            match rng.u8(..12) {
                0 => drop(wal.truncate_before(last).unwrap()),
                1 => {
                    let from = wal.append(b"void").unwrap();
                    wal.truncate_from(from).unwrap();
                }
                2 => std::thread::sleep(Duration::from_millis(30)),
                _ => drop(wal.sync().unwrap()),
            }
            if round % 5 == 0 {
                wal.wait_durable(last).unwrap();
                consumer.commit(last).unwrap();
            }
        }
        drop(consumer);
        wal.close().unwrap();
        lives.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn survey_beside_a_writer_reports_no_damage() {
    let temp = Temp::new();
    let dir = temp.log();
    small(&dir).open().unwrap().close().unwrap();
    let (stop, lives) = (AtomicBool::new(false), AtomicU64::new(0));
    let time = Duration::from_secs(if crate::support::long() { 300 } else { 4 });
    let (mut removed, mut looks) = (0, 0_u64);
    std::thread::scope(|scope| {
        scope.spawn(|| write(&dir, &stop, &lives));
        let _ends = SetOnDrop(&stop);
        let log = Directory::open(&dir, "wal").unwrap();
        let end = Instant::now() + time;
        let patience = end + Duration::from_secs(300);
        // Enough of both, however slow the machine is.
        let too_few = |looks| looks <= 3 || lives.load(Ordering::Relaxed) < 2;
        while Instant::now() < end || (too_few(looks) && Instant::now() < patience) {
            let survey = log.survey(&mut |_| {}).unwrap();
            assert!(survey.damage.is_empty(), "look {looks}: {:#?}", survey.damage);
            removed += survey.removed_meanwhile;
            let again = log
                .intact_records(&survey, &mut |lsn, payload| {
                    assert!(is_one(payload), "{lsn} is no record");
                    true
                })
                .unwrap();
            assert!(again.damage.is_empty(), "look {looks}: {:#?}", again.damage);
            looks += 1;
        }
    });
    assert!(looks > 3 && lives.into_inner() > 1, "{looks} looks, {removed} removed");
    let wal = small(&dir).open().unwrap();
    assert!(crate::support::read_all(&wal).iter().all(|(_, payload)| is_one(payload)));
}
