//! serde into compact JSON, appended to a column's bytes. Invariant: what it writes, serde_json
//! writes too, byte for byte; what it doesn't know is a `Detour`.

use serde::ser::{self, Serialize, Serializer};

use super::scan::{STEP, append, append_chunk, gather, special};
use super::{Detour, is_private};

type Result<T> = std::result::Result<T, Detour>;

/// On a `Detour` part of the value may stand in `out`.
pub(super) fn value<T: Serialize + ?Sized>(value: &T, out: &mut Vec<u8>) -> Result<()> {
    value.serialize(Writer { out })
}

struct Writer<'o> {
    out: &'o mut Vec<u8>,
}

impl<'o> Writer<'o> {
    fn integer(self, number: impl itoa::Integer) -> Result<()> {
        append(self.out, itoa::Buffer::new().format(number).as_bytes());
        Ok(())
    }

    fn list(self) -> List<'o> {
        self.out.push(b'[');
        List {
            out: self.out,
            first: true,
            close: b"]",
        }
    }

    #[inline(always)]
    fn object(self) -> Object<'o> {
        Object {
            out: self.out,
            separator: b'{',
            close: "}",
        }
    }

    /// `{"variant":`, to be closed by whoever writes the content.
    fn variant(&mut self, variant: &str) {
        self.out.push(b'{');
        string(variant, self.out);
        self.out.push(b':');
    }
}

#[inline(always)]
fn string(text: &str, out: &mut Vec<u8>) {
    out.push(b'"');
    let mut rest = text.as_bytes();
    while let Some((chunk, behind)) = rest.split_first_chunk::<STEP>() {
        if special(chunk) != 0 {
            return escaped_rest(rest, out);
        }
        append_chunk(out, chunk, STEP);
        rest = behind;
    }
    let chunk = gather(rest);
    if specials(&chunk, rest.len()) != 0 {
        return escaped_rest(rest, out);
    }
    append_chunk(out, &chunk, rest.len());
    out.push(b'"');
}

/// As `special`, for the first `length` bytes of the chunk, fewer than 16.
#[inline(always)]
fn specials(chunk: &[u8; STEP], length: usize) -> u32 {
    special(chunk) & ((1 << length) - 1)
}

/// The rest of a string, and the closing quote.
#[cold]
fn escaped_rest(rest: &[u8], out: &mut Vec<u8>) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    for &byte in rest {
        let short = match byte {
            b'"' | b'\\' => byte,
            0x08 => b'b',
            0x0c => b'f',
            b'\n' => b'n',
            b'\r' => b'r',
            b'\t' => b't',
            0..b' ' => {
                let (high, low) = (HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]);
                out.extend_from_slice(&[b'\\', b'u', b'0', b'0', high, low]);
                continue;
            }
            _ => {
                out.push(byte);
                continue;
            }
        };
        out.extend_from_slice(&[b'\\', short]);
    }
    out.push(b'"');
}

impl<'o> Serializer for Writer<'o> {
    type Ok = ();
    type Error = Detour;
    type SerializeSeq = List<'o>;
    type SerializeTuple = List<'o>;
    type SerializeTupleStruct = List<'o>;
    type SerializeTupleVariant = List<'o>;
    type SerializeMap = Object<'o>;
    type SerializeStruct = Object<'o>;
    type SerializeStructVariant = Object<'o>;

    #[inline(always)]
    fn serialize_bool(self, value: bool) -> Result<()> {
        append(self.out, if value { b"true" } else { b"false" });
        Ok(())
    }

    fn serialize_i8(self, value: i8) -> Result<()> {
        self.integer(value)
    }

    fn serialize_i16(self, value: i16) -> Result<()> {
        self.integer(value)
    }

    fn serialize_i32(self, value: i32) -> Result<()> {
        self.integer(value)
    }

    fn serialize_i64(self, value: i64) -> Result<()> {
        self.integer(value)
    }

    fn serialize_u8(self, value: u8) -> Result<()> {
        self.integer(value)
    }

    fn serialize_u16(self, value: u16) -> Result<()> {
        self.integer(value)
    }

    #[inline(always)]
    fn serialize_u32(self, value: u32) -> Result<()> {
        self.integer(value)
    }

    #[inline(always)]
    fn serialize_u64(self, value: u64) -> Result<()> {
        self.integer(value)
    }

    fn serialize_f32(self, value: f32) -> Result<()> {
        serde_json::to_writer(self.out, &value).map_err(|_| Detour)
    }

    fn serialize_f64(self, value: f64) -> Result<()> {
        serde_json::to_writer(self.out, &value).map_err(|_| Detour)
    }

    fn serialize_char(self, value: char) -> Result<()> {
        self.serialize_str(value.encode_utf8(&mut [0; 4]))
    }

    #[inline(always)]
    fn serialize_str(self, value: &str) -> Result<()> {
        string(value, self.out);
        Ok(())
    }

    fn serialize_bytes(self, _: &[u8]) -> Result<()> {
        Err(Detour)
    }

    fn serialize_none(self) -> Result<()> {
        self.serialize_unit()
    }

    #[inline(always)]
    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<()> {
        value.serialize(self)
    }

    fn serialize_unit(self) -> Result<()> {
        append(self.out, b"null");
        Ok(())
    }

    fn serialize_unit_struct(self, _: &'static str) -> Result<()> {
        self.serialize_unit()
    }

    fn serialize_unit_variant(self, _: &'static str, _: u32, variant: &'static str) -> Result<()> {
        self.serialize_str(variant)
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        value: &T,
    ) -> Result<()> {
        value.serialize(self)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        mut self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        value: &T,
    ) -> Result<()> {
        self.variant(variant);
        value.serialize(Writer { out: self.out })?;
        self.out.push(b'}');
        Ok(())
    }

    fn serialize_seq(self, _: Option<usize>) -> Result<List<'o>> {
        Ok(self.list())
    }

    fn serialize_tuple(self, _: usize) -> Result<List<'o>> {
        Ok(self.list())
    }

    fn serialize_tuple_struct(self, _: &'static str, _: usize) -> Result<List<'o>> {
        Ok(self.list())
    }

    fn serialize_tuple_variant(
        mut self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        _: usize,
    ) -> Result<List<'o>> {
        self.variant(variant);
        Ok(List {
            close: b"]}",
            ..self.list()
        })
    }

    fn serialize_map(self, _: Option<usize>) -> Result<Object<'o>> {
        Ok(self.object())
    }

    #[inline(always)]
    fn serialize_struct(self, name: &'static str, _: usize) -> Result<Object<'o>> {
        if is_private(name) {
            Err(Detour)
        } else {
            Ok(self.object())
        }
    }

    fn serialize_struct_variant(
        mut self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        _: usize,
    ) -> Result<Object<'o>> {
        self.variant(variant);
        Ok(Object {
            close: "}}",
            ..self.object()
        })
    }
}

struct List<'o> {
    out: &'o mut Vec<u8>,
    first: bool,
    close: &'static [u8],
}

impl List<'_> {
    fn element<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<()> {
        if !std::mem::replace(&mut self.first, false) {
            self.out.push(b',');
        }
        value.serialize(Writer { out: self.out })
    }

    fn close(self) -> Result<()> {
        append(self.out, self.close);
        Ok(())
    }
}

struct Object<'o> {
    out: &'o mut Vec<u8>,
    /// What goes before the next member: the opening bracket is written with the first one.
    separator: u8,
    close: &'static str,
}

impl Object<'_> {
    #[inline(always)]
    fn separator(&mut self) -> u8 {
        std::mem::replace(&mut self.separator, b',')
    }

    /// Where the name is a constant, all that stands before the value is one too.
    #[inline(always)]
    fn field<T: Serialize + ?Sized>(&mut self, name: &'static str, value: &T) -> Result<()> {
        let separator = self.separator();
        let length = name.len();
        if length <= STEP - 4 && specials(&gather(name.as_bytes()), length) == 0 {
            let mut chunk = [0; STEP];
            chunk[0] = separator;
            chunk[1] = b'"';
            chunk[2..length + 2].copy_from_slice(name.as_bytes());
            chunk[length + 2] = b'"';
            chunk[length + 3] = b':';
            append_chunk(self.out, &chunk, length + 4);
        } else {
            self.out.push(separator);
            string(name, self.out);
            self.out.push(b':');
        }
        value.serialize(Writer { out: self.out })
    }

    #[inline(always)]
    fn close(self) -> Result<()> {
        if self.separator == b'{' {
            self.out.push(b'{');
        }
        self.close
            .bytes()
            .for_each(|bracket| self.out.push(bracket));
        Ok(())
    }
}

impl ser::SerializeSeq for List<'_> {
    type Ok = ();
    type Error = Detour;

    fn serialize_element<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<()> {
        self.element(value)
    }

    fn end(self) -> Result<()> {
        self.close()
    }
}

impl ser::SerializeTuple for List<'_> {
    type Ok = ();
    type Error = Detour;

    fn serialize_element<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<()> {
        self.element(value)
    }

    fn end(self) -> Result<()> {
        self.close()
    }
}

impl ser::SerializeTupleStruct for List<'_> {
    type Ok = ();
    type Error = Detour;

    fn serialize_field<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<()> {
        self.element(value)
    }

    fn end(self) -> Result<()> {
        self.close()
    }
}

impl ser::SerializeTupleVariant for List<'_> {
    type Ok = ();
    type Error = Detour;

    fn serialize_field<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<()> {
        self.element(value)
    }

    fn end(self) -> Result<()> {
        self.close()
    }
}

impl ser::SerializeMap for Object<'_> {
    type Ok = ();
    type Error = Detour;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<()> {
        let separator = self.separator();
        self.out.push(separator);
        let start = self.out.len();
        key.serialize(Writer { out: self.out })?;
        // Keys that aren't strings are written as strings, or refused: serde_json knows which.
        if self.out.get(start) == Some(&b'"') {
            Ok(())
        } else {
            Err(Detour)
        }
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<()> {
        self.out.push(b':');
        value.serialize(Writer { out: self.out })
    }

    fn end(self) -> Result<()> {
        self.close()
    }
}

impl ser::SerializeStruct for Object<'_> {
    type Ok = ();
    type Error = Detour;

    #[inline(always)]
    fn serialize_field<T: Serialize + ?Sized>(
        &mut self,
        name: &'static str,
        value: &T,
    ) -> Result<()> {
        self.field(name, value)
    }

    #[inline]
    fn end(self) -> Result<()> {
        self.close()
    }
}

impl ser::SerializeStructVariant for Object<'_> {
    type Ok = ();
    type Error = Detour;

    fn serialize_field<T: Serialize + ?Sized>(
        &mut self,
        name: &'static str,
        value: &T,
    ) -> Result<()> {
        self.field(name, value)
    }

    fn end(self) -> Result<()> {
        self.close()
    }
}
