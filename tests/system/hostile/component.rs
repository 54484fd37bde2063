//! Components out of the texts of the corpus: whole ones as they stand; and functions of a core module, with what `common.wat` has where
//! they leave something out, under the world of `wit/`, or `wasi.wit` where they import that. What they import is a paragraph of its own.

use rig::repository;
use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};
use wit_parser::Resolve;

/// The file with what cases have in common.
pub const COMMON: &str = "common.wat";

/// The contract's world, with interfaces of WASI beside it.
const WASI: &str = "wasi.wit";

/// Of the contract.
pub const VERSION: &str = "0.1.0";

const PREAMBLE_BYTES: usize = 8;

/// A plugin that passes everything on.
pub fn honest() -> Vec<u8> {
    assemble("honest", "", VERSION)
}

/// The component that a text stands for; a core module, where it begins with one. It need not be sound.
pub fn assemble(name: &str, text: &str, version: &str) -> Vec<u8> {
    let is = |opening: &str| {
        let mut lines = text.lines().map(str::trim);
        let first = lines.find(|line| !line.is_empty() && !line.starts_with(";;"));
        first.is_some_and(|line| line.starts_with(opening))
    };
    if is("(component") || is("(module") {
        return parse(name, text);
    }
    let common = file(&format!("tests/system/hostile/{COMMON}"));
    let parts: Vec<&str> = common
        .split("\n\n")
        .filter(|part| !is_replaced(part, text))
        .collect();
    // A module's imports stand first.
    let is_import = |part: &&str| part.starts_with("(import ");
    let (imports, rest): (Vec<&str>, Vec<&str>) = text.split("\n\n").partition(is_import);
    let sections = [imports, parts, rest].concat();
    let module = format!("(module\n{})", sections.join("\n\n"));
    let module = module.replace(VERSION, version);
    let mut module = parse(name, &module);
    let wit = file("wit/millstream.wit").replace(VERSION, version);
    let mut resolve = Resolve::default();
    let package = resolve.push_str("millstream.wit", &wit);
    let package = package.expect("the contract is sound");
    let package = match text.contains("\"wasi:") {
        true => {
            let wit = file(&format!("tests/system/hostile/{WASI}"));
            let package = resolve.push_str(WASI, &wit);
            package.unwrap_or_else(|why| panic!("{WASI}: {why:#}"))
        }
        false => package,
    };
    let world = resolve.select_world(&[package], Some("plugin"));
    let world = world.expect("the contract has a world");
    embed_component_metadata(&mut module, &resolve, world, StringEncoding::UTF8)
        .unwrap_or_else(|why| panic!("{name}: {why:#}"));
    let encoded = ComponentEncoder::default()
        .module(&module)
        .and_then(|encoder| encoder.encode());
    encoded.unwrap_or_else(|why| panic!("{name}: {why:#}"))
}

/// The honest plugin with the sections of another component behind its own: their indices begin where its own end.
pub fn behind_honest(name: &str, text: &str) -> Vec<u8> {
    let mut both = honest();
    both.extend_from_slice(&parse(name, text)[PREAMBLE_BYTES..]);
    both
}

/// Whether a case has its own version of what is defined in a part.
fn is_replaced(part: &str, text: &str) -> bool {
    let mut lines = part.lines().map(str::trim_start);
    let Some(first) = lines.find(|line| !line.starts_with(";;")) else {
        return false;
    };
    let mut words = first.split([' ', '\n']);
    let (Some(kind @ ("(func" | "(memory")), Some(name)) = (words.next(), words.next()) else {
        return false;
    };
    text.contains(&format!("{kind} {name} "))
}

fn parse(name: &str, text: &str) -> Vec<u8> {
    wat::parse_str(text).unwrap_or_else(|why| panic!("{name}: {why}"))
}

fn file(path: &str) -> String {
    let path = repository().join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|why| panic!("{}: {why}", path.display()))
}
