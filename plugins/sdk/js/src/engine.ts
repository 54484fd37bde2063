/** A batch, record by record: what waits for keys is run again, and what fails leaves nothing behind. */

import type { WitBatch, WitFailure, WitOutcome } from "./columns.js";
import { Out } from "./out.js";
import { Batch, Record } from "./record.js";
import type { Plugin } from "./register.js";
import { lookup, lookupIfGranted, state, step } from "./stores.js";

/** So often a batch may wait for keys that it asked for only once it knew others; then they are fetched one by one. */
const ROUNDS_MAX = 4;

export class Engine {
  readonly #plugin: Plugin;
  readonly #config: unknown;
  /** What it needs of these: the optional ones only where they are granted. */
  readonly lookups: readonly string[];

  /** Throws what is wrong with the configuration. */
  constructor(plugin: Plugin, config: string) {
    this.#plugin = plugin;
    const given = JSON.parse(config) as { [key: string]: unknown };
    if (plugin.config !== undefined) {
      this.#config = plugin.config(given);
    } else if (Object.keys(given).length > 0) {
      throw new Error(`config: the plugin takes none, and is given ${Object.keys(given).sort().join(", ")}`);
    }
    const granted = (plugin.optionalLookups ?? []).filter((name) => lookupIfGranted(name) !== null);
    this.lookups = [...(plugin.lookups ?? []), ...granted];
    plugin.lookups?.forEach(lookup);
    plugin.state?.forEach(state);
  }

  /** Throws what concerns the batch as a whole. */
  process(given: WitBatch): WitOutcome {
    const { ports = [], headers = false } = this.#plugin;
    const [batch, out, failures] = [new Batch(given), new Out(ports, headers), [] as WitFailure[]];
    try {
      for (let [start, rounds] = [0, 0]; start < batch.length; rounds++) {
        step.mode = rounds < ROUNDS_MAX ? "collecting" : "at once";
        start = this.#run(batch, start, out, failures);
        step.catchUp();
      }
      step.write();
      return { outputs: out.outputs(batch), failures };
    } finally {
      step.forget();
    }
  }

  /** Returns the first record that waits, or how many there are. Those behind it are run to see which keys they want only. */
  #run(batch: Batch, start: number, out: Out, failures: WitFailure[]): number {
    let first = batch.length;
    for (let index = start; index < batch.length; index++) {
      out.begin(index);
      let reason: string | undefined;
      try {
        const returned: unknown = this.#plugin.process(new Record(batch, index), out, this.#config);
        if (returned instanceof Promise) {
          reason = "the function is async: a plugin has nothing to wait for";
          // What becomes of it is nobody's business.
          returned.catch(() => {});
        }
      } catch (error) {
        reason = words(error);
      }
      if (step.takeWaited()) first = Math.min(first, index);
      if (index < first && reason === undefined) {
        step.keep();
        continue;
      }
      out.undo();
      step.undo();
      if (index < first && reason !== undefined) failures.push({ origin: index, reason });
    }
    return first;
  }
}

/** What was thrown, as JavaScript tells it. */
export function words(error: unknown): string {
  try {
    if (error instanceof Error) return error.message === "" ? error.name : `${error.name}: ${error.message}`;
    return `thrown: ${String(error)}`;
  } catch {
    return "thrown: something that can't be told";
  }
}
