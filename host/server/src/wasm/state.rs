//! The contract's `state` for one instance.
//!
//! Invariant: what a call puts goes into the overlay of the open epoch, and is undone there, by the engine, where the call fails.

use wasmtime::Error;
use wasmtime::component::Resource;

use super::bindings::millstream::plugin::state;
use super::grants::Wanted;
use super::instance::{State, argument};

impl state::Host for State {
    fn open(&mut self, name: String) -> Result<Resource<state::Store>, String> {
        let map = self.grants.named(Wanted::State, &name).ok_or_else(|| {
            format!(
                "the pipeline file gives step \"{}\" no state \"{name}\"",
                self.log.step()
            )
        })?;
        Ok(Resource::new_own(map))
    }
}

impl state::HostStore for State {
    fn get(
        &mut self,
        store: Resource<state::Store>,
        keys: state::Column,
    ) -> wasmtime::Result<state::Column> {
        let keys = argument(keys, "keys to get")?;
        let (bytes, ends, nulls) = self.grants.state(store.rep(), &keys)?.into_parts();
        Ok(state::Column { bytes, ends, nulls })
    }

    fn put(
        &mut self,
        store: Resource<state::Store>,
        keys: state::Column,
        values: state::Column,
    ) -> wasmtime::Result<()> {
        let keys = argument(keys, "keys to put")?;
        let values = argument(values, "values to put")?;
        if keys.len() != values.len() {
            let (keys, values) = (keys.len(), values.len());
            let words = format!("{keys} keys were put into state, but {values} values");
            return Err(Error::msg(words));
        }
        self.grants.change(store.rep(), &keys, &values)
    }

    fn drop(&mut self, _: Resource<state::Store>) -> wasmtime::Result<()> {
        Ok(())
    }
}
