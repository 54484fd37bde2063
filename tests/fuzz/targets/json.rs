//! JSON that queries and indexes read: the first line has pointers, set apart by spaces, the rest is the text. What is JSON, and what
//! stands at each pointer, is as serde_json has it; numbers have one order, and codes that keep it.

#![no_main]

use libfuzzer_sys::fuzz_target;
use millstream_engine::json::{Number, POINTERS_MAX, Pointer, Scalar, find, is_json};
use serde::de::IgnoredAny;
use serde_json::Value;

/// From so many brackets on a text may be deeper than we read.
const DEPTH_MAX: usize = 128;

fuzz_target!(|data: &[u8]| {
    let end = data.iter().position(|byte| *byte == b'\n');
    let (first, text) = data.split_at(end.map_or(0, |end| end + 1));
    let first = std::str::from_utf8(first).unwrap_or_default();
    let pointers = first.trim_end().split(' ').filter_map(pointer);
    let pointers: Vec<Pointer> = pointers.take(POINTERS_MAX).collect();
    let found = find(text, &pointers);
    assert_eq!(found.is_some(), is_json(text));
    let theirs = std::str::from_utf8(text).ok();
    let is_theirs = theirs.is_some_and(|text| serde_json::from_str::<IgnoredAny>(text).is_ok());
    let brackets = text.iter().filter(|byte| matches!(byte, b'[' | b'{'));
    if brackets.count() <= DEPTH_MAX {
        assert_eq!(found.is_some(), is_theirs);
    } else {
        assert!(found.is_none() || is_theirs);
    }
    let Some(found) = found else {
        return;
    };
    // It refuses halves of surrogate pairs and numbers beyond doubles.
    if let Ok(value) = serde_json::from_slice::<Value>(text) {
        for (pointer, found) in pointers.iter().zip(&found) {
            check(found.as_ref(), value.pointer(&pointer.to_string()));
        }
    }
    let numbers = found.iter().flatten().filter_map(|found| match found {
        Scalar::Number(number) => Some(*number),
        _ => None,
    });
    check_order(&numbers.collect::<Vec<_>>());
    for scalar in found.iter().flatten() {
        assert_eq!(scalar.compare(scalar), Some(std::cmp::Ordering::Equal));
    }
});

fn pointer(text: &str) -> Option<Pointer> {
    let pointer = Pointer::parse(text).ok()?;
    assert_eq!(pointer.to_string(), text);
    Some(pointer)
}

fn check(found: Option<&Scalar<'_>>, expected: Option<&Value>) {
    let same = match (found, expected) {
        (None, None | Some(Value::Array(_) | Value::Object(_))) => true,
        (Some(Scalar::Null), Some(Value::Null)) => true,
        (Some(Scalar::Bool(found)), Some(Value::Bool(expected))) => found == expected,
        (Some(Scalar::Text(found)), Some(Value::String(expected))) => found == expected,
        (Some(Scalar::Number(found)), Some(Value::Number(expected))) => {
            let expected = expected.as_f64().expect("all of its numbers are doubles");
            is_near(as_f64(*found), expected)
        }
        _ => false,
    };
    assert!(same, "{found:?} is not {expected:?}");
}

fn as_f64(number: Number) -> f64 {
    match number {
        Number::Integer(integer) => integer as f64,
        Number::Real(real) => real,
    }
}

/// serde_json's doubles may be off by their last bits.
fn is_near(found: f64, expected: f64) -> bool {
    found == expected || (found - expected).abs() <= found.abs() * 1e-12 + 1e-300
}

fn check_order(numbers: &[Number]) {
    for this in numbers {
        assert!(this.code() >= Number::LEAST);
        for other in numbers {
            assert_eq!(this.cmp(other), other.cmp(this).reverse());
            assert_eq!(this == other, this.cmp(other).is_eq());
            if this <= other {
                assert!(this.code() <= other.code(), "{this:?} {other:?}");
            }
        }
    }
}
