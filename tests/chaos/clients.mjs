// A process with many clients: node clients.mjs ADDRESS '[{"path", "fallback"}, …]'
//
// Each line of the input is a call of the crowd, ["joined"] or ["have", texts]; each line of the output
// is its result in JSON.
import { createRequire } from "node:module";
import { createInterface } from "node:readline";
import { connect } from "../../python/dwebsocket/static/dwebsocket/dwebsocket.js";
import { crowd } from "./crowd.mjs";

globalThis.WebSocket = createRequire(new URL("../clients/ws.js", import.meta.url))("ws");

// What a page has of its site.
const csrfToken = "a".repeat(32);
const { fetch } = globalThis;
globalThis.fetch = (address, options) =>
  fetch(address, { ...options, headers: { ...options.headers, Cookie: "csrftoken=" + csrfToken } });

const [, , base, plans] = process.argv;
const clients = crowd(connect, base, JSON.parse(plans), { csrfToken });
for await (const line of createInterface({ input: process.stdin })) {
  const [call, ...values] = JSON.parse(line);
  console.log(JSON.stringify(clients[call](...values) ?? null));
}
process.exit(0);
