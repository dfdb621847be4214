//! The fuzz targets on random inputs, on the corpora, and on changes of the corpora.

use std::path::Path;

use fastrand::Rng;

/// Random bytes, in which significant numbers are more frequent.
fn bytes(rng: &mut Rng, most: usize) -> Vec<u8> {
    let mut b: Vec<u8> = (0..rng.usize(..=most))
        .map(|_| if rng.bool() { rng.u8(..) } else { rng.u8(..4) })
        .collect();
    for _ in 0..rng.usize(..4) {
        if b.len() > 8 {
            let at = rng.usize(..b.len() - 8);
            let value: u64 = match rng.u8(..4) {
                0 => 0,
                1 => u64::MAX,
                2 => 1 << rng.u8(..64),
                _ => u64::from(rng.u16(..)),
            };
            b[at..at + 8].copy_from_slice(&value.to_le_bytes());
        }
    }
    b
}

/// Runs an input. If it panics, shrinks it and panics with the rest.
fn check(target: &str, input: &[u8], run: impl Fn(&[u8])) {
    let fails = |input: &[u8]| {
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| run(input))).is_err()
    };
    if !fails(input) {
        return;
    }
    let mut left = input.to_vec();
    for unit in [64, 8, 1] {
        let mut at = 0;
        while at + unit <= left.len() {
            let mut less = left.clone();
            less.drain(at..at + unit);
            if fails(&less) { left = less } else { at += unit }
        }
    }
    panic!("{target}: {left:?}");
}

fn rounds(quick: u64) -> u64 {
    if std::env::var_os("RINGWAL_LONG").is_some() { quick * 100 } else { quick }
}

/// Runs the committed inputs of a target, and random changes of them.
fn corpus(target: &str, changes: u64, run: impl Fn(&[u8])) {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus").join(target);
    let mut inputs: Vec<_> = std::fs::read_dir(&dir)
        .unwrap_or_else(|e| panic!("{}: {e}", dir.display()))
        .map(|entry| std::fs::read(entry.unwrap().path()).unwrap())
        .collect();
    assert!(inputs.len() >= 3, "a corpus for {target}");
    inputs.sort();
    let mut rng = Rng::with_seed(1);
    for input in &inputs {
        check(target, input, &run);
        for _ in 0..rounds(changes) {
            let mut changed = input.clone();
            for _ in 0..rng.usize(1..4) {
                if !changed.is_empty() {
                    let at = rng.usize(..changed.len());
                    changed[at] ^= 1 << rng.u8(..8);
                }
            }
            check(target, &changed, &run);
        }
    }
}

/// Records and batches as the engine writes them, often with one bit flipped.
fn whole_records(rng: &mut Rng) -> Vec<u8> {
    let mut body = Vec::new();
    for _ in 0..rng.usize(1..4) {
        let payload = match rng.u8(..3) {
            0 => vec![rng.u8(..); rng.usize(..40)],
            _ => super::forge::batch_of(&vec![7; rng.usize(..20)], rng.usize(1..4)),
        };
        let batch = u8::from(payload.len() >= 12 && payload[1..4] == [0; 3]);
        let start = body.len();
        body.extend((payload.len() as u32).to_le_bytes());
        body.extend([0, 0, 0, 0, 1 + batch, 0, 0, 0]);
        body.extend(payload);
        body.resize(start + (body.len() - start).next_multiple_of(8), 0);
    }
    if rng.u8(..4) > 0 {
        let at = rng.usize(..body.len());
        body[at] ^= 1 << rng.u8(..8);
    }
    let mut input = vec![rng.u8(..), 1 | 2 | rng.u8(..) & 0xF0 | 8, 0];
    input.extend(body);
    input
}

#[test]
fn records_from_random_bytes_decode_as_the_format_says() {
    let mut rng = Rng::with_seed(2);
    for _ in 0..rounds(3000) {
        let mut input = bytes(&mut rng, 300);
        // Records with lengths that fit, and valid kinds.
        let mut at = 3;
        while rng.u8(..8) > 0 && at + 12 < input.len() {
            let length = rng.usize(..60);
            input[at..at + 4].copy_from_slice(&(length as u32).to_le_bytes());
            input[at + 8] = [1, 2, 0x83, 0x90][rng.usize(..4)];
            input[at + 9] = 0;
            at += (12 + length + 7) & !7;
        }
        check("record", &input, super::record);
        check("record", &whole_records(&mut rng), super::record);
    }
    corpus("record", 200, super::record);
}

#[test]
fn headers_from_random_bytes_decode_as_the_format_says() {
    let mut rng = Rng::with_seed(3);
    for _ in 0..rounds(3000) {
        check("group", &bytes(&mut rng, 140), super::group);
        check("segment", &bytes(&mut rng, 140), super::segment);
    }
    corpus("group", 200, super::group);
    corpus("segment", 200, super::segment);
}

#[cfg(linux_calls)]
#[test]
fn remembered_commit_method_from_random_bytes_decodes_or_is_ignored() {
    let mut rng = Rng::with_seed(4);
    for _ in 0..rounds(1000) {
        check("memo", &bytes(&mut rng, 100), super::memo);
    }
    corpus("memo", 200, super::memo);
}

#[test]
fn directory_with_random_edits_opens_soundly_or_is_refused() {
    let mut rng = Rng::with_seed(5);
    // The logs without an edit, opened with their own settings and with others.
    for (choice, flags) in (0..5).flat_map(|choice| (0..32).map(move |flags| (choice, flags))) {
        check("directory", &[choice, flags], |input| super::directory(input, || 0));
    }
    for _ in 0..rounds(600) {
        let mut input = vec![rng.u8(..), rng.u8(..)];
        for _ in 0..rng.usize(1..6) {
            input.extend((0..8).map(|_| rng.u8(..)));
        }
        check("directory", &input, |input| super::directory(input, || 0));
    }
    corpus("directory", 4, |input| super::directory(input, || 0));
}
