//! Outcomes of parts of a batch, whose records may lie between each other's, made one.
//!
//! Invariant: the records of a port stand in the order of their origins, and those of one origin as they were emitted.

use crate::batch::{Batch, Column, Failure, Headers, Outcome, Output};

/// Each record of the batch is the origin of outputs, or a failure, of one part at most.
pub(crate) fn merge(parts: Vec<Outcome>, batch: &Batch) -> Outcome {
    let mut failures: Vec<Failure> = Vec::new();
    let mut ports: Vec<Vec<Output>> = Vec::new();
    for part in parts {
        failures.extend(part.failures);
        for output in part.outputs {
            match ports.iter_mut().find(|port| port[0].port == output.port) {
                Some(port) => port.push(output),
                None => ports.push(vec![output]),
            }
        }
    }
    Outcome {
        outputs: ports.into_iter().map(|port| join(port, batch)).collect(),
        failures,
    }
}

/// Outputs of one port.
fn join(mut parts: Vec<Output>, batch: &Batch) -> Output {
    if parts.len() == 1 {
        return parts.remove(0);
    }
    let rows = parts.iter().enumerate().flat_map(|(part, output)| {
        let origins = output.origins.iter().enumerate();
        origins.map(move |(row, &origin)| Row { origin, part, row })
    });
    let mut rows: Vec<Row> = rows.collect();
    rows.sort_by_key(|row| row.origin);
    let keys: Vec<_> = parts.iter().map(|part| part.keys.as_ref()).collect();
    let values: Vec<_> = parts.iter().map(|part| part.values.as_ref()).collect();
    Output {
        port: parts[0].port.clone(),
        origins: rows.iter().map(|row| row.origin).collect(),
        keys: column(&rows, &keys, &batch.keys),
        values: column(&rows, &values, &batch.values),
        timestamps: timestamps(&rows, &parts, batch),
        headers: headers(&rows, &parts, batch),
    }
}

/// An output record: where it comes from, and where it stands.
struct Row {
    origin: u32,
    part: usize,
    row: usize,
}

/// A column that some part set; the others' records inherit theirs.
fn column(rows: &[Row], parts: &[Option<&Column>], inherited: &Column) -> Option<Column> {
    let bytes: usize = parts
        .iter()
        .flatten()
        .map(|column| column.bytes.len())
        .sum();
    parts.iter().flatten().next()?;
    let mut joined = Column::with_capacity(rows.len(), bytes);
    for at in rows {
        joined.push(match parts[at.part] {
            Some(column) => column.get(at.row),
            None => inherited.get(at.origin as usize),
        });
    }
    Some(joined)
}

fn timestamps(rows: &[Row], parts: &[Output], batch: &Batch) -> Option<Vec<i64>> {
    parts.iter().find_map(|part| part.timestamps.as_ref())?;
    let cells = rows.iter().map(|at| match &parts[at.part].timestamps {
        Some(cells) => cells[at.row],
        None => batch.timestamps[at.origin as usize],
    });
    Some(cells.collect())
}

fn headers(rows: &[Row], parts: &[Output], batch: &Batch) -> Option<Headers> {
    parts.iter().find_map(|part| part.headers.as_ref())?;
    let mut joined = Headers::none();
    for (row, at) in rows.iter().enumerate() {
        let (headers, owner) = match &parts[at.part].headers {
            Some(headers) => (headers, at.row),
            None => (&batch.headers, at.origin as usize),
        };
        for index in headers.range(owner) {
            let (name, value) = headers.get(index);
            joined.push(row, name, value);
        }
    }
    Some(joined)
}
