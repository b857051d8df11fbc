// The types of offload-client.js.

/** What a request ends with where it does not run to its end: the kinds of the wire contract, and `connection`. */
export type Kind =
  | "malformed" | "unauthorized" | "not-found" | "too-large" | "busy" | "expired" | "timeout" | "build"
  | "compile"
  | "exit" | "trap" | "fuel" | "memory" | "output" | "internal" | "cancelled" | "unreachable" | "connection";

/** Where and as whom to connect, within which bounds. Times are in milliseconds. */
export interface Options {
  /** The MQTT client id; one that is made up by default. */
  clientId?: string;
  /**
   * Answers come on `result/<reply id>`: the client id by default. Where clients have certificates it is the name in
   * this client's own.
   */
  replyId?: string;
  username?: string;
  password?: string;
  /** In Node, for `mqtts:` and `wss:`: PEM of the authorities to trust, of this client's certificate, and of its key. */
  ca?: string | Uint8Array;
  cert?: string | Uint8Array;
  key?: string | Uint8Array;
  /** For the connection and the subscription to the answers; 5 s. */
  connectTimeout?: number;
  /** For the answer to a request that has no timeout of its own; 5 minutes. */
  answerTimeout?: number;
  /** What is added to a request's own timeout, for both ways; 10 s. */
  transportGrace?: number;
  /** Without an answer for this long a request is sent again; 30 s. */
  resend?: number;
  /** Requests without an answer; 256. Whoever sends one more waits. */
  maxInFlight?: number;
  /** The largest packet to receive, in bytes; 32 MiB. */
  maxAnswer?: number;
}

/** Input and limits of a request. Limits may lower the gateway's own, never raise them. */
export interface Fields {
  args?: string[];
  env?: Record<string, string>;
  stdin?: string | Uint8Array;
  /** 1 to 64 bytes. The same id is run once; made up where there is none. */
  id?: string;
  fuel?: number;
  /** Bytes. */
  memory?: number;
  /** From the arrival at the gateway. */
  timeoutMs?: number;
  /** Fetches stdout in messages of at most this many bytes of it; whole by default. */
  piece?: number;
  /** Aborted, the caller no longer waits, and the gateway ends the request. */
  signal?: AbortSignal;
  /**
   * Called with stdout as it is written, and where in the whole that is, in bytes: in order; what could not be sent in
   * time is left out. The answer has all of it.
   */
  onOutput?: (piece: Uint8Array, offset: number) => void;
}

/** The code: exactly one of `program`, `digest`, `module`, `source`, `files` and `cancel`. */
export interface Request extends Fields {
  /** A program that the gateway has, by name. */
  program?: string;
  /** `sha256:…` of a module that the gateway has. */
  digest?: string;
  /** A wasm module or component; only its digest is sent to a gateway that has it. */
  module?: Uint8Array;
  /** C or C++, with the program's name. */
  source?: string;
  name?: string;
  /** A project: paths and contents, and the program to run. */
  files?: Record<string, Uint8Array>;
  target?: string;
  /** No code: the request of this id is cancelled. */
  cancel?: string;
  /** A makefile or a compiler command, for `source` and `files`; `<name>` is the program's path in it. */
  makefile?: string;
}

/** What a program has done. */
export interface Answer {
  /** The request's own id, if it had one. */
  id: string | null;
  status: "ok" | "exit" | "error";
  exitCode: number | null;
  stdout: Uint8Array;
  stderr: Uint8Array;
  /** Stdout as text. */
  text: string;
  fuel: number;
  /** Microseconds that it ran, and that it waited before. */
  runUs: number;
  queueUs: number;
}

/** A request that has not run to its end. An exit code other than 0 is an answer, not an error. */
export class OffloadError extends Error {
  readonly kind: Kind | (string & {});
  /** What the gateway answered; null where this client has found the error. */
  readonly answer: Answer | null;
}

/** A connection to a gateway; one that is lost is made again. */
export class Gateway {
  private constructor();
  /**
   * Connects and subscribes; rejects where that does not succeed at the first attempt. The URL is one of `ws:`, `wss:`,
   * and in Node of `mqtt:`, `mqtts:`.
   */
  static connect(url: string | URL, options?: Options): Promise<Gateway>;
  /** Why there is no connection at the moment; null while there is one. */
  readonly lost: string | null;
  /** Runs a program that the gateway has. */
  run(program: string, args?: string[], fields?: Fields): Promise<Answer>;
  /** Runs a wasm module or component at the gateway. */
  offload(module: Uint8Array | ArrayBuffer | Blob, args?: string[], fields?: Fields): Promise<Answer>;
  /** Sends a request and waits for its answer. */
  send(request: Request): Promise<Answer>;
  /**
   * Has the gateway end the request of this reply id that has this id, whoever has sent it; rejects with `not-found`
   * where none waits or runs.
   */
  cancel(id: string): Promise<void>;
  /** Disconnects; what is in flight is rejected. */
  close(): Promise<void>;
}
