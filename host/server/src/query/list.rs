//! The entries of a map, page by page: all of them, or those that a search finds.
//!
//! A page is put together in short steps. Between two of them the partition's lock is free and other requests have their turn.
//! Invariant: no step holds a lock for much longer than a millisecond, unless a single entry is that large.

use axum::extract::State;
use axum::http::Uri;
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use millstream_engine::json;
use millstream_engine::pipeline::MapId;
use millstream_engine::state::restore::Phase;
use millstream_engine::state::search::{Bounds, Search};

use super::cursor::Cursor;
use super::parameters::{self, Parameters};
use super::{Refusal, Served, path};
use crate::directory::SharedPartition;

/// Slots, and bytes of keys and values, that one step looks at.
const STEP_SLOTS: usize = 1024;
const STEP_BYTES: usize = 256 << 10;

/// The same of one request. Past it, the page ends with fewer entries than it may have, and a cursor.
pub const PAGE_SLOTS_MAX: usize = 50_000;
pub const PAGE_BYTES_MAX: usize = 16 << 20;

/// `GET /v1/pipelines/{pipeline}/maps/{map}/entries`: a page, and the cursor of the next one.
pub async fn list(State(served): State<Served>, uri: Uri) -> Result<Response, Refusal> {
    let [pipeline, _, map, ..] = path::parts(uri.path());
    let map = path::map(&served, pipeline, map)?;
    let parameters = parameters::read(uri.query().unwrap_or_default(), map)?;
    let held = path::held_and_live(&served, map)?;
    let numbers: Vec<u32> = held.iter().map(|(number, _)| *number).collect();
    let mut page = Page::new(&parameters);
    let next = page.fill(&parameters, map, &held).await?;
    let body = page.finish(next, &numbers, served.partitions_of[map.0]);
    Ok(([("content-type", "application/json")], body).into_response())
}

struct Page {
    /// `{"entries":[` and the entries so far.
    body: Vec<u8>,
    entries: usize,
    limit: usize,
    /// Looked at so far.
    slots: usize,
    bytes: usize,
}

impl Page {
    fn new(parameters: &Parameters) -> Self {
        Self {
            body: b"{\"entries\":[".to_vec(),
            entries: 0,
            limit: parameters.limit,
            slots: 0,
            bytes: 0,
        }
    }

    fn is_full(&self) -> bool {
        self.entries == self.limit || self.slots >= PAGE_SLOTS_MAX || self.bytes >= PAGE_BYTES_MAX
    }

    /// Goes over the partitions in the order of their numbers. The cursor is where the page is full; none at the end of the map.
    async fn fill(
        &mut self,
        parameters: &Parameters,
        map: MapId,
        held: &[(u32, SharedPartition)],
    ) -> Result<Option<Cursor>, Refusal> {
        let first = parameters.after.map_or(0, |cursor| cursor.partition);
        let rest = &held[held.partition_point(|(number, _)| *number < first)..];
        let mut after = parameters.after;
        if let Some(cursor) = after
            && rest
                .first()
                .is_none_or(|(number, _)| *number != cursor.partition)
        {
            return Err(cursor.is_elsewhere());
        }
        for (number, partition) in rest {
            let mut at = after.take();
            loop {
                if self.is_full() {
                    let life = || partition.read().expect("nobody panics with it held").life();
                    return Ok(Some(at.unwrap_or_else(|| Cursor {
                        map,
                        partition: *number,
                        slot: 0,
                        life: life(),
                    })));
                }
                at = self.step(&parameters.search, (map, *number), partition, at)?;
                if at.is_none() {
                    break;
                }
                tokio::task::yield_now().await;
            }
        }
        Ok(None)
    }

    /// Where the next step in this partition begins; none at its end.
    fn step(
        &mut self,
        search: &Search,
        (map, number): (MapId, u32),
        partition: &SharedPartition,
        at: Option<Cursor>,
    ) -> Result<Option<Cursor>, Refusal> {
        let partition = partition.read().expect("nobody panics with it held");
        let life = partition.life();
        if let Some(at) = at
            && at.slot > 0
            && at.life != life
        {
            return Err(Cursor::is_stale());
        }
        if let Phase::Restoring { end } = partition.phase() {
            return Err(Refusal::restoring(number, partition.position(), end));
        }
        let bounds = Bounds {
            slots: STEP_SLOTS,
            bytes: STEP_BYTES,
            hits: self.limit - self.entries,
        };
        let from = at.map_or(0, |at| at.slot);
        let step = search.step(partition.contents(), from, bounds, |_, key, value| {
            self.add(key, value);
        });
        self.slots += step.slots;
        self.bytes += step.bytes;
        Ok(step.next.map(|slot| Cursor {
            map,
            partition: number,
            slot,
            life,
        }))
    }

    fn add(&mut self, key: &[u8], value: &[u8]) {
        let body = &mut self.body;
        if self.entries > 0 {
            body.push(b',');
        }
        self.entries += 1;
        if let Ok(key) = std::str::from_utf8(key) {
            body.extend_from_slice(b"{\"key\":");
            push_json(body, key);
        } else {
            body.extend_from_slice(b"{\"key_base64\":");
            push_json(body, &STANDARD.encode(key));
        }
        if json::is_json(value) {
            body.extend_from_slice(b",\"value\":");
            body.extend_from_slice(value);
        } else {
            body.extend_from_slice(b",\"value_base64\":");
            push_json(body, &STANDARD.encode(value));
        }
        body.push(b'}');
    }

    fn finish(mut self, next: Option<Cursor>, held: &[u32], of: u32) -> Vec<u8> {
        let body = &mut self.body;
        body.extend_from_slice(b"],\"next\":");
        push_json(body, &next.map(|cursor| cursor.write()));
        body.extend_from_slice(b",\"partitions\":{\"held\":");
        push_json(body, &held);
        body.extend_from_slice(b",\"of\":");
        push_json(body, &of);
        body.extend_from_slice(b"}}");
        self.body
    }
}

fn push_json(body: &mut Vec<u8>, value: &(impl serde::Serialize + ?Sized)) {
    serde_json::to_writer(body, value)
        .expect("texts, numbers and lists of them can be written to memory");
}
