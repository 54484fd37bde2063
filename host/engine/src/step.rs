//! What a step's plugin is asked and what it answers.
//!
//! Invariant: an [`Outcome`] that [`Outcome::check`] accepted can be read without any further test: origins are in range and never
//! decrease, every column that is set has one entry a record, no failed record is in an output, and its records, written out with
//! all that they inherit, take at most [`OUTCOME_BYTES_MAX`] more than the batch.

use crate::pipeline::StepId;
use crate::record::{Column, Columns, Headers, Record};
use crate::state::overlay::Overlay;

/// How much larger than its batch an answer may be. Origins that repeat cost a plugin nothing and the host a copy each of what
/// they inherit: without a limit a few bytes from a plugin could take all memory.
pub const OUTCOME_BYTES_MAX: usize = 64 << 20;

/// What a record takes beside its bytes: its entries in columns.
const RECORD_BYTES: usize = 32;

/// Consecutive records of one input partition, lent to a plugin for one call.
#[derive(Clone, Copy, Debug)]
pub struct Batch<'a> {
    /// Names of the step's inputs by which the records came.
    pub inputs: &'a [&'a str],
    /// For each record which of `inputs`; empty where there is one.
    pub input_of: &'a [u32],
    pub topic: &'a str,
    pub partition: u32,
    /// Wall clock in milliseconds since 1970-01-01 UTC; the same for the halves of a batch that failed.
    pub now: i64,
    pub columns: &'a Columns,
    /// How often the batch was halved before this call. The time it may take is halved as often.
    pub halvings: u32,
}

/// Runs the code of the steps.
pub trait Plugin {
    /// One call, atomic: on an error nothing of it stays. What it changes in the step's state goes into `overlay`, in the partition of
    /// the batch; the caller undoes that where the call fails.
    fn process(
        &mut self,
        step: StepId,
        batch: &Batch<'_>,
        overlay: &mut Overlay,
    ) -> Result<Outcome, CallFailure>;

    /// What the plugins saw since the last checkpoint may be undone: none of it may be remembered.
    fn forget(&mut self);

    /// The output ports that the step declared, beside the default one.
    fn ports(&self, step: StepId) -> &[String];

    /// Which code it is that the step runs: SHA-256 of its component, in hexadecimal digits.
    fn digest(&self, step: StepId) -> &str;
}

/// Why a call brought nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CallFailure {
    /// The plugin's doing: an error returned, a trap, a missed deadline, an answer that makes no sense. A part of the batch may pass.
    Plugin(String),
    /// The host's: no instance could be made. Trying a part of the batch would not help.
    Host(String),
    /// Nobody's: a table that the step reads is not there right now. The batch is to be run again, later.
    NotReady(String),
    /// The plugin's: calls that failed have taken all the time that an epoch has for them. The batch is to be run again, with fewer records.
    Overdue(String),
}

/// What a plugin made of a batch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    pub outputs: Vec<Output>,
    pub failures: Vec<Failure>,
}

/// Records leaving through one port; what is `None` is inherited from the origin.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Output {
    /// Empty for the default port.
    pub port: String,
    /// Indices in the batch.
    pub origins: Vec<u32>,
    pub keys: Option<Column>,
    pub values: Option<Column>,
    pub timestamps: Option<Vec<i64>>,
    pub headers: Option<Headers>,
}

/// A record that the plugin could not process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Index in the batch.
    pub origin: u32,
    pub reason: String,
}

impl Outcome {
    /// Says what is wrong with an answer to a batch of these records by a step with these ports.
    pub fn check(&self, batch: &Columns, ports: &[String]) -> Result<(), String> {
        let records = batch.len();
        for (at, output) in self.outputs.iter().enumerate() {
            let port = &output.port;
            if !port.is_empty() && !ports.contains(port) {
                return Err(format!(
                    "output on port \"{port}\", which the plugin's needs do not name"
                ));
            }
            if self.outputs[..at]
                .iter()
                .any(|earlier| earlier.port == *port)
            {
                return Err(format!("two outputs on port \"{port}\""));
            }
            output
                .check(records)
                .map_err(|wrong| format!("output on port \"{port}\": {wrong}"))?;
        }
        self.check_failures(records)?;
        let most = batch.bytes() + records * RECORD_BYTES + OUTCOME_BYTES_MAX;
        let sum = |bytes: fn(&Output, &Columns) -> usize| -> usize {
            self.outputs.iter().map(|output| bytes(output, batch)).sum()
        };
        if sum(Output::bytes_at_most) <= most {
            return Ok(());
        }
        let bytes = sum(Output::bytes_with_inherited);
        if bytes > most {
            return Err(format!(
                "it comes to {bytes} bytes with what its records inherit, {most} are allowed"
            ));
        }
        Ok(())
    }

    fn check_failures(&self, records: usize) -> Result<(), String> {
        let mut failed: Vec<u32> = self.failures.iter().map(|failure| failure.origin).collect();
        failed.sort_unstable();
        if failed.last().is_some_and(|&last| last as usize >= records) {
            return Err(format!(
                "a failure's origin is out of range of {records} records"
            ));
        }
        if failed.windows(2).any(|pair| pair[0] == pair[1]) {
            return Err("two failures of one record".into());
        }
        if failed.is_empty() {
            return Ok(());
        }
        let origins = self.outputs.iter().flat_map(|output| &output.origins);
        match origins
            .copied()
            .find(|origin| failed.binary_search(origin).is_ok())
        {
            Some(origin) => Err(format!(
                "record {origin} is both a failure and the origin of an output record"
            )),
            None => Ok(()),
        }
    }
}

impl Output {
    fn check(&self, records: usize) -> Result<(), String> {
        if !self.origins.is_sorted() {
            return Err("origins decrease".into());
        }
        if self
            .origins
            .last()
            .is_some_and(|&last| last as usize >= records)
        {
            return Err(format!("an origin is out of range of {records} records"));
        }
        let lengths = [
            ("keys", self.keys.as_ref().map(Column::len)),
            ("values", self.values.as_ref().map(Column::len)),
            ("timestamps", self.timestamps.as_ref().map(Vec::len)),
        ];
        match lengths
            .iter()
            .find(|(_, length)| length.is_some_and(|length| length != self.origins.len()))
        {
            Some((name, length)) => Err(format!(
                "{} origins, but {} {name}",
                self.origins.len(),
                length.unwrap_or_default()
            )),
            None => Ok(()),
        }
    }

    /// Output record `index`, with what it inherits from the batch it was made of. `first` is the index, in `columns`, of the
    /// first record of the part that this output answers.
    pub fn record<'a>(&'a self, index: usize, columns: &'a Columns, first: u32) -> Record<'a> {
        let origin = (first + self.origins[index]) as usize;
        Record {
            key: self
                .keys
                .as_ref()
                .map_or_else(|| columns.keys.get(origin), |keys| keys.get(index)),
            value: self
                .values
                .as_ref()
                .map_or_else(|| columns.values.get(origin), |values| values.get(index)),
            timestamp: self
                .timestamps
                .as_ref()
                .map_or_else(|| columns.timestamps[origin], |times| times[index]),
            headers: self
                .headers
                .as_ref()
                .map_or_else(|| columns.headers.of(origin), |headers| headers.of(index)),
        }
    }

    /// What [`Output::bytes_with_inherited`] comes to, or more: no record is looked at where none comes twice.
    fn bytes_at_most(&self, batch: &Columns) -> usize {
        if !self.origins.is_sorted_by(|a, b| a < b) {
            return self.bytes_with_inherited(batch);
        }
        let inherited = |own: bool, all: usize| if own { 0 } else { all };
        self.bytes()
            + self.origins.len() * RECORD_BYTES
            + inherited(self.keys.is_some(), batch.keys.bytes().len())
            + inherited(self.values.is_some(), batch.values.bytes().len())
            + inherited(self.headers.is_some(), batch.headers.bytes())
    }

    /// Bytes of the records, written out: what they inherit counts once for each. The origins are in range.
    fn bytes_with_inherited(&self, batch: &Columns) -> usize {
        let inherited = |own: bool, of: &dyn Fn(usize) -> usize| match own {
            true => 0,
            false => self.origins.iter().map(|&origin| of(origin as usize)).sum(),
        };
        let length = |column: &Column, at| column.get(at).map_or(0, <[u8]>::len);
        self.bytes()
            + self.origins.len() * RECORD_BYTES
            + inherited(self.keys.is_some(), &|at| length(&batch.keys, at))
            + inherited(self.values.is_some(), &|at| length(&batch.values, at))
            + inherited(self.headers.is_some(), &|at| batch.headers.of(at).bytes())
    }

    /// Bytes that the output's own columns hold.
    pub fn bytes(&self) -> usize {
        let column =
            |column: &Option<Column>| column.as_ref().map_or(0, |column| column.bytes().len());
        let headers = self.headers.as_ref();
        let headers = headers.map_or(0, Headers::bytes);
        column(&self.keys) + column(&self.values) + headers
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(outcome: Outcome, expected: &str) {
        let mut batch = Columns::default();
        for offset in 0..3 {
            batch.push(offset, -1, None, Some(&[0; 1000]), std::iter::empty());
        }
        let found = outcome.check(&batch, &["adults".into()]);
        assert_eq!(found.err().unwrap_or_default(), expected);
    }

    fn output(port: &str, origins: &[u32]) -> Output {
        Output {
            port: port.into(),
            origins: origins.to_vec(),
            ..Output::default()
        }
    }

    fn failure(origin: u32) -> Failure {
        Failure {
            origin,
            reason: "no".into(),
        }
    }

    #[test]
    fn answers_are_checked() {
        let outcome = |outputs: Vec<Output>, failures: Vec<Failure>| Outcome { outputs, failures };
        check(
            outcome(
                vec![output("", &[0, 0, 2]), output("adults", &[])],
                vec![failure(1)],
            ),
            "",
        );
        check(
            outcome(vec![output("x", &[])], vec![]),
            "output on port \"x\", which the plugin's needs do not name",
        );
        check(
            outcome(vec![output("", &[0]), output("", &[1])], vec![]),
            "two outputs on port \"\"",
        );
        check(
            outcome(vec![output("", &[1, 0])], vec![]),
            "output on port \"\": origins decrease",
        );
        check(
            outcome(vec![output("", &[3])], vec![]),
            "output on port \"\": an origin is out of range of 3 records",
        );
        check(
            outcome(vec![], vec![failure(3)]),
            "a failure's origin is out of range of 3 records",
        );
        check(
            outcome(vec![], vec![failure(1), failure(1)]),
            "two failures of one record",
        );
        check(
            outcome(vec![output("", &[0, 1])], vec![failure(1)]),
            "record 1 is both a failure and the origin of an output record",
        );
        let short = Output {
            timestamps: Some(vec![1]),
            ..output("", &[0, 1])
        };
        check(
            outcome(vec![short], vec![]),
            "output on port \"\": 2 origins, but 1 timestamps",
        );
    }

    #[test]
    fn an_answer_is_bounded_with_what_it_inherits() {
        let outcome = |output: Output| Outcome {
            outputs: vec![output],
            failures: vec![],
        };
        // Three records of 1,000 bytes, and 32 for each record, allow 67,111,960: each copy takes 1,032.
        check(outcome(output("", &[1; 65_030])), "");
        check(
            outcome(output("", &[1; 65_031])),
            "it comes to 67111992 bytes with what its records inherit, 67111960 are allowed",
        );
        // What is not inherited is not counted.
        let mut values = Column::default();
        (0..65_031).for_each(|_| values.push(None));
        let own = Output {
            values: Some(values),
            ..output("", &[1; 65_031])
        };
        check(outcome(own), "");
    }

    /// Each output is small, whatever their number: what a batch has is not counted again for each.
    #[test]
    fn many_ports_inherit_no_more_than_there_is() {
        let mut batch = Columns::default();
        let large = vec![0; OUTCOME_BYTES_MAX / 100];
        batch.push(0, -1, None, Some(&large), std::iter::empty());
        let ports: Vec<String> = (0..200).map(|port| format!("p{port}")).collect();
        let outputs = ports.iter().map(|port| output(port, &[]));
        let outcome = Outcome {
            outputs: outputs.chain([output("", &[0])]).collect(),
            failures: Vec::new(),
        };
        assert_eq!(outcome.check(&batch, &ports), Ok(()));
    }
}
