//! What the one plugin of a component's instance has to do with tables and state, and what a call of `process` knows of them.
//!
//! Invariant: what a call fetched, and what it put and didn't write, is forgotten when it ends, however it ends.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use crate::lookup::Table;
use crate::state::Store;
use crate::{Error, Result};

/// How keys get their values while the plugin runs.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Mode {
    /// Each is asked of the host at once, and nothing is kept: the plugin takes batches, or is being configured.
    Direct,
    /// The same, for a plugin that takes records and had neither tables nor state when the batch began.
    Plain,
    /// A record that asks for a key which isn't known waits, until those that all records want are fetched at once.
    Collecting,
    /// Each is asked of the host at once, and kept for the rest of the call.
    AtOnce,
}

struct Step {
    tables: RefCell<Vec<Rc<Table>>>,
    stores: RefCell<Vec<Rc<Store>>>,
    /// Tables and state asked for since somebody looked last.
    asked: RefCell<Asked>,
    mode: Cell<Mode>,
    /// Whether the record being processed asked for a key that isn't known.
    is_pending: Cell<bool>,
}

/// Names, each once.
#[derive(Default)]
pub(crate) struct Asked {
    pub lookups: Vec<String>,
    pub state: Vec<String>,
}

thread_local! {
    static STEP: Step = const {
        Step {
            tables: RefCell::new(Vec::new()),
            stores: RefCell::new(Vec::new()),
            asked: RefCell::new(Asked { lookups: Vec::new(), state: Vec::new() }),
            mode: Cell::new(Mode::Direct),
            is_pending: Cell::new(false),
        }
    };
}

/// The table of that name: one for all who ask.
pub(crate) fn table(name: &str) -> Rc<Table> {
    STEP.with(|step| {
        note(&mut step.asked.borrow_mut().lookups, name);
        let mut tables = step.tables.borrow_mut();
        find_or_add(
            &mut tables,
            |table| table.name() == name,
            || Table::new(name),
        )
    })
}

/// The state of that name: one for all who ask.
pub(crate) fn store(name: &str) -> Rc<Store> {
    STEP.with(|step| {
        note(&mut step.asked.borrow_mut().state, name);
        let mut stores = step.stores.borrow_mut();
        let store = find_or_add(
            &mut stores,
            |store| store.name() == name,
            || Store::new(name),
        );
        if step.mode.get() == Mode::Direct {
            store.in_time();
        }
        store
    })
}

fn note(names: &mut Vec<String>, name: &str) {
    if !names.iter().any(|other| other == name) {
        names.push(name.to_owned());
    }
}

fn find_or_add<T>(
    all: &mut Vec<Rc<T>>,
    is_it: impl Fn(&T) -> bool,
    make: impl FnOnce() -> T,
) -> Rc<T> {
    let found = all.iter().position(|one| is_it(one));
    let found = found.unwrap_or_else(|| {
        all.push(Rc::new(make()));
        all.len() - 1
    });
    Rc::clone(&all[found])
}

/// What was asked for since the last call of this.
pub(crate) fn take_asked() -> Asked {
    STEP.with(|step| step.asked.take())
}

/// Whether the plugin looks up tables at all, as far as is known by now.
pub(crate) fn has_tables() -> bool {
    STEP.with(|step| !step.tables.borrow().is_empty())
}

/// Whether the plugin has state.
pub(crate) fn has_state() -> bool {
    STEP.with(|step| !step.stores.borrow().is_empty())
}

pub(crate) fn mode() -> Mode {
    STEP.with(|step| step.mode.get())
}

/// The record being processed has to wait; the error is for the plugin to pass on.
#[cold]
pub(crate) fn wait() -> Error {
    STEP.with(|step| step.is_pending.set(true));
    "the key isn't known yet: pass this error on, and the record is processed again".into()
}

/// A call of `process`, of a plugin that takes records. What was fetched for it is forgotten when this is dropped.
pub(crate) struct Call;

impl Call {
    pub fn begin(mode: Mode) -> Self {
        STEP.with(|step| step.mode.set(mode));
        Call
    }

    /// From here on no record has to wait.
    pub fn fetch_at_once(&self) {
        STEP.with(|step| step.mode.set(Mode::AtOnce));
    }

    /// Whether the record that was just processed has to wait.
    pub fn take_pending(&self) -> bool {
        STEP.with(|step| step.is_pending.take())
    }

    /// Fetches all keys that were asked for in vain: one call into the host for each table and state.
    pub fn fetch(&self) -> Result<()> {
        let (tables, stores) =
            STEP.with(|step| (step.tables.borrow().clone(), step.stores.borrow().clone()));
        tables.iter().try_for_each(|table| table.catch_up())?;
        stores.iter().try_for_each(|store| store.catch_up())
    }

    /// What was put since the last record ended stays.
    pub fn keep_puts(&self) {
        STEP.with(|step| step.stores.borrow().iter().for_each(|store| store.keep()));
    }

    /// What was put since the last record ended is undone.
    pub fn undo_puts(&self) {
        STEP.with(|step| step.stores.borrow().iter().for_each(|store| store.undo()));
    }

    /// Writes what was put: at most one call into the host for each state.
    pub fn write(&self) -> Result<()> {
        let stores = STEP.with(|step| step.stores.borrow().clone());
        stores.iter().try_for_each(|store| store.write())
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        STEP.with(|step| {
            step.mode.set(Mode::Direct);
            step.is_pending.set(false);
            step.tables.borrow().iter().for_each(|table| table.forget());
            step.stores.borrow().iter().for_each(|store| store.forget());
        });
    }
}
