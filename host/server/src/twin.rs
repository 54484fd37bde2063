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
            let answer = ask(&format!("http://{address}/v1/status"), ANSWER_MAX);
            let status: Value =
                serde_json::from_str(&answer.unwrap_or_default()).unwrap_or_default();
            status["pipeline"] == pipeline && status["instance"] == instance
        })
}

/// The answer of a process, as it is.
pub fn ask(url: &str, timeout: Duration) -> Result<String, ureq::Error> {
    let agent = ureq::Agent::config_builder()
        .timeout_global(Some(timeout))
        .build()
        .new_agent();
    agent.get(url).call()?.body_mut().read_to_string()
}
