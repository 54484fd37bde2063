//! The contract's `lookups` for one instance: which tables the pipeline file grants its step, and what they hold.
//!
//! Invariant: a plugin never holds a table that isn't granted. A handle names a map, not its contents: it outlives every rebalance.

use std::sync::Arc;

use millstream_engine::pipeline::{Lookup, MapId};
use millstream_engine::record::Column;
use wasmtime::component::Resource;

use super::bindings::millstream::plugin::lookups;
use super::instance::State;
use crate::tables::Tables;

/// What a step may look up.
#[derive(Clone, Debug)]
pub struct Grants {
    granted: Vec<Lookup>,
    /// None where the pipeline doesn't run: an instance that is only asked what it needs.
    tables: Option<Arc<Tables>>,
    /// Of the batch that is being processed; none between two.
    partition: Option<u32>,
}

impl Grants {
    pub fn new(granted: &[Lookup], tables: Option<&Arc<Tables>>) -> Self {
        Self {
            granted: granted.to_vec(),
            tables: tables.cloned(),
            partition: None,
        }
    }

    /// A batch of this partition is processed until [`Grants::end_batch`].
    pub fn begin_batch(&mut self, partition: u32) {
        self.partition = Some(partition);
    }

    pub fn end_batch(&mut self) {
        self.partition = None;
    }

    fn get(&self, map: MapId, keys: lookups::Column) -> wasmtime::Result<lookups::Column> {
        let (Some(tables), Some(partition)) = (&self.tables, self.partition) else {
            return Err(wasmtime::Error::msg(
                "a table can be asked while a batch is processed, and not before",
            ));
        };
        let keys = Column::from_parts(keys.bytes, keys.ends, keys.nulls);
        let keys =
            keys.map_err(|wrong| wasmtime::Error::msg(format!("keys to look up: {wrong}")))?;
        let values = tables.get(map, partition, &keys);
        let (bytes, ends, nulls) = values.map_err(wasmtime::Error::new)?.into_parts();
        Ok(lookups::Column { bytes, ends, nulls })
    }
}

impl lookups::Host for State {
    fn open(&mut self, name: String) -> Result<Resource<lookups::Lookup>, String> {
        let granted = &self.grants.granted;
        let found = granted.iter().find(|lookup| lookup.name == name);
        let lookup = found.ok_or_else(|| {
            format!(
                "the pipeline file grants step \"{}\" no table \"{name}\"",
                self.step
            )
        })?;
        let map = u32::try_from(lookup.map.0).expect("a pipeline file of 4 MiB has fewer maps");
        Ok(Resource::new_own(map))
    }
}

impl lookups::HostLookup for State {
    fn get(
        &mut self,
        lookup: Resource<lookups::Lookup>,
        keys: lookups::Column,
    ) -> wasmtime::Result<lookups::Column> {
        // The number is the one that open() put there: a guest has handles only, and wasmtime checks them.
        self.grants.get(MapId(lookup.rep() as usize), keys)
    }

    fn drop(&mut self, _: Resource<lookups::Lookup>) -> wasmtime::Result<()> {
        Ok(())
    }
}
