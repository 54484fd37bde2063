//! A plugin: a component that was read, checked against the contract, and compiled.
//!
//! Never runs code of a file that isn't a component of our world: what is wrong is said before anything is instantiated.

use std::fmt;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use millstream_engine::task::failure::in_a_line;
use sha2::{Digest as _, Sha256};
use wasmtime::Engine;
use wasmtime::component::types::ComponentItem;
use wasmtime::component::{Component, HasSelf, Linker};

use super::bindings::{Plugin as World, PluginPre};
use super::code_cache::CodeCache;
use super::compiler::{self, CompileError};
use super::deadline::Ticker;
use super::instance::{Instance, State, Wiring};
use super::wasi;
use crate::plugin_allow::Allow;
use crate::plugin_limits::PluginLimits;

/// What a plugin must export, as a component names it.
const TRANSFORM: &str = "millstream:plugin/transform@0.1.0";
/// The package whose interfaces it may import.
const PACKAGE: &str = "millstream:plugin/";
const VERSION: &str = "@0.1.0";

/// Where plugins run: one for each process.
#[derive(Clone)]
pub struct Runtime {
    engine: Engine,
    linker: Linker<State>,
    cache: Option<CodeCache>,
}

/// A compiled plugin, ready to be instantiated any number of times.
#[derive(Clone)]
pub struct Plugin {
    engine: Engine,
    pre: PluginPre<State>,
    path: PathBuf,
    digest: String,
    limits: PluginLimits,
    /// None where it imports nothing of WASI.
    allow: Option<Arc<Allow>>,
}

/// What a plugin uses under one configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Needs {
    /// Beside the default one.
    pub ports: Vec<String>,
    pub lookups: Vec<String>,
    pub state: Vec<String>,
    pub headers: bool,
}

/// Names of one kind that a plugin may need. They are compared with each other, and told one by one where they don't fit.
const NEEDS_MAX: usize = 256;

/// Characters of a name, as in the pipeline file.
const NAME_MAX: usize = 100;

impl Needs {
    /// Says what of it nobody would ask for in earnest.
    pub(super) fn check(&self) -> Result<(), String> {
        let kinds = [
            ("ports", &self.ports),
            ("lookups", &self.lookups),
            ("state", &self.state),
        ];
        for (kind, names) in kinds {
            let count = names.len();
            if count > NEEDS_MAX {
                let words = format!("it needs {count} names as {kind}, {NEEDS_MAX} are allowed");
                return Err(words);
            }
            let is_odd =
                |name: &&String| name.contains(char::is_control) || name.chars().count() > NAME_MAX;
            if let Some(name) = names.iter().find(is_odd) {
                let start: String = in_a_line(name).chars().take(NAME_MAX).collect();
                return Err(format!(
                    "it needs a name as {kind} that begins with \"{start}\": names have {NAME_MAX} characters, none for control"
                ));
            }
        }
        Ok(())
    }
}

#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    #[error("{path}: {source}", path = path.display())]
    Read {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("{path} is not a plugin: {what}; expected a component that exports {TRANSFORM}", path = path.display())]
    NotAPlugin { path: PathBuf, what: String },
    #[error("{path} is not what `sha256` says: it has {found}", path = path.display())]
    OtherDigest { path: PathBuf, found: String },
    #[error("{path} can't be compiled: {why}", path = path.display())]
    Compile { path: PathBuf, why: String },
    #[error("{path} imports what it is not allowed: {imports}", path = path.display())]
    NotAllowed {
        path: PathBuf,
        imports: String,
        /// What the plugin's table would have to say.
        line: String,
    },
}

impl Runtime {
    /// With what was compiled before at hand, where there is a place for it.
    pub fn new() -> wasmtime::Result<Self> {
        let engine = Engine::new(&compiler::config())?;
        let mut linker = Linker::new(&engine);
        World::add_to_linker::<_, HasSelf<_>>(&mut linker, |state| state)?;
        Ok(Self {
            engine,
            linker,
            cache: CodeCache::open(),
        })
    }

    /// Starts the clock that deadlines are measured by.
    pub fn start_ticker(&self) -> std::io::Result<Ticker> {
        Ticker::start(self.engine.clone())
    }

    /// Reads, checks and compiles a component. Where a digest is expected, the very bytes that are compiled have it.
    pub fn load(
        &self,
        path: &Path,
        expected: Option<&[u8; 32]>,
        (limits, allow): (PluginLimits, &Allow),
    ) -> Result<Plugin, LoadError> {
        let read = std::fs::read(path);
        let bytes = read.map_err(|source| LoadError::Read {
            path: path.into(),
            source,
        })?;
        let digest: [u8; 32] = Sha256::digest(&bytes).into();
        if expected.is_some_and(|expected| *expected != digest) {
            return Err(LoadError::OtherDigest {
                path: path.into(),
                found: hexadecimal(&digest),
            });
        }
        let not_a_plugin = |what: String| LoadError::NotAPlugin {
            path: path.into(),
            what,
        };
        check_preamble(&bytes).map_err(not_a_plugin)?;
        let failed = |why: String| LoadError::Compile {
            path: path.into(),
            why,
        };
        let digest = hexadecimal(&digest);
        let component = self.compile(&digest, &bytes).map_err(|error| match error {
            CompileError::Refused(what) => not_a_plugin(what),
            CompileError::Failed(why) => failed(why),
        })?;
        self.check_world(&component).map_err(not_a_plugin)?;
        let ty = component.component_type();
        let imports: Vec<&str> = ty.imports(&self.engine).map(|(name, _)| name).collect();
        if let Some((imports, line)) = wasi::unmet(&imports, allow) {
            return Err(LoadError::NotAllowed {
                path: path.into(),
                imports: imports.join(", "),
                line,
            });
        }
        let uses_wasi = imports.into_iter().any(wasi::is_known);
        let linked = self.link(&component, uses_wasi.then_some(allow));
        let pre = linked.map_err(|error| failed(format!("{error:#}")))?;
        Ok(Plugin {
            engine: self.engine.clone(),
            pre,
            path: path.into(),
            digest,
            limits,
            allow: uses_wasi.then(|| Arc::new(allow.clone())),
        })
    }

    fn link(
        &self,
        component: &Component,
        allow: Option<&Allow>,
    ) -> wasmtime::Result<PluginPre<State>> {
        let mut linker = self.linker.clone();
        if let Some(allow) = allow {
            wasi::add_to_linker(&mut linker, allow)?;
        }
        linker.instantiate_pre(component).and_then(PluginPre::new)
    }

    /// What was compiled of these bytes before, or is now.
    fn compile(&self, digest: &str, bytes: &[u8]) -> Result<Component, CompileError> {
        let mut hasher = DefaultHasher::new();
        self.engine
            .precompile_compatibility_hash()
            .hash(&mut hasher);
        let name = format!("{digest}-{:016x}", hasher.finish());
        let kept = self.cache.as_ref().and_then(|cache| cache.get(&name));
        let code = match kept {
            Some(code) => code,
            None => {
                let code = compiler::compile(bytes)?;
                if let Some(cache) = &self.cache {
                    cache.put(&name, &code);
                }
                code
            }
        };
        #[allow(unsafe_code, reason = "compiled code is run as it stands")]
        // SAFETY: this executable made it from the component, with the settings of this engine: it comes from the process that compiles, or from
        // a folder and file which only this user can write, with the digest that it was written with.
        let component = unsafe { Component::deserialize(&self.engine, &code) };
        component.map_err(|error| CompileError::Failed(format!("{error:#}")))
    }

    fn check_world(&self, component: &Component) -> Result<(), String> {
        let ty = component.component_type();
        let exports: Vec<&str> = ty.exports(&self.engine).map(|(name, _)| name).collect();
        if !exports.contains(&TRANSFORM) {
            let other = exports
                .iter()
                .find(|name| name.starts_with("millstream:plugin/transform"));
            return Err(match (other, exports.is_empty()) {
                (Some(other), _) => {
                    format!("it is made for another version of the contract ({other})")
                }
                (None, true) => "it is a component that exports nothing".into(),
                (None, false) => format!(
                    "it is a component of another world (it exports {})",
                    exports.join(", ")
                ),
            });
        }
        for (import, item) in ty.imports(&self.engine) {
            let known = import.starts_with(PACKAGE) && import.ends_with(VERSION);
            let types_only = matches!(&item.ty, ComponentItem::ComponentInstance(instance)
                if instance.exports(&self.engine).all(|(_, item)| matches!(item.ty, ComponentItem::Type(_))));
            if !known && !types_only && !wasi::is_known(import) {
                return Err(format!("it imports {import}, which plugins are not given"));
            }
        }
        Ok(())
    }
}

/// In lower case.
pub fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Says what a file is that can't be a component, before the compiler does in its own words.
fn check_preamble(bytes: &[u8]) -> Result<(), String> {
    const MAGIC: &[u8] = b"\0asm";
    const MODULE: &[u8] = &[1, 0, 0, 0];
    const COMPONENT_LAYER: &[u8] = &[1, 0];
    if bytes.is_empty() {
        return Err("the file is empty".into());
    }
    if !bytes.starts_with(MAGIC) {
        return Err("it is not WebAssembly".into());
    }
    match bytes.get(4..8) {
        None => Err("it is cut off in its first eight bytes".into()),
        Some(MODULE) => Err(
            "it is a core module, not a component (`wasm-tools component new` makes one of it)"
                .into(),
        ),
        Some(version) if &version[2..] != COMPONENT_LAYER => {
            Err(format!("it is of an unknown binary version ({version:?})"))
        }
        Some(_) => Ok(()),
    }
}

impl Plugin {
    /// SHA-256 of the component, in hexadecimal digits.
    pub fn digest(&self) -> &str {
        &self.digest
    }

    pub fn limits(&self) -> &PluginLimits {
        &self.limits
    }

    /// A new instance, configured.
    pub fn instantiate(&self, wiring: Wiring<'_>) -> Result<(Instance, Needs), String> {
        let allowed = (self.limits, self.allow.as_deref());
        Instance::new(&self.engine, &self.pre, allowed, wiring)
    }
}

impl fmt::Debug for Plugin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Plugin")
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Runtime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Runtime").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn needs_are_bounded() {
        let check = |ports: Vec<String>, expected: &str| {
            let needs = Needs {
                ports,
                ..Needs::default()
            };
            assert_eq!(needs.check().err().unwrap_or_default(), expected);
        };
        let names = |count: usize| (0..count).map(|number| format!("p{number}")).collect();
        check(names(NEEDS_MAX), "");
        let words = "it needs 257 names as ports, 256 are allowed";
        check(names(NEEDS_MAX + 1), words);
        check(vec!["é".repeat(NAME_MAX)], "");
        for name in ["a\nb".to_owned(), "a".repeat(NAME_MAX + 1)] {
            let start = in_a_line(&name).chars().take(NAME_MAX).collect::<String>();
            check(
                vec![name],
                &format!(
                    "it needs a name as ports that begins with \"{start}\": names have 100 characters, none for control"
                ),
            );
        }
    }

    #[test]
    fn files_that_are_no_components_are_named() {
        let check =
            |bytes: &[u8], expected: &str| assert_eq!(check_preamble(bytes).unwrap_err(), expected);
        check(b"", "the file is empty");
        check(b"#!/bin/sh", "it is not WebAssembly");
        check(b"\0asm\x01", "it is cut off in its first eight bytes");
        check(
            b"\0asm\x01\0\0\0",
            "it is a core module, not a component (`wasm-tools component new` makes one of it)",
        );
        check(
            b"\0asm\x02\0\x02\0",
            "it is of an unknown binary version ([2, 0, 2, 0])",
        );
        assert_eq!(check_preamble(b"\0asm\x0d\0\x01\0"), Ok(()));
    }
}
