// The least that a program needs: runs a program that the gateway has, and a module of one's own, whose output is shown
// as it comes. Ctrl-c has the gateway end it.
//
//     node ask.js mqtt://gateway.local prog.wasm 5 7

import { readFile } from "node:fs/promises";

import { Gateway } from "offload-client";

const [url, path, ...args] = process.argv.slice(2);
const abort = new AbortController();
process.once("SIGINT", () => abort.abort());
let gateway;
try {
  gateway = await Gateway.connect(url);
  process.stdout.write((await gateway.run("add", ["5", "7"])).text);
  // What is left out on a slow connection comes with the answer.
  let shown = 0;
  const onOutput = (piece, offset) => {
    if (offset !== shown) return;
    process.stdout.write(piece);
    shown += piece.length;
  };
  const answer = await gateway.offload(await readFile(path), args, { onOutput, signal: abort.signal });
  process.stdout.write(answer.stdout.subarray(shown));
} catch (error) {
  console.error(`error: ${error.kind ?? "cancelled"}: ${error.message}`);
  process.exitCode = abort.signal.aborted ? 130 : 1;
} finally {
  await gateway?.close();
}
