// Clients that come back, and what each of them saw: for Node and for a page.
//
// An entry of a client's log is one of
//   ["m", group, position, text]                     a message
//   ["r", group, position, recovered, missed]        it was told whether it has got everything; a loss
//                                                    in an open room has no position
//   ["s", state, milliseconds since 1970, code, transport]
const decoder = new TextDecoder();

// Publishers send texts, the same in JSON, and as bytes.
const textOf = (data) => (data instanceof Uint8Array ? decoder.decode(data) : data.is ?? data);

export const crowd = (connect, base, plans, options = {}) => {
  // Nobody has to wait for half a minute here.
  const random = Math.random;
  Math.random = () => random() * 0.15;
  const clients = plans.map(({ path, fallback, rooms }) => {
    const socket = connect(base + path, { ...options, resume: !rooms, fallback });
    const log = [];
    const marks = new Set();
    const take = (group, position, data) => {
      const text = textOf(data);
      log.push(["m", group, position, text]);
      if (text.startsWith("mark")) marks.add(text);
    };
    socket.on("state", (state, why) =>
      log.push(["s", state, Date.now(), why?.code ?? 0, socket.transport]));
    if (rooms) {
      const joined = rooms.map((name) => {
        const room = socket.join(name);
        let isNew = false;
        room.on("state", (state) => { isNew ||= state === "joined"; });
        room.on("message", (data, { position }) => take(name, position, data));
        room.on("recovered", ({ recovered, missed }) => {
          log.push(["r", name, isNew ? room.position : null, recovered, missed]);
          isNew = false;
        });
        return room;
      });
      const isJoined = () => joined.every((room) => room.state === "joined");
      return { socket, log, marks, groups: rooms, isJoined };
    }
    const groups = path.match(/\d+/g).map((number) => "room-" + number);
    socket.on("message", (data, { group, position }) => take(group, position, data));
    socket.on("recovered", ({ group, recovered, missed }) =>
      log.push(["r", group, socket.positions[group], recovered, missed]));
    const isJoined = () => groups.every((group) => group in socket.positions);
    return { socket, log, marks, groups, isJoined };
  });
  return {
    logs: () => clients.map(({ log }) => log),
    // How many know where they are in all their groups.
    joined: () => clients.filter(({ isJoined }) => isJoined()).length,
    // How many have these marks, by groups.
    have: (texts) => clients.filter(({ marks, groups }) =>
      groups.every((group) => marks.has(texts[group]))).length,
    // Where those are that have not.
    late: (texts) => clients
      .filter(({ marks, groups }) => !groups.every((group) => marks.has(texts[group])))
      .map(({ socket, log }) => [
        socket.state,
        socket.positions,
        log.filter(([kind]) => kind !== "m").slice(-12),
      ]),
    close: () => clients.forEach(({ socket }) => socket.close()),
  };
};
