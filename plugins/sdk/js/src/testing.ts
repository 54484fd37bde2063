/** Runs a plugin in an ordinary test, without WebAssembly and without a host. */

import { column, encode, type Header, Strings, type WitBatch, type WitColumn, type WitOutcome, type WitOutput } from "./columns.js";
import { Engine } from "./engine.js";
import { type LevelName, setHost, type Store, type Table } from "./host.js";
import type { Bytes } from "./out.js";
import type { Plugin } from "./register.js";
import { step } from "./stores.js";

/** A record for a plugin to process. */
export interface Input {
  key?: Bytes;
  value?: Bytes;
  /** 1000 where it is not given; null for none. */
  timestamp?: number | null;
  headers?: readonly (readonly [name: string, value: Bytes])[];
  /** The step's input that it comes by; `input` where it is not given. */
  input?: string;
}

/** A record that came out, with all that it inherits. */
export interface Emitted {
  port: string;
  origin: number;
  key: Uint8Array | null;
  value: Uint8Array | null;
  timestamp: number | null;
  headers: Header[];
}

/** What a batch came to; `fetches` and `puts` say how many keys each call into the host was about. */
export interface Processed {
  outputs: Emitted[];
  failures: { origin: number; reason: string }[];
  fetches: number[];
  puts: number[];
  log: [LevelName, string][];
}

/** What a lookup or state holds. */
export type Entries = { [key: string]: string };

/** Stands in for the host: it fills in what output records inherit, and holds the plugin to the contract, where a breach throws. */
export class Harness {
  readonly #plugin: Plugin<any>;
  readonly #lookups: Map<string, Map<string, string>>;
  readonly #state = new Map<string, Map<string, string>>();
  readonly #engine: Engine;
  #processed: Processed = nothing();

  /** Configures the plugin, and throws where it refuses the configuration. The tables are those that the pipeline file would grant. */
  constructor(plugin: Plugin<any>, config: object = {}, lookups: { [name: string]: Entries } = {}) {
    this.#plugin = plugin;
    this.#lookups = new Map(Object.entries(lookups).map(([name, entries]) => [name, new Map(Object.entries(entries))]));
    for (const name of plugin.lookups ?? []) {
      if (!this.#lookups.has(name)) throw new Error(`the plugin needs the lookup "${name}", which the test doesn't grant`);
    }
    for (const name of plugin.state ?? []) this.#state.set(name, new Map());
    step.reset();
    this.#beHost();
    this.#engine = new Engine(plugin, JSON.stringify(config));
  }

  /** What the state of that name holds. */
  state(name: string): Map<string, string> {
    const held = this.#state.get(name);
    if (held === undefined) throw new Error(`the plugin names no state "${name}"`);
    return held;
  }

  /** Throws what concerns the batch as a whole; what it put is undone then, as the host would. */
  process(...records: Input[]): Processed {
    this.#beHost();
    this.#processed = nothing();
    const before = [...this.#state].map(([name, held]) => [name, new Map(held)] as const);
    try {
      const outcome = this.#engine.process(batch(records, this.#plugin.headers ?? false));
      this.#resolve(outcome, records);
    } catch (error) {
      before.forEach(([name, held]) => this.#state.set(name, held));
      throw error;
    }
    return this.#processed;
  }

  #beHost(): void {
    setHost({
      openLookup: (name) => this.#opened(() => this.#lookups.get(name), `lookup "${name}"`),
      openState: (name) => this.#opened(() => this.#state.get(name), `state "${name}"`),
      log: (level, message) => this.#processed.log.push([level, message]),
    });
  }

  #opened(held: () => Map<string, string> | undefined, what: string): Store {
    if (held() === undefined) throw new Error(`the pipeline file gives the step no ${what}`);
    const get: Table["get"] = (keys) => {
      this.#processed.fetches.push(keys.ends.length);
      return column(all(keys).map((key) => held()!.get(key!) ?? null));
    };
    const put: Store["put"] = (keys, values) => {
      this.#processed.puts.push(keys.ends.length);
      const changed = all(values);
      all(keys).forEach((key, index) => {
        const value = changed[index]!;
        if (value === null) held()!.delete(key!);
        else held()!.set(key!, value);
      });
    };
    return { get, put };
  }

  #resolve(outcome: WitOutcome, records: Input[]): void {
    const failed = new Set(outcome.failures.map(({ origin }) => origin));
    for (const output of outcome.outputs) {
      const isKnown = output.port === "" || this.#plugin.ports?.includes(output.port);
      if (!isKnown) throw new Error(`the plugin does not name the port "${output.port}"`);
      if (output.headers !== undefined && !this.#plugin.headers) {
        throw new Error("headers are set, and the plugin doesn't ask for them");
      }
      if (output.origins.some((origin) => failed.has(origin))) throw new Error("a record that failed has an output");
      this.#processed.outputs.push(...emitted(output, records));
    }
    this.#processed.failures = outcome.failures;
  }
}

function nothing(): Processed {
  return { outputs: [], failures: [], fetches: [], puts: [], log: [] };
}

function all(given: WitColumn): (string | null)[] {
  const strings = new Strings(given);
  return Array.from({ length: strings.length }, (_, index) => strings.text(index));
}

function batch(records: Input[], hasHeaders: boolean): WitBatch {
  const inputs = [...new Set(records.map(({ input = "input" }) => input))];
  const headers = records.flatMap(({ headers = [] }, owner) => headers.map((header) => [owner, ...header] as const));
  const carried = hasHeaders ? headers : [];
  return {
    inputs,
    inputOf: Uint32Array.from(records, ({ input = "input" }) => inputs.indexOf(input)),
    topic: "topic",
    partition: 0,
    now: 1000n,
    offsets: BigInt64Array.from(records, (_, index) => BigInt(index)),
    timestamps: BigInt64Array.from(records, ({ timestamp = 1000 }) => BigInt(timestamp ?? -1)),
    keys: column(records.map(({ key = null }) => key)),
    values: column(records.map(({ value = null }) => value)),
    headers: {
      owners: Uint32Array.from(carried, ([owner]) => owner),
      names: column(carried.map(([, name]) => name)),
      values: column(carried.map(([, , value]) => value)),
    },
  };
}

function emitted(output: WitOutput, records: Input[]): Emitted[] {
  const [keys, values] = [output.keys, output.values].map((given) => given && new Strings(given));
  return Array.from(output.origins, (origin, row) => {
    const record = records[origin]!;
    const timestamp = output.timestamps === undefined ? (record.timestamp ?? 1000) : Number(output.timestamps[row]);
    return {
      port: output.port,
      origin,
      key: keys === undefined ? whole(record.key) : keys.get(row),
      value: values === undefined ? whole(record.value) : values.get(row),
      timestamp: timestamp === -1 || (output.timestamps === undefined && record.timestamp === null) ? null : timestamp,
      headers: headers(output, row, record),
    };
  });
}

function whole(given: Bytes | undefined): Uint8Array | null {
  return typeof given === "string" ? encode(given) : (given ?? null);
}

function headers(output: WitOutput, row: number, record: Input): Header[] {
  if (output.headers === undefined) return (record.headers ?? []).map(([name, value]) => [name, whole(value)]);
  const [names, values] = [new Strings(output.headers.names), new Strings(output.headers.values)];
  const own = Array.from(output.headers.owners, (owner, at): [number, Header] => [owner, [names.text(at)!, values.get(at)]]);
  return own.filter(([owner]) => owner === row).map(([, header]) => header);
}
