//! Competing workers: each job is with one of them, comes again if it is not done, and is never
//! lost.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ringwal::testing::SimulatedDisk;
use ringwal::{Error, Job, Lsn, Wal, WalBuilder, WorkQueue, WorkQueueOptions};

use crate::support::{Temp, backends, small};

const NOW: Duration = Duration::ZERO;
const SECOND: Duration = Duration::from_secs(1);

fn settings() -> WalBuilder {
    Wal::builder("queue").segment_size(64 << 10)
}

/// A log on a simulated disk with jobs 0, 1, 2 and so on. Time passes when the test says so.
fn simulated(jobs: u32, options: WorkQueueOptions) -> (SimulatedDisk, Wal, WorkQueue) {
    let disk = SimulatedDisk::new(5);
    let wal = disk.open(&settings()).unwrap();
    push(&wal, 0, jobs);
    let queue = wal.work_queue("mail", options).unwrap();
    (disk, wal, queue)
}

fn push(wal: &Wal, from: u32, to: u32) -> Vec<Lsn> {
    let lsns = (from..to).map(|n| wal.append(&n.to_le_bytes()).unwrap()).collect();
    wal.sync().unwrap();
    lsns
}

fn number(job: &Job) -> u32 {
    u32::from_le_bytes(job.payload().try_into().unwrap())
}

fn take(queue: &WorkQueue) -> Option<Job> {
    queue.take(NOW).unwrap()
}

fn expect(queue: &WorkQueue, n: u32, attempt: u32) -> Job {
    let job = take(queue).unwrap_or_else(|| panic!("job {n} is missing"));
    assert_eq!((number(&job), job.attempt()), (n, attempt));
    job
}

fn options() -> WorkQueueOptions {
    WorkQueueOptions::default().lease(10 * SECOND)
}

#[test]
fn competing_workers_drain_the_queue_to_lag_zero() {
    for backend in backends() {
        let temp = Temp::new();
        let wal = small(&temp.log()).backend(backend).open().unwrap();
        push(&wal, 0, 100);
        let queue = wal.work_queue("mail", options().max_out(20)).unwrap();
        let done = Mutex::new(BTreeMap::new());
        std::thread::scope(|scope| {
            for worker in 0..6 {
                let (queue, done) = (queue.clone(), &done);
                scope.spawn(move || {
                    while let Some(job) = queue.take(Duration::MAX).unwrap() {
                        let n = number(&job);
                        // Every seventh delivery fails once.
                        if n % 7 == worker && job.attempt() == 1 {
                            job.retry();
                            continue;
                        }
                        *done.lock().unwrap().entry(n).or_insert(0) += 1;
                        job.done().unwrap();
                    }
                });
            }
            // Workers that wait are woken by later jobs.
            push(&wal, 100, 300);
            while !queue.is_drained() {
                std::thread::yield_now();
            }
            queue.close().unwrap();
        });
        let done = done.into_inner().unwrap();
        assert_eq!(done.len(), 300);
        assert!(done.values().all(|times| *times == 1), "{done:?}");
        assert_eq!((queue.lag(), queue.counts().waiting), (0, 0));
        assert_eq!(wal.consumers()[0].lag_bytes, 0);
        drop(queue);
        wal.close().unwrap();
    }
}

#[test]
fn lease_that_ends_gives_the_job_to_another_worker() {
    let (disk, _wal, queue) = simulated(2, options());
    let slow = expect(&queue, 0, 1);
    let mut patient = expect(&queue, 1, 1);
    assert!(take(&queue).is_none());
    disk.advance(9 * SECOND);
    patient.extend(10 * SECOND).unwrap();
    disk.advance(SECOND);
    let again = expect(&queue, 0, 2);
    let lsn = slow.lsn();
    assert!(matches!(slow.done(), Err(Error::LeaseExpired { lsn: at }) if at == lsn));
    again.done().unwrap();
    patient.done().unwrap();
    assert!(queue.is_drained() && queue.lag() == 0);
    assert!(take(&queue).is_none());
}

#[test]
fn work_that_ends_late_counts_if_no_other_worker_has_the_job() {
    let (disk, _wal, queue) = simulated(1, options());
    let mut job = expect(&queue, 0, 1);
    disk.advance(11 * SECOND);
    assert_eq!(queue.wake_due(), None);
    assert_eq!((queue.counts().waiting, queue.counts().leased), (1, 0));
    job.extend(SECOND).unwrap();
    assert!(take(&queue).is_none());
    assert!(queue.wake_due().is_some_and(|pause| pause > NOW && pause <= SECOND));
    disk.advance(2 * SECOND);
    job.done().unwrap();
    assert!(queue.is_drained());
}

#[test]
fn dropped_retried_and_delayed_jobs_come_again() {
    let (disk, _wal, queue) = simulated(3, options().retry_delay(SECOND));
    drop(expect(&queue, 0, 1));
    expect(&queue, 1, 1).retry_after(5 * SECOND);
    expect(&queue, 2, 1).retry_after(NOW);
    expect(&queue, 2, 2).done().unwrap();
    assert!(take(&queue).is_none());
    assert!(queue.wake_due().is_some_and(|pause| pause > NOW && pause <= SECOND));
    disk.advance(SECOND);
    expect(&queue, 0, 2).done().unwrap();
    assert_eq!(queue.counts().done, 1, "job 2 waits for job 1");
    assert!(take(&queue).is_none() && queue.lag() > 0);
    disk.advance(4 * SECOND);
    expect(&queue, 1, 2).done().unwrap();
    assert!(queue.is_drained() && queue.lag() == 0);
}

#[test]
fn jobs_above_one_that_is_not_done_come_again_after_a_crash() {
    for commit_every in [1, 3] {
        let (disk, _wal, queue) = simulated(6, options().commit_every(commit_every));
        let mut jobs: Vec<Job> = (0..6).map(|n| expect(&queue, n, 1)).collect();
        for at in [4, 3, 1, 0] {
            jobs.remove(at).done().unwrap();
        }
        // 0 and 1 are done, 3 and 4 too, 2 and 5 are not.
        disk.crash();
        drop((jobs, queue));
        let wal = disk.open(&settings()).unwrap();
        let queue = wal.work_queue("mail", options()).unwrap();
        let first = if commit_every == 1 { 2 } else { 0 };
        for n in first..6 {
            expect(&queue, n, 1).done().unwrap();
        }
        assert!(take(&queue).is_none() && queue.is_drained());
    }
}

#[test]
fn commit_every_bounds_the_syncs_and_a_drained_queue_is_committed() {
    let (disk, _wal, queue) = simulated(25, options().commit_every(10));
    let before = disk.operations();
    for n in 0..25 {
        expect(&queue, n, 1).done().unwrap();
    }
    assert!(queue.is_drained());
    // A commit is a write and a sync: after 10, after 20, and at the end.
    let operations = disk.operations() - before;
    assert!(operations < 20, "{operations} operations");
}

#[test]
fn jobs_that_fail_too_often_go_to_the_dead_letters_and_count_as_done() {
    let dead = Arc::new(Mutex::new(Vec::new()));
    let sink = Arc::clone(&dead);
    let options = options().dead_letters(2, move |letter| {
        let n = u32::from_le_bytes(letter.payload.try_into().unwrap());
        match (n, letter.attempts) {
            (0, 2) => return Err("the sink is not ready"),
            (1, 2) => panic!("a panic in the sink"),
            _ => sink.lock().unwrap().push((n, letter.attempts)),
        }
        Ok(())
    });
    let (disk, _wal, queue) = simulated(2, options);
    for attempt in 1..=2 {
        let jobs = [expect(&queue, 0, attempt), expect(&queue, 1, attempt)];
        jobs.into_iter().for_each(Job::retry);
    }
    assert!(dead.lock().unwrap().is_empty(), "the sink took none");
    expect(&queue, 0, 3).retry();
    assert_eq!(*dead.lock().unwrap(), [(0, 3)]);
    let late = expect(&queue, 1, 3);
    disk.advance(10 * SECOND);
    queue.wake_due();
    assert_eq!(*dead.lock().unwrap(), [(0, 3), (1, 3)]);
    assert!(matches!(late.done(), Err(Error::LeaseExpired { .. })));
    assert!(take(&queue).is_none() && queue.is_drained() && queue.lag() == 0);
}

#[test]
fn job_that_its_worker_gives_up_is_dead_at_once() {
    let dead = Arc::new(AtomicU32::new(0));
    let count = Arc::clone(&dead);
    let options = options().dead_letters(100, move |_| {
        count.fetch_add(1, Ordering::SeqCst);
        Ok::<(), Error>(())
    });
    let (_disk, _wal, queue) = simulated(1, options);
    expect(&queue, 0, 1).fail().unwrap();
    assert_eq!(dead.load(Ordering::SeqCst), 1);
    assert!(queue.is_drained());
}

#[test]
fn full_queue_reads_no_more_jobs_until_the_oldest_is_done() {
    let (_disk, _wal, queue) = simulated(10, options().max_out(3));
    let first = expect(&queue, 0, 1);
    for n in 1..3 {
        expect(&queue, n, 1).done().unwrap();
    }
    assert!(take(&queue).is_none());
    assert_eq!((queue.counts().leased, queue.counts().done), (1, 2));
    first.done().unwrap();
    expect(&queue, 3, 1).done().unwrap();
}

#[test]
fn worker_that_waits_is_woken_by_a_job_by_a_retry_and_by_a_close() {
    let temp = Temp::new();
    let wal = small(&temp.log()).open().unwrap();
    let queue = wal.work_queue("mail", options()).unwrap();
    let (sender, taken) = std::sync::mpsc::channel();
    let worker = queue.clone();
    let waiting = std::thread::spawn(move || {
        while let Some(job) = worker.take(Duration::MAX).unwrap() {
            sender.send(job).unwrap();
        }
    });
    push(&wal, 0, 1);
    taken.recv().unwrap().retry();
    taken.recv().unwrap().done().unwrap();
    assert!(queue.is_drained());
    queue.close().unwrap();
    waiting.join().unwrap();
    assert!(queue.is_closed() && take(&queue).is_none());

    // The log's own end is an error, as its jobs cannot be finished any more.
    drop((queue, taken));
    let queue = wal.work_queue("mail", options()).unwrap();
    let worker = queue.clone();
    let waiting = std::thread::spawn(move || worker.take(Duration::MAX).map(|_| ()));
    wal.close().unwrap();
    assert!(matches!(waiting.join().unwrap(), Err(Error::Closed)));
    assert!(matches!(queue.close(), Err(Error::Closed)));
}

#[test]
fn tasks_take_jobs_and_are_woken() {
    let temp = Temp::new();
    let wal = small(&temp.log()).open().unwrap();
    let queue = wal.work_queue("mail", options()).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let worker = queue.clone();
        let mut tasks = Vec::new();
        for _ in 0..4 {
            let worker = worker.clone();
            tasks.push(tokio::spawn(async move {
                let mut count = 0;
                while let Some(job) = worker.take_async().await.unwrap() {
                    job.done().unwrap();
                    count += 1;
                }
                count
            }));
        }
        tokio::task::yield_now().await;
        push(&wal, 0, 50);
        while !queue.is_drained() {
            tokio::task::yield_now().await;
        }
        queue.close().unwrap();
        let mut all = 0;
        for task in tasks {
            all += task.await.unwrap();
        }
        assert_eq!(all, 50);
    });
}

#[test]
fn jobs_that_a_cut_removes_are_not_delivered_and_later_ones_are() {
    let (_disk, wal, queue) = simulated(0, options());
    let lsns = push(&wal, 0, 6);
    expect(&queue, 0, 1).done().unwrap();
    let out = expect(&queue, 1, 1);
    let void = expect(&queue, 2, 1);
    wal.truncate_from(lsns[2]).unwrap();
    push(&wal, 10, 12);
    // Jobs that were read before the cut may still be delivered.
    while let Some(job) = take(&queue) {
        assert!((3..6).contains(&number(&job)) || number(&job) >= 10);
        match job.done() {
            Ok(()) | Err(Error::LeaseExpired { .. }) => {}
            Err(e) => panic!("{e}"),
        }
    }
    let _ = void.done();
    out.done().unwrap();
    while let Some(job) = take(&queue) {
        assert!(number(&job) >= 10);
        job.done().unwrap();
    }
    assert!(queue.is_drained(), "{:?}, lag {}", queue.counts(), queue.lag());
}

#[test]
fn bad_options_and_a_name_in_use_are_refused() {
    let (_disk, wal, queue) = simulated(0, options());
    let refused = [
        options().lease(NOW),
        options().max_out(0),
        options().commit_every(0),
        options().dead_letters(0, |_| Ok::<(), Error>(())),
    ];
    for options in refused {
        let consumer = wal.consumer("other").unwrap();
        let refused = WorkQueue::over(consumer, options).map(drop);
        assert!(matches!(refused, Err(Error::Options(_))), "{refused:?}");
    }
    let twice = wal.work_queue("mail", options()).map(drop);
    assert!(matches!(twice, Err(Error::ConsumerInUse { .. })), "{twice:?}");
    drop(queue);
    wal.work_queue("mail", options()).unwrap();
}

/// After any crash every job that was not done comes again, and none that was committed does.
#[test]
fn no_job_is_lost_whenever_the_power_fails() {
    for seed in 0..150 {
        let disk = SimulatedDisk::new(seed);
        let mut rng = fastrand::Rng::with_seed(seed);
        let (mut appended, mut done) = (0_u32, Vec::new());
        for _ in 0..4 {
            disk.power_off_after(rng.u64(1..150));
            let lived = (|| -> ringwal::Result<()> {
                let wal = disk.open(&settings())?;
                let queue = wal.work_queue("mail", options().max_out(5))?;
                let mut out = Vec::new();
                for _ in 0..60 {
                    match rng.u8(0..4) {
                        0 => {
                            wal.append_durable(&appended.to_le_bytes())?;
                            appended += 1;
                        }
                        1 => out.extend(queue.take(NOW)?),
                        2 if !out.is_empty() => {
                            let job = out.swap_remove(rng.usize(..out.len()));
                            let n = number(&job);
                            // Before the call: a failed commit may have been stored.
                            done.push(n);
                            job.done()?;
                        }
                        _ => drop(out.pop()),
                    }
                }
                Ok(())
            })();
            if lived.is_ok() && rng.bool() {
                disk.kill()
            } else {
                disk.crash()
            }
            // An append that was not acknowledged may be there.
            appended += 1;
        }
        disk.heal();
        let wal = disk.open(&settings()).unwrap();
        let queue = wal.work_queue("mail", options()).unwrap();
        while let Some(job) = take(&queue) {
            done.push(number(&job));
            job.done().unwrap();
        }
        assert!(queue.is_drained());
        let there = wal.reader(Lsn::ZERO).map(|r| r.unwrap().payload);
        for payload in there {
            let n = u32::from_le_bytes(payload.try_into().unwrap());
            assert!(done.contains(&n), "seed {seed}: job {n} was lost");
        }
    }
}

#[test]
fn queue_over_a_filter_gets_its_tags_and_holds_nothing_of_others() {
    let temp = Temp::new();
    let wal = small(&temp.log()).open().unwrap();
    let (mail, other) = (wal.tagged(7), wal.tagged(8));
    let first = mail.append_durable(&0_u32.to_le_bytes()).unwrap();
    other.append(b"of another stream").unwrap();
    mail.append_durable(&1_u32.to_le_bytes()).unwrap();
    let consumer = wal.consumer("mail").unwrap().only_tag(7);
    let queue = WorkQueue::over(consumer, options()).unwrap();
    let (early, late) = (expect(&queue, 0, 1), expect(&queue, 1, 1));
    late.done().unwrap();
    early.done().unwrap();
    assert!(take(&queue).is_none() && queue.is_drained() && queue.lag() == 0);
    let mut last = first;
    while last.as_u64() < first.as_u64() + (3 << 20) {
        last = other.append_durable(&[0; 4000]).unwrap();
    }
    assert!(take(&queue).is_none(), "only other tags were appended");
    let oldest = wal.truncate_before(last).unwrap();
    assert!(
        oldest.as_u64() > first.as_u64() + (1 << 20),
        "the idle queue holds the log at {oldest}"
    );
    mail.append_durable(&2_u32.to_le_bytes()).unwrap();
    expect(&queue, 2, 1).done().unwrap();
}
