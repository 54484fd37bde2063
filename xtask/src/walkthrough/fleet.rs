//! The instances of the pipeline: started, killed, drained, and asked which partitions they hold.
//!
//! Invariant: an instance that ends without having been asked to fails the walk-through.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use super::ground::Ground;
use super::{PIPELINE, say};

const NAMES: [&str; 4] = ["a", "b", "c", "d"];
/// A process commits what is open before it ends, and gives up by itself after 40 s.
const ENDED_WITHIN: Duration = Duration::from_secs(60);
const ANSWERED_WITHIN: Duration = Duration::from_secs(10);
/// Of a log, what is shown of an instance that ended by itself.
const LINES_SHOWN: usize = 20;

/// Which partitions each instance holds, by its name.
pub type Held = BTreeMap<&'static str, Vec<u64>>;

struct Instance {
    address: SocketAddr,
    child: Child,
    log: PathBuf,
}

pub struct Fleet<'a> {
    ground: &'a Ground,
    binary: &'a Path,
    live: BTreeMap<&'static str, Instance>,
}

impl<'a> Fleet<'a> {
    pub fn new(ground: &'a Ground, binary: &'a Path) -> Self {
        Self {
            ground,
            binary,
            live: BTreeMap::new(),
        }
    }

    /// Starts it, always at the same address and with the same folder; returns at once.
    pub fn start(&mut self, name: &'static str) -> Result<()> {
        let address = self.address(name)?;
        let state = self.ground.folder().join("state").join(name);
        let (state, http) = (state.display().to_string(), address.to_string());
        let bootstrap = self.ground.bootstrap();
        let arguments = [
            "run",
            PIPELINE,
            "--bootstrap",
            &bootstrap,
            "--instance",
            name,
            "--http",
            &http,
            "--state-dir",
            &state,
        ];
        say(&format!(
            "$ target/release/millstream {} &",
            arguments.join(" ")
        ));
        let log = self.ground.log(name)?;
        let mut command = Command::new(self.binary);
        command
            .current_dir(self.ground.root())
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        let instance = Instance {
            address,
            child: self.ground.spawn(&mut command)?,
            log: self.ground.log_path(name),
        };
        self.live.insert(name, instance);
        Ok(())
    }

    pub fn address(&self, name: &str) -> Result<SocketAddr> {
        let number = NAMES.iter().position(|known| *known == name);
        let number = number.with_context(|| format!("there is no instance {name}"))?;
        Ok(self.ground.address(u16::try_from(number)?))
    }

    pub fn live(&self) -> impl Iterator<Item = (&'static str, SocketAddr)> {
        self.live
            .iter()
            .map(|(name, instance)| (*name, instance.address))
    }

    /// SIGKILL.
    pub fn kill(&mut self, name: &str) -> Result<()> {
        let mut instance = self.live.remove(name).context("who lives is killed")?;
        say(&format!("$ kill -9 {}", instance.child.id()));
        instance.child.kill()?;
        instance.child.wait()?;
        Ok(())
    }

    /// SIGTERM, and waits for its end.
    pub fn terminate(&mut self, name: &str) -> Result<()> {
        let mut instance = self.live.remove(name).context("who lives is ended")?;
        let id = instance.child.id().to_string();
        say(&format!("$ kill -TERM {id}"));
        let sent = Command::new("kill").args(["-TERM", &id]).status()?;
        ensure!(sent.success(), "kill -TERM {id}: {sent}");
        instance.wait_ended(name)
    }

    /// `millstream drain`, which waits for its end. Returns how long the command took.
    pub fn drain(&mut self, name: &str) -> Result<Duration> {
        let mut instance = self.live.remove(name).context("who lives is drained")?;
        let bootstrap = self.ground.bootstrap();
        let arguments = [
            "drain",
            PIPELINE,
            "--bootstrap",
            &bootstrap,
            "--instance",
            name,
        ];
        say(&format!(
            "$ target/release/millstream {}",
            arguments.join(" ")
        ));
        let began = Instant::now();
        let mut command = Command::new(self.binary);
        command.current_dir(self.ground.root()).args(arguments);
        let drained = self.ground.output(command.stdin(Stdio::null()))?;
        let took = began.elapsed();
        let said = String::from_utf8_lossy(&drained.stderr).into_owned();
        ensure!(
            drained.status.success(),
            "draining {name}: {}: {said}",
            drained.status
        );
        instance.wait_ended(name)?;
        Ok(took)
    }

    /// SIGTERM to all that live, in turn.
    pub fn terminate_all(&mut self) -> Result<()> {
        let names: Vec<_> = self.live.keys().copied().collect();
        names.into_iter().try_for_each(|name| self.terminate(name))
    }

    /// Whether all that were not asked to end are there.
    pub fn check(&mut self) -> Result<()> {
        for (name, instance) in &mut self.live {
            if let Some(status) = instance.child.try_wait()? {
                let log = std::fs::read_to_string(&instance.log).unwrap_or_default();
                let lines: Vec<&str> = log.lines().collect();
                let last = &lines[lines.len().saturating_sub(LINES_SHOWN)..];
                bail!("instance {name} ended ({status}):\n{}", last.join("\n"));
            }
        }
        Ok(())
    }

    /// What each says that it holds. None where one doesn't answer, or has not got or restored its partitions yet.
    pub fn held(&self) -> Option<Held> {
        let held = |(name, address): (_, SocketAddr)| Some((name, held(address)?));
        self.live().map(held).collect()
    }
}

impl Instance {
    fn wait_ended(&mut self, name: &str) -> Result<()> {
        let began = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait()? {
                ensure!(status.success(), "instance {name} ended with {status}");
                return Ok(());
            }
            ensure!(
                began.elapsed() < ENDED_WITHIN,
                "instance {name} does not end"
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// Partitions of `totals` that are live in the instance at an address; a worker that is still joining holds nothing for sure.
fn held(address: SocketAddr) -> Option<Vec<u64>> {
    let answer = ureq::get(format!("http://{address}/v1/status")).config();
    let answer = answer.timeout_global(Some(ANSWERED_WITHIN)).build().call();
    let text = answer.ok()?.body_mut().read_to_string().ok()?;
    let status: Value = serde_json::from_str(&text).ok()?;
    let status = status["pipelines"].as_array()?.first()?;
    let workers = status["workers"].as_array()?.iter();
    let map = status["maps"].as_array()?.first()?;
    let partitions = map["partitions"].as_array()?.iter();
    let settled = workers
        .map(|worker| &worker["state"])
        .all(|state| state == "running");
    let mut numbers = Vec::new();
    for partition in partitions {
        if partition["state"] == "live" {
            numbers.push(partition["partition"].as_u64()?);
        } else {
            return None;
        }
    }
    settled.then_some(numbers)
}

/// In words.
pub fn told(held: &Held) -> String {
    let one = |(name, partitions): (&&str, &Vec<u64>)| {
        let partitions: Vec<String> = partitions.iter().map(u64::to_string).collect();
        match partitions.as_slice() {
            [] => format!("{name} none"),
            [one] => format!("{name} {one}"),
            [first @ .., last] => format!("{name} {} and {last}", first.join(", ")),
        }
    };
    held.iter().map(one).collect::<Vec<_>>().join("; ")
}
