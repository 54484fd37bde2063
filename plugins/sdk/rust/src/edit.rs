//! What an output record changes against the record it comes from, as a value: for functions that
//! return their output instead of writing it.

use std::borrow::Cow;

use serde::Serialize;

use crate::{Error, json};

/// An output record: the record it comes from, but for what is set here.
#[derive(Debug, Default)]
#[must_use = "it is an output record only once it is returned"]
pub struct Edit<'a> {
    pub(crate) port: Option<&'a str>,
    pub(crate) key: Cell<'a>,
    pub(crate) value: Cell<'a>,
    pub(crate) timestamp: Option<i64>,
    pub(crate) clear_headers: bool,
    pub(crate) headers: Vec<(Cow<'a, str>, Cow<'a, [u8]>)>,
    /// Fails the record.
    pub(crate) error: Option<Error>,
}

#[derive(Debug, Default)]
pub(crate) enum Cell<'a> {
    #[default]
    Inherited,
    Null,
    Bytes(Cow<'a, [u8]>),
}

impl<'a> Edit<'a> {
    /// Changes nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Lets it leave by a port that the plugin's needs declare.
    pub fn port(mut self, name: &'a str) -> Self {
        self.port = Some(name);
        self
    }

    /// Sets the key.
    pub fn key(mut self, key: impl Into<Cow<'a, [u8]>>) -> Self {
        self.key = Cell::Bytes(key.into());
        self
    }

    /// Sets the key to null.
    pub fn null_key(mut self) -> Self {
        self.key = Cell::Null;
        self
    }

    /// Sets the value.
    pub fn value(mut self, value: impl Into<Cow<'a, [u8]>>) -> Self {
        self.value = Cell::Bytes(value.into());
        self
    }

    /// Sets the value to null: to a map, that deletes the key.
    pub fn null_value(mut self) -> Self {
        self.value = Cell::Null;
        self
    }

    /// Sets the value to `value` as JSON. One that can't be written fails the record.
    pub fn json<T: Serialize + ?Sized>(mut self, value: &T) -> Self {
        let mut bytes = Vec::new();
        match json::write(value, &mut bytes) {
            Ok(()) => self.value = Cell::Bytes(Cow::Owned(bytes)),
            Err(error) => self.error = Some(error),
        }
        self
    }

    /// Sets the timestamp, in milliseconds since 1970-01-01 UTC.
    pub fn timestamp(mut self, timestamp: i64) -> Self {
        self.timestamp = Some(timestamp);
        self
    }

    /// Adds a header behind those that are there. The plugin's needs must ask for headers.
    pub fn header(
        mut self,
        name: impl Into<Cow<'a, str>>,
        value: impl Into<Cow<'a, [u8]>>,
    ) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// Removes the headers that are inherited. The plugin's needs must ask for headers.
    pub fn clear_headers(mut self) -> Self {
        self.clear_headers = true;
        self
    }
}
