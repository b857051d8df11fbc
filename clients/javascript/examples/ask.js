// The least that a program needs: runs a program that the gateway has, and a module of one's own.
//
//     node ask.js mqtt://gateway.local prog.wasm 5 7

import { readFile } from "node:fs/promises";

import { Gateway } from "offload-client";

const [url, path, ...args] = process.argv.slice(2);
try {
  const gateway = await Gateway.connect(url);
  process.stdout.write((await gateway.run("add", ["5", "7"])).text);
  process.stdout.write((await gateway.offload(await readFile(path), args)).text);
  await gateway.close();
} catch (error) {
  console.error(`error: ${error.kind}: ${error.message}`);
  process.exitCode = 1;
}
