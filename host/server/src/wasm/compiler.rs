//! Compiling a component, in a process of its own: one that is made to be expensive, or to break the compiler, takes its time and memory
//! there, up to a limit, and not those of the process that streams.
//!
//! Invariant: what comes back was made by this executable, with the settings of [`config`].

use std::io::{self, Read as _, Write as _};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::process::{Child, Command, ExitCode, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{
    Resource, Rlimit, Signal, getrlimit, set_parent_process_death_signal, setrlimit,
};
use wasmtime::{Config, Engine};

use super::deadline;

/// The word on the command line that makes a process compile what it reads.
pub const VERB: &str = "compile-component";

/// Of all cores together. Components that bring an interpreter of their own, of some 40 MB, take a tenth of it.
const CPU_MAX: Duration = Duration::from_secs(300);
/// Until it is ended, whatever it waits for.
const TIME_MAX: Duration = Duration::from_secs(300);
/// Of address space, in bytes.
const MEMORY_MAX: u64 = 4 << 30;

/// Exit code for a file that is no component; the words are on standard error.
const REFUSED: u8 = 3;

/// What an executable may need of its environment to run at all, and how many threads it takes.
const PASSED_ON: [&str; 3] = ["LD_LIBRARY_PATH", "LD_PRELOAD", "RAYON_NUM_THREADS"];

const LOOK: Duration = Duration::from_millis(1);

/// Bytes of what the compiler says that are passed on.
const WORDS_MAX: u64 = 2000;

#[derive(Debug)]
pub enum CompileError {
    /// It isn't a sound component.
    Refused(String),
    /// It may be one, and can't be compiled.
    Failed(String),
}

/// How everything is compiled, and run.
pub fn config() -> Config {
    let mut config = Config::new();
    config.wasm_component_model(true).concurrency_support(false);
    deadline::enable(&mut config);
    config
}

/// Has another process compile a component to what an engine of [`config`] loads.
pub fn compile(component: &[u8]) -> Result<Vec<u8>, CompileError> {
    let failed = |error: io::Error| CompileError::Failed(format!("no compiler runs: {error}"));
    // Whatever stands at the path of this executable by now.
    let mut child = Command::new("/proc/self/exe")
        .arg0("millstream")
        .arg(VERB)
        .env_clear()
        .envs(std::env::vars_os().filter(|(name, _)| PASSED_ON.iter().any(|passed| name == passed)))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(failed)?;
    let mut input = child.stdin.take().expect("it is piped");
    let mut output = child.stdout.take().expect("it is piped");
    let mut words = child.stderr.take().expect("it is piped");
    let (ended, code, said) = std::thread::scope(|scope| {
        // It may end without reading: how it ended says why.
        scope.spawn(move || input.write_all(component));
        let code = scope.spawn(move || {
            let mut code = Vec::new();
            output.read_to_end(&mut code).map(|_| code)
        });
        let said = scope.spawn(move || {
            let mut said = Vec::new();
            words.by_ref().take(WORDS_MAX).read_to_end(&mut said)?;
            io::copy(&mut words, &mut io::sink())?;
            Ok::<_, io::Error>(String::from_utf8_lossy(&said).trim().to_owned())
        });
        let ended = wait(&mut child);
        let code = code.join().expect("a panic ends the process");
        (ended, code, said.join().expect("a panic ends the process"))
    });
    let (status, said) = (ended.map_err(failed)?, said.map_err(failed)?);
    match status {
        Some(status) if status.success() => code.map_err(failed),
        Some(status) if status.code() == Some(i32::from(REFUSED)) => {
            Err(CompileError::Refused(said))
        }
        ended => Err(CompileError::Failed(reason(ended, &said))),
    }
}

/// None where it had to be ended.
fn wait(child: &mut Child) -> io::Result<Option<ExitStatus>> {
    let began = Instant::now();
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if began.elapsed() > TIME_MAX {
            child.kill()?;
            child.wait()?;
            return Ok(None);
        }
        std::thread::sleep(LOOK);
    }
}

fn reason(ended: Option<ExitStatus>, said: &str) -> String {
    const OUT_OF_TIME: i32 = Signal::XCPU.as_raw();
    const ABORTED: i32 = Signal::ABORT.as_raw();
    let first = said.lines().next().unwrap_or_default();
    let Some(status) = ended else {
        return format!("it took more than {TIME_MAX:?}");
    };
    match status.signal() {
        Some(OUT_OF_TIME) => format!("it took more than {CPU_MAX:?} of processor time"),
        Some(ABORTED) => format!("it may have needed more than 4 GiB of memory ({first})"),
        _ => format!("the compiler ended with {status}: {first}"),
    }
}

/// What the other process does: from standard input to standard output.
pub fn main() -> ExitCode {
    let compiled = limit().and_then(|()| {
        let mut component = Vec::new();
        io::stdin().lock().read_to_end(&mut component)?;
        Ok(component)
    });
    let compiled = compiled.map_err(|error| (1, error.to_string()));
    let compiled = compiled.and_then(|component| {
        let engine = Engine::new(&config()).map_err(|error| (1, format!("{error:#}")))?;
        let code = engine.precompile_component(&component);
        code.map_err(|error| (REFUSED, format!("{error:#}")))
    });
    let written = compiled.and_then(|code| {
        let mut output = io::stdout().lock();
        let written = output.write_all(&code).and_then(|()| output.flush());
        written.map_err(|error| (1, error.to_string()))
    });
    match written {
        Ok(()) => ExitCode::SUCCESS,
        Err((code, why)) => {
            // Whoever would read it may be gone.
            let _ = writeln!(io::stderr(), "{why}");
            ExitCode::from(code)
        }
    }
}

fn limit() -> io::Result<()> {
    // Nobody wants the code any more once the thread that asked for it is gone.
    set_parent_process_death_signal(Some(Signal::KILL))?;
    set(Resource::Core, 0, 0)?;
    set(Resource::As, MEMORY_MAX, MEMORY_MAX)?;
    // Past the first the signal that says so comes, past the second one that can't be caught.
    let seconds = CPU_MAX.as_secs();
    set(Resource::Cpu, seconds, seconds + 5)
}

/// Where less is allowed already, it stays so.
fn set(resource: Resource, soft: u64, hard: u64) -> io::Result<()> {
    let allowed = getrlimit(resource);
    let least = |wanted: u64, allowed: Option<u64>| {
        Some(allowed.map_or(wanted, |allowed| wanted.min(allowed)))
    };
    let limit = Rlimit {
        current: least(soft, allowed.current),
        maximum: least(hard, allowed.maximum),
    };
    Ok(setrlimit(resource, limit)?)
}
