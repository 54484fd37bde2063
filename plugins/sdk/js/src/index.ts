/**
 * Millstream plugins in JavaScript and TypeScript: a function says what becomes of a record, and runs as WebAssembly in a sandbox.
 *
 * @packageDocumentation
 */

export type { Header } from "./columns.js";
export { log, type LevelName } from "./host.js";
export { Out, type Bytes, type Fields } from "./out.js";
export { Record } from "./record.js";
export { filter, plugin, type Plugin } from "./register.js";
export { Lookup, lookup, lookupIfGranted, State, state } from "./stores.js";
