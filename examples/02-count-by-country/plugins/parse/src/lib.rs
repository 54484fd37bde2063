//! Makes the country of an order its key, and its amount, which is all that is added up behind, its value. What isn't such an
//! order fails.

#![deny(unsafe_code)]

use millstream_plugin::{Edit, Record, Result, Text, plugin};
use serde::{Deserialize, Serialize};

plugin!(map: by_country);

#[derive(Deserialize)]
struct Order<'a> {
    #[serde(borrow)]
    country: Text<'a>,
    /// In cents.
    amount: u64,
}

#[derive(Serialize)]
struct Amount {
    amount: u64,
}

fn by_country<'a>(record: Record<'a>) -> Result<Option<Edit<'a>>> {
    let Order { country, amount } = record.json()?;
    if country.is_empty() {
        return Err("`country` is empty".into());
    }
    let edit = Edit::new().key(country.into_owned().into_bytes());
    Ok(Some(edit.json(&Amount { amount })))
}

#[cfg(test)]
mod tests {
    use millstream_plugin::testing::{Harness, Input};
    use serde_json::json;

    use super::*;

    #[test]
    fn the_country_becomes_the_key_and_the_amount_the_value() {
        let mut parse = Harness::new::<Plugin>(json!({})).unwrap();
        let order = r#"{"order":"o1","customer":"c1","country":"DE","amount":1250}"#;
        let processed = parse.process(&[Input::new("c1", order).at(5)]);
        let [record] = &processed.records[..] else {
            panic!("{processed:?}")
        };
        assert_eq!(record.key_text(), "DE");
        assert_eq!(record.text(), r#"{"amount":1250}"#);
        assert_eq!(record.timestamp, 5);
    }

    #[test]
    fn what_is_no_order_fails() {
        let check = |value: &str, expected: &str| {
            let mut parse = Harness::new::<Plugin>(json!({})).unwrap();
            let processed = parse.process(&[Input::value(value)]);
            assert_eq!(processed.records, []);
            let reason = &processed.failures[0].1;
            assert!(reason.contains(expected), "{reason}");
        };
        check("hello", "expected value");
        check(r#"{"country":"DE"}"#, "missing field `amount`");
        check(
            r#"{"country":"DE","amount":-5}"#,
            "invalid value: integer `-5`",
        );
        check(
            r#"{"country":"DE","amount":"5"}"#,
            "invalid type: string \"5\"",
        );
        check(r#"{"country":"","amount":5}"#, "`country` is empty");
    }
}
