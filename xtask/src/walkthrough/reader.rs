//! Who watches: asks for totals all along, at one instance after the other, as a client would that has a list of addresses.
//!
//! Invariant: a total that goes down, or is gone, is never passed over, nor is an answer that nobody should get.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};
use serde_json::Value;

use super::orders::Total;
use super::{ENTRIES, say};

/// What it asks for.
pub const WATCHED: [&str; 2] = ["DE", "US"];
/// From one round of questions to the next.
const PAUSE: Duration = Duration::from_millis(200);
const SHOWN_EVERY: Duration = Duration::from_secs(1);
/// Longer than an instance waits for another one.
const ANSWERED_WITHIN: Duration = Duration::from_secs(15);

/// What came of a question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// 200.
    Found(Found),
    /// 404.
    Absent,
    /// 503, and why.
    NotReady(String),
    /// No answer: no process is there, or it went while it was asked.
    Nobody,
}

/// A total, and whose answer it was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    pub total: Total,
    pub instance: String,
    pub partition: u64,
}

/// Asks an instance for a country's total, in any partition or in one. What is none of the answers that there may be is an error.
pub fn ask(address: SocketAddr, country: &str, partition: Option<u64>) -> Result<Answer> {
    let only = partition.map(|partition| format!("?partition={partition}"));
    let path = format!("{ENTRIES}/{country}{}", only.unwrap_or_default());
    let request = ureq::get(format!("http://{address}{path}")).config();
    let request = request
        .http_status_as_error(false)
        .timeout_global(Some(ANSWERED_WITHIN));
    let mut response = match request.build().call() {
        Ok(response) => response,
        Err(ureq::Error::Timeout(_)) => {
            bail!("{address} has not answered for {country} within {ANSWERED_WITHIN:?}")
        }
        Err(_) => return Ok(Answer::Nobody),
    };
    let header = |name| response.headers().get(name)?.to_str().ok();
    let instance = header("millstream-instance").map(str::to_owned);
    let partition = header("millstream-partition").and_then(|number| number.parse().ok());
    let status = response.status().as_u16();
    let Ok(body) = response.body_mut().read_to_string() else {
        return Ok(Answer::Nobody);
    };
    let json: Value = serde_json::from_str(&body).unwrap_or_default();
    let found = || {
        let (count, sum) = (json["count"].as_u64()?, json["sum"].as_u64()?);
        Some(Found {
            total: Total { count, sum },
            instance: instance?,
            partition: partition?,
        })
    };
    match (status, found(), json["error"].as_str()) {
        (200, Some(found), _) => Ok(Answer::Found(found)),
        (404, ..) => Ok(Answer::Absent),
        (503, _, Some(why)) => Ok(Answer::NotReady(why.to_owned())),
        _ => bail!("{address} answered for {country}: {status} {body}"),
    }
}

/// Somebody who asks one question after the other, and remembers what was found last of each country.
#[derive(Debug, Default)]
pub struct Witness {
    last: BTreeMap<&'static str, Found>,
}

impl Witness {
    /// Fails where the answer can't be true.
    pub fn hear(&mut self, country: &'static str, at: &str, answer: &Answer) -> Result<()> {
        let last = self.last.get(country).map(|found| found.total);
        match (answer, last) {
            (Answer::Absent, Some(last)) => {
                bail!("{at} answered 404 for {country}, of which there were {last}")
            }
            (
                Answer::Found(Found {
                    total, instance, ..
                }),
                Some(last),
            ) => ensure!(
                total.count >= last.count && total.sum >= last.sum,
                "{at} answered {total} for {country} (from {instance}), of which there were {last}"
            ),
            _ => {}
        }
        if let Answer::Found(found) = answer {
            self.last.insert(country, found.clone());
        }
        Ok(())
    }

    /// Where a country was found.
    fn partition(&self, country: &str) -> Option<u64> {
        self.last.get(country).map(|found| found.partition)
    }
}

/// How often the reader got what.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tally {
    pub found: u64,
    pub not_ready: u64,
    pub absent: u64,
    pub nobody: u64,
}

impl Tally {
    fn count(&mut self, answer: &Answer) {
        match answer {
            Answer::Found(_) => self.found += 1,
            Answer::NotReady(_) => self.not_ready += 1,
            Answer::Absent => self.absent += 1,
            Answer::Nobody => self.nobody += 1,
        }
    }

    pub fn since(self, before: Self) -> Self {
        Self {
            found: self.found - before.found,
            not_ready: self.not_ready - before.not_ready,
            absent: self.absent - before.absent,
            nobody: self.nobody - before.nobody,
        }
    }
}

impl std::fmt::Display for Tally {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{} totals, {} × 503, {} × 404, {} × nobody there",
            self.found, self.not_ready, self.absent, self.nobody
        )
    }
}

#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    addresses: Vec<(&'static str, SocketAddr)>,
    tally: Tally,
    /// What should not have happened.
    wrong: Option<String>,
}

pub struct Reader {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Reader {
    /// What it prints bears the time since `began`.
    pub fn start(began: Instant, addresses: Vec<(&'static str, SocketAddr)>) -> Self {
        let shared = Arc::new(Shared::default());
        shared.state().addresses = addresses;
        let watching = Arc::clone(&shared);
        let thread = std::thread::spawn(move || {
            if let Err(why) = watch(began, &watching) {
                watching.state().wrong = Some(format!("{why:#}"));
            }
        });
        Self {
            shared,
            thread: Some(thread),
        }
    }

    /// One more address for its list. Nothing is ever taken off: it finds out by itself who is gone.
    pub fn add(&self, name: &'static str, address: SocketAddr) {
        self.shared.state().addresses.push((name, address));
    }

    /// Fails where it saw something wrong.
    pub fn check(&self) -> Result<()> {
        match &self.shared.state().wrong {
            Some(wrong) => bail!("the reader: {wrong}"),
            None => Ok(()),
        }
    }

    pub fn tally(&self) -> Tally {
        self.shared.state().tally
    }

    pub fn end(mut self) -> Result<Tally> {
        self.shared.stop.store(true, Ordering::Relaxed);
        let thread = self.thread.take().context("it ends once")?;
        thread.join().map_err(|_| anyhow!("the reader panicked"))?;
        self.check()?;
        Ok(self.tally())
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn watch(began: Instant, shared: &Shared) -> Result<()> {
    let mut witness = Witness::default();
    let mut shown = Shown::default();
    for round in 0_usize.. {
        if shared.stop.load(Ordering::Relaxed) {
            break;
        }
        let mut addresses = shared.state().addresses.clone();
        let first = round % addresses.len().max(1);
        addresses.rotate_left(first);
        let mut gone = Vec::new();
        for (name, address) in addresses {
            let answers = ask_all(name, address, &mut witness, shared)?;
            if !answers.contains(&Answer::Nobody) {
                shown.show(began, &gone, name, &answers);
                break;
            }
            gone.push(name);
        }
        std::thread::sleep(PAUSE);
    }
    Ok(())
}

/// What was shown last.
#[derive(Default)]
struct Shown {
    at: Option<Instant>,
    /// Why not everything was answered.
    reasons: Vec<String>,
}

impl Shown {
    /// Shows it where it is time, or answers have stopped or come again. A reason is not told twice in a row.
    fn show(&mut self, began: Instant, gone: &[&str], name: &str, answers: &[Answer]) {
        let reasons = reasons(answers);
        let fresh = self.at.is_some_and(|at| at.elapsed() < SHOWN_EVERY);
        if fresh && self.reasons.is_empty() == reasons.is_empty() {
            return;
        }
        let at = began.elapsed().as_secs_f64();
        let mut text = format!("  {at:5.1}s  {}", line(gone, name, answers));
        for reason in reasons
            .iter()
            .filter(|reason| !self.reasons.contains(reason))
        {
            text += &format!("\n            {reason}");
        }
        say(&text);
        self.at = Some(Instant::now());
        self.reasons = reasons;
    }
}

/// Each country, unless nobody is there. Once it is known where one stands, that partition alone is asked for.
fn ask_all(
    name: &str,
    address: SocketAddr,
    witness: &mut Witness,
    shared: &Shared,
) -> Result<Vec<Answer>> {
    let mut answers = Vec::new();
    for country in WATCHED {
        let answer = ask(address, country, witness.partition(country))?;
        shared.state().tally.count(&answer);
        witness.hear(country, &format!("instance {name}"), &answer)?;
        let nobody = answer == Answer::Nobody;
        answers.push(answer);
        if nobody {
            break;
        }
    }
    Ok(answers)
}

/// Who could not be asked, who was, and what it answered.
fn line(gone: &[&str], name: &str, answers: &[Answer]) -> String {
    let told = |(country, answer): (&&str, &Answer)| match answer {
        Answer::Found(found) => format!("{country} {} (of {})", found.total.count, found.instance),
        Answer::Absent => format!("{country} 404"),
        Answer::NotReady(_) => format!("{country} 503"),
        Answer::Nobody => format!("{country} nobody"),
    };
    let answers: Vec<String> = WATCHED.iter().zip(answers).map(told).collect();
    let gone = gone.iter().map(|name| format!("{name} is not there; "));
    let gone: String = gone.collect();
    format!("{gone}{name} says {}", answers.join(", "))
}

/// Why there is no total, for each country of which there is none.
fn reasons(answers: &[Answer]) -> Vec<String> {
    let told = |(country, answer): (&&str, &Answer)| match answer {
        Answer::NotReady(why) => Some(format!("{country}: {why}")),
        _ => None,
    };
    WATCHED.iter().zip(answers).filter_map(told).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn total(count: u64) -> Answer {
        Answer::Found(Found {
            total: Total { count, sum: count },
            instance: "b".into(),
            partition: 1,
        })
    }

    #[track_caller]
    fn check(answers: &[Answer], wrong: Option<&str>) {
        let mut witness = Witness::default();
        let mut heard = answers.iter().map(|answer| witness.hear("DE", "a", answer));
        let found = heard.find_map(Result::err).map(|why| why.to_string());
        assert_eq!(found.as_deref(), wrong);
    }

    #[test]
    fn a_total_may_stay_or_go_up_and_nothing_else() {
        let away = Answer::NotReady("b is away".into());
        check(&[Answer::Absent, total(1), away.clone(), total(1)], None);
        check(&[total(1), Answer::Nobody, total(7)], None);
        check(
            &[total(7), away, total(6)],
            Some("a answered 6 orders of 6 for DE (from b), of which there were 7 orders of 7"),
        );
        check(
            &[total(7), Answer::Absent],
            Some("a answered 404 for DE, of which there were 7 orders of 7"),
        );
    }
}
