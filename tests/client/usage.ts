import { connect, type Failure, type Member, type Socket, type State } from "dwebsocket";

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
});
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
