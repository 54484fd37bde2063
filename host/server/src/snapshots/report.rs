//! What snapshots of a pipeline there are on this host, each read from end to end; and the removal of all of them.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use millstream_engine::state::snapshot::{Decoder, Fault, Header, Piece, Trailer};

use super::all_of;
use super::shelf::Shelf;
use crate::fault::{self, Disk};
use crate::wall_clock::now;

const READ_BYTES: usize = 256 << 10;

/// A file and what was found in it.
#[derive(Debug)]
pub struct Found {
    pub path: PathBuf,
    pub bytes: u64,
    pub verdict: Verdict,
}

#[derive(Debug)]
pub enum Verdict {
    Sound(Header, Trailer),
    Damaged(Fault),
    Unreadable(io::Error),
    /// It was found wrong at a restore.
    SetAside,
}

impl Found {
    pub fn is_damaged(&self) -> bool {
        matches!(self.verdict, Verdict::Damaged(_) | Verdict::Unreadable(_))
    }
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.path.display();
        match &self.verdict {
            Verdict::Sound(header, trailer) => {
                let age = now().saturating_sub(header.begun) / 1000;
                let age = Duration::from_secs(u64::try_from(age).unwrap_or(0));
                write!(
                    f,
                    "map {} partition {} of {}: {} entries, {} bytes, changelog offsets {} to {}, {age:?} old: valid\n  {path}",
                    header.map,
                    header.partition,
                    header.partitions,
                    trailer.entries,
                    self.bytes,
                    header.from,
                    trailer.to
                )
            }
            Verdict::Damaged(fault) => {
                write!(f, "{} bytes, not valid: {fault}\n  {path}", self.bytes)
            }
            Verdict::Unreadable(why) => write!(f, "can't be read: {why}\n  {path}"),
            Verdict::SetAside => {
                write!(f, "{} bytes, set aside at a restore\n  {path}", self.bytes)
            }
        }
    }
}

/// All snapshots of a pipeline, of whatever cluster, by map, partition and age.
pub fn look(state: &Path, pipeline: &str) -> io::Result<Vec<Found>> {
    let mut found = Vec::new();
    for ((map, number), shelf) in shelves(state, pipeline)? {
        for file in shelf.files()? {
            found.push(verify(file.path, pipeline, &map, number));
        }
        for path in shelf.rejected()? {
            found.push(Found {
                bytes: std::fs::metadata(&path)?.len(),
                path,
                verdict: Verdict::SetAside,
            });
        }
    }
    Ok(found)
}

/// By map and partition; of several clusters those of one partition stand side by side.
fn shelves(state: &Path, pipeline: &str) -> io::Result<Vec<((String, u32), Shelf)>> {
    let mut shelves = Vec::new();
    for cluster in folders(&all_of(state))?.into_values() {
        for (map, folder) in folders(&cluster.join(pipeline))? {
            for (number, folder) in folders(&folder)? {
                if let Ok(number) = number.parse() {
                    shelves.push(((map.clone(), number), Shelf::new(folder)));
                }
            }
        }
    }
    shelves.sort_by(|(one, _), (other, _)| one.cmp(other));
    Ok(shelves)
}

/// By name. None where there is no such folder.
fn folders(path: &Path) -> io::Result<BTreeMap<String, PathBuf>> {
    let entries = match std::fs::read_dir(path) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(BTreeMap::new()),
        Err(error) => return Err(error),
    };
    let mut found = BTreeMap::new();
    for entry in entries {
        let entry = entry?;
        if let (true, Ok(name)) = (entry.file_type()?.is_dir(), entry.file_name().into_string()) {
            found.insert(name, entry.path());
        }
    }
    Ok(found)
}

fn verify(path: PathBuf, pipeline: &str, map: &str, number: u32) -> Found {
    let bytes = std::fs::metadata(&path).map_or(0, |file| file.len());
    let verdict = match read(&path) {
        Ok(Ok((header, trailer))) => {
            let place = Header {
                pipeline: pipeline.into(),
                map: map.into(),
                partition: number,
                ..header.clone()
            };
            match header.belongs_to(&place) {
                Ok(()) => Verdict::Sound(header, trailer),
                Err(fault) => Verdict::Damaged(fault),
            }
        }
        Ok(Err(fault)) => Verdict::Damaged(fault),
        Err(why) => Verdict::Unreadable(why),
    };
    Found {
        path,
        bytes,
        verdict,
    }
}

fn read(path: &Path) -> io::Result<Result<(Header, Trailer), Fault>> {
    fault::disk(Disk::Read)?;
    let mut file = File::open(path)?;
    let mut decoder = Decoder::default();
    let mut buffer = vec![0; READ_BYTES];
    let (mut header, mut trailer) = (None, None);
    loop {
        fault::disk(Disk::Read)?;
        let read = file.read(&mut buffer)?;
        decoder.feed(&buffer[..read]);
        loop {
            match decoder.next_piece() {
                Ok(Some(Piece::Header(found))) => header = Some(found),
                Ok(Some(Piece::End(found))) => trailer = Some(found),
                Ok(Some(Piece::Entries(_))) => {}
                Ok(None) => break,
                Err(fault) => return Ok(Err(fault)),
            }
        }
        if read == 0 {
            let whole = header.zip(trailer).ok_or(Fault::Truncated);
            return Ok(decoder.finish().and(whole));
        }
    }
}

/// How many files there are of a pipeline on a cluster, given the folder of that cluster, and their bytes.
pub fn weigh(cluster: &Path, pipeline: &str) -> io::Result<(usize, u64)> {
    let (mut files, mut bytes) = (0, 0);
    for folder in folders(&cluster.join(pipeline))?.into_values() {
        for folder in folders(&folder)?.into_values() {
            for entry in std::fs::read_dir(folder)? {
                files += 1;
                bytes += entry?.metadata()?.len();
            }
        }
    }
    Ok((files, bytes))
}

/// Deletes all of them.
pub fn delete(cluster: &Path, pipeline: &str) -> io::Result<()> {
    match std::fs::remove_dir_all(cluster.join(pipeline)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
