"""Runs a plugin in an ordinary test, without WebAssembly and without a host.

    from millstream_plugin.testing import Harness, Input
    import adults  # the module that has the plugin

    def test_minors_are_dropped():
        processed = Harness({"min_age": 18}).process(Input(value='{"id":"a","age":17}'))
        assert processed.outputs == []

The harness stands in for the host: it fills in what output records inherit, and holds the plugin to the contract, where a breach raises
AssertionError.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

from ._columns import Column, Outcome, Output, Strings, WitBatch, WitColumn
from ._engine import Engine
from ._host import set_host
from ._record import Header
from ._register import registered
from ._stores import reset

__all__ = ["Emitted", "Harness", "Input", "Processed"]


@dataclass
class Input:
    """A record for a plugin to process. None is null; text is UTF-8."""

    key: bytes | str | None = None
    value: bytes | str | None = None
    timestamp: int | None = 1000
    headers: list[tuple[str, bytes | str | None]] = field(default_factory=list)
    input: str = "input"


@dataclass
class Emitted:
    """A record that came out, with all that it inherits."""

    port: str
    origin: int
    key: bytes | None
    value: bytes | None
    timestamp: int | None
    headers: list[Header]

    def json(self) -> object:
        assert self.value is not None, "the value is null"
        return json.loads(self.value)


@dataclass
class Processed:
    """What a batch came to; `fetches` and `puts` say how many keys each call into the host was about."""

    outputs: list[Emitted] = field(default_factory=list)
    failures: list[tuple[int, str]] = field(default_factory=list)
    fetches: list[int] = field(default_factory=list)
    puts: list[int] = field(default_factory=list)
    log: list[tuple[int, str]] = field(default_factory=list)


def _bytes(given: bytes | str | None) -> bytes | None:
    return given.encode() if isinstance(given, str) else given


def _entries(table: Mapping[Any, Any]) -> dict[bytes, bytes]:
    return {_bytes(key) or b"": _bytes(value) or b"" for key, value in table.items()}


class Harness:
    def __init__(self, config: Mapping[str, Any] | None = None, lookups: Mapping[str, Mapping[Any, Any]] | None = None) -> None:
        """Configures the plugin of the module that was imported. Raises ValueError where it refuses the configuration."""
        assert registered, "no module with a plugin was imported"
        self._plugin = registered[0]
        self._granted = {name: _entries(table) for name, table in (lookups or {}).items()}
        for name in self._plugin.lookups:
            assert name in self._granted, f'the plugin needs the lookup "{name}", which the test doesn\'t grant'
        self.state: dict[str, dict[bytes, bytes]] = {name: {} for name in self._plugin.state}
        self._processed = Processed()
        set_host(self)
        reset()
        self._engine = Engine(self._plugin, json.dumps(dict(config or {})))

    def process(self, *records: Input) -> Processed:
        """Raises what concerns the batch as a whole; what it put is undone then, as the host would."""
        set_host(self)
        self._processed = Processed()
        before = {name: dict(entries) for name, entries in self.state.items()}
        try:
            outcome = self._engine.process(_batch(records, self._plugin.headers))
        except BaseException:
            for name, entries in before.items():
                self.state[name].clear()
                self.state[name].update(entries)
            raise
        self._resolve(outcome, records)
        return self._processed

    def open_lookup(self, name: str) -> _Table:
        return self._open(self._granted, "lookup", name)

    def open_state(self, name: str) -> _Table:
        return self._open(self.state, "state", name)

    def _open(self, tables: Mapping[str, dict[bytes, bytes]], kind: str, name: str) -> _Table:
        if name not in tables:
            raise LookupError(f'the pipeline file gives the step no {kind} "{name}"')
        return _Table(self, tables[name])

    def log(self, level: int, message: str) -> None:
        self._processed.log.append((level, message))

    def note(self, kind: str, keys: int) -> None:
        getattr(self._processed, kind).append(keys)

    def _resolve(self, outcome: Outcome, records: tuple[Input, ...]) -> None:
        failed = {failure.origin for failure in outcome.failures}
        for output in outcome.outputs:
            known = output.port == "" or output.port in self._plugin.ports
            assert known, f'the plugin does not name the port "{output.port}"'
            assert output.headers is None or self._plugin.headers, "headers are set, and the plugin doesn't ask for them"
            assert not failed & set(output.origins), "a record that failed has an output"
            self._processed.outputs.extend(_emitted(output, records))
        self._processed.failures = [(failure.origin, failure.reason) for failure in outcome.failures]


class _Table:
    def __init__(self, harness: Harness, entries: dict[bytes, bytes]) -> None:
        self._harness, self._entries = harness, entries

    def get(self, keys: Column) -> Column:
        self._harness.note("fetches", len(keys))
        return Column(self._entries.get(key or b"") for key in _all(keys))

    def put(self, keys: Column, values: Column) -> None:
        self._harness.note("puts", len(keys))
        for key, value in zip(_all(keys), _all(values)):
            assert key is not None
            if value is None:
                self._entries.pop(key, None)
            else:
                self._entries[key] = value


def _all(column: WitColumn) -> list[bytes | None]:
    strings = Strings(column)
    return [strings.get(index) for index in range(len(column.ends))]


def _batch(records: tuple[Input, ...], has_headers: bool) -> WitBatch:
    inputs = list(dict.fromkeys(record.input for record in records))
    owners, names, values = [], Column(), Column()
    for index, record in enumerate(records):
        for name, value in record.headers if has_headers else []:
            owners.append(index)
            names.push(name.encode())
            values.push(_bytes(value))
    given: Any = SimpleNamespace(
        inputs=inputs,
        input_of=[inputs.index(record.input) for record in records],
        topic="topic",
        partition=0,
        now=1000,
        offsets=list(range(len(records))),
        timestamps=[-1 if record.timestamp is None else record.timestamp for record in records],
        keys=Column(_bytes(record.key) for record in records),
        values=Column(_bytes(record.value) for record in records),
        headers=SimpleNamespace(owners=owners, names=names, values=values),
    )
    return given  # type: ignore[no-any-return]


def _emitted(output: Output, records: tuple[Input, ...]) -> list[Emitted]:
    all_emitted = []
    keys = None if output.keys is None else _all(output.keys)
    values = None if output.values is None else _all(output.values)
    for row, origin in enumerate(output.origins):
        record = records[origin]
        timestamp = record.timestamp
        if output.timestamps is not None:
            timestamp = None if output.timestamps[row] == -1 else output.timestamps[row]
        headers = [Header(name, _bytes(value)) for name, value in record.headers]
        if output.headers is not None:
            pairs = zip(_all(output.headers.names), _all(output.headers.values))
            owned = zip(output.headers.owners, pairs)
            headers = [Header((name or b"").decode(), value) for owner, (name, value) in owned if owner == row]
        key = _bytes(record.key) if keys is None else keys[row]
        value = _bytes(record.value) if values is None else values[row]
        all_emitted.append(Emitted(output.port, origin, key, value, timestamp, headers))
    return all_emitted
