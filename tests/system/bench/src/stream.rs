//! A stream of events that Millstream keeps as a map, for benches that do something beside it.

use std::fs::File;
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use clap::Args;
use rig::folder::Folder;
use rig::judge;
use rig::kafka::Kafka;
use rig::ports;

use crate::{INPUT, PARTITIONS, committed, watcher};

const OUTPUT: &str = "adults";
/// A process is given so long to catch up and serve.
const READY_MAX: Duration = Duration::from_secs(120);
const POLL: Duration = Duration::from_millis(100);

/// What `cargo xtask` names.
#[derive(Args, Clone, Debug)]
pub struct Binaries {
    /// Folder of the binary `millstream`.
    #[arg(long)]
    binaries: PathBuf,
    /// The component of examples/01-materialize-users.
    #[arg(long)]
    plugin: PathBuf,
}

#[derive(Debug)]
pub struct Stream {
    pub kafka: Kafka,
    pub folder: Folder,
    /// Events written so far.
    pub written: u64,
    binaries: Binaries,
    /// Different keys.
    ids: u64,
}

/// A running Millstream.
#[derive(Debug)]
pub struct Server {
    pub child: Child,
    pub address: SocketAddr,
    pub group: String,
}

impl Stream {
    /// On a broker of its own.
    pub fn new(binaries: &Binaries, ids: u64) -> Self {
        let kafka = Kafka::start();
        kafka.topic(INPUT, PARTITIONS, &[]);
        kafka.topic(OUTPUT, PARTITIONS, &[]);
        Self {
            kafka,
            folder: Folder::new("bench"),
            written: 0,
            binaries: binaries.clone(),
            ids,
        }
    }

    /// Writes the next so many events.
    pub fn write(&mut self, events: u64) {
        let [text, ids, from] = [events, self.ids, self.written].map(|number| number.to_string());
        let direct = self.kafka.direct();
        let words = [
            "generate", &direct, INPUT, &text, &ids, "0", "--from", &from,
        ];
        judge::run(&words);
        self.written += events;
    }

    /// A process of a pipeline of that name, which reads all events and keeps a map of users. Waits until it listens.
    pub fn start(&self, group: &str, interval: &str, arguments: &[&str]) -> Result<Server> {
        let plugin = self.binaries.plugin.display();
        let pipeline = format!(
            r#"name = "{group}"
kafka.bootstrap.servers = "{}"
checkpoint = {{ guarantee = "exactly-once", interval = "{interval}" }}
memory = "2GiB"
sources.events.topics = ["{INPUT}"]
plugins.users.path = "{plugin}"
steps.parse = {{ inputs = ["events"], plugin = "users", config = {{ min_age = 18 }}, on-error = "skip" }}
maps.users = {{}}
sinks.users = {{ inputs = ["parse"], map = "users" }}
sinks.adults = {{ inputs = ["parse"], topic = "{OUTPUT}" }}
"#,
            self.kafka.direct()
        );
        let pipeline = self.folder.write(&format!("{group}.toml"), &pipeline);
        let log = File::create(self.folder.join(&format!("{group}.log")))?;
        let address = SocketAddr::from(([127, 0, 0, 1], ports::free(&[0])));
        let child = Command::new(self.binaries.binaries.join("millstream"))
            .arg("run")
            .arg(pipeline)
            .args(["--http", &address.to_string()])
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("millstream can't be started; build first")?;
        let server = Server {
            child,
            address,
            group: group.to_owned(),
        };
        let began = Instant::now();
        while TcpStream::connect(server.address).is_err() {
            ensure!(began.elapsed() < READY_MAX, "it does not listen");
            std::thread::sleep(POLL);
        }
        Ok(server)
    }

    /// Waits until everything that was written is committed.
    pub fn wait_committed(&self, server: &Server) -> Result<()> {
        let watcher = watcher(&self.kafka, &server.group)?;
        let began = Instant::now();
        while committed(&watcher)? < self.written {
            ensure!(began.elapsed() < READY_MAX, "it does not catch up");
            std::thread::sleep(POLL);
        }
        Ok(())
    }
}

impl Server {
    /// Without a word: what it committed is all that counts.
    pub fn end(mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }
}
