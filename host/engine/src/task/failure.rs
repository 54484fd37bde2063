//! Records that a step or a sink can't take, and finding them: a plugin call that fails as a whole is halved until the record
//! stands alone.
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
    step: StepId,
    batch: &Batch<'_>,
    overlay: &mut Overlay,
    parts: &mut Vec<Part>,
    failed: &mut Vec<Failed>,
) -> Result<(), Broken> {
    let mut search = Search {
        plugin,
        step,
        overlay,
        parts,
        failed,
    };
    search.process(batch, 0)
}

struct Search<'a, P> {
    plugin: &'a mut P,
    step: StepId,
    overlay: &'a mut Overlay,
    parts: &'a mut Vec<Part>,
    failed: &'a mut Vec<Failed>,
}

impl<P: Plugin> Search<'_, P> {
    fn process(&mut self, batch: &Batch<'_>, first: u32) -> Result<(), Broken> {
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
            self.process(&half, at)?;
            at += u32::try_from(range.len()).expect("a batch has at most a few thousand records");
        }
        Ok(())
    }
}
