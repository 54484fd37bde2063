//! A real Kafka for one test, through kafka/kafka.sh: on free ports, its data in a temporary
//! folder, gone with the value.

use std::path::PathBuf;
use std::process::{self, Command};

use crate::folder::Folder;
use crate::process::Process;
use crate::{judge, ports, repository};

/// Another test run may take the ports between the look and the start.
const START_ATTEMPTS: usize = 3;
const SECURE_OFFSET: u16 = 50;
const CONTROLLER_OFFSET: u16 = 100;
const INTERNAL_OFFSET: u16 = 150;
/// The SCRAM-SHA-512 user of the secure listener.
pub const USER: &str = "millstream";
pub const PASSWORD: &str = "millstream-secret";

/// What differs from one broker without security.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// 0 means 1.
    pub brokers: u16,
    /// Adds a SASL_SSL listener: see [`Kafka::secure_bootstrap`], [`Kafka::ca`], [`USER`] and
    /// [`PASSWORD`].
    pub secure: bool,
    /// The port that clients are told, for a proxy in front of the (only) broker.
    pub advertised: Option<u16>,
    /// The port that the (only) broker is told for brokers, itself among them, for a proxy between them.
    pub internal: Option<u16>,
    /// Server properties, such as `transaction.max.timeout.ms=10000`.
    pub properties: Vec<String>,
}

#[derive(Debug)]
pub struct Kafka {
    folder: Folder,
    port: u16,
    options: Options,
}

impl Kafka {
    /// One broker, without security.
    #[must_use]
    pub fn start() -> Self {
        Self::start_with(Options::default())
    }

    #[must_use]
    pub fn start_with(options: Options) -> Self {
        let mut output = String::new();
        for _ in 0..START_ATTEMPTS {
            let port = free_ports(options.brokers.max(1));
            let kafka = Self {
                folder: Folder::new("kafka"),
                port,
                options: options.clone(),
            };
            match kafka.run("start") {
                Ok(_) => return kafka,
                Err(error) => output = error + &kafka.log(),
            }
        }
        panic!("Kafka does not start:\n{output}");
    }

    /// The addresses for clients: the proxy's, where there is one.
    #[must_use]
    pub fn bootstrap(&self) -> String {
        self.addresses(self.options.advertised.unwrap_or(self.port))
    }

    /// The addresses for the judge: never through a proxy, nor in its counts.
    #[must_use]
    pub fn direct(&self) -> String {
        self.addresses(self.port + INTERNAL_OFFSET)
    }

    /// One for each broker, the first at this port.
    fn addresses(&self, first: u16) -> String {
        let ports = first..first + self.options.brokers.max(1);
        let addresses: Vec<String> = ports.map(|port| format!("127.0.0.1:{port}")).collect();
        addresses.join(",")
    }

    /// The first broker's own port: where a proxy forwards to.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    #[must_use]
    pub fn secure_bootstrap(&self) -> String {
        assert!(
            self.options.secure,
            "this Kafka was started without security"
        );
        format!("127.0.0.1:{}", self.port + SECURE_OFFSET)
    }

    /// The PEM file of the authority that signed the secure listener's certificate.
    #[must_use]
    pub fn ca(&self) -> PathBuf {
        self.folder.join("ca.pem")
    }

    /// Creates a topic; `configs` are such as `cleanup.policy=compact`.
    pub fn topic(&self, name: &str, partitions: u32, configs: &[&str]) {
        let bootstrap = self.direct();
        let partitions = partitions.to_string();
        let mut arguments = vec!["topic", &bootstrap, name, &partitions];
        arguments.extend(configs);
        judge::run(&arguments);
    }

    /// Runs one of Kafka's own tools, such as `TopicCommand`, and returns what it printed.
    pub fn tool(&self, class: &str, arguments: &[&str]) -> String {
        let bootstrap = self.direct();
        let at = ["tool", class, "--bootstrap-server", &bootstrap];
        let output = self.script(&[&at[..], arguments].concat());
        output.unwrap_or_else(|error| panic!("{class} {arguments:?}: {error}"))
    }

    /// The broker that leads the partition of a coordinator's topic that this name belongs to: that coordinates it.
    #[must_use]
    pub fn leader(&self, topic: &str, name: &str) -> u16 {
        let described = self.tool("TopicCommand", &["--describe", "--topic", topic]);
        let after = |line: &str, word: &str| -> Option<i64> {
            let rest = line.split_once(word)?.1;
            rest.split_ascii_whitespace().next()?.parse().ok()
        };
        let places = described.lines().filter_map(|line| {
            let place = (after(line, "\tPartition:")?, after(line, "Leader:")?);
            Some(place)
        });
        let leaders: Vec<(i64, i64)> = places.collect();
        let partitions = i64::try_from(leaders.len()).expect("few partitions");
        let partition = i64::from(java_hash(name) & i32::MAX) % partitions;
        let leader = leaders.iter().find(|(number, _)| *number == partition);
        let leader = leader.and_then(|(_, leader)| u16::try_from(*leader).ok());
        leader.unwrap_or_else(|| panic!("partition {partition} has no leader:\n{described}"))
    }

    /// Broker `node`, from 1: to be frozen, continued or killed.
    #[must_use]
    pub fn process(&self, node: u16) -> Process {
        let node = node.to_string();
        let output = self.script(&["pid", &self.port.to_string(), self.path(), &node]);
        let id = output.unwrap_or_else(|error| panic!("broker {node}: {error}"));
        Process::of(
            id.trim()
                .parse()
                .unwrap_or_else(|_| panic!("broker {node} has the process id {id:?}")),
        )
    }

    /// Where broker `node`, from 1, keeps its data.
    #[must_use]
    pub fn data(&self, node: u16) -> PathBuf {
        self.folder.join(&format!("{node}/data"))
    }

    /// SIGSTOP to every broker.
    pub fn freeze(&self) {
        self.each(Process::freeze);
    }

    /// SIGCONT to every broker.
    pub fn thaw(&self) {
        self.each(Process::thaw);
    }

    /// SIGKILL to every broker; the data stay.
    pub fn kill(&self) {
        self.run("kill")
            .unwrap_or_else(|error| panic!("Kafka can't be killed: {error}"));
    }

    /// SIGTERM to every broker, and waits for their end; the data stay.
    pub fn stop(&self) {
        self.run("stop")
            .unwrap_or_else(|error| panic!("Kafka does not stop: {error}"));
    }

    /// Starts what [`Kafka::kill`] or [`Kafka::stop`] left, on the same ports; brokers that are up
    /// stay so.
    pub fn restart(&self) {
        self.run("start")
            .unwrap_or_else(|error| panic!("Kafka does not start again:\n{error}{}", self.log()));
    }

    fn each(&self, act: impl Fn(&Process)) {
        for node in 1..=self.options.brokers.max(1) {
            act(&self.process(node));
        }
    }

    fn path(&self) -> &str {
        self.folder
            .path()
            .to_str()
            .expect("the temporary folder's path is UTF-8")
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.folder.join("1/log")).unwrap_or_default()
    }

    fn run(&self, verb: &str) -> Result<String, String> {
        let port = self.port.to_string();
        let brokers = self.options.brokers.max(1).to_string();
        match verb {
            "start" => self.script(&[verb, &port, self.path(), &brokers]),
            _ => self.script(&[verb, &port, self.path()]),
        }
    }

    fn script(&self, arguments: &[&str]) -> Result<String, String> {
        let script = repository().join("tests/system/kafka/kafka.sh");
        let mut command = Command::new(&script);
        command.args(arguments);
        command.env("KAFKA_JVM", "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC");
        command.env("KAFKA_OWNER", process::id().to_string());
        command.env("KAFKA_EXTRA", self.options.properties.join("\n"));
        command
            .env("KAFKA_USER", USER)
            .env("KAFKA_PASSWORD", PASSWORD);
        if self.options.secure {
            command.env("KAFKA_SECURITY", "scram-tls");
        }
        if let Some(port) = self.options.advertised {
            command.env("KAFKA_ADVERTISED", port.to_string());
        }
        if let Some(port) = self.options.internal {
            command.env("KAFKA_INTERNAL", port.to_string());
        }
        let result = command
            .output()
            .map_err(|error| format!("{}: {error}", script.display()))?;
        if result.status.success() {
            Ok(String::from_utf8_lossy(&result.stdout).into_owned())
        } else {
            Err(String::from_utf8_lossy(&result.stderr).into_owned())
        }
    }
}

impl Drop for Kafka {
    fn drop(&mut self) {
        // Killed, not stopped: a frozen broker would not stop, and nobody reads its data again.
        if let Err(error) = self.run("kill") {
            eprintln!("Kafka can't be killed: {error}");
        }
    }
}

/// What Java's `String.hashCode` is: how coordinators are found.
fn java_hash(text: &str) -> i32 {
    let units = text.encode_utf16();
    units.fold(0, |hash: i32, unit| {
        hash.wrapping_mul(31).wrapping_add(i32::from(unit))
    })
}

fn free_ports(brokers: u16) -> u16 {
    let listeners = [0, SECURE_OFFSET, CONTROLLER_OFFSET, INTERNAL_OFFSET];
    let offsets: Vec<u16> = listeners
        .iter()
        .flat_map(|listener| (0..brokers).map(move |node| listener + node))
        .collect();
    ports::free(&offsets)
}

#[cfg(test)]
mod tests {
    use super::java_hash;

    #[test]
    fn hashes_are_javas() {
        assert_eq!(java_hash(""), 0);
        assert_eq!(java_hash("hello"), 99_162_322);
        assert_eq!(java_hash("polygenelubricants"), i32::MIN);
    }
}
