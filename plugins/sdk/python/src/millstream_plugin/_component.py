"""The contract of a component, as componentize-py has it. Imported in components only: `wit_world` is there alone."""

from __future__ import annotations

from componentize_py_types import Err
from wit_world.exports import transform
from wit_world.imports import log as wit_log
from wit_world.imports import lookups, records
from wit_world.imports import state as wit_state

from ._columns import Column, Headers, Outcome, Output
from ._engine import Engine, words
from ._host import set_host
from ._register import registered


class _Wrapped:
    """A table or store of the host: keys and values in the contract's columns."""

    def __init__(self, resource) -> None:
        self._resource = resource

    def get(self, keys: Column):
        return self._resource.get(_column(keys))

    def put(self, keys: Column, values: Column) -> None:
        self._resource.put(_column(keys), _column(values))


class _Host:
    def open_lookup(self, name: str):
        return self._open(lookups.open, name)

    def open_state(self, name: str):
        return self._open(wit_state.open, name)

    def _open(self, open, name: str):
        try:
            return _Wrapped(open(name))
        except Err as refused:
            raise LookupError(refused.value) from None

    def log(self, level: int, message: str) -> None:
        wit_log.log(wit_log.Level(level), message)


set_host(_Host())


def _column(column: Column):
    return records.Column(column.bytes, column.ends, column.nulls)


def _optional(column: Column | None):
    return None if column is None else _column(column)


def _headers(headers: Headers | None):
    if headers is None:
        return None
    return records.Headers(headers.owners, _column(headers.names), _column(headers.values))


def _output(output: Output):
    return records.Output(
        output.port,
        output.origins,
        _optional(output.keys),
        _optional(output.values),
        output.timestamps,
        _headers(output.headers),
    )


def _outcome(outcome: Outcome):
    failures = [records.Failure(failure.origin, failure.reason) for failure in outcome.failures]
    return records.Outcome([_output(output) for output in outcome.outputs], failures)


class Transform:
    """Named as the contract names it."""

    _engine: Engine | None = None

    def describe(self):
        plugin = registered[0]
        return transform.Description(plugin.name, plugin.version, plugin.config_schema)

    def configure(self, config: str):
        plugin = registered[0]
        try:
            # Componentize-py makes an object for each call.
            Transform._engine = Engine(plugin, config)
        except ValueError as error:
            raise Err(str(error)) from None
        except (Exception, SystemExit) as error:  # noqa: BLE001
            raise Err(words(error)) from None
        return transform.Needs(plugin.ports, Transform._engine.lookups, plugin.state, plugin.headers)

    def process(self, batch):
        if Transform._engine is None:
            raise Err("the instance was not configured")
        try:
            return _outcome(Transform._engine.process(batch))
        except (Exception, SystemExit) as error:  # noqa: BLE001
            raise Err(words(error)) from None
