//! What the process says of itself: alive, ready, and what its workers do.

use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use millstream_engine::pipeline::{MapId, Pipeline, Target};
use millstream_engine::state::restore::Phase as MapPhase;
use serde_json::{Value, json};

use super::{Hosted, Refusal, Served, Standing, path, plugins};
use crate::status::{Phase, WorkerStatus};

/// `GET /livez`: the process runs.
pub async fn live() -> &'static str {
    "alive\n"
}

/// How far a pipeline is, or several together.
struct Readiness {
    is_ready: bool,
    /// Every worker has its partitions.
    is_assigned: bool,
    /// Held, and of those being restored.
    partitions: usize,
    restoring: usize,
    offsets_left: i64,
}

impl Readiness {
    const READY: Self = Self {
        is_ready: true,
        is_assigned: true,
        partitions: 0,
        restoring: 0,
        offsets_left: 0,
    };

    fn of(standing: &Standing) -> Self {
        match standing {
            Standing::Running(served) => Self::of_running(served),
            Standing::Starting | Standing::Ended(_) => Self {
                is_ready: false,
                is_assigned: false,
                ..Self::READY
            },
        }
    }

    fn of_running(served: &Served) -> Self {
        let partitions = served.directory.all();
        let (mut restoring, mut offsets_left) = (0, 0);
        for (_, partition) in &partitions {
            let partition = partition.read().expect("nobody panics with it held");
            if let MapPhase::Restoring { end } = partition.phase() {
                restoring += 1;
                offsets_left = i64::saturating_add(offsets_left, end - partition.position());
            }
        }
        let maps = served.pipeline.maps.iter().zip(&served.partitions_of);
        let replicated = maps.filter(|(map, _)| map.replicated);
        let replicated: usize = replicated.map(|(_, &partitions)| partitions as usize).sum();
        let is_replicated = |map: usize| served.pipeline.maps[map].replicated;
        let held = partitions
            .iter()
            .filter(|((map, _), _)| is_replicated(map.0));
        let is_assigned = is_settled(served);
        Self {
            is_ready: is_assigned && held.count() == replicated && restoring == 0,
            is_assigned,
            partitions: partitions.len(),
            restoring,
            offsets_left,
        }
    }

    fn and(self, other: &Self) -> Self {
        Self {
            is_ready: self.is_ready && other.is_ready,
            is_assigned: self.is_assigned && other.is_assigned,
            partitions: self.partitions + other.partitions,
            restoring: self.restoring + other.restoring,
            offsets_left: self.offsets_left.saturating_add(other.offsets_left),
        }
    }

    fn answer(&self) -> Response {
        let body = json!({
            "ready": self.is_ready,
            "assigned": self.is_assigned,
            "map_partitions": self.partitions,
            "restoring": self.restoring,
            "changelog_offsets_left": self.offsets_left,
        });
        let status = if self.is_ready {
            StatusCode::OK
        } else {
            StatusCode::SERVICE_UNAVAILABLE
        };
        (status, Json(body)).into_response()
    }
}

/// `GET /readyz`: 200 once every worker has its partitions, and their maps and the replicated ones are restored, else 503; with how
/// far they are. Of all pipelines: one that has ended is not ready any more.
pub async fn ready(State(hosted): State<Hosted>) -> Response {
    let all = hosted.all().map(|(_, standing)| Readiness::of(&standing));
    let all = all.fold(Readiness::READY, |all, one| all.and(&one));
    all.answer()
}

/// `GET /v1/pipelines/{pipeline}/readyz`: the same of one.
pub async fn one_ready(State(hosted): State<Hosted>, uri: Uri) -> Result<Response, Refusal> {
    let served = path::pipeline(&hosted, path::parts(uri.path())[0])?;
    Ok(Readiness::of_running(&served).answer())
}

/// Whether every worker has what the group gives it, be it nothing.
pub fn is_settled(served: &Served) -> bool {
    let running = |status: &WorkerStatus| status.phase == Phase::Running;
    served
        .workers
        .iter()
        .all(|worker| running(&worker.lock().expect("nobody panics with it held")))
}

/// `GET /v1/status`: pipelines, their workers and maps, with everything counted since the start.
pub async fn status(State(hosted): State<Hosted>) -> Json<Value> {
    let pipelines = hosted.all().map(|(name, standing)| {
        let mut told = match &standing {
            Standing::Running(served) => of_running(served),
            Standing::Starting => json!({ "workers": [], "maps": [] }),
            Standing::Ended(why) => json!({ "workers": [], "maps": [], "error": why }),
        };
        told["name"] = name.into();
        told["state"] = standing.word().into();
        told
    });
    Json(json!({
        "version": env!("CARGO_PKG_VERSION"),
        "instance": hosted.instance(),
        "advertised": hosted.address(),
        "pipelines": pipelines.collect::<Vec<_>>(),
    }))
}

fn of_running(served: &Served) -> Value {
    let workers = served.workers.iter().enumerate().map(|(number, worker)| {
        let status = worker.lock().expect("nobody panics with it held").clone();
        worker_status(&served.pipeline, number, &status)
    });
    let maps = served.pipeline.maps.iter().enumerate().map(|(id, map)| {
        let held = path::held(served, MapId(id));
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
    let steps = served.plugins.current();
    let steps = steps.iter().map(|step| {
        let digest = step.plugin.digest();
        json!({ "name": step.name, "plugin": step.description, "digest": digest })
    });
    let history = served.plugins.history();
    let reloads: Vec<Value> = history.iter().map(plugins::of_reload).collect();
    json!({
        "revision": served.plugins.revision(),
        "reloads": reloads,
        "steps": steps.collect::<Vec<_>>(),
        "workers": workers.collect::<Vec<_>>(),
        "maps": maps.collect::<Vec<_>>(),
        "memory": { "limit": served.memory.budget.limit(), "used": served.memory.budget.used() },
    })
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
