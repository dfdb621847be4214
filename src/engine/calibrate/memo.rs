//! Remembered verdicts: in the process, and in a small file beside the segments.
//!
//! The file is advice and is not synced. A file that is missing, damaged, or of another device or
//! kernel is ignored.

use std::collections::HashMap;
use std::sync::{Mutex, OnceLock};

use crate::io::backend::{ChosenMethod, Method, MethodReason};
use crate::io::fs::{Access, AlignedBuf, Dir, read_full, write_full};
use crate::segment::Names;

pub(crate) const TITLE: &str = "ringwal commit method, version 2";

fn process() -> &'static Mutex<HashMap<String, ChosenMethod>> {
    static MEMO: OnceLock<Mutex<HashMap<String, ChosenMethod>>> = OnceLock::new();
    MEMO.get_or_init(Mutex::default)
}

pub(super) fn recall(dir: &dyn Dir, names: &Names, key: &str) -> Option<ChosenMethod> {
    let memo = process().lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let here = memo.get(key).cloned();
    drop(memo);
    here.or_else(|| read(dir, names, key))
        .map(|chosen| ChosenMethod { reason: MethodReason::Remembered, ..chosen })
}

pub(super) fn remember(dir: &dyn Dir, names: &Names, key: &str, chosen: &ChosenMethod) {
    let mut memo = process().lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    memo.insert(key.into(), chosen.clone());
    drop(memo);
    let _ = write(dir, names, &encode(key, chosen));
}

fn read(dir: &dyn Dir, names: &Names, key: &str) -> Option<ChosenMethod> {
    let file = dir.open(&names.commit(), Access::Read).ok()?;
    let mut bytes = vec![0; dir.block_size() as usize];
    let len = read_full(&*file, &mut bytes, 0).ok()?;
    decode(&bytes[..len], key)
}

fn write(dir: &dyn Dir, names: &Names, text: &str) -> std::io::Result<()> {
    let mut block = AlignedBuf::new(dir.block_size() as usize);
    let Some(head) = block.get_mut(..text.len()) else { return Ok(()) };
    head.copy_from_slice(text.as_bytes());
    let (name, temporary) = (names.commit(), names.scratch());
    let _ = dir.remove(&temporary);
    let written = dir.open(&temporary, Access::Create).and_then(|f| write_full(&*f, &block, 0));
    if let Err(e) = written {
        let _ = dir.remove(&temporary);
        return Err(e);
    }
    let _ = dir.remove(&name);
    dir.rename(&temporary, &name)
}

pub(crate) fn encode(key: &str, chosen: &ChosenMethod) -> String {
    let [method, alone] = [chosen.method, chosen.alone].map(word);
    let parallel = if chosen.parallel { "parallel" } else { "serial" };
    let text = format!("{TITLE}\n{key}\n{method}\n{alone}\n{parallel}\n{}\n", chosen.detail);
    let sum = crc32fast::hash(text.as_bytes());
    format!("{text}{sum:08x}\n")
}

fn word(method: Method) -> &'static str {
    if method == Method::Dsync { "dsync" } else { "linked-fsync" }
}

fn method(word: &str) -> Option<Method> {
    match word {
        "dsync" => Some(Method::Dsync),
        "linked-fsync" => Some(Method::Linked),
        _ => None,
    }
}

pub(crate) fn decode(bytes: &[u8], key: &str) -> Option<ChosenMethod> {
    let end = bytes.iter().position(|&b| b == 0).unwrap_or(bytes.len());
    let text = std::str::from_utf8(&bytes[..end]).ok()?;
    let body = text.len().checked_sub(9)?;
    let (body, sum) = text.split_at_checked(body)?;
    if sum != format!("{:08x}\n", crc32fast::hash(body.as_bytes())) {
        return None;
    }
    let mut lines = body.lines();
    if lines.next() != Some(TITLE) || lines.next() != Some(key) {
        return None;
    }
    let (method, alone) = (method(lines.next()?)?, method(lines.next()?)?);
    let parallel = match lines.next()? {
        "parallel" => true,
        "serial" => false,
        _ => return None,
    };
    let detail = lines.next()?.to_owned();
    Some(ChosenMethod { method, alone, reason: MethodReason::Remembered, parallel, detail })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen() -> ChosenMethod {
        let detail = "faster here".into();
        let (method, reason) = (Method::Dsync, MethodReason::Remembered);
        ChosenMethod { method, alone: Method::Linked, reason, parallel: false, detail }
    }

    #[test]
    fn memo_of_another_key_is_ignored() {
        let text = encode("254:0 vda; 6.1", &chosen());
        let mut padded = text.clone().into_bytes();
        padded.resize(4096, 0);
        assert_eq!(decode(&padded, "254:0 vda; 6.1"), Some(chosen()));
        assert_eq!(decode(&padded, "254:1 vdb; 6.1"), None);
    }

    #[test]
    fn memo_that_is_damaged_is_ignored() {
        let text = encode("key", &chosen()).into_bytes();
        for at in 0..text.len() {
            for bit in 0..8 {
                let mut bytes = text.clone();
                bytes[at] ^= 1 << bit;
                assert_eq!(decode(&bytes, "key"), None, "byte {at} bit {bit}");
            }
            assert_eq!(decode(&text[..at], "key"), None);
        }
    }
}
