//! A process of the same pipeline and name on another host, which the seat's lock doesn't reach.
//!
//! Looked for before anything is fenced: who was there first goes on, and the second one ends. Where its host says that nobody answers
//! there, or somebody else does, it is dead. One that says nothing (it may stand still, or the way to it be closed), or can't be asked,
//! since it answers on its host alone, is dead if the group gives its seats up.

use std::io::ErrorKind;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::cluster::{Cluster, GroupMember, instance_of};
use crate::scope;

const ANSWER_MAX: Duration = Duration::from_secs(1);

/// The group may be a moment late to give a seat up, and where its coordinator moves, sessions begin anew.
const SESSION_MORE: Duration = Duration::from_secs(3);
const PAUSE: Duration = Duration::from_millis(500);

/// Where the other one answers, if there is one. `own` is where this process does.
///
/// # Errors
///
/// Why it isn't known who is there. To be asked again: who goes on without may fence somebody.
pub fn find<C: Cluster>(
    cluster: &C,
    own: &str,
    stop: &AtomicBool,
) -> Result<Option<String>, String> {
    let (pipeline, instance) = (cluster.pipeline(), cluster.instance());
    let began = Instant::now();
    let mut unsaid = true;
    loop {
        let mut members = cluster.group()?.members;
        members.retain(|member| instance_of(&member.seat, pipeline) == Some(instance));
        members.sort_unstable_by(|one, other| one.address.cmp(&other.address));
        members.dedup_by(|one, other| (&one.address, &one.scope) == (&other.address, &other.scope));
        let mut untold = None;
        for member in &members {
            match standing(member, own, scope::own()) {
                Standing::Gone => {}
                Standing::At(address) => match who_answers(address, pipeline, instance) {
                    Answer::Twin => return Ok(Some(address.to_owned())),
                    Answer::Another => {}
                    Answer::Silence => untold = Some(format!("{address}, where nothing is said")),
                },
                Standing::Elsewhere(address) => untold = Some(format!("{address} of another host")),
            }
        }
        let Some(address) = untold else {
            return Ok(None);
        };
        if stop.load(Ordering::Relaxed) {
            return Err(format!("an instance \"{instance}\" may live at {address}"));
        }
        if began.elapsed() > 2 * cluster.session() + SESSION_MORE {
            return Ok(Some(address));
        }
        if std::mem::take(&mut unsaid) {
            tracing::info!(
                "the group has an instance \"{instance}\" that answers at {address}: waiting for the end of its session, should it be dead"
            );
        }
        std::thread::sleep(PAUSE);
    }
}

/// What is to be thought of a member with this process's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing<'a> {
    /// An earlier life: this process answers where it did, or it says nothing.
    Gone,
    /// To be asked there.
    At(&'a str),
    /// It answers on another host, for that alone.
    Elsewhere(&'a str),
}

fn standing<'a>(member: &'a GroupMember, own: &str, scope: Option<&str>) -> Standing<'a> {
    let Some(address) = member.address.as_deref() else {
        return Standing::Gone;
    };
    let is_elsewhere = member.scope.as_deref().is_some_and(|of| Some(of) != scope);
    if is_elsewhere && scope::is_loopback(address) {
        Standing::Elsewhere(address)
    } else if address == own {
        Standing::Gone
    } else {
        Standing::At(address)
    }
}

/// Who is at an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    /// A process of this pipeline and name.
    Twin,
    /// Somebody else, or nobody, as the host itself says.
    Another,
    /// Nothing is said, or nothing comes through: not by its host's name, not past a firewall, not in time.
    Silence,
}

fn who_answers(address: &str, pipeline: &str, instance: &str) -> Answer {
    let answer = ask(&format!("http://{address}/v1/status"), ANSWER_MAX);
    who_it_is(answer, pipeline, instance)
}

fn who_it_is(answer: Result<String, ureq::Error>, pipeline: &str, instance: &str) -> Answer {
    match answer {
        Ok(status) if is_of(&status, pipeline, instance) => Answer::Twin,
        Ok(_) | Err(ureq::Error::StatusCode(_)) => Answer::Another,
        Err(ureq::Error::Io(why)) if why.kind() == ErrorKind::ConnectionRefused => Answer::Another,
        Err(_) => Answer::Silence,
    }
}

fn is_of(status: &str, pipeline: &str, instance: &str) -> bool {
    let status: Value = serde_json::from_str(status).unwrap_or_default();
    let pipelines = status["pipelines"].as_array();
    let mut pipelines = pipelines.map_or(&[][..], Vec::as_slice).iter();
    let lives = |told: &Value| told["name"] == pipeline && told["state"] != "ended";
    status["instance"] == instance && pipelines.any(lives)
}

/// The answer of a process, as it is, and of nobody between.
pub fn ask(url: &str, timeout: Duration) -> Result<String, ureq::Error> {
    let agent = ureq::Agent::config_builder()
        .timeout_global(Some(timeout))
        .timeout_connect(Some(timeout / 2))
        .proxy(None)
        .build()
        .new_agent();
    agent.get(url).call()?.body_mut().read_to_string()
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn who_can_not_be_asked_is_not_known_to_be_dead() {
        let check = |address: &str, expected: Answer| {
            assert_eq!(who_answers(address, "p", "a"), expected, "{address}");
        };
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let silent = taken.local_addr().unwrap().to_string();
        check(&silent, Answer::Silence);
        drop(taken);
        check(&silent, Answer::Another);
        for error in [
            ureq::Error::HostNotFound,
            ureq::Error::Timeout(ureq::Timeout::Connect),
            ureq::Error::Io(ErrorKind::HostUnreachable.into()),
            ureq::Error::Io(ErrorKind::ConnectionReset.into()),
        ] {
            assert_eq!(who_it_is(Err(error), "p", "a"), Answer::Silence);
        }

        let other = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = other.local_addr().unwrap().to_string();
        for (answer, expected) in [
            (
                "404 Not Found\r\nContent-Length: 0\r\n\r\n",
                Answer::Another,
            ),
            ("200 OK\r\nContent-Length: 2\r\n\r\n{}", Answer::Another),
        ] {
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    let (mut stream, _) = other.accept().unwrap();
                    let _ = stream.read(&mut [0; 1024]).unwrap();
                    write!(stream, "HTTP/1.1 {answer}").unwrap();
                });
                check(&address, expected);
            });
        }
    }

    #[test]
    fn an_address_of_another_hosts_loopback_is_not_ones_own() {
        let check = |address: Option<&str>, of: Option<&str>, expected: Standing<'_>| {
            let id = GroupMember::client_id("p.a.0", address, of);
            let member = GroupMember::of(&id, Vec::new());
            assert_eq!(standing(&member, "127.0.0.1:8080", Some("here")), expected);
        };
        let (own, other) = ("127.0.0.1:8080", "127.0.0.1:8081");
        check(None, None, Standing::Gone);
        check(Some(own), Some("here"), Standing::Gone);
        check(Some(own), None, Standing::Gone);
        check(Some(other), Some("here"), Standing::At(other));
        check(Some(own), Some("there"), Standing::Elsewhere(own));
        check(Some(other), Some("there"), Standing::Elsewhere(other));
        check(Some("b:80"), Some("there"), Standing::At("b:80"));
    }
}
