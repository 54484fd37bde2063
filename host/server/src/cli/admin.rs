//! Where a process may be asked for reloads and rollbacks over HTTP, and by whom: an address of its own, and a token from outside of the
//! pipeline file.
//!
//! Invariant: without a token nothing listens, and only an address that was named is one that other hosts reach.

use std::env::{self, VarError};
use std::fs::File;
use std::io::Read as _;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};

use clap::Args;

use crate::query::{self, Hosted, Server, Token};
use crate::supervisor::Failure;

const ADDRESS: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 8081);
/// Where the token stands, unless a file is named.
const VARIABLE: &str = "MILLSTREAM_ADMIN_TOKEN";
/// Bytes of its file; a token is shorter.
const FILE_BYTES_MAX: u64 = 4096;

#[derive(Debug, Args)]
pub struct Admin {
    /// Where reloads and rollbacks can be asked for over HTTP, by who has the token: 127.0.0.1:8081 by default. Without a token nowhere.
    #[arg(long = "admin", value_name = "ADDR")]
    address: Option<SocketAddr>,
    /// The file with the token, 16 characters at least; else it is the value of MILLSTREAM_ADMIN_TOKEN, if there is one.
    #[arg(long = "admin-token-file", value_name = "FILE")]
    token_file: Option<PathBuf>,
}

/// A listener that nobody is answered at yet.
#[derive(Debug)]
pub struct Opened {
    address: SocketAddr,
    listener: TcpListener,
    token: Token,
}

impl Admin {
    /// Listens, where there is a token.
    pub fn open(&self) -> Result<Option<Opened>, Failure> {
        let Some(token) = self.token().map_err(Failure::CommandLine)? else {
            return match self.address {
                None => Ok(None),
                Some(address) => Err(Failure::CommandLine(format!(
                    "--admin {address}: there is no token, so nobody could ask. Give one by --admin-token-file or {VARIABLE}"
                ))),
            };
        };
        let address = self.address.unwrap_or(ADDRESS);
        let (server, listener) = Server::bind(address).map_err(|source| Failure::System {
            what: format!("--admin can't listen on {address}"),
            source,
        })?;
        Ok(Some(Opened {
            address: server.address,
            listener,
            token,
        }))
    }

    fn token(&self) -> Result<Option<Token>, String> {
        if let Some(file) = &self.token_file {
            let token = read(file).and_then(|text| Token::new(&text));
            let token =
                token.map_err(|why| format!("--admin-token-file {}: {why}", file.display()));
            return token.map(Some);
        }
        let text = match env::var(VARIABLE) {
            Err(VarError::NotPresent) => return Ok(None),
            Err(VarError::NotUnicode(_)) => Err("it is not UTF-8".into()),
            Ok(text) => Ok(text),
        };
        let token = text.and_then(|text| Token::new(&text));
        token.map(Some).map_err(|why| format!("{VARIABLE}: {why}"))
    }
}

impl Opened {
    /// Answers for these pipelines, until the process ends.
    pub fn serve(self, hosted: &Hosted) -> Result<(), Failure> {
        let served = query::serve_admin(self.listener, hosted.clone(), self.token);
        served.map_err(|source| Failure::System {
            what: "--admin can't be served".into(),
            source,
        })?;
        tracing::info!("reloads and rollbacks: http://{}", self.address);
        if !self.address.ip().is_loopback() {
            tracing::warn!(
                "--admin {} can be reached by others, and the token comes as clear text: have something before it that speaks TLS",
                self.address
            );
        }
        Ok(())
    }
}

/// What a file says, but for one line break at its end.
fn read(file: &Path) -> Result<String, String> {
    let mut text = String::new();
    let opened = File::open(file);
    let read = opened.and_then(|file| file.take(FILE_BYTES_MAX).read_to_string(&mut text));
    read.map_err(|why| why.to_string())?;
    let line = text.strip_suffix('\n').unwrap_or(&text);
    Ok(line.strip_suffix('\r').unwrap_or(line).into())
}
