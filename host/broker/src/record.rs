//! Records of a batch, back to back in one allocation, as they come from a producer and are lent to consumers.
//!
//! Invariant: a [`Records`] is well-formed whenever anybody can see it. Its offsets ascend; they count from 0 until a log has given
//! them their place, and from then on a record keeps its own, since compaction leaves gaps.

/// What Kafka's record format adds to a batch and, at most, to a record of less than 2 MiB without headers, beside four bytes for a
/// string's length. See <https://kafka.apache.org/documentation/#recordbatch>.
const BATCH_OVERHEAD: usize = 61;
const RECORD_OVERHEAD: usize = 12;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Records {
    /// Of each record: key, value, then names and values of its headers. Each is an `i32`, its length or -1 for null, and its bytes.
    bytes: Vec<u8>,
    entries: Vec<Entry>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Entry {
    offset: i64,
    timestamp: i64,
    /// Of all its strings.
    length: usize,
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
    /// On a string of 2 GiB or more.
    pub fn push<'h>(
        &mut self,
        timestamp: i64,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: impl Iterator<Item = (&'h [u8], Option<&'h [u8]>)>,
    ) {
        let before = self.bytes.len();
        self.push_string(key);
        self.push_string(value);
        for (name, header) in headers {
            self.push_string(Some(name));
            self.push_string(header);
        }
        self.entries.push(Entry {
            offset: self.end(),
            timestamp,
            length: self.bytes.len() - before,
        });
    }

    fn push_string(&mut self, string: Option<&[u8]>) {
        let length = string.map_or(Ok(-1), |string| i32::try_from(string.len()));
        let length = length.expect("a string of a record is shorter than 2 GiB");
        self.bytes.extend_from_slice(&length.to_le_bytes());
        self.bytes.extend_from_slice(string.unwrap_or_default());
    }

    /// The size that `max.message.bytes` is held against: an upper bound of what an uncompressed batch takes in Kafka's format.
    pub fn size(&self) -> usize {
        BATCH_OVERHEAD + RECORD_OVERHEAD * self.entries.len() + self.bytes.len()
    }

    pub fn iter(&self) -> impl Iterator<Item = Record<'_>> {
        let mut bytes = self.bytes.as_slice();
        self.entries.iter().map(move |entry| {
            let (mut strings, rest) = bytes.split_at(entry.length);
            bytes = rest;
            Record {
                offset: entry.offset,
                timestamp: entry.timestamp,
                key: take_string(&mut strings),
                value: take_string(&mut strings),
                headers: Headers(strings),
            }
        })
    }

    /// The offset after the last one.
    pub(crate) fn end(&self) -> i64 {
        self.entries.last().map_or(0, |last| last.offset + 1)
    }

    /// Moves all offsets up.
    pub(crate) fn shift(&mut self, by: i64) {
        for entry in &mut self.entries {
            entry.offset += by;
        }
    }

    /// A copy of those records that `keep` wants, at their old offsets.
    pub(crate) fn filtered(&self, keep: impl Fn(&Record<'_>) -> bool) -> Self {
        let mut kept = Self::default();
        for record in self.iter().filter(keep) {
            kept.push(record.timestamp, record.key, record.value, record.headers);
            let last = kept.entries.last_mut();
            last.expect("one was pushed").offset = record.offset;
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
        if self.0.is_empty() {
            return None;
        }
        let name = take_string(&mut self.0).expect("names are not null");
        Some((name, take_string(&mut self.0)))
    }
}

fn take_string<'a>(bytes: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (length, rest) = bytes.split_first_chunk().expect("a string has a length");
    *bytes = rest;
    let length = usize::try_from(i32::from_le_bytes(*length)).ok()?;
    bytes.split_off(..length)
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

    fn appended() -> Records {
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
        records.shift(10);
        records
    }

    #[test]
    fn records_come_back_as_they_were() {
        check(
            appended().iter(),
            &[
                "10 @-1 null= h:null h: :x",
                "11 @5 key=null",
                "12 @9223372036854775807 =value h:null",
            ],
        );
    }

    #[test]
    fn filtered_records_keep_their_offsets() {
        let kept = appended().filtered(|record| record.offset != 11);
        check(
            kept.iter(),
            &[
                "10 @-1 null= h:null h: :x",
                "12 @9223372036854775807 =value h:null",
            ],
        );
        let again = kept.filtered(|record| record.offset > 10);
        check(again.iter(), &["12 @9223372036854775807 =value h:null"]);
        assert_eq!((again.len(), again.end()), (1, 13));
    }
}
