//! A step's own state, key by key for whoever writes a plugin. Underneath, the keys that the records of a batch want are fetched
//! with one call into the host, and those that they changed are written with one call when all are done.
//!
//! Invariants: records act on state in their order; one that failed, or that is processed again, leaves nothing behind; nothing
//! that was fetched or put outlives the batch.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::fmt;
use std::rc::Rc;

use serde::Serialize;

use crate::batch::Column;
use crate::found::Found;
use crate::step::{self, Mode};
use crate::{Result, json};

/// Keyed values that are a step's own: durable, and changed exactly once for each record. [`state`] makes it.
///
/// A count for each key, emitted with every record:
///
/// ```
/// use millstream_plugin::{NoConfig, Outputs, Record, Result, State, Transform, plugin, state};
///
/// struct Count {
///     totals: State,
/// }
///
/// impl Transform for Count {
///     type Config = NoConfig;
///
///     fn new(_: NoConfig) -> Result<Self> {
///         Ok(Count { totals: state("totals") })
///     }
///
///     fn process(&mut self, record: Record<'_>, out: &mut Outputs<'_>) -> Result<()> {
///         let key = record.key().ok_or("there is no key to count by")?;
///         let before: u64 = match self.totals.get(key)? {
///             Some(found) => found.json()?,
///             None => 0,
///         };
///         self.totals.put_json(key, &(before + 1))?;
///         out.emit().json(&(before + 1))?;
///         Ok(())
///     }
/// }
///
/// plugin!(Count);
/// # fn main() {
/// # use millstream_plugin::testing::{Harness, Input, Table};
/// let mut count = Harness::new::<Count>(serde_json::json!({})).unwrap();
/// count.set_state(Table::new("totals").with("a", "5"));
/// let processed = count.process(&[Input::new("a", ""), Input::new("b", ""), Input::new("a", "")]);
/// assert_eq!(processed.texts(), ["6", "1", "7"]);
/// assert_eq!(count.state("totals").texts(), [("a", "7"), ("b", "1")]);
/// # }
/// ```
#[derive(Clone)]
pub struct State(Rc<Store>);

/// Asks for state, by the name under which the pipeline file gives it to the step (`state = […]`). To be called while the plugin
/// is configured ([`Transform::new`](crate::Transform::new)): it joins the plugin's needs, and the host refuses to start unless
/// the file gives it. Functions name theirs in [`plugin!`](crate::plugin), and call this for each record: the second time costs
/// next to nothing.
pub fn state(name: &str) -> State {
    State(step::store(name))
}

impl State {
    /// The value of a key, `None` where there is none. It sees what this record and those before it have put.
    ///
    /// In a [`Transform`](crate::Transform) the keys of a whole batch are fetched at once, as with
    /// [`Lookup::get`](crate::Lookup::get): the first time a key is asked for this fails, and the record is processed again
    /// when the key is known. Pass the error on, with `?`; whatever is made of it, what the record emitted and put is undone.
    /// Elsewhere it is one call into the host.
    ///
    /// # Errors
    ///
    /// That the key isn't known yet; that the pipeline file doesn't give this state to the step; or that it was not asked for
    /// while the plugin was configured.
    pub fn get(&self, key: impl AsRef<[u8]>) -> Result<Option<Found>> {
        self.0.get(key.as_ref())
    }

    /// Sets the value of a key. It is written even if it is what the key had: to put says that the entry is alive.
    ///
    /// In a [`Transform`](crate::Transform) all keys that the records of a batch changed are written at the end, each once; a
    /// record that fails changes none. Elsewhere it is one call into the host. The host refuses a value that is too large for
    /// the state's topic: that costs the batch, which is then tried in parts, so that the record it belongs to fails alone.
    ///
    /// # Errors
    ///
    /// As for [`get`](Self::get), but for the key that isn't known: no key needs to be known to be changed.
    pub fn put(&self, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Result<()> {
        self.0.set(key.as_ref(), Some(value.as_ref()))
    }

    /// Sets the value of a key to `value` as JSON.
    ///
    /// # Errors
    ///
    /// As for [`put`](Self::put); or that the value can't be written as JSON.
    pub fn put_json<T: Serialize + ?Sized>(&self, key: impl AsRef<[u8]>, value: &T) -> Result<()> {
        let mut bytes = Vec::new();
        json::write(value, &mut bytes)?;
        self.put(key, bytes)
    }

    /// Removes a key. Where it is known that there is none, nothing is written.
    ///
    /// # Errors
    ///
    /// As for [`put`](Self::put).
    pub fn remove(&self, key: impl AsRef<[u8]>) -> Result<()> {
        self.0.set(key.as_ref(), None)
    }

    /// The value of each key, null where there is none or the key is null: for plugins that take batches, one call into the
    /// host.
    ///
    /// # Errors
    ///
    /// As for [`get`](Self::get).
    pub fn get_many(&self, keys: &Column) -> Result<Column> {
        self.0.get_many(keys)
    }

    /// Sets each key to the value beside it, or removes it where that is null: for plugins that take batches, one call into the
    /// host. Where a key repeats, its last value stays.
    ///
    /// # Errors
    ///
    /// As for [`put`](Self::put); or that a key is null, or has no value beside it. Nothing is changed then.
    pub fn put_many(&self, keys: &Column, values: &Column) -> Result<()> {
        if keys.len() != values.len() {
            return Err("there must be as many values as keys".into());
        }
        if !keys.nulls.is_empty() {
            return Err("a key of state can't be null".into());
        }
        self.0.set_many(keys, values)
    }
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("State").field(&self.0.name).finish()
    }
}

pub(crate) struct Store {
    name: String,
    /// First asked for while records were processed: those before went without their order, or without their puts undone.
    is_late: Cell<bool>,
    /// Opened when first used: before, the needs aren't held against the pipeline file yet.
    handle: RefCell<Option<host::Handle>>,
    cache: RefCell<Cache>,
}

/// What a call of `process` knows of the state.
#[derive(Default)]
struct Cache {
    /// In the order in which keys were first named; what is written keeps it.
    slots: Vec<Slot>,
    by_key: HashMap<Rc<[u8]>, usize>,
    /// Slots whose keys are to be fetched.
    wanted: Vec<usize>,
    /// Slots that the record being processed has changed, with what they were.
    journal: Vec<(usize, After)>,
}

struct Slot {
    key: Rc<[u8]>,
    before: Before,
    after: After,
}

/// What the key had when the call began.
enum Before {
    Unknown,
    Wanted,
    Absent,
    Found(Found),
}

/// What the call makes of it.
enum After {
    Untouched,
    Removed,
    Put(Found),
}

impl Store {
    /// Late, until it is said to be in time.
    pub fn new(name: &str) -> Self {
        Store {
            name: name.to_owned(),
            is_late: Cell::new(true),
            handle: RefCell::new(None),
            cache: RefCell::default(),
        }
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// It was asked for while no records were being processed.
    pub fn in_time(&self) {
        self.is_late.set(false);
    }

    /// How keys get their values now.
    fn mode(&self) -> Result<Mode> {
        if self.is_late.get() {
            return Err(format!(
                "state \"{0}\" must be asked for while the plugin is configured: call `state(\"{0}\")` in `Transform::new`, or name \
                 it in `plugin!(…; state: \"{0}\")`",
                self.name
            )
            .into());
        }
        Ok(step::mode())
    }

    fn get(&self, key: &[u8]) -> Result<Option<Found>> {
        let mode = self.mode()?;
        if mode == Mode::Direct {
            let values = Rc::new(self.fetch(&one(Some(key)))?);
            return Ok(Found::of(&values, 0));
        }
        let slot = {
            let mut cache = self.cache.borrow_mut();
            let slot = cache.slot(key);
            if let Some(answer) = cache.answer(slot) {
                return Ok(answer);
            }
            cache.want(slot);
            slot
        };
        self.settle(mode)?;
        Ok(self.cache.borrow().answer(slot).flatten())
    }

    fn get_many(&self, keys: &Column) -> Result<Column> {
        let mode = self.mode()?;
        if mode == Mode::Direct {
            return self.fetch(keys);
        }
        let slots: Vec<Option<usize>> = {
            let mut cache = self.cache.borrow_mut();
            keys.iter().map(|key| Some(cache.slot(key?))).collect()
        };
        if self.cache.borrow_mut().want_all(&slots) {
            self.settle(mode)?;
        }
        let cache = self.cache.borrow();
        let mut values = Column::with_capacity(keys.len(), 0);
        for slot in slots {
            let found = slot.and_then(|slot| cache.answer(slot).flatten());
            values.push(found.as_deref());
        }
        Ok(values)
    }

    /// Some key is wanted: to be fetched now, or with those of the records that follow.
    #[cold]
    fn settle(&self, mode: Mode) -> Result<()> {
        match mode {
            Mode::AtOnce => self.catch_up(),
            Mode::Direct | Mode::Plain | Mode::Collecting => Err(step::wait()),
        }
    }

    fn set(&self, key: &[u8], value: Option<&[u8]>) -> Result<()> {
        if self.mode()? == Mode::Direct {
            return self.put(&one(Some(key)), &one(value));
        }
        self.cache.borrow_mut().set(key, value);
        Ok(())
    }

    fn set_many(&self, keys: &Column, values: &Column) -> Result<()> {
        if self.mode()? == Mode::Direct {
            return self.put(keys, values);
        }
        let mut cache = self.cache.borrow_mut();
        for (key, value) in keys.iter().zip(values.iter()) {
            cache.set(key.unwrap_or_default(), value);
        }
        Ok(())
    }

    /// Fetches the wanted keys.
    pub fn catch_up(&self) -> Result<()> {
        let cache = &mut *self.cache.borrow_mut();
        if cache.wanted.is_empty() {
            return Ok(());
        }
        let mut keys = Column::with_capacity(cache.wanted.len(), 0);
        for &slot in &cache.wanted {
            keys.push(Some(&cache.slots[slot].key));
        }
        // Still wanted where this fails.
        let values = Rc::new(self.fetch(&keys)?);
        for (index, slot) in cache.wanted.drain(..).enumerate() {
            cache.slots[slot].before =
                Found::of(&values, index).map_or(Before::Absent, Before::Found);
        }
        Ok(())
    }

    /// What was put since the last call of this, or of `undo`, stays.
    pub fn keep(&self) {
        self.cache.borrow_mut().journal.clear();
    }

    /// The other way round.
    pub fn undo(&self) {
        let cache = &mut *self.cache.borrow_mut();
        for (slot, after) in cache.journal.drain(..).rev() {
            cache.slots[slot].after = after;
        }
    }

    /// Writes what was put.
    pub fn write(&self) -> Result<()> {
        let (keys, values) = self.cache.borrow().changes();
        self.put(&keys, &values)
    }

    pub fn forget(&self) {
        let cache = &mut *self.cache.borrow_mut();
        cache.slots.clear();
        cache.by_key.clear();
        cache.wanted.clear();
        cache.journal.clear();
    }

    fn fetch(&self, keys: &Column) -> Result<Column> {
        self.with_handle(|handle| host::get(handle, keys))
    }

    /// Nothing to put is no call.
    fn put(&self, keys: &Column, values: &Column) -> Result<()> {
        if keys.is_empty() {
            return Ok(());
        }
        self.with_handle(|handle| host::put(handle, keys, values))
    }

    fn with_handle<T>(&self, call: impl FnOnce(&host::Handle) -> T) -> Result<T> {
        let mut handle = self.handle.borrow_mut();
        let handle = match &mut *handle {
            Some(handle) => handle,
            none => none.insert(host::open(&self.name)?),
        };
        Ok(call(handle))
    }
}

impl Cache {
    /// The key's slot, made if it is new.
    fn slot(&mut self, key: &[u8]) -> usize {
        if let Some(&slot) = self.by_key.get(key) {
            return slot;
        }
        let slot = self.slots.len();
        let key: Rc<[u8]> = key.into();
        self.by_key.insert(Rc::clone(&key), slot);
        self.slots.push(Slot {
            key,
            before: Before::Unknown,
            after: After::Untouched,
        });
        slot
    }

    /// The key's value, itself none where the key is absent; none where it isn't known.
    fn answer(&self, slot: usize) -> Option<Option<Found>> {
        let slot = &self.slots[slot];
        match (&slot.after, &slot.before) {
            (After::Put(found), _) | (After::Untouched, Before::Found(found)) => {
                Some(Some(found.clone()))
            }
            (After::Removed, _) | (After::Untouched, Before::Absent) => Some(None),
            (After::Untouched, Before::Unknown | Before::Wanted) => None,
        }
    }

    fn want(&mut self, slot: usize) {
        let before = &mut self.slots[slot].before;
        if matches!(before, Before::Unknown) {
            *before = Before::Wanted;
            self.wanted.push(slot);
        }
    }

    /// Wants those that have no answer, and says whether there are any.
    fn want_all(&mut self, slots: &[Option<usize>]) -> bool {
        let mut any = false;
        for &slot in slots.iter().flatten() {
            if self.answer(slot).is_none() {
                self.want(slot);
                any = true;
            }
        }
        any
    }

    fn set(&mut self, key: &[u8], value: Option<&[u8]>) {
        let slot = self.slot(key);
        let after = value.map_or(After::Removed, |value| After::Put(Found::put(value)));
        let was = std::mem::replace(&mut self.slots[slot].after, after);
        self.journal.push((slot, was));
    }

    /// Keys and values to write.
    fn changes(&self) -> (Column, Column) {
        let mut keys = Column::with_capacity(0, 0);
        let mut values = Column::with_capacity(0, 0);
        for slot in &self.slots {
            let value = match (&slot.after, &slot.before) {
                (After::Untouched, _) | (After::Removed, Before::Absent) => continue,
                (After::Removed, _) => None,
                (After::Put(found), _) => Some(&**found),
            };
            keys.push(Some(&slot.key));
            values.push(value);
        }
        (keys, values)
    }
}

/// A column of one string.
fn one(string: Option<&[u8]>) -> Column {
    let mut column = Column::with_capacity(1, string.map_or(0, <[u8]>::len));
    column.push(string);
    column
}

#[cfg(target_family = "wasm")]
mod host {
    use crate::Result;
    use crate::batch::Column;
    use crate::bindings::millstream::plugin::state;

    pub use state::Store as Handle;

    pub fn open(name: &str) -> Result<Handle> {
        state::open(name).map_err(crate::Error::from)
    }

    pub fn get(handle: &Handle, keys: &Column) -> Column {
        handle.get(keys)
    }

    pub fn put(handle: &Handle, keys: &Column, values: &Column) {
        handle.put(keys, values);
    }
}

/// Outside WASM state is that of the harness.
#[cfg(not(target_family = "wasm"))]
mod host {
    pub use crate::testing::stores::{Handle, get, open, put};
}
