//! One entry of a map, by key.

use axum::extract::State;
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use millstream_engine::pipeline::MapId;
use millstream_engine::state::changelog;
use millstream_engine::state::restore::Phase;

use super::{Refusal, Served, path};

/// `GET /v1/pipelines/{pipeline}/maps/{map}/entries/{key}`: the value as stored. The key is the rest of the path, percent-decoded
/// to bytes; it may be empty, hold slashes, or be no text at all. The headers `millstream-partition` and `millstream-offset` say
/// which changelog partition answered, and up to which offset it had been folded.
pub async fn get(State(served): State<Served>, uri: Uri) -> Result<Response, Refusal> {
    let [pipeline, _, map, _, key] = path::parts(uri.path());
    let map = path::map(&served, pipeline, map)?;
    let key = path::decoded(key)?;
    let number = place_of(&served, map, &key);
    let Some(partition) = served.directory.get((map, number)) else {
        return Err(elsewhere(&served, map, number));
    };
    let partition = partition.read().expect("nobody panics with it held");
    if let Phase::Restoring { end } = partition.phase() {
        return Err(Refusal::restoring(number, partition.position(), end));
    }
    let Some(value) = partition.contents().get(&key) else {
        return Err(Refusal::new(
            StatusCode::NOT_FOUND,
            "the map has no such key",
        ));
    };
    let headers = [
        ("content-type", "application/octet-stream".to_owned()),
        ("millstream-partition", number.to_string()),
        ("millstream-offset", partition.position().to_string()),
    ];
    Ok((headers, value.to_vec()).into_response())
}

/// The partition that a key stands in: the one that it hashes to; of a replicated map, which is here in whole, any that holds it.
fn place_of(served: &Served, map: MapId, key: &[u8]) -> u32 {
    let partitions = served.partitions_of[map.0];
    let likely = changelog::partition(key, partitions);
    if !served.pipeline.maps[map.0].replicated {
        return likely;
    }
    let holds = |number: &u32| {
        served.directory.get((map, *number)).is_some_and(|shared| {
            let partition = shared.read().expect("nobody panics with it held");
            partition.contents().get(key).is_some()
        })
    };
    let mut all = std::iter::once(likely).chain(0..partitions);
    all.find(holds).unwrap_or(likely)
}

fn elsewhere(served: &Served, map: MapId, number: u32) -> Refusal {
    if served.pipeline.maps[map.0].replicated {
        let error = format!("partition {number} is not being read yet");
        return Refusal::new(StatusCode::SERVICE_UNAVAILABLE, error);
    }
    if super::health::is_settled(served) {
        let error = format!("partition {number} is held by another instance of this pipeline");
        return Refusal::new(StatusCode::MISDIRECTED_REQUEST, error);
    }
    let error = format!("partition {number} is not assigned yet");
    Refusal::new(StatusCode::SERVICE_UNAVAILABLE, error)
}
