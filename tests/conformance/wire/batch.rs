//! Record batches in Kafka's format (<https://kafka.apache.org/documentation/#recordbatch>), never compressed.

use millstream_broker::{Producer, Records};

use super::codec::{Fields, Form, Request, signed};
use crate::subject::Seen;

const MAGIC: i8 = 2;
const TRANSACTIONAL: i16 = 1 << 4;
const CONTROL: i16 = 1 << 5;
/// The type of a control record, the second number of its key.
const ABORT: i16 = 0;

pub fn encode(producer: Option<&Producer>, sequence: i32, records: &Records) -> Vec<u8> {
    let count = i32::try_from(records.len()).expect("a script's batches are small");
    let transactional = producer.is_some_and(|producer| producer.transactional_id.is_some());
    let (id, epoch) = producer.map_or((-1, -1), |producer| (producer.id, producer.epoch));
    let last = records.iter().map(|record| record.timestamp).max();
    let mut checked = Request::new(0, 0, Form::Plain);
    checked.i16(if transactional { TRANSACTIONAL } else { 0 });
    // Timestamps are told from 0 on.
    checked.i32(count - 1).i64(0).i64(last.unwrap_or(0));
    checked.i64(id).i16(epoch).i32(sequence).i32(count);
    for record in records.iter() {
        let mut body = vec![0];
        signed(&mut body, record.timestamp);
        signed(&mut body, record.offset);
        string(&mut body, record.key);
        string(&mut body, record.value);
        let headers: Vec<_> = record.headers.collect();
        signed(&mut body, length(headers.len()));
        for (name, value) in headers {
            string(&mut body, Some(name));
            string(&mut body, value);
        }
        signed(&mut checked.body, length(body.len()));
        checked.body.append(&mut body);
    }
    let mut batch = Request::new(0, 0, Form::Plain);
    let mut rest = Request::new(0, 0, Form::Plain);
    rest.i32(-1).i8(MAGIC);
    rest.body.extend(crc32c(&checked.body).to_be_bytes());
    rest.body.append(&mut checked.body);
    batch.i64(0).bytes(&rest.body);
    batch.body
}

fn length(length: usize) -> i64 {
    i64::try_from(length).expect("a script's records are small")
}

fn string(out: &mut Vec<u8>, string: Option<&[u8]>) {
    signed(out, string.map_or(-1, |string| length(string.len())));
    out.extend_from_slice(string.unwrap_or_default());
}

/// Adds the records from `position` on, and answers the position after them. `aborted` holds producer id and first offset of each
/// transaction to be left out, as a fetch answers them: a consumer leaves out that producer's records from there to the marker.
pub fn decode(bytes: &[u8], aborted: &[(i64, i64)], position: i64, seen: &mut Vec<Seen>) -> i64 {
    let mut next = position;
    let mut fields = Fields::new(Form::Plain, bytes.to_vec());
    let mut waiting = aborted.to_vec();
    let mut leaving_out: Vec<i64> = Vec::new();
    while !fields.is_empty() {
        let base = fields.i64();
        let length = usize::try_from(fields.i32()).expect("a batch has a length");
        let mut batch = Fields::new(Form::Plain, fields.take(length).to_vec());
        let (_, _, _) = (batch.i32(), batch.i8(), batch.i32());
        let attributes = batch.i16();
        let last = base + i64::from(batch.i32());
        let (time, _) = (batch.i64(), batch.i64());
        let (id, _, _) = (batch.i64(), batch.i16(), batch.i32());
        let begun = waiting.extract_if(.., |(_, first)| *first <= last);
        leaving_out.extend(begun.map(|(id, _)| id));
        next = next.max(last + 1);
        let records: Vec<Seen> = (0..batch.i32())
            .map(|_| record(&mut batch, base, time))
            .collect();
        if attributes & CONTROL != 0 {
            let key = records.first().and_then(|record| record.key.as_deref());
            if key.is_some_and(|key| key.ends_with(&ABORT.to_be_bytes())) {
                leaving_out.retain(|left_out| *left_out != id);
            }
        } else if attributes & TRANSACTIONAL == 0 || !leaving_out.contains(&id) {
            seen.extend(records.into_iter().filter(|seen| seen.offset >= position));
        }
    }
    next
}

fn record(fields: &mut Fields, base: i64, time: i64) -> Seen {
    fields.signed();
    fields.i8();
    let timestamp = time + fields.signed();
    let offset = base + fields.signed();
    let mut string = || {
        let length = usize::try_from(fields.signed()).ok()?;
        Some(fields.take(length).to_vec())
    };
    let (key, value) = (string(), string());
    let headers = 0..fields.signed();
    let mut string = || {
        let length = usize::try_from(fields.signed()).ok()?;
        Some(fields.take(length).to_vec())
    };
    Seen {
        offset,
        timestamp,
        key,
        value,
        headers: headers
            .map(|_| (string().unwrap_or_default(), string()))
            .collect(),
    }
}

/// CRC-32C, bit by bit: batches are small.
fn crc32c(bytes: &[u8]) -> u32 {
    const POLYNOMIAL: u32 = 0x82f6_3b78;
    let crc = bytes.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            (crc >> 1) ^ (POLYNOMIAL * (crc & 1))
        })
    });
    !crc
}
