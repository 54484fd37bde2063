//! Maps over HTTP: pages, cursors, conditions with and without an index, what is documented of it, bad input, and the memory that
//! maps may take.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use rig::folder::Folder;
use rig::http::Answer;
use rig::judge;
use rig::millstream::{self, Millstream};
use serde_json::{Value, json};

use crate::openapi::Document;
use crate::pipelines::shared_kafka;

pub const READY: Duration = Duration::from_secs(60);
const PARTITIONS: u32 = 4;
pub const USERS: u32 = 300;
const COUNTRIES: [&str; 3] = ["DE", "AT", "New York"];

/// A topic, and a pipeline that keeps it as the map `users`.
pub struct Users {
    folder: Folder,
    name: String,
    pub memory: String,
}

impl Users {
    pub fn new(name: &str) -> Self {
        shared_kafka().topic(&format!("{name}-in"), PARTITIONS, &[]);
        Self {
            folder: Folder::new(name),
            name: name.into(),
            memory: "64MiB".into(),
        }
    }

    /// Lines of key, tab, value; `\N` for null, `\x` before bytes.
    pub fn write(&self, lines: &str) {
        let file = self.folder.write("records.tsv", lines);
        let topic = format!("{}-in", self.name);
        judge::run(&[
            "write",
            &shared_kafka().direct(),
            &topic,
            &file.display().to_string(),
        ]);
    }

    fn arguments(&self, instance: &str) -> Vec<String> {
        let (name, memory, bootstrap) = (&self.name, &self.memory, shared_kafka().bootstrap());
        let pipeline = format!(
            r#"
name = "{name}"
memory = "{memory}"
kafka.bootstrap.servers = "{bootstrap}"
checkpoint.interval = "50ms"
sources.in.topics = ["{name}-in"]
sinks.users = {{ inputs = ["in"], map = "users" }}

[maps.users]
index = ["/country", "/age"]
"#
        );
        let file = self
            .folder
            .write("pipeline.toml", &pipeline)
            .display()
            .to_string();
        let arguments = [
            "run",
            &file,
            "--instance",
            instance,
            "--http",
            "127.0.0.1:0",
        ];
        arguments.map(String::from).to_vec()
    }

    pub fn run(&self, instance: &str) -> Millstream {
        let log = self.folder.join(&format!("{instance}.log"));
        let mut life = Millstream::spawn(&log, &self.arguments(instance));
        life.wait_ready(READY);
        life
    }

    pub fn entries(&self) -> String {
        format!("/v1/pipelines/{}/maps/users/entries", self.name)
    }
}

pub fn user(id: u32) -> Value {
    json!({ "id": id, "country": COUNTRIES[id as usize % 3], "age": id % 70, "since": format!("2026-{:02}-01", id % 12 + 1) })
}

pub fn json_of(answer: &Answer) -> Value {
    serde_json::from_str(answer.text()).unwrap_or_else(|error| panic!("{error}: {answer:?}"))
}

/// Waits until the map has so many entries.
fn wait_entries(life: &mut Millstream, name: &str, entries: u32) {
    life.wait_get(&format!("/v1/pipelines/{name}/maps"), READY, |answer| {
        answer.status == 200 && json_of(answer)["maps"][0]["entries"] == entries
    });
}

/// All pages of a listing, by key; none comes twice.
pub fn all(life: &Millstream, document: &Document, path: &str) -> BTreeMap<String, Value> {
    let mut found = BTreeMap::new();
    let mut next = path.to_owned();
    loop {
        let answer = life.get(&next);
        assert_eq!(answer.status, 200, "{next}: {}", answer.text());
        document.check(&next, &answer);
        let page = json_of(&answer);
        for entry in page["entries"].as_array().expect("a page has entries") {
            let key = entry["key"]
                .as_str()
                .or(entry["key_base64"].as_str())
                .expect("a key");
            let before = found.insert(key.to_owned(), entry.clone());
            assert_eq!(before, None, "{key} came twice");
        }
        let Some(cursor) = page["next"].as_str() else {
            return found;
        };
        next = format!("{path}&after={cursor}");
    }
}

#[test]
fn entries_are_listed_and_found() {
    let users = Users::new("queries");
    let lines = (0..USERS)
        .map(|id| format!("user-{id}\t{}\n", user(id)))
        .collect::<String>();
    // Some that aren't JSON, or aren't text, or are odd; one that goes again.
    let odd = "plain\tnot JSON\n\\xff00\t{\"country\":\"DE\",\"age\":\"40\"}\n\\x\t\\xfffe\n\"q\"/%\t5\ngone\t{\"country\":\"DE\"}\ngone\t\\N\n";
    users.write(&(lines + odd));
    let mut life = users.run("a");
    wait_entries(&mut life, "queries", USERS + 4);
    let document = Document::read(&life.get("/openapi.json"));

    let found = all(&life, &document, &format!("{}?limit=7", users.entries()));
    assert_eq!(found.len(), USERS as usize + 4);
    for id in 0..USERS {
        assert_eq!(found[&format!("user-{id}")]["value"], user(id));
    }
    assert_eq!(
        found["plain"],
        json!({ "key": "plain", "value_base64": "bm90IEpTT04=" })
    );
    let bytes = json!({ "key_base64": "/wA=", "value": { "country": "DE", "age": "40" } });
    assert_eq!(found["/wA="], bytes);
    assert_eq!(found[""], json!({ "key": "", "value_base64": "//4=" }));
    assert_eq!(found["\"q\"/%"], json!({ "key": "\"q\"/%", "value": 5 }));

    check_searches(&life, &document, &users.entries());
    check_documents(&life, &document);
    check_bad_input(&life, &document, &users.entries());
    check_too_long(&life, &document, &users.entries());
    assert!(life.terminate(READY).success());
}

fn check_searches(life: &Millstream, document: &Document, entries: &str) {
    // Each with an index and without one: `since` and `id` have none.
    let check = |query: &str, expected: &dyn Fn(&Value) -> bool| {
        let users_found = all(life, document, &format!("{}?{query}", entries));
        let users_found: BTreeSet<String> = users_found
            .into_keys()
            .filter(|key| key.starts_with("user-"))
            .collect();
        let expected = (0..USERS)
            .filter(|id| expected(&user(*id)))
            .map(|id| format!("user-{id}"));
        assert_eq!(users_found, expected.collect(), "{query}");
    };
    let age = |user: &Value| user["age"].as_u64().expect("an age");
    check("where=/country=DE", &|user| user["country"] == "DE");
    check("where=/country=DE&limit=3", &|user| user["country"] == "DE");
    check("where=%2Fcountry%3DNew+York", &|user| {
        user["country"] == "New York"
    });
    check(
        "where=/country=%22AT%22&where=/age%3E=30&where=/age%3C50.5",
        &|user| user["country"] == "AT" && (30..51).contains(&age(user)),
    );
    check("where=/age%3E60&limit=2", &|user| age(user) > 60);
    check("where=/age=%2240%22", &|_| false);
    check("where=/country%3EDE", &|user| user["country"] == "New York");
    check("where=/country%3C=AT", &|user| user["country"] == "AT");
    check("where=/since%3C2026-03&limit=11", &|user| {
        user["since"].as_str() < Some("2026-03")
    });
    check("where=/id=17", &|user| user["id"] == 17);
    check("where=/id%3E=290&prefix=user-29", &|user| {
        user["id"].as_u64() >= Some(290)
    });
    check("prefix=user-2&limit=1000", &|user| {
        user["id"].to_string().starts_with('2')
    });
    check("where=/id=null", &|_| false);
    check("where=/nowhere=5", &|_| false);
    let odd_one = all(
        life,
        document,
        &format!("{}?where=/age=%2240%22&prefix=%ff", entries),
    );
    assert_eq!(odd_one.len(), 1);
    assert_eq!(
        all(life, document, &format!("{}?where==5", entries)).len(),
        1
    );
}

/// What there is, and what it weighs.
fn check_documents(life: &Millstream, document: &Document) {
    let get = |path: &str| {
        let answer = life.get(path);
        document.check(path, &answer);
        assert_eq!(answer.status, 200, "{path}");
        answer
    };
    for path in document.paths().iter().filter(|path| !path.contains('{')) {
        get(path);
    }
    let pipelines = json_of(&get("/v1/pipelines"));
    assert_eq!(
        pipelines["pipelines"],
        json!([{ "name": "queries", "state": "running", "maps": "/v1/pipelines/queries/maps" }])
    );
    let maps = json_of(&get("/v1/pipelines/queries/maps"));
    let map = &maps["maps"][0];
    assert_eq!(
        map["partitions"],
        json!({ "held": [0, 1, 2, 3], "restoring": [], "of": 4 })
    );
    get(map["entries_at"].as_str().expect("a path"));
    get("/v1/pipelines/queries/maps/users/entries/user-5");
    get("/v1/pipelines/queries/readyz");
    let status = json_of(&get("/v1/status"))["pipelines"][0].clone();
    assert_eq!(status["maps"][0]["index"], json!(["/country", "/age"]));
    let indexes = &status["maps"][0]["partitions"][0]["indexes"];
    assert_eq!(indexes[0]["pointer"], "/country");
    assert!(
        indexes[0]["scalars"].as_u64() <= Some(3) && indexes[1]["memory_bytes"].as_u64() > Some(0),
        "{indexes}"
    );
    assert_eq!(status["memory"]["limit"], 64 << 20);
    assert!(
        status["memory"]["used"].as_u64() < Some(2 << 20),
        "{}",
        status["memory"]
    );
}

/// Status, path and words of the reason. `…` stands for the path of the map's entries, `CURSOR` for a cursor.
const BAD_INPUT: &str = r#"
404 /v1/pipelines/other/maps            no pipeline is named \"other\"
404 /v1/pipelines/queries/maps/other/entries  no map is named \"other\"
404 /v1/pipelines/%ff/maps/users/entries  no pipeline
404 /v1/pipelines/queries/maps/users/entry  nothing at this path
404 /v2                                 nothing at this path
404 …/nobody                            no such key
400 …/a%2                               \"%2\" is not a percent-encoded byte
400 …?where=/a%zz=5                     is not a percent-encoded byte
400 …?where=country=DE                  begins with `/`
400 …?where=/a~=5                       `~` stands before
400 …?where=/a                          has no operator
400 …?where=/a!=5                       `!=` is no operator
400 …?where=/a%3Ctrue                   compares numbers and strings
400 …?where=/a<5                        `<` is written %3C
400 …?where=/a>5                        `>` %3E
400 …?limit=0                           from 1 to 1000
400 …?limit=1001                        from 1 to 1000
400 …?limit=-1                          from 1 to 1000
400 …?limit=99999999999999999999        from 1 to 1000
400 …?after=zzz                         the cursor is not one of this map
400 …?after=xCURSOR                     the cursor is not one of this map
400 …?partition=4                       below 4
400 …?partition=-1                      below 4
400 …?partition=3&after=CURSOR          the cursor stands in another partition
400 …?order=key                         no parameter is named
"#;

fn check_bad_input(life: &Millstream, document: &Document, entries: &str) {
    let page = json_of(&life.get(&format!("{entries}?limit=2")));
    let cursor = page["next"].as_str().expect("there is more");
    for line in BAD_INPUT.trim().lines() {
        let (status, rest) = line.split_once(' ').expect("a status");
        let (path, words) = rest.split_once("  ").expect("a path");
        let path = path.replace('…', entries).replace("CURSOR", cursor);
        let answer = life.get(&path);
        assert_eq!(
            answer.status.to_string(),
            status,
            "{path}: {}",
            answer.text()
        );
        assert!(
            answer.text().contains(words.trim()),
            "{path}: {}",
            answer.text()
        );
        document.check(&path, &answer);
    }
    let answer = life.request("POST", entries, b"{}");
    assert_eq!(answer.status, 405);
    document.check(entries, &answer);
}

/// What hyper refuses itself has a reason too, and the client gets to read it.
fn check_too_long(life: &Millstream, document: &Document, entries: &str) {
    for length in [66_000, 300_000, 2_000_000] {
        let path = format!("{entries}/{}", "k".repeat(length));
        let answer = life.get(&path);
        assert_eq!(answer.status, 414, "{length}: {}", answer.text());
        document.check(&path, &answer);
    }
    let long = format!("{entries}/{}", "k".repeat(60_000));
    assert_eq!(life.get(&long).status, 404, "this is not too long");
    let many = "x-header: y\r\n".repeat(200);
    let large = format!("x-header: {}\r\n", "y".repeat(1_000_000));
    for (headers, status) in [
        (many.as_str(), "431"),
        (&large, "431"),
        ("no header\r\n", "400"),
    ] {
        let request = format!("GET {entries} HTTP/1.1\r\nhost: x\r\n{headers}\r\n");
        let said = raw(life, request.as_bytes());
        assert!(said.starts_with(&format!("HTTP/1.1 {status} ")), "{said}");
        let body = said.split("\r\n\r\n").nth(1).unwrap_or_default();
        let body: Value =
            serde_json::from_str(body).unwrap_or_else(|error| panic!("{error}: {said}"));
        assert!(body["error"].is_string(), "{said}");
    }
}

fn raw(life: &Millstream, request: &[u8]) -> String {
    let mut stream = TcpStream::connect(life.http_address()).expect("HTTP is served");
    stream
        .set_read_timeout(Some(READY))
        .expect("a time-out can be set");
    stream.write_all(request).expect("the request is taken in");
    let mut said = String::new();
    stream
        .read_to_string(&mut said)
        .expect("the answer is text");
    said
}

#[test]
fn a_listing_is_whole_at_any_instance_and_its_cursors_say_when_they_are_stale() {
    let users = Users::new("queries-two");
    users.write(
        &(0..USERS)
            .map(|id| format!("user-{id}\t{}\n", user(id)))
            .collect::<String>(),
    );
    let mut first = users.run("a");
    wait_entries(&mut first, "queries-two", USERS);
    let document = Document::read(&first.get("/openapi.json"));
    let cursors: Vec<String> = (1..30)
        .filter_map(|tens| {
            let answer = first.get(&format!("{}?limit={}", users.entries(), tens * 10));
            Some(json_of(&answer)["next"].as_str()?.to_owned())
        })
        .collect();

    let mut second = users.run("b");
    for life in [&mut first, &mut second] {
        life.wait_get("/v1/pipelines/queries-two/maps", READY, |answer| {
            let held = &json_of(answer)["maps"][0]["partitions"]["held"];
            held.as_array().map(Vec::len) == Some(2)
        });
        life.wait_ready(READY);
    }
    let path = format!("{}?limit=50", users.entries());
    let (one, other) = (
        all(&first, &document, &path),
        all(&second, &document, &path),
    );
    assert_eq!(one.len(), USERS as usize);
    assert_eq!(one, other);

    // The cursors go on, or say why not. Partitions that stayed were parked, and kept; those that moved have another life.
    let mut statuses = BTreeSet::new();
    for cursor in cursors {
        let path = format!("{}?after={cursor}", users.entries());
        let answer = first.get(&path);
        document.check(&path, &answer);
        assert!(answer.status == 200 || answer.text().contains("begin again"));
        statuses.insert(answer.status);
    }
    assert_eq!(statuses, BTreeSet::from([200, 400]));
    assert!(second.terminate(READY).success() && first.terminate(READY).success());
}

#[test]
fn a_map_too_large_for_its_memory_ends_the_process_in_words() {
    let mut users = Users::new("queries-full");
    let value = "x".repeat(1000);
    users.write(
        &(0..3000)
            .map(|id| format!("{id}\t\"{value}\"\n"))
            .collect::<String>(),
    );
    users.memory = "2MiB".into();
    let output = millstream::run(&users.arguments("a"));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    for words in [
        "map \"users\"",
        "is too large for memory",
        "MiB",
        "`memory` allows 2 MiB",
        "Raise `memory`",
    ] {
        assert!(said.contains(words), "{words:?} is not in\n{said}");
    }
    users.memory = "32MiB".into();
    let mut life = users.run("a");
    wait_entries(&mut life, "queries-full", 3000);
    assert!(life.terminate(READY).success());
}
