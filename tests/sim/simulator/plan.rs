//! What a seed draws before anything runs: the pipeline's shape, who runs it, what comes in, and the schedule of faults. A plan can be
//! made smaller, which is how a violation is shrunk: faults are left out one by one, and input from its end.

use millstream_engine::pipeline::OnError;
use millstream_engine::state::changelog;

use super::dice::Dice;

/// Faults come within this time, in milliseconds; then all is healed.
pub const FAULTS_UNTIL: i64 = 900;

/// Of seeds that leave out what their step can't take, every so many write it to a topic: letters. Seeds that failed once are none of them.
const LETTERS_EVERY: u64 = 5;
const LETTERS_AT: u64 = 3;
/// Of the same, those whose plugins are replaced now and then. They are drawn apart: what other seeds come to stays as it is.
const RELOADS_AT: u64 = 4;
/// Of the same, those whose tables take a while to be read from.
const SLOW_TABLES_AT: u64 = 0;

/// Of all seeds, every so many have coordinators that move, and a network that repeats. Drawn apart too.
const MOVES_EVERY: u64 = 7;
const MOVES_AT: u64 = 4;
/// Of the same, those whose hosts have clocks that are set ahead and back.
const CLOCKS_AT: u64 = 5;

const HOUR: i64 = 3_600_000;

/// Virtual time at which a run begins: some day, in milliseconds since 1970.
pub const BEGIN: i64 = 1_700_000_000_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// Records go through a step, some of them, to a topic.
    Filter,
    /// Records change a map.
    Map,
    /// A step counts and sums by key, in its state.
    Count,
    /// The same behind a keyed stream.
    Stream,
    /// A step looks keys up in a table.
    Lookup,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Of requests, so many of a hundred never arrive.
    Lose {
        percent: u32,
        lasts: i64,
    },
    /// They arrive, and the answer doesn't.
    LoseReplies {
        percent: u32,
        lasts: i64,
    },
    /// They arrive long after whoever asked has given up waiting.
    Late {
        percent: u32,
        lasts: i64,
    },
    /// The same for requests to end a transaction only.
    LateEnds {
        percent: u32,
        lasts: i64,
    },
    /// Coordinators answer that they are none, or none yet, and none moves: what was on its way when that began is done.
    CoordinatorRefuses {
        lasts: i64,
    },
    /// Coordinators move: what was on its way to the old ones is refused too.
    CoordinatorMoves {
        lasts: i64,
    },
    /// Of requests to end a transaction, so many of a hundred are done twice in a row: something between repeats them.
    EndsTwice {
        percent: u32,
        lasts: i64,
    },
    /// SIGKILL; it starts again after a while, or only when all is healed.
    Kill {
        host: usize,
        down: Option<i64>,
    },
    Freeze {
        host: usize,
        lasts: i64,
    },
    CutOff {
        host: usize,
        lasts: i64,
    },
    /// Another process of the same name is started elsewhere.
    Twin {
        host: usize,
    },
    /// SIGTERM, and it starts again.
    Stop {
        host: usize,
        down: i64,
    },
    /// The same, leaving the group.
    Drain {
        host: usize,
        down: i64,
    },
    /// The broker is away for a while; what it had on disk stays.
    BrokerRestart {
        lasts: i64,
    },
    Compact,
    /// A day goes by between two compactions: what was removed before is forgotten.
    Age,
    /// The time of day that a host tells is set, to so many milliseconds before or after the brokers'. What is measured there, and not
    /// read off that clock, goes on as ever.
    Clock {
        host: usize,
        ahead: i64,
    },
    Markers {
        lasts: i64,
    },
    /// Plugins trap in calls on several records.
    Traps {
        percent: u32,
        lasts: i64,
    },
    SendFails {
        lasts: i64,
    },
    /// What stands on a host's disk is cut short, or a bit of it is turned.
    Tear {
        host: usize,
    },
    Flip {
        host: usize,
    },
    /// New plugins are put to trial; of one worker's, if any, nothing may ever be committed.
    Reload {
        host: usize,
        bad: Option<u32>,
    },
    /// The oldest snapshots of a host are put back in place of the newest.
    Revert {
        host: usize,
    },
}

/// Records that come in together.
#[derive(Clone, Debug)]
pub struct Incoming {
    pub at: i64,
    pub topic: &'static str,
    pub partition: u32,
    pub records: Vec<(String, Option<String>)>,
    pub transaction: Upstream,
}

/// How records were written by whoever writes the input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Upstream {
    Plain,
    Committed { open: i64 },
    Aborted { open: i64 },
}

#[derive(Clone, Debug)]
pub struct Plan {
    pub shape: Shape,
    pub on_error: OnError,
    pub partitions: u32,
    pub hosts: usize,
    /// Threads of each process.
    pub workers: u32,
    pub interval: i64,
    /// How many records of a partition a poll hands out at most.
    pub poll_max: usize,
    /// Tables that were taken bring nothing at first, while records come already.
    pub slow_tables: bool,
    /// In the order of time.
    pub incoming: Vec<Incoming>,
    /// In the order of time, counted from the begin.
    pub faults: Vec<(i64, Fault)>,
}

pub const EVENTS: &str = "events";
pub const TABLE: &str = "countries";
pub const KEYS: usize = 4;

/// Of an input value what a step looks at.
pub fn payload(value: &str) -> &str {
    value.rsplit(':').next().unwrap_or_default()
}

impl Plan {
    pub fn draw(seed: u64, dice: &mut Dice) -> Self {
        let shapes = [
            Shape::Filter,
            Shape::Map,
            Shape::Count,
            Shape::Stream,
            Shape::Lookup,
        ];
        let shape = dice.pick(&shapes);
        // A stream's records are in the log of another partition, behind others: who stops there stops them as well.
        let fails = shape != Shape::Stream && dice.chance(20);
        let on_error = match (fails, seed % LETTERS_EVERY) {
            (true, _) => OnError::Fail,
            (false, LETTERS_AT) => OnError::DeadLetter,
            (false, _) => OnError::Skip,
        };
        let mut plan = Self {
            shape,
            on_error,
            partitions: dice.pick(&[2, 2, 3, 4]),
            hosts: dice.pick(&[1, 2, 2, 3]),
            workers: dice.pick(&[1, 1, 1, 2]),
            interval: dice.between(15, 80),
            poll_max: dice.pick(&[1, 2, 4, 9]),
            slow_tables: shape == Shape::Lookup && seed % LETTERS_EVERY == SLOW_TABLES_AT,
            incoming: Vec::new(),
            faults: Vec::new(),
        };
        plan.draw_input(dice);
        plan.draw_faults(dice);
        if seed % LETTERS_EVERY == RELOADS_AT {
            plan.draw_reloads(&mut Dice::new(!seed));
        }
        if seed % MOVES_EVERY == MOVES_AT {
            plan.draw_moves(&mut Dice::new(!seed.rotate_left(32)));
        }
        if seed % MOVES_EVERY == CLOCKS_AT {
            plan.draw_clocks(&mut Dice::new(!seed.rotate_left(16)));
        }
        plan
    }

    fn draw_reloads(&mut self, dice: &mut Dice) {
        for _ in 0..dice.pick(&[1, 2, 4, 8]) {
            let at = dice.between(0, FAULTS_UNTIL);
            let host = dice.below(self.hosts);
            let worker = u32::try_from(dice.below(self.workers as usize));
            let worker = worker.expect("there are few workers");
            let bad = dice.chance(50).then_some(worker);
            self.faults.push((at, Fault::Reload { host, bad }));
        }
        self.faults.sort_by_key(|(at, _)| *at);
    }

    fn draw_moves(&mut self, dice: &mut Dice) {
        for _ in 0..dice.pick(&[1, 2, 4]) {
            let at = dice.between(0, FAULTS_UNTIL);
            let fault = if dice.chance(50) {
                Fault::CoordinatorMoves {
                    lasts: dice.pick(&[1, 30, 80]),
                }
            } else {
                Fault::EndsTwice {
                    percent: dice.pick(&[15, 60]),
                    lasts: dice.pick(&[80, 200, 500]),
                }
            };
            self.faults.push((at, fault));
        }
        self.faults.sort_by_key(|(at, _)| *at);
    }

    /// By no more than what the age of a snapshot leaves of a topic's retention, from one end to the other.
    fn draw_clocks(&mut self, dice: &mut Dice) {
        for _ in 0..dice.pick(&[1, 2, 4, 8]) {
            let at = dice.between(0, FAULTS_UNTIL);
            let host = dice.below(self.hosts);
            let ahead = HOUR * dice.pick(&[-2, -1, 0, 1, 2]);
            self.faults.push((at, Fault::Clock { host, ahead }));
        }
        self.faults.sort_by_key(|(at, _)| *at);
    }

    fn draw_input(&mut self, dice: &mut Dice) {
        let batches = dice.pick(&[4, 8, 12, 20]);
        for batch in 0..batches {
            let partition = u32::try_from(dice.below(self.partitions as usize));
            let partition = partition.expect("there are few partitions");
            let is_table = self.shape == Shape::Lookup && dice.chance(30);
            let records = (0..dice.pick(&[1, 1, 2, 3, 5])).map(|at| {
                let key = self.key(partition, dice.below(KEYS));
                let value = if is_table {
                    (!dice.chance(20)).then(|| format!("v{}", dice.below(1000)))
                } else {
                    let value = self.value(dice);
                    // Where it came from, for who finds it in the stream.
                    let mark = format!("{partition}:{}:", batch * 10 + at);
                    let is_stream = self.shape == Shape::Stream;
                    value.map(|value| if is_stream { mark + &value } else { value })
                };
                (key, value)
            });
            let records = records.collect();
            let open = dice.between(1, 12);
            let transaction = match dice.below(8) {
                0 => Upstream::Aborted { open },
                1..4 => Upstream::Committed { open },
                _ => Upstream::Plain,
            };
            self.incoming.push(Incoming {
                at: if is_table && dice.chance(50) {
                    0
                } else {
                    dice.between(0, FAULTS_UNTIL)
                },
                topic: if is_table { TABLE } else { EVENTS },
                partition,
                records,
                transaction,
            });
        }
        self.incoming.sort_by_key(|incoming| incoming.at);
    }

    fn value(&self, dice: &mut Dice) -> Option<String> {
        match dice.below(40) {
            0 => Some("refuse".into()),
            1 => Some("trap".into()),
            2..8 if self.shape == Shape::Map => None,
            _ => Some(dice.below(100).to_string()),
        }
    }

    /// The keys of a partition. Of a table those that belong there; of a map such as come from this partition only, so that which of
    /// two changes is the later one is known.
    fn key(&self, partition: u32, number: usize) -> String {
        match self.shape {
            Shape::Filter | Shape::Count | Shape::Stream => format!("k{number}"),
            Shape::Map => format!("k{partition}{number}"),
            Shape::Lookup => {
                let all = (0..).map(|number| format!("k{number}"));
                let here = |key: &String| {
                    changelog::partition(key.as_bytes(), self.partitions) == partition
                };
                let mut here = all.filter(here);
                here.nth(number).expect("keys don't end")
            }
        }
    }

    fn draw_faults(&mut self, dice: &mut Dice) {
        let count = dice.pick(&[0, 1, 2, 3, 4, 6, 9]);
        for _ in 0..count {
            let at = dice.between(0, FAULTS_UNTIL);
            let fault = self.draw_fault(dice);
            self.faults.push((at, fault));
        }
        self.faults.sort_by_key(|(at, _)| *at);
    }

    fn draw_fault(&self, dice: &mut Dice) -> Fault {
        let host = dice.below(self.hosts);
        let percent = dice.pick(&[5, 15, 30, 60]);
        let lasts = dice.pick(&[30, 80, 200, 500, 900]);
        let down = dice.between(1, 500);
        match dice.below(31) {
            0 => Fault::Lose { percent, lasts },
            1 | 2 => Fault::LoseReplies { percent, lasts },
            3 => Fault::Late { percent, lasts },
            4..7 => Fault::LateEnds { percent, lasts },
            7 => Fault::CoordinatorRefuses { lasts },
            8..12 => Fault::Kill {
                host,
                down: dice.chance(80).then_some(down),
            },
            12 | 13 => Fault::Freeze { host, lasts },
            14 | 15 => Fault::CutOff { host, lasts },
            16 => Fault::Twin { host },
            17 => Fault::Stop { host, down },
            18 => Fault::Drain { host, down },
            19 => Fault::BrokerRestart { lasts: lasts / 3 },
            20 => Fault::Compact,
            21 => Fault::Age,
            22..26 => Fault::Markers { lasts },
            26 => Fault::Traps { percent, lasts },
            27 => Fault::SendFails { lasts: 20 },
            28 => Fault::Tear { host },
            29 => Fault::Flip { host },
            _ => Fault::Revert { host },
        }
    }

    /// The plan with these faults only, and no more input than that.
    pub fn shrink(&mut self, only: Option<&[usize]>, incoming: Option<usize>) {
        if let Some(only) = only {
            let mut number = 0;
            self.faults.retain(|_| {
                number += 1;
                only.contains(&(number - 1))
            });
        }
        self.incoming.truncate(incoming.unwrap_or(usize::MAX));
    }
}
