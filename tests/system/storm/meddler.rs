//! What the proxy is to do with requests and answers that it has not seen yet, drawn by the storm; and what it did.
//!
//! Invariant: a request comes late only where its client had to send it again: its connection was cut. Where one comes twice that its sender
//! has sent once, nothing else of that connection comes in between.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use rig::proxy::{END_TXN, FETCH, INIT_PRODUCER_ID, JOIN_GROUP, Proxy, Then, When};

use super::MEDDLED;
use crate::dice::Dice;

/// How long frames that are on their way may take to get where they go.
const ARRIVED_WITHIN: Duration = Duration::from_secs(30);

/// What there is to draw for a request.
const CHOICES: u64 = 9;

/// How often it is thrown for what was not met yet.
const THROWS: u32 = 8;

#[derive(Clone, Copy, Debug)]
pub struct Plan {
    api_key: i16,
    name: &'static str,
    when: When,
    then: Then,
    /// Of how many frames.
    left: u64,
}

impl Plan {
    /// Half of them where it hurts most, the others for any other request; mostly what was not met so far, as long as there is some.
    pub fn draw(dice: &mut Dice, met: &Met) -> Self {
        let requests = if dice.one_in(2) {
            0..=0
        } else {
            1..=MEDDLED.len() as u64 - 1
        };
        let mut plan = Self::draw_of(&requests, dice);
        for _ in 1..THROWS {
            if !met.contains_key(&(plan.name, plan.kind())) {
                break;
            }
            plan = Self::draw_of(&requests, dice);
        }
        plan
    }

    fn draw_of(requests: &RangeInclusive<u64>, dice: &mut Dice) -> Self {
        let place = dice.between(*requests.start(), *requests.end());
        let (api_key, name) = MEDDLED[usize::try_from(place).expect("it is below nine")];
        let choice = dice.between(0, CHOICES - 1);
        let (when, then) = Self::choose(api_key, choice, |first, last| {
            Duration::from_millis(dice.between(first, last))
        });
        // Each that is lost costs whoever waits for it a time-out.
        let most = match then {
            Then::Drop => 1,
            _ => 3,
        };
        Self {
            api_key,
            name,
            when,
            then,
            left: dice.between(1, most),
        }
    }

    /// What one of so many choices is for a request: when, and what.
    fn choose(
        api_key: i16,
        choice: u64,
        mut millis: impl FnMut(u64, u64) -> Duration,
    ) -> (When, Then) {
        // What a client sends again after its connection broke may arrive once more by the old one. A late request to join takes the seat,
        // for nobody.
        let may_be_late = !matches!(api_key, JOIN_GROUP | FETCH);
        // No network makes two of one request on a connection that holds. Where that is as if its sender had sent it again, it is done all
        // the same; a producer that asked once for its epoch would be fenced by the second answer, which it never hears.
        let may_be_doubled = !matches!(api_key, INIT_PRODUCER_ID | JOIN_GROUP | FETCH);
        match choice {
            // A request to join that is held until its process is dead and back takes the seat, for nobody.
            0 => (When::Before, Then::Hold(millis(50, 3000))),
            1 => (When::Answered, Then::Hold(millis(50, 3000))),
            2 => (When::Before, Then::Drop),
            3 => (When::Answered, Then::Drop),
            4 => (When::Answered, Then::Cut),
            5 | 6 if may_be_doubled => (When::Before, Then::Twice),
            _ if may_be_late => (When::Before, Then::Late(millis(50, 2500))),
            _ => (When::Before, Then::Cut),
        }
    }

    /// All that can become of requests, whether it was drawn or not.
    pub fn kinds() -> BTreeSet<(&'static str, &'static str)> {
        let mut kinds = BTreeSet::new();
        for (api_key, name) in MEDDLED {
            for choice in 0..CHOICES {
                let (when, then) =
                    Self::choose(api_key, choice, |first, _| Duration::from_millis(first));
                let plan = Self {
                    api_key,
                    name,
                    when,
                    then,
                    left: 1,
                };
                kinds.insert((name, plan.kind()));
            }
        }
        kinds
    }

    /// What leaves the next commits of so many workers in doubt.
    pub fn doubt(workers: u64) -> Self {
        Self {
            api_key: END_TXN,
            name: "EndTxn",
            when: When::Answered,
            then: Then::Drop,
            left: workers,
        }
    }

    /// What has a producer send the end of its transaction twice, and the first one arrive in the next.
    pub fn late_end(dice: &mut Dice) -> Self {
        Self {
            api_key: END_TXN,
            name: "EndTxn",
            when: When::Before,
            then: Then::Late(Duration::from_millis(dice.between(200, 1500))),
            left: 1,
        }
    }

    /// What fences a producer by a request of its own.
    pub fn late_init() -> Self {
        Self {
            api_key: INIT_PRODUCER_ID,
            name: "InitProducerId",
            when: When::Before,
            then: Then::Late(Duration::from_millis(1500)),
            left: 1,
        }
    }

    fn kind(&self) -> &'static str {
        match (self.when, self.then) {
            (When::Answered, Then::Hold(_)) => "answer held",
            (When::Answered, Then::Drop) => "answer lost",
            (When::Answered, _) => "answer lost with its connection",
            (_, Then::Hold(_)) => "held",
            (_, Then::Drop) => "lost",
            (_, Then::Late(_)) => "late, its connection cut",
            (_, Then::Twice) => "twice",
            _ => "lost with its connection",
        }
    }
}

/// By request and kind.
pub type Met = BTreeMap<(&'static str, &'static str), u64>;

#[derive(Default)]
struct State {
    plans: Vec<Plan>,
    met: Met,
}

pub struct Meddler {
    proxy: Proxy,
    state: Arc<Mutex<State>>,
}

impl Meddler {
    pub fn new(proxy: Proxy) -> Self {
        let state = Arc::<Mutex<State>>::default();
        for (api_key, _) in MEDDLED {
            for when in [When::Before, When::Answered] {
                let state = Arc::clone(&state);
                proxy.on_request(api_key, when, move |_| take(&state, api_key, when));
            }
        }
        Self { proxy, state }
    }

    /// From the next such frames on.
    pub fn add(&self, plan: Plan) {
        locked(&self.state).plans.push(plan);
    }

    /// Nothing more is meddled with, and nothing is on its way any more.
    pub fn stop(&self) {
        locked(&self.state).plans.clear();
        let began = Instant::now();
        while self.proxy.pending() > 0 {
            assert!(began.elapsed() < ARRIVED_WITHIN, "frames are held for ever");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// What was done since the last call.
    pub fn take_met(&self) -> Met {
        std::mem::take(&mut locked(&self.state).met)
    }
}

fn take(state: &Mutex<State>, api_key: i16, when: When) -> Then {
    let mut state = locked(state);
    let mut plans = state.plans.iter_mut();
    let Some(plan) = plans.find(|plan| (plan.api_key, plan.when) == (api_key, when)) else {
        return Then::Forward;
    };
    plan.left -= 1;
    let plan = *plan;
    state.plans.retain(|plan| plan.left > 0);
    *state.met.entry((plan.name, plan.kind())).or_default() += 1;
    plan.then
}

fn locked(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().expect("nobody panics with it held")
}
