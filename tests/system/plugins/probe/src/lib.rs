//! What plugins do by mistake, on demand: a record's value says what becomes of it.
//!
//! `fail`, `trap`, `loop` and `grow` fail in four ways; `drop` drops, `twice` doubles, `odd` and `even` leave by those ports,
//! `null-key` loses its key, `big N` gets a value of N bytes, `many N` comes out N times, `log N` is logged N times, `hold N` takes N bytes and
//! never gives them back, `tally` gets how many of its kind this instance has seen, `look KEY` gets what the lookup has under that key, or `nothing`;
//! `state …` does what `keeping` says; everything else passes unchanged.

mod keeping;

use millstream_plugin::batch::{Batch, BatchTransform, Needs, Outcome};
use millstream_plugin::{
    Lookup, Outputs, PerRecord, Record, Result, Transform, config, log, lookup, plugin,
};
use serde::Deserialize;

use keeping::Keeping;

plugin!(batch: Probe);

/// The records one by one, behind what is done to a batch as a whole.
struct Probe {
    keeping: Option<Keeping>,
    records: PerRecord<Records>,
}

struct Records {
    lookup: Option<Lookup>,
    keeping: Option<Keeping>,
    /// What has to last should not be kept like this.
    tally: u64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    /// Asked for as a lookup.
    lookup: Option<String>,
    /// Asked for as state, and one more map of it.
    state: Option<String>,
    other: Option<String>,
    /// Trap in the configuration itself.
    #[serde(default)]
    trap: bool,
}

impl Config {
    fn keeping(&self) -> Option<Keeping> {
        let state = self.state.as_deref()?;
        Some(Keeping::new(state, self.other.as_deref()))
    }
}

impl BatchTransform for Probe {
    fn configure(config: &str) -> Result<(Self, Needs)> {
        let (records, needs) = PerRecord::configure(config)?;
        let keeping = config::parse::<Config>(config)?.keeping();
        Ok((Self { keeping, records }, needs))
    }

    fn process(&mut self, batch: Batch) -> Result<Outcome> {
        if let Some(keeping) = &self.keeping {
            let values = batch.values.iter().flatten().map(text);
            let mut words = values.filter_map(|value| value.strip_prefix("state "));
            words.try_for_each(|words| keeping.break_batch(words))?;
        }
        self.records.process(batch)
    }
}

impl Transform for Records {
    type Config = Config;

    fn new(config: Config) -> Result<Self> {
        assert!(!config.trap, "asked to trap");
        Ok(Self {
            lookup: config.lookup.as_deref().map(lookup),
            keeping: config.keeping(),
            tally: 0,
        })
    }

    fn needs(&self) -> Needs {
        Needs::none().port("odd").port("even")
    }

    fn process(&mut self, record: Record<'_>, out: &mut Outputs<'_>) -> Result<()> {
        let value = record.value().map_or("", text);
        match value {
            "fail" => return Err("asked to fail".into()),
            "trap" => panic!("asked to trap"),
            "loop" => loop {
                std::hint::black_box(value);
            },
            "grow" => {
                let mut all = Vec::new();
                loop {
                    all.push(std::hint::black_box(vec![1_u8; 1 << 20]));
                }
            }
            "drop" => {}
            "twice" => {
                out.keep();
                out.keep();
            }
            "odd" | "even" => out.port(value).keep(),
            "tally" => {
                self.tally += 1;
                out.emit().json(&self.tally)?;
            }
            "null-key" => {
                out.emit().null_key();
            }
            other => return self.with_argument(other, out),
        }
        Ok(())
    }
}

impl Records {
    fn with_argument(&self, value: &str, out: &mut Outputs<'_>) -> Result<()> {
        match value.split_once(' ') {
            Some(("big", bytes)) => {
                out.emit().value(vec![b'x'; bytes.parse()?]);
            }
            Some(("many", times)) => (0..times.parse()?).for_each(|_: u32| out.keep()),
            Some(("log", lines)) => {
                (0..lines.parse()?).for_each(|_: u32| log::info(value));
                out.keep();
            }
            Some(("hold", bytes)) => {
                std::hint::black_box(vec![1_u8; bytes.parse()?].leak());
                out.keep();
            }
            Some(("look", key)) => {
                let lookup = self.lookup.as_ref().ok_or("there is no lookup")?;
                match lookup.get(key)? {
                    Some(found) => out.emit().value(found),
                    None => out.emit().value("nothing"),
                };
            }
            Some(("state", words)) => {
                let keeping = self.keeping.as_ref().ok_or("there is no state")?;
                keeping.process(words, out)?;
            }
            _ => out.keep(),
        }
        Ok(())
    }
}

fn text(bytes: &[u8]) -> &str {
    str::from_utf8(bytes).unwrap_or("")
}
