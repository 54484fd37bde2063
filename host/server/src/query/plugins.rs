//! The plugins of a pipeline: which versions run, since when, and what became of reloads and rollbacks.

use axum::Json;
use axum::extract::State;
use axum::http::Uri;
use serde_json::{Value, json};

use super::{Hosted, Refusal, Served, path};
use crate::reload::{Fingerprint, Reload};

/// `GET /v1/pipelines/{pipeline}/plugins`: all of them, and the history of the pipeline.
pub async fn plugins(State(hosted): State<Hosted>, uri: Uri) -> Result<Json<Value>, Refusal> {
    let served = path::pipeline(&hosted, path::parts(uri.path())[0])?;
    let running = Fingerprint::of(&served.plugins.current());
    let names = running.digests.iter();
    let plugins: Vec<Value> = names
        .map(|(name, digest)| of_plugin(&served, name, digest))
        .collect();
    let history = served.plugins.history();
    let history: Vec<Value> = history.iter().map(of_pipeline).collect();
    let mut told = of_running(&served, &running);
    told["plugins"] = plugins.into();
    told["history"] = history.into();
    Ok(Json(told))
}

/// `GET /v1/pipelines/{pipeline}/plugins/{plugin}`: one of them, with what it was, or would have been, after each reload and rollback.
pub async fn plugin(State(hosted): State<Hosted>, uri: Uri) -> Result<Json<Value>, Refusal> {
    let [pipeline, _, name, ..] = path::parts(uri.path());
    let served = path::pipeline(&hosted, pipeline)?;
    let (name, digest) = named(&served, name)?;
    let history = served.plugins.history();
    let history = history.iter().map(|reload| {
        let version = reload.version.as_ref();
        let mut told = of_reload(reload);
        told["digest"] = version.and_then(|version| version.digest(&name)).into();
        told
    });
    let history: Vec<Value> = history.collect();
    let mut told = of_plugin(&served, &name, &digest);
    let running = Fingerprint::of(&served.plugins.current());
    let around = of_running(&served, &running);
    for key in ["revision", "since", "earlier"] {
        told[key] = around[key].clone();
    }
    told["history"] = history.into();
    Ok(Json(told))
}

/// Name and digest of a plugin that runs, by a part of a path.
pub fn named(served: &Served, name: &str) -> Result<(String, String), Refusal> {
    let name = path::decoded(name)?;
    let running = Fingerprint::of(&served.plugins.current());
    let mut digests = running.digests.into_iter();
    let found = digests.find(|(known, _)| known.as_bytes() == name);
    found.ok_or_else(|| path::unknown("plugin", &name))
}

fn of_running(served: &Served, running: &Fingerprint) -> Value {
    let earlier = served.plugins.earlier();
    let earlier = earlier.map(|version| Fingerprint::of(&version.steps).revision);
    json!({ "revision": running.revision, "since": served.plugins.since(), "earlier": earlier })
}

fn of_plugin(served: &Served, name: &str, digest: &str) -> Value {
    let steps = served.plugins.current();
    let own = steps.iter().filter(|step| step.plugin_name == name);
    let steps = own.map(|step| json!({ "name": step.name, "plugin": step.description }));
    let pipeline = &served.pipeline.name;
    json!({
        "name": name,
        "digest": digest,
        "steps": steps.collect::<Vec<_>>(),
        "at": format!("/v1/pipelines/{pipeline}/plugins/{name}"),
    })
}

fn of_pipeline(reload: &Reload) -> Value {
    let digests = reload.version.as_ref().map(|version| {
        let digests = version.digests.iter();
        let digests = digests.map(|(name, digest)| (name.clone(), digest.as_str().into()));
        Value::Object(digests.collect())
    });
    let mut told = of_reload(reload);
    told["digests"] = digests.into();
    told
}

/// What there is to say of a reload or a rollback, but for digests.
pub fn of_reload(reload: &Reload) -> Value {
    let version = reload.version.as_ref();
    json!({
        "at": reload.at,
        "action": reload.action.word(),
        "by": reload.by.word(),
        "verdict": reload.verdict.word(),
        "why": reload.verdict.why(),
        "revision": version.map(|version| version.revision.as_str()),
    })
}
