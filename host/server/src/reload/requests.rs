//! How a pipeline is asked for another version of its plugins: by files beside the seat's lock, which `millstream reload` and `rollback`
//! write, or over HTTP. One request is dealt with after the other, by the thread that loads.
//!
//! Invariant: whoever asked is told at most once; over HTTP, once, or it sees that nobody is left to tell it.

use std::collections::VecDeque;
use std::mem;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;

use crate::seat_lock::ReloadRequest;

/// How many requests over HTTP may wait.
const WAITING_MAX: usize = 16;

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// What the files say now.
    Reload,
    /// The version before the one that runs.
    Rollback,
}

impl Action {
    pub fn word(self) -> &'static str {
        match self {
            Self::Reload => "reload",
            Self::Rollback => "rollback",
        }
    }

    pub fn of(word: &str) -> Option<Self> {
        let mut all = [Self::Reload, Self::Rollback].into_iter();
        all.find(|action| action.word() == word)
    }
}

/// Who asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// Nobody: files have changed.
    File,
    /// `millstream reload` or `rollback`.
    Request,
    Http,
}

impl By {
    pub fn word(self) -> &'static str {
        match self {
            Self::File => "file",
            Self::Request => "request",
            Self::Http => "http",
        }
    }
}

/// What became of a reload or a rollback.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is what runs now.
    Taken,
    /// It is what has been running.
    Unchanged,
    /// Workers have tried it, and the version before has run the same records instead.
    Rejected(String),
    /// It was not even tried.
    Refused(String),
}

impl Verdict {
    pub fn word(&self) -> &'static str {
        match self {
            Self::Taken => "taken",
            Self::Unchanged => "unchanged",
            Self::Rejected(_) => "rejected",
            Self::Refused(_) => "refused",
        }
    }

    pub fn why(&self) -> Option<&str> {
        match self {
            Self::Taken | Self::Unchanged => None,
            Self::Rejected(why) | Self::Refused(why) => Some(why),
        }
    }
}

/// What whoever asked is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// None where it is not decided yet: there are no records to try it with.
    pub verdict: Option<Verdict>,
    /// Of the version in question; none where it could not be loaded.
    pub revision: Option<String>,
}

impl Answer {
    pub fn word(&self) -> &'static str {
        self.verdict.as_ref().map_or("pending", Verdict::word)
    }

    pub fn why(&self) -> Option<&str> {
        self.verdict.as_ref().and_then(Verdict::why)
    }
}

/// A request, and who is to be told what became of it.
#[derive(Debug)]
pub struct Asked {
    pub action: Action,
    pub by: By,
    asker: Asker,
}

#[derive(Debug)]
enum Asker {
    /// Nobody, or one that has been told.
    None,
    /// Who made the request of that name.
    File(ReloadRequest, String),
    Http(oneshot::Sender<Answer>),
}

impl Asked {
    /// What changed files ask for.
    pub fn by_files() -> Self {
        Self {
            action: Action::Reload,
            by: By::File,
            asker: Asker::None,
        }
    }

    /// A request that stands in a file, if there is one.
    pub fn take(request: &ReloadRequest) -> Option<Self> {
        let (name, word) = request.take()?;
        let asked = |action| Self {
            action,
            by: By::Request,
            asker: Asker::File(request.clone(), name.clone()),
        };
        let action = Action::of(&word);
        if action.is_none() {
            let why = format!("this process is of a version that knows no \"{word}\"");
            request.answer(&name, "refused", Some(&why));
        }
        action.map(asked)
    }

    /// Tells whoever asked, if they haven't been told.
    pub fn tell(&mut self, answer: Answer) {
        match mem::replace(&mut self.asker, Asker::None) {
            Asker::None => {}
            Asker::File(request, name) => request.answer(&name, answer.word(), answer.why()),
            // Whoever doesn't wait any more finds it in the history.
            Asker::Http(sender) => drop(sender.send(answer)),
        }
    }
}

/// Why a request over HTTP is not even put in line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotAsked {
    #[error("{WAITING_MAX} reloads and rollbacks wait already; ask again later")]
    Full,
    #[error("the pipeline ends")]
    Ends,
}

/// Requests over HTTP that wait, in their order.
#[derive(Debug, Default)]
pub struct Requests {
    waiting: Mutex<Waiting>,
    came: Condvar,
}

#[derive(Debug, Default)]
struct Waiting {
    asked: VecDeque<Asked>,
    /// Nobody deals with any more of them.
    is_closed: bool,
}

impl Requests {
    /// Puts one in line. What is received is the answer; or that the pipeline has ended before there was one.
    pub fn ask(&self, action: Action) -> Result<oneshot::Receiver<Answer>, NotAsked> {
        let mut waiting = self.waiting();
        if waiting.is_closed {
            return Err(NotAsked::Ends);
        }
        if waiting.asked.len() == WAITING_MAX {
            return Err(NotAsked::Full);
        }
        let (sender, receiver) = oneshot::channel();
        waiting.asked.push_back(Asked {
            action,
            by: By::Http,
            asker: Asker::Http(sender),
        });
        self.came.notify_all();
        Ok(receiver)
    }

    /// The next one, if it comes within this time.
    pub fn next(&self, within: Duration) -> Option<Asked> {
        let is_idle = |waiting: &mut Waiting| waiting.asked.is_empty();
        let waited = self
            .came
            .wait_timeout_while(self.waiting(), within, is_idle);
        let (mut waiting, _) = waited.unwrap_or_else(PoisonError::into_inner);
        waiting.asked.pop_front()
    }

    /// To those that wait, and those that come, nothing will be told any more.
    pub fn close(&self) {
        let mut waiting = self.waiting();
        waiting.is_closed = true;
        waiting.asked.clear();
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken() -> Answer {
        Answer {
            verdict: Some(Verdict::Taken),
            revision: Some("a".into()),
        }
    }

    #[test]
    fn requests_are_dealt_with_in_their_order_and_told_once() {
        let requests = Requests::default();
        assert!(requests.next(Duration::ZERO).is_none());
        let mut first = requests.ask(Action::Rollback).expect("there is room");
        let _second = requests.ask(Action::Reload).expect("there is room");
        let mut asked = requests.next(Duration::ZERO).expect("two wait");
        assert_eq!((asked.action, asked.by), (Action::Rollback, By::Http));
        asked.tell(taken());
        asked.tell(Answer {
            verdict: None,
            revision: None,
        });
        assert_eq!(first.try_recv(), Ok(taken()));
        let asked = requests.next(Duration::ZERO).expect("one waits");
        assert_eq!(asked.action, Action::Reload);
    }

    #[test]
    fn a_request_that_comes_is_not_waited_for_longer() {
        let requests = Requests::default();
        std::thread::scope(|scope| {
            let next = scope.spawn(|| requests.next(Duration::from_secs(60)));
            requests.ask(Action::Reload).expect("there is room");
            assert!(next.join().expect("it waits").is_some());
        });
    }

    #[test]
    fn no_more_wait_than_there_is_room_for_and_none_of_one_that_ends() {
        let requests = Requests::default();
        let mut asked: Vec<_> = (0..WAITING_MAX)
            .map(|_| requests.ask(Action::Reload).expect("there is room"))
            .collect();
        assert_eq!(
            requests.ask(Action::Reload).expect_err("it is full"),
            NotAsked::Full
        );
        requests.close();
        for receiver in &mut asked {
            assert_eq!(
                receiver.try_recv(),
                Err(oneshot::error::TryRecvError::Closed)
            );
        }
        assert_eq!(
            requests.ask(Action::Reload).expect_err("it ends"),
            NotAsked::Ends
        );
    }

    #[test]
    fn pending_is_no_verdict() {
        let check = |verdict, word, why| {
            let answer = Answer {
                verdict,
                revision: None,
            };
            assert_eq!((answer.word(), answer.why()), (word, why));
        };
        check(None, "pending", None);
        check(Some(Verdict::Unchanged), "unchanged", None);
        let rejected = Verdict::Rejected("it traps".into());
        check(Some(rejected), "rejected", Some("it traps"));
    }
}
