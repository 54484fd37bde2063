//! Keyed streams and state, judged: example 02 on a real Kafka, alone and with commits that nobody knows the outcome of. Kills and the
//! rest are in `chaos`.

use rig::kafka::Kafka;
use rig::proxy;

use crate::example::Example;
use crate::stage::{DONE, READY, Stage, committed, doubt_a_commit, epochs, lose_answers, wait};

const EXAMPLE: Example = Example::Orders;

#[test]
fn counting_undisturbed_and_over_a_clean_restart() {
    let mut stage = Stage::full(EXAMPLE, Kafka::start());
    let mut first = stage.spawn("a", "1s");
    first.wait_ready(READY);
    let half = stage.sent() / 2;
    wait("half of the orders", DONE, || {
        committed(EXAMPLE, &[&first]) >= half && epochs(&first) >= 2
    });
    assert!(first.terminate(READY).success());
    let mut second = stage.spawn("a", "1s");
    second.wait_ready(READY);
    stage.add();
    stage.wait_done(&[&second]);
    stage.judge(&[&second]);
}

#[test]
fn counting_with_a_commit_left_in_doubt() {
    doubt_a_commit(EXAMPLE);
}

#[test]
fn counting_when_the_answer_to_a_commit_is_lost() {
    lose_answers(EXAMPLE, proxy::END_TXN);
}
