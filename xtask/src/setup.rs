//! What has to be on the machine beside Rust. Programs are looked for, not packages: a JDK of one's own is as good as Debian's.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::Result;

use crate::plugin_build::ensure_system_packages;

/// How a program shows that it is there, and Debian's package for it.
pub type Need = (&'static [&'static str], &'static str);

/// librdkafka is built from its C and C++ sources, and uses OpenSSL.
const COMPILERS: [Need; 5] = [
    (&["cc", "--version"], "gcc"),
    (&["c++", "--version"], "g++"),
    (&["make", "--version"], "make"),
    (&["pkg-config", "--version"], "pkg-config"),
    (&["pkg-config", "--exists", "openssl"], "libssl-dev"),
];

/// The tests run a real Kafka, with certificates of their own.
const KAFKA: [Need; 3] = [
    (&["javac", "--version"], "default-jdk-headless"),
    (&["mvn", "--version"], "maven"),
    (&["openssl", "version"], "openssl"),
];

/// A load tool that is not ours.
const LOAD: [Need; 1] = [(&["sh", "-c", "command -v wrk"], "wrk")];

/// A clang that makes WebAssembly, with a linker and a C library.
const C_PACKAGES: [&str; 4] = [
    "clang-19",
    "lld-19",
    "wasi-libc",
    "libclang-rt-19-dev-wasm32",
];

/// The SDK for C, and the library by which its tests read the vectors.
const CMAKE: [Need; 2] = [
    (&["cmake", "--version"], "cmake"),
    (&["pkg-config", "--exists", "jansson"], "libjansson-dev"),
];

/// What building takes.
pub fn compilers(root: &Path) -> Result<()> {
    ensure(root, &COMPILERS)
}

/// What the tests take too.
pub fn system(root: &Path) -> Result<()> {
    ensure(root, &[&COMPILERS[..], &KAFKA[..]].concat())
}

/// What measuring queries takes too.
pub fn load(root: &Path) -> Result<()> {
    ensure(root, &LOAD)
}

/// What the SDK for C takes beside its compiler.
pub fn cmake(root: &Path) -> Result<()> {
    ensure(root, &CMAKE)
}

/// What the plugin in C takes.
pub fn c_toolchain() -> Result<()> {
    ensure_system_packages(&C_PACKAGES)
}

fn ensure(root: &Path, needs: &[Need]) -> Result<()> {
    let missing = needs.iter().filter(|(shown, _)| !works(root, shown));
    let packages: Vec<&str> = missing.map(|(_, package)| *package).collect();
    ensure_system_packages(&packages)
}

pub fn works(root: &Path, shown: &[&str]) -> bool {
    let Some((program, arguments)) = shown.split_first() else {
        return true;
    };
    let mut command = Command::new(program);
    command.args(arguments).current_dir(root);
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}
