import {
  connect, type Failure, type Member, type Room, type RoomState, type RoomType, type Socket,
  type State, type Why,
} from "dwebsocket";

const socket: Socket = connect(new URL("https://site.example/ws/"), {
  protocols: ["chat.v2"],
  resume: true,
  fallback: true,
  csrfToken: "token",
  positions: { "room-42": "epoch-7" },
});

connect(() => "/ws/", { protocols: async () => ["chat.v2"], beat: 30, text: true }).close();
connect(async () => new URL("https://site.example/ws/"), { protocols: "chat.v2", beat: 0 }).close();

const states: State[] = [];
const present = new Map<string, Member>();
socket.on("state", (state, why) => {
  states.push(state);
  if (why) console.log(why.code, why.reason, why.delay ?? 0, why.status === 404);
  if (state === "closed") console.log(why.code);
});
socket.on("state", (state: State, why?: Why) => console.log(state, why?.code));
const stop: () => void = socket.on("message", (data, { group, position }) => {
  const from: string = group ?? "";
  console.log(data, from, position?.length);
});
socket.on("recovered", ({ group, recovered, missed }) => recovered || console.log(group, missed + 1));
socket.on("joined", (member, group) => present.set(`${group} ${member.key}`, member));
socket.on("left", (member, group) => present.delete(`${group} ${member.key}`));

try {
  await socket.send("hi");
  await socket.send({ a: 1 });
  await socket.send(new Uint8Array(2));
  const { data } = await socket.request<{ total: number }>({ get: "total" }, { timeout: 5000 });
  console.log(data.total + 1);
} catch (error) {
  const failure = error as Failure;
  if (failure.name === "QueueFullError") console.log(failure.message);
}
const facts: [State, "websocket" | "sse" | "polling", string, string | undefined] = [
  socket.state, socket.transport, socket.protocol, socket.positions["room-42"],
];
console.log(facts, socket.bufferedAmount + 1);
stop();
socket.close();
socket.close(4000, "done");

// Rooms without types.
const plain: Room = socket.join("room-42", { position: null, info: { name: "Mia" } });
plain.on("message", (data, { position }) => console.log(data.text, position?.length));
plain.on("typing", (data, member) => console.log(data, member.connections[0]?.id));
const answer = await plain.emit("say", { text: "hi" }, { timeout: 5000 });
console.log(answer.id, plain.members.length, plain.name);
const maybe: string | undefined = socket.protocol || undefined;
socket.join("room-43", { position: maybe, info: { name: maybe } }).update({ name: maybe });
connect("/ws/", { csrfToken: maybe, protocols: maybe, beat: undefined, positions: undefined });
await socket.request("now?", { timeout: undefined });

// And with them.
type Rooms = {
  [name: `room-${number}`]: {
    message: { text: string };
    events: { typing: boolean; say: (data: { text: string }) => number };
    info: { name: string; typing: boolean };
  };
  bell: { message: { unread: number } };
};
const live = connect<Rooms>("/live/", { fallback: true });
const room = live.join("room-42");
const phases: RoomState[] = [room.state];
room.on("message", (data) => console.log(data.text.length));
room.on("typing", (data: boolean, member) => console.log(data, member.info?.name.length));
room.on("updated", (member) => console.log(member.info?.typing));
room.on("state", (state, why) => phases.push(state) && console.log(why?.code, why?.text?.length));
const others = room.members.flatMap(({ connections }) => connections);
console.log(others.map(({ id, info }) => `${id}: ${info?.name ?? "somebody"}`));
const known = connect<{ bell: RoomType, [name: `room-${number}`]: RoomType }>("/live/");
await known.join("room-7").emit("say", { text: "hi" });
console.log(known.join("bell").members[0]?.info?.name);
const show = (of: Socket, at: Room) => console.log(of.state, at.state);
show(live, room);
show(known, known.join("bell"));
room.on("recovered", ({ recovered, missed }) => recovered || console.log(missed + 1));
const said: number = await room.emit("say", { text: "hi" });
await room.emit("typing", true);
await room.update({ typing: true });
room.leave();
console.log(said, live.join("bell").on("message", ({ unread }) => console.log(unread + 1)));

// @ts-expect-error: no room has this name
live.join("rooms");
// @ts-expect-error: its data is a boolean
room.emit("typing", 1);
// @ts-expect-error: no event has this name
room.emit("typed", true);
// @ts-expect-error: others send no such event
room.on("typed", () => {});
// @ts-expect-error: nobody says this about himself
room.update({ nickname: "Mia" });
// @ts-expect-error: it can only be read
room.position = "e-1";

// @ts-expect-error: a member may have said nothing
room.members[0]?.info.name;
// @ts-expect-error: a connection may have said nothing
others[0]?.info.name;
// @ts-expect-error: a name is a text
room.update({ name: 1 });

// @ts-expect-error: no event has this name
socket.on("opened", () => {});
// @ts-expect-error: a state is a text
socket.on("state", (state: number) => {});
// @ts-expect-error: it can only be read
socket.state = "open";
// @ts-expect-error: JSON has no such value
socket.send(undefined);
// @ts-expect-error: a misspelt option
connect("/ws/", { resumes: true });
// @ts-expect-error: the answer is an object
const text: string = await socket.request("now?");
console.log(text);
