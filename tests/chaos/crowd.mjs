// Clients that come back, and what each of them saw: for Node and for a page.
//
// An entry of a client's log is one of
//   ["m", group, position, text]                     a message
//   ["r", group, position, recovered, missed]        it was told whether it has got everything
//   ["s", state, milliseconds since 1970, code, transport]
const decoder = new TextDecoder();

// Publishers send texts, the same in JSON, and as bytes.
const textOf = (data) => (data instanceof Uint8Array ? decoder.decode(data) : data.is ?? data);

export const crowd = (connect, base, plans, options = {}) => {
  // Nobody has to wait for half a minute here.
  const random = Math.random;
  Math.random = () => random() * 0.15;
  const clients = plans.map(({ path, fallback }) => {
    const socket = connect(base + path, { ...options, resume: true, fallback });
    const log = [];
    const marks = new Set();
    socket.on("message", (data, { group, position }) => {
      const text = textOf(data);
      log.push(["m", group, position, text]);
      if (text.startsWith("mark")) marks.add(text);
    });
    socket.on("recovered", ({ group, recovered, missed }) =>
      log.push(["r", group, socket.positions[group], recovered, missed]));
    socket.on("state", (state, why) =>
      log.push(["s", state, Date.now(), why?.code ?? 0, socket.transport]));
    return { socket, log, marks, groups: path.match(/\d+/g).map((number) => "room-" + number) };
  });
  return {
    logs: () => clients.map(({ log }) => log),
    // How many know where they are in all their groups.
    joined: () => clients.filter(({ socket, groups }) =>
      groups.every((group) => group in socket.positions)).length,
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
