//! Looking for entries: those whose values meet some conditions and whose keys begin in some way, in the order of their slots, a few
//! at a time. So a caller can give its lock back between two steps and go on later, over contents that have changed meanwhile.
//!
//! Invariant: an entry that is there and meets the search from the first step to the last is hit exactly once.

use std::cmp::Ordering;

use super::committed::Committed;
use super::index::{Index, Proposed, Range};
use crate::json::{POINTERS_MAX, Pointer, Scalar, find};

/// Conditions of a search, at most.
pub const CONDITIONS_MAX: usize = 16;

/// A range of more scalars than this is not looked up in the index: so many entries are in it that going over all finds them as well.
const SCALARS_MAX: usize = 8192;

/// The same for slots: more are not gathered for one step.
const GATHERED_MAX: usize = 32_768;

/// The scalar at `pointer` stands to the operand as `operator` says. One of another kind doesn't.
#[derive(Clone, Debug, PartialEq)]
pub struct Condition {
    pub pointer: Pointer,
    pub operator: Operator,
    pub operand: Scalar<'static>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operator {
    Equal,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

/// What is looked for: entries that meet all conditions.
#[derive(Clone, Debug)]
pub struct Search {
    conditions: Vec<Condition>,
    /// Of the conditions.
    pointers: Vec<Pointer>,
    prefix: Vec<u8>,
}

/// Where a step ends, if nothing else ends it: after so many slots, or bytes of keys and values looked at, or hits.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    pub slots: usize,
    pub bytes: usize,
    pub hits: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// Where the next step begins; none where the search is over.
    pub next: Option<u32>,
    pub slots: usize,
    pub bytes: usize,
}

impl Operator {
    fn holds(self, ordering: Ordering) -> bool {
        match self {
            Self::Equal => ordering.is_eq(),
            Self::Less => ordering.is_lt(),
            Self::LessOrEqual => ordering.is_le(),
            Self::Greater => ordering.is_gt(),
            Self::GreaterOrEqual => ordering.is_ge(),
        }
    }
}

impl Condition {
    /// Null, true and false have no order: with them, only equality makes sense.
    pub fn is_sensible(&self) -> bool {
        self.operator == Operator::Equal || self.range().is_some()
    }

    fn range(&self) -> Option<Range> {
        match self.operator {
            Operator::Equal => Some(Range::equal(&self.operand)),
            Operator::Less | Operator::LessOrEqual => Range::up_to(&self.operand),
            Operator::Greater | Operator::GreaterOrEqual => Range::down_to(&self.operand),
        }
    }
}

impl Search {
    pub fn new(conditions: Vec<Condition>, prefix: Vec<u8>) -> Self {
        const { assert!(CONDITIONS_MAX <= POINTERS_MAX) };
        assert!(conditions.len() <= CONDITIONS_MAX, "callers limit them");
        Self {
            pointers: conditions
                .iter()
                .map(|condition| condition.pointer.clone())
                .collect(),
            conditions,
            prefix,
        }
    }

    /// Whether an entry is looked for.
    pub fn is_met_by(&self, key: &[u8], value: &[u8]) -> bool {
        if !key.starts_with(&self.prefix) {
            return false;
        }
        if self.conditions.is_empty() {
            return true;
        }
        let Some(found) = find(value, &self.pointers) else {
            return false;
        };
        self.conditions
            .iter()
            .zip(found)
            .all(|(condition, scalar)| {
                let ordering = scalar.and_then(|scalar| scalar.compare(&condition.operand));
                ordering.is_some_and(|ordering| condition.operator.holds(ordering))
            })
    }

    /// Looks from a slot on; `hit` is given slot, key and value of every entry found.
    pub fn step<'c>(
        &self,
        contents: &'c Committed,
        from: u32,
        bounds: Bounds,
        mut hit: impl FnMut(u32, &'c [u8], &'c [u8]),
    ) -> Step {
        let end = contents.entries().end();
        let proposed = self.proposed(contents, from, bounds.slots);
        let (mut slots, more): (Box<dyn Iterator<Item = u32>>, bool) = match proposed {
            Some(proposed) => (Box::new(proposed.slots.into_iter()), proposed.more),
            None => {
                let last = from.saturating_add(u32::try_from(bounds.slots).unwrap_or(u32::MAX));
                (Box::new(from..end.min(last)), last < end)
            }
        };
        let mut step = Step {
            next: None,
            slots: 0,
            bytes: 0,
        };
        let mut hits = 0;
        let mut next = from;
        while let Some(slot) = slots.next() {
            next = slot + 1;
            step.slots += 1;
            let Some((key, value)) = contents.entries().get(slot) else {
                continue;
            };
            step.bytes += key.len() + value.len();
            if self.is_met_by(key, value) {
                hit(slot, key, value);
                hits += 1;
            }
            if hits == bounds.hits || step.bytes >= bounds.bytes {
                step.next = (more || slots.next().is_some()).then_some(next);
                return step;
            }
        }
        step.next = more.then_some(next);
        step
    }

    /// What the index that has the fewest entries in question proposes; none where no index helps.
    fn proposed(&self, contents: &Committed, from: u32, wanted: usize) -> Option<Proposed> {
        let helpful = contents.indexes().iter().filter_map(|index| {
            let range = self.range(index)?;
            let count = index.count(&range, SCALARS_MAX)?;
            Some((count, index, range))
        });
        let (_, index, range) = helpful.min_by_key(|(count, ..)| *count)?;
        index.propose(&range, from, wanted, GATHERED_MAX)
    }

    /// What all conditions at the pointer of an index leave; none where there are none.
    fn range(&self, index: &Index) -> Option<Range> {
        let of_index = self
            .conditions
            .iter()
            .filter(|condition| condition.pointer == *index.pointer());
        of_index.filter_map(Condition::range).reduce(Range::and)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};
    use std::sync::Arc;

    use serde_json::Value;

    use super::*;

    const ALL: Bounds = Bounds {
        slots: 7,
        bytes: usize::MAX,
        hits: usize::MAX,
    };

    /// The same numbers in every run.
    struct Draws(u64);

    impl Draws {
        fn below(&mut self, end: usize) -> usize {
            self.0 = self
                .0
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            usize::try_from(self.0 >> 33).unwrap() % end
        }

        fn key(&mut self, keys: usize) -> Vec<u8> {
            format!("{:x}", self.below(keys)).into_bytes()
        }

        fn value(&mut self) -> Vec<u8> {
            let country = [
                "\"DE\"",
                "\"AT\"",
                "\"\\u0044E\"",
                "null",
                "true",
                "[]",
                "\"Dä\"",
            ][self.below(7)];
            let age = self.below(100);
            let text = match self.below(12) {
                0 => "not JSON".into(),
                1 => format!("{{\"age\":\"{age}\"}}"),
                2 => format!("{{\"country\":{country},\"age\":{age}.5}}"),
                3 => format!("{{\"at\":{{\"long\":\"{}\"}}}}", self.long()),
                _ => format!(
                    "{{ \"country\" : {country},\"age\":{age},\"at\":{{\"id\":{}}}}}",
                    self.below(100_000)
                ),
            };
            text.into_bytes()
        }

        /// A text about as long as what an index keeps of it, which may end within a letter.
        fn long(&mut self) -> String {
            let letter = ["x", "é", "€", "🦀"][self.below(4)];
            let letters = 250 / letter.len() + self.below(5);
            let (before, after) = (["", "a"][self.below(2)], ["", "z", "é", "7"][self.below(4)]);
            format!("{before}{}{after}", letter.repeat(letters))
        }

        fn condition(&mut self) -> Condition {
            let pointer = ["/country", "/age", "/at/id", "/at/long", ""][self.below(5)];
            let operand = match self.below(6) {
                0 => "DE".to_owned(),
                1 => "null".to_owned(),
                2 => "true".to_owned(),
                3 => self.long(),
                4 => self.below(100_000).to_string(),
                _ => self.below(100).to_string(),
            };
            let operators = [
                Operator::Equal,
                Operator::Less,
                Operator::LessOrEqual,
                Operator::Greater,
                Operator::GreaterOrEqual,
            ];
            let condition = Condition {
                pointer: Pointer::parse(pointer).unwrap(),
                operator: operators[self.below(5)],
                operand: Scalar::of_operand(&operand),
            };
            if condition.is_sensible() {
                condition
            } else {
                self.condition()
            }
        }

        fn search(&mut self) -> Search {
            let conditions = (0..self.below(4)).map(|_| self.condition()).collect();
            let prefix = if self.below(4) == 0 {
                self.key(16)
            } else {
                Vec::new()
            };
            Search::new(conditions, prefix)
        }
    }

    fn pointers(list: &[&str]) -> Arc<[Pointer]> {
        list.iter()
            .map(|text| Pointer::parse(text).unwrap())
            .collect()
    }

    /// What the documentation says, by another JSON reader and without an index.
    fn expected(search: &Search, key: &[u8], value: &[u8]) -> bool {
        let value: Option<Value> = serde_json::from_slice(value).ok();
        let holds = |condition: &Condition| {
            let found = value.as_ref()?.pointer(&condition.pointer.to_string())?;
            let ordering = match (found, &condition.operand) {
                (Value::Null, Scalar::Null) => Ordering::Equal,
                (Value::Bool(found), Scalar::Bool(operand)) => found.cmp(operand),
                (Value::Number(found), Scalar::Number(crate::json::Number::Integer(operand))) => {
                    found
                        .as_f64()?
                        .partial_cmp(&i32::try_from(*operand).unwrap().into())?
                }
                (Value::String(found), Scalar::Text(operand)) => found.as_str().cmp(operand),
                _ => return None,
            };
            Some(condition.operator.holds(ordering))
        };
        key.starts_with(&search.prefix)
            && search
                .conditions
                .iter()
                .all(|condition| holds(condition) == Some(true))
    }

    fn hits(search: &Search, contents: &Committed, bounds: Bounds) -> Vec<Vec<u8>> {
        let (mut keys, mut from) = (Vec::new(), Some(0));
        while let Some(slot) = from {
            let step = search.step(contents, slot, bounds, |_, key, _| keys.push(key.to_vec()));
            assert!(step.next.is_none_or(|next| next > slot) && step.slots <= bounds.slots);
            from = step.next;
        }
        keys
    }

    /// Folds at random, next to a plain map; then every search finds what going over that map finds, with and without indexes.
    #[test]
    fn finds_what_a_plain_map_finds() {
        let mut draws = Draws(1);
        for (round, keys) in [5, 50, 3000, 3000].into_iter().enumerate() {
            let indexes: &[&str] = [
                &[][..],
                &["/age"],
                &["/country", "/at/id"],
                &["/age", "/country", "/at/long", ""],
            ][round];
            let mut contents = Committed::new(7, pointers(indexes));
            let mut model = BTreeMap::new();
            for turn in 0..12_000 {
                let (key, value) = (draws.key(keys), draws.value());
                // Fuller and emptier in turns, so that sets grow and shrink.
                if draws.below(10) < if turn / 4000 == 1 { 9 } else { 2 } {
                    contents.put(&key, None);
                    model.remove(&key);
                } else {
                    contents.put(&key, Some(&value));
                    model.insert(key, value);
                }
                if turn % 60 == 0 {
                    let search = draws.search();
                    let mut found = hits(&search, &contents, ALL);
                    found.sort();
                    let wanted = model
                        .iter()
                        .filter(|(key, value)| expected(&search, key, value));
                    assert!(wanted.map(|(key, _)| key).eq(&found), "{search:?}");
                }
            }
            assert_eq!(contents.len(), model.len());
            let bytes: usize = model
                .iter()
                .map(|(key, value)| key.len() + value.len())
                .sum();
            assert_eq!(contents.bytes(), bytes);
            for key in model.keys() {
                assert_eq!(contents.get(key), model.get(key).map(Vec::as_slice));
                contents.put(key, None);
            }
            assert!(
                contents
                    .indexes()
                    .iter()
                    .all(|index| index.entries() == 0 && index.scalars() == 0)
            );
        }
    }

    /// While a search goes on in small steps, everything changes but some entries; each of those comes exactly once.
    #[test]
    fn what_stays_is_hit_exactly_once() {
        let mut draws = Draws(2);
        for round in 0..60 {
            let indexes: &[&str] = [&[][..], &["/age"]][round % 2];
            let mut contents = Committed::new(7, pointers(indexes));
            for _ in 0..400 {
                contents.put(&draws.key(500), Some(&draws.value()));
            }
            let stays = |key: &[u8]| key[0].is_multiple_of(3);
            let search = Search::new(
                match round % 3 {
                    0 => Vec::new(),
                    _ => vec![Condition {
                        pointer: Pointer::parse("/age").unwrap(),
                        operator: Operator::Greater,
                        operand: Scalar::of_operand("40"),
                    }],
                },
                Vec::new(),
            );
            let expected: BTreeSet<_> = hits(&search, &contents, ALL)
                .into_iter()
                .filter(|key| stays(key))
                .collect();
            let (mut found, mut from) = (Vec::new(), Some(0));
            while let Some(slot) = from {
                let bounds = Bounds { hits: 3, ..ALL };
                from = search
                    .step(&contents, slot, bounds, |_, key, _| {
                        found.push(key.to_vec());
                    })
                    .next;
                for _ in 0..40 {
                    let (key, value) = (draws.key(500), draws.value());
                    if !stays(&key) {
                        contents.put(&key, (draws.below(2) == 0).then_some(&value));
                    } else if search.conditions.is_empty() && contents.get(&key).is_some() {
                        contents.put(&key, Some(&value));
                    } else if contents
                        .get(&key)
                        .is_some_and(|value| search.is_met_by(&key, value))
                    {
                        contents.put(
                            &key,
                            Some(format!("{{\"age\":{}}}", 41 + draws.below(50)).as_bytes()),
                        );
                    }
                }
            }
            found.retain(|key| stays(key));
            let different: BTreeSet<_> = found.iter().cloned().collect();
            assert_eq!(found.len(), different.len());
            assert_eq!(different, expected);
        }
    }

    #[test]
    fn steps_are_bounded() {
        let mut contents = Committed::new(7, pointers(&["/id"]));
        for id in 0..100 {
            contents.put(&[id], Some(format!("{{\"id\":{id}}}").as_bytes()));
        }
        let check =
            |conditions: &[(Operator, &str)], bounds: Bounds, expected: Step, found: usize| {
                let conditions = conditions.iter().map(|(operator, operand)| Condition {
                    pointer: Pointer::parse("/id").unwrap(),
                    operator: *operator,
                    operand: Scalar::of_operand(operand),
                });
                let mut hits = 0;
                let search = Search::new(conditions.collect(), Vec::new());
                assert_eq!(
                    search.step(&contents, 0, bounds, |_, _, _| hits += 1),
                    expected
                );
                assert_eq!(hits, found);
            };
        let step = |next, slots, bytes| Step { next, slots, bytes };
        let bounds = |slots, bytes, hits| Bounds { slots, bytes, hits };
        check(&[], bounds(20, 1000, 10), step(Some(10), 10, 90), 10);
        check(&[], bounds(20, 1000, 30), step(Some(20), 20, 190), 20);
        check(&[], bounds(20, 20, 10), step(Some(3), 3, 27), 3);
        check(&[], bounds(200, 9000, 100), step(None, 100, 990), 100);
        let between = [(Operator::GreaterOrEqual, "95"), (Operator::Less, "98")];
        check(&between, bounds(20, 1000, 10), step(None, 4, 40), 3);
        check(&between, bounds(20, 1000, 2), step(Some(97), 2, 20), 2);
        check(&between, bounds(2, 1000, 10), step(Some(97), 2, 20), 2);
        let none = [(Operator::Greater, "5"), (Operator::Less, "3")];
        check(&none, bounds(20, 1000, 10), step(None, 0, 0), 0);
        let text = [(Operator::Equal, "DE")];
        check(&text, bounds(20, 1000, 10), step(None, 0, 0), 0);
    }
}
