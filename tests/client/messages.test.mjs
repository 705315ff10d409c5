// What dwebsocket.js sends and receives.
import assert from "node:assert/strict";
import { describe, mock, test } from "node:test";
import { runInNewContext } from "node:vm";
import * as client from "../../python/dwebsocket/static/dwebsocket/dwebsocket.js";
import { clock, last, sentIds, settle, watch } from "./fakes.mjs";

// For the heartbeat see beat.test.mjs.
const connect = (url, options) => client.connect(url, { beat: 0, ...options });

const bytes = (...values) => new Uint8Array(values);

/** A value as that of an iframe: it is an instance of none of the page's classes. */
const foreign = (code) => runInNewContext(code);

/** An open connection. */
function open(options) {
  const socket = connect("/ws/", options);
  last().opens();
  return socket;
}

/** Ends the connection and opens the next one. */
async function again() {
  last().ends();
  await clock.pass(5000);
  last().opens();
}

describe("sending", () => {
  for (const [name, message, wire] of [
    ["text", "hi", "hi"],
    ["an object", { a: [1] }, '{"a":[1]}'],
    ["null", null, "null"],
    ["bytes", bytes(1, 2), bytes(1, 2)],
    ["a part of a buffer", bytes(1, 2, 3).subarray(1), bytes(2, 3)],
    ["an ArrayBuffer", bytes(1, 2).buffer, bytes(1, 2)],
    ["numbers of two bytes", new Uint16Array([513]), bytes(1, 2)],
    ["an ArrayBuffer of an iframe", foreign("new Uint8Array([1, 2]).buffer"), bytes(1, 2)],
    ["bytes of an iframe", foreign("new Uint8Array([1, 2])"), bytes(1, 2)],
  ]) {
    test(`${name}`, async () => {
      await open().send(message);
      assert.deepEqual(last().sent, [wire]);
    });
  }

  for (const [name, message] of [
    ["undefined", undefined],
    ["a function", () => {}],
    ["a Blob", new Blob(["a"])],
    ["a File", new File(["a"], "a.txt")],
    ["a Blob of an iframe", foreign('({ [Symbol.toStringTag]: "Blob" })')],
    ["a circle", (() => { const it = {}; it.it = it; return it; })()],
  ]) {
    test(`not ${name}`, async () => {
      await assert.rejects(open().send(message), TypeError);
      assert.deepEqual(last().sent, []);
    });
  }

  test("waits for the connection, in order, as it was at the call", async () => {
    const socket = connect("/ws/");
    const data = bytes(1);
    const message = { text: "before" };
    let sent = 0;
    for (const each of ["hi", message, data]) socket.send(each).then(() => sent++);
    data[0] = 2;
    message.text = "after";
    await settle();
    assert.equal(sent, 0);
    last().opens();
    await settle();
    assert.deepEqual([sent, last().sent], [3, ["hi", '{"text":"before"}', bytes(1)]]);
  });

  test("happens once: what a lost connection had taken is not repeated", async () => {
    const socket = open();
    await socket.send("one");
    last().ends(1006);
    socket.send("two");
    await clock.pass(5000);
    last().opens();
    assert.deepEqual(last().sent, ["two"]);
    await again();
    assert.deepEqual(last().sent, []);
  });

  test("waits when the connection is about to close: it would drop the message", async () => {
    const socket = open();
    last().readyState = 2;
    socket.send("kept");
    assert.deepEqual(last().sent, []);
    await again();
    assert.deepEqual(last().sent, ["kept"]);
  });

  test("is refused when 1,000 messages wait", async () => {
    const socket = connect("/ws/");
    for (let number = 0; number < 1000; number++) socket.send(`${number}`);
    await assert.rejects(socket.send("one more"), { name: "QueueFullError" });
    last().opens();
    assert.deepEqual([last().sent.length, last().sent.at(-1)], [1000, "999"]);
    await socket.send("now");
  });

  for (const [how, end] of [
    ["close()", (socket) => socket.close()],
    ["4401", () => last().ends(4401)],
  ]) {
    test(`is refused after ${how}, also of what waited`, async () => {
      const socket = connect("/ws/");
      const waiting = socket.send("waits");
      end(socket);
      await assert.rejects(waiting, { name: "ClosedError" });
      await assert.rejects(socket.send("late"), { name: "ClosedError" });
    });
  }
});

describe("what waits", () => {
  const MIB = 2 ** 20;

  test("is limited to 16 MiB, too", async () => {
    const socket = connect("/ws/");
    for (let count = 0; count < 16; count++) socket.send("x".repeat(MIB));
    await assert.rejects(socket.send("x"), { name: "QueueFullError" });
    assert.equal(socket.bufferedAmount, 16 * MIB);
    last().opens();
    assert.deepEqual([last().sent.length, socket.bufferedAmount], [16, 0]);
    await socket.send("x".repeat(17 * MIB));
  });

  test("is counted in bytes", () => {
    const socket = connect("/ws/");
    for (const message of ["漢", "a", bytes(1, 2), new Uint16Array([1, 2])]) socket.send(message);
    assert.equal(socket.bufferedAmount, 3 + 1 + 2 + 4);
  });

  test("holds the sender back while 1 MiB has not left the browser", async () => {
    const socket = open();
    last().bufferedAmount = MIB - 1;
    await socket.send("one");
    last().bufferedAmount = MIB;
    let sent = 0;
    for (const text of ["two", "three"]) socket.send(text).then(() => sent++);
    await clock.pass(1000);
    assert.deepEqual([sent, last().sent, socket.bufferedAmount], [0, ["one"], MIB + 8]);
    last().bufferedAmount = 5;
    await clock.pass(100);
    assert.deepEqual([sent, last().sent, socket.bufferedAmount], [2, ["one", "two", "three"], 5]);
    assert.equal(clock.timers.size, 0);
  });

  test("is sent by the next connection where this one takes no more", async () => {
    const socket = open();
    last().bufferedAmount = 2 * MIB;
    socket.send("kept");
    await again();
    assert.deepEqual(last().sent, ["kept"]);
  });
});

describe("receiving", () => {
  for (const [name, wire, message] of [
    ["text", "hi", "hi"],
    ["no text", "", ""],
    ["an object", '{"a": 1}', { a: 1 }],
    ["a list", " [1]", [1]],
    ["a number, which stays a text", "42", "42"],
    ["what only looks like JSON", "{name}", "{name}"],
  ]) {
    test(`${name}`, () => {
      const seen = watch(open());
      last().says(wire);
      assert.deepEqual(seen, [["message", message, {}]]);
    });
  }

  test("bytes", () => {
    const seen = watch(open());
    last().onmessage({ data: bytes(1, 2).buffer });
    assert.deepEqual(seen, [["message", bytes(1, 2), {}]]);
  });
});

describe("with text: true", () => {
  test("JSON stays a text, and so does that of groups", () => {
    const socket = open({ text: true, resume: true });
    const seen = watch(socket);
    for (const text of ['{"a": 1}', "[1]", ' {"group": "x"}']) last().says(text);
    last().says({ group: "room", position: "e-1", data: '{"a": 1}' });
    last().says({ group: "room", joined: { key: "1" } });
    assert.deepEqual(seen, [
      ["message", '{"a": 1}', {}], ["message", "[1]", {}], ["message", ' {"group": "x"}', {}],
      ["message", '{"a": 1}', { group: "room", position: "e-1" }],
      ["joined", { key: "1" }, "room"],
    ]);
  });

  test("requests are answered all the same", async () => {
    const socket = open({ text: true });
    const answer = socket.request("now?");
    last().says({ id: sentIds()[0], data: { yes: 1 } });
    assert.deepEqual((await answer).data, { yes: 1 });
  });
});

describe("a request", () => {
  test("resolves with the message that has its id", async () => {
    const socket = open();
    const seen = watch(socket);
    const answers = [socket.request({ get: "a" }), socket.request("b")];
    const [a, b] = sentIds();
    assert.deepEqual(last().sent.map(JSON.parse), [{ id: a, data: { get: "a" } }, { id: b, data: "b" }]);
    last().says({ id: b, data: "B" });
    last().says({ id: a, data: null });
    last().says({ id: a, data: "again" });
    last().says({ id: b });
    assert.deepEqual(await Promise.all(answers), [{ id: a, data: null }, { id: b, data: "B" }]);
    assert.deepEqual(seen, [["message", { id: a, data: "again" }, {}], ["message", { id: b }, {}]]);
  });

  test("has an id that others cannot guess, and JSON can hold", () => {
    const socket = open();
    for (let count = 0; count < 100; count++) socket.request({}).catch(() => {});
    const ids = sentIds();
    assert.equal(new Set(ids).size, 100);
    assert(ids.every((id) => Number.isSafeInteger(id) && id >= 0));
    // Each bit of the 53 is now this, now that.
    for (let bit = 1; bit < 2 ** 53; bit *= 2) {
      assert.equal(new Set(ids.map((id) => Math.floor(id / bit) % 2)).size, 2);
    }
  });

  test("is answered by no message of the application's own, whatever ids that uses", async () => {
    const socket = open();
    const seen = watch(socket);
    const answer = socket.request("now?");
    const [id] = sentIds();
    const own = [0, 1, `${id}`, [id], null, id / 2, -id].map((each) => ({ id: each, data: "mine" }));
    for (const message of own) last().says(message);
    last().says([{ id, data: "mine" }]);
    last().says({ data: { id, data: "mine" } });
    assert.deepEqual(seen.map(([, data]) => data), [
      ...own, [{ id, data: "mine" }], { data: { id, data: "mine" } },
    ]);
    last().says({ id, data: "yes" });
    assert.equal((await answer).data, "yes");
  });

  test("has a time limit, after which an answer is a message like others", async () => {
    const socket = open();
    const seen = watch(socket);
    const answer = assert.rejects(socket.request({}, { timeout: 50 }), { name: "TimeoutError" });
    await clock.pass(50);
    await answer;
    const [id] = sentIds();
    last().says({ id, data: "late" });
    assert.deepEqual(seen, [["message", { id, data: "late" }, {}]]);
  });

  for (const [timeout, ms] of [[undefined, 10000], [1000, 1000], [Infinity, 2147483647]]) {
    test(`of ${timeout ?? "nothing else said"} ends after ${ms} ms`, async () => {
      const answer = assert.rejects(open().request({}, { timeout }), { name: "TimeoutError" });
      await clock.pass(ms - 1);
      assert.equal(clock.timers.size, 1);
      await clock.pass(1);
      await answer;
    });
  }

  test("is not sent any more when its time is over", async () => {
    const socket = connect("/ws/");
    const answer = assert.rejects(socket.request({}, { timeout: 50 }), { name: "TimeoutError" });
    await clock.pass(50);
    await answer;
    last().opens();
    assert.deepEqual(last().sent, []);
  });

  test("is lost with the connection that was asked", async () => {
    const socket = open();
    const answer = socket.request({});
    last().ends(1012);
    await assert.rejects(answer, { name: "ConnectionLostError" });
  });

  test("that waits survives a failed attempt", async () => {
    const socket = connect("/ws/");
    const answer = socket.request("now?");
    await again();
    last().says({ id: sentIds()[0], data: "yes" });
    assert.equal((await answer).data, "yes");
  });

  for (const ready of [true, false]) {
    test(`is refused when it is closed ${ready ? "after" : "before"} it was sent`, async () => {
      const socket = connect("/ws/");
      if (ready) last().opens();
      const answer = socket.request({});
      socket.close();
      await assert.rejects(answer, { name: ready ? "ConnectionLostError" : "ClosedError" });
      assert.equal(clock.timers.size, 0);
    });
  }
});

describe("with resume", () => {
  const numbered = (group, position, data, more) => ({ group, position, data, ...more });

  test("messages of groups come with group and position", () => {
    const socket = open({ resume: true });
    const seen = watch(socket);
    last().says(numbered("room-42", "e1-7", "hi"));
    last().says(numbered("room-42", "e1-8", '{"a": 1}'));
    last().says(numbered("news", "e-2-1", "AQI=", { binary: true }));
    assert.deepEqual(seen, [
      ["message", "hi", { group: "room-42", position: "e1-7" }],
      ["message", { a: 1 }, { group: "room-42", position: "e1-8" }],
      ["message", bytes(1, 2), { group: "news", position: "e-2-1" }],
    ]);
    assert.deepEqual(socket.positions, { "room-42": "e1-8", news: "e-2-1" });
  });

  test("it comes back with the position of each group", async () => {
    open({ resume: true, positions: { "room & 1": "e-5" } });
    last().says(numbered("news", "e-2-1", "hi"));
    await again();
    assert.equal(last().url, "wss://site.example/ws/?since=room%20%26%201%3Ae-5&since=news%3Ae-2-1");
  });

  test("a message at or before the position is not repeated", () => {
    const socket = open({ resume: true, positions: { room: "e-5" } });
    const seen = watch(socket);
    for (const position of ["e-4", "e-5", "e-6", "e-6", "e-10", "e-9"]) {
      last().says(numbered("room", position, position));
    }
    assert.deepEqual(seen.map(([, data]) => data), ["e-6", "e-10"]);
    assert.deepEqual(socket.positions, { room: "e-10" });
  });

  test("another epoch begins anew", () => {
    const socket = open({ resume: true, positions: { room: "old-500" } });
    const seen = watch(socket);
    last().says(numbered("room", "new-1", "hi"));
    assert.deepEqual([seen.length, socket.positions], [1, { room: "new-1" }]);
  });

  test("it says whether all was recovered", () => {
    const socket = open({ resume: true, positions: { b: "e-5", c: "old-9" } });
    const seen = watch(socket);
    last().says({ group: "a", recovered: true, missed: 0, position: "e-3" });
    last().says({ group: "b", recovered: true, missed: 2, position: "e-7" });
    last().says({ group: "c", recovered: false, missed: 4, position: "e-1" });
    assert.deepEqual(seen, [
      ["recovered", { group: "a", recovered: true, missed: 0 }],
      ["recovered", { group: "b", recovered: true, missed: 2 }],
      ["recovered", { group: "c", recovered: false, missed: 4 }],
    ]);
    // The two that b has missed follow, and a cut between them must not lose one.
    assert.deepEqual(socket.positions, { a: "e-3", b: "e-5", c: "e-1" });
    last().says(numbered("b", "e-6", "missed"));
    assert.deepEqual(seen.at(-1)[1], "missed");
  });

  for (const [recovered, missed] of [[true, 0], [true, 2], [false, 0]]) {
    test(`a message that overtakes it counts: recovered ${recovered}, missed ${missed}`, async () => {
      const socket = open({ resume: true, positions: { room: "e-5" } });
      const seen = watch(socket);
      last().says(numbered("room", "e-8", "hi"));
      last().says({ group: "room", recovered, missed, position: "e-7" });
      assert.deepEqual(socket.positions, { room: "e-8" });
      last().says(numbered("room", "e-8", "hi"));
      assert.deepEqual(seen.map(([name]) => name), ["message", "recovered"]);
    });
  }

  test("a position of the future is given up: messages behind the summary come", async () => {
    const socket = open({ resume: true, positions: { room: "e-99" } });
    const seen = watch(socket);
    last().says({ group: "room", recovered: false, missed: 0, position: "e-5" });
    last().says(numbered("room", "e-6", "hi"));
    assert.deepEqual(seen.map(([name]) => name), ["recovered", "message"]);
    assert.deepEqual(socket.positions, { room: "e-6" });
    await again();
    assert.equal(last().url, "wss://site.example/ws/?since=room%3Ae-6");
    // It counts once: a message that overtakes a later summary is kept.
    last().says(numbered("room", "e-8", "more"));
    last().says({ group: "room", recovered: false, missed: 0, position: "e-7" });
    assert.deepEqual(socket.positions, { room: "e-8" });
  });

  test("behind missed messages the summary counts: the last of them may be left out", () => {
    const socket = open({ resume: true, positions: { room: "e-5" } });
    last().says(numbered("room", "e-6", "missed"));
    last().says({ group: "room", recovered: true, missed: 1, position: "e-7" });
    assert.deepEqual(socket.positions, { room: "e-7" });
  });

  test("with former it names the connection before, of which the newest summary tells", async () => {
    open({ resume: true, former: true, positions: { room: "e-5" } });
    assert.equal(last().url, "wss://site.example/ws/?since=room%3Ae-5&former=");
    const told = { recovered: true, missed: 0, position: "e-5" };
    last().says({ group: "room", ...told, id: "first" });
    last().says({ group: "news", ...told, id: "first" });
    await again();
    const url = "wss://site.example/ws/?since=room%3Ae-5&since=news%3Ae-5&former=first";
    assert.equal(last().url, url);
    // This one is cut before a summary.
    await again();
    assert.equal(last().url, url);
  });

  const told = (group, position) => ({ group, recovered: true, missed: 0, position });

  test("positions are those of the groups of the last connection", async () => {
    const socket = open({ resume: true, positions: { gone: "e-1" } });
    await again();
    assert.equal(last().url, "wss://site.example/ws/?since=gone%3Ae-1");
    for (const group of ["a", "b"]) last().says(told(group, "e-1"));
    await clock.pass(2000);
    last().says("of the view");
    await again();
    assert.equal(last().url, "wss://site.example/ws/?since=a%3Ae-1&since=b%3Ae-1");
    last().says(told("b", "e-1"));
    await clock.pass(2000);
    last().says("of the view");
    last().ends(1012);
    await clock.pass(9000);
    assert.equal(last().url, "wss://site.example/ws/?since=b%3Ae-1");
    assert.deepEqual(socket.positions, { b: "e-1" });
  });

  for (const [how, code, ms] of [
    ["is cut", 1006, 0],
    ["stalls and is cut", 1006, 30000],
    ["is closed", 1012, 0],
    ["is too slow", 1013, 10000],
  ]) {
    test(`a connection that ${how} before it has told of all groups takes none away`, async () => {
      open({ resume: true, positions: { a: "e-1", b: "e-1" } });
      last().says(numbered("a", "e-2", "missed"));
      last().says(told("a", "e-2"));
      await clock.pass(ms);
      last().ends(code);
      await clock.pass(9000);
      assert.equal(last().url, "wss://site.example/ws/?since=b%3Ae-1&since=a%3Ae-2");
    });
  }

  test("a connection that ends among missed messages takes no position away", async () => {
    const socket = open({ resume: true, positions: { a: "e-1", b: "e-1" } });
    last().says({ group: "a", data: "missed", position: "e-2" });
    last().ends(1012);
    await clock.pass(9000);
    assert.deepEqual(socket.positions, { a: "e-2", b: "e-1" });
  });

  test("positions that do not fit into 3,000 characters are left out, the oldest first", async () => {
    const warnings = mock.method(console, "warn", () => {});
    const socket = open({ resume: true });
    const groups = Array.from({ length: 120 }, (_, number) => `room-of-a-long-name-${number}`);
    for (const group of groups) last().says(told(group, "epoch-1"));
    last().says(numbered(groups[0], "epoch-2", "now the newest"));
    await clock.pass(2000);
    await again();
    const { length } = last().url;
    assert(length <= 3000 && length > 2900, `${length} characters`);
    const sent = new URL(last().url).searchParams.getAll("since").map((each) => each.split(":")[0]);
    assert.deepEqual(sent, [...groups.slice(121 - sent.length), groups[0]]);
    const seen = watch(socket);
    for (const group of groups) last().says(told(group, group === groups[0] ? "epoch-2" : "epoch-9"));
    const lost = seen.filter(([, { recovered }]) => !recovered).map(([, { group }]) => group);
    assert.deepEqual(lost, groups.slice(1, 121 - sent.length));
    assert.equal(socket.positions[groups[1]], "epoch-9");
    // Those that were lost are the newest now, and what comes is of theirs, too.
    last().says(numbered(groups[1], "epoch-10", "next"));
    assert.equal(seen.at(-1)[1], "next");
    await clock.pass(2000);
    await again();
    assert.equal(warnings.mock.callCount(), 1);
    assert.match(warnings.mock.calls[0].arguments[0], /use rooms/);
    mock.restoreAll();
  });

  test("it tells who comes and goes, one by one", () => {
    const seen = watch(open({ resume: true }));
    last().says({ group: "room", joined: { key: "1" } });
    last().says({ group: "room", left: [{ key: "1" }, { key: "2" }] });
    last().says({ group: "room", left: [] });
    assert.deepEqual(seen, [
      ["joined", { key: "1" }, "room"],
      ["left", { key: "1" }, "room"],
      ["left", { key: "2" }, "room"],
    ]);
  });

  test("an answer to a request is one, and other messages stay messages", async () => {
    const socket = open({ resume: true });
    const seen = watch(socket);
    const answer = socket.request({});
    last().says({ id: sentIds()[0], data: "yes" });
    assert.equal((await answer).data, "yes");
    for (const message of [{ group: 1 }, { group: "room" }, { group: "room", position: "left" }]) {
      last().says(message);
    }
    assert.deepEqual(seen.map(([name, data]) => [name, data]), [
      ["message", { group: 1 }],
      ["message", { group: "room" }],
      ["message", { group: "room", position: "left" }],
    ]);
  });

  test("and without it these are messages, if no handler takes who comes and goes", async () => {
    const seen = [];
    open().on("message", (...values) => seen.push(["message", ...values]));
    const all = [
      numbered("room", "e-1", "hi"),
      { group: "room", joined: {} },
      { group: "room", recovered: true, missed: 0, position: "e-1" },
    ];
    for (const message of all) last().says(message);
    assert.deepEqual(seen, all.map((message) => ["message", message, {}]));
    await again();
    assert.equal(last().url, "wss://site.example/ws/");
  });
});

describe("presence without resume", () => {
  test("calls its handlers, as long as there are any", () => {
    const socket = open();
    const seen = [];
    socket.on("message", (data) => seen.push(data));
    const stop = socket.on("joined", (member, group) => seen.push([member.key, group]));
    const joined = { group: "room", joined: [{ key: "1" }, { key: "2" }] };
    const left = { group: "room", left: { key: "1" } };
    last().says(joined);
    last().says(left);
    stop();
    last().says(joined);
    assert.deepEqual(seen, [["1", "room"], ["2", "room"], left, joined]);
  });

  test("takes no message of another form", () => {
    const seen = watch(open());
    const others = [{ group: 1, joined: {} }, { joined: {} }, { group: "room", joined: null }];
    for (const message of others) last().says(message);
    assert.deepEqual(seen, others.map((message) => ["message", message, {}]));
  });
});

describe("what a view or another member says", () => {
  for (const resume of [false, true]) {
    test(`in the form of the server is a message, ${resume ? "with" : "without"} resume`, () => {
      const socket = open({ resume, positions: { room: "e-5" } });
      const seen = watch(socket);
      const forged = [
        { group: "room", joined: { key: "1" } },
        { group: "room", left: { key: "1" } },
        { group: "room", recovered: false, position: "e-99" },
        { group: "room", position: "e-99", data: "hi" },
        { joined: { key: "1" }, group: "room" },
      ];
      const texts = forged.map((message) => JSON.stringify(message));
      // The server puts a blank before those that begin as its own do.
      for (const text of texts) last().says(text.replace(/^{"group":/, " $&"));
      last().says(texts[0].replace("{", "{ "));
      const all = [...forged, forged[0]];
      assert.deepEqual(seen, all.map((message) => ["message", message, {}]));
      assert.deepEqual(socket.positions, resume ? { room: "e-5" } : {});
    });
  }
});
