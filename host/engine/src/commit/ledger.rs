//! Which changelogs the committed state stands in, noted beside the token in the metadata of committed offsets: a changelog that was
//! deleted, or made anew under its old name, would begin empty behind offsets that say its records have been processed.
//!
//! A map is in it under a hash of its name, with a hash of the identity that Kafka gave its changelog: eight hexadecimal digits each.

use std::fmt::Write as _;

use crate::state::changelog;

/// More maps are not noted: brokers take 4,096 bytes of metadata.
const MAPS_MAX: usize = 200;

const DIGITS: usize = 8;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ledger(Vec<(u32, u32)>);

impl Ledger {
    /// Of maps, each with the identity of its changelog.
    pub fn new<'m>(maps: impl Iterator<Item = (&'m str, &'m str)>) -> Self {
        let marks = maps.map(|(name, topic)| (mark(name), mark(topic)));
        Self(marks.take(MAPS_MAX).collect())
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn to_text(&self) -> String {
        let mut text = String::new();
        for (name, topic) in &self.0 {
            write!(text, "{name:08x}{topic:08x}").expect("texts can be written to");
        }
        text
    }

    /// None where it is no ledger.
    pub fn from_text(text: &str) -> Option<Self> {
        let digits = text.as_bytes();
        if !digits.len().is_multiple_of(2 * DIGITS) || !digits.iter().all(u8::is_ascii_hexdigit) {
            return None;
        }
        let mark = |digits: &[u8]| {
            let digits = std::str::from_utf8(digits).ok()?;
            u32::from_str_radix(digits, 16).ok()
        };
        let marks = digits.chunks(2 * DIGITS).map(|marks| {
            let (name, topic) = marks.split_at(DIGITS);
            Some((mark(name)?, mark(topic)?))
        });
        marks.collect::<Option<_>>().map(Self)
    }

    /// The maps among `names` whose changelog is another one now than when `earlier` was noted. One that isn't in both is new, or gone.
    pub fn made_anew<'m>(
        &self,
        earlier: &Self,
        names: impl Iterator<Item = &'m str>,
    ) -> Vec<&'m str> {
        let topic = |ledger: &Self, name: &str| {
            let mut marks = ledger.0.iter();
            marks
                .find(|(known, _)| *known == mark(name))
                .map(|found| found.1)
        };
        let differs = |name: &&str| match (topic(self, name), topic(earlier, name)) {
            (Some(now), Some(then)) => now != then,
            _ => false,
        };
        names.filter(differs).collect()
    }
}

fn mark(text: &str) -> u32 {
    changelog::partition(text.as_bytes(), 1 << 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_what_was_made_anew() {
        let then = Ledger::new([("users", "A"), ("totals", "B"), ("gone", "C")].into_iter());
        let now = Ledger::new([("users", "A"), ("totals", "D"), ("new", "E")].into_iter());
        let earlier = Ledger::from_text(&then.to_text()).unwrap();
        assert_eq!(earlier, then);
        let names = ["users", "totals", "new"].into_iter();
        assert_eq!(now.made_anew(&earlier, names.clone()), ["totals"]);
        assert_eq!(now.made_anew(&now, names.clone()), [""; 0]);
        assert_eq!(now.made_anew(&Ledger::default(), names), [""; 0]);
        assert_eq!(Ledger::from_text(""), Some(Ledger::default()));
        for other in [
            "0123456789abcde",
            "0123456789abcdeg",
            "ä123456789abcde",
            "more",
        ] {
            assert_eq!(Ledger::from_text(other), None, "{other}");
        }
        let many: Vec<String> = (0..300).map(|map| map.to_string()).collect();
        let many = Ledger::new(many.iter().map(|map| (map.as_str(), "")));
        assert_eq!(many.to_text().len(), MAPS_MAX * 16);
    }
}
