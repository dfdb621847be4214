//! Records that outlive the reader's next call: they share the reader's memory, and keep it.

use ringwal::{Lsn, ReadOnlyWal, Record, SharedRecord, SharedRecords, Wal};

use crate::support::{Temp, backends, small};

fn payload(n: u32) -> Vec<u8> {
    let mut bytes = n.to_le_bytes().to_vec();
    bytes.extend((0..n * 37 % 3000).map(|i| (i ^ n) as u8));
    bytes
}

/// Writes records of many sizes, single and in batches, over several segments.
fn write(wal: &Wal, records: u32) {
    let mut n = 0;
    while n < records {
        if n % 50 == 7 {
            wal.append_batch(&[payload(n), payload(n + 1), payload(n + 2)]).unwrap();
            n += 3;
        } else {
            wal.append(&payload(n)).unwrap();
            n += 1;
        }
    }
    wal.sync().unwrap();
}

fn take_all(mut next: impl FnMut() -> ringwal::Result<Option<SharedRecords>>) -> Vec<SharedRecord> {
    let mut all = Vec::new();
    while let Some(run) = next().unwrap() {
        let before = all.len();
        all.extend(run);
        assert!(all.len() > before, "a run has at least one record");
    }
    all
}

fn check(shared: &[SharedRecord], copied: &[Record]) {
    assert_eq!(shared.len(), copied.len());
    for (shared, copied) in shared.iter().zip(copied) {
        assert_eq!(shared.payload(), copied.payload());
        assert_eq!(shared.as_ref(), copied.payload());
        assert_eq!(shared.lsn(), copied.lsn);
        assert_eq!(Some(shared.ordinal()), copied.ordinal());
        assert_eq!(Some(shared.written_at()), copied.written_at());
        assert_eq!(shared.to_record(), *copied);
    }
}

#[test]
fn shared_records_keep_their_bytes_while_the_reader_goes_on() {
    for backend in backends() {
        let temp = Temp::new();
        let wal = small(&temp.log()).backend(backend).open().unwrap();
        write(&wal, 3000);
        let copied: Vec<_> = wal.reader(Lsn::ZERO).map(Result::unwrap).collect();
        assert!(copied.len() >= 3000 && wal.stats().rotations > 5);
        // All are held at once, so the reader has to leave every buffer as it is.
        let mut reader = wal.reader(Lsn::ZERO);
        let shared = take_all(|| reader.next_shared());
        check(&shared, &copied);
        // From inside a batch, and with runs that are taken only in part.
        let middle = copied[8].lsn;
        let mut reader = wal.reader(middle);
        let first = reader.next_shared().unwrap().unwrap().next().unwrap();
        assert_eq!(first, shared[8]);
        drop(reader);
        drop(wal);
        check(&shared, &copied);
    }
}

#[test]
fn shared_records_of_one_run_copy_no_payload_and_free_the_readers_memory_for_the_next() {
    let temp = Temp::new();
    let wal = small(&temp.log()).segment_size(4 << 20).open().unwrap();
    wal.append_batch(&[payload(9), payload(1), payload(2)]).unwrap();
    write(&wal, 3000);
    let mut reader = wal.reader(Lsn::ZERO);
    let run: Vec<_> = reader.next_shared().unwrap().unwrap().collect();
    assert!(run.len() > 1);
    for pair in run.windows(2) {
        let gap = pair[1].payload().as_ptr().addr().wrapping_sub(pair[0].payload().as_ptr().addr());
        assert!(gap < pair[0].payload().len() + 64, "they do not lie in one piece of memory");
    }
    drop(run);
    // Without a holder of its records, a reader goes on with the memory that it has.
    let mut places = Vec::new();
    while let Some(mut run) = reader.next_shared().unwrap() {
        places.push(run.next_ref().unwrap().payload.as_ptr().addr() >> 20);
    }
    places.sort_unstable();
    places.dedup();
    assert!(places.len() <= 8, "{} pieces of a MiB", places.len());
}

#[test]
fn shared_records_go_to_another_thread() {
    fn is_owned<T: Send + Sync + 'static>() {}
    is_owned::<SharedRecord>();
    is_owned::<SharedRecords>();
    let temp = Temp::new();
    let wal = small(&temp.log()).open().unwrap();
    write(&wal, 500);
    let (send, runs) = std::sync::mpsc::sync_channel(4);
    let check = std::thread::spawn(move || {
        let mut n = 0;
        for record in runs.iter().flat_map(|run: SharedRecords| run) {
            assert_eq!(record.payload(), payload(n));
            n += 1;
        }
        n
    });
    let mut reader = wal.reader(Lsn::ZERO);
    while let Some(run) = reader.next_shared().unwrap() {
        send.send(run).unwrap();
    }
    drop(send);
    assert!(check.join().unwrap() >= 500);
}

#[test]
fn followers_and_readers_of_other_processes_share_records_too() {
    for backend in backends() {
        let temp = Temp::new();
        let wal = small(&temp.log()).backend(backend).open().unwrap();
        let mut follower = wal.follow(Lsn::ZERO).unwrap();
        let mut worker = wal.consumer("worker").unwrap();
        let mut shared: Vec<SharedRecord> = Vec::new();
        // The first runs come from the file, the later ones from memory, as the follower keeps up.
        for round in 0..40 {
            write(&wal, 20 + round);
            let end = wal.durable_end();
            while shared.last().is_none_or(|last| follower.lag() > 0 || last.lsn() >= end) {
                shared.extend(follower.next_shared().unwrap().unwrap());
            }
        }
        let copied: Vec<_> = wal.reader(Lsn::ZERO).map(Result::unwrap).collect();
        check(&shared, &copied);
        assert!(follower.next_shared_timeout(std::time::Duration::ZERO).unwrap().is_none());
        let run = worker.records().unwrap().next_shared().unwrap().unwrap();
        assert_eq!(run.clone().next().unwrap(), shared[0]);
        let last = run.last().unwrap();
        worker.commit(last.lsn()).unwrap();
        let mut following = ReadOnlyWal::open(temp.log()).unwrap().follow(Lsn::ZERO).unwrap();
        let mut seen: Vec<SharedRecord> = Vec::new();
        while seen.len() < copied.len() {
            seen.extend(following.next_shared().unwrap().unwrap());
        }
        check(&seen, &copied);
        wal.close().unwrap();
        assert!(follower.next_shared().unwrap().is_none());
        let outside = ReadOnlyWal::open(temp.log()).unwrap();
        let mut reader = outside.reader(Lsn::ZERO).unwrap();
        check(&take_all(|| reader.next_shared()), &copied);
    }
}
