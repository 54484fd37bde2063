//! Reading and writing agree with serde_json: same results, same bytes, same errors.

use std::collections::BTreeMap;
use std::fmt::Debug;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::*;

/// All documents are read out of one string, as records are out of a column.
const DOCUMENTS: &[&str] = &[
    r#"{"a":1,"b":"two","c":[1,2,3],"d":null,"e":true,"f":false,"g":{"h":{}},"i":[]}"#,
    "  { \"a\" : 1 ,\n\t\"b\" : [ 1 , \"x\" ] }\r\n ",
    "0",
    "-0",
    "-1",
    "00",
    "01",
    "-",
    "18446744073709551615",
    "18446744073709551616",
    "9999999999999999999",
    "-9223372036854775808",
    "-9223372036854775809",
    "1234567",
    "12345678",
    "1700000000000",
    "1.5",
    "-1.5e3",
    "1e400",
    "1.",
    ".5",
    "1e",
    "1e+2",
    "3.0",
    "1x",
    r#""""#,
    r#""a""#,
    r#""fifteen bytes..""#,
    r#""sixteen bytes...""#,
    r#""quite a bit longer than sixteen bytes, and Füße too""#,
    r#""\"\\\/\b\f\n\r\tA\u00e9\ud83d\ude00""#,
    r#""long enough to be over the first step, then \n an escape""#,
    r#""\ud83d""#,
    r#""\ud83d\u0041""#,
    r#""\ude00""#,
    r#""\u12g4""#,
    r#""\u+123""#,
    r#""\x""#,
    "\"tab\there\"",
    "\"open",
    "\"open\\",
    "true",
    "tru",
    "truee",
    "null",
    "nul",
    "",
    "   ",
    "[",
    "[1",
    "[1,",
    "[1,]",
    "[,1]",
    "[1 2]",
    "]",
    "{",
    "{}",
    r#"{"a"}"#,
    r#"{"a":}"#,
    r#"{"a":1,}"#,
    r#"{,"a":1}"#,
    r#"{a:1}"#,
    r#"{"a":1"b":2}"#,
    r#"{"a":1} x"#,
    r#"{"\u0061":1,"a":2}"#,
    r#"{1:2}"#,
];

fn check_read<'de, T>()
where
    T: Deserialize<'de> + PartialEq + Debug,
{
    let deep = ["[".repeat(200), "[".repeat(100) + &"]".repeat(100)];
    let documents = DOCUMENTS
        .iter()
        .copied()
        .chain(deep.iter().map(String::as_str));
    let documents: Vec<&str> = documents.collect();
    let column: &'de str = String::leak(documents.concat());
    let mut start = 0;
    for document in documents {
        let end = start + document.len();
        let expected = serde_json::from_str::<T>(&column[start..end]);
        let fast = read::value::<T>(column, start, end);
        if let Ok(fast) = fast {
            assert_eq!(fast, *expected.as_ref().unwrap(), "{document}");
        }
        let read = from_part::<T>(column, start, end).map_err(|error| error.to_string());
        assert_eq!(
            read,
            expected.map_err(|error| error.to_string()),
            "{document}"
        );
        start = end;
    }
}

#[derive(Debug, Deserialize, PartialEq, Serialize)]
enum Shape {
    Dot,
    Circle(u32),
    Segment(i32, i32),
    Rectangle { width: f64, height: f64 },
}

#[derive(Debug, Deserialize, PartialEq, Serialize)]
struct Everything<'a> {
    #[serde(borrow)]
    text: crate::Text<'a>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    maybe: Option<crate::Text<'a>>,
    small: i8,
    big: u64,
    wide: i128,
    float: f64,
    flag: bool,
    letter: char,
    nothing: (),
    pair: (u8, String),
    shapes: Vec<Shape>,
    by_name: BTreeMap<String, i64>,
    by_number: BTreeMap<u16, bool>,
    rest: Value,
}

fn everything() -> Everything<'static> {
    Everything {
        text: "plain".into(),
        maybe: Some("with \"quotes\" and \u{1} control".into()),
        small: -5,
        big: u64::MAX,
        wide: -170_141_183_460_469_231_731,
        float: 0.1,
        flag: true,
        letter: 'ß',
        nothing: (),
        pair: (7, "seven".to_owned()),
        shapes: vec![
            Shape::Dot,
            Shape::Circle(3),
            Shape::Segment(-1, 1),
            Shape::Rectangle {
                width: 1.5,
                height: f64::MAX,
            },
        ],
        by_name: BTreeMap::from([("a".to_owned(), 1), (String::new(), -1)]),
        by_number: BTreeMap::from([(1, true), (2, false)]),
        rest: serde_json::json!({"x": [1, -2, 3.5, null, {"y": "z"}], "w": {}}),
    }
}

fn check_write<T: Serialize + ?Sized>(value: &T) {
    let mut written = b"before".to_vec();
    write(value, &mut written).unwrap();
    let expected = "before".to_owned() + &serde_json::to_string(value).unwrap();
    assert_eq!(String::from_utf8(written).unwrap(), expected);
}

#[test]
fn reads_what_serde_json_reads() {
    check_read::<Value>();
    check_read::<u64>();
    check_read::<i8>();
    check_read::<f64>();
    check_read::<bool>();
    check_read::<()>();
    check_read::<String>();
    check_read::<&str>();
    check_read::<Option<u32>>();
    check_read::<Vec<u8>>();
    check_read::<(u8, u8)>();
    check_read::<char>();
    check_read::<Shape>();
    check_read::<BTreeMap<String, Value>>();
    check_read::<BTreeMap<u8, u8>>();
    check_read::<Everything<'_>>();
}

#[test]
fn writes_what_serde_json_writes() {
    check_write(&everything());
    check_write(&Everything {
        wide: 0,
        by_number: BTreeMap::new(),
        ..everything()
    });
    check_write(&everything().shapes);
    check_write(&[f64::NAN, f64::INFINITY, 0.0, -0.0, 1e300]);
    check_write(&[1.5f32, 0.1]);
    check_write(&(1u8, -2i16, 3u16, -4i32, 5u32, i64::MIN));
    check_write(&BTreeMap::from([(true, 1), (false, 2)]));
    for length in 0..40 {
        let mut text = "é".repeat(length);
        check_write(&text);
        text.push('\n');
        text.push_str("behind the escape");
        check_write(&text);
    }
    let all_bytes: String = (0..256).filter_map(char::from_u32).collect();
    check_write(&all_bytes);
}

#[test]
fn reads_what_it_wrote() {
    let mut written = Vec::new();
    write(&everything(), &mut written).unwrap();
    let text = String::from_utf8(written).unwrap();
    assert_eq!(from_str::<Everything<'_>>(&text).unwrap(), everything());
}

/// A detour costs twice the time and is easily overlooked.
#[test]
fn what_records_are_made_of_takes_no_detour() {
    #[derive(Debug, Deserialize, PartialEq, Serialize)]
    struct Event<'a> {
        #[serde(borrow)]
        name: crate::Text<'a>,
        price: f64,
        tags: Vec<String>,
        seen: Option<u64>,
        inner: BTreeMap<String, Value>,
        kind: Shape,
    }
    let text =
        r#"{"name":"a\tb","price":1.5,"tags":["x"],"seen":null,"inner":{"y":[-1]},"kind":"Dot"}"#;
    let event = read::value::<Event<'_>>(text, 0, text.len()).unwrap();
    let mut written = Vec::new();
    write::value(&event, &mut written).unwrap();
    assert_eq!(String::from_utf8(written).unwrap(), text);
}

#[test]
fn a_failed_write_leaves_nothing() {
    let mut written = b"before".to_vec();
    let unwritable = BTreeMap::from([(vec![1], 1)]);
    assert_eq!(
        write(&unwritable, &mut written).unwrap_err().to_string(),
        "key must be a string"
    );
    assert_eq!(written, b"before");
}

#[test]
fn strings_without_escapes_are_borrowed() {
    let text = from_str::<crate::Text<'_>>(r#""as it is""#).unwrap();
    assert!(text.is_borrowed());
    let text = from_str::<crate::Text<'_>>(r#""two\nlines""#).unwrap();
    assert!(!text.is_borrowed());
}
