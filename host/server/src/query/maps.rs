//! Which pipelines and maps there are, and what the maps weigh.

use axum::Json;
use axum::extract::State;
use axum::http::Uri;
use millstream_engine::pipeline::MapId;
use millstream_engine::state::committed::Committed;
use millstream_engine::state::restore::Phase;
use serde_json::{Value, json};

use super::{Hosted, Refusal, Served, path};

/// `GET /v1/pipelines`: those of this process.
pub async fn pipelines(State(hosted): State<Hosted>) -> Json<Value> {
    let pipelines = hosted.all().map(|(name, standing)| {
        let maps = format!("/v1/pipelines/{name}/maps");
        json!({ "name": name, "state": standing.word(), "maps": maps })
    });
    Json(json!({ "pipelines": pipelines.collect::<Vec<_>>() }))
}

/// `GET /v1/pipelines/{pipeline}/maps`: the maps with their indexes, and what the partitions held here weigh.
pub async fn maps(State(hosted): State<Hosted>, uri: Uri) -> Result<Json<Value>, Refusal> {
    let served = path::pipeline(&hosted, path::parts(uri.path())[0])?;
    let maps = (0..served.pipeline.maps.len()).map(|map| of_map(&served, MapId(map)));
    Ok(Json(json!({ "maps": maps.collect::<Vec<_>>() })))
}

fn of_map(served: &Served, map: MapId) -> Value {
    let held = path::held(served, map);
    let (mut restoring, mut entries, mut bytes, mut memory) = (Vec::new(), 0, 0, 0);
    let mut indexes: Vec<usize> = vec![0; served.pipeline.maps[map.0].index.len()];
    for (number, partition) in &held {
        let partition = partition.read().expect("nobody panics with it held");
        if let Phase::Restoring { .. } = partition.phase() {
            restoring.push(number);
        }
        let contents = partition.contents();
        entries += contents.len();
        bytes += contents.bytes();
        memory += contents.footprint();
        for (sum, index) in indexes.iter_mut().zip(contents.indexes()) {
            *sum += contents.index_footprint(index);
        }
    }
    let told = &served.pipeline.maps[map.0];
    let pointers = told.index.iter().zip(indexes);
    let indexes = pointers
        .map(|(pointer, memory)| json!({ "pointer": pointer.to_string(), "memory_bytes": memory }));
    let (pipeline, name) = (&served.pipeline.name, &told.name);
    json!({
        "name": name,
        "entries_at": format!("/v1/pipelines/{pipeline}/maps/{name}/entries"),
        "partitions": {
            "held": held.iter().map(|(number, _)| number).collect::<Vec<_>>(),
            "restoring": restoring,
            "of": served.partitions_of[map.0],
        },
        "entries": entries,
        "bytes": bytes,
        "memory_bytes": memory,
        "indexes": indexes.collect::<Vec<_>>(),
    })
}

/// The indexes of one partition.
pub fn indexes(contents: &Committed) -> Vec<Value> {
    let indexes = contents.indexes().iter().map(|index| {
        json!({
            "pointer": index.pointer().to_string(),
            "scalars": index.scalars(),
            "entries": index.entries(),
            "memory_bytes": contents.index_footprint(index),
        })
    });
    indexes.collect()
}
