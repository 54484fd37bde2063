//! What a map partition takes in memory, and how long folds and searches take, without Kafka and HTTP around it: a million entries
//! of 100-byte values, with indexes of several kinds. Each case is a process of its own, so that its memory is its own.

use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};
use clap::Parser;
use millstream_engine::json::{Pointer, Scalar};
use millstream_engine::state::budget::Budget;
use millstream_engine::state::committed::Committed;
use millstream_engine::state::restore::{LiveFrom, MapPartition};
use millstream_engine::state::search::{Bounds, Condition, Operator, Search};
use millstream_engine::state::snapshot::{Decoder, Encoder, Header, Piece};

/// The server's allocator.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const VALUE_BYTES: usize = 100;

/// Indexes of each case.
const CASES: [&[&str]; 4] = [&[], &["/country", "/age"], &["/id"], &["/mail"]];

/// Each is timed so many times.
const TIMES: usize = 50;

#[derive(Parser)]
struct Arguments {
    #[arg(long, default_value_t = 1_000_000)]
    entries: u32,
    /// One case alone, by its number; all of them, each in a process, by default.
    #[arg(long)]
    case: Option<usize>,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    if let Some(case) = arguments.case {
        return measure(CASES[case], arguments.entries);
    }
    for case in 0..CASES.len() {
        let mut child = Command::new(std::env::current_exe()?);
        child.args([
            "--case",
            &case.to_string(),
            "--entries",
            &arguments.entries.to_string(),
        ]);
        ensure!(child.status()?.success(), "case {case} failed");
    }
    Ok(())
}

fn measure(index: &[&str], entries: u32) -> Result<()> {
    let pointers: Result<Vec<Pointer>, String> =
        index.iter().map(|text| Pointer::parse(text)).collect();
    let pointers: Arc<[Pointer]> = pointers.map_err(anyhow::Error::msg)?.into();
    println!("index = {index:?}, {entries} entries");
    let before = resident()?;
    let mut contents = Committed::new(1, pointers);
    let filled = time(|| (0..entries).for_each(|id| contents.put(&key(id), Some(&value(id, 0)))));
    let folded = || contents.bytes();
    let per_entry = |bytes: usize| (bytes as f64 - folded() as f64) / f64::from(entries);
    let indexes: usize = contents
        .indexes()
        .iter()
        .map(|index| contents.index_footprint(index))
        .sum();
    let estimate = per_entry(contents.footprint() + indexes);
    println!(
        "  bytes an entry beyond key and value: {:.1} by the process's memory, {estimate:.1} by our own account",
        per_entry(resident()? - before)
    );
    let made =
        time(|| (0..entries).for_each(|id| drop(std::hint::black_box((key(id), value(id, 1))))));
    let changed = time(|| {
        (0..entries)
            .rev()
            .for_each(|id| contents.put(&key(id), Some(&value(id, 1))));
    });
    let nanoseconds = |time: Duration| (time.saturating_sub(made)).as_nanos() / u128::from(entries);
    println!(
        "  a fold of a new entry {} ns, of a changed one {} ns",
        nanoseconds(filled),
        nanoseconds(changed)
    );
    snapshot(&contents, index)?;
    let middle = entries / 2;
    let (from, to) = (
        format!("/id >= {middle}"),
        format!("/id < {}", middle + 100),
    );
    let mail = format!("/mail = mail{middle}");
    let searches: [&[&str]; 6] = [
        &["/country = C42"],
        &["/country = C42", "/age >= 80"],
        &["/age >= 20", "/age < 30"],
        &[&from, &to],
        &[&mail],
        &["/name = nobody"],
    ];
    for conditions in searches {
        let parsed = conditions
            .iter()
            .map(|condition| self::condition(condition));
        let search = Search::new(parsed.collect::<Result<_>>()?, Vec::new());
        self::search(&conditions.join(", "), &search, &contents);
    }
    Ok(())
}

/// Written in the server's steps, and taken in again; folding the same entries one by one is beside it.
fn snapshot(contents: &Committed, index: &[&str]) -> Result<()> {
    let header = Header {
        pipeline: "bench".into(),
        map: "users".into(),
        partition: 0,
        partitions: 1,
        topic: 1,
        from: 0,
        begun: 0,
        entries: contents.len() as u64,
    };
    let (mut bytes, mut longest) = (Vec::new(), Duration::ZERO);
    let mut encoder = Encoder::new(&header, &mut bytes);
    let written = time(|| {
        let (mut next, end) = (Some(0), contents.entries().end());
        while let Some(slot) = next {
            let step = Instant::now();
            next = encoder.copy(contents.entries(), slot, end);
            longest = longest.max(step.elapsed());
            encoder.flush(&mut bytes);
        }
    });
    encoder.finish(0, &mut bytes);
    let mut loaded = empty(index)?;
    let mut decoder = Decoder::default();
    let began = Instant::now();
    for part in bytes.chunks(256 << 10) {
        decoder.feed(part);
        while let Some(piece) = decoder.next_piece()? {
            match piece {
                Piece::Header(header) => loaded.reserve(usize::try_from(header.entries)?),
                Piece::Entries(block) => loaded.load(&block).map_err(|_| anyhow!("full"))?,
                Piece::End(_) => loaded.loaded(0, 0),
            }
        }
    }
    decoder.finish()?;
    let taken = began.elapsed();
    ensure!(loaded.contents().len() == contents.len());
    drop(loaded);
    let mut folded = empty(index)?;
    let began = Instant::now();
    let entries = contents.entries();
    for (offset, slot) in (0..).zip(0..entries.end()) {
        let (key, value) = entries.get(slot).context("no slot is free")?;
        folded
            .fold(offset, key, Some(value))
            .map_err(|_| anyhow!("full"))?;
    }
    let rate = |time: Duration| contents.len() as f64 / time.as_secs_f64() / 1e6;
    println!(
        "  a snapshot of {} MiB: written {:.2} M entries/s (longest step {:.3} ms), taken in {:.2} M/s; folds alone {:.2} M/s",
        bytes.len() >> 20,
        rate(written),
        longest.as_secs_f64() * 1e3,
        rate(taken),
        rate(began.elapsed())
    );
    Ok(())
}

/// A map partition to be restored.
fn empty(index: &[&str]) -> Result<MapPartition> {
    let pointers: Result<Vec<Pointer>, String> =
        index.iter().map(|text| Pointer::parse(text)).collect();
    let contents = Committed::new(2, pointers.map_err(anyhow::Error::msg)?.into());
    let share = Budget::new(usize::MAX / 2, 1).share(0);
    let bounds = (0, i64::MAX);
    Ok(MapPartition::new(
        contents,
        share,
        1,
        bounds,
        LiveFrom::Changelog,
    ))
}

/// Pointer, operator and operand, with spaces between.
fn condition(text: &str) -> Result<Condition> {
    let [pointer, operator, operand] = text.split(' ').collect::<Vec<_>>()[..] else {
        bail!("{text:?} is not three words");
    };
    let operator = match operator {
        "=" => Operator::Equal,
        "<" => Operator::Less,
        ">=" => Operator::GreaterOrEqual,
        other => bail!("{other} is not used here"),
    };
    Ok(Condition {
        pointer: Pointer::parse(pointer).map_err(anyhow::Error::msg)?,
        operator,
        operand: Scalar::of_operand(operand),
    })
}

/// For 100 hits, in steps as the server takes them; and the longest of the steps, which is how long a lock is held.
fn search(name: &str, search: &Search, contents: &Committed) {
    let (mut times, mut longest) = (Vec::new(), Duration::ZERO);
    let (mut hits, mut steps) = (0, 0);
    for _ in 0..TIMES {
        let began = Instant::now();
        let mut from = Some(0);
        (hits, steps) = (0, 0);
        while let Some(slot) = from.filter(|_| hits < 100) {
            let bounds = Bounds {
                slots: 1024,
                bytes: 256 << 10,
                hits: 100 - hits,
            };
            let step = Instant::now();
            from = search
                .step(contents, slot, bounds, |_, _, _| hits += 1)
                .next;
            longest = longest.max(step.elapsed());
            steps += 1;
        }
        times.push(began.elapsed());
    }
    times.sort();
    println!(
        "  {name:36} {hits:3} hits in {steps:3} steps: median {:.3} ms, worst {:.3} ms, longest step {:.3} ms",
        times[TIMES / 2].as_secs_f64() * 1e3,
        times[TIMES - 1].as_secs_f64() * 1e3,
        longest.as_secs_f64() * 1e3
    );
}

fn key(id: u32) -> Vec<u8> {
    format!("user-{id}").into_bytes()
}

/// 200 countries, 100 ages, ids and mails that are all different, and no order in any of them.
fn value(id: u32, turn: u32) -> Vec<u8> {
    let mixed = (id + turn * 7).wrapping_mul(2_654_435_761) >> 8;
    let (country, age) = (mixed % 200, mixed / 200 % 100);
    let mut value = format!(
        "{{\"id\":{id},\"country\":\"C{country}\",\"age\":{age},\"mail\":\"mail{id}\",\"name\":\""
    );
    value.push_str(&"n".repeat(VALUE_BYTES.saturating_sub(value.len() + 2)));
    value.push_str("\"}");
    value.into_bytes()
}

fn time(work: impl FnOnce()) -> Duration {
    let began = Instant::now();
    work();
    began.elapsed()
}

/// Bytes of this process that are in memory.
fn resident() -> Result<usize> {
    let text = std::fs::read_to_string("/proc/self/smaps_rollup")?;
    let line = text.lines().find_map(|line| line.strip_prefix("Rss:"));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB"));
    Ok(kib
        .context("the kernel tells the resident memory")?
        .parse::<usize>()?
        << 10)
}
