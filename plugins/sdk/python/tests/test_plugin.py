"""The SDK without WebAssembly: what a function sees, what it can say, and what becomes of what it raises."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

import millstream_plugin as millstream
from millstream_plugin import Level, Out, Record, _register
from millstream_plugin.testing import Emitted, Harness, Input


@pytest.fixture(autouse=True)
def nothing_is_registered():
    _register.registered.clear()


def started(function, *, config=None, given=None, lookups=None, **more) -> Harness:
    more.setdefault("lookups", list(lookups or {}))
    millstream.plugin("test", "1.0.0", config=config, **more)(function)
    return Harness(given, lookups)


def values(processed) -> list[bytes | None]:
    return [output.value for output in processed.outputs]


def test_what_is_not_set_is_inherited():
    def change(record: Record, out: Out) -> None:
        match record.value:
            case b"drop":
                pass
            case b"key":
                out.emit(key="new")
            case b"null":
                out.emit(key=None, value=None, timestamp=None)
            case b"headers":
                out.emit(headers=[("b", None)], port="other")
            case b"twice":
                out.emit(value="1")
                out.emit(json={"ä": [1, None]})
            case _:
                out.emit(port="other")
                out.emit()

    harness = started(change, ports=["other"], headers=True)
    header = [("a", b"x")]
    texts = ["drop", "key", "null", "headers", "twice", ""]
    processed = harness.process(*(Input("k", text, 5, header) for text in texts))
    assert processed.outputs == [
        Emitted("", 1, b"new", b"key", 5, header),
        Emitted("", 2, None, None, None, header),
        Emitted("", 4, b"k", b"1", 5, header),
        Emitted("", 4, b"k", '{"ä":[1,null]}'.encode(), 5, header),
        Emitted("", 5, b"k", b"", 5, header),
        Emitted("other", 3, b"k", b"headers", 5, [("b", None)]),
        Emitted("other", 5, b"k", b"", 5, header),
    ]


def test_a_record_tells_where_it_comes_from():
    seen = []

    def look(record: Record, out: Out) -> None:
        seen.append((record.topic, record.partition, record.offset, record.timestamp, record.now, record.input))
        seen.append((record.header("a"), record.headers))

    harness = started(look, headers=True)
    harness.process(Input(timestamp=None), Input(input="other", headers=[("a", "1"), ("a", "2")]))
    assert seen == [
        ("topic", 0, 0, None, 1000, "input"),
        (None, []),
        ("topic", 0, 1, 1000, 1000, "other"),
        (b"2", [("a", b"1"), ("a", b"2")]),
    ]


def test_an_exception_fails_one_record():
    def fail(record: Record, out: Out) -> None:
        out.emit()
        match record.value:
            case b"value":
                raise ValueError("asked to")
            case b"wordless":
                raise KeyError
            case b"type":
                out.emit(key=5)  # type: ignore[arg-type]
            case b"json":
                out.emit(json={1, 2})
            case b"null":
                record.json()["x"]

    harness = started(fail)
    texts = ["a", "value", "wordless", "type", "json", "null", "b"]
    processed = harness.process(*(Input(value=text) for text in texts))
    assert values(processed) == [b"a", b"b"]
    assert processed.failures[:3] == [
        (1, "ValueError: asked to"),
        (2, "KeyError"),
        (3, "TypeError: a key is bytes, text or None, and not int"),
    ]
    assert "not JSON serializable" in processed.failures[3][1]
    assert processed.failures[4][0] == 5


@dataclass
class Config:
    min_age: int
    name: str = "x"

    def __post_init__(self) -> None:
        if self.min_age < 0:
            raise ValueError("config: min_age is negative")


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"min_age": 5}, None),
        ({"min_aeg": 5}, 'config: unknown key "min_aeg", expected min_age, name'),
        ({}, 'config: "min_age" is missing'),
        ({"min_age": -1}, "config: min_age is negative"),
        ({"min_age": "5"}, 'config: "min_age" is str, expected int'),
    ],
)
def test_the_configuration_is_held_against_its_type(given, words):
    found = []

    def look(record: Record, out: Out, config: Config) -> None:
        found.append(config.min_age)

    if words is None:
        started(look, config=Config, given=given).process(Input())
        assert found == [5]
    else:
        with pytest.raises(ValueError, match=f"^{words}$"):
            started(look, config=Config, given=given)


def test_who_takes_no_configuration_is_given_none():
    with pytest.raises(ValueError, match="config: the plugin takes none, and is given a, b"):
        started(lambda record, out: None, given={"b": 1, "a": 2})


def test_a_filter_is_true_for_what_passes():
    @millstream.filter("adults", "1.0.0", config=Config)
    def is_adult(record: Record, config: Config) -> bool:
        return record.json()["age"] >= config.min_age

    harness = Harness({"min_age": 18})
    processed = harness.process(Input(value='{"age":17}'), Input(value='{"age":18}'), Input(value="x"))
    assert values(processed) == [b'{"age":18}']
    assert processed.failures[0][0] == 2


def test_the_keys_of_a_batch_are_fetched_at_once():
    def join(record: Record, out: Out) -> None:
        found = millstream.lookup("countries").get(record.key or b"")
        if found is None:
            raise LookupError("no such country")
        out.emit(value=found)

    harness = started(join, lookups={"countries": {"DE": "Germany", "FR": ""}})
    processed = harness.process(*(Input(key) for key in ["DE", "XX", "FR", "DE"]))
    assert values(processed) == [b"Germany", b"", b"Germany"]
    assert processed.failures == [(1, "LookupError: no such country")]
    assert processed.fetches == [3]


def test_whoever_holds_up_what_waits_changes_nothing():
    def join(record: Record, out: Out) -> None:
        try:
            out.emit(value=millstream.lookup("countries").get(record.key or b""))
        except:  # noqa: E722
            out.emit(value="held up")

    harness = started(join, lookups={"countries": {"DE": "Germany"}})
    assert values(harness.process(Input("DE"), Input("DE"))) == [b"Germany", b"Germany"]


def test_state_is_changed_in_order_and_once():
    def count(record: Record, out: Out) -> None:
        totals = millstream.state("totals")
        total = (totals.json(record.key or b"") or 0) + 1
        totals.put_json(record.key or b"", total)
        if record.value == b"fail":
            raise ValueError("asked to")
        if record.value == b"remove":
            totals.remove(record.key or b"")
        out.emit(json=total)

    harness = started(count, state=["totals"])
    harness.state["totals"].update({b"a": b"5", b"c": b"1"})
    records = [("a", ""), ("b", ""), ("a", "fail"), ("a", ""), ("c", "remove")]
    processed = harness.process(*(Input(key, value) for key, value in records))
    assert values(processed) == [b"6", b"1", b"7", b"2"]
    assert processed.failures == [(2, "ValueError: asked to")]
    assert harness.state["totals"] == {b"a": b"7", b"b": b"1"}
    assert (processed.fetches, processed.puts) == ([3], [3])


def test_keys_that_depend_on_others_are_fetched_in_the_end():
    def follow(record: Record, out: Out) -> None:
        at = record.key or b""
        while (following := millstream.lookup("chain").get(at)) is not None:
            at = following
        out.emit(value=at)

    chain = dict(zip("abcdefg", "bcdefgh"))
    processed = started(follow, lookups={"chain": chain}).process(Input("a"), Input("f"))
    assert values(processed) == [b"h", b"h"]


def test_state_that_is_not_named_is_refused():
    def count(record: Record, out: Out) -> None:
        millstream.state("other").put("k", "v")

    processed = started(count).process(Input())
    assert 'state "other" is not named by the plugin' in processed.failures[0][1]


def test_a_table_that_is_not_granted_can_be_done_without():
    def join(record: Record, out: Out) -> None:
        out.emit(json=millstream.lookup_if_granted("countries") is None)

    harness = started(join, optional_lookups=["countries"])
    assert values(harness.process(Input())) == [b"true"]


def test_what_a_plugin_did_not_ask_for_fails_the_record():
    def run(record: Record, out: Out) -> None:
        match record.value:
            case b"port":
                out.emit(port="other")
            case b"none":
                out.emit(port=None)  # type: ignore[arg-type]
            case b"headers":
                out.emit(headers=[])
            case b"time":
                out.emit(timestamp=2**70)
            case b"nan":
                out.emit(json=float("nan"))
            case b"surrogate":
                raise ValueError("\ud800")
            case b"untold":
                raise Untold
            case b"exit":
                raise SystemExit("asked to")

    class Untold(Exception):
        def __str__(self) -> str:
            return 5  # type: ignore[return-value]  # noqa: PLE0307

    harness = started(run)
    texts = ["port", "none", "headers", "time", "nan", "surrogate", "untold", "exit"]
    failures = harness.process(*(Input(value=text) for text in texts)).failures
    assert [reason for _, reason in failures] == [
        "ValueError: port 'other' is none of the plugin's ports=[…]",
        "ValueError: port None is none of the plugin's ports=[…]",
        "ValueError: headers are set, and the plugin doesn't ask for them: headers=True",
        f"ValueError: a timestamp has 64 bits, and {2**70} doesn't fit",
        "ValueError: Out of range float values are not JSON compliant",
        "ValueError: ?",
        "Untold: its text can't be told",
        "SystemExit: asked to",
    ]


def test_what_waits_or_yields_is_no_plugins_function():
    async def waits(record: Record, out: Out) -> None:
        out.emit()

    assert "async" in started(waits).process(Input()).failures[0][1]
    _register.registered.clear()

    @millstream.filter("test", "1.0.0")
    async def passes(record: Record) -> bool:
        return True

    assert "a filter returns True or False" in Harness().process(Input()).failures[0][1]


def test_state_may_be_opened_where_the_module_is_imported():
    totals = millstream.state("totals")

    def count(record: Record, out: Out) -> None:
        totals.put_json("k", (totals.json("k") or 0) + 1)

    for _ in range(2):
        _register.registered.clear()
        harness = started(count, state=["totals"])
        harness.process(Input(), Input())
        assert harness.state["totals"] == {b"k": b"2"}


def test_lines_go_to_the_log():
    harness = started(lambda record, out: millstream.log(Level.WARN, "look"))
    assert harness.process(Input()).log == [(3, "look")]
