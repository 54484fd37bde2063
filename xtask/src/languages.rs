//! The SDKs in other languages than Rust: their own tests, each by its language's runner, and the plugin of the vectors
//! (`plugins/sdk/vectors`) as a component, for the host's tests.
//!
//! A language that isn't on the machine is left out, with words; where `CI` is set, that is an error.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use super::{run, setup, target};

struct Language {
    name: &'static str,
    /// What it takes: each a program that shows that it is there, and what to install.
    needs: &'static [setup::Need],
    /// Its SDK's tests, and whatever they take.
    test: fn(&Path) -> Result<()>,
    /// Makes the component.
    build: fn(&Path, &Path) -> Result<()>,
}

const LANGUAGES: [Language; 4] = [
    Language {
        name: "c",
        needs: &[],
        test: test_c,
        build: build_c,
    },
    Language {
        name: "go",
        needs: &[(
            &["go", "version"],
            "Go 1.24 or newer (go.dev/dl; Debian 13: golang)",
        )],
        test: test_go,
        build: build_go,
    },
    Language {
        name: "python",
        needs: &[(
            &["python3", "-c", "import ensurepip, venv"],
            "Python 3.10 or newer with venv (Debian: python3-venv)",
        )],
        test: test_python,
        build: build_python,
    },
    Language {
        name: "js",
        needs: &[
            (&["node", "--version"], "Node.js 20 or newer (nodejs.org)"),
            (&["npm", "--version"], "npm (Debian: npm)"),
        ],
        test: test_js,
        build: build_js,
    },
];

/// Builds the components; and first, where that is wanted, runs the SDKs' tests.
pub fn all(root: &Path, tests: bool) -> Result<()> {
    for language in LANGUAGES {
        let built = target(
            root,
            &format!("target/plugins/vectors-{}.wasm", language.name),
        );
        if let Some(missing) = missing(root, &language) {
            let what = format!("the SDK for {} needs {missing}", language.name);
            ensure!(std::env::var_os("CI").is_none(), "{what}");
            println!("left out: {what}");
            // That of an earlier build would be of other sources.
            if built.exists() {
                fs::remove_file(built)?;
            }
            continue;
        }
        let context = || format!("the SDK for {}", language.name);
        if tests {
            (language.test)(root).with_context(context)?;
        }
        let folder = built.parent().context("a file stands in a folder")?;
        fs::create_dir_all(folder)?;
        (language.build)(root, &built).with_context(context)?;
        println!("{}", built.display());
    }
    Ok(())
}

fn missing(root: &Path, language: &Language) -> Option<&'static str> {
    let mut needs = language.needs.iter();
    let missing = needs.find(|(shown, _)| !setup::works(root, shown));
    missing.map(|(_, what)| *what)
}

fn sdk(root: &Path, name: &str) -> PathBuf {
    root.join("plugins/sdk").join(name)
}

/// A command in the folder of an SDK.
fn command(root: &Path, sdk_name: &str, words: &[&str]) -> Command {
    let (program, arguments) = words.split_first().expect("a command has a name");
    let mut command = Command::new(program);
    command.current_dir(sdk(root, sdk_name)).args(arguments);
    command
}

/// What CMake makes of the SDK, in a folder of that name.
fn cmake(root: &Path, folder: &str, more: &[&str]) -> Result<PathBuf> {
    let folder = target(root, "target/languages").join(folder);
    let mut configure = command(root, "c", &["cmake", "-S", ".", "-B"]);
    run(configure.arg(&folder).args(more))?;
    let mut build = command(root, "c", &["cmake", "--build"]);
    run(build.arg(&folder))?;
    Ok(folder)
}

fn test_c(root: &Path) -> Result<()> {
    setup::cmake(root)?;
    let folder = cmake(root, "c-tests", &[])?;
    let mut tests = command(root, "c", &["ctest", "--output-on-failure", "--test-dir"]);
    run(tests.arg(folder))
}

/// The compiler is that of the plugin in C, which was built before.
fn build_c(root: &Path, built: &Path) -> Result<()> {
    setup::cmake(root)?;
    let folder = cmake(root, "c", &["-DCMAKE_TOOLCHAIN_FILE=wasm.cmake"])?;
    componentize(root, &folder.join("vectors-core.wasm"), built, &["--embed"])
}

fn componentize(root: &Path, core: &Path, built: &Path, flags: &[&str]) -> Result<()> {
    let mut guests = Command::new(target(root, "target/release/guests"));
    guests.arg("componentize").arg(core).arg("-o").arg(built);
    run(guests.current_dir(root).args(flags))
}

fn test_go(root: &Path) -> Result<()> {
    let unformatted = command(root, "go", &["gofmt", "-l", "."]).output()?;
    ensure!(
        unformatted.stdout.is_empty(),
        "gofmt would change {}",
        String::from_utf8_lossy(&unformatted.stdout).trim()
    );
    run(&mut command(root, "go", &["go", "vet", "./..."]))?;
    run(&mut command(
        root,
        "go",
        &["go", "test", "-count=1", "./..."],
    ))
}

fn build_go(root: &Path, built: &Path) -> Result<()> {
    let core = built.with_extension("core");
    let words = ["go", "build", "-buildmode=c-shared", "-ldflags=-s -w", "-o"];
    let mut go = command(root, "go", &words);
    go.arg(&core).arg("./vectors");
    run(go.env("GOOS", "wasip1").env("GOARCH", "wasm"))?;
    componentize(root, &core, built, &["--embed", "--no-wasi"])
}

/// A Python with what the SDK takes, of its own. It is made again where the SDK takes something else.
fn python(root: &Path) -> Result<PathBuf> {
    let folder = target(root, "target/languages/python");
    let python = folder.join("bin/python");
    let wanted = fs::read_to_string(sdk(root, "python").join("pyproject.toml"))?;
    let stamp = folder.join("pyproject.toml");
    if fs::read_to_string(&stamp).is_ok_and(|made| made == wanted) {
        return Ok(python);
    }
    let mut venv = Command::new("python3");
    run(venv.args(["-m", "venv", "--clear"]).arg(&folder))?;
    let needed = wanted.lines().find_map(|line| {
        let list = line.strip_prefix("dependencies = [\"")?;
        list.strip_suffix("\"]")
    });
    let Some(needed) = needed else {
        bail!("pyproject.toml has no line `dependencies = [\"…\"]`");
    };
    let mut pip = Command::new(&python);
    pip.args([
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
    ]);
    run(pip.args([needed, "mypy", "pytest"]))?;
    fs::write(stamp, wanted)?;
    Ok(python)
}

fn test_python(root: &Path) -> Result<()> {
    let python = python(root)?;
    let mut mypy = Command::new(&python);
    mypy.args(["-m", "mypy", "--cache-dir"])
        .arg(target(root, "target/languages/mypy"));
    run(mypy.current_dir(sdk(root, "python")))?;
    let mut pytest = Command::new(&python);
    pytest.args(["-m", "pytest", "--quiet", "-p", "no:cacheprovider"]);
    run(pytest
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .current_dir(sdk(root, "python")))
}

fn build_python(root: &Path, built: &Path) -> Result<()> {
    let mut build = Command::new(python(root)?);
    build.args([
        "-m",
        "millstream_plugin.build",
        "build",
        "tests/vectors.py",
        "-o",
    ]);
    run(build
        .arg(built)
        .env("PYTHONPATH", "src")
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .current_dir(sdk(root, "python")))
}

/// What npm installs for the SDK.
fn installed_js(root: &Path) -> Result<()> {
    let folder = sdk(root, "js");
    let changed = |file: &str| {
        let facts = fs::metadata(folder.join(file));
        facts.and_then(|facts| facts.modified()).ok()
    };
    // What npm notes once all is there.
    let installed = changed("node_modules/.package-lock.json");
    if installed.is_none() || installed < changed("package-lock.json") {
        run(&mut command(
            root,
            "js",
            &["npm", "ci", "--no-audit", "--no-fund"],
        ))?;
    }
    Ok(())
}

fn test_js(root: &Path) -> Result<()> {
    installed_js(root)?;
    run(&mut command(root, "js", &["npm", "test", "--silent"]))
}

fn build_js(root: &Path, built: &Path) -> Result<()> {
    installed_js(root)?;
    run(&mut command(
        root,
        "js",
        &["npm", "run", "--silent", "build"],
    ))?;
    let words = ["node", "dist/build.js", "build", "dist/vectors.js", "-o"];
    run(command(root, "js", &words).arg(built))
}
