//! Running a plugin in an ordinary test, without WASM and without a host.
//!
//! ```
//! use millstream_plugin::testing::{Harness, Input};
//! # use millstream_plugin::{Record, Result, plugin};
//! # fn has_key(record: Record<'_>) -> Result<bool> { Ok(record.key().is_some()) }
//! # plugin!(filter: has_key);
//! # fn main() {
//! let mut plugin = Harness::new::<Plugin>(serde_json::json!({})).unwrap();
//! let processed = plugin.process(&[Input::new("k", "v"), Input::value("w")]);
//! assert_eq!(processed.texts(), ["v"]);
//! # }
//! ```
//!
//! The harness stands in for the host: it resolves what output records inherit, and it holds the
//! plugin to the contract, where a breach panics.

pub(crate) mod stores;
pub(crate) mod tables;

use std::ops::Range;

use serde_json::Value;

use crate::batch::{Batch, BatchTransform, Column, Headers, Needs, Outcome, Output, row};
use crate::output::reason;
use crate::{PerRecord, Result, Transform, export};

pub use crate::log::Level;
pub use stores::Put;
pub use tables::Table;

/// A record for a plugin to process.
#[derive(Clone, Debug)]
pub struct Input {
    key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
    timestamp: i64,
    headers: Vec<Header>,
    input: String,
}

/// Name and value.
pub type Header = (String, Option<Vec<u8>>);

impl Input {
    /// A record with a key and a value.
    pub fn new(key: impl Into<Vec<u8>>, value: impl Into<Vec<u8>>) -> Self {
        Self::null().with_key(key).with_value(value)
    }

    /// A record with a null key.
    pub fn value(value: impl Into<Vec<u8>>) -> Self {
        Self::null().with_value(value)
    }

    /// A record with a null key and this value.
    pub fn json(value: &Value) -> Self {
        Self::value(value.to_string())
    }

    /// A record whose key and value are null.
    pub fn null() -> Self {
        let (key, value, timestamp) = (None, None, 1_000);
        Input {
            key,
            value,
            timestamp,
            headers: Vec::new(),
            input: "input".to_owned(),
        }
    }

    /// The same with this key.
    pub fn with_key(self, key: impl Into<Vec<u8>>) -> Self {
        Input {
            key: Some(key.into()),
            ..self
        }
    }

    /// The same with this value.
    pub fn with_value(self, value: impl Into<Vec<u8>>) -> Self {
        Input {
            value: Some(value.into()),
            ..self
        }
    }

    /// The same at that time, in milliseconds; -1 for none. It is 1000 otherwise.
    pub fn at(self, timestamp: i64) -> Self {
        Input { timestamp, ..self }
    }

    /// The same by that input of the step. It is `input` otherwise.
    pub fn by(self, input: &str) -> Self {
        Input {
            input: input.to_owned(),
            ..self
        }
    }

    /// The same with a header more.
    pub fn with_header(mut self, name: &str, value: impl Into<Vec<u8>>) -> Self {
        self.headers.push((name.to_owned(), Some(value.into())));
        self
    }

    /// The same with a header more, whose value is null.
    pub fn with_null_header(mut self, name: &str) -> Self {
        self.headers.push((name.to_owned(), None));
        self
    }
}

/// An output record, with all that it inherits.
#[derive(Clone, Debug, PartialEq)]
pub struct Emitted {
    /// Empty for the default port.
    pub port: String,
    /// Index of the input record it comes from.
    pub origin: usize,
    /// `None` is null.
    pub key: Option<Vec<u8>>,
    /// `None` is null.
    pub value: Option<Vec<u8>>,
    /// -1 is none.
    pub timestamp: i64,
    /// In order.
    pub headers: Vec<Header>,
}

impl Emitted {
    /// The key as text.
    ///
    /// # Panics
    /// If it is null or not UTF-8.
    pub fn key_text(&self) -> &str {
        text(self.key.as_deref())
    }

    /// The value as text.
    ///
    /// # Panics
    /// If it is null or not UTF-8.
    pub fn text(&self) -> &str {
        text(self.value.as_deref())
    }

    /// The value as JSON.
    ///
    /// # Panics
    /// If it isn't.
    pub fn json(&self) -> Value {
        serde_json::from_str(self.text()).expect("the value is JSON")
    }
}

/// What became of a batch.
#[derive(Debug)]
pub struct Processed {
    /// Port by port, in the order of the outputs.
    pub records: Vec<Emitted>,
    /// Indices of input records, and why they failed.
    pub failures: Vec<(usize, String)>,
    /// How many keys were looked up, in tables and in state, with each call for them: few calls, for many keys, are cheap.
    pub fetches: Vec<usize>,
    /// What was put into state, call by call.
    pub puts: Vec<Put>,
    /// What the plugin returned.
    pub outcome: Outcome,
}

impl Processed {
    /// The records' values as texts.
    pub fn texts(&self) -> Vec<&str> {
        self.records.iter().map(Emitted::text).collect()
    }

    /// The records that left by a port; the default one is `""`.
    pub fn port<'p>(&'p self, name: &str) -> Vec<&'p Emitted> {
        self.records
            .iter()
            .filter(|record| record.port == name)
            .collect()
    }
}

/// A configured plugin.
pub struct Harness {
    needs: Needs,
    process: Box<dyn FnMut(Batch) -> Result<Outcome>>,
    tables: Vec<Table>,
    /// Each that the needs name.
    state: Vec<Table>,
    offset: i64,
}

impl std::fmt::Debug for Harness {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Harness")
            .field("needs", &self.needs)
            .finish_non_exhaustive()
    }
}

impl Harness {
    /// A [`Transform`] with this `config` table. An error is the one the user would see.
    pub fn new<T: Transform>(config: Value) -> Result<Self, String> {
        Self::with_tables::<T>(config, [])
    }

    /// The same, with tables granted that it may look up.
    pub fn with_tables<T: Transform>(
        config: Value,
        tables: impl Into<Vec<Table>>,
    ) -> Result<Self, String> {
        Self::batch_with_tables::<PerRecord<T>>(config, tables)
    }

    /// A [`BatchTransform`] with this `config` table.
    pub fn batch<T: BatchTransform>(config: Value) -> Result<Self, String> {
        Self::batch_with_tables::<T>(config, [])
    }

    /// The same, with tables granted that it may look up. What the plugin needs beyond these is an
    /// error here, as it is for a pipeline file.
    pub fn batch_with_tables<T: BatchTransform>(
        config: Value,
        tables: impl Into<Vec<Table>>,
    ) -> Result<Self, String> {
        let tables = tables.into();
        tables::grant(&tables);
        let (mut plugin, needs) = export::configured::<T>(&config.to_string())?;
        if let Some(name) = needs.lookups.iter().find(|name| !tables::is_granted(name)) {
            return Err(format!("the plugin needs the table \"{name}\""));
        }
        let state = needs.state.iter().map(|name| Table::new(name)).collect();
        Ok(Harness {
            state,
            needs,
            process: Box::new(move |batch| plugin.process(batch)),
            tables,
            offset: 0,
        })
    }

    /// Replaces the tables, or what they hold.
    pub fn set_tables(&mut self, tables: impl Into<Vec<Table>>) {
        self.tables = tables.into();
    }

    /// Replaces the contents of the plugin's state of that name. It has all the state that its needs name, empty at first.
    ///
    /// # Panics
    /// If its needs don't name it.
    pub fn set_state(&mut self, contents: Table) {
        let state = self
            .state
            .iter_mut()
            .find(|state| state.name() == contents.name());
        *state.expect("the plugin's needs name the state") = contents;
    }

    /// What the plugin's state of that name holds after the batches so far.
    ///
    /// # Panics
    /// If its needs don't name it.
    pub fn state(&self, name: &str) -> &Table {
        let state = self.state.iter().find(|state| state.name() == name);
        state.expect("the plugin's needs name the state")
    }

    /// What the plugin asked for.
    pub fn needs(&self) -> &Needs {
        &self.needs
    }

    /// Processes the records as one batch of partition 0 of `topic`, with offsets that go on from
    /// the batch before.
    ///
    /// # Panics
    /// If the batch as a whole fails, or what comes back breaks the contract.
    pub fn process(&mut self, records: &[Input]) -> Processed {
        self.try_process(records)
            .expect("the plugin takes the batch")
    }

    /// As [`process`](Self::process), with an error of the batch as a whole returned.
    pub fn try_process(&mut self, records: &[Input]) -> Result<Processed, String> {
        assert!(!records.is_empty(), "a batch has at least one record");
        let batch = self.next_batch(records);
        tables::grant(&self.tables);
        stores::begin(&self.state);
        tables::take_fetches();
        let outcome = (self.process)(batch);
        let (state, puts) = stores::end();
        let outcome = outcome.map_err(|error| reason(&*error))?;
        for output in &outcome.outputs {
            check_output(output, &self.needs, records.len());
        }
        check_failures(&outcome, records.len());
        self.state = state;
        let emitted = outcome
            .outputs
            .iter()
            .flat_map(|output| resolve(output, records));
        let failures = outcome.failures.iter();
        Ok(Processed {
            records: emitted.collect(),
            failures: failures
                .map(|f| (f.origin as usize, f.reason.clone()))
                .collect(),
            fetches: tables::take_fetches(),
            puts,
            outcome,
        })
    }

    fn next_batch(&mut self, records: &[Input]) -> Batch {
        let first = self.offset;
        self.offset += i64::from(row(records.len()));
        let mut batch = Batch {
            inputs: Vec::new(),
            input_of: Vec::new(),
            topic: "topic".to_owned(),
            partition: 0,
            now: 1_000_000,
            offsets: (first..self.offset).collect(),
            timestamps: records.iter().map(|record| record.timestamp).collect(),
            keys: Column::with_capacity(0, 0),
            values: Column::with_capacity(0, 0),
            headers: Headers::none(),
        };
        for (index, record) in records.iter().enumerate() {
            batch.keys.push(record.key.as_deref());
            batch.values.push(record.value.as_deref());
            let known = batch.inputs.iter().position(|input| *input == record.input);
            batch
                .input_of
                .push(row(known.unwrap_or(batch.inputs.len())));
            if known.is_none() {
                batch.inputs.push(record.input.clone());
            }
            for (name, value) in record.headers.iter().filter(|_| self.needs.headers) {
                batch.headers.push(index, name, value.as_deref());
            }
        }
        if batch.inputs.len() == 1 {
            batch.input_of.clear();
        }
        batch
    }
}

/// What the plugin under test has logged on this thread since the last call.
pub fn take_log() -> Vec<(Level, String)> {
    crate::log::take_lines()
}

/// The output's records, with all they inherit.
fn resolve(output: &Output, inputs: &[Input]) -> Vec<Emitted> {
    let cell = |column: &Column, index| column.get(index).map(<[u8]>::to_vec);
    let rows = output.origins.iter().enumerate().map(|(index, &origin)| {
        let input = &inputs[origin as usize];
        let inherited = input.clone();
        Emitted {
            port: output.port.clone(),
            origin: origin as usize,
            key: output
                .keys
                .as_ref()
                .map_or(inherited.key, |keys| cell(keys, index)),
            value: output
                .values
                .as_ref()
                .map_or(inherited.value, |values| cell(values, index)),
            timestamp: output
                .timestamps
                .as_ref()
                .map_or(input.timestamp, |cells| cells[index]),
            headers: match &output.headers {
                Some(headers) => to_vec(headers, headers.range(index)),
                None => inherited.headers,
            },
        }
    });
    rows.collect()
}

fn to_vec(headers: &Headers, range: Range<usize>) -> Vec<Header> {
    let headers = range.map(|index| headers.get(index));
    headers
        .map(|(name, value)| (name.to_owned(), value.map(<[u8]>::to_vec)))
        .collect()
}

fn check_output(output: &Output, needs: &Needs, inputs: usize) {
    let port = &output.port;
    assert!(
        port.is_empty() || needs.ports.contains(port),
        "port `{port}` isn't in the needs"
    );
    let rows = output.origins.len();
    assert!(output.origins.is_sorted(), "origins decrease");
    assert!(
        output
            .origins
            .iter()
            .all(|&origin| (origin as usize) < inputs),
        "no such origin"
    );
    for column in [&output.keys, &output.values].into_iter().flatten() {
        check_column(column, rows);
    }
    if let Some(timestamps) = &output.timestamps {
        assert_eq!(timestamps.len(), rows, "a timestamp for each record");
    }
    if let Some(headers) = &output.headers {
        assert!(headers.owners.is_sorted(), "owners decrease");
        assert!(
            headers.owners.iter().all(|&owner| (owner as usize) < rows),
            "no such owner"
        );
        check_column(&headers.names, headers.owners.len());
        check_column(&headers.values, headers.owners.len());
        assert!(headers.names.nulls.is_empty(), "a header's name is null");
        let utf8 = |name: Option<&[u8]>| std::str::from_utf8(name.unwrap_or_default()).is_ok();
        assert!(
            headers.names.iter().all(utf8),
            "a header's name isn't UTF-8"
        );
    }
}

fn check_column(column: &Column, strings: usize) {
    let end = column.ends.last().map_or(0, |&end| end as usize);
    assert_eq!(column.len(), strings, "a string for each record");
    assert!(column.ends.is_sorted(), "ends decrease");
    assert_eq!(
        end,
        column.bytes.len(),
        "the last end is the length of the bytes"
    );
    assert!(
        column.nulls.is_sorted_by(|a, b| a < b),
        "nulls don't ascend"
    );
    for &null in &column.nulls {
        assert!(column.range(null as usize).is_empty(), "a null has bytes");
    }
}

fn check_failures(outcome: &Outcome, inputs: usize) {
    let mut failed: Vec<u32> = outcome
        .failures
        .iter()
        .map(|failure| failure.origin)
        .collect();
    failed.sort_unstable();
    assert!(failed.is_sorted_by(|a, b| a < b), "a record failed twice");
    assert!(
        failed.iter().all(|&origin| (origin as usize) < inputs),
        "no such record"
    );
    let emitted = outcome.outputs.iter().flat_map(|output| &output.origins);
    let both = emitted
        .filter(|origin| failed.binary_search(origin).is_ok())
        .count();
    assert_eq!(
        both, 0,
        "a record that failed is the origin of output records"
    );
    let mut ports: Vec<&str> = outcome.outputs.iter().map(|output| &*output.port).collect();
    ports.sort_unstable();
    assert!(ports.is_sorted_by(|a, b| a < b), "two outputs for one port");
}

fn text(bytes: Option<&[u8]>) -> &str {
    std::str::from_utf8(bytes.expect("it isn't null")).expect("it is UTF-8")
}
