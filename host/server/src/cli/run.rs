//! `millstream run`: on a Kafka, or on the broker in memory.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::ScopedJoinHandle;
use std::time::Duration;

use clap::Args;

use super::admin::Admin;
use super::state::Kept;
use super::{
    duration, host_and_port, host_name, instance_name, read, runtime, start_ticker, watch_signals,
};
use crate::cluster::{Admin as _, Cluster as _};
use crate::config::{Config, Overrides};
use crate::embedded::{Embedded, Keeper, PARTITIONS};
use crate::feed::{Tap, Taps};
use crate::kafka::Clients;
use crate::load;
use crate::query::{Hosted, Server, Standing};
use crate::reload::{Plugins, Reloader};
use crate::seat_lock::{DrainRequest, ReloadRequest};
use crate::supervisor::{self, Control, Failure, Options};
use crate::wasm::{Runtime, StepPlugin};

/// How often it is looked whether all that was fed is through.
const LOOK: Duration = Duration::from_millis(50);

#[derive(Debug, Args)]
pub struct Arguments {
    /// The pipeline files. Each has its own workers; where one ends, the others go on.
    #[arg(required = true, value_name = "PIPELINE")]
    pipelines: Vec<PathBuf>,
    /// Brokers to start from, in place of the file's `bootstrap.servers`.
    #[arg(long, value_name = "HOST:PORT", conflicts_with = "embedded")]
    bootstrap: Option<String>,
    /// Worker threads of each pipeline.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=256))]
    workers: u32,
    /// Name of this process among those of a pipeline; keep it over restarts. The host's name by default.
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
    admin: Admin,
    #[command(flatten)]
    kept: Kept,
}

pub fn main(arguments: Arguments) -> Result<(), Failure> {
    let mut options = Options {
        pipelines: arguments.pipelines.len(),
        workers: arguments.workers,
        instance: arguments.instance.clone().unwrap_or_else(host_name),
        connect_timeout: arguments.connect_timeout,
        state: None,
    };
    if arguments.embedded {
        return embedded(&arguments, &options);
    }
    options.state = arguments.kept.open()?;
    let runtime = runtime()?;
    let _ticker = start_ticker(&runtime)?;
    let loaded = load_all(&arguments, &options, &runtime)?;
    watch_signals(loaded.iter().map(|one| one.control.clone()).collect())?;
    let names = loaded.iter().map(|one| one.name().to_owned());
    let hosted = serve(&arguments, &options.instance, names)?;
    match loaded.as_slice() {
        [alone] => alone.run(&options, &hosted, &runtime),
        several => run_several(several, &options, &hosted, &runtime),
    }
}

/// What a pipeline file says, ready to run.
struct Loaded {
    file: PathBuf,
    overrides: Overrides,
    config: Config,
    plugins: Arc<Plugins>,
    clients: Clients,
    control: Control,
}

impl Loaded {
    fn name(&self) -> &str {
        &self.config.pipeline.name
    }

    /// Reloads included.
    fn run(&self, options: &Options, hosted: &Hosted, runtime: &Runtime) -> Result<(), Failure> {
        let (config, control) = (&self.config, &self.control);
        let bootstrap = self.clients.bootstrap();
        let says = (self.file.as_path(), &self.overrides, config);
        let request = ReloadRequest::of(self.name(), &options.instance, bootstrap);
        start_reloader(says, runtime, &self.plugins, Some(request), control)?;
        let ran = supervisor::run(
            config,
            &self.plugins,
            &self.clients,
            options,
            control,
            hosted,
        );
        // Where it has failed, nobody asked it to end: the files are looked at no longer.
        control.stop.store(true, Ordering::Relaxed);
        ran
    }
}

fn start_reloader(
    says: (&Path, &Overrides, &Config),
    runtime: &Runtime,
    plugins: &Arc<Plugins>,
    request: Option<ReloadRequest>,
    control: &Control,
) -> Result<(), Failure> {
    let reloader = Reloader::new(says, runtime, plugins, request, &control.stop);
    reloader.start().map_err(|source| Failure::System {
        what: "a thread".into(),
        source,
    })
}

/// All files, or all that is wrong with any.
fn load_all(
    arguments: &Arguments,
    options: &Options,
    runtime: &Runtime,
) -> Result<Vec<Loaded>, Failure> {
    let overrides = Overrides {
        bootstrap: arguments.bootstrap.clone(),
        embedded: false,
    };
    let (mut loaded, mut failures) = (Vec::<Loaded>::new(), Vec::new());
    for file in &arguments.pipelines {
        match load_one(file, &overrides, options, runtime) {
            Ok(one) if loaded.iter().any(|other| other.name() == one.name()) => {
                let name = one.name();
                failures.push(Failure::CommandLine(format!(
                    "{}: another of the files has a pipeline \"{name}\" too; each has a name of its own",
                    file.display()
                )));
            }
            Ok(one) => loaded.push(one),
            Err(failure) => failures.push(failure),
        }
    }
    one_or_several(failures).map_or(Ok(loaded), Err)
}

fn load_one(
    file: &Path,
    overrides: &Overrides,
    options: &Options,
    runtime: &Runtime,
) -> Result<Loaded, Failure> {
    let config = read(file, overrides, runtime)?;
    let (clients, steps) = load::all(&config, runtime, &options.instance)?;
    let name = &config.pipeline.name;
    let request = DrainRequest::of(name, &options.instance, clients.bootstrap());
    let control = Control::new(options.workers, &config.pipeline, Some(request));
    Ok(Loaded {
        file: file.to_path_buf(),
        overrides: overrides.clone(),
        plugins: plugins(steps, &config, options),
        config,
        clients,
        control,
    })
}

fn plugins(steps: Arc<Vec<StepPlugin>>, config: &Config, options: &Options) -> Arc<Plugins> {
    let most = config.reload.max_failures;
    Arc::new(Plugins::new(steps, most, options.workers))
}

fn one_or_several(mut failures: Vec<Failure>) -> Option<Failure> {
    match failures.len() {
        0 => None,
        1 => failures.pop(),
        _ => Some(Failure::Several(failures)),
    }
}

/// Answers HTTP for pipelines of these names, which start.
fn serve(
    arguments: &Arguments,
    instance: &str,
    names: impl Iterator<Item = String>,
) -> Result<Hosted, Failure> {
    let http = arguments.http;
    let admin = arguments.admin.open()?;
    let (server, listener) = Server::bind(http).map_err(|source| Failure::System {
        what: format!("HTTP can't listen on {http}"),
        source,
    })?;
    let (host, port) = advertised(arguments.advertise.clone(), http);
    // Port 0 stands for the one that it listens on.
    let port = if port == 0 {
        server.address.port()
    } else {
        port
    };
    let hosted = Hosted::new(instance, &format!("{host}:{port}"), names);
    Server::serve(listener, hosted.clone()).map_err(|source| Failure::System {
        what: "HTTP can't be served".into(),
        source,
    })?;
    tracing::info!("listening on http://{}", server.address);
    if let Some(admin) = admin {
        admin.serve(&hosted)?;
    }
    Ok(hosted)
}

/// Each on a thread of its own, whose lines in the log say which. Returns when all have ended.
fn run_several(
    all: &[Loaded],
    options: &Options,
    hosted: &Hosted,
    runtime: &Runtime,
) -> Result<(), Failure> {
    let run = |one: &Loaded| {
        let span = tracing::error_span!("pipeline", name = one.name());
        let _inside = span.enter();
        let ended = one.run(options, hosted, runtime);
        let why = ended.as_ref().err().map(ToString::to_string);
        match &why {
            None => tracing::info!("the pipeline has ended"),
            Some(why) => tracing::error!("the pipeline has ended, others go on: {why}"),
        }
        hosted.note(one.name(), Standing::Ended(why));
        ended.map_err(|failure| Failure::Of {
            pipeline: one.name().to_owned(),
            failure: Box::new(failure),
        })
    };
    let ended = std::thread::scope(|scope| {
        let run = &run;
        let started = all.iter().map(|one| scope.spawn(move || run(one)));
        let started: Vec<_> = started.collect();
        let ended = started.into_iter().map(ScopedJoinHandle::join);
        ended
            .map(|end| end.expect("a panic ends the process"))
            .collect::<Vec<_>>()
    });
    let failures = ended.into_iter().filter_map(Result::err).collect();
    one_or_several(failures).map_or(Ok(()), Err)
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
    let [file] = arguments.pipelines.as_slice() else {
        let why = "--embedded runs one pipeline: its --feed and --out are that one's";
        return Err(Failure::CommandLine(why.into()));
    };
    let runtime = runtime()?;
    let config = read(file, &overrides, &runtime)?;
    let _ticker = start_ticker(&runtime)?;
    let steps = load::steps(&config, &runtime)?;
    let plugins = plugins(steps, &config, options);
    let pipeline = &config.pipeline;
    let cluster = Embedded::new(pipeline, &options.instance);
    // Settled before anything is fed: "latest" is what comes from now on.
    let places = pipeline.topics.iter().flat_map(|topic| {
        let start = pipeline.sources[topic.source.0].start;
        (0..PARTITIONS).map(move |partition| (topic.topic.as_str(), partition, start))
    });
    let places: Vec<_> = places.collect();
    cluster.admin()?.resolve_starts(&places, &[])?;
    let control = Control::new(options.workers, pipeline, None);
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
    let says = (file.as_path(), &overrides, &config);
    start_reloader(says, &runtime, &plugins, None, &control)?;
    watch_signals(vec![control.clone()])?;
    let names = std::iter::once(pipeline.name.clone());
    let hosted = serve(arguments, &options.instance, names)?;
    let ran = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                std::thread::sleep(LOOK);
                if taps.is_blocked() || (arguments.until_end && taps.are_done()) {
                    stop.store(true, Ordering::Relaxed);
                }
            }
        });
        let (config, control) = (&config, &control);
        let ran = supervisor::run_on(&cluster, None, config, &plugins, options, control, &hosted);
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
