//! `millstream run`: on a Kafka, or on the broker in memory.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use clap::Args;

use super::state::Kept;
use super::{
    duration, host_and_port, host_name, instance_name, read, runtime, start_ticker, watch_signals,
};
use crate::cluster::{Admin as _, Cluster as _};
use crate::config::Overrides;
use crate::embedded::{Embedded, Keeper, PARTITIONS};
use crate::feed::{Tap, Taps};
use crate::load;
use crate::supervisor::{self, Control, Failure, Options};

/// How often it is looked whether all that was fed is through.
const LOOK: Duration = Duration::from_millis(50);

#[derive(Debug, Args)]
pub struct Arguments {
    /// The pipeline file.
    pipeline: PathBuf,
    /// Brokers to start from, in place of the file's `bootstrap.servers`.
    #[arg(long, value_name = "HOST:PORT", conflicts_with = "embedded")]
    bootstrap: Option<String>,
    /// Worker threads.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=256))]
    workers: u32,
    /// Name of this process among those of the pipeline; keep it over restarts. The host's name by default.
    #[arg(long, value_parser = instance_name)]
    instance: Option<String>,
    /// Where to answer HTTP.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8080")]
    http: SocketAddr,
    /// Where the other instances of the pipeline can ask this one for what it holds: `--http` by default, with the host's name in place
    /// of an address that stands for all.
    #[arg(long, value_name = "HOST:PORT", value_parser = host_and_port, conflicts_with = "embedded")]
    advertise: Option<(String, u16)>,
    /// Give up when no broker could be reached for so long (`10s`, `500ms`); by default it is tried for ever.
    #[arg(long, value_name = "DURATION", value_parser = duration, conflicts_with = "embedded")]
    connect_timeout: Option<Duration>,
    /// Run on a broker in memory: no Kafka is needed, and nothing is kept.
    #[arg(long, conflicts_with_all = ["state_dir", "snapshot_interval"])]
    embedded: bool,
    /// Write the lines of a file (`-`: standard input) to the topic of a source, or of a map made from one: JSON records with key,
    /// value, headers and timestamp, or bare values. A map's file is read to its end before the pipeline starts.
    #[arg(long = "feed", value_name = "NAME=FILE", requires = "embedded")]
    feeds: Vec<Tap>,
    /// Write what a sink's topic gets to a file (`-`: standard output), as JSON lines.
    #[arg(long = "out", value_name = "SINK=FILE", requires = "embedded")]
    outs: Vec<Tap>,
    /// End once everything that was fed is processed and written out.
    #[arg(long, requires = "feeds")]
    until_end: bool,
    #[command(flatten)]
    kept: Kept,
}

pub fn main(arguments: Arguments) -> Result<(), Failure> {
    let mut options = Options {
        workers: arguments.workers,
        instance: arguments.instance.clone().unwrap_or_else(host_name),
        http: arguments.http,
        advertise: advertised(arguments.advertise.clone(), arguments.http),
        connect_timeout: arguments.connect_timeout,
        state: None,
    };
    if arguments.embedded {
        return embedded(&arguments, &options);
    }
    options.state = arguments.kept.open()?;
    let overrides = Overrides {
        bootstrap: arguments.bootstrap,
        embedded: false,
    };
    let runtime = runtime()?;
    let config = read(&arguments.pipeline, &overrides, &runtime)?;
    let _ticker = start_ticker(&runtime)?;
    let (clients, steps) = load::all(&config, &runtime, &options.instance)?;
    let control = Control::new(options.workers, &config.pipeline);
    watch_signals(&control)?;
    supervisor::run(&config, &steps, &clients, &options, &control)
}

/// What others are told, where the port may still be open.
fn advertised(given: Option<(String, u16)>, http: SocketAddr) -> (String, u16) {
    given.unwrap_or_else(|| {
        let host = match http.ip() {
            ip if ip.is_unspecified() => host_name(),
            IpAddr::V4(ip) => ip.to_string(),
            IpAddr::V6(ip) => format!("[{ip}]"),
        };
        (host, http.port())
    })
}

fn embedded(arguments: &Arguments, options: &Options) -> Result<(), Failure> {
    let overrides = Overrides {
        bootstrap: None,
        embedded: true,
    };
    let runtime = runtime()?;
    let config = read(&arguments.pipeline, &overrides, &runtime)?;
    let _ticker = start_ticker(&runtime)?;
    let steps = load::steps(&config, &runtime)?;
    let pipeline = &config.pipeline;
    let cluster = Embedded::new(pipeline, &options.instance);
    // Settled before anything is fed: "latest" is what comes from now on.
    let places = pipeline.topics.iter().flat_map(|topic| {
        let start = pipeline.sources[topic.source.0].start;
        (0..PARTITIONS).map(move |partition| (topic.topic.as_str(), partition, start))
    });
    let places: Vec<_> = places.collect();
    cluster.admin()?.resolve_starts(&places, &[], || false)?;
    let control = Control::new(options.workers, pipeline);
    let workers = &control.workers;
    let opened = Taps::open(
        &cluster,
        pipeline,
        workers,
        &arguments.feeds,
        &arguments.outs,
    );
    let mut taps = opened.map_err(Failure::CommandLine)?;
    let thread = |source| Failure::System {
        what: "a thread".into(),
        source,
    };
    let keeper = Keeper::start(Arc::clone(cluster.shared()), &pipeline.name).map_err(thread)?;
    let stop = &control.stop;
    watch_signals(&control)?;
    let ran = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                std::thread::sleep(LOOK);
                if taps.is_blocked() || (arguments.until_end && taps.are_done()) {
                    stop.store(true, Ordering::Relaxed);
                }
            }
        });
        let ran = supervisor::run_on(&cluster, None, &config, &steps, options, &control);
        stop.store(true, Ordering::Relaxed);
        ran
    });
    drop(keeper);
    let closed = taps.close().map_err(|source| Failure::System {
        what: "an output can't be written".into(),
        source,
    });
    ran.and(closed)?;
    if arguments.until_end
        && let Some(left) = taps.unprocessed()
    {
        return Err(Failure::Unprocessed(left));
    }
    Ok(())
}
