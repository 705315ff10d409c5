// Rooms as a hook of React: see docs/rooms.md.
import { useCallback, useEffect, useRef, useState } from "react";

const NONE = { messages: [], members: [], state: null };

export function useRoom(live, name, { position, info, limit = 1000 } = {}) {
  const [{ of, ...shown }, show] = useState(NONE);
  const current = useRef(null);

  useEffect(() => {
    if (!live || !name) return show(NONE);
    const room = live.join(name, { position, info });
    const of = (current.current = { live, name, room });
    let messages = [];
    let why;
    const draw = () => show({ of, messages, members: room.members, state: room.state, why, room });
    const stops = ["joined", "left", "updated"].map((event) => room.on(event, draw));
    stops.push(
      room.on("message", (data) => {
        messages = limit ? [...messages, data].slice(-limit) : [];
        draw();
      }),
      room.on("state", (state, reason) => {
        why = reason;
        draw();
      }),
    );
    draw();
    return () => {
      current.current = null;
      for (const stop of stops) stop();
      room.leave();
    };
  }, [live, name]);

  // Effects run after a render: until then the state is that of the room before, and is not shown.
  const isOf = (its) => its?.live === live && its.name === name;
  const emit = useCallback((...values) => {
    const none = () => {
      const made = Promise.reject(Object.assign(new Error("no room"), { name: "RoomError", code: "left" }));
      made.catch(() => {}); // not awaited, it ends no process of Node
      return made;
    };
    return isOf(current.current) ? current.current.room.emit(...values) : none();
  }, [live, name]);
  return { ...(isOf(of) ? shown : NONE), emit };
}
