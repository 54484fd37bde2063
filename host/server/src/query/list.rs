//! The entries of a map, page by page: all of them, or those that a search finds; wherever their partitions are.
//!
//! A page is put together in short steps. Between two of them the partition's lock is free and other requests have their turn.
//! Invariant: no step holds a lock for much longer than a millisecond, unless a single entry is that large.

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use millstream_engine::json;
use millstream_engine::pipeline::MapId;
use millstream_engine::state::restore::Phase;
use millstream_engine::state::search::{Bounds, Search};
use serde_json::value::RawValue;

use super::cursor::Cursor;
use super::parameters::{self, Parameters};
use super::peers::Answer;
use super::routing::{self, PAGE_WEIGHT};
use super::{Hosted, Refusal, Served, path};
use crate::directory::SharedPartition;

/// Slots, and bytes of keys and values, that one step looks at.
const STEP_SLOTS: usize = 1024;
const STEP_BYTES: usize = 256 << 10;

/// The same of one request. Past it, the page ends with fewer entries than it may have, and a cursor.
pub const PAGE_SLOTS_MAX: usize = 50_000;
pub const PAGE_BYTES_MAX: usize = 16 << 20;

/// Of an answer to another instance: slots and bytes that were looked at.
const LOOKED: &str = "millstream-looked";

/// `GET /v1/pipelines/{pipeline}/maps/{map}/entries`: a page, and the cursor of the next one. Partitions that others hold are asked of
/// them, one after another, as far as the page goes.
pub async fn list(
    State(hosted): State<Hosted>,
    headers: HeaderMap,
    uri: Uri,
) -> Result<Response, Refusal> {
    let [pipeline, _, map, ..] = path::parts(uri.path());
    let served = path::pipeline(&hosted, pipeline)?;
    let map = path::map(&served, map)?;
    let of = served.partitions_of[map.0];
    let parameters = parameters::read(uri.query().unwrap_or_default(), map, of)?;
    let routed = routing::asked_for(&headers)?.is_some();
    let mut page = Page::new(&parameters);
    let listing = Listing {
        served: &served,
        map,
        uri: &uri,
        parameters: &parameters,
        routed,
    };
    let next = page.fill(&listing).await?;
    let looked = format!("{} {}", page.slots, page.bytes);
    let body = page.finish(next, of);
    let headers = [("content-type", "application/json".to_owned())];
    let looked = routed.then_some([(LOOKED, looked)]);
    Ok(match looked {
        Some(looked) => (headers, looked, body).into_response(),
        None => (headers, body).into_response(),
    })
}

/// What is asked for.
struct Listing<'a> {
    served: &'a Served,
    map: MapId,
    uri: &'a Uri,
    parameters: &'a Parameters,
    /// Another instance asks: what isn't held here is not asked of others.
    routed: bool,
}

/// A page of another instance; entries stay as they are.
#[derive(serde::Deserialize)]
struct Elsewhere<'a> {
    #[serde(borrow)]
    entries: Vec<&'a RawValue>,
    next: Option<String>,
}

struct Page {
    /// `{"entries":[` and the entries so far.
    body: Vec<u8>,
    entries: usize,
    limit: usize,
    /// Looked at so far.
    slots: usize,
    bytes: usize,
    /// The partitions that it goes over.
    asked: Vec<u32>,
}

impl Page {
    fn new(parameters: &Parameters) -> Self {
        Self {
            body: b"{\"entries\":[".to_vec(),
            entries: 0,
            limit: parameters.limit,
            slots: 0,
            bytes: 0,
            asked: Vec::new(),
        }
    }

    fn is_full(&self) -> bool {
        self.entries == self.limit || self.slots >= PAGE_SLOTS_MAX || self.bytes >= PAGE_BYTES_MAX
    }

    /// Goes over the partitions in the order of their numbers. The cursor is where the page is full; none at the end of the map.
    async fn fill(&mut self, listing: &Listing<'_>) -> Result<Option<Cursor>, Refusal> {
        let (served, map, parameters) = (listing.served, listing.map, listing.parameters);
        let mut after = parameters.after;
        let numbers = match parameters.partition {
            Some(only) => only..only + 1,
            None => 0..served.partitions_of[map.0],
        };
        let first = after.map_or(numbers.start, |cursor| cursor.partition);
        if !numbers.contains(&first) {
            return Err(Refusal::bad("the cursor stands in another partition"));
        }
        for number in first..numbers.end {
            let mut at = after.take();
            if self.is_full() {
                return Ok(Some(Cursor::begin(map, number)));
            }
            self.asked.push(number);
            loop {
                at = match served.directory.answering((map, number)) {
                    Some(partition) => {
                        self.step(&parameters.search, (map, number), &partition, at)?
                    }
                    None => self.step_elsewhere(listing, number, at).await?,
                };
                if at.is_none() {
                    break;
                }
                if self.is_full() {
                    return Ok(at);
                }
                tokio::task::yield_now().await;
            }
        }
        Ok(None)
    }

    /// The same step, as far as it goes, by the instance that holds the partition.
    async fn step_elsewhere(
        &mut self,
        listing: &Listing<'_>,
        number: u32,
        at: Option<Cursor>,
    ) -> Result<Option<Cursor>, Refusal> {
        let served = listing.served;
        if listing.routed || served.pipeline.maps[listing.map.0].replicated {
            return Err(path::not_here(served, listing.map, number));
        }
        let query = listing.uri.query().unwrap_or_default();
        let left = self.limit - self.entries;
        let query = parameters::for_partition(query, left, number, at);
        let target = format!("{}?{query}", listing.uri.path());
        let answers = served.routing.ask(&target, vec![number], PAGE_WEIGHT).await;
        let answer = match answers.into_iter().next() {
            Some((_, answer)) => answer?,
            None => return Err(path::not_here(served, listing.map, number)),
        };
        match answer.status {
            StatusCode::OK => self.take_over(listing.map, &answer),
            StatusCode::SERVICE_UNAVAILABLE | StatusCode::BAD_REQUEST => {
                Err(Refusal::new(answer.status, answer.error()))
            }
            _ => {
                let error = format!(
                    "the instance that holds partition {number} runs another version of this pipeline: {}",
                    answer.error()
                );
                Err(Refusal::new(StatusCode::SERVICE_UNAVAILABLE, error))
            }
        }
    }

    fn take_over(&mut self, map: MapId, answer: &Answer) -> Result<Option<Cursor>, Refusal> {
        let bad = |why: String| {
            let error = format!("the answer of another instance is no page: {why}");
            Refusal::new(StatusCode::SERVICE_UNAVAILABLE, error)
        };
        let page: Elsewhere<'_> =
            serde_json::from_slice(&answer.body).map_err(|why| bad(why.to_string()))?;
        if page.entries.len() > self.limit - self.entries {
            return Err(bad("it has more entries than were asked for".into()));
        }
        for entry in page.entries {
            self.begin_entry();
            self.body.extend_from_slice(entry.get().as_bytes());
        }
        let looked = answer
            .header(LOOKED)
            .and_then(|looked| looked.split_once(' '));
        let (slots, bytes) = looked.unwrap_or_default();
        self.slots += slots.parse().unwrap_or(STEP_SLOTS);
        self.bytes += bytes.parse().unwrap_or(STEP_BYTES);
        let next = page.next.map(|next| Cursor::read(next.as_bytes(), map));
        next.transpose()
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
        self.begin_entry();
        let body = &mut self.body;
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

    fn begin_entry(&mut self) {
        if self.entries > 0 {
            self.body.push(b',');
        }
        self.entries += 1;
    }

    fn finish(mut self, next: Option<Cursor>, of: u32) -> Vec<u8> {
        let body = &mut self.body;
        body.extend_from_slice(b"],\"next\":");
        push_json(body, &next.map(|cursor| cursor.write()));
        body.extend_from_slice(b",\"partitions\":{\"asked\":");
        push_json(body, &self.asked);
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
