// When dwebsocket.js connects, and when it stops.
import assert from "node:assert/strict";
import { describe, mock, test } from "node:test";
import * as client from "../../python/dwebsocket/static/dwebsocket/dwebsocket.js";
import { FakeWebSocket, clock, fire, last, made, page, requests, settle, watch } from "./fakes.mjs";

// For the heartbeat see beat.test.mjs.
const connect = (url, options) => client.connect(url, { beat: 0, ...options });

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

  test("is relative to the page's base, as in a frame of `srcdoc`", () => {
    globalThis.document.baseURI = "https://site.example/frames/";
    connect("chat/");
    assert.equal(last().url, "wss://site.example/frames/chat/");
  });

  test("subprotocols are offered, and the agreed one is known", () => {
    const socket = connect("/ws/", { protocols: ["chat.v2", "chat.v1"] });
    assert.deepEqual(last().protocols, ["chat.v2", "chat.v1"]);
    last().opens("chat.v2");
    assert.equal(socket.protocol, "chat.v2");
  });

  test("one that cannot be is an error at once, which leaves nothing", () => {
    assert.throws(() => connect("https://"), TypeError);
    assert.deepEqual([made(), clock.timers.size], [0, 0]);
  });

  test("subprotocols that cannot be are one, too", () => {
    mock.method(globalThis, "WebSocket", function refuse() { throw new SyntaxError("no token"); });
    try {
      assert.throws(() => connect("/ws/", { protocols: ["a b"] }), SyntaxError);
      assert.equal(clock.timers.size, 0);
    } finally {
      mock.restoreAll();
    }
    fire("online");
    assert.equal(made(), 0);
  });

  for (const [kind, wrap] of [["", (value) => value], ["async ", async (value) => value]]) {
    test(`and subprotocols may be ${kind}functions, asked at each attempt`, async () => {
      let count = 0;
      const socket = connect(() => wrap(`/ws/?token=${++count}`), { protocols: () => wrap(["v" + count]) });
      for (const attempt of [1, 2, 3]) {
        await settle();
        assert.deepEqual([made(), socket.state], [attempt, "connecting"]);
        assert.equal(last().url, `wss://site.example/ws/?token=${attempt}`);
        assert.deepEqual(last().protocols, [`v${attempt}`]);
        last().ends();
        await clock.pass(1500);
      }
      assert.equal(made(), 4);
    });
  }

  for (const [what, url] of [
    ["raises", () => { throw new Error("no token"); }],
    ["is rejected", async () => { throw new Error("no token"); }],
    ["gives no URL", () => "https://"],
  ]) {
    test(`a function that ${what} is a failed attempt`, async () => {
      let call = 0;
      const socket = connect(() => (call++ ? "/ws/" : url()));
      const seen = watch(socket);
      await settle();
      assert.equal(socket.state, "waiting");
      assert.match(seen[0][2].reason, /no token|Invalid URL/);
      await clock.pass(1000);
      assert.deepEqual([made(), call], [1, 2]);
    });
  }

  test("a function that fails again and again is asked on, and no page is asked for", async () => {
    let calls = 0;
    const socket = connect(() => { calls++; throw new Error("no token"); });
    await clock.pass(60000);
    assert(calls > 5);
    assert.deepEqual([socket.state, made(), requests.length], ["waiting", 0, 0]);
  });

  test("a function that never answers is given up after 10 seconds", async () => {
    let answer;
    const socket = connect(() => new Promise((resolve) => { answer ??= resolve; }));
    await clock.pass(10000);
    assert.equal(socket.state, "waiting");
    answer("/ws/");
    await settle();
    assert.equal(made(), 0);
  });

  test("a function that answers after close() opens nothing", async () => {
    let answer;
    const socket = connect(() => new Promise((resolve) => { answer = resolve; }));
    socket.send("waits").catch(() => {});
    socket.close();
    answer("/ws/");
    await settle();
    assert.deepEqual([made(), clock.timers.size, socket.state], [0, 0, "closed"]);
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

  test("a handler may take itself away and put another one in, for the next message", () => {
    const socket = connect("/ws/");
    const seen = [];
    const next = () => {
      const stop = socket.on("message", (data) => {
        stop();
        seen.push(data);
        next();
      });
    };
    next();
    last().opens();
    last().says("one");
    last().says("two");
    assert.deepEqual(seen, ["one", "two"]);
  });

  for (const [what, when, opens] of [
    ["loses the connection", "waiting", 1],
    ["joins again", "joining", 2],
  ]) {
    test(`is closed for good by the handler of a room that ${what}`, async () => {
      const socket = connect("/live/");
      const room = socket.join("room");
      last().opens();
      const seen = watch(socket);
      room.on("state", (state) => state === when && socket.close());
      last().ends();
      const sent = assert.rejects(socket.send("waits"), { name: "ClosedError" });
      await clock.pass(1000);
      assert.equal(made(), opens);
      if (opens > 1) last().opens();
      await sent;
      await clock.pass(60000);
      assert.deepEqual([socket.state, seen.at(-1)[1], room.state], ["closed", "closed", "ended"]);
      await assert.rejects(socket.send("more"), { name: "ClosedError" });
    });
  }

  for (const [what, isAsync] of [["a function", false], ["an async function", true]]) {
    test(`is closed for good by ${what} that has no URL any more`, async () => {
      let isSignedIn = true;
      const url = () => {
        if (!isSignedIn) socket.close();
        return "/ws/";
      };
      const socket = connect(isAsync ? async () => url() : url);
      await settle();
      const seen = watch(socket);
      isSignedIn = false;
      last().opens().ends();
      await clock.pass(60000);
      assert.deepEqual([socket.state, made(), seen.at(-1)[1]], ["closed", 1, "closed"]);
    });
  }

  test("a handler may close", async () => {
    const socket = connect("/ws/");
    socket.on("state", (state) => state === "waiting" && socket.close());
    last().opens().ends();
    await clock.pass(60000);
    assert.deepEqual([socket.state, made()], ["closed", 1]);
  });
});

describe("the time until the next attempt", () => {
  test("is random within half a second, which doubles to 30 seconds", async () => {
    const socket = connect("/ws/");
    const delays = [];
    socket.on("state", (state, why) => state === "waiting" && delays.push(why.delay));
    page.random = 1;
    for (let attempt = 0; attempt < 8; attempt++) {
      await clock.pass(1000); // more than two a second would have to wait
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
    document.hidden = true;
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

describe("at most two attempts a second", () => {
  test("begin, whatever events come", async () => {
    page.random = 0;
    connect("/ws/");
    const begun = [];
    for (let ms = 0; ms < 5000; ms += 10) {
      if (made() > begun.length) begun.push(ms);
      last().ends();
      fire("online");
      fire("visibilitychange");
      await clock.pass(10);
    }
    assert(begun.length > 6, "they go on");
    for (let each = 2; each < begun.length; each++) assert(begun[each] - begun[each - 2] >= 1000);
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

  for (const [what, says] of [
    ["a message", () => last().says("hi")],
    ["a message of a group", () => last().says({ group: "room", position: "e-1", data: "hi" })],
  ]) {
    test(`is not 1008 behind ${what}: the connection was good`, async () => {
      const socket = connect("/ws/", { resume: true });
      last().opens();
      says();
      last().ends(1008);
      assert.equal(socket.state, "waiting");
      await clock.pass(1000);
      last().opens().ends(1008);
      assert.equal(socket.state, "closed");
    });
  }

  test("is 1008 also where only the server itself has said something", () => {
    const socket = connect("/ws/", { resume: true, beat: 20 });
    last().opens();
    last().says({ group: "room", recovered: true, missed: 0, position: "e-1" });
    last().says("");
    last().ends(1008);
    assert.equal(socket.state, "closed");
  });

  for (const status of [404, 410]) {
    test(`is ${status} for a plain GET, after three refused handshakes`, async () => {
      const socket = connect("/ws/?a=b", { resume: true, positions: { room: "e-1" }, beat: 20 });
      const seen = watch(socket);
      for (let attempt = 0; attempt < 3; attempt++) {
        assert.equal(requests.length, 0);
        last().ends();
        if (attempt < 2) await clock.pass(3000);
      }
      assert.deepEqual([requests[0].url.href, requests[0].method], ["https://site.example/ws/?a=b", "GET"]);
      await requests.shift().answer(status);
      assert.deepEqual(seen.at(-1), ["state", "closed", { code: 1006, reason: `HTTP ${status}`, status }]);
      await clock.pass(60000);
      assert.deepEqual([made(), clock.timers.size, socket.state], [3, 0, "closed"]);
    });
  }

  for (const [what, answer] of [
    ["another status", (request) => request.answer(403)],
    ["a page", (request) => request.answer(200, "a page")],
    ["nothing", (request) => request.fails()],
  ]) {
    test(`is not ${what} for it, which is asked after three more`, async () => {
      connect("/ws/");
      for (let attempt = 1; attempt < 7; attempt++) {
        last().ends();
        if (requests.length) await answer(requests.shift());
        assert.equal(made(), attempt);
        while (made() === attempt) await clock.pass(100);
      }
      assert.equal(made(), 7);
    });
  }

  test("is no status that comes when a connection is open again", async () => {
    const socket = connect("/ws/");
    for (let attempt = 0; attempt < 3; attempt++) {
      last().ends();
      await clock.pass(3000);
    }
    last().opens();
    await requests.shift().answer(404);
    assert.equal(socket.state, "open");
  });

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

test("an attempt that fails with an error alone is over, as in Node 20 and 22", async () => {
  const socket = connect("/ws/");
  last().onerror({});
  assert.equal(socket.state, "waiting");
  await clock.pass(1000);
  assert.equal(made(), 2);
  last().opens().onerror({});
  assert.equal(socket.state, "open");
});
