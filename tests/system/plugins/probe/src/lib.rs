//! What plugins do by mistake, on demand: a record's value says what becomes of it.
//!
//! `fail`, `trap`, `loop` and `grow` fail in four ways; `drop` drops, `twice` doubles, `odd` and `even` leave by those ports,
//! `null-key` loses its key, `big N` gets a value of N bytes, `look KEY` gets what the lookup has under that key, or `nothing`;
//! everything else passes unchanged.

use millstream_plugin::{Lookup, Outputs, Record, Result, Transform, batch::Needs, lookup, plugin};
use serde::Deserialize;

plugin!(Probe);

struct Probe {
    config: Config,
    lookup: Option<Lookup>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    /// Asked for as a lookup.
    lookup: Option<String>,
    /// Asked for as state.
    state: Option<String>,
    /// Trap in the configuration itself.
    #[serde(default)]
    trap: bool,
}

impl Transform for Probe {
    type Config = Config;

    fn new(config: Config) -> Result<Self> {
        assert!(!config.trap, "asked to trap");
        let lookup = config.lookup.as_deref().map(lookup);
        Ok(Self { config, lookup })
    }

    fn needs(&self) -> Needs {
        let mut needs = Needs::none().port("odd").port("even");
        needs.state.extend(self.config.state.clone());
        needs
    }

    fn process(&mut self, record: Record<'_>, out: &mut Outputs<'_>) -> Result<()> {
        let value = record
            .value()
            .and_then(|value| str::from_utf8(value).ok())
            .unwrap_or("");
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
            "null-key" => {
                out.emit().null_key();
            }
            other => match (other.strip_prefix("big "), other.strip_prefix("look ")) {
                (Some(bytes), _) => {
                    out.emit().value(vec![b'x'; bytes.parse()?]);
                }
                (None, Some(key)) => {
                    let lookup = self.lookup.as_ref().ok_or("there is no lookup")?;
                    match lookup.get(key)? {
                        Some(found) => out.emit().value(found),
                        None => out.emit().value("nothing"),
                    };
                }
                (None, None) => out.keep(),
            },
        }
        Ok(())
    }
}
