//! State: records act on it in their order, few calls for many keys, and what failed or is processed again leaves no trace.

use std::cell::Cell;
use std::collections::BTreeMap;

use millstream_plugin::batch::{self, Batch, BatchTransform, Column, Outcome};
use millstream_plugin::testing::{Harness, Input, Put, Table};
use millstream_plugin::{
    Edit, Lookup, NoConfig, Outputs, Record, Result, State, Transform, lookup_if_granted, state,
};
use serde_json::json;

/// A record's value is a program, space by space. Each word that reads emits what it has read.
struct Script {
    one: State,
    two: State,
    table: Option<Lookup>,
}

impl Transform for Script {
    type Config = NoConfig;

    fn new(_: NoConfig) -> Result<Self> {
        Ok(Script {
            one: state("one"),
            two: state("two"),
            table: lookup_if_granted("table"),
        })
    }

    fn process(&mut self, record: Record<'_>, out: &mut Outputs<'_>) -> Result<()> {
        RUNS.set(RUNS.get() + 1);
        for word in record.text()?.split(' ') {
            let mut parts = word.split('=');
            let mut part = || parts.next().unwrap_or("");
            let shown = match part() {
                "get" => text(self.one.get(part())?.as_deref()),
                "get2" => text(self.two.get(part())?.as_deref()),
                "look" => text(
                    self.table
                        .as_ref()
                        .ok_or("no table")?
                        .get(part())?
                        .as_deref(),
                ),
                // Follows values as keys until there is none.
                "walk" => {
                    let mut at = part().to_owned();
                    while let Some(found) = self.one.get(&at)? {
                        at = found.text()?.to_owned();
                    }
                    at
                }
                "count" => {
                    let key = part();
                    let before: u64 = self.one.get(key)?.map_or(Ok(0), |found| found.json())?;
                    self.one.put_json(key, &(before + 1))?;
                    (before + 1).to_string()
                }
                "many" => {
                    let keys: Vec<&str> = part().split(',').collect();
                    let values = self.one.get_many(&column(&keys))?;
                    values.iter().map(text).collect::<Vec<_>>().join(",")
                }
                "put" => {
                    self.one.put(part(), part())?;
                    continue;
                }
                "put2" => {
                    self.two.put(part(), part())?;
                    continue;
                }
                "put-many" => {
                    self.one
                        .put_many(&column(&[part(), "-"]), &column(&[part(), "-"]))?;
                    continue;
                }
                "remove" => {
                    self.one.remove(part())?;
                    continue;
                }
                // A mistake in a plugin: what the get said is swallowed, and something is put all the same.
                "dare" => {
                    let there = matches!(self.one.get(part()), Ok(Some(_)));
                    self.two.put("dared", there.to_string())?;
                    continue;
                }
                "fail" => return Err("asked to fail".into()),
                "misuse" => {
                    out.port("nowhere").emit();
                    continue;
                }
                other => other.to_owned(),
            };
            out.emit().value(shown);
        }
        Ok(())
    }
}

thread_local! {
    /// How often a script was run for a record.
    static RUNS: Cell<usize> = const { Cell::new(0) };
}

fn text(value: Option<&[u8]>) -> String {
    let text = value.map(|value| String::from_utf8(value.to_vec()).expect("it is text"));
    text.unwrap_or("nothing".to_owned())
}

/// `-` is null.
fn column(strings: &[&str]) -> Column {
    let mut column = Column::with_capacity(0, 0);
    for string in strings {
        column.push(Some(string.as_bytes()).filter(|_| *string != "-"));
    }
    column
}

fn script() -> Harness {
    let table = Table::new("table")
        .with("DE", "Germany")
        .with("FR", "France");
    let mut script =
        Harness::with_tables::<Script>(json!({}), [table]).expect("its table is granted");
    script.set_state(one());
    script
}

fn one() -> Table {
    Table::new("one")
        .with("a", "5")
        .with("b", "c")
        .with("c", "d")
}

fn inputs(programs: &[&str]) -> Vec<Input> {
    programs.iter().map(|text| Input::value(*text)).collect()
}

fn put(state: &str, entries: &[(&str, Option<&str>)]) -> Put {
    let bytes = |text: &str| text.as_bytes().to_vec();
    Put {
        state: state.to_owned(),
        entries: entries
            .iter()
            .map(|(key, value)| (bytes(key), value.map(bytes)))
            .collect(),
    }
}

/// What the programs emit, which of them fail, how many keys each call fetches, and what is put in the end.
fn check(programs: &[&str], emitted: &[&str], failed: &[usize], fetches: &[usize], puts: &[Put]) {
    let processed = script().process(&inputs(programs));
    assert_eq!(processed.texts(), emitted, "{programs:?}");
    let failures: Vec<usize> = processed.failures.iter().map(|(at, _)| *at).collect();
    assert_eq!(failures, failed, "{programs:?}");
    assert_eq!(processed.fetches, fetches, "{programs:?}");
    assert_eq!(processed.puts, puts, "{programs:?}");
}

#[test]
fn a_batch_is_one_fetch_and_one_put() {
    check(
        &["count=a", "count=x", "count=a", "count=a get=x"],
        &["6", "1", "7", "8", "1"],
        &[],
        &[2],
        &[put("one", &[("a", Some("8")), ("x", Some("1"))])],
    );
}

#[test]
fn what_is_only_read_is_not_put_and_what_is_only_put_is_not_read() {
    check(&["get=a", "get=x"], &["5", "nothing"], &[], &[2], &[]);
    check(
        &["put=a=1 get=a", "get=a"],
        &["1", "1"],
        &[],
        &[],
        &[put("one", &[("a", Some("1"))])],
    );
    check(&["out"], &["out"], &[], &[], &[]);
}

#[test]
fn the_last_put_of_a_key_stays() {
    let expected = [put(
        "one",
        &[("k", Some("2")), ("a", None), ("b", Some("1"))],
    )];
    check(
        &["put=k=1 remove=a", "put=k=2", "remove=b put=b=1", "get=a"],
        &["nothing"],
        &[],
        &[],
        &expected,
    );
}

/// A put says that the entry is alive, whatever it was; to remove nothing says nothing.
#[test]
fn the_same_value_is_written_and_the_removal_of_nothing_is_not() {
    check(
        &["get=a put=a=5"],
        &["5"],
        &[],
        &[1],
        &[put("one", &[("a", Some("5"))])],
    );
    check(
        &["get=x remove=x", "put=x=1 remove=x"],
        &["nothing"],
        &[],
        &[1],
        &[],
    );
    check(&["remove=x"], &[], &[], &[], &[put("one", &[("x", None)])]);
}

/// The second record knows all it asks for, and must not act before the first, which waits.
#[test]
fn nothing_overtakes_a_record_that_waits() {
    check(
        &[
            "put=k=0",
            "get=a get=k put=k=1",
            "get=k put=k=2",
            "get=k get=a put=a=9",
            "get=a get=k",
        ],
        &["5", "0", "1", "2", "5", "9", "2"],
        &[],
        &[1],
        &[put("one", &[("k", Some("2")), ("a", Some("9"))])],
    );
}

#[test]
fn a_record_that_waits_twice_is_waited_for_twice() {
    check(
        &["walk=b put=b=a", "walk=b put=x=1", "get=x"],
        &["d", "5", "1"],
        &[],
        // The first record wants b, then c, then d; the others join it with a and x before, and with 5 at last.
        &[2, 1, 1, 1, 1],
        &[put("one", &[("b", Some("a")), ("x", Some("1"))])],
    );
}

/// After a few passes that collect: each key is still fetched once, and no record is run for each of them.
#[test]
fn keys_that_hang_on_one_another_are_fetched_one_by_one() {
    let mut script = script();
    let chain = (0..50).map(|at| (format!("k{at}"), format!("k{}", at + 1)));
    script.set_state(chain.fold(Table::new("one"), |table, (key, value)| {
        table.with(key, value)
    }));
    let processed = script.process(&inputs(&[
        "walk=k0 many=k0,k1,z",
        "walk=k7 look=FR",
        "look=FR count=n",
    ]));
    assert_eq!(
        processed.texts(),
        ["k50", "k1,k2,nothing", "k50", "France", "France", "1"]
    );
    assert!(RUNS.get() <= 3 * 5, "{} runs for 3 records", RUNS.get());
    // 51 keys of the chain, z, FR and n.
    assert_eq!(processed.fetches.iter().sum::<usize>(), 54);
    assert_eq!(processed.puts, [put("one", &[("n", Some("1"))])]);
}

#[test]
fn a_failure_leaves_no_puts_behind() {
    let kept = put("one", &[("k", Some("1")), ("y", Some("3"))]);
    check(
        &[
            "put=k=1",
            "put=k=2 put=x=2 remove=a get=a fail",
            "get=k get=x get=a put=y=3",
        ],
        &["1", "nothing", "5"],
        &[1],
        // x first: a was answered by its removal, which the failure then undid.
        &[1, 1],
        &[kept],
    );
    check(&["put=k=1 misuse", "get=k"], &["nothing"], &[0], &[1], &[]);
    check(&["put=k=1 fail"], &[], &[0], &[], &[]);
}

/// The failure of a record that is processed only to see what it wants is none.
#[test]
fn what_fails_in_vain_does_not_fail() {
    let mut script = script();
    script.set_state(Table::new("one").with("n", "not a number"));
    let programs = [
        "get=n put=n=1",
        "count=n",
        "get=n fail",
        "put=n=x count=n",
        "get=n",
    ];
    let processed = script.process(&inputs(&programs));
    assert_eq!(processed.texts(), ["not a number", "2", "2"]);
    let failures: Vec<usize> = processed.failures.iter().map(|(at, _)| *at).collect();
    assert_eq!(failures, [2, 3]);
    assert_eq!(processed.puts, [put("one", &[("n", Some("2"))])]);
}

#[test]
fn a_pending_error_that_is_swallowed_is_no_answer() {
    let dared = |word| [put("two", &[("dared", Some(word))])];
    check(&["dare=a"], &[], &[], &[1], &dared("true"));
    check(&["dare=x"], &[], &[], &[1], &dared("false"));
}

#[test]
fn several_maps_and_lookups_go_together() {
    check(
        &[
            "look=DE get=a get2=a put2=a=two",
            "look=FR put=a=one",
            "get2=a get=a look=DE",
        ],
        &["Germany", "5", "nothing", "France", "two", "one", "Germany"],
        &[],
        // DE and FR of the table; a of both maps.
        &[2, 1, 1],
        &[
            put("one", &[("a", Some("one"))]),
            put("two", &[("a", Some("two"))]),
        ],
    );
}

#[test]
fn columns_see_what_was_put_and_wait_too() {
    check(
        &["put=k=1", "many=k,a,-,x,k", "put-many=a=7 fail", "many=a,b"],
        &["1,5,nothing,nothing,1", "5,c"],
        &[2],
        &[3],
        &[put("one", &[("k", Some("1"))])],
    );
    let processed = script().process(&inputs(&["put-many=a=7"]));
    let expected = [(0, "a key of state can't be null".to_owned())];
    assert_eq!(processed.failures, expected);
}

#[test]
fn nothing_outlives_the_batch() {
    let mut script = script();
    let count = |script: &mut Harness| script.process(&inputs(&["count=a"])).texts()[0].to_owned();
    assert_eq!(
        (count(&mut script), count(&mut script)),
        ("6".to_owned(), "7".to_owned())
    );
    // As after an epoch that was aborted.
    script.set_state(one());
    assert_eq!(count(&mut script), "6");
    let processed = script.process(&inputs(&["get=a"]));
    assert_eq!(
        (&processed.fetches[..], processed.puts.len()),
        (&[1][..], 0)
    );
}

#[test]
fn needs_name_what_was_asked_for_and_the_rest_is_an_error() {
    assert_eq!(script().needs().state, ["one", "two"]);

    /// Asks too late.
    struct Late;
    impl Transform for Late {
        type Config = NoConfig;
        fn new(_: NoConfig) -> Result<Self> {
            Ok(Late)
        }
        fn process(&mut self, record: Record<'_>, _: &mut Outputs<'_>) -> Result<()> {
            state("late").put(record.text()?, "x")
        }
    }
    let mut late = Harness::new::<Late>(json!({})).unwrap();
    for _ in 0..2 {
        let processed = late.process(&inputs(&["k"]));
        let why = &processed.failures[0].1;
        assert!(
            why.starts_with("state \"late\" must be asked for while the plugin is configured"),
            "{why}"
        );
        assert_eq!(processed.puts, []);
    }
}

mod function {
    use super::*;

    fn count<'a>(record: Record<'a>) -> Result<Option<Edit<'a>>> {
        let (key, totals) = (record.text()?, state("totals"));
        let before: u64 = totals.get(key)?.map_or(Ok(0), |found| found.json())?;
        totals.put_json(key, &(before + 1))?;
        Ok(Some(Edit::new().json(&(before + 1))))
    }

    millstream_plugin::plugin!(map: count; state: "totals");
}

mod function_with_all {
    use super::*;

    fn add<'a>(config: &BTreeMap<String, u64>, record: Record<'a>) -> Result<Option<Edit<'a>>> {
        let found = millstream_plugin::lookup("table").get(record.text()?)?;
        state("other").put("k", config["n"].to_string())?;
        Ok(found.map(|found| Edit::new().value(found.to_vec())))
    }

    millstream_plugin::plugin!(map: add, BTreeMap<String, u64>; lookups: "table"; state: "totals", "other");
}

#[test]
fn functions_have_state_too() {
    let mut function = Harness::new::<function::Plugin>(json!({})).unwrap();
    assert_eq!(function.needs().state, ["totals"]);
    let processed = function.process(&inputs(&["x", "y", "x"]));
    assert_eq!(processed.texts(), ["1", "1", "2"]);
    assert_eq!(function.state("totals").texts(), [("x", "2"), ("y", "1")]);

    let table = [Table::new("table").with("DE", "Germany")];
    let mut all =
        Harness::with_tables::<function_with_all::Plugin>(json!({"n": 7}), table).unwrap();
    assert_eq!(
        (&all.needs().lookups[..], &all.needs().state[..]),
        (
            &["table".to_owned()][..],
            &["totals".to_owned(), "other".to_owned()][..]
        )
    );
    assert_eq!(all.process(&inputs(&["DE"])).texts(), ["Germany"]);
    assert_eq!(all.state("other").get("k"), Some(&b"7"[..]));
}

/// Counts a whole batch: adds up per key, one get, one put.
struct Whole(State);

impl BatchTransform for Whole {
    fn configure(_: &str) -> Result<(Self, batch::Needs)> {
        Ok((Whole(state("totals")), batch::Needs::none()))
    }

    fn process(&mut self, batch: Batch) -> Result<Outcome> {
        self.0.put("a", "1")?;
        let fail = batch.values.get(0) == Some(b"fail");
        let found = self.0.get_many(&batch.values)?;
        self.0.put_many(&batch.values, &found)?;
        assert!(self.0.get("a")?.is_some());
        self.0.remove("a")?;
        let unequal = self.0.put_many(&column(&["a"]), &column(&[]));
        assert_eq!(
            unequal.expect_err("a value is missing").to_string(),
            "there must be as many values as keys"
        );
        if fail {
            return Err("asked to fail".into());
        }
        Ok(Outcome {
            outputs: Vec::new(),
            failures: Vec::new(),
        })
    }
}

#[test]
fn batches_take_columns_at_a_call_each() {
    let mut whole = Harness::batch::<Whole>(json!({})).unwrap();
    assert_eq!(whole.needs().state, ["totals"]);
    whole.set_state(Table::new("totals").with("b", "2"));
    assert_eq!(
        whole.try_process(&inputs(&["fail"])).unwrap_err(),
        "asked to fail"
    );
    assert_eq!(
        whole.state("totals").texts(),
        [("b", "2")],
        "nothing stays of a batch that failed"
    );
    let processed = whole.process(&inputs(&["b", "a", "x"]));
    assert_eq!(processed.fetches, [3, 1]);
    let expected = [
        put("totals", &[("a", Some("1"))]),
        put("totals", &[("b", Some("2")), ("a", Some("1")), ("x", None)]),
        put("totals", &[("a", None)]),
    ];
    assert_eq!(processed.puts, expected);
    assert_eq!(whole.state("totals").texts(), [("b", "2")]);
}
