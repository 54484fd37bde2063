//! From names to indices: does what a pipeline file says fit together, and in which order do its steps run?
//!
//! Makes the pipeline only if every name resolved; the findings say what did not.

use millstream_engine::pipeline::{
    From, Grant, Input, MapId, OnError, Pipeline, Sink, Source, SourceId, SourceTopic, Step,
    StepId, Target,
};

use super::file::{self, File};
use super::letters;
use super::maps;
use super::plugins::{self, Plugin};
use super::problem::{Findings, Place, Placed, Problem, did_you_mean, nearest};
use super::streams;
use super::text::SourceText;
use super::value::{NAME_MAX, TOPIC_MAX, is_name};

/// A pipeline file that fits together.
pub(super) struct Resolved {
    pub pipeline: Pipeline,
    /// Parallel to `pipeline.steps`: the plugin's index in [`used_plugins`], and the step's configuration as a JSON object.
    pub steps: Vec<(usize, String)>,
    pub memory: Option<usize>,
    pub standby: u32,
    pub warnings: Vec<Problem>,
}

/// `None` only if something was found.
pub(super) fn resolve(
    file: &File,
    text: &SourceText,
    findings: &mut Findings<'_>,
) -> Option<Resolved> {
    let mut names = Names { file, findings };
    names.check_amounts();
    names.check_namespace();
    let topics = names.topics();
    let step_inputs: Vec<_> = file.steps.iter().map(|s| names.inputs(&s.inputs)).collect();
    let sink_inputs: Vec<_> = file.sinks.iter().map(|s| names.inputs(&s.inputs)).collect();
    let stream_inputs = file.streams.iter().map(|s| names.inputs(&s.inputs));
    let stream_inputs: Vec<_> = stream_inputs.collect();
    let plugins: Vec<_> = file.steps.iter().map(|step| names.plugin(step)).collect();
    names.check_targets();
    names.check_shared_targets();
    maps::check(file, names.findings);
    letters::check(file, names.findings);
    plugins::check_retries(file, names.findings);
    let lookups: Vec<_> = file
        .steps
        .iter()
        .map(|step| maps::lookups(file, step, names.findings))
        .collect();
    let order = names.order(&step_inputs);
    streams::check_circles(file, &step_inputs, &stream_inputs, names.findings);
    let inputs = [&step_inputs, &sink_inputs, &stream_inputs];
    let warnings = warnings(file, text, inputs, &plugins);

    let graph = Graph {
        topics,
        order: order?,
        step_inputs: complete(step_inputs)?,
        lookups: lookups.into_iter().collect::<Option<_>>()?,
        states: file.steps.iter().map(|s| maps::state(file, s)).collect(),
        sink_inputs: complete(sink_inputs)?,
        stream_inputs: complete(stream_inputs)?,
    };
    Some(Resolved {
        pipeline: graph.pipeline(file)?,
        steps: step_configs(file, &graph.order)?,
        memory: file.memory,
        standby: file.standby,
        warnings,
    })
}

/// One name of an `inputs` list; steps by their place in the file.
pub(super) type Inputs = Vec<Option<Input>>;

fn complete(inputs: Vec<Inputs>) -> Option<Vec<Vec<Input>>> {
    inputs
        .into_iter()
        .map(|list| list.into_iter().collect())
        .collect()
}

struct Names<'a, 'f, 't> {
    file: &'a File,
    findings: &'f mut Findings<'t>,
}

impl Names<'_, '_, '_> {
    fn check_amounts(&mut self) {
        let place = |key: &str| Place {
            key: key.to_owned(),
            offset: 0,
        };
        if self.file.sources.is_empty() {
            self.findings
                .absent(&place("sources"), "a pipeline needs a source", None);
        }
        if self.file.sinks.is_empty() && maps::states(self.file).next().is_none() {
            let message = "a pipeline needs a sink, or a step with state";
            self.findings.absent(&place("sinks"), message, None);
        }
    }

    /// Sources, steps and streams are named in one list, so no two of them may share a name.
    fn check_namespace(&mut self) {
        let file = self.file;
        let sources = file.sources.iter().map(|source| ("source", &source.name));
        let steps = file.steps.iter().map(|step| ("step", &step.name));
        let streams = file.streams.iter().map(|stream| ("stream", &stream.name));
        let mut named: Vec<_> = sources.chain(steps).chain(streams).collect();
        named.sort_by_key(|(_, name)| name.place.offset);
        for (at, (_, second)) in named.iter().enumerate() {
            let same = |(_, first): &&(&str, &Placed<String>)| first.value == second.value;
            let Some((kind, first)) = named[..at].iter().find(same) else {
                continue;
            };
            let line = self.findings.line(&first.place);
            let message = format!("{:?} is the name of the {kind} on line {line}", first.value);
            let hint = "sources, steps and streams share one list of names".to_owned();
            self.findings
                .problem_with_hint(&second.place, message, Some(hint));
        }
        streams::check_sinks(file, self.findings);
    }

    fn topics(&mut self) -> Vec<SourceTopic> {
        let mut owners: Vec<(&Placed<String>, usize)> = Vec::new();
        for (index, source) in self.file.sources.iter().enumerate() {
            for topic in &source.topics {
                match owners.iter().find(|(owned, _)| owned.value == topic.value) {
                    Some((_, owner)) => {
                        let owner = &self.file.sources[*owner].name.value;
                        let message = format!(
                            "topic {:?} is already read by source {owner:?}",
                            topic.value
                        );
                        self.findings.problem(&topic.place, message);
                    }
                    None => owners.push((topic, index)),
                }
            }
        }
        let topics = owners.into_iter().map(|(topic, owner)| SourceTopic {
            source: SourceId(owner),
            topic: topic.value.clone(),
        });
        topics.chain(streams::topics(self.file)).collect()
    }

    fn inputs(&mut self, names: &[Placed<String>]) -> Inputs {
        names.iter().map(|name| self.input(name)).collect()
    }

    fn input(&mut self, input: &Placed<String>) -> Option<Input> {
        let (name, port) = match input.value.split_once('.') {
            Some((name, port)) => (name, Some(port)),
            None => (input.value.as_str(), None),
        };
        let from = if let Some(source) = self.source(name) {
            if port.is_some() {
                let is_stream = source.0 >= self.file.sources.len();
                let kind = if is_stream { "stream" } else { "source" };
                let message = format!("{name:?} is a {kind}: it has no ports");
                self.findings.problem(&input.place, message);
                return None;
            }
            From::Source(source)
        } else if let Some(step) = self.step(name) {
            if port.is_some_and(|port| !is_name(port) || port.len() > NAME_MAX) {
                self.not_an_input(input);
                return None;
            }
            From::Step {
                step,
                port: port.unwrap_or_default().to_owned(),
            }
        } else {
            self.dangling(input, name);
            return None;
        };
        Some(Input {
            name: input.value.clone(),
            from,
        })
    }

    fn not_an_input(&mut self, input: &Placed<String>) {
        let hint = "a source, a stream, a step, or a port of a step: \"parse.adults\"".to_owned();
        let message = format!("{:?} is not an input", input.value);
        self.findings
            .problem_with_hint(&input.place, message, Some(hint));
    }

    fn dangling(&mut self, input: &Placed<String>, name: &str) {
        if !is_name(name) {
            self.not_an_input(input);
            return;
        }
        if self.file.sinks.iter().any(|sink| sink.name.value == name) {
            let message = format!("{name:?} is a sink: nothing comes out of it");
            self.findings.problem(&input.place, message);
            return;
        }
        let sources = self
            .file
            .sources
            .iter()
            .map(|source| source.name.value.as_str());
        let steps = self.file.steps.iter().map(|step| step.name.value.as_str());
        let streams = self.file.streams.iter();
        let streams = streams.map(|stream| stream.name.value.as_str());
        let near = nearest(name, sources.chain(steps).chain(streams));
        if near.is_some_and(|near| !is_name(near)) {
            // Told where it is named: this one is right.
            return;
        }
        let hint = near.map(|near| format!("did you mean {near:?}?"));
        let message = format!("no source, step or stream is named {name:?}");
        self.findings.absent(&input.place, message, hint);
    }

    /// A stream is a source too: they stand behind those of the file.
    fn source(&self, name: &str) -> Option<SourceId> {
        let sources = self.file.sources.iter().map(|source| &source.name);
        let streams = self.file.streams.iter().map(|stream| &stream.name);
        let mut names = sources.chain(streams);
        names.position(|known| known.value == name).map(SourceId)
    }

    fn step(&self, name: &str) -> Option<StepId> {
        self.file
            .steps
            .iter()
            .position(|step| step.name.value == name)
            .map(StepId)
    }

    fn plugin(&mut self, step: &file::Step) -> Option<usize> {
        let wanted = step.plugin.as_ref()?;
        let plugins = &self.file.plugins;
        let found = plugins
            .iter()
            .position(|plugin| plugin.name.value == wanted.value);
        if found.is_none() {
            let hint = did_you_mean(&wanted.value, plugins.iter().map(|p| p.name.value.as_str()));
            let message = format!("no plugin is named {:?}", wanted.value);
            self.findings.absent(&wanted.place, message, hint);
        }
        found
    }

    /// What a sink writes must not be what the pipeline reads, nor one of its own topics.
    fn check_targets(&mut self) {
        let mut own = streams::check_topics(self.file, self.findings);
        let sinks = self
            .file
            .sinks
            .iter()
            .filter_map(|sink| match &sink.target {
                Some(file::Target::Map(map)) => Some(map),
                Some(file::Target::Topic(_)) | None => None,
            });
        let states = maps::states(self.file).map(|(_, map)| map);
        for map in sinks.chain(states) {
            let Some(name) = &self.file.name else {
                continue;
            };
            let changelog = format!("{}.{}.changelog", name.value, map.value);
            if changelog.len() > TOPIC_MAX {
                let message = format!(
                    "the map's changelog, {:?}, would have {} characters, {TOPIC_MAX} are allowed",
                    changelog,
                    changelog.len(),
                );
                self.findings.problem(&map.place, message);
            }
            own.push((changelog, format!("keeps the map {:?}", map.value)));
        }
        let sources = self.file.sources.iter().flat_map(|source| &source.topics);
        let tables = self.file.maps.iter().filter_map(|map| map.topic.as_ref());
        for topic in sources.chain(tables.flatten()) {
            self.check_own(topic, &own);
        }
        for sink in &self.file.sinks {
            let Some(file::Target::Topic(topic)) = &sink.target else {
                continue;
            };
            self.check_own(topic, &own);
            let reads =
                |source: &&file::Source| source.topics.iter().any(|read| read.value == topic.value);
            if let Some(source) = self.file.sources.iter().find(reads) {
                let message = format!(
                    "topic {:?} is read by source {:?}: what goes out would come in again",
                    topic.value, source.name.value,
                );
                self.findings.problem(&topic.place, message);
            }
        }
    }

    /// One topic or map written by two sinks would get their records batch by batch, not by source offset.
    fn check_shared_targets(&mut self) {
        let target = |sink: &file::Sink| match sink.target.clone()? {
            file::Target::Map(map) => Some(("map", map)),
            file::Target::Topic(topic) => Some(("topic", topic)),
        };
        let targets: Vec<_> = self.file.sinks.iter().map(target).collect();
        for (index, written) in targets.iter().enumerate() {
            let Some((kind, written)) = written else {
                continue;
            };
            let before = targets[..index].iter().position(|other| {
                let same =
                    |(of, name): &(&str, Placed<String>)| of == kind && name.value == written.value;
                other.as_ref().is_some_and(same)
            });
            if let Some(before) = before {
                let other = &self.file.sinks[before].name.value;
                let message = format!(
                    "{kind} {:?} is written by sink {other:?} already",
                    written.value
                );
                let hint = "give one sink the inputs of both: it keeps their records in order";
                self.findings
                    .problem_with_hint(&written.place, message, Some(hint.to_owned()));
            }
        }
    }

    /// `own` has the pipeline's own topics, and what each of them is for.
    fn check_own(&mut self, topic: &Placed<String>, own: &[(String, String)]) {
        if let Some((_, does)) = own.iter().find(|(name, _)| *name == topic.value) {
            let message = format!("topic {:?} {does} of this pipeline", topic.value);
            self.findings.problem(&topic.place, message);
        }
    }

    /// Places of the steps in the file, inputs first and otherwise as written. `None` if they go round in circles.
    fn order(&mut self, inputs: &[Inputs]) -> Option<Vec<usize>> {
        let mut order = Vec::new();
        let mut waiting: Vec<usize> = (0..inputs.len()).collect();
        while let Some(next) = waiting
            .iter()
            .position(|step| !feeding(&inputs[*step]).any(|from| waiting.contains(&from)))
        {
            order.push(waiting.remove(next));
        }
        // Whatever waits now has an input that waits: walking upstream must meet a step again.
        let mut seen = Vec::new();
        for start in &waiting {
            let mut path = Vec::new();
            let mut step = *start;
            while !seen.contains(&step) {
                seen.push(step);
                path.push(step);
                let upstream = feeding(&inputs[step]).find(|from| waiting.contains(from));
                step = upstream.expect("a step that waits has an input that waits");
            }
            if let Some(first) = path.iter().position(|other| *other == step) {
                self.cycle(&path[first..]);
            }
        }
        waiting.is_empty().then_some(order)
    }

    /// `upstream`: the steps of a cycle, each followed by one that feeds it.
    fn cycle(&mut self, upstream: &[usize]) {
        let mut steps: Vec<_> = upstream.iter().rev().collect();
        let first = (0..steps.len())
            .min_by_key(|at| steps[*at])
            .unwrap_or_default();
        steps.rotate_left(first);
        let around = steps.iter().chain(steps.first());
        let names: Vec<_> = around
            .map(|step| self.file.steps[**step].name.value.as_str())
            .collect();
        let place = &self.file.steps[*steps[0]].name.place;
        self.findings.problem(
            place,
            format!("steps feed each other: {}", names.join(" → ")),
        );
    }
}

/// Places in the file of the steps that an `inputs` list names.
fn feeding(inputs: &Inputs) -> impl Iterator<Item = usize> {
    inputs
        .iter()
        .flatten()
        .filter_map(|input| match &input.from {
            From::Step { step, .. } => Some(step.0),
            From::Source(_) => None,
        })
}

/// What is in the file to no effect.
fn warnings(
    file: &File,
    text: &SourceText,
    inputs: [&Vec<Inputs>; 3],
    plugins: &[Option<usize>],
) -> Vec<Problem> {
    let read: Vec<_> = inputs
        .into_iter()
        .flatten()
        .flatten()
        .flatten()
        .map(|input| &input.from)
        .collect();
    let read_source = |index| read.contains(&&From::Source(SourceId(index)));
    let read_step = |index| {
        read.iter()
            .any(|from| matches!(from, From::Step { step, .. } if step.0 == index))
    };
    let warn = |name: &Placed<String>, message: &str| {
        text.problem_at(name.place.offset, &name.place.key, message)
    };

    let mut list = Vec::new();
    for (index, source) in file.sources.iter().enumerate() {
        if !read_source(index) {
            list.push(warn(&source.name, "no step or sink reads this source"));
        }
    }
    for (index, stream) in file.streams.iter().enumerate() {
        if !read_source(file.sources.len() + index) {
            list.push(warn(&stream.name, "no step or sink reads this stream"));
        }
    }
    for (index, plugin) in file.plugins.iter().enumerate() {
        if !plugins.contains(&Some(index)) {
            list.push(warn(
                &plugin.name,
                "no step uses this plugin: it is not loaded",
            ));
        }
    }
    for (index, step) in file.steps.iter().enumerate() {
        if !read_step(index) && step.state.is_empty() {
            list.push(warn(
                &step.name,
                "no step or sink reads what this step puts out",
            ));
        }
    }
    list.sort_by_key(|problem| problem.line);
    list
}

/// Name and path of the plugins that steps use, in the order of the file; those whose path could be read.
pub(super) fn used_plugins(file: &File) -> impl Iterator<Item = (&Plugin, &str)> {
    let used = |plugin: &&Plugin| {
        let uses = |name: &Placed<String>| name.value == plugin.name.value;
        file.steps
            .iter()
            .any(|step| step.plugin.as_ref().is_some_and(uses))
    };
    let plugins = file.plugins.iter().filter(used);
    plugins.filter_map(|plugin| Some((plugin, plugin.path.as_deref()?)))
}

/// The steps' plugins, as indices in [`used_plugins`], and configurations, in the order in which the steps run.
fn step_configs(file: &File, order: &[usize]) -> Option<Vec<(usize, String)>> {
    let steps = order.iter().map(|step| {
        let step = &file.steps[*step];
        let wanted = &step.plugin.as_ref()?.value;
        let plugin = used_plugins(file).position(|(plugin, _)| plugin.name.value == *wanted)?;
        Some((plugin, step.config.clone()?))
    });
    steps.collect()
}

/// The parts of a pipeline, steps still by their place in the file.
struct Graph {
    topics: Vec<SourceTopic>,
    /// Places in the file, in the order in which the steps run.
    order: Vec<usize>,
    step_inputs: Vec<Vec<Input>>,
    lookups: Vec<Vec<Grant>>,
    states: Vec<Vec<Grant>>,
    sink_inputs: Vec<Vec<Input>>,
    stream_inputs: Vec<Vec<Input>>,
}

impl Graph {
    fn pipeline(&self, file: &File) -> Option<Pipeline> {
        let maps = maps::all(file);
        let mut sinks = Vec::new();
        for (sink, inputs) in file.sinks.iter().zip(&self.sink_inputs) {
            let target = match sink.target.as_ref()? {
                file::Target::Topic(topic) => Target::Topic(topic.value.clone()),
                file::Target::Map(map) => {
                    let known = maps.iter().position(|known| known.name == map.value);
                    Target::Map(MapId(known?))
                }
            };
            sinks.push(Sink {
                name: sink.name.value.clone(),
                inputs: self.renumber(inputs),
                target,
                on_error: sink.on_error,
            });
        }
        let steps = self.order.iter().map(|index| Step {
            name: file.steps[*index].name.value.clone(),
            inputs: self.step_inputs(file, *index),
            lookups: self.lookups[*index].clone(),
            state: self.states[*index].clone(),
            on_error: file.steps[*index].on_error.value.unwrap_or(OnError::Fail),
            retries: file.steps[*index]
                .retries
                .as_ref()
                .map_or(0, |retries| retries.value),
        });
        let name = &file.name.as_ref()?.value;
        for (stream, inputs) in file.streams.iter().zip(&self.stream_inputs) {
            let inputs = self.renumber(inputs);
            sinks.push(streams::sink(name, stream, inputs));
        }
        let sources = file.sources.iter().map(|source| Source {
            name: source.name.value.clone(),
            start: source.start,
            stream: false,
        });
        let sources = sources.chain(file.streams.iter().map(streams::source));
        let replays = streams::replays(file);
        let sources = sources.chain(replays.map(|(_, step)| streams::replay_source(step)));
        Some(Pipeline {
            name: name.clone(),
            guarantee: file.guarantee,
            interval: file.interval,
            sources: sources.collect(),
            topics: self.topics.clone(),
            steps: steps.collect(),
            sinks,
            maps,
        })
    }

    fn step_inputs(&self, file: &File, step: usize) -> Vec<Input> {
        let mut inputs = self.renumber(&self.step_inputs[step]);
        inputs.extend(streams::replay_input(file, step));
        inputs
    }

    /// Steps by the order in which they run.
    fn renumber(&self, inputs: &[Input]) -> Vec<Input> {
        let renumbered = inputs.iter().map(|input| {
            let from = match &input.from {
                From::Source(source) => From::Source(*source),
                From::Step { step, port } => {
                    let runs = self.order.iter().position(|index| *index == step.0);
                    let runs = runs.expect("the order holds every step of the file");
                    From::Step {
                        step: StepId(runs),
                        port: port.clone(),
                    }
                }
            };
            Input {
                name: input.name.clone(),
                from,
            }
        });
        renumbered.collect()
    }
}
