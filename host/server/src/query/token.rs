//! The token that whoever changes something by HTTP has to have.
//!
//! Never shows it, nor by its time how much of a guess was right. What is kept is its digest.

use std::fmt;
use std::hint::black_box;

use axum::http::header::AUTHORIZATION;
use axum::http::{HeaderMap, StatusCode};
use sha2::{Digest as _, Sha256};

use super::Refusal;

/// A shorter one might be guessed.
const CHARACTERS_MIN: usize = 16;
const CHARACTERS_MAX: usize = 1024;

#[derive(Clone, Copy)]
pub struct Token([u8; 32]);

impl Token {
    /// # Errors
    ///
    /// Why it is none that a request could bring, or that would keep anybody out.
    pub fn new(text: &str) -> Result<Self, String> {
        let length = text.len();
        if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err("the token has other characters than letters, digits and signs of ASCII; `openssl rand -hex 32` makes one".into());
        }
        if !(CHARACTERS_MIN..=CHARACTERS_MAX).contains(&length) {
            return Err(format!(
                "the token has {length} characters; it needs {CHARACTERS_MIN} to {CHARACTERS_MAX}, and `openssl rand -hex 32` makes one"
            ));
        }
        Ok(Self(Sha256::digest(text).into()))
    }

    /// Refuses a request that doesn't have it.
    pub fn check(&self, headers: &HeaderMap) -> Result<(), Refusal> {
        let refused = |why: &str| Refusal::new(StatusCode::UNAUTHORIZED, why);
        let mut all = headers.get_all(AUTHORIZATION).iter();
        let (Some(header), None) = (all.next(), all.next()) else {
            return Err(refused(
                "this needs the admin token, once, as `authorization: Bearer TOKEN`",
            ));
        };
        let brought = bearer(header.as_bytes());
        let brought = brought.ok_or_else(|| refused("`authorization` is not `Bearer TOKEN`"))?;
        match self.is(brought) {
            true => Ok(()),
            false => Err(refused("this is not the admin token")),
        }
    }

    /// Takes as long, however much of it is right: digests are compared, and all of them.
    fn is(&self, brought: &[u8]) -> bool {
        let brought: [u8; 32] = Sha256::digest(brought).into();
        let pairs = self.0.iter().zip(brought);
        let differences = pairs.fold(0, |found, (own, other)| black_box(found | (own ^ other)));
        differences == 0
    }
}

/// What follows the scheme, whose case doesn't matter.
fn bearer(header: &[u8]) -> Option<&[u8]> {
    const SCHEME: &[u8] = b"bearer ";
    let (scheme, token) = header.split_at_checked(SCHEME.len())?;
    scheme.eq_ignore_ascii_case(SCHEME).then_some(token)
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "0123456789abcdef";

    #[test]
    fn tokens_that_keep_nobody_out_are_none() {
        let check = |text: &str, expected: &str| {
            let why = Token::new(text).expect_err("it is no token");
            assert!(why.contains(expected), "{why}");
        };
        check("", "has 0 characters; it needs 16 to 1024");
        check("0123456789abcde", "has 15 characters");
        check(&"a".repeat(1025), "has 1025 characters");
        check("0123456789 abcdef", "other characters");
        check("0123456789abcdé f", "other characters");
        assert!(Token::new(TEXT).is_ok());
    }

    #[test]
    fn only_the_token_is_let_in() {
        let token = Token::new(TEXT).expect("it is one");
        let check = |headers: &[&str], expected: Option<&str>| {
            let mut all = HeaderMap::new();
            for header in headers {
                all.append(AUTHORIZATION, header.parse().expect("a header"));
            }
            let refusal = token.check(&all).err();
            if let Some(refusal) = &refusal {
                assert_eq!(refusal.status, StatusCode::UNAUTHORIZED);
            }
            let why = refusal.map(|refusal| refusal.error).unwrap_or_default();
            assert!(
                why.contains(expected.unwrap_or_default()) && why.is_empty() == expected.is_none(),
                "{headers:?}: {why:?}"
            );
        };
        check(&["Bearer 0123456789abcdef"], None);
        check(&["bearer 0123456789abcdef"], None);
        let needs = Some("this needs the admin token");
        check(&[], needs);
        check(&["Bearer 0123456789abcdef", "Bearer x"], needs);
        let not_it = Some("this is not the admin token");
        for wrong in [
            "",
            "0123456789abcdee",
            "0123456789abcde",
            "0123456789abcdef ",
        ] {
            check(&[&format!("Bearer {wrong}")], not_it);
        }
        check(&["Bearer"], Some("is not `Bearer TOKEN`"));
        check(&["Basic 0123456789abcdef"], Some("is not `Bearer TOKEN`"));
        assert_eq!(format!("{token:?}"), "Token(…)");
    }
}
