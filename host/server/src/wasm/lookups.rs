//! The contract's `lookups` for one instance.

use wasmtime::component::Resource;

use super::bindings::millstream::plugin::lookups;
use super::grants::Wanted;
use super::instance::{State, argument};

impl lookups::Host for State {
    fn open(&mut self, name: String) -> Result<Resource<lookups::Lookup>, String> {
        let map = self.grants.named(Wanted::Lookup, &name).ok_or_else(|| {
            format!(
                "the pipeline file grants step \"{}\" no table \"{name}\"",
                self.log.step()
            )
        })?;
        Ok(Resource::new_own(map))
    }
}

impl lookups::HostLookup for State {
    fn get(
        &mut self,
        lookup: Resource<lookups::Lookup>,
        keys: lookups::Column,
    ) -> wasmtime::Result<lookups::Column> {
        let keys = argument(keys, "keys to look up")?;
        // The number is the one that open() put there: a guest has handles only, and wasmtime checks them.
        let (bytes, ends, nulls) = self.grants.look_up(lookup.rep(), &keys)?.into_parts();
        Ok(lookups::Column { bytes, ends, nulls })
    }

    fn drop(&mut self, _: Resource<lookups::Lookup>) -> wasmtime::Result<()> {
        Ok(())
    }
}
