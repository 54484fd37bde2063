//! The plugin that every SDK has in its language: it does what the first word of a record's value says, as `plugins/sdk/vectors/README.md` has
//! it.

#![deny(unsafe_code)]

use millstream_plugin::{
    Lookup, Needs, Outputs, Record, Result, State, Transform, lookup, plugin, state,
};
use serde::Deserialize;
use serde_json::{Map, Value};

plugin!(Vectors);

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    greeting: String,
}

#[derive(Debug)]
pub struct Vectors {
    config: Config,
    words: Lookup,
    totals: State,
}

impl Transform for Vectors {
    type Config = Config;

    fn new(config: Config) -> Result<Self> {
        Ok(Self {
            config,
            words: lookup("words"),
            totals: state("totals"),
        })
    }

    fn needs(&self) -> Needs {
        Needs::none().port("other").headers()
    }

    fn process(&mut self, record: Record<'_>, out: &mut Outputs<'_>) -> Result<()> {
        let text = record.text()?;
        let (word, rest) = text.split_once(' ').unwrap_or((text, ""));
        match word {
            "keep" => out.keep(),
            "drop" => {}
            "key" => drop(out.emit().key(rest)),
            "value" => drop(out.emit().value(rest)),
            "greet" => drop(out.emit().value(&self.config.greeting)),
            "time" => drop(out.emit().timestamp(rest.parse()?)),
            "timeless" => drop(out.emit().timestamp(-1)),
            "nulls" => drop(out.emit().null_key().null_value()),
            "empties" => drop(out.emit().key("").value("")),
            "upper" => drop(out.emit().value(rest.to_uppercase())),
            "long" => drop(out.emit().value("x".repeat(rest.parse()?))),
            "many" => {
                for number in 0..rest.parse::<u32>()? {
                    out.emit().value(number.to_string());
                }
            }
            "port" => out.port(rest).keep(),
            "both" => {
                out.port("other").keep();
                out.keep();
            }
            "header" => {
                let emitted = out.emit().clear_headers();
                match record.header(rest) {
                    Some(value) => emitted.header("seen", value),
                    None => emitted.null_header("seen"),
                };
            }
            "json" => {
                let mut object: Map<String, Value> = serde_json::from_str(rest)?;
                let number = object["n"].as_i64().ok_or("`n` is no number")?;
                object.insert("n".into(), (number + 1).into());
                out.emit().json(&object)?;
            }
            "fail" => {
                out.keep();
                return Err(rest.into());
            }
            "crash" => {
                let last = rest.split(' ').nth(7).ok_or("there is no eighth word")?;
                out.emit().value(last);
            }
            "count" | "count-and-fail" | "forget" => return self.count(word, record, out),
            "look" => match self.words.get(rest)? {
                Some(found) => drop(out.emit().value(found)),
                None => drop(out.emit().null_value()),
            },
            "follow" => {
                let mut at = rest.as_bytes().to_vec();
                while let Some(found) = self.words.get(&at)? {
                    at = found.to_vec();
                }
                out.emit().value(at);
            }
            _ => return Err(format!("no such word: {word:?}").into()),
        }
        Ok(())
    }
}

impl Vectors {
    fn count(&self, word: &str, record: Record<'_>, out: &mut Outputs<'_>) -> Result<()> {
        let key = record.key().ok_or("there is no key to count by")?;
        if word == "forget" {
            self.totals.remove(key)?;
            out.keep();
            return Ok(());
        }
        let before: u64 = match self.totals.get(key)? {
            Some(found) => found.json()?,
            None => 0,
        };
        self.totals.put_json(key, &(before + 1))?;
        out.emit().json(&(before + 1))?;
        if word == "count-and-fail" {
            return Err("counted in vain".into());
        }
        Ok(())
    }
}
