"""Tables and state, key by key for whoever writes a plugin; underneath, the keys of a batch are fetched, and written, with one call each.

Invariant: what a call fetched, and what it put and didn't write, is forgotten when it ends.
"""

from __future__ import annotations

import json as _json
from abc import ABC, abstractmethod
from typing import Any, NoReturn

from ._columns import Column, Strings
from ._host import Store, Table, host

# How keys get their values: not at all, since no records are processed; or all that those of a batch want together; or each at once.
DIRECT, COLLECTING, AT_ONCE = range(3)


class Waits(BaseException):
    """A record asks for a key that isn't known yet. No `except Exception` holds it up, and whatever does changes nothing."""


class _Step:
    def __init__(self) -> None:
        self.mode = DIRECT
        self.has_waited = False
        self.tables: dict[str, Lookup] = {}
        self.stores: dict[str, State] = {}
        self.refused: set[str] = set()

    def begin(self, mode: int) -> None:
        self.mode = mode

    def wait(self) -> NoReturn:
        self.has_waited = True
        raise Waits

    def take_waited(self) -> bool:
        has_waited, self.has_waited = self.has_waited, False
        return has_waited

    def catch_up(self) -> None:
        for table in self.tables.values():
            table._catch_up()
        for store in self.stores.values():
            store._catch_up()

    def write(self) -> None:
        for store in self.stores.values():
            store._write()

    def keep(self) -> None:
        for store in self.stores.values():
            store._journal.clear()

    def undo(self) -> None:
        for store in self.stores.values():
            store._undo()

    def forget(self) -> None:
        self.mode = DIRECT
        for table in self.tables.values():
            table._forget()
        for store in self.stores.values():
            store._forget()


step = _Step()


def reset() -> None:
    """For another configuration, in a test. What was opened stays: a module may have it in a variable."""
    step.forget()
    for table in step.tables.values():
        table._table = None
    for store in step.stores.values():
        store._store = None
    step.refused.clear()


def lookup(name: str) -> Lookup:
    """The table under the name by which the pipeline file grants it to the step. The plugin names it too: `lookups=[…]`."""
    if name not in step.tables:
        step.tables[name] = Lookup(name)
    return step.tables[name]


def lookup_if_granted(name: str) -> Lookup | None:
    """The same for plugins that can do without, and name it so: `optional_lookups=[…]`. None where the pipeline file doesn't grant it."""
    if name in step.refused:
        return None
    found = lookup(name)
    try:
        found._opened()
    except LookupError:
        step.refused.add(name)
        return None
    return found


def state(name: str) -> State:
    """The state under the name by which the pipeline file gives it to the step. The plugin names it too: `state=[…]`."""
    if name not in step.stores:
        if step.mode != DIRECT:
            raise LookupError(f'state "{name}" is not named by the plugin: add it to its state=[…]')
        step.stores[name] = State(name)
    return step.stores[name]


def _key(key: bytes | str) -> bytes:
    if isinstance(key, str):
        return key.encode()
    if not isinstance(key, bytes):
        raise TypeError(f"a key is bytes or text, and not {type(key).__name__}")
    return key


class _Keyed(ABC):
    """Keys that are fetched together, and what is known of them: None where there is none."""

    # What is done with its keys, for an error.
    _what: str

    def __init__(self, name: str) -> None:
        self.name = name
        self._known: dict[bytes, bytes | None] = {}
        self._wanted: dict[bytes, None] = {}

    @abstractmethod
    def get(self, key: bytes | str) -> bytes | None: ...

    @abstractmethod
    def _opened(self) -> Table: ...

    def json(self, key: bytes | str) -> Any:
        """The value of a key as JSON; None where there is no such key."""
        found = self.get(key)
        return None if found is None else _json.loads(found)

    def _read(self, key: bytes) -> bytes | None:
        if key not in self._known:
            if step.mode == DIRECT:
                raise RuntimeError(f"{self._what} while records are processed only")
            self._wanted[key] = None
            if step.mode == COLLECTING:
                step.wait()
            self._catch_up()
        return self._known[key]

    def _catch_up(self) -> None:
        if self._wanted:
            keys = list(self._wanted)
            found = Strings(self._opened().get(Column(keys)))
            self._known.update((key, found.get(index)) for index, key in enumerate(keys))
            self._wanted.clear()

    def _forget(self) -> None:
        self._known.clear()
        self._wanted.clear()


class Lookup(_Keyed):
    """A table that the step may read."""

    _what = "keys are looked up"

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self._table: Table | None = None

    def get(self, key: bytes | str) -> bytes | None:
        """The value of a key, None where the table has none.

        The keys of a whole batch are fetched at once. Where a key isn't known yet this does not return: the record is processed again,
        from the start, once it is, and so are those behind it. What they emitted and put is undone; what they changed elsewhere is not, so
        change nothing else. Such a try sees state without what the records before it will change.
        """
        return self._read(_key(key))

    def _opened(self) -> Table:
        if self._table is None:
            self._table = host().open_lookup(self.name)
        return self._table


class State(_Keyed):
    """Keyed values that are the step's own: durable, and changed exactly once for each record."""

    _what = "state is read"

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self._store: Store | None = None
        self._put: dict[bytes, bytes | None] = {}
        self._journal: list[tuple[bytes, bool, bytes | None]] = []

    def get(self, key: bytes | str) -> bytes | None:
        """The value of a key, None where there is none. It sees what this record and those before it have put.

        Where the key isn't known yet this does not return, and the record is processed again: see `Lookup.get`.
        """
        key = _key(key)
        return self._put[key] if key in self._put else self._read(key)

    def put(self, key: bytes | str, value: bytes | str) -> None:
        """Sets the value of a key. It is written even if it is what the key had: to put says that the entry is alive."""
        if isinstance(value, str):
            value = value.encode()
        if not isinstance(value, bytes):
            raise TypeError(f"a value of state is bytes or text, and not {type(value).__name__}")
        self._change(_key(key), value)

    def put_json(self, key: bytes | str, value: Any) -> None:
        """Sets the value of a key to that, written as JSON."""
        self.put(key, _json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")))

    def remove(self, key: bytes | str) -> None:
        """Removes a key. Where it is known that there is none, nothing is written."""
        self._change(_key(key), None)

    def _change(self, key: bytes, value: bytes | None) -> None:
        if step.mode == DIRECT:
            raise RuntimeError("state is changed while records are processed only")
        self._journal.append((key, key in self._put, self._put.get(key)))
        self._put[key] = value

    def _undo(self) -> None:
        for key, was_put, value in reversed(self._journal):
            if was_put:
                self._put[key] = value
            else:
                del self._put[key]
        self._journal.clear()

    def _opened(self) -> Store:
        if self._store is None:
            self._store = host().open_state(self.name)
        return self._store

    def _write(self) -> None:
        def is_nothing(key: bytes, value: bytes | None) -> bool:
            return value is None and key in self._known and self._known[key] is None

        changed = [(key, value) for key, value in self._put.items() if not is_nothing(key, value)]
        if changed:
            self._opened().put(Column(key for key, _ in changed), Column(value for _, value in changed))

    def _forget(self) -> None:
        super()._forget()
        self._put.clear()
        self._journal.clear()
