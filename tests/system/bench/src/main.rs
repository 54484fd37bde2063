//! Runs job J1 on Millstream and on the reference loop in turn, on one broker and one topic, and prints what each took: records a
//! second, CPU seconds of its process for a million records, and peak memory; absolute and as ratios of medians.
//!
//! CPU time is what the figures rest on: it hardly depends on what else the machine does. Every peer's output is judged by the
//! judge of the system tests, which shares no code with either.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use clap::Parser;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::{Offset, TopicPartitionList};
use rig::folder::Folder;
use rig::kafka::Kafka;
use rig::process::Process;
use rig::{judge, millstream};

const PARTITIONS: u32 = 4;
const IDS: u32 = 1_000_000;
const INPUT: &str = "user-events";
const MIN_AGE: &str = "18";
/// A run that takes longer is given up.
const RUN_MAX: Duration = Duration::from_secs(300);
/// Linux counts CPU time in hundredths of a second (`sysconf(_SC_CLK_TCK)`).
const CLOCK_TICKS: f64 = 100.0;

#[derive(Parser)]
struct Arguments {
    /// Records in the topic.
    #[arg(long, default_value_t = 3_000_000)]
    records: u64,
    /// Runs of each peer at each interval.
    #[arg(long, default_value_t = 3)]
    rounds: u32,
    /// Epochs, in milliseconds.
    #[arg(long, value_delimiter = ',', default_value = "5000,100")]
    intervals: Vec<u64>,
    /// Folder of the binaries `millstream`, `reference-loop`.
    #[arg(long)]
    binaries: PathBuf,
    /// The component of examples/01-materialize-users.
    #[arg(long)]
    plugin: PathBuf,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Peer {
    Reference,
    Millstream,
}

/// What a run took.
#[derive(Clone, Copy)]
struct Figures {
    rate: f64,
    cpu_per_million: f64,
    peak_mib: f64,
}

struct Bench {
    arguments: Arguments,
    kafka: Kafka,
    folder: Folder,
    runs: u32,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let kafka = Kafka::start();
    kafka.topic(INPUT, PARTITIONS, &[]);
    let (records, ids) = (arguments.records.to_string(), IDS.to_string());
    print!(
        "{}",
        judge::run(&["generate", &kafka.direct(), INPUT, &records, &ids, "0"])
    );
    let mut bench = Bench {
        arguments,
        kafka,
        folder: Folder::new("bench"),
        runs: 0,
    };
    for interval in bench.arguments.intervals.clone() {
        bench.compare(interval)?;
    }
    Ok(())
}

impl Bench {
    fn compare(&mut self, interval: u64) -> Result<()> {
        let peers = [Peer::Reference, Peer::Millstream];
        let mut figures = [Vec::new(), Vec::new()];
        println!(
            "\nJ1, epochs of {interval} ms, {} records\n",
            self.arguments.records
        );
        println!("| peer | records/s | CPU s per million | peak MiB |\n| --- | --- | --- | --- |");
        for round in 0..self.arguments.rounds {
            for (peer, figures) in peers.iter().zip(&mut figures) {
                let last = round + 1 == self.arguments.rounds;
                let run = self.run(*peer, interval, last)?;
                print_row(&format!("{peer:?}"), run);
                figures.push(run);
            }
        }
        let [reference, millstream] = figures.map(|figures| median(&figures));
        print_row("**Reference, median**", reference);
        print_row("**Millstream, median**", millstream);
        println!(
            "| **ratio** | {:.2} | {:.2} | {:.2} |",
            millstream.rate / reference.rate,
            millstream.cpu_per_million / reference.cpu_per_million,
            millstream.peak_mib / reference.peak_mib,
        );
        Ok(())
    }

    fn run(&mut self, peer: Peer, interval: u64, judged: bool) -> Result<Figures> {
        self.runs += 1;
        let group = format!("bench-{}", self.runs);
        let output = format!("adults-{}", self.runs);
        self.kafka.topic(&output, PARTITIONS, &[]);
        let log = self.folder.join(&format!("{group}.log"));
        let mut child = self.spawn(peer, &group, &output, interval, &log)?;
        let figures = self.measure(&mut child, &group);
        // Both are to end without a word: what they committed is all that counts.
        child.kill()?;
        child.wait()?;
        let figures = figures.with_context(|| {
            let said = std::fs::read_to_string(&log).unwrap_or_default();
            format!("{peer:?}: {said}")
        })?;
        if judged {
            judge::run(&["adults", &self.kafka.direct(), INPUT, &output, MIN_AGE]);
        }
        Ok(figures)
    }

    fn spawn(
        &self,
        peer: Peer,
        group: &str,
        output: &str,
        interval: u64,
        log: &Path,
    ) -> Result<Child> {
        let bootstrap = self.kafka.bootstrap();
        let mut command = match peer {
            Peer::Reference => {
                let mut command = Command::new(self.arguments.binaries.join("reference-loop"));
                command.args([&bootstrap, group, INPUT, output, &interval.to_string()]);
                command
            }
            Peer::Millstream => {
                let plugin = self.arguments.plugin.display().to_string();
                let file = format!("{group}.toml");
                let pipeline = self
                    .folder
                    .write(&file, &pipeline(group, output, interval, &plugin));
                let mut command = Command::new(self.arguments.binaries.join("millstream"));
                command.arg("run").arg(pipeline).args([
                    "--bootstrap",
                    &bootstrap,
                    "--http",
                    "127.0.0.1:0",
                ]);
                command
            }
        };
        let log = File::create(log)?;
        command
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        command
            .spawn()
            .context("a peer can't be started; build first")
    }

    /// Waits until the group has committed all of the input. The clock starts with the first commit or sign of work, so that
    /// joining the group counts for nobody.
    fn measure(&self, child: &mut Child, group: &str) -> Result<Figures> {
        let watcher: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", self.kafka.direct())
            .set("group.id", group)
            .create()?;
        let process = child.id();
        let began = Instant::now();
        let (mut idle_until, mut idle_cpu) = (began, cpu_seconds(process)?);
        loop {
            std::thread::sleep(Duration::from_millis(50));
            ensure!(child.try_wait()?.is_none(), "it ended too early");
            ensure!(began.elapsed() < RUN_MAX, "it did not end in time");
            let done = committed(&watcher)?;
            let cpu = cpu_seconds(process)?;
            if done == 0 && cpu - idle_cpu < 0.05 {
                (idle_until, idle_cpu) = (Instant::now(), cpu);
            }
            if done >= self.arguments.records {
                let records = self.arguments.records as f64;
                return Ok(Figures {
                    rate: records / idle_until.elapsed().as_secs_f64(),
                    cpu_per_million: cpu / records * 1e6,
                    peak_mib: millstream::peak_memory(&Process::of(process)) as f64
                        / f64::from(1 << 20),
                });
            }
        }
    }
}

fn pipeline(group: &str, output: &str, interval: u64, plugin: &str) -> String {
    format!(
        r#"name = "{group}"
kafka.bootstrap.servers = "127.0.0.1:9092"
checkpoint = {{ guarantee = "exactly-once", interval = "{interval}ms" }}
sources.events.topics = ["{INPUT}"]
plugins.users.path = "{plugin}"
steps.parse = {{ inputs = ["events"], plugin = "users", config = {{ min_age = {MIN_AGE} }}, on-error = "skip" }}
sinks.adults = {{ inputs = ["parse"], topic = "{output}" }}
"#
    )
}

/// Records that the group has committed, over all partitions.
fn committed(watcher: &BaseConsumer) -> Result<u64> {
    let mut list = TopicPartitionList::new();
    for partition in 0..PARTITIONS {
        list.add_partition(INPUT, i32::try_from(partition)?);
    }
    // While a transaction's offsets are pending this waits, and fails.
    let Ok(list) = watcher.committed_offsets(list, Duration::from_millis(500)) else {
        return Ok(0);
    };
    let offsets = list.elements().into_iter().map(|at| match at.offset() {
        Offset::Offset(offset) => u64::try_from(offset).unwrap_or(0),
        _ => 0,
    });
    Ok(offsets.sum())
}

/// User and system time of a process and its threads so far (`/proc/PID/stat`, fields 14 and 15).
fn cpu_seconds(process: u32) -> Result<f64> {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat"))?;
    let (_, fields) = stat.rsplit_once(')').context("a name in parentheses")?;
    let fields: Vec<&str> = fields.split_whitespace().collect();
    let [user, system] =
        [11, 12].map(|at| fields.get(at).and_then(|field| field.parse::<f64>().ok()));
    match (user, system) {
        (Some(user), Some(system)) => Ok((user + system) / CLOCK_TICKS),
        _ => bail!("/proc/{process}/stat has too few fields"),
    }
}

fn median(figures: &[Figures]) -> Figures {
    let of = |field: fn(&Figures) -> f64| {
        let mut values: Vec<f64> = figures.iter().map(field).collect();
        values.sort_by(f64::total_cmp);
        values[values.len() / 2]
    };
    Figures {
        rate: of(|f| f.rate),
        cpu_per_million: of(|f| f.cpu_per_million),
        peak_mib: of(|f| f.peak_mib),
    }
}

fn print_row(name: &str, figures: Figures) {
    let Figures {
        rate,
        cpu_per_million,
        peak_mib,
    } = figures;
    println!("| {name} | {rate:.0} | {cpu_per_million:.2} | {peak_mib:.0} |");
}
