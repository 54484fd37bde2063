//! What paths and queries name: percent-encoding, pipelines, maps and their partitions.

use std::sync::Arc;

use axum::http::StatusCode;
use millstream_engine::pipeline::MapId;
use percent_encoding::percent_decode_str;

use super::{Hosted, Refusal, Served, health};
use crate::directory::SharedPartition;

/// Percent-decoded. A percent sign without two hexadecimal digits is refused: it would stand for itself in one reader and not in
/// another.
pub fn decoded(text: &str) -> Result<Vec<u8>, Refusal> {
    for (at, _) in text.match_indices('%') {
        let digits = text.as_bytes().get(at + 1..at + 3);
        if !digits.is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit)) {
            let found: String = text[at..].chars().take(3).collect();
            return Err(Refusal::bad(format!(
                "{found:?} is not a percent-encoded byte"
            )));
        }
    }
    Ok(percent_decode_str(text).collect())
}

/// The parts of a path behind `/v1/pipelines/`, still encoded: a pipeline, `maps`, a map, `entries`, and the rest as it is; or a pipeline,
/// `plugins`, a plugin.
pub fn parts(path: &str) -> [&str; 5] {
    let mut parts = path.splitn(8, '/').skip(3);
    std::array::from_fn(|_| parts.next().unwrap_or_default())
}

/// The pipeline of that name, if this process runs it.
pub fn pipeline(hosted: &Hosted, name: &str) -> Result<Arc<Served>, Refusal> {
    let name = decoded(name)?;
    let found = std::str::from_utf8(&name).ok();
    let found = found.and_then(|name| hosted.of(name));
    found.unwrap_or_else(|| Err(unknown("pipeline", &name)))
}

pub fn map(served: &Served, map: &str) -> Result<MapId, Refusal> {
    let name = decoded(map)?;
    let maps = &served.pipeline.maps;
    let found = maps.iter().position(|known| known.name.as_bytes() == name);
    found.map(MapId).ok_or_else(|| unknown("map", &name))
}

/// Nothing of the kind has this name.
pub fn unknown(what: &str, name: &[u8]) -> Refusal {
    let name = String::from_utf8_lossy(name);
    Refusal::new(
        StatusCode::NOT_FOUND,
        format!("no {what} is named \"{name}\" here"),
    )
}

/// The partitions of a map that are held here, by number.
pub fn held(served: &Served, map: MapId) -> Vec<(u32, SharedPartition)> {
    let all = served.directory.all().into_iter();
    all.filter(|((of, _), _)| *of == map)
        .map(|((_, number), partition)| (number, partition))
        .collect()
}

/// Why a partition can't be answered from here, to another instance that thought so; or, of a replicated map, to anybody.
pub fn not_here(served: &Served, map: MapId, number: u32) -> Refusal {
    if served.pipeline.maps[map.0].replicated {
        let error = format!("partition {number} is not being read yet");
        return Refusal::new(StatusCode::SERVICE_UNAVAILABLE, error);
    }
    let error = match health::is_settled(served) {
        true => format!("partition {number} is not held here"),
        false => format!("partition {number} is not held here, or not taken yet"),
    };
    Refusal::new(StatusCode::MISDIRECTED_REQUEST, error)
}
