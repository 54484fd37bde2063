// The contract's imports, as componentize-js has them; in a component only.

type Columns = { bytes: Uint8Array; ends: Uint32Array; nulls: Uint32Array };

declare module "millstream:plugin/lookups@0.1.0" {
  export function open(name: string): { get(keys: Columns): Columns };
}

declare module "millstream:plugin/state@0.1.0" {
  export function open(name: string): { get(keys: Columns): Columns; put(keys: Columns, values: Columns): void };
}

declare module "millstream:plugin/log@0.1.0" {
  export function log(level: "trace" | "debug" | "info" | "warn" | "error", message: string): void;
}
