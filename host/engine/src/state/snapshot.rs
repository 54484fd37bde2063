//! A snapshot: the committed contents of one map partition as bytes to be kept in a file, and back. Nothing here reads, writes or
//! knows the time.
//!
//! A snapshot is taken while folding goes on, in steps: its entries are of different moments between two changelog offsets, `from`
//! before the first step and `to` after the last. What it holds becomes the partition's contents once everything from `from` on has
//! been folded on top, up to `to` at least: a key that was not changed since `from` is in the snapshot as it is, and of one that was,
//! the last change is in the changelog.
//!
//! Invariant: whatever happened to the bytes (cut anywhere, any bit flipped, parts exchanged), they are not taken for a snapshot. No
//! length is believed before its checksum, and no memory is taken beyond what was fed in.
//!
//! ```text
//! file   = magic, 8 bytes | version, u32 | checksum | frame of kind 1 | frames of kind 2 ... | frame of kind 3
//! frame  = kind, u32 | length of the body, u32 | checksum | body | checksum
//! body 1 = topic id, u128 | from, i64 | begun, i64 | entries, u64 | partition, u32 | partitions, u32 | pipeline | map
//! body 2 = key and value of each entry
//! body 3 = entries in all, u64 | to, i64
//! ```
//!
//! Numbers are little-endian; texts, keys and values have their length before them, as u32. A checksum is the CRC-32 of everything from
//! the file's first byte on, the checksums themselves left out: a frame fits only where it was written.

use std::time::Duration;

use super::entries::Entries;

const MAGIC: [u8; 8] = *b"\x89MSsnap\n";

/// Of the format. Others are refused.
pub const VERSION: u32 = 1;

const HEADER: u32 = 1;
const ENTRIES: u32 = 2;
const END: u32 = 3;

const CHECKSUM: usize = 4;
const PRELUDE: usize = MAGIC.len() + 4 + CHECKSUM;
const FRAME_HEAD: usize = 8 + CHECKSUM;

/// Of each entry, beyond key and value.
pub const ENTRY_OVERHEAD: usize = 8;

/// What one step looks at and copies, at most; the last entry may go beyond. It bounds how long a lock is held.
const STEP_SLOTS: u32 = 1024;
const STEP_BYTES: usize = 256 << 10;

/// A snapshot is as old as it may be at this part of the topic's `delete.retention.ms`: what was removed since it was begun must stand
/// in the changelog still while the changelog is read.
const AGE_QUARTERS: u32 = 3;

/// Says whose contents it is, and from where the changelog has to be folded on top.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    pub pipeline: String,
    pub map: String,
    pub partition: u32,
    pub partitions: u32,
    /// The id of the map's topic.
    pub topic: u128,
    pub from: i64,
    /// When the first step was taken, in milliseconds since 1970-01-01 UTC.
    pub begun: i64,
    /// How many entries there were then.
    pub entries: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trailer {
    /// A key that changed its slot meanwhile may have been counted twice.
    pub entries: u64,
    pub to: i64,
}

/// Why bytes are no snapshot, or one can't be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    #[error("it is no snapshot")]
    NotASnapshot,
    #[error("it has format {version}, and this program knows {VERSION}")]
    FutureFormat { version: u32 },
    #[error("it ends too early")]
    Truncated,
    #[error("it is damaged at byte {at}, or shortly after")]
    Damaged { at: u64 },
    #[error("it is of {what} {found}, not {expected}")]
    Foreign {
        what: &'static str,
        expected: String,
        found: String,
    },
    #[error("the changelog begins at offset {start}, and would be needed from {from} on")]
    BelowStart { from: i64, start: i64 },
    #[error("it goes up to changelog offset {to}, and the changelog ends at {end}")]
    BeyondEnd { to: i64, end: i64 },
    #[error("it is {age:?} old: of what was removed since, the changelog knows for {most:?} only")]
    TooOld { age: Duration, most: Duration },
    #[error("it was begun {0:?} from now: the clock was set back")]
    Undated(Duration),
}

/// How far the clock may have been set back without anybody minding.
pub const CLOCK_SLACK: Duration = Duration::from_secs(60);

impl Header {
    /// Whether it is of the same place as another; `from`, time and entries aside.
    pub fn belongs_to(&self, place: &Self) -> Result<(), Fault> {
        let check = |what, expected: String, found: String| match expected == found {
            true => Ok(()),
            false => Err(Fault::Foreign {
                what,
                expected,
                found,
            }),
        };
        let quoted = |name: &str| format!("\"{name}\"");
        check("pipeline", quoted(&place.pipeline), quoted(&self.pipeline))?;
        check("map", quoted(&place.map), quoted(&self.map))?;
        let number = |header: &Self| header.partition.to_string();
        check("partition", number(place), number(self))?;
        let count = |header: &Self| header.partitions.to_string();
        check("a map whose partitions are", count(place), count(self))?;
        let id = |header: &Self| format!("{:032x}", header.topic);
        check("a topic with id", id(place), id(self))
    }

    /// Whether the changelog still has all that came after it. `start` is the changelog's first offset, `now` counts as `begun` does,
    /// and `retention` is the topic's `delete.retention.ms`.
    pub fn is_current(&self, start: i64, now: i64, retention: Duration) -> Result<(), Fault> {
        if self.from < start {
            return Err(Fault::BelowStart {
                from: self.from,
                start,
            });
        }
        let millis = |from: i64, to: i64| u64::try_from(to.saturating_sub(from)).unwrap_or(0);
        let ahead = Duration::from_millis(millis(now, self.begun));
        if ahead > CLOCK_SLACK {
            return Err(Fault::Undated(ahead));
        }
        let age = Duration::from_millis(millis(self.begun, now));
        let most = age_max(retention);
        if age >= most {
            return Err(Fault::TooOld { age, most });
        }
        Ok(())
    }
}

impl Trailer {
    /// Whether the changelog, which ends at `end`, is as long as it was.
    pub fn is_within(&self, end: i64) -> Result<(), Fault> {
        match self.to <= end {
            true => Ok(()),
            false => Err(Fault::BeyondEnd { to: self.to, end }),
        }
    }
}

/// From this age on a snapshot is not used any more.
pub fn age_max(retention: Duration) -> Duration {
    retention / 4 * AGE_QUARTERS
}

/// Makes the bytes of a snapshot.
#[derive(Debug)]
pub struct Encoder {
    checksum: u32,
    /// Of the entries that are not written yet.
    body: Vec<u8>,
    entries: u64,
}

impl Encoder {
    /// Begins with what stands before all entries.
    pub fn new(header: &Header, out: &mut Vec<u8>) -> Self {
        let mut encoder = Self {
            checksum: 0,
            body: Vec::new(),
            entries: 0,
        };
        let mut prelude = MAGIC.to_vec();
        prelude.extend_from_slice(&VERSION.to_le_bytes());
        encoder.sealed(&prelude, out);
        let mut body = header.topic.to_le_bytes().to_vec();
        body.extend_from_slice(&header.from.to_le_bytes());
        body.extend_from_slice(&header.begun.to_le_bytes());
        body.extend_from_slice(&header.entries.to_le_bytes());
        body.extend_from_slice(&header.partition.to_le_bytes());
        body.extend_from_slice(&header.partitions.to_le_bytes());
        push_text(&mut body, header.pipeline.as_bytes());
        push_text(&mut body, header.map.as_bytes());
        encoder.frame(HEADER, &body, out);
        encoder
    }

    pub fn push(&mut self, key: &[u8], value: &[u8]) {
        let length = |bytes: &[u8]| {
            let length = u32::try_from(bytes.len());
            length.expect("Kafka's records, and so their parts, are shorter than 2 GiB")
        };
        self.body.extend_from_slice(&length(key).to_le_bytes());
        self.body.extend_from_slice(&length(value).to_le_bytes());
        self.body.extend_from_slice(key);
        self.body.extend_from_slice(value);
        self.entries += 1;
    }

    /// One step: takes in the entries from a slot on. Returns where the next step begins; none behind `end`.
    pub fn copy(&mut self, entries: &Entries, slot: u32, end: u32) -> Option<u32> {
        let most = slot.saturating_add(STEP_SLOTS).min(end);
        for slot in slot..most {
            if let Some((key, value)) = entries.get(slot) {
                self.push(key, value);
            }
            if self.body.len() >= STEP_BYTES {
                return Some(slot + 1).filter(|&next| next < end);
            }
        }
        Some(most).filter(|&next| next < end)
    }

    /// Writes what was taken in since the last time.
    pub fn flush(&mut self, out: &mut Vec<u8>) {
        if !self.body.is_empty() {
            let mut body = std::mem::take(&mut self.body);
            self.frame(ENTRIES, &body, out);
            body.clear();
            self.body = body;
        }
    }

    /// Ends the snapshot; `to` is the changelog offset up to which the partition was folded when the last entry was taken in, or
    /// later.
    pub fn finish(mut self, to: i64, out: &mut Vec<u8>) -> Trailer {
        self.flush(out);
        let trailer = Trailer {
            entries: self.entries,
            to,
        };
        let mut body = trailer.entries.to_le_bytes().to_vec();
        body.extend_from_slice(&to.to_le_bytes());
        self.frame(END, &body, out);
        trailer
    }

    fn frame(&mut self, kind: u32, body: &[u8], out: &mut Vec<u8>) {
        let length = u32::try_from(body.len());
        let length = length.expect("a block has a step's bytes and one entry more, of a record's");
        let mut head = [0; 8];
        head[..4].copy_from_slice(&kind.to_le_bytes());
        head[4..].copy_from_slice(&length.to_le_bytes());
        self.sealed(&head, out);
        self.sealed(body, out);
    }

    fn sealed(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        self.checksum = checksum(self.checksum, bytes);
        out.extend_from_slice(bytes);
        out.extend_from_slice(&self.checksum.to_le_bytes());
    }
}

fn push_text(body: &mut Vec<u8>, text: &[u8]) {
    let length = u32::try_from(text.len()).expect("names are short");
    body.extend_from_slice(&length.to_le_bytes());
    body.extend_from_slice(text);
}

/// Goes on with the checksum of what came before.
fn checksum(before: u32, bytes: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new_with_initial(before);
    hasher.update(bytes);
    hasher.finalize()
}

/// Takes the bytes of a snapshot in as they come, and hands out what has been checked of them.
#[derive(Debug, Default)]
pub struct Decoder {
    buffer: Vec<u8>,
    /// Of the buffer, how much was handed out.
    used: usize,
    /// Bytes before the buffer.
    gone: u64,
    checksum: u32,
    stage: Stage,
    entries: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Stage {
    #[default]
    Prelude,
    Header,
    Entries,
    Ended,
}

/// What a decoder hands out: a header, blocks of entries, an end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece<'a> {
    Header(Header),
    Entries(Block<'a>),
    End(Trailer),
}

/// Entries, known to be sound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Block<'a> {
    body: &'a [u8],
    entries: usize,
}

impl Decoder {
    pub fn feed(&mut self, bytes: &[u8]) {
        self.gone += self.used as u64;
        self.buffer.drain(..self.used);
        self.used = 0;
        self.buffer.extend_from_slice(bytes);
    }

    /// The next piece, once all of it has come. After an error nothing more is to be asked.
    pub fn next_piece(&mut self) -> Result<Option<Piece<'_>>, Fault> {
        if self.stage == Stage::Prelude {
            let Some(()) = self.prelude()? else {
                return Ok(None);
            };
        }
        let rest = &self.buffer[self.used..];
        let damaged = Fault::Damaged {
            at: self.gone + self.used as u64,
        };
        if self.stage == Stage::Ended {
            return match rest.is_empty() {
                true => Ok(None),
                false => Err(damaged),
            };
        }
        let Some((head, after)) = rest.split_at_checked(FRAME_HEAD) else {
            return Ok(None);
        };
        let checksum = unseal(self.checksum, head).ok_or_else(|| damaged.clone())?;
        let (kind, length) = (u32_at(head, 0), u32_at(head, 4) as usize);
        let Some(sealed) = after.get(..length + CHECKSUM) else {
            return Ok(None);
        };
        let checksum = unseal(checksum, sealed).ok_or_else(|| damaged.clone())?;
        let body = &sealed[..length];
        let (piece, stage) = match (self.stage, kind) {
            (Stage::Header, HEADER) => (read_header(body).map(Piece::Header), Stage::Entries),
            (Stage::Entries, ENTRIES) => (Block::read(body).map(Piece::Entries), Stage::Entries),
            (Stage::Entries, END) => (read_trailer(body).map(Piece::End), Stage::Ended),
            _ => return Err(damaged),
        };
        let piece = piece.ok_or_else(|| damaged.clone())?;
        match &piece {
            Piece::Entries(block) => self.entries += block.entries as u64,
            Piece::End(trailer) if trailer.entries != self.entries => return Err(damaged),
            Piece::Header(_) | Piece::End(_) => {}
        }
        self.used += FRAME_HEAD + length + CHECKSUM;
        (self.checksum, self.stage) = (checksum, stage);
        Ok(Some(piece))
    }

    fn prelude(&mut self) -> Result<Option<()>, Fault> {
        let begins = MAGIC.len().min(self.buffer.len());
        if self.buffer[..begins] != MAGIC[..begins] {
            return Err(Fault::NotASnapshot);
        }
        let Some(prelude) = self.buffer.get(..PRELUDE) else {
            return Ok(None);
        };
        self.checksum = unseal(0, prelude).ok_or(Fault::Damaged { at: 0 })?;
        let version = u32_at(prelude, MAGIC.len());
        if version != VERSION {
            return Err(Fault::FutureFormat { version });
        }
        self.used = PRELUDE;
        self.stage = Stage::Header;
        Ok(Some(()))
    }

    /// To be called when there are no more bytes, and pieces neither.
    pub fn finish(&self) -> Result<(), Fault> {
        match self.stage {
            Stage::Ended => Ok(()),
            _ => Err(Fault::Truncated),
        }
    }
}

/// Checks bytes that end with their checksum, and returns it.
fn unseal(before: u32, sealed: &[u8]) -> Option<u32> {
    let bytes = sealed.len() - CHECKSUM;
    let found = checksum(before, &sealed[..bytes]);
    (found == u32_at(sealed, bytes)).then_some(found)
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let bytes = bytes[at..].first_chunk();
    u32::from_le_bytes(*bytes.expect("the caller looked how many bytes there are"))
}

/// Takes a number of bytes off the front.
fn take<const BYTES: usize>(rest: &mut &[u8]) -> Option<[u8; BYTES]> {
    let (first, after) = rest.split_first_chunk()?;
    *rest = after;
    Some(*first)
}

fn take_text(rest: &mut &[u8]) -> Option<String> {
    let length = u32::from_le_bytes(take(rest)?) as usize;
    let (text, after) = rest.split_at_checked(length)?;
    *rest = after;
    String::from_utf8(text.to_vec()).ok()
}

fn read_header(mut body: &[u8]) -> Option<Header> {
    let rest = &mut body;
    let header = Header {
        topic: u128::from_le_bytes(take(rest)?),
        from: i64::from_le_bytes(take(rest)?),
        begun: i64::from_le_bytes(take(rest)?),
        entries: u64::from_le_bytes(take(rest)?),
        partition: u32::from_le_bytes(take(rest)?),
        partitions: u32::from_le_bytes(take(rest)?),
        pipeline: take_text(rest)?,
        map: take_text(rest)?,
    };
    rest.is_empty().then_some(header)
}

fn read_trailer(mut body: &[u8]) -> Option<Trailer> {
    let rest = &mut body;
    let trailer = Trailer {
        entries: u64::from_le_bytes(take(rest)?),
        to: i64::from_le_bytes(take(rest)?),
    };
    rest.is_empty().then_some(trailer)
}

impl<'a> Block<'a> {
    fn read(body: &'a [u8]) -> Option<Self> {
        let (mut rest, mut entries) = (body, 0);
        while !rest.is_empty() {
            let head = rest.get(..ENTRY_OVERHEAD)?;
            let length = u32_at(head, 0) as usize + u32_at(head, 4) as usize;
            rest = rest.get(ENTRY_OVERHEAD + length..)?;
            entries += 1;
        }
        Some(Self { body, entries })
    }

    pub fn len(&self) -> usize {
        self.entries
    }

    pub fn is_empty(&self) -> bool {
        self.entries == 0
    }

    /// Of keys and values, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&'a [u8], &'a [u8])> {
        let mut rest = self.body;
        std::iter::from_fn(move || {
            let (head, after) = rest.split_at_checked(ENTRY_OVERHEAD)?;
            let (key, after) = after.split_at(u32_at(head, 0) as usize);
            let (value, after) = after.split_at(u32_at(head, 4) as usize);
            rest = after;
            Some((key, value))
        })
    }
}

#[cfg(test)]
mod tests;
