"""The vectors of plugins/sdk/vectors, without WebAssembly."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path

import pytest

from millstream_plugin import _register
from millstream_plugin.testing import Emitted, Harness, Input

SUITE = json.loads((Path(__file__).parents[2] / "vectors/vectors.json").read_text())


def text(given) -> bytes | None:
    if isinstance(given, dict):
        given = given["before"] + given["repeat"] * given["times"]
    return None if given is None else given.encode()


def fields(record: dict) -> dict:
    return {
        "key": text(record["key"]),
        "value": text(record.get("value")),
        "timestamp": record.get("timestamp", 1000),
        "headers": [(name, text(value)) for name, value in record.get("headers", [])],
    }


def expected(record: dict, found: Emitted) -> Emitted:
    wanted = Emitted(record.get("port", ""), record["origin"], **fields(record))
    if "json" in record and found.json() == record["json"]:
        wanted.value = found.value
    return wanted


@pytest.mark.parametrize("vector", SUITE["cases"], ids=lambda vector: vector["name"])
def test_vector(vector):
    _register.registered.clear()
    sys.modules.pop("vectors", None)
    importlib.import_module("vectors")
    harness = Harness(SUITE["config"], SUITE["lookups"])
    harness.state["totals"].update({text(key): text(value) for key, value in vector.get("before", {}).items()})
    processed = harness.process(*(Input(**fields(record)) for record in vector["records"]))
    # By the default port last.
    outputs = sorted(processed.outputs, key=lambda output: output.port == "")
    assert outputs == [expected(record, found) for record, found in zip(vector["outputs"], outputs, strict=True)]
    for (origin, reason), failure in zip(processed.failures, vector.get("failures", []), strict=True):
        assert origin == failure["origin"]
        assert failure["reason"] in reason
    assert harness.state["totals"] == {text(key): text(value) for key, value in vector.get("after", {}).items()}
