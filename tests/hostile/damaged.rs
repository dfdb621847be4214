//! Random damage to directories. Damage that an open and a full replay refuse is found by a survey,
//! with the right numbers. A log that a survey calls sound opens. A repair keeps the records that
//! its plan names.
//!
//! `RINGWAL_LONG=1` runs for longer; `RINGWAL_SEED=n` repeats one round.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::support::{Temp, copy_dir, segments};
use fastrand::Rng;
use ringwal::inspect::{Directory, Keep, Survey};
use ringwal::{Lsn, Wal};

type Records = BTreeMap<u64, Vec<u8>>;

/// A log before it was damaged.
struct Original {
    dir: PathBuf,
    /// All records that were appended and are kept, void ones included.
    all: Records,
    /// Each cut: the position of its group, and the first void position.
    cuts: Vec<(u64, u64)>,
    segments: Vec<String>,
    end: u64,
}

impl Original {
    /// The records that a reader returns if the log ends at `end`.
    fn below(&self, end: u64) -> Records {
        let kept = |lsn: u64| {
            let cut = self.cuts.iter().find(|(from, to)| (*from..*to).contains(&lsn));
            lsn < end && cut.is_none_or(|(_, to)| *to >= end)
        };
        self.all.iter().filter(|(l, _)| kept(**l)).map(|(l, p)| (*l, p.clone())).collect()
    }

    fn count(&self, range: std::ops::Range<u64>) -> u64 {
        self.all.range(range).count() as u64
    }
}

/// The shape of a log.
#[derive(Clone, Copy, Debug)]
enum Shape {
    Closed,
    /// Several lives. The last one was not closed.
    Lives,
    /// Retention removed the first segments, and the log has consumers.
    Front,
    /// One segment, not full.
    Little,
    /// Hardly any group is larger than a block.
    Narrow,
}

const SHAPES: [Shape; 5] =
    [Shape::Closed, Shape::Lives, Shape::Front, Shape::Little, Shape::Narrow];

/// Writes a log and leaves a copy of it in `dir`.
fn make(dir: &Path, shape: Shape) -> Original {
    let mut rng = Rng::with_seed(shape as u64);
    let mut all = Records::new();
    let (lives, rounds) = match shape {
        Shape::Closed => (1, 60),
        Shape::Lives => (4, 20),
        Shape::Front => (2, 60),
        Shape::Little => (1, 6),
        Shape::Narrow => (1, 80),
    };
    let mut live = dir.with_extension("0");
    for life in 1..=lives {
        let builder = Wal::builder(&live).segment_size(64 << 10);
        let wal = builder.ring_capacity(128 << 10).open().unwrap();
        for round in 0..rounds {
            let most = if matches!(shape, Shape::Narrow) { 3 } else { 12 };
            let mut some = |most: usize, bytes: usize| -> Vec<Vec<u8>> {
                let payload = |rng: &mut Rng| (0..rng.usize(..bytes)).map(|_| rng.u8(..)).collect();
                (0..=rng.usize(..most)).map(|_| payload(&mut rng)).collect()
            };
            for payload in some(most, 900) {
                all.insert(wal.append(&payload).unwrap().as_u64(), payload);
            }
            if round % 4 == 0 {
                wal.append_batch(&some(4, 300)).unwrap();
            }
            wal.sync().unwrap();
            if round % 25 == 20 {
                let from = wal.append(b"void").unwrap();
                all.insert(from.as_u64(), b"void".to_vec());
                all.insert(wal.append(b"void too").unwrap().as_u64(), b"void too".to_vec());
                wal.truncate_from(from).unwrap();
            }
        }
        if matches!(shape, Shape::Front) {
            let middle = *all.keys().nth(all.len() / 3).unwrap();
            wal.truncate_before(Lsn::new(middle)).unwrap();
            drop(wal.consumer("slow").unwrap());
            let mut quick = wal.consumer("quick").unwrap();
            quick.commit(wal.reader_back(wal.durable_end()).next().unwrap().unwrap().lsn).unwrap();
        }
        // Items of batches are records too.
        wal.replay(|lsn, payload| {
            all.insert(lsn.as_u64(), payload.to_vec());
            Ok::<(), ()>(())
        })
        .unwrap();
        all.retain(|lsn, _| *lsn >= wal.oldest_lsn().as_u64());
        let next =
            if life == lives { dir.to_owned() } else { dir.with_extension(life.to_string()) };
        if matches!(shape, Shape::Lives) {
            // As a crash of the machine during an idle time leaves it.
            std::thread::sleep(std::time::Duration::from_millis(100));
            copy_dir(&live, &next);
            wal.close().unwrap();
        } else {
            wal.close().unwrap();
            copy_dir(&live, &next);
        }
        std::fs::remove_dir_all(&live).unwrap();
        live = next;
    }
    let survey = survey(dir).unwrap();
    assert!(survey.damage.is_empty(), "{shape:?}: {:#?}", survey.damage);
    assert_eq!(survey.records, all.len() as u64, "{shape:?}");
    let cuts = survey.cuts.iter().map(|(from, to)| (from.as_u64(), to.as_u64())).collect();
    let names = segments(dir).iter().map(|path| name_of(path)).collect();
    Original { dir: dir.to_owned(), all, end: survey.end.as_u64(), cuts, segments: names }
}

fn name_of(path: &Path) -> String {
    path.file_name().unwrap().to_str().unwrap().to_owned()
}

fn survey(dir: &Path) -> Result<Survey, ringwal::Error> {
    Directory::open(dir, "wal")?.survey(&mut |_| {})
}

/// Opens the log and reads every record.
fn opened(dir: &Path) -> Result<Records, String> {
    let wal = Wal::builder(dir).segment_size(64 << 10).open().map_err(|e| e.to_string())?;
    let mut found = Records::new();
    let replayed = wal.replay(|lsn, payload| {
        found.insert(lsn.as_u64(), payload.to_vec());
        Ok::<(), ()>(())
    });
    wal.close().unwrap();
    replayed.map(|_| found).map_err(|e| format!("{e:?}"))
}

fn contents(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    std::fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap())
        .filter(|entry| entry.file_type().unwrap().is_file())
        .map(|e| (e.file_name().into_string().unwrap(), std::fs::read(e.path()).unwrap()))
        .collect()
}

fn flip(bytes: &mut [u8], rng: &mut Rng, from: usize, len: usize) -> usize {
    let offset = from + rng.usize(..len);
    if let Some(byte) = bytes.get_mut(offset) {
        *byte ^= 1 << rng.u8(..8);
    }
    offset
}

/// Damages a file, and returns a description.
fn damage(dir: &Path, original: &Original, others: &[Original], rng: &mut Rng) -> String {
    let files = segments(dir);
    if files.is_empty() {
        return "nothing is left".into();
    }
    let path = &files[rng.usize(..files.len())];
    let name = name_of(path);
    let Ok(mut bytes) = std::fs::read(path) else { return "no file".into() };
    let groups: Vec<usize> =
        (0..bytes.len()).step_by(4096).filter(|o| bytes[*o..].starts_with(b"RWGp")).collect();
    let group = groups.get(rng.usize(..groups.len().max(1))).copied();
    let said = match rng.u8(..26) {
        19 | 20 => {
            let from = &files[rng.usize(..files.len())];
            let other = std::fs::read(from).unwrap_or_default();
            let len = [128, 4096][rng.usize(..2)];
            if let (Some(to), Some(header)) = (bytes.get_mut(..len), other.get(..len)) {
                to.copy_from_slice(header);
            }
            format!("{len} bytes at the start of {name} are those of {}", name_of(from))
        }
        21 => {
            // A directory without any segment is no log.
            let from = files.len() - rng.usize(1..=files.len().min(3)).min(files.len() - 1);
            let Some(_) = files.get(from) else { return "nothing is gone".into() };
            files[from..].iter().for_each(|file| std::fs::remove_file(file).unwrap());
            return format!("{} and what is behind it is gone", name_of(&files[from]));
        }
        22 => {
            let last = groups.len() - rng.usize(..groups.len().clamp(1, 7)).min(groups.len());
            for group in &groups[last.saturating_sub(1)..] {
                bytes[*group..][..128].fill(0xa5);
            }
            format!("the last groups of {name} are damaged")
        }
        23 => {
            let small = ["end", "consumer.slow", "consumer.quick", "sealed"][rng.usize(..4)];
            let other = &others[rng.usize(..others.len())];
            let (from, to) = (format!("wal.{small}"), dir.join(format!("wal.{small}")));
            return match std::fs::copy(other.dir.join(&from), &to) {
                Ok(_) => format!("{from} of {} is in its place", other.dir.display()),
                Err(_) => format!("no {from}"),
            };
        }
        24 | 25 => {
            // As in a copy of a live directory: the file is newer than the segments.
            let small = ["consumer.slow", "consumer.quick"][rng.usize(..2)];
            let path = dir.join(format!("wal.{small}"));
            let Ok(mut position) = std::fs::read(&path) else { return format!("no {small}") };
            let ahead = original.end + [1, 4096, 1 << 20][rng.usize(..3)];
            for slot in position.chunks_mut(4096).filter(|slot| slot.starts_with(b"RWCp")) {
                slot[32..40].copy_from_slice(&ahead.to_le_bytes());
                let crc = crc32fast::hash(&slot[8..40]);
                slot[4..8].copy_from_slice(&crc.to_le_bytes());
            }
            std::fs::write(&path, position).unwrap();
            return format!("wal.{small} is ahead, at {ahead}");
        }
        0 => format!("a bit of {name} at {}", flip(&mut bytes, rng, 0, 64 << 10)),
        1 => format!("a bit of the header of {name} at {}", flip(&mut bytes, rng, 0, 128)),
        2 | 3 if group.is_some() => {
            let offset = flip(&mut bytes, rng, group.unwrap_or(0), 128);
            format!("a bit of a group's header in {name} at {offset}")
        }
        4 | 5 if group.is_some() => {
            let offset = flip(&mut bytes, rng, group.unwrap_or(0) + 128, 4096 - 128);
            format!("a bit of a group in {name} at {offset}")
        }
        6 => {
            let from = rng.usize(..bytes.len().max(512) / 512) * 512;
            let to = (from + (1 + rng.usize(..24)) * 512).min(bytes.len());
            bytes.get_mut(from..to).unwrap_or_default().fill(0);
            format!("zeros in {name} from {from} to {to}")
        }
        7 => {
            std::fs::remove_file(path).unwrap();
            return format!("{name} is gone");
        }
        8 => {
            let len = if rng.bool() { rng.usize(..bytes.len().max(1)) } else { 0 };
            bytes.truncate(len);
            format!("{name} is cut to {len}")
        }
        9 => {
            let len = bytes.len() + 1 + rng.usize(..9000);
            bytes.resize(len, 0);
            format!("{name} grew to {len}")
        }
        10 => {
            let with = &files[rng.usize(..files.len())];
            let other = std::fs::read(with).unwrap_or_default();
            std::fs::write(with, &bytes).unwrap();
            bytes = other;
            format!("{name} is exchanged for {}", name_of(with))
        }
        11 => {
            let base = [4096, 1, u64::MAX, 1 << 62, 1 << 40, 17 << 16][rng.usize(..6)];
            let to = dir.join(format!("wal.{base:020}.wal"));
            if rng.bool() {
                std::fs::copy(path, &to).unwrap();
                return format!("a copy of {name} is {}", name_of(&to));
            }
            std::fs::rename(path, &to).unwrap();
            return format!("{name} is called {}", name_of(&to));
        }
        12 => {
            let other = &others[rng.usize(..others.len())];
            let from = &other.segments[rng.usize(..other.segments.len())];
            bytes = std::fs::read(other.dir.join(from)).unwrap();
            format!("{name} is {from} of another log")
        }
        13 | 14 => {
            let small = ["lock", "end", "commit", "consumer.slow", "consumer.quick", "sealed"];
            let small = dir.join(format!("wal.{}", small[rng.usize(..small.len())]));
            let mut bytes = std::fs::read(&small).unwrap_or_default();
            match rng.u8(..4) {
                0 => drop(std::fs::remove_file(&small)),
                1 => {
                    bytes.truncate(rng.usize(..bytes.len().max(1)));
                    std::fs::write(&small, bytes).unwrap();
                }
                2 => std::fs::write(&small, b"garbage").unwrap(),
                _ => {
                    let len = bytes.len().clamp(1, 64);
                    flip(&mut bytes, rng, 0, len);
                    std::fs::write(&small, bytes).unwrap();
                }
            }
            return format!("{} is damaged", name_of(&small));
        }
        15 => {
            std::fs::remove_file(path).unwrap();
            match rng.u8(..3) {
                0 => std::fs::create_dir(path).unwrap(),
                #[cfg(target_os = "linux")]
                1 => nix::unistd::mkfifo(path, nix::sys::stat::Mode::S_IRWXU).unwrap(),
                _ if crate::support::symlink(Path::new("elsewhere"), path) => {}
                _ => std::fs::create_dir(path).unwrap(),
            }
            return format!("{name} is no file");
        }
        16 => {
            let blocks = bytes.len().max(4096) / 4096;
            let (from, to) = (rng.usize(..blocks) * 4096, rng.usize(..blocks) * 4096);
            if bytes.len() >= 4096 {
                bytes.copy_within(from..from + 4096, to);
            }
            format!("the block of {name} at {from} is at {to} too")
        }
        _ => {
            std::fs::write(dir.join("wal.00000000000000000000.tmp"), b"left over").unwrap();
            std::fs::write(dir.join("notes.txt"), b"not of the log").unwrap();
            format!("files beside, of {} segments", original.segments.len())
        }
    };
    std::fs::write(path, bytes).unwrap();
    said
}

/// Compares the reported damage with the original.
fn check_report(survey: &Survey, original: &Original, what: &str) {
    for place in &survey.damage {
        let together = place.records_before + place.records_after;
        assert_eq!(together, survey.records, "{what}: {place:#?}");
        if let Some(base) = place.segment.strip_prefix("wal.").and_then(|s| s.strip_suffix(".wal"))
        {
            assert_eq!(base.parse::<u64>().unwrap() + place.offset, place.lsn.as_u64(), "{what}");
        }
    }
    // Everything before the first damage is intact. A foreign file has no place in the log.
    if let Some(first) = survey.damage.first().filter(|d| !d.expected.starts_with("no file")) {
        // If no record is intact, the survey does not know what should lie before.
        let before = if survey.records == 0 { 0 } else { original.count(0..first.lsn.as_u64()) };
        assert_eq!(first.records_before, before, "{what}: {first:#?}");
        // Bytes after a segment's stated length have no positions.
        let in_place = survey.damage.len() == 1 && first.offset < 64 << 10;
        if let Some(lost) = first.records_lost.filter(|_| in_place) {
            let lsn = first.lsn.as_u64();
            let gone = original.count(lsn..lsn.saturating_add(first.bytes));
            assert_eq!(lost, gone, "{what}: {first:#?}");
        }
    }
    let known = survey.damage.iter().all(|place| place.records_lost.is_some());
    let all = original.all.len() as u64;
    assert!(survey.records + survey.records_lost <= all, "{what}: {survey:#?}");
    if known && survey.end.as_u64() == original.end {
        assert_eq!(survey.records + survey.records_lost, all, "{what}: {:#?}", survey.damage);
    }
}

/// Whether every group of the segment `before` is in `after`. From the log's end on there is none:
/// the damage may have put a block there.
fn grew(name: &str, before: &[u8], after: Option<&Vec<u8>>, end: u64) -> bool {
    let base = name.split('.').nth(1).and_then(|base| base.parse::<u64>().ok());
    let end = base.map_or(u64::MAX, |base| end.saturating_sub(base)) as usize;
    let at = |n: usize| after.and_then(|after| after.chunks(4096).nth(n));
    let unwritten = |block: &[u8]| block.starts_with(b"RWSt") || block.iter().all(|b| *b == 0);
    let groups = before.chunks(4096).enumerate().skip(1);
    let mut groups = groups.filter(|(n, block)| n * 4096 < end && !unwritten(block));
    groups.all(|(n, block)| at(n) == Some(block))
}

/// Repairs the log and returns the range of kept positions. `None`: the repair can keep nothing.
fn repaired(dir: &Path, keep: Keep, what: &str) -> Option<(u64, u64)> {
    let log = Directory::open(dir, "wal").unwrap();
    let found = log.survey(&mut |_| {}).unwrap();
    let before = contents(dir);
    let plan = match log.plan_repair(&found, keep) {
        Ok(plan) => plan,
        Err(ringwal::Error::Corruption { .. }) => return None,
        Err(e) => panic!("{what}: {e}"),
    };
    assert!(contents(dir) == before, "{what}: a plan changes nothing");
    let Some(plan) = plan else { return Some((0, found.end.as_u64())) };
    assert_eq!(plan.records + plan.records_leaving, found.records, "{what}: {plan:#?}");
    assert!(plan.records > 0 || found.records == 0, "{what}: nothing is kept: {plan:#?}");
    plan.apply().unwrap_or_else(|e| panic!("{what}: {e}\n{plan:#?}"));
    let (here, there) = (contents(dir), contents(&plan.quarantine));
    for (name, bytes) in before.iter().filter(|(name, _)| *name != "wal.lock") {
        let same = here.get(name) == Some(bytes) || there.get(name) == Some(bytes);
        // If no kept group states the oldest segment, the repair opens the log once. That writes a
        // group after the last one and may remove empty spares.
        let remade = name == "wal.end" || name.ends_with(".tmp");
        let grew = || grew(name, bytes, here.get(name), plan.to.as_u64());
        assert!(same || remade || grew(), "{what}: {name} is gone: {plan:#?}");
    }
    let after = log.survey(&mut |_| {}).unwrap();
    assert_eq!(after.damaged_places, 0, "{what}: {:#?}\n{plan:#?}", after.damage);
    assert_eq!(after.records, plan.records, "{what}: {plan:#?}");
    Some((plan.from.as_u64(), plan.to.as_u64()))
}

fn round(seed: u64, temp: &Path, originals: &[Original]) {
    let mut rng = Rng::with_seed(seed);
    let at = rng.usize(..originals.len());
    let original = &originals[at];
    let (dir, copy) = (temp.join(format!("{seed}")), temp.join(format!("{seed}-copy")));
    copy_dir(&original.dir, &dir);
    let mut what = format!("RINGWAL_SEED={seed}, {:?}", SHAPES[at]);
    for _ in 0..[1, 1, 1, 2, 3][rng.usize(..5)] {
        what = format!("{what}; {}", damage(&dir, original, originals, &mut rng));
    }
    let copied = std::process::Command::new("cp").arg("-a").arg(&dir).arg(&copy).status().unwrap();
    assert!(copied.success());
    let opened_as_it_is = opened(&copy);
    match survey(&dir) {
        Err(e) => assert!(opened_as_it_is.is_err(), "{what}: {e}"),
        Ok(found) => {
            check_report(&found, original, &what);
            let mut intact = Records::new();
            let log = Directory::open(&dir, "wal").unwrap();
            let each = &mut |lsn: Lsn, payload: &[u8]| {
                intact.insert(lsn.as_u64(), payload.to_vec()).is_none()
            };
            log.intact_records(&found, each).unwrap();
            let true_ones = intact.iter().all(|(lsn, p)| original.all.get(lsn) == Some(p));
            assert!(true_ones, "{what}: records that were never there");
            match (found.damaged_places, opened_as_it_is) {
                (0, Ok(records)) => {
                    assert!(records == intact, "{what}");
                    assert!(records == original.below(found.end.as_u64()), "{what}");
                }
                (0, Err(e)) => panic!("{what}: it is called sound, and refused: {e}"),
                // Only an open with a hook on sealed segments is refused.
                (_, Ok(_)) if found.damage.iter().all(|place| place.segment == "wal.sealed") => {}
                // The end file of this boot states a higher durable end than the segments prove.
                (_, Ok(records)) => {
                    let all = original.below(original.end);
                    assert!(records.len() < all.len(), "{what}: {:#?}", found.damage);
                }
                (_, Err(_)) => {}
            }
            for keep in [Keep::Before, Keep::After] {
                let what = format!("{what}; {keep:?}");
                let mended = temp.join(format!("{seed}-{keep:?}"));
                let copied =
                    std::process::Command::new("cp").arg("-a").arg(&dir).arg(&mended).status();
                assert!(copied.unwrap().success());
                if let Some((from, to)) = repaired(&mended, keep, &what) {
                    let mut expected = original.below(to);
                    expected.retain(|lsn, _| *lsn >= from);
                    let found = opened(&mended).unwrap_or_else(|e| panic!("{what}: {e}"));
                    assert!(found == expected, "{what}: {} of {}", found.len(), expected.len());
                }
                std::fs::remove_dir_all(&mended).unwrap();
            }
        }
    }
    std::fs::remove_dir_all(&dir).unwrap();
    std::fs::remove_dir_all(&copy).unwrap();
}

#[test]
fn damage_that_an_open_refuses_is_found_by_a_survey_and_a_sound_log_opens() {
    let temp = Temp::new();
    let make = |(n, shape): (usize, &Shape)| make(&temp.path().join(format!("log{n}")), *shape);
    let originals: Vec<Original> = SHAPES.iter().enumerate().map(make).collect();
    if let Some(seed) = std::env::var("RINGWAL_SEED").ok().and_then(|seed| seed.parse().ok()) {
        return round(seed, temp.path(), &originals);
    }
    // A survey of damage waits for a second and checks it again, so run many rounds at once.
    let (rounds, next) = (if crate::support::long() { 5000 } else { 120 }, AtomicU64::new(0));
    std::thread::scope(|scope| {
        for _ in 0..24 {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= rounds {
                        break;
                    }
                    round(seed, temp.path(), &originals);
                }
            });
        }
    });
}
