/** What a plugin may call: the contract's imports in a component, those of a test's harness elsewhere. */

import type { WitColumn } from "./columns.js";

export interface Table {
  get(keys: WitColumn): WitColumn;
}

export interface Store extends Table {
  put(keys: WitColumn, values: WitColumn): void;
}

export type LevelName = "trace" | "debug" | "info" | "warn" | "error";

export interface Host {
  /** Throws, with the reason, unless the pipeline file grants it. */
  openLookup(name: string): Table;
  /** Throws, with the reason, unless the pipeline file gives it. */
  openState(name: string): Store;
  log(level: LevelName, message: string): void;
}

let current: Host | undefined;

export function host(): Host {
  if (current === undefined) throw new Error("there is no host: a plugin runs in Millstream, or in a Harness of its tests");
  return current;
}

export function setHost(given: Host): void {
  current = given;
}

/** Writes a line to the operator's log, where it is marked with the step. */
export function log(level: LevelName, message: string): void {
  host().log(level, String(message));
}
