//! The contract as it is: whole batches in columns, for plugins that want the last bit of control.
//! The per-record API stands on this one and needs nothing that isn't here.

pub use crate::bindings::exports::millstream::plugin::transform::{Description, Needs};
pub use crate::bindings::millstream::plugin::records::{
    Batch, Column, Failure, Headers, Outcome, Output,
};

use crate::Result;

/// A plugin that takes batches. [`plugin!`](crate::plugin) exports it as `plugin!(batch: Type)`.
///
/// An instance may be thrown away between any two calls: what has to last belongs into state.
pub trait BatchTransform: Sized + 'static {
    /// JSON Schema of the configuration.
    const CONFIG_SCHEMA: Option<&'static str> = None;

    /// `config` is the step's `config` table as a JSON object; [`config::parse`](crate::config::parse)
    /// reads it. An error is shown to the user as it stands.
    fn configure(config: &str) -> Result<(Self, Needs)>;

    /// An error concerns the batch as a whole. What concerns a record goes into the failures.
    fn process(&mut self, batch: Batch) -> Result<Outcome>;
}

impl Needs {
    /// No ports, no tables, no state, no headers.
    pub fn none() -> Self {
        Needs {
            ports: Vec::new(),
            lookups: Vec::new(),
            state: Vec::new(),
            headers: false,
        }
    }

    /// Adds an output port beside the default one: `[a-z][a-z0-9_-]*`.
    pub fn port(mut self, name: &str) -> Self {
        self.ports.push(name.to_owned());
        self
    }

    /// Asks for a table, as [`lookup`](crate::lookup()) does by itself where it is called while the
    /// plugin is configured.
    pub fn lookup(mut self, name: &str) -> Self {
        self.lookups.push(name.to_owned());
        self
    }

    /// Asks for state, as [`state`](crate::state()) does by itself where it is called while the plugin is configured.
    pub fn state(mut self, name: &str) -> Self {
        self.state.push(name.to_owned());
        self
    }

    /// Asks for the records' headers. Who sets headers needs it too, since a record whose headers
    /// weren't seen couldn't keep them beside one whose headers were set.
    pub fn headers(mut self) -> Self {
        self.headers = true;
        self
    }
}

impl Column {
    /// No strings, with room for so many and their bytes.
    pub fn with_capacity(strings: usize, bytes: usize) -> Self {
        Column {
            bytes: Vec::with_capacity(bytes),
            ends: Vec::with_capacity(strings),
            nulls: Vec::new(),
        }
    }

    /// Number of strings.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there are no strings.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Where string `index` lies in `bytes`; an empty range for a null.
    ///
    /// # Panics
    /// If there is no such string.
    #[inline(always)]
    pub fn range(&self, index: usize) -> std::ops::Range<usize> {
        let start = if index == 0 {
            0
        } else {
            self.ends[index - 1] as usize
        };
        start..self.ends[index] as usize
    }

    /// Whether string `index` is null.
    #[inline(always)]
    pub fn is_null(&self, index: usize) -> bool {
        !self.nulls.is_empty() && self.nulls.binary_search(&row(index)).is_ok()
    }

    /// String `index`, or `None` if it is null.
    ///
    /// # Panics
    /// If there is no such string.
    pub fn get(&self, index: usize) -> Option<&[u8]> {
        if self.is_null(index) {
            None
        } else {
            Some(&self.bytes[self.range(index)])
        }
    }

    /// The strings in order.
    pub fn iter(&self) -> impl Iterator<Item = Option<&[u8]>> {
        (0..self.len()).map(|index| self.get(index))
    }

    /// Adds a string, or a null.
    pub fn push(&mut self, string: Option<&[u8]>) {
        match string {
            Some(string) => self.bytes.extend_from_slice(string),
            None => self.nulls.push(row(self.len())),
        }
        self.close();
    }

    /// Ends the string whose bytes have just been appended.
    #[inline(always)]
    pub(crate) fn close(&mut self) {
        self.ends.push(row(self.bytes.len()));
    }

    /// Keeps the first `length` strings; a no-op if there are no more.
    pub(crate) fn truncate(&mut self, length: usize) {
        if length >= self.len() {
            return;
        }
        self.bytes.truncate(if length == 0 {
            0
        } else {
            self.ends[length - 1] as usize
        });
        self.ends.truncate(length);
        while self
            .nulls
            .last()
            .is_some_and(|&null| null as usize >= length)
        {
            self.nulls.pop();
        }
    }
}

impl Headers {
    /// No headers.
    pub fn none() -> Self {
        Headers {
            owners: Vec::new(),
            names: Column::with_capacity(0, 0),
            values: Column::with_capacity(0, 0),
        }
    }

    /// Which headers belong to the record at `owner`.
    pub fn range(&self, owner: usize) -> std::ops::Range<usize> {
        let start = self
            .owners
            .partition_point(|&other| (other as usize) < owner);
        let end = self
            .owners
            .partition_point(|&other| other as usize <= owner);
        start..end
    }

    /// Name and value of header `index`.
    pub fn get(&self, index: usize) -> (&str, Option<&[u8]>) {
        let name = self.names.get(index).unwrap_or_default();
        (
            std::str::from_utf8(name).unwrap_or_default(),
            self.values.get(index),
        )
    }

    /// Adds a header. Owners must not decrease.
    pub fn push(&mut self, owner: usize, name: &str, value: Option<&[u8]>) {
        self.owners.push(row(owner));
        self.names.push(Some(name.as_bytes()));
        self.values.push(value);
    }
}

/// An index or length as the contract carries it.
#[inline(always)]
pub(crate) fn row(index: usize) -> u32 {
    u32::try_from(index).expect("a guest's memory, and so any batch in it, is below 4 GiB")
}
