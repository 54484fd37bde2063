/** The contract of a component, as componentize-js has it. */

import { open as openLookup } from "millstream:plugin/lookups@0.1.0";
import { log } from "millstream:plugin/log@0.1.0";
import { open as openState } from "millstream:plugin/state@0.1.0";

import type { WitBatch, WitOutcome } from "./columns.js";
import { Engine, words } from "./engine.js";
import { setHost } from "./host.js";
import type { Plugin } from "./register.js";

setHost({ openLookup, openState, log });

/** What a component of this plugin exports. A text that is thrown is the contract's error. */
export function exported(plugin: Plugin<any>) {
  const given: unknown = plugin;
  if (typeof given !== "object" || given === null || !("process" in given) || typeof given.process !== "function") {
    throw new Error("the module's default export is no plugin: export default plugin({ name, version, process })");
  }
  let engine: Engine | undefined;
  return {
    describe: () => ({
      name: plugin.name,
      version: plugin.version,
      configSchema: plugin.configSchema === undefined ? undefined : JSON.stringify(plugin.configSchema),
    }),
    configure(config: string) {
      try {
        engine = new Engine(plugin, config);
      } catch (error) {
        throw words(error);
      }
      const { ports = [], state = [], headers = false } = plugin;
      return { ports: [...ports], lookups: [...engine.lookups], state: [...state], headers };
    },
    process(batch: WitBatch): WitOutcome {
      try {
        if (engine === undefined) throw new Error("the instance was not configured");
        return engine.process(batch);
      } catch (error) {
        throw words(error);
      }
    },
  };
}
