//! The entries of a map partition, each in a slot: a small number that it keeps for as long as it is there.
//!
//! Invariant: one allocation an entry, holding key and value; beside it a slot takes 16 bytes. Slots that became free are taken
//! again first, and slots never move: growing copies nothing.

/// Where the key begins in an entry's bytes: behind its length, little-endian.
const KEY: usize = 4;

/// Slots in a chunk.
const CHUNK: usize = 1024;

/// More than this many entries are refused; an index needs the last bit for itself.
pub const SLOTS_MAX: u32 = 1 << 31;

#[derive(Debug, Default)]
pub struct Entries {
    /// All but the last one full. An empty string is a free slot: an entry has a length at least.
    chunks: Vec<Vec<Box<[u8]>>>,
    free: Vec<u32>,
    /// Slots that ever were in use.
    end: u32,
    /// Of all keys and values.
    bytes: usize,
    /// Of all entries, as the allocator rounds them.
    allocated: usize,
}

impl Entries {
    /// One past the last slot that may be in use.
    pub fn end(&self) -> u32 {
        self.end
    }

    /// Key and value; none in a free slot.
    pub fn get(&self, slot: u32) -> Option<(&[u8], &[u8])> {
        let slot = slot as usize;
        let entry = self.chunks.get(slot / CHUNK)?.get(slot % CHUNK)?;
        (!entry.is_empty()).then(|| split(entry))
    }

    /// The key in a slot that is known to be in use.
    pub fn key(&self, slot: u32) -> &[u8] {
        self.get(slot).expect("the table knows slots in use only").0
    }

    /// Adds an entry. There must be a slot left: see [`Entries::is_full`].
    pub fn insert(&mut self, key: &[u8], value: &[u8]) -> u32 {
        let entry = join(key, value);
        self.bytes += key.len() + value.len();
        self.allocated += allocated(entry.len());
        if let Some(slot) = self.free.pop() {
            *self.place(slot) = entry;
            return slot;
        }
        let slot = self.end;
        self.end += 1;
        match self.chunks.last_mut() {
            Some(last) if last.len() < CHUNK => last.push(entry),
            _ => self.chunks.push(vec![entry]),
        }
        slot
    }

    /// Gives the entry in a slot in use another value.
    pub fn replace(&mut self, slot: u32, value: &[u8]) {
        let entry = self.place(slot);
        let (before, (key, old)) = (entry.len(), split(entry));
        let at = KEY + key.len();
        let old = old.len();
        if old == value.len() {
            entry[at..].copy_from_slice(value);
            return;
        }
        *entry = join(&entry[KEY..at], value);
        let after = entry.len();
        self.bytes = self.bytes + value.len() - old;
        self.allocated = self.allocated + allocated(after) - allocated(before);
    }

    /// Frees a slot in use.
    pub fn remove(&mut self, slot: u32) {
        let entry = std::mem::take(self.place(slot));
        self.bytes -= entry.len() - KEY;
        self.allocated -= allocated(entry.len());
        self.free.push(slot);
    }

    fn place(&mut self, slot: u32) -> &mut Box<[u8]> {
        let slot = slot as usize;
        &mut self.chunks[slot / CHUNK][slot % CHUNK]
    }

    /// Whether no slot is left.
    pub fn is_full(&self) -> bool {
        self.free.is_empty() && self.end == SLOTS_MAX
    }

    /// Bytes of all keys and values.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// What all of this takes in memory.
    pub fn footprint(&self) -> usize {
        let chunks =
            self.chunks.len() * (CHUNK * size_of::<Box<[u8]>>() + size_of::<Vec<Box<[u8]>>>());
        self.allocated + chunks + self.free.capacity() * size_of::<u32>()
    }

    /// What another entry takes at most, or one more of another length.
    pub fn footprint_of(key: &[u8], value: &[u8]) -> usize {
        Self::bytes_of(key, value) + CHUNK * size_of::<Box<[u8]>>()
    }

    /// What key and value take, without the slot.
    pub fn bytes_of(key: &[u8], value: &[u8]) -> usize {
        allocated(KEY + key.len() + value.len())
    }

    /// What so many more slots take at most.
    pub fn footprint_of_slots(slots: usize) -> usize {
        (slots / CHUNK + 2) * CHUNK * size_of::<Box<[u8]>>()
    }
}

/// What an allocation of so many bytes takes: allocators have four sizes to each doubling, and 16 bytes at least.
pub fn allocated(bytes: usize) -> usize {
    let step = (bytes.next_power_of_two() / 8).max(16);
    bytes.next_multiple_of(step)
}

fn join(key: &[u8], value: &[u8]) -> Box<[u8]> {
    let length = u32::try_from(key.len())
        .expect("Kafka's records, and so their keys, are shorter than 2 GiB");
    let mut entry = Vec::with_capacity(KEY + key.len() + value.len());
    entry.extend_from_slice(&length.to_le_bytes());
    entry.extend_from_slice(key);
    entry.extend_from_slice(value);
    entry.into_boxed_slice()
}

fn split(entry: &[u8]) -> (&[u8], &[u8]) {
    let (length, rest) = entry
        .split_first_chunk::<KEY>()
        .expect("join() put a length first");
    rest.split_at(u32::from_le_bytes(*length) as usize)
}
