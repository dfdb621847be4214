//! Floors of tags: the log keeps what a stream has not released, over restarts and kills.

use std::path::Path;
use std::time::Duration;

use crate::support::{Temp, backends, copy_dir, small};
use ringwal::inspect::Directory;
use ringwal::{Error, HeldBy, Lsn, ReadOnlyWal, Wal};

fn fill(wal: &Wal, tag: u64, records: usize) -> Vec<Lsn> {
    let lsns =
        (0..records).map(|n| wal.append_tagged(tag, &vec![n as u8; 3000]).unwrap()).collect();
    wal.sync().unwrap();
    lsns
}

fn floors(wal: &Wal) -> Vec<(u64, Lsn)> {
    wal.tag_floors().iter().map(|floor| (floor.tag, floor.floor)).collect()
}

fn file(dir: &Path) -> std::path::PathBuf {
    dir.join("wal.streams")
}

#[test]
fn log_keeps_what_a_tag_has_not_released_and_names_the_tag() {
    for backend in backends() {
        let temp = Temp::new();
        let wal = small(&temp.log()).backend(backend).max_segments(3).open().unwrap();
        assert_eq!(wal.tag_floors(), []);
        assert_eq!(wal.held_by(), None);
        let kept = wal.append_tagged(7, b"an entry of 7").unwrap();
        assert_eq!(wal.hold_tag(7, Lsn::ZERO).unwrap(), wal.oldest_lsn());
        wal.hold_tag(9, wal.end()).unwrap();
        let lsns = fill(&wal, 9, 200);
        wal.truncate_before(wal.end()).unwrap();
        assert_eq!(wal.read(kept).unwrap().tag(), Some(7));
        let (stats, floor) = (wal.stats(), floors(&wal)[0].1);
        assert_eq!(stats.slowest_tag, Some(7));
        assert_eq!(stats.tag_lag_bytes, stats.durable_end.as_u64() - floor.as_u64());
        assert_eq!(wal.held_by(), Some(HeldBy::Tag { tag: 7, floor }));

        // The lowest floor counts: 9 has released nothing.
        wal.release_tag(7, wal.end()).unwrap();
        wal.truncate_before(wal.end()).unwrap();
        assert!(wal.oldest_lsn() <= lsns[0]);
        assert!(matches!(wal.held_by(), Some(HeldBy::Tag { tag: 9, .. })));
        wal.release_tag(9, lsns[100]).unwrap();
        let oldest = wal.truncate_before(wal.end()).unwrap();
        assert!(oldest > kept && oldest <= lsns[100], "{oldest}");
        assert!(matches!(wal.read(kept), Err(Error::Pruned { .. })));
        assert_eq!(wal.read(lsns[100]).unwrap().tag(), Some(9));
        wal.remove_tag_floor(9).unwrap();
        assert!(wal.truncate_before(wal.end()).unwrap() > lsns[100]);
        assert_eq!(floors(&wal).len(), 1);
        assert!(matches!(wal.held_by(), Some(HeldBy::Tag { tag: 7, .. })));
    }
}

#[test]
fn limits_of_number_and_bytes_leave_what_a_floor_needs() {
    for bytes in [false, true] {
        let temp = Temp::new();
        let builder = small(&temp.log());
        let wal = match bytes {
            true => builder.max_total_bytes(192 << 10).open().unwrap(),
            false => builder.max_segments(3).open().unwrap(),
        };
        wal.hold_tag(1, Lsn::ZERO).unwrap();
        let lsns = fill(&wal, 2, 150);
        assert_eq!(wal.reader(Lsn::ZERO).count(), 150);
        wal.release_tag(1, lsns[149]).unwrap();
        crate::support::eventually("retention catches up", || wal.oldest_lsn() > lsns[60]);
    }
}

#[test]
fn floors_survive_a_close_and_a_kill_and_a_released_one_may_be_older_after_a_kill() {
    for backend in backends() {
        let temp = Temp::new();
        let open = |dir: &Path| small(dir).backend(backend).open().unwrap();
        let wal = open(&temp.log());
        let lsns = fill(&wal, 1, 50);
        wal.hold_tag(5, lsns[10]).unwrap();
        wal.hold_tags(&[(u64::MAX, lsns[20]), (0, lsns[30])]).unwrap();
        let held = vec![(0, lsns[30]), (5, lsns[10]), (u64::MAX, lsns[20])];
        assert_eq!(floors(&wal), held);
        wal.release_tag(5, lsns[40]).unwrap();
        // A lower position changes nothing.
        wal.release_tag(5, lsns[0]).unwrap();
        let released = vec![(0, lsns[30]), (5, lsns[40]), (u64::MAX, lsns[20])];
        assert_eq!(floors(&wal), released);
        let killed = temp.path().join("killed");
        copy_dir(&temp.log(), &killed);
        assert_eq!(floors(&open(&killed)), held);
        wal.close().unwrap();
        assert_eq!(floors(&open(&temp.log())), released);
        let wal = open(&temp.log());
        // A floor goes back as far as the log goes, and stays after a kill.
        assert_eq!(wal.hold_tag(5, Lsn::ZERO).unwrap(), wal.oldest_lsn());
        wal.remove_tag_floor(0).unwrap();
        let killed = temp.path().join("killed again");
        copy_dir(&temp.log(), &killed);
        let oldest = wal.oldest_lsn();
        assert_eq!(floors(&open(&killed)), [(5, oldest), (u64::MAX, lsns[20])]);
    }
}

#[test]
fn thousands_of_floors_lie_in_one_file_and_move_without_writes() {
    let temp = Temp::new();
    let wal = small(&temp.log()).open().unwrap();
    let lsns = fill(&wal, 0, 10);
    let many: Vec<_> = (0..5000).map(|tag| (tag * 3, lsns[tag as usize % 10])).collect();
    wal.hold_tags(&many).unwrap();
    let before = std::fs::read(file(&temp.log())).unwrap();
    for (tag, _) in &many {
        wal.release_tag(*tag, lsns[9]).unwrap();
    }
    assert!(std::fs::read(file(&temp.log())).unwrap() == before, "written at once");
    wal.close().unwrap();
    let wal = small(&temp.log()).open().unwrap();
    assert_eq!(wal.tag_floors().len(), 5000);
    assert!(wal.tag_floors().iter().all(|floor| floor.floor == lsns[9]));
    let threads: Vec<_> = (0..4)
        .map(|thread| {
            let wal = wal.clone();
            std::thread::spawn(move || {
                for n in 0..20 {
                    wal.hold_tag(1 << 40 | thread << 8 | n, Lsn::ZERO).unwrap();
                }
            })
        })
        .collect();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    let killed = temp.path().join("killed");
    copy_dir(&temp.log(), &killed);
    assert_eq!(small(&killed).open().unwrap().tag_floors().len(), 5080);
    assert!(std::fs::metadata(file(&killed)).unwrap().len() < 400 << 10);
}

#[test]
fn bad_positions_and_unknown_tags_are_rejected_and_change_nothing() {
    let temp = Temp::new();
    // No seal moves the end meanwhile.
    let wal = small(&temp.log()).idle_seal(Duration::MAX).open().unwrap();
    let lsns = fill(&wal, 0, 100);
    wal.sync().unwrap();
    wal.truncate_before(lsns[90]).unwrap();
    wal.hold_tag(1, lsns[95]).unwrap();
    let held = floors(&wal);
    let beyond = wal.end().next();
    assert!(matches!(wal.hold_tag(1, lsns[0]), Err(Error::Pruned { .. })));
    assert!(matches!(wal.hold_tag(2, lsns[0]), Err(Error::Pruned { .. })));
    let mixed = wal.hold_tags(&[(1, Lsn::ZERO), (3, lsns[0])]);
    assert!(matches!(mixed, Err(Error::Pruned { .. })), "all or none");
    assert!(matches!(wal.hold_tag(1, beyond), Err(Error::NotAppended { .. })));
    assert!(matches!(wal.release_tag(1, beyond), Err(Error::NotAppended { .. })));
    assert!(matches!(wal.release_tag(2, lsns[95]), Err(Error::NoTagFloor { tag: 2 })));
    assert!(matches!(wal.remove_tag_floor(2), Err(Error::NoTagFloor { tag: 2 })));
    assert_eq!(floors(&wal), held);
    let too_many: Vec<_> = (0..(1 << 20) + 1).map(|tag| (tag, Lsn::ZERO)).collect();
    assert!(matches!(wal.hold_tags(&too_many), Err(Error::TooManyTagFloors { .. })));
    assert_eq!(floors(&wal), held);
    wal.remove_tag_floor(1).unwrap();
    let empty = std::fs::read(file(&temp.log())).unwrap();
    assert!(matches!(wal.hold_tag(2, lsns[0]), Err(Error::Pruned { .. })));
    wal.close().unwrap();
    assert!(std::fs::read(file(&temp.log())).unwrap() == empty, "a refusal is not stored");
    assert!(matches!(wal.hold_tag(1, Lsn::ZERO), Err(Error::Closed)));
    assert!(matches!(wal.release_tag(1, Lsn::ZERO), Err(Error::Closed)));
    assert!(matches!(wal.remove_tag_floor(1), Err(Error::Closed)));
}

#[test]
fn cut_leaves_floors_and_later_records_lie_above_them() {
    let temp = Temp::new();
    let wal = small(&temp.log()).max_segments(2).open().unwrap();
    let lsns = fill(&wal, 0, 20);
    wal.hold_tag(1, lsns[15]).unwrap();
    wal.truncate_from(lsns[10]).unwrap();
    assert_eq!(floors(&wal), [(1, lsns[15])]);
    let after = fill(&wal, 1, 100);
    assert!(after[0] > lsns[15]);
    assert_eq!(wal.reader(Lsn::ZERO).only_tag(1).count(), 100);
    wal.close().unwrap();
    let wal = small(&temp.log()).max_segments(2).open().unwrap();
    assert_eq!(floors(&wal), [(1, lsns[15])]);
}

#[test]
fn damaged_file_of_floors_is_refused_by_name_and_found_by_a_survey_and_repaired() {
    let temp = Temp::new();
    let wal = small(&temp.log()).open().unwrap();
    fill(&wal, 0, 10);
    wal.hold_tag(1, Lsn::ZERO).unwrap();
    wal.close().unwrap();
    let sound = std::fs::read(file(&temp.log())).unwrap();
    let foreign = {
        let other = Temp::new();
        let wal = small(&other.log()).open().unwrap();
        wal.hold_tag(1, Lsn::ZERO).unwrap();
        wal.close().unwrap();
        std::fs::read(file(&other.log())).unwrap()
    };
    for bytes in [Vec::new(), b"text".to_vec(), vec![0; 8192], foreign] {
        std::fs::write(file(&temp.log()), &bytes).unwrap();
        let refused = small(&temp.log()).open().unwrap_err();
        assert!(matches!(refused, Error::TagFloorsDamaged { .. }), "{refused}");
        assert!(refused.to_string().contains("wal.streams"), "{refused}");
        assert_eq!(std::fs::read(file(&temp.log())).unwrap(), bytes, "left as it is");
        // Readers need no floors.
        let log = ReadOnlyWal::open(temp.log()).unwrap();
        assert_eq!(log.reader(Lsn::ZERO).unwrap().count(), 10);
        let directory = Directory::open(temp.log(), "wal").unwrap();
        assert_eq!(directory.stored_tag_floors().unwrap(), None);
    }
    let directory = Directory::open(temp.log(), "wal").unwrap();
    let survey = directory.survey(&mut |_| {}).unwrap();
    assert_eq!(survey.damaged_places, 1);
    assert_eq!(survey.damage[0].segment, "wal.streams");
    let repair = directory.plan_repair(&survey, Default::default()).unwrap().unwrap();
    assert_eq!(repair.consumers, ["wal.streams"]);
    repair.apply().unwrap();
    let wal = small(&temp.log()).open().unwrap();
    assert_eq!((wal.reader(Lsn::ZERO).count(), wal.tag_floors().len()), (10, 0));
    wal.close().unwrap();
    std::fs::write(file(&temp.log()), &sound).unwrap();
    let stored = directory.stored_tag_floors().unwrap().unwrap();
    assert_eq!(stored.len(), 1);
    assert_eq!(small(&temp.log()).open().unwrap().tag_floors(), stored);
}

#[test]
fn log_that_ends_below_a_floor_has_lost_records_and_is_refused() {
    let temp = Temp::new();
    let wal = small(&temp.log()).open().unwrap();
    fill(&wal, 0, 5);
    // A snapshot of the segments, and of the floors after more was appended.
    let copy = temp.path().join("copy");
    copy_dir(&temp.log(), &copy);
    std::fs::remove_file(copy.join("wal.end")).unwrap();
    fill(&wal, 0, 5);
    wal.hold_tag(1, wal.durable_end()).unwrap();
    std::fs::copy(file(&temp.log()), file(&copy)).unwrap();
    let refused = small(&copy).open().unwrap_err();
    assert!(matches!(&refused, Error::Corruption { segment, .. } if segment == "wal.streams"));
    std::fs::remove_file(file(&copy)).unwrap();
    assert_eq!(small(&copy).open().unwrap().reader(Lsn::ZERO).count(), 5);
}

#[test]
fn removal_of_a_log_deletes_its_floors() {
    let temp = Temp::new();
    let wal = small(&temp.log()).open().unwrap();
    wal.hold_tag(1, Lsn::ZERO).unwrap();
    wal.close().unwrap();
    // On Windows the directory is empty once no handle has the file open.
    drop(wal);
    std::fs::write(temp.log().join("wal.streams.new"), b"left by a kill").unwrap();
    Wal::remove(temp.log(), "wal").unwrap();
    assert!(std::fs::read_dir(temp.log()).unwrap().next().is_none());
}
