//! What a worker's steps wait for: the tables that they read, and their own state, up to the end that each had when the worker's
//! partitions were assigned.
//!
//! Invariant: the ends are taken after the stable offsets of the inputs were read, so that nothing that was committed before them is
//! missed.

use std::collections::BTreeMap;

use millstream_engine::pipeline::Pipeline;
use millstream_engine::state::restore::Phase;

use crate::directory::{Directory, MapPlace};

#[derive(Debug, Default)]
pub struct Awaited {
    /// The high watermark of each table partition's topic at the assignment.
    ends: BTreeMap<MapPlace, i64>,
}

impl Awaited {
    /// The table partitions that a worker's steps read who has been assigned these numbers, each with its topic's end as of now;
    /// `partitions` is parallel to the pipeline's maps.
    pub fn new(
        pipeline: &Pipeline,
        partitions: &[u32],
        numbers: &[u32],
        end: impl Fn(MapPlace) -> Result<i64, String>,
    ) -> Result<Self, String> {
        let mut ends = BTreeMap::new();
        for map in pipeline.read_by_steps() {
            let all: Vec<u32> = (0..partitions[map.0]).collect();
            let read = if pipeline.maps[map.0].replicated {
                &all
            } else {
                numbers
            };
            for &number in read {
                ends.insert((map, number), end((map, number))?);
            }
        }
        Ok(Self { ends })
    }

    /// Whether all of them have got there, and are not being folded anew.
    pub fn are_live(&self, directory: &Directory) -> bool {
        self.ends.iter().all(|(&place, &end)| {
            directory.get(place).is_some_and(|shared| {
                let partition = shared.read().expect("nobody panics with it held");
                partition.phase() == Phase::Live && partition.position() >= end
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, RwLock};
    use std::time::Duration;

    use millstream_engine::pipeline::{Grant, Guarantee, Kept, Map, MapId, OnError, Step};

    use super::*;
    use crate::directory::SharedPartition;
    use crate::map_memory::MapMemory;

    /// A pipeline whose step looks things up in a replicated map.
    fn pipeline() -> Pipeline {
        Pipeline {
            name: "p".into(),
            guarantee: Guarantee::ExactlyOnce,
            interval: Duration::ZERO,
            sources: Vec::new(),
            topics: Vec::new(),
            steps: vec![Step {
                name: "join".into(),
                inputs: Vec::new(),
                lookups: vec![Grant {
                    name: "countries".into(),
                    map: MapId(0),
                }],
                state: Vec::new(),
                on_error: OnError::Fail,
                retries: 0,
            }],
            sinks: Vec::new(),
            maps: vec![Map {
                name: "countries".into(),
                kept: Kept::Changelog,
                replicated: true,
                index: Vec::new(),
            }],
        }
    }

    /// Folded once, by the process; what the table has got since it was live is waited for all the same.
    #[test]
    fn a_table_is_awaited_as_it_is_at_the_assignment() {
        let pipeline = pipeline();
        let memory = MapMemory::new(&pipeline, 1 << 20, 1, 1);
        let directory = Directory::default();
        let places = [0, 1].map(|number| (MapId(0), number));
        let partitions: [SharedPartition; 2] =
            [(); 2].map(|()| Arc::new(RwLock::new(memory.partition(MapId(0), 0, 0))));
        directory.add(places.iter().zip(&partitions));
        let advance = |to: [i64; 2]| {
            for (partition, to) in partitions.iter().zip(to) {
                partition.write().unwrap().advance(to);
            }
        };
        advance([5, 5]);
        // Every partition of it, whatever the worker was assigned.
        let end = |(_, number)| Ok([5, 7][usize::try_from(number).unwrap()]);
        let awaited = Awaited::new(&pipeline, &[2], &[0], end).unwrap();
        assert!(!awaited.are_live(&directory));
        advance([5, 7]);
        assert!(awaited.are_live(&directory));
    }
}
