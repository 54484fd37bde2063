//! JSON into serde, from text that is known to be UTF-8. Invariant: what it accepts, serde_json
//! accepts with the same result; anything in doubt is a `Detour`.

use serde::Deserialize;
use serde::de::value::{BorrowedStrDeserializer, StringDeserializer};
use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde::forward_to_deserialize_any;

use super::scan::{STEP, eight_digits, plain_end, special};
use super::{Detour, is_private};

type Result<T> = std::result::Result<T, Detour>;

/// Objects and arrays inside each other; below serde_json's own limit of 128, which then speaks.
const DEPTH_MAX: u32 = 120;
/// So many decimal digits always fit a `u64`.
const DIGITS_MAX: usize = 19;

pub(super) fn value<'de, T: Deserialize<'de>>(
    text: &'de str,
    start: usize,
    end: usize,
) -> Result<T> {
    let bytes = text.as_bytes().get(..end).ok_or(Detour)?;
    let mut reader = Reader {
        text,
        bytes,
        at: start,
        depth: 0,
    };
    let value = T::deserialize(&mut reader)?;
    reader.skip_space();
    if reader.at == end {
        Ok(value)
    } else {
        Err(Detour)
    }
}

struct Reader<'de> {
    /// May go on behind the value: wide steps look there, but nothing is taken from there.
    text: &'de str,
    /// `text` up to the value's end.
    bytes: &'de [u8],
    at: usize,
    depth: u32,
}

impl<'de> Reader<'de> {
    fn skip_space(&mut self) {
        while let Some(b' ' | b'\n' | b'\t' | b'\r') = self.bytes.get(self.at) {
            self.at += 1;
        }
    }

    /// The next byte that isn't space, without taking it.
    #[inline(always)]
    fn peek(&mut self) -> Result<u8> {
        match self.bytes.get(self.at) {
            Some(&byte) if byte > b' ' => Ok(byte),
            _ => self.peek_behind_space(),
        }
    }

    #[cold]
    fn peek_behind_space(&mut self) -> Result<u8> {
        self.skip_space();
        self.bytes.get(self.at).copied().ok_or(Detour)
    }

    #[inline(always)]
    fn take(&mut self, expected: u8) -> Result<()> {
        if !self.peek_is(expected) && self.peek_behind_space()? != expected {
            return Err(Detour);
        }
        self.at += 1;
        Ok(())
    }

    #[inline(always)]
    fn take_word(&mut self, word: &[u8]) -> Result<()> {
        let rest = self.bytes.get(self.at..).ok_or(Detour)?;
        if !rest.starts_with(word) {
            return Err(Detour);
        }
        self.at += word.len();
        Ok(())
    }

    /// A string with its quotes, unless it has escapes: then the index of the first.
    #[inline(always)]
    fn plain_string(&mut self) -> Result<std::result::Result<&'de str, usize>> {
        self.take(b'"')?;
        let start = self.at;
        let bytes = self.text.as_bytes();
        // Most strings end within one step, and most lie well before the end of the batch.
        let stop = match bytes.get(start..).and_then(<[u8]>::first_chunk) {
            Some(chunk) => match special(chunk) {
                0 => plain_end(bytes, start + STEP),
                mask => start + mask.trailing_zeros() as usize,
            },
            None => plain_end(bytes, start),
        };
        // It may lie behind the value's end.
        match self.bytes.get(stop) {
            Some(b'"') => {
                self.at = stop + 1;
                Ok(Ok(self.text.get(start..stop).ok_or(Detour)?))
            }
            Some(b'\\') => Ok(Err(stop)),
            _ => Err(Detour),
        }
    }

    /// The rest of a string whose first escape is at `stop`.
    #[cold]
    fn escaped_string(&mut self, mut stop: usize) -> Result<String> {
        let mut string = String::with_capacity(2 * (stop - self.at) + 16);
        loop {
            string.push_str(self.text.get(self.at..stop).ok_or(Detour)?);
            self.at = stop + 1;
            match self.bytes.get(stop) {
                Some(b'"') => return Ok(string),
                Some(b'\\') => string.push(self.escape()?),
                _ => return Err(Detour),
            }
            stop = plain_end(self.bytes, self.at);
        }
    }

    /// What stands behind a backslash.
    fn escape(&mut self) -> Result<char> {
        let kind = *self.bytes.get(self.at).ok_or(Detour)?;
        self.at += 1;
        Ok(match kind {
            b'"' | b'\\' | b'/' => char::from(kind),
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'u' => return self.unicode_escape(),
            _ => return Err(Detour),
        })
    }

    fn unicode_escape(&mut self) -> Result<char> {
        let first = self.four_hex_digits()?;
        if !(0xd800..0xdc00).contains(&first) {
            return char::from_u32(first).ok_or(Detour);
        }
        self.take_word(b"\\u")?;
        let second = self.four_hex_digits()?;
        if !(0xdc00..0xe000).contains(&second) {
            return Err(Detour);
        }
        let character = 0x1_0000 + ((first - 0xd800) << 10) + (second - 0xdc00);
        char::from_u32(character).ok_or(Detour)
    }

    fn four_hex_digits(&mut self) -> Result<u32> {
        let digits = self.bytes.get(self.at..self.at + 4).ok_or(Detour)?;
        self.at += 4;
        digits.iter().try_fold(0, |number, &digit| {
            Ok(number << 4 | char::from(digit).to_digit(16).ok_or(Detour)?)
        })
    }

    #[inline(always)]
    fn number<V: Visitor<'de>>(&mut self, visitor: V) -> Result<V::Value> {
        let begin = self.at;
        let negative = self.peek_is(b'-');
        self.at += usize::from(negative);
        let start = self.at;
        let mut number = 0u64;
        while let Some(digits) = self
            .bytes
            .get(self.at..)
            .and_then(<[u8]>::first_chunk)
            .and_then(eight_digits)
        {
            number = number.wrapping_mul(100_000_000).wrapping_add(digits);
            self.at += 8;
        }
        while let Some(digit @ b'0'..=b'9') = self.bytes.get(self.at) {
            number = number
                .wrapping_mul(10)
                .wrapping_add(u64::from(digit - b'0'));
            self.at += 1;
        }
        let digits = self.at - start;
        if digits == 0 || digits > 1 && self.bytes[start] == b'0' {
            return Err(Detour);
        }
        if let Some(b'.' | b'e' | b'E') = self.bytes.get(self.at) {
            return visitor.visit_f64(self.float(begin)?);
        }
        if digits > DIGITS_MAX {
            return Err(Detour);
        }
        match (negative, number) {
            (false, _) => visitor.visit_u64(number),
            // serde_json reads it as a float.
            (true, 0) => Err(Detour),
            (true, _) => visitor.visit_i64(0i64.checked_sub_unsigned(number).ok_or(Detour)?),
        }
    }

    /// The number that begins at `begin` and whose integer digits have been taken.
    fn float(&mut self, begin: usize) -> Result<f64> {
        if self.peek_is(b'.') {
            self.at += 1;
            self.some_digits()?;
        }
        if self.peek_is(b'e') || self.peek_is(b'E') {
            self.at += 1;
            self.at += usize::from(self.peek_is(b'-') || self.peek_is(b'+'));
            self.some_digits()?;
        }
        let text = self.text.get(begin..self.at).ok_or(Detour)?;
        text.parse()
            .ok()
            .filter(|float: &f64| float.is_finite())
            .ok_or(Detour)
    }

    fn some_digits(&mut self) -> Result<()> {
        let start = self.at;
        while let Some(b'0'..=b'9') = self.bytes.get(self.at) {
            self.at += 1;
        }
        if self.at > start { Ok(()) } else { Err(Detour) }
    }

    #[inline(always)]
    fn peek_is(&self, byte: u8) -> bool {
        self.bytes.get(self.at) == Some(&byte)
    }

    #[inline(always)]
    fn object<V: Visitor<'de>>(&mut self, visitor: V) -> Result<V::Value> {
        self.open(b'{')?;
        let mut members = Members {
            reader: self,
            first: true,
            closed: false,
        };
        let value = visitor.visit_map(&mut members)?;
        if !members.closed {
            return Err(Detour);
        }
        self.depth -= 1;
        Ok(value)
    }

    fn array<V: Visitor<'de>>(&mut self, visitor: V) -> Result<V::Value> {
        self.open(b'[')?;
        let mut elements = Elements {
            reader: self,
            first: true,
            closed: false,
        };
        let value = visitor.visit_seq(&mut elements)?;
        if !elements.closed && elements.reader.take(b']').is_err() {
            return Err(Detour);
        }
        self.depth -= 1;
        Ok(value)
    }

    #[inline(always)]
    fn open(&mut self, bracket: u8) -> Result<()> {
        self.take(bracket)?;
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            Err(Detour)
        } else {
            Ok(())
        }
    }

    /// Goes to the next member or element: false at the closing bracket, which is taken.
    #[inline(always)]
    fn next(&mut self, first: &mut bool, close: u8) -> Result<bool> {
        if self.peek()? == close {
            self.at += 1;
            return Ok(false);
        }
        if !std::mem::replace(first, false) {
            self.take(b',')?;
        }
        Ok(true)
    }

    #[inline(always)]
    fn string<V: Visitor<'de>>(&mut self, visitor: V) -> Result<V::Value> {
        match self.plain_string()? {
            Ok(string) => visitor.visit_borrowed_str(string),
            Err(stop) => visitor.visit_string(self.escaped_string(stop)?),
        }
    }
}

impl<'de> Deserializer<'de> for &mut Reader<'de> {
    type Error = Detour;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        match self.peek()? {
            b'"' => self.string(visitor),
            b'{' => self.object(visitor),
            b'[' => self.array(visitor),
            b'-' | b'0'..=b'9' => self.number(visitor),
            b't' | b'f' => self.deserialize_bool(visitor),
            _ => self.deserialize_unit(visitor),
        }
    }

    #[inline(always)]
    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        let value = self.peek()? == b't';
        self.take_word(if value { b"true" } else { b"false" })?;
        visitor.visit_bool(value)
    }

    fn deserialize_unit<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        self.peek()?;
        self.take_word(b"null")?;
        visitor.visit_unit()
    }

    #[inline(always)]
    fn deserialize_u64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        self.peek()?;
        self.number(visitor)
    }

    fn deserialize_i64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        self.deserialize_u64(visitor)
    }

    #[inline(always)]
    fn deserialize_u32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        self.deserialize_u64(visitor)
    }

    fn deserialize_i32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        self.deserialize_u64(visitor)
    }

    fn deserialize_f64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        self.deserialize_u64(visitor)
    }

    #[inline(always)]
    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        self.string(visitor)
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        self.string(visitor)
    }

    fn deserialize_bytes<V: Visitor<'de>>(self, _: V) -> Result<V::Value> {
        Err(Detour)
    }

    fn deserialize_byte_buf<V: Visitor<'de>>(self, _: V) -> Result<V::Value> {
        Err(Detour)
    }

    #[inline(always)]
    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        if self.peek()? != b'n' {
            return visitor.visit_some(self);
        }
        self.take_word(b"null")?;
        visitor.visit_none()
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value> {
        if is_private(name) {
            Err(Detour)
        } else {
            visitor.visit_newtype_struct(self)
        }
    }

    #[inline(always)]
    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value> {
        self.object(visitor)
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        self.object(visitor)
    }

    /// A variant without content; the others are left to serde_json.
    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value> {
        let variant = self.plain_string()?.map_err(|_| Detour)?;
        visitor.visit_enum(BorrowedStrDeserializer::<Detour>::new(variant))
    }

    forward_to_deserialize_any! {
        i8 i16 u8 u16 f32 char unit_struct seq tuple tuple_struct identifier ignored_any
    }
}

struct Members<'r, 'de> {
    reader: &'r mut Reader<'de>,
    first: bool,
    closed: bool,
}

impl<'de> MapAccess<'de> for Members<'_, 'de> {
    type Error = Detour;

    #[inline(always)]
    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>> {
        if !self.reader.next(&mut self.first, b'}')? {
            self.closed = true;
            return Ok(None);
        }
        match self.reader.plain_string()? {
            Ok(key) => seed.deserialize(BorrowedStrDeserializer::new(key)),
            Err(stop) => {
                seed.deserialize(StringDeserializer::new(self.reader.escaped_string(stop)?))
            }
        }
        .map(Some)
    }

    #[inline(always)]
    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value> {
        self.reader.take(b':')?;
        seed.deserialize(&mut *self.reader)
    }
}

struct Elements<'r, 'de> {
    reader: &'r mut Reader<'de>,
    first: bool,
    closed: bool,
}

impl<'de> SeqAccess<'de> for Elements<'_, 'de> {
    type Error = Detour;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>> {
        if !self.reader.next(&mut self.first, b']')? {
            self.closed = true;
            return Ok(None);
        }
        seed.deserialize(&mut *self.reader).map(Some)
    }
}
