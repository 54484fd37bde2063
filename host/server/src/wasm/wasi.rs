//! What a component may import of WASI 0.2: clocks and randomness always, an environment, output and stubs where the pipeline file allows them,
//! and nothing that reaches beyond the process.
//!
//! Invariant: no call into the host waits past the deadline of the call into the plugin.

use std::time::Instant;

use wasmtime::component::{HasData, Linker, Resource, ResourceTable};
use wasmtime::{Result, Trap};
use wasmtime_wasi::cli::{IsTerminal, StdoutStream, WasiCli, WasiCliView as _};
use wasmtime_wasi::clocks::{WasiClocks, WasiClocksView as _};
use wasmtime_wasi::filesystem::{WasiFilesystem, WasiFilesystemView as _};
use wasmtime_wasi::p2::bindings::io::poll as waiting;
use wasmtime_wasi::p2::bindings::sync::io::{poll, streams};
use wasmtime_wasi::p2::bindings::{cli, clocks, filesystem, random, sockets, sync};
use wasmtime_wasi::p2::{DynPollable, OutputStream, Pollable, StreamResult};
use wasmtime_wasi::random::{WasiRandom, WasiRandomView as _};
use wasmtime_wasi::runtime::in_tokio;
use wasmtime_wasi::sockets::{WasiSockets, WasiSocketsView as _};
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView};

use super::bindings::millstream::plugin::log::Level;
use super::instance::State;
use super::plugin_log::PluginLog;
use crate::plugin_allow::{Allow, Stub};

/// Things of the host that an instance may hold at a time: what it can wait for, and streams.
const RESOURCES_MAX: usize = 1000;

/// Random bytes in one call.
const RANDOM_MAX: u64 = 1 << 20;

/// Bytes of a line that is written to standard output: a longer one is cut into several.
const LINE_MAX: usize = 1000;

/// What an import needs to be allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Need {
    Nothing,
    Stdout,
    Stub(Stub),
}

impl Need {
    fn of(import: &str) -> Option<Self> {
        let (name, version) = import.strip_prefix("wasi:")?.split_once('@')?;
        if !version.starts_with("0.2.") {
            return None;
        }
        Some(match name {
            "cli/exit"
            | "clocks/monotonic-clock"
            | "clocks/wall-clock"
            | "io/error"
            | "io/poll"
            | "io/streams"
            | "random/insecure"
            | "random/insecure-seed"
            | "random/random" => Self::Nothing,
            "cli/environment" => Self::Stub(Stub::Environment),
            "cli/stderr"
            | "cli/stdin"
            | "cli/stdout"
            | "cli/terminal-input"
            | "cli/terminal-output"
            | "cli/terminal-stderr"
            | "cli/terminal-stdin"
            | "cli/terminal-stdout" => Self::Stdout,
            "filesystem/preopens" | "filesystem/types" => Self::Stub(Stub::Filesystem),
            "sockets/instance-network"
            | "sockets/ip-name-lookup"
            | "sockets/network"
            | "sockets/tcp"
            | "sockets/tcp-create-socket"
            | "sockets/udp"
            | "sockets/udp-create-socket" => Self::Stub(Stub::Sockets),
            _ => return None,
        })
    }

    fn is_met(self, allow: &Allow) -> bool {
        match self {
            Self::Nothing => true,
            Self::Stdout => allow.stdout,
            Self::Stub(Stub::Environment) if !allow.env.is_empty() => true,
            Self::Stub(stub) => allow.stubs.contains(&stub),
        }
    }

    fn allow(self, allow: &mut Allow) {
        match self {
            Self::Nothing => {}
            Self::Stdout => allow.stdout = true,
            Self::Stub(stub) if !allow.stubs.contains(&stub) => allow.stubs.push(stub),
            Self::Stub(_) => {}
        }
    }
}

/// Whether an import is WASI's, and one that could be allowed.
pub fn is_known(import: &str) -> bool {
    Need::of(import).is_some()
}

/// The imports that aren't allowed, and a line of the pipeline file that would allow them beside what it does already.
pub fn unmet<'i>(imports: &[&'i str], allow: &Allow) -> Option<(Vec<&'i str>, String)> {
    let mut more = allow.clone();
    let unmet = imports.iter().filter(|import| {
        let need = Need::of(import).filter(|need| !need.is_met(allow));
        need.inspect(|need| need.allow(&mut more)).is_some()
    });
    let unmet: Vec<&str> = unmet.copied().collect();
    (!unmet.is_empty()).then(|| (unmet, line(&more)))
}

fn line(allow: &Allow) -> String {
    let quoted = |words: Vec<&str>| {
        let words: Vec<String> = words.iter().map(|word| format!("{word:?}")).collect();
        words.join(", ")
    };
    let mut parts = Vec::new();
    if !allow.env.is_empty() {
        parts.push(format!(
            "env = [{}]",
            quoted(allow.env.iter().map(String::as_str).collect())
        ));
    }
    if allow.stdout {
        parts.push("stdout = true".into());
    }
    if !allow.stubs.is_empty() {
        parts.push(format!(
            "stubs = [{}]",
            quoted(allow.stubs.iter().map(|stub| stub.word()).collect())
        ));
    }
    format!("allow = {{ {} }}", parts.join(", "))
}

/// Gives a component what it is allowed. What it doesn't import costs it nothing.
pub fn add_to_linker(linker: &mut Linker<State>, allow: &Allow) -> Result<()> {
    let l = linker;
    wasmtime_wasi::p2::bindings::io::error::add_to_linker::<_, Table>(l, table)?;
    poll::add_to_linker::<_, Polls>(l, State::polls)?;
    streams::add_to_linker::<_, Table>(l, table)?;
    clocks::wall_clock::add_to_linker::<_, WasiClocks>(l, State::clocks)?;
    clocks::monotonic_clock::add_to_linker::<_, WasiClocks>(l, State::clocks)?;
    random::random::add_to_linker::<_, WasiRandom>(l, State::random)?;
    random::insecure::add_to_linker::<_, WasiRandom>(l, State::random)?;
    random::insecure_seed::add_to_linker::<_, WasiRandom>(l, State::random)?;
    cli::exit::add_to_linker::<_, WasiCli>(l, State::cli)?;
    if Need::Stub(Stub::Environment).is_met(allow) {
        cli::environment::add_to_linker::<_, WasiCli>(l, State::cli)?;
    }
    if allow.stdout {
        cli::stdin::add_to_linker::<_, WasiCli>(l, State::cli)?;
        cli::stdout::add_to_linker::<_, WasiCli>(l, State::cli)?;
        cli::stderr::add_to_linker::<_, WasiCli>(l, State::cli)?;
        cli::terminal_input::add_to_linker::<_, WasiCli>(l, State::cli)?;
        cli::terminal_output::add_to_linker::<_, WasiCli>(l, State::cli)?;
        cli::terminal_stdin::add_to_linker::<_, WasiCli>(l, State::cli)?;
        cli::terminal_stdout::add_to_linker::<_, WasiCli>(l, State::cli)?;
        cli::terminal_stderr::add_to_linker::<_, WasiCli>(l, State::cli)?;
    }
    if allow.stubs.contains(&Stub::Filesystem) {
        filesystem::preopens::add_to_linker::<_, WasiFilesystem>(l, State::filesystem)?;
        sync::filesystem::types::add_to_linker::<_, WasiFilesystem>(l, State::filesystem)?;
    }
    if allow.stubs.contains(&Stub::Sockets) {
        let options = sockets::network::LinkOptions::default();
        sockets::network::add_to_linker::<_, WasiSockets>(l, &options, State::sockets)?;
        sockets::instance_network::add_to_linker::<_, WasiSockets>(l, State::sockets)?;
        sockets::ip_name_lookup::add_to_linker::<_, WasiSockets>(l, State::sockets)?;
        sockets::tcp_create_socket::add_to_linker::<_, WasiSockets>(l, State::sockets)?;
        sync::sockets::tcp::add_to_linker::<_, WasiSockets>(l, State::sockets)?;
        sync::sockets::udp::add_to_linker::<_, WasiSockets>(l, State::sockets)?;
        sync::sockets::udp_create_socket::add_to_linker::<_, WasiSockets>(l, State::sockets)?;
    }
    Ok(())
}

/// What the host keeps of WASI for an instance.
pub struct Wasi {
    context: WasiCtx,
    table: ResourceTable,
    /// When the call into the plugin is over.
    pub until: Instant,
}

impl Wasi {
    pub fn new(allow: &Allow, log: &PluginLog) -> Self {
        let mut builder = WasiCtx::builder();
        let out = |level| Output {
            level,
            log: log.clone(),
        };
        builder.stdout(out(Level::Info)).stderr(out(Level::Warn));
        builder
            .allow_tcp(false)
            .allow_udp(false)
            .allow_ip_name_lookup(false);
        builder.max_random_size(RANDOM_MAX);
        for name in &allow.env {
            if let Ok(value) = std::env::var(name) {
                builder.env(name, value);
            }
        }
        let mut table = ResourceTable::new();
        table.set_max_capacity(RESOURCES_MAX);
        Self {
            context: builder.build(),
            table,
            until: Instant::now(),
        }
    }
}

/// Why there is one in every state whose component imports it.
const LINKED: &str = "what imports WASI was given it";

impl State {
    fn wasi(&mut self) -> &mut Wasi {
        self.wasi.as_mut().expect(LINKED)
    }

    fn polls(&mut self) -> Bounded<'_> {
        let wasi = self.wasi();
        Bounded {
            table: &mut wasi.table,
            until: wasi.until,
        }
    }
}

impl WasiView for State {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        let wasi = self.wasi();
        WasiCtxView {
            ctx: &mut wasi.context,
            table: &mut wasi.table,
        }
    }
}

struct Table;

impl HasData for Table {
    type Data<'a> = &'a mut ResourceTable;
}

fn table(state: &mut State) -> &mut ResourceTable {
    &mut state.wasi().table
}

struct Polls;

impl HasData for Polls {
    type Data<'a> = Bounded<'a>;
}

/// Waiting that ends with the call.
struct Bounded<'a> {
    table: &'a mut ResourceTable,
    until: Instant,
}

impl Bounded<'_> {
    fn wait<T>(until: Instant, ready: impl Future<Output = Result<T>>) -> Result<T> {
        let waited = in_tokio(async { tokio::time::timeout_at(until.into(), ready).await });
        waited.unwrap_or_else(|_| Err(Trap::Interrupt.into()))
    }
}

impl poll::Host for Bounded<'_> {
    fn poll(&mut self, pollables: Vec<Resource<DynPollable>>) -> Result<Vec<u32>> {
        Self::wait(self.until, waiting::Host::poll(self.table, pollables))
    }
}

impl poll::HostPollable for Bounded<'_> {
    fn ready(&mut self, pollable: Resource<DynPollable>) -> Result<bool> {
        Self::wait(
            self.until,
            waiting::HostPollable::ready(self.table, pollable),
        )
    }

    fn block(&mut self, pollable: Resource<DynPollable>) -> Result<()> {
        Self::wait(
            self.until,
            waiting::HostPollable::block(self.table, pollable),
        )
    }

    fn drop(&mut self, pollable: Resource<DynPollable>) -> Result<()> {
        waiting::HostPollable::drop(self.table, pollable)
    }
}

/// Standard output or error.
#[derive(Clone)]
struct Output {
    level: Level,
    log: PluginLog,
}

impl IsTerminal for Output {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdoutStream for Output {
    fn async_stream(&self) -> Box<dyn tokio::io::AsyncWrite + Send + Sync> {
        // For WASI 0.3, which isn't linked.
        Box::new(tokio::io::sink())
    }

    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(Lines {
            to: self.clone(),
            line: Vec::new(),
        })
    }
}

/// What was written since the last line's end.
struct Lines {
    to: Output,
    line: Vec<u8>,
}

impl Lines {
    fn end(&mut self) {
        let line = String::from_utf8_lossy(&self.line);
        if !line.trim().is_empty() {
            self.to.log.write(self.to.level, &line);
        }
        self.line.clear();
    }
}

#[wasmtime_wasi::async_trait]
impl Pollable for Lines {
    async fn ready(&mut self) {}
}

impl OutputStream for Lines {
    fn write(&mut self, bytes: bytes::Bytes) -> StreamResult<()> {
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            let (text, is_over) = match piece.strip_suffix(b"\n") {
                Some(text) => (text, true),
                None => (piece, false),
            };
            for part in text.chunks(LINE_MAX) {
                if self.line.len() + part.len() > LINE_MAX {
                    self.end();
                }
                self.line.extend_from_slice(part);
            }
            if is_over {
                self.end();
            }
        }
        Ok(())
    }

    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        const AT_ONCE: usize = 64 << 10;
        Ok(AT_ONCE)
    }
}

impl Drop for Lines {
    fn drop(&mut self) {
        self.end();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_allowed_is_named_with_the_line_that_would() {
        let imports = [
            "wasi:clocks/wall-clock@0.2.3",
            "wasi:cli/environment@0.2.3",
            "wasi:cli/stdout@0.2.3",
            "wasi:sockets/tcp@0.2.0",
        ];
        let found = unmet(&imports, &Allow::default());
        let line = "allow = { stdout = true, stubs = [\"environment\", \"sockets\"] }";
        assert_eq!(found, Some((imports[1..].to_vec(), line.into())));
        let allow = Allow {
            env: vec!["REGION".into()],
            stdout: true,
            stubs: vec![Stub::Filesystem],
        };
        let line =
            "allow = { env = [\"REGION\"], stdout = true, stubs = [\"filesystem\", \"sockets\"] }";
        assert_eq!(
            unmet(&imports, &allow),
            Some((vec![imports[3]], line.into()))
        );
        assert_eq!(unmet(&imports[..3], &allow), None);
    }

    #[test]
    fn only_wasi_that_could_be_allowed_is_known() {
        let known = ["wasi:io/poll@0.2.9", "wasi:filesystem/types@0.2.0"];
        assert!(known.into_iter().all(is_known));
        let unknown = [
            "wasi:io/poll@0.3.0",
            "wasi:io/poll",
            "wasi:http/outgoing-handler@0.2.0",
            "wasi:cli/run@0.2.0",
            "other:io/poll@0.2.0",
        ];
        assert!(!unknown.into_iter().any(is_known));
    }
}
