//! The query of a listing: `where`, `prefix`, `limit`, `after` and `partition`; and that of an entry: `partition`.
//!
//! Names and values are decoded as forms are: `+` is a space, `%2B` a plus.

use millstream_engine::json::{Pointer, Scalar};
use millstream_engine::pipeline::MapId;
use millstream_engine::state::search::{CONDITIONS_MAX, Condition, Operator, Search};

use super::cursor::Cursor;
use super::{Refusal, path};

pub const LIMIT_DEFAULT: usize = 100;
pub const LIMIT_MAX: usize = 1000;

const OPERATORS: [(&str, Operator); 5] = [
    ("<=", Operator::LessOrEqual),
    (">=", Operator::GreaterOrEqual),
    ("<", Operator::Less),
    (">", Operator::Greater),
    ("=", Operator::Equal),
];

/// What is asked of a listing.
#[derive(Debug)]
pub struct Parameters {
    pub search: Search,
    pub limit: usize,
    pub after: Option<Cursor>,
    /// The only one that is asked for.
    pub partition: Option<u32>,
}

/// Reads the part of a URL behind `?`; the map has so many partitions.
pub fn read(query: &str, map: MapId, partitions: u32) -> Result<Parameters, Refusal> {
    let (mut conditions, mut prefix, mut limit, mut after) = (Vec::new(), None, None, None);
    let mut only = None;
    for part in query.split('&').filter(|part| !part.is_empty()) {
        let (name, value) = part.split_once('=').unwrap_or((part, ""));
        let (name, value) = (form(name)?, form(value)?);
        match name.as_slice() {
            b"where" => conditions.push(condition(&text("where", value)?)?),
            b"prefix" => once("prefix", &mut prefix, value)?,
            b"limit" => once("limit", &mut limit, self::limit(&text("limit", value)?)?)?,
            b"after" => once("after", &mut after, Cursor::read(&value, map)?)?,
            b"partition" => {
                let number = partition(&text("partition", value)?, partitions)?;
                once("partition", &mut only, number)?;
            }
            _ => {
                let name = String::from_utf8_lossy(&name);
                return Err(Refusal::bad(format!(
                    "no parameter is named \"{name}\"; there are where, prefix, limit, after and partition"
                )));
            }
        }
    }
    if conditions.len() > CONDITIONS_MAX {
        return Err(Refusal::bad(format!(
            "{CONDITIONS_MAX} `where` are allowed"
        )));
    }
    Ok(Parameters {
        search: Search::new(conditions, prefix.unwrap_or_default()),
        limit: limit.unwrap_or(LIMIT_DEFAULT),
        after,
        partition: only,
    })
}

/// Reads the part of a URL behind `?` of a single entry: the one partition that is asked, of so many.
pub fn of_entry(query: &str, partitions: u32) -> Result<Option<u32>, Refusal> {
    let mut only = None;
    for part in query.split('&').filter(|part| !part.is_empty()) {
        let (name, value) = part.split_once('=').unwrap_or((part, ""));
        let (name, value) = (form(name)?, form(value)?);
        if name != b"partition" {
            let name = String::from_utf8_lossy(&name);
            return Err(Refusal::bad(format!(
                "no parameter of an entry is named \"{name}\"; there is partition"
            )));
        }
        let number = partition(&text("partition", value)?, partitions)?;
        once("partition", &mut only, number)?;
    }
    Ok(only)
}

/// The same query for the rest of a page, to the instance that holds a partition.
pub fn for_partition(query: &str, limit: usize, partition: u32, after: Option<Cursor>) -> String {
    let is_kept = |part: &&str| {
        let name = part.split('=').next().unwrap_or_default();
        // What can't be decoded was refused when it was read.
        let name = form(name).unwrap_or_default();
        matches!(name.as_slice(), b"where" | b"prefix")
    };
    let mut parts: Vec<String> = query.split('&').filter(is_kept).map(String::from).collect();
    parts.push(format!("limit={limit}&partition={partition}"));
    parts.extend(after.map(|after| format!("after={}", after.write())));
    parts.join("&")
}

fn form(text: &str) -> Result<Vec<u8>, Refusal> {
    path::decoded(&text.replace('+', " "))
}

fn text(name: &str, value: Vec<u8>) -> Result<String, Refusal> {
    String::from_utf8(value).map_err(|_| Refusal::bad(format!("`{name}` is not UTF-8")))
}

fn once<T>(name: &str, place: &mut Option<T>, value: T) -> Result<(), Refusal> {
    match place.replace(value) {
        None => Ok(()),
        Some(_) => Err(Refusal::bad(format!("`{name}` is there twice"))),
    }
}

fn limit(text: &str) -> Result<usize, Refusal> {
    let limit = text
        .parse()
        .ok()
        .filter(|limit| (1..=LIMIT_MAX).contains(limit));
    limit.ok_or_else(|| {
        Refusal::bad(format!(
            "`limit` is a whole number from 1 to {LIMIT_MAX}, not {text:?}"
        ))
    })
}

fn partition(text: &str, partitions: u32) -> Result<u32, Refusal> {
    let number = text.parse().ok().filter(|number| *number < partitions);
    number.ok_or_else(|| {
        Refusal::bad(format!(
            "`partition` is a whole number below {partitions}, not {text:?}"
        ))
    })
}

/// `/country=DE`: a JSON pointer up to the first sign of an operator, the operator, and what to compare with.
fn condition(text: &str) -> Result<Condition, Refusal> {
    let known = "known are =, <, <=, > and >=";
    let refused = |why: String| Refusal::bad(format!("where={text}: {why}"));
    let Some(at) = text.find(['=', '<', '>']) else {
        return Err(refused(format!("has no operator; {known}")));
    };
    let (pointer, rest) = text.split_at(at);
    let signs = rest
        .find(|c| !matches!(c, '=' | '<' | '>'))
        .unwrap_or(rest.len());
    let written = match pointer.strip_suffix('!') {
        Some(_) => &text[at - 1..at + signs],
        None => &rest[..signs],
    };
    let Some((sign, operator)) = OPERATORS.into_iter().find(|(sign, _)| *sign == written) else {
        let quote = "; a string that begins with a sign of an operator is put in quotes";
        return Err(refused(format!(
            "`{written}` is no operator; {known}{quote}"
        )));
    };
    let condition = Condition {
        pointer: Pointer::parse(pointer).map_err(refused)?,
        operator,
        operand: Scalar::of_operand(&rest[signs..]),
    };
    if !condition.is_sensible() {
        let operand = &rest[signs..];
        return Err(refused(format!(
            "`{sign}` compares numbers and strings, not {operand}"
        )));
    }
    Ok(condition)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(query: &str, expected: &str) {
        let said = read(query, MapId(0), 4).map_or_else(|refusal| refusal.error, |_| String::new());
        assert_eq!(said, expected, "{query}");
    }

    #[test]
    fn what_is_wrong_is_said() {
        check("", "");
        check("where=/a%3DDE&where=%2Fb>=5&prefix=%ff&limit=1000&", "");
        check("where==5", "");
        check("where=/a=\"=\"", "");
        check(
            "where=/a",
            "where=/a: has no operator; known are =, <, <=, > and >=",
        );
        let quote = "known are =, <, <=, > and >=; a string that begins with a sign of an operator is put in quotes";
        check(
            "where=/a!=5",
            &format!("where=/a!=5: `!=` is no operator; {quote}"),
        );
        check(
            "where=/a==5",
            &format!("where=/a==5: `==` is no operator; {quote}"),
        );
        check(
            "where=/a<>5",
            &format!("where=/a<>5: `<>` is no operator; {quote}"),
        );
        check("where=a=5", "where=a=5: a JSON pointer begins with `/`");
        check(
            "where=/a<null",
            "where=/a<null: `<` compares numbers and strings, not null",
        );
        check("where=/a%3", "\"%3\" is not a percent-encoded byte");
        check("where=/%ff=5", "`where` is not UTF-8");
        check(
            "limit=0",
            "`limit` is a whole number from 1 to 1000, not \"0\"",
        );
        check(
            "limit=1001",
            "`limit` is a whole number from 1 to 1000, not \"1001\"",
        );
        check(
            "limit",
            "`limit` is a whole number from 1 to 1000, not \"\"",
        );
        check("limit=5&limit=5", "`limit` is there twice");
        check(
            "after=x",
            "the cursor is not one of this map; take it from `next` as it is",
        );
        check(
            "wher=/a=5",
            "no parameter is named \"wher\"; there are where, prefix, limit, after and partition",
        );
        check("partition=3", "");
        check(
            "partition=4",
            "`partition` is a whole number below 4, not \"4\"",
        );
        check(&"where=/a=5&".repeat(17), "16 `where` are allowed");
    }

    #[test]
    fn the_rest_is_asked_of_one_partition() {
        let check = |query, after, expected| {
            assert_eq!(for_partition(query, 7, 2, after), expected);
        };
        check("", None, "limit=7&partition=2");
        let query = "%77here=/a%3DDE&limit=50&prefix=%26&where=/b>=5&after=abc&partition=2";
        let kept = "%77here=/a%3DDE&prefix=%26&where=/b>=5&limit=7&partition=2";
        check(query, None, kept);
        let cursor = Cursor::begin(MapId(0), 2);
        let expected = format!("limit=7&partition=2&after={}", cursor.write());
        check("limit=1", Some(cursor), &expected);
    }

    #[test]
    fn conditions_are_read() {
        let check = |text: &str, pointer: &str, operator, operand: &str| {
            let found = condition(text).expect("a good condition");
            let expected = Scalar::of_operand(operand);
            assert_eq!(found.pointer.to_string(), pointer);
            assert_eq!((found.operator, found.operand), (operator, expected));
        };
        check("/country=DE", "/country", Operator::Equal, "DE");
        check("/a/b<=-1.5", "/a/b", Operator::LessOrEqual, "-1.5");
        check("/a>", "/a", Operator::Greater, "");
        check("/a=x=y<z", "/a", Operator::Equal, "x=y<z");
        check("=null", "", Operator::Equal, "null");
    }
}
