//! A map partition that is folded from records of a changelog, whoever wrote them, and its indexes: it holds what the fold of them is,
//! its position stays behind what was read, and a search by indexes finds what a look at every entry does.

#![no_main]

use std::collections::BTreeMap;

use libfuzzer_sys::fuzz_target;
use millstream_engine::json::{Pointer, Scalar};
use millstream_engine::state::budget::Budget;
use millstream_engine::state::committed::Committed;
use millstream_engine::state::restore::{LiveFrom, MapPartition, Phase};
use millstream_engine::state::search::{Bounds, Condition, Operator, Search};
use millstream_fuzz::Draws;

const POINTERS: [&str; 4] = ["/a", "/b/0", "", "/c"];

/// The last one has no index.
const INDEXED: usize = 3;

type Model = BTreeMap<Vec<u8>, Vec<u8>>;

fuzz_target!(|data: &[u8]| {
    let mut draws = Draws(data);
    let live_from = [LiveFrom::Changelog, LiveFrom::Task][draws.below(2)];
    let indexes = POINTERS[..INDEXED].iter().map(|text| pointer(text));
    let contents = Committed::new(1, indexes.collect());
    let limit = [1 << 30, 16 << 10][draws.below(2)];
    let budget = Budget::new(limit, 1);
    let end = i64::from(draws.byte());
    let mut partition = MapPartition::new(contents, budget.share(0), 1, (0, end), live_from);
    let mut model = Model::new();
    while !draws.is_empty() {
        let folded = change(&mut draws, &mut partition, &mut model, live_from);
        assert!(partition.position() <= partition.read_to());
        assert_eq!(partition.contents().len(), model.len());
        if folded.is_none() {
            // There is no room: the process would end.
            break;
        }
        assert!(budget.used() <= limit);
    }
    for (key, value) in &model {
        assert_eq!(partition.contents().get(key), Some(&value[..]));
    }
    check_search(&mut Draws(data), &partition, &model);
});

fn change(
    draws: &mut Draws<'_>,
    partition: &mut MapPartition,
    model: &mut Model,
    live_from: LiveFrom,
) -> Option<()> {
    let is_own = (live_from, partition.phase()) == (LiveFrom::Task, Phase::Live);
    match draws.below(8) {
        0 => partition.advance(partition.read_to() + i64::from(draws.byte())),
        1 => partition.resume(partition.read_to() + i64::from(draws.byte())),
        2 => check_search(draws, partition, model),
        kind => {
            let (key, value) = (key(draws), value(draws));
            let offset = partition.read_to() + i64::from(draws.below(3) == 2);
            let is_taken = match (is_own, kind) {
                (true, 3 | 4) => {
                    partition.merge(&key, value.as_deref()).ok()?;
                    true
                }
                _ => {
                    partition.fold(offset, &key, value.as_deref()).ok()?;
                    !is_own
                }
            };
            match value {
                _ if !is_taken => {}
                Some(value) => drop(model.insert(key, value)),
                None => drop(model.remove(&key)),
            }
        }
    }
    Some(())
}

/// What every entry is asked for, step by step.
fn check_search(draws: &mut Draws<'_>, partition: &MapPartition, model: &Model) {
    let conditions = (0..draws.below(3)).filter_map(|_| condition(draws));
    let search = Search::new(conditions.collect(), draws.bytes(1).to_vec());
    let bounds = Bounds {
        slots: 1 + draws.below(20),
        bytes: 1 + draws.below(200),
        hits: 1 + draws.below(5),
    };
    let mut found = Vec::new();
    let mut from = Some(0);
    while let Some(slot) = from {
        let step = search.step(partition.contents(), slot, bounds, |_, key, value| {
            found.push((key.to_vec(), value.to_vec()));
        });
        assert!(step.next.is_none_or(|next| next > slot), "it goes on");
        from = step.next;
    }
    found.sort();
    let expected = model
        .iter()
        .filter(|(key, value)| search.is_met_by(key, value));
    let expected = expected.map(|(key, value)| (key.clone(), value.clone()));
    assert_eq!(found, expected.collect::<Vec<_>>(), "{search:?}");
}

fn condition(draws: &mut Draws<'_>) -> Option<Condition> {
    let operators = [
        Operator::Equal,
        Operator::Less,
        Operator::LessOrEqual,
        Operator::Greater,
        Operator::GreaterOrEqual,
    ];
    let condition = Condition {
        pointer: pointer(POINTERS[draws.below(POINTERS.len())]),
        operator: operators[draws.below(operators.len())],
        operand: Scalar::of_operand(&scalar(draws)),
    };
    condition.is_sensible().then_some(condition)
}

fn pointer(text: &str) -> Pointer {
    Pointer::parse(text).expect("these are pointers")
}

fn key(draws: &mut Draws<'_>) -> Vec<u8> {
    match draws.below(4) {
        0 => draws.bytes(20).to_vec(),
        _ => vec![b'a' + draws.byte() % 8],
    }
}

/// JSON mostly.
fn value(draws: &mut Draws<'_>) -> Option<Vec<u8>> {
    let text = match draws.below(8) {
        0 => return None,
        1 => return Some(draws.bytes(40).to_vec()),
        2 => format!("{{\"a\":{},\"b\":[{}]}}", scalar(draws), scalar(draws)),
        3 => format!("{{\"b\":[{}],\"c\":{}}}", scalar(draws), scalar(draws)),
        4 => scalar(draws),
        _ => format!("{{\"a\":{}}}", scalar(draws)),
    };
    Some(text.into_bytes())
}

fn scalar(draws: &mut Draws<'_>) -> String {
    match draws.below(9) {
        0 => "null".into(),
        1 => (draws.below(2) == 1).to_string(),
        2 => draws.byte().to_string(),
        3 => draws.i64().to_string(),
        4 => format!("{}e{}", draws.byte(), draws.below(256) as i32 - 128),
        5 => format!("-{}.{}", draws.byte(), draws.byte()),
        6 => serde_json::Value::from(draws.text(12)).to_string(),
        // About as long as what an index keeps of a text.
        7 => {
            let letter = ["x", "\u{e4}", "\u{20ac}"][draws.below(3)];
            let text = letter.repeat(250 / letter.len() + draws.below(8));
            serde_json::Value::from(text + draws.text(3)).to_string()
        }
        _ => draws.text(8).into(),
    }
}
