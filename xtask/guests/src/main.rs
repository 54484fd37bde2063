//! Support tool for guests, used by CI: writes the SDK's bindings and C bindings from `wit/`, and turns a core module into a
//! component. It exists because wit-bindgen's own command takes minutes to install. Everything it writes is a function of the
//! WIT and of the generator's version in `Cargo.lock`, so that two machines write the same bytes.

#![forbid(unsafe_code)]

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail, ensure};
use wit_bindgen_core::{Files, WorldGenerator};
use wit_component::{ComponentEncoder, DecodedWasm, StringEncoding};
use wit_parser::{Resolve, WorldId, WorldItem};

const USAGE: &str = "\
usage: guests rust-bindings [--check]
       guests c-bindings OUT_DIR
       guests componentize CORE.wasm -o OUT.wasm [--embed] [--no-wasi]

rust-bindings  write the Rust SDK's bindings from wit/; with --check only compare them
c-bindings     write plugin.h, plugin.c and plugin_component_type.o for the world `plugin`
componentize   make a component of a core module; with --embed where the module doesn't carry its world, with --no-wasi where its
               language's runtime asks for WASI: it gets something that does nothing";

const NO_WASI: &str = include_str!("nothing.wat");
const WORLD: &str = "plugin";
const RUST_BINDINGS: &str = "plugins/sdk/rust/src/bindings.rs";
/// What a component may import. Anything else (WASI, mostly) would be refused by the host, with less helpful words.
const IMPORTS_ALLOWED: &str = "millstream:plugin/";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("guests: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &[&str]) -> Result<()> {
    match arguments {
        ["rust-bindings"] => write(&root().join(RUST_BINDINGS), &rust_bindings()?),
        ["rust-bindings", "--check"] => check_rust_bindings(),
        ["c-bindings", out_dir] => c_bindings(Path::new(out_dir)),
        ["componentize", core, "-o", out, flags @ ..] => componentize(core, out, flags),
        _ => bail!("no such verb or arguments\n{USAGE}"),
    }
}

/// The repository, two folders above this crate.
fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.ancestors().nth(2).unwrap_or(here).to_owned()
}

fn world() -> Result<(Resolve, WorldId)> {
    let mut resolve = Resolve::default();
    let (package, _) = resolve.push_path(root().join("wit"))?;
    let world = resolve.select_world(&[package], Some(WORLD))?;
    Ok((resolve, world))
}

/// The generator's files, by name.
fn generate(mut generator: impl AsMut<dyn WorldGenerator>) -> Result<Files> {
    let (mut resolve, world) = world()?;
    let mut files = Files::default();
    generator
        .as_mut()
        .generate(&mut resolve, world, &mut files)?;
    Ok(files)
}

fn rust_bindings() -> Result<Vec<u8>> {
    let options = wit_bindgen_rust::Opts {
        format: true,
        generate_all: true,
        pub_export_macro: true,
        export_macro_name: Some("export".to_owned()),
        default_bindings_module: Some("millstream_plugin::bindings".to_owned()),
        ..Default::default()
    };
    let generator: Box<dyn WorldGenerator> = Box::new(options.build());
    let files = generate(generator)?;
    let (_, generated) = files.iter().next().context("the generator wrote no file")?;
    let mut bindings =
        b"// @generated from wit/ by `cargo run -p guests -- rust-bindings`: don't edit.\n\n"
            .to_vec();
    bindings.extend_from_slice(generated);
    Ok(bindings)
}

fn check_rust_bindings() -> Result<()> {
    let path = root().join(RUST_BINDINGS);
    let found = std::fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
    ensure!(
        found == rust_bindings()?,
        "{RUST_BINDINGS} doesn't match wit/: run `cargo run -p guests -- rust-bindings` and commit what it writes"
    );
    Ok(())
}

fn c_bindings(out_dir: &Path) -> Result<()> {
    std::fs::create_dir_all(out_dir).with_context(|| format!("creating {}", out_dir.display()))?;
    for (name, contents) in generate(wit_bindgen_c::Opts::default().build())?.iter() {
        write(&out_dir.join(name), contents)?;
    }
    Ok(())
}

fn componentize(core: &str, out: &str, flags: &[&str]) -> Result<()> {
    let mut module = std::fs::read(core).with_context(|| format!("reading {core}"))?;
    let mut encoder = ComponentEncoder::default();
    encoder.validate(true);
    for flag in flags {
        match *flag {
            "--embed" => {
                let (resolve, world) = world()?;
                let encoding = StringEncoding::UTF8;
                wit_component::embed_component_metadata(&mut module, &resolve, world, encoding)?;
            }
            "--no-wasi" => {
                let nothing = wat::parse_str(NO_WASI).context("nothing.wat")?;
                encoder.adapter("wasi_snapshot_preview1", &nothing)?;
            }
            _ => bail!("{flag} is no flag of componentize\n{USAGE}"),
        }
    }
    let component = encoder.module(&module)?.encode()?;
    for import in imports(&component)? {
        ensure!(
            import.starts_with(IMPORTS_ALLOWED),
            "{core} imports {import}; a plugin may import {IMPORTS_ALLOWED}* only"
        );
    }
    write(Path::new(out), &component)
}

/// Names of the interfaces and functions that a component imports.
fn imports(component: &[u8]) -> Result<Vec<String>> {
    let DecodedWasm::Component(resolve, world) = wit_component::decode(component)? else {
        bail!("the encoder wrote a WIT package instead of a component");
    };
    let imports = resolve.worlds[world].imports.iter();
    Ok(imports
        .filter(|(_, item)| !matches!(item, WorldItem::Type { .. }))
        .map(|(key, _)| resolve.name_world_key(key))
        .collect())
}

fn write(path: &Path, contents: &[u8]) -> Result<()> {
    std::fs::write(path, contents).with_context(|| format!("writing {}", path.display()))
}
