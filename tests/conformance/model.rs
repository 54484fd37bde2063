//! The scripts against the model, each on one of its own.

#![forbid(unsafe_code)]

use conformance::{Imitation, check};

#[test]
fn the_model_answers_as_kafka_did() {
    check(Imitation::default);
}
