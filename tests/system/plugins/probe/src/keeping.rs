//! What plugins do to state, on demand.
//!
//! `state get KEY` gets what is under that key, or `nothing`; `state put KEY VALUE` and `state remove KEY` pass unchanged; `state
//! count KEY` adds one, and gets the sum; `state put-large KEY BYTES` puts a value of so many bytes; `state fail KEY VALUE` puts,
//! and then fails as a record; `state move KEY` takes what is there into the other map. These go by the SDK, which writes them when all records of the batch are done.
//!
//! `state trap-after-put KEY VALUE` and `state fail-after-put KEY VALUE` have put before the call traps, or fails as a whole; `state
//! put-null-key` puts a null key. These come before all records of the batch.

use millstream_plugin::batch::Column;
use millstream_plugin::bindings::millstream::plugin::state as host;
use millstream_plugin::{Outputs, Result, State, state};

pub struct Keeping {
    name: String,
    state: State,
    other: Option<State>,
}

impl Keeping {
    pub fn new(name: &str, other: Option<&str>) -> Self {
        Self {
            name: name.to_owned(),
            state: state(name),
            other: other.map(state),
        }
    }

    pub fn process(&self, words: &str, out: &mut Outputs<'_>) -> Result<()> {
        let words: Vec<&str> = words.split(' ').collect();
        match words[..] {
            ["get", key] => {
                match self.state.get(key)? {
                    Some(found) => out.emit().value(found),
                    None => out.emit().value("nothing"),
                };
                return Ok(());
            }
            ["count", key] => {
                let before: u64 = self.state.get(key)?.map_or(Ok(0), |found| found.json())?;
                self.state.put_json(key, &(before + 1))?;
                out.emit().json(&(before + 1))?;
                return Ok(());
            }
            ["put", key, value] => self.state.put(key, value)?,
            ["put-large", key, bytes] => self.state.put(key, vec![b'x'; bytes.parse()?])?,
            ["remove", key] => self.state.remove(key)?,
            ["move", key] => {
                let found = self.state.get(key)?.ok_or("there is nothing")?;
                let other = self.other.as_ref().ok_or("there is no other map")?;
                other.put(key, found)?;
                self.state.remove(key)?;
            }
            ["fail", key, value] => {
                self.state.put(key, value)?;
                return Err("asked to fail".into());
            }
            _ => return Err("state can't do this".into()),
        }
        out.keep();
        Ok(())
    }

    /// What fails the batch as a whole. Outside the SDK's own call for records, each put is a call into the host.
    pub fn break_batch(&self, words: &str) -> Result<()> {
        let words: Vec<&str> = words.split(' ').collect();
        match words[..] {
            ["trap-after-put", key, value] => {
                self.state.put(key, value)?;
                panic!("asked to trap");
            }
            ["fail-after-put", key, value] => {
                self.state.put(key, value)?;
                Err("asked to fail".into())
            }
            ["put-null-key"] => {
                let mut nulls = Column::with_capacity(1, 0);
                nulls.push(None);
                // The SDK refuses it by itself.
                host::open(&self.name)?.put(&nulls, &nulls);
                Ok(())
            }
            _ => Ok(()),
        }
    }
}
