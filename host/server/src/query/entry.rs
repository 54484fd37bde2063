//! One entry of a map, by key.

use axum::extract::{RawPathParams, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use millstream_engine::pipeline::MapId;
use millstream_engine::state::changelog;
use millstream_engine::state::restore::Phase;
use percent_encoding::percent_decode_str;

use super::{Refusal, Served};

/// `GET /v1/pipelines/{pipeline}/maps/{map}/entries/{key}`: the value as stored. The key is the rest of the path, percent-decoded
/// to bytes. The headers `millstream-partition` and `millstream-offset` say which changelog partition answered, and up to which
/// offset it had been folded.
pub async fn get(State(served): State<Served>, path: RawPathParams) -> Result<Response, Refusal> {
    let key = path
        .iter()
        .find(|(name, _)| *name == "key")
        .map_or("", |(_, key)| key);
    find(
        &served,
        &path,
        &percent_decode_str(key).collect::<Vec<u8>>(),
    )
}

/// The entry of the empty key.
pub async fn get_empty(
    State(served): State<Served>,
    path: RawPathParams,
) -> Result<Response, Refusal> {
    find(&served, &path, b"")
}

fn find(served: &Served, path: &RawPathParams, key: &[u8]) -> Result<Response, Refusal> {
    let map = named_map(served, path)?;
    let number = changelog::partition(key, served.map_partitions);
    let Some(partition) = served.directory.get((map, number)) else {
        return Err(elsewhere(served, number));
    };
    let partition = partition.read().expect("nobody panics with it held");
    if let Phase::Restoring { end } = partition.phase() {
        let at = partition.position();
        return Err(Refusal::new(
            StatusCode::SERVICE_UNAVAILABLE,
            format!("partition {number} is being restored: at changelog offset {at} of {end}"),
        ));
    }
    let Some(value) = partition.contents().get(key) else {
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

fn named_map(served: &Served, path: &RawPathParams) -> Result<MapId, Refusal> {
    let part = |name| {
        path.iter()
            .find(|(known, _)| *known == name)
            .map_or("", |(_, part)| part)
    };
    let (pipeline, map) = (part("pipeline"), part("map"));
    if pipeline != served.pipeline.name {
        return Err(Refusal::new(
            StatusCode::NOT_FOUND,
            format!("no pipeline is named \"{pipeline}\" here"),
        ));
    }
    let found = served
        .pipeline
        .maps
        .iter()
        .position(|known| known.name == map);
    found.map(MapId).ok_or_else(|| {
        Refusal::new(
            StatusCode::NOT_FOUND,
            format!("pipeline \"{pipeline}\" has no map named \"{map}\""),
        )
    })
}

fn elsewhere(served: &Served, number: u32) -> Refusal {
    if super::health::is_settled(served) {
        let error = format!("partition {number} is held by another instance of this pipeline");
        return Refusal::new(StatusCode::MISDIRECTED_REQUEST, error);
    }
    let error = format!("partition {number} is not assigned yet");
    Refusal::new(StatusCode::SERVICE_UNAVAILABLE, error)
}
