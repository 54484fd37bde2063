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
