// A WebSocket that comes back by itself: see docs/client.md.
//
// A link is one, or requests in its place. It takes messages from the queue, each once.

const failure = (name, text) => Object.assign(new Error(text), { name });

const parse = (text) => {
  try {
    if (/^\s*[[{]/.test(text)) return JSON.parse(text);
  } catch {} // other text
  return text;
};

const pack = (data) => {
  if (data instanceof ArrayBuffer) data = new Uint8Array(data);
  if (ArrayBuffer.isView(data)) {
    return new Uint8Array(data.buffer, data.byteOffset, data.byteLength).slice(); // a copy
  }
  const text = typeof data === "string" ? data : JSON.stringify(data);
  if (text === undefined || data instanceof Blob) throw new TypeError("no message");
  return text;
};

// [, epoch, offset]
const split = (position) => /(.*)-(\d+)$/.exec(position) ?? [];

const toBytes = (base64) => Uint8Array.from(atob(base64), (char) => char.charCodeAt(0));
const toBase64 = (bytes) => btoa(Array.from(bytes, (byte) => String.fromCharCode(byte)).join(""));

const webSocketLink = ({ at, queue, on, protocols, since }) => {
  const ws = new WebSocket(at("ws", ...since), protocols);
  ws.binaryType = "arraybuffer";
  ws.onopen = () => on.open(ws.protocol);
  ws.onmessage = ({ data }) => on.message(typeof data === "string" ? data : new Uint8Array(data));
  ws.onerror = () => {}; // onclose follows
  ws.onclose = ({ code, reason }) => on.end(code, reason);
  ws.flush = () => {
    // A closing one drops them.
    while (queue.length && ws.readyState === 1) {
      const { wire, resolve } = queue.shift();
      ws.send(wire);
      resolve();
    }
  };
  return ws;
};

// Server-sent events or polling, with POST.
const httpLink = ({ kind, at, csrf, queue, on, protocols, since }) => {
  const abort = new AbortController();
  const { signal } = abort;
  const opening = [...since, ...[protocols].flat().map((name) => "protocol=" + encodeURIComponent(name))];
  let source = queue;
  let number = 0;
  let id, closing, closed, isPosting;

  const end = (code, reason, wait) => {
    if (signal.aborted) return;
    abort.abort();
    on.end(code, reason, wait);
  };

  // A repeat is taken once.
  const call = async (query, options, repeats = 0) => {
    let answer;
    try {
      answer = await fetch(at("http", "transport=" + kind, ...query), {
        cache: "no-store",
        signal,
        ...options,
      });
    } catch {}
    if (answer?.ok) return answer;
    const status = answer?.status ?? 0;
    const wait = +answer?.headers.get("Retry-After") || 0;
    const isRefused = /^4/.test(status);
    if (signal.aborted || !id || isRefused || (repeats > 4 && status !== 503)) {
      throw { status, wait, repeats, isRefused, message: "HTTP " + status };
    }
    await new Promise((done) => setTimeout(done, wait * 1000 || Math.random() * 1000 * 2 ** repeats));
    return call(query, options, repeats + 1);
  };

  const take = ({ open, text, binary, close }) => {
    if (open) {
      id = open.id;
      on.open(open.subprotocol);
    } else if (close) end(close.code, close.reason);
    else on.message(text ?? toBytes(binary));
  };

  const stream = async () => {
    // Chromium stops reading in frozen pages.
    globalThis.document?.addEventListener("resume", () => end(1006), abort);
    const { headers, body } = await call(opening, { headers: { Accept: "text/event-stream" } });
    if (!/event-stream/.test(headers.get("Content-Type"))) return;
    const reader = body.pipeThrough(new TextDecoderStream()).getReader();
    let rest = "";
    let event = "";
    let data = [];
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      const lines = value.split("\n");
      lines[0] = rest + lines[0];
      rest = lines.pop();
      for (const line of lines) {
        const [, field, content] = /^(\w*):? ?([^]*)/.exec(line);
        if (field === "event") event = content;
        if (field === "data") data.push(content);
        if (line) continue;
        const text = data.join("\n");
        if (event === "message") take({ text });
        else if (event === "text") take({ text: new TextDecoder().decode(toBytes(text)) });
        else if (event === "binary") take({ binary: text });
        else if (event) take({ [event]: JSON.parse(text) });
        event = "";
        data = [];
      }
    }
  };

  const poll = async () => {
    const ask = async (...query) => (await call(query)).json();
    take({ open: await ask(...opening) });
    for (let ack = 0; !signal.aborted; ) {
      const { n, events } = await ask("id=" + id, "ack=" + ack);
      events.forEach(take);
      ack = n;
    }
  };

  const flush = async () => {
    if (isPosting) return;
    isPosting = true;
    while (!signal.aborted && (source.length || closing)) {
      const batch = [];
      const messages = [];
      for (let size = 0; source.length && size < 65536; ) {
        const { wire } = source[0];
        const message = typeof wire === "string" ? { text: wire } : { binary: toBase64(wire) };
        size += new Blob([JSON.stringify(message)]).size;
        batch.push(source.shift());
        messages.push(message);
      }
      const isLast = closing && !source.length;
      if (isLast) messages.push({ close: closing });
      try {
        await call(["id=" + id], {
          method: "POST",
          headers: { "Content-Type": "application/json", "X-CSRFToken": csrf() },
          body: JSON.stringify({ n: ++number, messages }),
        });
        batch.forEach((entry) => entry.resolve());
        if (isLast) end(1000);
      } catch ({ status, wait, repeats, isRefused, message }) {
        if (status === 410 && !repeats) queue.unshift(...batch);
        // Perhaps it has: they count as sent.
        else if (!isRefused || status === 410) batch.forEach((entry) => entry.resolve());
        else batch.forEach((entry) => entry.reject(failure("RefusedError", message)));
        end(status === 403 ? 1008 : 1006, message, wait);
      }
    }
    isPosting = false;
    if (closing) queue.unshift(...source.splice(0));
    closed?.();
  };

  (kind === "sse" ? stream() : poll()).then(
    () => end(1006),
    ({ message, wait }) => end(1006, message, wait),
  );

  return {
    flush,
    // First sends what waits.
    close(code = 1000, reason = "") {
      if (!id || signal.aborted) return abort.abort();
      closing = { code, reason };
      source = queue.splice(0);
      return new Promise((done) => {
        closed = done;
        flush();
      });
    },
  };
};

export function connect(url, options = {}) {
  const { protocols = [], resume, former, fallback, csrfToken, positions = {} } = options;
  const { document: page, navigator, location } = globalThis;
  const { href } = new URL(url, location?.href);
  const known = new Map(Object.entries(resume ? positions : {}));
  const ended = new AbortController();
  const handlers = {};
  const queue = [];
  const asked = new Map(); // by id
  let state = "connecting";
  let transport = "websocket";
  let protocol = "";
  let link, probe, held, timer, backTimer;
  let ownId = "";
  let tries = 0; // since one that lasted
  let failures = 0; // of WebSockets, in a row
  let earliest = 0; // of the next attempt

  const at = (scheme, ...query) => {
    const target = new URL(href.replace(/^ws|^http/, scheme));
    target.search = [target.search, ...query].filter(Boolean).join("&");
    target.hash = "";
    return target.href;
  };

  const csrf = () => csrfToken ?? /(?:^|; )csrftoken=([^;]*)/.exec(page?.cookie)?.[1] ?? "";

  const emit = (name, ...values) => {
    // A handler that throws stops nothing else.
    handlers[name]?.forEach(async (handler) => handler(...values));
  };

  const become = (next, why) => {
    state = next;
    emit("state", next, why);
  };

  const flush = () => {
    if (state === "open" && !held) link.flush();
  };

  const put = (entry) => {
    if (state === "closed") entry.reject(failure("ClosedError"));
    else if (queue.length > 999) entry.reject(failure("QueueFullError"));
    else queue.push(entry);
    flush();
  };

  const dropQueue = () => queue.splice(0).forEach(put);

  // The next view does not know them.
  const loseRequests = () => {
    for (const entry of asked.values()) {
      if (!queue.includes(entry)) entry.reject(failure("ConnectionLostError"));
    }
  };

  const receive = (raw, dialled) => {
    const message = typeof raw === "string" ? parse(raw) : raw;
    if (message === raw) return emit("message", raw, {});
    const { id, group, position, data, joined, left, recovered, missed } = message;
    if (asked.has(id) && "data" in message) return asked.get(id).answer(message);
    const [, epoch, offset] = split(position);
    const [, lastEpoch, lastOffset] = split(known.get(group));
    const isNew = epoch !== lastEpoch || +offset > +lastOffset;
    const event = joined ? "joined" : left && "left";
    // What others say has a blank before it.
    if (!/^{"group": ?"/.test(raw) || !(resume || handlers[event]?.size)) emit("message", message, {});
    else if (event) for (const member of [message[event]].flat()) emit(event, member, group);
    else if (recovered !== undefined) {
      ownId = id;
      // A newer one may have come before, or the server be behind us.
      const hasMoved = known.get(group) !== dialled.get(group);
      if (hasMoved ? isNew : !recovered || (isNew && !missed)) known.set(group, position);
      emit("recovered", { group, recovered, missed });
    } else if (!offset) emit("message", message, {});
    else if (isNew) {
      known.set(group, position);
      emit("message", message.binary ? toBytes(data) : parse(data), { group, position });
    }
  };

  const dial = (kind) => {
    let openedAt;
    const dialled = new Map(known);
    const since = Array.from(dialled, (pair) => "since=" + encodeURIComponent(pair.join(":")));
    if (former) since.push("former=" + ownId);
    const on = {
      open(agreed) {
        clearTimeout(timeout);
        if (mine === probe) {
          clearTimeout(timer);
          // First the old link sends what waits.
          held = Promise.resolve(link?.close()).then(() => {
            held = undefined;
            flush();
          });
          link = mine;
          probe = undefined;
          loseRequests();
          become("connecting");
        }
        if (mine !== link) return;
        openedAt = Date.now();
        transport = kind;
        protocol = agreed;
        if (kind !== "websocket") backTimer ??= setTimeout(back, 600000);
        become("open");
        flush();
      },
      message: (data) => mine === link && receive(data, dialled),
      end(code, reason = "", wait = 0) {
        clearTimeout(timeout);
        if (mine === probe) {
          probe = undefined;
          backTimer = setTimeout(back, 600000);
        }
        if (mine !== link) return;
        link = undefined;
        if (code === 4401 || code === 1008) return finish(code, reason);
        if (Date.now() - openedAt > 5000) tries = 0;
        if (openedAt) failures = 0;
        else if (kind === "sse" && reason === "timeout") transport = "polling"; // a proxy keeps events
        else if (kind !== "websocket") [transport, failures] = ["websocket", 0];
        else if (fallback && navigator?.onLine !== false && ++failures > 1) transport = "sse";
        tries = Math.max(tries, { 1012: 2, 1013: 4 }[code] ?? 0); // restart, overload
        wait ||= +/retry after ([\d.]+)/i.exec(reason)?.[1] || 0;
        wait = Math.min(wait, 86400) * 1000;
        earliest = Date.now() + wait;
        const delay = wait + Math.random() * Math.min(30000, 500 * 2 ** tries++);
        timer = setTimeout(redial, delay);
        loseRequests();
        become("waiting", { code, reason, delay });
      },
    };
    const timeout = setTimeout(() => {
      on.end(1006, "timeout");
      mine.close();
    }, kind === "sse" ? 5000 : 10000);
    const mine = (kind === "websocket" ? webSocketLink : httpLink)({
      kind, at, csrf, queue, on, since, protocols,
    });
    return mine;
  };

  const redial = () => {
    clearTimeout(timer);
    link = dial(transport);
    become("connecting");
  };

  // To WebSockets.
  const back = () => {
    backTimer = undefined;
    if (transport === "websocket" || probe) return;
    if (state === "open") probe = dial("websocket");
    else [transport, failures] = ["websocket", 1];
  };

  const wake = ({ type }) => {
    if (type === "online") {
      tries = 0;
      clearTimeout(backTimer);
      back();
    } else if (page.visibilityState === "hidden") return;
    if (state === "waiting" && Date.now() >= earliest) redial();
  };

  const finish = (code, reason) => {
    clearTimeout(timer);
    clearTimeout(backTimer);
    ended.abort();
    probe?.close();
    probe = link = undefined;
    become("closed", { code, reason });
    dropQueue();
    loseRequests();
  };

  link = dial(transport);
  globalThis.addEventListener?.("online", wake, ended);
  page?.addEventListener("visibilitychange", wake, ended);
  // It may be kept for the Back button.
  globalThis.addEventListener?.("pagehide", () => link?.close(), ended);

  return {
    on(name, handler) {
      (handlers[name] ??= new Set()).add(handler);
      return () => handlers[name].delete(handler);
    },
    async send(data) {
      const wire = pack(data);
      return new Promise((resolve, reject) => put({ wire, resolve, reject }));
    },
    async request(data, { timeout = 10000 } = {}) {
      const id = Number(crypto.getRandomValues(new BigUint64Array(1))[0] >> 11n);
      const wire = pack({ id, data });
      return new Promise((resolve, reject) => {
        const settle = (how) => (value) => {
          clearTimeout(clock);
          asked.delete(id);
          how(value);
        };
        const entry = { wire, resolve() {}, reject: settle(reject), answer: settle(resolve) };
        const clock = setTimeout(() => {
          if (queue.includes(entry)) queue.splice(queue.indexOf(entry), 1);
          entry.reject(failure("TimeoutError"));
        }, Math.min(timeout, 2 ** 31 - 1));
        asked.set(id, entry);
        put(entry);
      });
    },
    close(code = 1000, reason = "") {
      if (state === "closed") return;
      const closed = link?.close(code, reason);
      finish(code, reason);
      closed?.then(dropQueue);
    },
    get state() { return state; },
    get transport() { return transport; },
    get protocol() { return protocol; },
    get positions() { return Object.fromEntries(known); },
  };
}
