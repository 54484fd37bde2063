//! A process of a pipeline, from start to end: everything is checked, then workers run until one can't go on or the process is asked
//! to end.
//!
//! Invariant: no worker starts before the whole configuration has passed, and the seat is locked on this host.

use std::fs::{File, TryLockError};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use millstream_engine::tally::Tally;
use millstream_engine::worker::Setup;

use crate::config::{Config, Problems};
use crate::directory::Directory;
use crate::kafka::{Admin, AdminError, Clients, StartPlace};
use crate::load;
use crate::query::{Served, Server};
use crate::status::{self, SharedStatus};
use crate::topics::{self, Topics, TopicsError};
use crate::wasm::{Runtime, StepPlugin};
use crate::worker_thread::{self, Seat, WorkerError};

/// How long workers may take to commit and end once they were asked to.
const SHUTDOWN_MAX: Duration = Duration::from_secs(40);

/// What the command line says.
#[derive(Clone, Debug)]
pub struct Options {
    pub workers: u32,
    pub instance: String,
    pub http: SocketAddr,
    /// How long an unreachable broker is tried; for ever where there is none.
    pub connect_timeout: Option<Duration>,
}

#[derive(Debug, thiserror::Error)]
pub enum Failure {
    #[error(transparent)]
    Config(#[from] Problems),
    #[error(transparent)]
    Cluster(#[from] AdminError),
    #[error(transparent)]
    Worker(#[from] WorkerError),
    #[error("instance \"{instance}\" of this pipeline runs on this host already (it holds {path}); give this one another --instance", path = path.display())]
    InstanceRuns { instance: String, path: PathBuf },
    #[error("{what}: {source}")]
    System {
        what: String,
        source: std::io::Error,
    },
    #[error("the WASM engine can't be made: {0}")]
    Runtime(String),
    #[error("the workers did not end in time")]
    Stuck,
    /// A bug of ours.
    #[error("a worker panicked")]
    Panicked,
}

impl From<TopicsError> for Failure {
    fn from(error: TopicsError) -> Self {
        match error {
            TopicsError::Problems(problems) => Self::Config(problems),
            TopicsError::Admin(error) => Self::Cluster(error),
        }
    }
}

/// Runs until `stop` is set and all is committed, or until a worker fails.
pub fn run(config: &Config, options: &Options, stop: &Arc<AtomicBool>) -> Result<(), Failure> {
    let runtime = Runtime::new().map_err(|error| Failure::Runtime(format!("{error:#}")))?;
    let _ticker = runtime.start_ticker().map_err(|source| Failure::System {
        what: "a thread".into(),
        source,
    })?;
    let clients = load::clients(config, &options.instance)?;
    let steps = load::steps(config, &runtime)?;
    let bootstrap = clients.bootstrap();
    let _lock = lock(&config.pipeline.name, &options.instance, bootstrap)?;
    let (server, listener) = Server::bind(options.http).map_err(|source| Failure::System {
        what: format!("HTTP can't listen on {}", options.http),
        source,
    })?;
    let admin = Admin::new(&clients)?;
    match admin.connect(bootstrap, options.connect_timeout, || {
        stop.load(Ordering::Relaxed)
    }) {
        Err(AdminError::Stopped) => return Ok(()),
        connected => connected?,
    }
    let topics = topics::prepare(config, &admin)?;
    let starts: Vec<StartPlace<'_>> = topics
        .starts
        .iter()
        .map(|(topic, partition, start)| (topic.as_str(), *partition, *start))
        .collect();
    admin.resolve_starts(&starts)?;
    drop(admin);

    let pipeline = Arc::new(config.pipeline.clone());
    let statuses = (0..options.workers).map(|_| status::shared(Tally::new(&pipeline)));
    let statuses: Vec<SharedStatus> = statuses.collect();
    let served = Served {
        pipeline: Arc::clone(&pipeline),
        instance: options.instance.clone(),
        map_partitions: topics.map_partitions,
        directory: Arc::default(),
        workers: statuses,
    };
    let workers = start_workers(&clients, &served, &topics, &steps, stop)?;
    Server::serve(listener, served).map_err(|source| Failure::System {
        what: "HTTP can't be served".into(),
        source,
    })?;
    tracing::info!("listening on http://{}", server.address);
    watch(workers, stop)
}

type Worker = JoinHandle<Result<(), WorkerError>>;

fn start_workers(
    clients: &Clients,
    served: &Served,
    topics: &Topics,
    steps: &Arc<Vec<StepPlugin>>,
    stop: &Arc<AtomicBool>,
) -> Result<Vec<Worker>, Failure> {
    let limits = topics.limits.iter().map(|limit| limit.record_bytes_max);
    let record_bytes = (limits.clone().min().unwrap_or(0), limits.max().unwrap_or(0));
    let mut workers = Vec::new();
    for (worker, status) in (0..).zip(&served.workers) {
        let seat = Seat {
            clients: clients.clone(),
            setup: Setup {
                pipeline: Arc::clone(&served.pipeline),
                limits: topics.limits.clone(),
                map_partitions: topics.map_partitions,
                instance: served.instance.clone(),
                worker,
                run: draw(),
            },
            steps: Arc::clone(steps),
            record_bytes,
            directory: Arc::<Directory>::clone(&served.directory),
            status: Arc::clone(status),
            stop: Arc::clone(stop),
        };
        let thread = std::thread::Builder::new().name(format!("worker-{worker}"));
        let started = thread.spawn(move || worker_thread::run(seat));
        workers.push(started.map_err(|source| Failure::System {
            what: "a worker thread".into(),
            source,
        })?);
    }
    Ok(workers)
}

/// Waits for the workers; when one ends, all are asked to.
fn watch(workers: Vec<Worker>, stop: &AtomicBool) -> Result<(), Failure> {
    let mut workers: Vec<Worker> = workers;
    let mut result = Ok(());
    let mut asked: Option<Instant> = None;
    while !workers.is_empty() {
        let (ended, running): (Vec<_>, Vec<_>) =
            workers.into_iter().partition(JoinHandle::is_finished);
        workers = running;
        for worker in ended {
            let end = worker.join().unwrap_or_else(|_| Err(WorkerError::Panicked));
            if let (Err(error), Ok(())) = (end, &result) {
                tracing::error!("a worker ends: {error}");
                result = Err(error);
                stop.store(true, Ordering::Relaxed);
            }
        }
        if stop.load(Ordering::Relaxed)
            && asked.get_or_insert_with(Instant::now).elapsed() > SHUTDOWN_MAX
        {
            return Err(Failure::Stuck);
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    match result {
        Err(WorkerError::Panicked) => Err(Failure::Panicked),
        result => Ok(result?),
    }
}

/// A random number: seeds hash tables and marks this life's transactions.
fn draw() -> u64 {
    use std::hash::{BuildHasher as _, RandomState};
    RandomState::new().hash_one(std::process::id())
}

/// Takes this instance's name on this host, for as long as the file is open. Two processes of one name would fence each other.
fn lock(pipeline: &str, instance: &str, bootstrap: &str) -> Result<File, Failure> {
    let folder = std::env::var_os("XDG_RUNTIME_DIR")
        .map_or_else(std::env::temp_dir, PathBuf::from)
        .join("millstream");
    let system = |what: &PathBuf| {
        let what = format!("the lock file {} can't be used", what.display());
        move |source| Failure::System { what, source }
    };
    std::fs::create_dir_all(&folder).map_err(system(&folder))?;
    let cluster: String = bootstrap
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c } else { '-' })
        .take(60)
        .collect();
    let path = folder.join(format!("{pipeline}.{instance}.{cluster}.lock"));
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .map_err(system(&path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(Failure::InstanceRuns {
            instance: instance.into(),
            path,
        }),
        Err(TryLockError::Error(source)) => Err(system(&path)(source)),
    }
}
