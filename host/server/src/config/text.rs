//! The text of a pipeline file: lines, where each key stands, and what the TOML parser says of it.
//!
//! Outlives the document, so that what is found out later (a missing topic, a plugin that needs a table) can still be
//! reported at its line.

use std::collections::BTreeMap;
use std::ops::{Range, RangeInclusive};
use std::path::Path;
use std::sync::Arc;

use toml::Spanned;
use toml::de::{DeTable, DeValue, Error};

use super::problem::Problem;

/// The parser's word for a key that is there already.
const DUPLICATE: &str = "duplicate key";

/// Positions in one pipeline file. Holds no values of it, hence no secrets.
#[derive(Clone, Debug)]
pub struct SourceText {
    file: Arc<Path>,
    /// Byte offset of the start of each line.
    lines: Vec<usize>,
    /// Byte offset of each key, by its dotted form; elements of arrays as `topics[0]`.
    keys: BTreeMap<String, usize>,
}

impl SourceText {
    /// Reads the positions of all that the parser recovered.
    pub(super) fn new(file: &Path, text: &str, document: &DeTable<'_>) -> Self {
        let lines = std::iter::once(0)
            .chain(
                text.bytes()
                    .enumerate()
                    .filter(|(_, b)| *b == b'\n')
                    .map(|(at, _)| at + 1),
            )
            .collect();
        let mut keys = BTreeMap::new();
        index_table("", document, &mut keys);
        Self {
            file: file.into(),
            lines,
            keys,
        }
    }

    /// The line of a byte offset, counted from 1.
    pub fn line(&self, offset: usize) -> usize {
        self.lines.partition_point(|start| *start <= offset)
    }

    /// The line of a dotted key, or of the nearest table around it that is in the file; 1 if none is.
    pub fn line_of(&self, key: &str) -> usize {
        let mut key = key;
        loop {
            if let Some(offset) = self.keys.get(key) {
                return self.line(*offset);
            }
            match key.rfind(['.', '[']) {
                Some(end) => key = &key[..end],
                None => return 1,
            }
        }
    }

    /// A problem at a dotted key, which may be missing from the file.
    pub fn problem(&self, key: &str, message: impl Into<String>) -> Problem {
        Problem {
            file: self.file.clone(),
            line: Some(self.line_of(key)),
            key: key.to_owned(),
            message: message.into(),
            hint: None,
        }
    }

    pub(super) fn problem_at(
        &self,
        offset: usize,
        key: &str,
        message: impl Into<String>,
    ) -> Problem {
        Problem {
            file: self.file.clone(),
            line: Some(self.line(offset)),
            key: key.to_owned(),
            message: message.into(),
            hint: None,
        }
    }

    /// The recovered key that stands last on the line of `offset`, at or before it.
    fn key_before(&self, offset: usize) -> &str {
        let line = self.line(offset);
        let start = self.lines[line - 1];
        self.keys
            .iter()
            .filter(|(_, at)| (start..=offset).contains(*at))
            .max_by_key(|(_, at)| **at)
            .map_or("", |(key, _)| key)
    }
}

/// A dotted key, quoted where TOML would want quotes.
pub(super) fn dotted(parent: &str, key: &str) -> String {
    let bare = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    let key = match !key.is_empty() && key.chars().all(bare) {
        true => key.to_owned(),
        false => format!("{key:?}"),
    };
    if parent.is_empty() {
        key
    } else {
        format!("{parent}.{key}")
    }
}

fn index_table(parent: &str, table: &DeTable<'_>, keys: &mut BTreeMap<String, usize>) {
    for (key, value) in table {
        let path = dotted(parent, key.get_ref());
        keys.insert(path.clone(), key.span().start);
        index_value(path, value.get_ref(), keys);
    }
}

fn index_value(path: String, value: &DeValue<'_>, keys: &mut BTreeMap<String, usize>) {
    match value {
        DeValue::Table(table) => index_table(&path, table, keys),
        DeValue::Array(array) => {
            for (index, element) in array.iter().enumerate() {
                let path = format!("{path}[{index}]");
                keys.insert(path.clone(), element.span().start);
                index_value(path, element.get_ref(), keys);
            }
        }
        _ => {}
    }
}

/// What the parser says of a file.
pub(super) struct Syntax {
    /// One a line.
    pub problems: Vec<Problem>,
    /// Lines of which the document says nothing dependable.
    pub broken: Vec<RangeInclusive<usize>>,
    /// Some of the file may be missing from the document.
    pub damaged: bool,
}

impl Syntax {
    pub fn new(source: &SourceText, text: &str, document: &DeTable<'_>, errors: &[Error]) -> Self {
        let damaged = errors.iter().any(|error| error.message() != DUPLICATE);
        let mut syntax = Self {
            problems: Vec::new(),
            broken: Vec::new(),
            damaged,
        };
        if let Some((start, end)) = unclosed(text, document, errors) {
            let missing = if text[start..].starts_with('{') {
                '}'
            } else {
                ']'
            };
            let message = format!("is not closed: `{missing}` is missing");
            let lines = source.line(start)..=source.line(end);
            let key = source.key_before(start);
            syntax.add(source.problem_at(start, key, message), lines);
        }
        let mut repeated_table = None;
        for error in errors {
            let span = error.span().unwrap_or(0..0);
            let line = source.line(span.start);
            if syntax.broken.iter().any(|lines| lines.contains(&line)) {
                continue;
            }
            let problem = if error.message() == DUPLICATE {
                let header = header_line(source, text, line);
                // The keys of a repeated table are told by its header.
                if header.is_some() && header == repeated_table {
                    continue;
                }
                repeated_table = header.filter(|header| *header == line).or(repeated_table);
                duplicate(source, text, header, &span)
            } else {
                source.problem_at(span.start, source.key_before(span.start), error.message())
            };
            syntax.add(problem, line..=line);
        }
        syntax
    }

    fn add(&mut self, problem: Problem, lines: RangeInclusive<usize>) {
        self.problems.push(problem);
        self.broken.push(lines);
    }
}

/// The text with the lines blanked at which the parser would give up the rest of the file; `None` if there are none.
pub(super) fn without_stops(text: &str, errors: &[Error]) -> Option<String> {
    let stops = errors
        .iter()
        .filter(|error| error.message().starts_with("key with no value"));
    let mut mended: Option<String> = None;
    for stop in stops {
        let at = stop.span()?.start;
        let start = text[..at]
            .rfind('\n')
            .map_or(0, |line_break| line_break + 1);
        // A header without its first bracket: what is under it belongs to no other table.
        let line = text[start..].lines().next().unwrap_or_default();
        let until = if line.trim_end().ends_with(']') {
            "\n["
        } else {
            "\n"
        };
        let end = text[at..]
            .find(until)
            .map_or(text.len(), |length| at + length);
        let mended = mended.get_or_insert_with(|| text.to_owned());
        let blank = text[start..end]
            .bytes()
            .map(|b| if b == b'\n' { '\n' } else { ' ' });
        mended.replace_range(start..end, &blank.collect::<String>());
    }
    mended
}

fn duplicate(
    source: &SourceText,
    text: &str,
    header: Option<usize>,
    span: &Range<usize>,
) -> Problem {
    let line = source.line(span.start);
    let word = text.get(span.clone()).unwrap_or_default();
    let section = header.and_then(|line| header_key(line_text(source, text, line)));
    let (key, first) = match (section, header == Some(line)) {
        (Some(section), true) => {
            let first = (1..line)
                .find(|at| header_key(line_text(source, text, *at)).as_ref() == Some(&section));
            (section, first)
        }
        (section, _) => {
            let before_value = line_text(source, text, line)
                .split('=')
                .next()
                .unwrap_or_default();
            let key: String = before_value.split_whitespace().collect();
            let key = section.map_or(key.clone(), |section| format!("{section}.{key}"));
            let first = source.keys.get(&key).map(|offset| source.line(*offset));
            (key, first)
        }
    };
    let problem = source.problem_at(span.start, &key, format!("duplicate key \"{word}\""));
    match first.filter(|first| *first != line) {
        Some(first) => problem.with_hint(format!("it is on line {first} already")),
        None => problem,
    }
}

fn line_text<'t>(source: &SourceText, text: &'t str, line: usize) -> &'t str {
    let start = source.lines[line - 1];
    let end = source.lines.get(line).copied().unwrap_or(text.len());
    &text[start..end]
}

/// The line of the table header above `line`, or `line` itself.
fn header_line(source: &SourceText, text: &str, line: usize) -> Option<usize> {
    (1..=line)
        .rev()
        .find(|line| line_text(source, text, *line).trim_start().starts_with('['))
}

/// `steps.parse` of `[ steps . parse ]`.
fn header_key(line: &str) -> Option<String> {
    let inside = line.trim_start().strip_prefix('[')?.split(']').next()?;
    Some(inside.split_whitespace().collect())
}

/// Start and end of an array or inline table that lacks its bracket: it swallowed the rest of the file, and what the parser
/// says of that rest means nothing.
fn unclosed(text: &str, document: &DeTable<'_>, errors: &[Error]) -> Option<(usize, usize)> {
    let at = |error: &Error| error.span().map(|span| span.start);
    let unclosed = ["unclosed array", "unclosed inline table"];
    let end = errors
        .iter()
        .filter(|error| {
            unclosed
                .iter()
                .any(|start| error.message().starts_with(start))
        })
        .filter_map(at)
        .max()?;
    let mut layout = Layout {
        text,
        header: 0,
        containers: Vec::new(),
    };
    layout.table(document);
    // No header is seen after it. An array reaches to the end; a table the document breaks off at the first oddity.
    let odd = |container: &Range<usize>| {
        container.end >= end
            || errors
                .iter()
                .filter_map(at)
                .any(|at| container.contains(&at))
    };
    let last = layout
        .containers
        .into_iter()
        .filter(|container| container.start > layout.header);
    let start = last.filter(odd).map(|container| container.start).min()?;
    Some((start, end))
}

/// Where a document has its last header, and its arrays and inline tables that are in no other.
struct Layout<'t> {
    text: &'t str,
    header: usize,
    containers: Vec<Range<usize>>,
}

impl Layout<'_> {
    fn table(&mut self, table: &DeTable<'_>) {
        for (_, value) in table {
            self.value(value);
        }
    }

    fn value(&mut self, value: &Spanned<DeValue<'_>>) {
        let start = value.span().start;
        let opens = |bracket| {
            self.text
                .get(start..)
                .is_some_and(|t| t.starts_with(bracket))
        };
        let before = self
            .text
            .get(..start)
            .and_then(|text| text.rsplit('\n').next());
        let header = opens('[') && before.is_some_and(|before| before.trim().is_empty());
        if header {
            self.header = self.header.max(start);
        }
        match value.get_ref() {
            DeValue::Array(tables) if header => tables.iter().for_each(|table| self.value(table)),
            DeValue::Array(_) if opens('[') => self.containers.push(value.span()),
            DeValue::Table(_) if opens('{') => self.containers.push(value.span()),
            DeValue::Table(table) => self.table(table),
            _ => {}
        }
    }
}
