//! Point queries beside the stream, asked by `wrk`: how fast and how soon they are answered while events come in at a given rate,
//! and what they cost a stream that goes as fast as it can. The broker, the writer of the events and `wrk` are on the machine too.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::Parser;
use millstream_bench::Figures;
use millstream_bench::replay::Writer;
use millstream_bench::stream::{Binaries, Server, Stream};
use serde_json::Value;

/// Events come in for so long before they count.
const SETTLED: Duration = Duration::from_secs(3);

/// Asks for keys at random, and tells at the end what is read here: times in microseconds.
const SCRIPT: &str = r#"
local seed = os.time()
setup = function(thread) seed = seed + 1; thread:set("seed", seed) end
init = function() math.randomseed(seed) end
request = function() return wrk.format("GET", PATH .. "u" .. math.random(0, IDS - 1)) end
done = function(summary, latency)
  local errors = summary.errors
  print("answers:" .. summary.requests)
  print("refused:" .. errors.status)
  print("failed:" .. errors.connect + errors.read + errors.write + errors.timeout)
  print("rate:" .. summary.requests / summary.duration * 1e6)
  print("p50:" .. latency:percentile(50))
  print("p99:" .. latency:percentile(99))
end
"#;

#[derive(Parser)]
struct Arguments {
    /// Different keys.
    #[arg(long, default_value_t = 200_000)]
    ids: u64,
    /// Events a second while point queries are asked.
    #[arg(long, default_value_t = 100_000)]
    rate: u64,
    /// Seconds that each measure takes.
    #[arg(long, default_value_t = 20)]
    seconds: u64,
    /// Events of each run of the stream with and without queries.
    #[arg(long, default_value_t = 3_000_000)]
    records: u64,
    /// Runs with and without queries.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    #[command(flatten)]
    binaries: Binaries,
}

/// Connections, and what each waits before it asks again.
#[derive(Clone, Copy)]
struct Load {
    connections: u32,
    delay_ms: u32,
}

/// About a thousand requests a second.
const LIGHT: Load = Load {
    connections: 20,
    delay_ms: 20,
};

/// A bit above twenty thousand requests a second, if they are answered in well under a millisecond.
const HEAVY: Load = Load {
    connections: 80,
    delay_ms: 2,
};

/// As many as there are answers to.
const UNBOUNDED: Load = Load {
    connections: 32,
    delay_ms: 0,
};

#[derive(Clone, Copy, Debug)]
enum Asked {
    /// The reference: as little as can be answered.
    Livez,
    Entries,
}

struct Bench {
    arguments: Arguments,
    stream: Stream,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let stream = Stream::new(&arguments.binaries, arguments.ids);
    let mut bench = Bench { arguments, stream };
    bench.answers()?;
    bench.cost()
}

impl Bench {
    /// How fast and how soon, without events and while they come in.
    fn answers(&mut self) -> Result<()> {
        self.stream.write(2 * self.arguments.ids);
        let server = self.stream.start("answers", "1s", &[])?;
        self.stream.wait_committed(&server)?;
        let Arguments {
            ids, rate, seconds, ..
        } = self.arguments;
        println!(
            "point queries, {ids} keys; `/livez` has no map behind it: what the machine gives\n"
        );
        println!("| asked | events/s | requests/s | p50 ms | p99 ms | found | cores |");
        println!("| --- | --- | --- | --- | --- | --- | --- |");
        for load in [HEAVY, UNBOUNDED] {
            self.ask(&server, load, Asked::Entries)?;
        }
        let writer = Writer::start(&self.stream.kafka.direct(), rate, seconds)?;
        std::thread::sleep(SETTLED);
        for load in [HEAVY, UNBOUNDED] {
            self.ask(&server, load, Asked::Livez)?;
            self.ask(&server, load, Asked::Entries)?;
        }
        self.stream.written += writer.end()?;
        server.end()
    }

    /// What a thousand queries a second cost a stream that has all the work it wants.
    fn cost(&mut self) -> Result<()> {
        let records = self.arguments.records;
        let more = records.saturating_sub(self.stream.written);
        self.stream.write(more);
        println!(
            "\nthe stream, {} events, as fast as it goes\n",
            self.stream.written
        );
        millstream_bench::print_head();
        let mut figures = [Vec::new(), Vec::new()];
        for round in 0..self.arguments.rounds {
            for (asked, figures) in [false, true].into_iter().zip(&mut figures) {
                let run = self.run(&format!("cost-{round}-{asked}"), asked)?;
                let name = if asked { "1,000 queries/s" } else { "alone" };
                millstream_bench::print_row(name, run);
                figures.push(run);
            }
        }
        let [alone, asked] = figures.map(|figures| millstream_bench::median(&figures));
        millstream_bench::print_row("**alone, median**", alone);
        millstream_bench::print_row("**1,000 queries/s, median**", asked);
        millstream_bench::print_ratio(alone, asked);
        Ok(())
    }

    fn run(&self, group: &str, asked: bool) -> Result<Figures> {
        let mut server = self.stream.start(group, "500ms", &[])?;
        let mut wrk = None;
        if asked {
            let minutes = Duration::from_secs(300);
            wrk = Some(self.wrk(&server, LIGHT, Asked::Entries, minutes)?.spawn()?);
        }
        let (kafka, written) = (&self.stream.kafka, self.stream.written);
        let figures = millstream_bench::measure(kafka, &mut server.child, group, written);
        if let Some(mut wrk) = wrk {
            wrk.kill()?;
            wrk.wait()?;
        }
        server.end()?;
        figures
    }

    fn ask(&self, server: &Server, load: Load, asked: Asked) -> Result<()> {
        let time = Duration::from_secs(self.arguments.seconds);
        let watcher = millstream_bench::watcher(&self.stream.kafka, &server.group)?;
        let (before, began) = (millstream_bench::committed(&watcher)?, Instant::now());
        let cpu = millstream_bench::cpu_seconds(server.child.id())?;
        let output = self.wrk(server, load, asked, time)?.output()?;
        let cpu = millstream_bench::cpu_seconds(server.child.id())? - cpu;
        let elapsed = began.elapsed().as_secs_f64();
        let events = millstream_bench::committed(&watcher)? - before;
        let text = String::from_utf8_lossy(&output.stdout);
        ensure!(output.status.success(), "wrk: {text}");
        let told = |name: &str| -> Result<f64> {
            let line = text.lines().find_map(|line| line.strip_prefix(name));
            line.with_context(|| format!("wrk told no {name}: {text}"))?
                .trim()
                .parse()
                .with_context(|| format!("{name} of wrk"))
        };
        println!(
            "| {asked:?}, {} connections, {} ms between | {:.0} | {:.0} | {:.2} | {:.2} | {:.0} % | {:.2} |",
            load.connections,
            load.delay_ms,
            events as f64 / elapsed,
            told("rate:")?,
            told("p50:")? / 1000.0,
            told("p99:")? / 1000.0,
            100.0 - 100.0 * told("refused:")? / told("answers:")?,
            cpu / elapsed
        );
        ensure!(told("failed:")? == 0.0, "connections failed: {text}");
        Ok(())
    }

    fn wrk(&self, server: &Server, load: Load, asked: Asked, time: Duration) -> Result<Command> {
        let path = match asked {
            Asked::Livez => "/livez?".to_owned(),
            Asked::Entries => format!("/v1/pipelines/{}/maps/users/entries/", server.group),
        };
        let mut script = SCRIPT
            .replace("PATH", &Value::from(path).to_string())
            .replace("IDS", &self.arguments.ids.to_string());
        if load.delay_ms > 0 {
            script += &format!("delay = function() return {} end\n", load.delay_ms);
        }
        let script = self
            .stream
            .folder
            .write(&format!("{}.lua", load.delay_ms), &script);
        let mut command = Command::new("wrk");
        command
            .args(["--threads", "1", "--timeout", "10s"])
            .args(["--connections", &load.connections.to_string()])
            .args(["--duration", &format!("{}s", time.as_secs())])
            .arg("--script")
            .arg(script)
            .arg(format!("http://{}", server.address))
            .stdin(Stdio::null())
            .stdout(Stdio::piped());
        Ok(command)
    }
}
