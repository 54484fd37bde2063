//! `cargo xtask walkthrough`: example 03 on a real Kafka of its own. Processes are killed, added, drained and restarted while orders come in
//! and a reader watches; at the end every order must have counted once.
//!
//! The orders are made up by a fixed rule, so that what they must come to is known here and not asked of Millstream.

mod fleet;
mod ground;
mod orders;
mod outputs;
mod reader;

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::Args;

use fleet::{Fleet, Held, told};
use ground::{Ground, KAFKA};
use orders::{COUNTRIES, Total, Writer};
use reader::{Answer, Found, Reader, WATCHED, Witness, ask};

const PIPELINE: &str = "examples/03-three-processes/pipeline.toml";
const ENTRIES: &str = "/v1/pipelines/three-processes/maps/totals/entries";
const OUTPUT: &str = "country-totals";
const PARTITIONS: u64 = 6;
/// The brokers wait 8 s from a process's last heartbeat on. Who is back by then has lost nothing.
const BACK_IN_TIME: Duration = Duration::from_secs(5);
/// For anything that is waited for, on a busy machine.
const WITHIN: Duration = Duration::from_secs(90);
const POLL: Duration = Duration::from_millis(50);
/// Between two steps, for the reader to show that all is well.
const CALM: Duration = Duration::from_secs(3);

#[derive(Args)]
pub struct Arguments {
    /// Orders a second.
    #[arg(long, default_value_t = 300, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    rate: u32,
}

pub fn run(root: &Path, binary: &Path, arguments: &Arguments) -> Result<()> {
    say(&format!("\n{INTRODUCTION}"));
    let began = Instant::now();
    let mut ground = Ground::new(root)?;
    let walked = ground
        .start_kafka()
        .and_then(|()| walk(&ground, binary, arguments, began));
    if walked.is_err() {
        ground.keep_folder()?;
        eprintln!("what was logged stays in {}", ground.folder().display());
    }
    let ended = ground.end();
    walked?;
    ended?;
    let took = began.elapsed().as_secs();
    say(&format!(
        "Kafka has ended, and its folder is gone. All of it took {took} s."
    ));
    Ok(())
}

/// A line, whole, whoever else prints.
fn say(text: &str) {
    println!("{text}");
}

fn step(number: u32, what: &str) {
    say(&format!("\n{number}. {what}\n"));
}

const INTRODUCTION: &str = "\
This runs examples/03-three-processes/pipeline.toml in three processes, on a Kafka of its own: orders are counted and added up by country.
Processes are killed, added, drained and restarted, while orders come in and a reader asks for totals. Ctrl-C ends all of it.";

/// What is at work, and what was seen of it.
struct Walk<'a> {
    began: Instant,
    fleet: Fleet<'a>,
    reader: Option<Reader>,
    witness: Witness,
}

fn walk(ground: &Ground, binary: &Path, arguments: &Arguments, began: Instant) -> Result<()> {
    let orders = begin_orders(ground, arguments.rate)?;
    let mut walk = Walk {
        began,
        fleet: Fleet::new(ground, binary),
        reader: None,
        witness: Witness::default(),
    };
    walk.start_three()?;
    walk.watch()?;
    walk.lose("b", "a and c")?;
    walk.add(5, "Start b again", "b")?;
    walk.add(6, "Add a fourth, d", "d")?;
    walk.drain("c")?;
    walk.restart("a")?;
    walk.compare(ground, orders)
}

fn begin_orders(ground: &Ground, rate: u32) -> Result<Writer> {
    step(1, "Kafka, topics, and orders");
    let bootstrap = ground.bootstrap();
    say(&format!("A Kafka listens on {bootstrap}."));
    for topic in [orders::TOPIC, OUTPUT] {
        let partitions = PARTITIONS.to_string();
        let create = ["--create", "--topic", topic, "--partitions", &partitions];
        let at = ["TopicCommand", "--bootstrap-server", &bootstrap];
        let arguments = [&at[..], &create].concat();
        say(&format!("$ {KAFKA} tool {}", arguments.join(" ")));
        let created = ground.output(&mut ground.tool(&arguments))?;
        ensure!(
            created.status.success(),
            "creating {topic}: {}",
            String::from_utf8_lossy(&created.stderr)
        );
    }
    let arguments = Writer::arguments(&bootstrap).join(" ");
    say(&format!(
        "{rate} orders a second of {} countries go to Kafka's console producer from now on:\n$ {KAFKA} tool {arguments}",
        COUNTRIES.len()
    ));
    Writer::start(ground, rate)
}

impl Walk<'_> {
    fn start_three(&mut self) -> Result<()> {
        step(2, "Three processes");
        let since = Instant::now();
        for name in ["a", "b", "c"] {
            self.fleet.start(name)?;
        }
        let held = self.settle(|held| held.values().all(|held| !held.is_empty()))?;
        say(&format!(
            "\n{} after their start each has its share of the {PARTITIONS} partitions, and every country has a total.\n\
             By /v1/status they hold: {}.",
            seconds(since.elapsed()),
            told(&held)
        ));
        Ok(())
    }

    fn watch(&mut self) -> Result<()> {
        step(3, "A reader");
        let live: Vec<_> = self.fleet.live().collect();
        let (_, first) = live.first().context("there are three")?;
        say(&format!(
            "Five times a second it asks one of them, each in turn, for the totals of {}:\n\
             $ curl -i http://{first}{ENTRIES}/{country}\n\
             Whoever is asked asks those who know. A step's state may have a key in any partition, so that all of them are asked, and one\n\
             that is away leaves the question open. But a country stays where it is: the header `millstream-partition` says where, and from\n\
             then on the reader asks for that partition alone:\n\
             $ curl -i 'http://{first}{ENTRIES}/{country}?partition=N'\n\
             What it is told is shown once a second, and whenever answers stop or come again: how many orders were counted, and whose\n\
             answer that is.\n",
            WATCHED.join(" and "),
            country = WATCHED[0]
        ));
        self.reader = Some(Reader::start(self.began, live));
        self.pass(CALM)
    }

    fn lose(&mut self, name: &str, others: &str) -> Result<()> {
        step(4, &format!("kill -9 of {name}"));
        say(
            "Nobody tells the brokers. They wait for it as long as a session lasts, 8 s, and then give its partitions to the others.\n\
             Until these have them, nobody answers for what it held: 503, never 404 or an old total. The others go on answering for theirs.\n\
             But the orders of all countries are held up where b was in the middle of a transaction, as it often is: whatever is behind\n\
             its records in the stream is read once that transaction is aborted, by whoever gets its partitions.",
        );
        let before = self.seen()?;
        self.fleet.kill(name)?;
        let since = Instant::now();
        let held = self.settle(|_| true)?;
        say(&format!(
            "\nEvery country was answered again by {others} {} after the kill. They hold: {}.",
            seconds(since.elapsed()),
            told(&held)
        ));
        self.rest(before)
    }

    fn add(&mut self, number: u32, what: &str, name: &'static str) -> Result<()> {
        step(number, what);
        let before = self.seen()?;
        self.fleet.start(name)?;
        let since = Instant::now();
        if let Some(reader) = self.reader.as_ref().filter(|_| name == "d") {
            reader.add(name, self.fleet.address(name)?);
        }
        let held = self.settle(|held| held.values().all(|held| !held.is_empty()))?;
        say(&format!(
            "\n{name} had its share, and every country was answered, {} after its start. They hold: {}.",
            seconds(since.elapsed()),
            told(&held)
        ));
        self.rest(before)
    }

    fn drain(&mut self, name: &str) -> Result<()> {
        step(7, &format!("Drain {name}"));
        say(
            "It commits, leaves the group and ends, so that nobody waits for a session to be over.",
        );
        let before = self.seen()?;
        let since = Instant::now();
        let took = self.fleet.drain(name)?;
        let held = self.settle(|_| true)?;
        say(&format!(
            "\nThe command took {}. {} after it was given, every country was answered by the others. They hold: {}.",
            seconds(took),
            seconds(since.elapsed()),
            told(&held)
        ));
        self.rest(before)
    }

    fn restart(&mut self, name: &'static str) -> Result<()> {
        step(8, &format!("Restart {name}, as for a new version"));
        say(
            "SIGTERM has it commit and end, and keeps its seat in the group: back within the session, it has the same partitions.",
        );
        let held = self.settle(|_| true)?;
        let before = self.seen()?;
        let since = Instant::now();
        self.fleet.terminate(name)?;
        let ended = since.elapsed();
        self.fleet.start(name)?;
        let after = self.settle(|held| held.values().all(|held| !held.is_empty()))?;
        let took = since.elapsed();
        ensure!(
            after == held || took > BACK_IN_TIME,
            "{name} was back {} after SIGTERM, and partitions have moved: {} before, {} after",
            seconds(took),
            told(&held),
            told(&after)
        );
        let moved = if after == held {
            "Nothing has moved"
        } else {
            "That took longer than its session may have lasted, and partitions have moved"
        };
        say(&format!(
            "\nIt had ended after {}, and every country was answered again {} after SIGTERM. {moved}: {}.",
            seconds(ended),
            seconds(took),
            told(&after)
        ));
        self.rest(before)
    }

    fn compare(mut self, ground: &Ground, orders: Writer) -> Result<()> {
        step(9, "What it came to");
        let written = orders.end()?;
        say(&format!("{written} orders were written, and no more come."));
        let expected = orders::totals(written);
        let began = Instant::now();
        // What is missing, and what is too many, stays so: both are told when they have not gone in time.
        loop {
            let wrong = self.wrong_totals(&expected)?;
            if wrong.is_empty() {
                break;
            }
            ensure!(
                began.elapsed() < WITHIN,
                "after {WITHIN:?} totals differ from what was written: {}",
                wrong.join("; ")
            );
            self.pass(POLL)?;
        }
        let names: Vec<&str> = self.fleet.live().map(|(name, _)| name).collect();
        say(&format!(
            "Asked at {}, every country has the count and sum that were written of it.",
            names.join(", ")
        ));
        let reader = self.reader.take().context("it watches to the end")?;
        let tally = reader.end()?;
        say(&format!("The topic {OUTPUT} has an output for each order:"));
        let outputs = outputs::read(ground, written)?;
        outputs::compare(&outputs, &expected)?;
        say(&format!(
            "{written} orders written, {} counted, each once: the counts of every country go 1, 2, 3, … to its total.\n\
             The reader got {tally}. No total ever went down, and none was ever gone.",
            outputs.len()
        ));
        self.fleet.check()?;
        self.fleet.terminate_all()
    }

    /// Of every country at every instance, what is not as expected, or not answered.
    fn wrong_totals(&mut self, expected: &BTreeMap<&'static str, Total>) -> Result<Vec<String>> {
        let mut wrong = Vec::new();
        for (name, address) in self.fleet.live() {
            for (country, expected) in expected {
                let answer = ask(address, country, None)?;
                let at = format!("instance {name}");
                self.witness.hear(country, &at, &answer)?;
                match answer {
                    Answer::Found(Found { total, .. }) if total == *expected => {}
                    other => wrong.push(format!("{at}: {country} {other:?}, not {expected}")),
                }
            }
        }
        Ok(wrong)
    }

    /// Waits until all partitions are held, as is wanted, and every country is answered at every instance.
    fn settle(&mut self, as_wanted: impl Fn(&Held) -> bool) -> Result<Held> {
        let began = Instant::now();
        loop {
            let held = self.fleet.held();
            let spread = held.filter(|held| is_whole(held) && as_wanted(held));
            if let Some(held) = spread
                && self.all_answered()?
            {
                return Ok(held);
            }
            ensure!(
                began.elapsed() < WITHIN,
                "after {WITHIN:?} not every country is answered; held: {:?}",
                self.fleet.held()
            );
            self.pass(POLL)?;
        }
    }

    fn all_answered(&mut self) -> Result<bool> {
        for (name, address) in self.fleet.live() {
            for country in COUNTRIES {
                let answer = ask(address, country, None)?;
                self.witness
                    .hear(country, &format!("instance {name}"), &answer)?;
                if !matches!(answer, Answer::Found(_)) {
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }

    /// Lets time go by, and fails where something has gone wrong meanwhile.
    fn pass(&mut self, time: Duration) -> Result<()> {
        let end = Instant::now() + time;
        while Instant::now() < end {
            std::thread::sleep(POLL.min(time));
        }
        self.fleet.check()?;
        self.reader.as_ref().map_or(Ok(()), Reader::check)
    }

    fn seen(&self) -> Result<reader::Tally> {
        let reader = self.reader.as_ref();
        Ok(reader.context("the reader watches by now")?.tally())
    }

    /// The end of a step: what the reader got meanwhile, and how it goes on.
    fn rest(&mut self, before: reader::Tally) -> Result<()> {
        let got = self.seen()?.since(before);
        say(&format!("Meanwhile the reader got {got}.\n"));
        self.pass(CALM)
    }
}

/// Whether every partition is held once.
fn is_whole(held: &Held) -> bool {
    let mut numbers: Vec<u64> = held.values().flatten().copied().collect();
    numbers.sort_unstable();
    numbers.into_iter().eq(0..PARTITIONS)
}

fn seconds(time: Duration) -> String {
    format!("{:.1} s", time.as_secs_f64())
}
