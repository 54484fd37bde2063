//! What snapshots of a large map cost the stream beside which they are written: how long commits take while events come in at a rate,
//! and how fast and at which CPU a stream goes that has all the work it wants; with snapshots one after the other, and without.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use clap::Parser;
use millstream_bench::replay::Writer;
use millstream_bench::stream::{Binaries, Server, Stream};
use millstream_bench::{Figures, cpu_seconds};

/// With so many events to a key drawn at random, 95 % of the keys come.
const EVENTS_PER_KEY: u64 = 3;
/// Events come in for so long before they count.
const SETTLED: Duration = Duration::from_secs(3);

#[derive(Parser)]
struct Arguments {
    /// Keys that are drawn from: the map has 95 % of them.
    #[arg(long, default_value_t = 1_055_000)]
    ids: u64,
    /// Events a second while commits are timed.
    #[arg(long, default_value_t = 20_000)]
    rate: u64,
    /// Seconds that commits are timed.
    #[arg(long, default_value_t = 40)]
    seconds: u64,
    /// How soon after a snapshot of a partition the next is begun.
    #[arg(long, default_value = "5s")]
    interval: String,
    /// Runs with and without snapshots.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    #[command(flatten)]
    binaries: Binaries,
}

#[derive(Clone, Copy, Debug)]
enum Kept {
    Nothing,
    Snapshots,
}

/// What `/metrics` says, as far as it is looked at.
#[derive(Clone, Debug, Default)]
struct Metrics {
    /// Upper bound in seconds, and how many commits took no longer.
    commits: Vec<(f64, f64)>,
    commit_seconds: f64,
    snapshots: f64,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let mut stream = Stream::new(&arguments.binaries, arguments.ids);
    stream.write(EVENTS_PER_KEY * arguments.ids);
    let mut figures = [Vec::new(), Vec::new()];
    println!("commits at {} events/s, epochs of 100 ms\n", arguments.rate);
    println!(
        "| kept | commits | mean ms | p50 ≤ ms | p99 ≤ ms | longest ≤ ms | snapshots | CPU s |"
    );
    println!("| --- | --- | --- | --- | --- | --- | --- | --- |");
    for round in 0..arguments.rounds {
        for (kept, figures) in [Kept::Nothing, Kept::Snapshots]
            .into_iter()
            .zip(&mut figures)
        {
            figures.push(run(&mut stream, &arguments, round, kept)?);
        }
    }
    println!(
        "\nthe stream before that, up to {} events, as fast as it goes\n",
        stream.written
    );
    millstream_bench::print_head();
    let [without, with] = figures.map(|figures| millstream_bench::median(&figures));
    millstream_bench::print_row("**without, median**", without);
    millstream_bench::print_row("**with snapshots, median**", with);
    millstream_bench::print_ratio(without, with);
    Ok(())
}

/// The stream until it has caught up, and then at a rate.
fn run(stream: &mut Stream, arguments: &Arguments, round: u32, kept: Kept) -> Result<Figures> {
    let interval = match kept {
        Kept::Nothing => "1000m",
        Kept::Snapshots => &arguments.interval,
    };
    let group = format!("{kept:?}-{round}").to_lowercase();
    let state = stream.folder.join("state").display().to_string();
    let settings = ["--state-dir", &state, "--snapshot-interval", interval];
    let mut server = stream.start(&group, "100ms", &settings)?;
    let figures =
        millstream_bench::measure(&stream.kafka, &mut server.child, &group, stream.written)?;
    let writer = Writer::start(&stream.kafka.direct(), arguments.rate, arguments.seconds)?;
    std::thread::sleep(SETTLED);
    let (before, cpu) = (look(&server)?, cpu_seconds(server.child.id())?);
    std::thread::sleep(Duration::from_secs(arguments.seconds));
    let cpu = cpu_seconds(server.child.id())? - cpu;
    let commits = look(&server)?.since(&before);
    stream.written += writer.end()?;
    server.end()?;
    let Metrics {
        commit_seconds,
        snapshots,
        ..
    } = commits;
    let count = commits.count();
    ensure!(count > 0.0, "nothing was committed");
    println!(
        "| {kept:?} | {count:.0} | {:.1} | {:.0} | {:.0} | {:.0} | {snapshots:.0} | {cpu:.1} |",
        commit_seconds / count * 1e3,
        commits.quantile(0.5) * 1e3,
        commits.quantile(0.99) * 1e3,
        commits.quantile(1.0) * 1e3,
    );
    Ok(figures)
}

fn look(server: &Server) -> Result<Metrics> {
    let answer = rig::http::get(server.address, "/metrics")?;
    let mut metrics = Metrics::default();
    for line in answer.text().lines().filter(|line| !line.starts_with('#')) {
        let (name, value) = line.rsplit_once(' ').context("a metric has a value")?;
        let value: f64 = value.parse().with_context(|| line.to_owned())?;
        if name.starts_with("millstream_commit_seconds_bucket") {
            let bound = name
                .split("le=\"")
                .nth(1)
                .and_then(|rest| rest.split('"').next());
            let bound = bound.context("a bucket has a bound")?;
            metrics
                .commits
                .push((bound.parse().unwrap_or(f64::INFINITY), value));
        } else if name.starts_with("millstream_commit_seconds_sum") {
            metrics.commit_seconds += value;
        } else if name.starts_with("millstream_snapshots_written_total") {
            metrics.snapshots += value;
        }
    }
    Ok(metrics)
}

impl Metrics {
    fn since(mut self, before: &Self) -> Self {
        for ((_, count), (_, earlier)) in self.commits.iter_mut().zip(&before.commits) {
            *count -= earlier;
        }
        self.commit_seconds -= before.commit_seconds;
        self.snapshots -= before.snapshots;
        self
    }

    fn count(&self) -> f64 {
        self.commits.last().map_or(0.0, |(_, count)| *count)
    }

    /// The bound of the bucket that this part of the commits did not exceed, in seconds.
    fn quantile(&self, part: f64) -> f64 {
        let wanted = part * self.count();
        let bucket = self.commits.iter().find(|(_, count)| *count >= wanted);
        bucket.map_or(f64::INFINITY, |(bound, _)| *bound)
    }
}
