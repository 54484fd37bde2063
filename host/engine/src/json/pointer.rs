//! JSON pointers (RFC 6901): `/country`, `/address/city`, `/tags/0`; the empty one is the whole value.

use std::fmt;

/// Parts of a pointer, at most. Deeper values can be had, but nobody asks for them by hand.
pub const TOKENS_MAX: usize = 32;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pointer {
    text: String,
    /// Unescaped.
    tokens: Vec<String>,
}

impl Pointer {
    /// The pointer, or what is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut tokens = Vec::new();
        if !text.is_empty() {
            let parts = text
                .strip_prefix('/')
                .ok_or("a JSON pointer begins with `/`")?;
            tokens = parts.split('/').map(unescaped).collect::<Result<_, _>>()?;
        }
        if tokens.len() > TOKENS_MAX {
            let found = tokens.len();
            return Err(format!(
                "a JSON pointer of {found} parts, {TOKENS_MAX} are allowed"
            ));
        }
        Ok(Self {
            text: text.to_owned(),
            tokens,
        })
    }

    pub fn tokens(&self) -> &[String] {
        &self.tokens
    }
}

/// As it was written.
impl fmt::Display for Pointer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.text)
    }
}

fn unescaped(token: &str) -> Result<String, String> {
    let mut rest = token.split('~');
    let mut plain = rest.next().unwrap_or_default().to_owned();
    for escaped in rest {
        let (sign, text) = match escaped.as_bytes().first() {
            Some(b'0') => ('~', &escaped[1..]),
            Some(b'1') => ('/', &escaped[1..]),
            _ => {
                return Err(
                    "in a JSON pointer, `~` stands before `0` (for `~`) or `1` (for `/`) only"
                        .into(),
                );
            }
        };
        plain.push(sign);
        plain.push_str(text);
    }
    Ok(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pointers_are_split_and_unescaped() {
        let check = |text: &str, expected: &[&str]| {
            assert_eq!(Pointer::parse(text).unwrap().tokens(), expected, "{text}");
        };
        check("", &[]);
        check("/", &[""]);
        check("/a//b", &["a", "", "b"]);
        check("/a~1b/m~0n/~01", &["a/b", "m~n", "~1"]);
        for (text, said) in [
            ("a", "begins with"),
            ("/~", "`~` stands"),
            ("/~2", "`~` stands"),
        ] {
            assert!(Pointer::parse(text).unwrap_err().contains(said), "{text}");
        }
        assert!(Pointer::parse(&"/a".repeat(33)).is_err());
    }
}
