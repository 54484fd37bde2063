//! Kafka, as far as exactly-once leans on it: logs with transactions in them, a transaction coordinator, and a group with its offsets.
//!
//! It is the Kafka that librdkafka meets: without KIP-890, a request that ends a transaction ends whatever is open under its producer
//! epoch when it arrives. Epochs have no number: a request under an earlier epoch than the present one is refused whenever it comes,
//! so what is in flight vanishes once the epoch is raised, and of a producer only whether its epoch is over is known.
//!
//! Invariant: a seat has one transaction at most that isn't over, and in the logs only that one's records are marked as the seat's.

use std::hash::{Hash, Hasher};

pub const SEATS: [usize; 2] = [0, 1];
pub const PARTITIONS: [usize; 2] = [0, 1];

/// How many records a partition has at most.
pub const RECORDS_MAX: u8 = 2;

/// More than a log ever holds while nothing is violated: each record committed, and open in both seats.
const LOG_MAX: usize = 3 * RECORDS_MAX as usize + 2;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Kafka {
    pub producers: [Producer; 2],
    /// What sinks wrote, by the input's partition.
    pub outputs: [Log; 2],
    /// The changelogs, by partition.
    pub changes: [Log; 2],
    pub offsets: [Offset; 2],
    pub group: Group,
}

/// What the transaction coordinator knows of a seat's `transactional.id`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Producer {
    pub transaction: Transaction,
    /// The epoch was raised, and the seat's worker doesn't have it.
    pub fenced: bool,
    /// Requests to commit in flight, under the present epoch. They arrive in their own time, or never.
    pub ends: u8,
    /// A request to add offsets in flight, in which these stand: another copy of it was answered. It too may arrive late, or never.
    pub late: Option<[Option<u8>; 2]>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Transaction {
    None,
    Open,
    /// Decided; its markers are not everywhere yet.
    Committing,
    Aborting,
}

/// Where a transaction's markers land, each in its own time, as far as somebody in this world can tell: nobody reads outputs, so theirs
/// are there at once, and nobody reads an aborted record, so changes vanish at once when their transaction is aborted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    Changes(usize),
    Offsets,
}

/// Records in the order of a log, aborted ones left out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Log {
    entries: [Entry; LOG_MAX],
    length: u8,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Entry {
    /// The offset of the record that it comes from.
    pub record: u8,
    /// Whose transaction it belongs to, until that one's marker stands behind it. None: committed.
    pub seat: Option<u8>,
}

/// The group's committed offset of a partition.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Offset {
    pub at: u8,
    /// The seat whose token stands there, if it is the token of that seat's latest transaction in its present life: no other token
    /// is ever looked for.
    pub token: Option<u8>,
    /// By seat, what a transaction has added whose marker isn't here yet.
    pub pending: [Option<u8>; 2],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Group {
    /// Seats that the group counts in. A dead one is, until its session is over.
    pub members: [bool; 2],
    /// A new generation is being made: it is complete once all members have joined it.
    pub rebalancing: bool,
    /// Of the present generation, by partition.
    pub owners: [Option<u8>; 2],
}

/// The empty places behind the last record are left out: there are many, and they are all alike.
impl Hash for Log {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        self.entries().hash(hasher);
    }
}

impl Log {
    pub fn entries(&self) -> &[Entry] {
        &self.entries[..usize::from(self.length)]
    }

    fn append(&mut self, record: u8, seat: usize) {
        let seat = Some(index(seat));
        self.entries[usize::from(self.length)] = Entry { record, seat };
        self.length += 1;
    }

    /// Whether the seat's transaction has records here without a marker behind them.
    pub fn has(&self, seat: usize) -> bool {
        let seat = Some(index(seat));
        self.entries().iter().any(|entry| entry.seat == seat)
    }

    fn keep(&mut self, seat: usize) {
        let seat = Some(index(seat));
        let length = usize::from(self.length);
        let own = self.entries[..length].iter_mut();
        own.filter(|entry| entry.seat == seat)
            .for_each(|entry| entry.seat = None);
    }

    fn drop(&mut self, seat: usize) {
        let seat = Some(index(seat));
        let before = std::mem::take(self);
        let others = before.entries().iter().filter(|entry| entry.seat != seat);
        for (place, entry) in self.entries.iter_mut().zip(others) {
            *place = *entry;
            self.length += 1;
        }
    }

    fn swap_seats(&mut self) {
        let length = usize::from(self.length);
        for entry in &mut self.entries[..length] {
            entry.seat = entry.seat.map(other);
        }
    }
}

impl Kafka {
    /// Nothing written, and the first seat alone in the group, owning both partitions.
    pub fn new() -> Self {
        let producer = Producer {
            transaction: Transaction::None,
            fenced: false,
            ends: 0,
            late: None,
        };
        Self {
            producers: [producer; 2],
            outputs: [Log::default(); 2],
            changes: [Log::default(); 2],
            offsets: [Offset::default(); 2],
            group: Group {
                members: [true, false],
                rebalancing: false,
                owners: [Some(0); 2],
            },
        }
    }

    /// Whether what a seat's worker writes is taken in: not from a fenced one, and not while an earlier transaction's end is under way.
    pub fn accepts(&self, seat: usize) -> bool {
        let producer = &self.producers[seat];
        let free = matches!(producer.transaction, Transaction::None | Transaction::Open);
        free && !producer.fenced
    }

    /// A transaction of a seat begins: the token of the one before is nobody's any more.
    pub fn forget_token(&mut self, seat: usize) {
        for offset in &mut self.offsets {
            offset.token = offset.token.filter(|&token| token != index(seat));
        }
    }

    pub fn write_output(&mut self, seat: usize, partition: usize, record: u8) {
        self.producers[seat].transaction = Transaction::Open;
        self.outputs[partition].append(record, seat);
    }

    pub fn write_change(&mut self, seat: usize, partition: usize, record: u8) {
        self.producers[seat].transaction = Transaction::Open;
        self.changes[partition].append(record, seat);
    }

    pub fn add_offset(&mut self, seat: usize, partition: usize, at: u8) {
        self.producers[seat].transaction = Transaction::Open;
        self.offsets[partition].pending[seat] = Some(at);
    }

    /// The late copy of a request to add offsets arrives. It is taken in where a transaction is open, whichever.
    pub fn add_late(&mut self, seat: usize) {
        let offsets = self.producers[seat].late.take();
        let late = offsets.filter(|_| self.producers[seat].transaction == Transaction::Open);
        for (partition, at) in late.into_iter().flatten().enumerate() {
            if let Some(at) = at {
                self.add_offset(seat, partition, at);
            }
        }
    }

    /// A request to commit arrives, and is answered with success: it decides the transaction that is open, or finds one committed.
    pub fn end(&mut self, seat: usize) {
        self.producers[seat].ends -= 1;
        if self.producers[seat].transaction == Transaction::Open {
            self.producers[seat].transaction = Transaction::Committing;
            self.outputs.iter_mut().for_each(|log| log.keep(seat));
            self.conclude(seat);
        }
    }

    /// Decides that the open transaction is aborted, and raises the epoch.
    pub fn abort(&mut self, seat: usize) {
        self.producers[seat].transaction = Transaction::Aborting;
        let logs = self.outputs.iter_mut().chain(&mut self.changes);
        logs.for_each(|log| log.drop(seat));
        self.raise_epoch(seat);
        self.conclude(seat);
    }

    /// Fences the seat's worker; what is in flight is refused from now on.
    pub fn raise_epoch(&mut self, seat: usize) {
        self.producers[seat].fenced = true;
        self.producers[seat].ends = 0;
        self.producers[seat].late = None;
    }

    /// Whether a marker of the seat's transaction is missing at a place, decided or not.
    pub fn lacks_marker(&self, seat: usize, place: Place) -> bool {
        match place {
            Place::Changes(partition) => self.changes[partition].has(seat),
            Place::Offsets => {
                let mut offsets = self.offsets.iter();
                offsets.any(|offset| offset.pending[seat].is_some())
            }
        }
    }

    /// A marker of a decided transaction lands. The last one concludes it.
    pub fn land(&mut self, seat: usize, place: Place) {
        let committed = self.producers[seat].transaction == Transaction::Committing;
        match place {
            Place::Changes(partition) => self.changes[partition].keep(seat),
            Place::Offsets => {
                for offset in &mut self.offsets {
                    if let Some(at) = offset.pending[seat].take().filter(|_| committed) {
                        offset.at = at;
                        offset.token = Some(index(seat));
                    }
                }
            }
        }
        self.conclude(seat);
    }

    fn conclude(&mut self, seat: usize) {
        if !Place::ALL
            .iter()
            .any(|&place| self.lacks_marker(seat, place))
        {
            self.producers[seat].transaction = Transaction::None;
        }
    }

    /// Whether an entry took effect: its transaction's commit is decided, whether or not the marker has landed.
    pub fn is_decided(&self, entry: &Entry) -> bool {
        entry.seat.is_none_or(|seat| {
            self.producers[usize::from(seat)].transaction == Transaction::Committing
        })
    }

    /// The offset up to which a partition's records took effect, whether or not the marker has landed.
    pub fn decided_offset(&self, partition: usize) -> u8 {
        let offset = &self.offsets[partition];
        let pending = SEATS.into_iter().find_map(|seat| {
            let committing = self.producers[seat].transaction == Transaction::Committing;
            offset.pending[seat].filter(|_| committing)
        });
        pending.unwrap_or(offset.at)
    }

    /// The same world with the seats' names exchanged.
    pub fn swap_seats(&mut self) {
        self.producers.swap(0, 1);
        for log in self.outputs.iter_mut().chain(&mut self.changes) {
            log.swap_seats();
        }
        for offset in &mut self.offsets {
            offset.token = offset.token.map(other);
            offset.pending.swap(0, 1);
        }
        self.group.members.swap(0, 1);
        for owner in &mut self.group.owners {
            *owner = owner.map(other);
        }
    }
}

impl Default for Kafka {
    fn default() -> Self {
        Self::new()
    }
}

impl Place {
    pub const ALL: [Self; 3] = [Self::Changes(0), Self::Changes(1), Self::Offsets];
}

/// A seat as it is kept in a world: small, as there are many.
pub fn index(seat: usize) -> u8 {
    u8::try_from(seat).expect("there are two seats")
}

fn other(seat: u8) -> u8 {
    1 - seat
}
