//! One living copy of a plugin, of one step in one worker: calls go in, answers come out in the engine's types.
//!
//! Invariant: after a call that failed, the instance is not called again (`Steps` drops it): its memory may be anything.

use std::sync::Arc;
use std::time::{Duration, Instant};

use millstream_engine::record::{Column, Headers};
use millstream_engine::state::overlay::Overlay;
use millstream_engine::step::{Batch, CallFailure, Failure, Outcome, Output};
use millstream_engine::task::failure::in_a_line;
use wasmtime::{Engine, Store};

use super::bindings::exports::millstream::plugin::transform::Needs as NeedsReply;
use super::bindings::millstream::plugin::{log, records};
use super::bindings::{Plugin, PluginPre};
use super::deadline;
use super::grants::Grants;
use super::limits::Limits;
use super::log_budget::LogBudget;
use super::plugin::Needs;
use super::plugin_log::PluginLog;
use super::wasi::Wasi;
use crate::plugin_allow::Allow;
use crate::plugin_limits::{Limit, PluginLimits, size};
use crate::tables::Refusal;

/// What making an instance, and its configuration, may take at least: a plugin whose calls have to be short may prepare a lot for it.
const CONFIGURING: Duration = Duration::from_secs(2);

/// What wasmtime says when the host has copied as much as it may. The error has no public type.
const COPIED_TOO_MUCH: &str = "fuel allocated for hostcalls has been exhausted";

/// What the host keeps for an instance.
pub struct State {
    limits: Limits,
    pub(super) grants: Grants,
    pub(super) log: PluginLog,
    /// Where its component imports any.
    pub(super) wasi: Option<Wasi>,
}

/// What an instance is made for.
pub struct Wiring<'a> {
    /// Marks its log lines.
    pub step: &'a str,
    /// A JSON object.
    pub config: &'a str,
    pub revision: &'a Arc<str>,
    pub grants: Grants,
    pub log: &'a Arc<LogBudget>,
}

pub struct Instance {
    store: Store<State>,
    plugin: Plugin,
    headers: bool,
    hit: Option<Limit>,
}

impl Instance {
    pub fn new(
        engine: &Engine,
        pre: &PluginPre<State>,
        (limits, allow): (PluginLimits, Option<&Allow>),
        wiring: Wiring<'_>,
    ) -> Result<(Self, Needs), String> {
        let log = PluginLog::new(wiring.step, wiring.revision, wiring.log);
        let mut store = Store::new(
            engine,
            State {
                limits: Limits::new(limits),
                grants: wiring.grants,
                wasi: allow.map(|allow| Wasi::new(allow, &log)),
                log,
            },
        );
        store.limiter(|state| &mut state.limits);
        // About one a byte that is copied.
        store.set_hostcall_fuel(limits.output_bytes);
        begin_call(&mut store, limits.time.max(CONFIGURING), 0);
        let plugin = pre
            .instantiate(&mut store)
            .map_err(|error| explain(&error, &limits))?;
        let configured = plugin
            .millstream_plugin_transform()
            .call_configure(&mut store, wiring.config);
        let answered = configured.map_err(|error| explain(&error, &limits))?;
        let needs: NeedsReply = answered.map_err(|words| in_a_line(&words))?;
        // It has lived with it, and no batch has to answer for it.
        store.data_mut().limits.take_refused();
        let headers = needs.headers;
        let needs = Needs {
            ports: needs.ports,
            lookups: needs.lookups,
            state: needs.state,
            headers,
        };
        needs.check()?;
        Ok((
            Self {
                store,
                plugin,
                headers,
                hit: None,
            },
            needs,
        ))
    }

    fn limits(&self) -> &PluginLimits {
        self.store.data().limits.allowed()
    }

    /// The limit that the last call ran into, be it that it succeeded.
    pub fn take_hit(&mut self) -> Option<Limit> {
        self.hit.take()
    }

    /// Bytes that its memories have.
    pub fn memory(&self) -> usize {
        self.store.data().limits.memory()
    }

    /// The plugin's own name and version, `name version`.
    pub fn describe(&mut self) -> Result<String, String> {
        let limits = *self.limits();
        begin_call(&mut self.store, limits.time.max(CONFIGURING), 0);
        let transform = self.plugin.millstream_plugin_transform();
        let described = transform.call_describe(&mut self.store);
        let described = described.map_err(|error| explain(&error, &limits))?;
        Ok(in_a_line(&format!(
            "{} {}",
            described.name, described.version
        )))
    }

    /// What the call changes in the step's state goes into the overlay, be it that it fails later.
    pub fn process(
        &mut self,
        batch: &Batch<'_>,
        overlay: &mut Overlay,
    ) -> Result<Outcome, CallFailure> {
        let limits = *self.limits();
        begin_call(&mut self.store, limits.time, batch.halvings);
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
        let answer = match called {
            Err(error) => {
                self.hit = limit_of(&error);
                Err(fail(&error, &limits))
            }
            Ok(Err(reason)) => Err(CallFailure::Plugin(reason)),
            Ok(Ok(outcome)) => self.take(outcome),
        };
        if !self.store.data_mut().limits.take_refused() {
            return answer;
        }
        self.hit = self.hit.or(Some(Limit::Memory));
        answer.map_err(|failure| match failure {
            CallFailure::Plugin(reason) => CallFailure::Plugin(format!(
                "{reason}; it had asked for more than its {} of memory",
                size(limits.memory)
            )),
            other => other,
        })
    }

    fn take(&mut self, outcome: records::Outcome) -> Result<Outcome, CallFailure> {
        let outputs = outcome.outputs.iter();
        let records: usize = outputs.map(|output| output.origins.len()).sum();
        let most = self.limits().output_records;
        if records > most {
            self.hit = Some(Limit::OutputRecords);
            let reason = format!("its answer has {records} records, {most} are allowed");
            return Err(CallFailure::Plugin(reason));
        }
        take_outcome(outcome)
            .map_err(|wrong| CallFailure::Plugin(format!("its answer is malformed: {wrong}")))
    }
}

/// Sets when the next call is over: for what runs, and for what waits.
fn begin_call(store: &mut Store<State>, whole: Duration, halvings: u32) {
    deadline::set(store, whole, halvings);
    if let Some(wasi) = &mut store.data_mut().wasi {
        wasi.until = Instant::now() + deadline::allowed(whole, halvings);
    }
}

/// A call that trapped: what was looked up in vain speaks for itself.
fn fail(error: &wasmtime::Error, limits: &PluginLimits) -> CallFailure {
    match error.downcast_ref::<Refusal>() {
        Some(refusal @ Refusal::NotReady { .. }) => CallFailure::NotReady(refusal.to_string()),
        Some(refusal) => CallFailure::Plugin(refusal.to_string()),
        None => CallFailure::Plugin(explain(error, limits)),
    }
}

fn limit_of(error: &wasmtime::Error) -> Option<Limit> {
    if deadline::is_missed(error) {
        return Some(Limit::Time);
    }
    let words = error.root_cause().to_string();
    words
        .contains(COPIED_TOO_MUCH)
        .then_some(Limit::OutputBytes)
}

/// What went wrong in a call, in a line.
fn explain(error: &wasmtime::Error, limits: &PluginLimits) -> String {
    match limit_of(error) {
        Some(Limit::Time) => return "it missed its deadline".into(),
        Some(_) => {
            let most = size(limits.output_bytes);
            return format!("it handed out more than its {most} of output");
        }
        None => {}
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
                reason: failure.reason,
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
        self.log.write(level, &message);
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
            .field("step", &self.log.step())
            .finish_non_exhaustive()
    }
}
