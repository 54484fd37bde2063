//! Where log lines go: standard error, for people or as JSON. What is logged is chosen by `MILLSTREAM_LOG`, in the syntax of
//! tracing-subscriber's filters; `info` where it says nothing.

use tracing_subscriber::EnvFilter;

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    Text,
    Json,
}

pub fn start(format: LogFormat) {
    let filter =
        EnvFilter::try_from_env("MILLSTREAM_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    let logs = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    match format {
        LogFormat::Text => {
            let colours = std::io::IsTerminal::is_terminal(&std::io::stderr());
            logs.with_ansi(colours).with_target(false).init();
        }
        LogFormat::Json => logs.json().init(),
    }
}
