//! The orders of a walk-through: made up by a fixed rule, so that it is known what they come to, and written by Kafka's console producer.

use std::collections::BTreeMap;
use std::io::Write;
use std::process::{Child, ChildStdin, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};

use super::ground::Ground;

pub const TOPIC: &str = "orders";
/// Of these, two belong to each of six partitions.
pub const COUNTRIES: [&str; 12] = [
    "DE", "US", "FR", "JP", "BR", "ES", "IT", "IN", "CA", "MX", "GR", "AT",
];
/// Countries have numbers below this; those that there are not stand for the first ones again, so that totals differ.
const DRAWN: u64 = 17;
const PAUSE: Duration = Duration::from_millis(50);

/// What the pipeline keeps of a country.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Total {
    pub count: u64,
    pub sum: u64,
}

impl std::fmt::Display for Total {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} orders of {}", self.count, self.sum)
    }
}

fn country(number: u64) -> &'static str {
    let drawn = usize::try_from(number % DRAWN).unwrap_or_default();
    COUNTRIES[drawn % COUNTRIES.len()]
}

fn amount(number: u64) -> u64 {
    100 + number * 37 % 4_900
}

/// The customer as key, the order as value, as the console producer takes them.
fn line(number: u64) -> String {
    let (customer, country, amount) = (number % 1_000, country(number), amount(number));
    let order = format!(
        r#"{{"order":"o{number}","customer":"c{customer}","country":"{country}","amount":{amount}}}"#
    );
    format!("c{customer}\t{order}\n")
}

/// What so many orders come to.
pub fn totals(orders: u64) -> BTreeMap<&'static str, Total> {
    let mut totals: BTreeMap<_, Total> = BTreeMap::new();
    for number in 0..orders {
        let total = totals.entry(country(number)).or_default();
        total.count += 1;
        total.sum += amount(number);
    }
    totals
}

/// Orders that come until they are stopped.
pub struct Writer {
    producer: Child,
    stop: Arc<AtomicBool>,
    written: Option<JoinHandle<Result<u64>>>,
}

impl Writer {
    /// The arguments of the producer, for a broker.
    pub fn arguments(bootstrap: &str) -> [&str; 7] {
        [
            "ConsoleProducer",
            "--bootstrap-server",
            bootstrap,
            "--topic",
            TOPIC,
            "--reader-property",
            "parse.key=true",
        ]
    }

    pub fn start(ground: &Ground, rate: u32) -> Result<Self> {
        let bootstrap = ground.bootstrap();
        let mut command = ground.tool(&Self::arguments(&bootstrap));
        // On standard output it prints a prompt for each line.
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(ground.log("producer")?);
        let mut producer = ground.spawn(&mut command)?;
        let input = producer.stdin.take().context("its input is piped")?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let written = std::thread::spawn(move || write(input, rate, &stopped));
        Ok(Self {
            producer,
            stop,
            written: Some(written),
        })
    }

    /// Waits until Kafka has them all, and says how many they were.
    pub fn end(mut self) -> Result<u64> {
        self.stop.store(true, Ordering::Relaxed);
        let written = self.written.take().context("it ends once")?.join();
        let written = written.map_err(|_| anyhow!("the writer panicked"))??;
        let status = self.producer.wait()?;
        ensure!(status.success(), "the console producer ended with {status}");
        Ok(written)
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// So many a second, by the clock: what a slow moment held up comes after it.
fn write(mut input: ChildStdin, rate: u32, stop: &AtomicBool) -> Result<u64> {
    let (began, mut written) = (Instant::now(), 0);
    while !stop.load(Ordering::Relaxed) {
        let due = began.elapsed().as_millis() * u128::from(rate) / 1_000;
        let due = u64::try_from(due)?;
        let lines: String = (written..due).map(line).collect();
        input
            .write_all(lines.as_bytes())
            .context("the console producer takes no more")?;
        written = due;
        std::thread::sleep(PAUSE);
    }
    Ok(written)
}
