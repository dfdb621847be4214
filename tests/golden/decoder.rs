//! A decoder of format version 1, written from docs/format.md alone. It shares no line with the
//! library: where the two agree, the document describes the files correctly.
//!
//! Simple rather than fast: it reads whole files. Each rule of a "valid if and only if" list is one
//! call of `rule`, and an error names the rule.

use std::collections::BTreeMap;
use std::path::Path;

/// The result of a check. The error is the rule of the document that does not hold.
pub type Checked<T> = Result<T, &'static str>;

fn rule(holds: bool, name: &'static str) -> Checked<()> {
    if holds { Ok(()) } else { Err(name) }
}

const EPOCH: u32 = 1;
const IDLE_SEAL: u32 = 2;
const CLEAN_CLOSE: u32 = 4;
const CUT: u32 = 16;
const KNOWN_FLAGS: u32 = 31;
const GROUP_HEADER: u64 = 128;

const TABLE: [u32; 256] = {
    let mut table = [0; 256];
    let mut n = 0;
    while n < 256 {
        let (mut crc, mut bit) = (n as u32, 0);
        while bit < 8 {
            crc = if crc & 1 == 1 { crc >> 1 ^ 0xEDB8_8320 } else { crc >> 1 };
            bit += 1;
        }
        table[n] = crc;
        n += 1;
    }
    table
};

/// The CRC-32 of several byte strings in sequence.
pub fn crc32(parts: &[&[u8]]) -> u32 {
    let bytes = parts.iter().copied().flatten();
    !bytes.fold(!0, |crc, &b| TABLE[usize::from(crc as u8 ^ b)] ^ crc >> 8)
}

fn u16_at(b: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([b[at], b[at + 1]])
}

pub fn u32_at(b: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(b[at..at + 4].try_into().unwrap())
}

pub fn u64_at(b: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(b[at..at + 8].try_into().unwrap())
}

fn zero(b: &[u8]) -> bool {
    b.iter().all(|&b| b == 0)
}

/// A segment file with a valid header.
#[derive(Debug)]
pub struct Segment {
    pub base: u64,
    pub size: u64,
    pub block: u64,
    pub max_group: u64,
    pub log_id: [u8; 16],
    pub bytes: Vec<u8>,
}

impl Segment {
    fn decode(name_base: u64, bytes: Vec<u8>) -> Checked<Self> {
        rule(bytes.len() >= 128, "a segment holds its header")?;
        let b = &bytes[..128];
        rule(&b[..8] == b"ringwal\x1a", "segment magic")?;
        rule(crc32(&[&b[..12], &[0; 4], &b[16..]]) == u32_at(b, 12), "segment header CRC")?;
        rule(u16_at(b, 8) == 1, "version 1")?;
        rule(b[10] == 1, "checksum kind 1")?;
        rule(b[11] == 0 && zero(&b[84..128]), "segment reserved fields are zero")?;
        rule(u32_at(b, 16) == 0, "no unknown incompatible bit")?;
        let (block, size, base) = (u64::from(u32_at(b, 28)), u64_at(b, 48), u64_at(b, 56));
        let max_group = u64::from(u32_at(b, 64));
        rule(block.is_power_of_two() && (4096..=65536).contains(&block), "block size")?;
        rule(size > 0 && size % block == 0, "segment size is a multiple of the block")?;
        rule(base % block == 0, "base is a multiple of the block")?;
        rule(max_group % block == 0 && max_group <= 256 << 20, "max group")?;
        rule(u64::from(u32_at(b, 68)) == block, "header length is the block size")?;
        rule(base == name_base, "base is the name's")?;
        rule(size == bytes.len() as u64, "segment size is the file's length")?;
        let log_id = b[32..48].try_into().unwrap();
        Ok(Segment { base, size, block, max_group, log_id, bytes })
    }

    fn end(&self) -> u64 {
        self.base + self.size
    }

    fn first_group(&self) -> u64 {
        self.base + self.block
    }

    /// The bytes at the addresses `[from, to)`.
    pub fn at(&self, from: u64, to: u64) -> &[u8] {
        &self.bytes[(from - self.base) as usize..(to - self.base) as usize]
    }
}

/// A group's header, its hash and its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    pub lsn: u64,
    pub epoch: u64,
    pub nonce: u64,
    pub durable_end: u64,
    pub previous: u64,
    pub previous_hash: u64,
    pub used: u64,
    pub count: u64,
    pub ordinal: u64,
    pub oldest: u64,
    pub flags: u32,
    pub last_cut: u64,
    pub cut_from: u64,
    /// The hash that its successor carries.
    pub hash: u64,
    /// First address after the padding.
    pub end: u64,
}

impl Header {
    fn decode(segment: &Segment, lsn: u64) -> Checked<Self> {
        rule(lsn.is_multiple_of(segment.block), "a group starts on a block boundary")?;
        rule(lsn + GROUP_HEADER <= segment.end(), "a header inside the segment")?;
        let b = segment.at(lsn, lsn + GROUP_HEADER);
        rule(&b[..4] == b"RWGp", "group magic")?;
        rule(crc32(&[&b[..4], &b[8..]]) == u32_at(b, 4), "group header CRC")?;
        rule(u64_at(b, 8) == lsn, "LSN is the position")?;
        rule(b[16..32] == segment.log_id, "log id is the segment's")?;
        let flags = u32_at(b, 104);
        rule(flags & !KNOWN_FLAGS == 0, "flags known")?;
        rule(zero(&b[108..112]), "group reserved fields are zero")?;
        let used = u64::from(u32_at(b, 72));
        rule((GROUP_HEADER..=segment.max_group).contains(&used), "used length")?;
        let end = lsn + used.next_multiple_of(segment.block);
        rule(end <= segment.end(), "the padded group ends inside the segment")?;
        let header = Header {
            lsn,
            epoch: u64_at(b, 32),
            nonce: u64_at(b, 40),
            durable_end: u64_at(b, 48),
            previous: u64_at(b, 56),
            previous_hash: u64_at(b, 64),
            used,
            count: u64::from(u32_at(b, 76)),
            ordinal: u64_at(b, 80),
            oldest: u64_at(b, 96),
            flags,
            last_cut: u64_at(b, 112),
            cut_from: u64_at(b, 120),
            hash: hash(b),
            end,
        };
        rule(header.durable_end <= lsn, "durable end is not above the LSN")?;
        rule(header.oldest <= lsn, "oldest is not above the LSN")?;
        let first = header.previous == 0 && header.previous_hash == 0;
        rule(first || header.previous < lsn, "previous is below the LSN")?;
        rule(header.last_cut == 0 || header.last_cut < lsn, "the last cut is below the LSN")?;
        if flags & CUT == 0 {
            rule(header.cut_from == 0, "cut from is zero without CUT")?;
        } else {
            rule(header.cut_from > 0 && header.cut_from < lsn, "cut from is below the LSN")?;
        }
        Ok(header)
    }

    pub fn follows(&self, last: &Header) -> Checked<()> {
        rule(self.previous == last.lsn, "previous is the predecessor")?;
        rule(self.previous_hash == last.hash, "previous hash is the predecessor's")?;
        let same = (self.epoch, self.nonce) == (last.epoch, last.nonce);
        let begins = self.flags & EPOCH != 0 && self.epoch > last.epoch;
        rule(same || begins, "the predecessor's epoch, or a greater one begins")?;
        rule(self.ordinal == last.ordinal + last.count, "ordinals follow")?;
        let last_cut = if last.flags & CUT == 0 { last.last_cut } else { last.lsn };
        rule(self.last_cut == last_cut, "the last cut is the predecessor's, or the predecessor")
    }
}

pub fn hash(header: &[u8]) -> u64 {
    header.chunks(8).fold(0x9E37_79B9_7F4A_7C15, |h: u64, w| {
        let h = (h ^ u64_at(w, 0)).wrapping_mul(0xD6E8_FEB8_6659_FD93);
        h ^ h >> 32
    })
}

pub type Records = Vec<(u64, Vec<u8>)>;

/// The tags of records, by their LSN.
pub type Tags = BTreeMap<u64, u64>;

/// The tag in the tag block at the start of `bytes`, and the payload after it.
fn tag<'a>(
    log_id: &[u8],
    lsn: u64,
    fields: [&[u8]; 2],
    bytes: &'a [u8],
) -> Checked<(u64, &'a [u8])> {
    rule(bytes.len() >= 12, "room for the tag block")?;
    let (block, payload) = bytes.split_at(12);
    let check = crc32(&[log_id, &block[4..], &lsn.to_le_bytes(), fields[0], fields[1]]);
    rule(check == u32_at(block, 0), "tag check")?;
    Ok((u64_at(block, 4), payload))
}

fn records(
    segment: &Segment,
    header: &Header,
    kinds: &mut Vec<u8>,
    tags: &mut Tags,
) -> Checked<Records> {
    let used_end = header.lsn + header.used;
    let mut found = Records::new();
    let mut at = header.lsn + GROUP_HEADER;
    while at < used_end {
        rule(at + 12 <= used_end, "a record header inside the used length")?;
        let h = segment.at(at, at + 12);
        let payload_end = at + 12 + u64::from(u32_at(h, 0));
        let next = payload_end.next_multiple_of(8);
        rule(next <= used_end, "a record inside the used length")?;
        let body = segment.at(at + 12, payload_end);
        let tagged = h[9] == 2 && (h[8] == 1 || h[8] == 2);
        rule(h[9] == 0 || tagged, "record flags are zero, or tagged in a DATA or BATCH")?;
        let (mut stated, mut payload) = (&body[..0], body);
        if tagged && h[8] == 1 {
            let (tag, rest) = tag(&segment.log_id, at, [&h[..4], &h[8..]], body)?;
            tags.insert(at, tag);
            (stated, payload) = (&body[4..12], rest);
        }
        let place = [&at.to_le_bytes()[..], &h[..4], &h[8..12]].concat();
        let crc = crc32(&[&segment.log_id, stated, payload, &place]);
        rule(crc == u32_at(h, 4), "record CRC")?;
        rule(u16_at(h, 10) == header.epoch as u16, "epoch tag")?;
        rule(zero(segment.at(payload_end, next)), "record padding is zero")?;
        kinds.push(h[8]);
        match h[8] {
            1 => found.push((at, payload.to_vec())),
            2 => {
                let log_id = tagged.then_some(&segment.log_id);
                batch(at, payload, log_id, &mut found, tags)?;
            }
            kind => rule(kind & 0x80 != 0, "kind known or skippable")?,
        }
        at = next;
    }
    rule(at == used_end, "records tile the used length")?;
    rule(found.len() as u64 == header.count, "items sum to the record count")?;
    Ok(found)
}

/// The items of a batch. `log_id`: if they have tags.
fn batch(
    lsn: u64,
    payload: &[u8],
    log_id: Option<&[u8; 16]>,
    found: &mut Records,
    tags: &mut Tags,
) -> Checked<()> {
    rule(payload.len() >= 4, "a batch holds its count")?;
    let count = u32_at(payload, 0);
    rule(count >= 1, "a batch holds an item")?;
    let mut at = 4;
    for _ in 0..count {
        rule(at + 8 <= payload.len(), "an item header inside the batch")?;
        let item_end = at + 8 + u32_at(payload, at) as usize;
        // The payload starts 12 bytes into the record, so its offset 4 is a multiple of 8.
        let next = (item_end + 12).next_multiple_of(8) - 12;
        rule(next <= payload.len(), "an item inside the batch")?;
        rule(u32_at(payload, at + 4) as usize == at + 12, "an item's distance to its batch")?;
        rule(zero(&payload[item_end..next]), "item padding is zero")?;
        let (item_lsn, mut body) = (lsn + 12 + at as u64, &payload[at + 8..item_end]);
        if let Some(log_id) = log_id {
            let fields = [&payload[at..at + 4], &payload[at + 4..at + 8]];
            let (tag, rest) = tag(log_id, item_lsn, fields, body)?;
            tags.insert(item_lsn, tag);
            body = rest;
        }
        found.push((item_lsn, body.to_vec()));
        at = next;
    }
    rule(at == payload.len(), "items tile the batch")
}

/// A whole log.
#[derive(Debug)]
pub struct Log {
    pub segments: Vec<Segment>,
    /// Files after an unusable one: no part of the chain, but their marks count.
    pub strays: Vec<Segment>,
    pub chain: Vec<Header>,
    pub records: Records,
    /// Of all records on the chain, void ones too.
    pub tags: Tags,
    /// Kind of every record on the chain.
    pub kinds: Vec<u8>,
    /// First address after the chain.
    pub end: u64,
}

impl Log {
    /// Decodes the segment files of `prefix` in `dir`.
    pub fn decode(dir: &Path, prefix: &str) -> Checked<Self> {
        let mut files = Vec::new();
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap();
            let digits = name.strip_prefix(prefix).and_then(|n| n.strip_prefix('.'));
            let Some(digits) = digits.and_then(|n| n.strip_suffix(".wal")) else { continue };
            if digits.len() == 20 && digits.bytes().all(|b| b.is_ascii_digit()) {
                files.push((digits.parse::<u64>().unwrap(), path));
            }
        }
        files.sort();
        let decoded = files.into_iter().map(|(b, p)| Segment::decode(b, std::fs::read(p).unwrap()));
        Self::follow(decoded.collect())
    }

    /// Follows the chain. Files after its end are spares: only the durable marks in them are
    /// checked.
    fn follow(files: Vec<Checked<Segment>>) -> Checked<Self> {
        let mut usable = Vec::new();
        let mut strays = Vec::new();
        let mut broken = None;
        for file in files {
            match file {
                Err(e) => broken = broken.or(Some(e)),
                Ok(s) if broken.is_none() => {
                    let last: Option<&Segment> = usable.last();
                    let follows = last.is_none_or(|l| l.end() == s.base && l.log_id == s.log_id);
                    if follows {
                        usable.push(s);
                    } else {
                        broken = Some("the next base is base + size, of the same log");
                        strays.push(s);
                    }
                }
                Ok(s) => strays.push(s),
            }
        }
        let first = usable.first().ok_or(broken.unwrap_or("a log has a segment"))?;
        let mut log = Log {
            end: first.first_group(),
            segments: usable,
            strays,
            chain: vec![],
            records: vec![],
            tags: Tags::new(),
            kinds: vec![],
        };
        log.walk()?;
        log.marks()?;
        // The chain ends in the last usable segment, and an unusable file follows. Without a mark,
        // it may be a spare or the chain's next segment.
        Ok(log)
    }

    fn segment_of(&self, lsn: u64) -> Option<usize> {
        self.segments.iter().position(|s| (s.base..s.end()).contains(&lsn))
    }

    pub fn group(&self, lsn: u64) -> Checked<(Header, Records, Vec<u8>, Tags)> {
        let index = self.segment_of(lsn).ok_or("inside a segment")?;
        let header = Header::decode(&self.segments[index], lsn)?;
        let (mut kinds, mut tags) = (Vec::new(), Tags::new());
        let records = records(&self.segments[index], &header, &mut kinds, &mut tags)?;
        Ok((header, records, kinds, tags))
    }

    fn walk(&mut self) -> Checked<()> {
        let mut candidates = vec![self.end];
        loop {
            let mut next = None;
            for lsn in candidates {
                let Ok(group) = self.group(lsn) else { continue };
                let follows = match self.chain.last() {
                    Some(last) => group.0.follows(last).is_ok(),
                    None => true,
                };
                if follows {
                    rule(next.is_none(), "at most one successor")?;
                    next = Some(group);
                }
            }
            let Some((header, records, kinds, tags)) = next else { return Ok(()) };
            if header.flags & CUT != 0 {
                self.records.retain(|(lsn, _)| *lsn < header.cut_from);
            }
            self.end = header.end;
            self.chain.push(header);
            self.records.extend(records);
            self.kinds.extend(kinds);
            self.tags.extend(tags);
            candidates = vec![header.end];
            let at = self.segment_of(header.lsn).unwrap();
            if let Some(s) = self.segments.get(at + 1) {
                candidates.push(s.first_group());
            }
            candidates.dedup();
        }
    }

    /// Valid headers after the break, in any block of any file.
    pub fn beyond(&self) -> Vec<Header> {
        let blocks = self.segments.iter().chain(&self.strays).flat_map(|s| {
            let starts = (s.first_group()..s.end()).step_by(s.block as usize);
            starts.filter_map(move |lsn| Header::decode(s, lsn).ok())
        });
        blocks.filter(|h| h.lsn >= self.end).collect()
    }

    fn marks(&self) -> Checked<()> {
        let last = self.chain.last().ok_or("a log has a first group")?;
        for header in self.beyond() {
            let same = (header.epoch, header.nonce) == (last.epoch, last.nonce);
            let counts = same || header.epoch > last.epoch;
            rule(!counts || header.durable_end <= self.end, "no durable mark above the break")?;
        }
        Ok(())
    }

    /// Checks what the document says of groups in undamaged logs, beyond the lists.
    pub fn check_what_a_writer_promises(&self) -> Checked<()> {
        let first = self.chain.first().ok_or("a log has a first group")?;
        if self.segments[0].base == 0 {
            rule(
                (first.previous, first.previous_hash) == (0, 0),
                "the first group's link is zero",
            )?;
            rule(first.ordinal == 0, "the first ordinal is zero")?;
            rule(first.flags & EPOCH != 0, "a log begins with an epoch")?;
        }
        let (mut epoch_end, mut before) = (0, first);
        for h in &self.chain {
            if h.flags & !CUT != 0 {
                rule((h.used, h.count) == (GROUP_HEADER, 0), "control groups hold no records")?;
            }
            if h.flags & EPOCH != 0 {
                epoch_end = h.end;
            } else {
                rule(h.durable_end >= epoch_end, "an epoch group is synced before its groups")?;
            }
            if h.flags & (IDLE_SEAL | CLEAN_CLOSE) != 0 {
                rule(h.durable_end == before.end, "a seal's durable end is its predecessor's end")?;
            }
            rule(h.durable_end >= before.durable_end, "durable ends do not fall")?;
            rule(h.oldest >= before.oldest, "oldest does not fall")?;
            let inside = |g: &&Header| g.lsn < h.durable_end && h.durable_end < g.end;
            rule(!self.chain.iter().any(|g| inside(&g)), "a durable end is not inside a group")?;
            let s = &self.segments[self.segment_of(h.lsn).unwrap()];
            rule(h.oldest % s.size == 0, "oldest is a segment's base")?;
            rule(zero(s.at(h.lsn + h.used, h.end)), "group padding is zero")?;
            before = h;
        }
        for s in &self.segments {
            rule(zero(&s.bytes[128..s.block as usize]), "zero up to the header length")?;
        }
        Ok(())
    }

    /// All flags on the chain.
    pub fn flags(&self) -> u32 {
        self.chain.iter().fold(0, |all, h| all | h.flags)
    }
}
