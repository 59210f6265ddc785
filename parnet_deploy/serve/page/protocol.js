// The Open Inference Protocol v2 as this page speaks it: REST with binary tensors.

const LIMIT_MS = 60_000;
let token = ""; // in memory only, gone with the page

class Refused extends Error {
  constructor(status, message, retryAfterS) {
    super(message);
    Object.assign(this, { status, retryAfterS });
  }
}

class Unreachable extends Error {}

const address = (path) => new URL(path, document.baseURI.split(/[?#]/)[0]).href;
const modelPath = (name) => `v2/models/${encodeURIComponent(name)}`;

/** Ask the server. Throws Refused with its own words, Unreachable, or AbortError. */
async function ask(path, { method = "GET", body, headers = {}, signal } = {}) {
  const limit = AbortSignal.timeout(LIMIT_MS);
  const either = new AbortController();
  for (const one of [signal, limit]) {
    if (one?.aborted) either.abort(one.reason);
    one?.addEventListener("abort", () => either.abort(one.reason), { once: true });
  }
  const sent = token ? { ...headers, Authorization: `Bearer ${token}` } : headers;
  const options = { method, body, headers: sent, cache: "no-store", signal: either.signal };
  let response, content;
  try {
    response = await fetch(address(path), options);
    content = await response.arrayBuffer();
  } catch (error) {
    if (signal?.aborted) throw error;
    const why = limit.aborted ? `no answer in ${LIMIT_MS / 1000} s` : "no connection, or it broke";
    throw new Unreachable(`The server cannot be reached: ${why}.`);
  }
  if (!response.ok) throw refusal(response, content);
  return { headers: response.headers, content };
}

async function askJson(path, options) {
  return JSON.parse(new TextDecoder().decode((await ask(path, options)).content));
}

function refusal(response, content) {
  const text = new TextDecoder().decode(content).slice(0, 2000);
  let message = text;
  try {
    message = JSON.parse(text).error ?? text;
  } catch {} // not JSON: shown as it is
  const fallback = `${response.status} ${response.statusText}`.trim();
  const retryAfterS = Number.parseFloat(response.headers.get("Retry-After") ?? "");
  return new Refused(response.status, String(message || fallback), retryAfterS);
}

/** The JSON part of a request for one encoded image; `size`: its bytes and 4 for their number. */
function inferHead(size, output) {
  const parameters = { binary_data_size: size };
  const input = { name: "encoded_image", datatype: "BYTES", shape: [1], parameters };
  return JSON.stringify({ inputs: [input], outputs: [{ name: "logits", parameters: output }] });
}

/** Logits of one image (an ArrayBuffer), and where the time went in ms. */
async function infer(model, image, signal) {
  const head = new TextEncoder().encode(inferHead(image.byteLength + 4, { binary_data: true }));
  const length = new ArrayBuffer(4);
  new DataView(length).setUint32(0, image.byteLength, true);
  const headers = {
    "Content-Type": "application/octet-stream",
    "Inference-Header-Content-Length": String(head.byteLength),
  };
  const body = new Blob([head, length, image]);
  const started = performance.now();
  const answer = await ask(`${modelPath(model)}/infer`, { method: "POST", body, headers, signal });
  const totalMs = performance.now() - started;
  return { logits: readLogits(answer), timing: { totalMs, ...serverTiming(answer.headers) } };
}

function readLogits({ headers, content }) {
  const given = headers.get("Inference-Header-Content-Length");
  const end = given === null ? content.byteLength : Number(given);
  const head = JSON.parse(new TextDecoder().decode(content.slice(0, end)));
  let at = end;
  for (const output of head.outputs) {
    const size = output.parameters?.binary_data_size;
    if (output.name === "logits") {
      return size === undefined ? output.data : readFloats(content.slice(at, at + size));
    }
    at += size ?? 0;
  }
  throw new Error("The answer holds no output named logits.");
}

function readFloats(buffer) {
  const view = new DataView(buffer);
  return Array.from({ length: buffer.byteLength / 4 }, (_, i) => view.getFloat32(4 * i, true));
}

/** 'prepare;dur=1.5, batch;desc="4"' to { prepareMs: 1.5, batch: 4 }; what is not said is null. */
function serverTiming(headers) {
  const found = {};
  for (const entry of (headers.get("Server-Timing") ?? "").split(",")) {
    const [name, ...fields] = entry.split(";").map((text) => text.trim());
    for (const field of fields) {
      const [key, value = ""] = field.split("=");
      const number = Number.parseFloat(value.replaceAll('"', ""));
      if (["dur", "desc"].includes(key) && Number.isFinite(number)) found[name] = number;
    }
  }
  const { total = null, prepare = null, queue = null, infer: engine = null, batch = null } = found;
  return { serverMs: total, prepareMs: prepare, queueMs: queue, inferMs: engine, batch };
}
