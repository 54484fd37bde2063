//! The spine, judged: example 01 on a real Kafka, alone and under every kind of disturbance, with a judge that shares no code with us.
//!
//! `MILLSTREAM_TEST_EVENTS` sets how many events each test takes; `cargo xtask prove` runs a million.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rig::kafka::Kafka;
use rig::millstream;
use rig::proxy::{self, Then, When};

use crate::example::Example;
use crate::stage::{
    Build, DONE, PARTITIONS, Place, READY, Stage, asked, behind_proxy, committed, doubt_a_commit,
    epochs, events, lose_answers, lose_what_a_start_asks_for, wait,
};

const EXAMPLE: Example = Example::Users;
const KILLS: u32 = 10;

#[test]
fn exactly_once_undisturbed_and_over_a_clean_restart() {
    let mut stage = Stage::full(EXAMPLE, Kafka::start());
    let mut first = stage.spawn("a", "1s");
    first.wait_ready(READY);
    let half = stage.sent() / 2;
    wait("half of the events", DONE, || {
        committed(EXAMPLE, &[&first]) >= half
    });
    assert!(first.terminate(READY).success());
    let mut second = stage.spawn("a", "1s");
    second.wait_ready(READY);
    stage.wait_done(&[&second]);
    stage.judge(&[&second]);
}

/// Each kill comes with a transaction open, after at least one epoch of that life was committed.
#[test]
fn exactly_once_over_ten_kills() {
    let mut stage = Stage::endless(EXAMPLE, Kafka::start(), events() / 40);
    for kill in 1..=KILLS {
        let began = Instant::now();
        let mut life = stage.spawn("a", "200ms");
        life.wait_line("listening on", READY);
        wait("an epoch", READY, || epochs(&life) > 0);
        let resumed = began.elapsed();
        let before = epochs(&life);
        wait("another epoch", READY, || epochs(&life) > before);
        // Half an epoch later there is a transaction open.
        std::thread::sleep(Duration::from_millis(100));
        let (at, epochs) = (committed(EXAMPLE, &[&life]), epochs(&life));
        println!(
            "kill {kill}: offset {at}, {epochs} epochs; first commit seen {resumed:.1?} after the start"
        );
        life.kill();
    }
    let mut last = stage.spawn("a", "200ms");
    last.wait_ready(READY);
    stage.wait_done(&[&last]);
    stage.top_up();
    stage.wait_done(&[&last]);
    stage.judge(&[&last]);
}

#[test]
fn exactly_once_over_a_broker_restart() {
    let mut stage = Stage::full(EXAMPLE, Kafka::start());
    let mut life = stage.spawn("a", "20ms");
    life.wait_ready(READY);
    wait("some epochs", READY, || epochs(&life) >= 2);
    let at = committed(EXAMPLE, &[&life]);
    stage.crash_the_only_broker(&[&life]);
    // Longer than the session: the worker is thrown out of the group before it can know.
    std::thread::sleep(Duration::from_secs(10));
    stage.kafka.restart();
    println!("broker restarted at offset {at} of {}", stage.sent());
    assert_eq!(life.exited(), None, "a broker that is away ends nothing");
    stage.add();
    stage.wait_done(&[&life]);
    stage.judge(&[&life]);
}

#[test]
fn exactly_once_with_a_second_instance_joining_and_leaving() {
    let mut stage = Stage::fed(EXAMPLE, Kafka::start());
    let mut first = stage.spawn("a", "200ms");
    first.wait_ready(READY);
    wait("some epochs", READY, || epochs(&first) >= 2);
    println!(
        "second instance at offset {} of {}",
        committed(EXAMPLE, &[&first]),
        stage.sent()
    );
    let mut second = stage.spawn("b", "200ms");
    second.wait_ready(READY);
    stage.add();
    stage.wait_done(&[&first, &second]);
    assert!(
        committed(EXAMPLE, &[&second]) > 0,
        "the second instance was given partitions"
    );
    stage.judge(&[&first, &second]);
    // Killed for good: the first one takes its partitions over once the session is over.
    stage.add();
    let before = committed(EXAMPLE, &[&second]);
    wait("an epoch of the second", READY, || {
        committed(EXAMPLE, &[&second]) > before
    });
    let taken = first.lines().len();
    second.kill();
    let killed = Instant::now();
    stage.add();
    let gone = ".b.0 is gone: what it may have left open is ended";
    first.wait_line_after(taken, gone, READY);
    let epoch = epochs(&first);
    wait("an epoch of all partitions", READY, || {
        epochs(&first) > epoch
    });
    println!(
        "taken over, and committed, {:.1} s after the kill",
        killed.elapsed().as_secs_f64()
    );
    stage.wait_done(&[&first]);
    stage.judge(&[&first]);
}

#[test]
fn exactly_once_with_a_commit_left_in_doubt() {
    doubt_a_commit(EXAMPLE);
}

#[test]
fn exactly_once_when_the_answer_to_a_commit_is_lost() {
    lose_answers(EXAMPLE, proxy::END_TXN);
}

#[test]
fn exactly_once_when_the_answer_to_offsets_is_lost() {
    lose_answers(EXAMPLE, proxy::TXN_OFFSET_COMMIT);
}

/// SIGTERM keeps the seat: a process that comes back in time finds its partitions where they were. Drained, it leaves them to others at
/// once.
#[test]
fn exactly_once_over_a_restart_that_moves_nothing_and_a_drain_that_moves_all() {
    let mut stage = Stage::full(EXAMPLE, Kafka::start());
    let mut first = stage.spawn("a", "200ms");
    first.wait_ready(READY);
    let mut second = stage.spawn("b", "200ms");
    second.wait_ready(READY);
    let half = usize::try_from(PARTITIONS / 2).expect("few partitions");
    wait("half of the partitions each", READY, || {
        asked(&first).held.len() == half && asked(&second).held.len() == half
    });
    stage.feed_more(events(), events() / 25);
    let (held, lines) = (asked(&second).held, first.lines().len());
    wait("epochs of both", READY, || {
        let moved = |before: &BTreeMap<Place, u64>, now: &BTreeMap<Place, u64>| {
            before.iter().all(|(at, offset)| now.get(at) > Some(offset))
        };
        moved(&held, &asked(&second).held) && epochs(&first) > 0
    });

    let stopped = Instant::now();
    assert!(second.terminate(READY).success());
    let mut second = stage.spawn("b", "200ms");
    second.wait_ready(READY);
    println!("restarted within {:.1?}", stopped.elapsed());
    assert!(asked(&second).held.keys().eq(held.keys()));
    let moved = |line: &&String| line.contains("assigned:") || line.contains("given up");
    let said = first.lines();
    assert_eq!(said[lines..].iter().find(moved), None, "partitions moved");
    wait("an epoch of the second", READY, || epochs(&second) > 0);

    let before = asked(&second).held;
    let file = stage.folder.join("pipeline.toml").display().to_string();
    let drain = |instance: &str| millstream::run(&["drain", &file, "--instance", instance]);
    let began = Instant::now();
    let output = drain("b");
    let drained = began.elapsed();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success() && text.contains("is drained"),
        "{output:?}"
    );
    wait("epochs of all partitions", READY, || {
        let now = asked(&first).held;
        before.iter().all(|(at, offset)| now.get(at) > Some(offset))
    });
    println!(
        "drained in {drained:.1?}; the other one had committed epochs of all partitions {:.1?} after it was asked for",
        began.elapsed()
    );
    assert!(
        began.elapsed() < Duration::from_secs(7),
        "as slow as a session time-out"
    );
    assert!(second.wait_exit(READY).success());
    let output = drain("b");
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("no such process runs on this host"), "{text}");
    stage.wait_done(&[&first]);
    stage.judge(&[&first]);
}

#[test]
fn exactly_once_when_a_start_is_not_answered() {
    lose_what_a_start_asks_for(EXAMPLE);
}

/// A client of Kafka waits for long for an answer to what was lost. The epochs don't: another producer is made.
#[test]
fn exactly_once_when_a_producers_start_is_lost() {
    let (kafka, proxy) = behind_proxy();
    proxy.on_nth(proxy::INIT_PRODUCER_ID, 1, When::Before, || Then::Drop);
    let mut stage = Stage::full(EXAMPLE, kafka);
    let mut life = stage.spawn("a", "200ms");
    life.wait_line("initialising the producer: ", READY);
    life.wait_ready(READY);
    stage.wait_done(&[&life]);
    stage.judge(&[&life]);
}

/// As librdkafka was seen to do under load: offsets are not added, the end of a transaction is not asked for, or is there and nobody is told.
/// The client is left behind with its call, and another one made; the transaction is aborted, or found out about.
#[test]
fn exactly_once_when_a_call_does_not_come_back() {
    let mut stage = Stage::endless(EXAMPLE, Kafka::start(), events() / 100);
    stage.build = Build::Faulty;
    let calls = [
        ("offsets", "the epoch is aborted and will be run again"),
        ("commit", "the commit is in doubt"),
        ("committed", "the commit is in doubt"),
    ];
    for (call, outcome) in calls {
        let hangs = vec![("MILLSTREAM_FAULT_HANG", format!("{call}:3"))];
        let mut life = stage.spawn_with("a", "200ms", &hangs);
        let said = format!("fault: a call does not come back: {call}");
        life.wait_line(&said, READY);
        let began = Instant::now();
        let line = life.wait_line("librdkafka does not come back from a call", READY);
        assert!(line.contains(outcome), "{line}");
        let before = epochs(&life);
        wait("epochs of the next producer", READY, || {
            epochs(&life) > before + 1
        });
        println!("{call}: over it after {:.1?}", began.elapsed());
        assert!(life.terminate(READY).success());
    }
    let mut life = stage.spawn("a", "200ms");
    life.wait_ready(READY);
    stage.wait_done(&[&life]);
    stage.judge(&[&life]);
}

/// A request to join that the broker sees only when its process is dead and back takes the seat, for nobody. Whoever is back finds that the
/// group knows nobody else in it, and joins again.
#[test]
fn exactly_once_when_a_dead_process_asks_to_join() {
    let (kafka, proxy) = behind_proxy();
    let mut stage = Stage::fed(EXAMPLE, kafka);
    let (held, is_held) = std::sync::mpsc::channel();
    proxy.on_nth(proxy::JOIN_GROUP, 1, When::Before, move || {
        let _ = held.send(());
        Then::Hold(Duration::from_secs(6))
    });
    let mut dead = stage.spawn("a", "200ms");
    is_held.recv_timeout(READY).expect("it asks to join");
    dead.kill();
    let mut life = stage.spawn("a", "200ms");
    life.wait_line("fenced by our own requests to join", READY);
    life.wait_ready(READY);
    stage.wait_done(&[&life]);
    stage.judge(&[&life]);
    assert_eq!(proxy.pending(), 0, "what was held came");
}
