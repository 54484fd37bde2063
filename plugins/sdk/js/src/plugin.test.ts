// The SDK without WebAssembly: what a function sees, what it can say, and what becomes of what it throws.

import assert from "node:assert/strict";
import { test } from "node:test";

import { filter, log, lookup, lookupIfGranted, type Out, plugin, type Plugin, type Record, state } from "./index.js";
import { type Emitted, Harness, type Input, type Processed } from "./testing.js";

function made(process: (record: Record, out: Out) => void, more: Partial<Plugin<any>> = {}): Plugin<any> {
  return plugin({ name: "test", version: "1.0.0", process, ...more });
}

const text = (bytes: Uint8Array | null) => (bytes === null ? null : new TextDecoder().decode(bytes));

const texts = ({ outputs }: Processed) => outputs.map(({ value }) => text(value));

const shown = ({ port, origin, key, value, timestamp, headers }: Emitted) =>
  [port, origin, text(key), text(value), timestamp, ...headers.map(([name, value]) => `${name}=${text(value)}`)];

test("what is not set is inherited", () => {
  const change = made(
    (record, out) => {
      switch (record.text()) {
        case "drop":
          return;
        case "key":
          return out.emit({ key: "new" });
        case "null":
          return out.emit({ key: null, value: null, timestamp: null });
        case "headers":
          return out.emit({ headers: [["b", null]], port: "other" });
        case "twice":
          out.emit({ value: "1" });
          return out.emit({ json: { ä: [1, null] } });
        default:
          out.emit({ port: "other" });
          out.emit();
      }
    },
    { ports: ["other"], headers: true },
  );
  const records = ["drop", "key", "null", "headers", "twice", "", "ü"].map(
    (value): Input => ({ key: "k", value, timestamp: 5, headers: [["a", "x"]] }),
  );
  assert.deepEqual(new Harness(change).process(...records).outputs.map(shown), [
    ["", 1, "new", "key", 5, "a=x"],
    ["", 2, null, null, null, "a=x"],
    ["", 4, "k", "1", 5, "a=x"],
    ["", 4, "k", '{"ä":[1,null]}', 5, "a=x"],
    ["", 5, "k", "", 5, "a=x"],
    ["", 6, "k", "ü", 5, "a=x"],
    ["other", 3, "k", "headers", 5, "b=null"],
    ["other", 5, "k", "", 5, "a=x"],
    ["other", 6, "k", "ü", 5, "a=x"],
  ]);
});

test("a record tells where it comes from", () => {
  const seen: unknown[] = [];
  const look = made(
    (record) => {
      seen.push([record.topic, record.partition, record.offset, record.timestamp, record.now, record.input]);
      seen.push(text(record.header("a") ?? null));
    },
    { headers: true },
  );
  new Harness(look).process({ timestamp: null }, { input: "other", headers: [["a", "1"], ["a", "2"]] });
  assert.deepEqual(seen, [["topic", 0, 0n, null, 1000, "input"], null, ["topic", 0, 1n, 1000, 1000, "other"], "2"]);
});

test("what is thrown fails one record", () => {
  const fail = made((record, out) => {
    out.emit();
    const value = record.value === null ? null : text(record.value);
    switch (value) {
      case "error":
        throw new RangeError("asked to");
      case "text":
        throw "no error";
      case "undefined key":
        return out.emit({ key: undefined as never });
      case "number":
        return out.emit({ value: 5 as never });
      case "json":
        return out.emit({ json: undefined });
      case "async":
        return Promise.resolve() as never;
      case null:
        record.json();
    }
  });
  const values = ["a", "error", "text", "undefined key", "number", "json", "async", null, "b"];
  const processed = new Harness(fail).process(...values.map((value): Input => ({ value })));
  assert.deepEqual(texts(processed), ["a", "b"]);
  assert.deepEqual(
    processed.failures.map(({ reason }) => reason),
    [
      "RangeError: asked to",
      "thrown: no error",
      "TypeError: a key is text, a Uint8Array or null, and not undefined",
      "TypeError: a value is text, a Uint8Array or null, and not number",
      "TypeError: undefined can't be written as JSON",
      "the function is async: a plugin has nothing to wait for",
      "TypeError: the value is null",
    ],
  );
});

test("the configuration is what the plugin makes of it", () => {
  const adults = filter<{ minAge: number }>({
    name: "adults",
    version: "1.0.0",
    config: ({ min_age: minAge = 0 }) => {
      if (typeof minAge !== "number") throw new TypeError("config: min_age is a number");
      return { minAge };
    },
    keep: (record, { minAge }) => record.json<{ age: number }>().age >= minAge,
  });
  const harness = new Harness(adults, { min_age: 18 });
  const processed = harness.process({ value: '{"age":17}' }, { value: '{"age":18}' }, { value: "x" });
  assert.deepEqual(texts(processed), ['{"age":18}']);
  assert.match(processed.failures[0]!.reason, /^SyntaxError: /);
  assert.throws(() => new Harness(adults, { min_age: "18" }), /min_age is a number/);
  assert.throws(() => new Harness(made(() => {}), { b: 1, a: 2 }), /takes none, and is given a, b/);
});

test("the keys of a batch are fetched at once, whatever is made of the error", () => {
  for (const swallows of [false, true]) {
    const join = made(
      (record, out) => {
        let found;
        try {
          found = lookup("countries").get(record.keyText());
        } catch (error) {
          if (!swallows) throw error;
          return out.emit();
        }
        if (found === null) throw new Error("no such country");
        out.emit({ value: found });
      },
      { lookups: ["countries"] },
    );
    const harness = new Harness(join, {}, { countries: { DE: "Germany", FR: "" } });
    const processed = harness.process(...["DE", "XX", "FR", "DE"].map((key): Input => ({ key })));
    assert.deepEqual(texts(processed), ["Germany", "", "Germany"]);
    assert.deepEqual(processed.failures, [{ origin: 1, reason: "Error: no such country" }]);
    assert.deepEqual(processed.fetches, [3]);
  }
});

test("state is changed in order, and once", () => {
  const count = made(
    (record, out) => {
      const totals = state("totals");
      const total = (totals.json<number>(record.keyText()) ?? 0) + 1;
      totals.putJson(record.keyText(), total);
      if (record.text() === "fail") throw new Error("asked to");
      if (record.text() === "remove") totals.remove(record.keyText());
      out.emit({ json: total });
    },
    { state: ["totals"] },
  );
  const harness = new Harness(count);
  harness.state("totals").set("ä", "5").set("c", "1");
  const records = [["ä", ""], ["b", ""], ["ä", "fail"], ["ä", ""], ["c", "remove"]] as const;
  const processed = harness.process(...records.map(([key, value]): Input => ({ key, value })));
  assert.deepEqual(texts(processed), ["6", "1", "7", "2"]);
  assert.deepEqual(processed.failures, [{ origin: 2, reason: "Error: asked to" }]);
  assert.deepEqual([...harness.state("totals")], [["ä", "7"], ["b", "1"]]);
  assert.deepEqual([processed.fetches, processed.puts], [[3], [3]]);
});

test("keys that depend on others are fetched in the end", () => {
  const follow = made(
    (record, out) => {
      let at = record.key!;
      for (let next; (next = lookup("chain").get(at)) !== null; ) at = next;
      out.emit({ value: at });
    },
    { lookups: ["chain"] },
  );
  const chain = Object.fromEntries([..."abcdefg"].map((from, index) => [from, "bcdefgh"[index]!]));
  const processed = new Harness(follow, {}, { chain }).process({ key: "a" }, { key: "f" });
  assert.deepEqual(texts(processed), ["h", "h"]);
});

test("what was not asked for is refused with words", () => {
  const other = made(() => state("other").put("k", "v"));
  assert.match(new Harness(other).process({}).failures[0]!.reason, /state "other" is not named by the plugin/);
  const without = made((_, out) => out.emit({ json: lookupIfGranted("countries") === null }), { optionalLookups: ["countries"] });
  assert.deepEqual(texts(new Harness(without).process({})), ["true"]);
});

test("what a plugin did not ask for fails the record", () => {
  const run = made((record, out) => {
    switch (record.text()) {
      case "port":
        return out.emit({ port: "other" });
      case "null":
        return out.emit({ port: null as never });
      case "headers":
        return out.emit({ headers: [] });
      default:
        throw Object.create(null);
    }
  });
  const { failures } = new Harness(run).process(...["port", "null", "headers", "untold"].map((value): Input => ({ value })));
  assert.deepEqual(
    failures.map(({ reason }) => reason),
    [
      "Error: port \"other\" is none of the plugin's ports: […]",
      "Error: port null is none of the plugin's ports: […]",
      "Error: headers are set, and the plugin doesn't ask for them: headers: true",
      "thrown: something that can't be told",
    ],
  );
});

test("bytes are copied, both ways", () => {
  const bytes = new Uint8Array(1);
  const run = made(
    (record, out) => {
      const found = lookup("words").get("a")!;
      found[0]!++;
      bytes[0] = record.value![0]!;
      out.emit({ key: bytes, value: found });
    },
    { lookups: ["words"] },
  );
  const { outputs } = new Harness(run, {}, { words: { a: "B" } }).process({ value: "1" }, { value: "2" });
  assert.deepEqual(outputs.map(({ key, value }) => [text(key), text(value)]), [["1", "C"], ["2", "C"]]);
});

test("state may be opened where the module is loaded", () => {
  const totals = state("totals");
  const count = made(() => totals.putJson("k", (totals.json<number>("k") ?? 0) + 1), { state: ["totals"] });
  for (let times = 0; times < 2; times++) {
    const harness = new Harness(count);
    harness.process({}, {});
    assert.deepEqual([...harness.state("totals")], [["k", "2"]]);
  }
});

test("lines go to the log", () => {
  const look = made(() => log("warn", "look"));
  assert.deepEqual(new Harness(look).process({}).log, [["warn", "look"]]);
});
