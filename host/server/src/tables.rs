//! The pipeline's maps as steps read them: many keys at a time, out of what this process holds. And their own state, with the open
//! epoch's changes over it.
//!
//! Never says that a key is absent where it doesn't know: a map partition that isn't here or isn't restored, and a key of another
//! task's partition, are refusals. What is read of a table is committed; the open epoch's own changes are not seen.

use std::sync::{Arc, RwLockReadGuard};

use millstream_engine::pipeline::{MapId, Pipeline};
use millstream_engine::record::Column;
use millstream_engine::state::changelog;
use millstream_engine::state::overlay::{OVERLAY_BYTES_MAX, Overlay};
use millstream_engine::state::restore::{MapPartition, Phase};
use millstream_engine::task::run::RECORD_OVERHEAD;

use crate::directory::{Directory, MapPlace, SharedPartition};

/// What the values of one call may come to.
const VALUES_BYTES_MAX: usize = 64 << 20;

/// Characters of a key that a reason quotes.
const KEY_SHOWN_MAX: usize = 100;

#[derive(Debug)]
pub struct Tables {
    pipeline: Arc<Pipeline>,
    /// By map.
    partitions: Arc<[u32]>,
    /// The `max.message.bytes` of each map's topic.
    record_bytes: Arc<[usize]>,
    directory: Arc<Directory>,
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Another try, later, may succeed.
    #[error("partition {partition} of the table \"{map}\" is being restored")]
    NotReady { map: String, partition: u32 },
    #[error(
        "the table \"{map}\" has key \"{key}\" in partition {of}, but this record is of partition {here}: a table that is \
         not replicated answers for its own partition's keys only"
    )]
    Elsewhere {
        map: String,
        /// Cut, for people.
        key: String,
        of: u32,
        here: u32,
    },
    #[error("the values that \"{map}\" was asked for come to more than {VALUES_BYTES_MAX} bytes")]
    TooLarge { map: String },
    #[error("state \"{map}\" is changed under a null key: it takes a key to find a value again")]
    NullKey { map: String },
    #[error(
        "the change of key \"{key}\" in state \"{map}\" has {bytes} bytes as Kafka may frame it, more than its changelog's \
         max.message.bytes, {most}"
    )]
    ChangeTooLarge {
        map: String,
        /// Cut, for people.
        key: String,
        bytes: usize,
        most: usize,
    },
    #[error("one call changes state by more than {OVERLAY_BYTES_MAX} bytes")]
    ChangesTooLarge,
}

impl Tables {
    /// `partitions` and `record_bytes` are parallel to the pipeline's maps.
    pub fn new(
        pipeline: Arc<Pipeline>,
        (partitions, record_bytes): (Arc<[u32]>, Arc<[usize]>),
        directory: Arc<Directory>,
    ) -> Self {
        Self {
            pipeline,
            partitions,
            record_bytes,
            directory,
        }
    }

    /// A value for each key, null where the map has none and for a null key. `here` is the partition of the task that asks. Each
    /// partition is locked once, and until the values are copied.
    pub fn get(&self, map: MapId, here: u32, keys: &Column) -> Result<Column, Refusal> {
        let partitions = self.partitions[map.0];
        if self.pipeline.maps[map.0].replicated {
            let held = (0..partitions).map(|number| self.shared(map, number));
            let held: Vec<SharedPartition> = held.collect::<Result<_, _>>()?;
            let locked = (0..).zip(&held);
            let locked = locked.map(|(number, shared)| self.live(map, number, shared));
            let locked: Vec<RwLockReadGuard<'_, MapPartition>> =
                locked.collect::<Result<_, _>>()?;
            // Whoever writes the topic may put keys elsewhere than Java's clients would.
            let get = |key: &[u8]| {
                let likely = &locked[changelog::partition(key, partitions) as usize];
                let mut all = std::iter::once(likely).chain(&locked);
                Ok(all.find_map(|partition| partition.contents().get(key)))
            };
            return self.collect(map, keys, get);
        }
        let held = self.shared(map, here)?;
        let locked = self.live(map, here, &held)?;
        let get = |key: &[u8]| match locked.contents().get(key) {
            None if changelog::partition(key, partitions) != here => Err(Refusal::Elsewhere {
                map: self.name(map),
                key: shown(key),
                of: changelog::partition(key, partitions),
                here,
            }),
            found => Ok(found),
        };
        self.collect(map, keys, get)
    }

    /// A value for each key of a step's state, null where there is none and for a null key: as the open epoch has changed it, else as
    /// it is committed.
    pub fn state(
        &self,
        (map, here): MapPlace,
        overlay: &Overlay,
        keys: &Column,
    ) -> Result<Column, Refusal> {
        let held = self.shared(map, here)?;
        let locked = self.live(map, here, &held)?;
        self.collect(map, keys, |key| {
            let changed = overlay.get((map, here), key);
            Ok(changed.unwrap_or_else(|| locked.contents().get(key)))
        })
    }

    /// Changes a step's state, in the open epoch.
    pub fn change(
        &self,
        (map, here): MapPlace,
        overlay: &mut Overlay,
        (keys, values): (&Column, &Column),
        now: i64,
    ) -> Result<(), Refusal> {
        let most = self.record_bytes[map.0];
        for index in 0..keys.len() {
            let Some(key) = keys.get(index) else {
                return Err(Refusal::NullKey {
                    map: self.name(map),
                });
            };
            let value = values.get(index);
            let bytes = key.len() + value.map_or(0, <[u8]>::len) + RECORD_OVERHEAD;
            if bytes > most {
                return Err(Refusal::ChangeTooLarge {
                    map: self.name(map),
                    key: shown(key),
                    bytes,
                    most,
                });
            }
            overlay.put((map, here), key, value, now);
        }
        Ok(())
    }

    fn collect<'v>(
        &self,
        map: MapId,
        keys: &Column,
        get: impl Fn(&[u8]) -> Result<Option<&'v [u8]>, Refusal>,
    ) -> Result<Column, Refusal> {
        let mut values = Column::default();
        for index in 0..keys.len() {
            let value = keys.get(index).map_or(Ok(None), &get)?;
            if values.bytes().len() + value.map_or(0, <[u8]>::len) > VALUES_BYTES_MAX {
                return Err(Refusal::TooLarge {
                    map: self.name(map),
                });
            }
            values.push(value);
        }
        Ok(values)
    }

    fn shared(&self, map: MapId, partition: u32) -> Result<SharedPartition, Refusal> {
        let held = self.directory.get((map, partition));
        held.ok_or_else(|| self.not_ready(map, partition))
    }

    fn live<'s>(
        &self,
        map: MapId,
        number: u32,
        shared: &'s SharedPartition,
    ) -> Result<RwLockReadGuard<'s, MapPartition>, Refusal> {
        let partition = shared.read().expect("nobody panics with it held");
        match partition.phase() {
            Phase::Live => Ok(partition),
            Phase::Restoring { .. } => Err(self.not_ready(map, number)),
        }
    }

    fn not_ready(&self, map: MapId, partition: u32) -> Refusal {
        Refusal::NotReady {
            map: self.name(map),
            partition,
        }
    }

    fn name(&self, map: MapId) -> String {
        self.pipeline.maps[map.0].name.clone()
    }
}

fn shown(key: &[u8]) -> String {
    let mut text = String::from_utf8_lossy(key).replace(char::is_control, " ");
    if let Some((end, _)) = text.char_indices().nth(KEY_SHOWN_MAX) {
        text.truncate(end);
        text.push('…');
    }
    text
}

#[cfg(test)]
mod tests {
    use std::sync::RwLock;
    use std::time::Duration;

    use millstream_engine::pipeline::{Guarantee, Kept, Map};

    use super::*;
    use crate::map_memory::MapMemory;

    /// Two maps of three partitions, `own` and `all`; of both the keys a to z stand where they hash to, and `stray` in partition 0.
    fn tables(end: i64) -> Tables {
        let maps = [("own", false), ("all", true)].map(|(name, replicated)| Map {
            name: name.into(),
            kept: Kept::Topic(name.into()),
            replicated,
            index: Vec::new(),
        });
        let pipeline = Pipeline {
            name: "p".into(),
            guarantee: Guarantee::ExactlyOnce,
            interval: Duration::ZERO,
            sources: Vec::new(),
            topics: Vec::new(),
            steps: Vec::new(),
            sinks: Vec::new(),
            maps: maps.into(),
        };
        let directory = Arc::new(Directory::default());
        let memory = MapMemory::new(&pipeline, 64 << 20, 1, 1);
        for map in [MapId(0), MapId(1)] {
            for number in 0..3 {
                let mut partition = memory.partition(map, 0, end);
                for (offset, key) in (0..).zip(b'a'..=b'z') {
                    if changelog::partition(&[key], 3) == number {
                        let folded = partition.fold(offset, &[key], Some(&[key, key]));
                        folded.expect("there is room");
                    }
                }
                if number == 0 {
                    let folded = partition.fold(26, b"stray", Some(b"found"));
                    folded.expect("there is room");
                }
                partition.advance(27);
                directory.add([(&(map, number), &Arc::new(RwLock::new(partition)))]);
            }
        }
        let sizes = (vec![3, 3].into(), vec![1 << 20; 2].into());
        Tables::new(Arc::new(pipeline), sizes, directory)
    }

    fn get(
        tables: &Tables,
        map: usize,
        keys: &[Option<&str>],
    ) -> Result<Vec<Option<String>>, String> {
        let mut column = Column::default();
        keys.iter()
            .for_each(|key| column.push(key.map(str::as_bytes)));
        let values = tables.get(MapId(map), 0, &column);
        let values = values.map_err(|refusal| refusal.to_string())?;
        let text = |value: &[u8]| String::from_utf8_lossy(value).into_owned();
        Ok((0..values.len())
            .map(|at| values.get(at).map(text))
            .collect())
    }

    #[test]
    fn a_replicated_table_knows_every_key() {
        let keys = [
            Some("a"),
            None,
            Some("z"),
            Some("ä"),
            Some("stray"),
            Some("a"),
        ];
        let found = get(&tables(27), 1, &keys).expect("it is live");
        let texts: Vec<_> = found.iter().map(Option::as_deref).collect();
        let expected = [
            Some("aa"),
            None,
            Some("zz"),
            None,
            Some("found"),
            Some("aa"),
        ];
        assert_eq!(texts, expected);
    }

    #[test]
    fn a_key_of_another_partition_is_never_absent() {
        let tables = tables(27);
        let of = |number: u32| {
            let letters = (b'a'..=b'z').map(|letter| char::from(letter).to_string());
            let mut of = letters.filter(|key| changelog::partition(key.as_bytes(), 3) == number);
            of.next().expect("26 keys are in three partitions")
        };
        let (here, there) = (of(0), of(1));
        let found = get(&tables, 0, &[Some(&here), None, Some("stray")]).expect("they are here");
        assert_eq!(found, [Some(here.repeat(2)), None, Some("found".into())]);
        let expected = format!(
            "the table \"own\" has key \"{there}\" in partition 1, but this record is of partition 0: a table that is not \
             replicated answers for its own partition's keys only"
        );
        assert_eq!(get(&tables, 0, &[Some(&here), Some(&there)]), Err(expected));
    }

    #[test]
    fn what_is_being_restored_is_no_answer() {
        for (map, name) in [(0, "own"), (1, "all")] {
            let expected = format!("partition 0 of the table \"{name}\" is being restored");
            assert_eq!(get(&tables(28), map, &[Some("a")]), Err(expected));
        }
    }
}
