//! Reload while the stream runs: the files of a pipeline are looked at, what they say now is loaded beside what runs, and the workers try
//! it (`trials`). Sources, sinks, maps and how steps are wired stay as they were at the start: a change of those is refused. A rollback
//! has them try the version before the one that runs, which is kept.
//!
//! Invariant: whatever is wrong with a new version, the old one runs on.

mod plugins;
mod requests;

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use sha2::{Digest as _, Sha256};

pub use self::plugins::{Fingerprint, Plugins, Reload};
use self::plugins::{Version, nothing_earlier};
pub use self::requests::{Action, Answer, NotAsked, Verdict};
use self::requests::{Asked, By};
use crate::config::{self, Config, Overrides};
use crate::load;
use crate::seat_lock::ReloadRequest;
use crate::threads;
use crate::trials::Outcome;
use crate::wall_clock;
use crate::wasm::Runtime;

/// How often files are looked at. What has changed is loaded once it looks the same twice.
const LOOK: Duration = Duration::from_millis(250);
/// How long workers may take to have tried a version. A commit that takes long is in it.
const TRIAL_MAX: Duration = Duration::from_secs(10);
/// After so long whoever asked is told that there are no records to try a version with.
const PENDING_AFTER: Duration = Duration::from_secs(5);
/// Why a version that was not decided gives way to the next one.
const ANOTHER: &str = "another version came before it was decided";

/// What a reload takes.
pub struct Reloader {
    file: PathBuf,
    overrides: Overrides,
    runtime: Runtime,
    /// As the pipeline runs.
    config: Config,
    plugins: Arc<Plugins>,
    /// By which other processes ask, if any can see it.
    request: Option<ReloadRequest>,
    stop: Arc<AtomicBool>,
    /// Those that the file named when it was last read.
    components: Vec<PathBuf>,
    /// What the files said of what runs, if they did, and as they were loaded last, whatever became of it.
    running: Option<[u8; 32]>,
    seen: Option<[u8; 32]>,
    /// The request that is dealt with, and one that came meanwhile.
    asked: Asked,
    next: Option<Asked>,
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
        request: Option<ReloadRequest>,
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
            asked: Asked::by_files(),
            next: None,
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
            let asked = self.next.take().or_else(|| self.ask(LOOK));
            let marks = self.marks();
            let is_changed = self.config.reload.watch && looked.has_changed(marks.clone());
            let is_reload = asked
                .as_ref()
                .is_some_and(|asked| asked.action == Action::Reload);
            if is_changed || is_reload {
                looked = Looked::new(marks);
            }
            match asked {
                Some(asked) => self.act(asked),
                None if is_changed && self.contents() != self.seen => self.act(Asked::by_files()),
                None => {}
            }
        }
        self.plugins.requests.close();
    }

    /// A request, if there is one or one comes over HTTP within this time.
    fn ask(&self, within: Duration) -> Option<Asked> {
        let http = self.plugins.requests.next(within);
        http.or_else(|| self.request.as_ref().and_then(Asked::take))
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

    /// Does what is asked, and says what became of it.
    fn act(&mut self, asked: Asked) {
        let action = asked.action;
        self.asked = asked;
        let (version, verdict) = match action {
            Action::Reload => self.reload(),
            Action::Rollback => self.roll_back(),
        };
        let is_taken = verdict == Verdict::Taken;
        self.settle(version, verdict);
        // A rollback that came while a version was tried is for what ran before it, which runs on.
        let is_rollback = |next: &mut Asked| !is_taken && next.action == Action::Rollback;
        if let Some(rollback) = self.next.take_if(is_rollback) {
            self.asked = rollback;
            let current = Fingerprint::of(&self.plugins.current());
            self.settle(Some(current), Verdict::Unchanged);
        }
    }

    fn reload(&mut self) -> (Option<Fingerprint>, Verdict) {
        let (contents, named) = (self.contents(), self.components.clone());
        let (version, verdict) = if contents.is_some() && contents == self.running {
            let current = Fingerprint::of(&self.plugins.current());
            (Some(current), Verdict::Unchanged)
        } else {
            match self.load() {
                Err(why) => (None, Verdict::Refused(why)),
                Ok(version) => (Some(Fingerprint::of(&version.steps)), self.try_out(version)),
            }
        };
        if let Verdict::Taken | Verdict::Unchanged = verdict {
            self.running = contents;
        }
        // Of other files it is not known what they said as they were loaded.
        self.seen = contents.filter(|_| self.components == named);
        (version, verdict)
    }

    fn load(&mut self) -> Result<Version, String> {
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
        Ok(Version { config, steps })
    }

    fn try_out(&mut self, version: Version) -> Verdict {
        let current = self.plugins.current();
        if Fingerprint::of(&version.steps) == Fingerprint::of(&current) {
            self.config = version.config;
            return Verdict::Unchanged;
        }
        match self.outcome(&version) {
            Outcome::Taken => {
                let config = std::mem::replace(&mut self.config, version.config);
                let steps = current;
                self.plugins.replaced(Version { config, steps });
                Verdict::Taken
            }
            Outcome::Rejected(why) => Verdict::Rejected(why),
        }
    }

    /// The files stay as they are, and as they were seen: only what changes in them from now on is loaded.
    fn roll_back(&mut self) -> (Option<Fingerprint>, Verdict) {
        let Some(version) = self.plugins.earlier() else {
            return (None, Verdict::Refused(nothing_earlier()));
        };
        let fingerprint = Fingerprint::of(&version.steps);
        let verdict = match self.outcome(&version) {
            Outcome::Taken => {
                self.plugins.went_back();
                self.config = version.config;
                self.running = None;
                Verdict::Taken
            }
            Outcome::Rejected(why) => Verdict::Rejected(why),
        };
        (Some(fingerprint), verdict)
    }

    /// Waits for what workers make of a version: for as long as none of them has records to try it with, unless something else comes.
    fn outcome(&mut self, version: &Version) -> Outcome {
        let trials = Arc::clone(&self.plugins.trials);
        let most = version.config.reload.max_failures;
        self.plugins.max_failures.store(most, Ordering::Relaxed);
        let number = trials.begin(Arc::clone(&version.steps));
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
                self.asked.tell(pending(version));
            }
            if let Some(why) = self.look_for_another(version) {
                trials.reject(number, why.into());
            }
            // Files may be written again as they were.
            let marks = self.marks();
            if self.config.reload.watch && looked.has_changed(marks.clone()) {
                looked = Looked::new(marks);
                if self.contents() != tried {
                    trials.reject(number, ANOTHER.into());
                }
            }
        }
    }

    /// Whether a request has come that ends the trial of this version, and why.
    fn look_for_another(&mut self, version: &Version) -> Option<&'static str> {
        if self.next.is_none() {
            self.next = self.ask(Duration::ZERO);
        }
        let next = self.next.as_mut()?;
        match (self.asked.action, next.action) {
            // Asked for twice, it is one: who asked for it again may not have heard of the first.
            (Action::Rollback, Action::Rollback) => {
                next.tell(pending(version));
                self.next = None;
                None
            }
            (_, Action::Rollback) => Some("a rollback came before it was decided"),
            (_, Action::Reload) => Some(ANOTHER),
        }
    }

    /// Says and remembers what became of a version, and tells whoever asked for it.
    fn settle(&mut self, version: Option<Fingerprint>, verdict: Verdict) {
        let Asked { action, by, .. } = self.asked;
        let revision = version.as_ref().map(|version| version.revision.clone());
        tell(action, by, revision.as_deref().unwrap_or("?"), &verdict);
        // Files that only were written again are nothing to remember.
        if verdict != Verdict::Unchanged || by != By::File {
            self.plugins.note(Reload {
                at: wall_clock::now(),
                action,
                by,
                version,
                verdict: verdict.clone(),
            });
        }
        self.asked.tell(Answer {
            verdict: Some(verdict),
            revision,
        });
    }
}

fn pending(version: &Version) -> Answer {
    Answer {
        verdict: None,
        revision: Some(Fingerprint::of(&version.steps).revision),
    }
}

fn tell(action: Action, by: By, revision: &str, verdict: &Verdict) {
    let (by, action) = (by.word(), action.word());
    match verdict {
        Verdict::Taken => tracing::info!(revision, by, "the {action} is taken: other plugins run"),
        Verdict::Unchanged => tracing::debug!(revision, by, "the {action} changes nothing"),
        Verdict::Rejected(why) => tracing::error!(
            revision,
            by,
            "the {action} is rejected, and the old version runs on: {why}"
        ),
        Verdict::Refused(why) => tracing::error!(
            revision,
            by,
            "the {action} is refused, and the old version runs on: {why}"
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
