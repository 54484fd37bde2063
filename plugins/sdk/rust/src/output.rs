//! What a plugin makes of a batch, written straight into the columns that leave the sandbox.
//!
//! Invariants: a column that no record of a port set is never made (the host then inherits it); one
//! that some records set holds, for the others, what they inherit; a record that failed has left
//! no trace.

use serde::Serialize;

use crate::batch::{Batch, Column, Failure, Headers, Needs, Outcome, Output, row};
use crate::edit::{Cell, Edit};
use crate::{Result, json};

/// Where output records go. Whatever isn't set on an output record is inherited from the record
/// being processed: key, value, timestamp and headers, each for itself.
#[derive(Debug)]
pub struct Outputs<'a> {
    batch: &'a Batch,
    /// The default port, then the declared ones.
    ports: Vec<PortRows>,
    failures: Vec<Failure>,
    /// Index of the record being processed.
    origin: u32,
    headers_seen: bool,
    /// What the plugin did that its needs don't allow. It fails the record, whatever is returned.
    misuse: Option<String>,
}

impl<'a> Outputs<'a> {
    pub(crate) fn new(batch: &'a Batch, needs: &Needs) -> Self {
        let names = std::iter::once("").chain(needs.ports.iter().map(String::as_str));
        let mut ports: Vec<PortRows> = names.map(PortRows::new).collect();
        // Nearly every plugin uses the default port for most of its records.
        ports[0].origins.reserve(batch.offsets.len());
        Outputs {
            batch,
            ports,
            failures: Vec::new(),
            origin: 0,
            headers_seen: needs.headers,
            misuse: None,
        }
    }

    /// Lets the record through as it is.
    pub fn keep(&mut self) {
        self.emit();
    }

    /// Begins an output record. What is set on it is written at once; there is nothing to finish.
    #[inline]
    pub fn emit(&mut self) -> Emit<'_> {
        self.emit_at(0)
    }

    /// Output records made through this leave by the named port, which the plugin's needs declare.
    pub fn port(&mut self, name: &str) -> Port<'_, 'a> {
        let found = self.ports.iter().position(|port| port.name == name);
        if found.is_none() {
            self.misuse = Some(format!(
                "port `{name}` isn't among the ports in the plugin's needs"
            ));
        }
        Port {
            index: found.unwrap_or(0),
            outputs: self,
        }
    }

    /// Makes an output record as described.
    pub fn apply(&mut self, edit: Edit<'_>) -> Result<()> {
        edit.error.map_or(Ok(()), Err)?;
        let emit = match edit.port {
            Some(name) => self.port(name).emit(),
            None => self.emit(),
        };
        let mut emit = match edit.key {
            Cell::Inherited => emit,
            Cell::Null => emit.null_key(),
            Cell::Bytes(key) => emit.key(key),
        };
        emit = match edit.value {
            Cell::Inherited => emit,
            Cell::Null => emit.null_value(),
            Cell::Bytes(value) => emit.value(value),
        };
        if let Some(timestamp) = edit.timestamp {
            emit = emit.timestamp(timestamp);
        }
        if edit.clear_headers {
            emit = emit.clear_headers();
        }
        for (name, value) in edit.headers {
            emit = emit.header(&name, &value);
        }
        Ok(())
    }

    #[inline]
    fn emit_at(&mut self, port: usize) -> Emit<'_> {
        let port = &mut self.ports[port];
        port.origins.push(self.origin);
        Emit {
            batch: self.batch,
            port,
            headers_seen: self.headers_seen,
            misuse: &mut self.misuse,
        }
    }

    #[inline]
    pub(crate) fn begin(&mut self, origin: usize) {
        self.origin = row(origin);
    }

    /// Ends the record with what the plugin returned for it.
    #[inline]
    pub(crate) fn end(&mut self, processed: Result<()>) -> Fate {
        match (processed, self.misuse.take()) {
            (Ok(()), None) => return Fate::Stands,
            (_, Some(misuse)) => self.fail(misuse),
            (Err(error), None) => self.fail(reason(&*error)),
        }
        Fate::Failed
    }

    /// Ends the record as if it had not been begun.
    pub(crate) fn forget(&mut self) {
        self.misuse = None;
        for port in &mut self.ports {
            port.undo(self.origin);
        }
    }

    #[cold]
    fn fail(&mut self, reason: String) {
        self.forget();
        self.failures.push(Failure {
            origin: self.origin,
            reason,
        });
    }

    pub(crate) fn finish(self) -> Outcome {
        let ports = self
            .ports
            .into_iter()
            .filter(|port| !port.origins.is_empty());
        let outputs = ports.map(|port| port.finish(self.batch)).collect();
        Outcome {
            outputs,
            failures: self.failures,
        }
    }
}

/// What became of a record.
pub(crate) enum Fate {
    Stands,
    Failed,
}

/// One output port.
#[derive(Debug)]
pub struct Port<'o, 'a> {
    outputs: &'o mut Outputs<'a>,
    index: usize,
}

impl<'o> Port<'o, '_> {
    /// Lets the record through as it is.
    pub fn keep(self) {
        self.emit();
    }

    /// Begins an output record.
    pub fn emit(self) -> Emit<'o> {
        self.outputs.emit_at(self.index)
    }
}

/// An output record in the making. To set a thing again replaces it.
#[derive(Debug)]
pub struct Emit<'o> {
    batch: &'o Batch,
    port: &'o mut PortRows,
    headers_seen: bool,
    misuse: &'o mut Option<String>,
}

impl Emit<'_> {
    /// Sets the key.
    #[inline]
    pub fn key(self, key: impl AsRef<[u8]>) -> Self {
        let PortRows { origins, keys, .. } = &mut *self.port;
        json::append(keys.begin(origins, &self.batch.keys), key.as_ref());
        keys.column.close();
        self
    }

    /// Sets the key to null.
    pub fn null_key(self) -> Self {
        let PortRows { origins, keys, .. } = &mut *self.port;
        keys.begin(origins, &self.batch.keys);
        keys.column.push(None);
        self
    }

    /// Sets the value.
    pub fn value(self, value: impl AsRef<[u8]>) -> Self {
        let PortRows {
            origins, values, ..
        } = &mut *self.port;
        values
            .begin(origins, &self.batch.values)
            .extend_from_slice(value.as_ref());
        values.column.close();
        self
    }

    /// Sets the value to null: to a map, that deletes the key.
    pub fn null_value(self) -> Self {
        let PortRows {
            origins, values, ..
        } = &mut *self.port;
        values.begin(origins, &self.batch.values);
        values.column.push(None);
        self
    }

    /// Sets the value to `value` as JSON, with a struct's fields in their order.
    #[inline]
    pub fn json<T: Serialize + ?Sized>(self, value: &T) -> Result<Self> {
        self.value_with(|bytes| json::write(value, bytes))
    }

    /// Sets the value to what `write` appends to the bytes it is given. These hold other values
    /// before: it must only append.
    #[inline]
    pub fn value_with(self, write: impl FnOnce(&mut Vec<u8>) -> Result<()>) -> Result<Self> {
        let PortRows {
            origins, values, ..
        } = &mut *self.port;
        let bytes = values.begin(origins, &self.batch.values);
        let start = bytes.len();
        if let Err(error) = write(bytes) {
            bytes.truncate(start);
            return Err(error);
        }
        values.column.close();
        Ok(self)
    }

    /// Sets the timestamp, in milliseconds since 1970-01-01 UTC.
    pub fn timestamp(self, timestamp: i64) -> Self {
        let PortRows {
            origins,
            timestamps,
            ..
        } = &mut *self.port;
        timestamps.set(origins, &self.batch.timestamps, timestamp);
        self
    }

    /// Adds a header behind those that are there. The plugin's needs must ask for headers.
    pub fn header(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        if let Some((headers, row)) = self.headers() {
            headers.push(row, name, Some(value.as_ref()));
        }
        self
    }

    /// Adds a header without a value. The plugin's needs must ask for headers.
    pub fn null_header(mut self, name: &str) -> Self {
        if let Some((headers, row)) = self.headers() {
            headers.push(row, name, None);
        }
        self
    }

    /// Removes all headers. The plugin's needs must ask for headers.
    pub fn clear_headers(mut self) -> Self {
        if let Some((headers, row)) = self.headers() {
            truncate_headers(headers, row);
        }
        self
    }

    /// The headers, filled up to and including what this record inherits, and this record's row.
    fn headers(&mut self) -> Option<(&mut Headers, usize)> {
        if !self.headers_seen {
            let hint =
                "setting headers needs `Needs::headers()`: else other records would lose theirs";
            *self.misuse = Some(hint.to_owned());
            return None;
        }
        let PortRows {
            origins, headers, ..
        } = &mut *self.port;
        Some((
            headers.begin(origins, &self.batch.headers),
            origins.len() - 1,
        ))
    }
}

/// The output records of one port, so far.
#[derive(Debug)]
struct PortRows {
    name: String,
    origins: Vec<u32>,
    keys: Cells,
    values: Cells,
    timestamps: Timestamps,
    headers: HeaderRows,
}

impl PortRows {
    fn new(name: &str) -> Self {
        PortRows {
            name: name.to_owned(),
            origins: Vec::new(),
            keys: Cells {
                column: Column::with_capacity(0, 0),
                first_set: None,
            },
            values: Cells {
                column: Column::with_capacity(0, 0),
                first_set: None,
            },
            timestamps: Timestamps {
                cells: Vec::new(),
                first_set: None,
            },
            headers: HeaderRows {
                headers: Headers::none(),
                rows: 0,
                first_set: None,
            },
        }
    }

    /// Forgets what came from `origin`, the latest one.
    fn undo(&mut self, origin: u32) {
        while self.origins.last() == Some(&origin) {
            self.origins.pop();
        }
        let rows = self.origins.len();
        self.keys.truncate(rows);
        self.values.truncate(rows);
        self.timestamps.truncate(rows);
        self.headers.truncate(rows);
    }

    fn finish(self, batch: &Batch) -> Output {
        let origins = self.origins;
        Output {
            keys: self.keys.finish(&origins, &batch.keys),
            values: self.values.finish(&origins, &batch.values),
            timestamps: self.timestamps.finish(&origins, &batch.timestamps),
            headers: self.headers.finish(&origins, &batch.headers),
            port: self.name,
            origins,
        }
    }
}

/// Keys or values. Rows may lag behind the port's: those that no record set are filled in with
/// what they inherit when a later row is set, or at the end.
#[derive(Debug)]
struct Cells {
    column: Column,
    /// The first row that was set; none where all is inherited, and then `column` is empty.
    first_set: Option<usize>,
}

impl Cells {
    /// Readies the latest row: what is appended to the bytes is its value once it is closed.
    #[inline(always)]
    fn begin(&mut self, origins: &[u32], inherited: &Column) -> &mut Vec<u8> {
        if self.first_set.is_none() || self.column.len() + 1 != origins.len() {
            self.align(origins, inherited);
        }
        &mut self.column.bytes
    }

    /// Makes the latest row the next one to be written, whatever was set before.
    #[cold]
    fn align(&mut self, origins: &[u32], inherited: &Column) {
        let row = origins.len() - 1;
        if self.first_set.is_none() {
            self.first_set = Some(row);
            self.column.ends.reserve(inherited.len());
            // What JSON gains by a longer field is mostly lost by the records dropped.
            self.column
                .bytes
                .reserve(inherited.bytes.len() + inherited.bytes.len() / 8);
        }
        self.column.truncate(row);
        self.fill(&origins[..row], inherited);
    }

    fn fill(&mut self, origins: &[u32], inherited: &Column) {
        for &origin in &origins[self.column.len()..] {
            self.column.push(inherited.get(origin as usize));
        }
    }

    fn truncate(&mut self, rows: usize) {
        let unset = self.first_set.is_some_and(|first| first >= rows);
        if unset {
            self.first_set = None;
        }
        self.column.truncate(if unset { 0 } else { rows });
    }

    fn finish(mut self, origins: &[u32], inherited: &Column) -> Option<Column> {
        self.first_set?;
        self.fill(origins, inherited);
        Some(self.column)
    }
}

/// As `Cells`, for timestamps.
#[derive(Debug)]
struct Timestamps {
    cells: Vec<i64>,
    first_set: Option<usize>,
}

impl Timestamps {
    fn set(&mut self, origins: &[u32], inherited: &[i64], timestamp: i64) {
        let row = origins.len() - 1;
        self.first_set.get_or_insert(row);
        self.cells.truncate(row);
        self.fill(&origins[..row], inherited);
        self.cells.push(timestamp);
    }

    fn fill(&mut self, origins: &[u32], inherited: &[i64]) {
        let missing = &origins[self.cells.len()..];
        self.cells
            .extend(missing.iter().map(|&origin| inherited[origin as usize]));
    }

    fn truncate(&mut self, rows: usize) {
        let unset = self.first_set.is_some_and(|first| first >= rows);
        if unset {
            self.first_set = None;
        }
        self.cells.truncate(if unset { 0 } else { rows });
    }

    fn finish(mut self, origins: &[u32], inherited: &[i64]) -> Option<Vec<i64>> {
        self.first_set?;
        self.fill(origins, inherited);
        Some(self.cells)
    }
}

/// As `Cells`, for headers.
#[derive(Debug)]
struct HeaderRows {
    headers: Headers,
    /// Output records whose headers, be they none, stand in `headers`.
    rows: usize,
    first_set: Option<usize>,
}

impl HeaderRows {
    /// Fills in all rows, the latest one with what it inherits unless it was begun before.
    fn begin(&mut self, origins: &[u32], inherited: &Headers) -> &mut Headers {
        self.first_set.get_or_insert(origins.len() - 1);
        self.fill(origins, inherited);
        &mut self.headers
    }

    fn fill(&mut self, origins: &[u32], inherited: &Headers) {
        for (row, &origin) in origins.iter().enumerate().skip(self.rows) {
            for index in inherited.range(origin as usize) {
                let (name, value) = inherited.get(index);
                self.headers.push(row, name, value);
            }
        }
        self.rows = origins.len();
    }

    fn truncate(&mut self, rows: usize) {
        let unset = self.first_set.is_some_and(|first| first >= rows);
        if unset {
            self.first_set = None;
        }
        self.rows = self.rows.min(if unset { 0 } else { rows });
        truncate_headers(&mut self.headers, self.rows);
    }

    fn finish(mut self, origins: &[u32], inherited: &Headers) -> Option<Headers> {
        self.first_set?;
        self.fill(origins, inherited);
        Some(self.headers)
    }
}

/// Removes the headers of the records from `row` on.
fn truncate_headers(headers: &mut Headers, row: usize) {
    let kept = headers.range(row).start;
    headers.owners.truncate(kept);
    headers.names.truncate(kept);
    headers.values.truncate(kept);
}

/// An error and what caused it, in one line.
pub(crate) fn reason(error: &(dyn std::error::Error + 'static)) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |reason, cause| {
        format!("{reason}: {cause}")
    })
}
