// Adds up the numbers in its arguments and on its standard input.

import { getArguments } from "wasi:cli/environment@0.2.0";
import { getStderr } from "wasi:cli/stderr@0.2.0";
import { getStdin } from "wasi:cli/stdin@0.2.0";
import { getStdout } from "wasi:cli/stdout@0.2.0";

// What the gateway runs: `wasi:cli/run`. What it throws ends it with exit code 1.
export const run = {
  run() {
    const words = [...getArguments().slice(1), ...input().split(/\s+/)].filter((word) => word !== "");
    const wrong = words.find((word) => !/^-?\d+$/.test(word));
    if (wrong !== undefined) {
      print(getStderr(), `not a number: ${wrong}\n`);
      throw undefined;
    }
    print(getStdout(), `${words.reduce((sum, word) => sum + BigInt(word), 0n)}\n`);
  },
};

function input() {
  const stream = getStdin();
  const decoder = new TextDecoder();
  let text = "";
  try {
    for (;;) text += decoder.decode(stream.blockingRead(65536n), { stream: true });
  } catch (end) {
    if (end.payload?.tag !== "closed") throw end;
  }
  return text;
}

// A stream takes 4096 bytes at a time.
function print(stream, text) {
  const bytes = new TextEncoder().encode(text);
  for (let at = 0; at < bytes.length; at += 4096) stream.blockingWriteAndFlush(bytes.slice(at, at + 4096));
}
