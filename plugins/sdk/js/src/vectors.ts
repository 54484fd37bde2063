// The plugin that every SDK has in its language: it does what the first word of a record's value says, as plugins/sdk/vectors/README.md has
// it.

import { lookup, plugin, type Record, state, type Out } from "./index.js";

export default plugin<{ greeting: string }>({
  name: "vectors",
  version: "1.0.0",
  config: ({ greeting }) => ({ greeting: String(greeting) }),
  ports: ["other"],
  lookups: ["words"],
  state: ["totals"],
  headers: true,
  process(record, out, { greeting }) {
    const text = record.text();
    const space = text.indexOf(" ");
    const [word, rest] = space < 0 ? [text, ""] : [text.slice(0, space), text.slice(space + 1)];
    switch (word) {
      case "keep":
        return out.emit();
      case "drop":
        return;
      case "key":
        return out.emit({ key: rest });
      case "value":
        return out.emit({ value: rest });
      case "greet":
        return out.emit({ value: greeting });
      case "time":
        return out.emit({ timestamp: Number(rest) });
      case "timeless":
        return out.emit({ timestamp: null });
      case "nulls":
        return out.emit({ key: null, value: null });
      case "empties":
        return out.emit({ key: "", value: new Uint8Array() });
      case "upper":
        return out.emit({ value: rest.toUpperCase() });
      case "long":
        return out.emit({ value: "x".repeat(Number(rest)) });
      case "many":
        for (let number = 0; number < Number(rest); number++) out.emit({ value: String(number) });
        return;
      case "port":
        return out.emit({ port: rest });
      case "both":
        out.emit({ port: "other" });
        return out.emit();
      case "header":
        return out.emit({ headers: [["seen", record.header(rest) ?? null]] });
      case "json": {
        const given = JSON.parse(rest) as { n: number };
        return out.emit({ json: { ...given, n: given.n + 1 } });
      }
      case "fail":
        out.emit();
        throw new Error(rest);
      case "crash":
        return out.emit({ value: rest.split(" ")[7]!.trim() });
      case "look":
        return out.emit({ value: lookup("words").get(rest) });
      case "follow":
        return out.emit({ value: follow(rest) });
      case "forget":
        state("totals").remove(record.keyText());
        return out.emit();
      default:
        return count(word, record, out);
    }
  },
});

function follow(from: string): Uint8Array | string {
  let at: Uint8Array | string = from;
  for (let next; (next = lookup("words").get(at)) !== null; ) at = next;
  return at;
}

function count(word: string, record: Record, out: Out): void {
  if (word !== "count" && word !== "count-and-fail") throw new Error(`no such word: "${word}"`);
  const totals = state("totals");
  const total = (totals.json<number>(record.keyText()) ?? 0) + 1;
  totals.putJson(record.keyText(), total);
  out.emit({ json: total });
  if (word === "count-and-fail") throw new Error("counted in vain");
}
