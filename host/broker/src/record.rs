//! Records of a batch, back to back in one allocation, as they come from a producer and are lent to consumers.
//!
//! Invariant: a [`Records`] is well-formed whenever anybody can see it. Offsets are its batch's business: a record knows only how
//! far it lies behind the batch's first one, since compaction leaves gaps.

/// Stands for the length of a string that is null.
const NULL: u32 = u32::MAX;

/// What Kafka's record format adds to a batch and, at most, to a record of less than 2 MiB without headers. See
/// <https://kafka.apache.org/documentation/#recordbatch>.
const BATCH_OVERHEAD: usize = 61;
const RECORD_OVERHEAD: usize = 20;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Records {
    /// Of each record: key, value, then its headers (see `Headers`).
    bytes: Vec<u8>,
    entries: Vec<Entry>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Entry {
    delta: u32,
    timestamp: i64,
    key: u32,
    value: u32,
    /// Where the record's bytes end.
    end: usize,
}

/// One record, lent by its batch.
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    pub offset: i64,
    /// Milliseconds since 1970-01-01 UTC, as the producer said.
    pub timestamp: i64,
    pub key: Option<&'a [u8]>,
    pub value: Option<&'a [u8]>,
    pub headers: Headers<'a>,
}

impl Records {
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Timestamps are milliseconds since 1970-01-01 UTC; headers are name and value, in their order.
    ///
    /// # Panics
    ///
    /// On a string of 4 GiB or more.
    pub fn push<'h>(
        &mut self,
        timestamp: i64,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: impl Iterator<Item = (&'h [u8], Option<&'h [u8]>)>,
    ) {
        self.bytes.extend_from_slice(key.unwrap_or_default());
        self.bytes.extend_from_slice(value.unwrap_or_default());
        for (name, header) in headers {
            for string in [Some(name), header] {
                self.bytes.extend_from_slice(&length(string).to_le_bytes());
                self.bytes.extend_from_slice(string.unwrap_or_default());
            }
        }
        self.entries.push(Entry {
            delta: u32::try_from(self.entries.len()).expect("a batch has fewer than 2^32 records"),
            timestamp,
            key: length(key),
            value: length(value),
            end: self.bytes.len(),
        });
    }

    /// The size that `max.message.bytes` is held against: an upper bound of what an uncompressed batch takes in Kafka's format.
    pub fn size(&self) -> usize {
        BATCH_OVERHEAD + RECORD_OVERHEAD * self.entries.len() + self.bytes.len()
    }

    /// The records of a batch that begins at `base`.
    pub fn iter(&self, base: i64) -> impl DoubleEndedIterator<Item = Record<'_>> + Clone {
        (0..self.entries.len()).map(move |index| self.record(base, index))
    }

    pub(crate) fn lacks_key(&self) -> bool {
        self.entries.iter().any(|entry| entry.key == NULL)
    }

    /// How many records lie before `delta` offsets behind the batch's first.
    pub(crate) fn before(&self, delta: i64) -> usize {
        self.entries
            .partition_point(|entry| i64::from(entry.delta) < delta)
    }

    pub(crate) fn record(&self, base: i64, index: usize) -> Record<'_> {
        let entry = self.entries[index];
        let from = index
            .checked_sub(1)
            .map_or(0, |last| self.entries[last].end);
        let (key, rest) = split(&self.bytes[from..entry.end], entry.key);
        let (value, headers) = split(rest, entry.value);
        Record {
            offset: base + i64::from(entry.delta),
            timestamp: entry.timestamp,
            key,
            value,
            headers: Headers(headers),
        }
    }

    /// A copy of those records that `keep` wants, at their old offsets.
    pub(crate) fn filtered(&self, base: i64, keep: impl Fn(&Record<'_>) -> bool) -> Self {
        let mut kept = Self::default();
        for (record, entry) in self.iter(base).zip(&self.entries) {
            if keep(&record) {
                kept.push(record.timestamp, record.key, record.value, record.headers);
                let last = kept.entries.last_mut();
                last.expect("one was pushed").delta = entry.delta;
            }
        }
        kept
    }
}

/// The headers of a record that are still to come: name and value of each.
#[derive(Clone, Copy, Debug)]
pub struct Headers<'a>(&'a [u8]);

impl<'a> Iterator for Headers<'a> {
    type Item = (&'a [u8], Option<&'a [u8]>);

    fn next(&mut self) -> Option<Self::Item> {
        let mut string = || {
            let (length, rest) = self.0.split_first_chunk()?;
            let (string, rest) = split(rest, u32::from_le_bytes(*length));
            self.0 = rest;
            Some(string)
        };
        let name = string()?;
        Some((name.unwrap_or_default(), string()?))
    }
}

fn length(string: Option<&[u8]>) -> u32 {
    match string.map(|string| u32::try_from(string.len())) {
        None => NULL,
        Some(Ok(length)) if length < NULL => length,
        Some(_) => panic!("a string of a record is shorter than 4 GiB"),
    }
}

fn split(bytes: &[u8], length: u32) -> (Option<&[u8]>, &[u8]) {
    if length == NULL {
        return (None, bytes);
    }
    let (string, rest) = bytes.split_at(length as usize);
    (Some(string), rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn show(record: &Record<'_>) -> String {
        let text = |bytes: Option<&[u8]>| {
            bytes.map_or("null".into(), |b| String::from_utf8_lossy(b).into_owned())
        };
        let headers = record.headers.map(|(name, value)| {
            let name = String::from_utf8_lossy(name);
            format!(" {name}:{}", text(value))
        });
        let (key, value) = (text(record.key), text(record.value));
        let headers: String = headers.collect();
        format!(
            "{} @{} {key}={value}{headers}",
            record.offset, record.timestamp
        )
    }

    fn check<'a>(found: impl Iterator<Item = Record<'a>>, expected: &[&str]) {
        let found: Vec<String> = found.map(|record| show(&record)).collect();
        assert_eq!(found, expected);
    }

    fn records() -> Records {
        let mut records = Records::default();
        let headers = [(&b"h"[..], None), (b"h", Some(&b""[..])), (b"", Some(b"x"))];
        records.push(-1, None, Some(b""), headers.into_iter());
        records.push(5, Some(b"key"), None, std::iter::empty());
        records.push(
            i64::MAX,
            Some(b""),
            Some(b"value"),
            headers.into_iter().take(1),
        );
        records
    }

    #[test]
    fn records_come_back_as_they_were() {
        check(
            records().iter(10),
            &[
                "10 @-1 null= h:null h: :x",
                "11 @5 key=null",
                "12 @9223372036854775807 =value h:null",
            ],
        );
    }

    #[test]
    fn filtered_records_keep_their_offsets() {
        let kept = records().filtered(10, |record| record.offset != 11);
        check(
            kept.iter(10),
            &[
                "10 @-1 null= h:null h: :x",
                "12 @9223372036854775807 =value h:null",
            ],
        );
        let again = kept.filtered(10, |record| record.offset > 10);
        check(again.iter(10), &["12 @9223372036854775807 =value h:null"]);
        assert_eq!((again.before(2), again.before(3)), (0, 1));
    }
}
