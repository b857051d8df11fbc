// Offloads the module that the user has picked, and shows the answer.

import { Gateway } from "offload-client";

const element = (id) => document.getElementById(id);

// A host of the gateway in the page's address, `?gateway=ws://gateway.local:9001/mqtt`, is filled in.
element("url").value = new URLSearchParams(location.search).get("gateway") ?? element("url").value;

let gateway = null;

element("form").addEventListener("submit", async (event) => {
  event.preventDefault();
  element("run").disabled = true;
  show("", "running …");
  try {
    gateway ??= await connect();
    const args = element("args").value.split(/\s+/).filter((arg) => arg !== "");
    const answer = await gateway.offload(element("module").files[0], args);
    const { exitCode, runUs, fuel } = answer;
    show(answer.text, `exit code ${exitCode}, ran for ${runUs / 1000} ms, ${fuel} units of fuel`);
  } catch (error) {
    show(`${error.kind ?? error.name}: ${error.message}`, "", true);
  } finally {
    element("run").disabled = false;
  }
});

// Another gateway or user is another connection.
for (const id of ["url", "username", "password"]) {
  element(id).addEventListener("change", () => {
    gateway?.close();
    gateway = null;
  });
}

function connect() {
  const [username, password] = [element("username").value, element("password").value];
  return Gateway.connect(element("url").value, username ? { username, password } : {});
}

function show(answer, status, isError = false) {
  element("answer").textContent = answer;
  element("answer").classList.toggle("error", isError);
  element("status").textContent = status;
}
