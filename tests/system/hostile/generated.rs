//! Files that no text makes: empty and cut off, noise, a hundred megabytes, bombs for the compiler, and a sound plugin with one bit
//! turned.
//!
//! Invariant: what is made here is the same at every run.

use std::fs::File;
use std::path::Path;
use std::process::Command;

use rig::folder::Folder;
use rig::millstream;

use super::case::SHORT_LIMITS;
use super::component::honest;
use super::life::{line, pipeline};
use crate::dice::Dice;
use crate::pipelines::plugin;

/// How many bits of a plugin are turned, one at a time.
const TURNED_BITS: u32 = 48;

/// Seconds of processor time that a bomb gets here, by the shell: it is the same limit as the compiler's own, which is five minutes.
const BOMB_SECONDS: u32 = 3;

/// What a file is, how it is made, and what is said of it.
pub struct Made {
    pub name: &'static str,
    pub words: &'static str,
    pub make: fn(&Path),
}

/// A core module that takes long to be compiled, or much memory.
pub struct Bomb {
    pub name: &'static str,
    module: fn() -> String,
}

impl Bomb {
    /// A component of it: nobody instantiates the module, and the compiler has to compile it all the same.
    pub fn component(&self) -> Vec<u8> {
        let text = format!("(component {})", (self.module)());
        wat::parse_str(text).expect("the text is sound")
    }
}

pub const FILES: [Made; 14] = [
    Made {
        name: "missing",
        words: "No such file",
        make: |_| {},
    },
    Made {
        name: "folder",
        words: "Is a directory",
        make: |path| std::fs::create_dir(path).expect("the folder can be written"),
    },
    Made {
        name: "empty",
        words: "the file is empty",
        make: |path| write(path, b""),
    },
    Made {
        name: "cut-in-the-preamble",
        words: "it is cut off in its first eight bytes",
        make: |path| write(path, &honest()[..5]),
    },
    Made {
        name: "cut-behind-the-preamble",
        words: "it is a component that exports nothing",
        make: |path| write(path, &honest()[..8]),
    },
    Made {
        name: "cut-in-the-middle",
        words: "is not a plugin: ",
        make: |path| {
            let bytes = honest();
            write(path, &bytes[..bytes.len() / 2]);
        },
    },
    Made {
        name: "cut-by-one-byte",
        words: "is not a plugin: ",
        make: |path| {
            let bytes = honest();
            write(path, &bytes[..bytes.len() - 1]);
        },
    },
    Made {
        name: "with-noise-behind",
        words: "is not a plugin: ",
        make: |path| write(path, &[honest(), b"noise".to_vec()].concat()),
    },
    Made {
        name: "binary-version-unknown",
        words: "it is of an unknown binary version",
        make: |path| {
            let mut bytes = honest();
            bytes[6] = 7;
            write(path, &bytes);
        },
    },
    Made {
        name: "text",
        words: "it is not WebAssembly",
        make: |path| write(path, b"(component)"),
    },
    Made {
        name: "program-of-the-machine",
        words: "it is not WebAssembly",
        make: |path| {
            std::fs::copy(millstream::binary(), path).expect("it is there");
        },
    },
    Made {
        name: "noise",
        words: "it is not WebAssembly",
        make: |path| write(path, &noise(1 << 20)),
    },
    Made {
        name: "noise-behind-the-preamble",
        words: "is not a plugin: ",
        make: |path| write(path, &[&honest()[..8], &noise(1 << 20)].concat()),
    },
    Made {
        name: "100-megabytes-of-nothing",
        words: "it is not WebAssembly",
        make: |path| {
            let file = File::create(path).expect("the folder can be written");
            file.set_len(100_000_000).expect("there is room");
        },
    },
];

pub const BOMBS: [Bomb; 3] = [
    Bomb {
        name: "bomb-of-blocks",
        module: blocks,
    },
    Bomb {
        name: "bomb-of-locals",
        module: locals,
    },
    Bomb {
        name: "bomb-of-functions",
        module: functions,
    },
];

/// Cases in this file: files, bombs, a plugin of 100 MB, deeply nested components, and turned bits.
pub const CASES: usize = FILES.len() + BOMBS.len() + 3;

/// Runs a pipeline with that plugin to the end of its feed: its exit code, and what it said.
pub fn run(folder: &Folder, component: &Path, before: &str) -> (Option<i32>, String) {
    let path = component.display();
    let lines = format!(
        "plugins.made.path = \"{path}\"\nplugins.made.limits = {{ {SHORT_LIMITS} }}\n\
         steps.made = {{ inputs = [\"in\"], plugin = \"made\", on-error = \"skip\" }}"
    );
    let file = folder.write("pipeline.toml", &pipeline("made", &lines, &["made"]));
    let feed = folder.write("in.jsonl", &line("a").repeat(3));
    let command = format!(
        "{before} exec \"$0\" run {} --embedded --http 127.0.0.1:0 --feed in={} --until-end",
        file.display(),
        feed.display()
    );
    let mut shell = Command::new("sh");
    shell.args(["-c", &command]).arg(millstream::binary());
    // What is compiled here is compiled once.
    shell.env("XDG_CACHE_HOME", folder.join("caches"));
    let ended = shell.output().expect("a shell runs");
    let said = String::from_utf8_lossy(&ended.stderr).into_owned();
    (ended.status.code(), said)
}

/// What a shell puts in front of a command that gets so little time.
pub fn hurried() -> String {
    format!("ulimit -S -t {BOMB_SECONDS};")
}

/// A sound plugin, and behind it a section of 100 MB that nobody reads.
pub fn large(path: &Path) {
    let mut bytes = honest();
    let content = vec![0; 100_000_000];
    section(&mut bytes, 0, &content);
    write(path, &bytes);
}

/// Components in components, so deep.
pub fn nested(depth: usize) -> Vec<u8> {
    const PREAMBLE: [u8; 8] = *b"\0asm\x0d\0\x01\0";
    const COMPONENT: u8 = 4;
    let mut inner = PREAMBLE.to_vec();
    for _ in 0..depth {
        let mut outer = PREAMBLE.to_vec();
        section(&mut outer, COMPONENT, &inner);
        inner = outer;
    }
    let mut bytes = honest();
    section(&mut bytes, COMPONENT, &inner);
    bytes
}

/// The honest plugin and the Rust one, each with one bit turned.
pub fn turned() -> impl Iterator<Item = Vec<u8>> {
    let mut dice = Dice::new(7);
    let probe = std::fs::read(plugin("probe.wasm")).expect("it was built");
    let honest = honest();
    (0..TURNED_BITS).map(move |number| {
        let mut bytes = if number % 4 == 0 {
            probe.clone()
        } else {
            honest.clone()
        };
        let bit = dice.between(0, bytes.len() as u64 * 8 - 1);
        let byte = usize::try_from(bit / 8).expect("it is in the file");
        bytes[byte] ^= 1 << (bit % 8);
        bytes
    })
}

fn noise(bytes: usize) -> Vec<u8> {
    let mut dice = Dice::new(3);
    // It doesn't happen to begin as a module does.
    (0..bytes)
        .map(|_| u8::try_from(dice.between(1, 255)).expect("it is below 256"))
        .collect()
}

fn write(path: &Path, bytes: &[u8]) {
    std::fs::write(path, bytes).expect("the folder can be written");
}

fn section(bytes: &mut Vec<u8>, id: u8, content: &[u8]) {
    // A custom section begins with its name: an empty one.
    bytes.push(id);
    leb(bytes, content.len());
    bytes.extend_from_slice(content);
}

fn leb(bytes: &mut Vec<u8>, mut number: usize) {
    loop {
        let low = u8::try_from(number & 0x7f).expect("it has seven bits");
        number >>= 7;
        bytes.push(if number == 0 { low } else { low | 0x80 });
        if number == 0 {
            return;
        }
    }
}

/// A function of blocks that all jump out of each other, by tables.
fn blocks() -> String {
    const BLOCKS: usize = 300;
    const TABLES: usize = 2_000;
    let targets: String = (0..BLOCKS).map(|target| format!(" {target}")).collect();
    let table = format!("(br_if 0 (local.get 0)) (block (br_table{targets} (local.get 0)))");
    let open = "(block ".repeat(BLOCKS);
    let close = ")".repeat(BLOCKS);
    format!(
        "(core module (func (param i32) {open} {} {close}))",
        table.repeat(TABLES)
    )
}

/// A function whose many values all live to its end, through loops.
fn locals() -> String {
    const LOCALS: usize = 20_000;
    let declared = "i64 ".repeat(LOCALS);
    let step = |at: usize| {
        let other = (at * 7 + 1) % LOCALS;
        format!("(local.set {at} (i64.add (local.get {at}) (local.get {other})))")
    };
    let steps: String = (1..LOCALS).map(step).collect();
    format!(
        "(core module (func (param i64) (local {declared}) (loop (loop {steps} (br_if 0 (i64.eqz (local.get 5)))) (br_if 0 (i64.eqz (local.get 9))))))"
    )
}

/// Functions without number, of which each is quickly done.
fn functions() -> String {
    const FUNCTIONS: usize = 200_000;
    let one = "(func (param i64 i64) (result i64) (i64.div_u (i64.mul (local.get 0) (local.get 1)) (i64.popcnt (local.get 1))))";
    format!("(core module {})", one.repeat(FUNCTIONS))
}
