//! What the process says of itself: alive, ready, and what its workers do.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use millstream_engine::pipeline::{MapId, Pipeline, Target};
use millstream_engine::state::restore::Phase as MapPhase;
use serde_json::{Value, json};

use super::Served;
use crate::status::{Phase, WorkerStatus};

/// `GET /livez`: the process runs.
pub async fn live() -> &'static str {
    "alive\n"
}

/// `GET /readyz`: 200 once every worker has its partitions, and their maps and the replicated ones are restored, else 503; with how
/// far they are.
pub async fn ready(State(served): State<Served>) -> Response {
    let partitions = served.directory.all();
    let (mut restoring, mut left) = (0, 0);
    for (_, partition) in &partitions {
        let partition = partition.read().expect("nobody panics with it held");
        if let MapPhase::Restoring { end } = partition.phase() {
            restoring += 1;
            left = i64::saturating_add(left, end - partition.position());
        }
    }
    let maps = served.pipeline.maps.iter().zip(&served.partitions_of);
    let replicated = maps.filter(|(map, _)| map.replicated);
    let replicated: usize = replicated.map(|(_, &partitions)| partitions as usize).sum();
    let is_replicated = |map: usize| served.pipeline.maps[map].replicated;
    let held = partitions
        .iter()
        .filter(|((map, _), _)| is_replicated(map.0));
    let ready = is_settled(&served) && held.count() == replicated && restoring == 0;
    let body = json!({
        "ready": ready,
        "assigned": is_settled(&served),
        "map_partitions": partitions.len(),
        "restoring": restoring,
        "changelog_offsets_left": left,
    });
    let status = if ready {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    (status, Json(body)).into_response()
}

/// Whether every worker has what the group gives it, be it nothing.
pub fn is_settled(served: &Served) -> bool {
    let running = |status: &WorkerStatus| status.phase == Phase::Running;
    served
        .workers
        .iter()
        .all(|worker| running(&worker.lock().expect("nobody panics with it held")))
}

/// `GET /v1/status`: pipeline, workers and maps, with everything counted since the start.
pub async fn status(State(served): State<Served>) -> Json<Value> {
    let workers = served.workers.iter().enumerate().map(|(number, worker)| {
        let status = worker.lock().expect("nobody panics with it held").clone();
        worker_status(&served.pipeline, number, &status)
    });
    let maps = served.pipeline.maps.iter().enumerate().map(|(id, map)| {
        let held = super::path::held(&served, MapId(id));
        let partitions = held.iter().map(|(number, partition)| {
            let partition = partition.read().expect("nobody panics with it held");
            let state = match partition.phase() {
                MapPhase::Live => "live",
                MapPhase::Restoring { .. } => "restoring",
            };
            json!({
                "partition": number,
                "state": state,
                "changelog_offset": partition.position(),
                "entries": partition.contents().len(),
                "bytes": partition.contents().bytes(),
                "memory_bytes": partition.contents().footprint(),
                "indexes": super::maps::indexes(partition.contents()),
            })
        });
        let index: Vec<_> = map.index.iter().map(ToString::to_string).collect();
        json!({ "name": map.name, "index": index, "partitions": partitions.collect::<Vec<_>>() })
    });
    Json(json!({
        "version": env!("CARGO_PKG_VERSION"),
        "pipeline": served.pipeline.name,
        "instance": served.instance,
        "advertised": served.address,
        "revision": served.revision,
        "steps": served.steps.iter().map(|(name, plugin)| json!({ "name": name, "plugin": plugin })).collect::<Vec<_>>(),
        "workers": workers.collect::<Vec<_>>(),
        "maps": maps.collect::<Vec<_>>(),
        "memory": { "limit": served.memory.budget.limit(), "used": served.memory.budget.used() },
    }))
}

fn worker_status(pipeline: &Pipeline, number: usize, status: &WorkerStatus) -> Value {
    let phase = match status.phase {
        Phase::Joining => "joining",
        Phase::Running => "running",
        Phase::Ended => "ended",
    };
    let held = status.held.iter().map(|(at, offset)| {
        let topic = &pipeline.topics[at.topic.0].topic;
        json!({ "topic": topic, "partition": at.partition, "committed_offset": offset })
    });
    let stopped = status.stopped.iter().map(|stopped| {
        json!({
            "at": stopped.at,
            "topic": stopped.topic,
            "partition": stopped.partition,
            "offset": stopped.offset,
            "reason": stopped.reason,
        })
    });
    let retrying = status.retrying.as_ref();
    let retrying =
        retrying.map(|retrying| json!({ "epochs": retrying.epochs, "reason": retrying.reason }));
    let tally = &status.tally;
    let sinks = pipeline.sinks.iter().zip(&tally.sent).map(|(sink, sent)| {
        let (kind, target) = match &sink.target {
            Target::Topic(topic) => ("topic", topic),
            Target::Map(map) => ("map", &pipeline.maps[map.0].name),
            Target::Stream(topic) => ("stream", topic),
        };
        json!({ "name": sink.name, kind: target, "records": sent.records, "bytes": sent.bytes })
    });
    json!({
        "worker": number,
        "state": phase,
        "partitions": held.collect::<Vec<_>>(),
        "stopped": stopped.collect::<Vec<_>>(),
        "retrying": retrying,
        "records": tally.records,
        "bytes": tally.bytes,
        "failures": tally.failures_by_place(),
        "sinks": sinks.collect::<Vec<_>>(),
        "epochs": { "committed": tally.committed, "aborted": tally.aborted, "in_doubt": tally.in_doubt },
    })
}
