//! Keeps number and sum of the amounts of each key in the state `totals`, and says with every record what they have become.

#![deny(unsafe_code)]

use millstream_plugin::{Edit, Record, Result, plugin, state};
use serde::{Deserialize, Serialize};

plugin!(map: count; state: "totals");

#[derive(Deserialize)]
struct Amount {
    amount: u64,
}

#[derive(Default, Deserialize, Serialize)]
struct Total {
    count: u64,
    sum: u64,
}

fn count<'a>(record: Record<'a>) -> Result<Option<Edit<'a>>> {
    let Amount { amount } = record.json()?;
    let key = record.key().ok_or("there is no key to count by")?;
    let totals = state("totals");
    let mut total = match totals.get(key)? {
        Some(found) => found.json()?,
        None => Total::default(),
    };
    total.count += 1;
    total.sum = total
        .sum
        .checked_add(amount)
        .ok_or("the sum is too large")?;
    totals.put_json(key, &total)?;
    Ok(Some(Edit::new().json(&total)))
}

#[cfg(test)]
mod tests {
    use millstream_plugin::testing::{Harness, Input, Table};
    use serde_json::json;

    use super::*;

    fn counter() -> Harness {
        let mut counter = Harness::new::<Plugin>(json!({})).unwrap();
        counter.set_state(Table::new("totals").with("DE", r#"{"count":2,"sum":30}"#));
        counter
    }

    fn order(country: &str, amount: u64) -> Input {
        Input::new(country, format!(r#"{{"amount":{amount}}}"#))
    }

    #[test]
    fn every_order_is_counted_and_tells_the_total() {
        let mut counter = counter();
        let orders = [order("DE", 5), order("FR", 0), order("DE", 1)];
        let processed = counter.process(&orders);
        let expected = [
            r#"{"count":3,"sum":35}"#,
            r#"{"count":1,"sum":0}"#,
            r#"{"count":4,"sum":36}"#,
        ];
        assert_eq!(processed.texts(), expected);
        let keys: Vec<&str> = processed.records.iter().map(|r| r.key_text()).collect();
        assert_eq!(keys, ["DE", "FR", "DE"]);
        let totals = [("DE", expected[2]), ("FR", expected[1])];
        assert_eq!(counter.state("totals").texts(), totals);
    }

    #[test]
    fn a_batch_is_one_call_to_read_and_one_to_write() {
        let processed = counter().process(&["DE", "FR", "DE", "US"].map(|key| order(key, 1)));
        assert_eq!(processed.fetches, [3]);
        assert_eq!(processed.puts.len(), 1);
    }

    #[test]
    fn what_fails_is_not_counted() {
        let mut counter = counter();
        let processed = counter.process(&[
            Input::value(r#"{"amount":1}"#),
            Input::new("DE", "1"),
            order("DE", u64::MAX),
            order("DE", 4),
        ]);
        let reasons: Vec<&str> = processed.failures.iter().map(|(_, why)| &**why).collect();
        assert_eq!(reasons[0], "there is no key to count by");
        assert!(reasons[1].contains("invalid type"), "{}", reasons[1]);
        assert_eq!(reasons[2..], ["the sum is too large"]);
        assert_eq!(processed.texts(), [r#"{"count":3,"sum":34}"#]);
    }
}
