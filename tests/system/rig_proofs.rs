//! The rig shown able to fail: a judge that convicts nobody proves nothing. Millstream has no part
//! in these.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rig::folder::Folder;
use rig::kafka::{Kafka, Options, PASSWORD, USER};
use rig::millstream::Millstream;
use rig::proxy::{END_TXN, INIT_PRODUCER_ID, Listening, Then, When};
use rig::{judge, repository};

const EVENTS: &str = "2000";
const IDS: &str = "100";
const ENTRIES: &str = "/v1/pipelines/p/maps/m/entries/";
const LISTING: &str = "/v1/pipelines/p/maps/m/entries?";
/// How many entries a page has.
const PAGE: usize = 7;
const SOON: Duration = Duration::from_secs(10);

#[test]
fn the_judge_acquits_the_right_and_convicts_the_wrong() {
    let kafka = Kafka::start();
    let address = kafka.direct();
    kafka.topic("events", 4, &[]);
    kafka.topic("edge", 3, &[]);
    judge::run(&["generate", &address, "events", EVENTS, IDS, "30"]);
    judge::run(&["edge", &address, "edge"]);

    let check_adults = |plant: &str, found: &str| {
        let out = format!("out-{plant}");
        kafka.topic(&out, 3, &[]);
        judge::run(&[
            "reference",
            &address,
            "events",
            &out,
            "18",
            "--plant",
            plant,
        ]);
        check(
            &["adults", &address, "events", &out, "18", "--patience", "2"],
            found,
        );
    };
    check_adults("aborted", "judge: OK adults events=2000");
    check_adults("lose", "lost=1 in");
    check_adults("duplicate", "duplicate=1 in");
    check_adults("swap", "reordered=");
    check_adults("corrupt", "corrupt=1 in");
    check_adults("open", "an open transaction");

    kafka.topic("table", 1, &[]);
    let folder = Folder::new("proofs");
    let table = folder.write("table.tsv", "DE\t{\"name\":\"Germany\"}\n");
    judge::run(&["write", &address, "table", &table.display().to_string()]);
    kafka.topic("out-joined", 3, &[]);
    let events = [&address, "events", "out-joined", "18"];
    let joined = ["--countries", "table"];
    judge::run(&[&["reference"], &events[..], &joined].concat());
    check(
        &[&["adults"], &events[..], &joined].concat(),
        "judge: OK adults",
    );
    check(&[&["adults"], &events[..]].concat(), "corrupt=");

    let check_passthrough = |plant: &str, found: &str| {
        let out = format!("copy-{plant}");
        kafka.topic(&out, 4, &[]);
        judge::run(&["copy", &address, "edge", &out, "--plant", plant]);
        check(&["passthrough", &address, "edge", &out], found);
    };
    check_passthrough("aborted", "judge: OK passthrough");
    check_passthrough("lose", "lost=1 in");

    let check_changelog = |topic: &str, partitions: &str, found: &str| {
        check(
            &["changelog", &address, "events", topic, "18", partitions],
            found,
        );
    };
    check_changelog("out-aborted", "3", "judge: OK changelog");
    check_changelog("out-lose", "3", "different=1 in");
    check_changelog("out-duplicate", "3", "back=1 in");
    check_changelog("out-aborted", "4", "partitions=1 in");

    queries_are_judged(&address);

    // Events that a producer wrote twice come out twice.
    let again = ["events", "10", IDS, "30", "--from", "0"];
    judge::run(&[&["generate", &address], &again[..]].concat());
    let once = ["adults", &address, "events", "out-aborted", "18"];
    check(&once, "lost=");
    check_adults("nothing", "judge: OK adults events=2010");
}

/// Orders that are counted: as outputs, as a changelog, and as they are listed.
#[test]
fn the_judge_of_counts_acquits_the_right_and_convicts_the_wrong() {
    let kafka = Kafka::start();
    let address = kafka.direct();
    kafka.topic("orders", 4, &[]);
    judge::run(&["orders", &address, "orders", EVENTS, "50", "30", IDS]);
    let check_counts = |plant: &str, found: &str| {
        let (out, changelog) = (format!("totals-{plant}"), format!("totals-{plant}.log"));
        kafka.topic(&out, 3, &[]);
        kafka.topic(&changelog, 2, &[]);
        let topics = [&address, "orders", &out, &changelog];
        judge::run(&[&["totals"], &topics[..], &["--plant", plant]].concat());
        let patience = ["2", "--patience", "2"];
        check(&[&["counts"], &topics[..], &patience].concat(), found);
    };
    check_counts("aborted", "judge: OK counts orders=2000");
    check_counts("lose", "lost=1 ");
    check_counts("duplicate", "duplicate=1 ");
    check_counts("swap", "reordered=");
    // Of two countries, where they come by one stream partition and leave by one of the output; where they come by two there is no order.
    check_counts("swap-countries", "reordered=1 in");
    check_counts("swap-streams", "judge: OK counts orders=2000");
    check_counts("jump", "count=1 ");
    check_counts("timestamp", "timestamp=1 in");
    check_counts("stale", "different=1 in");
    check_counts("again", "back=1 in");
    check_counts("twice", "partition=1 in");
    check_counts("open", "an open transaction");

    let entries = entries(&address, "totals-aborted");
    let check_listed = |left: HashMap<String, String>, right, found: &str| {
        let urls = [serve(left, 0), serve(right, 0)].map(|address| format!("http://{address}"));
        let topics = [&address, "orders", "totals-aborted", "totals-aborted.log"];
        let http = ["--http", &urls.join(","), "--pipeline", "p", "--map", "m"];
        let patience = ["2", "--patience", "2"];
        check(
            &[&["counts"], &topics[..], &patience, &http].concat(),
            found,
        );
    };
    check_listed(entries.clone(), entries.clone(), "judge: OK counts");
    let some = entries.keys().next().expect("there are some").clone();
    let (mut wrong, mut short) = (entries.clone(), entries.clone());
    wrong.insert(some.clone(), r#"{"count":0,"sum":0}"#.to_owned());
    short.remove(&some);
    check_listed(wrong, entries.clone(), "listed=1 in");
    check_listed(entries, short, "listed=1 in");
}

#[test]
fn the_judge_of_letters_acquits_the_right_and_convicts_the_wrong() {
    let kafka = Kafka::start();
    let address = kafka.direct();
    for input in ["events", "orders"] {
        kafka.topic(input, 4, &[]);
        let made = if input == "events" { "generate" } else { input };
        let counts = [EVENTS, IDS, "30"];
        let more: &[&str] = if input == "events" { &[] } else { &[IDS] };
        judge::run(&[&[made, &address, input], &counts[..], more].concat());
        let check_letters = |plant: &str, found: &str| {
            let letters = format!("{input}-{plant}");
            kafka.topic(&letters, 3, &[]);
            let topics = [&address, input, &letters, input, "parse"];
            judge::run(&[&["set-aside"], &topics[..], &["--plant", plant]].concat());
            let patience = ["--patience", "2"];
            check(&[&["letters"], &topics[..], &patience].concat(), found);
        };
        check_letters("aborted", "judge: OK letters inputs=2000");
        check_letters("lose", "lost=1 in");
        check_letters("duplicate", "unexpected=1 in");
        check_letters("place", "lost=1 unexpected=1 in");
        check_letters("swap", "reordered=");
        check_letters("value", "corrupt=1 in");
        check_letters("untold", "untold=1 in");
        check_letters("open", "an open transaction");
    }
    let other_step = ["events", "events-aborted", "events", "count"];
    check(
        &[&["letters", &address], &other_step[..]].concat(),
        "untold=",
    );
}

#[test]
fn the_judge_of_tokens_acquits_the_whole_and_convicts_the_torn() {
    let kafka = Kafka::start();
    let address = kafka.direct();
    let check_tokens = |plant: &str, found: &str| {
        let topics = ["left", "right"].map(|topic| format!("{topic}-{plant}"));
        for topic in &topics {
            kafka.topic(topic, 2, &[]);
        }
        let [left, right] = &topics;
        let topics = [address.as_str(), left, right];
        judge::run(&[&["transactions"], &topics[..], &["--plant", plant]].concat());
        check(&[&["tokens"], &topics[..]].concat(), found);
    };
    check_tokens("nothing", "tokens=2 whole=1 aborted=1");
    check_tokens("torn", "torn=1 in");
    check_tokens("untold", "untold=2 in");
}

/// An acquittal names itself; any other line is a finding, with which the judge must convict.
fn check(arguments: &[&str], found: &str) {
    let output = if found.starts_with("judge: OK") || found.starts_with("tokens=") {
        judge::run(arguments)
    } else {
        judge::convict(arguments)
    };
    assert!(output.contains(found), "{found} is not in {output}");
}

/// Two servers share the entries; one of them restores at first. Then one entry is served wrong.
fn queries_are_judged(address: &str) {
    let mut entries = entries(address, "out-aborted");
    let check = |entries: &HashMap<String, String>| {
        let urls = format!(
            "http://{},http://{}",
            serve(entries.clone(), 0),
            serve(entries.clone(), 1)
        );
        let arguments = ["changelog", address, "events", "out-aborted", "18", "3"];
        let queried = ["--http", &urls, "--pipeline", "p", "--map", "m"];
        judge::verdict(&[arguments.as_slice(), queried.as_slice()].concat())
    };
    match check(&entries) {
        judge::Verdict::Right(output) => assert_eq!(judge::count(&output, "queried"), 200),
        judge::Verdict::Wrong(output) => panic!("{output}"),
    }
    *entries.get_mut("u7").expect("u7 is one of a hundred ids") = "{}".to_owned();
    match check(&entries) {
        judge::Verdict::Right(output) => panic!("{output}"),
        judge::Verdict::Wrong(output) => assert!(output.contains("served=1 in"), "{output}"),
    }
}

/// The last value of each key.
fn entries(address: &str, topic: &str) -> HashMap<String, String> {
    let dumped = judge::run(&["dump", address, topic]);
    let records = dumped.lines().map(|line| {
        let record: serde_json::Value = serde_json::from_str(line).expect("dump prints JSON");
        let text = |name: &str| {
            record[name]
                .as_str()
                .expect("reference writes keys and values")
                .to_owned()
        };
        (text("key"), text("value"))
    });
    records.collect()
}

/// A server that holds the keys of even or odd length, and restores (503) for its first answers. It
/// ends with the tests.
fn serve(entries: HashMap<String, String>, parity: usize) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let address = listener.local_addr().expect("it is bound").to_string();
    let entries = Arc::new(entries);
    let restoring = Arc::new(AtomicU32::new(50));
    thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let (entries, restoring) = (Arc::clone(&entries), Arc::clone(&restoring));
            thread::spawn(move || answer(&client, &entries, parity, &restoring));
        }
    });
    address
}

fn answer(
    mut client: &TcpStream,
    entries: &HashMap<String, String>,
    parity: usize,
    restoring: &AtomicU32,
) {
    let mut lines = BufReader::new(client).lines().map_while(Result::ok);
    while let Some(first) = lines.next() {
        let head: Vec<String> = lines.by_ref().take_while(|line| !line.is_empty()).collect();
        let path = first.split(' ').nth(1).unwrap_or_default();
        let page = path.strip_prefix(LISTING).map(|query| page(entries, query));
        let key = path.strip_prefix(ENTRIES).unwrap_or_default();
        let restores = restoring
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| {
                left.checked_sub(1)
            })
            .is_ok();
        let (status, body) = match entries.get(key) {
            _ if restores => (503, ""),
            _ if page.is_some() => (200, page.as_deref().unwrap_or_default()),
            _ if key.len() % 2 != parity => (421, ""),
            Some(value) => (200, value.as_str()),
            None => (404, ""),
        };
        let length = body.len();
        let answer = format!("HTTP/1.1 {status} Words\r\ncontent-length: {length}\r\n\r\n{body}");
        let last = head.iter().any(|line| line == "connection: close");
        if client.write_all(answer.as_bytes()).is_err() || last {
            return;
        }
    }
}

/// A few entries in the order of their keys, from behind the one that `after` names.
fn page(entries: &HashMap<String, String>, query: &str) -> String {
    let after = query.split_once("after=").map_or("", |(_, key)| key);
    let mut keys: Vec<&str> = entries.keys().map(String::as_str).collect();
    keys.sort_unstable();
    keys.retain(|key| *key > after);
    let next = (keys.len() > PAGE).then(|| keys[PAGE - 1]);
    let entry = |key: &&str| format!("{{\"key\":\"{key}\",\"value\":{}}}", entries[*key]);
    let listed: Vec<String> = keys.iter().take(PAGE).map(entry).collect();
    let listed = listed.join(",");
    let next = serde_json::json!(next);
    format!("{{\"entries\":[{listed}],\"next\":{next}}}")
}

#[test]
fn the_proxy_acts_at_the_request_it_is_told() {
    let listening = Listening::before(1);
    let options = Options {
        secure: true,
        advertised: Some(listening.port()),
        ..Options::default()
    };
    let kafka = Kafka::start_with(options);
    let proxy = listening.forward_to(kafka.port());
    kafka.topic("edge", 3, &[]);
    assert_eq!(
        proxy.count(INIT_PRODUCER_ID),
        0,
        "the direct address goes by the proxy"
    );

    // The first transaction is frozen on its way, the second one's answer is lost.
    let broker = kafka.process(1);
    proxy.on_nth(END_TXN, 1, When::After, move || {
        broker.freeze();
        thread::spawn(move || {
            thread::sleep(Duration::from_millis(700));
            broker.thaw();
        });
        Then::Forward
    });
    proxy.on_nth(END_TXN, 2, When::Answered, || Then::Cut);
    let start = Instant::now();
    judge::run(&["edge", &kafka.bootstrap(), "edge"]);
    assert!(
        start.elapsed() > Duration::from_millis(700),
        "{:?}",
        start.elapsed()
    );
    assert_eq!(
        proxy.count(END_TXN),
        4,
        "three transactions, and one told again"
    );
    let records = judge::run(&["dump", &kafka.direct(), "edge"]);
    assert!(
        records.contains("after 99") && !records.contains("aborted"),
        "{records}"
    );

    kafka.kill();
    kafka.restart();
    assert_eq!(
        judge::run(&["dump", &kafka.direct(), "edge"]),
        records,
        "a killed broker keeps what was committed"
    );
    the_secure_listener_takes_its_user_only(&kafka);
}

fn the_secure_listener_takes_its_user_only(kafka: &Kafka) {
    let folder = Folder::new("secure");
    let check = |password: &str, expected: bool| {
        let login = "org.apache.kafka.common.security.scram.ScramLoginModule required";
        let content = format!(
            "security.protocol=SASL_SSL\nsasl.mechanism=SCRAM-SHA-512\n\
             sasl.jaas.config={login} username=\"{USER}\" password=\"{password}\";\n\
             ssl.truststore.type=PEM\nssl.truststore.location={}\n",
            kafka.ca().display()
        );
        let config = folder.write("client.properties", &content);
        let mut command = Command::new(repository().join("tests/system/kafka/kafka.sh"));
        command.args([
            "tool",
            "TopicCommand",
            "--list",
            "--bootstrap-server",
            &kafka.secure_bootstrap(),
        ]);
        let output = command
            .arg("--command-config")
            .arg(config)
            .output()
            .expect("kafka.sh runs");
        let listed =
            output.status.success() && String::from_utf8_lossy(&output.stdout).contains("edge");
        assert_eq!(listed, expected, "{output:?}");
    };
    check(PASSWORD, true);
    check("guessed", false);
}

#[test]
fn a_process_is_waited_for_asked_and_ended() {
    let folder = Folder::new("process");
    let server = serve(HashMap::from([("k".to_owned(), "v".to_owned())]), 1);
    let script = format!(
        "trap 'echo stopping >&2; exit 7' TERM
         echo 'listening on http://{server}'
         while :; do sleep 0.05; done"
    );
    let mut command = Command::new("sh");
    command.args(["-c", &script]);
    let mut child = Millstream::spawn_command(&folder.join("log"), command);

    let path = &format!("{ENTRIES}k");
    let answer = child.wait_get(path, SOON, |answer| answer.status == 200);
    assert_eq!(
        (answer.text(), answer.header("content-length")),
        ("v", Some("1"))
    );
    assert_eq!(child.get(&format!("{ENTRIES}other")).status, 404);
    child.process().freeze();
    child.process().thaw();
    assert_eq!(child.terminate(SOON).code(), Some(7));
    child.wait_line("stopping", SOON);
    let log = std::fs::read_to_string(folder.join("log")).expect("the log is there");
    assert_eq!(log.lines().count(), 2, "{log}");
}
