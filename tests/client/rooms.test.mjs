// What dwebsocket.js does for rooms: docs/rooms.md and docs/write_a_client.md.
import assert from "node:assert/strict";
import { describe, test } from "node:test";
import * as client from "../../python/dwebsocket/static/dwebsocket/dwebsocket.js";
import { clock, last, requests, settle } from "./fakes.mjs";

// For the heartbeat see beat.test.mjs.
const connect = (options) => client.connect("/live/", { beat: 0, ...options });

const sent = () => last().sent.map((text) => JSON.parse(text));
const joins = () => sent().filter((message) => message.join);
const member = (key, info = {}) => ({ key, user: key, info, since: "", connections: [] });

/** Answers the newest request of a kind. */
function answer(kind, ok = {}) {
  const { id } = sent().findLast((message) => kind in message);
  last().says({ id, ok });
}

const refuse = (kind, code) => last().says({
  id: sent().findLast((message) => kind in message).id, error: { code, text: "No." },
});

const welcome = (more) => answer("join", { position: "e-1", recovered: true, missed: 0, ...more });

/** Notes all events of a room. */
function watch(room, ...events) {
  const seen = [];
  for (const name of ["message", "state", "recovered", "joined", "left", "updated", ...events]) {
    room.on(name, (...values) => seen.push([name, ...values]));
  }
  return seen;
}

/** A socket, and a room that is joined. */
function joined(more, options) {
  const socket = connect();
  last().opens();
  const room = socket.join("room-42", options);
  welcome(more);
  return { socket, room };
}

/** Ends the connection and opens the next one. */
async function again() {
  last().ends();
  await clock.pass(5000);
  last().opens();
}

describe("joining", () => {
  test("is asked for at once, or when the connection opens", async () => {
    const socket = connect();
    socket.join("first", { position: "e-7", info: { a: 1 } });
    assert.deepEqual(last().sent, []);
    last().opens();
    socket.join("second");
    assert.deepEqual(joins().map(({ id, ...rest }) => rest), [
      { join: "first", since: "e-7", info: { a: 1 } },
      { join: "second" },
    ]);
    assert.equal(new Set(joins().map(({ id }) => id)).size, 2);
  });

  test("asks by texts: the server would close for another name, and all rooms with it", () => {
    const { room, socket } = joined();
    socket.join(undefined);
    room.emit(7).catch(() => {});
    assert.deepEqual([joins().at(-1).join, sent().at(-1).event], ["undefined", "7"]);
  });

  test("asks from a text, too", () => {
    const socket = connect();
    last().opens();
    socket.join("room", { position: 42 });
    assert.equal(joins()[0].since, "42");
  });

  test("and info that is no JSON is an error at once, and harms no other room", async () => {
    const { socket, room } = joined();
    const circular = {};
    circular.self = circular;
    for (const info of [{ n: 1n }, circular]) {
      assert.throws(() => socket.join("other", { info }), TypeError);
      assert.throws(() => room.update(info), TypeError);
    }
    await again();
    assert.deepEqual(joins().map(({ join, info }) => [join, info]), [["room-42", undefined]]);
  });

  test("tells the state and what was missed", () => {
    const socket = connect();
    last().opens();
    const room = socket.join("room-42");
    const seen = watch(room);
    assert.deepEqual([room.name, room.state, room.position, room.members], ["room-42", "joining", null, []]);
    welcome({ members: [member("a")], count: 1 });
    assert.deepEqual(seen, [
      ["state", "joined", undefined],
      ["recovered", { recovered: true, missed: 0 }],
    ]);
    assert.deepEqual([room.state, room.position, room.members], ["joined", "e-1", [member("a")]]);
  });

  test("happens again by itself, from the last position, before what waits", async () => {
    const { room } = joined({}, { info: { a: 1 } });
    last().says({ room: "room-42", position: "e-2", data: "hi" });
    const seen = watch(room);
    last().ends(1012);
    room.emit("say", 1);
    await clock.pass(5000);
    last().opens();
    assert.deepEqual(sent().map(({ id, ...rest }) => rest), [
      { join: "room-42", since: "e-2", info: { a: 1 } },
      { to: "room-42", event: "say", data: 1 },
    ]);
    welcome({ position: "e-2" });
    assert.deepEqual(seen.map(([, state]) => state), [
      "waiting", "joining", "joined", { recovered: true, missed: 0 },
    ]);
    assert.equal(seen[0][2].code, 1012);
  });

  test("has no position beyond what has come", async () => {
    const { room } = joined();
    await again();
    welcome({ position: "e-3", missed: 2 });
    assert.equal(room.position, "e-1");
    last().says({ room: "room-42", position: "e-2", data: "two" });
    await again();
    assert.equal(joins()[0].since, "e-2");
    welcome({ position: "f-9", recovered: false });
    assert.equal(room.position, "f-9");
  });

  test("without a history asks whether something was missed", async () => {
    const { room } = joined({ position: null });
    last().says({ room: "room-42", position: null, data: "hi" });
    await again();
    assert.equal(joins()[0].since, "");
    const seen = watch(room);
    welcome({ position: null, recovered: false });
    assert.deepEqual(seen.at(-1), ["recovered", { recovered: false, missed: 0 }]);
  });

  test("is shared, and is left with the last", () => {
    const { socket, room } = joined();
    assert.equal(socket.join("room-42"), room);
    assert.equal(joins().length, 1);
    room.leave();
    assert.equal(room.state, "joined");
    room.leave();
    assert.equal(room.state, "left");
    room.leave();
    assert.deepEqual(sent().filter(({ leave }) => leave).map(({ leave }) => leave), ["room-42"]);
  });

  test("is told once to a connection that comes back while the socket sends slowly", async () => {
    const { socket } = joined();
    last().bufferedAmount = 2 ** 21;
    socket.join("other");
    socket.join("third").leave();
    assert.equal(joins().length, 1);
    await again();
    assert.deepEqual(sent().map(({ join }) => join), ["room-42", "other"]);
  });

  test("is not limited as messages are", () => {
    const socket = connect();
    const rooms = Array.from({ length: 1500 }, (_, number) => socket.join(`room-${number}`));
    last().bufferedAmount = 2 ** 21;
    last().opens();
    last().bufferedAmount = 0;
    socket.send({});
    assert.equal(joins().length, 1500);
    assert.equal(rooms.filter(({ state }) => state !== "joining").length, 0);
  });
});

describe("the end of a room", () => {
  test("is a refusal, which is final until it is joined anew", async () => {
    const socket = connect();
    last().opens();
    const room = socket.join("room-42");
    const seen = watch(room);
    refuse("join", "denied");
    assert.deepEqual(seen, [["state", "refused", { code: "denied", text: "No." }]]);
    await assert.rejects(room.emit("say"), { name: "RoomError", code: "denied", message: "No." });
    await again();
    assert.deepEqual(joins(), []);
    const second = socket.join("room-42");
    assert.notEqual(second, room);
    assert.equal(joins().length, 1);
    room.leave();
    welcome();
    assert.deepEqual([room.state, second.state], ["refused", "joined"]);
  });

  test("comes from the server", async () => {
    const { room } = joined();
    const seen = watch(room);
    const why = { code: "evicted", text: "Rude." };
    last().says({ room: "room-42", ended: why });
    assert.deepEqual(seen, [["state", "ended", why]]);
    await assert.rejects(room.emit("say"), { code: "evicted" });
    await again();
    assert.deepEqual(joins(), []);
  });

  test("comes from the page, and nothing of it comes behind", async () => {
    const { socket, room } = joined();
    const seen = watch(room);
    socket.on("message", (...values) => seen.push(values));
    room.leave();
    last().says({ room: "room-42", position: "e-2", data: "late" });
    answer("leave");
    assert.deepEqual(seen, [["state", "left", { code: "left" }]]);
    await assert.rejects(room.emit("say"), { code: "left" });
  });

  test("may be the beginning of the next one: the server hears of it first", () => {
    const { socket, room } = joined();
    room.on("state", (state) => state === "left" && socket.join("room-42"));
    room.leave();
    assert.deepEqual(sent().slice(-2).map(({ leave, join }) => leave ?? join), ["room-42", "room-42"]);
    assert.ok("leave" in sent().at(-2));
  });

  test("comes from a handler, and nothing of the same answer comes behind", () => {
    const socket = connect();
    last().opens();
    const room = socket.join("room-42");
    const seen = watch(room);
    room.on("state", (state) => state === "joined" && room.leave());
    welcome();
    assert.deepEqual(seen.map(([name, state]) => [name, state]), [["state", "joined"], ["state", "left"]]);
  });

  test("comes from a handler, and no more of a list comes behind", () => {
    const { room } = joined();
    const seen = watch(room);
    room.on("joined", () => room.leave());
    last().says({ room: "room-42", joined: [member("1"), member("2")] });
    assert.deepEqual(seen.map(([name]) => name), ["joined", "state"]);
  });

  test("and its beginning anew do not meet", () => {
    const { socket, room } = joined();
    room.leave();
    const second = socket.join("room-42");
    const seen = watch(second);
    last().says({ room: "room-42", position: "e-2", data: "of the first" });
    answer("leave");
    welcome({ position: "e-2" });
    last().says({ room: "room-42", position: "e-3", data: "of the second" });
    assert.deepEqual(seen.filter(([name]) => name === "message").map(([, data]) => data), ["of the second"]);
  });

  test("is that of the socket", async () => {
    const { socket, room } = joined();
    const asked = room.emit("say", 1);
    socket.close();
    await assert.rejects(asked, { name: "ConnectionLostError" });
    const late = socket.join("late");
    const seen = watch(late);
    await clock.pass(1);
    assert.deepEqual(seen, [["state", "ended", { code: "closed" }]]);
    assert.equal(room.state, "ended");
    await assert.rejects(late.emit("say", 1), { code: "closed" });
  });

  test("is not that the server cannot do it now", async () => {
    const socket = connect();
    last().opens();
    const room = socket.join("room-42");
    refuse("join", "unavailable");
    assert.equal(room.state, "waiting");
    await clock.pass(10000);
    assert.equal(joins().length, 2);
    welcome();
    assert.equal(room.state, "joined");
    refuse("join", "unavailable");
    socket.close();
    await clock.pass(10000);
    assert.equal(joins().length, 2);
  });

  test("and a room that waits for the server is asked for once, and not after its end", async () => {
    const socket = connect();
    last().opens();
    const room = socket.join("room-42");
    refuse("join", "unavailable");
    for (let breaks = 0; breaks < 3; breaks++) {
      await again();
      refuse("join", "unavailable");
    }
    await clock.pass(10000);
    assert.equal(joins().length, 2);
    refuse("join", "unavailable");
    const before = clock.timers.size;
    room.leave();
    assert.equal(clock.timers.size, before); // one of the leave, none of the room
    await clock.pass(10000);
    assert.equal(joins().length, 2);
  });
});

/** What was sent, as the key that says what it is and its room: "join room-42". */
const told = () => sent().map(({ id, info, since, data, event, ...rest }) => Object.entries(rest)[0].join(" "));

describe("a handler that acts at once", () => {
  const acts = {
    leave: (socket, room) => room.leave(),
    emit: (socket, room) => { room.emit("say", 1).catch(() => {}); },
    update: (socket, room) => { room.update({ b: 1 }); },
    join: (socket) => { socket.join("other"); },
  };

  for (const [act, after] of [
    ["leave", []],
    ["emit", ["join room-42", "to room-42"]],
    ["update", ["join room-42"]],
    ["join", ["join room-42", "join other"]],
  ]) {
    test(`may ${act} while the connection ends`, async () => {
      const { socket, room } = joined();
      room.on("state", (state) => state === "waiting" && acts[act](socket, room));
      await again();
      assert.deepEqual(told(), after);
    });
  }

  for (const [act, after] of [
    ["leave", ["join room-42", "leave room-42", "to second"]],
    ["emit", ["join room-42", "to room-42", "to second"]],
    ["update", ["join room-42", "update room-42", "to second"]],
    ["join", ["join room-42", "join other", "to second"]],
  ]) {
    test(`may ${act} while it is asked for again: the server hears of that after the join`, async () => {
      const { socket, room } = joined();
      last().ends();
      socket.send({ to: "second" });
      room.on("state", (state) => state === "joining" && acts[act](socket, room));
      await clock.pass(5000);
      last().opens();
      assert.deepEqual(told(), after);
    });
  }

  test("may close the socket while rooms are asked for again", async () => {
    const { socket, room } = joined();
    last().ends();
    const waiting = socket.send("later");
    room.on("state", (state) => state === "joining" && socket.close());
    await clock.pass(5000);
    last().opens();
    await assert.rejects(waiting, { name: "ClosedError" });
    assert.equal(socket.state, "closed");
  });

  test("may close the socket while other rooms are told of its end", async () => {
    const { socket, room } = joined();
    const seen = watch(socket.join("second"));
    room.on("state", (state) => state === "waiting" && socket.close());
    last().ends();
    await clock.pass(0);
    assert.deepEqual(seen.map(([, state]) => state), ["waiting", "ended"]);
  });

  test("may leave while what has changed during a break is told", async () => {
    const { room } = joined({ members: [member("a")] });
    await again();
    const seen = watch(room);
    room.on("left", () => room.leave());
    welcome({ members: [member("b")] });
    assert.deepEqual(seen.map(([name, value]) => name + (value.key ?? ` ${value}`)), ["lefta", "state left"]);
    assert.deepEqual(told(), ["join room-42", "leave room-42"]);
  });
});

describe("messages of a room", () => {
  test("are texts, JSON and bytes, with their position", () => {
    const { socket, room } = joined();
    const seen = watch(room);
    socket.on("message", () => assert.fail("a message of a room"));
    last().says({ room: "room-42", position: "e-2", data: "hi" });
    last().says({ room: "room-42", position: "e-3", data: '{"a": 1}' });
    last().says({ room: "room-42", position: "e-4", data: "AP8=", binary: true });
    last().says({ room: "other", position: "e-9", data: "not joined" });
    assert.deepEqual(seen, [
      ["message", "hi", { position: "e-2" }],
      ["message", { a: 1 }, { position: "e-3" }],
      ["message", new Uint8Array([0, 255]), { position: "e-4" }],
    ]);
    assert.equal(room.position, "e-4");
  });

  test("stay texts with that option", () => {
    const socket = connect({ text: true });
    last().opens();
    const seen = watch(socket.join("room-42"));
    welcome();
    last().says({ room: "room-42", position: "e-3", data: '{"a": 1}' });
    assert.deepEqual(seen.at(-1).slice(0, 2), ["message", '{"a": 1}']);
  });

  test("that are lost are told of", () => {
    const { room } = joined();
    const seen = watch(room);
    last().says({ room: "room-42", recovered: false });
    assert.deepEqual(seen, [["recovered", { recovered: false, missed: 0 }]]);
  });

  test("are events of others, also those with the names of methods", () => {
    const { room } = joined();
    const seen = watch(room, "typing");
    last().says({ room: "room-42", event: "typing", data: true, from: member("a") });
    last().says({ room: "room-42", event: "constructor", data: 1, from: member("a") });
    last().says({ room: "room-42", event: "__proto__", data: 1, from: member("a") });
    assert.deepEqual(seen, [["typing", true, member("a")]]);
  });
});

describe("members", () => {
  test("come, go and change, one by one or several", () => {
    const { room } = joined({ members: [member("a")] });
    const seen = watch(room);
    last().says({ room: "room-42", joined: [member("b"), member("c")] });
    last().says({ room: "room-42", updated: member("b", { x: 1 }) });
    last().says({ room: "room-42", left: member("c") });
    assert.deepEqual(seen.map(([name, { key }]) => name + key), ["joinedb", "joinedc", "updatedb", "leftc"]);
    assert.deepEqual(room.members, [member("a"), member("b", { x: 1 })]);
  });

  test("that join while the page does are told of once", () => {
    const { room } = joined({ members: [member("a")] });
    const seen = watch(room);
    last().says({ room: "room-42", joined: member("a", { x: 1 }) });
    assert.deepEqual(seen.map(([name]) => name), ["updated"]);
    assert.deepEqual(room.members, [member("a", { x: 1 })]);
  });

  test("that changed during a break are told of behind it", async () => {
    const { room } = joined({ members: [member("a"), member("b")] });
    await again();
    const seen = watch(room);
    welcome({ members: [member("b"), member("c")] });
    assert.deepEqual(seen.slice(0, 4).map(([name, value]) => name + (value.key ?? ` ${value}`)), [
      "lefta", "updatedb", "joinedc", "state joined",
    ]);
    assert.deepEqual(room.members.map(({ key }) => key), ["b", "c"]);
  });
});

describe("members, of more than an answer names", () => {
  test("are those of the answer, and the others are not told to have left", async () => {
    const { room } = joined({ members: [member("a"), member("b")], count: 3 });
    last().says({ room: "room-42", joined: member("c") });
    await again();
    const seen = watch(room);
    welcome({ members: [member("a"), member("b")], count: 3 });
    assert.deepEqual(seen.filter(([name]) => name === "left" || name === "joined"), []);
    assert.deepEqual(room.members.map(({ key }) => key), ["a", "b"]);
  });
});

describe("what the page says", () => {
  test("is acknowledged", async () => {
    const { room } = joined();
    const asked = room.emit("say", { text: "hi" });
    assert.deepEqual(
      sent().map(({ id, ...rest }) => rest).at(-1),
      { to: "room-42", event: "say", data: { text: "hi" } },
    );
    answer("event", null);
    assert.equal(await asked, null);
  });

  test("may be refused, and may get no answer", async () => {
    const { room } = joined();
    const asked = room.emit("say", 1);
    refuse("event", "limit");
    await assert.rejects(asked, { name: "RoomError", code: "limit", message: "No." });
    const other = room.emit("say", 2, { timeout: 5000 });
    await clock.pass(5000);
    await assert.rejects(other, { name: "TimeoutError" });
    const lost = room.emit("say", 3);
    last().ends();
    await assert.rejects(lost, { name: "ConnectionLostError" });
  });

  test("about itself is said again with each join", async () => {
    const { room } = joined({}, { info: { a: 1 } });
    const asked = room.update({ typing: true });
    assert.deepEqual(sent().map(({ id, ...rest }) => rest).at(-1), { update: "room-42", info: { typing: true } });
    answer("update");
    assert.deepEqual(await asked, {});
    last().ends();
    await room.update({ typing: false });
    await clock.pass(5000);
    last().opens();
    assert.deepEqual(joins()[0].info, { typing: false });
    assert.equal(sent().length, 1);
  });

  test("that waits for a connection is not said behind a newer one", async () => {
    const socket = connect();
    const room = socket.join("room-42", { info: { a: 0 } });
    const lost = assert.rejects(room.update({ a: 1 }), { name: "ConnectionLostError" });
    last().ends();
    await lost;
    await room.update({ a: 2 });
    await clock.pass(5000);
    last().opens();
    assert.deepEqual(sent().map(({ id, ...rest }) => rest), [{ join: "room-42", info: { a: 2 } }]);
    welcome();
    room.update({ a: 3 });
    assert.deepEqual(sent().at(-1).info, { a: 3 });
  });
});

describe("info", () => {
  test("that the server refuses is not said with the next join, which would be refused, too", async () => {
    const { room } = joined({}, { info: { a: 1 } });
    const asked = room.update({ a: "too long" });
    refuse("update", "limit");
    await assert.rejects(asked, { code: "limit" });
    await again();
    assert.deepEqual(joins()[0].info, { a: 1 });
  });

  test("is what was said last of what the server has not refused", async () => {
    const { room } = joined({}, { info: { a: 1 } });
    const refused = [2, 3, 4].map((a) => assert.rejects(room.update({ a }), { code: "limit" }));
    const [first, second, third] = sent().slice(-3);
    for (const { id } of [first, second, third]) last().says({ id, error: { code: "limit", text: "No." } });
    await Promise.all(refused);
    await again();
    assert.deepEqual(joins()[0].info, { a: 1 });
    welcome();
    const [taken, over] = [room.update({ a: 5 }), room.update({ a: 6 })];
    const [fifth, sixth] = sent().slice(-2);
    last().says({ id: fifth.id, ok: {} });
    last().says({ id: sixth.id, error: { code: "limit", text: "No." } });
    await taken;
    await assert.rejects(over, { code: "limit" });
    await again();
    assert.deepEqual(joins()[0].info, { a: 5 });
  });

  test("is that of the moment, whatever becomes of the object later", async () => {
    const [first, second] = [{ a: 1 }, { a: 2 }];
    const { room } = joined({}, { info: first });
    first.self = first;
    await again();
    assert.deepEqual(joins()[0].info, { a: 1 });
    room.update(second);
    second.self = second;
    await again();
    assert.deepEqual(joins()[0].info, { a: 2 });
  });

  test("is said with the next join where only the answer was lost", async () => {
    const { room } = joined({}, { info: { a: 1 } });
    room.update({ a: 2 });
    await again();
    assert.deepEqual(joins()[0].info, { a: 2 });
  });
});

describe("without WebSockets", () => {
  const streamOf = async () => {
    const stream = requests.shift().stream();
    await stream.sends('event: open\ndata: {"id": "secret", "subprotocol": ""}\n\n');
    return stream;
  };

  test("joins go by POST, and what comes in one piece with the answer is the room's", async () => {
    const socket = connect({ fallback: true });
    const rooms = [socket.join("one"), socket.join("two")];
    const seen = watch(rooms[0]);
    last().ends();
    await clock.pass(500);
    last().ends();
    await clock.pass(1000);
    const stream = await streamOf();
    const post = requests.shift();
    const said = post.body.messages.map(({ text }) => JSON.parse(text));
    assert.deepEqual(said.map(({ join }) => join), ["one", "two"]);
    await post.answer(204);
    await stream.sends([
      { id: said[0].id, ok: { position: "e-1", recovered: true, missed: 0 } },
      { room: "one", position: "e-2", data: "hi" },
    ].map((message) => `event: message\ndata: ${JSON.stringify(message)}\n\n`).join(""));
    await settle();
    assert.deepEqual(seen.at(-1), ["message", "hi", { position: "e-2" }]);
    assert.deepEqual(rooms.map(({ state }) => state), ["joined", "joining"]);
  });
});
