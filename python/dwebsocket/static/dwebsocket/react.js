// Rooms as a hook of React: see docs/rooms.md.
import { useCallback, useEffect, useRef, useState } from "react";

const NONE = { messages: [], members: [], state: null };

export function useRoom(live, name, { position, info, limit = 1000 } = {}) {
  const [shown, show] = useState(NONE);
  const current = useRef(null);

  useEffect(() => {
    show(NONE);
    if (!live || !name) return;
    const room = (current.current = live.join(name, { position, info }));
    let messages = [];
    let why;
    const draw = () => show({ messages, members: room.members, state: room.state, why, room });
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

  const emit = useCallback((...values) => {
    const none = () => {
      const made = Promise.reject(Object.assign(new Error("no room"), { name: "RoomError", code: "left" }));
      made.catch(() => {}); // nobody has to await it
      return made;
    };
    return current.current?.emit(...values) ?? none();
  }, []);
  return { ...shown, emit };
}
