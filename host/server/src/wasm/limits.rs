//! What an instance may take of the machine's memory, over all its memories and tables together.

use wasmtime::ResourceLimiter;

/// Bytes of all memories.
pub const MEMORY_MAX: usize = 256 << 20;

/// Elements of all tables; large Go and Python components have some ten thousand.
const TABLE_ELEMENTS_MAX: usize = 1_000_000;

/// Core instances, memories and tables that a component may consist of.
const PARTS_MAX: usize = 200;

#[derive(Debug, Default)]
pub struct Limits {
    memory: usize,
    elements: usize,
}

impl Limits {
    /// Bytes that the memories have.
    pub fn memory(&self) -> usize {
        self.memory
    }
}

impl ResourceLimiter for Limits {
    fn memory_growing(
        &mut self,
        current: usize,
        desired: usize,
        _: Option<usize>,
    ) -> wasmtime::Result<bool> {
        Ok(grow(&mut self.memory, desired - current, MEMORY_MAX))
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
        PARTS_MAX
    }

    fn tables(&self) -> usize {
        PARTS_MAX
    }

    fn memories(&self) -> usize {
        PARTS_MAX
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
        let mut limits = Limits::default();
        let mut grow = |from, to| {
            limits
                .memory_growing(from, to, None)
                .expect("it never fails")
        };
        assert!(grow(0, MEMORY_MAX / 2));
        assert!(grow(0, MEMORY_MAX / 4));
        assert!(!grow(MEMORY_MAX / 2, MEMORY_MAX));
        assert!(grow(MEMORY_MAX / 2, MEMORY_MAX / 4 * 3));
        assert!(!grow(0, 1));
    }
}
