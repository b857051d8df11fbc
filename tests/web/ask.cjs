// What a web page does: asks the gateway over WebSocket, and prints the answer. Arguments: where mqtt.js is, the URL, the
// origin of the page, the request topic's id, what to compute, and whether to send source instead.
const [modules, url, origin, id, args, source] = process.argv.slice(2);
const mqtt = require(require.resolve("mqtt", { paths: [modules] }));

// Unless an answer comes: without a connection mqtt.js may just have nothing more to do.
process.exitCode = 1;

const client = mqtt.connect(url, {
  protocolVersion: 5,
  clientId: id,
  reconnectPeriod: 0,
  wsOptions: { headers: { Origin: origin } },
});
client.on("error", (error) => console.error(error.message));
client.on("connect", async () => {
  await client.subscribeAsync(`result/${id}`, { qos: 1 });
  await client.publishAsync(source ? `inputCode/${id}` : `localCode/${id}`, source || args, { qos: 1 });
});
client.on("message", async (_, answer) => {
  process.stdout.write(answer);
  process.exitCode = 0;
  await client.endAsync();
});
