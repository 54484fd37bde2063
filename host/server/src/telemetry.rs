//! Where log lines go: standard error, for people or as JSON. What is logged is chosen by `MILLSTREAM_LOG`, in the syntax of
//! tracing-subscriber's filters; `info` where it says nothing. A progress bar at a terminal stands below them.

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

struct AboveBars;

impl Write for AboveBars {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        BARS.suspend(|| std::io::stderr().write(bytes))
    }

    fn flush(&mut self) -> std::io::Result<()> {
        std::io::stderr().flush()
    }
}
