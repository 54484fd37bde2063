//! One batch through the graph: every step it reaches is called once, then what reaches the sinks is sent, in order.
//!
//! Never sends anything before the whole graph has run: where a record fails that must stop the task, nothing that comes from it
//! or from a later one may go out, or stay in a step's state. Invariant: what a sink gets is ordered by source offset, then by the
//! sink's `inputs`.

use std::borrow::Cow;

use crate::pipeline::{From, Input, MapId, OnError, Pipeline, SinkId, SourceId, StepId, Target};
use crate::record::{Column, Columns, Record};
use crate::state::overlay::Overlay;
use crate::step::{Batch, Outcome, Output as StepOutput, Plugin};
use crate::task::failure::{self, Failed, Kind, Part, RecordFailure};
use crate::task::letter::{self, Sender};

/// Where topic sinks' records go.
pub trait Output {
    /// Sends a record in the open transaction.
    ///
    /// # Errors
    ///
    /// Why the epoch can't be committed any more.
    fn send(&mut self, sink: SinkId, record: &Record<'_>) -> Result<(), String>;
}

/// What Kafka itself lets a sink take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SinkLimits {
    /// The topic's `max.message.bytes`.
    pub record_bytes_max: usize,
}

/// What Kafka's record and batch formats add to a lone record at most, beside what each header adds.
pub const RECORD_OVERHEAD: usize = 128;
const HEADER_OVERHEAD: usize = 10;

/// What running a batch came to.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Ran {
    /// How many records, from the first on, are dealt with. All, unless one stopped the task.
    pub records: usize,
    /// In the order of steps and sinks, then of offsets; of dealt-with records, and of the one that stopped the task. Where steps have
    /// state, those of the last one come last.
    pub failures: Vec<RecordFailure>,
    /// Records sent or put by each sink, and their bytes.
    pub sent: Vec<Sent>,
}

impl Ran {
    /// The failure that stopped the task, if one did.
    pub fn stopper(&self) -> Option<&RecordFailure> {
        let fatal = self
            .failures
            .iter()
            .filter(|failure| failure.on_error == OnError::Fail);
        fatal.min_by_key(|failure| failure.offset)
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sent {
    pub records: u64,
    pub bytes: u64,
}

/// Why a batch brought the epoch to an end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Broken {
    /// Something could not be sent.
    Output(String),
    /// A step's plugin could not be called at all.
    Host(String),
    /// A table that a step reads is not there right now.
    NotReady(String),
    /// Failed calls took too long: there are too many records in a batch.
    Overdue(String),
}

/// What a run needs beside the batch.
#[derive(Debug)]
pub struct Surroundings<'a, P, O> {
    pub pipeline: &'a Pipeline,
    pub limits: &'a [SinkLimits],
    pub map_partitions: u32,
    pub plugin: &'a mut P,
    pub output: &'a mut O,
    pub overlay: &'a mut Overlay,
}

/// The records of one source partition, where they come from, and when they are run.
#[derive(Clone, Copy, Debug)]
pub struct Origin<'a> {
    pub source: SourceId,
    pub topic: &'a str,
    pub partition: u32,
    pub now: i64,
    pub columns: &'a Columns,
}

/// A step's batch and the answers to it.
struct Stage<'a> {
    columns: Cow<'a, Columns>,
    /// For each record of `columns` the index of the source record it comes from; none where they are the source's.
    rows: Option<Vec<u32>>,
    parts: Vec<Part>,
}

/// A record on its way, with the index of its source record.
type Row<'a> = (u32, Record<'a>);

pub fn run<P: Plugin, O: Output>(
    around: &mut Surroundings<'_, P, O>,
    origin: &Origin<'_>,
) -> Result<Ran, Broken> {
    assert!(
        !origin.columns.is_empty(),
        "a batch has records: no half of it would be smaller"
    );
    let before = around.overlay.mark();
    let mut graph = Graph {
        origin,
        stages: Vec::with_capacity(around.pipeline.steps.len()),
        failures: Vec::new(),
        cut: origin.columns.len(),
    };
    for step in 0..around.pipeline.steps.len() {
        graph.run_step(around, StepId(step))?;
    }
    for sink in 0..around.pipeline.sinks.len() {
        graph.refuse(around, SinkId(sink));
    }
    let mut sent = vec![Sent::default(); around.pipeline.sinks.len()];
    if graph.cut < origin.columns.len() && around.pipeline.has_state() {
        let stopped = graph.finish(sent);
        around.overlay.roll_back(before);
        around.plugin.forget();
        return run_up_to(around, origin, stopped);
    }
    for (sink, sent) in sent.iter_mut().enumerate() {
        *sent = graph.send(around, SinkId(sink))?;
    }
    if graph.cut < origin.columns.len() {
        // Plugins saw the record that stopped the task, and later ones: these come again.
        around.plugin.forget();
    }
    around.overlay.settle();
    Ok(graph.finish(sent))
}

/// Runs the records before the one that stopped the task, once more: steps have counted that one and later ones into their state, which
/// was rolled back.
fn run_up_to<P: Plugin, O: Output>(
    around: &mut Surroundings<'_, P, O>,
    origin: &Origin<'_>,
    stopped: Ran,
) -> Result<Ran, Broken> {
    let mut ran = Ran {
        sent: stopped.sent,
        ..Ran::default()
    };
    if stopped.records > 0 {
        let columns = origin.columns.slice(0..stopped.records);
        ran = run(
            around,
            &Origin {
                columns: &columns,
                ..*origin
            },
        )?;
    }
    if ran.records == stopped.records {
        let at = origin.columns.offsets[stopped.records];
        let failures = stopped.failures.into_iter();
        ran.failures
            .extend(failures.filter(|failure| failure.offset == at));
    }
    Ok(ran)
}

struct Graph<'a> {
    origin: &'a Origin<'a>,
    /// Parallel to the pipeline's steps; none where nothing reached the step.
    stages: Vec<Option<Stage<'a>>>,
    /// With the index of the source record.
    failures: Vec<(usize, RecordFailure)>,
    /// Index of the first source record that stops the task; their number where none does.
    cut: usize,
}

impl<'a> Graph<'a> {
    fn run_step<P: Plugin, O>(
        &mut self,
        around: &mut Surroundings<'_, P, O>,
        id: StepId,
    ) -> Result<(), Broken> {
        let step = &around.pipeline.steps[id.0];
        let Some((names, input_of, mut stage)) = self.gather(&step.inputs) else {
            self.stages.push(None);
            return Ok(());
        };
        let batch = Batch {
            inputs: &names,
            input_of: &input_of,
            topic: self.origin.topic,
            partition: self.origin.partition,
            now: self.origin.now,
            columns: &stage.columns,
            halvings: 0,
        };
        let mut failed = Vec::new();
        let overlay = &mut *around.overlay;
        let parts = &mut stage.parts;
        let how = (id, step.retries);
        failure::process(around.plugin, how, &batch, overlay, parts, &mut failed)?;
        failed.sort_unstable_by_key(|failed| failed.index);
        if step.on_error == OnError::DeadLetter && !failed.is_empty() {
            let sender = Sender {
                topic: self.origin.topic,
                partition: self.origin.partition,
                step: &step.name,
                digest: around.plugin.digest(id),
            };
            let letters = letter::output(sender, &stage.columns, &failed);
            stage.parts.push(Part {
                first: 0,
                outcome: Outcome {
                    outputs: vec![letters],
                    failures: Vec::new(),
                },
            });
        }
        for Failed {
            index,
            kind,
            reason,
        } in failed
        {
            let row = stage.row(index) as usize;
            let at = format!("step \"{}\"", step.name);
            self.fail(row, at, (kind, reason), step.on_error);
        }
        self.stages.push(Some(stage));
        Ok(())
    }

    /// The batch of a step with these inputs, none where nothing came: names of the inputs, which of them each record came by, and
    /// the records.
    fn gather<'i>(&self, inputs: &'i [Input]) -> Option<(Vec<&'i str>, Vec<u32>, Stage<'a>)> {
        let reached: Vec<&Input> = inputs.iter().filter(|input| self.reaches(input)).collect();
        let names: Vec<&str> = reached.iter().map(|input| input.name.as_str()).collect();
        if let [
            Input {
                from: From::Source(_),
                ..
            },
        ] = reached[..]
        {
            let stage = Stage {
                columns: Cow::Borrowed(self.origin.columns),
                rows: None,
                parts: Vec::new(),
            };
            return Some((names, Vec::new(), stage));
        }
        let mut columns = Columns::default();
        let (mut rows, mut input_of) = (Vec::new(), Vec::new());
        self.merged(&reached, |input, (row, record)| {
            let offset = self.origin.columns.offsets[row as usize];
            columns.push(
                offset,
                record.timestamp,
                record.key,
                record.value,
                record.headers.iter(),
            );
            rows.push(row);
            input_of.push(input);
        });
        if rows.is_empty() {
            return None;
        }
        if reached.len() == 1 {
            input_of.clear();
        }
        Some((
            names,
            input_of,
            Stage {
                columns: Cow::Owned(columns),
                rows: Some(rows),
                parts: Vec::new(),
            },
        ))
    }

    /// Whether records may come by this input in this run.
    fn reaches(&self, input: &Input) -> bool {
        match &input.from {
            From::Source(source) => *source == self.origin.source,
            From::Step { step, port } => {
                let stage = self.stages[step.0].as_ref();
                stage.is_some_and(|stage| {
                    stage
                        .outputs(port)
                        .any(|(_, output)| !output.origins.is_empty())
                })
            }
        }
    }

    /// Every record of the inputs, by source offset, then by the order of the inputs, with the input's index.
    fn merged<'s>(&'s self, inputs: &[&Input], mut each: impl FnMut(u32, Row<'s>)) {
        if let [input] = inputs {
            self.rows(input, &mut |row| each(0, row));
            return;
        }
        let mut all: Vec<(u32, Row<'s>)> = Vec::new();
        for (index, input) in (0..).zip(inputs) {
            self.rows(input, &mut |row| all.push((index, row)));
        }
        all.sort_by_key(|(input, (row, _))| (*row, *input));
        for (input, row) in all {
            each(input, row);
        }
    }

    /// Every record that comes by one input, in order.
    fn rows<'s>(&'s self, input: &Input, each: &mut impl FnMut(Row<'s>)) {
        match &input.from {
            From::Source(_) => {
                for (row, index) in (0..).zip(0..self.origin.columns.len()) {
                    each((row, self.origin.columns.record(index)));
                }
            }
            From::Step { step, port } => {
                let Some(stage) = &self.stages[step.0] else {
                    return;
                };
                for (first, output) in stage.outputs(port) {
                    for (index, &origin) in output.origins.iter().enumerate() {
                        each((
                            stage.row(first + origin),
                            output.record(index, &stage.columns, first),
                        ));
                    }
                }
            }
        }
    }

    /// Finds the records that a sink with `on-error = "fail"` can't take, before anything is sent anywhere.
    fn refuse<P, O>(&mut self, around: &Surroundings<'_, P, O>, id: SinkId) {
        let sink = &around.pipeline.sinks[id.0];
        let reached: Vec<&Input> = sink
            .inputs
            .iter()
            .filter(|input| self.reaches(input))
            .collect();
        let limits = around.limits[id.0];
        if sink.on_error == OnError::Skip
            || !reached
                .iter()
                .any(|input| self.may_refuse(input, &sink.target, limits))
        {
            return;
        }
        let mut first: Option<(u32, Why)> = None;
        self.merged(&reached, |_, (row, record)| {
            if first.is_none() {
                first = refusal(&record, &sink.target, limits).map(|why| (row, why));
            }
        });
        if let Some((row, why)) = first {
            let at = sink.describe();
            self.fail(row as usize, at, why, OnError::Fail);
        }
    }

    /// A look at whole columns, which mostly spares one at each record.
    fn may_refuse(&self, input: &Input, target: &Target, limits: SinkLimits) -> bool {
        let has_null = |keys: &Column| !keys.nulls().is_empty();
        let source = self.origin.columns;
        let (null, bytes, headers) = match &input.from {
            From::Source(_) => (
                has_null(&source.keys),
                source.bytes(),
                source.headers.owners().len(),
            ),
            From::Step { step, port } => {
                let Some(stage) = &self.stages[step.0] else {
                    return false;
                };
                let inherited = (has_null(&stage.columns.keys), stage.columns.bytes());
                let headers = stage.columns.headers.owners().len();
                stage.outputs(port).fold(
                    (false, 0, headers),
                    |(null, bytes, headers), (_, output)| {
                        let own = output.keys.as_ref().map_or(inherited.0, has_null);
                        let more = output
                            .headers
                            .as_ref()
                            .map_or(0, |headers| headers.owners().len());
                        (
                            null || own,
                            bytes.max(inherited.1 + output.bytes()),
                            headers + more,
                        )
                    },
                )
            }
        };
        let large = bytes + headers * HEADER_OVERHEAD + RECORD_OVERHEAD > limits.record_bytes_max;
        large || (null && !matches!(target, Target::Topic(_)))
    }

    fn send<P, O: Output>(
        &mut self,
        around: &mut Surroundings<'_, P, O>,
        id: SinkId,
    ) -> Result<Sent, Broken> {
        let sink = &around.pipeline.sinks[id.0];
        let reached: Vec<&Input> = sink
            .inputs
            .iter()
            .filter(|input| self.reaches(input))
            .collect();
        let limits = around.limits[id.0];
        let careful = reached
            .iter()
            .any(|input| self.may_refuse(input, &sink.target, limits));
        let mut sent = Sent::default();
        let mut refused = Vec::new();
        let mut result = Ok(());
        self.merged(&reached, |_, (row, record)| {
            if row as usize >= self.cut || result.is_err() {
                return;
            }
            if careful && let Some(why) = refusal(&record, &sink.target, limits) {
                refused.push((row, why));
                return;
            }
            sent.records += 1;
            sent.bytes += record.bytes() as u64;
            match sink.target {
                Target::Topic(_) | Target::Stream(_) => result = around.output.send(id, &record),
                Target::Map(map) => put(around.overlay, map, around.map_partitions, &record),
            }
        });
        result.map_err(Broken::Output)?;
        for (row, why) in refused {
            let at = sink.describe();
            self.fail(row as usize, at, why, sink.on_error);
        }
        Ok(sent)
    }

    fn fail(&mut self, row: usize, at: String, (kind, reason): Why, on_error: OnError) {
        if on_error == OnError::Fail {
            self.cut = self.cut.min(row);
        }
        let offset = self.origin.columns.offsets[row];
        self.failures.push((
            row,
            RecordFailure {
                at,
                offset,
                kind,
                reason,
                on_error,
            },
        ));
    }

    fn finish(self, sent: Vec<Sent>) -> Ran {
        let cut = self.cut;
        let counts = |row: usize, failure: &RecordFailure| {
            row < cut || (row == cut && failure.on_error == OnError::Fail)
        };
        let mut failures = self.failures;
        failures.retain(|(row, failure)| counts(*row, failure));
        Ran {
            records: cut,
            failures: failures.into_iter().map(|(_, failure)| failure).collect(),
            sent,
        }
    }
}

impl Stage<'_> {
    fn row(&self, index: u32) -> u32 {
        self.rows
            .as_ref()
            .map_or(index, |rows| rows[index as usize])
    }

    /// The outputs on a port, part by part, each with the index of its part's first record.
    fn outputs<'s, 'p>(
        &'s self,
        port: &'p str,
    ) -> impl Iterator<Item = (u32, &'s StepOutput)> + use<'s, 'p> {
        self.parts.iter().flat_map(move |part| {
            part.outcome
                .outputs
                .iter()
                .filter(move |output| output.port == port)
                .map(|output| (part.first, output))
        })
    }
}

fn put(overlay: &mut Overlay, map: MapId, partitions: u32, record: &Record<'_>) {
    let key = record
        .key
        .expect("refusal() let no null key through to a map");
    overlay.put_hashed((map, partitions), key, record.value, record.timestamp);
}

/// What is wrong with a record, in one word and in several.
type Why = (Kind, String);

/// Why a sink can't take a record.
fn refusal(record: &Record<'_>, target: &Target, limits: SinkLimits) -> Option<Why> {
    let keyed = match target {
        Target::Topic(_) => None,
        Target::Map(_) => Some("a map"),
        Target::Stream(_) => Some("a keyed stream"),
    };
    if record.key.is_none()
        && let Some(keyed) = keyed
    {
        return Some((Kind::NullKey, format!("its key is null: {keyed} needs one")));
    }
    let bytes = record.bytes();
    let framed = bytes + record.headers.len() * HEADER_OVERHEAD + RECORD_OVERHEAD;
    let most = limits.record_bytes_max;
    (framed > most).then(|| {
        let reason = format!(
            "its {bytes} bytes, {framed} as Kafka may frame them, do not fit the topic's max.message.bytes, {most}"
        );
        (Kind::TooLarge, reason)
    })
}
