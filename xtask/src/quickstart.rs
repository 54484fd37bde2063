//! `cargo xtask quickstart`: example 01 on the broker in memory, with events of its own, and real queries with their answers.
//!
//! The events are made up by a fixed rule, so that two runs show the same.

use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use percent_encoding::NON_ALPHANUMERIC;
use serde_json::Value;

const EVENTS: u32 = 2_400;
const USERS: u32 = 500;
/// One event in so many is malformed.
const MALFORMED_EVERY: u32 = 50;
/// How many a second come once the queries are through.
const TRICKLE: u32 = 5;

/// The usual address; a free one where somebody else has it.
const HTTP: &str = "127.0.0.1:8080";
const PIPELINE: &str = "examples/01-materialize-users/pipeline.toml";
const COUNTRIES: &str = "examples/01-materialize-users/countries.jsonl";
/// After two of the pipeline's intervals, what was fed has been committed, or there was nothing.
const NOTHING: Duration = Duration::from_secs(12);
const READY: Duration = Duration::from_secs(60);

#[derive(Args)]
pub struct Arguments {
    /// End after the queries.
    #[arg(long)]
    once: bool,
    /// Feed this file in place of the events made up here: lines of JSON, with the id as `key` and the event as `value`.
    #[arg(long, value_name = "FILE")]
    feed: Option<PathBuf>,
}

pub fn run(root: &Path, binary: &Path, arguments: &Arguments) -> Result<()> {
    let mut out = std::io::stdout();
    writeln!(out, "\n{INTRODUCTION}")?;
    let mut stream = Stream::start(root, binary, arguments.feed.is_some())?;
    let mut events: String = match &arguments.feed {
        None => (0..EVENTS).map(event).collect(),
        Some(file) => std::fs::read_to_string(file).with_context(|| file.display().to_string())?,
    };
    if !events.ends_with('\n') {
        // The input stays open: only this says that the last line is whole.
        events.push('\n');
    }
    let count = events
        .lines()
        .filter(|line| !line.trim().is_empty())
        .count();
    match &arguments.feed {
        None => writeln!(
            out,
            "Feeding it {count} events, some of them malformed on purpose."
        )?,
        Some(file) => writeln!(out, "Feeding it the {count} lines of {}.", file.display())?,
    }
    stream.feed(&events)?;
    let settled = stream.settle()?;
    writeln!(out, "{settled}\n")?;
    let one = stream.some_key()?.map(|key| format!("{ENTRIES}/{key}"));
    let by_key = one.iter().map(|path| ("One user, by key:", path.as_str()));
    for (what, path) in by_key.chain(QUERIES) {
        writeln!(out, "{what}\n  $ curl '{}{path}'", stream.url)?;
        writeln!(out, "  {}\n", stream.get(path)?.trim_end())?;
    }
    if arguments.once {
        return stream.end();
    }
    writeln!(
        out,
        "{TRICKLE} events a second go on coming in. Ask more, or change the plugin in examples/01-materialize-users/plugin and start\n\
         this again. What there is: {}/openapi.json, counters: {}/metrics. Ctrl-C ends it.",
        stream.url, stream.url
    )?;
    let mut number = EVENTS;
    loop {
        std::thread::sleep(Duration::from_secs(1) / TRICKLE);
        if stream.feed(&event(number)).is_err() || stream.child.try_wait()?.is_some() {
            // Ctrl-C went to both of us, and it has ended.
            return stream.end();
        }
        number += 1;
    }
}

const INTRODUCTION: &str = "\
This runs examples/01-materialize-users/pipeline.toml on a Kafka in memory: nothing is installed, and nothing is kept.
The pipeline reads events of users as JSON. Its step, a WebAssembly plugin written in Rust, leaves out what is no such event,
drops users under 18, writes names in upper case, and looks the name of the country up in a table that is fed too. The map `users`
holds the latest event of each user, and answers over HTTP.
";

const ENTRIES: &str = "/v1/pipelines/materialize-users/maps/users/entries";

const QUERIES: [(&str, &str); 3] = [
    (
        "Users in Germany of 60 and up, by two indexes (%3E is >):",
        "/v1/pipelines/materialize-users/maps/users/entries?where=/country=DE&where=/age%3E=60&limit=2",
    ),
    (
        "Users whose id begins with u49:",
        "/v1/pipelines/materialize-users/maps/users/entries?prefix=u49&limit=2",
    ),
    (
        "The table of countries is a map too:",
        "/v1/pipelines/materialize-users/maps/countries/entries/JP",
    ),
];

/// A line of JSON: the id as key, the event as value.
fn event(number: u32) -> String {
    const NAMES: [&str; 8] = [
        "Anna", "Ben", "Chloé", "Dimitri", "Emi", "Farid", "Grace", "Hugo",
    ];
    const COUNTRIES: [&str; 8] = ["DE", "US", "FR", "GR", "JP", "EG", "KE", "XX"];
    let user = number * 7 % USERS;
    let id = format!("u{user}");
    let age = (user * 13 + number / USERS) % 90;
    let (name, country) = (NAMES[user as usize % 8], COUNTRIES[user as usize / 8 % 8]);
    let time = 1_767_225_600_000_u64 + u64::from(number) * 1000;
    let event = format!(
        r#"{{"id":"{id}","name":"{name} {user}","age":{age},"country":"{country}","ts":{time},"email":"{id}@example.org"}}"#
    );
    let mut line = format!(r#"{{"key":"{id}","value":"#);
    if number % MALFORMED_EVERY == MALFORMED_EVERY - 1 {
        // As text, since it is no JSON: the first half of the event.
        let half: String = event.chars().take(event.chars().count() / 2).collect();
        let text = half.replace('\\', "\\\\").replace('"', "\\\"");
        let _ = write!(line, "\"{text}\"");
    } else {
        line += &event;
    }
    line + "}\n"
}

/// The running pipeline.
struct Stream {
    child: Child,
    input: Option<ChildStdin>,
    url: String,
}

impl Stream {
    fn start(root: &Path, binary: &Path, shows_failures: bool) -> Result<Self> {
        let http = match std::net::TcpListener::bind(HTTP) {
            Ok(_) => HTTP,
            Err(_) => "127.0.0.1:0",
        };
        let countries = format!("countries={COUNTRIES}");
        let embedded = ["--embedded", "--feed", &countries, "--feed", "events=-"];
        let arguments = [&["run", PIPELINE][..], &embedded].concat();
        println!(
            "$ target/release/millstream {} --http {http}",
            arguments.join(" ")
        );
        let mut child = Command::new(binary)
            .current_dir(root)
            .args(&arguments)
            .args(["--http", http])
            .stdin(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| binary.display().to_string())?;
        let log = child.stderr.take().context("its log is piped")?;
        let address = follow(log, shows_failures)?;
        Ok(Self {
            input: child.stdin.take(),
            child,
            url: format!("http://{address}"),
        })
    }

    fn feed(&mut self, lines: &str) -> Result<()> {
        let input = self.input.as_mut().context("it takes no more")?;
        input.write_all(lines.as_bytes())?;
        Ok(input.flush()?)
    }

    /// Waits until what was fed is committed and can be queried. Returns what it came to, in words.
    fn settle(&mut self) -> Result<String> {
        let (began, mut last, mut still) = (Instant::now(), String::new(), 0);
        while still < 10 {
            ensure!(began.elapsed() < READY, "it does not come to rest: {last}");
            ensure!(self.child.try_wait()?.is_none(), "it has ended");
            std::thread::sleep(Duration::from_millis(100));
            let now = self.figures().unwrap_or_default();
            if now.is_empty() && began.elapsed() > NOTHING {
                return Ok("None of it was a record: the map stays empty.".into());
            }
            still = if now == last && !now.is_empty() {
                still + 1
            } else {
                0
            };
            last = now;
        }
        Ok(last)
    }

    fn figures(&self) -> Result<String> {
        let metrics = self.get("/metrics")?;
        let sum = |name: &str| {
            let of = |line: &str| {
                line.starts_with(name)
                    .then(|| line.rsplit(' ').next()?.parse::<f64>().ok())
            };
            metrics
                .lines()
                .filter_map(|line| of(line).flatten())
                .fold(0.0, |sum, value| sum + value)
        };
        let read = sum("millstream_source_records_total");
        if read == 0.0 || sum("millstream_source_lag") > 0.0 {
            bail!("not everything is committed yet");
        }
        Ok(format!(
            "It has read {read} of them and left out {} that are no such event; {} passed, in {} committed epochs.\n\
             The map holds {} users.",
            sum("millstream_failed_records_total"),
            sum("millstream_sink_records_total{pipeline=\"materialize-users\",sink=\"users\""),
            sum("millstream_epochs_total{pipeline=\"materialize-users\",outcome=\"committed\""),
            sum("millstream_map_entries{pipeline=\"materialize-users\",map=\"users\""),
        ))
    }

    /// The answer, be it a refusal.
    fn get(&self, path: &str) -> Result<String> {
        let request = ureq::get(format!("{}{path}", self.url));
        let request = request.config().http_status_as_error(false).build();
        Ok(request.call()?.body_mut().read_to_string()?)
    }

    /// A key that the map has, as a URL takes it: what is fed need not be our own events. None where it has none.
    fn some_key(&self) -> Result<Option<String>> {
        let page: Value = serde_json::from_str(&self.get(&format!("{ENTRIES}?limit=1"))?)?;
        let key = page["entries"][0]["key"].as_str();
        let encoded = |key| percent_encoding::utf8_percent_encode(key, NON_ALPHANUMERIC);
        Ok(key.map(|key| encoded(key).to_string()))
    }

    /// Its input ends, and it is asked to.
    fn end(mut self) -> Result<()> {
        drop(self.input.take());
        let id = self.child.id().to_string();
        Command::new("kill").args(["-TERM", &id]).status()?;
        let status = self.child.wait()?;
        ensure!(status.success(), "it ended with {status}");
        Ok(())
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        // Nothing to do where it has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Passes on what it logs, and returns the address that it names. Of our own events it is known which are left out.
fn follow(log: impl std::io::Read + Send + 'static, shows_failures: bool) -> Result<String> {
    let (named, address) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        for line in BufReader::new(log).lines().map_while(Result::ok) {
            if let Some((_, address)) = line.split_once("listening on http://") {
                let _ = named.send(address.to_owned());
            }
            let expected =
                line.contains("skipped a record") || line.contains("records were skipped");
            if shows_failures || !expected {
                eprintln!("  {line}");
            }
        }
    });
    address
        .recv_timeout(READY)
        .context("it does not say where it listens")
}
