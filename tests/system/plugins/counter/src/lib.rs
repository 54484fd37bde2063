//! Counts the events of each key, and says with every event how many there were: a job that stream processors are compared by. The event is
//! parsed, as it would be for anything more.

use millstream_plugin::{Edit, Record, Result, Text, plugin, state};
use serde::Deserialize;

plugin!(map: count; state: "counts");

#[derive(Deserialize)]
struct Event<'a> {
    #[serde(borrow)]
    id: Text<'a>,
}

fn count<'a>(record: Record<'a>) -> Result<Option<Edit<'a>>> {
    let Event { id } = record.json()?;
    let counts = state("counts");
    let before: u64 = counts
        .get(id.as_bytes())?
        .map_or(Ok(0), |found| found.json())?;
    counts.put_json(id.as_bytes(), &(before + 1))?;
    Ok(Some(Edit::new().json(&(before + 1))))
}
