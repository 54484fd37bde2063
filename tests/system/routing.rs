//! A query at any instance: three processes of one pipeline, each asked for everything, before, while and after one of them is gone.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use rig::http::Answer;
use rig::millstream::Millstream;
use serde_json::{Value, json};

use crate::openapi::Document;
use crate::queries::{READY, USERS, Users, all, json_of, user};

const PARTITIONS: u64 = 4;
const INSTANCE: &str = "millstream-instance";
/// Entries that make restoring take a while.
const FILLER: usize = 400_000;
const ABSENT: u32 = 30;
/// Session time-out, and a restore.
const FAILOVER: Duration = Duration::from_secs(60);

/// Partitions and entries that an instance holds itself.
fn held(life: &Millstream) -> (u64, u64) {
    let map = &json_of(&life.get("/v1/pipelines/routing/maps"))["maps"][0];
    let partitions = map["partitions"]["held"].as_array().expect("a list").len() as u64;
    (partitions, map["entries"].as_u64().expect("a count"))
}

fn wait_spread(lives: &[Millstream]) {
    let began = Instant::now();
    loop {
        let held: Vec<(u64, u64)> = lives.iter().map(held).collect();
        let (partitions, entries) = held
            .iter()
            .fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1));
        let settled = partitions == PARTITIONS && entries == FILLER as u64 + u64::from(USERS);
        if settled && held.iter().all(|(partitions, _)| *partitions > 0) {
            return;
        }
        assert!(began.elapsed() < READY, "not spread in time: {held:?}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

fn metric(life: &Millstream, name: &str) -> u64 {
    let answer = life.get("/metrics");
    let line = answer.text().lines().find(|line| line.starts_with(name));
    let value = line.and_then(|line| line.rsplit(' ').next()?.parse().ok());
    value.unwrap_or_else(|| panic!("no {name} in {}", answer.text()))
}

#[test]
fn any_instance_answers_for_any_key_and_says_when_it_cannot() {
    let mut users = Users::new("routing");
    users.memory = "512MiB".into();
    let mut lines: String = (0..USERS)
        .map(|id| format!("user-{id}\t{}\n", user(id)))
        .collect();
    lines.extend((0..FILLER).map(|id| format!("filler-{id}\t{id}\n")));
    users.write(&lines);
    let mut lives = ["a", "b", "c"].map(|instance| users.run(instance));
    wait_spread(&lives);
    lives.iter_mut().for_each(|life| life.wait_ready(READY));
    let document = Document::read(&lives[0].get("/openapi.json"));

    let owners = check_entries(&users, &lives, &document);
    come_back_elsewhere(&users, &mut lives, &owners["b"]);
    check_lists(&users, &lives, &document);
    for life in &lives {
        let answered = "millstream_routed_queries_total{pipeline=\"routing\",outcome=\"answered\"}";
        assert!(metric(life, answered) > 0);
        let looks = metric(life, "millstream_group_looks_total");
        assert!(
            (1..50).contains(&looks),
            "the brokers were asked {looks} times"
        );
    }

    let owners = check_entries(&users, &lives, &document);
    let [mut first, mut second, mut third] = lives;
    third.kill();
    fail_over(&users, &first, &second, &owners["c"]);
    let path = format!("{}?where=/age%3E=0&limit=1000", users.entries());
    assert_eq!(all(&second, &document, &path).len(), USERS as usize);
    assert!(second.terminate(READY).success() && first.terminate(READY).success());
}

/// Every key at every instance, and some that aren't there. Returns which keys each instance answered.
fn check_entries(
    users: &Users,
    lives: &[Millstream],
    document: &Document,
) -> BTreeMap<String, Vec<u32>> {
    let mut owners: BTreeMap<String, Vec<u32>> = BTreeMap::new();
    let began = Instant::now();
    for id in 0..USERS {
        let path = format!("{}/user-{id}", users.entries());
        let instances: BTreeSet<String> = lives
            .iter()
            .map(|life| {
                let answer = life.get(&path);
                assert_eq!(answer.status, 200, "{path}: {}", answer.text());
                document.check(&path, &answer);
                assert_eq!(json_of(&answer), user(id));
                assert!(answer.header("millstream-partition").is_some());
                assert!(answer.header("millstream-offset").is_some());
                answer.header(INSTANCE).expect("an instance").to_owned()
            })
            .collect();
        assert_eq!(instances.len(), 1, "{path} was answered by {instances:?}");
        owners
            .entry(instances.into_iter().collect())
            .or_default()
            .push(id);
    }
    println!("{USERS} keys at three instances in {:.2?}", began.elapsed());
    assert_eq!(owners.len(), 3, "every instance holds some: {owners:?}");
    for id in 0..ABSENT {
        let path = format!("{}/nobody%2F{id}", users.entries());
        for life in lives {
            let answer = life.get(&path);
            assert_eq!(answer.status, 404, "{path}: {}", answer.text());
            assert!(answer.text().contains("no such key"));
            document.check(&path, &answer);
        }
    }
    owners
}

/// A process that comes back in its seat, at another address, is found there.
fn come_back_elsewhere(users: &Users, lives: &mut [Millstream; 3], keys: &[u32]) {
    let before = lives[1].http_address();
    assert!(lives[1].terminate(READY).success());
    lives[1] = users.run("b");
    assert_ne!(lives[1].http_address(), before);
    lives[1].wait_line("leaving it and joining anew", READY);
    let began = Instant::now();
    wait_spread(lives);
    for id in keys {
        let path = format!("{}/user-{id}", users.entries());
        for life in &mut *lives {
            let answer = life.wait_get(&path, READY, |answer| {
                assert!(matches!(answer.status, 200 | 503), "{answer:?}");
                answer.status == 200
            });
            assert_eq!(json_of(&answer), user(*id));
        }
    }
    println!(
        "all found at another address {:.1?} after it was ready",
        began.elapsed()
    );
}

fn check_lists(users: &Users, lives: &[Millstream], document: &Document) {
    let entries = users.entries();
    let began = Instant::now();
    let whole = all(&lives[0], document, &format!("{entries}?limit=1000"));
    println!("{} entries listed in {:.2?}", whole.len(), began.elapsed());
    assert_eq!(whole.len(), USERS as usize + FILLER);
    for life in lives {
        let found = all(life, document, &format!("{entries}?prefix=user-&limit=70"));
        assert_eq!(found.len(), USERS as usize);
        for id in 0..USERS {
            assert_eq!(found[&format!("user-{id}")]["value"], user(id));
        }
        let found = all(
            life,
            document,
            &format!("{entries}?where=/country=DE&limit=9"),
        );
        assert_eq!(found.len(), USERS as usize / 3);
        let mut parts = 0;
        for partition in 0..PARTITIONS {
            let path = format!("{entries}?where=/country=DE&partition={partition}");
            parts += all(life, document, &path).len();
            let asked = &json_of(&life.get(&path))["partitions"];
            assert_eq!(asked["asked"], Value::from(vec![partition]));
        }
        assert_eq!(parts, USERS as usize / 3);
    }
}

/// Nobody says that a key isn't there, or anything else that is wrong, until all are answered again.
fn fail_over(users: &Users, first: &Millstream, second: &Millstream, keys: &[u32]) {
    let killed = Instant::now();
    let asking = |life: &Millstream| ask_until_all_is_well(users, life, keys, killed);
    // Each asked by itself: who waits for one misses what the other says meanwhile.
    let said = std::thread::scope(|scope| {
        let other = scope.spawn(|| asking(second));
        let one = asking(first);
        [one, other.join().expect("the other asker is well")]
    });
    println!("all answered again {:.1?} after the kill", killed.elapsed());
    for (reason, count) in said.iter().flatten() {
        println!("{count:6} × {reason}");
    }
    let said = |words: &str| {
        let mut reasons = said.iter().flatten();
        reasons.any(|(reason, _)| reason.contains(words))
    };
    assert!(said("instance c holds partition"), "who is gone is named");
    assert!(
        said("is being restored: at changelog offset"),
        "progress is told"
    );
}

/// Returns how often each reason was given.
fn ask_until_all_is_well(
    users: &Users,
    life: &Millstream,
    keys: &[u32],
    killed: Instant,
) -> BTreeMap<String, u32> {
    let mut reasons: BTreeMap<String, u32> = BTreeMap::new();
    let list = format!("{}?where=/country=DE&limit=1000", users.entries());
    loop {
        let mut unanswered = 0;
        let mut note = |answer: &Answer| {
            unanswered += 1;
            *reasons.entry(reason(answer)).or_default() += 1;
        };
        for id in keys.iter().take(20) {
            let answer = life.get(&format!("{}/user-{id}", users.entries()));
            match answer.status {
                200 => assert_eq!(json_of(&answer), user(*id)),
                _ => note(&answer),
            }
        }
        let answer = life.get(&list);
        match answer.status {
            200 => {
                let entries = json_of(&answer)["entries"].as_array().map(Vec::len);
                assert_eq!(entries, Some(USERS as usize / 3));
            }
            _ => note(&answer),
        }
        if unanswered == 0 {
            return reasons;
        }
        assert!(
            killed.elapsed() < FAILOVER,
            "not all are answered: {reasons:#?}"
        );
    }
}

/// An owner that stood still for longer than its session has lost its partitions, and can't know. What it is asked meanwhile waits in the
/// kernel, and is answered the moment it goes on.
#[test]
fn an_owner_that_was_frozen_past_its_session_answers_nothing_old() {
    let users = Users::new("frozen");
    let write = |since: &str| {
        let lines = (0..USERS).map(|id| format!("user-{id}\t{}\n", age(id, since)));
        users.write(&lines.collect::<String>());
    };
    write("before");
    let mut lives = ["a", "b"].map(|instance| users.run(instance));
    let path = |id: u32| format!("{}/user-{id}", users.entries());
    for id in 0..USERS {
        lives[1].wait_get(&path(id), READY, |answer| answer.status == 200);
    }
    let is_frozens = |id: &u32| lives[0].get(&path(*id)).header(INSTANCE) == Some("a");
    let keys: Vec<u32> = (0..USERS).filter(is_frozens).take(30).collect();
    assert!(!keys.is_empty());

    let [frozen, other] = &mut lives;
    frozen.process().freeze();
    write("after");
    for &id in &keys {
        other.wait_get(&path(id), FAILOVER, |answer| {
            answer.status == 200 && json_of(answer) == age(id, "after")
        });
    }
    let address = frozen.http_address();
    let answers: Vec<Answer> = std::thread::scope(|scope| {
        let ask = |id: &u32| {
            let path = path(*id);
            scope.spawn(move || rig::http::get(address, &path).expect("an answer"))
        };
        let askers: Vec<_> = keys.iter().map(ask).collect();
        std::thread::sleep(Duration::from_millis(500));
        frozen.process().thaw();
        let answers = askers.into_iter();
        answers.map(|asker| asker.join().expect("asked")).collect()
    });
    for (id, answer) in keys.iter().zip(&answers) {
        match answer.status {
            200 => assert_eq!(json_of(answer), age(*id, "after"), "{answer:?}"),
            _ => drop(reason(answer)),
        }
    }
    for &id in &keys {
        frozen.wait_get(&path(id), READY, |answer| {
            answer.status == 200 && json_of(answer) == age(id, "after")
        });
    }
    assert!(lives.iter_mut().all(|life| life.terminate(READY).success()));
}

fn age(id: u32, since: &str) -> Value {
    json!({ "id": id, "since": since })
}

/// Of an answer that must be a 503; numbers that change are left out.
fn reason(answer: &Answer) -> String {
    assert_eq!(answer.status, 503, "{}", answer.text());
    assert_eq!(answer.header("retry-after"), Some("1"));
    let error = json_of(answer)["error"]
        .as_str()
        .expect("a reason")
        .to_owned();
    error
        .split(|c: char| c.is_ascii_digit())
        .collect::<Vec<_>>()
        .join("N")
}
