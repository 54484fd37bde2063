//! The `[kafka]` table; what is said of bad ones is in `kafka.txt`.

use std::path::Path;

use super::super::{KafkaProperties, refused};
use super::{GOOD, Overrides, check_all, edit, good, parse};

const BROKERS: &str = "bootstrap.servers = \"localhost:9092\"\n";

/// The properties of a `[kafka]` table with brokers and these lines.
fn properties(lines: &str) -> KafkaProperties {
    good(&edit(BROKERS, &format!("{BROKERS}{lines}")))
        .outside
        .kafka
}

fn shown<'a>(list: impl Iterator<Item = (&'a str, &'a str)>) -> Vec<String> {
    let brokers = |(name, _): &(&str, &str)| *name != "bootstrap.servers";
    list.filter(brokers)
        .map(|(name, value)| format!("{name}={value}"))
        .collect()
}

#[test]
fn dotted_nested_and_quoted_are_the_same() {
    let expected = ["linger.ms=5", "fetch.min.bytes=31"];
    let dotted = properties("linger.ms = 5\nfetch.min.bytes = 0x1F\n");
    let nested = properties("[kafka.linger]\nms = 5\n[kafka.fetch]\nmin = { bytes = 31 }\n");
    let quoted = properties("\"linger.ms\" = \"5\"\n\"fetch.min\".bytes = 31\n");
    for kafka in [dotted, nested, quoted] {
        assert_eq!(shown(kafka.common()), expected);
    }
}

#[test]
fn values_are_text() {
    let kafka = properties("a = true\nb = 1_000\nc = -2.5\nd = \"x y\"\n");
    assert_eq!(
        shown(kafka.common()),
        ["a=true", "b=1000", "c=-2.5", "d=x y"]
    );
}

#[test]
fn one_client_over_both() {
    let kafka = properties(
        "client.rack = \"a\"\nlinger.ms = 5\nproducer.queue.buffering.max.ms = 9\n\
         [kafka.consumer]\nclient.rack = \"b\"\nfetch.min.bytes = 1\n",
    );
    assert_eq!(shown(kafka.common()), ["client.rack=a", "linger.ms=5"]);
    assert_eq!(
        shown(kafka.consumer()),
        ["linger.ms=5", "client.rack=b", "fetch.min.bytes=1"]
    );
    assert_eq!(
        shown(kafka.producer()),
        ["client.rack=a", "queue.buffering.max.ms=9"]
    );
}

#[test]
fn secrets() {
    let path = std::env::var("PATH").expect("every test has a PATH");
    let kafka = properties(
        "sasl.password = { env = \"PATH\" }\n[kafka.producer.sasl.username]\nenv = \"PATH\"",
    );
    assert_eq!(shown(kafka.common()), [format!("sasl.password={path}")]);
    assert_eq!(shown(kafka.producer()).len(), 2);
    let printed = format!("{kafka:?}");
    assert_eq!(
        printed,
        r#"{"bootstrap.servers", "sasl.password", "producer.sasl.username"}"#
    );
}

#[test]
fn a_property_that_ends_in_file_is_no_secret() {
    let kafka = properties("sasl.oauthbearer.assertion.private.key.file = \"/no/such/key\"\n");
    let expected = ["sasl.oauthbearer.assertion.private.key.file=/no/such/key"];
    assert_eq!(shown(kafka.common()), expected);
}

#[test]
fn brokers_from_the_command_line() {
    let overrides = Overrides {
        bootstrap: Some("other:9092".to_owned()),
        embedded: false,
    };
    let without = edit("[kafka]\nbootstrap.servers = \"localhost:9092\"\n", "");
    let renamed = edit("bootstrap.servers", "metadata.broker.list");
    for text in [GOOD, &without, &renamed] {
        let config = parse(text, Path::new("pipeline.toml"), &overrides).expect("a good file");
        let list: Vec<_> = config.outside.kafka.producer().collect();
        assert_eq!(list, [("bootstrap.servers", "other:9092")]);
    }
}

#[test]
fn problems() {
    check_all(include_str!("kafka.txt"));
}

#[test]
fn every_refused_name_can_be_met() {
    for (_, names) in refused::REFUSED {
        for name in *names {
            assert_eq!(refused::canonical(name), *name);
        }
    }
}
