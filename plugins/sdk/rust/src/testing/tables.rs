//! Tables for a plugin under test: what the pipeline file would grant it, and what they hold.

use std::cell::RefCell;
use std::collections::BTreeMap;

use crate::Result;
use crate::batch::Column;

/// A table that a plugin may look up.
#[derive(Clone, Debug)]
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
    FETCHES.with_borrow_mut(|fetches| fetches.push(keys.len()));
    GRANTED.with_borrow(|tables| {
        let table = tables.iter().find(|table| table.name == handle.0);
        let mut values = Column::with_capacity(keys.len(), 0);
        for key in keys.iter() {
            let value = key.and_then(|key| table?.entries.get(key));
            values.push(value.map(Vec::as_slice));
        }
        values
    })
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
