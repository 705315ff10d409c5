// Drives the `ws` package: node ws.js URL '{"send": [...], "close": [code, reason], "deflate": {...}}'
//
// Each entry of "send" is {"text": s}, {"binary_size": n} or {"fragments": [s, ...]}. The next one
// goes out when the answer to the one before has come. Without entries the script waits for the
// server to close. Prints one JSON object: what came in, and how it ended.
"use strict";
const crypto = require("crypto");
const WebSocket = require("ws");

const [, , url, json] = process.argv;
const script = JSON.parse(json);
const todo = [...(script.send || [])];
const seen = { messages: [], errors: [] };
const socket = new WebSocket(url, script.protocols || [], {
  perMessageDeflate: script.deflate || false,
  maxPayload: 64 * 1024 * 1024,
});
let expected = null;

function next() {
  const step = todo.shift();
  if (step === undefined) {
    if (script.close) socket.close(...script.close);
    return;
  }
  if (step.fragments) {
    step.fragments.forEach((part, i) =>
      socket.send(part, { fin: i === step.fragments.length - 1 }));
  } else if (step.binary_size) {
    expected = crypto.randomBytes(step.binary_size);
    socket.send(expected);
  } else {
    socket.send(step.text);
  }
}

socket.on("open", next);
socket.on("message", (data, isBinary) => {
  if (expected !== null) {
    seen.messages.push({ binary: isBinary, same: data.equals(expected), size: data.length });
    expected = null;
  } else {
    seen.messages.push({ binary: isBinary, text: data.toString() });
  }
  next();
});
socket.on("unexpected-response", (request, response) => {
  seen.status = response.statusCode;
  console.log(JSON.stringify(seen));
  process.exit(0);
});
socket.on("error", (error) => seen.errors.push(error.message));
socket.on("close", (code, reason) => {
  seen.code = code;
  seen.reason = reason.toString();
  seen.protocol = socket.protocol;
  if (script.deflate) seen.extensions = socket.extensions;
  console.log(JSON.stringify(seen));
});
