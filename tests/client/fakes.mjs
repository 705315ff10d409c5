// A page without a browser: its clock, events and cookies, WebSockets that do what the test says, and
// a `fetch` that the test answers.
import { after, before, beforeEach } from "node:test";

const real = { setTimeout, clearTimeout, now: Date.now, random: Math.random };

/** Lets everything happen that waits for no timer. */
export async function settle() {
  for (let turn = 0; turn < 10; turn++) await new Promise(setImmediate);
}

export const clock = {
  now: 0,
  timers: new Map(),
  next: 1,
  /** Steps the time ahead, and runs the timers of that time in their order. */
  async pass(ms) {
    const until = this.now + ms;
    await settle();
    for (;;) {
      const due = [...this.timers].filter(([, { at }]) => at <= until);
      if (!due.length) break;
      const [id, { at, run }] = due.reduce((one, other) => (other[1].at < one[1].at ? other : one));
      this.timers.delete(id);
      this.now = Math.max(this.now, at);
      run();
      await settle();
    }
    this.now = until;
  },
};

export class FakeWebSocket {
  static made = [];

  constructor(url, protocols) {
    Object.assign(this, { url, protocols, readyState: 0, sent: [], protocol: "" });
    FakeWebSocket.made.push(this);
  }

  send(data) {
    if (this.readyState !== 1) throw new Error("a browser would drop this");
    this.sent.push(data);
  }

  close(code, reason) {
    if (code !== undefined && +code !== 1000 && !(code >= 3000 && code <= 4999)) {
      throw new DOMException("the code must be 1000 or 3000 to 4999", "InvalidAccessError");
    }
    if (Buffer.byteLength(String(reason ?? "")) > 123) {
      throw new DOMException("the reason must not have more than 123 bytes", "SyntaxError");
    }
    this.readyState = 2;
    this.closedWith ??= [code, reason];
  }

  opens(protocol = "") {
    Object.assign(this, { readyState: 1, protocol });
    this.onopen({});
    return this;
  }

  says(data) {
    this.onmessage({ data: typeof data === "object" ? JSON.stringify(data) : data });
  }

  ends(code = 1006, reason = "") {
    this.readyState = 3;
    if (code === 1006) this.onerror({});
    this.onclose({ code, reason });
  }
}

/** The requests that wait for an answer: `requests.shift().answer(status, body, headers)`. */
export const requests = [];

function fetchLater(url, { signal, method = "GET", headers = {}, body, referrerPolicy, keepalive } = {}) {
  return new Promise((resolve, reject) => {
    const request = {
      url: new URL(url), method, headers, signal, referrerPolicy, keepalive: !!keepalive,
      body: body && JSON.parse(body),
      answer(status, content = null, more = {}) {
        const text = content === null || typeof content === "string" ? content : JSON.stringify(content);
        resolve(new Response(status === 204 ? null : text, { status, headers: more }));
        return settle();
      },
      stream() {
        let controller;
        const source = new ReadableStream({ start: (given) => { controller = given; } });
        const encoder = new TextEncoder();
        signal.addEventListener("abort", () => {
          try { controller.error(new Error("aborted")); } catch {}
        });
        resolve(new Response(source, { headers: { "Content-Type": "text/event-stream" } }));
        return {
          async sends(text) { controller.enqueue(encoder.encode(text)); await settle(); },
          async sendsBytes(bytes) { controller.enqueue(bytes); await settle(); },
          async ends() { controller.close(); await settle(); },
        };
      },
      breaks() {
        const begun = new ReadableStream({ pull: (given) => given.error(new TypeError("network")) });
        resolve(new Response(begun));
        return settle();
      },
      fails() { reject(new TypeError("network")); return settle(); },
    };
    signal?.addEventListener("abort", () => reject(signal.reason));
    if (signal?.aborted) return reject(signal.reason);
    requests.push(request);
  });
}

/** As in browsers, what is set becomes a text. */
const makeStorage = () => new Proxy({}, { set: (data, name, value) => Reflect.set(data, name, `${value}`) });

/** What the page is like; `page.random` is what Math.random() gives. */
export const page = { random: 0.5 };

export function fire(type) {
  (type === "visibilitychange" ? globalThis.document : globalThis).dispatchEvent(new Event(type));
}

export const last = () => FakeWebSocket.made.at(-1);
export const made = () => FakeWebSocket.made.length;

/** The ids of the requests that the last WebSocket has sent. */
export const sentIds = () => last().sent.map((text) => JSON.parse(text).id);

/** Notes all events of a socket: [[name, …values], …]. */
export function watch(socket) {
  const seen = [];
  for (const name of ["message", "state", "recovered", "joined", "left"]) {
    socket.on(name, (...values) => seen.push([name, ...values]));
  }
  return seen;
}

before(() => {
  globalThis.setTimeout = (run, ms = 0, ...values) => {
    // As browsers do: a longer one is over at once.
    const wait = ms > 2 ** 31 - 1 ? 1 : ms;
    clock.timers.set(clock.next, { at: clock.now + wait, run: () => run(...values) });
    return clock.next++;
  };
  globalThis.clearTimeout = (id) => clock.timers.delete(id);
  Date.now = () => clock.now;
  Math.random = () => page.random;
  globalThis.WebSocket = FakeWebSocket;
  globalThis.fetch = fetchLater;
  globalThis.location = new URL("https://site.example/rooms/42/?tab=1#top");
});

beforeEach(() => {
  clock.timers.clear();
  FakeWebSocket.made.length = requests.length = 0;
  page.random = 0.5;
  // No socket of an earlier test hears of what happens to this page.
  const window = new EventTarget();
  for (const name of ["addEventListener", "removeEventListener", "dispatchEvent"]) {
    globalThis[name] = window[name].bind(window);
  }
  Object.defineProperty(globalThis, "sessionStorage", {
    value: makeStorage(), configurable: true, writable: true,
  });
  globalThis.document = Object.assign(new EventTarget(), { hidden: false, cookie: "" });
  Object.defineProperty(globalThis, "navigator", {
    value: { onLine: true }, configurable: true, writable: true,
  });
});

after(() => {
  globalThis.setTimeout = real.setTimeout;
  globalThis.clearTimeout = real.clearTimeout;
  Date.now = real.now;
  Math.random = real.random;
});
