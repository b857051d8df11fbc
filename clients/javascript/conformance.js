// The client as the conformance tests drive it: cases come on stdin, results go to stdout, a line of JSON each. The
// fields are those of tests/README.md.

import { readFileSync } from "node:fs";
import { createInterface } from "node:readline";

import { Gateway } from "./offload-client.js";

const WASM_MAGIC = "\0asm";

// The client waits this long for an answer before it sends the request again, in milliseconds.
const RESEND = 2000;

const lines = createInterface({ input: process.stdin })[Symbol.asyncIterator]();

const asked = JSON.parse((await lines.next()).value);
const pem = (name) => (asked[name] === undefined ? undefined : readFileSync(asked[name]));
let gateway;
try {
  gateway = await Gateway.connect(asked.url ?? `${asked.cafile ? "mqtts" : "mqtt"}://${asked.host}:${asked.port}`, {
    clientId: asked.client_id, replyId: asked.reply_id, username: asked.username, password: asked.password,
    ca: pem("cafile"), cert: pem("cert"), key: pem("key"), resend: RESEND,
  });
} catch (error) {
  say({ case: null, error: { kind: error.kind, message: error.message } });
  process.exit(0);
}
say({ case: null });
const running = [];
const aborts = new Map();
for await (const line of lines) {
  const asked = JSON.parse(line);
  if (asked.cancel === undefined) running.push(run(asked));
  else aborts.get(asked.cancel).abort();
}
await Promise.all(running);
await gateway.close();

async function run(asked) {
  const { program, digest, args, id, fuel, memory, piece } = asked;
  const request = { program, digest, args, id, fuel, memory, piece, timeoutMs: asked.timeout_ms };
  const abort = new AbortController();
  aborts.set(asked.case, abort);
  request.signal = abort.signal;
  if (asked.stream) {
    request.onOutput = (piece, offset) => say({ case: asked.case, piece: new TextDecoder().decode(piece), offset });
  }
  if (asked.stdin !== undefined) request.stdin = asked.stdin.repeat(asked.stdin_repeat ?? 1);
  try {
    if (asked.file !== undefined) {
      const code = readFileSync(asked.file);
      if (code.toString("latin1", 0, 4) === WASM_MAGIC) request.module = code;
      else request.source = code.toString();
    }
    const answer = await gateway.send(request);
    say({
      case: asked.case, id: answer.id, status: answer.status, exit_code: answer.exitCode, stdout: answer.text,
      stderr: new TextDecoder().decode(answer.stderr),
      fuel: answer.fuel, run_us: answer.runUs, queue_us: answer.queueUs,
    });
  } catch (error) {
    const kind = error.name === "AbortError" ? "cancelled" : error.kind;
    say({ case: asked.case, error: { kind, message: error.message } });
  }
}

function say(result) {
  process.stdout.write(`${JSON.stringify(result)}\n`);
}
