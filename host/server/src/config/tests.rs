//! Pipeline files and what is said of them. The bad ones are scripts: `names.txt` has what `file` and `resolve` find,
//! `syntax.txt` what is not TOML, `kafka.txt` client properties.

use std::path::Path;
use std::time::Duration;

use millstream_engine::pipeline::{
    From, Grant, Guarantee, Kept, MapId, OnError, SourceId, Start, StepId, Target, TopicId,
};

use super::{Config, Overrides, Problem, parse};
use crate::plugin_allow::{Allow, Stub};
use crate::plugin_limits::PluginLimits;

mod kafka;

/// A file that uses everything once. Bad files are edits of it.
const GOOD: &str = r#"name = "materialize-users"

[kafka]
bootstrap.servers = "localhost:9092"

[checkpoint]
guarantee = "exactly-once"
interval = "5s"

[sources.events]
topics = ["user-events"]
start = "earliest"

[plugins.users]
path = "users.wasm"

[steps.parse]
inputs = ["events"]
plugin = "users"
config = { min_age = 18 }
on-error = "skip"

[sinks.users]
inputs = ["parse"]
map = "users"

[sinks.adults]
inputs = ["parse"]
topic = "adults"
"#;

fn load_text(text: &str) -> Result<Config, String> {
    let path = Path::new("pipeline.toml");
    parse(text, path, &Overrides::default()).map_err(|unsound| unsound.problems.to_string())
}

fn good(text: &str) -> Config {
    load_text(text).unwrap_or_else(|problems| panic!("{text}\n{problems}"))
}

#[track_caller]
fn check(text: &str, expected: &str) {
    let found = load_text(text).map_or_else(|problems| problems, |_| String::new());
    assert_eq!(found, expected, "of:\n{text}");
}

/// Cases stand between empty lines: `-` lines of the good file give way to `+` lines (`- *`: all of them; none: the end), and
/// `>` lines are what is said of the result. `#` begins a comment.
fn check_all(script: &str) {
    for case in script.split("\n\n") {
        let lines = |sign: char| -> String {
            let of_sign = case.lines().filter_map(|line| line.strip_prefix(sign));
            of_sign
                .map(|line| format!("{}\n", line.strip_prefix(' ').unwrap_or(line)))
                .collect()
        };
        let (from, to, expected) = (lines('-'), lines('+'), lines('>'));
        let text = match from.as_str() {
            "" => add(&to),
            "*\n" => to,
            from => edit(from, &to),
        };
        if !case.starts_with('#') {
            check(&text, expected.trim_end());
        }
    }
}

#[test]
fn problems() {
    check_all(include_str!("tests/names.txt"));
    check_all(include_str!("tests/syntax.txt"));
}

/// The good file with one thing changed.
#[track_caller]
fn edit(from: &str, to: &str) -> String {
    assert_eq!(
        GOOD.matches(from).count(),
        1,
        "{from:?} has to stand there once"
    );
    GOOD.replace(from, to)
}

/// The good file with more at its end.
fn add(more: &str) -> String {
    format!("{GOOD}{more}")
}

#[test]
fn the_good_file() {
    let config = good(GOOD);
    let pipeline = &config.pipeline;
    assert_eq!(pipeline.name, "materialize-users");
    assert_eq!(pipeline.guarantee, Guarantee::ExactlyOnce);
    assert_eq!(pipeline.interval, Duration::from_secs(5));
    assert_eq!(pipeline.sources[0].name, "events");
    assert_eq!(pipeline.sources[0].start, Start::Earliest);
    assert_eq!(pipeline.topics[0].topic, "user-events");
    assert_eq!(pipeline.steps[0].inputs[0].from, From::Source(SourceId(0)));
    assert_eq!(pipeline.steps[0].on_error, OnError::Skip);
    let default_port = From::Step {
        step: StepId(0),
        port: String::new(),
    };
    assert_eq!(pipeline.sinks[0].inputs[0].from, default_port);
    assert_eq!(pipeline.sinks[0].target, Target::Map(MapId(0)));
    assert_eq!(pipeline.sinks[1].target, Target::Topic("adults".to_owned()));
    assert_eq!(pipeline.sinks[1].on_error, OnError::Fail);
    assert_eq!(
        pipeline.changelog(MapId(0)),
        "materialize-users.users.changelog"
    );
    assert_eq!(config.steps[0].plugin, 0);
    assert_eq!(config.steps[0].config, r#"{"min_age":18}"#);
    assert_eq!(config.outside.plugins[0].path, Path::new("users.wasm"));
    assert_eq!(config.warnings, []);
}

#[test]
fn defaults() {
    let config = good(
        r#"
        name = "p"
        kafka.bootstrap.servers = "b:9092"
        sources.in.topics = ["in"]
        sinks.out = { inputs = ["in"], topic = "out" }
        "#,
    );
    assert_eq!(config.pipeline.guarantee, Guarantee::ExactlyOnce);
    assert_eq!(config.pipeline.interval, Duration::from_secs(1));
    assert_eq!(config.pipeline.sources[0].start, Start::Earliest);
    assert_eq!(
        config.pipeline.sinks[0].inputs[0].from,
        From::Source(SourceId(0))
    );
    assert_eq!(config.pipeline.steps, []);
}

#[test]
fn limits_of_plugins() {
    let limits = |text: &str| {
        let path = "path = \"users.wasm\"";
        let config = good(&edit(path, &format!("{path}\n{text}")));
        config.outside.plugins[0].limits
    };
    let default = PluginLimits::default();
    assert_eq!(limits(""), default);
    let small = PluginLimits {
        memory: 64 << 20,
        memory_mark: 48 << 20,
        ..default
    };
    assert_eq!(limits("limits.memory = \"64MiB\""), small);
    let more = "limits = { time = \"500ms\", log-lines = 7, memory-mark = \"1MiB\" }";
    let expected = PluginLimits {
        time: Duration::from_millis(500),
        log_lines: 7,
        memory_mark: 1 << 20,
        ..default
    };
    assert_eq!(limits(more), expected);
}

#[test]
fn what_plugins_are_allowed() {
    let allow = |text: &str| {
        let path = "path = \"users.wasm\"";
        let config = good(&edit(path, &format!("{path}\n{text}")));
        config.outside.plugins[0].allow.clone()
    };
    assert_eq!(allow(""), Allow::default());
    let text = "allow = { env = [\"REGION\"], stdout = true, stubs = [\"sockets\"] }";
    let expected = Allow {
        env: vec!["REGION".into()],
        stdout: true,
        stubs: vec![Stub::Sockets],
    };
    assert_eq!(allow(text), expected);
}

/// They come back by an input of the step that has set them aside.
#[test]
fn dead_letters_come_back_by_a_source() {
    let text = edit(
        "on-error = \"skip\"",
        "on-error = \"dead-letter\"\nreplay = true",
    );
    let letters = "[sinks.letters]\ninputs = [\"parse.failed\"]\ntopic = \"letters\"\n";
    let config = good(&(text + letters));
    let pipeline = &config.pipeline;
    let topics: Vec<_> = pipeline.topics.iter().map(|t| t.topic.as_str()).collect();
    assert_eq!(topics, ["user-events", "materialize-users.parse.replay"]);
    assert!(pipeline.is_stream(TopicId(1)) && pipeline.co_partitioned());
    let inputs = &pipeline.steps[0].inputs;
    assert_eq!(inputs.len(), 2);
    assert_eq!(inputs[1].name, "replay");
    assert_eq!(inputs[1].from, From::Source(SourceId(1)));
    let problem = config.topic_problem(TopicId(1), "is wrong");
    let expected = "pipeline.toml:22: steps.parse.replay: is wrong";
    assert_eq!(problem.to_string(), expected);
}

#[test]
fn intervals() {
    let interval = |text: &str| good(&edit("\"5s\"", text)).pipeline.interval;
    assert_eq!(interval("\"10ms\""), Duration::from_millis(10));
    assert_eq!(interval("\"90s\""), Duration::from_secs(90));
    assert_eq!(interval("\"5m\""), Duration::from_secs(300));
}

#[test]
fn lengths() {
    let longest = "a".repeat(100);
    assert_eq!(
        good(&edit("materialize-users", &longest)).pipeline.name,
        longest
    );
    check(
        &edit("materialize-users", &"a".repeat(101)),
        "pipeline.toml:1: name: a name of 101 characters, 100 are allowed",
    );
    // "materialize-users.", the map, ".changelog": 249 characters.
    let map = "m".repeat(221);
    good(&edit("map = \"users\"", &format!("map = \"{map}\"")));
    check(
        &edit("map = \"users\"", &format!("map = \"m{map}\"")),
        &format!(
            "pipeline.toml:25: sinks.users.map: the map's changelog, \
             \"materialize-users.m{map}.changelog\", would have 250 characters, 249 are allowed"
        ),
    );
    let topic = "t".repeat(250);
    check(
        &edit("\"adults\"", &format!("{topic:?}")),
        &format!(
            "pipeline.toml:29: sinks.adults.topic: {topic:?} is not a topic name; \
             1 to 249 letters, digits, `.`, `_` and `-`, and not `.` or `..`"
        ),
    );
}

#[test]
fn steps_run_after_what_feeds_them_and_otherwise_as_written() {
    let config = good(&add(r#"
        [steps.last]
        inputs = ["middle.out", "parse", "events"]
        plugin = "late"
        [steps.middle]
        inputs = ["parse.adults"]
        plugin = "users"
        config = { z = [1, 2.5, "x"], a = { when = 1979-05-27T07:32:00Z, hex = 0x1F } }
        [steps.other]
        inputs = ["events"]
        plugin = "users"
        [plugins.late]
        path = "/opt/late.wasm"
        [sinks.more]
        inputs = ["last", "other"]
        map = "late"
    "#));
    let names: Vec<_> = config
        .pipeline
        .steps
        .iter()
        .map(|step| step.name.as_str())
        .collect();
    assert_eq!(names, ["parse", "middle", "last", "other"]);
    let inputs: Vec<_> = config.pipeline.steps[2]
        .inputs
        .iter()
        .map(|i| &i.from)
        .collect();
    let middle = From::Step {
        step: StepId(1),
        port: "out".to_owned(),
    };
    let parse = From::Step {
        step: StepId(0),
        port: String::new(),
    };
    assert_eq!(inputs, [&middle, &parse, &From::Source(SourceId(0))]);
    assert_eq!(config.pipeline.steps[2].inputs[0].name, "middle.out");
    let plugins: Vec<_> = config.steps.iter().map(|step| step.plugin).collect();
    assert_eq!(plugins, [0, 0, 1, 0]);
    assert_eq!(config.outside.plugins[1].path, Path::new("/opt/late.wasm"));
    let json = r#"{"a":{"hex":31,"when":"1979-05-27T07:32:00Z"},"z":[1,2.5,"x"]}"#;
    assert_eq!(config.steps[1].config, json);
    assert_eq!(config.steps[2].config, "{}");
    assert_eq!(config.pipeline.maps.len(), 2);
    assert_eq!(config.pipeline.sinks[2].target, Target::Map(MapId(1)));
}

#[test]
fn maps_and_lookups() {
    let config = good(&edit(
        "on-error = \"skip\"",
        r#"lookups = { countries = "iso", users = "users" }
[steps.late]
inputs = ["parse"]
plugin = "users"
lookups = ["plans", "users"]
[maps.iso]
topic = "user-events" # a source reads it too
[maps.users]
replicated = true
[maps.plans]
topic = "adults"
replicated = true"#,
    ));
    let pipeline = &config.pipeline;
    let maps = pipeline.maps.iter();
    let maps: Vec<_> = maps
        .map(|map| (map.name.as_str(), &map.kept, map.replicated))
        .collect();
    let topic = |name: &str| Kept::Topic(name.to_owned());
    let expected = [
        ("users", &Kept::Changelog, true),
        ("iso", &topic("user-events"), false),
        ("plans", &topic("adults"), true),
    ];
    assert_eq!(maps, expected);
    let lookup = |name: &str, map: usize| Grant {
        name: name.to_owned(),
        map: MapId(map),
    };
    let [parse, late] = &pipeline.steps[..] else {
        panic!("{:?}", pipeline.steps)
    };
    assert_eq!(parse.lookups, [lookup("countries", 1), lookup("users", 0)]);
    assert_eq!(late.lookups, [lookup("plans", 2), lookup("users", 0)]);
    assert_eq!(
        pipeline.read_by_steps(),
        [MapId(0), MapId(1), MapId(2)],
        "each once"
    );
}

#[test]
fn state_is_a_map() {
    let config = good(&edit(
        "on-error = \"skip\"",
        r#"state = { totals = "sums", seen = "seen" }
[steps.late]
inputs = ["parse"]
plugin = "users"
state = ["late-totals"]
[maps.sums]
index = ["/sum"]"#,
    ));
    let pipeline = &config.pipeline;
    let maps = pipeline.maps.iter();
    let maps: Vec<_> = maps
        .map(|map| (map.name.as_str(), &map.kept, map.index.len()))
        .collect();
    let expected = [
        ("users", &Kept::Changelog, 0),
        ("sums", &Kept::State, 1),
        ("seen", &Kept::State, 0),
        ("late-totals", &Kept::State, 0),
    ];
    assert_eq!(maps, expected);
    let state = |name: &str, map: usize| Grant {
        name: name.to_owned(),
        map: MapId(map),
    };
    let [parse, late] = &pipeline.steps[..] else {
        panic!("{:?}", pipeline.steps)
    };
    assert_eq!(parse.state, [state("totals", 1), state("seen", 2)]);
    assert_eq!(late.state, [state("late-totals", 3)]);
    assert!(config.warnings.is_empty(), "{:?}", config.warnings);
}

#[test]
fn a_stream_is_a_sink_and_a_source() {
    let config = good(&add(r#"
[streams.by-country]
inputs = ["parse"]
on-error = "skip"
[steps.count]
inputs = ["by-country"]
plugin = "users"
state = ["totals"]
[streams.unread]
inputs = ["count"]
"#));
    let pipeline = &config.pipeline;
    let topics: Vec<_> = pipeline.topics.iter().map(|t| t.topic.as_str()).collect();
    let own = [
        "materialize-users.by-country.stream",
        "materialize-users.unread.stream",
    ];
    assert_eq!(topics, ["user-events", own[0], own[1]]);
    let streams: Vec<_> = pipeline
        .sources
        .iter()
        .map(|s| (&*s.name, s.stream))
        .collect();
    assert_eq!(
        streams,
        [("events", false), ("by-country", true), ("unread", true)]
    );
    let sink = &pipeline.sinks[2];
    assert_eq!(sink.target, Target::Stream(own[0].to_owned()));
    assert_eq!((&*sink.name, sink.on_error), ("by-country", OnError::Skip));
    let count = pipeline.steps.iter().find(|step| step.name == "count");
    let count = count.expect("it is in the file");
    assert_eq!(count.inputs[0].from, From::Source(SourceId(1)));
    assert!(pipeline.co_partitioned());
    let warnings: Vec<_> = config.warnings.iter().map(Problem::to_string).collect();
    let expected = "pipeline.toml:38: streams.unread: no step or sink reads this stream";
    assert_eq!(warnings, [expected]);
    let problem = config.topic_problem(TopicId(1), "is wrong");
    assert_eq!(
        problem.to_string(),
        "pipeline.toml:31: streams.by-country: is wrong"
    );
}

#[test]
fn what_has_no_effect_is_a_warning() {
    let config = good(&add(r#"
[plugins.unused]
path = "unused.wasm"
[sources.unread]
topics = ["unread"]
[steps.unread-too]
inputs = ["events"]
plugin = "users"
"#));
    let warnings: Vec<_> = config.warnings.iter().map(Problem::to_string).collect();
    let expected = [
        "pipeline.toml:31: plugins.unused: no step uses this plugin: it is not loaded",
        "pipeline.toml:33: sources.unread: no step or sink reads this source",
        "pipeline.toml:35: steps.unread-too: no step or sink reads what this step puts out",
    ];
    assert_eq!(warnings, expected);
    assert_eq!(config.outside.plugins.len(), 1);
}

#[test]
fn later_problems_find_their_line() {
    let config = good(
        r#"name = "p"
[kafka]
metadata.broker.list = "b:9092"
consumer.fetch.min.bytes = 1
[sources.first]
topics = ["a"]
[sources.second]
topics = [
  "b",
  "c",
]
[sinks.out]
inputs = ["first", "second"]
topic = "out"
"#,
    );
    let topic = config
        .topic_problem(TopicId(2), "has 3 partitions")
        .with_hint("add one");
    let expected = "pipeline.toml:10: sources.second.topics[1]: has 3 partitions; add one";
    assert_eq!(topic.to_string(), expected);
    let lines = [
        (config.problem(&["sinks", "out", "topic"], ""), 14),
        (config.problem(&["sinks", "out", "inputs[1]"], ""), 13),
        (config.problem(&["sinks", "out", "lookups", "x"], ""), 12),
        (config.problem(&["steps", "parse"], ""), 1),
        (config.outside.kafka_problem("bootstrap.servers", ""), 3),
        (config.outside.kafka_problem("fetch.min.bytes", ""), 4),
        (
            config.outside.kafka_problem("consumer.fetch.min.bytes", ""),
            4,
        ),
        (config.outside.kafka_problem("linger.ms", ""), 2),
    ];
    for (problem, line) in lines {
        assert_eq!(problem.line, Some(line), "{problem}");
    }
}

/// Found by the fuzz target `pipeline_file`.
#[test]
fn a_problem_is_told_in_one_line() {
    let property = r#""a\nb\u001b" = { env = "MILLSTREAM_NOT_SET" }"#;
    check(
        &edit("[kafka]", &format!("[kafka]\n{property}")),
        r#"pipeline.toml:4: kafka.a\nb\u{1b}: the environment variable "MILLSTREAM_NOT_SET" is not set"#,
    );
}

#[test]
fn files_that_can_not_be_read() {
    let folder = std::env::temp_dir().join(format!("millstream-config-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a temporary folder");
    let said = |name: &str| {
        let loaded = super::load(&folder.join(name), &Overrides::default());
        let problems = loaded.expect_err("a bad file").problems.to_string();
        problems.replace(&format!("{}/", folder.display()), "")
    };
    assert_eq!(
        said("none"),
        "none: can't be read: No such file or directory (os error 2)"
    );
    std::fs::write(folder.join("latin"), b"name = \"a\"\n# \xe9\n").expect("a file");
    assert_eq!(said("latin"), "latin:2: is not UTF-8");
    let text = GOOD.replace("[kafka]", "[kafka]\nsasl.password = { file = \"secret\" }");
    std::fs::write(folder.join("good"), text).expect("a file");
    std::fs::write(folder.join("secret"), "hush\n").expect("a file");
    let config = super::load(&folder.join("good"), &Overrides::default()).expect("a good file");
    assert_eq!(config.outside.plugins[0].path, folder.join("users.wasm"));
    assert!(
        config
            .outside
            .kafka
            .common()
            .any(|property| property == ("sasl.password", "hush"))
    );
    assert!(!format!("{config:?}").contains("hush"));
    std::fs::remove_dir_all(&folder).expect("the folder is ours");
}
