// A network that fails: node proxy.mjs UPSTREAM_PORT
//
// The first line of its output is its port. Passes connections on until it is told otherwise by a line of the input:
//   {"do": "reset", "share": 0.3}              so many of them are reset
//   {"do": "hang", "share": 0.3, "ms": 4000}   pass nothing on, not even their end, and are reset then
//   {"do": "delay", "share": 0.3, "ms": 800}   pass everything on so much later, from now on
//   {"do": "block", "ms": 3000}                handshakes of WebSockets are reset for so long
// Each other line of the output says how many connections were concerned.
import net from "node:net";
import { createInterface } from "node:readline";

const [, , upstreamPort] = process.argv;
const pairs = new Set();
let blockedUntil = 0;

const sleep = (ms) => new Promise((done) => setTimeout(done, ms));

class Pair {
  constructor(client) {
    this.client = client;
    this.hangs = false;
    this.delay = 0;
    client.once("data", (first) => this.begin(first));
    client.on("error", () => {});
    client.on("close", () => this.end());
    pairs.add(this);
  }

  begin(first) {
    if (Date.now() < blockedUntil && /^upgrade: websocket/im.test(first.toString("latin1"))) {
      return this.reset();
    }
    this.server = net.connect({ host: "127.0.0.1", port: upstreamPort, allowHalfOpen: true });
    this.server.on("error", () => {});
    this.server.on("close", () => this.end());
    this.pass(this.client, this.server);
    this.pass(this.server, this.client);
    this.client.emit("data", first);
  }

  pass(from, to) {
    let before = Promise.resolve();
    const later = (act) => {
      const due = Date.now() + this.delay;
      before = before.then(async () => {
        if (due > Date.now()) await sleep(due - Date.now());
        if (!this.hangs && !to.destroyed) act();
      });
    };
    from.on("data", (chunk) => later(() => to.write(chunk)));
    from.on("end", () => later(() => to.end()));
  }

  // One side is gone.
  end() {
    if (!this.hangs) this.reset();
  }

  reset() {
    pairs.delete(this);
    for (const side of [this.client, this.server]) {
      if (side && !side.destroyed) side.resetAndDestroy();
    }
  }
}

const some = (share) => [...pairs].filter((pair) => !pair.hangs && Math.random() < share);

const acts = {
  reset: ({ share }) => some(share).map((pair) => pair.reset()).length,
  hang: ({ share, ms }) => some(share).map((pair) => {
    pair.hangs = true;
    setTimeout(() => pair.reset(), ms);
  }).length,
  delay: ({ share, ms }) => some(share).map((pair) => { pair.delay = ms; }).length,
  block: ({ ms }) => { blockedUntil = Date.now() + ms; return 0; },
};

const front = net.createServer({ allowHalfOpen: true }, (client) => new Pair(client));
front.listen(0, "127.0.0.1", () => console.log(front.address().port));
for await (const line of createInterface({ input: process.stdin })) {
  const act = JSON.parse(line);
  console.log(acts[act.do](act));
}
process.exit(0);
