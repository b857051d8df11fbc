// Makes the component of app.js: a JavaScript engine with it inside, without network.

import { writeFile } from "node:fs/promises";
import { componentize } from "@bytecodealliance/componentize-js";

const { component } = await componentize({
  sourcePath: "app.js",
  witPath: "wit",
  worldName: "program",
  disableFeatures: ["http", "fetch-event"],
});
await writeFile("{{name}}.wasm", component);
