//! Where a listing goes on: opaque to clients, and of use for the map and the life of the partition that it comes from only.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use millstream_engine::pipeline::MapId;
use millstream_engine::state::changelog;

use super::Refusal;

/// Of what is encoded.
const VERSION: u8 = 1;

/// How many different checks there are.
const CHECKS: u32 = 1 << 16;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cursor {
    pub map: MapId,
    pub partition: u32,
    /// The first that was not looked at.
    pub slot: u32,
    /// Of the partition. Slots of another one mean nothing in it.
    pub life: u64,
}

impl Cursor {
    /// Version, map, partition, slot, life, and a check against cursors that were cut or mistyped.
    pub fn write(&self) -> String {
        let mut bytes = vec![VERSION];
        let map = u32::try_from(self.map.0).expect("a file of 4 MiB names fewer maps");
        bytes.extend_from_slice(&map.to_le_bytes());
        bytes.extend_from_slice(&self.partition.to_le_bytes());
        bytes.extend_from_slice(&self.slot.to_le_bytes());
        bytes.extend_from_slice(&self.life.to_le_bytes());
        let check = changelog::partition(&bytes, CHECKS);
        bytes.extend_from_slice(&check.to_le_bytes());
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// One that was written for this map.
    pub fn read(text: &[u8], map: MapId) -> Result<Self, Refusal> {
        let cursor = URL_SAFE_NO_PAD
            .decode(text)
            .ok()
            .and_then(|bytes| Self::of_bytes(&bytes));
        cursor.filter(|cursor| cursor.map == map).ok_or_else(|| {
            Refusal::bad("the cursor is not one of this map; take it from `next` as it is")
        })
    }

    fn of_bytes(bytes: &[u8]) -> Option<Self> {
        let (said, check) = bytes.split_last_chunk::<4>()?;
        if u32::from_le_bytes(*check) != changelog::partition(said, CHECKS) {
            return None;
        }
        let (version, rest) = said.split_first()?;
        let (map, rest) = rest.split_first_chunk()?;
        let (partition, rest) = rest.split_first_chunk()?;
        let (slot, rest) = rest.split_first_chunk()?;
        let life = rest.try_into().ok()?;
        (*version == VERSION).then(|| Self {
            map: MapId(u32::from_le_bytes(*map) as usize),
            partition: u32::from_le_bytes(*partition),
            slot: u32::from_le_bytes(*slot),
            life: u64::from_le_bytes(life),
        })
    }

    /// At the beginning of a partition, whatever life that has.
    pub fn begin(map: MapId, partition: u32) -> Self {
        Self {
            map,
            partition,
            slot: 0,
            life: 0,
        }
    }

    /// The partition that it stands in has gone, moved to another instance, or been read anew.
    pub fn is_stale() -> Refusal {
        Refusal::bad("the cursor is of an earlier life of this map; begin again")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_written_is_read() {
        let cursor = Cursor {
            map: MapId(1),
            partition: 3,
            slot: 70_000,
            life: u64::MAX,
        };
        let written = cursor.write();
        assert_eq!(
            Cursor::read(written.as_bytes(), MapId(1)).ok(),
            Some(cursor)
        );
        assert!(Cursor::read(written.as_bytes(), MapId(0)).is_err());
        for at in 0..written.len() {
            let mut damaged = written.clone().into_bytes();
            damaged[at] = if damaged[at] == b'A' { b'B' } else { b'A' };
            assert!(Cursor::read(&damaged, MapId(1)).is_err(), "{at}");
            assert!(
                Cursor::read(&written.as_bytes()[..at], MapId(1)).is_err(),
                "{at}"
            );
        }
    }
}
