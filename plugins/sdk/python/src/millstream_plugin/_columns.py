"""The contract's records as they cross the boundary, and columns of byte strings to read and to fill."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Protocol


class WitColumn(Protocol):
    """The contract's column; where it is read, whoever made it."""

    @property
    def bytes(self) -> bytes: ...
    @property
    def ends(self) -> list[int]: ...
    @property
    def nulls(self) -> list[int]: ...


class WitHeaders(Protocol):
    @property
    def owners(self) -> list[int]: ...
    @property
    def names(self) -> WitColumn: ...
    @property
    def values(self) -> WitColumn: ...


class WitBatch(Protocol):
    @property
    def inputs(self) -> list[str]: ...
    @property
    def input_of(self) -> list[int]: ...
    @property
    def topic(self) -> str: ...
    @property
    def partition(self) -> int: ...
    @property
    def now(self) -> int: ...
    @property
    def offsets(self) -> list[int]: ...
    @property
    def timestamps(self) -> list[int]: ...
    @property
    def keys(self) -> WitColumn: ...
    @property
    def values(self) -> WitColumn: ...
    @property
    def headers(self) -> WitHeaders: ...


# What a property of the same name hides.
Bytes = bytes


class Column:
    """Byte strings, any of which may be null, to be filled."""

    __slots__ = ("_ends", "_nulls", "_parts", "_size")

    def __init__(self, strings: Iterable[Bytes | None] = ()) -> None:
        self._parts: list[Bytes] = []
        self._ends: list[int] = []
        self._nulls: list[int] = []
        self._size = 0
        for string in strings:
            self.push(string)

    def __len__(self) -> int:
        return len(self._ends)

    def push(self, string: Bytes | None) -> None:
        if string is None:
            self._nulls.append(len(self._ends))
        else:
            self._parts.append(string)
            self._size += len(string)
        self._ends.append(self._size)

    @property
    def bytes(self) -> Bytes:
        return b"".join(self._parts)

    @property
    def ends(self) -> list[int]:
        return self._ends

    @property
    def nulls(self) -> list[int]:
        return self._nulls


class Strings:
    """A column of the contract, to be read."""

    __slots__ = ("bytes", "ends", "nulls")

    def __init__(self, column: WitColumn) -> None:
        self.bytes, self.ends, self.nulls = column.bytes, column.ends, frozenset(column.nulls)

    def get(self, index: int) -> bytes | None:
        if index in self.nulls:
            return None
        return self.bytes[self.ends[index - 1] if index else 0 : self.ends[index]]


class HeaderRows:
    """Headers of several records, to be read."""

    __slots__ = ("names", "owners", "values")

    def __init__(self, headers: WitHeaders) -> None:
        self.owners = headers.owners
        self.names, self.values = Strings(headers.names), Strings(headers.values)

    def of(self, owner: int) -> list[tuple[str, bytes | None]]:
        if not self.owners:
            return []
        first, end = bisect_left(self.owners, owner), bisect_left(self.owners, owner + 1)
        return [((self.names.get(at) or b"").decode(), self.values.get(at)) for at in range(first, end)]


@dataclass
class Headers:
    """Headers of several records, to be filled."""

    owners: list[int] = field(default_factory=list)
    names: Column = field(default_factory=Column)
    values: Column = field(default_factory=Column)

    def push(self, owner: int, name: str, value: bytes | None) -> None:
        self.owners.append(owner)
        self.names.push(name.encode())
        self.values.push(value)


@dataclass
class Output:
    port: str
    origins: list[int]
    keys: Column | None
    values: Column | None
    timestamps: list[int] | None
    headers: Headers | None


@dataclass
class Failure:
    origin: int
    reason: str


@dataclass
class Outcome:
    outputs: list[Output]
    failures: list[Failure]
