//! The scripts against a real Kafka, all of them on one broker.

#![forbid(unsafe_code)]

use std::rc::Rc;

use conformance::check;
use conformance::wire::{Markers, Wire};
use rig::kafka::{Kafka, Options};

/// Short, so that scripts needn't wait long: the sweep for transactions that timed out (10 s by default), the shortest session that
/// a member may ask for (6 s), how long a broker that was killed is thought to be there still (9 s), and how long the log cleaner
/// rests (15 s).
const PROPERTIES: [&str; 5] = [
    "transaction.abort.timed.out.transaction.cleanup.interval.ms=100",
    "group.min.session.timeout.ms=100",
    "broker.session.timeout.ms=3000",
    "broker.heartbeat.interval.ms=500",
    "log.cleaner.backoff.ms=100",
];

#[test]
fn a_real_kafka_answers_so() {
    let markers = Markers::listen();
    let kafka = Rc::new(Kafka::start_with(Options {
        properties: PROPERTIES.map(str::to_owned).to_vec(),
        internal: Some(markers.port()),
        ..Options::default()
    }));
    markers.forward_to(&kafka.direct());
    check(|| {
        let (broker, between) = (Rc::clone(&kafka), markers.clone());
        let restart = move || {
            broker.kill();
            between.lost_broker();
            broker.restart();
        };
        let restart = Box::new(restart);
        Wire::new(&kafka.direct(), kafka.data(1), markers.clone(), restart)
    });
}
