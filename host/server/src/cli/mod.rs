//! The command line. Exit codes: 0 done, 1 it failed while running, 2 the configuration or
//! the command line is wrong, 70 a bug of ours.

mod admin;
mod dead_letters;
mod drain;
mod here;
mod reload;
mod reset;
mod run;
mod state;
mod status;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::Ordering;
use std::time::Duration;

use clap::{Parser, Subcommand};

use crate::cluster::{Admin as _, Cluster as _};
use crate::config::{self, Config, Overrides};
use crate::load;
use crate::reload::Action;
use crate::seat_lock::DrainRequest;
use crate::supervisor::{Control, Failure};
use crate::telemetry::{self, LogFormat};
use crate::topics;
use crate::wasm::{self, Runtime, Ticker};

const FAILED: u8 = 1;
const MISCONFIGURED: u8 = 2;
/// `EX_SOFTWARE` of BSD's sysexits.
const BUG: u8 = 70;

/// Stream processing on Kafka, with your code in WebAssembly.
#[derive(Debug, Parser)]
#[command(version, arg_required_else_help = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
    /// How log lines are written to standard error.
    #[arg(long, global = true, value_enum, default_value = "text")]
    log: LogFormat,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run pipelines until SIGTERM or Ctrl-C.
    Run(run::Arguments),
    /// Check a pipeline file and its plugins, without a broker.
    Check {
        /// The pipeline file.
        pipeline: PathBuf,
        /// Ask the brokers too: can they be reached, are the topics there, and do they fit? Nothing is made or changed.
        #[arg(long)]
        connect: bool,
        /// Brokers to start from, in place of the file's `bootstrap.servers`.
        #[arg(long, value_name = "HOST:PORT")]
        bootstrap: Option<String>,
        /// Give up when no broker could be reached for so long.
        #[arg(long, value_name = "DURATION", value_parser = duration, default_value = "30s")]
        connect_timeout: Duration,
    },
    /// Show what a running process is doing.
    Status(status::Arguments),
    /// Have a pipeline that runs on this host commit, leave the group and end: others have its partitions at once.
    Drain(here::Named),
    /// Have a pipeline that runs on this host look at its files now, and take new plugins, configurations and limits over if they prove good.
    Reload(here::Named),
    /// Have a pipeline that runs on this host go back to the plugins, configurations and limits that ran before the last reload that was
    /// taken, if they prove good.
    Rollback(here::Named),
    /// Show what the steps of a pipeline have set aside.
    #[command(subcommand)]
    DeadLetters(dead_letters::Command),
    /// Delete what a pipeline has left: committed offsets and changelogs in Kafka, snapshots on this host. Shows what there is, and
    /// asks.
    Reset(reset::Arguments),
    /// Compile what comes on standard input, for the process that streams.
    #[command(name = wasm::COMPILE, hide = true)]
    Compile,
    /// Show what is kept on this host.
    #[command(subcommand)]
    State(state::Command),
}

pub fn main() -> ExitCode {
    let arguments = Arguments::parse();
    telemetry::start(arguments.log);
    end_on_panic();
    match arguments.command {
        Command::Run(arguments) => finish(run::main(arguments)),
        Command::Check {
            pipeline,
            connect,
            bootstrap,
            connect_timeout,
        } => {
            let overrides = Overrides {
                bootstrap,
                embedded: false,
            };
            let patience = connect.then_some(connect_timeout);
            finish(check(&pipeline, &overrides, patience))
        }
        Command::Status(arguments) => finish(status::main(&arguments)),
        Command::Drain(named) => finish(drain::main(named)),
        Command::Reload(named) => finish(reload::main(named, Action::Reload)),
        Command::Rollback(named) => finish(reload::main(named, Action::Rollback)),
        Command::DeadLetters(command) => finish(dead_letters::main(command)),
        Command::Reset(arguments) => finish(reset::main(arguments)),
        Command::State(command) => finish(state::main(command)),
        Command::Compile => wasm::compile_component(),
    }
}

fn read(pipeline: &Path, overrides: &Overrides, runtime: &Runtime) -> Result<Config, Failure> {
    let config = config::load(pipeline, overrides);
    let config = config.map_err(|unsound| load::all_problems(unsound, runtime))?;
    for warning in &config.warnings {
        tracing::warn!("{warning}");
    }
    Ok(config)
}

/// `patience` is that with the brokers, where they are to be asked.
fn check(
    pipeline: &Path,
    overrides: &Overrides,
    patience: Option<Duration>,
) -> Result<(), Failure> {
    let runtime = runtime()?;
    let config = read(pipeline, overrides, &runtime)?;
    let _ticker = start_ticker(&runtime)?;
    let (clients, _) = load::all(&config, &runtime, "check")?;
    if patience.is_some() {
        let admin = clients.admin()?;
        admin.connect(patience, || false)?;
        topics::check(&config, &admin)?;
    }
    println!(
        "{}: pipeline \"{}\" is sound",
        pipeline.display(),
        config.pipeline.name
    );
    Ok(())
}

fn runtime() -> Result<Runtime, Failure> {
    Runtime::new().map_err(|error| Failure::Runtime(format!("{error:#}")))
}

fn start_ticker(runtime: &Runtime) -> Result<Ticker, Failure> {
    runtime.start_ticker().map_err(|source| Failure::System {
        what: "a thread".into(),
        source,
    })
}

fn finish(result: Result<(), Failure>) -> ExitCode {
    let Err(failure) = result else {
        return ExitCode::SUCCESS;
    };
    ExitCode::from(tell(&failure))
}

/// Says what failed, and returns the exit code for it.
fn tell(failure: &Failure) -> u8 {
    match failure {
        Failure::Config(problems) => telemetry::say(&problems.to_string()),
        Failure::Several(all) => {
            let codes = all.iter().map(tell);
            return codes.max().unwrap_or(FAILED);
        }
        other => telemetry::say(&format!("millstream: {other}")),
    }
    match failure {
        Failure::Config(_) | Failure::CommandLine(_) => MISCONFIGURED,
        _ => FAILED,
    }
}

/// A panic is a bug of ours, and what its thread held can't be trusted: the process ends at once, and its transactions with it.
fn end_on_panic() {
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        report(panic);
        telemetry::say("millstream: this is a bug; what was not committed comes again");
        std::process::exit(i32::from(BUG));
    }));
}

/// Asks all pipelines to end on the first SIGTERM or SIGINT; the second one ends the process at once. SIGUSR1 is `millstream drain`.
fn watch_signals(controls: Vec<Control>) -> Result<(), Failure> {
    catch_signals(controls).map_err(|source| Failure::System {
        what: "signals can't be caught".into(),
        source,
    })
}

fn catch_signals(controls: Vec<Control>) -> std::io::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let (mut terminate, mut interrupt, mut leave) = {
        let _inside = runtime.enter();
        (
            signal(SignalKind::terminate())?,
            signal(SignalKind::interrupt())?,
            signal(SignalKind::user_defined1())?,
        )
    };
    let wait = async move {
        let mut asked = false;
        loop {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
                _ = leave.recv() => {
                    tracing::info!("draining: committing what is open, leaving the group, then ending");
                    drain(&controls);
                    continue;
                }
            }
            if std::mem::replace(&mut asked, true) {
                telemetry::say(
                    "millstream: ended at once, on a second signal; what was not committed comes again",
                );
                std::process::exit(i32::from(FAILED));
            }
            tracing::info!("committing what is open, then ending");
            for control in &controls {
                control.stop.store(true, Ordering::Relaxed);
            }
        }
    };
    std::thread::Builder::new()
        .name("signals".into())
        .spawn(move || runtime.block_on::<_>(wait))?;
    Ok(())
}

/// Has the pipelines leave their groups that were asked to; where a signal came that says of none, all.
fn drain(controls: &[Control]) {
    let is_asked = |control: &&Control| {
        let request = control.drain_request.as_ref();
        request.is_some_and(DrainRequest::take)
    };
    let asked: Vec<&Control> = controls.iter().filter(is_asked).collect();
    let all = controls.iter().collect();
    for control in if asked.is_empty() { all } else { asked } {
        control.drain.store(true, Ordering::Relaxed);
        control.stop.store(true, Ordering::Relaxed);
    }
}

fn instance_name(name: &str) -> Result<String, String> {
    let fine = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    if name.is_empty() || name.len() > 100 || !name.chars().all(fine) {
        return Err("1 to 100 letters, digits, dots, hyphens and underscores".into());
    }
    Ok(name.into())
}

/// `queries.example.org:8080`, `[::1]:8080`.
fn host_and_port(text: &str) -> Result<(String, u16), String> {
    let wanted = "a host or an address, and a port: host-1:8080, 10.0.0.7:8080, [fd00::7]:8080";
    let (host, port) = text.rsplit_once(':').ok_or(wanted)?;
    let bare = host
        .strip_prefix('[')
        .map_or(Some(host), |host| host.strip_suffix(']'));
    let bare = bare.ok_or(wanted)?;
    let is_six = bare.len() < host.len();
    let fine =
        |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_') || (is_six && c == ':');
    if bare.is_empty() || bare.len() > 253 || !bare.chars().all(fine) {
        return Err(wanted.into());
    }
    Ok((host.into(), port.parse().map_err(|_| wanted)?))
}

fn host_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    instance_name(name.trim()).unwrap_or_else(|_| "millstream".into())
}

fn duration(text: &str) -> Result<Duration, String> {
    config::parse_duration(text).ok_or_else(|| "a whole number and ms, s or m: 500ms, 10s".into())
}
