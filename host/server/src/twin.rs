//! A process of the same pipeline and name on another host, which the seat's lock doesn't reach.
//!
//! Looked for before anything is fenced: who was there first goes on, and the second one ends. One that can't be asked is taken for dead:
//! should it live after all, the brokers let one of the two go on.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::Value;

use crate::cluster::{Cluster, instance_of};

const ANSWER_MAX: Duration = Duration::from_secs(1);

/// Where the other one answers, if there is one. `own` is where this process does.
pub fn find<C: Cluster>(cluster: &C, own: &str) -> Option<String> {
    let (pipeline, instance) = (cluster.pipeline(), cluster.instance());
    let members = cluster.group().ok()?.members.into_iter();
    let same = members.filter(|member| instance_of(&member.seat, pipeline) == Some(instance));
    let addresses: BTreeSet<String> = same.filter_map(|member| member.address).collect();
    addresses
        .into_iter()
        .filter(|address| address != own)
        .find(|address| {
            let status = ask(address).unwrap_or_default();
            status["pipeline"] == pipeline && status["instance"] == instance
        })
}

fn ask(address: &str) -> Option<Value> {
    let agent = ureq::Agent::config_builder()
        .timeout_global(Some(ANSWER_MAX))
        .build()
        .new_agent();
    let mut answer = agent
        .get(format!("http://{address}/v1/status"))
        .call()
        .ok()?;
    serde_json::from_str(&answer.body_mut().read_to_string().ok()?).ok()
}
