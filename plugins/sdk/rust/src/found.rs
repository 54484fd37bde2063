//! A value that was found in a table or in state. Those that came with one call into the host share its column.

use std::fmt;
use std::ops::Deref;
use std::rc::Rc;

use serde::Deserialize;

use crate::batch::Column;
use crate::{Error, Result, json};

/// A value that was found. Cheap to clone; it derefs to its bytes.
#[derive(Clone)]
pub struct Found(Bytes);

#[derive(Clone)]
enum Bytes {
    Fetched { values: Rc<Column>, index: usize },
    Put(Rc<[u8]>),
}

impl Found {
    /// String `index` of what was fetched, or `None` if it is null.
    pub(crate) fn of(values: &Rc<Column>, index: usize) -> Option<Self> {
        let values = Rc::clone(values);
        (!values.is_null(index)).then_some(Found(Bytes::Fetched { values, index }))
    }

    /// A value that the plugin itself has put.
    pub(crate) fn put(value: &[u8]) -> Self {
        Found(Bytes::Put(value.into()))
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
        match &self.0 {
            Bytes::Fetched { values, index } => &values.bytes[values.range(*index)],
            Bytes::Put(bytes) => bytes,
        }
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
