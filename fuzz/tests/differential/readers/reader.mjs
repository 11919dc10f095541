// What a server on Node sees of a body: one line of base64 in, one line of what each way of reading sees out.
import { createHash } from "node:crypto";
import { createInterface } from "node:readline";

const bits = new DataView(new ArrayBuffer(8));

function canonical(v, out) {
  const text = (s) => {
    const raw = Buffer.from(s, "utf8");
    out.push(Buffer.from(`s${raw.length}:`), raw);
  };
  const mark = (s) => out.push(Buffer.from(s));
  if (v === null) mark("n");
  else if (v === true) mark("t");
  else if (v === false) mark("f");
  else if (typeof v === "number") {
    bits.setFloat64(0, v === 0 ? 0 : v);
    mark("d" + bits.getBigUint64(0).toString(16).padStart(16, "0"));
  } else if (typeof v === "string") text(v);
  else if (Array.isArray(v)) {
    mark("[");
    for (const e of v) canonical(e, out);
    mark("]");
  } else {
    mark("{");
    const keys = Object.keys(v).sort((a, b) => Buffer.compare(Buffer.from(a), Buffer.from(b)));
    for (const k of keys) {
      text(k);
      canonical(v[k], out);
    }
    mark("}");
  }
}

function text(v) {
  if (v === undefined || v === null || v === "") return "-";
  return typeof v === "string" ? "s" + Buffer.from(v, "utf8").toString("base64") : "?";
}

function digest(v) {
  if (v === undefined || v === null) return "-";
  const out = [];
  canonical(v, out);
  return createHash("sha256").update(Buffer.concat(out)).digest("hex");
}

const isObject = (v) => typeof v === "object" && v !== null && !Array.isArray(v);

function seen(read) {
  try {
    const v = read();
    if (!isObject(v)) return "x";
    const p = isObject(v.params) ? v.params : {};
    return [text(v.method), text(p.name), text(p.uri), digest(p.arguments)].join("|");
  } catch {
    return "x";
  }
}

// Many libraries copy what they parsed, and a copy by assignment takes `__proto__` for the prototype.
function copied(v) {
  if (!isObject(v)) return v;
  const copy = Object.assign({}, v);
  if (isObject(copy.params)) copy.params = Object.assign({}, copy.params);
  return copy;
}

const decoder = new TextDecoder();
for await (const line of createInterface({ input: process.stdin, crlfDelay: Infinity })) {
  const body = Buffer.from(line, "base64");
  const plain = seen(() => JSON.parse(body.toString("utf8")));
  const fetched = seen(() => JSON.parse(decoder.decode(body)));
  const merged = seen(() => copied(JSON.parse(decoder.decode(body))));
  process.stdout.write(`${plain}\t${fetched}\t${merged}\n`);
}
