//! One record of a batch, borrowed from its columns. Nothing is looked up before it is asked for.

use std::cell::OnceCell;
use std::fmt;

use serde::Deserialize;

use crate::batch::Batch;
use crate::{Result, json};

/// A record to process. It is a pair of references: copy it freely.
#[derive(Clone, Copy)]
pub struct Record<'a> {
    view: &'a View<'a>,
    index: usize,
}

/// A batch and what is known about it as a whole.
pub(crate) struct View<'a> {
    pub batch: &'a Batch,
    /// The bytes of all values as text, if they are text: checked once, and not before a record is
    /// read as text.
    text: OnceCell<Option<&'a str>>,
}

impl<'a> View<'a> {
    pub fn new(batch: &'a Batch) -> Self {
        View {
            batch,
            text: OnceCell::new(),
        }
    }

    pub fn record(&'a self, index: usize) -> Record<'a> {
        Record { view: self, index }
    }

    fn text(&self) -> Option<&'a str> {
        *self
            .text
            .get_or_init(|| simdutf8::basic::from_utf8(&self.batch.values.bytes).ok())
    }
}

impl<'a> Record<'a> {
    /// The key, or `None` if it is null.
    pub fn key(&self) -> Option<&'a [u8]> {
        self.view.batch.keys.get(self.index)
    }

    /// The value, or `None` if it is null.
    pub fn value(&self) -> Option<&'a [u8]> {
        self.view.batch.values.get(self.index)
    }

    /// The value as a string. Fails if it is null or not UTF-8.
    pub fn text(&self) -> Result<&'a str> {
        let (text, start, end) = self.part()?;
        Ok(text.get(start..end).ok_or(NOT_UTF8)?)
    }

    /// The value read as JSON. Fails, saying why, if it is null or isn't a `T`.
    pub fn json<T: Deserialize<'a>>(&self) -> Result<T> {
        let (text, start, end) = self.part()?;
        json::from_part(text, start, end)
    }

    /// Milliseconds since 1970-01-01 UTC, if the record has a timestamp.
    pub fn timestamp(&self) -> Option<i64> {
        Some(self.view.batch.timestamps[self.index]).filter(|&timestamp| timestamp >= 0)
    }

    /// The headers, in order, as name and value. Empty unless the plugin's needs ask for headers.
    pub fn headers(&self) -> impl Iterator<Item = (&'a str, Option<&'a [u8]>)> + use<'a> {
        let headers = &self.view.batch.headers;
        headers.range(self.index).map(|index| headers.get(index))
    }

    /// The last header of that name; a header whose value is null counts as none.
    pub fn header(&self, name: &str) -> Option<&'a [u8]> {
        self.headers()
            .filter(|(other, _)| *other == name)
            .last()
            .and_then(|(_, value)| value)
    }

    /// The topic that the record, or the source record it came from, stands in.
    pub fn topic(&self) -> &'a str {
        &self.view.batch.topic
    }

    /// The partition of that topic.
    pub fn partition(&self) -> u32 {
        self.view.batch.partition
    }

    /// The offset in that partition.
    pub fn offset(&self) -> i64 {
        self.view.batch.offsets[self.index]
    }

    /// The step's input that the record came by, as the pipeline file names it.
    pub fn input(&self) -> &'a str {
        let batch = self.view.batch;
        let input = batch
            .input_of
            .get(self.index)
            .map_or(0, |&input| input as usize);
        batch.inputs.get(input).map_or("", String::as_str)
    }

    /// Wall clock in milliseconds since 1970-01-01 UTC, the same for all records of a batch. A
    /// plugin has no other clock.
    pub fn now(&self) -> i64 {
        self.view.batch.now
    }

    /// A text, and where the value lies in it.
    #[inline(always)]
    fn part(&self) -> Result<(&'a str, usize, usize)> {
        let values = &self.view.batch.values;
        if values.is_null(self.index) {
            return Err("the value is null".into());
        }
        let range = values.range(self.index);
        if let Some(text) = self.view.text() {
            return Ok((text, range.start, range.end));
        }
        let text = std::str::from_utf8(&values.bytes[range]).map_err(|_| NOT_UTF8)?;
        Ok((text, 0, text.len()))
    }
}

impl fmt::Debug for Record<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = |bytes: Option<&'_ [u8]>| bytes.map(|b| String::from_utf8_lossy(b).into_owned());
        let mut record = f.debug_struct("Record");
        record
            .field("offset", &self.offset())
            .field("key", &text(self.key()));
        record
            .field("value", &text(self.value()))
            .finish_non_exhaustive()
    }
}

const NOT_UTF8: &str = "the value isn't UTF-8";
