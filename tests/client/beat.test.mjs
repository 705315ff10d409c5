// What dwebsocket.js does about connections that say nothing any more.
import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { connect } from "../../python/dwebsocket/static/dwebsocket/dwebsocket.js";
import { FakeWebSocket, clock, fire, last, made, requests, settle, watch } from "./fakes.mjs";

/** A connection whose server has a heartbeat, which has come once. */
function beating(options) {
  const socket = connect("/ws/", options);
  last().opens().says("");
  return socket;
}

describe("the handshake", () => {
  for (const [beat, query] of [
    [undefined, "?beat=20"], [10, "?beat=10"], [300, "?beat=300"], [1, "?beat=10"], [9000, "?beat=300"],
    [15.4, "?beat=15"], [0, ""],
  ]) {
    test(`asks for a beat of ${beat}: ${query}`, () => {
      connect("/ws/", { beat });
      assert.equal(last().url, `wss://site.example/ws/${query}`);
    });
  }

  test("has it last, and leaves alone what is the page's own", () => {
    connect("/ws/?a=b", { resume: true, positions: { room: "e-1" } });
    assert.equal(last().url, "wss://site.example/ws/?a=b&since=room%3Ae-1&beat=20");
    connect("/ws/?beat=30");
    assert.equal(last().url, "wss://site.example/ws/?beat=30");
  });

  test("by HTTP has it, too", async () => {
    const socket = connect("/ws/", { fallback: true });
    last().ends();
    await clock.pass(500);
    last().ends();
    await clock.pass(1000);
    assert.equal(requests[0].url.search, "?transport=sse&beat=20");
    socket.close();
  });
});

describe("a beat", () => {
  test("is no message, and no other text of blanks gets lost", () => {
    const seen = watch(beating());
    for (const text of ["", " ", "  ", "\n", " a"]) last().says(text);
    last().onmessage({ data: new ArrayBuffer(0) });
    assert.deepEqual(seen.map(([, data]) => data), ["", " ", "\n", " a", new Uint8Array()]);
  });

  test("is a message where none was asked for", () => {
    const socket = connect("/ws/", { beat: 0 });
    last().opens();
    const seen = watch(socket);
    for (const text of ["", " "]) last().says(text);
    assert.deepEqual(seen.map(([, data]) => data), ["", " "]);
  });
});

describe("silence", () => {
  for (const [beat, ms] of [[20, 30000], [10, 15000], [300, 450000]]) {
    test(`of ${ms} ms is the end for a beat of ${beat}`, async () => {
      const socket = beating({ beat });
      await clock.pass(ms - 1);
      assert.equal(socket.state, "open");
      await clock.pass(1);
      assert.deepEqual([socket.state, last().readyState], ["waiting", 2]);
      await clock.pass(500);
      assert.deepEqual([socket.state, made()], ["connecting", 2]);
    });
  }

  test("begins with the last message, or the opening", async () => {
    const socket = connect("/ws/");
    await clock.pass(5000);
    last().opens();
    for (const text of ["", "hi", ""]) {
      await clock.pass(29000);
      last().says(text);
    }
    assert.deepEqual([socket.state, made()], ["open", 1]);
    await clock.pass(30000);
    assert.equal(socket.state, "waiting");
  });

  for (const back of [25_000, 600_000]) {
    test(`is found where the clock was set back by ${back} ms`, async () => {
      const socket = connect();
      last().opens().says("");
      clock.now -= back;
      for (const timer of clock.timers.values()) timer.at -= back; // timers know no clock
      await clock.pass(60_000);
      assert.notEqual(socket.state, "open");
    });
  }

  test("is found after a close() that the browser refuses", async () => {
    const socket = connect();
    last().opens().says("");
    assert.throws(() => socket.close(1001), { name: "InvalidAccessError" });
    assert.equal(socket.state, "open");
    await clock.pass(31_000);
    assert.notEqual(socket.state, "open");
  });

  test("ends nothing where the page wants no heartbeat", async () => {
    const socket = connect("/ws/", { beat: 0 });
    last().opens();
    await clock.pass(3600000);
    assert.deepEqual([socket.state, made(), clock.timers.size], ["open", 1, 0]);
  });

  test("is found as soon as the page wakes, whose timers have slept", async () => {
    const socket = beating();
    clock.now += 40000;
    fire("visibilitychange");
    assert.deepEqual([socket.state, made()], ["connecting", 2]);
  });

  test("of a server without a heartbeat ends two connections, and no more", async () => {
    const socket = connect("/ws/");
    for (let round = 1; round < 3; round++) {
      last().opens();
      await clock.pass(29000);
      assert.equal(made(), round);
      await clock.pass(3000);
    }
    last().opens();
    await clock.pass(3600000);
    assert.deepEqual([socket.state, made()], ["open", 3]);
    // It is another server now.
    last().says("");
    await clock.pass(30000);
    assert.equal(socket.state, "waiting");
  });

  test("is found each time where the server always had something to say, and never sent a beat", async () => {
    const socket = connect("/ws/");
    for (let round = 1; round < 5; round++) {
      last().opens();
      for (let second = 0; second < 25; second++) {
        await clock.pass(1000);
        last().says("tick");
      }
      await clock.pass(30000);
      assert.equal(socket.state, "waiting", `round ${round}`);
      await clock.pass(500);
    }
  });

  test("makes messages wait as soon as a beat is late", async () => {
    const socket = beating();
    await clock.pass(21000);
    socket.send("in time");
    await clock.pass(2000);
    socket.send("waits");
    assert.deepEqual(last().sent, ["in time"]);
    last().says("");
    assert.deepEqual(last().sent, ["in time", "waits"]);
    await clock.pass(25000);
    socket.send("waits for the next one");
    await clock.pass(6000);
    last().opens();
    assert.deepEqual([made(), last().sent], [2, ["waits for the next one"]]);
  });

  test("of a stream by HTTP is its end; a comment is no silence", async () => {
    const socket = connect("/ws/", { fallback: true });
    last().ends();
    await clock.pass(500);
    last().ends();
    await clock.pass(1000);
    const stream = requests.shift().stream();
    await stream.sends('event: open\ndata: {"id": "secret", "subprotocol": ""}\n\n');
    for (const text of [": ping\n\n", "event: message\ndata: \n\n", ": ping\n\n"]) {
      await clock.pass(29000);
      await stream.sends(text);
    }
    assert.equal(socket.state, "open");
    await clock.pass(30000);
    assert.equal(socket.state, "waiting");
  });

  test("of a poll is its end", async () => {
    const socket = connect("/ws/", { fallback: true });
    last().ends();
    await clock.pass(500);
    last().ends();
    await clock.pass(1000);
    requests.shift();
    await clock.pass(8000);
    await requests.shift().answer(200, { id: "secret", subprotocol: "" });
    assert.equal(socket.transport, "polling");
    await clock.pass(20000);
    await requests.shift().answer(200, { n: 1, events: [{ text: "" }] });
    await clock.pass(29999);
    assert.equal(socket.state, "open");
    await clock.pass(1);
    assert.deepEqual([socket.state, requests[0].signal.aborted], ["waiting", true]);
  });
});

describe("a page that is online again", () => {
  /** A connection that has said nothing for 5 seconds when the page comes online. */
  async function silent() {
    const socket = beating();
    const seen = watch(socket);
    await clock.pass(5000);
    fire("online");
    return { socket, seen, old: FakeWebSocket.made[0] };
  }

  test("tries a second connection beside the first, and takes it if it opens", async () => {
    const { socket, seen, old } = await silent();
    assert.deepEqual([made(), socket.state], [2, "open"]);
    socket.send("for either");
    assert.deepEqual(old.sent, []);
    last().opens();
    await settle();
    assert.deepEqual([old.readyState, last().sent, socket.state], [2, ["for either"], "open"]);
    assert.deepEqual(seen.map(([, state]) => state), ["connecting", "open"]);
    old.ends();
    await clock.pass(20000);
    assert.equal(made(), 2);
  });

  test("keeps the first if that says anything before", async () => {
    const { socket, seen, old } = await silent();
    socket.send("for either");
    old.says("");
    assert.deepEqual([old.sent, last().readyState, seen], [["for either"], 2, []]);
    last().ends();
    await clock.pass(20000);
    assert.equal(made(), 2);
  });

  test("does so within a second where something has just come", async () => {
    beating();
    fire("online");
    assert.equal(made(), 1);
    await clock.pass(1000);
    assert.equal(made(), 2);
  });

  test("tries again, and then goes on with the first until that is over", async () => {
    const { socket, old } = await silent();
    socket.send("waits");
    for (const attempts of [2, 3, 4]) {
      assert.deepEqual([made(), old.sent], [attempts, []]);
      last().ends();
      await clock.pass(1000);
    }
    assert.deepEqual([made(), old.sent, socket.state], [4, ["waits"], "open"]);
    await clock.pass(30000);
    assert.notEqual(socket.state, "open");
  });

  test("leaves nothing behind when it is closed meanwhile", async () => {
    const { socket } = await silent();
    socket.close();
    assert.deepEqual([last().readyState, clock.timers.size], [2, 0]);
  });
});
