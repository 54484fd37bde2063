//! Plugins that take one record at a time, and how a batch is taken apart for them.

use serde::Serialize;
use serde::de::{Deserialize, DeserializeOwned};

use crate::batch::{Batch, BatchTransform, Needs, Outcome};
use crate::edit::Edit;
use crate::merge::merge;
use crate::output::{Fate, Outputs};
use crate::record::{Record, View};
use crate::step::{self, Call, Mode};
use crate::{Result, config};

/// How often keys are collected for a batch of a plugin with state, before each is fetched when it is asked for. Enough for chains
/// of so many keys, where one's value names the next; without a limit, records whose keys hang on what the one before has put
/// would cost the square of the batch.
const COLLECTING_PASSES_MAX: u32 = 4;

/// A plugin that takes one record at a time. [`plugin!`](crate::plugin) exports it.
///
/// An instance may be thrown away between any two batches: what has to last belongs into state.
pub trait Transform: Sized + 'static {
    /// What the step's `config` table is read into. Let it `deny_unknown_fields`, so that a
    /// misspelt key is an error and not a default; [`NoConfig`](crate::NoConfig) takes no key.
    type Config: DeserializeOwned;

    /// JSON Schema of the configuration.
    const CONFIG_SCHEMA: Option<&'static str> = None;

    /// An error is shown to the user as it stands: say what is wrong with which key.
    fn new(config: Self::Config) -> Result<Self>;

    /// The ports it has beside the default one, and whether it sees headers.
    fn needs(&self) -> Needs {
        Needs::none()
    }

    /// Makes any number of output records of one record. An error fails this record alone, and
    /// undoes what was emitted and put for it; its text is for a person to read.
    ///
    /// Where it asks a [`Lookup`](crate::Lookup) for a key that isn't known yet, it is called for the
    /// record again once the key is, behind records that come later in the batch. What it changes
    /// in `self` before the last `get` is done as often.
    ///
    /// A plugin with [`State`](crate::State) gets its records in their order. Behind one that waits, the
    /// others are processed only to see which keys they want; whatever comes of that, a failure too,
    /// is undone, and they are processed again behind it. Such a try sees the state without what the
    /// record that waits will change: it must not panic over it.
    fn process(&mut self, record: Record<'_>, out: &mut Outputs<'_>) -> Result<()>;
}

/// A [`Transform`] as the batches come.
#[derive(Debug)]
pub struct PerRecord<T> {
    transform: T,
    needs: Needs,
}

impl<T: Transform> BatchTransform for PerRecord<T> {
    const CONFIG_SCHEMA: Option<&'static str> = T::CONFIG_SCHEMA;

    fn configure(config: &str) -> Result<(Self, Needs)> {
        let transform = T::new(config::parse(config)?)?;
        let needs = transform.needs();
        Ok((
            PerRecord {
                transform,
                needs: needs.clone(),
            },
            needs,
        ))
    }

    fn process(&mut self, batch: Batch) -> Result<Outcome> {
        if step::has_state() {
            return self.process_with_state(&batch);
        }
        if step::has_tables() {
            return self.process_with_lookups(&batch);
        }
        let _call = Call::begin(Mode::Plain);
        let view = View::new(&batch);
        let mut out = Outputs::new(&batch, &self.needs);
        for index in 0..batch.offsets.len() {
            out.begin(index);
            let processed = self.transform.process(view.record(index), &mut out);
            out.end(processed);
        }
        Ok(out.finish())
    }
}

impl<T: Transform> PerRecord<T> {
    /// All records, then those again that asked for keys which weren't known, with all of these
    /// fetched at once, until none does.
    fn process_with_lookups(&mut self, batch: &Batch) -> Result<Outcome> {
        let call = Call::begin(Mode::Collecting);
        let view = View::new(batch);
        let mut waiting: Vec<usize> = (0..batch.offsets.len()).collect();
        let mut parts = Vec::new();
        while !waiting.is_empty() {
            let mut out = Outputs::new(batch, &self.needs);
            waiting.retain(|&index| {
                out.begin(index);
                let processed = self.transform.process(view.record(index), &mut out);
                let is_pending = call.take_pending();
                if is_pending {
                    out.forget();
                } else {
                    out.end(processed);
                }
                is_pending
            });
            parts.push(out.finish());
            call.fetch()?;
        }
        Ok(merge(parts, batch))
    }

    /// All records in their order. Where one asks for keys that aren't known, those behind it are processed only to see which
    /// keys they want; then all of these are fetched at once, and it goes on from the record that waited. Keys that are put are
    /// written at the end.
    fn process_with_state(&mut self, batch: &Batch) -> Result<Outcome> {
        let call = Call::begin(Mode::Collecting);
        let view = View::new(batch);
        let mut out = Outputs::new(batch, &self.needs);
        let mut done = 0;
        let mut passes = 0;
        while done < batch.offsets.len() {
            done = self.pass(&call, &view, done, &mut out);
            call.fetch()?;
            passes += 1;
            if passes == COLLECTING_PASSES_MAX {
                call.fetch_at_once();
            }
        }
        call.write()?;
        Ok(out.finish())
    }

    /// The records from `first` on; returns the first one that waits, or how many there are.
    fn pass<'a>(
        &mut self,
        call: &Call,
        view: &'a View<'a>,
        first: usize,
        out: &mut Outputs<'_>,
    ) -> usize {
        let records = view.batch.offsets.len();
        let mut waiting = None;
        for index in first..records {
            out.begin(index);
            let processed = self.transform.process(view.record(index), out);
            if call.take_pending() {
                waiting = waiting.or(Some(index));
            }
            if waiting.is_some() {
                out.forget();
                call.undo_puts();
                continue;
            }
            match out.end(processed) {
                Fate::Stands => call.keep_puts(),
                Fate::Failed => call.undo_puts(),
            }
        }
        waiting.unwrap_or(records)
    }
}

/// Lets the record through if `keep` says so.
pub fn filter<'a>(
    record: Record<'a>,
    out: &mut Outputs<'_>,
    keep: impl FnOnce(Record<'a>) -> Result<bool>,
) -> Result<()> {
    if keep(record)? {
        out.keep();
    }
    Ok(())
}

/// Makes one output record, or none.
pub fn map<'a>(
    record: Record<'a>,
    out: &mut Outputs<'_>,
    map: impl FnOnce(Record<'a>) -> Result<Option<Edit<'a>>>,
) -> Result<()> {
    map(record)?.map_or(Ok(()), |edit| out.apply(edit))
}

/// Makes any number of output records, in the order given.
pub fn flat_map<'a, Edits: IntoIterator<Item = Edit<'a>>>(
    record: Record<'a>,
    out: &mut Outputs<'_>,
    flat_map: impl FnOnce(Record<'a>) -> Result<Edits>,
) -> Result<()> {
    flat_map(record)?
        .into_iter()
        .try_for_each(|edit| out.apply(edit))
}

/// Reads the value as JSON and sets it to what `map` makes of it; `None` drops the record.
pub fn json<'a, In: Deserialize<'a>, Out: Serialize>(
    record: Record<'a>,
    out: &mut Outputs<'_>,
    map: impl FnOnce(In) -> Result<Option<Out>>,
) -> Result<()> {
    if let Some(value) = map(record.json()?)? {
        out.emit().json(&value)?;
    }
    Ok(())
}
