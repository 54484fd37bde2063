//! Plugins that take one record at a time, and how a batch is taken apart for them.

use serde::Serialize;
use serde::de::{Deserialize, DeserializeOwned};

use crate::batch::{Batch, BatchTransform, Needs, Outcome};
use crate::edit::Edit;
use crate::lookup::{self, Collecting};
use crate::merge::merge;
use crate::output::Outputs;
use crate::record::{Record, View};
use crate::{Result, config};

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
    /// undoes what was emitted for it; its text is for a person to read.
    ///
    /// Where it asks a [`Lookup`](crate::Lookup) for a key that isn't known yet, it is called for the
    /// record again once the key is, behind records that come later in the batch. What it changes
    /// in `self` before the last `get` is done as often.
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
        if lookup::any() {
            return self.process_with_lookups(&batch);
        }
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
        let collecting = Collecting::begin();
        let view = View::new(batch);
        let mut waiting: Vec<usize> = (0..batch.offsets.len()).collect();
        let mut parts = Vec::new();
        while !waiting.is_empty() {
            let mut out = Outputs::new(batch, &self.needs);
            waiting.retain(|&index| {
                out.begin(index);
                let processed = self.transform.process(view.record(index), &mut out);
                let is_pending = collecting.take_pending();
                if is_pending {
                    out.forget();
                } else {
                    out.end(processed);
                }
                is_pending
            });
            parts.push(out.finish());
            collecting.fetch()?;
        }
        Ok(merge(parts, batch))
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
