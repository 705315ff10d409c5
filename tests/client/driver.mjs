// Drives dwebsocket.js in Node: node driver.mjs URL '{…options}'
//
// Each line of the input is {"id", "call", "with": […]}; each line of the output is {"event": […]} or
// {"id", "value" | "error"}. The waits between two attempts are short.
import { createRequire } from "node:module";
import { createInterface } from "node:readline";
import { connect } from "../../python/dwebsocket/static/dwebsocket/dwebsocket.js";

const require = createRequire(new URL("../clients/ws.js", import.meta.url));
if (!process.env.OWN_WEBSOCKET) globalThis.WebSocket = require("ws");
Math.random = () => 0.02;
if (process.env.SSE_PATIENCE_MS) {
  const wait = setTimeout;
  globalThis.setTimeout = (call, ms, ...values) =>
    wait(call, ms === 5000 ? +process.env.SSE_PATIENCE_MS : ms, ...values);
}

const window = new EventTarget();
globalThis.addEventListener = window.addEventListener.bind(window);

const tell = (fact) => console.log(JSON.stringify(fact, (key, value) =>
  value instanceof Uint8Array ? { bytes: [...value] } : value));

const [, , url, options] = process.argv;
const socket = connect(url, JSON.parse(options));
for (const name of ["message", "state", "recovered", "joined", "left"]) {
  socket.on(name, (...values) => tell({ event: [name, ...values] }));
}

const rooms = {};
const events = ["message", "state", "recovered", "joined", "left", "updated", "typing"];

const calls = {
  join: (name, options) => {
    rooms[name] = socket.join(name, options);
    for (const event of events) rooms[name].on(event, (...values) => tell({ event: [event, ...values] }));
  },
  emit: (name, ...values) => rooms[name].emit(...values),
  update: (name, info) => rooms[name].update(info),
  leave: (name) => rooms[name].leave(),
  room: (name) => ({ state: rooms[name].state, members: rooms[name].members, position: rooms[name].position }),
  send: (data) => socket.send(data),
  sendBytes: (...bytes) => socket.send(new Uint8Array(bytes)),
  request: (...values) => socket.request(...values),
  close: (...values) => socket.close(...values),
  fails: () => void socket.on("message", async () => { throw new Error("mine"); }),
  forget: (data) => void socket.send(data),
  online: () => window.dispatchEvent(new Event("online")) && undefined,
  facts: () => ({
    state: socket.state,
    transport: socket.transport,
    protocol: socket.protocol,
    positions: socket.positions,
  }),
};

for await (const line of createInterface({ input: process.stdin })) {
  const { id, call, with: values } = JSON.parse(line);
  (async () => calls[call](...values))().then(
    (value) => tell({ id, value: value ?? null }),
    (error) => tell({ id, error: error.code }),
  );
}
process.exit(0);
