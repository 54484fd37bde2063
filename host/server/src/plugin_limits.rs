//! What a plugin may take, as the pipeline file says it, and the words for running into it. `config` reads it, `wasm` holds plugins to it,
//! `query` shows it.

use std::time::Duration;

/// What each instance of a plugin, or each of its calls, may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PluginLimits {
    /// Bytes of all memories of an instance.
    pub memory: usize,
    /// Bytes of them from which on an instance is replaced between two batches.
    pub memory_mark: usize,
    /// Of a call for a whole batch.
    pub time: Duration,
    /// Bytes that the host copies of an answer.
    pub output_bytes: usize,
    /// Records of an answer, those of all ports together.
    pub output_records: usize,
    /// In a second, of a step in a worker.
    pub log_lines: u32,
    /// Core instances that a component may consist of; as many memories, and tables.
    pub instances: usize,
}

impl Default for PluginLimits {
    fn default() -> Self {
        let memory = 256 << 20;
        Self {
            memory,
            memory_mark: Self::mark_of(memory),
            time: Duration::from_secs(2),
            output_bytes: 64 << 20,
            output_records: 1_000_000,
            log_lines: 100,
            instances: 200,
        }
    }
}

impl PluginLimits {
    /// The mark where the file has none: three quarters of the memory.
    pub fn mark_of(memory: usize) -> usize {
        memory / 4 * 3
    }
}

/// As the pipeline file writes it, in the largest unit that fits.
pub fn size(bytes: usize) -> String {
    let units = [(30, "GiB"), (20, "MiB"), (10, "KiB")];
    let whole = units
        .iter()
        .find(|(shift, _)| bytes.trailing_zeros() >= *shift && bytes > 0);
    match whole {
        Some((shift, unit)) => format!("{}{unit}", bytes >> shift),
        None => format!("{bytes} B"),
    }
}

/// What a plugin can run into while it runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    Memory,
    Time,
    OutputBytes,
    OutputRecords,
    LogLines,
}

impl Limit {
    pub const ALL: [Self; 5] = [
        Self::Memory,
        Self::Time,
        Self::OutputBytes,
        Self::OutputRecords,
        Self::LogLines,
    ];

    /// Its key in the pipeline file.
    pub fn key(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Time => "time",
            Self::OutputBytes => "output-bytes",
            Self::OutputRecords => "output-records",
            Self::LogLines => "log-lines",
        }
    }
}

/// How often each limit was run into.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Hits([u64; Limit::ALL.len()]);

impl Hits {
    pub fn count(&mut self, limit: Limit) {
        self.0[limit as usize] += 1;
    }

    pub fn of(&self, limit: Limit) -> u64 {
        self.0[limit as usize]
    }

    /// Of those that a call runs into; too many log lines fail nobody.
    pub fn of_calls(&self) -> u64 {
        let limits = Limit::ALL.into_iter();
        limits
            .filter(|limit| *limit != Limit::LogLines)
            .map(|limit| self.of(limit))
            .sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_written_as_they_are_read() {
        let written = [256 << 20, 3 << 19, 1 << 30, 1000, 0].map(size);
        assert_eq!(written, ["256MiB", "1536KiB", "1GiB", "1000 B", "0 B"]);
    }

    #[test]
    fn hits_are_counted_apart() {
        let mut hits = Hits::default();
        hits.count(Limit::LogLines);
        hits.count(Limit::Time);
        hits.count(Limit::Time);
        assert_eq!(Limit::ALL.map(|limit| hits.of(limit)), [0, 2, 0, 0, 1]);
    }
}
