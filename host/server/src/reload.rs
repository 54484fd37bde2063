//! Reload while the stream runs: the files of a pipeline are looked at, what they say now is loaded beside what runs, and the workers try
//! it (`trials`). Sources, sinks, maps and how steps are wired stay as they were at the start: a change of those is refused.
//!
//! Invariant: whatever is wrong with a new version, the old one runs on.

use std::collections::VecDeque;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use sha2::{Digest as _, Sha256};

use crate::config::{self, Config, Overrides};
use crate::load;
use crate::seat_lock::ReloadRequest;
use crate::threads;
use crate::trials::{Outcome, Trials};
use crate::wall_clock;
use crate::wasm::{Runtime, StepPlugin};

/// How often files are looked at. What has changed is loaded once it looks the same twice.
const LOOK: Duration = Duration::from_millis(250);
/// How long workers may take to have tried a version. A commit that takes long is in it.
const TRIAL_MAX: Duration = Duration::from_secs(10);
/// After so long whoever asked is told that there are no records to try a version with.
const PENDING_AFTER: Duration = Duration::from_secs(5);
/// How many reloads are remembered.
const REMEMBERED: usize = 50;

/// What became of a reload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is what runs now.
    Taken,
    /// It is what has been running.
    Unchanged,
    /// Workers have tried it, and the old version has run the same records instead.
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

/// A reload, as it is remembered.
#[derive(Clone, Debug)]
pub struct Reload {
    /// Milliseconds since 1970-01-01 UTC.
    pub at: i64,
    /// Of the new version; none where it could not be loaded.
    pub revision: Option<String>,
    /// What it was for: `file` or `request`.
    pub by: &'static str,
    pub verdict: Verdict,
}

/// The plugins of a pipeline: those that run, and what became of others.
#[derive(Debug)]
pub struct Plugins {
    pub trials: Arc<Trials<Vec<StepPlugin>>>,
    /// Of a million records, how many a version that is tried may fail on.
    pub max_failures: Arc<AtomicU32>,
    history: Mutex<VecDeque<Reload>>,
}

impl Plugins {
    pub fn new(steps: Arc<Vec<StepPlugin>>, max_failures: u32, workers: u32) -> Self {
        Self {
            max_failures: Arc::new(AtomicU32::new(max_failures)),
            trials: Arc::new(Trials::new(steps, workers as usize)),
            history: Mutex::default(),
        }
    }

    /// By the pipeline's order.
    pub fn current(&self) -> Arc<Vec<StepPlugin>> {
        self.trials.current().what
    }

    /// Names pipeline file and plugins; empty where no step has a plugin.
    pub fn revision(&self) -> String {
        revision(&self.current())
    }

    /// The last reloads, in their order.
    pub fn history(&self) -> Vec<Reload> {
        let history = self.history.lock().unwrap_or_else(PoisonError::into_inner);
        history.iter().cloned().collect()
    }

    fn note(&self, reload: Reload) {
        let mut history = self.history.lock().unwrap_or_else(PoisonError::into_inner);
        history.push_back(reload);
        while history.len() > REMEMBERED {
            history.pop_front();
        }
    }
}

fn revision(steps: &[StepPlugin]) -> String {
    let first = steps.first();
    first.map_or_else(String::new, |step| step.revision.to_string())
}

/// What a reload takes.
pub struct Reloader {
    file: PathBuf,
    overrides: Overrides,
    runtime: Runtime,
    /// As the pipeline runs.
    config: Config,
    plugins: Arc<Plugins>,
    request: ReloadRequest,
    stop: Arc<AtomicBool>,
    /// Those that the file named when it was last read.
    components: Vec<PathBuf>,
    /// What the files said of what runs, and as they were loaded last, whatever became of it.
    running: Option<[u8; 32]>,
    seen: Option<[u8; 32]>,
    /// The request that has no answer yet.
    asked: Option<String>,
}

/// Where a pipeline's components are.
fn components(config: &Config) -> Vec<PathBuf> {
    let plugins = config.outside.plugins.iter();
    plugins.map(|plugin| plugin.path.clone()).collect()
}

impl Reloader {
    /// For a pipeline that runs as this file says.
    pub fn new(
        (file, overrides, config): (&Path, &Overrides, &Config),
        runtime: &Runtime,
        plugins: &Arc<Plugins>,
        request: ReloadRequest,
        stop: &Arc<AtomicBool>,
    ) -> Self {
        Self {
            file: file.into(),
            overrides: overrides.clone(),
            runtime: runtime.clone(),
            components: components(config),
            config: config.clone(),
            plugins: Arc::clone(plugins),
            request,
            stop: Arc::clone(stop),
            running: None,
            seen: None,
            asked: None,
        }
    }

    /// Looks at files and requests on a thread of its own, until the pipeline is to end.
    pub fn start(self) -> io::Result<()> {
        threads::start("reload", move || self.run()).map(|_| ())
    }

    fn run(mut self) {
        let mut looked = Looked::new(self.marks());
        self.running = self.contents();
        self.seen = self.running;
        while !self.stop.load(Ordering::Relaxed) {
            std::thread::sleep(LOOK);
            self.asked = self.request.take();
            let marks = self.marks();
            let watches = self.config.reload.watch;
            let is_changed = watches && looked.has_changed(marks.clone());
            if is_changed || self.asked.is_some() {
                looked = Looked::new(marks);
            }
            if self.asked.is_some() {
                self.reload("request");
            } else if is_changed && self.contents() != self.seen {
                self.reload("file");
            }
        }
    }

    /// What files look like from outside.
    fn marks(&self) -> Vec<Option<Mark>> {
        let plugins = self.components.iter().map(|path| Mark::of(path));
        std::iter::once(Mark::of(&self.file))
            .chain(plugins)
            .collect()
    }

    /// The digest of what they say; none where one can't be read.
    fn contents(&self) -> Option<[u8; 32]> {
        let mut digest = Sha256::new();
        for file in self.components.iter().chain([&self.file]) {
            digest.update(Sha256::digest(fs::read(file).ok()?));
        }
        Some(digest.finalize().into())
    }

    fn reload(&mut self, by: &'static str) {
        let (contents, named) = (self.contents(), self.components.clone());
        let (revision, verdict) = if contents.is_some() && contents == self.running {
            (Some(self.plugins.revision()), Verdict::Unchanged)
        } else {
            match self.load() {
                Err(why) => (None, Verdict::Refused(why)),
                Ok((config, steps)) => {
                    let name = revision(&steps);
                    (Some(name), self.try_out(config, steps))
                }
            }
        };
        if let Verdict::Taken | Verdict::Unchanged = verdict {
            self.running = contents;
        }
        // Of other files it is not known what they said as they were loaded.
        self.seen = contents.filter(|_| self.components == named);
        tell(by, revision.as_deref().unwrap_or("?"), &verdict);
        self.answer(verdict.word(), verdict.why());
        // Files that only were written again are nothing to remember.
        if verdict != Verdict::Unchanged || by != "file" {
            self.plugins.note(Reload {
                at: wall_clock::now(),
                revision,
                by,
                verdict,
            });
        }
    }

    /// Tells whoever asked, if they haven't been told.
    fn answer(&mut self, word: &str, why: Option<&str>) {
        if let Some(name) = self.asked.take() {
            self.request.answer(&name, word, why);
        }
    }

    fn load(&mut self) -> Result<(Config, Arc<Vec<StepPlugin>>), String> {
        let config = config::load(&self.file, &self.overrides);
        let config = config.map_err(|unsound| {
            let problems = load::all_problems(unsound, &self.runtime);
            problems.to_string()
        })?;
        self.components = components(&config);
        if let Some(what) = differs(&self.config, &config) {
            return Err(format!(
                "{what} can't be changed while the pipeline runs: restart it"
            ));
        }
        let steps = load::steps(&config, &self.runtime);
        let steps = steps.map_err(|problems| problems.to_string())?;
        Ok((config, steps))
    }

    fn try_out(&mut self, config: Config, steps: Arc<Vec<StepPlugin>>) -> Verdict {
        if revision(&steps) == self.plugins.revision() {
            self.config = config;
            return Verdict::Unchanged;
        }
        let most = config.reload.max_failures;
        self.plugins.max_failures.store(most, Ordering::Relaxed);
        let trials = Arc::clone(&self.plugins.trials);
        let number = trials.begin(steps);
        match self.outcome(number) {
            Outcome::Taken => {
                self.config = config;
                Verdict::Taken
            }
            Outcome::Rejected(why) => Verdict::Rejected(why),
        }
    }

    /// Waits for what workers make of a version: for as long as none of them has records to try it with, unless something else comes.
    fn outcome(&mut self, number: u64) -> Outcome {
        let trials = Arc::clone(&self.plugins.trials);
        let (began, tried) = (Instant::now(), self.contents());
        let mut looked = Looked::new(self.marks());
        loop {
            if let Some(outcome) = trials.wait(number, LOOK) {
                return outcome;
            }
            let silent = trials.silent(number);
            if began.elapsed() > TRIAL_MAX && !silent.is_empty() {
                let silent: Vec<String> = silent.iter().map(usize::to_string).collect();
                let why = format!(
                    "worker {} had not come to try it after {TRIAL_MAX:?}",
                    silent.join(", ")
                );
                trials.reject(number, why);
            } else if self.stop.load(Ordering::Relaxed) {
                trials.reject(number, "the pipeline ends".into());
            } else if began.elapsed() > PENDING_AFTER {
                self.answer("pending", None);
            }
            let is_asked = self.asked.is_none() && self.request.is_there();
            // Files may be written again as they were.
            let marks = self.marks();
            let mut is_other = self.config.reload.watch && looked.has_changed(marks.clone());
            if is_other {
                looked = Looked::new(marks);
                is_other = self.contents() != tried;
            }
            if is_asked || is_other {
                trials.reject(number, "another version came before it was tried".into());
            }
        }
    }
}

fn tell(by: &str, revision: &str, verdict: &Verdict) {
    match verdict {
        Verdict::Taken => tracing::info!(revision, by, "plugins were reloaded"),
        Verdict::Unchanged => tracing::debug!(revision, by, "nothing to reload"),
        Verdict::Rejected(why) => tracing::error!(
            revision,
            by,
            "the reload is rejected, and the old version runs on: {why}"
        ),
        Verdict::Refused(why) => tracing::error!(
            revision,
            by,
            "the reload is refused, and the old version runs on: {why}"
        ),
    }
}

/// Files as they looked when they were loaded, and since.
#[derive(Clone, Debug)]
struct Looked {
    loaded: Vec<Option<Mark>>,
    last: Vec<Option<Mark>>,
}

impl Looked {
    fn new(marks: Vec<Option<Mark>>) -> Self {
        Self {
            loaded: marks.clone(),
            last: marks,
        }
    }

    /// Whether they are others than those that were loaded, and look the same twice.
    fn has_changed(&mut self, marks: Vec<Option<Mark>>) -> bool {
        let is_settled = marks == self.last;
        self.last = marks;
        is_settled && self.last != self.loaded
    }
}

/// What of a pipeline is not what it was, if it can't be reloaded.
fn differs(old: &Config, new: &Config) -> Option<&'static str> {
    let (was, is) = (&old.pipeline, &new.pipeline);
    let parts = [
        (was.name != is.name, "the pipeline's name"),
        (
            was.guarantee != is.guarantee || was.interval != is.interval,
            "[checkpoint]",
        ),
        (
            was.sources != is.sources || was.topics != is.topics,
            "sources and streams",
        ),
        (
            was.steps != is.steps,
            "how steps are wired, their state and `on-error`",
        ),
        (was.sinks != is.sinks, "sinks"),
        (was.maps != is.maps, "maps"),
        (
            old.memory != new.memory || old.standby != new.standby,
            "`memory` and `standby`",
        ),
        (old.outside.kafka != new.outside.kafka, "[kafka]"),
    ];
    let mut parts = parts.into_iter();
    parts.find(|(differ, _)| *differ).map(|(_, what)| what)
}

/// A file as it looks from outside: another one, or another content, has another mark.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Mark {
    inode: u64,
    bytes: u64,
    /// Seconds and nanoseconds.
    changed: (i64, i64),
}

impl Mark {
    fn of(path: &Path) -> Option<Self> {
        let facts = fs::metadata(path).ok()?;
        Some(Self {
            inode: facts.ino(),
            bytes: facts.len(),
            changed: (facts.mtime(), facts.mtime_nsec()),
        })
    }
}
