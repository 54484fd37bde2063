//! The batch API, which the per-record API stands on, by itself.

use millstream_plugin::Result;
use millstream_plugin::batch::{Batch, BatchTransform, Column, Needs, Outcome, Output};
use millstream_plugin::testing::{Harness, Input};
use serde_json::json;

/// Lets every second record through, with its value doubled.
struct EverySecond;

impl BatchTransform for EverySecond {
    fn configure(config: &str) -> Result<(Self, Needs)> {
        let millstream_plugin::NoConfig {} = millstream_plugin::config::parse(config)?;
        Ok((EverySecond, Needs::none()))
    }

    fn process(&mut self, batch: Batch) -> Result<Outcome> {
        if batch.values.is_null(0) {
            return Err("a batch must not begin with null".into());
        }
        let mut values = Column::with_capacity(batch.values.len() / 2, batch.values.bytes.len());
        let origins: Vec<u32> = (0u32..)
            .step_by(2)
            .take(batch.offsets.len().div_ceil(2))
            .collect();
        for &origin in &origins {
            let doubled = batch
                .values
                .get(origin as usize)
                .map(|value| value.repeat(2));
            values.push(doubled.as_deref());
        }
        let output = Output {
            port: String::new(),
            origins,
            keys: None,
            values: Some(values),
            timestamps: None,
            headers: None,
        };
        Ok(Outcome {
            outputs: vec![output],
            failures: Vec::new(),
        })
    }
}

millstream_plugin::plugin!(batch: EverySecond);

#[test]
fn a_batch_goes_in_and_comes_out() {
    let mut plugin = Harness::batch::<EverySecond>(json!({})).unwrap();
    let records = [
        Input::new("k", "a"),
        Input::value("b"),
        Input::null(),
        Input::value("c"),
    ];
    let processed = plugin.process(&records);
    let values: Vec<_> = processed
        .records
        .iter()
        .map(|record| record.value.as_deref())
        .collect();
    assert_eq!(values, [Some(b"aa".as_slice()), None]);
    assert_eq!(processed.records[0].key_text(), "k");
    assert_eq!(
        plugin.try_process(&[Input::null()]).unwrap_err(),
        "a batch must not begin with null"
    );
}

#[test]
fn configuration_errors_reach_the_user() {
    let error = Harness::batch::<EverySecond>(json!({"every": 3})).err();
    assert_eq!(
        error.as_deref(),
        Some("config: unknown field `every`, there are no fields")
    );
}
