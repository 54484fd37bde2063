"""`millstream-plugin build MODULE.py -o PLUGIN.wasm`: makes a component of a module that has a plugin."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path

_WORLD = "plugin"
# Componentize-py looks for the contract's class in the module that it is given.
_SHIM = """\
import {module}
from millstream_plugin._component import Transform
"""
# What is wrong with the module is told better by this Python than by the one in the component.
_CHECK = """\
import sys
import {module}
from millstream_plugin._register import registered

if not registered:
    sys.exit("{module} has no plugin: decorate a function with @plugin(…)")
"""


def build(module: Path, out: Path) -> None:
    """Raises subprocess.CalledProcessError, with what was said, where the module can't be imported, has no plugin, or doesn't build."""
    here = str(Path(__file__).parents[1])
    search = os.pathsep.join([str(module.parent), here])
    check = [sys.executable, "-B", "-c", _CHECK.format(module=module.stem)]
    _run(check, env=os.environ | {"PYTHONPATH": search})
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "millstream_component.py").write_text(_SHIM.format(module=module.stem))
        wit = Path(str(files("millstream_plugin") / "wit"))
        # It has no module to be run as.
        start = "import sys, componentize_py; sys.exit(componentize_py.script())"
        command = [sys.executable, "-c", start, "--wit-path", str(wit), "--world", _WORLD, "componentize"]
        paths = [folder, str(module.parent), here]
        # Nothing of WASI is there: a plugin gets time with its records, and reads no file.
        command += ["--stub-wasi", *(word for path in paths for word in ("--python-path", path))]
        _run([*command, "millstream_component", "--output", str(out)])


def _run(command: list[str], env: Mapping[str, str] | None = None) -> None:
    subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=env)


def main() -> None:
    parser = argparse.ArgumentParser(prog="millstream-plugin", description=__doc__)
    verbs = parser.add_subparsers(required=True)
    verb = verbs.add_parser("build", help="make a component")
    verb.add_argument("module", type=Path, help="the Python file with the plugin")
    verb.add_argument("-o", "--output", type=Path, required=True, help="the component to write")
    given = parser.parse_args()
    if not given.module.is_file() or given.module.suffix != ".py":
        sys.exit(f"{given.module} is no Python file")
    try:
        build(given.module.resolve(), given.output)
    except subprocess.CalledProcessError as failed:
        sys.exit(f"{failed.output.rstrip()}\n{given.module}: no component was made")


if __name__ == "__main__":
    main()
