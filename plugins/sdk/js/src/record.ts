/** A record, as a plugin is given it. */

import { type Header, HeaderRows, Strings, type WitBatch } from "./columns.js";

/** What a call is about: records of one partition, in the order of their offsets. */
export class Batch {
  readonly keys: Strings;
  readonly values: Strings;
  readonly headers: HeaderRows;

  constructor(readonly given: WitBatch) {
    this.keys = new Strings(given.keys);
    this.values = new Strings(given.values);
    this.headers = new HeaderRows(given.headers);
  }

  get length(): number {
    return this.given.offsets.length;
  }
}

/** One record of the step's input. Its bytes are valid until the function that was given it returns. */
export class Record {
  readonly #batch: Batch;
  readonly #index: number;

  constructor(batch: Batch, index: number) {
    this.#batch = batch;
    this.#index = index;
  }

  /** Null differs from empty. */
  get key(): Uint8Array | null {
    return this.#batch.keys.get(this.#index);
  }

  /** Null differs from empty. */
  get value(): Uint8Array | null {
    return this.#batch.values.get(this.#index);
  }

  /** The key as UTF-8; throws where it is null, or isn't. */
  keyText(): string {
    return known(this.#batch.keys.text(this.#index), "key");
  }

  /** The value as UTF-8; throws where it is null, or isn't. */
  text(): string {
    return known(this.#batch.values.text(this.#index), "value");
  }

  /** The value as JSON; throws where it is null, or isn't. */
  json<T = any>(): T {
    return JSON.parse(this.text()) as T;
  }

  /** Milliseconds since 1970-01-01 UTC; null where the record has none. */
  get timestamp(): number | null {
    const timestamp = Number(this.#batch.given.timestamps[this.#index]!);
    return timestamp === -1 ? null : timestamp;
  }

  /** The time of day in milliseconds since 1970-01-01 UTC: the same for all records of a batch, and when it is tried again. */
  get now(): number {
    return Number(this.#batch.given.now);
  }

  /** Of the source record, like partition and offset. */
  get topic(): string {
    return this.#batch.given.topic;
  }

  get partition(): number {
    return this.#batch.given.partition;
  }

  get offset(): bigint {
    return this.#batch.given.offsets[this.#index]!;
  }

  /** Which of the step's inputs the record came by, as the pipeline file names it. */
  get input(): string {
    const { inputs, inputOf } = this.#batch.given;
    return inputs[inputOf.length > 0 ? inputOf[this.#index]! : 0]!;
  }

  /** In their order; none unless the plugin asks for headers. */
  get headers(): Header[] {
    return this.#batch.headers.of(this.#index);
  }

  /** The value of the last header of that name; undefined where there is none. */
  header(name: string): Uint8Array | null | undefined {
    return this.headers.findLast(([other]) => other === name)?.[1];
  }
}

function known(text: string | null, what: string): string {
  if (text === null) throw new TypeError(`the ${what} is null`);
  return text;
}
