"""Millstream plugins in Python: a function says what becomes of a record, and runs as WebAssembly in a sandbox.

    from dataclasses import dataclass

    from millstream_plugin import Out, Record, plugin

    @dataclass
    class Config:
        min_age: int = 0

    @plugin("adults", "1.0.0", config=Config)
    def adults(record: Record, out: Out, config: Config) -> None:
        user = record.json()
        if user["age"] >= config.min_age:
            out.emit(key=user["id"])

An exception fails the record, and no other: the pipeline file says what becomes of it.
"""

from ._log import Level, log
from ._out import KEEP, Out
from ._record import Header, Record
from ._register import filter, plugin
from ._stores import Lookup, State, lookup, lookup_if_granted, state

__all__ = [
    "KEEP",
    "Header",
    "Level",
    "Lookup",
    "Out",
    "Record",
    "State",
    "filter",
    "log",
    "lookup",
    "lookup_if_granted",
    "plugin",
    "state",
]
