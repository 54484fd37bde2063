//! `millstream reset`: deletes what a pipeline has left in Kafka, and its snapshots on this host.

use std::io::{self, BufRead, IsTerminal, Write};
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::state::Place;
use super::{duration, read, runtime};
use crate::cluster::{Admin as _, Cluster as _};
use crate::config::Overrides;
use crate::kafka::Remains;
use crate::load;
use crate::snapshots::{self, report};
use crate::supervisor::Failure;

#[derive(Debug, Args)]
pub struct Arguments {
    /// The pipeline file.
    pipeline: PathBuf,
    /// Brokers to start from, in place of the file's `bootstrap.servers`.
    #[arg(long, value_name = "HOST:PORT")]
    bootstrap: Option<String>,
    /// Give up when no broker could be reached for so long.
    #[arg(long, value_name = "DURATION", value_parser = duration, default_value = "30s")]
    connect_timeout: Duration,
    /// Don't ask.
    #[arg(long)]
    yes: bool,
    #[command(flatten)]
    place: Place,
}

pub fn main(arguments: Arguments) -> Result<(), Failure> {
    let overrides = Overrides {
        bootstrap: arguments.bootstrap,
        embedded: false,
    };
    let config = read(&arguments.pipeline, &overrides, &runtime()?)?;
    let clients = load::clients(&config, "reset")?;
    let admin = clients.admin()?;
    admin.connect(Some(arguments.connect_timeout), || false)?;
    let pipeline = &config.pipeline;
    let sources = pipeline.topics.iter().map(|topic| topic.topic.as_str());
    let remains = admin.remains(&pipeline.name, &sources.collect::<Vec<_>>())?;
    // A cluster that has no id has no snapshots.
    let cluster = admin.cluster_id();
    let folder = cluster.map(|id| snapshots::folder_of(&arguments.place.folder(), &id));
    let weigh = |folder: &PathBuf| report::weigh(folder, &pipeline.name);
    let files = folder.as_ref().map_or(Ok((0, 0)), weigh);
    let files = files.map_err(unusable)?;
    if remains.is_empty() && files.0 == 0 {
        println!(
            "pipeline \"{}\" has left nothing on {}",
            pipeline.name,
            clients.bootstrap()
        );
        return Ok(());
    }
    show(&remains, files, clients.bootstrap());
    if !arguments.yes && !confirmed()? {
        println!("nothing was deleted");
        return Ok(());
    }
    admin.delete(&remains)?;
    if let Some(folder) = folder {
        report::delete(&folder, &pipeline.name).map_err(unusable)?;
    }
    println!("deleted");
    Ok(())
}

fn unusable(source: io::Error) -> Failure {
    Failure::System {
        what: "snapshots on this host".into(),
        source,
    }
}

fn show(remains: &Remains, (files, bytes): (usize, u64), bootstrap: &str) {
    println!("pipeline \"{}\" has left on {bootstrap}", remains.group);
    for (topic, partitions) in &remains.offsets {
        println!("  committed offsets of {partitions} partitions of topic {topic}");
    }
    for (topic, (partitions, records)) in &remains.topics {
        println!("  topic {topic}: {partitions} partitions, {records} records at most");
    }
    if files > 0 {
        println!("  snapshots on this host: {files} files, {bytes} bytes");
    }
    if !remains.members.is_empty() {
        let members = remains.members.join(", ");
        println!(
            "  members of its group: {members} (a seat is kept for some seconds after its process has ended)"
        );
    }
    println!(
        "Deleted, it is gone for good: the next start begins where the sources' `start` says, with empty maps."
    );
}

fn confirmed() -> Result<bool, Failure> {
    let input = io::stdin();
    if !input.is_terminal() {
        let why = "reset asks before it deletes, and there is no terminal to ask at: say --yes";
        return Err(Failure::CommandLine(why.into()));
    }
    print!("Delete it? [y/N] ");
    let asked = io::stdout().flush();
    let mut answer = String::new();
    let answered = asked.and_then(|()| input.lock().read_line(&mut answer));
    answered.map_err(|source| Failure::System {
        what: "the terminal".into(),
        source,
    })?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}
