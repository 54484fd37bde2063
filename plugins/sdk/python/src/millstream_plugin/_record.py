"""A record, as a plugin is given it."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

from ._columns import HeaderRows, Strings, WitBatch


class Header(NamedTuple):
    """A header of a record; a value may be null."""

    name: str
    value: bytes | None


class Batch:
    """What a call is about: records of one partition, in the order of their offsets."""

    __slots__ = ("given", "headers", "keys", "values")

    def __init__(self, given: WitBatch) -> None:
        self.given = given
        self.keys, self.values = Strings(given.keys), Strings(given.values)
        self.headers = HeaderRows(given.headers)

    def __len__(self) -> int:
        return len(self.given.offsets)


class Record:
    """One record of the step's input."""

    __slots__ = ("_batch", "_index")

    def __init__(self, batch: Batch, index: int) -> None:
        self._batch, self._index = batch, index

    @property
    def key(self) -> bytes | None:
        """None is null, which differs from empty."""
        return self._batch.keys.get(self._index)

    @property
    def value(self) -> bytes | None:
        """None is null, which differs from empty."""
        return self._batch.values.get(self._index)

    def text(self) -> str:
        """The value as UTF-8. Raises ValueError where it is null, or isn't."""
        value = self.value
        if value is None:
            raise ValueError("the value is null")
        return value.decode()

    def json(self) -> Any:
        """The value as JSON. Raises ValueError where it is null, or isn't."""
        value = self.value
        if value is None:
            raise ValueError("the value is null")
        return json.loads(value)

    @property
    def timestamp(self) -> int | None:
        """In milliseconds since 1970-01-01 UTC; None where the record has none."""
        timestamp = self._batch.given.timestamps[self._index]
        return None if timestamp == -1 else timestamp

    @property
    def now(self) -> int:
        """The time of day in milliseconds since 1970-01-01 UTC: the same for all records of a batch, and when it is tried again."""
        return self._batch.given.now

    @property
    def topic(self) -> str:
        """Of the source record, like partition and offset."""
        return self._batch.given.topic

    @property
    def partition(self) -> int:
        return self._batch.given.partition

    @property
    def offset(self) -> int:
        return self._batch.given.offsets[self._index]

    @property
    def input(self) -> str:
        """Which of the step's inputs the record came by, as the pipeline file names it."""
        given = self._batch.given
        return given.inputs[given.input_of[self._index] if given.input_of else 0]

    @property
    def headers(self) -> list[Header]:
        """In their order; none unless the plugin asks for headers."""
        return [Header(*header) for header in self._batch.headers.of(self._index)]

    def header(self, name: str) -> bytes | None:
        """The value of the last header of that name; None where it is null, or there is none."""
        named = [header.value for header in self.headers if header.name == name]
        return named[-1] if named else None
