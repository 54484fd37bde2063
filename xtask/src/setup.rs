//! What has to be on the machine beside Rust. Programs are looked for, not packages: a JDK of one's own is as good as Debian's.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::Result;

use crate::plugin_build::ensure_system_packages;

/// A program, how it shows that it is there, and Debian's package for it.
type Need = (&'static [&'static str], &'static str);

/// For building: librdkafka is C and C++, and uses OpenSSL. For the tests' Kafka: Java, Maven, certificates.
const SYSTEM: [Need; 8] = [
    (&["cc", "--version"], "gcc"),
    (&["c++", "--version"], "g++"),
    (&["make", "--version"], "make"),
    (&["pkg-config", "--exists", "openssl"], "libssl-dev"),
    (&["pkg-config", "--version"], "pkg-config"),
    (&["javac", "--version"], "default-jdk-headless"),
    (&["mvn", "--version"], "maven"),
    (&["openssl", "version"], "openssl"),
];

/// For the plugin in C.
const C_PACKAGES: [&str; 4] = [
    "clang-19",
    "lld-19",
    "wasi-libc",
    "libclang-rt-19-dev-wasm32",
];

pub fn system(root: &Path) -> Result<()> {
    let missing = SYSTEM
        .iter()
        .filter(|(shown, _)| !works(root, shown))
        .map(|(_, package)| *package);
    ensure_system_packages(&missing.collect::<Vec<_>>())
}

/// A clang that makes WebAssembly, with a C library.
pub fn c_toolchain() -> Result<()> {
    ensure_system_packages(&C_PACKAGES)
}

fn works(root: &Path, shown: &[&str]) -> bool {
    let Some((program, arguments)) = shown.split_first() else {
        return true;
    };
    let mut command = Command::new(program);
    command
        .args(arguments)
        .current_dir(root)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}
