//! JSON as serde sees it, fast inside the sandbox. `read` and `write` handle what records are mostly
//! made of; at anything else, and at every error, they take a *detour*: serde_json does the same
//! value again from the start. So results and error texts are serde_json's, with two exceptions:
//! floats are read correctly rounded, and its feature `arbitrary_precision` has no effect.

mod read;
mod scan;
mod write;

use serde::{Deserialize, Serialize};

use crate::Result;
pub(crate) use scan::append;

/// One JSON value from all of `text`.
pub fn from_str<'de, T: Deserialize<'de>>(text: &'de str) -> Result<T> {
    from_part(text, 0, text.len())
}

/// One JSON value from `text[start..end]`. Reading in steps of 16 bytes may look past `end`.
#[inline]
pub(crate) fn from_part<'de, T: Deserialize<'de>>(
    text: &'de str,
    start: usize,
    end: usize,
) -> Result<T> {
    read::value(text, start, end).or_else(|Detour| {
        let part = text.get(start..end).ok_or("the value isn't UTF-8")?;
        Ok(serde_json::from_str(part)?)
    })
}

/// Appends `value` as compact JSON. On an error `out` is as it was before.
#[inline]
pub fn write<T: Serialize + ?Sized>(value: &T, out: &mut Vec<u8>) -> Result<()> {
    let start = out.len();
    if write::value(value, out).is_ok() {
        return Ok(());
    }
    out.truncate(start);
    let written = serde_json::to_writer(&mut *out, value);
    if written.is_err() {
        out.truncate(start);
    }
    Ok(written?)
}

/// Not done here: ask serde_json, from the start of the value.
#[derive(Debug)]
struct Detour;

impl std::error::Error for Detour {}

impl std::fmt::Display for Detour {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("left to serde_json")
    }
}

impl serde::de::Error for Detour {
    fn custom<T: std::fmt::Display>(_: T) -> Self {
        Detour
    }
}

impl serde::ser::Error for Detour {
    fn custom<T: std::fmt::Display>(_: T) -> Self {
        Detour
    }
}

/// Whether a type's name is one by which serde_json's own types talk to serde_json.
#[inline(always)]
fn is_private(name: &str) -> bool {
    name.starts_with("$serde_json::private::")
}

#[cfg(test)]
mod tests;
