//! What a walk-through stands on: a folder, ports, a Kafka of its own, and the processes that it starts.
//!
//! Invariant: all of it goes when the walk-through does, however that ends. A keeper sees to it, a shell that reads from a pipe which nobody
//! else writes to: the pipe ends when the walk-through returns, fails, is interrupted or is killed.

use std::fs::{self, File};
use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{self, Child, ChildStdin, Command, Output, Stdio};

use anyhow::{Context, Result, bail, ensure};

/// Kafka's script, below the repository.
pub const KAFKA: &str = "tests/system/kafka/kafka.sh";
/// Somebody else may take the ports between the look and the start.
const START_ATTEMPTS: usize = 3;
/// What is free: Kafka's port, with those of instances behind it, and the others that kafka.sh takes for one broker.
const OFFSETS: [u16; 7] = [0, 1, 2, 3, 4, 100, 150];
/// Below the range from which the system gives ports to connecting sockets.
const PORTS: std::ops::Range<u32> = 20_000..32_000;
const STRIDE: u32 = 200;
/// In the environment of all that is started, the broker too: a process id alone may be somebody else's by the time it is killed.
const MARK: &str = "MILLSTREAM_WALKTHROUGH";

/// Given the script, the folder and the mark. It reads what was started and whether to keep the folder, then clears up.
const KEEPER: &str = r#"
started=() keep=
while read -r word what; do
  case $word in
    started) started+=("$what") ;;
    keep) keep=yes ;;
  esac
done
for id in "${started[@]}"; do
  if tr '\0' '\n' 2>/dev/null <"/proc/$id/environ" | grep -qxF "$3=$2"; then kill -9 "$id"; fi
done
if [[ -d $2/kafka ]]; then "$1" kill 0 "$2/kafka"; fi
if [[ ! $keep ]]; then rm -rf "$2"; fi
"#;

pub struct Ground {
    root: PathBuf,
    folder: PathBuf,
    port: u16,
    keeper: Child,
    /// None once it is to clear up.
    orders: Option<ChildStdin>,
}

impl Ground {
    /// An empty folder and a keeper; no Kafka yet.
    pub fn new(root: &Path) -> Result<Self> {
        let folder = std::env::temp_dir().join(format!("millstream-walkthrough-{}", process::id()));
        fs::create_dir(&folder).with_context(|| folder.display().to_string())?;
        // In a process group of its own: Ctrl-C is not for it.
        let mut keeper = Command::new("bash")
            .args(["-c", KEEPER, "keeper"])
            .arg(root.join(KAFKA))
            .arg(&folder)
            .arg(MARK)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .process_group(0)
            .spawn()
            .context("starting bash")?;
        Ok(Self {
            root: root.to_path_buf(),
            folder,
            port: 0,
            orders: keeper.stdin.take(),
            keeper,
        })
    }

    /// Starts Kafka on free ports.
    pub fn start_kafka(&mut self) -> Result<()> {
        let mut why = String::new();
        for attempt in 0..START_ATTEMPTS {
            self.port = free_port(attempt)?;
            let mut start = self.kafka();
            start
                .args(["start", &self.port.to_string()])
                .arg(self.folder.join("kafka"))
                .env("KAFKA_OWNER", process::id().to_string());
            let started = self.output(&mut start)?;
            if started.status.success() {
                return Ok(());
            }
            why = String::from_utf8_lossy(&started.stderr).into_owned();
        }
        bail!("Kafka does not start: {why}")
    }

    pub fn bootstrap(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// For the HTTP of the instance of that number.
    pub fn address(&self, instance: u16) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port + 1 + instance).into()
    }

    pub fn folder(&self) -> &Path {
        &self.folder
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    /// One of Kafka's own tools.
    pub fn tool(&self, arguments: &[&str]) -> Command {
        let mut tool = self.kafka();
        tool.arg("tool").args(arguments);
        tool
    }

    fn kafka(&self) -> Command {
        let mut kafka = Command::new(self.root.join(KAFKA));
        kafka.stdin(Stdio::null());
        kafka
    }

    /// A file in the folder that is appended to.
    pub fn log(&self, name: &str) -> Result<File> {
        let path = self.log_path(name);
        let opened = File::options().create(true).append(true).open(&path);
        opened.with_context(|| path.display().to_string())
    }

    pub fn log_path(&self, name: &str) -> PathBuf {
        self.folder.join(format!("{name}.log"))
    }

    /// Starts a process that goes with the walk-through. Ctrl-C goes to the walk-through alone, which has it ended.
    pub fn spawn(&self, command: &mut Command) -> Result<Child> {
        let started = command.env(MARK, &self.folder).process_group(0).spawn();
        let child = started.with_context(|| format!("starting {command:?}"))?;
        self.tell(&format!("started {}", child.id()))?;
        Ok(child)
    }

    /// The same for one that ends by itself.
    pub fn output(&self, command: &mut Command) -> Result<Output> {
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        Ok(self.spawn(command)?.wait_with_output()?)
    }

    fn tell(&self, line: &str) -> Result<()> {
        let mut orders = self.orders.as_ref().context("the keeper clears up")?;
        writeln!(orders, "{line}").context("the keeper is gone")
    }

    /// The folder stays when the rest goes.
    pub fn keep_folder(&self) -> Result<()> {
        self.tell("keep")
    }

    /// Returns once all is gone.
    pub fn end(mut self) -> Result<()> {
        drop(self.orders.take());
        let ended = self.keeper.wait()?;
        ensure!(ended.success(), "clearing up failed ({ended})");
        Ok(())
    }
}

impl Drop for Ground {
    fn drop(&mut self) {
        drop(self.orders.take());
        // It has said itself what went wrong.
        let _ = self.keeper.wait();
    }
}

/// A port P such that P+o is free for every one of [`OFFSETS`].
fn free_port(attempt: usize) -> Result<u16> {
    let candidates = PORTS.len() / STRIDE as usize;
    // Two walk-throughs start looking in different places.
    let first = process::id() as usize * 7 + attempt;
    for candidate in 0..candidates {
        let number = u32::try_from((first + candidate) % candidates)?;
        let port = u16::try_from(PORTS.start + number * STRIDE)?;
        let free = |offset| TcpListener::bind((Ipv4Addr::LOCALHOST, port + offset)).is_ok();
        if OFFSETS.into_iter().all(free) {
            return Ok(port);
        }
    }
    bail!("no free ports between {} and {}", PORTS.start, PORTS.end)
}
