//! Runs a script against a worker, as the server's loop would: commands become events and records, effects are written down.
//!
//! It carries out no effect by itself: what an effect is answered with, the script says.

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::time::Duration;

use goldenscript::{Context, Runner};
use millstream_engine::commit::ledger::Ledger;
use millstream_engine::commit::token::{self, Token};
use millstream_engine::commit::verdict::{Sends, Verdict};
use millstream_engine::pipeline::{OnError, TopicId};
use millstream_engine::task::TopicPartition;
use millstream_engine::worker::{CommittedOffset, Effect, Event, Slot, Worker};

use crate::command::Command;
use crate::draft::{Draft, RUN};
use crate::plugin::{Does, Emit, Rule, Script, Scripts, Sheet};
use crate::show;

type Answer = Result<String, Box<dyn Error>>;

#[derive(Debug, Default)]
pub struct Notebook {
    draft: Draft,
    plugin: Scripts,
    bench: Option<Bench>,
    now: Duration,
}

/// What there is once the pipeline is described.
#[derive(Debug)]
struct Bench {
    worker: Worker,
    sheet: Sheet,
    /// What the consumer was told to read.
    consumed: BTreeSet<TopicPartition>,
}

/// How much a run tells.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Detail {
    Records,
    Calls,
    Quiet,
}

impl Runner for Notebook {
    type Command = Command;

    fn run(&mut self, command: &Command, context: &Context) -> Answer {
        let detail = match (
            context.tags.contains("calls"),
            context.tags.contains("quiet"),
        ) {
            (true, _) => Detail::Calls,
            (false, true) => Detail::Quiet,
            (false, false) => Detail::Records,
        };
        if self.describe(command)? {
            return Ok(String::new());
        }
        if let Some(event) = self.event(command)? {
            return self.happened(event);
        }
        match command {
            Command::Take(offsets) => self.take(offsets),
            Command::Refuse { sink, why, after } => {
                let refusal = (*after, why.clone());
                self.bench().sheet.refusals.insert(sink.clone(), refusal);
                Ok(String::new())
            }
            Command::Accept { sink } => {
                self.bench().sheet.refusals.remove(sink);
                Ok(String::new())
            }
            Command::Unreadable { place, why } => {
                let place = self.place(place)?;
                let stopped = self.bench().worker.stop(place, why);
                Ok(stopped.map_or_else(String::new, |offset| format!("stopped at {offset}")))
            }
            Command::Unsettled { place } => {
                let place = self.place(place)?;
                self.bench().worker.unsettle(place);
                Ok(String::new())
            }
            Command::Records {
                place,
                offset,
                records,
            } => self.records(place, *offset, records, detail),
            Command::Record { .. } => self.record(command),
            Command::Flood {
                place,
                offset,
                count,
                bytes,
            } => self.flood(place, *offset, *count, *bytes, detail),
            Command::Run => self.run_waiting(detail),
            Command::Commit(positions) => self.commit(positions),
            look => Ok(self.look(look)),
        }
    }
}

impl Notebook {
    /// Whether the command describes the pipeline.
    fn describe(&mut self, command: &Command) -> Result<bool, Box<dyn Error>> {
        match command {
            Command::Pipeline { interval, maps } => {
                if let Some(interval) = interval {
                    self.draft.pipeline.interval = Duration::from_millis(*interval);
                }
                self.draft.map_partitions = maps.unwrap_or(self.draft.map_partitions);
            }
            Command::Source { name, topics } => self.draft.source(name, topics),
            Command::Step {
                name,
                inputs,
                ports,
                on_error,
                takes,
                lookups,
                state,
            } => {
                let (lookups, state) = (lookups.as_deref(), state.as_deref());
                let grants = (lookups.unwrap_or_default(), state.unwrap_or_default());
                let state = self.draft.step(name, inputs, grants, on_error.as_deref())?;
                let ports = ports.as_deref().unwrap_or_default().split_whitespace();
                self.plugin.steps.push(Script {
                    name: name.clone(),
                    ports: ports.map(str::to_owned).collect(),
                    takes: *takes,
                    rules: Vec::new(),
                    state,
                });
            }
            Command::Table { name, replicated } => {
                self.draft
                    .table(name, replicated.as_deref() == Some("replicated"));
            }
            Command::Rule { step, .. } => {
                let id = self.draft.step_named(step).ok_or("no such step")?;
                self.plugin.steps[id.0].rules.push(rule(command)?);
                // Rules may change while the worker runs.
                return Ok(true);
            }
            Command::Sink {
                name,
                inputs,
                map,
                on_error,
                bytes,
            } => self
                .draft
                .sink(name, inputs, map.as_deref(), on_error.as_deref(), *bytes)?,
            _ => return Ok(false),
        }
        if self.bench.is_some() {
            return Err("the pipeline is described before anything happens".into());
        }
        Ok(true)
    }

    fn bench(&mut self) -> &mut Bench {
        let draft = &self.draft;
        self.bench.get_or_insert_with(|| Bench {
            worker: draft.worker(),
            sheet: Sheet::new(&draft.pipeline),
            consumed: BTreeSet::new(),
        })
    }

    /// The event that a command stands for, if it stands for one.
    fn event(&mut self, command: &Command) -> Result<Option<Event>, Box<dyn Error>> {
        Ok(Some(match command {
            Command::Assigned { places } => {
                let places = places.iter().map(|name| self.place(name));
                Event::Assigned(places.collect::<Result<_, _>>()?)
            }
            Command::Offsets(offsets) => Event::Offsets(self.committed(offsets)?),
            Command::Revoked => Event::Revoked,
            Command::Lost => Event::Lost,
            Command::Broken { why } => Event::Broken(why.clone()),
            Command::Verdict {
                verdict,
                why,
                sends,
            } => Event::Verdict(judge(verdict, why.as_deref(), sends.as_deref())?),
            Command::Replaced => Event::Replaced,
            Command::Tick { now } => {
                self.now = Duration::from_millis(*now);
                Event::Tick { now: self.now }
            }
            Command::Tables { are } => match are.as_str() {
                "live" => Event::TablesLive,
                "restoring" => Event::TablesRestoring,
                other => return Err(format!("tables are not {other}").into()),
            },
            Command::Stop => Event::Stop,
            _ => return Ok(None),
        }))
    }

    fn happened(&mut self, event: Event) -> Answer {
        let mut effects = Vec::new();
        self.bench();
        let (Some(bench), plugin) = (&mut self.bench, &mut self.plugin) else {
            return Err("the bench was set up above".into());
        };
        bench.worker.on(event, &mut effects);
        bench.follow(&effects);
        if effects.contains(&Effect::Merge) {
            plugin.merge(bench.worker.changes());
        }
        let lines = effects
            .iter()
            .map(|effect| show::effect(&bench.worker, effect));
        Ok(lines.collect::<Vec<_>>().join("\n"))
    }

    fn place(&self, name: &str) -> Result<TopicPartition, Box<dyn Error>> {
        let (topic, partition) = name.split_once('/').ok_or("a partition is topic/number")?;
        let topics = &self.draft.pipeline.topics;
        let known = topics.iter().position(|known| known.topic == topic);
        Ok(TopicPartition {
            topic: TopicId(known.ok_or_else(|| format!("no topic {topic}"))?),
            partition: partition.parse()?,
        })
    }

    /// Offsets as the group would tell them: `10`, `10@2` (of this worker's transaction 2), `10@other`.
    fn committed(
        &self,
        offsets: &[(String, String)],
    ) -> Result<Vec<CommittedOffset>, Box<dyn Error>> {
        let one = |(name, offset): &(String, String)| {
            let (offset, token) = offset.split_once('@').unwrap_or((offset, ""));
            let metadata = match token {
                "" => String::new(),
                "other" => metadata("other", 1),
                number => metadata("sim", number.parse()?),
            };
            Ok(CommittedOffset {
                partition: self.place(name)?,
                offset: offset.parse()?,
                metadata,
            })
        };
        offsets.iter().map(one).collect()
    }

    fn take(&mut self, offsets: &[(String, String)]) -> Answer {
        let offsets = self.committed(offsets)?;
        let places = offsets.iter().map(|at| at.partition).collect();
        let asked = self.happened(Event::Assigned(places))?;
        Ok(format!(
            "{asked}\n{}",
            self.happened(Event::Offsets(offsets))?
        ))
    }

    fn records(
        &mut self,
        place: &str,
        offset: i64,
        records: &[(String, String)],
        detail: Detail,
    ) -> Answer {
        let place = self.place(place)?;
        let mut lines = Vec::new();
        for (offset, (key, value)) in (offset..).zip(records) {
            let (key, value) = (show::bytes(key), show::bytes(value));
            let record = Consumed {
                offset,
                key,
                value,
                time: offset,
                headers: Vec::new(),
            };
            lines.extend(self.consume(place, &record, detail)?);
        }
        Ok(lines.join("\n"))
    }

    fn record(&mut self, command: &Command) -> Answer {
        let Command::Record {
            place,
            offset,
            key,
            value,
            time,
            headers,
        } = command
        else {
            return Err("not a record".into());
        };
        let bytes = |text: &Option<String>| text.as_deref().and_then(show::bytes);
        let record = Consumed {
            offset: *offset,
            key: bytes(key),
            value: bytes(value),
            time: time.unwrap_or(*offset),
            headers: show::headers_from(headers.as_deref().unwrap_or_default()),
        };
        let place = self.place(place)?;
        Ok(self.consume(place, &record, Detail::Records)?.join("\n"))
    }

    fn flood(
        &mut self,
        place: &str,
        offset: i64,
        count: i64,
        bytes: usize,
        detail: Detail,
    ) -> Answer {
        let place = self.place(place)?;
        let mut lines = Vec::new();
        for offset in offset..offset + count {
            let record = Consumed {
                offset,
                key: Some(offset.to_string().into_bytes()),
                value: Some(vec![b'x'; bytes]),
                time: offset,
                headers: Vec::new(),
            };
            lines.extend(self.consume(place, &record, detail)?);
        }
        Ok(lines.join("\n"))
    }

    /// Queues a record, and runs the queue once it is full.
    fn consume(
        &mut self,
        place: TopicPartition,
        record: &Consumed,
        detail: Detail,
    ) -> Result<Vec<String>, Box<dyn Error>> {
        let bench = self.bench();
        if !bench.consumed.contains(&place) {
            return Err("the consumer was not told to read this partition".into());
        }
        let Some(slot) = bench.worker.slot(place) else {
            return Ok(vec![format!("{} is left out", record.offset)]);
        };
        let input = bench.worker.append(slot);
        let headers = record.headers.iter();
        input.push(
            record.offset,
            record.time,
            record.key.as_deref(),
            record.value.as_deref(),
            headers.map(|(name, value)| (name.as_bytes(), value.as_deref())),
        );
        if input.is_full() {
            self.run_slot(slot, detail)
        } else {
            Ok(Vec::new())
        }
    }

    fn run_waiting(&mut self, detail: Detail) -> Answer {
        let mut lines = Vec::new();
        while let Some(slot) = self.bench().worker.waiting() {
            lines.extend(self.run_slot(slot, detail)?);
            if lines.last().is_some_and(|line| line.starts_with("broken")) {
                break;
            }
        }
        Ok(lines.join("\n"))
    }

    fn run_slot(&mut self, slot: Slot, detail: Detail) -> Result<Vec<String>, Box<dyn Error>> {
        let now = self.now;
        let mut lines = Vec::new();
        if !self.bench().worker.is_open() {
            lines.push(self.happened(Event::Work { now })?);
        }
        self.bench();
        let (Some(bench), plugin) = (&mut self.bench, &mut self.plugin) else {
            return Err("the bench was set up above".into());
        };
        let queued = bench.worker.append(slot).queue().len();
        let wall = i64::try_from(now.as_millis())?;
        let ran = bench.worker.run(slot, wall, plugin, &mut bench.sheet);
        let (calls, sent) = (plugin.calls.drain(..), bench.sheet.sent.drain(..));
        lines.extend(calls.filter(|_| detail == Detail::Calls));
        lines.extend(sent.filter(|_| detail != Detail::Quiet));
        let at = show::place(&bench.worker, bench.worker.place(slot));
        match ran {
            Err(broken) => lines.push(format!("broken: {broken:?}")),
            Ok(ran) => {
                if detail != Detail::Quiet {
                    lines.push(format!("ran {at}: {} of {queued}", ran.records));
                }
                let failures = ran.failures.iter().map(|failure| {
                    let verb = match failure.on_error {
                        OnError::Fail => "stopped at",
                        OnError::Skip => "skipped",
                        OnError::DeadLetter => "set aside",
                    };
                    let (offset, by, why) = (failure.offset, &failure.at, &failure.reason);
                    format!("  {verb} {offset} by {by}: {why}")
                });
                lines.extend(failures);
            }
        }
        Ok(lines)
    }

    /// What the server does before it answers `Effect::Commit`.
    fn commit(&mut self, positions: &[(String, String)]) -> Answer {
        let positions = positions
            .iter()
            .map(|(name, offset)| Ok((self.place(name)?, offset.parse()?)))
            .collect::<Result<BTreeMap<TopicPartition, i64>, Box<dyn Error>>>()?;
        let maps = self.draft.pipeline.maps.clone();
        let worker = &mut self.bench().worker;
        let changes = worker.changes();
        let mut lines: Vec<String> = changes
            .map(|change| show::change(&maps[change.map.0].name, &change))
            .collect();
        let (offsets, metadata) = worker.offsets_to_commit(|at| positions.get(&at).copied());
        let offsets = show::offsets(worker, &offsets);
        let token = Token::from_metadata(&metadata).ok_or("the metadata is a token")?;
        let noted = match token::ledger_of(&metadata).is_empty() {
            true => "",
            false => " ledger",
        };
        lines.push(format!("offsets {offsets} token {}{noted}", token.number));
        Ok(lines.join("\n"))
    }

    fn look(&mut self, command: &Command) -> String {
        let now = self.now;
        let sinks = self.draft.pipeline.sinks.clone();
        let worker = &self.bench().worker;
        match command {
            Command::Held => show::offsets(worker, &worker.held().collect::<Vec<_>>()),
            Command::Stopped => {
                let stopped = worker.stopped();
                let mut lines: Vec<String> = stopped
                    .map(|at| {
                        let (topic, partition, offset) = (&at.topic, at.partition, at.offset);
                        format!("{topic}/{partition}@{offset} by {}: {}", at.at, at.reason)
                    })
                    .collect();
                let partitions = show::places(worker, &worker.stopped_partitions());
                lines.push(format!("not consumed: {partitions}"));
                lines.join("\n")
            }
            Command::Tally => show::tally(worker.tally(), &sinks),
            Command::Epoch => match (worker.is_open(), worker.is_due(now)) {
                (true, true) => "open, due".into(),
                (true, false) => "open".into(),
                (false, _) => "none".into(),
            },
            other => unreachable!("{other:?} was handled"),
        }
    }
}

/// A record as Kafka hands it out.
struct Consumed {
    offset: i64,
    key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
    time: i64,
    headers: Vec<(String, Option<Vec<u8>>)>,
}

impl Bench {
    /// Notes what the consumer is told to read.
    fn follow(&mut self, effects: &[Effect]) {
        for effect in effects {
            match effect {
                Effect::Assign(offsets) => {
                    self.consumed = offsets.iter().map(|(at, _)| *at).collect();
                }
                Effect::Unassign => self.consumed.clear(),
                _ => {}
            }
        }
    }
}

fn metadata(instance: &str, number: u64) -> String {
    let token = Token {
        instance: instance.into(),
        worker: 0,
        run: RUN,
        number,
    };
    token.to_metadata(&Ledger::default())
}

fn judge(word: &str, why: Option<&str>, sends: Option<&str>) -> Result<Verdict, Box<dyn Error>> {
    let why = why.unwrap_or_default().to_owned();
    Ok(match (word, sends) {
        ("committed", None) => Verdict::Committed(Sends::Once),
        ("committed", Some("several")) => Verdict::Committed(Sends::Several),
        ("aborted", None) => Verdict::Aborted(why),
        ("in-doubt", None) => Verdict::InDoubt(why),
        ("fenced", None) => Verdict::Fenced(why),
        ("fatal", None) => Verdict::Fatal(why),
        _ => return Err(format!("no verdict {word}").into()),
    })
}

fn rule(command: &Command) -> Result<Rule, Box<dyn Error>> {
    let Command::Rule {
        value_is,
        drop,
        port,
        key,
        value,
        time,
        headers,
        times,
        count,
        fail,
        trap,
        host,
        restoring,
        overdue,
        wrong,
        ..
    } = command
    else {
        return Err("not a rule".into());
    };
    let own = |text: &String| text.clone();
    let drop = drop.as_deref();
    let does = match (drop, fail, trap, host, restoring, overdue, wrong) {
        (Some("drop"), None, None, None, None, None, None) => Does::Drop,
        (None, Some(why), None, None, None, None, None) => Does::Fail(own(why)),
        (None, None, Some(why), None, None, None, None) => Does::Trap(own(why)),
        (None, None, None, Some(why), None, None, None) => Does::Host(own(why)),
        (None, None, None, None, Some(why), None, None) => Does::NotReady(own(why)),
        (None, None, None, None, None, Some(why), None) => Does::Overdue(own(why)),
        (None, None, None, None, None, None, Some(kind)) => Does::Wrong(own(kind)),
        (None, None, None, None, None, None, None) => Does::Emit(Emit {
            port: port.clone().unwrap_or_default(),
            key: key.clone(),
            value: value.clone(),
            time: *time,
            headers: headers.clone(),
            times: times.unwrap_or(1),
            count: count.clone(),
        }),
        _ => return Err("a rule does one thing".into()),
    };
    Ok(Rule {
        value_is: value_is.clone(),
        does,
    })
}
