//! `millstream status`: what a running process says of itself, for people.

use std::net::SocketAddr;
use std::time::Duration;

use clap::Args;
use serde_json::Value;

use crate::supervisor::Failure;
use crate::twin;

const ANSWER_MAX: Duration = Duration::from_secs(10);

#[derive(Debug, Args)]
pub struct Arguments {
    /// Where the process answers HTTP.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8080")]
    http: SocketAddr,
    /// Print the answer of `/v1/status` as it is.
    #[arg(long)]
    json: bool,
}

pub fn main(arguments: &Arguments) -> Result<(), Failure> {
    let url = format!("http://{}/v1/status", arguments.http);
    let failed = |why: String| Failure::Status {
        url: url.clone(),
        why,
    };
    let body = twin::ask(&url, ANSWER_MAX).map_err(|why| failed(why.to_string()))?;
    if arguments.json {
        println!("{body}");
        return Ok(());
    }
    let status: Value = serde_json::from_str(&body).map_err(|why| failed(why.to_string()))?;
    print!("{}", show(&status));
    Ok(())
}

fn show(status: &Value) -> String {
    let mut text = String::new();
    for pipeline in list(&status["pipelines"]) {
        text += &format!(
            "pipeline {}, instance {}, version {}: {}\n",
            word(&pipeline["name"]),
            word(&status["instance"]),
            word(&status["version"]),
            word(&pipeline["state"])
        );
        text += &show_pipeline(pipeline);
    }
    text
}

fn show_pipeline(pipeline: &Value) -> String {
    let mut text = String::new();
    if let Some(why) = pipeline["error"].as_str() {
        text += &format!("  FAILED: {why}\n");
    }
    for step in list(&pipeline["steps"]) {
        text += &format!("step {}: {}\n", word(&step["name"]), word(&step["plugin"]));
    }
    for worker in list(&pipeline["workers"]) {
        text += &show_worker(worker);
    }
    for map in list(&pipeline["maps"]) {
        text += &show_map(map);
    }
    text
}

fn show_map(map: &Value) -> String {
    let partitions = list(&map["partitions"]);
    let sum = |field: &str| {
        partitions
            .iter()
            .filter_map(|p| p[field].as_u64())
            .sum::<u64>()
    };
    let live = partitions.iter().filter(|p| p["state"] == "live").count();
    let mut text = format!(
        "map {}: {} entries, {} bytes in {} partitions",
        word(&map["name"]),
        sum("entries"),
        sum("bytes"),
        partitions.len()
    );
    if live < partitions.len() {
        text += &format!(", {} of them being restored", partitions.len() - live);
    }
    text + "\n"
}

fn show_worker(worker: &Value) -> String {
    let epochs = &worker["epochs"];
    let mut text = format!(
        "worker {}: {}, {} records, epochs: {} committed, {} aborted, {} in doubt\n",
        worker["worker"],
        word(&worker["state"]),
        worker["records"],
        epochs["committed"],
        epochs["aborted"],
        epochs["in_doubt"]
    );
    for at in list(&worker["partitions"]) {
        let (topic, offset) = (word(&at["topic"]), &at["committed_offset"]);
        text += &format!("  {topic}[{}] committed up to {offset}\n", at["partition"]);
    }
    for sink in list(&worker["sinks"]) {
        text += &format!(
            "  sink {}: {} records\n",
            word(&sink["name"]),
            sink["records"]
        );
    }
    for (place, count) in worker["failures"].as_object().into_iter().flatten() {
        text += &format!("  {place}: {count} records failed\n");
    }
    for stopped in list(&worker["stopped"]) {
        text += &format!(
            "  STOPPED at {}[{}] offset {} in {}: {}\n",
            word(&stopped["topic"]),
            stopped["partition"],
            stopped["offset"],
            word(&stopped["at"]),
            word(&stopped["reason"])
        );
    }
    if let Some(reason) = worker["retrying"]["reason"].as_str() {
        let epochs = &worker["retrying"]["epochs"];
        text += &format!("  RETRYING, {epochs} epochs failed in a row: {reason}\n");
    }
    text
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn word(value: &Value) -> &str {
    value.as_str().unwrap_or("?")
}
