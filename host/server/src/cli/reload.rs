//! `millstream reload` and `millstream rollback`: have a pipeline that runs on this host look at its files now, or go back to the plugins
//! that ran before, and say what became of it.

use std::time::{Duration, Instant};

use super::here::{Here, NOBODY, Named};
use crate::reload::Action;
use crate::seat_lock::{Holder, ReloadRequest};
use crate::supervisor::Failure;

/// Loading compiles, and workers may be in a commit.
const ANSWERED_WITHIN: Duration = Duration::from_secs(360);
const LOOK: Duration = Duration::from_millis(20);

pub fn main(named: Named, action: Action) -> Result<(), Failure> {
    let here = named.read()?;
    let Here {
        pipeline,
        instance,
        bootstrap,
    } = &here;
    let failed = |why: &str| {
        let done = match action {
            Action::Reload => "reloaded",
            Action::Rollback => "rolled back",
        };
        Failure::Reload(format!(
            "instance \"{instance}\" of pipeline \"{pipeline}\" is not {done}: {why}"
        ))
    };
    let lives = || {
        let holder = here.holder()?;
        Ok::<_, Failure>(matches!(holder, Holder::Process(_) | Holder::Unknown))
    };
    if !lives()? {
        return Err(failed(NOBODY));
    }
    let request = ReloadRequest::of(pipeline, instance, bootstrap);
    let name = format!("{}-{}", std::process::id(), crate::wall_clock::now());
    let asked = request.make(&name, action.word());
    asked.map_err(|why| failed(&format!("it can't be asked: {why}")))?;
    let began = Instant::now();
    loop {
        if let Some((word, why)) = request.answered(&name) {
            let Some(good) = good_news(action, &word) else {
                return Err(failed(&format!(
                    "{word}, and the old version runs on: {why}"
                )));
            };
            println!("{good}");
            return Ok(());
        }
        if !lives()? {
            return Err(failed("it has ended"));
        }
        if began.elapsed() > ANSWERED_WITHIN {
            return Err(failed("it does not answer"));
        }
        std::thread::sleep(LOOK);
    }
}

/// What there is to say of an answer that is no failure.
fn good_news(action: Action, word: &str) -> Option<&'static str> {
    Some(match (action, word) {
        (Action::Reload, "taken") => "reloaded: the new version runs",
        (Action::Reload, "pending") => {
            "loaded: there are no records to try it with, and the next ones will"
        }
        (Action::Reload, "unchanged") => "nothing to reload: this version runs already",
        (Action::Rollback, "taken") => "rolled back: the version before runs",
        (Action::Rollback, "pending") => {
            "going back: there are no records to try the version before with, and the next ones will"
        }
        (Action::Rollback, "unchanged") => {
            "the version that was being tried is dropped: what ran before it runs on"
        }
        _ => return None,
    })
}
