//! Problems of a pipeline file: what is wrong, where, and what would be right. Nothing here stops at the first one.
//!
//! A problem never holds a secret: messages quote keys and plain values only.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::text::{SourceText, Syntax};

/// One thing that is wrong in a pipeline file, or worth a warning.
///
/// Displays as `pipeline.toml:12: steps.parse.plugin: no plugin is named "user"; did you mean "users"?`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The pipeline file, as it was named to `load`.
    pub file: Arc<Path>,
    /// Counted from 1; `None` where the problem is the file itself.
    pub line: Option<usize>,
    /// Dotted key, `steps.parse.inputs[0]`; empty where there is none.
    pub key: String,
    /// What is wrong; follows the key in print.
    pub message: String,
    /// What to do about it, where that is known.
    pub hint: Option<String>,
}

impl Problem {
    /// The same problem with advice.
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}:", self.file.display())?;
        if let Some(line) = self.line {
            write!(formatter, "{line}:")?;
        }
        if !self.key.is_empty() {
            write!(formatter, " {}:", InALine(&self.key))?;
        }
        write!(formatter, " {}", InALine(&self.message))?;
        match &self.hint {
            Some(hint) => write!(formatter, "; {}", InALine(hint)),
            None => Ok(()),
        }
    }
}

/// Words with some of the file's in them, where a key may hold anything: control characters are told and not passed on, so that no line
/// of ours is forged.
struct InALine<'a>(&'a str);

impl fmt::Display for InALine<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = self.0;
        while let Some(at) = rest.find(char::is_control) {
            let (plain, control) = rest.split_at(at);
            let mut characters = control.chars();
            let first = characters.by_ref().take(1).flat_map(char::escape_debug);
            write!(formatter, "{plain}{}", first.collect::<String>())?;
            rest = characters.as_str();
        }
        formatter.write_str(rest)
    }
}

impl std::error::Error for Problem {}

/// Everything that is wrong with one pipeline file, by line. Never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problems {
    /// The pipeline file, as it was named to `load`.
    pub file: PathBuf,
    pub list: Vec<Problem>,
}

impl Problems {
    /// Sorts by line; problems of one line stay in the order in which they were found.
    pub(super) fn new(file: &Path, mut list: Vec<Problem>) -> Self {
        list.sort_by_key(|problem| problem.line);
        Self {
            file: file.to_path_buf(),
            list,
        }
    }
}

impl Problems {
    /// What was found by others than this module; `None` where that is nothing.
    pub fn from_list(list: Vec<Problem>) -> Option<Self> {
        let file = list.first()?.file.to_path_buf();
        Some(Self::new(&file, list))
    }
}

impl From<Problem> for Problems {
    fn from(problem: Problem) -> Self {
        Self {
            file: problem.file.to_path_buf(),
            list: vec![problem],
        }
    }
}

/// One problem a line, without a line break at the end.
impl fmt::Display for Problems {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.list.iter().enumerate() {
            if index > 0 {
                writeln!(formatter)?;
            }
            problem.fmt(formatter)?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}

/// Where something stands in the pipeline file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// Dotted key.
    pub key: String,
    /// Byte offset of the key, or of the value for an element of an array.
    pub offset: usize,
}

/// A value and where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Placed<T> {
    pub value: T,
    pub place: Place,
}

/// Collects what the reading of one file finds.
pub(super) struct Findings<'t> {
    text: &'t SourceText,
    syntax: Syntax,
    /// Part of the file could not be read: that something is missing says nothing.
    damaged: bool,
    found: Vec<Problem>,
}

impl<'t> Findings<'t> {
    pub fn new(text: &'t SourceText, syntax: Syntax) -> Self {
        let damaged = syntax.damaged;
        Self {
            text,
            syntax,
            damaged,
            found: Vec::new(),
        }
    }

    pub fn problem(&mut self, place: &Place, message: impl Into<String>) {
        self.found
            .push(self.text.problem_at(place.offset, &place.key, message));
    }

    pub fn problem_with_hint(
        &mut self,
        place: &Place,
        message: impl Into<String>,
        hint: Option<String>,
    ) {
        let mut problem = self.text.problem_at(place.offset, &place.key, message);
        problem.hint = hint;
        self.found.push(problem);
    }

    /// A problem that something is not there. Kept back when part of the file could not be read: it may well stand there.
    pub fn absent(&mut self, place: &Place, message: impl Into<String>, hint: Option<String>) {
        if !self.damaged {
            self.problem_with_hint(place, message, hint);
        }
    }

    /// From here on, that something is missing says nothing: it may stand in a place that has no shape.
    pub fn hide_absences(&mut self) {
        self.damaged = true;
    }

    pub fn line(&self, place: &Place) -> usize {
        self.text.line(place.offset)
    }

    /// `None` when nothing was found. A line that is not TOML speaks for itself: what was made of it is left out.
    pub fn into_problems(self, file: &Path) -> Option<Problems> {
        let Syntax {
            mut problems,
            broken,
            ..
        } = self.syntax;
        let told = |line: usize| broken.iter().any(|lines| lines.contains(&line));
        problems.extend(
            self.found
                .into_iter()
                .filter(|found| !found.line.is_some_and(told)),
        );
        if problems.is_empty() {
            None
        } else {
            Some(Problems::new(file, problems))
        }
    }
}

/// Advice naming the known word nearest to `word`, if one is near.
pub(super) fn did_you_mean<'a>(
    word: &str,
    known: impl IntoIterator<Item = &'a str>,
) -> Option<String> {
    nearest(word, known).map(|near| format!("did you mean {near:?}?"))
}

/// The known word nearest to `word`, if it differs in a third of its characters at most, or in one.
pub(super) fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let limit = (word.chars().count() / 3).max(1);
    let known = known.into_iter().map(|name| (distance(word, name), name));
    known
        .min_by_key(|(distance, _)| *distance)
        .filter(|(d, _)| *d <= limit)
        .map(|(_, name)| name)
}

/// How many characters to insert, delete, replace or swap with their neighbour to come from one word to the other.
fn distance(from: &str, to: &str) -> usize {
    let from: Vec<char> = from.chars().collect();
    let to: Vec<char> = to.chars().collect();
    let mut before: Vec<usize> = Vec::new();
    let mut above: Vec<usize> = (0..=to.len()).collect();
    for i in 0..from.len() {
        let mut row = vec![i + 1];
        for j in 0..to.len() {
            let replaced = above[j] + usize::from(from[i] != to[j]);
            let mut cost = replaced.min(above[j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && from[i] == to[j - 1] && from[i - 1] == to[j] {
                cost = cost.min(before[j - 1] + 1);
            }
            row.push(cost);
        }
        before = std::mem::replace(&mut above, row);
    }
    above[to.len()]
}
