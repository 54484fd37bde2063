//! Reads JSON values for the scalars at a few pointers, in one pass that keeps nothing else.
//!
//! The whole text is checked, so that what is found never depends on which pointers were asked for. Where an object has a member
//! twice, the last one counts, as with most readers.

use std::borrow::Cow;

use super::{Number, Pointer, Scalar};

/// How many pointers can be asked for at once.
pub const POINTERS_MAX: usize = 32;

/// How deep arrays and objects may stand in one another; a text with deeper ones is not taken for JSON.
const DEPTH_MAX: usize = 128;

/// What stands at each pointer: none where there is nothing, an array or an object. `None` if the text isn't JSON in UTF-8.
pub fn find<'j>(text: &'j [u8], pointers: &[Pointer]) -> Option<Vec<Option<Scalar<'j>>>> {
    assert!(pointers.len() <= POINTERS_MAX, "callers limit them");
    let mut reader = Reader {
        text: std::str::from_utf8(text).ok()?,
        at: 0,
        pointers,
        found: vec![None; pointers.len()],
    };
    let all = pointers
        .iter()
        .enumerate()
        .fold(0, |all, (at, _)| all | 1 << at);
    reader.blank();
    reader.value(all, 0)?;
    reader.blank();
    (reader.at == text.len()).then_some(reader.found)
}

/// Whether the whole text is JSON in UTF-8.
pub fn is_json(text: &[u8]) -> bool {
    find(text, &[]).is_some()
}

struct Reader<'j, 'p> {
    text: &'j str,
    at: usize,
    pointers: &'p [Pointer],
    found: Vec<Option<Scalar<'j>>>,
}

/// A string between its quotes.
struct Raw<'j> {
    text: &'j str,
    escaped: bool,
}

/// Each reads what its name says and stands behind it then, or answers `None`: that isn't JSON.
impl<'j> Reader<'j, '_> {
    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn take(&mut self, byte: u8) -> Option<()> {
        (self.peek()? == byte).then(|| self.at += 1)
    }

    fn blank(&mut self) {
        while let Some(b' ' | b'\n' | b'\r' | b'\t') = self.peek() {
            self.at += 1;
        }
    }

    /// A value at `depth`. `wanted` has a bit for each pointer that leads here or through here.
    fn value(&mut self, wanted: u32, depth: usize) -> Option<()> {
        let scalar = match self.peek()? {
            b'{' => return self.object(wanted, depth),
            b'[' => return self.array(wanted, depth),
            b'"' => {
                let raw = self.string()?;
                if wanted == 0 {
                    return Some(());
                }
                Scalar::Text(raw.unescaped())
            }
            b't' => self.word("true", Scalar::Bool(true))?,
            b'f' => self.word("false", Scalar::Bool(false))?,
            b'n' => self.word("null", Scalar::Null)?,
            _ => {
                let number = self.number()?;
                if wanted == 0 {
                    return Some(());
                }
                Scalar::Number(Number::of_json(number))
            }
        };
        for at in bits(wanted) {
            if self.pointers[at].tokens().len() == depth {
                self.found[at] = Some(scalar.clone());
            }
        }
        Some(())
    }

    fn object(&mut self, wanted: u32, depth: usize) -> Option<()> {
        if depth == DEPTH_MAX {
            return None;
        }
        self.at += 1;
        self.blank();
        if self.take(b'}').is_some() {
            return Some(());
        }
        loop {
            self.blank();
            let name = self.string()?;
            let wanted = if wanted == 0 {
                0
            } else {
                self.narrowed(wanted, depth, &name.unescaped())
            };
            self.blank();
            self.take(b':')?;
            self.blank();
            self.value(wanted, depth + 1)?;
            self.blank();
            if self.take(b'}').is_some() {
                return Some(());
            }
            self.take(b',')?;
        }
    }

    fn array(&mut self, wanted: u32, depth: usize) -> Option<()> {
        if depth == DEPTH_MAX {
            return None;
        }
        self.at += 1;
        self.blank();
        if self.take(b']').is_some() {
            return Some(());
        }
        for index in 0_usize.. {
            self.blank();
            let wanted = if wanted == 0 {
                0
            } else {
                self.narrowed(wanted, depth, &index.to_string())
            };
            self.value(wanted, depth + 1)?;
            self.blank();
            if self.take(b']').is_some() {
                return Some(());
            }
            self.take(b',')?;
        }
        None
    }

    /// Of the pointers that lead here, those whose next part is `token`. They are looked up anew: what an earlier member of this
    /// name had for them doesn't count.
    fn narrowed(&mut self, wanted: u32, depth: usize, token: &str) -> u32 {
        let mut narrowed = 0;
        for at in bits(wanted) {
            if self.pointers[at]
                .tokens()
                .get(depth)
                .is_some_and(|next| next == token)
            {
                narrowed |= 1 << at;
                self.found[at] = None;
            }
        }
        narrowed
    }

    fn word(&mut self, word: &str, meaning: Scalar<'static>) -> Option<Scalar<'static>> {
        let rest = self.text.as_bytes().get(self.at..self.at + word.len())?;
        (rest == word.as_bytes()).then(|| {
            self.at += word.len();
            meaning
        })
    }

    fn string(&mut self) -> Option<Raw<'j>> {
        self.take(b'"')?;
        let from = self.at;
        let mut escaped = false;
        loop {
            let rest = &self.text.as_bytes()[self.at..];
            self.at += rest
                .iter()
                .position(|&byte| matches!(byte, b'"' | b'\\' | 0..0x20))?;
            match self.peek()? {
                b'"' => break,
                b'\\' => {
                    escaped = true;
                    self.at += self.escape()?;
                }
                _ => return None,
            }
        }
        let text = &self.text[from..self.at];
        self.at += 1;
        Some(Raw { text, escaped })
    }

    /// How long the escape is that begins here.
    fn escape(&self) -> Option<usize> {
        let rest = &self.text.as_bytes()[self.at + 1..];
        match rest.first()? {
            b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => Some(2),
            b'u' => rest
                .get(1..5)?
                .iter()
                .all(u8::is_ascii_hexdigit)
                .then_some(6),
            _ => None,
        }
    }

    fn number(&mut self) -> Option<&'j str> {
        let from = self.at;
        let _ = self.take(b'-');
        if self.take(b'0').is_none() {
            self.digits()?;
        }
        if self.take(b'.').is_some() {
            self.digits()?;
        }
        if let Some(b'e' | b'E') = self.peek() {
            self.at += 1;
            if let Some(b'+' | b'-') = self.peek() {
                self.at += 1;
            }
            self.digits()?;
        }
        Some(&self.text[from..self.at])
    }

    fn digits(&mut self) -> Option<()> {
        let from = self.at;
        while self.peek().is_some_and(|byte| byte.is_ascii_digit()) {
            self.at += 1;
        }
        (self.at > from).then_some(())
    }
}

impl<'j> Raw<'j> {
    /// Half of a surrogate pair becomes U+FFFD: JSON allows it, and no string can hold it.
    fn unescaped(&self) -> Cow<'j, str> {
        if !self.escaped {
            return Cow::Borrowed(self.text);
        }
        let mut plain = String::with_capacity(self.text.len());
        let mut rest = self.text;
        while let Some(at) = rest.find('\\') {
            plain.push_str(&rest[..at]);
            let sign = match rest.as_bytes()[at + 1] {
                b'b' => '\u{8}',
                b'f' => '\u{c}',
                b'n' => '\n',
                b'r' => '\r',
                b't' => '\t',
                b'u' => {
                    let (sign, length) = unicode(&rest[at..]);
                    plain.push(sign);
                    rest = &rest[at + length..];
                    continue;
                }
                other => char::from(other),
            };
            plain.push(sign);
            rest = &rest[at + 2..];
        }
        plain.push_str(rest);
        Cow::Owned(plain)
    }
}

/// The sign of a `\u` escape, or of two that make a pair, and how long that is. The escapes have been checked.
fn unicode(text: &str) -> (char, usize) {
    let unit = |text: &str| {
        let digits = text.strip_prefix("\\u").and_then(|rest| rest.get(..4))?;
        u32::from_str_radix(digits, 16).ok()
    };
    let first = unit(text).expect("escape() found four digits");
    if let (0xd800..0xdc00, Some(second @ 0xdc00..0xe000)) = (first, text.get(6..).and_then(unit)) {
        let code = 0x10000 + ((first - 0xd800) << 10) + (second - 0xdc00);
        return (
            char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER),
            12,
        );
    }
    (
        char::from_u32(first).unwrap_or(char::REPLACEMENT_CHARACTER),
        6,
    )
}

/// Which bits are set.
fn bits(mut set: u32) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        let at = (set != 0).then_some(set.trailing_zeros())?;
        set &= set - 1;
        Some(at as usize)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, pointers: &[&str], expected: Option<&[&str]>) {
        let pointers: Vec<_> = pointers
            .iter()
            .map(|text| Pointer::parse(text).unwrap())
            .collect();
        let found = find(text.as_bytes(), &pointers);
        let found = found.map(|found| found.iter().map(shown).collect::<Vec<_>>());
        let expected = expected.map(|expected| expected.iter().map(ToString::to_string).collect());
        assert_eq!(found, expected, "{text}");
    }

    fn shown(found: &Option<Scalar<'_>>) -> String {
        match found {
            None => "-".into(),
            Some(Scalar::Null) => "null".into(),
            Some(Scalar::Bool(truth)) => truth.to_string(),
            Some(Scalar::Number(Number::Integer(number))) => number.to_string(),
            Some(Scalar::Number(Number::Real(number))) => number.to_string(),
            Some(Scalar::Text(text)) => format!("{text:?}"),
        }
    }

    #[test]
    fn finds_scalars() {
        let text =
            r#" {"a": {"b": [10, {"c": "x"}], "d": null}, "e": -2.5, "": true, "f/g": "~"} "#;
        check(
            text,
            &[
                "/a/b/0", "/a/b/1/c", "/a/d", "/e", "/", "/f~1g", "/a", "/a/b/2", "/a/b/00",
                "/a/b/-", "", "/e/x",
            ],
            Some(&[
                "10", "\"x\"", "null", "-2.5", "true", "\"~\"", "-", "-", "-", "-", "-", "-",
            ]),
        );
        check("5", &["", "/a"], Some(&["5", "-"]));
        check(r#"{"a":1,"a":[2]}"#, &["/a", "/a/0"], Some(&["-", "2"]));
        check(
            r#"{"a":[2],"a":{"0":3}}"#,
            &["/a", "/a/0"],
            Some(&["-", "3"]),
        );
        check(
            r#"{"\u0061\n":"\ud83d\ude00\ud83d\/"}"#,
            &["/a\n"],
            Some(&["\"😀\u{fffd}/\""]),
        );
    }

    #[test]
    fn what_is_not_json_has_nothing() {
        let deep = format!("{}1{}", "[".repeat(129), "]".repeat(129));
        let wrong = [
            "",
            " ",
            "{",
            "}",
            "[1,]",
            "[,1]",
            "{\"a\":1,}",
            "{\"a\"}",
            "{a:1}",
            "01",
            "+1",
            "1.",
            ".5",
            "1e",
            "-",
            "nul",
            "truee",
            "\"",
            "\"\\x\"",
            "\"\\u12g4\"",
            "\"\t\"",
            "1 2",
            "{\"a\":1} x",
            "NaN",
            "'a'",
            "[1 2]",
            "[1}",
            &deep,
        ];
        for text in wrong {
            check(text, &["/a"], None);
            assert!(
                serde_json::from_str::<serde_json::Value>(text).is_err(),
                "{text}"
            );
        }
        assert!(!is_json(b"\"\xff\"") && is_json(b"\"\xc3\xa4\""));
        let fine = format!("{}1{}", "[".repeat(127), "]".repeat(127));
        assert!(is_json(fine.as_bytes()));
    }

    /// Texts put together and damaged at random are JSON for us exactly when they are for serde_json, with the same scalars.
    #[test]
    fn agrees_with_serde_json() {
        let pieces = [
            "{",
            "}",
            "[",
            "]",
            ",",
            ":",
            "\"a\"",
            "\"b\"",
            "\"\\n\"",
            "1",
            "-0.5e-3",
            "true",
            "null",
            " ",
            "{\"a\":",
            "\"a\":[1,{\"b\":2}]",
        ];
        let pointers = ["", "/a", "/a/0", "/a/1/b", "/b"];
        let parsed: Vec<_> = pointers
            .iter()
            .map(|text| Pointer::parse(text).unwrap())
            .collect();
        let mut state = 1_u64;
        let mut draw = |below: usize| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            usize::try_from(state >> 33).unwrap() % below
        };
        let mut sound = 0;
        for _ in 0..200_000 {
            let text: String = (0..=draw(7)).map(|_| pieces[draw(pieces.len())]).collect();
            let theirs = serde_json::from_str::<serde_json::Value>(&text).ok();
            let ours = find(text.as_bytes(), &parsed);
            assert_eq!(ours.is_some(), theirs.is_some(), "{text}");
            let (Some(ours), Some(theirs)) = (ours, theirs) else {
                continue;
            };
            sound += 1;
            for (at, pointer) in pointers.iter().enumerate() {
                let expected = theirs
                    .pointer(pointer)
                    .filter(|value| !value.is_array() && !value.is_object());
                let found = ours[at].as_ref().map(|scalar| match scalar {
                    Scalar::Null => serde_json::Value::Null,
                    Scalar::Bool(truth) => (*truth).into(),
                    Scalar::Number(Number::Integer(number)) => {
                        number.to_string().parse::<f64>().unwrap().into()
                    }

                    Scalar::Number(Number::Real(number)) => (*number).into(),
                    Scalar::Text(text) => text.as_ref().into(),
                });
                let same = match (&found, expected) {
                    (Some(found), Some(expected)) => {
                        // serde_json's doubles may be off by their last bit.
                        let near = |a: f64, b: f64| (a - b).abs() <= a.abs() * 1e-12;
                        found == expected
                            || (found.as_f64().zip(expected.as_f64()))
                                .is_some_and(|(a, b)| near(a, b))
                    }
                    (None, None) => true,
                    _ => false,
                };
                assert!(same, "{pointer} of {text}: {found:?}, {expected:?}");
            }
        }
        assert!(sound > 1_000, "{sound}");
    }
}
