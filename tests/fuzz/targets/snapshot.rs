//! Snapshots. Bytes that begin as one are taken as they are. Others say how to make one: a sound one that is then damaged, which must be
//! refused or be the same still; or one whose checksums are right and whose contents are anything.

#![no_main]

use std::collections::BTreeMap;
use std::sync::Arc;

use libfuzzer_sys::fuzz_target;
use millstream_engine::state::budget::Budget;
use millstream_engine::state::committed::Committed;
use millstream_engine::state::restore::{LiveFrom, MapPartition};
use millstream_engine::state::snapshot::{
    Decoder, Encoder, Fault, Header, Piece, Trailer, VERSION,
};
use millstream_fuzz::Draws;

const MAGIC: &[u8] = b"\x89MSsnap\n";

type Blocks = Vec<Vec<(Vec<u8>, Vec<u8>)>>;

/// What was handed out of a snapshot, be it to its end or not.
#[derive(Clone, Debug, Default, PartialEq)]
struct Contents {
    header: Option<Header>,
    blocks: Blocks,
    trailer: Option<Trailer>,
}

fuzz_target!(|data: &[u8]| {
    if data.starts_with(&MAGIC[..1]) {
        return check_any(data);
    }
    let mut draws = Draws(data);
    match draws.byte() % 2 {
        0 => check_damaged(&mut draws),
        _ => check_any(&forged(&mut draws)),
    }
});

/// However the bytes come, they are taken for the same; and what is accepted is what its contents are written as.
fn check_any(bytes: &[u8]) {
    let (read, end) = decode(bytes, bytes.len().max(1));
    assert_eq!(decode(bytes, 7), (read.clone(), end.clone()));
    if end.is_err() {
        return;
    }
    let written = encode(&read);
    let (mut again, end) = decode(&written, 4096);
    assert_eq!(end, Ok(()));
    let mut read = read;
    read.blocks.retain(|block| !block.is_empty());
    again.blocks.retain(|block| !block.is_empty());
    assert_eq!(again, read);
    check_loads(&read.blocks, &written);
}

/// A map partition that it is loaded into has the last value of each key.
fn check_loads(blocks: &Blocks, bytes: &[u8]) {
    let contents = Committed::new(1, Arc::default());
    let share = Budget::new(1 << 30, 1).share(0);
    let mut partition = MapPartition::new(contents, share, 1, (0, i64::MAX), LiveFrom::Changelog);
    let mut decoder = Decoder::default();
    decoder.feed(bytes);
    while let Some(piece) = decoder.next_piece().expect("it was read before") {
        if let Piece::Entries(block) = piece {
            partition.load(&block).expect("it fits into a GiB");
        }
    }
    let entries = blocks.iter().flatten();
    let expected: BTreeMap<&[u8], &[u8]> =
        entries.map(|(key, value)| (&key[..], &value[..])).collect();
    assert_eq!(partition.contents().len(), expected.len());
    for (key, value) in expected {
        assert_eq!(partition.contents().get(key), Some(value));
    }
}

fn check_damaged(draws: &mut Draws<'_>) {
    let sound = drawn(draws);
    let bytes = encode(&sound);
    let fed = 1 + draws.below(64);
    assert_eq!(decode(&bytes, fed), (sound.clone(), Ok(())));
    let mut damaged = bytes.clone();
    for _ in 0..=draws.below(3) {
        damage(draws, &mut damaged);
    }
    let (read, end) = decode(&damaged, fed);
    if end.is_ok() {
        assert_eq!(read, sound, "damage went unnoticed");
    }
    // What was handed out before is what stood there.
    assert!(read.header.is_none() || read.header == sound.header);
    assert!(sound.blocks.starts_with(&read.blocks));
    assert!(read.trailer.is_none() || read.trailer == sound.trailer);
}

fn damage(draws: &mut Draws<'_>, bytes: &mut Vec<u8>) {
    let place = |draws: &mut Draws<'_>| u32::from_le_bytes(draws.number()) as usize;
    let at = place(draws) % (bytes.len() + 1);
    match draws.below(6) {
        0 => bytes.truncate(at),
        1 => bytes.extend_from_slice(draws.bytes(40)),
        2 => {
            let end = (at + draws.below(256)).min(bytes.len());
            bytes.drain(at..end);
        }
        3 => {
            let end = (at + draws.below(256)).min(bytes.len());
            let twice = bytes[at..end].to_vec();
            bytes.splice(at..at, twice);
        }
        4 => {
            let with = draws.bytes(8).to_vec();
            let end = (at + with.len()).min(bytes.len());
            bytes.splice(at..end, with);
        }
        _ => {
            let bit = draws.below(8);
            if let Some(byte) = bytes.get_mut(at) {
                *byte ^= 1 << bit;
            }
        }
    }
}

fn drawn(draws: &mut Draws<'_>) -> Contents {
    let header = Header {
        pipeline: draws.text(20).into(),
        map: draws.text(20).into(),
        partition: draws.u32(),
        partitions: draws.u32(),
        topic: u128::from_le_bytes(draws.number()),
        from: draws.i64(),
        begun: draws.i64(),
        entries: u64::from_le_bytes(draws.number()),
    };
    let mut blocks = Vec::new();
    for _ in 0..draws.below(5) {
        let count = draws.below(4);
        let entry = |_| (draws.bytes(20).to_vec(), draws.bytes(60).to_vec());
        blocks.push((0..=count).map(entry).collect());
    }
    let entries = blocks.iter().map(Vec::len).sum::<usize>() as u64;
    let to = draws.i64();
    Contents {
        header: Some(header),
        blocks,
        trailer: Some(Trailer { entries, to }),
    }
}

fn encode(contents: &Contents) -> Vec<u8> {
    let mut out = Vec::new();
    let header = contents.header.as_ref().expect("a whole snapshot has one");
    let mut encoder = Encoder::new(header, &mut out);
    for block in &contents.blocks {
        for (key, value) in block {
            encoder.push(key, value);
        }
        encoder.flush(&mut out);
    }
    let trailer = contents.trailer.expect("a whole snapshot has one");
    assert_eq!(encoder.finish(trailer.to, &mut out), trailer);
    out
}

/// Fed in pieces of so many bytes.
fn decode(bytes: &[u8], fed: usize) -> (Contents, Result<(), Fault>) {
    let mut decoder = Decoder::default();
    let mut contents = Contents::default();
    for bytes in bytes.chunks(fed) {
        decoder.feed(bytes);
        loop {
            match decoder.next_piece() {
                Err(fault) => return (contents, Err(fault)),
                Ok(None) => break,
                Ok(Some(Piece::Header(header))) => contents.header = Some(header),
                Ok(Some(Piece::End(trailer))) => contents.trailer = Some(trailer),
                Ok(Some(Piece::Entries(block))) => {
                    assert_eq!(block.iter().count(), block.len());
                    let owned = |(key, value): (&[u8], &[u8])| (key.to_vec(), value.to_vec());
                    contents.blocks.push(block.iter().map(owned).collect());
                }
            }
        }
    }
    let end = decoder.finish();
    (contents, end)
}

/// Frames of any kind and contents, with checksums as the format wants them.
fn forged(draws: &mut Draws<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    let mut hasher = crc32fast::Hasher::new();
    let mut seal = |bytes: &[u8]| {
        hasher.update(bytes);
        out.extend_from_slice(bytes);
        out.extend_from_slice(&hasher.clone().finalize().to_le_bytes());
    };
    let version = match draws.once_in(16) {
        true => draws.u32(),
        false => VERSION,
    };
    seal(&[MAGIC, &version.to_le_bytes()].concat());
    let mut frames = frames(&drawn(draws));
    while draws.once_in(2) {
        let at = draws.below(frames.len());
        match draws.below(3) {
            0 => frames[at].0 = draws.u32(),
            1 => frames.swap(at, 0),
            _ => damage(draws, &mut frames[at].1),
        }
    }
    for (kind, body) in frames {
        seal(&[kind.to_le_bytes(), length(&body)].concat());
        seal(&body);
    }
    out
}

/// Kinds and bodies, as the head of `state/snapshot` says.
fn frames(contents: &Contents) -> Vec<(u32, Vec<u8>)> {
    let mut frames = Vec::new();
    if let Some(header) = &contents.header {
        let mut body = header.topic.to_le_bytes().to_vec();
        for number in [header.from, header.begun] {
            body.extend_from_slice(&number.to_le_bytes());
        }
        body.extend_from_slice(&header.entries.to_le_bytes());
        body.extend_from_slice(&header.partition.to_le_bytes());
        body.extend_from_slice(&header.partitions.to_le_bytes());
        for text in [&header.pipeline, &header.map] {
            body.extend_from_slice(&length(text.as_bytes()));
            body.extend_from_slice(text.as_bytes());
        }
        frames.push((1, body));
    }
    for block in &contents.blocks {
        let entry = |(key, value): &(Vec<u8>, Vec<u8>)| {
            [&length(key)[..], &length(value)[..], key, value].concat()
        };
        frames.push((2, block.iter().flat_map(entry).collect()));
    }
    if let Some(Trailer { entries, to }) = contents.trailer {
        frames.push((3, [entries.to_le_bytes(), to.to_le_bytes()].concat()));
    }
    frames
}

fn length(bytes: &[u8]) -> [u8; 4] {
    let length = u32::try_from(bytes.len());
    length
        .expect("texts and bodies are short here")
        .to_le_bytes()
}
