//! Runs job J1 on Millstream and on the reference loop in turn, on one broker and one topic, and prints what each took: records a
//! second, CPU seconds of its process for a million records, and peak memory; absolute and as ratios of medians.
//!
//! Every peer's output is judged by the judge of the system tests, which shares no code with either.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result};
use clap::Parser;
use millstream_bench::{Figures, INPUT, PARTITIONS};
use rig::folder::Folder;
use rig::judge;
use rig::kafka::Kafka;

const IDS: u32 = 1_000_000;
const MIN_AGE: &str = "18";

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
        millstream_bench::print_head();
        for round in 0..self.arguments.rounds {
            for (peer, figures) in peers.iter().zip(&mut figures) {
                let last = round + 1 == self.arguments.rounds;
                let run = self.run(*peer, interval, last)?;
                millstream_bench::print_row(&format!("{peer:?}"), run);
                figures.push(run);
            }
        }
        let [reference, millstream] = figures.map(|figures| millstream_bench::median(&figures));
        millstream_bench::print_row("**Reference, median**", reference);
        millstream_bench::print_row("**Millstream, median**", millstream);
        millstream_bench::print_ratio(reference, millstream);
        Ok(())
    }

    fn run(&mut self, peer: Peer, interval: u64, judged: bool) -> Result<Figures> {
        self.runs += 1;
        let group = format!("bench-{}", self.runs);
        let output = format!("adults-{}", self.runs);
        self.kafka.topic(&output, PARTITIONS, &[]);
        let log = self.folder.join(&format!("{group}.log"));
        let mut child = self.spawn(peer, &group, &output, interval, &log)?;
        let records = self.arguments.records;
        let figures = millstream_bench::measure(&self.kafka, &mut child, &group, records);
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
