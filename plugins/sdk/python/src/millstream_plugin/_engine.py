"""A batch, record by record: what waits for keys is run again, and what fails leaves nothing behind."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Generator

from ._columns import Failure, Outcome, WitBatch
from ._out import Out
from ._record import Batch, Record
from ._register import Plugin
from ._stores import AT_ONCE, COLLECTING, Waits, lookup, lookup_if_granted, state, step

# So often a batch may wait for keys that it asked for only once it knew others; then they are fetched one by one.
_ROUNDS_MAX = 4


class Engine:
    def __init__(self, plugin: Plugin, config: str) -> None:
        self._function: Callable[[Record, Out], object] = plugin.configured(config)
        self._ports, self._headers = plugin.ports, plugin.headers
        self.lookups = [*plugin.lookups, *(name for name in plugin.optional_lookups if lookup_if_granted(name))]
        for name in plugin.lookups:
            lookup(name)
        for name in plugin.state:
            state(name)

    def process(self, given: WitBatch) -> Outcome:
        """Raises what concerns the batch as a whole."""
        batch, out = Batch(given), Out(self._ports, self._headers)
        failures: list[Failure] = []
        start, rounds = 0, 0
        try:
            while start < len(batch):
                step.begin(COLLECTING if rounds < _ROUNDS_MAX else AT_ONCE)
                start = self._run(batch, start, out, failures)
                step.catch_up()
                rounds += 1
            step.write()
        finally:
            step.forget()
        return Outcome(out.outputs(batch), failures)

    def _run(self, batch: Batch, start: int, out: Out, failures: list[Failure]) -> int:
        """Returns the first record that waits, or how many there are. Those behind it are run to see which keys they want only."""
        first = len(batch)
        for index in range(start, len(batch)):
            out.begin(index)
            reason = None
            try:
                returned = self._function(Record(batch, index), out)
                if isinstance(returned, (Coroutine, Generator)):
                    returned.close()
                    reason = "the function is async, or yields: a plugin's has nothing to wait for, and emits"
            except Waits:
                pass
            except (Exception, SystemExit) as error:  # noqa: BLE001
                reason = words(error)
            if step.take_waited():
                first = min(first, index)
            if index < first and reason is None:
                step.keep()
                continue
            out.undo()
            step.undo()
            if index < first and reason is not None:
                failures.append(Failure(index, reason))
        return first


def words(error: BaseException) -> str:
    """An exception as Python tells it: its class and its text, as far as that is UTF-8."""
    name = type(error).__name__
    try:
        text = str(error)
    except Exception:  # noqa: BLE001
        text = "its text can't be told"
    return (f"{name}: {text}" if text else name).encode(errors="replace").decode()
