// Hand work to an offload-rt gateway: connect, send a request, get its answer. For web pages and Node, on mqtt.js.
//
//     const gateway = await Gateway.connect("ws://gateway.local:9001/mqtt");
//     console.log((await gateway.run("add", ["5", "7"])).text);
//
// A request is known by its id, made up where the caller gives none: it is sent again after a lost connection, and when
// no answer has come for a while, and is run once all the same. The types are in offload-client.d.ts.

import mqtt from "mqtt";

import { decode, encode } from "./cbor.js";

// Seconds without traffic after which the broker is asked whether it is there.
const KEEP_ALIVE = 30;

// Milliseconds before a lost connection is made again: they double from the first to the last.
const RECONNECT_FIRST = 100;
const RECONNECT_LAST = 5000;

// Milliseconds after a connection was made again in which the gateway may still be missing: it lost its own, too.
const GATEWAY_MAY_BE_MISSING = 10_000;

// Milliseconds before a request that found no gateway is sent again.
const GATEWAY_PAUSE = 250;

// Reason codes of MQTT 5.
const NO_MATCHING_SUBSCRIBERS = 0x10;
const FAILURE = 0x80;
const BAD_USER_NAME_OR_PASSWORD = 0x86;
const NOT_AUTHORIZED = 0x87;
const SESSION_TAKEN_OVER = 0x8e;

/** The defaults of the options; times are in milliseconds. */
const DEFAULTS = {
  connectTimeout: 5000,
  answerTimeout: 300_000,
  transportGrace: 10_000,
  resend: 30_000,
  maxInFlight: 256,
  maxAnswer: 32 * 1024 * 1024,
};

/** A request that has not run to its end; `kind` is one of the wire contract, or `connection`. */
export class OffloadError extends Error {
  constructor(kind, message, answer = null) {
    super(message);
    this.name = "OffloadError";
    this.kind = kind;
    this.answer = answer;
  }
}

/** A connection to a gateway. */
export class Gateway {
  #url;
  #options;
  #replyId;
  #client = null;
  /** Whether there is a subscription at the moment, and whether there ever was. */
  #connected = false;
  #established = false;
  #connectedAgain = -Infinity;
  #pause = RECONNECT_FIRST;
  #reconnect = null;
  #lost = null;
  #closed = null;
  /** Whether any request was streamed: then each connection subscribes to streams, too. */
  #streams = false;
  /** Requests without an answer, in the order in which they came, and callers that wait until there are fewer. */
  #entries = new Set();
  #waiting = [];
  /** What is to be cancelled when there is a connection again. */
  #cancelled = [];
  /** Settled when all requests so far have their code. */
  #order = Promise.resolve();

  /** Connects and subscribes; rejects where that does not succeed at the first attempt. */
  static async connect(url, options = {}) {
    const gateway = new Gateway(url, options);
    await gateway.#first();
    return gateway;
  }

  constructor(url, options) {
    this.#url = String(url);
    this.#options = { ...DEFAULTS, clientId: `offload-${random(8)}`, ...options };
    this.#replyId = this.#options.replyId ?? this.#options.clientId;
    if (/[+#\0]/.test(this.#options.clientId + this.#replyId)) {
      throw new OffloadError("malformed", "clientId, replyId: expected text without `+`, `#` and NUL");
    }
  }

  /** Why there is no connection at the moment; null while there is one. */
  get lost() {
    return this.#lost;
  }

  /** Runs a program that the gateway has. */
  run(program, args = [], fields = {}) {
    return this.send({ program, args, ...fields });
  }

  /** Runs a wasm module or component at the gateway: its bytes, or a `File` or `Blob` with them. */
  async offload(module, args = [], fields = {}) {
    return this.send({ module: await bytesOf(module), args, ...fields });
  }

  /** Has the gateway end the request of this reply id that has this id, whoever has sent it. */
  async cancel(id) {
    await this.send({ cancel: id });
  }

  /** Sends a request and waits for its answer. Where its signal aborts, the gateway ends the request, too. */
  async send(request) {
    request.signal?.throwIfAborted();
    // In the order of the calls, however long a digest takes.
    const [before, computed] = [this.#order, codeOf(request)];
    this.#order = Promise.allSettled([before, computed]);
    await before;
    const code = await computed;
    while (this.#entries.size >= this.#options.maxInFlight && !this.#closed) {
      await new Promise((room) => this.#waiting.push(room));
    }
    if (this.#closed) throw this.#closed;
    request.signal?.throwIfAborted();
    return new Promise((resolve, reject) => this.#start(request, code, resolve, reject));
  }

  /** Disconnects; what is in flight is rejected. */
  async close() {
    this.#end(new OffloadError("connection", "this client was closed"));
    clearTimeout(this.#reconnect);
    const client = this.#client;
    this.#client = null;
    await client?.endAsync(!this.#connected);
  }

  // --- The connection. Each one is a client of mqtt.js of its own: nothing is sent before the subscription. ---

  #first() {
    const { connectTimeout } = this.#options;
    return new Promise((resolve, reject) => {
      const failed = (error) => {
        clearTimeout(timer);
        this.#end(error);
        this.#client?.end(true);
        reject(this.#closed);
      };
      const late = () => {
        failed(new OffloadError("connection", `${this.#cannot()}: no subscription within ${connectTimeout} ms`));
      };
      const timer = setTimeout(late, connectTimeout);
      this.#open((error) => {
        clearTimeout(timer);
        if (error) failed(error);
        else resolve();
      });
    });
  }

  #cannot() {
    // A URL may hold a password.
    return `cannot connect to ${this.#url.replace(/\/\/[^@/]*@/, "//")}`;
  }

  /** `tell` is called once: with nothing when there is a subscription, or with why there is none. */
  #open(tell) {
    const settled = (error) => {
      const once = tell;
      tell = () => {};
      once(error);
    };
    const { clientId, username, password, ca, cert, key, connectTimeout, maxAnswer } = this.#options;
    const client = mqtt.connect(this.#url, {
      protocolVersion: 5, clientId, username, password, ca, cert, key, connectTimeout,
      keepalive: KEEP_ALIVE, clean: true, reconnectPeriod: 0, resubscribe: false,
      properties: { maximumPacketSize: maxAnswer },
    });
    this.#client = client;
    let failure = null;
    client.on("connect", async () => {
      // Otherwise a small packet waits for the acknowledgement of the one before, which the other end delays by 40 ms.
      client.stream.setNoDelay?.(true);
      try {
        await client.subscribeAsync(`result/${this.#replyId}`, { qos: 1 });
      } catch (error) {
        const text = `the broker refuses the subscription to result/${this.#replyId}: ${error.message}`;
        failure = new OffloadError("unauthorized", `${text} (where clients have names, the reply id is the own one)`);
        if (client === this.#client && this.#established && error.code >= FAILURE) this.#end(failure);
        return client.end(true);
      }
      if (client !== this.#client) return;
      if (this.#streams) this.#subscribeToStreams();
      this.#subscribed();
      settled();
    });
    client.on("message", (topic, payload, packet) => {
      const start = this.#streamTopic("");
      if (topic.startsWith(start)) this.#streamed(topic.slice(start.length), payload);
      else this.#answered(payload, packet);
    });
    client.on("disconnect", (packet) => {
      if (packet.reasonCode === SESSION_TAKEN_OVER) {
        // Two clients of one id would evict each other for ever.
        this.#end(new OffloadError("connection", `another client has connected with the id \`${clientId}\``));
      }
    });
    client.on("error", (error) => {
      const unauthorized = error.code === BAD_USER_NAME_OR_PASSWORD || error.code === NOT_AUTHORIZED;
      const text = error.message || error.code || String(error);
      failure ??= new OffloadError(unauthorized ? "unauthorized" : "connection", `${this.#cannot()}: ${text}`);
    });
    client.on("close", () => {
      client.end(true);
      if (client !== this.#client) return;
      settled(failure ?? new OffloadError("connection", `${this.#cannot()}: the connection was closed`));
      this.#connected = false;
      this.#lost = `the connection is lost${failure ? `: ${failure.message}` : ""}`;
      if (this.#established && !this.#closed) this.#openLater();
    });
  }

  #streamTopic(what) {
    return `result/${this.#replyId}/stream/${what}`;
  }

  async #subscribeToStreams() {
    const client = this.#client;
    const topic = this.#streamTopic("#");
    try {
      await client.subscribeAsync(topic, { qos: 1 });
    } catch (error) {
      // Without a connection: the next one subscribes again.
      if (client !== this.#client || !(error.code >= FAILURE)) return;
      for (const entry of this.#entries) {
        if (!entry.request.onOutput) continue;
        this.#fail(entry, "unauthorized", `the broker refuses the subscription to ${topic}: ${error.message}`);
      }
    }
  }

  #openLater() {
    this.#reconnect = setTimeout(() => this.#open(() => {}), this.#pause);
    this.#pause = Math.min(this.#pause * 2, RECONNECT_LAST);
  }

  #subscribed() {
    this.#connected = true;
    this.#lost = null;
    this.#pause = RECONNECT_FIRST;
    if (this.#established) this.#connectedAgain = performance.now();
    this.#established = true;
    for (const entry of this.#entries) this.#publish(entry);
    for (const entry of this.#cancelled.splice(0)) this.#cancel(entry);
  }

  /** Nothing is answered any more. */
  #end(error) {
    this.#closed ??= error;
    for (const entry of this.#entries) this.#settle(entry, () => entry.reject(this.#closed));
    for (const room of this.#waiting.splice(0)) room();
  }

  // --- Requests in flight ---

  #start(request, code, resolve, reject) {
    const { answerTimeout, transportGrace } = this.#options;
    const wait = request.timeoutMs === undefined ? answerTimeout : request.timeoutMs + transportGrace;
    const entry = { request, code, byDigest: code.digest !== undefined && request.module !== undefined, wait,
      id: request.id ?? random(16), stdout: [], size: 0, streamed: 0, resolve, reject, timers: [], abort: null,
      topic: null };
    entry.timers.push(setTimeout(() => this.#late(entry), wait));
    entry.abort = () => this.#settle(entry, () => {
      this.#cancel(entry);
      reject(request.signal.reason);
    });
    request.signal?.addEventListener("abort", entry.abort);
    if (request.onOutput && !this.#streams) {
      this.#streams = true;
      if (this.#connected) this.#subscribeToStreams();
    }
    this.#entries.add(entry);
    this.#publish(entry);
  }

  /** Behind the request itself, which the gateway gets first; what was never sent has nothing to cancel. */
  #cancel(entry) {
    const { id, topic } = entry;
    if (topic === null || this.#closed) return;
    if (!this.#connected) {
      this.#cancelled.push(entry);
      return;
    }
    const payload = encode({ cancel: id });
    this.#client.publish(topic, globalThis.Buffer?.from(payload) ?? payload, { qos: 1 }, (error) => {
      if (error && !this.#connected) this.#cancelled.push(entry);
    });
  }

  /** Takes a request out, and tells its caller. */
  #settle(entry, tell) {
    if (!this.#entries.delete(entry)) return;
    entry.timers.forEach(clearTimeout);
    clearTimeout(entry.resend);
    entry.request.signal?.removeEventListener("abort", entry.abort);
    this.#waiting.shift()?.();
    tell();
  }

  #fail(entry, kind, message) {
    this.#settle(entry, () => entry.reject(new OffloadError(kind, message)));
  }

  #late(entry) {
    this.#fail(entry, "timeout", `no answer within ${entry.wait} ms${this.#lost ? `; ${this.#lost}` : ""}`);
  }

  #publish(entry, after = 0) {
    clearTimeout(entry.resend);
    if (after > 0) {
      entry.resend = setTimeout(() => this.#publish(entry), after);
      return;
    }
    // Without a connection it is sent when there is one.
    if (!this.#connected) return;
    entry.resend = setTimeout(() => this.#publish(entry), this.#options.resend);
    let payload;
    try {
      payload = encode(envelope(entry));
    } catch (error) {
      return this.#fail(entry, "malformed", error.message);
    }
    const isLocal = entry.code.program !== undefined || entry.code.cancel !== undefined;
    const topic = `${isLocal ? "localCode" : "inputCode"}/${this.#replyId}`;
    entry.topic = topic;
    const correlationData = new TextEncoder().encode(entry.id);
    const properties = { correlationData: globalThis.Buffer?.from(correlationData) ?? correlationData };
    this.#client.publish(topic, globalThis.Buffer?.from(payload) ?? payload, { qos: 1, properties }, (error, packet) =>
      this.#acknowledged(entry, error?.code ?? packet?.reasonCode ?? 0, error));
  }

  #acknowledged(entry, reason, error) {
    if (reason === NO_MATCHING_SUBSCRIBERS) {
      if (performance.now() - this.#connectedAgain < GATEWAY_MAY_BE_MISSING) {
        if (this.#entries.has(entry)) this.#publish(entry, GATEWAY_PAUSE);
      } else {
        const advice = "is it running? `offload-rt serve --broker URL` starts one";
        this.#fail(entry, "connection", `no gateway takes requests at this broker: ${advice}`);
      }
    } else if (reason === NOT_AUTHORIZED) {
      this.#fail(entry, "unauthorized", `client \`${this.#options.clientId}\` may not publish this request`);
    } else if (typeof reason === "number" && reason >= FAILURE) {
      this.#fail(entry, "connection", `the broker refused the request: ${error?.message ?? reason}`);
    } else if (/exceeding packets size/.test(error?.message ?? "")) {
      this.#fail(entry, "too-large", `the broker does not take the request: ${error.message}`);
    }
    // Whatever else: the connection is made again, and the request is sent again.
  }

  /** A piece of stdout as it was written; a second copy is not passed on. */
  #streamed(levels, payload) {
    const [id, offset] = levels.split("/");
    for (const entry of this.#entries) {
      const { request } = entry;
      if (entry.id !== id || !request.onOutput || Number(offset) < entry.streamed) continue;
      entry.streamed = Number(offset) + payload.length;
      try {
        request.onOutput(payload, Number(offset));
      } catch (error) {
        // The caller's own, and the caller hears of it.
        this.#settle(entry, () => {
          this.#cancel(entry);
          entry.reject(error);
        });
      }
      return;
    }
  }

  #answered(payload, packet) {
    let fields;
    try {
      fields = decode(payload);
    } catch {
      return;
    }
    // What cannot be parsed is answered without an id.
    const correlation = packet.properties?.correlationData;
    const id = fields.id ?? (correlation && new TextDecoder().decode(correlation));
    for (const entry of this.#entries) {
      if (entry.id === id && isAnswer(entry, fields)) return this.#take(entry, fields);
    }
  }

  #take(entry, fields) {
    const { request } = entry;
    if (entry.byDigest && missesDigest(fields)) {
      entry.byDigest = false;
      entry.code = { module: request.module };
      return this.#publish(entry);
    }
    entry.stdout.push(fields.stdout);
    entry.size += fields.stdout.length;
    const more = request.piece !== undefined && entry.size < (fields.stdout_total ?? 0) && fields.stdout.length > 0;
    if (more && !fields.error) return this.#publish(entry);
    const answer = answerOf(fields, request.id ?? null, joined(entry));
    const { kind, message } = fields.error ?? {};
    if (kind) this.#settle(entry, () => entry.reject(new OffloadError(kind, message, answer)));
    else this.#settle(entry, () => entry.resolve(answer));
  }
}

/** Of a module its digest where this page can compute it (only in a secure context), else the code itself. */
async function codeOf(request) {
  const { program, digest, module, source, name, files, makefile, target, cancel } = request;
  const given = { program, digest, module, source, files, cancel };
  const codes = Object.values(given).filter((code) => code !== undefined);
  if (codes.length !== 1) {
    throw new OffloadError("malformed", "expected exactly one of program, digest, module, source, files and cancel");
  }
  if (request.id !== undefined && !(request.id.length > 0 && new TextEncoder().encode(request.id).length <= 64)) {
    throw new OffloadError("malformed", "id: expected 1 to 64 bytes");
  }
  if (request.onOutput && request.id !== undefined && !/^[\w.-]+$/.test(request.id)) {
    throw new OffloadError("malformed", "id: with onOutput expected letters, digits, `_`, `-` and `.`");
  }
  if (cancel !== undefined) return { cancel };
  if (source !== undefined) {
    return { source, name: name ?? "program", makefile: makefile ?? "gcc -O2 <name>.c -o <name>" };
  }
  if (files !== undefined) return { files, makefile, target };
  if (module === undefined || !globalThis.crypto?.subtle) return { program, digest, module };
  const hash = new Uint8Array(await crypto.subtle.digest("SHA-256", module));
  return { digest: `sha256:${hex(hash)}` };
}

function envelope({ id, code, request, size }) {
  const { args, env, stdin, fuel, memory, timeoutMs, piece, onOutput } = request;
  return {
    ...code, id, args, env, fuel, memory,
    stdin: typeof stdin === "string" ? new TextEncoder().encode(stdin) : stdin,
    timeout_ms: timeoutMs,
    stdout_offset: piece === undefined ? undefined : size,
    stdout_length: piece,
    reply: onOutput === undefined ? undefined : "stream",
  };
}

function isAnswer(entry, fields) {
  // A late answer to the digest alone, or to an earlier piece.
  const stale = missesDigest(fields) && !entry.byDigest && entry.code.module !== undefined;
  const other = entry.request.piece !== undefined && (fields.stdout_offset ?? entry.size) !== entry.size;
  return !stale && !other;
}

/** The gateway does not have the module, or takes no digests. */
function missesDigest({ error }) {
  return error?.kind === "not-found" || (error?.kind === "malformed" && error.message.startsWith("digest"));
}

function answerOf(fields, id, stdout) {
  return {
    id, status: fields.status, exitCode: fields.exit_code, stdout, stderr: fields.stderr,
    text: new TextDecoder().decode(stdout),
    fuel: fields.fuel, runUs: fields.run_us, queueUs: fields.queue_us,
  };
}

function joined({ stdout, size }) {
  const bytes = new Uint8Array(size);
  let at = 0;
  for (const piece of stdout) {
    bytes.set(piece, at);
    at += piece.length;
  }
  return bytes;
}

async function bytesOf(module) {
  if (module instanceof Uint8Array) return module;
  if (module instanceof ArrayBuffer) return new Uint8Array(module);
  return new Uint8Array(await module.arrayBuffer());
}

function random(bytes) {
  return hex(crypto.getRandomValues(new Uint8Array(bytes)));
}

function hex(bytes) {
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}
