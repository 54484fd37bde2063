//! What an instance takes of the machine's memory, over all its memories and tables together, held to what it may take.

use wasmtime::ResourceLimiter;

use crate::plugin_limits::PluginLimits;

/// Elements of all tables; large Go and Python components have some ten thousand.
const TABLE_ELEMENTS_MAX: usize = 1_000_000;

#[derive(Debug)]
pub struct Limits {
    allowed: PluginLimits,
    memory: usize,
    elements: usize,
    refused: bool,
}

impl Limits {
    pub fn new(allowed: PluginLimits) -> Self {
        Self {
            allowed,
            memory: 0,
            elements: 0,
            refused: false,
        }
    }

    pub fn allowed(&self) -> &PluginLimits {
        &self.allowed
    }

    /// Bytes that the memories have.
    pub fn memory(&self) -> usize {
        self.memory
    }

    /// Whether memory was refused since this was asked last. The plugin may have lived with it.
    pub fn take_refused(&mut self) -> bool {
        std::mem::take(&mut self.refused)
    }
}

impl ResourceLimiter for Limits {
    fn memory_growing(
        &mut self,
        current: usize,
        desired: usize,
        _: Option<usize>,
    ) -> wasmtime::Result<bool> {
        let fits = grow(&mut self.memory, desired - current, self.allowed.memory);
        self.refused |= !fits;
        Ok(fits)
    }

    fn table_growing(
        &mut self,
        current: usize,
        desired: usize,
        _: Option<usize>,
    ) -> wasmtime::Result<bool> {
        Ok(grow(
            &mut self.elements,
            desired - current,
            TABLE_ELEMENTS_MAX,
        ))
    }

    fn instances(&self) -> usize {
        self.allowed.instances
    }

    fn tables(&self) -> usize {
        self.allowed.instances
    }

    fn memories(&self) -> usize {
        self.allowed.instances
    }
}

/// Whether there is room for so much more; if so it is taken.
fn grow(taken: &mut usize, more: usize, most: usize) -> bool {
    let fits = more <= most - *taken;
    if fits {
        *taken += more;
    }
    fits
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memories_count_together() {
        const MOST: usize = 64 << 20;
        let mut limits = Limits::new(PluginLimits {
            memory: MOST,
            ..PluginLimits::default()
        });
        let mut grow = |from, to| {
            let grown = limits.memory_growing(from, to, None);
            (grown.expect("it never fails"), limits.take_refused())
        };
        assert_eq!(grow(0, MOST / 2), (true, false));
        assert_eq!(grow(0, MOST / 4), (true, false));
        assert_eq!(grow(MOST / 2, MOST), (false, true));
        assert_eq!(grow(MOST / 2, MOST / 4 * 3), (true, false));
        assert_eq!(grow(0, 1), (false, true));
    }
}
