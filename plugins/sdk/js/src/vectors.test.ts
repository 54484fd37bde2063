// The vectors of plugins/sdk/vectors, without WebAssembly.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";

import { type Emitted, Harness, type Input } from "./testing.js";
import vectors from "./vectors.js";

type Text = string | null | { before: string; repeat: string; times: number };

interface Vector {
  port?: string;
  origin?: number;
  key: Text;
  value?: Text;
  json?: unknown;
  timestamp?: number | null;
  headers?: [string, Text][];
}

interface Suite {
  config: object;
  lookups: { [name: string]: { [key: string]: string } };
  cases: {
    name: string;
    before?: { [key: string]: string };
    after?: { [key: string]: string };
    records: Vector[];
    outputs: Vector[];
    failures?: { origin: number; reason: string }[];
  }[];
}

const suite = JSON.parse(readFileSync(new URL("../../vectors/vectors.json", import.meta.url), "utf8")) as Suite;

const text = (given: Text = null) =>
  given === null || typeof given === "string" ? given : given.before + given.repeat.repeat(given.times);

const decoded = (bytes: Uint8Array | null) => (bytes === null ? null : new TextDecoder("utf-8", { ignoreBOM: true }).decode(bytes));

const input = ({ key, value, timestamp, headers = [] }: Vector): Input => ({
  key: text(key),
  value: text(value),
  timestamp: timestamp === undefined ? 1000 : timestamp,
  headers: headers.map(([name, value]) => [name, text(value)]),
});

const expected = ({ port = "", origin, json, ...record }: Vector) => [port, origin, json ?? text(record.value), input({ ...record, value: "" })];

const found = ({ port, origin, value, key, timestamp, headers }: Emitted, json: boolean) => {
  const own = headers.map(([name, value]) => [name, decoded(value)]);
  return [port, origin, json ? JSON.parse(decoded(value)!) : decoded(value), { key: decoded(key), value: "", timestamp, headers: own }];
};

for (const vector of suite.cases) {
  test(vector.name, () => {
    const harness = new Harness(vectors, suite.config, suite.lookups);
    const { before = {}, after = {}, failures = [] } = vector;
    Object.entries(before).forEach(([key, value]) => harness.state("totals").set(key, value));
    const processed = harness.process(...vector.records.map(input));
    // By the default port last.
    const outputs = processed.outputs.toSorted((one, other) => Number(one.port === "") - Number(other.port === ""));
    const wanted = vector.outputs.map(expected);
    assert.deepEqual(outputs.map((output, at) => found(output, vector.outputs[at]?.json !== undefined)), wanted);
    assert.deepEqual(processed.failures.map(({ origin }) => origin), failures.map(({ origin }) => origin));
    processed.failures.forEach(({ reason }, at) => assert.ok(reason.includes(failures[at]!.reason), reason));
    assert.deepEqual(Object.fromEntries(harness.state("totals")), after);
  });
}
