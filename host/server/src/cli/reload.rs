//! `millstream reload`: has a pipeline that runs on this host look at its files now, and says what became of it.

use std::time::{Duration, Instant};

use super::here::{Here, NOBODY, Named};
use crate::seat_lock::{Holder, ReloadRequest};
use crate::supervisor::Failure;

/// Loading compiles, and workers may be in a commit.
const ANSWERED_WITHIN: Duration = Duration::from_secs(360);
const LOOK: Duration = Duration::from_millis(20);

pub fn main(named: Named) -> Result<(), Failure> {
    let here = named.read()?;
    let Here {
        pipeline,
        instance,
        bootstrap,
    } = &here;
    let failed = |why: &str| {
        Failure::Reload(format!(
            "instance \"{instance}\" of pipeline \"{pipeline}\" is not reloaded: {why}"
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
    let asked = request.make(&name);
    asked.map_err(|why| failed(&format!("it can't be asked: {why}")))?;
    let began = Instant::now();
    loop {
        if let Some((word, why)) = request.answered(&name) {
            return match word.as_str() {
                "taken" => {
                    println!("reloaded: the new version runs");
                    Ok(())
                }
                "pending" => {
                    println!("loaded: there are no records to try it with, and the next ones will");
                    Ok(())
                }
                "unchanged" => {
                    println!("nothing to reload: this version runs already");
                    Ok(())
                }
                _ => Err(failed(&format!(
                    "{word}, and the old version runs on: {why}"
                ))),
            };
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
