//! Dead letters: records that a step could not process, as they leave by its port `failed`.
//!
//! A letter is the record as the step was given it, behind another step that one's, with headers that say where it comes from and what
//! went wrong. Invariant: whatever headers of these names it had before (it may have been a letter once) are gone.

use crate::pipeline::FAILED_PORT;
use crate::record::{Columns, Headers};
use crate::step::Output;
use crate::task::failure::Failed;

/// Names of the headers that a letter has more than its record: where the record of the source stands, which step could not process it and
/// with which code, the kind of the failure (`refused` or `call`), and why.
pub const TOPIC: &str = "millstream-topic";
pub const PARTITION: &str = "millstream-partition";
pub const OFFSET: &str = "millstream-offset";
pub const STEP: &str = "millstream-step";
pub const PLUGIN: &str = "millstream-plugin";
pub const KIND: &str = "millstream-kind";
pub const REASON: &str = "millstream-reason";
pub const ALL: [&str; 7] = [TOPIC, PARTITION, OFFSET, STEP, PLUGIN, KIND, REASON];

/// Whether a header is one that a letter has more than its record.
pub fn is_ours(name: &[u8]) -> bool {
    ALL.iter().any(|ours| ours.as_bytes() == name)
}

/// Whose letters they are.
#[derive(Clone, Copy, Debug)]
pub struct Sender<'a> {
    pub topic: &'a str,
    pub partition: u32,
    pub step: &'a str,
    /// The plugin's.
    pub digest: &'a str,
}

/// The letters of a step's batch, from its failed records in their order.
pub fn output(sender: Sender<'_>, columns: &Columns, failed: &[Failed]) -> Output {
    let mut headers = Headers::default();
    for (letter, failed) in failed.iter().enumerate() {
        let record = failed.index as usize;
        for (name, value) in columns.headers.of(record).iter() {
            if !is_ours(name) {
                headers.push(letter, name, value);
            }
        }
        let partition = sender.partition.to_string();
        let offset = columns.offsets[record].to_string();
        let ours = [
            (TOPIC, sender.topic),
            (PARTITION, &partition),
            (OFFSET, &offset),
            (STEP, sender.step),
            (PLUGIN, sender.digest),
            (KIND, failed.kind.word()),
            (REASON, &failed.reason),
        ];
        for (name, value) in ours {
            headers.push(letter, name.as_bytes(), Some(value.as_bytes()));
        }
    }
    Output {
        port: FAILED_PORT.into(),
        origins: failed.iter().map(|failed| failed.index).collect(),
        headers: Some(headers),
        ..Output::default()
    }
}
