//! The fields of Kafka's requests and answers (<https://kafka.apache.org/protocol>).

/// How lengths are written: versions that Kafka calls flexible have compact ones, and tagged fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    Plain,
    Compact,
}

#[derive(Debug)]
pub struct Request {
    pub api_key: i16,
    pub api_version: i16,
    pub form: Form,
    pub body: Vec<u8>,
}

impl Request {
    pub fn new(api_key: i16, api_version: i16, form: Form) -> Self {
        Self {
            api_key,
            api_version,
            form,
            body: Vec::new(),
        }
    }

    fn put(&mut self, bytes: &[u8]) -> &mut Self {
        self.body.extend_from_slice(bytes);
        self
    }

    pub fn i8(&mut self, value: i8) -> &mut Self {
        self.put(&value.to_be_bytes())
    }

    pub fn i16(&mut self, value: i16) -> &mut Self {
        self.put(&value.to_be_bytes())
    }

    pub fn i32(&mut self, value: i32) -> &mut Self {
        self.put(&value.to_be_bytes())
    }

    pub fn i64(&mut self, value: i64) -> &mut Self {
        self.put(&value.to_be_bytes())
    }

    pub fn bool(&mut self, value: bool) -> &mut Self {
        self.i8(value.into())
    }

    /// A partition's number, or a number of partitions.
    pub fn partition(&mut self, value: u32) -> &mut Self {
        self.put(&value.to_be_bytes())
    }

    pub fn array(&mut self, length: usize) -> &mut Self {
        let length = u32::try_from(length).expect("a script's requests are short");
        match self.form {
            Form::Plain => self.put(&length.to_be_bytes()),
            Form::Compact => {
                unsigned(&mut self.body, u64::from(length) + 1);
                self
            }
        }
    }

    pub fn string(&mut self, string: &str) -> &mut Self {
        self.nullable(Some(string))
    }

    pub fn nullable(&mut self, string: Option<&str>) -> &mut Self {
        let length = string.map_or(-1, |string| {
            i16::try_from(string.len()).expect("a script's strings are short")
        });
        match self.form {
            Form::Plain => drop(self.i16(length)),
            Form::Compact => {
                unsigned(&mut self.body, (i64::from(length) + 1).cast_unsigned());
            }
        }
        self.put(string.unwrap_or_default().as_bytes())
    }

    /// Bytes, as plain forms have them.
    pub fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        let length = i32::try_from(bytes.len()).expect("a script's batches are small");
        self.i32(length).put(bytes)
    }

    /// No tagged fields, where the form has them.
    pub fn tags(&mut self) -> &mut Self {
        match self.form {
            Form::Plain => self,
            Form::Compact => self.put(&[0]),
        }
    }
}

/// The fields of an answer, in their order.
#[derive(Debug)]
pub struct Fields {
    form: Form,
    bytes: Vec<u8>,
    at: usize,
}

impl Fields {
    pub fn new(form: Form, bytes: Vec<u8>) -> Self {
        Self { form, bytes, at: 0 }
    }

    pub fn is_empty(&self) -> bool {
        self.at == self.bytes.len()
    }

    pub fn take(&mut self, length: usize) -> &[u8] {
        let from = self.at;
        self.at += length;
        self.bytes
            .get(from..self.at)
            .expect("an answer holds what its version has")
    }

    fn fixed<const LENGTH: usize>(&mut self) -> [u8; LENGTH] {
        let bytes = self.take(LENGTH).try_into();
        bytes.expect("as many bytes as asked for")
    }

    pub fn i8(&mut self) -> i8 {
        i8::from_be_bytes(self.fixed())
    }

    pub fn i16(&mut self) -> i16 {
        i16::from_be_bytes(self.fixed())
    }

    pub fn i32(&mut self) -> i32 {
        i32::from_be_bytes(self.fixed())
    }

    pub fn i64(&mut self) -> i64 {
        i64::from_be_bytes(self.fixed())
    }

    pub fn bool(&mut self) -> bool {
        self.i8() != 0
    }

    /// How many elements follow; none for null.
    pub fn array(&mut self) -> usize {
        let length = match self.form {
            Form::Plain => i64::from(self.i32()),
            Form::Compact => self.unsigned().cast_signed() - 1,
        };
        usize::try_from(length).unwrap_or(0)
    }

    /// Empty for null.
    pub fn string(&mut self) -> String {
        self.optional().unwrap_or_default()
    }

    pub fn optional(&mut self) -> Option<String> {
        let length = match self.form {
            Form::Plain => i64::from(self.i16()),
            Form::Compact => self.unsigned().cast_signed() - 1,
        };
        let length = usize::try_from(length).ok()?;
        Some(String::from_utf8_lossy(self.take(length)).into_owned())
    }

    /// Bytes, as plain forms have them; empty for null.
    pub fn blob(&mut self) -> Vec<u8> {
        let length = usize::try_from(self.i32()).unwrap_or(0);
        self.take(length).to_vec()
    }

    pub fn tags(&mut self) {
        if self.form == Form::Compact {
            assert_eq!(self.unsigned(), 0, "no tagged fields are asked for");
        }
    }

    /// The error of an answer about one partition: what stands before it is what was asked for.
    pub fn partition_error(&mut self) -> i16 {
        self.array();
        self.string();
        self.array();
        self.i32();
        self.i16()
    }

    pub fn unsigned(&mut self) -> u64 {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let [byte] = self.fixed();
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                break;
            }
        }
        value
    }

    /// A zigzag number, as records have them.
    pub fn signed(&mut self) -> i64 {
        let value = self.unsigned();
        (value >> 1).cast_signed() ^ -(value & 1).cast_signed()
    }
}

pub fn unsigned(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value.to_le_bytes()[0] | 0x80);
        value >>= 7;
    }
    out.push(value.to_le_bytes()[0]);
}

pub fn signed(out: &mut Vec<u8>, value: i64) {
    unsigned(out, (value << 1 ^ value >> 63).cast_unsigned());
}
