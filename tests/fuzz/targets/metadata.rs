//! What stands in the metadata of committed offsets, which anybody may have written: tokens and the ledger of changelogs. What is read
//! is read again from what it is written as, and what we write fits what brokers take.

#![no_main]

use libfuzzer_sys::fuzz_target;
use millstream_engine::commit::ledger::Ledger;
use millstream_engine::commit::token::{Token, ledger_of};

/// `offset.metadata.max.bytes`, as brokers have it.
const METADATA_BYTES_MAX: usize = 4096;

/// Of an instance's name.
const NAME_MAX: usize = 100;

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let ledger = ledger_of(text);
    match Token::from_metadata(text) {
        None => assert!(ledger.is_empty()),
        Some(token) => check(&token, &ledger),
    }
    if let Some(ledger) = Ledger::from_text(text) {
        assert_eq!(Ledger::from_text(&ledger.to_text()), Some(ledger));
    }
    let names = || text.split(' ');
    let noted = Ledger::new(names().zip(names().skip(1)));
    let same = Ledger::new(names().zip(names().skip(1)));
    assert!(noted.made_anew(&same, names()).is_empty());
    let other = noted.made_anew(&ledger, names());
    assert!(other.iter().all(|name| names().any(|known| known == *name)));
    let fine = |sign: &char| sign.is_ascii_alphanumeric() || matches!(sign, '.' | '-' | '_');
    let token = Token {
        instance: text.chars().filter(fine).take(NAME_MAX).collect(),
        worker: u32::MAX,
        run: data.len() as u64,
        number: u64::MAX,
    };
    check(&token, &noted);
    assert!(token.to_metadata(&noted).len() <= METADATA_BYTES_MAX);
});

fn check(token: &Token, ledger: &Ledger) {
    let written = token.to_metadata(ledger);
    assert_eq!(Token::from_metadata(&written).as_ref(), Some(token));
    assert_eq!(ledger_of(&written), *ledger, "{written}");
}
