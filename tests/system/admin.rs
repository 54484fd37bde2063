//! Reloads and rollbacks asked for over HTTP: who may, what is said, and what runs then.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rig::folder::Folder;
use rig::http::{self, Answer};
use rig::millstream::{self, Millstream};
use serde_json::{Value, json};

use crate::hostile::feed::Feed;
use crate::limits::metric;
use crate::openapi::Document;
use crate::pipelines::{WITHIN, plugin, wait_records};
use crate::queries::json_of;

const TOKEN: &str = "an-admin-token-of-the-tests";
const RELOAD: &str = "/v1/pipelines/admin/reload";
const ROLLBACK: &str = "/v1/pipelines/admin/rollback";
const PLUGINS: &str = "/v1/pipelines/admin/plugins";
/// How long a head, or a body, may take; and how much later a busy machine may notice.
const ARRIVAL_MAX: Duration = Duration::from_secs(5);
const LATE_MAX: Duration = Duration::from_secs(20);
/// Connections at a time.
const CONNECTIONS_MAX: usize = 64;

/// A pipeline on the broker in memory whose plugin may take so many milliseconds for a call, by which its version is told.
fn pipeline(milliseconds: u64, more: &str) -> String {
    format!(
        r#"
name = "admin"
checkpoint.interval = "20ms"
sources.in.topics = ["in"]
steps.probe = {{ inputs = ["in"], plugin = "probe", on-error = "skip" }}
sinks.out = {{ inputs = ["probe"], topic = "out" }}
plugins.probe.path = {path}
plugins.probe.limits.time = "{milliseconds}ms"
{more}
"#,
        path = json!(plugin("probe.wasm"))
    )
}

const UNWATCHED: &str = "reload.watch = false";

struct Stage {
    folder: Folder,
    life: Millstream,
    admin: SocketAddr,
    feed: Option<Trickle>,
}

impl Stage {
    fn start(name: &str, text: &str) -> Self {
        let folder = Folder::new(name);
        let (file, token) = (
            folder.write("pipeline.toml", text),
            folder.write("token", &format!("{TOKEN}\n")),
        );
        let feed = Feed::new(&folder);
        let life = Millstream::spawn_with(&folder.join("millstream.log"), |command| {
            command.args(["run", "--embedded", "--http", "127.0.0.1:0"]);
            command.args(["--instance", "a", "--admin", "127.0.0.1:0"]);
            command.arg("--admin-token-file").arg(token);
            command.args(["--workers", "2", "--feed", &feed.argument()]);
            command.arg(file);
        });
        let mut stage = Self {
            admin: life.admin_address(),
            folder,
            life,
            feed: Some(Trickle::of(feed)),
        };
        stage.life.wait_ready(WITHIN);
        stage
    }

    fn write(&self, text: &str) {
        let _ = self.folder.write("pipeline.toml", text);
    }

    /// With the token.
    fn post(&self, path: &str) -> Answer {
        self.post_with(path, &[bearer(TOKEN).as_str()], b"")
    }

    /// With these header lines.
    fn post_with(&self, path: &str, lines: &[&str], body: &[u8]) -> Answer {
        let headers = lines.iter().map(|line| line.split_once(": "));
        let headers: Option<Vec<_>> = headers.collect();
        let headers = headers.expect("a colon stands behind the name");
        let answer = http::request_with(self.admin, "POST", path, &headers, body);
        answer.unwrap_or_else(|error| panic!("POST {path}: {error}"))
    }

    fn plugins(&self) -> Value {
        json_of(&self.life.get(PLUGINS))
    }

    /// Waits until workers run the version whose calls may take so long.
    fn wait_runs(&mut self, milliseconds: u64) {
        let limit = Duration::from_millis(milliseconds).as_secs_f64();
        self.life.wait_get("/metrics", WITHIN, |answer| {
            let found = metric(answer.text(), "millstream_step_call_limit_seconds", "probe");
            (found - limit).abs() < 1e-9
        });
    }
}

fn bearer(token: &str) -> String {
    format!("authorization: Bearer {token}")
}

/// Records that keep coming, each of which gives twenty.
struct Trickle {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<(Feed, u64)>>,
}

impl Trickle {
    fn of(mut feed: Feed) -> Self {
        const PAUSE: Duration = Duration::from_millis(10);
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            let mut number = 0_u64;
            while !stopped.load(Ordering::Relaxed) {
                let line = json!({ "key": number.to_string(), "value": "many 20" });
                feed.write(&format!("{line}\n"));
                number += 1;
                thread::sleep(PAUSE);
            }
            (feed, number)
        });
        Self {
            stop,
            thread: Some(thread),
        }
    }

    /// No more come, until there is another of the feed. Returns how many have come.
    fn end(mut self) -> (Feed, u64) {
        self.stop.store(true, Ordering::Relaxed);
        let thread = self.thread.take().expect("it ends once");
        thread.join().expect("it writes")
    }
}

impl Drop for Trickle {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn check_outcome(answer: &Answer, status: u16, verdict: &str) -> Value {
    let body = json_of(answer);
    assert_eq!(answer.status, status, "{body}");
    assert_eq!(body["verdict"], verdict, "{body}");
    body
}

/// Path, lines of the head and body of a request; the status, and words of the answer.
type Case<'a> = (&'a str, &'a [&'a str], &'a [u8], u16, &'a str);

const OTHER: &str = "/v1/pipelines/other/reload";
const OTHER_PLUGIN: &str = "/v1/pipelines/admin/plugins/other/reload";

#[test]
fn nobody_is_let_in_without_the_token() {
    let mut stage = Stage::start("admin-in", &pipeline(1000, UNWATCHED));
    let document = Document::read(&stage.life.get("/openapi.json"));
    let bad = bearer("an-admin-token-of-the-testr");
    let good = bearer(TOKEN);
    let own = format!("origin: http://{}", stage.admin);
    let small = vec![b' '; 4096];
    let large = vec![b' '; 4097];
    let larger = vec![b' '; 5 << 20];
    let none: &[u8] = b"";
    let (foreign, nobody) = ("origin: http://example.org", "origin: null");
    let cases: [Case<'_>; 12] = [
        (RELOAD, &[], none, 401, "needs the admin token"),
        (RELOAD, &[&bad], none, 401, "is not the admin token"),
        (RELOAD, &[&good, &bad], none, 401, "once"),
        ("/nowhere", &[], none, 401, "needs the admin token"),
        ("/nowhere", &[&good], none, 404, "nothing at this path"),
        (RELOAD, &[foreign, &good], none, 403, "another origin"),
        (RELOAD, &[nobody, &good], none, 403, "another origin"),
        (RELOAD, &[&own, &good], &small, 200, "unchanged"),
        (ROLLBACK, &[&good], &large, 413, "4096 bytes are allowed"),
        (ROLLBACK, &[&good], &larger, 413, "4096 bytes are allowed"),
        (OTHER, &[&good], none, 404, "no pipeline is named"),
        (OTHER_PLUGIN, &[&good], none, 404, "no plugin is named"),
    ];
    for (path, lines, body, status, words) in cases {
        let answer = stage.post_with(path, lines, body);
        assert_eq!(answer.status, status, "{path} {lines:?}: {answer:?}");
        assert!(answer.text().contains(words), "{path}: {answer:?}");
        assert_eq!(answer.header("millstream-instance"), Some("a"));
        let asks = answer.header("www-authenticate") == Some("Bearer");
        assert_eq!(asks, status == 401, "{answer:?}");
        if path != "/nowhere" {
            document.check_method("post", path, &answer);
        }
    }
    let headers = [("authorization", &*format!("Bearer {TOKEN}"))];
    let answer = http::request_with(stage.admin, "GET", RELOAD, &headers, b"");
    assert_eq!(answer.expect("it answers").status, 405);
    check_what_only_reads(&stage, &document);
    assert!(stage.life.terminate(WITHIN).success());
    let said = stage.life.lines().join("\n");
    assert!(!said.contains(TOKEN), "the token is in the log:\n{said}");
    assert!(said.contains("a request to --admin is refused"), "{said}");
}

/// It is elsewhere, and changes nothing there.
fn check_what_only_reads(stage: &Stage, document: &Document) {
    let answer = stage.life.request("POST", RELOAD, b"");
    assert_eq!(answer.status, 404, "{answer:?}");
    let history = stage.plugins()["history"].clone();
    assert_eq!(history.as_array().map(Vec::len), Some(1), "{history}");
    assert_eq!(history[0]["by"], "http");
    for path in [PLUGINS, "/v1/pipelines/admin/plugins/probe"] {
        document.check(path, &stage.life.get(path));
    }
    let missing = stage.life.get("/v1/pipelines/admin/plugins/other");
    assert_eq!(missing.status, 404);
}

/// Writes a byte now and then until the other side has closed, and returns what it said and how long that took.
fn dribble(address: SocketAddr, start: &str, more: &str) -> (String, Duration) {
    let mut stream = TcpStream::connect(address).expect("it listens");
    let began = Instant::now();
    stream.write_all(start.as_bytes()).expect("it is connected");
    let (pause, mut said) = (Duration::from_millis(200), Vec::new());
    stream.set_read_timeout(Some(pause)).expect("a time");
    loop {
        let mut bytes = [0; 4096];
        match stream.read(&mut bytes) {
            Ok(0) => break,
            Ok(count) => said.extend_from_slice(&bytes[..count]),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(_) => break,
        }
        // It may be closed by now.
        let _ = stream.write_all(more.as_bytes());
        assert!(began.elapsed() < LATE_MAX, "it is still open");
    }
    (String::from_utf8_lossy(&said).into_owned(), began.elapsed())
}

#[test]
fn who_asks_slowly_keeps_nobody_waiting() {
    let mut stage = Stage::start("admin-slow", &pipeline(1000, UNWATCHED));
    let admin = stage.admin;
    let head = format!("POST {RELOAD} HTTP/1.1\r\nhost: {admin}\r\n");
    let (said, took) = dribble(admin, &head, "x: y\r\n");
    assert!(said.is_empty() && took >= ARRIVAL_MAX, "{took:?}: {said}");
    let token = bearer(TOKEN);
    let body = format!("{head}{token}\r\ncontent-length: 4000\r\n\r\n");
    let (said, took) = dribble(admin, &body, " ");
    assert!(
        said.starts_with("HTTP/1.1 408 ") && said.contains("the body has not come within 5s"),
        "{said}"
    );
    assert!(took >= ARRIVAL_MAX, "{took:?}");
    // Without the token there is nothing to wait for.
    let body = format!("{head}content-length: 4000\r\n\r\n");
    let (said, took) = dribble(admin, &body, " ");
    assert!(said.starts_with("HTTP/1.1 401 "), "{said}");
    assert!(took < ARRIVAL_MAX, "{took:?}");

    // More than may be there at a time, and none of them asks for anything.
    let connect = |_| TcpStream::connect(admin).expect("it listens");
    let idle: Vec<TcpStream> = (0..CONNECTIONS_MAX + 10).map(connect).collect();
    let began = Instant::now();
    while http::request(admin, "POST", RELOAD, b"").is_err() {
        assert!(began.elapsed() < LATE_MAX, "nobody is answered");
    }
    drop(idle);
    assert!(stage.life.terminate(WITHIN).success());
}

#[test]
fn reloads_and_rollbacks_over_http() {
    let mut stage = Stage::start("admin-versions", &pipeline(1001, UNWATCHED));
    let document = Document::read(&stage.life.get("/openapi.json"));
    let post = |stage: &Stage, path: &str, status: u16, verdict: &str| {
        let answer = stage.post(path);
        document.check_method("post", path, &answer);
        check_outcome(&answer, status, verdict)
    };
    let first = stage.plugins();
    assert_eq!(first["earlier"], Value::Null);
    let why = post(&stage, ROLLBACK, 409, "refused")["error"].clone();
    let words =
        "the rollback is refused, and the old version runs on: there is no version to go back to";
    assert!(
        why.as_str().is_some_and(|why| why.starts_with(words)),
        "{why}"
    );
    post(&stage, RELOAD, 200, "unchanged");

    stage.write(&pipeline(1002, UNWATCHED));
    let one = "/v1/pipelines/admin/plugins/probe/reload";
    let second = post(&stage, one, 200, "taken")["revision"].clone();
    stage.wait_runs(1002);
    stage.write(&pipeline(1003, UNWATCHED));
    let third = post(&stage, RELOAD, 200, "taken")["revision"].clone();
    stage.wait_runs(1003);

    // Each record gives twenty.
    let bad = "plugins.probe.limits.output-records = 10";
    stage.write(&pipeline(1004, &format!("{UNWATCHED}\n{bad}")));
    let rejected = post(&stage, RELOAD, 409, "rejected");
    let why = rejected["why"].as_str().expect("it says why");
    assert!(why.contains("calls failed"), "{why}");
    stage.write(&pipeline(1004, "steps.probe.config = 5"));
    let refused = post(&stage, RELOAD, 409, "refused");
    assert_eq!(refused["revision"], Value::Null);

    let running = stage.plugins();
    assert_eq!(
        (&running["revision"], &running["earlier"]),
        (&third, &second)
    );
    let back = post(&stage, ROLLBACK, 200, "taken");
    assert_eq!(back["revision"], second);
    stage.wait_runs(1002);
    let back = post(&stage, ROLLBACK, 200, "taken");
    assert_eq!(back["revision"], first["revision"]);
    stage.wait_runs(1001);
    post(&stage, ROLLBACK, 409, "refused");
    // The files are loaded when that is asked for.
    stage.write(&pipeline(1002, UNWATCHED));
    let again = post(&stage, RELOAD, 200, "taken");
    assert_eq!(again["revision"], second);
    check_history(&stage, &document);
    assert!(stage.life.terminate(WITHIN).success());
}

fn check_history(stage: &Stage, document: &Document) {
    let answer = stage.life.get(PLUGINS);
    document.check(PLUGINS, &answer);
    let told = json_of(&answer);
    let history = told["history"].as_array().expect("a list");
    let seen: Vec<(&str, &str)> = history
        .iter()
        .map(|reload| {
            let word = |key: &str| reload[key].as_str().expect("a word");
            assert_eq!(word("by"), "http");
            (word("action"), word("verdict"))
        })
        .collect();
    let expected = [
        ("rollback", "refused"),
        ("reload", "unchanged"),
        ("reload", "taken"),
        ("reload", "taken"),
        ("reload", "rejected"),
        ("reload", "refused"),
        ("rollback", "taken"),
        ("rollback", "taken"),
        ("rollback", "refused"),
        ("reload", "taken"),
    ];
    assert_eq!(seen, expected);
    let digest = &told["plugins"][0]["digest"];
    assert_eq!(digest.as_str().map(str::len), Some(64), "{told}");
    let path = told["plugins"][0]["at"].as_str().expect("a path");
    let answer = stage.life.get(path);
    document.check(path, &answer);
    let one = json_of(&answer);
    let own = one["history"].as_array().expect("a list");
    assert_eq!(own.len(), history.len());
    for (own, all) in own.iter().zip(history) {
        let known = !all["revision"].is_null();
        let expected = if known { digest } else { &Value::Null };
        assert_eq!((&own["digest"], &own["at"]), (expected, &all["at"]));
        assert_eq!(own["digest"], all["digests"]["probe"]);
    }
    document.check("/v1/status", &stage.life.get("/v1/status"));
}

#[test]
fn a_rollback_drops_a_version_that_is_not_decided() {
    let mut stage = Stage::start("admin-pending", &pipeline(1001, UNWATCHED));
    stage.write(&pipeline(1002, UNWATCHED));
    check_outcome(&stage.post(RELOAD), 200, "taken");
    let (feed, records) = stage.feed.take().expect("it runs").end();
    wait_records(&mut stage.life, records);
    let running = stage.plugins()["revision"].clone();
    stage.write(&pipeline(1003, UNWATCHED));
    let pending = check_outcome(&stage.post(RELOAD), 202, "pending");
    let dropped = check_outcome(&stage.post(ROLLBACK), 200, "unchanged");
    assert_eq!(dropped["revision"], running);
    assert_ne!(dropped["revision"], pending["revision"]);
    // Asked for twice, it goes back once: the second finds the first on its way.
    let (first, second) = thread::scope(|scope| {
        let first = scope.spawn(|| stage.post(ROLLBACK));
        thread::sleep(Duration::from_secs(1));
        let second = stage.post(ROLLBACK);
        (first.join().expect("it answers"), second)
    });
    check_outcome(&first, 202, "pending");
    check_outcome(&second, 202, "pending");
    stage.feed = Some(Trickle::of(feed));
    stage.wait_runs(1001);
    // Workers run a version before it is noted that it was taken.
    let told = stage.life.wait_get(PLUGINS, WITHIN, |answer| {
        json_of(answer)["history"].as_array().map(Vec::len) == Some(4)
    });
    let told = json_of(&told);
    assert_ne!(told["revision"], running);
    assert_eq!(told["earlier"], Value::Null);
    let history = told["history"].as_array().expect("a list");
    let verdicts = history.iter().map(|reload| reload["verdict"].as_str());
    let verdicts: Vec<&str> = verdicts.flatten().collect();
    assert_eq!(verdicts, ["taken", "rejected", "unchanged", "taken"]);
    let why = &history[1]["why"];
    assert_eq!(why, "a rollback came before it was decided");
    assert!(stage.life.terminate(WITHIN).success());
}

/// Files that stay as they are don't undo a rollback; files that change do.
#[test]
fn a_rollback_holds_until_the_files_change() {
    const LOOKS: Duration = Duration::from_secs(2);
    let mut stage = Stage::start("admin-watched", &pipeline(1001, ""));
    let first = stage.plugins()["revision"].clone();
    stage.write(&pipeline(1002, ""));
    stage.wait_runs(1002);
    stage.life.wait_get(PLUGINS, WITHIN, |answer| {
        json_of(answer)["earlier"] == first
    });
    check_outcome(&stage.post(ROLLBACK), 200, "taken");
    stage.wait_runs(1001);
    let holds = |stage: &Stage| {
        thread::sleep(LOOKS);
        let told = stage.plugins();
        assert_eq!(told["revision"], first, "{told}");
    };
    holds(&stage);
    // Written again, they say what they said.
    stage.write(&pipeline(1002, ""));
    holds(&stage);
    stage.write(&pipeline(1003, ""));
    stage.wait_runs(1003);
    assert!(stage.life.terminate(WITHIN).success());
}

#[test]
fn a_token_that_keeps_nobody_out_is_refused() {
    let folder = Folder::new("admin-token");
    let file = folder.write("pipeline.toml", &pipeline(1000, ""));
    let file = file.display().to_string();
    let short = folder.write("short", "secret\n").display().to_string();
    let spaces = folder.write("spaces", "one two three four five\n");
    let spaces = spaces.display().to_string();
    let missing = folder.join("missing").display().to_string();
    let check = |more: &[&str], words: &str| {
        let run = ["run", &file, "--embedded", "--http", "127.0.0.1:0"];
        let ended = millstream::run(&[&run, more].concat());
        let said = String::from_utf8_lossy(&ended.stderr);
        assert_eq!(ended.status.code(), Some(2), "{said}");
        assert!(said.contains(words), "{words:?} in\n{said}");
    };
    check(
        &["--admin", "127.0.0.1:0"],
        "there is no token, so nobody could ask",
    );
    check(
        &["--admin-token-file", &short],
        "the token has 6 characters; it needs 16 to 1024",
    );
    check(&["--admin-token-file", &spaces], "other characters than");
    check(&["--admin-token-file", &missing], "No such file");
    check(&["--admin", "localhost"], "--admin");
}

/// Without a token nothing listens; in the environment there may be one.
#[test]
fn a_token_may_stand_in_the_environment() {
    let folder = Folder::new("admin-environment");
    let file = folder.write("pipeline.toml", &pipeline(1000, ""));
    let run = |name: &str, token: Option<&str>| {
        Millstream::spawn_with(&folder.join(name), |command| {
            command.args(["run", "--embedded", "--http", "127.0.0.1:0"]);
            command.arg(&file);
            if let Some(token) = token {
                command.args(["--admin", "127.0.0.1:0"]);
                command.env("MILLSTREAM_ADMIN_TOKEN", token);
            }
        })
    };
    let mut life = run("with.log", Some(TOKEN));
    life.wait_ready(WITHIN);
    let headers = [("authorization", &*format!("Bearer {TOKEN}"))];
    let answer = http::request_with(life.admin_address(), "POST", RELOAD, &headers, b"");
    check_outcome(&answer.expect("it answers"), 200, "unchanged");
    assert!(life.terminate(WITHIN).success());

    let mut life = run("without.log", None);
    life.wait_ready(WITHIN);
    assert!(life.terminate(WITHIN).success());
    let mut said = String::new();
    let mut log = File::open(folder.join("without.log")).expect("there is a log");
    log.read_to_string(&mut said).expect("it is text");
    assert!(!said.contains("reloads and rollbacks"), "{said}");
}
