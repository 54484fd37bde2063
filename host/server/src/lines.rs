//! Records as lines of JSON: what `--feed` reads and `--out` writes.
//!
//! A line is an object of `key`, `value`, `headers`, `timestamp` and `partition`, of which `value` must be there; any other JSON is a
//! bare value. A string stands for its text, null for none, and other JSON for its own text, byte for byte as written. What is not
//! UTF-8 stands in `key_base64` and `value_base64`.

use std::borrow::Cow;
use std::collections::BTreeMap;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use millstream_broker::Record;
use serde_json::value::RawValue;

const FIELDS: [&str; 7] = [
    "key",
    "key_base64",
    "value",
    "value_base64",
    "headers",
    "timestamp",
    "partition",
];

/// What `--out` says on top of that, and `--feed` doesn't need.
const PLACE: [&str; 2] = ["topic", "offset"];

/// Name and value.
pub type Header = (String, Option<Vec<u8>>);

/// A record as a line says it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Line<'a> {
    pub key: Option<Cow<'a, [u8]>>,
    pub value: Option<Cow<'a, [u8]>>,
    /// In their order.
    pub headers: Vec<Header>,
    /// Milliseconds since 1970-01-01 UTC.
    pub timestamp: Option<i64>,
    pub partition: Option<u32>,
}

/// Reads a line, without its end.
///
/// # Errors
///
/// What is wrong with it.
pub fn parse(line: &[u8]) -> Result<Line<'_>, String> {
    let text = std::str::from_utf8(line).map_err(|_| "is not UTF-8")?;
    let raw: &RawValue = serde_json::from_str(text).map_err(|error| not_json(&error))?;
    let fields = serde_json::from_str::<BTreeMap<Cow<'_, str>, &RawValue>>(text).ok();
    let record = fields.filter(|fields| {
        let known = |name: &Cow<'_, str>| FIELDS.contains(&&**name) || PLACE.contains(&&**name);
        let has_value = fields.contains_key("value") || fields.contains_key("value_base64");
        has_value && fields.keys().all(known)
    });
    let Some(fields) = record else {
        return Ok(Line {
            value: bytes(raw)?,
            ..Line::default()
        });
    };
    let field = |name: &str| fields.get(name).copied();
    let either = |name: &str| match (field(name), field(&format!("{name}_base64"))) {
        (Some(_), Some(_)) => Err(format!("has both `{name}` and `{name}_base64`")),
        (Some(raw), None) => bytes(raw).map_err(|why| format!("`{name}` {why}")),
        (None, Some(raw)) => decode(raw)
            .map(|bytes| Some(Cow::Owned(bytes)))
            .ok_or_else(|| format!("`{name}_base64` is no base64 text")),
        (None, None) => Ok(None),
    };
    let number = |name: &str| {
        let read = |raw: &RawValue| serde_json::from_str::<i64>(raw.get());
        field(name)
            .map(read)
            .transpose()
            .map_err(|_| format!("`{name}` is no whole number"))
    };
    let partition = number("partition")?;
    let partition = partition.map(u32::try_from).transpose();
    Ok(Line {
        key: either("key")?,
        value: either("value")?,
        headers: field("headers").map_or(Ok(Vec::new()), headers)?,
        timestamp: number("timestamp")?,
        partition: partition.map_err(|_| "`partition` is no partition's number")?,
    })
}

fn not_json(error: &serde_json::Error) -> String {
    // The line's number is ours to say.
    let text = error.to_string();
    let (what, _) = text.rsplit_once(" at line").unwrap_or((&text, ""));
    format!("is not JSON: {what} at column {}", error.column())
}

/// A text's own bytes; of anything else those that stand there.
fn bytes(raw: &RawValue) -> Result<Option<Cow<'_, [u8]>>, String> {
    Ok(match raw.get() {
        "null" => None,
        text if text.starts_with('"') => {
            // JSON can write halves of characters, which no text has.
            let text = serde_json::from_str::<String>(text);
            let text = text.map_err(|error| format!("is no text: {error}"))?;
            Some(Cow::Owned(text.into_bytes()))
        }
        text => Some(Cow::Borrowed(text.as_bytes())),
    })
}

fn decode(raw: &RawValue) -> Option<Vec<u8>> {
    let text: String = serde_json::from_str(raw.get()).ok()?;
    BASE64_STANDARD.decode(text).ok()
}

/// `{"name": "value"}`, or `[["name", "value"], …]` where names repeat.
fn headers(raw: &RawValue) -> Result<Vec<Header>, String> {
    let owned = |value: Option<String>| value.map(String::into_bytes);
    if let Ok(list) = serde_json::from_str::<Vec<(String, Option<String>)>>(raw.get()) {
        return Ok(list
            .into_iter()
            .map(|(name, value)| (name, owned(value)))
            .collect());
    }
    let map = serde_json::from_str::<BTreeMap<String, Option<String>>>(raw.get());
    let map =
        map.map_err(|_| "`headers` is neither an object of texts nor a list of pairs of texts")?;
    Ok(map
        .into_iter()
        .map(|(name, value)| (name, owned(value)))
        .collect())
}

/// Writes a record as a line, with where it stands.
pub fn write(out: &mut Vec<u8>, topic: &str, partition: u32, record: &Record<'_>) {
    let text = |text: &str| serde_json::to_string(text).expect("texts can be written as JSON");
    out.extend_from_slice(
        format!(
            "{{\"topic\":{},\"partition\":{partition},\"offset\":{},\"timestamp\":{}",
            text(topic),
            record.offset,
            record.timestamp
        )
        .as_bytes(),
    );
    for (name, bytes) in [("key", record.key), ("value", record.value)] {
        let field = match bytes.map(|bytes| (bytes, std::str::from_utf8(bytes))) {
            None => format!(",\"{name}\":null"),
            Some((_, Ok(json))) if stands_for_itself(json) => format!(",\"{name}\":{json}"),
            Some((_, Ok(plain))) => format!(",\"{name}\":{}", text(plain)),
            Some((bytes, Err(_))) => {
                format!(",\"{name}_base64\":\"{}\"", BASE64_STANDARD.encode(bytes))
            }
        };
        out.extend_from_slice(field.as_bytes());
    }
    let headers: Vec<_> = record
        .headers
        .map(|(name, value)| (lossy(name), value.map(lossy)))
        .collect();
    if !headers.is_empty() {
        let headers = serde_json::to_string(&headers).expect("texts can be written as JSON");
        out.extend_from_slice(format!(",\"headers\":{headers}").as_bytes());
    }
    out.extend_from_slice(b"}\n");
}

fn lossy(bytes: &[u8]) -> Cow<'_, str> {
    String::from_utf8_lossy(bytes)
}

/// JSON of one line that `parse` would read back as the same bytes.
fn stands_for_itself(text: &str) -> bool {
    let line = !text.contains(['\n', '\r']) && text.trim() == text;
    line && !text.starts_with('"')
        && text != "null"
        && serde_json::from_str::<&RawValue>(text).is_ok()
}

#[cfg(test)]
mod tests {
    use millstream_broker::Records;

    use super::*;

    #[track_caller]
    fn check(line: &str, key: Option<&str>, value: Option<&str>) {
        let parsed = parse(line.as_bytes()).expect(line);
        let text = |bytes: &Option<Cow<'_, [u8]>>| bytes.as_deref().map(|b| lossy(b).into_owned());
        let found = (text(&parsed.key), text(&parsed.value));
        assert_eq!(
            found,
            (key.map(Into::into), value.map(Into::into)),
            "{line}"
        );
    }

    #[test]
    fn records_and_bare_values() {
        check(
            r#"{"key": "a", "value": {"n": 1.50}}"#,
            Some("a"),
            Some(r#"{"n": 1.50}"#),
        );
        check(r#"{"key": 7, "value": null}"#, Some("7"), None);
        check(
            r#"{"value": "{\"broken\": "}"#,
            None,
            Some(r#"{"broken": "#),
        );
        check(
            r#"{"value": 1, "topic": "t", "offset": 3}"#,
            None,
            Some("1"),
        );
        check(
            r#"{"key_base64": "YQ==", "value_base64": "YmM="}"#,
            Some("a"),
            Some("bc"),
        );
        // Bare values: no object, no value, or something else beside it.
        check("17", None, Some("17"));
        check(r#""text""#, None, Some("text"));
        check("null", None, None);
        check(r#"{"key": "a"}"#, None, Some(r#"{"key": "a"}"#));
        check(
            r#"{"value": 1, "unit": "m"}"#,
            None,
            Some(r#"{"value": 1, "unit": "m"}"#),
        );
    }

    #[test]
    fn further_fields() {
        let line = r#"{"value":"v","headers":[["h","1"],["h",null]],"timestamp":5,"partition":3}"#;
        let parsed = parse(line.as_bytes()).expect(line);
        let headers = [
            ("h".to_owned(), Some(b"1".to_vec())),
            ("h".to_owned(), None),
        ];
        assert_eq!(parsed.headers, headers);
        assert_eq!((parsed.timestamp, parsed.partition), (Some(5), Some(3)));
    }

    #[test]
    fn broken_lines() {
        let check = |line: &[u8], expected: &str| {
            assert_eq!(parse(line).expect_err("a broken line"), expected);
        };
        check(
            b"{\"a\": ",
            "is not JSON: EOF while parsing a value at column 6",
        );
        check(b"\xff", "is not UTF-8");
        check(
            br#"{"value":1,"timestamp":"now"}"#,
            "`timestamp` is no whole number",
        );
        check(
            br#"{"value":1,"partition":-1}"#,
            "`partition` is no partition's number",
        );
        check(
            br#""\ud800""#,
            "is no text: unexpected end of hex escape at line 1 column 8",
        );
        check(
            br#"{"key":"\udc00","value":1}"#,
            "`key` is no text: lone leading surrogate in hex escape at line 1 column 7",
        );
        check(
            br#"{"value":1,"headers":7}"#,
            "`headers` is neither an object of texts nor a list of pairs of texts",
        );
        check(
            br#"{"value":1,"value_base64":"YQ=="}"#,
            "has both `value` and `value_base64`",
        );
        check(
            br#"{"value_base64":"?"}"#,
            "`value_base64` is no base64 text",
        );
    }

    #[test]
    fn what_is_written_reads_back() {
        for value in [
            "{\"a\":1}",
            "text",
            "null",
            "\"quoted\"",
            " 1",
            "[1,\n2]",
            "",
            "17",
        ] {
            let mut records = Records::default();
            let headers = std::iter::once((&b"h"[..], None));
            records.push(9, Some(b"\xff\x00"), Some(value.as_bytes()), headers);
            let record = records.iter().next().expect("one was pushed");
            let mut line = Vec::new();
            write(&mut line, "t", 2, &record);
            let line = line.strip_suffix(b"\n").expect("it ends a line");
            let parsed = parse(line).expect("it reads back");
            assert_eq!(parsed.value.as_deref(), Some(value.as_bytes()));
            assert_eq!(parsed.key.as_deref(), Some(&b"\xff\x00"[..]));
            assert_eq!((parsed.timestamp, parsed.partition), (Some(9), Some(2)));
            assert_eq!(parsed.headers, [("h".to_owned(), None)]);
        }
    }
}
