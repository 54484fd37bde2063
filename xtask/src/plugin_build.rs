//! Builds Rust plugins of this workspace into components, with whatever WASM standard library the
//! machine has or can get: rustup's target, or Debian's packages, in that order.
//!
//! Invariants: never waits for a network for longer than `RUSTUP_PATIENCE`, never installs a package
//! behind the back of somebody at a terminal, and an error says the command that would help.

use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

const TARGET: &str = "wasm32-unknown-unknown";
const LINKER: &str = "wasm-component-ld";
/// Below what a CI job would be cancelled for; a download that works takes seconds.
const RUSTUP_PATIENCE: Duration = Duration::from_secs(90);
const DEBIAN_RUSTC: &str = "/usr/bin/rustc";

/// Builds the workspace package `package` and returns the path of the component. All plugins share
/// one target folder, so that the standard library is built at most once.
pub fn build(root: &Path, package: &str) -> Result<PathBuf> {
    let toolchain = toolchain(root)?;
    let target_dir = target_dir(root);
    let mut cargo = clean(root, "cargo");
    cargo
        .args([
            "build",
            "--package",
            package,
            "--lib",
            "--profile",
            "plugin",
            "--target",
            TARGET,
        ])
        .arg("--target-dir")
        .arg(&target_dir);
    toolchain.apply(&mut cargo);
    let status = cargo.status().context("running cargo")?;
    ensure!(
        status.success(),
        "building the plugin {package} failed ({status})"
    );
    let file = format!("{}.wasm", package.replace('-', "_"));
    let component = target_dir.join(TARGET).join("plugin").join(file);
    ensure!(
        component.exists(),
        "{package} is no cdylib: {} is missing",
        component.display()
    );
    Ok(component)
}

/// Sees to it that Debian packages are there: installs what is missing if nobody can be asked and
/// root runs this, asks at a terminal, and otherwise fails with the command to run.
pub fn ensure_system_packages(names: &[&str]) -> Result<()> {
    let missing: Vec<&str> = names
        .iter()
        .copied()
        .filter(|name| !is_installed(name))
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    let root = stdout_of(Command::new("id").arg("-u")).is_some_and(|id| id == "0");
    let sudo = if root { "" } else { "sudo " };
    let install = format!(
        "apt-get install --yes --no-install-recommends {}",
        missing.join(" ")
    );
    let command = format!("{sudo}apt-get update && {sudo}{install}");
    if stdout_of(Command::new("apt-get").arg("--version")).is_none() {
        bail!(
            "missing: {}. This machine has no apt-get: install them its own way",
            missing.join(", ")
        );
    }
    let allowed = if std::io::stdin().is_terminal() {
        ask(&command)?
    } else {
        root
    };
    ensure!(
        allowed,
        "missing: {}. Install with\n  {command}",
        missing.join(", ")
    );
    let status = Command::new("sh")
        .args(["-c", &command])
        .status()
        .context("running sh")?;
    ensure!(status.success(), "installing failed ({status}): {command}");
    Ok(())
}

/// Where a standard library for the target comes from.
enum Toolchain {
    /// The `rustc` that cargo finds has it; this linker makes the component.
    Ready { linker: PathBuf },
    /// Debian's compiler, and its library's source, which cargo builds first. Debian's compiler
    /// brings no linker: this one is of another toolchain, as is the `wasm-ld` that it runs.
    FromSource { linker: PathBuf, wasm_ld: PathBuf },
    /// Debian's compiler and its library.
    Debian { linker: PathBuf, wasm_ld: PathBuf },
}

fn toolchain(root: &Path) -> Result<Toolchain> {
    if has_target(root, "rustc") || add_rustup_target(root) {
        return Ok(Toolchain::Ready {
            linker: component_linker(root)?,
        });
    }
    let (linker, wasm_ld) = (component_linker(root)?, wasm_ld(root)?);
    if has_target(root, DEBIAN_RUSTC) {
        return Ok(Toolchain::Debian { linker, wasm_ld });
    }
    if is_debian_12() {
        ensure_system_packages(&["rustc-web", "rust-web-src"]).with_context(help)?;
        return Ok(Toolchain::FromSource { linker, wasm_ld });
    }
    ensure_system_packages(&["rustc", "libstd-rust-dev-wasm32"]).with_context(help)?;
    Ok(Toolchain::Debian { linker, wasm_ld })
}

fn help() -> String {
    format!(
        "plugins need Rust's library for WASM: `rustup target add {TARGET}`, or Debian's packages"
    )
}

impl Toolchain {
    fn apply(&self, cargo: &mut Command) {
        let mut flags = vec!["-Ctarget-feature=+simd128".to_owned()];
        let linker = match self {
            Toolchain::Ready { linker } => linker,
            Toolchain::FromSource { linker, wasm_ld } | Toolchain::Debian { linker, wasm_ld } => {
                cargo.env("RUSTC", DEBIAN_RUSTC);
                flags.push(format!("-Clink-arg=--wasm-ld-path={}", wasm_ld.display()));
                linker
            }
        };
        match self {
            Toolchain::Ready { .. } => {}
            Toolchain::FromSource { .. } => {
                cargo
                    .env("RUSTC_BOOTSTRAP", "1")
                    .arg("-Zbuild-std=std,panic_abort");
            }
            // Debian 13 is behind the host's minimum, which plugins don't need.
            Toolchain::Debian { .. } => {
                cargo.arg("--ignore-rust-version");
            }
        }
        flags.push(format!("-Clinker={}", linker.display()));
        cargo.env("CARGO_ENCODED_RUSTFLAGS", flags.join("\u{1f}"));
    }
}

/// A command free of what `cargo xtask` leaves in the environment for the programs it runs, which
/// would tie the build to the host's flags and package. RUSTUP_TOOLCHAIN stays: it says whose `rustc`
/// and linker are meant.
fn clean(root: &Path, program: &str) -> Command {
    let mut command = Command::new(program);
    command.current_dir(root);
    const KEPT: [&str; 4] = ["CARGO_HOME", "CARGO_HTTP_", "CARGO_NET_", "CARGO_REGISTR"];
    for (name, _) in std::env::vars_os() {
        let name = name.to_string_lossy();
        let cargo = name.starts_with("CARGO") && !KEPT.iter().any(|kept| name.starts_with(kept));
        if cargo || name.starts_with("RUSTC") || name == "RUSTFLAGS" {
            command.env_remove(&*name);
        }
    }
    command
}

fn has_target(root: &Path, rustc: &str) -> bool {
    let mut command = clean(root, rustc);
    let libdir = stdout_of(command.args(["--print", "target-libdir", "--target", TARGET]));
    libdir.is_some_and(|libdir| has_std(Path::new(&libdir)))
}

/// The folder alone may be there without the library.
fn has_std(libdir: &Path) -> bool {
    let Ok(entries) = std::fs::read_dir(libdir) else {
        return false;
    };
    entries
        .flatten()
        .any(|entry| entry.file_name().to_string_lossy().starts_with("libstd-"))
}

/// Whether rustup exists and could add the target within the time it is given.
fn add_rustup_target(root: &Path) -> bool {
    let mut rustup = clean(root, "rustup");
    let started = rustup
        .args(["target", "add", TARGET])
        .stdin(Stdio::null())
        .spawn();
    let Ok(mut child) = started else { return false };
    let deadline = Instant::now() + RUSTUP_PATIENCE;
    loop {
        match child.try_wait() {
            Ok(Some(status)) => return status.success() && has_target(root, "rustc"),
            Ok(None) if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(50)),
            Ok(None) | Err(_) => {
                // Failing to stop it changes nothing: its result is not used.
                let _ = child.kill();
                let _ = child.wait();
                return false;
            }
        }
    }
}

/// The linker that writes a component: it ships with the toolchain, next to what isn't on PATH.
fn component_linker(root: &Path) -> Result<PathBuf> {
    let shipped = shipped_binaries(root).map(|binaries| binaries.join(LINKER));
    shipped
        .filter(|path| path.exists())
        .or_else(|| on_path(LINKER))
        .with_context(|| {
            format!(
                "{LINKER} is neither in the Rust toolchain nor on PATH: `cargo install {LINKER}`"
            )
        })
}

fn wasm_ld(root: &Path) -> Result<PathBuf> {
    let shipped = shipped_binaries(root).map(|binaries| binaries.join("gcc-ld/wasm-ld"));
    let found = shipped
        .filter(|path| path.exists())
        .or_else(|| on_path("wasm-ld"));
    found
        .or_else(|| on_path("wasm-ld-19"))
        .context("there is no wasm-ld: `apt-get install lld-19`")
}

fn shipped_binaries(root: &Path) -> Option<PathBuf> {
    let sysroot = stdout_of(clean(root, "rustc").args(["--print", "sysroot"]))?;
    let host = stdout_of(clean(root, "rustc").args(["--print", "host-tuple"]))?;
    Some(
        Path::new(&sysroot)
            .join("lib/rustlib")
            .join(host)
            .join("bin"),
    )
}

fn on_path(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .map(|folder| folder.join(program))
        .find(|path| path.is_file())
}

/// Where all plugins are built: a folder of its own, since the flags differ from the host's.
fn target_dir(root: &Path) -> PathBuf {
    let shared = std::env::var_os("CARGO_TARGET_DIR");
    root.join(shared.map_or_else(|| PathBuf::from("target"), PathBuf::from))
        .join("plugins")
}

fn is_installed(package: &str) -> bool {
    let query = ["--show", "--showformat=${db:Status-Status}", package];
    stdout_of(Command::new("dpkg-query").args(query)).is_some_and(|status| status == "installed")
}

/// Its WASM library is older than our code; its compiler for browsers is not, but has no such library.
fn is_debian_12() -> bool {
    let release = std::fs::read_to_string("/etc/os-release").unwrap_or_default();
    release.contains("\nID=debian\n") && release.contains("\nVERSION_ID=\"12\"\n")
}

fn ask(command: &str) -> Result<bool> {
    eprint!("To go on, this has to run:\n  {command}\nRun it now? [y/N] ");
    std::io::stderr().flush()?;
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

/// What a command prints, trimmed; none if it can't be run or fails.
fn stdout_of(command: &mut Command) -> Option<String> {
    let output = command.stderr(Stdio::null()).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| text.trim().to_owned())
}
