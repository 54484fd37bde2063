//! Looking things up: few calls for many keys, and a record that is processed again leaves no trace of the times before.

use millstream_plugin::batch::{self, Batch, BatchTransform, Column, Outcome};
use millstream_plugin::testing::{Harness, Input, Table};
use millstream_plugin::{
    Edit, Lookup, NoConfig, Outputs, Record, Result, Transform, lookup, lookup_if_granted,
};
use serde::Deserialize;
use serde_json::json;

fn capitals() -> Table {
    Table::new("capitals")
        .with("DE", r#"{"name":"Berlin","note":"a \"city\""}"#)
        .with("FR", r#"{"name":"Paris"}"#)
        .with("", r#"{"name":"of nothing"}"#)
        .with("bad", [0xff])
}

#[derive(Deserialize)]
struct Capital<'a> {
    name: &'a str,
}

/// What a record's value asks for, space by space: a key's capital, or what comes behind `=`.
struct Chain {
    capitals: Lookup,
    plans: Option<Lookup>,
    runs: u32,
}

impl Transform for Chain {
    type Config = NoConfig;

    fn new(_: NoConfig) -> Result<Self> {
        Ok(Self {
            capitals: lookup("capitals"),
            plans: lookup_if_granted("plans"),
            runs: 0,
        })
    }

    fn needs(&self) -> batch::Needs {
        batch::Needs::none().port("other").headers()
    }

    fn process(&mut self, record: Record<'_>, out: &mut Outputs<'_>) -> Result<()> {
        self.runs += 1;
        out.port("other").emit().header("seen", "x");
        for word in record.text()?.split(' ') {
            match word.split_once('=') {
                Some(("key", key)) => {
                    out.emit().key(key);
                }
                Some(("time", at)) => {
                    out.emit().timestamp(at.parse()?);
                }
                Some(("plan", key)) => {
                    let plans = self.plans.as_ref().ok_or("there are no plans")?;
                    let plan = plans.get(key)?;
                    out.emit().value(plan.ok_or("no such plan")?);
                }
                Some(("fail", why)) => return Err(why.into()),
                // A mistake in a plugin: the pending error is swallowed.
                Some(("dare", key)) => {
                    let found = self.capitals.get(key).ok().flatten();
                    out.emit().value(if found.is_some() { "yes" } else { "no" });
                }
                _ => {
                    let found = self.capitals.get(word)?;
                    let name = match &found {
                        Some(found) => found.json::<Capital<'_>>()?.name,
                        None => "nothing",
                    };
                    out.emit().value(name);
                }
            }
        }
        Ok(())
    }
}

fn chain() -> Harness {
    let plans = Table::new("plans").with("pro", "the best");
    Harness::with_tables::<Chain>(json!({}), [capitals(), plans]).expect("its tables are granted")
}

fn values(texts: &[&str]) -> Vec<Input> {
    texts.iter().map(|text| Input::value(*text)).collect()
}

#[test]
fn a_batch_is_one_call() {
    let processed = chain().process(&values(&["DE", "FR", "DE", "XX", ""]));
    let found: Vec<&str> = processed
        .port("")
        .iter()
        .map(|emitted| emitted.text())
        .collect();
    assert_eq!(
        found,
        ["Berlin", "Paris", "Berlin", "nothing", "of nothing"]
    );
    assert_eq!(processed.fetches, [4], "each key once");
}

#[test]
fn what_is_asked_for_behind_an_answer_is_another_call() {
    let processed = chain().process(&values(&["DE FR", "plan=pro", "FR DE XX"]));
    assert_eq!(processed.port("").len(), 6);
    assert_eq!(processed.failures, []);
    // DE and FR of capitals, pro of plans; then XX. FR and DE are known when they are asked for again.
    assert_eq!(processed.fetches, [2, 1, 1]);
}

#[test]
fn nothing_looked_up_is_no_call() {
    let processed = chain().process(&values(&["key=a", "fail=asked"]));
    assert_eq!(processed.fetches, [0; 0]);
    assert_eq!(processed.failures, [(1, "asked".to_owned())]);
}

/// Records that wait and records that don't lie between each other; each column is set by some of them only.
#[test]
fn outputs_keep_the_order_of_their_origins() {
    let inputs = [
        Input::new("k0", "DE key=x").at(5).with_header("h", "0"),
        Input::new("k1", "key=a time=7").at(6),
        Input::new("k2", "FR").at(8).with_header("h", "2"),
        Input::new("k3", "key=b").at(9),
    ];
    let processed = chain().process(&inputs);
    let key = |emitted: &millstream_plugin::testing::Emitted| emitted.key_text().to_owned();
    let shown: Vec<_> = processed
        .port("")
        .iter()
        .map(|emitted| {
            (
                emitted.origin,
                key(emitted),
                emitted.text(),
                emitted.timestamp,
            )
        })
        .collect();
    let expected = [
        (0, "k0".to_owned(), "Berlin", 5),
        (0, "x".to_owned(), "DE key=x", 5),
        (1, "a".to_owned(), "key=a time=7", 6),
        (1, "k1".to_owned(), "key=a time=7", 7),
        (2, "k2".to_owned(), "Paris", 8),
        (3, "b".to_owned(), "key=b", 9),
    ];
    assert_eq!(shown, expected);
    let names = |emitted: &&millstream_plugin::testing::Emitted| {
        let names = emitted.headers.iter().map(|(name, _)| name.as_str());
        names.collect::<Vec<_>>().join(" ")
    };
    let headers: Vec<String> = processed.port("other").iter().map(names).collect();
    assert_eq!(headers, ["h seen", "seen", "h seen", "seen"]);
    assert_eq!(processed.port("")[0].headers.len(), 1);
}

#[test]
fn a_pending_error_that_is_swallowed_is_no_answer() {
    let processed = chain().process(&values(&["dare=DE", "dare=XX"]));
    let found: Vec<&str> = processed
        .port("")
        .iter()
        .map(|emitted| emitted.text())
        .collect();
    assert_eq!(found, ["yes", "no"]);
}

#[test]
fn failures_are_those_of_the_last_time() {
    let processed = chain().process(&values(&["bad", "DE fail=late", "FR"]));
    let failures: Vec<_> = processed
        .failures
        .iter()
        .map(|(at, why)| (*at, why.as_str()))
        .collect();
    let expected = [(0, "the value looked up isn't UTF-8"), (1, "late")];
    assert_eq!(failures, expected);
    assert_eq!(processed.port("").len(), 1);
}

#[test]
fn every_batch_sees_the_tables_as_they_are() {
    let mut chain = chain();
    let first = |chain: &mut Harness| {
        chain.process(&values(&["DE"])).port("")[0]
            .text()
            .to_owned()
    };
    assert_eq!(first(&mut chain), "Berlin");
    chain.set_tables([Table::new("capitals").with("DE", r#"{"name":"Bonn"}"#)]);
    assert_eq!(first(&mut chain), "Bonn");
}

#[test]
fn needs_name_what_was_asked_for() {
    assert_eq!(chain().needs().lookups, ["capitals", "plans"]);
    let without = Harness::with_tables::<Chain>(json!({}), [capitals()]).unwrap();
    assert_eq!(without.needs().lookups, ["capitals"]);
    let error = Harness::new::<Chain>(json!({})).err();
    let expected = "the plugin needs the table \"capitals\"";
    assert_eq!(error.as_deref(), Some(expected));
}

mod function {
    use super::*;

    fn capital<'a>(record: Record<'a>) -> Result<Option<Edit<'a>>> {
        let found = lookup("capitals").get(record.value().unwrap_or_default())?;
        Ok(found.map(|found| Edit::new().value(found.to_vec())))
    }

    millstream_plugin::plugin!(map: capital; lookups: "capitals");
}

#[test]
fn functions_look_up_too() {
    let mut function = Harness::with_tables::<function::Plugin>(json!({}), [capitals()]).unwrap();
    assert_eq!(function.needs().lookups, ["capitals"]);
    let processed = function.process(&values(&["FR", "XX", "DE"]));
    assert_eq!(processed.records.len(), 2);
    assert_eq!(processed.fetches, [3]);
}

/// Whole batches ask for whole columns, or key by key, at a call each.
struct Whole(Lookup);

impl BatchTransform for Whole {
    fn configure(_: &str) -> Result<(Self, batch::Needs)> {
        Ok((Self(lookup("capitals")), batch::Needs::none()))
    }

    fn process(&mut self, batch: Batch) -> Result<Outcome> {
        let values: Column = self.0.get_many(&batch.values)?;
        assert!(self.0.get("DE")?.is_some());
        Ok(Outcome {
            outputs: vec![batch::Output {
                port: String::new(),
                origins: (0..).take(values.len()).collect(),
                keys: None,
                values: Some(values),
                timestamps: None,
                headers: None,
            }],
            failures: Vec::new(),
        })
    }
}

#[test]
fn batches_ask_for_columns() {
    let mut whole = Harness::batch_with_tables::<Whole>(json!({}), [capitals()]).unwrap();
    assert_eq!(whole.needs().lookups, ["capitals"]);
    let processed = whole.process(&[Input::value("FR"), Input::null()]);
    assert_eq!(processed.fetches, [2, 1]);
    assert_eq!(processed.records[0].text(), r#"{"name":"Paris"}"#);
    assert_eq!(processed.records[1].value, None);
}
