// dwebsocket.js where WebSockets do not open: server-sent events or long polling, and POST.
import assert from "node:assert/strict";
import { afterEach, describe, mock, test } from "node:test";
import * as client from "../../python/dwebsocket/static/dwebsocket/dwebsocket.js";
import { clock, fire, last, made, requests, settle, watch } from "./fakes.mjs";

// For the heartbeat see beat.test.mjs.
const connect = (url, options) => client.connect(url, { beat: 0, ...options });

const MINUTES = 60000;

/** What happens to a client whose WebSockets fail, until its first request by HTTP. */
async function blocked({ url = "/ws/?a=b", ...options } = {}) {
  const socket = connect(url, { fallback: true, ...options });
  const seen = watch(socket);
  last().ends();
  await clock.pass(500);
  last().ends();
  await clock.pass(1000);
  return { socket, seen };
}

const opening = 'event: open\ndata: {"id": "secret", "subprotocol": "chat"}\n\n';

/** A client with server-sent events. */
async function streaming(options) {
  const { socket, seen } = await blocked(options);
  const stream = requests.shift().stream();
  await stream.sends(opening);
  seen.length = 0;
  return { socket, seen, stream };
}

/** A client with long polling, and its first poll that waits. */
async function polling(options) {
  const { socket, seen } = await blocked(options);
  requests.shift();
  await clock.pass(6000 + 2000);
  await requests.shift().answer(200, { id: "secret", subprotocol: "" });
  seen.length = 0;
  return { socket, seen, poll: requests.shift() };
}

const query = ({ url }) => url.search;

/** The request that tries to open a connection, beside one that asks whether the page exists. */
const attempted = () => requests.splice(0).find(({ url }) => url.searchParams.has("transport"));

describe("the fallback", () => {
  test("begins when a WebSocket did not open twice in a row", async () => {
    const { socket, seen } = await blocked({ resume: true, positions: { room: "e-1" }, protocols: "chat" });
    const [request] = requests;
    assert.equal(made(), 2);
    assert.equal(
      request.url.href,
      "https://site.example/ws/?a=b&transport=sse&since=room%3Ae-1&protocol=chat",
    );
    assert.equal(request.headers.Accept, "text/event-stream");
    assert.equal(request.referrerPolicy, "origin");
    assert.equal(socket.state, "connecting");
    await request.stream().sends(opening);
    assert.deepEqual([socket.state, socket.transport, socket.protocol], ["open", "sse", "chat"]);
    assert.equal(seen.filter(([, state]) => state === "open").length, 1);
  });

  test("is used only if asked for", async () => {
    await blocked({ fallback: false });
    assert.deepEqual([made(), requests.length], [3, 0]);
  });

  test("does not begin while the browser is offline", async () => {
    navigator.onLine = false;
    await blocked();
    assert.deepEqual([made(), requests.length], [3, 0]);
  });

  test("does not begin while the function gives no URL: no WebSocket was tried", async () => {
    const before = made();
    let calls = 0;
    const url = async () => {
      if (++calls < 3) throw new Error("no token");
      return "/ws/";
    };
    connect(url, { fallback: true });
    await clock.pass(5000);
    assert.deepEqual([calls, made() - before, requests.length], [3, 1, 0]);
  });

  test("does not begin when WebSockets open and are cut", async () => {
    connect("/ws/", { fallback: true });
    for (let round = 0; round < 3; round++) {
      last().opens().ends();
      await clock.pass(3000);
      last().ends();
      await clock.pass(3000);
    }
    assert.equal(requests.length, 0);
  });

  for (const [what, answer] of [
    ["is down", (request) => request.fails()],
    ["has no fallback", (request) => request.answer(200, "<html>", { "Content-Type": "text/html" })],
    ["is busy", (request) => request.answer(503)],
  ]) {
    test(`gives way to WebSockets when the server ${what}`, async () => {
      const { socket } = await blocked();
      for (const transport of ["sse", "polling"]) {
        const attempt = attempted();
        assert.deepEqual([made(), query(attempt)], [2, `?a=b&transport=${transport}`]);
        await answer(attempt);
        assert.equal(socket.state, "waiting");
        await clock.pass(4000);
      }
      assert.deepEqual([made(), socket.transport], [3, "websocket"]);
    });
  }

  for (const status of [403, 502]) {
    test(`polls when a proxy answers a stream with ${status}`, async () => {
      const { socket } = await blocked();
      await attempted().answer(status);
      await clock.pass(2000);
      const attempt = attempted();
      assert.deepEqual([made(), query(attempt)], [2, "?a=b&transport=polling"]);
      await attempt.answer(200, { id: "secret", subprotocol: "" });
      assert.deepEqual([socket.state, socket.transport], ["open", "polling"]);
    });
  }

  test("comes back as late as a 503 says", async () => {
    const { seen } = await blocked();
    await requests.shift().answer(503, "", { "Retry-After": "20" });
    assert.ok(seen.at(-1)[2].delay >= 20000);
  });

  test("comes back as it was when its stream breaks", async () => {
    const { socket, stream } = await streaming();
    await stream.ends();
    assert.equal(socket.state, "waiting");
    await clock.pass(2000);
    assert.deepEqual([query(requests[0]), made()], ["?a=b&transport=sse", 2]);
  });

  test("polls when a proxy keeps the events for 5 seconds", async () => {
    const { socket } = await blocked();
    const first = requests.shift();
    first.stream();
    await clock.pass(4400);
    assert.equal(socket.state, "connecting");
    await clock.pass(200);
    assert.deepEqual([socket.state, first.signal.aborted], ["waiting", true]);
    await clock.pass(2000);
    assert.equal(query(requests[0]), "?a=b&transport=polling");
    await requests.shift().answer(200, { id: "secret", subprotocol: "" });
    assert.deepEqual([socket.state, socket.transport], ["open", "polling"]);
  });
});

describe("the next page of a tab whose WebSockets are blocked", () => {
  /** The page goes, and the next one connects. */
  const next = async (options) => {
    fire("pagehide");
    await settle();
    clock.timers.clear();
    requests.length = 0;
    return connect("/ws/?a=b", { fallback: true, ...options });
  };
  const memory = () => ({ ...sessionStorage });

  for (const [transport, before, answer] of [
    ["sse", streaming, (request) => request.stream().sends(opening)],
    ["polling", polling, (request) => request.answer(200, { id: "secret", subprotocol: "" })],
  ]) {
    test(`begins by ${transport}, which got through`, async () => {
      await before();
      const socket = await next();
      assert.deepEqual([made(), socket.transport], [2, transport]);
      assert.equal(query(requests[0]), `?a=b&transport=${transport}`);
      await answer(requests.shift());
      assert.deepEqual([made(), socket.state, socket.transport], [2, "open", transport]);
    });
  }

  test("goes back to WebSockets ten minutes after one was tried, on whichever page", async () => {
    await streaming(); // it takes a second
    for (let page = 0; page < 4; page++) {
      await clock.pass(2 * MINUTES);
      await next();
      await requests.shift().stream().sends(opening);
    }
    await clock.pass(2 * MINUTES - 2000);
    assert.equal(made(), 2);
    await clock.pass(2000);
    assert.equal(made(), 3);
    last().ends();
    const socket = await next();
    await requests.shift().stream().sends(opening);
    await clock.pass(10 * MINUTES - 2000);
    assert.equal(made(), 3);
    await clock.pass(2000);
    assert.deepEqual([made(), socket.state, socket.transport], [4, "open", "sse"]);
  });

  test("that comes later has its stream at once, and tries a WebSocket beside it", async () => {
    await streaming();
    clock.timers.clear();
    await clock.pass(10 * MINUTES);
    const socket = await next();
    await requests.shift().stream().sends(opening);
    await clock.pass(1);
    assert.deepEqual([made(), socket.state, socket.transport], [3, "open", "sse"]);
  });

  test("begins with a WebSocket again when one has opened", async () => {
    await streaming();
    fire("online");
    last().opens();
    assert.deepEqual(memory(), {});
    await next();
    assert.deepEqual([made(), requests.length], [4, 0]);
  });

  test("begins with a WebSocket without fallback; one that opens there counts, too", async () => {
    await streaming();
    const socket = await next({ fallback: false });
    assert.deepEqual([made(), requests.length, socket.transport], [3, 0, "websocket"]);
    last().opens();
    assert.deepEqual(memory(), {});
  });

  test("is remembered for the host of its URL", async () => {
    await streaming();
    const before = memory();
    clock.timers.clear();
    const other = connect("wss://other.example/ws/", { fallback: true });
    last().opens();
    assert.deepEqual([made(), other.transport, memory()], [3, "websocket", before]);
  });

  test("asks a function that fails for a URL once in ten minutes", async () => {
    let asked = 0;
    let isBroken = false;
    const url = async () => {
      asked++;
      if (isBroken) throw new Error("no token");
      return "/ws/";
    };
    connect(url, { fallback: true });
    for (let second = 0; second < 20 && !requests.length; second++) {
      await settle();
      if (made()) last().ends();
      await clock.pass(1000);
    }
    await requests.shift().stream().sends(opening);
    isBroken = true;
    const before = asked;
    await clock.pass(10 * MINUTES);
    assert.equal(asked, before + 1);
    await clock.pass(10 * MINUTES);
    assert.equal(asked, before + 2);
  });

  test("goes on with the others when its transport does not open", async () => {
    await streaming();
    const socket = await next();
    for (const transport of ["sse", "polling"]) {
      const attempt = attempted();
      assert.equal(query(attempt), `?a=b&transport=${transport}`);
      await attempt.answer(501);
      await clock.pass(3000);
    }
    assert.deepEqual([made(), socket.transport], [3, "websocket"]);
  });

  test("has the error of a URL that cannot be", async () => {
    await streaming();
    (await next()).close();
    assert.throws(() => connect("https://", { fallback: true }), TypeError);
  });

  for (const [what, property] of [
    ["is forbidden", { get() { throw new DOMException("no", "SecurityError"); } }],
    ["is full", { value: Object.freeze({}) }],
    ["is absent", { value: undefined }],
  ]) {
    test(`begins as the first where the storage ${what}`, async () => {
      Object.defineProperty(globalThis, "sessionStorage", { configurable: true, ...property });
      const { socket } = await streaming();
      assert.deepEqual([made(), socket.transport], [2, "sse"]);
      fire("online");
      last().opens();
      assert.equal(socket.transport, "websocket");
    });
  }

  test("gets on where something else was stored", async () => {
    sessionStorage.dwebsocketnull = "x";
    const socket = connect("/ws/", { fallback: true });
    for (let second = 0; second < 20 && !made(); second++) {
      requests.splice(0).forEach((request) => request.answer(501));
      await clock.pass(1000);
    }
    last().opens();
    assert.deepEqual([socket.state, socket.transport, memory()], ["open", "websocket", {}]);
  });
});

describe("a page that may open no WebSocket (Content-Security-Policy)", () => {
  afterEach(() => mock.restoreAll());

  const forbid = (name) => mock.method(globalThis, "WebSocket", function forbidden() {
    throw Object.assign(new Error("forbidden"), { name });
  });

  for (const name of ["SecurityError", "NS_ERROR_CONTENT_BLOCKED"]) {
    for (const [kind, url] of [["", "/ws/"], [" of a function", () => "/ws/"]]) {
      test(`goes on by HTTP at once after ${name}${kind}, and later again`, async () => {
        const tried = forbid(name);
        const socket = connect(url, { fallback: true });
        const seen = watch(socket);
        await clock.pass(500);
        assert.deepEqual(seen.map(([, state]) => state), ["waiting", "connecting"]);
        assert.equal(seen[0][2].reason, "forbidden");
        await requests.shift().stream().sends(opening);
        assert.deepEqual([socket.state, socket.transport], ["open", "sse"]);
        await clock.pass(20 * MINUTES);
        assert.deepEqual([tried.mock.callCount(), socket.state], [3, "open"]);
      });
    }

    test(`has the error of ${name} without fallback`, () => {
      forbid(name);
      assert.throws(() => connect("/ws/"), { name });
      assert.equal(clock.timers.size, 0);
    });
  }

  for (const [code, reason, name] of [
    [1001, "", "InvalidAccessError"],
    [null, "", "InvalidAccessError"],
    [5000, "", "InvalidAccessError"],
    [4000, "漢".repeat(42), "SyntaxError"],
  ]) {
    test(`has the error of close(${code}) and ${reason.length} characters, too`, async () => {
      forbid("SecurityError");
      const socket = connect("/ws/", { fallback: true });
      assert.throws(() => socket.close(code, reason), { name });
      assert.equal(socket.state, "connecting");
      socket.close(4999, "漢".repeat(41));
      assert.equal(socket.state, "closed");
    });
  }

  test("has the error of a URL or subprotocol that cannot be", () => {
    assert.throws(() => connect("https://", { fallback: true }), TypeError);
    forbid("SyntaxError");
    assert.throws(() => connect("/ws/", { fallback: true }), { name: "SyntaxError" });
    assert.deepEqual([requests.length, clock.timers.size], [0, 0]);
  });
});

describe("a stream", () => {
  test("has texts, bytes and comments", async () => {
    const { seen, stream } = await streaming();
    await stream.sends("event: message\ndata: one\ndata: two\ndata:\n\n: ping\n\n");
    await stream.sends('event: message\ndata: {"a": 1}\n\nevent: binary\ndata: AQI=\n\n');
    await stream.sends("event: message\ndata:  a space\n\nevent: message\ndata: \n\n");
    await stream.sends("event: text\ndata: YQ3DqQ==\n\n");
    assert.deepEqual(seen.map(([, data]) => data), [
      "one\ntwo\n", { a: 1 }, new Uint8Array([1, 2]), " a space", "", "a\ré",
    ]);
  });

  test("keeps the byte order mark of a text, which cannot speak for the server", async () => {
    const { socket, seen, stream } = await streaming();
    socket.on("joined", (...member) => seen.push(["joined", ...member]));
    const text = '\ufeff{"group":"room","joined":{"user":"1"}}\r';
    await stream.sends(`event: text\ndata: ${Buffer.from(text).toString("base64")}\n\n`);
    assert.deepEqual(seen, [["message", text, {}]]);
  });

  test("may be cut anywhere", async () => {
    const { seen, stream } = await streaming();
    const bytes = new TextEncoder().encode("event: message\ndata: é\ndata: ü\n\n");
    for (const byte of bytes) await stream.sendsBytes(new Uint8Array([byte]));
    assert.deepEqual(seen, [["message", "é\nü", {}]]);
  });

  for (const [code, state] of [[1000, "waiting"], [1012, "waiting"], [4401, "closed"], [1008, "closed"]]) {
    test(`ends with the server's ${code}`, async () => {
      const { socket, seen, stream } = await streaming();
      await stream.sends(`event: close\ndata: {"code": ${code}, "reason": "why"}\n\n`);
      assert.equal(socket.state, state);
      assert.deepEqual([seen[0][2].code, seen[0][2].reason], [code, "why"]);
    });
  }

  test("takes part in resuming", async () => {
    const { socket, stream } = await streaming({ resume: true });
    await stream.sends('event: message\ndata: {"group": "room", "position": "e-1", "data": "hi"}\n\n');
    assert.deepEqual(socket.positions, { room: "e-1" });
    await stream.ends();
    await clock.pass(2000);
    assert.equal(query(requests[0]), "?a=b&transport=sse&since=room%3Ae-1");
  });
});

describe("a POST", () => {
  test("has what waits, numbered, with the token of the cookie", async () => {
    const { socket } = await streaming();
    document.cookie = "other=1; csrftoken=abc; more=2";
    let sent = 0;
    for (const message of ["hi", { a: 1 }, new Uint8Array([1, 2])]) socket.send(message).then(() => sent++);
    const [first] = requests.splice(0);
    assert.equal(query(first), "?a=b&transport=sse&id=secret");
    assert.deepEqual([first.method, first.headers["X-CSRFToken"]], ["POST", "abc"]);
    assert.deepEqual(first.body, { n: 1, messages: [{ text: "hi" }] });
    await first.answer(204);
    assert.equal(sent, 1);
    const [second] = requests.splice(0);
    assert.deepEqual(second.body, { n: 2, messages: [{ text: '{"a":1}' }, { binary: "AQI=" }] });
    await second.answer(204);
    assert.equal(sent, 3);
  });

  test("has no token of the page's site for another one", async () => {
    document.cookie = "csrftoken=abc";
    const { socket } = await streaming({ url: "https://other.example/ws/" });
    socket.send("hi");
    assert.equal(requests[0].headers["X-CSRFToken"], "");
  });

  test("has no token where the page may not read cookies", async () => {
    Object.defineProperty(document, "cookie", {
      get() { throw new DOMException("denied", "SecurityError"); },
    });
    const { socket } = await streaming();
    const sent = socket.send("hi");
    const [request] = requests.splice(0);
    assert.deepEqual([request.headers["X-CSRFToken"], request.body.messages], ["", [{ text: "hi" }]]);
    await request.answer(204);
    await sent;
    assert.equal(socket.state, "open");
  });

  test("has the token of the options", async () => {
    const { socket } = await streaming({ csrfToken: "given" });
    socket.send("hi");
    assert.equal(requests[0].headers["X-CSRFToken"], "given");
  });

  test("is not large when much waits", async () => {
    const { socket } = await streaming();
    for (let number = 0; number < 5; number++) socket.send("x".repeat(40000));
    const sizes = [];
    while (requests.length) {
      const request = requests.shift();
      sizes.push(request.body.messages.length);
      await request.answer(204);
    }
    assert.deepEqual(sizes, [1, 2, 2]);
  });

  for (const [what, message] of [
    ["characters of several bytes", "漢".repeat(4000)],
    ["what JSON escapes", "\0".repeat(2000)],
    ["bytes", new Uint8Array(9000)],
  ]) {
    test(`has 64 KiB of ${what}, and a message`, async () => {
      const { socket } = await streaming();
      for (let number = 0; number < 50; number++) socket.send(message);
      await requests.shift().answer(204);
      const { messages } = requests.shift().body;
      const size = (values) => Buffer.byteLength(JSON.stringify(values));
      assert(size(messages) >= 65536 && size(messages.slice(1)) < 65536 + messages.length);
    });
  }

  for (const [what, answer] of [
    ["the network lost it", (request) => request.fails()],
    ["a proxy answers 502", (request) => request.answer(502)],
    ["the server answers 503", (request) => request.answer(503)],
    ["no answer comes for 10 seconds", () => clock.pass(10001)],
  ]) {
    test(`is repeated with its number when ${what}`, async () => {
      const { socket } = await streaming();
      const sent = socket.send("hi");
      await answer(requests.shift());
      socket.send("more");
      await clock.pass(1000);
      const [again] = requests.splice(0);
      assert.deepEqual(again.body, { n: 1, messages: [{ text: "hi" }] });
      await again.answer(204);
      await sent;
      assert.deepEqual(requests[0].body, { n: 2, messages: [{ text: "more" }] });
    });
  }

  for (const [size, seconds] of [[10, 10], [4e6, 1010]]) {
    test(`of ${size} bytes has ${seconds} seconds for its answer, and then keeps no connection`, async () => {
      const { socket } = await streaming();
      socket.send("x".repeat(size));
      const [{ signal }] = requests;
      await clock.pass(seconds * 1000 - 1);
      assert.equal(signal.aborted, false);
      await clock.pass(100);
      assert.equal(signal.aborted, true);
    });
  }

  test("that gets no answer is not repeated by a connection that has ended", async () => {
    const { socket, stream } = await streaming();
    const sent = socket.send("hi");
    const [{ signal }] = requests.splice(0);
    await clock.pass(10100);
    await stream.sends('event: close\ndata: {"code": 4401, "reason": ""}\n\n');
    await clock.pass(MINUTES);
    await sent;
    assert.deepEqual([signal.aborted, requests.length], [true, 0]);
  });

  test("waits as long as a 503 says, and as often", async () => {
    const { socket } = await streaming();
    socket.send("hi");
    for (let round = 0; round < 20; round++) {
      await requests.shift().answer(503, "", { "Retry-After": "3" });
      await clock.pass(2999);
      assert.equal(requests.length, 0);
      await clock.pass(1);
    }
    await requests.shift().answer(204);
    assert.equal(socket.state, "open");
  });

  for (const wait of ["3000000", "1e300", "-5"]) {
    test(`waits where a 503 says ${wait}, too: there is no timer of that length`, async () => {
      const { socket } = await streaming();
      socket.send("hi");
      await requests.shift().answer(503, "", { "Retry-After": wait });
      await clock.pass(4000);
      assert.equal(requests.length, 0);
    });
  }

  test("that never gets through ends the connection, and counts as sent", async () => {
    const { socket } = await streaming();
    const sent = socket.send("hi");
    while (socket.state === "open") {
      await requests.shift().fails();
      await clock.pass(socket.state === "open" ? 8000 : 0);
    }
    await sent;
    await clock.pass(5000);
    await requests.shift().stream().sends(opening);
    assert.deepEqual([socket.state, requests.length], ["open", 0]);
  });

  test("that is refused (403) ends it", async () => {
    const { socket, seen } = await streaming();
    const sent = assert.rejects(socket.send("hi"), { name: "RefusedError", message: "HTTP 403" });
    await requests.shift().answer(403);
    await sent;
    assert.deepEqual(seen, [["state", "closed", { code: 1008, reason: "HTTP 403" }]]);
  });

  test("that comes too late (410) is sent by the next connection", async () => {
    const { socket } = await streaming();
    const sent = socket.send("hi");
    socket.send("more");
    await requests.shift().answer(410);
    assert.equal(socket.state, "waiting");
    await clock.pass(2000);
    await requests.shift().stream().sends(opening);
    assert.deepEqual(requests[0].body, { n: 1, messages: [{ text: "hi" }, { text: "more" }] });
    await requests.shift().answer(204);
    await sent;
  });

  test("that may have come before is not sent by the next connection", async () => {
    const { socket } = await streaming();
    const sent = socket.send("hi");
    await requests.shift().fails();
    await clock.pass(1000);
    await requests.shift().answer(410);
    await sent;
    await clock.pass(2000);
    await requests.shift().stream().sends(opening);
    assert.equal(requests.length, 0);
  });

  test("that is too large (413) is rejected and not repeated", async () => {
    const { socket } = await streaming();
    const sent = assert.rejects(socket.send("large"), { name: "RefusedError", message: "HTTP 413" });
    await requests.shift().answer(413);
    await sent;
    await clock.pass(2000);
    await requests.shift().stream().sends(opening);
    assert.deepEqual([socket.state, requests.length], ["open", 0]);
  });

  test("has the answer to nothing: requests are answered by the stream", async () => {
    const { socket, stream } = await streaming();
    const answer = socket.request("now?");
    const post = requests.shift();
    const [{ text }] = post.body.messages;
    await post.answer(204);
    await stream.sends(`event: message\ndata: {"id": ${JSON.parse(text).id}, "data": "yes"}\n\n`);
    assert.equal((await answer).data, "yes");
  });
});

describe("polling", () => {
  test("asks for what comes after the last event", async () => {
    const { seen, poll } = await polling();
    assert.equal(query(poll), "?a=b&transport=polling&id=secret&ack=0");
    await poll.answer(200, { n: 2, events: [{ text: "hi" }, { binary: "AQI=" }] });
    assert.deepEqual(seen.map(([, data]) => data), ["hi", new Uint8Array([1, 2])]);
    assert.equal(query(requests[0]), "?a=b&transport=polling&id=secret&ack=2");
    await requests.shift().answer(200, { n: 2, events: [] });
    assert.equal(query(requests[0]), "?a=b&transport=polling&id=secret&ack=2");
  });

  for (const [what, lose] of [["the answer", "fails"], ["the end of it", "breaks"]]) {
    test(`asks again when the network has lost ${what}`, async () => {
      const { socket, seen, poll } = await polling();
      await poll[lose]();
      await clock.pass(1000);
      assert.equal(query(requests[0]), "?a=b&transport=polling&id=secret&ack=0");
      await requests.shift().answer(200, { n: 1, events: [{ text: "hi" }] });
      assert.deepEqual([socket.state, seen], ["open", [["message", "hi", {}]]]);
    });
  }

  test("takes a log-in page in place of the answer to a POST for a refusal", async () => {
    const { socket } = await polling();
    const sent = assert.rejects(socket.send("hi"), { name: "RefusedError", message: "HTTP 200" });
    await requests.shift().answer(200, "<title>Log in</title>");
    await sent;
    assert.equal(socket.state, "waiting");
  });

  test("posts as a stream does", async () => {
    const { socket } = await polling();
    socket.send("hi");
    assert.equal(query(requests[0]), "?a=b&transport=polling&id=secret");
    assert.deepEqual(requests[0].body, { n: 1, messages: [{ text: "hi" }] });
  });

  for (const [code, state] of [[1001, "waiting"], [4401, "closed"]]) {
    test(`ends with the server's ${code}`, async () => {
      const { socket, poll } = await polling();
      await poll.answer(200, { n: 1, events: [{ close: { code, reason: "" } }] });
      await clock.pass(0);
      assert.deepEqual([socket.state, requests.length], [state, 0]);
    });
  }

  test("begins anew when the connection has gone (410)", async () => {
    const { socket, poll } = await polling();
    await poll.answer(410);
    assert.equal(socket.state, "waiting");
    await clock.pass(4000);
    assert.equal(query(requests[0]), "?a=b&transport=polling");
  });
});

describe("closing", () => {
  test("posts what waits, then the close", async () => {
    const { socket } = await streaming();
    socket.send("one");
    const two = socket.send("two");
    socket.close(4000, "done");
    assert.equal(socket.state, "closed");
    await requests.shift().answer(204);
    const [last] = requests.splice(0);
    assert.deepEqual(last.body, {
      n: 2,
      messages: [{ text: "two" }, { close: { code: 4000, reason: "done" } }],
    });
    await last.answer(204);
    await two;
    assert.ok(last.signal.aborted);
  });

  for (const [how, closes] of [
    ["goes away", () => fire("pagehide")],
    ["closes", (socket) => socket.close()],
  ]) {
    test(`outlives a page that ${how}, and no other POST needs to`, async () => {
      const { socket } = await polling();
      socket.send("one");
      assert.equal(requests[0].keepalive, false);
      await requests.shift().answer(204);
      closes(socket);
      assert.deepEqual(requests[0].body.messages, [{ close: { code: 1000, reason: "" } }]);
      assert.equal(requests[0].keepalive, true);
    });
  }

  for (const [what, message] of [
    ["a large message", "x".repeat(50000)],
    ["characters of several bytes", "漢".repeat(20000)],
  ]) {
    test(`with ${what} does not: browsers keep at most 64 KiB alive`, async () => {
      const { socket } = await streaming();
      socket.send("first");
      socket.send(message);
      socket.close();
      await requests.shift().answer(204);
      assert.equal(requests[0].keepalive, false);
    });
  }

  test("that outlives a page has less than 64 KiB", async () => {
    const { socket } = await streaming();
    socket.send("first");
    for (let number = 0; number < 999; number++) socket.send("x".repeat(38)).catch(() => {});
    socket.close(4000, "\0".repeat(123));
    await requests.shift().answer(204);
    assert.equal(requests[0].keepalive, true);
    assert.ok(Buffer.byteLength(JSON.stringify(requests[0].body)) < 65536);
  });

  for (const [code, reason, name] of [
    [1001, "", "InvalidAccessError"],
    [5000, "", "InvalidAccessError"],
    [4000, "漢".repeat(42), "SyntaxError"],
  ]) {
    test(`by ${code} and ${reason.length} characters is the error that it is of a WebSocket`, async () => {
      const { socket, seen } = await streaming();
      const sent = [socket.send("one"), socket.send("two")];
      assert.throws(() => socket.close(code, reason), { name });
      await requests.shift().answer(204);
      assert.deepEqual(requests[0].body.messages, [{ text: "two" }]);
      await requests.shift().answer(204);
      await Promise.all(sent);
      assert.deepEqual([socket.state, seen], ["open", []]);
    });
  }

  test("posts what a WebSocket makes of a code and a reason", async () => {
    const { socket } = await streaming();
    socket.close("4000", new Error("late"));
    assert.deepEqual(requests[0].body.messages, [{ close: { code: 4000, reason: "Error: late" } }]);
  });

  test("posts what waits when the page had begun to leave before", async () => {
    const { socket } = await streaming();
    const sent = [socket.send("one"), socket.send("two")];
    fire("pagehide");
    const late = assert.rejects(socket.send("three"), { name: "ClosedError" });
    socket.close(4000, "done");
    await requests.shift().answer(204);
    assert.deepEqual(requests[0].body.messages, [
      { text: "two" }, { close: { code: 4000, reason: "done" } },
    ]);
    await requests.shift().answer(204);
    await Promise.all([...sent, late]);
  });

  test("rejects what the connection before could not post", async () => {
    const { socket } = await polling();
    await clock.pass(10 * MINUTES);
    const [, two] = ["one", "two"].map((text) => assert.rejects(socket.send(text), { name: "ClosedError" }));
    last().opens();
    socket.close();
    await requests.find(({ method }) => method === "POST").answer(410);
    await two;
  });

  test("rejects what it cannot post", async () => {
    const { socket } = await streaming();
    socket.send("one").catch(() => {});
    const two = assert.rejects(socket.send("two"), { name: "ClosedError" });
    socket.close();
    await requests.shift().answer(410);
    await two;
    assert.equal(requests.length, 0);
  });

  test("is not held up for ever by a server that takes nothing (503)", async () => {
    const { socket } = await streaming();
    const sent = [socket.send("one"), socket.send("two")].map((each) => assert.rejects(each, { name: "ClosedError" }));
    let signal;
    socket.close();
    for (let round = 0; requests.length; round++) {
      assert.ok(round < 10);
      ({ signal } = requests[0]);
      await requests.shift().answer(503, "", { "Retry-After": "1" });
      await clock.pass(1000);
    }
    await Promise.all(sent);
    assert.ok(signal.aborted);
  });

  test("leaves an attempt", async () => {
    const { socket } = await blocked();
    socket.close();
    assert.deepEqual([socket.state, requests[0].signal.aborted], ["closed", true]);
    await settle();
    assert.equal(clock.timers.size, 0);
    await clock.pass(10 * MINUTES);
    assert.equal(requests.length, 1);
  });
});

describe("a WebSocket", () => {
  for (const [when, event] of [
    ["after 10 minutes", () => clock.pass(10 * MINUTES)],
    ["when the page is online again", () => fire("online")],
  ]) {
    test(`is tried again ${when}, beside the stream`, async () => {
      const { socket, seen } = await streaming({ resume: true, positions: { room: "e-1" } });
      await event();
      assert.deepEqual([made(), socket.state, seen], [3, "open", []]);
      assert.equal(last().url, "wss://site.example/ws/?a=b&since=room%3Ae-1");
    });
  }

  test("that fails then changes nothing, for another 10 minutes", async () => {
    const { socket, seen } = await streaming();
    for (let round = 3; round < 6; round++) {
      await clock.pass(9 * MINUTES);
      assert.equal(made(), round - 1);
      await clock.pass(MINUTES);
      assert.equal(made(), round);
      last().ends();
    }
    assert.deepEqual([socket.state, socket.transport, seen], ["open", "sse", []]);
  });

  test("that hangs then is given up", async () => {
    const { socket } = await streaming();
    fire("online");
    await clock.pass(10000);
    assert.deepEqual([last().readyState, socket.transport], [2, "sse"]);
  });

  test("that opens replaces the stream, behind all that this has taken", async () => {
    const { socket, seen, stream } = await streaming();
    socket.send("by POST");
    socket.send("by the next POST");
    fire("online");
    last().opens();
    assert.deepEqual(seen.map(([, state]) => state), ["connecting", "open"]);
    assert.equal(socket.transport, "websocket");
    socket.send("by the WebSocket");
    await stream.sends("event: message\ndata: comes by the WebSocket, too\n\n");
    await requests.shift().answer(204);
    const [final] = requests.splice(0);
    assert.deepEqual(final.body.messages, [
      { text: "by the next POST" },
      { close: { code: 1000, reason: "" } },
    ]);
    assert.deepEqual(last().sent, []);
    await final.answer(204);
    assert.deepEqual(last().sent, ["by the WebSocket"]);
    assert.equal(seen.length, 2);
    await clock.pass(20 * MINUTES);
    assert.equal(made(), 3);
  });

  test("that opens is used at once where nothing but the close is left to post", async () => {
    const { socket } = await streaming();
    fire("online");
    last().opens();
    const [{ body, signal }] = requests.splice(0);
    assert.deepEqual(body.messages, [{ close: { code: 1000, reason: "" } }]);
    await socket.send("by the WebSocket");
    assert.deepEqual(last().sent, ["by the WebSocket"]);
    await clock.pass(10100);
    assert.equal(signal.aborted, true);
  });

  test("that opens does not wait for ever for a POST without an answer", async () => {
    const { socket } = await streaming();
    const sent = socket.send("by POST");
    fire("online");
    last().opens();
    const later = socket.send("by the WebSocket");
    await clock.pass(2 * MINUTES);
    await Promise.all([sent, later]);
    assert.deepEqual(last().sent, ["by the WebSocket"]);
    assert.ok(requests.every(({ body, signal }) => body.n === 1 && signal.aborted));
  });

  test("that opens gets what the server does not take by POST (503), in order", async () => {
    const { socket } = await streaming();
    socket.send("one");
    socket.send("two");
    fire("online");
    last().opens();
    socket.send("three");
    for (let round = 0; requests.length; round++) {
      assert.ok(round < 10);
      await requests.shift().answer(503, "", { "Retry-After": "1" });
      await clock.pass(1000);
    }
    assert.deepEqual([last().sent, socket.transport], [["one", "two", "three"], "websocket"]);
  });

  test("is the next attempt when the page is online while the fallback waits", async () => {
    const { stream } = await streaming();
    await stream.ends();
    fire("online");
    assert.equal(made(), 3);
    last().ends();
    await clock.pass(4000);
    assert.equal(query(requests[0]), "?a=b&transport=sse");
  });

  test("that closes by 4401 ends all", async () => {
    const { socket, stream } = await streaming();
    fire("online");
    const attempt = last();
    await stream.sends('event: close\ndata: {"code": 4401, "reason": ""}\n\n');
    assert.deepEqual([socket.state, attempt.readyState], ["closed", 2]);
    attempt.ends();
    await clock.pass(20 * MINUTES);
    assert.equal(made(), 3);
  });
});
