//! What the benches share: what a process takes while it works a topic off.
//!
//! CPU time is what the figures rest on: it hardly depends on what else the machine does.

pub mod replay;
pub mod stream;

use std::process::Child;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::{Offset, TopicPartitionList};
use rig::kafka::Kafka;
use rig::millstream;
use rig::process::Process;

/// The topic that all benches read.
pub const INPUT: &str = "user-events";
pub const PARTITIONS: u32 = 4;

/// A run that takes longer is given up.
const RUN_MAX: Duration = Duration::from_secs(300);
/// Linux counts CPU time in hundredths of a second (`sysconf(_SC_CLK_TCK)`).
const CLOCK_TICKS: f64 = 100.0;

/// What a run took.
#[derive(Clone, Copy, Debug)]
pub struct Figures {
    /// Records a second.
    pub rate: f64,
    /// CPU seconds for a million records.
    pub cpu_per_million: f64,
    pub peak_mib: f64,
}

/// Waits until the group of this process has committed so many records of [`INPUT`]. The clock starts with the first commit or
/// sign of work, so that joining the group counts for nobody.
pub fn measure(kafka: &Kafka, child: &mut Child, group: &str, records: u64) -> Result<Figures> {
    let watcher = watcher(kafka, group)?;
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
        if done >= records {
            let records = records as f64;
            return Ok(Figures {
                rate: records / idle_until.elapsed().as_secs_f64(),
                cpu_per_million: cpu / records * 1e6,
                peak_mib: millstream::peak_memory(&Process::of(process)) as f64
                    / f64::from(1 << 20),
            });
        }
    }
}

/// A client that reads what a group has committed.
pub fn watcher(kafka: &Kafka, group: &str) -> Result<BaseConsumer> {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", kafka.direct());
    Ok(config.set("group.id", group).create()?)
}

/// Records of [`INPUT`] that the watcher's group has committed.
pub fn committed(watcher: &BaseConsumer) -> Result<u64> {
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
pub fn cpu_seconds(process: u32) -> Result<f64> {
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

pub fn median(figures: &[Figures]) -> Figures {
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

pub fn print_head() {
    println!("| peer | records/s | CPU s per million | peak MiB |\n| --- | --- | --- | --- |");
}

pub fn print_row(name: &str, figures: Figures) {
    let Figures {
        rate,
        cpu_per_million,
        peak_mib,
    } = figures;
    println!("| {name} | {rate:.0} | {cpu_per_million:.2} | {peak_mib:.0} |");
}

pub fn print_ratio(reference: Figures, other: Figures) {
    println!(
        "| **ratio** | {:.2} | {:.2} | {:.2} |",
        other.rate / reference.rate,
        other.cpu_per_million / reference.cpu_per_million,
        other.peak_mib / reference.peak_mib,
    );
}
