// When dwebsocket.js connects, and when it stops.
import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { connect } from "../../python/dwebsocket/static/dwebsocket/dwebsocket.js";
import { FakeWebSocket, clock, fire, last, made, page, watch } from "./fakes.mjs";

/** A connection that has ended after `ms`, and what was seen of it. */
async function ended(code, reason, ms = 0) {
  const socket = connect("/ws/");
  const seen = watch(socket);
  last().opens();
  await clock.pass(ms);
  last().ends(code, reason);
  return { socket, why: seen.at(-1)[2] };
}

describe("the URL", () => {
  for (const [given, opened] of [
    ["/ws/chat/42/", "wss://site.example/ws/chat/42/"],
    ["chat/?a=b#part", "wss://site.example/rooms/42/chat/?a=b"],
    ["http://other.example/ws/", "ws://other.example/ws/"],
    ["ws://other.example:8000/ws/", "ws://other.example:8000/ws/"],
  ]) {
    test(`${given} opens ${opened}`, () => {
      connect(given);
      assert.equal(last().url, opened);
    });
  }

  test("subprotocols are offered, and the agreed one is known", () => {
    const socket = connect("/ws/", { protocols: ["chat.v2", "chat.v1"] });
    assert.deepEqual(last().protocols, ["chat.v2", "chat.v1"]);
    last().opens("chat.v2");
    assert.equal(socket.protocol, "chat.v2");
  });

  test("one that cannot be is an error at once", () => {
    assert.throws(() => connect("https://"), TypeError);
  });
});

describe("the state", () => {
  test("is told with the reason", async () => {
    const socket = connect("/ws/");
    const seen = watch(socket);
    assert.equal(socket.state, "connecting");
    last().opens();
    last().ends(1001, "bye");
    await clock.pass(250);
    last().opens();
    socket.close(4000, "done");
    assert.deepEqual(seen, [
      ["state", "open", undefined],
      ["state", "waiting", { code: 1001, reason: "bye", delay: 250 }],
      ["state", "connecting", undefined],
      ["state", "open", undefined],
      ["state", "closed", { code: 4000, reason: "done" }],
    ]);
    assert.equal(socket.transport, "websocket");
  });

  test("a handler can be taken away", () => {
    const socket = connect("/ws/");
    const seen = [];
    const stop = socket.on("state", (state) => seen.push(state));
    last().opens();
    stop();
    last().ends();
    assert.deepEqual(seen, ["open"]);
  });

  test("a handler may close", async () => {
    const socket = connect("/ws/");
    socket.on("state", (state) => state === "waiting" && socket.close());
    last().opens().ends();
    await clock.pass(60000);
    assert.deepEqual([socket.state, made()], ["closed", 1]);
  });
});

describe("the time until the next attempt", () => {
  test("is random within half a second, which doubles to 30 seconds", () => {
    const socket = connect("/ws/");
    const delays = [];
    socket.on("state", (state, why) => state === "waiting" && delays.push(why.delay));
    page.random = 1;
    for (let attempt = 0; attempt < 8; attempt++) {
      last().ends();
      fire("visibilitychange");
    }
    assert.deepEqual(delays, [500, 1000, 2000, 4000, 8000, 16000, 30000, 30000]);
  });

  test("may be nothing", async () => {
    page.random = 0;
    assert.equal((await ended(1001)).why.delay, 0);
  });

  test("is short again when a connection has lasted", async () => {
    page.random = 1;
    const { socket } = await ended(1006);
    const seen = watch(socket);
    for (const [lasts, delay] of [[4000, 1000], [6000, 500], [0, 1000]]) {
      fire("visibilitychange");
      last().opens();
      await clock.pass(lasts);
      last().ends();
      assert.equal(seen.at(-1)[2].delay, delay);
    }
  });

  for (const [code, delay] of [[1012, 2000], [1013, 8000]]) {
    test(`is within ${delay} ms after ${code}`, async () => {
      page.random = 1;
      assert.equal((await ended(code)).why.delay, delay);
    });
  }

  for (const [reason, least] of [
    ["retry after 20", 20000],
    ["maintenance; Retry after 1.5 seconds", 1500],
    ["retry after 99999999999", 86400000],
    ["retry after a while", 0],
  ]) {
    test(`is not below what the server says: ${reason}`, async () => {
      page.random = 0;
      assert.equal((await ended(1013, reason)).why.delay, least);
    });
  }

  test("which the page cannot shorten", async () => {
    await ended(1013, "retry after 20");
    await clock.pass(19999);
    fire("online");
    fire("visibilitychange");
    assert.equal(made(), 1);
    await clock.pass(8000);
    assert.equal(made(), 2);
  });
});

describe("at once", () => {
  for (const type of ["online", "visibilitychange"]) {
    test(`after ${type}`, async () => {
      page.random = 1;
      const { socket } = await ended(1013);
      fire(type);
      assert.deepEqual([made(), socket.state], [2, "connecting"]);
      fire(type);
      await clock.pass(9000);
      assert.equal(made(), 2);
    });
  }

  test("but not when the page is hidden", async () => {
    await ended(1006);
    document.visibilityState = "hidden";
    fire("visibilitychange");
    assert.equal(made(), 1);
  });

  test("but not beside an open connection", () => {
    connect("/ws/");
    last().opens();
    fire("online");
    fire("visibilitychange");
    assert.equal(made(), 1);
  });
});

describe("a page that the browser keeps for its Back button", () => {
  test("closes its connection, and opens it again when it goes on", async () => {
    const socket = connect("/ws/");
    last().opens();
    fire("pagehide");
    assert.deepEqual([last().readyState, last().closedWith], [2, [undefined, undefined]]);
    socket.send("waits");
    last().ends(1005);
    fire("visibilitychange");
    last().opens();
    assert.deepEqual([made(), socket.state, last().sent], [2, "open", ["waits"]]);
  });

  test("stays closed when it was", async () => {
    const socket = connect("/ws/");
    socket.close();
    fire("pagehide");
    assert.deepEqual([socket.state, made()], ["closed", 1]);
  });
});

describe("the end", () => {
  for (const code of [4401, 1008]) {
    test(`is ${code} by the server`, async () => {
      const { socket, why } = await ended(code, "signed out");
      assert.deepEqual([socket.state, why], ["closed", { code, reason: "signed out" }]);
      fire("online");
      fire("visibilitychange");
      await clock.pass(3600000);
      assert.deepEqual([made(), clock.timers.size], [1, 0]);
    });
  }

  for (const code of [1000, 1001, 1005, 1006, 1007, 1009, 1011, 1012, 1013, 4000, 4404]) {
    test(`is not ${code} by the server`, async () => {
      await ended(code);
      await clock.pass(8000);
      assert.equal(made(), 2);
    });
  }

  test("is close(), with 1000 if nothing else is said", () => {
    const socket = connect("/ws/");
    last().opens();
    socket.close();
    socket.close(4000);
    assert.deepEqual(last().closedWith, [1000, ""]);
    last().says("too late");
    last().ends(1000);
    assert.equal(socket.state, "closed");
  });

  test("may come while it connects or waits", async () => {
    const first = connect("/ws/");
    first.close();
    assert.equal(last().readyState, 2);
    const { socket } = await ended(1006);
    socket.close();
    await clock.pass(60000);
    assert.deepEqual([first.state, socket.state, made()], ["closed", "closed", 2]);
  });

  test("is not a code that browsers refuse", () => {
    const socket = connect("/ws/");
    last().opens();
    assert.throws(() => socket.close(1001), { name: "InvalidAccessError" });
    assert.equal(socket.state, "open");
    socket.send("still here");
    assert.deepEqual(last().sent, ["still here"]);
  });
});

test("an attempt that stays without an answer is given up after 10 seconds", async () => {
  const socket = connect("/ws/");
  await clock.pass(9999);
  assert.equal(socket.state, "connecting");
  await clock.pass(1);
  assert.deepEqual([socket.state, last().readyState], ["waiting", 2]);
  const [old] = FakeWebSocket.made;
  await clock.pass(250);
  old.ends(1006);
  assert.deepEqual([made(), socket.state], [2, "connecting"]);
});
