//! Records that a step or a sink can't take, and finding them: a plugin call that fails as a whole is halved until the record
//! stands alone. There it may be tried again, with all the time that a call may take.
//!
//! Invariant: bisection never changes an order. The parts of a batch are answered in the order of its records.

use crate::pipeline::{OnError, StepId};
use crate::record::Columns;
use crate::state::overlay::Overlay;
use crate::step::{Batch, CallFailure, Outcome, Plugin};
use crate::task::run::Broken;

/// What went wrong with a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// The plugin refused it.
    Refused,
    /// The call on it alone failed: a trap, a missed deadline, a malformed answer.
    Call,
    /// It has no key, and a map or keyed stream needs one.
    NullKey,
    /// It is larger than its topic takes.
    TooLarge,
}

impl Kind {
    pub fn word(self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::Call => "call",
            Self::NullKey => "null-key",
            Self::TooLarge => "too-large",
        }
    }
}

/// A record left out, or one that stopped its task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordFailure {
    /// `step "parse"` or `sink "users"`.
    pub at: String,
    pub offset: i64,
    pub kind: Kind,
    pub reason: String,
    pub on_error: OnError,
}

/// Why a task runs no more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stopped {
    pub at: String,
    pub topic: String,
    pub partition: u32,
    pub offset: i64,
    pub reason: String,
}

/// The answer to a part of a step's batch.
#[derive(Debug)]
pub struct Part {
    /// Index, in the step's batch, of the part's first record.
    pub first: u32,
    pub outcome: Outcome,
}

/// A failed record of a step's batch.
#[derive(Debug)]
pub struct Failed {
    /// Index in the step's batch.
    pub index: u32,
    pub kind: Kind,
    pub reason: String,
}

/// Characters of what a plugin says, in a reason or a log line, that are passed on.
const WORDS_MAX: usize = 1000;

/// Words of a plugin, or words with some of its own in them: at most [`WORDS_MAX`] characters in one line, so that it can neither flood log,
/// status and dead letters nor forge lines.
pub fn in_a_line(words: &str) -> String {
    let mut characters = words.chars();
    let first = characters.by_ref().take(WORDS_MAX);
    let mut line: String = first
        .map(|character| match character.is_control() {
            true => ' ',
            false => character,
        })
        .collect();
    if characters.next().is_some() {
        line.push('…');
    }
    line
}

/// Calls the plugin on a batch; where the call fails, on its halves, down to the record that can't be processed.
///
/// # Errors
///
/// Why no call can be made now, or at all.
pub fn process(
    plugin: &mut impl Plugin,
    (step, retries): (StepId, u32),
    batch: &Batch<'_>,
    overlay: &mut Overlay,
    parts: &mut Vec<Part>,
    failed: &mut Vec<Failed>,
) -> Result<(), Broken> {
    let mut search = Search {
        plugin,
        step,
        retries,
        overlay,
        parts,
        failed,
    };
    search.process(batch, 0, 0)
}

struct Search<'a, P> {
    plugin: &'a mut P,
    step: StepId,
    retries: u32,
    overlay: &'a mut Overlay,
    parts: &'a mut Vec<Part>,
    failed: &'a mut Vec<Failed>,
}

impl<P: Plugin> Search<'_, P> {
    /// `tried` is how often the same call was made before.
    fn process(&mut self, batch: &Batch<'_>, first: u32, tried: u32) -> Result<(), Broken> {
        let before = self.overlay.mark();
        let answer = self.plugin.process(self.step, batch, self.overlay);
        let answer = answer.and_then(|outcome| {
            let wrong = outcome.check(batch.columns, self.plugin.ports(self.step));
            wrong
                .map(|()| outcome)
                .map_err(|wrong| CallFailure::Plugin(format!("its answer is malformed: {wrong}")))
        });
        if answer.is_err() {
            self.overlay.roll_back(before);
        }
        match answer {
            Ok(mut outcome) => {
                let failures = outcome.failures.drain(..);
                self.failed.extend(failures.map(|failure| Failed {
                    index: first + failure.origin,
                    kind: Kind::Refused,
                    reason: in_a_line(&failure.reason),
                }));
                self.parts.push(Part { first, outcome });
                Ok(())
            }
            Err(CallFailure::Host(reason)) => Err(Broken::Host(reason)),
            Err(CallFailure::NotReady(reason)) => Err(Broken::NotReady(reason)),
            Err(CallFailure::Overdue(reason)) => Err(Broken::Overdue(reason)),
            Err(CallFailure::Plugin(_)) if batch.columns.len() == 1 && tried < self.retries => {
                let whole = Batch {
                    halvings: 0,
                    ..*batch
                };
                self.process(&whole, first, tried + 1)
            }
            Err(CallFailure::Plugin(reason)) if batch.columns.len() == 1 => {
                self.failed.push(Failed {
                    index: first,
                    kind: Kind::Call,
                    reason: in_a_line(&reason),
                });
                Ok(())
            }
            Err(CallFailure::Plugin(_)) => self.halve(batch, first),
        }
    }

    fn halve(&mut self, batch: &Batch<'_>, first: u32) -> Result<(), Broken> {
        let middle = batch.columns.len() / 2;
        let mut at = first;
        for range in [0..middle, middle..batch.columns.len()] {
            let columns: Columns = batch.columns.slice(range.clone());
            let input_of = if batch.input_of.is_empty() {
                &[]
            } else {
                &batch.input_of[range.clone()]
            };
            let half = Batch {
                columns: &columns,
                input_of,
                halvings: batch.halvings + 1,
                ..*batch
            };
            self.process(&half, at, 0)?;
            at += u32::try_from(range.len()).expect("a batch has at most a few thousand records");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::step::Output;

    const RECORDS: u32 = 10_000;
    const POISON: &[u8] = b"poison";

    /// Passes records on, and traps where one is poison; so often, where it stands alone and has the time for a whole batch.
    #[derive(Default)]
    struct Fragile {
        calls: u32,
        traps_alone: Option<u32>,
    }

    impl Plugin for Fragile {
        fn process(
            &mut self,
            _: StepId,
            batch: &Batch<'_>,
            _: &mut Overlay,
        ) -> Result<Outcome, CallFailure> {
            self.calls += 1;
            let values = &batch.columns.values;
            let records = batch.columns.len();
            let is_poison = (0..records).any(|record| values.get(record) == Some(POISON));
            let is_alone = records == 1 && batch.halvings == 0;
            let left = self.traps_alone.as_mut().filter(|_| is_alone);
            let is_over = left.is_some_and(|left| {
                *left = left.saturating_sub(1);
                *left == 0
            });
            if is_poison && !is_over {
                return Err(CallFailure::Plugin("unreachable".into()));
            }
            let records = u32::try_from(records).expect("they are few");
            let output = Output {
                origins: (0..records).collect(),
                ..Output::default()
            };
            Ok(Outcome {
                outputs: vec![output],
                failures: Vec::new(),
            })
        }

        fn forget(&mut self) {}

        fn ports(&self, _: StepId) -> &[String] {
            &[]
        }

        fn digest(&self, _: StepId) -> &'static str {
            "fragile"
        }
    }

    /// The parts that passed, and the records that didn't.
    fn run(plugin: &mut Fragile, columns: &Columns, retries: u32) -> (Vec<Part>, Vec<Failed>) {
        let batch = Batch {
            inputs: &["in"],
            input_of: &[],
            topic: "in",
            partition: 0,
            now: 0,
            columns,
            halvings: 0,
        };
        let (mut overlay, mut parts, mut failed) = (Overlay::new(1), Vec::new(), Vec::new());
        let how = (StepId(0), retries);
        let found = process(plugin, how, &batch, &mut overlay, &mut parts, &mut failed);
        assert!(found.is_ok(), "the plugin is to blame alone");
        (parts, failed)
    }

    #[test]
    fn a_record_alone_is_tried_again_with_all_the_time_there_is() {
        let mut columns = Columns::default();
        for value in [b"", POISON, b""] {
            columns.push(0, 0, None, Some(value), std::iter::empty());
        }
        // Four calls of which two fail find it; it is called twice more.
        for (retries, calls, left) in [(0, 5, 1), (1, 6, 1), (2, 7, 0), (9, 7, 0)] {
            let mut plugin = Fragile {
                traps_alone: Some(2),
                ..Fragile::default()
            };
            let (parts, failed) = run(&mut plugin, &columns, retries);
            assert_eq!((plugin.calls, failed.len()), (calls, left), "{retries}");
            assert_eq!(parts.len(), 3 - left, "{retries}");
        }
    }

    /// Each halving costs two calls, of which one fails.
    #[test]
    fn one_record_among_ten_thousand_takes_28_more_calls() {
        for poison in [0, 1, 312, 4_999, 5_000, 7_777, RECORDS - 1] {
            let mut columns = Columns::default();
            for record in 0..RECORDS {
                let value: &[u8] = if record == poison { POISON } else { b"" };
                let none = std::iter::empty();
                columns.push(record.into(), 0, None, Some(value), none);
            }
            let mut plugin = Fragile::default();
            let (parts, failed) = run(&mut plugin, &columns, 0);
            assert!(plugin.calls <= 1 + 28, "{poison}: {} calls", plugin.calls);
            let failed: Vec<u32> = failed.iter().map(|failed| failed.index).collect();
            assert_eq!(failed, [poison]);
            let passed = parts.iter().flat_map(|part| {
                let origins = part.outcome.outputs[0].origins.iter();
                origins.map(|origin| part.first + origin)
            });
            let others = (0..RECORDS).filter(|record| *record != poison);
            assert!(
                passed.eq(others),
                "{poison}: the others come in their order"
            );
        }
    }
}
