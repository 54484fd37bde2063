//! What the pipeline file grants an instance's step: tables to look up, and state of its own.
//!
//! Invariants: a plugin never holds a map that isn't granted; a handle names a map, not its contents, so that it outlives every
//! rebalance; the open epoch's changes are here only while a batch is processed.

use std::sync::Arc;

use millstream_engine::pipeline::{Grant, MapId};
use millstream_engine::record::Column;
use millstream_engine::state::overlay::{OVERLAY_BYTES_MAX, Overlay};
use wasmtime::Error;

use crate::directory::MapPlace;
use crate::tables::{Refusal, Tables};

/// The maps of a step.
#[derive(Debug)]
pub struct Grants {
    lookups: Vec<Grant>,
    state: Vec<Grant>,
    /// None where the pipeline doesn't run: an instance that is only asked what it needs.
    tables: Option<Arc<Tables>>,
    /// None between two batches.
    call: Option<Call>,
}

/// What there is while a batch is processed.
#[derive(Debug)]
struct Call {
    partition: u32,
    now: i64,
    /// Of the open epoch; empty where the step has no state.
    overlay: Overlay,
    /// What the overlay took when the call began.
    footprint: usize,
}

/// What is being asked for.
#[derive(Clone, Copy, Debug)]
pub enum Wanted {
    Lookup,
    State,
}

impl Grants {
    pub fn new((lookups, state): (&[Grant], &[Grant]), tables: Option<&Arc<Tables>>) -> Self {
        Self {
            lookups: lookups.to_vec(),
            state: state.to_vec(),
            tables: tables.cloned(),
            call: None,
        }
    }

    /// A batch of this partition is processed until [`Grants::end_batch`], which gives the overlay back.
    pub fn begin_batch(&mut self, partition: u32, now: i64, overlay: &mut Overlay) {
        let lent = if self.state.is_empty() {
            Overlay::new(0)
        } else {
            std::mem::replace(overlay, Overlay::new(0))
        };
        self.call = Some(Call {
            partition,
            now,
            footprint: lent.footprint(),
            overlay: lent,
        });
    }

    pub fn end_batch(&mut self, overlay: &mut Overlay) {
        if let Some(call) = self.call.take()
            && !self.state.is_empty()
        {
            *overlay = call.overlay;
        }
    }

    /// The map that is granted under a name.
    pub fn named(&self, wanted: Wanted, name: &str) -> Option<u32> {
        let granted = match wanted {
            Wanted::Lookup => &self.lookups,
            Wanted::State => &self.state,
        };
        let grant = granted.iter().find(|grant| grant.name == name)?;
        Some(u32::try_from(grant.map.0).expect("a pipeline file of 4 MiB has fewer maps"))
    }

    pub fn look_up(&self, map: u32, keys: &Column) -> wasmtime::Result<Column> {
        let (Some(tables), Some(call)) = (&self.tables, &self.call) else {
            return Err(out_of_call());
        };
        let values = tables.get(MapId(map as usize), call.partition, keys);
        values.map_err(Error::new)
    }

    pub fn state(&self, map: u32, keys: &Column) -> wasmtime::Result<Column> {
        let (Some(tables), Some(call)) = (&self.tables, &self.call) else {
            return Err(out_of_call());
        };
        let values = tables.state(call.place(map), &call.overlay, keys);
        values.map_err(Error::new)
    }

    pub fn change(&mut self, map: u32, keys: &Column, values: &Column) -> wasmtime::Result<()> {
        let (Some(tables), Some(call)) = (&self.tables, &mut self.call) else {
            return Err(out_of_call());
        };
        let place = call.place(map);
        let changed = tables.change(place, &mut call.overlay, (keys, values), call.now);
        changed.map_err(Error::new)?;
        if call.overlay.footprint() - call.footprint > OVERLAY_BYTES_MAX {
            return Err(Error::new(Refusal::ChangesTooLarge));
        }
        Ok(())
    }
}

impl Call {
    fn place(&self, map: u32) -> MapPlace {
        (MapId(map as usize), self.partition)
    }
}

fn out_of_call() -> Error {
    Error::msg("a table or state can be asked while a batch is processed, and not before")
}
