/**
 * Tables and state, key by key for whoever writes a plugin; underneath, the keys of a batch are fetched, and written, with one call each.
 *
 * Invariant: what a call fetched, and what it put and didn't write, is forgotten when it ends.
 */

import { column, decode, encode, isBytes, Strings } from "./columns.js";
import { host, type Store, type Table } from "./host.js";

type Key = Uint8Array | string;

/**
 * How keys get their values: not at all, since no records are processed; or all that those of a batch want together; or each at once.
 */
export type Mode = "idle" | "collecting" | "at once";

const waits = new Error("the key isn't known yet: let this error through, and the record is processed again");

class Step {
  mode: Mode = "idle";
  readonly tables = new Map<string, Lookup>();
  readonly stores = new Map<string, State>();
  readonly refused = new Set<string>();
  /** The record being processed has asked for a key that isn't known, whatever it made of the error. */
  #hasWaited = false;

  wait(): never {
    this.#hasWaited = true;
    throw waits;
  }

  takeWaited(): boolean {
    const hasWaited = this.#hasWaited;
    this.#hasWaited = false;
    return hasWaited;
  }

  catchUp(): void {
    for (const table of this.tables.values()) table[inner].catchUp();
    for (const store of this.stores.values()) store[inner].catchUp();
  }

  write(): void {
    for (const store of this.stores.values()) store[inner].write();
  }

  keep(): void {
    for (const store of this.stores.values()) store[inner].keep();
  }

  undo(): void {
    for (const store of this.stores.values()) store[inner].undo();
  }

  forget(): void {
    this.mode = "idle";
    for (const table of this.tables.values()) table[inner].forget();
    for (const store of this.stores.values()) store[inner].forget();
  }

  /** For another configuration, in a test. What was opened stays: a module may have it in a variable. */
  reset(): void {
    this.forget();
    for (const table of this.tables.values()) table[inner].close();
    for (const store of this.stores.values()) store[inner].close();
    this.refused.clear();
  }
}

export const step = new Step();

const inner = Symbol("inner");

/** The table under the name by which the pipeline file grants it to the step. The plugin names it too: `lookups: […]`. */
export function lookup(name: string): Lookup {
  const there = step.tables.get(name) ?? new Lookup(name);
  step.tables.set(name, there);
  return there;
}

/** The same for plugins that can do without, and name it so: `optionalLookups: […]`. Null where the pipeline file doesn't grant it. */
export function lookupIfGranted(name: string): Lookup | null {
  if (step.refused.has(name)) return null;
  const found = lookup(name);
  try {
    found[inner].open();
    return found;
  } catch {
    step.refused.add(name);
    return null;
  }
}

/** The state under the name by which the pipeline file gives it to the step. The plugin names it too: `state: […]`. */
export function state(name: string): State {
  const there = step.stores.get(name);
  if (there !== undefined) return there;
  if (step.mode !== "idle") throw new Error(`state "${name}" is not named by the plugin: add it to its state: […]`);
  const added = new State(name);
  step.stores.set(name, added);
  return added;
}

/** Bytes as a text of one character each: what a map can be keyed by. */
function name(key: Key): string {
  if (typeof key === "string") key = encode(key);
  if (!isBytes(key)) throw new TypeError(`a key is text or a Uint8Array, and not ${typeof key}`);
  let text = "";
  for (const byte of key) text += String.fromCharCode(byte);
  return text;
}

function bytes(name: string): Uint8Array {
  return Uint8Array.from(name, (character) => character.charCodeAt(0));
}

function parsed<T>(found: Uint8Array | null): T | null {
  return found === null ? null : (JSON.parse(decode(found)) as T);
}

/** Keys that are fetched together, and what is known of them: null where there is none. */
class Keyed<Opened extends Table> {
  readonly #open: () => Opened;
  readonly #what: string;
  #opened: Opened | undefined;
  readonly #known = new Map<string, Uint8Array | null>();
  readonly #wanted = new Set<string>();

  /** What is done with its keys is for an error. */
  constructor(open: () => Opened, what: string) {
    this.#open = open;
    this.#what = what;
  }

  open(): Opened {
    return (this.#opened ??= this.#open());
  }

  close(): void {
    this.#opened = undefined;
  }

  get(wanted: string): Uint8Array | null {
    if (!this.#known.has(wanted)) {
      if (step.mode === "idle") throw new Error(`${this.#what} while records are processed only`);
      this.#wanted.add(wanted);
      if (step.mode === "collecting") step.wait();
      this.catchUp();
    }
    return this.#known.get(wanted)!;
  }

  isKnownAbsent(wanted: string): boolean {
    return this.#known.get(wanted) === null;
  }

  catchUp(): void {
    if (this.#wanted.size === 0) return;
    const names = [...this.#wanted];
    const found = new Strings(this.open().get(column(names.map(bytes))));
    names.forEach((name, index) => this.#known.set(name, found.get(index)));
    this.#wanted.clear();
  }

  forget(): void {
    this.#known.clear();
    this.#wanted.clear();
  }
}

/** A table that the step may read. */
export class Lookup {
  /** @internal */
  readonly [inner]: Keyed<Table>;

  constructor(name: string) {
    this[inner] = new Keyed(() => host().openLookup(name), "keys are looked up");
  }

  /**
   * The value of a key, null where the table has none.
   *
   * The keys of a whole batch are fetched at once. Where a key isn't known yet this throws: let the error through, and the record is
   * processed again, from the start, once it is, and so are those behind it. What they emitted and put is undone; what they changed elsewhere
   * is not, so change nothing else. Such a try sees state without what the records before it will change.
   */
  get(key: Key): Uint8Array | null {
    return this[inner].get(name(key))?.slice() ?? null;
  }

  /** The same as JSON; null where the table has no such key. */
  json<T = any>(key: Key): T | null {
    return parsed<T>(this.get(key));
  }
}

class StoreOf extends Keyed<Store> {
  readonly #put = new Map<string, Uint8Array | null>();
  /** What the record being processed has changed, and as it was; undefined where it was not put. */
  #journal: [name: string, before: Uint8Array | null | undefined][] = [];

  override get(wanted: string): Uint8Array | null {
    const put = this.#put.get(wanted);
    return put === undefined ? super.get(wanted) : put;
  }

  change(key: Key, value: Uint8Array | null): void {
    if (step.mode === "idle") throw new Error("state is changed while records are processed only");
    const changed = name(key);
    this.#journal.push([changed, this.#put.get(changed)]);
    this.#put.set(changed, value);
  }

  keep(): void {
    this.#journal = [];
  }

  undo(): void {
    for (const [changed, before] of this.#journal.reverse()) {
      if (before === undefined) this.#put.delete(changed);
      else this.#put.set(changed, before);
    }
    this.#journal = [];
  }

  write(): void {
    const isNothing = ([name, value]: [string, Uint8Array | null]) => value === null && this.isKnownAbsent(name);
    const changed = [...this.#put].filter((change) => !isNothing(change));
    if (changed.length === 0) return;
    const keys = column(changed.map(([name]) => bytes(name)));
    this.open().put(keys, column(changed.map(([, value]) => value)));
  }

  override forget(): void {
    super.forget();
    this.#put.clear();
    this.#journal = [];
  }
}

/** Keyed values that are the step's own: durable, and changed exactly once for each record. */
export class State {
  /** @internal */
  readonly [inner]: StoreOf;

  constructor(name: string) {
    this[inner] = new StoreOf(() => host().openState(name), "state is read");
  }

  /**
   * The value of a key, null where there is none. It sees what this record and those before it have put.
   *
   * Where the key isn't known yet this throws, and the record is processed again: see `Lookup.get`.
   */
  get(key: Key): Uint8Array | null {
    return this[inner].get(name(key))?.slice() ?? null;
  }

  /** The same as JSON; null where there is no such key. */
  json<T = any>(key: Key): T | null {
    return parsed<T>(this.get(key));
  }

  /** Sets the value of a key. It is written even if it is what the key had: to put says that the entry is alive. */
  put(key: Key, value: Uint8Array | string): void {
    const given: unknown = value;
    if (typeof given !== "string" && !isBytes(given)) {
      throw new TypeError(`a value of state is text or a Uint8Array, and not ${given === null ? "null" : typeof given}`);
    }
    this[inner].change(key, typeof given === "string" ? encode(given) : given.slice());
  }

  /** Sets the value of a key to that, written as JSON. */
  putJson(key: Key, value: unknown): void {
    const text = JSON.stringify(value) as string | undefined;
    if (text === undefined) throw new TypeError(`${typeof value} can't be written as JSON`);
    this.put(key, text);
  }

  /** Removes a key. Where it is known that there is none, nothing is written. */
  remove(key: Key): void {
    this[inner].change(key, null);
  }
}
