/** Rooms as a hook of React. See docs/rooms.md. */
import type { JoinOptions, MessageOf, Room, RoomState, RoomWhy, Socket } from "./dwebsocket.js";

export interface UseRoomOptions<Type = any> extends JoinOptions<Type> {
  /** The newest messages that are kept (1,000). */
  limit?: number | undefined;
}

export interface RoomView<Type = any> {
  /** Those that have come since the component is there. */
  messages: MessageOf<Type>[];
  members: Room<Type>["members"];
  /** null: there is no room, or not yet. */
  state: RoomState | null;
  /** Why, for "waiting", "refused" and "ended". */
  why?: RoomWhy;
  /** For handlers and `update`; there behind the first effect. */
  room?: Room<Type>;
  /** As of the room; rejects with the code "left" where there is none. */
  emit: Room<Type>["emit"];
}

/**
 * Joins a room while the component is there, and leaves it with it. Joins another one when the name changes.
 *
 * @param live What `connect` gives; one for the whole page, made in a module of its own. null is no room.
 * @param name The room's name; null is no room.
 * @param options Those of the first rendering with this name count.
 */
export function useRoom<Rooms, Name extends Extract<keyof Rooms, string>>(
  live: Socket<Rooms> | null | undefined,
  name: Name | null | undefined,
  options?: UseRoomOptions<Rooms[Name]>,
): RoomView<Rooms[Name]>;
