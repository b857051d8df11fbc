// Connects as a web page's script does, hears its own messages, and prints them.
//
//     node echo.cjs <folder with node_modules> <url> <4 or 5: MQTT 3.1.1 or 5> <origin> [<file with the CA>]

const [folder, url, version, origin, ca] = process.argv.slice(2);
const mqtt = require(require.resolve("mqtt", { paths: [folder] }));

// Unless all goes well: without a connection mqtt.js may just have nothing more to do.
process.exitCode = 1;

async function run() {
  const client = await mqtt.connectAsync(url, {
    protocolVersion: Number(version),
    reconnectPeriod: 0,
    wsOptions: { headers: { Origin: origin } },
    ca: ca && require("fs").readFileSync(ca),
  });
  // Some are larger than any frame that the broker sends.
  const payloads = ["small", "x".repeat(100_000), "last"];
  const heard = new Promise((resolve) => {
    const texts = [];
    client.on("message", (_topic, payload) => {
      texts.push(payload.toString());
      if (texts.length === payloads.length) resolve(texts);
    });
  });
  await client.subscribeAsync("echo/#", { qos: 1 });
  for (const payload of payloads) await client.publishAsync("echo/page", payload, { qos: 1 });
  for (const text of await heard) console.log(text.length, text.slice(0, 10));
  await client.endAsync();
  process.exitCode = 0;
}

run().catch((error) => console.error(String(error)));
