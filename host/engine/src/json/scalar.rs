//! A scalar of a JSON value, and how scalars compare: only with their own kind. Numbers compare by what they are worth, texts by
//! their code points.

use std::borrow::Cow;
use std::cmp::Ordering;

use super::{Pointer, find};

#[derive(Clone, Debug, PartialEq)]
pub enum Scalar<'j> {
    Null,
    Bool(bool),
    Number(Number),
    Text(Cow<'j, str>),
}

/// Invariant: a `Real` is no integer of 128 bits; so a number has one form, and 1, 1.0 and 1e0 are equal.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Number {
    Integer(i128),
    Real(f64),
}

impl Scalar<'_> {
    /// The operand of a comparison as people write it: a JSON number, `true`, `false`, `null` or a quoted string; anything else
    /// stands for itself as a string.
    pub fn of_operand(text: &str) -> Scalar<'static> {
        let whole = [Pointer::parse("").expect("the empty pointer is one")];
        match find(text.as_bytes(), &whole).and_then(|mut found| found.remove(0)) {
            Some(scalar) => scalar.into_owned(),
            None => Scalar::Text(Cow::Owned(text.to_owned())),
        }
    }

    pub fn into_owned(self) -> Scalar<'static> {
        match self {
            Self::Null => Scalar::Null,
            Self::Bool(truth) => Scalar::Bool(truth),
            Self::Number(number) => Scalar::Number(number),
            Self::Text(text) => Scalar::Text(Cow::Owned(text.into_owned())),
        }
    }

    /// `None` for two of different kinds.
    pub fn compare(&self, other: &Scalar<'_>) -> Option<Ordering> {
        match (self, other) {
            (Scalar::Null, Scalar::Null) => Some(Ordering::Equal),
            (Scalar::Bool(this), Scalar::Bool(other)) => Some(this.cmp(other)),
            (Scalar::Number(this), Scalar::Number(other)) => Some(this.cmp(other)),
            (Scalar::Text(this), Scalar::Text(other)) => Some(this.cmp(other)),
            _ => None,
        }
    }
}

impl Number {
    /// Of a number as JSON writes it.
    pub fn of_json(text: &str) -> Self {
        if let Ok(integer) = text.parse() {
            return Self::Integer(integer);
        }
        let real: f64 = text.parse().expect("JSON's numbers are Rust's too");
        // The first double past 128 bits is 2^127.
        const END: f64 = 170_141_183_460_469_231_731_687_303_715_884_105_728.0;
        if real.fract() == 0.0 && (-END..END).contains(&real) {
            #[expect(clippy::cast_possible_truncation, reason = "the range was asked for")]
            return Self::Integer(real as i128);
        }
        Self::Real(real)
    }

    /// Numbers in their order, as unsigned integers; what differs by less than a double can tell has one code. None is
    /// below [`Number::LEAST`].
    pub fn code(self) -> u64 {
        #[expect(
            clippy::cast_precision_loss,
            reason = "documented: codes are as coarse as doubles"
        )]
        let real = match self {
            Self::Integer(integer) => integer as f64,
            Self::Real(real) => real,
        };
        let bits = real.to_bits();
        if real.is_sign_negative() {
            !bits
        } else {
            bits | 1 << 63
        }
    }

    /// The code of minus infinity: a number of 400 digits reads as that.
    pub const LEAST: u64 = !f64::NEG_INFINITY.to_bits();
}

impl Eq for Number {}

impl PartialOrd for Number {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Number {
    fn cmp(&self, other: &Self) -> Ordering {
        match (*self, *other) {
            (Self::Integer(this), Self::Integer(other)) => this.cmp(&other),
            (Self::Real(this), Self::Real(other)) => this.total_cmp(&other),
            (Self::Integer(this), Self::Real(other)) => against_real(this, other),
            (Self::Real(this), Self::Integer(other)) => against_real(other, this).reverse(),
        }
    }
}

/// A real is broken, and then an integer of its size has an exact double; or it is beyond all integers, and the largest ones round
/// to 2^127 at most.
fn against_real(integer: i128, real: f64) -> Ordering {
    #[expect(clippy::cast_precision_loss, reason = "see above")]
    (integer as f64).total_cmp(&real).then(Ordering::Less)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_compare_by_what_they_are_worth() {
        let ascending = [
            "-1e999",
            "-1e40",
            "-170141183460469231731687303715884105728",
            "-9007199254740993",
            "-9007199254740992",
            "-1.5",
            "-1",
            "0",
            "1e-3",
            "0.5",
            "1",
            "1.25",
            "9007199254740992",
            "9007199254740993",
            "170141183460469231731687303715884105727",
            "170141183460469231731687303715884105728",
            "1e40",
        ];
        let numbers = ascending.map(Number::of_json);
        assert!(numbers.is_sorted_by(|a, b| a < b), "{numbers:?}");
        assert!(numbers.is_sorted_by_key(|number| number.code()));
        assert!(numbers.iter().all(|number| number.code() >= Number::LEAST));
        for same in ["1", "1.0", "1e0", "10e-1"] {
            assert_eq!(Number::of_json(same), Number::Integer(1), "{same}");
        }
        assert_eq!(Number::of_json("-0.0"), Number::of_json("0"));
    }

    #[test]
    fn operands_are_json_scalars_or_texts() {
        let text = |text: &str| Scalar::Text(Cow::Owned(text.to_owned()));
        let check = |written: &str, expected| {
            assert_eq!(Scalar::of_operand(written), expected, "{written}");
        };
        check("DE", text("DE"));
        check("\"5\"", text("5"));
        check("5", Scalar::Number(Number::Integer(5)));
        check("5.", text("5."));
        check("007", text("007"));
        check("null", Scalar::Null);
        check("True", text("True"));
        check("true", Scalar::Bool(true));
        check("", text(""));
        check("[1]", text("[1]"));
        check("\"\\u00e4\"", text("ä"));
        check("\"open", text("\"open"));
        check("a\u{0}b", text("a\u{0}b"));
    }
}
