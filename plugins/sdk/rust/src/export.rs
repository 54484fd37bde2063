//! What the code written by [`plugin!`](crate::plugin) calls. Not for use by hand.

use std::cell::RefCell;

use crate::batch::{Batch, BatchTransform, Description, Needs, Outcome};
use crate::output::reason;
use crate::{Result, step};

/// The one configured plugin of a component's instance.
pub type Slot<T> = RefCell<Option<T>>;

pub fn describe<T: BatchTransform>(name: &str, version: &str) -> Description {
    Description {
        name: name.to_owned(),
        version: version.to_owned(),
        config_schema: T::CONFIG_SCHEMA.map(str::to_owned),
    }
}

pub fn configure<T: BatchTransform>(slot: &Slot<T>, config: &str) -> Result<Needs, String> {
    #[cfg(target_family = "wasm")]
    std::panic::set_hook(Box::new(|panic| crate::log::error(panic)));
    let (plugin, needs) = configured::<T>(config)?;
    slot.replace(Some(plugin));
    Ok(needs)
}

/// A plugin with its needs, the tables and state among them that it asked for while it was configured.
pub(crate) fn configured<T: BatchTransform>(config: &str) -> Result<(T, Needs), String> {
    step::take_asked();
    let (plugin, mut needs) = T::configure(config).map_err(|error| reason(&*error))?;
    let asked = step::take_asked();
    add(&mut needs.lookups, asked.lookups);
    add(&mut needs.state, asked.state);
    Ok((plugin, needs))
}

/// Adds the names that are missing.
fn add(names: &mut Vec<String>, asked: Vec<String>) {
    for name in asked {
        if !names.contains(&name) {
            names.push(name);
        }
    }
}

pub fn process<T: BatchTransform>(slot: &Slot<T>, batch: Batch) -> Result<Outcome, String> {
    let mut slot = slot.borrow_mut();
    let plugin = slot
        .as_mut()
        .ok_or("`process` was called before `configure`")?;
    plugin.process(batch).map_err(|error| reason(&*error))
}
