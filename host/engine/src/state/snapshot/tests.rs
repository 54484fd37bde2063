//! Damage of every kind is found, and a snapshot taken while folding goes on restores to the fold.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::*;
use crate::state::budget::Budget;
use crate::state::committed::Committed;
use crate::state::restore::{LiveFrom, MapPartition, Phase};

type Entry = (Vec<u8>, Vec<u8>);

fn header(from: i64) -> Header {
    Header {
        pipeline: "p".into(),
        map: "users".into(),
        partition: 3,
        partitions: 8,
        topic: 0x1234,
        from,
        begun: 1_000_000,
        entries: 2,
    }
}

/// Blocks of two entries each.
fn encode(header: &Header, entries: &[Entry], to: i64) -> Vec<u8> {
    let mut out = Vec::new();
    let mut encoder = Encoder::new(header, &mut out);
    for pair in entries.chunks(2) {
        pair.iter()
            .for_each(|(key, value)| encoder.push(key, value));
        encoder.flush(&mut out);
    }
    encoder.finish(to, &mut out);
    out
}

/// Fed in pieces of so many bytes.
fn decode(bytes: &[u8], fed: usize) -> Result<(Header, Vec<Entry>, Trailer), Fault> {
    let mut decoder = Decoder::default();
    let (mut header, mut entries, mut trailer) = (None, Vec::new(), None);
    for piece in bytes.chunks(fed) {
        decoder.feed(piece);
        while let Some(piece) = decoder.next_piece()? {
            match piece {
                Piece::Header(found) => header = Some(found),
                Piece::Entries(block) => {
                    let owned = |(key, value): (&[u8], &[u8])| (key.to_vec(), value.to_vec());
                    assert_eq!(block.iter().count(), block.len());
                    entries.extend(block.iter().map(owned));
                }
                Piece::End(found) => trailer = Some(found),
            }
        }
    }
    decoder.finish()?;
    Ok((header.unwrap(), entries, trailer.unwrap()))
}

fn small() -> (Vec<Entry>, Vec<u8>) {
    let pairs: [(&[u8], &[u8]); 5] = [
        (b"a", b"1"),
        (b"", b"the empty key"),
        (b"b", b""),
        (&[0xff; 40], &[0; 30]),
        (b"a", b"2"),
    ];
    let entries: Vec<Entry> = pairs
        .map(|(key, value)| (key.to_vec(), value.to_vec()))
        .to_vec();
    let bytes = encode(&header(7), &entries, 9);
    (entries, bytes)
}

/// The same numbers in every run.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }

    fn bytes(&mut self, most: u64) -> Vec<u8> {
        let length = self.below(most + 1);
        (0..length)
            .map(|_| u8::try_from(self.below(256)).unwrap())
            .collect()
    }
}

#[test]
fn what_was_written_is_read() {
    let (entries, bytes) = small();
    for fed in [1, 3, 20, 1000] {
        let (found, read, trailer) = decode(&bytes, fed).unwrap();
        assert_eq!((&found, &read), (&header(7), &entries));
        let expected = Trailer { entries: 5, to: 9 };
        assert_eq!(trailer, expected);
    }
    let empty = encode(&header(0), &[], 0);
    assert_eq!(decode(&empty, 7).unwrap().1, []);
    let mut random = Random(1);
    for _ in 0..200 {
        let count = random.below(50);
        let entries: Vec<Entry> = (0..count)
            .map(|_| (random.bytes(40), random.bytes(3000)))
            .collect();
        let bytes = encode(&header(5), &entries, 6);
        let fed = usize::try_from(random.below(9000)).unwrap() + 1;
        assert_eq!(decode(&bytes, fed).unwrap().1, entries);
    }
}

#[test]
fn every_truncation_is_found() {
    let (_, bytes) = small();
    for length in 0..bytes.len() {
        assert_eq!(
            decode(&bytes[..length], 64),
            Err(Fault::Truncated),
            "{length}"
        );
    }
}

#[test]
fn every_flipped_bit_is_found() {
    let (_, bytes) = small();
    for bit in 0..bytes.len() * 8 {
        let mut flipped = bytes.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        let found = decode(&flipped, 1000).expect_err("a bit is wrong");
        match bit / 8 {
            0..8 => assert_eq!(found, Fault::NotASnapshot, "{bit}"),
            at => match found {
                Fault::Damaged { at: said } => assert!(said <= at as u64, "{bit}: {said}"),
                other => panic!("{bit}: {other}"),
            },
        }
    }
}

#[test]
fn parts_of_others_are_found() {
    let (_, bytes) = small();
    let frames = frames(&bytes);
    assert_eq!(frames.len(), 5, "a header, three blocks and an end");
    let joined = |parts: &[&[u8]]| [&[&bytes[..PRELUDE]], parts].concat().concat();
    let check = |parts: &[&[u8]]| {
        let found = decode(&joined(parts), 1000);
        assert!(matches!(found, Err(Fault::Damaged { .. })), "{found:?}");
    };
    let [header, first, second, third, end] = frames[..] else {
        panic!("five frames")
    };
    assert!(decode(&joined(&[header, first, second, third, end]), 1000).is_ok());
    check(&[header, second, first, third, end]);
    check(&[header, first, first, second, third, end]);
    check(&[header, first, third, end]);
    check(&[header, end]);
    check(&[first, second, third, end]);
    check(&[header, first, second, third, end, end]);
    let mut longer = bytes.clone();
    longer.push(0);
    let end = bytes.len() as u64;
    assert_eq!(decode(&longer, 10), Err(Fault::Damaged { at: end }));
}

fn frames(bytes: &[u8]) -> Vec<&[u8]> {
    let (mut rest, mut frames) = (&bytes[PRELUDE..], Vec::new());
    while !rest.is_empty() {
        let length = FRAME_HEAD + u32_at(rest, 4) as usize + CHECKSUM;
        let (frame, after) = rest.split_at(length);
        frames.push(frame);
        rest = after;
    }
    frames
}

#[test]
fn garbage_and_other_formats_are_refused() {
    let mut random = Random(2);
    for _ in 0..2000 {
        let garbage = random.bytes(300);
        assert!(decode(&garbage, 100).is_err());
        // Garbage behind a sound beginning.
        let (_, mut bytes) = small();
        let kept = usize::try_from(random.below(bytes.len() as u64)).unwrap();
        bytes.truncate(kept);
        bytes.extend(random.bytes(300));
        assert!(decode(&bytes, 1000).is_err(), "behind {kept}");
    }
    let mut prelude = MAGIC.to_vec();
    prelude.extend_from_slice(&2_u32.to_le_bytes());
    let sum = checksum(0, &prelude);
    prelude.extend_from_slice(&sum.to_le_bytes());
    prelude.extend_from_slice(b"who knows what");
    let expected = Fault::FutureFormat { version: 2 };
    assert_eq!(decode(&prelude, 5), Err(expected));
    // A length of 4 GiB with a sound checksum takes no memory.
    let (_, mut bytes) = small();
    bytes.truncate(PRELUDE);
    let head = [1_u32.to_le_bytes(), u32::MAX.to_le_bytes()].concat();
    let sum = checksum(u32_at(&bytes, PRELUDE - CHECKSUM), &head);
    bytes.extend_from_slice(&head);
    bytes.extend_from_slice(&sum.to_le_bytes());
    assert_eq!(decode(&bytes, 5), Err(Fault::Truncated));
}

#[test]
fn snapshots_of_other_places_and_times_are_refused() {
    let place = header(0);
    let check = |change: fn(&mut Header), expected: &str| {
        let mut other = header(9);
        change(&mut other);
        let said = other.belongs_to(&place).map_err(|fault| fault.to_string());
        match expected {
            "" => assert_eq!(said, Ok(())),
            text => assert!(said.unwrap_err().contains(text), "{text}"),
        }
    };
    check(|other| other.begun = 0, "");
    check(
        |other| other.pipeline = "q".into(),
        "of pipeline \"q\", not \"p\"",
    );
    check(|other| other.map = "x".into(), "of map \"x\"");
    check(|other| other.partition = 4, "of partition 4, not 3");
    check(|other| other.partitions = 9, "partitions are 9, not 8");
    check(|other| other.topic = 5, "a topic with id 0000");

    let day = Duration::from_secs(24 * 3600);
    let current = |start, now| header(7).is_current(start, now, day);
    let begun = header(7).begun;
    let hour = 3_600_000;
    assert_eq!(current(7, begun), Ok(()));
    assert_eq!(current(0, begun + 17 * hour), Ok(()));
    let below = Fault::BelowStart { from: 7, start: 8 };
    assert_eq!(current(8, begun), Err(below));
    let old = Fault::TooOld {
        age: day * 3 / 4,
        most: day * 3 / 4,
    };
    assert_eq!(current(0, begun + 18 * hour), Err(old));
    assert_eq!(current(0, begun - 1000), Ok(()));
    let undated = Fault::Undated(day / 24);
    assert_eq!(current(0, begun - hour), Err(undated));
    let trailer = Trailer { entries: 0, to: 9 };
    assert_eq!(trailer.is_within(9), Ok(()));
    let beyond = Fault::BeyondEnd { to: 9, end: 8 };
    assert_eq!(trailer.is_within(8), Err(beyond));
}

fn partition(limit: usize, end: i64) -> MapPartition {
    let share = Budget::new(limit, 1).share(0);
    MapPartition::new(
        Committed::new(1, Arc::default()),
        share,
        1,
        (0, end),
        LiveFrom::Changelog,
    )
}

fn contents(partition: &MapPartition) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let entries = partition.contents().entries();
    let slots = (0..entries.end()).filter_map(|slot| entries.get(slot));
    slots
        .map(|(key, value)| (key.to_vec(), value.to_vec()))
        .collect()
}

fn load(partition: &mut MapPartition, bytes: &[u8]) -> Trailer {
    let mut decoder = Decoder::default();
    decoder.feed(bytes);
    let mut from = 0;
    loop {
        match decoder.next_piece().unwrap().unwrap() {
            Piece::Header(header) => {
                from = header.from;
                partition.reserve(usize::try_from(header.entries).unwrap());
            }
            Piece::Entries(block) => partition.load(&block).unwrap(),
            Piece::End(trailer) => {
                partition.loaded(from, 0);
                return trailer;
            }
        }
    }
}

/// Changes come between the steps: keys go and come back in other slots, before and behind the walk.
#[test]
fn a_snapshot_and_the_tail_are_the_fold() {
    for seed in 0..30 {
        let mut random = Random(seed);
        let mut log: Vec<(Vec<u8>, Option<Vec<u8>>)> = Vec::new();
        let mut live = partition(usize::MAX, 0);
        let mut change = |live: &mut MapPartition, random: &mut Random| {
            let key = random.below(6000).to_le_bytes().to_vec();
            let value = (random.below(3) > 0).then(|| random.bytes(30));
            let offset = i64::try_from(log.len()).unwrap();
            live.fold(offset, &key, value.as_deref()).unwrap();
            log.push((key, value));
        };
        (0..10_000).for_each(|_| change(&mut live, &mut random));
        let (from, end) = (live.position(), live.contents().entries().end());
        let mut bytes = Vec::new();
        let before = Header {
            entries: live.contents().len() as u64,
            ..header(from)
        };
        let mut encoder = Encoder::new(&before, &mut bytes);
        let mut next = Some(0);
        while let Some(slot) = next {
            next = encoder.copy(live.contents().entries(), slot, end);
            encoder.flush(&mut bytes);
            (0..random.below(3000)).for_each(|_| change(&mut live, &mut random));
        }
        encoder.finish(live.position(), &mut bytes);
        (0..random.below(1000)).for_each(|_| change(&mut live, &mut random));

        let mut restored = partition(usize::MAX, live.position());
        let trailer = load(&mut restored, &bytes);
        assert!(trailer.to <= live.position());
        assert_eq!(restored.position(), from);
        assert!(matches!(restored.phase(), Phase::Restoring { .. }));
        let tail = (from..).zip(&log[usize::try_from(from).unwrap()..]);
        tail.for_each(|(offset, (key, value))| {
            restored.fold(offset, key, value.as_deref()).unwrap();
        });
        assert_eq!(restored.phase(), Phase::Live);
        assert_eq!(contents(&restored), contents(&live), "seed {seed}");
    }
}

#[test]
fn a_step_is_short() {
    let mut map = Committed::new(1, Arc::default());
    (0..3000_u32).for_each(|key| map.put(&key.to_le_bytes(), Some(b"v")));
    map.put(b"large", Some(&[0; STEP_BYTES]));
    map.put(b"last", Some(b"v"));
    let (mut out, end) = (Vec::new(), map.entries().end());
    let mut encoder = Encoder::new(&header(0), &mut out);
    let mut ends = Vec::new();
    let mut next = Some(0);
    while let Some(slot) = next {
        next = encoder.copy(map.entries(), slot, end);
        encoder.flush(&mut out);
        ends.push(next);
    }
    assert_eq!(ends, [Some(1024), Some(2048), Some(3001), None]);
}

#[test]
fn loading_stays_within_the_memory() {
    let entries: Vec<Entry> = (0..2000_u32)
        .map(|key| (key.to_le_bytes().to_vec(), vec![0; 1000]))
        .collect();
    let bytes = encode(&header(1), &entries, 1);
    for limit in [1 << 20, 3 << 20] {
        let budget = Budget::new(limit, 1);
        let contents = Committed::new(1, Arc::default());
        let mut partition =
            MapPartition::new(contents, budget.share(0), 1, (0, 9), LiveFrom::Changelog);
        let mut decoder = Decoder::default();
        decoder.feed(&bytes);
        let mut full = None;
        while let (None, Some(piece)) = (full, decoder.next_piece().unwrap()) {
            match piece {
                Piece::Header(_) => partition.reserve(entries.len()),
                Piece::Entries(block) => full = partition.load(&block).err(),
                Piece::End(_) => {}
            }
        }
        assert_eq!(full.is_some(), limit == 1 << 20);
        let footprint = partition.contents().footprint();
        assert!(footprint <= limit && footprint <= budget.used());
        if let Some(full) = full {
            assert_eq!(full.limit, limit);
            assert!(footprint > limit * 8 / 10, "{footprint}");
        }
    }
}
