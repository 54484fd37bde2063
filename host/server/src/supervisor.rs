//! A pipeline in a process, from start to end: everything is checked, then workers run until one can't go on or the pipeline is asked to
//! end.
//!
//! Invariant: no worker starts before the whole configuration has passed, and the seat is locked on this host.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use millstream_engine::commit::ledger::Ledger;
use millstream_engine::pipeline::{MapId, Pipeline};
use millstream_engine::worker::Setup;

use crate::cluster::{Admin as _, AdminError, Cluster, TopicFacts};
use crate::config::{Config, Problems};
use crate::directory::Directory;
use crate::fault;
use crate::kafka::Clients;
use crate::map_memory::{self, MapMemory};
use crate::outlet::{OpenError, Outlet};
use crate::own_topics;
use crate::purge;
use crate::query::{AskGroup, Hosted, Routing, Served, Standing};
use crate::reload::Plugins;
use crate::replicated::{self, Replicated};
use crate::restoring::Restoring;
use crate::seat_lock::{DrainRequest, LockError, SeatLock};
use crate::snapshots::writer::Writer;
use crate::snapshots::{self, MapCounts, Snapshots, State};
use crate::standby::{Standby, Wanted};
use crate::starts;
use crate::status::{self, SharedStatus};
use crate::tables::Tables;
use crate::threads;
use crate::topic_watch::TopicWatch;
use crate::topics::{self, Topics, TopicsError};
use crate::twin;
use crate::worker_thread::{self, Seat, WorkerError};

/// How long workers may take to commit and end once they were asked to.
pub const SHUTDOWN_MAX: Duration = Duration::from_secs(40);

/// Between two tries of what nobody has answered.
const UNANSWERED_PAUSE: Duration = Duration::from_millis(500);

/// What the command line says.
#[derive(Clone, Debug)]
pub struct Options {
    /// How many pipelines the process runs.
    pub pipelines: usize,
    /// Of each.
    pub workers: u32,
    pub instance: String,
    /// How long an unreachable broker is tried; for ever where there is none.
    pub connect_timeout: Option<Duration>,
    /// Where snapshots of maps are kept, if they are.
    pub state: Option<State>,
}

/// How a pipeline is asked to end, and asked how it is.
#[derive(Clone, Debug)]
pub struct Control {
    pub stop: Arc<AtomicBool>,
    /// Ending, it is to leave the group, so that others have its partitions at once.
    pub drain: Arc<AtomicBool>,
    /// By number.
    pub workers: Vec<SharedStatus>,
    /// By which it is asked to leave the group, if anybody else can see it.
    pub drain_request: Option<DrainRequest>,
}

impl Control {
    pub fn new(workers: u32, pipeline: &Pipeline, drain_request: Option<DrainRequest>) -> Self {
        Self {
            stop: Arc::default(),
            drain: Arc::default(),
            workers: status::of_workers(workers, pipeline),
            drain_request,
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum Failure {
    #[error(transparent)]
    Config(#[from] Problems),
    #[error(transparent)]
    Cluster(#[from] AdminError),
    #[error(transparent)]
    Worker(#[from] WorkerError),
    #[error(transparent)]
    Locked(#[from] LockError),
    #[error(transparent)]
    Producer(#[from] OpenError),
    #[error("{what}: {source}")]
    System {
        what: String,
        source: std::io::Error,
    },
    #[error("the WASM engine can't be made: {0}")]
    Runtime(String),
    #[error("{0}")]
    CommandLine(String),
    #[error("{url} does not answer: {why}")]
    Status { url: String, why: String },
    #[error("instance \"{instance}\" of pipeline \"{pipeline}\" is not drained: {why}")]
    Drain {
        pipeline: String,
        instance: String,
        why: String,
    },
    #[error(
        "instance \"{instance}\" of pipeline \"{pipeline}\" runs already, and answers at {address}. Give each process its own --instance"
    )]
    Twin {
        pipeline: String,
        instance: String,
        address: String,
    },
    #[error("{0}")]
    Reload(String),
    #[error("{0} snapshots are not valid: a restore would set them aside")]
    Damaged(usize),
    #[error("the workers did not end in time")]
    Stuck,
    #[error("pipeline \"{pipeline}\": {failure}")]
    Of {
        pipeline: String,
        failure: Box<Failure>,
    },
    /// Each is to be told.
    #[error("{} failures", .0.len())]
    Several(Vec<Failure>),
    #[error("not everything that was fed is processed: {0}")]
    Unprocessed(String),
}

impl From<TopicsError> for Failure {
    fn from(error: TopicsError) -> Self {
        match error {
            TopicsError::Problems(problems) => Self::Config(problems),
            TopicsError::Admin(error) => Self::Cluster(error),
        }
    }
}

/// Runs on a real Kafka, until it is asked to stop and all is committed, or until a worker fails.
pub fn run(
    config: &Config,
    plugins: &Arc<Plugins>,
    clients: &Clients,
    options: &Options,
    control: &Control,
    hosted: &Hosted,
) -> Result<(), Failure> {
    let name = &config.pipeline.name;
    let mut lock = SeatLock::take(name, &options.instance, clients.bootstrap())?;
    fault::reach("start-seat-locked");
    let locked = Some(&mut lock);
    run_on(clients, locked, config, plugins, options, control, hosted)?;
    if control.drain.load(Ordering::Relaxed) {
        fault::reach("drain-left");
        lock.note_drained();
        fault::reach("drain-noted");
    }
    Ok(())
}

/// The same on any cluster. The seats' lock is for those that other processes can reach.
pub fn run_on<C: Cluster>(
    cluster: &C,
    lock: Option<&mut SeatLock>,
    config: &Config,
    plugins: &Arc<Plugins>,
    options: &Options,
    control: &Control,
    hosted: &Hosted,
) -> Result<(), Failure> {
    let stop = &control.stop;
    let address = hosted.address();
    let cluster = &cluster.answering_at(address);
    let admin = cluster.admin()?;
    let stopping = || stop.load(Ordering::Relaxed);
    match admin.connect(options.connect_timeout, stopping) {
        Err(AdminError::Stopped) => return Ok(()),
        connected => connected?,
    }
    fault::reach("start-connected");
    let patience = options.connect_timeout;
    let Some(topics) = insist_on_topics(patience, stop, || {
        prepare(config, cluster, &admin, address, stop)
    })?
    else {
        return Ok(());
    };
    fault::reach("start-topics-made");
    let outlet = Outlet::new(cluster, 0, &config.pipeline, &topics);
    let (producers, opened) = match open_seats(&outlet, options.workers, lock, stop) {
        Err(OpenError::Stopping(_)) => return Ok(()),
        opened => opened?,
    };
    let of = (&topics, opened);
    let committed = match starts::settle(cluster, &admin, &config.pipeline, of, stopping) {
        Err(AdminError::Stopped) => return Ok(()),
        settled => settled?,
    };
    fault::reach("start-offsets-settled");
    let counts = snapshots::counts(&config.pipeline);
    let open = |state| Snapshots::open(state, &config.pipeline, &topics.maps, &admin, &counts);
    let snapshots = options.state.as_ref().and_then(open);
    let Ok(ledger) = own_topics::ledger(&config.pipeline, |topic| admin.topic_id(topic), stop)
    else {
        return Ok(());
    };
    if let Some(why) = starts::lost(&config.pipeline, &ledger, &committed) {
        return Err(WorkerError::Failed(why).into());
    }

    let served = Arc::new(served(
        cluster, config, plugins, options, control, &topics, counts,
    ));
    let replicated = start_replicated(cluster, &served, snapshots.clone())?;
    let mut tables = (replicated, start_topic_watch(cluster, &served, &ledger)?);
    let directory = Arc::clone(&served.directory);
    let writer = start_writer(snapshots.clone(), &directory)?;
    fault::reach("start-tables-begun");
    let standby = start_standby(cluster, config.standby, &served, topics.map_partitions)?;
    let seats = Seats {
        outlet: &outlet,
        producers,
        snapshots,
        ledger,
        topics: &topics,
        plugins,
        control,
    };
    let workers = start_workers(seats, &served)?;
    fault::reach("start-workers-begun");
    start_purging(cluster, &served, control)?;
    hosted.note(&config.pipeline.name, Standing::Running(served));
    fault::reach("start-running");
    // Ending a client takes a tenth of a second, in which the workers have begun.
    drop(admin);
    let ended = watch(workers, &directory, &mut tables, stop);
    drop((tables, writer, standby));
    ended
}

/// Goes on for as long as nobody answers, and somebody waits for it: of several brokers, one that is asked for the topics may be away. None
/// once the process is to end.
fn insist_on_topics(
    patience: Option<Duration>,
    stop: &AtomicBool,
    prepare: impl Fn() -> Result<Topics, Failure>,
) -> Result<Option<Topics>, Failure> {
    let began = Instant::now();
    loop {
        let failure = match prepare() {
            Err(failure @ Failure::Cluster(AdminError::Unanswered(_))) => failure,
            prepared => {
                let goes_on = !stop.load(Ordering::Relaxed);
                return prepared.map(|topics| goes_on.then_some(topics));
            }
        };
        if stop.load(Ordering::Relaxed) {
            return Ok(None);
        }
        if patience.is_some_and(|patience| began.elapsed() >= patience) {
            return Err(failure);
        }
        tracing::warn!("the cluster can't be looked at: {failure}; trying again");
        std::thread::sleep(UNANSWERED_PAUSE);
    }
}

/// What there is, made where it is missing; unless another process has this one's name.
fn prepare<C: Cluster>(
    config: &Config,
    cluster: &C,
    admin: &C::Admin,
    address: &str,
    stop: &AtomicBool,
) -> Result<Topics, Failure> {
    let (topics, twin) = std::thread::scope(|scope| {
        let twin = scope.spawn(|| twin::find(cluster, address, stop));
        let topics = topics::prepare(config, admin);
        (topics, twin.join().expect("a panic ends the process"))
    });
    match (twin, topics?) {
        (Ok(Some(address)), _) => Err(Failure::Twin {
            pipeline: cluster.pipeline().to_owned(),
            instance: cluster.instance().to_owned(),
            address,
        }),
        (Ok(None), topics) => Ok(topics),
        (Err(why), _) => {
            let why = format!("who is in the group: {why}");
            Err(AdminError::Unanswered(why).into())
        }
    }
}

fn served<C: Cluster>(
    cluster: &C,
    config: &Config,
    plugins: &Arc<Plugins>,
    options: &Options,
    control: &Control,
    topics: &Topics,
    snapshots: Arc<[MapCounts]>,
) -> Served {
    let pipeline = Arc::new(config.pipeline.clone());
    let limit = config
        .memory
        .unwrap_or_else(|| map_memory::share(options.pipelines));
    let memory = MapMemory::new(&pipeline, limit, draw(), draw());
    let retentions = topics.maps.iter().map(TopicFacts::removals_kept);
    Served {
        pipeline: Arc::clone(&pipeline),
        instance: options.instance.clone(),
        plugins: Arc::clone(plugins),
        partitions_of: topics.partitions_of.clone(),
        directory: Arc::default(),
        memory: Arc::new(memory.forgetting(retentions.collect())),
        standbys: Arc::default(),
        workers: control.workers.clone(),
        routing: Arc::new(Routing::new(&options.instance, &pipeline, asking(cluster))),
        snapshots,
    }
}

fn asking<C: Cluster>(cluster: &C) -> AskGroup {
    let cluster = cluster.clone();
    Arc::new(move || cluster.group())
}

fn start_standby<C: Cluster>(
    cluster: &C,
    copies: u32,
    served: &Served,
    partitions: u32,
) -> Result<Standby, Failure> {
    let workers = served.workers.len();
    let wanted = Wanted {
        copies,
        workers: u32::try_from(workers).expect("256 workers are the most"),
        partitions,
        pipeline: Arc::clone(&served.pipeline),
    };
    let started = Standby::start(cluster, wanted, &served.memory, &served.standbys);
    started.map_err(|why| Failure::Worker(WorkerError::Failed(why)))
}

fn start_writer(
    snapshots: Option<Arc<Snapshots>>,
    directory: &Arc<Directory>,
) -> Result<Option<Writer>, Failure> {
    let started = snapshots.map(|snapshots| Writer::start(snapshots, Arc::clone(directory)));
    started.transpose().map_err(|source| Failure::System {
        what: "a thread".into(),
        source,
    })
}

fn start_replicated<C: Cluster>(
    cluster: &C,
    served: &Served,
    snapshots: Option<Arc<Snapshots>>,
) -> Result<Replicated, Failure> {
    let pipeline = &served.pipeline;
    let places = replicated::places(pipeline, &served.partitions_of);
    let maps = 0..pipeline.maps.len();
    let topics = maps.map(|map| pipeline.topic_of(MapId(map))).collect();
    let (directory, memory) = (&served.directory, &served.memory);
    let started = Replicated::start(cluster, places, topics, directory, memory, snapshots);
    started.map_err(|why| Failure::Worker(WorkerError::Failed(why)))
}

fn start_purging<C: Cluster>(
    cluster: &C,
    served: &Served,
    control: &Control,
) -> Result<(), Failure> {
    let started = purge::start(cluster, &served.pipeline, &control.workers, &control.stop);
    started.map_err(|source| Failure::System {
        what: "a thread".into(),
        source,
    })
}

fn start_topic_watch<C: Cluster>(
    cluster: &C,
    served: &Served,
    ledger: &Ledger,
) -> Result<TopicWatch, Failure> {
    let started = TopicWatch::start(cluster, &served.pipeline, &served.partitions_of, ledger);
    started.map_err(|why| Failure::Worker(WorkerError::Failed(why)))
}

/// A producer for every worker, before anything is read: that ends what an earlier life of these seats left open, which would hide
/// offsets and records until its time-out. An earlier life may have had more workers; their seats are ended too. Returns how many there were.
fn open_seats<C: Cluster>(
    outlet: &Outlet<C>,
    workers: u32,
    mut lock: Option<&mut SeatLock>,
    stop: &Arc<AtomicBool>,
) -> Result<(Vec<C::Producer>, u32), OpenError> {
    let before = lock.as_mut().map_or(0, |lock| lock.workers_before());
    let seats = before.max(workers);
    if let Some(lock) = &mut lock {
        lock.note_workers(seats);
    }
    let mut producers = Vec::new();
    for worker in 0..seats {
        let producer = outlet.of(worker).open(stop, &|| ())?;
        fault::reach("start-producer-initialised");
        if worker < workers {
            producers.push(producer);
        }
    }
    if let Some(lock) = lock {
        lock.note_workers(workers);
    }
    Ok((producers, seats))
}

type Worker = JoinHandle<Result<(), WorkerError>>;

/// What all workers of the process are made of.
struct Seats<'a, C: Cluster> {
    outlet: &'a Outlet<C>,
    /// One for each.
    producers: Vec<C::Producer>,
    snapshots: Option<Arc<Snapshots>>,
    ledger: Ledger,
    topics: &'a Topics,
    plugins: &'a Arc<Plugins>,
    control: &'a Control,
}

fn start_workers<C: Cluster>(seats: Seats<'_, C>, served: &Served) -> Result<Vec<Worker>, Failure> {
    let Seats {
        outlet,
        producers,
        snapshots,
        ledger,
        topics,
        plugins,
        control,
    } = seats;
    let mut workers = Vec::new();
    let partitions_of: Arc<[u32]> = topics.partitions_of.clone().into();
    let tables = Arc::new(Tables::new(
        Arc::clone(&served.pipeline),
        (
            Arc::clone(&partitions_of),
            topics
                .maps
                .iter()
                .map(|facts| facts.record_bytes_max)
                .collect(),
        ),
        Arc::<Directory>::clone(&served.directory),
    ));
    for ((worker, producer), status) in (0..).zip(producers).zip(&served.workers) {
        let seat = Seat {
            outlet: outlet.of(worker),
            setup: Setup {
                pipeline: Arc::clone(&served.pipeline),
                limits: topics.limits.clone(),
                map_partitions: topics.map_partitions,
                instance: served.instance.clone(),
                worker,
                run: draw(),
                ledger: ledger.clone(),
            },
            partitions_of: Arc::clone(&partitions_of),
            trials: Arc::clone(&plugins.trials),
            max_failures: Arc::clone(&plugins.max_failures),
            tables: Arc::clone(&tables),
            directory: Arc::<Directory>::clone(&served.directory),
            memory: Arc::clone(&served.memory),
            standbys: Arc::clone(&served.standbys),
            snapshots: snapshots.clone(),
            status: Arc::clone(status),
            stop: Arc::clone(&control.stop),
            drain: Arc::clone(&control.drain),
        };
        let name = format!("worker-{worker}");
        let started = threads::start(name, move || worker_thread::run(seat, producer));
        workers.push(started.map_err(|source| Failure::System {
            what: "a worker thread".into(),
            source,
        })?);
    }
    Ok(workers)
}

/// Waits for the workers; when one ends, all are asked to.
fn watch(
    workers: Vec<Worker>,
    directory: &Directory,
    (replicated, topics): &mut (Replicated, TopicWatch),
    stop: &AtomicBool,
) -> Result<(), Failure> {
    let mut restoring = Restoring::new();
    let mut workers: Vec<Worker> = workers;
    let mut result = Ok(());
    let mut asked: Option<Instant> = None;
    while !workers.is_empty() {
        let (ended, running): (Vec<_>, Vec<_>) =
            workers.into_iter().partition(JoinHandle::is_finished);
        workers = running;
        for worker in ended {
            let end = worker.join().expect("a panic ends the process");
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
        let failure = replicated.failure().or_else(|| topics.noticed());
        if let (Some(why), Ok(())) = (failure, &result) {
            tracing::error!("a map can't be held: {why}");
            result = Err(WorkerError::Failed(why));
            stop.store(true, Ordering::Relaxed);
        }
        restoring.look(directory);
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(result?)
}

/// A random number: seeds hash tables and marks this life's transactions.
fn draw() -> u64 {
    use std::hash::{BuildHasher as _, RandomState};
    RandomState::new().hash_one(std::process::id())
}
