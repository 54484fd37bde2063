"""The plugin that every SDK has in its language: it does what the first word of a record's value says, as plugins/sdk/vectors/README.md has it."""

from __future__ import annotations

import json
from dataclasses import dataclass

from millstream_plugin import Out, Record, lookup, plugin, state


@dataclass
class Config:
    greeting: str


@plugin("vectors", "1.0.0", config=Config, ports=["other"], lookups=["words"], state=["totals"], headers=True)
def vectors(record: Record, out: Out, config: Config) -> None:
    word, _, rest = record.text().partition(" ")
    match word:
        case "keep":
            out.emit()
        case "drop":
            pass
        case "key":
            out.emit(key=rest)
        case "value":
            out.emit(value=rest)
        case "greet":
            out.emit(value=config.greeting)
        case "time":
            out.emit(timestamp=int(rest))
        case "timeless":
            out.emit(timestamp=None)
        case "nulls":
            out.emit(key=None, value=None)
        case "empties":
            out.emit(key="", value="")
        case "upper":
            out.emit(value=rest.upper())
        case "long":
            out.emit(value="x" * int(rest))
        case "many":
            for number in range(int(rest)):
                out.emit(value=str(number))
        case "port":
            out.emit(port=rest)
        case "both":
            out.emit(port="other")
            out.emit()
        case "header":
            out.emit(headers=[("seen", record.header(rest))])
        case "json":
            given = json.loads(rest)
            out.emit(json=given | {"n": given["n"] + 1})
        case "fail":
            out.emit()
            raise ValueError(rest)
        case "crash":
            out.emit(value=rest.split(" ")[7])
        case "count" | "count-and-fail":
            total = (state("totals").json(record.key) or 0) + 1
            state("totals").put_json(record.key, total)
            out.emit(json=total)
            if word == "count-and-fail":
                raise ValueError("counted in vain")
        case "forget":
            state("totals").remove(record.key)
            out.emit()
        case "look":
            out.emit(value=lookup("words").get(rest))
        case "follow":
            at = rest.encode()
            while (found := lookup("words").get(at)) is not None:
                at = found
            out.emit(value=at)
        case _:
            raise ValueError(f'no such word: "{word}"')
