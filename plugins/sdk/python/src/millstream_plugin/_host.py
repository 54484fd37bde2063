"""What a plugin may call: the contract's imports in a component, those of a test's harness elsewhere."""

from __future__ import annotations

from typing import NoReturn, Protocol

from ._columns import Column, WitColumn


class Table(Protocol):
    def get(self, keys: Column) -> WitColumn: ...


class Store(Table, Protocol):
    def put(self, keys: Column, values: Column) -> None: ...


class Host(Protocol):
    def open_lookup(self, name: str) -> Table:
        """Raises LookupError, with the reason, unless the pipeline file grants it."""
        ...

    def open_state(self, name: str) -> Store:
        """Raises LookupError, with the reason, unless the pipeline file gives it."""
        ...

    def log(self, level: int, message: str) -> None: ...


class _Nobody:
    def _none(self, *_: object) -> NoReturn:
        raise RuntimeError("there is no host: a plugin runs in Millstream, or in millstream_plugin.testing.Harness")

    open_lookup = open_state = log = _none


_host: Host = _Nobody()


def host() -> Host:
    return _host


def set_host(given: Host) -> None:
    global _host
    _host = given
