//! What a filter lets through is byte for byte what came in: keys, values, headers and times, nulls and empties apart; over SCRAM and
//! TLS too.

use rig::folder::Folder;
use rig::judge;
use rig::kafka::{Kafka, Options, PASSWORD, USER};
use rig::millstream::Millstream;

use crate::pipelines::{WITHIN, plugin, shared_kafka, wait_records};

/// Edge records that `judge edge` commits.
const EDGES: u64 = 250;

/// Runs the edge records through the probe, as it passes everything, and has the judge compare.
fn check(kafka: &Kafka, name: &str, bootstrap: &str, security: &str, checkpoint: &str) {
    let (input, output) = (format!("{name}-in"), format!("{name}-out"));
    kafka.topic(&input, 3, &["max.message.bytes=2000000"]);
    kafka.topic(&output, 3, &["max.message.bytes=2000000"]);
    judge::run(&["edge", &kafka.direct(), &input]);
    let folder = Folder::new(name);
    let pipeline = format!(
        r#"
name = "{name}"

[kafka]
bootstrap.servers = "{bootstrap}"
{security}

[checkpoint]
{checkpoint}

[sources.in]
topics = ["{input}"]

[plugins.probe]
path = "{plugin}"

[steps.pass]
inputs = ["in"]
plugin = "probe"

[sinks.out]
inputs = ["pass"]
topic = "{output}"
"#,
        plugin = plugin("probe.wasm").display()
    );
    let file = folder
        .write("pipeline.toml", &pipeline)
        .display()
        .to_string();
    let arguments = [
        "run",
        &file,
        "--workers",
        "2",
        "--instance",
        "a",
        "--http",
        "127.0.0.1:0",
    ];
    let mut life = Millstream::spawn_with(&folder.join("millstream.log"), |command| {
        command.args(arguments).env("KAFKA_PASSWORD", PASSWORD);
    });
    life.wait_ready(WITHIN);
    wait_records(&mut life, EDGES);
    assert!(life.terminate(WITHIN).success());
    println!(
        "{}",
        judge::run(&["passthrough", &kafka.direct(), &input, &output]).trim()
    );
}

#[test]
fn a_filter_changes_no_byte() {
    let kafka = shared_kafka();
    check(
        kafka,
        "passes",
        &kafka.bootstrap(),
        "",
        "interval = \"100ms\"",
    );
}

#[test]
fn at_least_once_changes_no_byte_either() {
    let kafka = shared_kafka();
    check(
        kafka,
        "passes-twice",
        &kafka.bootstrap(),
        "",
        "guarantee = \"at-least-once\"\ninterval = \"100ms\"",
    );
}

#[test]
fn scram_over_tls_works() {
    let kafka = Kafka::start_with(Options {
        secure: true,
        ..Options::default()
    });
    let security = format!(
        r#"security.protocol = "SASL_SSL"
sasl.mechanisms = "SCRAM-SHA-512"
sasl.username = "{USER}"
sasl.password = {{ env = "KAFKA_PASSWORD" }}
ssl.ca.location = "{}""#,
        kafka.ca().display()
    );
    check(
        &kafka,
        "secure",
        &kafka.secure_bootstrap(),
        &security,
        "interval = \"100ms\"",
    );
}
