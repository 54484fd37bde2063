/** Byte strings as they cross the boundary: columns to read, and to fill. */

export interface WitColumn {
  bytes: Uint8Array;
  ends: Uint32Array;
  nulls: Uint32Array;
}

export interface WitHeaders {
  owners: Uint32Array;
  names: WitColumn;
  values: WitColumn;
}

export interface WitBatch {
  inputs: string[];
  inputOf: Uint32Array;
  topic: string;
  partition: number;
  now: bigint;
  offsets: BigInt64Array;
  timestamps: BigInt64Array;
  keys: WitColumn;
  values: WitColumn;
  headers: WitHeaders;
}

export interface WitOutput {
  port: string;
  origins: Uint32Array;
  keys: WitColumn | undefined;
  values: WitColumn | undefined;
  timestamps: BigInt64Array | undefined;
  headers: WitHeaders | undefined;
}

export interface WitFailure {
  origin: number;
  reason: string;
}

export interface WitOutcome {
  outputs: WitOutput[];
  failures: WitFailure[];
}

const decoder = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });
const encoder = new TextEncoder();

export function encode(text: string): Uint8Array {
  return encoder.encode(text);
}

export function decode(bytes: Uint8Array): string {
  return decoder.decode(bytes);
}

/** Whether it is a Uint8Array, whoever made it: those that the engine makes of what the host says are none of this module's. */
export function isBytes(given: unknown): given is Uint8Array {
  return ArrayBuffer.isView(given) && Object.prototype.toString.call(given) === "[object Uint8Array]";
}

/** A column to be read. */
export class Strings {
  readonly #column: WitColumn;
  readonly #nulls: Set<number> | undefined;
  /** All of it at once, where it is ASCII: a call of the decoder costs more than a record. */
  #text: string | null | undefined;

  constructor(column: WitColumn) {
    this.#column = column;
    this.#nulls = column.nulls.length > 0 ? new Set(column.nulls) : undefined;
  }

  get length(): number {
    return this.#column.ends.length;
  }

  #start(index: number): number {
    return index === 0 ? 0 : this.#column.ends[index - 1]!;
  }

  get(index: number): Uint8Array | null {
    if (this.#nulls?.has(index)) return null;
    return this.#column.bytes.subarray(this.#start(index), this.#column.ends[index]!);
  }

  /** The string as UTF-8. Throws where it isn't. */
  text(index: number): string | null {
    if (this.#nulls?.has(index)) return null;
    if (this.#text === undefined) this.#text = ascii(this.#column.bytes);
    if (this.#text === null) return decode(this.get(index)!);
    return this.#text.slice(this.#start(index), this.#column.ends[index]!);
  }
}

function ascii(bytes: Uint8Array): string | null {
  try {
    const text = decode(bytes);
    return text.length === bytes.length ? text : null;
  } catch {
    // Some string of it isn't UTF-8; the others may be.
    return null;
  }
}

/** A column of these, of which text is written as UTF-8. */
export function column(strings: readonly (Uint8Array | string | null)[]): WitColumn {
  const ends = new Uint32Array(strings.length);
  const nulls: number[] = [];
  const bytes = texts(strings, ends) ?? mixed(strings, ends);
  strings.forEach((string, index) => {
    if (string === null) nulls.push(index);
  });
  return { bytes, ends, nulls: Uint32Array.from(nulls) };
}

/** All at once, where there is only text, and that ASCII. */
function texts(strings: readonly (Uint8Array | string | null)[], ends: Uint32Array): Uint8Array | undefined {
  let end = 0;
  for (let index = 0; index < strings.length; index++) {
    const string = strings[index]!;
    if (string !== null) {
      if (typeof string !== "string") return undefined;
      end += string.length;
    }
    ends[index] = end;
  }
  const bytes = encode(strings.join(""));
  return bytes.length === end ? bytes : undefined;
}

function mixed(strings: readonly (Uint8Array | string | null)[], ends: Uint32Array): Uint8Array {
  const parts = strings.map((string) => (typeof string === "string" ? encode(string) : string));
  let end = 0;
  parts.forEach((part, index) => {
    end += part?.length ?? 0;
    ends[index] = end;
  });
  const bytes = new Uint8Array(end);
  parts.forEach((part, index) => {
    if (part !== null) bytes.set(part, ends[index]! - part.length);
  });
  return bytes;
}

/** Name and value. */
export type Header = [name: string, value: Uint8Array | null];

/** Headers of several records, to be read. */
export class HeaderRows {
  readonly #owners: Uint32Array;
  readonly #names: Strings;
  readonly #values: Strings;

  constructor(headers: WitHeaders) {
    this.#owners = headers.owners;
    this.#names = new Strings(headers.names);
    this.#values = new Strings(headers.values);
  }

  of(owner: number): Header[] {
    const found: Header[] = [];
    for (let at = first(this.#owners, owner); this.#owners[at] === owner; at++) {
      found.push([this.#names.text(at) ?? "", this.#values.get(at)]);
    }
    return found;
  }
}

function first(owners: Uint32Array, owner: number): number {
  let [low, high] = [0, owners.length];
  while (low < high) {
    const middle = (low + high) >> 1;
    if (owners[middle]! < owner) low = middle + 1;
    else high = middle;
  }
  return low;
}
