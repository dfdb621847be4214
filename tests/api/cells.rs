//! Named cells: stored durably, replaced as a whole, untouched by what happens to the records.

use ringwal::inspect::Directory;
use ringwal::testing::SimulatedDisk;
use ringwal::{Error, Lsn, ReadOnlyWal, Wal};

use crate::support::{Temp, backends, copy_dir, small};

#[test]
fn cells_survive_kills_cuts_and_retention() {
    for backend in backends() {
        let temp = Temp::new();
        let open = |dir: &std::path::Path| small(dir).max_segments(3).backend(backend).open();
        let wal = open(&temp.log()).unwrap();
        let first = wal.append_durable(b"first").unwrap();
        let vote = wal.cell("vote");
        assert_eq!((vote.name(), vote.load().unwrap()), ("vote", None));
        vote.store(b"term 1").unwrap();
        wal.cell("empty").store(b"").unwrap();
        wal.cell("gone").store(b"for a moment").unwrap();
        wal.cell("gone").remove().unwrap();
        wal.cell("never").remove().unwrap();
        wal.truncate_from(first).unwrap();
        for n in 0..200 {
            wal.append_durable(&[n; 3000]).unwrap();
        }
        wal.truncate_before(wal.durable_end()).unwrap();
        assert_eq!(vote.load().unwrap().unwrap(), b"term 1");
        vote.store(b"term 2").unwrap();
        // A copy of an open log is what a killed process leaves.
        let copy = temp.path().join("copy");
        copy_dir(&temp.log(), &copy);
        let again = open(&copy).unwrap();
        assert_eq!(again.cells().unwrap(), ["empty", "vote"]);
        assert_eq!(again.cell("vote").load().unwrap().unwrap(), b"term 2");
        assert_eq!(again.cell("empty").load().unwrap().unwrap(), b"");
        assert_eq!(again.cell("gone").load().unwrap(), None);
        wal.close().unwrap();
        let wal = open(&temp.log()).unwrap();
        assert_eq!(wal.cell("vote").load().unwrap().unwrap(), b"term 2");
    }
}

#[test]
fn log_without_cells_has_no_file_of_them() {
    let temp = Temp::new();
    let wal = small(&temp.log()).open().unwrap();
    wal.append_durable(b"a record").unwrap();
    assert_eq!(wal.cells().unwrap(), Vec::<String>::new());
    assert_eq!(wal.cell("vote").load().unwrap(), None);
    wal.cell("vote").remove().unwrap();
    assert!(!temp.log().join("wal.cells").exists());
    wal.cell("vote").store(b"1").unwrap();
    assert_eq!(std::fs::metadata(temp.log().join("wal.cells")).unwrap().len(), 128 << 10);
    assert!(!temp.log().join("wal.cells.new").exists());
}

#[test]
fn bad_names_and_large_values_are_typed_errors() {
    let temp = Temp::new();
    let wal = small(&temp.log()).open().unwrap();
    let long = "x".repeat(65);
    for name in ["", "a b", "a.b", "../vote", "\u{e9}", "a\0", &long] {
        let cell = wal.cell(name);
        for refused in [cell.load().map(drop), cell.store(b"1"), cell.remove()] {
            assert!(matches!(&refused, Err(Error::CellName { name: n }) if n == name), "{name:?}");
        }
    }
    wal.cell(&long[..64]).store(b"the longest name").unwrap();
    wal.cell("largest").store(&[1; 4096]).unwrap();
    let refused = wal.cell("largest").store(&[2; 4097]);
    assert!(matches!(refused, Err(Error::CellTooLarge { len: 4097, max: 4096, .. })));
    assert_eq!(wal.cell("largest").load().unwrap().unwrap(), [1; 4096]);
    for n in 0.. {
        match wal.cell(&format!("n{n}")).store(&[3; 4096]) {
            Ok(()) => {}
            Err(Error::CellsFull { len, max }) => {
                assert!(n == 14 && len > max, "{n}: {len} of {max}");
                break;
            }
            Err(e) => panic!("{e}"),
        }
    }
}

#[test]
fn many_threads_store_and_the_last_value_of_each_cell_stays() {
    let temp = Temp::new();
    let wal = small(&temp.log()).open().unwrap();
    std::thread::scope(|scope| {
        for thread in 0..8_u8 {
            let cell = wal.cell(&format!("cell-{thread}"));
            scope.spawn(move || {
                for n in 0..30_u8 {
                    cell.store(&[thread, n]).unwrap();
                    assert_eq!(cell.load().unwrap().unwrap(), [thread, n]);
                }
            });
        }
    });
    wal.close().unwrap();
    let wal = small(&temp.log()).open().unwrap();
    for thread in 0..8_u8 {
        assert_eq!(wal.cell(&format!("cell-{thread}")).load().unwrap().unwrap(), [thread, 29]);
    }
}

#[test]
fn readers_of_other_processes_and_surveys_see_the_cells() {
    let temp = Temp::new();
    let wal = small(&temp.log()).open().unwrap();
    wal.append_durable(b"a record").unwrap();
    let log = ReadOnlyWal::open(temp.log()).unwrap();
    assert_eq!((log.cells().unwrap(), log.load_cell("vote").unwrap()), (vec![], None));
    assert_eq!(Directory::open(temp.log(), "wal").unwrap().stored_cells().unwrap(), None);
    wal.cell("vote").store(b"term 1").unwrap();
    assert_eq!(log.load_cell("vote").unwrap().unwrap(), b"term 1");
    wal.cell("vote").store(b"term 2").unwrap();
    assert_eq!(log.load_cell("vote").unwrap().unwrap(), b"term 2");
    assert_eq!(log.cells().unwrap(), ["vote"]);
    assert!(matches!(log.load_cell("a b"), Err(Error::CellName { .. })));
    wal.close().unwrap();
    let stored = Directory::open(temp.log(), "wal").unwrap().stored_cells().unwrap().unwrap();
    assert_eq!(stored.cells.unwrap(), [("vote".to_owned(), b"term 2".to_vec())]);
    assert_eq!(stored.bytes, std::fs::read(temp.log().join(stored.file)).unwrap());
}

#[test]
fn damaged_cells_are_refused_named_and_repaired_only_on_demand() {
    let temp = Temp::new();
    let wal = small(&temp.log()).open().unwrap();
    wal.append_durable(b"a record").unwrap();
    wal.cell("vote").store(b"1").unwrap();
    wal.close().unwrap();
    let file = temp.log().join("wal.cells");
    let sound = std::fs::read(&file).unwrap();
    let other = Temp::new();
    let foreign = small(&other.log()).open().unwrap();
    foreign.cell("vote").store(b"of another log").unwrap();
    let foreign = std::fs::read(other.log().join("wal.cells")).unwrap();
    for bytes in [vec![], vec![0; 128 << 10], sound[..70_000].to_vec(), vec![0xff; 9000], foreign] {
        std::fs::write(&file, &bytes).unwrap();
        let refused = small(&temp.log()).open();
        assert!(matches!(&refused, Err(Error::CellsDamaged { file: named }) if *named == file));
        let log = ReadOnlyWal::open(temp.log()).unwrap();
        assert!(matches!(log.load_cell("vote"), Err(Error::CellsDamaged { .. })));
        assert_eq!(log.reader(Lsn::ZERO).unwrap().count(), 1, "the records are readable");
        assert_eq!(std::fs::read(&file).unwrap(), bytes, "nothing was changed");
        let log = Directory::open(temp.log(), "wal").unwrap();
        assert_eq!(log.stored_cells().unwrap().unwrap().cells, None);
        let survey = log.survey(&mut |_| {}).unwrap();
        assert_eq!((survey.damaged_places, survey.damage[0].segment.as_str()), (1, "wal.cells"));
        let plan = log.plan_repair(&survey, Default::default()).unwrap().unwrap();
        assert_eq!(plan.consumers, ["wal.cells"]);
        let repaired = plan.apply().unwrap();
        assert!(repaired.quarantined.iter().any(|path| path.ends_with("wal.cells")));
        let wal = small(&temp.log()).open().unwrap();
        assert_eq!((wal.cells().unwrap(), wal.reader(Lsn::ZERO).count()), (vec![], 1));
    }
    std::fs::write(&file, &sound).unwrap();
    assert_eq!(small(&temp.log()).open().unwrap().cell("vote").load().unwrap().unwrap(), b"1");
}

#[test]
fn cells_of_a_closed_log_are_closed_and_removal_of_the_log_deletes_them() {
    let temp = Temp::new();
    let wal = small(&temp.log()).open().unwrap();
    let vote = wal.cell("vote");
    vote.store(b"1").unwrap();
    wal.close().unwrap();
    let calls = [vote.load().map(drop), vote.store(b"2"), vote.remove(), wal.cells().map(drop)];
    assert!(calls.iter().all(|call| matches!(call, Err(Error::Closed))), "{calls:?}");
    // On Windows the directory is empty once no handle has the file open.
    drop((wal, vote));
    std::fs::write(temp.log().join("wal.cells.new"), b"left by a crash").unwrap();
    Wal::remove(temp.log(), "wal").unwrap();
    assert_eq!(std::fs::read_dir(temp.log()).unwrap().count(), 0);
}

#[test]
fn cells_on_a_simulated_disk_survive_a_crash() {
    for seed in 0..20 {
        let disk = SimulatedDisk::new(seed);
        let settings = Wal::builder("sim").segment_size(64 << 10);
        let wal = disk.open(&settings).unwrap();
        wal.cell("vote").store(b"term 1").unwrap();
        smol::block_on(wal.cell("async").store_async(b"2")).unwrap();
        disk.crash();
        assert!(wal.cell("vote").store(b"of a dead log").is_err());
        let wal = disk.open(&settings).unwrap();
        assert_eq!(wal.cell("vote").load().unwrap().unwrap(), b"term 1");
        assert_eq!(wal.cell("async").load().unwrap().unwrap(), b"2");
        smol::block_on(wal.cell("async").remove_async()).unwrap();
        assert_eq!(wal.cells().unwrap(), ["vote"]);
    }
}

#[test]
fn tasks_of_one_executor_store_together() {
    let temp = Temp::new();
    let wal = small(&temp.log()).open().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let tasks: Vec<_> = (0..30_u8)
            .map(|n| {
                let cell = wal.cell(&format!("task-{n}"));
                async move { cell.store_async(&[n]).await }
            })
            .collect();
        for stored in futures_util::future::join_all(tasks).await {
            stored.unwrap();
        }
    });
    assert_eq!(wal.cells().unwrap().len(), 30);
}
