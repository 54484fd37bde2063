//! Records in columns: how a batch is held, lent to a plugin, and how its answer is checked.
//!
//! Invariant: a [`Column`] is well-formed whenever anybody can see it: its ends never decrease and the last one is the length of
//! its bytes; its nulls ascend, are in range and take no bytes. Columns that come from a plugin get in by [`Column::from_parts`].

/// Byte strings back to back, some of them null.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Column {
    bytes: Vec<u8>,
    ends: Vec<u32>,
    nulls: Vec<u32>,
}

impl Column {
    /// A column out of a plugin's answer, or what is wrong with it.
    pub fn from_parts(bytes: Vec<u8>, ends: Vec<u32>, nulls: Vec<u32>) -> Result<Self, String> {
        if !ends.is_sorted() {
            return Err("ends decrease".into());
        }
        let last = ends.last().copied().unwrap_or(0) as usize;
        if last != bytes.len() {
            return Err(format!(
                "the last end is {last}, but there are {} bytes",
                bytes.len()
            ));
        }
        if !nulls.is_sorted_by(|a, b| a < b) {
            return Err("nulls do not ascend".into());
        }
        if let Some(&null) = nulls.last()
            && null as usize >= ends.len()
        {
            return Err(format!(
                "null {null} is out of range of {} strings",
                ends.len()
            ));
        }
        let column = Self { bytes, ends, nulls };
        match column
            .nulls
            .iter()
            .find(|&&null| !column.range(null as usize).is_empty())
        {
            Some(null) => Err(format!("null {null} has bytes")),
            None => Ok(column),
        }
    }

    /// Bytes, ends and nulls, for a plugin to have.
    pub fn into_parts(self) -> (Vec<u8>, Vec<u32>, Vec<u32>) {
        (self.bytes, self.ends, self.nulls)
    }

    pub fn len(&self) -> usize {
        self.ends.len()
    }

    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub fn ends(&self) -> &[u32] {
        &self.ends
    }

    pub fn nulls(&self) -> &[u32] {
        &self.nulls
    }

    pub fn push(&mut self, string: Option<&[u8]>) {
        match string {
            Some(string) => self.bytes.extend_from_slice(string),
            None => self.nulls.push(position(self.ends.len())),
        }
        self.ends.push(position(self.bytes.len()));
    }

    pub fn get(&self, index: usize) -> Option<&[u8]> {
        if !self.nulls.is_empty() && self.nulls.binary_search(&position(index)).is_ok() {
            return None;
        }
        Some(&self.bytes[self.range(index)])
    }

    pub fn clear(&mut self) {
        self.bytes.clear();
        self.ends.clear();
        self.nulls.clear();
    }

    fn range(&self, index: usize) -> std::ops::Range<usize> {
        let from = if index == 0 { 0 } else { self.ends[index - 1] };
        from as usize..self.ends[index] as usize
    }
}

/// A place in a column. Batches end long before 4 GiB (see `BATCH_BYTES_MAX`), and a record is at most 2 GiB.
fn position(at: usize) -> u32 {
    u32::try_from(at).expect("a column holds less than 4 GiB: batches are limited in bytes")
}

/// Headers of the records of a batch: header `i` belongs to record `owners[i]`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Headers {
    owners: Vec<u32>,
    names: Column,
    values: Column,
}

impl Headers {
    /// Headers out of a plugin's answer for `records` records, or what is wrong with them.
    pub fn from_parts(
        owners: Vec<u32>,
        names: Column,
        values: Column,
        records: usize,
    ) -> Result<Self, String> {
        if names.len() != owners.len() || values.len() != owners.len() {
            return Err(format!(
                "{} owners, {} names, {} values",
                owners.len(),
                names.len(),
                values.len()
            ));
        }
        if !owners.is_sorted() {
            return Err("owners decrease".into());
        }
        if owners.last().is_some_and(|&last| last as usize >= records) {
            return Err(format!("an owner is out of range of {records} records"));
        }
        if !names.nulls().is_empty() {
            return Err("a name is null".into());
        }
        match (0..names.len()).find(|&at| names.get(at).is_none_or(|name| !is_name(name))) {
            Some(at) => Err(format!("name {at} is not UTF-8 or holds a zero byte")),
            None => Ok(Self {
                owners,
                names,
                values,
            }),
        }
    }

    pub fn push(&mut self, owner: usize, name: &[u8], value: Option<&[u8]>) {
        self.owners.push(position(owner));
        self.names.push(Some(name));
        self.values.push(value);
    }

    pub fn owners(&self) -> &[u32] {
        &self.owners
    }

    pub fn names(&self) -> &Column {
        &self.names
    }

    pub fn values(&self) -> &Column {
        &self.values
    }

    /// Bytes of all names and values.
    pub fn bytes(&self) -> usize {
        self.names.bytes.len() + self.values.bytes.len()
    }

    pub fn clear(&mut self) {
        self.owners.clear();
        self.names.clear();
        self.values.clear();
    }

    /// The headers of one record.
    pub fn of(&self, record: usize) -> HeadersOf<'_> {
        if self.owners.is_empty() {
            return HeadersOf {
                headers: self,
                from: 0,
                to: 0,
            };
        }
        let record = position(record);
        let from = self.owners.partition_point(|&owner| owner < record);
        let to = self.owners.partition_point(|&owner| owner <= record);
        HeadersOf {
            headers: self,
            from,
            to,
        }
    }
}

/// Kafka keeps header names as UTF-8; its C client takes them as C strings.
fn is_name(name: &[u8]) -> bool {
    std::str::from_utf8(name).is_ok() && !name.contains(&0)
}

/// The headers of one record, in their order.
#[derive(Clone, Copy, Debug)]
pub struct HeadersOf<'a> {
    headers: &'a Headers,
    from: usize,
    to: usize,
}

impl<'a> HeadersOf<'a> {
    pub fn len(&self) -> usize {
        self.to - self.from
    }

    pub fn is_empty(&self) -> bool {
        self.from == self.to
    }

    /// Bytes of names and values.
    pub fn bytes(&self) -> usize {
        self.iter()
            .map(|(name, value)| name.len() + value.map_or(0, <[u8]>::len))
            .sum()
    }

    /// Name and value of each.
    pub fn iter(&self) -> impl Iterator<Item = (&'a [u8], Option<&'a [u8]>)> + use<'a> {
        let headers = self.headers;
        (self.from..self.to).map(move |at| {
            (
                headers.names.get(at).unwrap_or_default(),
                headers.values.get(at),
            )
        })
    }
}

/// One record, borrowed from wherever it is.
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    pub key: Option<&'a [u8]>,
    pub value: Option<&'a [u8]>,
    /// Milliseconds since 1970-01-01 UTC; -1 for none.
    pub timestamp: i64,
    pub headers: HeadersOf<'a>,
}

impl Record<'_> {
    /// Bytes of key, value and headers.
    pub fn bytes(&self) -> usize {
        let length = |bytes: Option<&[u8]>| bytes.map_or(0, <[u8]>::len);
        length(self.key) + length(self.value) + self.headers.bytes()
    }
}

/// The records of a batch. All columns but the headers have one entry a record.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Columns {
    pub offsets: Vec<i64>,
    pub timestamps: Vec<i64>,
    pub keys: Column,
    pub values: Column,
    pub headers: Headers,
}

impl Columns {
    pub fn len(&self) -> usize {
        self.offsets.len()
    }

    pub fn is_empty(&self) -> bool {
        self.offsets.is_empty()
    }

    /// Bytes of keys, values and headers.
    pub fn bytes(&self) -> usize {
        self.keys.bytes.len() + self.values.bytes.len() + self.headers.bytes()
    }

    pub fn push<'h>(
        &mut self,
        offset: i64,
        timestamp: i64,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: impl Iterator<Item = (&'h [u8], Option<&'h [u8]>)>,
    ) {
        for (name, header) in headers {
            self.headers.push(self.offsets.len(), name, header);
        }
        self.offsets.push(offset);
        self.timestamps.push(timestamp);
        self.keys.push(key);
        self.values.push(value);
    }

    pub fn record(&self, index: usize) -> Record<'_> {
        Record {
            key: self.keys.get(index),
            value: self.values.get(index),
            timestamp: self.timestamps[index],
            headers: self.headers.of(index),
        }
    }

    /// A copy of some consecutive records.
    pub fn slice(&self, range: std::ops::Range<usize>) -> Self {
        let mut copy = Self::default();
        for index in range {
            let record = self.record(index);
            copy.push(
                self.offsets[index],
                record.timestamp,
                record.key,
                record.value,
                record.headers.iter(),
            );
        }
        copy
    }

    pub fn clear(&mut self) {
        self.offsets.clear();
        self.timestamps.clear();
        self.keys.clear();
        self.values.clear();
        self.headers.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(bytes: &[u8], ends: &[u32], nulls: &[u32], expected: Result<&[Option<&[u8]>], &str>) {
        let column = Column::from_parts(bytes.to_vec(), ends.to_vec(), nulls.to_vec());
        match (column, expected) {
            (Ok(column), Ok(strings)) => {
                let found: Vec<_> = (0..column.len()).map(|at| column.get(at)).collect();
                assert_eq!(found, strings);
            }
            (Err(said), Err(expected)) => assert_eq!(said, expected),
            (found, expected) => panic!("{found:?}, expected {expected:?}"),
        }
    }

    #[test]
    fn columns_from_outside_are_checked() {
        check(b"", &[], &[], Ok(&[]));
        check(
            b"abc",
            &[1, 1, 3],
            &[1],
            Ok(&[Some(b"a"), None, Some(b"bc")]),
        );
        check(
            b"abc",
            &[1, 1, 3],
            &[],
            Ok(&[Some(b"a"), Some(b""), Some(b"bc")]),
        );
        check(b"abc", &[2, 1, 3], &[], Err("ends decrease"));
        check(
            b"abc",
            &[1, 2],
            &[],
            Err("the last end is 2, but there are 3 bytes"),
        );
        check(
            b"abc",
            &[],
            &[],
            Err("the last end is 0, but there are 3 bytes"),
        );
        check(b"abc", &[1, 3], &[0], Err("null 0 has bytes"));
        check(b"", &[0, 0], &[1, 1], Err("nulls do not ascend"));
        check(
            b"",
            &[0, 0],
            &[2],
            Err("null 2 is out of range of 2 strings"),
        );
    }

    #[test]
    fn headers_from_outside_are_checked() {
        let column = |strings: &[&[u8]]| {
            let mut column = Column::default();
            strings.iter().for_each(|string| column.push(Some(string)));
            column
        };
        let check = |owners: &[u32], names: &[&[u8]], values: &[&[u8]], expected: &str| {
            let found = Headers::from_parts(owners.to_vec(), column(names), column(values), 2);
            assert_eq!(found.err().unwrap_or_default(), expected);
        };
        check(&[0, 0, 1], &[b"a", b"b", b"a"], &[b"", b"1", b"2"], "");
        check(&[0], &[], &[b""], "1 owners, 0 names, 1 values");
        check(&[1, 0], &[b"a", b"b"], &[b"", b""], "owners decrease");
        check(
            &[2],
            &[b"a"],
            &[b""],
            "an owner is out of range of 2 records",
        );
        check(
            &[0],
            &[b"a\0"],
            &[b""],
            "name 0 is not UTF-8 or holds a zero byte",
        );
    }

    #[test]
    fn a_slice_keeps_nulls_and_headers() {
        let mut columns = Columns::default();
        columns.push(
            7,
            -1,
            None,
            Some(b"a"),
            [(&b"h"[..], None), (&b"h"[..], Some(&b"2"[..]))].into_iter(),
        );
        columns.push(9, 5, Some(b""), None, std::iter::empty());
        columns.push(
            10,
            6,
            Some(b"k"),
            Some(b"c"),
            [(&b"x"[..], Some(&b"y"[..]))].into_iter(),
        );
        let slice = columns.slice(1..3);
        assert_eq!(slice.offsets, [9, 10]);
        assert_eq!(
            (slice.keys.get(0), slice.values.get(0)),
            (Some(&b""[..]), None)
        );
        assert!(slice.headers.of(0).is_empty());
        assert_eq!(
            slice.headers.of(1).iter().collect::<Vec<_>>(),
            [(&b"x"[..], Some(&b"y"[..]))]
        );
        assert_eq!(columns.headers.of(0).len(), 2);
    }
}
