//! One living copy of a plugin, of one step in one worker: calls go in, answers come out in the engine's types.
//!
//! Invariant: after a call that failed, the instance is not called again (`Steps` drops it): its memory may be anything.

use std::sync::Arc;

use millstream_engine::record::{Column, Headers};
use millstream_engine::state::overlay::Overlay;
use millstream_engine::step::{Batch, CallFailure, Failure, Outcome, Output};
use wasmtime::{Engine, Store};

use super::bindings::exports::millstream::plugin::transform::Needs as NeedsReply;
use super::bindings::millstream::plugin::{log, records};
use super::bindings::{Plugin, PluginPre};
use super::deadline;
use super::grants::Grants;
use super::limits::Limits;
use super::plugin::Needs;
use crate::tables::Refusal;

/// Characters of what a plugin says, in a reason or a log line, that are passed on.
const WORDS_MAX: usize = 1000;

/// What the host copies in one call, and so the size of an answer (wasmtime counts it as fuel, about one a byte).
const ANSWER_MAX: usize = 64 << 20;

/// What the host keeps for an instance.
pub struct State {
    pub(super) step: String,
    revision: Arc<str>,
    limits: Limits,
    pub(super) grants: Grants,
}

pub struct Instance {
    store: Store<State>,
    plugin: Plugin,
    headers: bool,
}

impl Instance {
    pub fn new(
        engine: &Engine,
        pre: &PluginPre<State>,
        step: &str,
        config: &str,
        revision: &Arc<str>,
        grants: Grants,
    ) -> Result<(Self, Needs), String> {
        let mut store = Store::new(
            engine,
            State {
                step: step.into(),
                revision: Arc::clone(revision),
                limits: Limits::default(),
                grants,
            },
        );
        store.limiter(|state| &mut state.limits);
        store.set_hostcall_fuel(ANSWER_MAX);
        deadline::set(&mut store, 0);
        let plugin = pre
            .instantiate(&mut store)
            .map_err(|error| explain(&error))?;
        let configured = plugin
            .millstream_plugin_transform()
            .call_configure(&mut store, config);
        let needs: NeedsReply = configured.map_err(|error| explain(&error))??;
        let headers = needs.headers;
        let needs = Needs {
            ports: needs.ports,
            lookups: needs.lookups,
            state: needs.state,
            headers,
        };
        Ok((
            Self {
                store,
                plugin,
                headers,
            },
            needs,
        ))
    }

    /// Bytes that its memories have.
    pub fn memory(&self) -> usize {
        self.store.data().limits.memory()
    }

    /// The plugin's own name and version, `name version`.
    pub fn describe(&mut self) -> Result<String, String> {
        deadline::set(&mut self.store, 0);
        let transform = self.plugin.millstream_plugin_transform();
        let described = transform.call_describe(&mut self.store);
        let described = described.map_err(|error| explain(&error))?;
        Ok(shorten(format!("{} {}", described.name, described.version)))
    }

    /// What the call changes in the step's state goes into the overlay, be it that it fails later.
    pub fn process(
        &mut self,
        batch: &Batch<'_>,
        overlay: &mut Overlay,
    ) -> Result<Outcome, CallFailure> {
        deadline::set(&mut self.store, batch.halvings);
        let columns = batch.columns;
        let none = Headers::default();
        let headers = if self.headers {
            &columns.headers
        } else {
            &none
        };
        let lent = records::Batch {
            inputs: batch.inputs,
            input_of: batch.input_of,
            topic: batch.topic,
            partition: batch.partition,
            now: batch.now,
            offsets: &columns.offsets,
            timestamps: &columns.timestamps,
            keys: lend(&columns.keys),
            values: lend(&columns.values),
            headers: records::HeadersParam {
                owners: headers.owners(),
                names: lend(headers.names()),
                values: lend(headers.values()),
            },
        };
        let grants = &mut self.store.data_mut().grants;
        grants.begin_batch(batch.partition, batch.now, overlay);
        let called = self
            .plugin
            .millstream_plugin_transform()
            .call_process(&mut self.store, lent);
        self.store.data_mut().grants.end_batch(overlay);
        match called {
            Err(error) => Err(fail(&error)),
            Ok(Err(reason)) => Err(CallFailure::Plugin(shorten(reason))),
            Ok(Ok(outcome)) => take_outcome(outcome)
                .map_err(|wrong| CallFailure::Plugin(format!("its answer is malformed: {wrong}"))),
        }
    }
}

/// A call that trapped: what was looked up in vain speaks for itself.
fn fail(error: &wasmtime::Error) -> CallFailure {
    match error.downcast_ref::<Refusal>() {
        Some(refusal @ Refusal::NotReady { .. }) => CallFailure::NotReady(refusal.to_string()),
        Some(refusal) => CallFailure::Plugin(refusal.to_string()),
        None => CallFailure::Plugin(explain(error)),
    }
}

/// At most `WORDS_MAX` characters of one line, so that a plugin can neither flood log and status nor forge lines.
fn shorten(words: String) -> String {
    let mut words = words.replace(char::is_control, " ");
    if let Some((end, _)) = words.char_indices().nth(WORDS_MAX) {
        words.truncate(end);
        words.push('…');
    }
    words
}

/// What went wrong in a call, in a line.
fn explain(error: &wasmtime::Error) -> String {
    if deadline::is_missed(error) {
        return "it missed its deadline".into();
    }
    let root = error.root_cause().to_string();
    match error.downcast_ref::<wasmtime::WasmBacktrace>() {
        Some(trace) => {
            let frames = trace.frames().iter().filter_map(|frame| frame.func_name());
            let frames: Vec<&str> = frames.take(8).collect();
            if frames.is_empty() {
                root
            } else {
                format!("{root} (in {})", frames.join(" < "))
            }
        }
        None => root,
    }
}

fn lend(column: &Column) -> records::ColumnParam<'_> {
    records::ColumnParam {
        bytes: column.bytes(),
        ends: column.ends(),
        nulls: column.nulls(),
    }
}

fn take(column: records::ColumnResult) -> Result<Column, String> {
    Column::from_parts(column.bytes, column.ends, column.nulls)
}

/// A column that a plugin hands to a function of ours.
pub(super) fn argument(column: records::ColumnResult, what: &str) -> wasmtime::Result<Column> {
    take(column).map_err(|wrong| wasmtime::Error::msg(format!("{what}: {wrong}")))
}

fn take_outcome(outcome: records::Outcome) -> Result<Outcome, String> {
    let failures = outcome.failures.into_iter();
    Ok(Outcome {
        outputs: outcome
            .outputs
            .into_iter()
            .map(take_output)
            .collect::<Result<_, _>>()?,
        failures: failures
            .map(|failure| Failure {
                origin: failure.origin,
                reason: shorten(failure.reason),
            })
            .collect(),
    })
}

fn take_output(output: records::Output) -> Result<Output, String> {
    let records = output.origins.len();
    let headers = output.headers.map(|headers| {
        Headers::from_parts(
            headers.owners,
            take(headers.names)?,
            take(headers.values)?,
            records,
        )
    });
    Ok(Output {
        port: output.port,
        origins: output.origins,
        keys: output
            .keys
            .map(take)
            .transpose()
            .map_err(|wrong| format!("keys: {wrong}"))?,
        values: output
            .values
            .map(take)
            .transpose()
            .map_err(|wrong| format!("values: {wrong}"))?,
        timestamps: output.timestamps,
        headers: headers
            .transpose()
            .map_err(|wrong| format!("headers: {wrong}"))?,
    })
}

impl records::Host for State {}

impl log::Host for State {
    fn log(&mut self, level: log::Level, message: String) {
        let (step, revision, message) = (&self.step, &*self.revision, shorten(message));
        match level {
            log::Level::Trace => {
                tracing::trace!(target: "millstream::plugin", step, revision, "{message}");
            }
            log::Level::Debug => {
                tracing::debug!(target: "millstream::plugin", step, revision, "{message}");
            }
            log::Level::Info => {
                tracing::info!(target: "millstream::plugin", step, revision, "{message}");
            }
            log::Level::Warn => {
                tracing::warn!(target: "millstream::plugin", step, revision, "{message}");
            }
            log::Level::Error => {
                tracing::error!(target: "millstream::plugin", step, revision, "{message}");
            }
        }
    }
}

impl std::fmt::Debug for Instance {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Instance")
            .field("state", self.store.data())
            .finish_non_exhaustive()
    }
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("State")
            .field("step", &self.step)
            .finish_non_exhaustive()
    }
}
