//! Tables for a plugin under test: what the pipeline file would grant it, and what they hold. State is shown as tables too.

use std::cell::RefCell;
use std::collections::BTreeMap;

use crate::Result;
use crate::batch::Column;

/// A table that a plugin may look up, or the contents of its state.
#[derive(Clone, Debug, PartialEq)]
pub struct Table {
    name: String,
    entries: BTreeMap<Vec<u8>, Vec<u8>>,
}

impl Table {
    /// An empty one, under the name by which the plugin opens it.
    pub fn new(name: &str) -> Self {
        Table {
            name: name.to_owned(),
            entries: BTreeMap::new(),
        }
    }

    /// The same with an entry more.
    pub fn with(mut self, key: impl Into<Vec<u8>>, value: impl Into<Vec<u8>>) -> Self {
        self.entries.insert(key.into(), value.into());
        self
    }

    /// The value of a key.
    pub fn get(&self, key: impl AsRef<[u8]>) -> Option<&[u8]> {
        self.entries.get(key.as_ref()).map(Vec::as_slice)
    }

    /// Keys and values as texts, in the order of the keys.
    ///
    /// # Panics
    /// If one of them is not UTF-8.
    pub fn texts(&self) -> Vec<(&str, &str)> {
        let text = |bytes| std::str::from_utf8(bytes).expect("it is UTF-8");
        let entries = self.entries.iter();
        entries
            .map(|(key, value)| (text(key), text(value)))
            .collect()
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Sets or removes an entry.
    pub(super) fn change(&mut self, key: &[u8], value: Option<&[u8]>) {
        match value {
            Some(value) => self.entries.insert(key.to_owned(), value.to_owned()),
            None => self.entries.remove(key),
        };
    }

    /// As the host answers.
    pub(super) fn values(&self, keys: &Column) -> Column {
        let mut values = Column::with_capacity(keys.len(), 0);
        for key in keys.iter() {
            values.push(key.and_then(|key| self.get(key)));
        }
        values
    }
}

thread_local! {
    /// Of the harness whose plugin is being called.
    static GRANTED: RefCell<Vec<Table>> = const { RefCell::new(Vec::new()) };
    /// How many keys each call asked for.
    static FETCHES: RefCell<Vec<usize>> = const { RefCell::new(Vec::new()) };
}

/// An open table, by name.
pub struct Handle(String);

pub fn open(name: &str) -> Result<Handle> {
    if is_granted(name) {
        Ok(Handle(name.to_owned()))
    } else {
        Err(format!("the pipeline file grants step \"step\" no table \"{name}\"").into())
    }
}

pub fn get(handle: &Handle, keys: &Column) -> Column {
    note_fetch(keys);
    GRANTED.with_borrow(|tables| {
        let table = tables.iter().find(|table| table.name == handle.0);
        table
            .unwrap_or(&Table::new("withdrawn since it was opened"))
            .values(keys)
    })
}

/// A call for keys, of a table or of state.
pub(super) fn note_fetch(keys: &Column) {
    FETCHES.with_borrow_mut(|fetches| fetches.push(keys.len()));
}

pub fn is_granted(name: &str) -> bool {
    GRANTED.with_borrow(|tables| tables.iter().any(|table| table.name == name))
}

/// From here on these are granted, and no others.
pub fn grant(tables: &[Table]) {
    GRANTED.set(tables.to_vec());
}

pub fn take_fetches() -> Vec<usize> {
    FETCHES.take()
}
