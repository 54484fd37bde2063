//! `millstream reload`: has a pipeline that runs on this host look at its files now, and says what became of it.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::Args;

use super::{host_name, instance_name, read, runtime};
use crate::config::Overrides;
use crate::load;
use crate::seat_lock::{Holder, ReloadRequest, SeatLock};
use crate::supervisor::Failure;

/// Loading compiles, and workers may be in a commit.
const ANSWERED_WITHIN: Duration = Duration::from_secs(360);
const LOOK: Duration = Duration::from_millis(20);

#[derive(Debug, Args)]
pub struct Arguments {
    /// The pipeline file.
    pipeline: PathBuf,
    /// Name of the process among those of the pipeline, as `run` was given it. The host's name by default.
    #[arg(long, value_parser = instance_name)]
    instance: Option<String>,
    /// Brokers, as `run` was given them, in place of the file's `bootstrap.servers`.
    #[arg(long, value_name = "HOST:PORT")]
    bootstrap: Option<String>,
}

pub fn main(arguments: Arguments) -> Result<(), Failure> {
    let overrides = Overrides {
        bootstrap: arguments.bootstrap,
        embedded: false,
    };
    let config = read(&arguments.pipeline, &overrides, &runtime()?)?;
    let instance = arguments.instance.unwrap_or_else(host_name);
    let clients = load::clients(&config, &instance)?;
    let (pipeline, bootstrap) = (&config.pipeline.name, clients.bootstrap());
    let failed = |why: &str| {
        Failure::Reload(format!(
            "instance \"{instance}\" of pipeline \"{pipeline}\" is not reloaded: {why}"
        ))
    };
    let lives = || {
        let holder = SeatLock::holder(pipeline, &instance, bootstrap)?;
        Ok::<_, Failure>(matches!(holder, Holder::Process(_) | Holder::Unknown))
    };
    if !lives()? {
        return Err(failed(
            "no such process runs on this host. One that was started with another --instance or --bootstrap is found with the same",
        ));
    }
    let request = ReloadRequest::of(pipeline, &instance, bootstrap);
    let name = format!("{}-{}", std::process::id(), crate::wall_clock::now());
    let asked = request.make(&name);
    asked.map_err(|why| failed(&format!("it can't be asked: {why}")))?;
    let began = Instant::now();
    loop {
        if let Some((word, why)) = request.answered(&name) {
            return match word.as_str() {
                "taken" => {
                    println!("reloaded: the new version runs");
                    Ok(())
                }
                "pending" => {
                    println!("loaded: there are no records to try it with, and the next ones will");
                    Ok(())
                }
                "unchanged" => {
                    println!("nothing to reload: this version runs already");
                    Ok(())
                }
                _ => Err(failed(&format!(
                    "{word}, and the old version runs on: {why}"
                ))),
            };
        }
        if !lives()? {
            return Err(failed("it has ended"));
        }
        if began.elapsed() > ANSWERED_WITHIN {
            return Err(failed("it does not answer"));
        }
        std::thread::sleep(LOOK);
    }
}
