//! The commit protocol, all of it: every state with every event, and every course of events of a certain length, watched by an
//! oracle that knows what became of each transaction.

use std::collections::BTreeSet;
use std::panic::catch_unwind;

use millstream_engine::commit::machine::{Action, Event, Resolution, State, Then, on};
use millstream_engine::commit::verdict::{Sends, Verdict};

/// What is promised: its table of states and events has every arrow. What isn't there can't come.
const PROMISE: &str = include_str!("../../docs/protocol.md");

const STATES: [State; 7] = [
    State::Ready,
    State::Open,
    State::Committing,
    State::Resolving,
    State::Replacing(Then::Keep),
    State::Replacing(Then::Rewind),
    State::Ended,
];

const EVENTS: [&str; 12] = [
    "Begin",
    "Close",
    "Broken",
    "Committed",
    "Several",
    "Aborted",
    "InDoubt",
    "Fenced",
    "Fatal",
    "Replaced",
    "Found",
    "Absent",
];

fn event(name: &str) -> Event {
    let why = || "why".to_owned();
    match name {
        "Begin" => Event::Begin,
        "Close" => Event::Close,
        "Broken" => Event::Broken(why()),
        "Committed" => Event::Verdict(Verdict::Committed(Sends::Once)),
        "Several" => Event::Verdict(Verdict::Committed(Sends::Several)),
        "Aborted" => Event::Verdict(Verdict::Aborted(why())),
        "InDoubt" => Event::Verdict(Verdict::InDoubt(why())),
        "Fenced" => Event::Verdict(Verdict::Fenced(why())),
        "Fatal" => Event::Verdict(Verdict::Fatal(why())),
        "Replaced" => Event::Replaced,
        "Found" => Event::Resolved(Resolution::Found),
        "Absent" => Event::Resolved(Resolution::Absent),
        other => panic!("no event {other}"),
    }
}

/// Where an arrow leads, and what it asks for.
fn arrow(state: State, event: &str) -> Option<String> {
    let state = format!("{state:?}");
    PROMISE.lines().find_map(|line| {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        let [from, on, to, actions] = cells[..] else {
            return None;
        };
        let leads = (from == state || from == "any") && on == event;
        leads.then(|| format!("{to}: {actions}").trim_end().to_owned())
    })
}

#[test]
fn every_state_and_event() {
    for state in STATES {
        for name in EVENTS {
            let found = catch_unwind(|| on(state, event(name))).ok();
            let found = found.map(|(next, actions)| {
                let actions: Vec<String> = actions.iter().map(|a| format!("{a:?}")).collect();
                format!("{next:?}: {}", actions.join(" "))
                    .trim_end()
                    .to_owned()
            });
            assert_eq!(found, arrow(state, name), "{state:?} on {name}");
        }
    }
}

/// What is true outside of the machine, and what is still unanswered.
#[derive(Clone, Debug, Default)]
struct World {
    epoch: Epoch,
    /// Something of an earlier transaction may still reach the broker under this producer: the transaction itself, left open, or
    /// a copy of the request that ended it.
    stale: bool,
    asked: Option<Action>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Epoch {
    #[default]
    None,
    Open,
    /// Kafka has decided, or will without regard to us; the worker has not drawn the consequence yet.
    Decided {
        committed: bool,
    },
}

impl World {
    /// The worlds in which this event happens now: none where it can't.
    fn before(&self, name: &str) -> Vec<Self> {
        let decided = |committed: bool, stale: bool| {
            vec![Self {
                epoch: Epoch::Decided { committed },
                stale,
                asked: None,
            }]
        };
        let answered = || Self {
            asked: None,
            ..self.clone()
        };
        match (name, &self.asked) {
            ("Begin" | "Close", None) => vec![answered()],
            ("Broken", None) => decided(false, true),
            ("Committed", Some(Action::Commit)) => decided(true, false),
            ("Several", Some(Action::Commit)) => decided(true, true),
            ("Aborted", Some(Action::Commit)) => decided(false, true),
            ("InDoubt", Some(Action::Commit)) => {
                [decided(true, true), decided(false, true)].concat()
            }
            ("Fenced" | "Fatal", Some(_)) => vec![answered()],
            ("Replaced", Some(Action::Replace)) => vec![Self {
                stale: false,
                ..answered()
            }],
            ("Found" | "Absent", Some(Action::ReadOffsets)) => {
                let truth = Epoch::Decided {
                    committed: name == "Found",
                };
                Vec::from_iter((self.epoch == truth).then(answered))
            }
            _ => vec![],
        }
    }

    /// Carries an action out, or says why it must not be.
    fn act(&mut self, action: &Action) -> Result<(), &'static str> {
        let allowed = match action {
            Action::Begin => {
                let free = self.epoch == Epoch::None && !self.stale;
                self.epoch = Epoch::Open;
                free.then_some(()).ok_or("begun over an earlier one")
            }
            Action::Commit => (self.epoch == Epoch::Open)
                .then_some(())
                .ok_or("nothing to commit"),
            Action::Replace => self.stale.then_some(()).ok_or("replaced for nothing"),
            Action::ReadOffsets => (!self.stale)
                .then_some(())
                .ok_or("read before it is decided"),
            // The consequence is drawn once: afterwards there is no epoch.
            Action::Merge => self.conclude(true),
            Action::Rewind if self.stale => Err("rewound while the transaction may yet land"),
            Action::Rewind => self.conclude(false),
            Action::End(_) => Ok(()),
        };
        if let Action::Commit | Action::Replace | Action::ReadOffsets = action {
            self.asked = Some(action.clone());
        }
        allowed
    }

    fn conclude(&mut self, merged: bool) -> Result<(), &'static str> {
        let truth = std::mem::take(&mut self.epoch);
        (truth == Epoch::Decided { committed: merged })
            .then_some(())
            .ok_or("not what became of it")
    }

    /// What must be true whenever the machine waits in a state.
    fn fits(&self, state: State) -> bool {
        match state {
            State::Ready => self.epoch == Epoch::None && !self.stale && self.asked.is_none(),
            State::Open => self.epoch == Epoch::Open && self.asked.is_none(),
            State::Committing | State::Resolving | State::Replacing(_) => self.asked.is_some(),
            State::Ended => true,
        }
    }
}

/// How many events a course has: an epoch takes five at most, so this leads through any two troubles in a row.
const DEPTH: usize = 10;

#[derive(Default)]
struct Walk {
    course: Vec<&'static str>,
    arrows: BTreeSet<(String, &'static str)>,
}

impl Walk {
    fn go(&mut self, state: State, world: &World) {
        if state == State::Ended || self.course.len() == DEPTH {
            return;
        }
        for name in EVENTS {
            if arrow(state, name).is_none() {
                continue;
            }
            for mut world in world.before(name) {
                self.course.push(name);
                self.arrows.insert((format!("{state:?}"), name));
                let (next, actions) = on(state, event(name));
                for action in &actions {
                    if let Err(why) = world.act(action) {
                        panic!("{action:?}: {why}, after {:?}", self.course);
                    }
                }
                assert!(
                    world.fits(next),
                    "{next:?} in {world:?}, after {:?}",
                    self.course
                );
                self.go(next, &world);
                self.course.pop();
            }
        }
    }
}

#[test]
fn every_epoch_is_merged_or_rewound_once_as_it_came_to_pass() {
    let mut walk = Walk::default();
    walk.go(State::Ready, &World::default());
    let expected = STATES.iter().flat_map(|&state| {
        // With nothing asked no verdict comes.
        let idle = matches!(state, State::Ready | State::Open | State::Ended);
        EVENTS
            .into_iter()
            .filter(move |name| !(idle && ["Fenced", "Fatal"].contains(name)))
            .filter(move |name| arrow(state, name).is_some())
            .map(move |name| (format!("{state:?}"), name))
    });
    assert_eq!(walk.arrows, expected.collect());
}
