//! Where log lines go: standard error, for people or as JSON. What is logged is chosen by `MILLSTREAM_LOG`, in the syntax of
//! tracing-subscriber's filters; `info` where it says nothing. A progress bar at a terminal stands below them.
//!
//! Invariant: nothing ends since nobody reads its log any more, from a pipe or a file.

use std::io::{IsTerminal, Write};
use std::sync::LazyLock;

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use tracing_subscriber::EnvFilter;

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    Text,
    Json,
}

/// What is drawn on standard error below the log.
static BARS: LazyLock<MultiProgress> = LazyLock::new(MultiProgress::new);

pub fn start(format: LogFormat) {
    let filter =
        EnvFilter::try_from_env("MILLSTREAM_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    let logs = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(|| AboveBars);
    match format {
        LogFormat::Text => {
            let colours = std::io::stderr().is_terminal();
            logs.with_ansi(colours).with_target(false).init();
        }
        LogFormat::Json => logs.json().init(),
    }
}

/// A bar below the log, where somebody looks at it.
pub fn bar(style: ProgressStyle) -> Option<ProgressBar> {
    let looked_at = std::io::stderr().is_terminal();
    looked_at.then(|| BARS.add(ProgressBar::new(0).with_style(style)))
}

/// A line for whoever reads standard error.
pub fn say(line: &str) {
    // Nobody may read it any more.
    let _ = writeln!(std::io::stderr(), "{line}");
}

struct AboveBars;

impl Write for AboveBars {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        // The subscriber would complain of an error where the error is, and panic over that.
        let mut log = std::io::stderr();
        let _ = match log.is_terminal() {
            true => BARS.suspend(|| log.write_all(bytes)),
            false => log.write_all(bytes),
        };
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
