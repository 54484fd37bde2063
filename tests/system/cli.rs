//! The command line: what is refused, with which words and which exit code, before any record flows.

use std::process::{Command, Output};
use std::time::{Duration, Instant};

use rig::folder::Folder;
use rig::millstream::{self, Millstream};
use rig::ports;

use crate::pipelines::{materialize_users, plugin, replace, shared_kafka};

const READY: Duration = Duration::from_secs(60);

fn error(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Checks a pipeline file made of the example by `changes`, and expects every one of these words in what is said.
fn check(changes: &[(&str, &str)], expected: &[&str]) {
    let folder = Folder::new("cli");
    let text = replace(&materialize_users("127.0.0.1:9", "1s"), changes);
    let file = folder.write("pipeline.toml", &text).display().to_string();
    let output = millstream::run(&["check", &file]);
    let said = error(&output);
    assert_eq!(output.status.code(), Some(2), "{said}");
    for words in expected {
        assert!(said.contains(words), "{words:?} is not in\n{said}");
    }
}

/// Runs one on the shared broker, and expects it to be refused.
fn check_run(changes: &[(&str, &str)], expected: &[&str]) {
    let folder = Folder::new("cli");
    let text = replace(
        &materialize_users(&shared_kafka().bootstrap(), "1s"),
        changes,
    );
    let file = folder.write("pipeline.toml", &text).display().to_string();
    let output = millstream::run(&[
        "run",
        &file,
        "--instance",
        "refused",
        "--http",
        "127.0.0.1:0",
    ]);
    let said = error(&output);
    assert_eq!(output.status.code(), Some(2), "{said}");
    for words in expected {
        assert!(said.contains(words), "{words:?} is not in\n{said}");
    }
}

#[test]
fn the_example_is_sound() {
    let folder = Folder::new("cli");
    let file = folder
        .write("pipeline.toml", &materialize_users("127.0.0.1:9", "1s"))
        .display()
        .to_string();
    let output = millstream::run(&["check", &file]);
    assert!(output.status.success(), "{}", error(&output));
    assert!(String::from_utf8_lossy(&output.stdout).contains("\"materialize-users\" is sound"));
}

#[test]
fn everything_wrong_in_a_file_is_said_at_once() {
    let example = example_path();
    check(
        &[
            ("inputs = [\"events\"]", "inputs = [\"event\"]"),
            ("on-error = \"skip\"", "on-eror = \"skip\""),
            ("[checkpoint]", "[checkpoint]\ninterval = 3"),
            ("start = \"earliest\"", "start = \"first\""),
            (&example, "path = \"nowhere.wasm\""),
            ("[checkpoint]", "no.such.property = 1\n[checkpoint]"),
        ],
        &[
            "pipeline.toml:",
            "steps.parse.inputs[0]",
            "did you mean \"events\"",
            "steps.parse.on-eror",
            "checkpoint.interval",
            "sources.events.start",
            "plugins.users.path",
            "nowhere.wasm",
            "kafka.no.such.property: librdkafka refuses",
        ],
    );
}

#[test]
fn properties_that_would_break_exactly_once_are_refused() {
    let more = "isolation.level = \"read_uncommitted\"\nenable.auto.commit = true\nno.such.property = 1\n[checkpoint]";
    check(
        &[("[checkpoint]", more)],
        &["isolation.level", "enable.auto.commit"],
    );
    check(
        &[("[checkpoint]", "no.such.property = 1\n[checkpoint]")],
        &["kafka.no.such.property", "librdkafka refuses"],
    );
}

/// The line of the pipeline files here that names their plugin.
fn example_path() -> String {
    let example = rig::repository().join("examples/01-materialize-users/users.wasm");
    format!("path = \"{}\"", example.display())
}

#[test]
fn what_librdkafka_can_not_use_is_said_with_the_plugins_problems() {
    let example = example_path();
    let missing = "ssl.ca.location = \"nowhere.pem\"\nsecurity.protocol = \"ssl\"\n[checkpoint]";
    check(
        &[
            ("[checkpoint]", missing),
            (&example, "path = \"nowhere.wasm\""),
        ],
        &[
            "kafka:",
            "ssl.ca.location failed",
            "nowhere.wasm",
            "No such file",
        ],
    );
}

#[test]
fn secrets_are_not_printed() {
    let folder = Folder::new("cli");
    let more = "security.protocol = { file = \"secret\" }\n[checkpoint]";
    let text = replace(
        &materialize_users("127.0.0.1:9", "1s"),
        &[("[checkpoint]", more)],
    );
    let _ = folder.write("secret", "hunter2\n");
    let file = folder.write("pipeline.toml", &text).display().to_string();
    let said = error(&millstream::run(&["check", &file]));
    assert!(
        said.contains("kafka.security.protocol: librdkafka refuses"),
        "{said}"
    );
    assert!(!said.contains("hunter2"), "{said}");
}

/// Kafka lets nobody but itself write its own topics, whoever may write the others.
#[test]
fn a_topic_that_may_not_be_written_ends_the_process_with_its_reason() {
    let kafka = shared_kafka();
    for topic in ["denied-in", "denied-out"] {
        kafka.topic(topic, 1, &[]);
    }
    let folder = Folder::new("cli");
    let spawn = |name: &str, topic: &str| {
        let pipeline = format!(
            r#"
name = "{name}"
kafka.bootstrap.servers = "{}"
checkpoint.interval = "50ms"
sources.in.topics = ["denied-in"]
sinks.out = {{ inputs = ["in"], topic = "{topic}" }}
"#,
            kafka.bootstrap()
        );
        let file = folder
            .write("pipeline.toml", &pipeline)
            .display()
            .to_string();
        let arguments = ["run", &file, "--instance", "one", "--http", "127.0.0.1:0"];
        let mut life = Millstream::spawn(&folder.join(&format!("{name}.log")), &arguments);
        life.wait_ready(READY);
        life
    };
    // Kafka makes its topic for transactions when somebody first has one.
    assert!(spawn("allowed", "denied-out").terminate(READY).success());
    let mut life = spawn("denied", "__transaction_state");
    let record = folder.write("records.tsv", "k\tv\n").display().to_string();
    rig::judge::run(&["write", &kafka.direct(), "denied-in", &record]);
    assert_eq!(life.wait_exit(READY).code(), Some(1));
    let said = life.lines().join("\n");
    assert!(said.contains("authorization failed"), "{said}");
}

#[test]
fn files_that_are_no_plugins_are_named() {
    let folder = Folder::new("plugins");
    let good = std::fs::read(plugin("probe.wasm")).expect("the probe is built");
    let write = |name: &str, bytes: &[u8]| {
        std::fs::write(folder.join(name), bytes).expect("a temporary file");
        folder.join(name).display().to_string()
    };
    let example = rig::repository()
        .join("examples/01-materialize-users/users.wasm")
        .display()
        .to_string();
    let check_plugin = |path: &str, expected: &[&str]| {
        check(
            &[(
                &format!("path = \"{example}\""),
                &format!("path = \"{path}\""),
            )],
            expected,
        );
    };
    let cut = &good[..good.len() / 2];
    check_plugin(
        &write("missing.wasm", b"").replace("missing", "nowhere"),
        &["plugins.users.path", "nowhere.wasm", "No such file"],
    );
    check_plugin(&write("empty.wasm", b""), &["the file is empty"]);
    check_plugin(&write("text.wasm", b"hello"), &["it is not WebAssembly"]);
    check_plugin(
        &write("module.wasm", b"\0asm\x01\0\0\0"),
        &["core module, not a component"],
    );
    check_plugin(
        &write("cut.wasm", cut),
        &["is not a plugin", "millstream:plugin/transform@0.1.0"],
    );
    check_plugin(
        &write("bare.wasm", b"\0asm\x0d\0\x01\0"),
        &["exports nothing", "millstream:plugin/transform@0.1.0"],
    );
    let other = rename_version(&good);
    check_plugin(
        &write("version.wasm", &other),
        &["another version of the contract (millstream:plugin/transform@0.1.9)"],
    );
}

/// The same component, made for a version of the contract that there isn't.
fn rename_version(component: &[u8]) -> Vec<u8> {
    let (from, to) = (
        b"millstream:plugin/transform@0.1.0",
        b"millstream:plugin/transform@0.1.9",
    );
    let mut renamed = component.to_vec();
    for at in 0..renamed.len() - from.len() {
        if renamed[at..].starts_with(from) {
            renamed[at..at + to.len()].copy_from_slice(to);
        }
    }
    assert_ne!(renamed, component);
    renamed
}

#[test]
fn what_a_plugin_needs_and_the_file_does_not_give_is_said() {
    let probe = plugin("probe.wasm").display().to_string();
    let example = rig::repository()
        .join("examples/01-materialize-users/users.wasm")
        .display()
        .to_string();
    let path = (
        format!("path = \"{example}\""),
        format!("path = \"{probe}\""),
    );
    let path = (path.0.as_str(), path.1.as_str());
    let config = "config = { min_age = 18 }";
    check(
        &[
            path,
            (
                config,
                "config = { lookup = \"plans\", state = \"totals\" }",
            ),
        ],
        &[
            "steps.parse",
            "needs lookups \"plans\"",
            "needs state \"totals\"",
        ],
    );
    check(
        &[
            path,
            (config, ""),
            (
                "inputs = [\"parse\"]\ntopic",
                "inputs = [\"parse.uneven\"]\ntopic",
            ),
        ],
        &["sinks.adults.inputs[0]", "no port \"uneven\"", "odd, even"],
    );
    check(
        &[path],
        &["steps.parse.config", "refuses its configuration", "min_age"],
    );
    check(
        &[path, (config, "config = { trap = true }")],
        &["steps.parse.config", "refuses its configuration"],
    );
}

#[test]
fn topics_that_are_missing_or_do_not_fit_are_named() {
    let kafka = shared_kafka();
    kafka.topic("cli-four", 4, &[]);
    kafka.topic("cli-three", 3, &[]);
    kafka.topic("cli-bad.users.changelog", 4, &[]);
    kafka.topic("cli-narrow.users.changelog", 2, &["cleanup.policy=compact"]);
    let both = ["cleanup.policy=compact,delete"];
    kafka.topic("cli-both.users.changelog", 4, &both);
    let sources = "topics = [\"user-events\"]";
    check_run(
        &[
            (sources, "topics = [\"nowhere\", \"cli-four\"]"),
            ("topic = \"adults\"", "topic = \"nobody\""),
        ],
        &[
            "sources.events.topics[0]",
            "\"nowhere\" does not exist",
            "sinks.adults.topic",
            "\"nobody\" does not exist",
        ],
    );
    let out = ("topic = \"adults\"", "topic = \"cli-three\"");
    check_run(
        &[
            (sources, "topics = [\"cli-four\", \"cli-three\"]"),
            ("topic = \"adults\"", "topic = \"cli-bad.users.changelog\""),
        ],
        &[
            "sources.events.topics[1]",
            "\"cli-three\" has 3 partitions, but \"cli-four\" has 4",
        ],
    );
    let four = (sources, "topics = [\"cli-four\"]");
    check_run(
        &[
            four,
            out,
            ("name = \"materialize-users\"", "name = \"cli-bad\""),
        ],
        &["cleanup.policy=delete"],
    );
    check_run(
        &[
            four,
            out,
            ("name = \"materialize-users\"", "name = \"cli-both\""),
        ],
        &["cleanup.policy=compact,delete: entries would be lost"],
    );
    check_run(
        &[
            four,
            out,
            ("name = \"materialize-users\"", "name = \"cli-narrow\""),
        ],
        &["has 2 partitions", "have 4"],
    );
}

#[test]
fn an_unreachable_broker_is_said_and_the_time_out_ends_it() {
    let folder = Folder::new("cli");
    let nobody = format!("127.0.0.1:{}", ports::free(&[0]));
    let file = folder
        .write("pipeline.toml", &materialize_users(&nobody, "1s"))
        .display()
        .to_string();
    let began = Instant::now();
    let output = millstream::run(&[
        "run",
        &file,
        "--http",
        "127.0.0.1:0",
        "--connect-timeout",
        "2s",
    ]);
    let said = error(&output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(
        said.contains(&format!("{nobody} can't be reached")) && said.contains("trying again in"),
        "{said}"
    );
    assert!(
        began.elapsed() >= Duration::from_secs(2),
        "it gave up too early"
    );
}

#[test]
fn one_instance_name_runs_once() {
    let kafka = shared_kafka();
    kafka.topic("twice-in", 1, &[]);
    kafka.topic("twice-out", 1, &[]);
    let folder = Folder::new("cli");
    let text = replace(
        &materialize_users(&kafka.bootstrap(), "1s"),
        &[
            ("name = \"materialize-users\"", "name = \"twice\""),
            ("topics = [\"user-events\"]", "topics = [\"twice-in\"]"),
            ("topic = \"adults\"", "topic = \"twice-out\""),
            ("topic = \"countries\"", "topic = \"twice-in\""),
        ],
    );
    let file = folder.write("pipeline.toml", &text).display().to_string();
    let arguments = ["run", &file, "--instance", "one", "--http", "127.0.0.1:0"];
    let mut first = Millstream::spawn(&folder.join("first.log"), &arguments);
    first.wait_ready(READY);
    let second = millstream::run(&arguments);
    assert_eq!(second.status.code(), Some(1));
    assert!(
        error(&second).contains("instance \"one\" of this pipeline runs on this host already"),
        "{}",
        error(&second)
    );
    // On another host there are other locks; the group knows who is there, and where.
    let mut elsewhere = Command::new(millstream::binary());
    let (locks, caches) = (folder.join("locks"), folder.join("caches"));
    elsewhere.env("XDG_RUNTIME_DIR", locks);
    elsewhere.env("XDG_CACHE_HOME", caches);
    let second = elsewhere.args(arguments).output().expect("it can be run");
    let said = error(&second);
    assert_eq!(second.status.code(), Some(1), "{said}");
    let words = format!(
        "instance \"one\" of pipeline \"twice\" runs already, and answers at {}",
        first.http_address()
    );
    assert!(said.contains(&words), "{said}");
    let address = first.http_address();
    assert_eq!(first.get("/readyz").status, 200, "the first one goes on");
    stands_still_and_is_there(&mut first, &folder, &arguments);
    assert!(first.terminate(READY).success());
    // Nobody answers there any more.
    let mut second = Millstream::spawn(&folder.join("second.log"), &arguments);
    second.wait_ready(READY);
    assert_ne!(second.http_address(), address);

    // An address of another host's loopback says nothing here. Who answers there keeps its seat in the group, or loses it.
    let mut elsewhere = Command::new(millstream::faulty());
    elsewhere.env("MILLSTREAM_FAULT_SCOPE", "another");
    elsewhere.env("XDG_RUNTIME_DIR", folder.join("locks"));
    elsewhere.args(arguments);
    let third = elsewhere.output().expect("it can be run");
    let said = error(&third);
    assert_eq!(third.status.code(), Some(1), "{said}");
    let words = format!(
        "runs already, and answers at {} of another host",
        second.http_address()
    );
    assert!(said.contains(&words), "{said}");
    assert_eq!(second.get("/readyz").status, 200, "the second one goes on");
    second.kill();
    let mut third = Millstream::spawn_command(&folder.join("third.log"), elsewhere);
    third.wait_ready(READY);
    assert!(third.terminate(READY).success());
}

/// One that stands still for less than its session keeps its name, also where who waits for it is told to end.
fn stands_still_and_is_there(first: &mut Millstream, folder: &Folder, arguments: &[&str]) {
    let address = first.http_address();
    let beside = |log: &str| {
        Millstream::spawn_with(&folder.join(log), |command| {
            command
                .args(arguments)
                .env("XDG_RUNTIME_DIR", folder.join("locks"));
        })
    };
    let silent =
        format!("answers at {address}, where nothing is said: waiting for the end of its session");
    first.process().freeze();
    let mut second = beside("told-to-end.log");
    second.wait_line(&silent, READY);
    assert!(second.terminate(READY).success());
    first.process().thaw();
    // The group hears of it.
    std::thread::sleep(Duration::from_secs(1));
    first.process().freeze();
    let mut second = beside("beside.log");
    second.wait_line(&silent, READY);
    first.process().thaw();
    second.wait_line(&format!("runs already, and answers at {address}"), READY);
    assert_eq!(second.wait_exit(READY).code(), Some(1));
    assert_eq!(first.get("/readyz").status, 200, "the first one goes on");
    let lines = first.lines();
    let assigned = lines.iter().filter(|line| line.contains("assigned: "));
    assert_eq!(assigned.count(), 1, "nobody took its seat: {lines:#?}");
}

#[test]
fn a_wrong_command_line_is_exit_2() {
    for arguments in [
        &["run"][..],
        &["walk"],
        &["run", "x.toml", "--workers", "0"],
        &["run", "x.toml", "--http", "here"],
    ] {
        assert_eq!(
            millstream::run(arguments).status.code(),
            Some(2),
            "{arguments:?}"
        );
    }
    let missing = millstream::run(&["run", "no-such-file.toml"]);
    assert_eq!(missing.status.code(), Some(2));
    assert!(
        error(&missing).contains("no-such-file.toml"),
        "{}",
        error(&missing)
    );
}
