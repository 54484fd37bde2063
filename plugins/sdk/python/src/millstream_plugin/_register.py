"""How a function becomes a plugin."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar, get_type_hints

from ._out import Out
from ._record import Record

_Function = TypeVar("_Function", bound=Callable[..., object])


@dataclass
class Plugin:
    name: str
    version: str
    function: Callable[[Record, Out, Any], object]
    config: type | None
    config_schema: str | None
    ports: list[str]
    lookups: list[str]
    optional_lookups: list[str]
    state: list[str]
    headers: bool

    def configured(self, text: str) -> Callable[[Record, Out], object]:
        """The function under a configuration. Raises ValueError with words for whoever starts the pipeline."""
        given = json.loads(text)
        function = self.function
        if self.config is None:
            if given:
                raise ValueError(f"config: the plugin takes none, and is given {', '.join(sorted(given))}")
            return function  # type: ignore[return-value]
        config = _config(self.config, given)
        return lambda record, out: function(record, out, config)


def _config(kind: type, given: dict[str, Any]) -> object:
    if not dataclasses.is_dataclass(kind):
        return kind(**given) if kind is not dict else given
    known = {field.name for field in dataclasses.fields(kind)}
    unknown = sorted(set(given) - known)
    if unknown:
        raise ValueError(f'config: unknown key "{unknown[0]}", expected {", ".join(sorted(known))}')
    needed = [
        field.name
        for field in dataclasses.fields(kind)
        if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
    ]
    missing = [name for name in needed if name not in given]
    if missing:
        raise ValueError(f'config: "{missing[0]}" is missing')
    types: dict[str, Any] = get_type_hints(kind)
    for name, value in given.items():
        wanted = types[name]
        # What is more than a plain value, its own __post_init__ has to check. A whole number is a number too.
        if wanted not in (int, float, str, bool) or type(value) is wanted or (wanted is float and type(value) is int):
            continue
        raise ValueError(f'config: "{name}" is {type(value).__name__}, expected {wanted.__name__}')
    return kind(**given)


registered: list[Plugin] = []


def plugin(
    name: str,
    version: str,
    *,
    config: type | None = None,
    config_schema: dict[str, Any] | None = None,
    ports: Sequence[str] = (),
    lookups: Sequence[str] = (),
    optional_lookups: Sequence[str] = (),
    state: Sequence[str] = (),
    headers: bool = False,
) -> Callable[[_Function], _Function]:
    """Makes a function of `(record, out)`, or with a configuration of `(record, out, config)`, the module's plugin.

    `config` is a dataclass, made of the step's `config` table: a key that it has no field for is an error. It may check what it is given
    in `__post_init__`, and raise ValueError. `config_schema` is its JSON Schema.

    `ports` are the output ports beside the default one, `lookups` and `state` the names that the function opens; `headers` says that
    records are to carry their headers. The pipeline file is held against them before any record flows; `optional_lookups` it need not grant.
    """

    def register(function: _Function) -> _Function:
        if registered:
            raise RuntimeError(f'a module has one plugin: "{registered[0].name}" is another')
        schema = None if config_schema is None else json.dumps(config_schema)
        wanted = (list(ports), list(lookups), list(optional_lookups), list(state))
        registered.append(Plugin(name, version, function, config, schema, *wanted, headers))
        return function

    return register


def filter(name: str, version: str, *, config: type | None = None, **more: Any) -> Callable[[_Function], _Function]:
    """Makes a function of `(record)`, or of `(record, config)`, the module's plugin: records for which it is true pass as they are."""

    def register(function: _Function) -> _Function:
        def run(record: Record, out: Out, *config: object) -> None:
            passes = function(record, *config)
            if not isinstance(passes, bool):
                if isinstance(passes, Coroutine):
                    passes.close()
                raise TypeError(f"a filter returns True or False, and not {type(passes).__name__}")
            if passes:
                out.emit()

        plugin(name, version, config=config, **more)(run)
        return function

    return register
