//! Tables that a step may read, key by key for whoever writes a plugin, and many keys at a time
//! underneath: a key that isn't known yet is noted, and the record waits; one call into the host
//! then fetches all keys that were noted, and the records that wait are processed again.
//!
//! Invariant: what was fetched for a batch is forgotten with it. A value is never older than the
//! batch.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::fmt;
use std::ops::Deref;
use std::rc::Rc;

use serde::Deserialize;

use crate::batch::Column;
use crate::{Error, Result, json};

/// A table that the pipeline file grants the step: a map of the pipeline, or a topic held as one.
/// [`lookup`] and [`lookup_if_granted`] make it.
#[derive(Clone)]
pub struct Lookup(Rc<Table>);

struct Table {
    name: String,
    /// Opened when first asked: before, the needs aren't held against the pipeline file yet.
    handle: RefCell<Option<host::Handle>>,
    known: RefCell<HashMap<Vec<u8>, Known>>,
    /// The keys that are wanted, each once.
    wanted: RefCell<Column>,
}

/// What is known of a key.
#[derive(Clone)]
enum Known {
    Wanted,
    Absent,
    Found(Found),
}

/// Asks for a table, by the name under which the pipeline file grants it (`lookups = […]` of the
/// step). Called while the plugin is configured ([`Transform::new`](crate::Transform::new)), it
/// joins the plugin's needs: the host then refuses to start unless the file grants it. Called again
/// it costs next to nothing, so that functions can call it for each record; their needs are named
/// in [`plugin!`](crate::plugin).
pub fn lookup(name: &str) -> Lookup {
    STEP.with(|step| {
        let mut tables = step.tables.borrow_mut();
        let known = tables.iter().position(|table| table.name == name);
        let known = known.unwrap_or_else(|| {
            tables.push(Rc::new(Table::new(name)));
            tables.len() - 1
        });
        let mut asked = step.asked.borrow_mut();
        if !asked.iter().any(|other| other == name) {
            asked.push(name.to_owned());
        }
        Lookup(Rc::clone(&tables[known]))
    })
}

/// As [`lookup`], but `None` where the pipeline file doesn't grant it: for plugins that can do
/// without.
pub fn lookup_if_granted(name: &str) -> Option<Lookup> {
    host::open(name).ok().map(|handle| {
        let lookup = lookup(name);
        *lookup.0.handle.borrow_mut() = Some(handle);
        lookup
    })
}

impl Lookup {
    /// The value of a key, `None` where the table has none.
    ///
    /// In a [`Transform`](crate::Transform) the keys of a whole batch are fetched at once: the first
    /// time a key is asked for this fails, and when the key is known the record is processed again
    /// from the start. Pass the error on, with `?`; whatever is made of it, what the record emitted
    /// is undone. Elsewhere it is one call into the host.
    ///
    /// # Errors
    ///
    /// That the key isn't known yet; or that the pipeline file doesn't grant the table.
    pub fn get(&self, key: impl AsRef<[u8]>) -> Result<Option<Found>> {
        let key = key.as_ref();
        let table = &*self.0;
        if let Some(known) = table.known.borrow().get(key) {
            return known.answer();
        }
        if STEP.with(|step| step.collects.get()) {
            table.want(key);
            return Err(pending());
        }
        let mut keys = Column::with_capacity(1, key.len());
        keys.push(Some(key));
        let values = Rc::new(table.fetch(&keys)?);
        Ok(Found::of(&values, 0))
    }

    /// The value of each key in one call into the host, null where the table has none: for plugins
    /// that take batches.
    ///
    /// # Errors
    ///
    /// That the pipeline file doesn't grant the table.
    pub fn get_many(&self, keys: &Column) -> Result<Column> {
        self.0.fetch(keys)
    }
}

impl fmt::Debug for Lookup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Lookup").field(&self.0.name).finish()
    }
}

impl Table {
    fn new(name: &str) -> Self {
        Table {
            name: name.to_owned(),
            handle: RefCell::new(None),
            known: RefCell::default(),
            wanted: RefCell::new(Column::with_capacity(0, 0)),
        }
    }

    #[cold]
    fn want(&self, key: &[u8]) {
        let mut known = self.known.borrow_mut();
        known.insert(key.to_vec(), Known::Wanted);
        self.wanted.borrow_mut().push(Some(key));
        STEP.with(|step| step.is_pending.set(true));
    }

    fn fetch(&self, keys: &Column) -> Result<Column> {
        let mut handle = self.handle.borrow_mut();
        let handle = match &mut *handle {
            Some(handle) => handle,
            none => none.insert(host::open(&self.name)?),
        };
        Ok(host::get(handle, keys))
    }

    /// Fetches the wanted keys.
    fn catch_up(&self) -> Result<()> {
        let keys = self.wanted.replace(Column::with_capacity(0, 0));
        if keys.is_empty() {
            return Ok(());
        }
        let values = Rc::new(self.fetch(&keys)?);
        let mut known = self.known.borrow_mut();
        for index in 0..keys.len() {
            let key = keys.get(index).unwrap_or_default();
            let found = Found::of(&values, index).map_or(Known::Absent, Known::Found);
            known.insert(key.to_vec(), found);
        }
        Ok(())
    }

    fn forget(&self) {
        self.known.borrow_mut().clear();
        *self.wanted.borrow_mut() = Column::with_capacity(0, 0);
    }
}

impl Known {
    fn answer(&self) -> Result<Option<Found>> {
        match self {
            Known::Wanted => {
                STEP.with(|step| step.is_pending.set(true));
                Err(pending())
            }
            Known::Absent => Ok(None),
            Known::Found(found) => Ok(Some(found.clone())),
        }
    }
}

/// A value that was found. Cheap to clone; it derefs to its bytes.
#[derive(Clone)]
pub struct Found {
    values: Rc<Column>,
    index: usize,
}

impl Found {
    fn of(values: &Rc<Column>, index: usize) -> Option<Self> {
        let values = Rc::clone(values);
        (!values.is_null(index)).then_some(Found { values, index })
    }

    /// The value as a string. Fails if it is not UTF-8.
    pub fn text(&self) -> Result<&str> {
        std::str::from_utf8(self).map_err(|_| Error::from("the value looked up isn't UTF-8"))
    }

    /// The value read as JSON. Fails, saying why, if it isn't a `T`.
    pub fn json<'a, T: Deserialize<'a>>(&'a self) -> Result<T> {
        let text = self.text()?;
        json::from_part(text, 0, text.len())
    }
}

impl Deref for Found {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.values.bytes[self.values.range(self.index)]
    }
}

impl AsRef<[u8]> for Found {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl fmt::Debug for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = String::from_utf8_lossy(self);
        f.debug_tuple("Found").field(&text).finish()
    }
}

fn pending() -> Error {
    "the key isn't known yet: pass this error on, and the record is processed again".into()
}

/// What the one plugin of a component's instance has to do with tables.
struct Step {
    tables: RefCell<Vec<Rc<Table>>>,
    /// Asked for since somebody looked last.
    asked: RefCell<Vec<String>>,
    /// Whether keys that aren't known are collected, or fetched at once.
    collects: Cell<bool>,
    /// Whether the record being processed asked for such a key.
    is_pending: Cell<bool>,
}

thread_local! {
    static STEP: Step = const {
        Step {
            tables: RefCell::new(Vec::new()),
            asked: RefCell::new(Vec::new()),
            collects: Cell::new(false),
            is_pending: Cell::new(false),
        }
    };
}

/// The names asked for since the last call, each once.
pub(crate) fn take_asked() -> Vec<String> {
    STEP.with(|step| step.asked.take())
}

/// Whether the plugin uses tables at all, as far as is known by now.
pub(crate) fn any() -> bool {
    STEP.with(|step| !step.tables.borrow().is_empty())
}

/// From here on keys that aren't known are collected, until this is dropped; what was fetched is
/// forgotten then.
pub(crate) struct Collecting;

impl Collecting {
    pub fn begin() -> Self {
        STEP.with(|step| step.collects.set(true));
        Collecting
    }

    /// Whether the record that was just processed has to wait.
    pub fn take_pending(&self) -> bool {
        STEP.with(|step| step.is_pending.take())
    }

    /// Fetches all keys that were asked for in vain: one call into the host for each table.
    pub fn fetch(&self) -> Result<()> {
        let tables = STEP.with(|step| step.tables.borrow().clone());
        tables.iter().try_for_each(|table| table.catch_up())
    }
}

impl Drop for Collecting {
    fn drop(&mut self) {
        STEP.with(|step| {
            step.collects.set(false);
            step.is_pending.set(false);
            step.tables.borrow().iter().for_each(|table| table.forget());
        });
    }
}

#[cfg(target_family = "wasm")]
mod host {
    use crate::Result;
    use crate::batch::Column;
    use crate::bindings::millstream::plugin::lookups;

    pub use lookups::Lookup as Handle;

    pub fn open(name: &str) -> Result<Handle> {
        lookups::open(name).map_err(crate::Error::from)
    }

    pub fn get(handle: &Handle, keys: &Column) -> Column {
        handle.get(keys)
    }
}

/// Outside WASM tables are those of the harness.
#[cfg(not(target_family = "wasm"))]
mod host {
    pub use crate::testing::tables::{Handle, get, open};
}
