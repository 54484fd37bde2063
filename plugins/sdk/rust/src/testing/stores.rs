//! State for a plugin under test: every one that its needs name, with what earlier batches have put. As on the host, what a
//! batch puts stays only if the batch as a whole succeeds.

use std::cell::RefCell;

use super::check_column;
use super::tables::{Table, note_fetch};
use crate::Result;
use crate::batch::Column;

/// What one call put into state.
#[derive(Clone, Debug, PartialEq)]
pub struct Put {
    /// The state's name.
    pub state: String,
    /// Keys and values in the order given; `None` removes.
    pub entries: Vec<(Vec<u8>, Option<Vec<u8>>)>,
}

thread_local! {
    /// Of the harness whose plugin is being called; none in between.
    static STATE: RefCell<Option<Vec<Table>>> = const { RefCell::new(None) };
    static PUTS: RefCell<Vec<Put>> = const { RefCell::new(Vec::new()) };
}

/// Open state, by name.
pub struct Handle(String);

pub fn open(name: &str) -> Result<Handle> {
    let is_given = |tables: &Vec<Table>| tables.iter().any(|table| table.name() == name);
    // Outside `process` it isn't known yet what the plugin needs.
    if STATE.with_borrow(|state| state.as_ref().is_none_or(is_given)) {
        Ok(Handle(name.to_owned()))
    } else {
        Err(format!("the pipeline file gives step \"step\" no state \"{name}\"").into())
    }
}

pub fn get(handle: &Handle, keys: &Column) -> Column {
    check_column(keys, keys.len());
    note_fetch(keys);
    with(handle, |table| table.values(keys))
}

pub fn put(handle: &Handle, keys: &Column, values: &Column) {
    check_column(keys, keys.len());
    check_column(values, keys.len());
    assert!(keys.nulls.is_empty(), "a key put into state is null");
    let mut entries = Vec::new();
    with(handle, |table| {
        for (key, value) in keys.iter().zip(values.iter()) {
            let key = key.unwrap_or_default();
            table.change(key, value);
            entries.push((key.to_owned(), value.map(<[u8]>::to_vec)));
        }
    });
    let state = handle.0.clone();
    PUTS.with_borrow_mut(|puts| puts.push(Put { state, entries }));
}

fn with<T>(handle: &Handle, call: impl FnOnce(&mut Table) -> T) -> T {
    STATE.with_borrow_mut(|state| {
        let mut tables = state.iter_mut().flatten();
        let table = tables.find(|table| table.name() == handle.0);
        call(table.expect("state is read and put only while `process` runs"))
    })
}

/// From here on the plugin has this state, until `end`.
pub fn begin(state: &[Table]) {
    STATE.set(Some(state.to_vec()));
    PUTS.take();
}

/// What state has become, and how.
pub fn end() -> (Vec<Table>, Vec<Put>) {
    (STATE.take().unwrap_or_default(), PUTS.take())
}
