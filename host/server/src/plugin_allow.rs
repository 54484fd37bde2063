//! What a plugin is allowed beside the contract, as the pipeline file says it: `[plugins.NAME] allow`. `config` reads it, `wasm` links no more.

/// Nothing, unless the file says so. Clocks and randomness need no leave.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Allow {
    /// Names of variables of this process' environment that it may read.
    pub env: Vec<String>,
    /// What it writes to its standard output and error goes to the log; its standard input is empty.
    pub stdout: bool,
    /// Interfaces that it finds, and that have nothing behind them.
    pub stubs: Vec<Stub>,
}

/// What the runtime of a language imports, whether or not the code ever asks for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stub {
    /// No variable, no argument.
    Environment,
    /// No folder is open.
    Filesystem,
    /// Every address is refused, and every name.
    Sockets,
}

impl Stub {
    pub const ALL: [Self; 3] = [Self::Environment, Self::Filesystem, Self::Sockets];

    /// Its word in the pipeline file.
    pub fn word(self) -> &'static str {
        match self {
            Self::Environment => "environment",
            Self::Filesystem => "filesystem",
            Self::Sockets => "sockets",
        }
    }
}
