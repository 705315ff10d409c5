// Rooms as a composable of Vue: see docs/rooms.md.
import { getCurrentInstance, onMounted, shallowRef, toValue, watch } from "vue";

export function useRoom(live, name, { position, info, limit = 1000 } = {}) {
  const messages = shallowRef([]);
  const members = shallowRef([]);
  const state = shallowRef(null);
  const why = shallowRef();
  const room = shallowRef(null);

  const enter = (wanted, _, onCleanup) => {
    [messages.value, members.value, state.value, why.value, room.value] = [[], [], null, undefined, null];
    if (!live || !wanted) return;
    const own = (room.value = live.join(wanted, { position, info }));
    const draw = () => {
      members.value = own.members;
      state.value = own.state;
    };
    const stops = ["joined", "left", "updated"].map((event) => own.on(event, draw));
    stops.push(
      own.on("message", (data) => {
        messages.value = limit ? [...messages.value, data].slice(-limit) : [];
      }),
      own.on("state", (_, reason) => {
        why.value = reason;
        draw();
      }),
    );
    draw();
    onCleanup(() => {
      for (const stop of stops) stop();
      own.leave();
    });
  };
  // A component draws first what the server has drawn, without a room.
  const component = getCurrentInstance();
  const isReady = shallowRef(!component || component.isMounted);
  if (!isReady.value) onMounted(() => (isReady.value = true));
  // At once: until a later flush calls would go to the room before.
  watch(() => isReady.value && toValue(name), enter, { immediate: true, flush: "sync" });

  const emit = (...values) => {
    const none = () => {
      const made = Promise.reject(Object.assign(new Error("no room"), { name: "RoomError", code: "left" }));
      made.catch(() => {}); // not awaited, it ends no process of Node
      return made;
    };
    return room.value?.emit(...values) ?? none();
  };
  return { messages, members, state, why, room, emit };
}
