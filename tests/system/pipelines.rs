//! The pipelines that tests run.

use std::path::PathBuf;
use std::sync::LazyLock;

use rig::kafka::Kafka;
use rig::repository;

pub const NAME: &str = "materialize-users";
pub const EVENTS: &str = "user-events";
pub const ADULTS: &str = "adults";
pub const MAP: &str = "users";
pub const CHANGELOG: &str = "materialize-users.users.changelog";
pub const MIN_AGE: &str = "18";

/// Example 01's own pipeline file, at this broker and interval, with its plugin found from anywhere.
pub fn materialize_users(bootstrap: &str, interval: &str) -> String {
    let example = repository().join("examples/01-materialize-users");
    let file = example.join("pipeline.toml");
    let text = std::fs::read_to_string(&file)
        .unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    let plugin = example.join("users.wasm");
    assert!(
        plugin.exists(),
        "{} is missing: cargo xtask plugins",
        plugin.display()
    );
    replace(
        &text,
        &[
            (
                "bootstrap.servers = \"localhost:9092\"",
                &format!("bootstrap.servers = \"{bootstrap}\""),
            ),
            ("interval = \"5s\"", &format!("interval = \"{interval}\"")),
            (
                "path = \"users.wasm\"",
                &format!("path = \"{}\"", plugin.display()),
            ),
        ],
    )
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
    let target =
        std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| PathBuf::from("target"), PathBuf::from);
    let path = repository().join(target).join("plugins").join(name);
    assert!(
        path.exists(),
        "{} is missing: cargo xtask plugins",
        path.display()
    );
    path
}

/// A broker for all tests that leave it alone; it ends with the test run.
pub fn shared_kafka() -> &'static Kafka {
    static KAFKA: LazyLock<Kafka> = LazyLock::new(Kafka::start);
    &KAFKA
}
