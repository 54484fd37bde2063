"""What becomes of a record, as a plugin says it."""

from __future__ import annotations

import json as _json
from collections.abc import Iterable
from enum import Enum
from typing import Any, Final, NamedTuple

from ._columns import Column, Headers, Output, Strings
from ._record import Batch


class Keep(Enum):
    KEEP = "KEEP"


KEEP: Final = Keep.KEEP
"""What an output record has of the record that it comes from."""

_Pairs = list[tuple[str, bytes | None]]


class _Row(NamedTuple):
    """A record; what is kept of its origin is KEEP."""

    origin: int
    key: bytes | None | Keep
    value: bytes | None | Keep
    timestamp: int | Keep
    headers: _Pairs | Keep


_dumps = _json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode


class Out:
    """Takes what becomes of a record. What is not emitted is dropped."""

    __slots__ = ("_has_headers", "_known", "_origin", "_ports")

    def __init__(self, ports: Iterable[str], has_headers: bool) -> None:
        self._known, self._has_headers = frozenset({"", *ports}), has_headers
        self._ports: dict[str, _Port] = {}
        self._origin = 0

    def emit(
        self,
        *,
        key: bytes | str | None | Keep = KEEP,
        value: bytes | str | None | Keep = KEEP,
        json: Any = KEEP,
        timestamp: int | None | Keep = KEEP,
        headers: Iterable[tuple[str, bytes | str | None]] | Keep = KEEP,
        port: str = "",
    ) -> None:
        """Emits a record. It is the record being processed, but for what is given; None is null, and text is written as UTF-8.

        `json` is the value, to be written as JSON. `port` is one that the plugin names. Who sets headers needs to ask for them.
        """
        if port not in self._known:
            raise ValueError(f"port {port!r} is none of the plugin's ports=[…]")
        if headers is not KEEP and not self._has_headers:
            # A record whose headers weren't seen couldn't keep them beside one whose headers were set.
            raise ValueError("headers are set, and the plugin doesn't ask for them: headers=True")
        if json is not KEEP:
            if value is not KEEP:
                raise ValueError("emit takes a value or json, not both")
            value = _dumps(json)
        row = _Row(
            self._origin,
            KEEP if key is KEEP else _string("key", key),
            KEEP if value is KEEP else _string("value", value),
            KEEP if timestamp is KEEP else _timestamp(timestamp),
            KEEP if headers is KEEP else [(_name(name), _string("header", value)) for name, value in headers],
        )
        if port not in self._ports:
            self._ports[port] = _Port(port)
        self._ports[port].rows.append(row)

    def begin(self, origin: int) -> None:
        self._origin = origin
        for port in self._ports.values():
            port.mark = len(port.rows)

    def undo(self) -> None:
        for port in self._ports.values():
            del port.rows[port.mark :]

    def outputs(self, batch: Batch) -> list[Output]:
        return [port.output(batch) for port in self._ports.values() if port.rows]


def _string(what: str, given: object) -> bytes | None:
    if isinstance(given, str):
        return given.encode()
    if given is None or isinstance(given, bytes):
        return given
    if isinstance(given, (bytearray, memoryview)):
        return bytes(given)
    raise TypeError(f"a {what} is bytes, text or None, and not {type(given).__name__}")


def _name(given: object) -> str:
    if not isinstance(given, str):
        raise TypeError(f"a header's name is text, and not {type(given).__name__}")
    given.encode()
    return given


def _timestamp(given: object) -> int:
    if given is None:
        return -1
    if isinstance(given, int) and not isinstance(given, bool):
        if not -(2**63) <= given < 2**63:
            raise ValueError(f"a timestamp has 64 bits, and {given} doesn't fit")
        return given
    raise TypeError(f"a timestamp is a number of milliseconds or None, and not {type(given).__name__}")


class _Port:
    __slots__ = ("mark", "name", "rows")

    def __init__(self, name: str) -> None:
        self.name = name
        self.rows: list[_Row] = []
        self.mark = 0

    def output(self, batch: Batch) -> Output:
        rows = self.rows
        return Output(
            self.name,
            [row.origin for row in rows],
            _column([(row.origin, row.key) for row in rows], batch.keys),
            _column([(row.origin, row.value) for row in rows], batch.values),
            self._timestamps(batch),
            self._headers(batch),
        )

    def _timestamps(self, batch: Batch) -> list[int] | None:
        if all(row.timestamp is KEEP for row in self.rows):
            return None
        inherited = batch.given.timestamps
        return [inherited[row.origin] if row.timestamp is KEEP else row.timestamp for row in self.rows]

    def _headers(self, batch: Batch) -> Headers | None:
        if all(row.headers is KEEP for row in self.rows):
            return None
        headers = Headers()
        for index, row in enumerate(self.rows):
            for name, value in batch.headers.of(row.origin) if row.headers is KEEP else row.headers:
                headers.push(index, name, value)
        return headers


def _column(cells: list[tuple[int, bytes | None | Keep]], inherited: Strings) -> Column | None:
    """Of the origins of rows, and what was set there."""
    if all(cell is KEEP for _, cell in cells):
        return None
    return Column(inherited.get(origin) if cell is KEEP else cell for origin, cell in cells)
