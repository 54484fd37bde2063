//! The mark that a transaction leaves in the metadata of the offsets it commits: who, and which transaction. Read back after a
//! commit in doubt, it says whether that commit took place.

use super::ledger::Ledger;

/// Format 1: `1 <instance> <worker> <run> <number>`, separated by single spaces, and behind one more, where there are changelogs, the
/// ledger of them. Instance names have no spaces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    pub instance: String,
    pub worker: u32,
    /// Drawn at random when the worker started.
    pub run: u64,
    /// Of the transaction within the run.
    pub number: u64,
}

impl Token {
    pub fn to_metadata(&self, ledger: &Ledger) -> String {
        let mut metadata = format!(
            "1 {} {} {:016x} {}",
            self.instance, self.worker, self.run, self.number
        );
        if !ledger.is_empty() {
            metadata.push(' ');
            metadata.push_str(&ledger.to_text());
        }
        metadata
    }

    /// None for metadata that isn't ours.
    pub fn from_metadata(metadata: &str) -> Option<Self> {
        parse(metadata).map(|(token, _)| token)
    }
}

/// The ledger in such metadata; an empty one where it is not ours.
pub fn ledger_of(metadata: &str) -> Ledger {
    parse(metadata).map_or_else(Ledger::default, |(_, ledger)| ledger)
}

fn parse(metadata: &str) -> Option<(Token, Ledger)> {
    let mut parts = metadata.split(' ');
    let (format, instance) = (parts.next()?, parts.next()?);
    let (worker, run, number) = (parts.next()?, parts.next()?, parts.next()?);
    let ledger = Ledger::from_text(parts.next().unwrap_or_default())?;
    if format != "1" || parts.next().is_some() {
        return None;
    }
    let token = Token {
        instance: instance.into(),
        worker: worker.parse().ok()?,
        run: u64::from_str_radix(run, 16).ok()?,
        number: number.parse().ok()?,
    };
    Some((token, ledger))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comes_back_from_metadata() {
        let token = Token {
            instance: "host-1".into(),
            worker: 3,
            run: 0xfe,
            number: 12,
        };
        let none = Ledger::default();
        let metadata = "1 host-1 3 00000000000000fe 12";
        assert_eq!(token.to_metadata(&none), metadata);
        assert_eq!(Token::from_metadata(metadata).as_ref(), Some(&token));
        assert_eq!(ledger_of(metadata), none);
        let ledger = Ledger::new([("users", "A")].into_iter());
        let metadata = token.to_metadata(&ledger);
        assert_eq!(Token::from_metadata(&metadata), Some(token));
        assert_eq!(ledger_of(&metadata), ledger);
        for other in [
            "",
            "1",
            "2 a 3 00fe 12",
            "1 a 3 zz 12",
            "1 a 3 00fe 12 more",
        ] {
            assert_eq!(Token::from_metadata(other), None, "{other}");
        }
    }
}
