/** What a plugin is. */

import type { Out } from "./out.js";
import type { Record } from "./record.js";

export interface Plugin<Config = unknown> {
  name: string;
  version: string;
  /**
   * Makes the configuration of the step's `config` table, which is empty where it has none, and throws where that is wrong. A plugin without
   * this takes none.
   */
  config?: (given: { [key: string]: unknown }) => Config;
  /** JSON Schema of the configuration. */
  configSchema?: object;
  /** Output ports beside the default one. */
  ports?: readonly string[];
  /** Names that it opens as lookups, and as state. */
  lookups?: readonly string[];
  /** Names that it can do without: `lookupIfGranted`. */
  optionalLookups?: readonly string[];
  state?: readonly string[];
  /** Whether records are to carry their headers. Who sets headers needs it too. */
  headers?: boolean;
  /** Emits what becomes of a record. What it throws fails the record, and what was emitted and put for it is undone. */
  process(record: Record, out: Out, config: Config): void;
}

/** A module's plugin, to be its default export. */
export function plugin<Config = undefined>(definition: Plugin<Config>): Plugin<Config> {
  return definition;
}

/** The same, of a function that is true for the records that pass, as they are. */
export function filter<Config = undefined>(
  definition: Omit<Plugin<Config>, "process"> & { keep(record: Record, config: Config): boolean },
): Plugin<Config> {
  const { keep, ...about } = definition;
  const process = (record: Record, out: Out, config: Config) => {
    const is: unknown = keep(record, config);
    if (typeof is !== "boolean") throw new TypeError(`keep returns true or false, and not ${typeof is}`);
    if (is) out.emit();
  };
  return { ...about, process };
}
