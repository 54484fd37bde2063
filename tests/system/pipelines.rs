//! The pipelines that tests run.

use std::path::PathBuf;
use std::sync::LazyLock;
use std::time::Duration;

use rig::folder::Folder;
use rig::kafka::Kafka;
use rig::millstream::Millstream;
use rig::{judge, repository};
use serde_json::Value;

/// How long anything that a test waits for may take on a busy machine.
pub const WITHIN: Duration = Duration::from_secs(60);

pub const NAME: &str = "materialize-users";
pub const EVENTS: &str = "user-events";
pub const ADULTS: &str = "adults";
pub const MAP: &str = "users";
pub const MIN_AGE: &str = "18";
pub const COUNTRIES: &str = "countries";
/// What the steps of both examples in one pipeline couldn't take.
pub const USERS_LETTERS: &str = "events-set-aside";
pub const ORDERS_LETTERS: &str = "orders-set-aside";

/// The table that example 01 looks countries up in, with two of the countries that events are of missing: lines for the judge.
pub const COUNTRY_LINES: &str = "DE\t{\"name\":\"Deutschland\"}\nFR\t{\"name\":\"France\"}\nNL\t{\"name\":\"Nederland\"}\n\
    DK\t{\"name\":\"Danmark\"}\nUS\t{\"name\":\"United States\"}\nJP\t{\"name\":\"日本\"}\nBR\t{\"name\":\"Brasil\"}\n\
    BR\t\\N\nDE\t{\"name\":\"Germany\"}\n";

/// Makes that table.
pub fn make_countries(kafka: &Kafka, folder: &Folder) {
    kafka.topic(COUNTRIES, 1, &["cleanup.policy=compact"]);
    let file = folder
        .write("countries.tsv", COUNTRY_LINES)
        .display()
        .to_string();
    judge::run(&["write", &kafka.direct(), COUNTRIES, &file]);
}

/// Example 01's own pipeline file, at this broker and interval, with its plugin found from anywhere.
pub fn materialize_users(bootstrap: &str, interval: &str) -> String {
    example("01-materialize-users", &["users"], bootstrap, interval)
}

/// The same of example 02.
pub fn count_by_country(bootstrap: &str, interval: &str) -> String {
    let plugins = ["parse", "count"];
    example("02-count-by-country", &plugins, bootstrap, interval)
}

/// Both in one pipeline of that name, which sets aside what is malformed: as [`USERS_LETTERS`] and [`ORDERS_LETTERS`].
pub fn both(name: &str, bootstrap: &str, interval: &str) -> String {
    let users = materialize_users(bootstrap, interval);
    let orders = count_by_country(bootstrap, interval);
    let users = replace(
        &users,
        &[(&format!("name = \"{NAME}\""), &format!("name = \"{name}\""))],
    );
    // What both call the same, and the head, which there is once.
    let (_, orders) = orders
        .split_once("\n[sources")
        .expect("an example has a source");
    let changes = [
        ("[plugins.parse]", "[plugins.order]"),
        ("[steps.parse]", "[steps.order]"),
        ("plugin = \"parse\"", "plugin = \"order\""),
        ("inputs = [\"parse\"]", "inputs = [\"order\"]"),
    ];
    let orders = replace(orders, &changes);
    let set_aside = [("on-error = \"skip\"", "on-error = \"dead-letter\"")];
    let pipeline = replace(&format!("{users}\n[sources{orders}"), &set_aside);
    let letters = |step: &str, topic: &str| {
        format!("\n[sinks.{topic}]\ninputs = [\"{step}.failed\"]\ntopic = \"{topic}\"\n")
    };
    pipeline + &letters("parse", USERS_LETTERS) + &letters("order", ORDERS_LETTERS)
}

fn example(name: &str, plugins: &[&str], bootstrap: &str, interval: &str) -> String {
    let example = repository().join("examples").join(name);
    let file = example.join("pipeline.toml");
    let text = std::fs::read_to_string(&file)
        .unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    let mut changes = vec![
        (
            "bootstrap.servers = \"localhost:9092\"".to_owned(),
            format!("bootstrap.servers = \"{bootstrap}\""),
        ),
        (
            "interval = \"5s\"".to_owned(),
            format!("interval = \"{interval}\""),
        ),
    ];
    for plugin in plugins {
        let built = example.join(plugin).with_extension("wasm");
        assert!(
            built.exists(),
            "{} is missing: cargo xtask plugins",
            built.display()
        );
        changes.push((
            format!("path = \"{plugin}.wasm\""),
            format!("path = \"{}\"", built.display()),
        ));
    }
    let changes: Vec<(&str, &str)> = changes
        .iter()
        .map(|(from, to)| (from.as_str(), to.as_str()))
        .collect();
    replace(&text, &changes)
}

/// Each text must be there, or the test would run something else than it says.
pub fn replace(text: &str, changes: &[(&str, &str)]) -> String {
    changes.iter().fold(text.to_owned(), |text, (from, to)| {
        assert!(text.contains(from), "{from:?} is not in\n{text}");
        text.replace(from, to)
    })
}

/// A plugin of the tests, built by `cargo xtask plugins`.
pub fn plugin(name: &str) -> PathBuf {
    let path = built(name);
    assert!(
        path.exists(),
        "{} is missing: cargo xtask plugins",
        path.display()
    );
    path
}

/// Where a plugin of the tests is, once it is built.
pub fn built(name: &str) -> PathBuf {
    let target =
        std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| PathBuf::from("target"), PathBuf::from);
    repository().join(target).join("plugins").join(name)
}

/// A broker for all tests that leave it alone; it ends with the test run.
pub fn shared_kafka() -> &'static Kafka {
    static KAFKA: LazyLock<Kafka> = LazyLock::new(Kafka::start);
    &KAFKA
}

/// Writes lines of key, tab, value (`\\N` for null) to partition 0 of a topic of the shared broker, in order.
pub fn write(folder: &Folder, topic: &str, lines: &str) {
    write_compressed(folder, topic, lines, "none");
}

pub fn write_compressed(folder: &Folder, topic: &str, lines: &str, codec: &str) {
    let file = folder.write("records.tsv", lines).display().to_string();
    let bootstrap = shared_kafka().direct();
    judge::run(&["write", &bootstrap, topic, &file, "--codec", codec]);
}

/// The same to another partition; `hash` stands for where each key belongs.
pub fn write_to(folder: &Folder, topic: &str, partition: &str, lines: &str) {
    let file = folder.write("records.tsv", lines).display().to_string();
    let bootstrap = shared_kafka().direct();
    let arguments = ["write", &bootstrap, topic, &file, "--partition", partition];
    judge::run(&arguments);
}

/// Writes to partition 0 in a transaction of this producer that is left open. What its last life left open is aborted.
pub fn write_open(folder: &Folder, topic: &str, producer: &str, lines: &str) {
    let file = folder.write("records.tsv", lines).display().to_string();
    let bootstrap = shared_kafka().direct();
    judge::run(&["write", &bootstrap, topic, &file, "--open", producer]);
}

/// Writes these values under the key `k`.
pub fn write_values(folder: &Folder, topic: &str, values: &[&str]) {
    let line = |value: &&str| match *value {
        "null" => "k\t\\N\n".to_owned(),
        value => format!("k\t{value}\n"),
    };
    write(folder, topic, &values.iter().map(line).collect::<String>());
}

/// The committed records of a topic of the shared broker, as the judge dumps them.
pub fn dump(topic: &str) -> Vec<Value> {
    let lines = judge::run(&["dump", &shared_kafka().direct(), topic]);
    let records = lines.lines().filter(|line| line.starts_with('{'));
    records
        .map(|line| serde_json::from_str(line).expect("a dump is JSON lines"))
        .collect()
}

/// Their values; the null value is shown as `null`.
pub fn values(topic: &str) -> Vec<String> {
    let text = |record: &Value| match &record["value"] {
        Value::String(text) => text.clone(),
        null => null.to_string(),
    };
    dump(topic).iter().map(text).collect()
}

/// Runs a pipeline on the shared broker, with the probe plugin and short epochs, until it is ready.
pub fn run(folder: &Folder, pipeline: &str) -> Millstream {
    let mut life = start(folder, pipeline);
    life.wait_ready(WITHIN);
    life
}

/// The same without waiting.
pub fn start(folder: &Folder, pipeline: &str) -> Millstream {
    let text = format!(
        "kafka.bootstrap.servers = \"{}\"\nplugins.probe.path = \"{}\"\ncheckpoint.interval = \"50ms\"\n{pipeline}",
        shared_kafka().bootstrap(),
        plugin("probe.wasm").display()
    );
    let file = folder.write("pipeline.toml", &text).display().to_string();
    let arguments = ["run", &file, "--instance", "a", "--http", "127.0.0.1:0"];
    Millstream::spawn(&folder.join("millstream.log"), &arguments)
}

/// Another instance of the pipeline that was started in this folder.
pub fn start_second(folder: &Folder) -> Millstream {
    let file = folder.join("pipeline.toml").display().to_string();
    let arguments = ["run", &file, "--instance", "b", "--http", "127.0.0.1:0"];
    Millstream::spawn(&folder.join("second.log"), &arguments)
}

/// The pipelines in an answer of `/v1/status`.
pub fn told(body: &str) -> Vec<Value> {
    let status: Value = serde_json::from_str(body).expect("status is JSON");
    status["pipelines"].as_array().expect("a list").clone()
}

/// The workers of all of them; none of one that is starting.
pub fn workers(body: &str) -> Vec<Value> {
    let pipelines = told(body);
    let workers = pipelines
        .iter()
        .filter_map(|pipeline| pipeline["workers"].as_array());
    workers.flatten().cloned().collect()
}

/// What the first worker says of itself once it is as wanted.
pub fn wait_worker(life: &mut Millstream, wanted: impl Fn(&Value) -> bool) -> Value {
    let answer = life.wait_get("/v1/status", WITHIN, |answer| {
        workers(answer.text()).first().is_some_and(&wanted)
    });
    workers(answer.text()).swap_remove(0)
}

/// Waits until the workers have processed and committed so many records, and returns what the first one says.
pub fn wait_records(life: &mut Millstream, records: u64) -> Value {
    let count = |worker: &Value| worker["records"].as_u64().expect("a count");
    let answer = life.wait_get("/v1/status", WITHIN, |answer| {
        workers(answer.text()).iter().map(count).sum::<u64>() == records
    });
    workers(answer.text()).swap_remove(0)
}
