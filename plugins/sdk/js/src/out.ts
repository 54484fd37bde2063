/** What becomes of a record, as a plugin says it. */

import { column, type Header, isBytes, type WitColumn, type WitHeaders, type WitOutput } from "./columns.js";
import type { Batch } from "./record.js";

/** Bytes, text, which is written as UTF-8, or null. */
export type Bytes = Uint8Array | string | null;

/** What an output record changes of the record that it comes from. */
export interface Fields {
  key?: Bytes;
  value?: Bytes;
  /** The value, written as JSON. */
  json?: unknown;
  /** Milliseconds since 1970-01-01 UTC, null for none. */
  timestamp?: number | null;
  /** All of them. The plugin needs to ask for headers. */
  headers?: readonly (readonly [name: string, value: Bytes])[];
  /** One that the plugin names; the default port where there is none. */
  port?: string;
}

interface Row {
  origin: number;
  key: Bytes | undefined;
  value: Bytes | undefined;
  timestamp: bigint | undefined;
  headers: (readonly [string, Bytes])[] | undefined;
}

/** Takes what becomes of a record. What is not emitted is dropped. */
export class Out {
  readonly #known: ReadonlySet<string>;
  readonly #hasHeaders: boolean;
  readonly #ports = new Map<string, { rows: Row[]; mark: number }>();
  #origin = 0;

  /** @internal */
  constructor(ports: readonly string[], hasHeaders: boolean) {
    this.#known = new Set(["", ...ports]);
    this.#hasHeaders = hasHeaders;
  }

  /** Emits a record. It is the record being processed, but for what is given. */
  emit(fields: Fields = {}): void {
    const { port = "" } = fields;
    if (!this.#known.has(port)) throw new Error(`port ${JSON.stringify(port)} is none of the plugin's ports: […]`);
    // A record whose headers weren't seen couldn't keep them beside one whose headers were set.
    if ("headers" in fields && !this.#hasHeaders) throw new Error("headers are set, and the plugin doesn't ask for them: headers: true");
    const row = {
      origin: this.#origin,
      key: bytes(fields, "key"),
      value: "json" in fields ? json(fields) : bytes(fields, "value"),
      timestamp: timestamp(fields),
      headers: headers(fields),
    };
    const there = this.#ports.get(port);
    if (there === undefined) this.#ports.set(port, { rows: [row], mark: 0 });
    else there.rows.push(row);
  }

  /** @internal */
  begin(origin: number): void {
    this.#origin = origin;
    for (const port of this.#ports.values()) port.mark = port.rows.length;
  }

  /** @internal */
  undo(): void {
    for (const port of this.#ports.values()) port.rows.length = port.mark;
  }

  /** @internal */
  outputs(batch: Batch): WitOutput[] {
    const used = [...this.#ports].filter(([, { rows }]) => rows.length > 0);
    return used.map(([port, { rows }]) => ({
      port,
      origins: Uint32Array.from(rows, (row) => row.origin),
      keys: whole(rows, "key", batch),
      values: whole(rows, "value", batch),
      timestamps: timestamps(rows, batch),
      headers: allHeaders(rows, batch),
    }));
  }
}

/** Where something is given and undefined, that is a mistake: what was to be kept is not given. */
function bytes(fields: Fields, name: "key" | "value"): Bytes | undefined {
  return name in fields ? checked(fields[name], name) : undefined;
}

/** Bytes are copied: whoever gave them may change them. */
function checked(given: unknown, name: string): Bytes {
  if (given === null || typeof given === "string") return given;
  if (isBytes(given)) return given.slice();
  throw new TypeError(`a ${name} is text, a Uint8Array or null, and not ${kind(given)}`);
}

function json(fields: Fields): string {
  if ("value" in fields) throw new TypeError("emit takes a value or json, not both");
  const text = JSON.stringify(fields.json) as string | undefined;
  if (text === undefined) throw new TypeError(`${kind(fields.json)} can't be written as JSON`);
  return text;
}

function timestamp(fields: Fields): bigint | undefined {
  if (!("timestamp" in fields)) return undefined;
  const given: unknown = fields.timestamp;
  if (given === null) return -1n;
  if (typeof given === "number" && Number.isSafeInteger(given)) return BigInt(given);
  throw new TypeError(`a timestamp is a whole number of milliseconds or null, and not ${kind(given)}`);
}

function headers(fields: Fields): (readonly [string, Bytes])[] | undefined {
  if (!("headers" in fields)) return undefined;
  const given: unknown = fields.headers;
  if (!Array.isArray(given)) throw new TypeError(`headers are a list, and not ${kind(given)}`);
  return given.map((header: unknown) => {
    if (!Array.isArray(header) || header.length !== 2) throw new TypeError("a header is a list of name and value");
    if (typeof header[0] !== "string") throw new TypeError(`a header's name is text, and not ${kind(header[0])}`);
    return [header[0], checked(header[1], "header")] as const;
  });
}

function kind(given: unknown): string {
  if (given === null) return "null";
  if (typeof given === "object") return given.constructor?.name ?? "an object";
  return typeof given;
}

function whole(rows: Row[], name: "key" | "value", batch: Batch): WitColumn | undefined {
  if (rows.every((row) => row[name] === undefined)) return undefined;
  const inherited = name === "key" ? batch.keys : batch.values;
  return column(rows.map((row) => (row[name] === undefined ? inherited.get(row.origin) : row[name])));
}

function timestamps(rows: Row[], batch: Batch): BigInt64Array | undefined {
  if (rows.every((row) => row.timestamp === undefined)) return undefined;
  const inherited = batch.given.timestamps;
  return BigInt64Array.from(rows, (row) => row.timestamp ?? inherited[row.origin]!);
}

function allHeaders(rows: Row[], batch: Batch): WitHeaders | undefined {
  if (rows.every((row) => row.headers === undefined)) return undefined;
  const owners: number[] = [];
  const pairs: (readonly [string, Bytes])[] = [];
  rows.forEach((row, index) => {
    const own: readonly (readonly [string, Bytes])[] = row.headers ?? (batch.headers.of(row.origin) as Header[]);
    for (const pair of own) {
      owners.push(index);
      pairs.push(pair);
    }
  });
  return {
    owners: Uint32Array.from(owners),
    names: column(pairs.map(([name]) => name)),
    values: column(pairs.map(([, value]) => value)),
  };
}
