//! Which pipeline runs on a stage: that of an example, or those of two in one. What it reads and writes, and what the judge is asked of it.

use crate::pipelines::{
    ADULTS, COUNTRIES, EVENTS, MAP, MIN_AGE, NAME, ORDERS_LETTERS, USERS_LETTERS, both,
    count_by_country, materialize_users,
};
use crate::stage::{events, number};

const ORDERS_NAME: &str = "count-by-country";
const ORDERS: &str = "orders";
const TOTALS: &str = "country-totals";
const TOTALS_MAP: &str = "totals";
const STREAM: &str = "by-country";
/// Of orders: enough that a map of them isn't restored in no time.
const ORDER_COUNTRIES: u64 = 20_000;
const CUSTOMERS: &str = "5000";
/// Of a thousand records.
const MALFORMED: &str = "10";

/// How many keys the state of example 02 comes to.
fn keys() -> u64 {
    number("MILLSTREAM_CHAOS_KEYS", ORDER_COUNTRIES)
}

/// A topic that is read, and what becomes of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Half {
    /// Of example 01: events, with a lookup, to a topic and a map.
    Users,
    /// Of example 02: orders through a keyed stream and a state to a topic.
    Orders,
}

impl Half {
    pub fn input(self) -> &'static str {
        match self {
            Self::Users => EVENTS,
            Self::Orders => ORDERS,
        }
    }

    pub fn output(self) -> &'static str {
        match self {
            Self::Users => ADULTS,
            Self::Orders => TOTALS,
        }
    }

    /// Where what is malformed is set aside by both in one pipeline.
    fn letters(self) -> &'static str {
        match self {
            Self::Users => USERS_LETTERS,
            Self::Orders => ORDERS_LETTERS,
        }
    }

    /// What the judge calls its records, and the step that reads them.
    fn malformed(self) -> [&'static str; 2] {
        match self {
            Self::Users => ["events", "parse"],
            Self::Orders => ["orders", "order"],
        }
    }

    fn map(self) -> &'static str {
        match self {
            Self::Users => MAP,
            Self::Orders => TOTALS_MAP,
        }
    }

    /// The judge's arguments to write so many records from this number on.
    pub fn generation(self, broker: &str, from: u64, count: u64) -> Vec<String> {
        let (count, from) = (count.to_string(), from.to_string());
        let ids = (events() / 5).max(1).to_string();
        let countries = keys().to_string();
        let words = match self {
            Self::Users => vec!["generate", broker, EVENTS, &count, &ids, MALFORMED],
            Self::Orders => {
                vec![
                    "orders", broker, ORDERS, &count, CUSTOMERS, MALFORMED, &countries,
                ]
            }
        };
        let words = words.into_iter().chain(["--from", &from]);
        words.map(str::to_owned).collect()
    }
}

/// Which pipeline runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Example {
    /// 01.
    Users,
    /// 02.
    Orders,
    /// Both in one pipeline: each transaction has records of a topic, a keyed stream, a state and a sink's map.
    Both,
}

impl Example {
    pub fn halves(self) -> &'static [Half] {
        match self {
            Self::Users => &[Half::Users],
            Self::Orders => &[Half::Orders],
            Self::Both => &[Half::Users, Half::Orders],
        }
    }

    pub fn has(self, half: Half) -> bool {
        self.halves().contains(&half)
    }

    /// So many records are there before anything starts, where more come all the while: enough that the state has most of its keys.
    pub fn first(self) -> u64 {
        let most_keys = if keys() == ORDER_COUNTRIES {
            0
        } else {
            2 * keys()
        };
        most_keys.max(events() / 10)
    }

    /// The pipeline's name.
    pub fn group(self) -> &'static str {
        match self {
            Self::Users => NAME,
            Self::Orders => ORDERS_NAME,
            Self::Both => "both",
        }
    }

    fn changelog(self, half: Half) -> String {
        format!("{}.{}.changelog", self.group(), half.map())
    }

    /// What the pipeline writes to, and has to be there.
    pub fn outputs(self) -> Vec<&'static str> {
        let halves = self.halves().iter();
        let outputs = halves.clone().map(|half| half.output());
        let letters = halves.filter(|_| self.sets_aside());
        outputs.chain(letters.map(|half| half.letters())).collect()
    }

    /// The others leave malformed records out.
    fn sets_aside(self) -> bool {
        self == Self::Both
    }

    /// What the pipeline writes for others, and to keep.
    pub fn written(self) -> Vec<String> {
        let changelogs = self.halves().iter().map(|half| self.changelog(*half));
        let outputs = self.outputs().into_iter().map(str::to_owned);
        outputs.chain(changelogs).collect()
    }

    /// What it writes for itself, if it does.
    pub fn stream(self) -> Option<String> {
        let has_one = self.has(Half::Orders);
        has_one.then(|| format!("{}.{STREAM}.stream", self.group()))
    }

    pub fn pipeline(self, bootstrap: &str, interval: &str, standby: u32) -> String {
        let pipeline = match self {
            Self::Users => materialize_users(bootstrap, interval),
            Self::Orders => count_by_country(bootstrap, interval),
            Self::Both => both(self.group(), bootstrap, interval),
        };
        format!("standby = {standby}\n{pipeline}")
    }

    /// What the judge is asked, with these instances' addresses.
    pub fn questions(self, broker: &str, urls: &str, partitions: u32) -> Vec<Vec<String>> {
        let partitions = partitions.to_string();
        let table = ["--countries", COUNTRIES];
        let mut questions = Vec::new();
        for half in self.halves() {
            let (input, output) = (half.input(), half.output());
            let (group, map) = (self.group(), half.map());
            let changelog = self.changelog(*half);
            let http = ["--http", urls, "--pipeline", group, "--map", map];
            match half {
                Half::Users => {
                    let adults = ["adults", broker, input, output, MIN_AGE];
                    let kept = ["changelog", broker, input, &changelog, MIN_AGE, &partitions];
                    questions.push(words(&[&adults, &table]));
                    questions.push(words(&[&kept, &http, &table]));
                }
                Half::Orders => {
                    let counts = ["counts", broker, input, output, &changelog, &partitions];
                    questions.push(words(&[&counts, &http]));
                }
            }
            if self.sets_aside() {
                let letters = ["letters", broker, input, half.letters()];
                questions.push(words(&[&letters, &half.malformed()]));
            }
        }
        questions
    }
}

fn words(parts: &[&[&str]]) -> Vec<String> {
    parts.concat().into_iter().map(str::to_owned).collect()
}
