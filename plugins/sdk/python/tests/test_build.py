"""What is said of modules of which no component can be made."""

from __future__ import annotations

import subprocess

import pytest

from millstream_plugin.build import build


@pytest.mark.parametrize(
    ("module", "words"),
    [
        ("x = 1", "module has no plugin: decorate a function with @plugin"),
        ("import nowhere_at_all", "No module named 'nowhere_at_all'"),
        ("def f(:", "SyntaxError"),
    ],
)
def test_what_is_no_plugin_is_told(tmp_path, module, words):
    file = tmp_path / "module.py"
    file.write_text(module)
    with pytest.raises(subprocess.CalledProcessError) as failed:
        build(file, tmp_path / "plugin.wasm")
    assert words in failed.value.output
    assert not (tmp_path / "plugin.wasm").exists()
