#!/usr/bin/env node
/** `millstream-plugin build plugin.ts -o plugin.wasm`: makes a component of a module whose default export is a plugin. */

import { realpathSync } from "node:fs";
import { mkdir, mkdtemp, realpath, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";

import { componentize } from "@bytecodealliance/componentize-js";
import { build as bundle } from "esbuild";

const here = dirname(fileURLToPath(import.meta.url));

/** Throws where the module can't be read or bundled, or has no plugin. */
export async function build(module: string, out: string): Promise<void> {
  const folder = await mkdtemp(join(tmpdir(), "millstream-plugin-"));
  try {
    const source = `import plugin from ${JSON.stringify(resolve(module))};
import { exported } from ${JSON.stringify(join(here, "component.js"))};
export const transform = exported(plugin);
`;
    const bundled = join(folder, "component.js");
    await bundle({
      stdin: { contents: source, resolveDir: process.cwd(), loader: "js" },
      bundle: true,
      format: "esm",
      target: "es2022",
      external: ["millstream:*"],
      // However the plugin finds this package, it is this one.
      alias: { "millstream-plugin": join(here, "index.js") },
      outfile: bundled,
      logLevel: "silent",
    });
    const { component } = await componentize({
      sourcePath: bundled,
      // It doesn't follow links.
      witPath: await realpath(join(here, "../wit/millstream.wit")),
      worldName: "plugin",
      // A plugin gets time with its records, and nothing from outside.
      disableFeatures: ["stdio", "random", "clocks", "http", "fetch-event"],
    });
    await mkdir(dirname(resolve(out)), { recursive: true });
    await writeFile(out, component);
  } finally {
    await rm(folder, { recursive: true });
  }
}

async function main(): Promise<void> {
  const { positionals, values } = parseArgs({ allowPositionals: true, options: { output: { type: "string", short: "o" } } });
  const [verb, module] = positionals;
  if (verb !== "build" || module === undefined || positionals.length !== 2 || values.output === undefined) {
    console.error("usage: millstream-plugin build PLUGIN.ts|.js -o PLUGIN.wasm");
    process.exitCode = 2;
    return;
  }
  try {
    await build(module, values.output);
  } catch (error) {
    console.error(`${module}: ${error instanceof Error ? error.message : String(error)}`);
    process.exitCode = 1;
  }
}

// Npm makes links to it.
if (process.argv[1] !== undefined && fileURLToPath(import.meta.url) === realpathSync(process.argv[1])) await main();
