//! From a pipeline file to what can be run: its plugins loaded, configured once and asked what they need, and everything that doesn't
//! fit said at once, with file, line and key. No record flows, and no broker is asked, before this has passed.

use std::sync::Arc;

use millstream_engine::pipeline::{FAILED_PORT, From, Grant, Input, Pipeline, Step};
use sha2::{Digest as _, Sha256};

use crate::config::{Config, Outside, PluginFile, Problem, Problems, Unsound};
use crate::kafka::{Clients, Properties};
use crate::plugin_limits::size;
use crate::wasm::{
    Grants, LoadError, LogBudget, Needs, Plugin, Runtime, StepPlugin, Wiring, hexadecimal,
};

/// Everything that a pipeline file names, ready to run.
///
/// # Errors
///
/// All problems found.
pub fn all(
    config: &Config,
    runtime: &Runtime,
    instance: &str,
) -> Result<(Clients, Arc<Vec<StepPlugin>>), Problems> {
    let mut problems = Vec::new();
    let clients = clients(config, instance)
        .map_err(|found| problems.extend(found.list))
        .ok();
    let steps = all_steps(config, runtime, &mut problems);
    match (clients, Problems::from_list(problems)) {
        (Some(clients), None) => Ok((clients, Arc::new(steps))),
        (_, problems) => Err(problems.expect("what failed said why")),
    }
}

/// The same without a Kafka.
pub fn steps(config: &Config, runtime: &Runtime) -> Result<Arc<Vec<StepPlugin>>, Problems> {
    let mut problems = Vec::new();
    let steps = all_steps(config, runtime, &mut problems);
    match Problems::from_list(problems) {
        Some(problems) => Err(problems),
        None => Ok(Arc::new(steps)),
    }
}

/// All that is wrong with what an unsound file names too, so that it can be mended in one go.
pub fn all_problems(unsound: Unsound, runtime: &Runtime) -> Problems {
    let Some(outside) = unsound.outside else {
        return unsound.problems;
    };
    let mut list = unsound.problems.list;
    list.extend(refused_properties(&outside));
    plugins(&outside, runtime, &mut list);
    Problems::from_list(list).expect("an unsound file has problems")
}

fn plugins(
    outside: &Outside,
    runtime: &Runtime,
    problems: &mut Vec<Problem>,
) -> Vec<Option<Plugin>> {
    let load = |file: &PluginFile| {
        let loaded = runtime.load(&file.path, file.sha256.as_ref(), (file.limits, &file.allow));
        loaded
            .map_err(|error| problems.push(load_problem(outside, &file.name, &error)))
            .ok()
    };
    outside.plugins.iter().map(load).collect()
}

fn all_steps(config: &Config, runtime: &Runtime, problems: &mut Vec<Problem>) -> Vec<StepPlugin> {
    let plugins = plugins(&config.outside, runtime, problems);
    let revision = revision(config, &plugins);
    let mut steps = Vec::new();
    for (step, settings) in config.pipeline.steps.iter().zip(&config.steps) {
        let Some(plugin) = &plugins[settings.plugin] else {
            continue;
        };
        let name = &config.outside.plugins[settings.plugin].name;
        let answers = match ask(plugin, step, &settings.config, &revision) {
            Ok(answers) => answers,
            Err(why) => {
                let why = format!("plugin \"{name}\" {why}");
                problems.push(config.problem(&["steps", &step.name, "config"], why));
                continue;
            }
        };
        let Answers {
            description,
            needs,
            memory,
        } = answers;
        problems.extend(above_mark(config, name, &step.name, (plugin, memory)));
        problems.extend(unmet_needs(config, step, &needs));
        problems.extend(unfit_ports(config, &step.name, &needs));
        problems.extend(unknown_ports(config, &step.name, &needs));
        warn_of_unread_ports(config, &step.name, &needs);
        warn_of_unasked(
            config,
            &step.name,
            "lookups",
            (&step.lookups, &needs.lookups),
        );
        warn_of_unasked(config, &step.name, "state", (&step.state, &needs.state));
        steps.push(StepPlugin {
            name: step.name.clone(),
            plugin_name: name.clone(),
            plugin: plugin.clone(),
            description,
            config: settings.config.clone(),
            ports: needs.ports,
            lookups: step.lookups.clone(),
            state: step.state.clone(),
            revision: Arc::clone(&revision),
        });
    }
    steps
}

/// A name for this version of the pipeline file and its plugins: the start of their digest.
fn revision(config: &Config, plugins: &[Option<Plugin>]) -> Arc<str> {
    const BYTES: usize = 6;
    let mut digest = Sha256::new_with_prefix(config.digest);
    for plugin in plugins.iter().flatten() {
        digest.update(plugin.digest());
    }
    hexadecimal(&digest.finalize()[..BYTES]).into()
}

/// What a plugin says under a step's configuration, and what it takes by then.
struct Answers {
    description: String,
    needs: Needs,
    /// In bytes.
    memory: usize,
}

fn ask(plugin: &Plugin, step: &Step, config: &str, revision: &Arc<str>) -> Result<Answers, String> {
    let log = LogBudget::new(&step.name, plugin.limits().log_lines);
    let wiring = Wiring {
        step: &step.name,
        config,
        revision,
        grants: Grants::new((&step.lookups, &step.state), None),
        log: &Arc::new(log),
    };
    let configured = plugin.instantiate(wiring);
    let (mut instance, needs) =
        configured.map_err(|why| format!("refuses its configuration: {why}"))?;
    let description = instance
        .describe()
        .map_err(|why| format!("can't say what it is: {why}"))?;
    tracing::info!(step = step.name, "plugin {description}");
    Ok(Answers {
        description,
        needs,
        memory: instance.memory(),
    })
}

/// An instance that is above its mark before its first batch would be replaced after each.
fn above_mark(
    config: &Config,
    name: &str,
    step: &str,
    (plugin, memory): (&Plugin, usize),
) -> Option<Problem> {
    let mark = plugin.limits().memory_mark;
    (memory > mark).then(|| {
        let message = format!(
            "configured for step \"{step}\", the plugin has {} of memory already: each batch would take a new instance",
            size(memory)
        );
        let problem = config.problem(&["plugins", name, "limits", "memory-mark"], message);
        problem.with_hint(format!(
            "more than its mark of {} is needed, and `memory` above that",
            size(mark)
        ))
    })
}

/// Ports that no plugin may have.
fn unfit_ports(config: &Config, step: &str, needs: &Needs) -> Vec<Problem> {
    let fits = |port: &str| {
        let letter =
            |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '_' | '-');
        port != FAILED_PORT
            && port.starts_with(|c: char| c.is_ascii_lowercase())
            && port.chars().all(letter)
    };
    let unfit = needs.ports.iter().filter(|port| !fits(port)).map(|port| {
        let message = format!(
            "its plugin declares a port {port:?}: ports are named [a-z][a-z0-9_-]*, and not \"failed\""
        );
        config.problem(&["steps", step, "plugin"], message)
    });
    unfit.collect()
}

fn load_problem(outside: &Outside, plugin: &str, error: &LoadError) -> Problem {
    let problem = outside.problem(&["plugins", plugin, "path"], error.to_string());
    match error {
        LoadError::Read { .. } => problem.with_hint(
            "build the plugin, or mend the path (it starts at the pipeline file's folder)",
        ),
        LoadError::OtherDigest { found, .. } => outside
            .problem(&["plugins", plugin, "sha256"], error.to_string())
            .with_hint(format!(
                "if it is meant to be this file, write sha256 = \"{found}\""
            )),
        LoadError::NotAllowed { line, .. } => problem.with_hint(format!(
            "`{line}` in [plugins.{plugin}] allows it; stubs have nothing behind them"
        )),
        LoadError::NotAPlugin { .. } | LoadError::Compile { .. } => problem,
    }
}

/// What the plugin asks for and the pipeline file doesn't give it.
fn unmet_needs(config: &Config, step: &Step, needs: &Needs) -> Vec<Problem> {
    let problem = |what: &str, name: &String| {
        config.problem(
            &["steps", &step.name, what],
            format!("the plugin needs {what} \"{name}\", which the pipeline file does not give it"),
        )
    };
    let has = |grants: &[Grant], name: &String| grants.iter().any(|grant| grant.name == *name);
    let lookups = needs.lookups.iter();
    let lookups = lookups.filter(|name| !has(&step.lookups, name));
    let lookups = lookups.map(|name| {
        let hint = format!("`lookups = [\"{name}\"]` gives it the map of that name, `lookups = {{ {name} = \"…\" }}` another");
        problem("lookups", name).with_hint(hint)
    });
    let state = needs.state.iter().filter(|name| !has(&step.state, name));
    let state = state.map(|name| {
        problem("state", name).with_hint(format!(
            "`state = [\"{name}\"]` keeps it in a map of that name"
        ))
    });
    lookups.chain(state).collect()
}

/// A map that nobody asks for keeps the step waiting for it at start: that is said.
fn warn_of_unasked(
    config: &Config,
    step: &str,
    key: &str,
    (granted, asked): (&[Grant], &[String]),
) {
    let unasked = |grant: &&Grant| !asked.contains(&grant.name);
    for grant in granted.iter().filter(unasked) {
        let message = format!(
            "the plugin does not ask for \"{}\" under this configuration",
            grant.name
        );
        let warning = config.problem(&["steps", step, key], message);
        tracing::warn!("{warning}");
    }
}

/// Inputs that read a port which the step's plugin does not have.
fn unknown_ports(config: &Config, step: &str, needs: &Needs) -> Vec<Problem> {
    let Pipeline { steps, sinks, .. } = &config.pipeline;
    let readers = steps
        .iter()
        .map(|reader| ("steps", &reader.name, &reader.inputs));
    let readers = readers.chain(
        sinks
            .iter()
            .map(|reader| ("sinks", &reader.name, &reader.inputs)),
    );
    let mut problems = Vec::new();
    for (table, reader, inputs) in readers {
        for (index, input) in inputs.iter().enumerate() {
            let Some(port) = read_port(config, input, step) else {
                continue;
            };
            let is_known = port.is_empty()
                || port == FAILED_PORT
                || needs.ports.iter().any(|known| known == port);
            if !is_known {
                let ports = if needs.ports.is_empty() {
                    "none".into()
                } else {
                    needs.ports.join(", ")
                };
                problems.push(config.problem(
                    &[table, reader, &format!("inputs[{index}]")],
                    format!("step \"{step}\" has no port \"{port}\"; its plugin's ports: {ports}"),
                ));
            }
        }
    }
    problems
}

/// Records that leave by a port which nobody reads are dropped: that may be meant, and is said.
fn warn_of_unread_ports(config: &Config, step: &str, needs: &Needs) {
    let Pipeline { steps, sinks, .. } = &config.pipeline;
    let inputs = steps.iter().flat_map(|step| &step.inputs);
    let inputs = inputs.chain(sinks.iter().flat_map(|sink| &sink.inputs));
    let read: Vec<&str> = inputs
        .filter_map(|input| read_port(config, input, step))
        .collect();
    for port in needs
        .ports
        .iter()
        .filter(|port| !read.contains(&port.as_str()))
    {
        tracing::warn!(
            "nobody reads \"{step}.{port}\": records that leave by this port are dropped"
        );
    }
}

fn read_port<'i>(config: &Config, input: &'i Input, step: &str) -> Option<&'i str> {
    match &input.from {
        From::Step { step: read, port } if config.pipeline.steps[read.0].name == step => Some(port),
        _ => None,
    }
}

/// The Kafka clients of a pipeline, if librdkafka takes their properties.
pub fn clients(config: &Config, instance: &str) -> Result<Clients, Problems> {
    if let Some(problems) = Problems::from_list(refused_properties(&config.outside)) {
        return Err(problems);
    }
    let pipeline = &config.pipeline;
    let clients = Clients {
        pipeline: pipeline.name.clone(),
        instance: instance.into(),
        guarantee: pipeline.guarantee,
        interval: pipeline.interval,
        properties: properties(&config.outside),
        address: None,
    };
    match clients.properties.unusable() {
        Some(why) => Err(config.problem(&["kafka"], why).into()),
        None => Ok(clients),
    }
}

fn properties(outside: &Outside) -> Properties {
    let owned = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
    Properties {
        consumer: outside.kafka.consumer().map(owned).collect(),
        producer: outside.kafka.producer().map(owned).collect(),
    }
}

fn refused_properties(outside: &Outside) -> Vec<Problem> {
    let refused = properties(outside).refused().into_iter();
    let problems = refused.map(|refused| {
        let message = format!("librdkafka refuses this property: {}", refused.why);
        outside.kafka_problem(&refused.name, message)
    });
    problems.collect()
}
