//! Tables that a step may read, key by key for whoever writes a plugin, and many keys at a time
//! underneath: a key that isn't known yet is noted, and the record waits; one call into the host
//! then fetches all keys that were noted, and the records that wait are processed again.
//!
//! Invariant: what was fetched for a batch is forgotten with it. A value is never older than the
//! batch.

use std::cell::RefCell;
use std::collections::HashMap;
use std::fmt;
use std::rc::Rc;

use crate::Result;
use crate::batch::Column;
use crate::found::Found;
use crate::step::{self, Mode};

/// A table that the pipeline file grants the step: a map of the pipeline, or a topic held as one.
/// [`lookup`] and [`lookup_if_granted`] make it.
#[derive(Clone)]
pub struct Lookup(Rc<Table>);

pub(crate) struct Table {
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
    Lookup(step::table(name))
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
        match step::mode() {
            Mode::Collecting => {
                table.want(key);
                Err(step::wait())
            }
            Mode::AtOnce => {
                let found = table.fetch_one(key)?;
                let known = found.clone().map_or(Known::Absent, Known::Found);
                table.known.borrow_mut().insert(key.to_vec(), known);
                Ok(found)
            }
            Mode::Direct | Mode::Plain => table.fetch_one(key),
        }
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
    pub fn new(name: &str) -> Self {
        Table {
            name: name.to_owned(),
            handle: RefCell::new(None),
            known: RefCell::default(),
            wanted: RefCell::new(Column::with_capacity(0, 0)),
        }
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    #[cold]
    fn want(&self, key: &[u8]) {
        let mut known = self.known.borrow_mut();
        known.insert(key.to_vec(), Known::Wanted);
        self.wanted.borrow_mut().push(Some(key));
    }

    fn fetch(&self, keys: &Column) -> Result<Column> {
        let mut handle = self.handle.borrow_mut();
        let handle = match &mut *handle {
            Some(handle) => handle,
            none => none.insert(host::open(&self.name)?),
        };
        Ok(host::get(handle, keys))
    }

    fn fetch_one(&self, key: &[u8]) -> Result<Option<Found>> {
        let mut keys = Column::with_capacity(1, key.len());
        keys.push(Some(key));
        let values = Rc::new(self.fetch(&keys)?);
        Ok(Found::of(&values, 0))
    }

    /// Fetches the wanted keys.
    pub fn catch_up(&self) -> Result<()> {
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

    pub fn forget(&self) {
        self.known.borrow_mut().clear();
        *self.wanted.borrow_mut() = Column::with_capacity(0, 0);
    }
}

impl Known {
    fn answer(&self) -> Result<Option<Found>> {
        match self {
            Known::Wanted => Err(step::wait()),
            Known::Absent => Ok(None),
            Known::Found(found) => Ok(Some(found.clone())),
        }
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
