//! What a plugin written record by record becomes in columns. A small plugin interprets each
//! record's value as commands, so that a test says in one place what happens to each record.

use millstream_plugin::testing::{Emitted, Harness, Input};
use millstream_plugin::{Edit, Needs, NoConfig, Outputs, Record, Result, Transform};
use serde_json::json;

/// Commands, separated by spaces: `keep`, `key=x`, `key`, `value=x`, `value`, `time=1`, `header=x`,
/// `clear`, `port:name` (a record through that port), `undeclared`, `fail`. All that set something
/// make one output record; `;` begins another.
struct Script {
    headers: bool,
}

impl Transform for Script {
    type Config = NoConfig;

    fn new(_: NoConfig) -> Result<Self> {
        Ok(Script { headers: true })
    }

    fn needs(&self) -> Needs {
        let needs = Needs::none().port("left").port("right");
        if self.headers { needs.headers() } else { needs }
    }

    fn process(&mut self, record: Record<'_>, out: &mut Outputs<'_>) -> Result<()> {
        for commands in record
            .text()?
            .split(';')
            .filter(|commands| !commands.is_empty())
        {
            let (port, commands) = match commands.strip_prefix("port:") {
                Some(rest) => rest.split_once(' ').unwrap_or((rest, "")),
                None => ("", commands),
            };
            let mut emit = if port.is_empty() {
                out.emit()
            } else {
                out.port(port).emit()
            };
            for command in commands.split_whitespace() {
                emit = match command.split_once('=').unwrap_or((command, "")) {
                    ("key", "") => emit.null_key(),
                    ("key", key) => emit.key(key),
                    ("value", "") => emit.null_value(),
                    ("value", "empty") => emit.value(""),
                    ("value", value) => emit.value(value),
                    ("broken", _) => emit.value_with(|bytes| {
                        bytes.extend_from_slice(b"half a value");
                        Err("broken".into())
                    })?,
                    ("time", time) => emit.timestamp(time.parse()?),
                    ("header", name) => emit.header(name, "added"),
                    ("clear", _) => emit.clear_headers(),
                    ("keep", _) => emit,
                    ("fail", _) => return Err("told to".into()),
                    _ => unreachable!("{command}"),
                };
            }
        }
        Ok(())
    }
}

/// As `Script`, without asking for headers.
struct Blind(Script);

impl Transform for Blind {
    type Config = NoConfig;

    fn new(_: NoConfig) -> Result<Self> {
        Ok(Blind(Script { headers: false }))
    }

    fn needs(&self) -> Needs {
        self.0.needs()
    }

    fn process(&mut self, record: Record<'_>, out: &mut Outputs<'_>) -> Result<()> {
        self.0.process(record, out)
    }
}

fn inputs(scripts: &[&str]) -> Vec<Input> {
    let input = |(index, script): (usize, &&str)| {
        Input::new(format!("k{index}"), *script)
            .at(index as i64)
            .with_header("h", format!("{index}"))
    };
    scripts.iter().enumerate().map(input).collect()
}

/// One line a record: `port<origin key value timestamp headers`, `-` for null, then the columns
/// present in each output, then the failures.
fn check<T: Transform>(inputs: &[Input], expected: &str) {
    let processed = Harness::new::<T>(json!({}))
        .expect("it takes no configuration")
        .process(inputs);
    let mut lines: Vec<String> = processed.records.iter().map(line).collect();
    for output in &processed.outcome.outputs {
        let present = [
            ("keys", output.keys.is_some()),
            ("values", output.values.is_some()),
            ("timestamps", output.timestamps.is_some()),
            ("headers", output.headers.is_some()),
        ];
        let present = present
            .iter()
            .filter(|(_, present)| *present)
            .map(|(name, _)| *name);
        lines.push(format!(
            "[{}] {}",
            output.port,
            present.collect::<Vec<_>>().join(" ")
        ));
    }
    lines.extend(
        processed
            .failures
            .iter()
            .map(|(origin, reason)| format!("{origin}! {reason}")),
    );
    let expected: Vec<&str> = expected
        .lines()
        .map(str::trim)
        .filter(|l| !l.is_empty())
        .collect();
    let lines: Vec<&str> = lines.iter().map(|line| line.trim()).collect();
    assert_eq!(lines, expected, "\n{}", lines.join("\n"));
}

fn line(record: &Emitted) -> String {
    let show = |bytes: &Option<Vec<u8>>| match bytes {
        Some(bytes) => format!("{:?}", String::from_utf8_lossy(bytes)),
        None => "-".to_owned(),
    };
    let headers = record
        .headers
        .iter()
        .map(|(name, value)| format!("{name}={}", show(value)));
    let Emitted {
        port,
        origin,
        timestamp,
        ..
    } = record;
    let (key, value) = (show(&record.key), show(&record.value));
    format!(
        "{port}<{origin} {key} {value} {timestamp} {}",
        headers.collect::<Vec<_>>().join(",")
    )
}

#[test]
fn what_is_kept_is_inherited_without_columns() {
    check::<Script>(
        &inputs(&["keep", "", "keep"]),
        r#"
        <0 "k0" "keep" 0 h="0"
        <2 "k2" "keep" 2 h="2"
        []
        "#,
    );
}

#[test]
fn nothing_emitted_is_no_output() {
    check::<Script>(&inputs(&["", ""]), "");
}

#[test]
fn a_column_is_made_once_a_record_sets_it_and_filled_for_the_others() {
    check::<Script>(
        &inputs(&["keep", "key=x", "keep", "value=y", "time=9", "keep"]),
        r#"
        <0 "k0" "keep" 0 h="0"
        <1 "x" "key=x" 1 h="1"
        <2 "k2" "keep" 2 h="2"
        <3 "k3" "y" 3 h="3"
        <4 "k4" "time=9" 9 h="4"
        <5 "k5" "keep" 5 h="5"
        [] keys values timestamps
        "#,
    );
}

#[test]
fn null_is_not_empty_set_or_inherited() {
    let null = Input::value("keep").with_key("");
    let records = [
        null,
        Input::value("key=x"),
        Input::value("keep"),
        Input::value("value=empty"),
    ];
    check::<Script>(
        &records,
        r#"
        <0 "" "keep" 1000
        <1 "x" "key=x" 1000
        <2 - "keep" 1000
        <3 - "" 1000
        [] keys values
        "#,
    );
    check::<Script>(
        &inputs(&["key value", "keep", "value=z key"]),
        r#"
        <0 - - 0 h="0"
        <1 "k1" "keep" 1 h="1"
        <2 - "z" 2 h="2"
        [] keys values
        "#,
    );
}

#[test]
fn to_set_again_replaces() {
    check::<Script>(
        &inputs(&["key=a key key=b value=1 time=5 value=22 time=6"]),
        r#"
        <0 "b" "22" 6 h="0"
        [] keys values timestamps
        "#,
    );
}

#[test]
fn a_failure_undoes_what_was_emitted() {
    check::<Script>(
        &inputs(&[
            "key=a",
            "key=b value=c time=1 header=x;port:left value=d;fail",
            "keep",
            "port:right",
        ]),
        r#"
        <0 "a" "key=a" 0 h="0"
        <2 "k2" "keep" 2 h="2"
        right<3 "k3" "port:right" 3 h="3"
        [] keys
        [right]
        1! told to
        "#,
    );
}

#[test]
fn a_column_that_only_failed_records_set_is_not_made() {
    check::<Script>(
        &inputs(&["keep", "key=b value=c time=7 header=x fail", "keep"]),
        r#"
        <0 "k0" "keep" 0 h="0"
        <2 "k2" "keep" 2 h="2"
        []
        1! told to
        "#,
    );
    check::<Script>(
        &inputs(&["value=a", "key=b broken", "value=c"]),
        r#"
        <0 "k0" "a" 0 h="0"
        <2 "k2" "c" 2 h="2"
        [] values
        1! broken
        "#,
    );
}

#[test]
fn one_becomes_many_in_order() {
    check::<Script>(
        &inputs(&["value=a;value=b;keep", "keep;key=x"]),
        r#"
        <0 "k0" "a" 0 h="0"
        <0 "k0" "b" 0 h="0"
        <0 "k0" "value=a;value=b;keep" 0 h="0"
        <1 "k1" "keep;key=x" 1 h="1"
        <1 "x" "keep;key=x" 1 h="1"
        [] keys values
        "#,
    );
}

#[test]
fn ports_are_apart() {
    check::<Script>(
        &inputs(&["port:left key=a;keep", "port:right", "port:left"]),
        r#"
        <0 "k0" "port:left key=a;keep" 0 h="0"
        left<0 "a" "port:left key=a;keep" 0 h="0"
        left<2 "k2" "port:left" 2 h="2"
        right<1 "k1" "port:right" 1 h="1"
        []
        [left] keys
        [right]
        "#,
    );
}

#[test]
fn a_port_that_was_not_declared_fails_the_record() {
    check::<Script>(
        &inputs(&["keep;port:nowhere value=x", "keep"]),
        r#"
        <1 "k1" "keep" 1 h="1"
        []
        0! port `nowhere` isn't among the ports in the plugin's needs
        "#,
    );
}

#[test]
fn headers_are_added_cleared_and_filled_in() {
    check::<Script>(
        &inputs(&[
            "keep",
            "header=x header=y",
            "clear header=z",
            "clear",
            "keep",
        ]),
        r#"
        <0 "k0" "keep" 0 h="0"
        <1 "k1" "header=x header=y" 1 h="1",x="added",y="added"
        <2 "k2" "clear header=z" 2 z="added"
        <3 "k3" "clear" 3
        <4 "k4" "keep" 4 h="4"
        [] headers
        "#,
    );
}

#[test]
fn headers_can_be_set_by_who_sees_them_only() {
    check::<Blind>(
        &inputs(&["keep", "header=x"]),
        r#"
        <0 "k0" "keep" 0 h="0"
        []
        1! setting headers needs `Needs::headers()`: else other records would lose theirs
        "#,
    );
}

/// Reads everything a record offers.
struct Reader;

impl Transform for Reader {
    type Config = NoConfig;

    fn new(_: NoConfig) -> Result<Self> {
        Ok(Reader)
    }

    fn needs(&self) -> Needs {
        Needs::none().headers()
    }

    fn process(&mut self, record: Record<'_>, out: &mut Outputs<'_>) -> Result<()> {
        let names: Vec<&str> = record.headers().map(|(name, _)| name).collect();
        let seen = json!({
            "key": record.key().map(String::from_utf8_lossy),
            "value": record.value().map(String::from_utf8_lossy),
            "timestamp": record.timestamp(),
            "headers": names,
            "h": record.header("h").map(String::from_utf8_lossy),
            "place": format!("{}-{}@{}", record.topic(), record.partition(), record.offset()),
            "input": record.input(),
            "now": record.now(),
        });
        out.emit().json(&seen)?;
        Ok(())
    }
}

#[test]
fn a_record_shows_all_of_itself() {
    let full = Input::new("k", "v")
        .at(7)
        .by("a")
        .with_header("h", "1")
        .with_header("h", "2");
    let records = [full, Input::null().at(-1).by("b"), Input::null().by("a")];
    let processed = Harness::new::<Reader>(json!({})).unwrap().process(&records);
    let seen: Vec<_> = processed.records.iter().map(Emitted::json).collect();
    assert_eq!(
        seen[0],
        json!({"key": "k", "value": "v", "timestamp": 7, "headers": ["h", "h"], "h": "2",
               "place": "topic-0@0", "input": "a", "now": 1_000_000})
    );
    assert_eq!(
        seen[1],
        json!({"key": null, "value": null, "timestamp": null, "headers": [], "h": null,
               "place": "topic-0@1", "input": "b", "now": 1_000_000})
    );
    assert_eq!(seen[2]["input"], "a");
}

mod functions {
    //! Plugins that are functions.

    use serde::{Deserialize, Serialize};

    use super::*;

    mod filter {
        use super::*;

        #[derive(Deserialize)]
        pub struct Config {
            pub longest: usize,
        }

        fn is_short(config: &Config, record: Record<'_>) -> Result<bool> {
            Ok(record.text()?.len() <= config.longest)
        }

        millstream_plugin::plugin!(filter: is_short, Config);
    }

    mod map {
        use super::*;

        fn swap(record: Record<'_>) -> Result<Option<Edit<'_>>> {
            let (Some(key), Some(value)) = (record.key(), record.value()) else {
                return Ok(None);
            };
            Ok(Some(Edit::new().key(value).value(key).timestamp(3)))
        }

        millstream_plugin::plugin!(map: swap);
    }

    mod flat_map {
        use super::*;

        fn words(record: Record<'_>) -> Result<impl Iterator<Item = Edit<'_>>> {
            let text = record.text()?;
            Ok(text
                .split(' ')
                .map(|word| Edit::new().value(word.as_bytes())))
        }

        millstream_plugin::plugin!(flat_map: words);
    }

    mod json {
        use super::*;

        #[derive(Deserialize)]
        struct Order<'a> {
            item: &'a str,
            price: u64,
            count: u64,
        }

        #[derive(Serialize)]
        struct Total<'a> {
            item: &'a str,
            total: u64,
        }

        fn total(order: Order<'_>) -> Result<Option<Total<'_>>> {
            let total = order
                .price
                .checked_mul(order.count)
                .ok_or("the total is too large")?;
            Ok((total > 0).then_some(Total {
                item: order.item,
                total,
            }))
        }

        millstream_plugin::plugin!(json: total);
    }

    fn process<T: Transform>(config: serde_json::Value, records: &[Input]) -> Vec<String> {
        let processed = Harness::new::<T>(config)
            .expect("the configuration is valid")
            .process(records);
        let records = processed
            .records
            .iter()
            .map(|record| record.text().to_owned());
        let failures = processed
            .failures
            .iter()
            .map(|(_, reason)| format!("! {reason}"));
        records.chain(failures).collect()
    }

    #[test]
    fn filter_map_flat_map_and_json() {
        let (a, b) = (Input::new("k", "a b"), Input::new("l", "c"));
        let both = [a.clone(), b.clone(), Input::null()];
        let longest = json!({"longest": 1});
        assert_eq!(
            process::<filter::Plugin>(longest, &both),
            ["c", "! the value is null"]
        );
        assert_eq!(process::<map::Plugin>(json!({}), &both), ["k", "l"]);
        assert_eq!(
            process::<flat_map::Plugin>(json!({}), &[a, b]),
            ["a", "b", "c"]
        );
        let orders = [
            Input::value(r#"{"item": "tea", "price": 3, "count": 2}"#),
            Input::value(r#"{"item": "air", "price": 0, "count": 2}"#),
            Input::value(r#"{"item": "gold", "price": 9999999999999999999, "count": 2}"#),
            Input::value(r#"{"item": "tea", "price": 3}"#),
        ];
        assert_eq!(
            process::<json::Plugin>(json!({}), &orders),
            [
                r#"{"item":"tea","total":6}"#,
                "! the total is too large",
                "! missing field `count` at line 1 column 27",
            ]
        );
    }

    #[test]
    fn functions_without_configuration_refuse_one() {
        let error = Harness::new::<map::Plugin>(json!({"x": 1})).err();
        assert_eq!(
            error.as_deref(),
            Some("config: unknown field `x`, there are no fields")
        );
    }
}

#[test]
fn values_that_are_not_text_are_read_one_by_one() {
    let records = [
        Input::value("keep"),
        Input::value([0xff, 0xfe]),
        Input::value("value=ü"),
    ];
    check::<Script>(
        &records,
        r#"
        <0 - "keep" 1000
        <2 - "ü" 1000
        [] values
        1! the value isn't UTF-8
        "#,
    );
}

#[test]
fn what_is_logged_can_be_tested() {
    millstream_plugin::log::warn(format_args!("{} left", 3));
    let lines = millstream_plugin::testing::take_log();
    assert!(lines == [(millstream_plugin::testing::Level::Warn, "3 left".to_owned())]);
}
