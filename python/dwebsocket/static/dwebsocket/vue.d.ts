/** Rooms as a composable of Vue. See docs/rooms.md. */
import type { MaybeRefOrGetter, ShallowRef } from "vue";
import type { JoinOptions, MessageOf, Room, RoomState, RoomWhy, Socket } from "./dwebsocket.js";

export interface UseRoomOptions<Type = any> extends JoinOptions<Type> {
  /** The newest messages that are kept (1,000). */
  limit?: number | undefined;
}

export interface RoomView<Type = any> {
  /** Those that have come since the room was joined here. */
  messages: ShallowRef<MessageOf<Type>[]>;
  members: ShallowRef<Room<Type>["members"]>;
  /** null: there is no room, or not yet. */
  state: ShallowRef<RoomState | null>;
  /** Why, for "waiting", "refused" and "ended". */
  why: ShallowRef<RoomWhy | undefined>;
  /** For handlers and `update`; null as the state is. */
  room: ShallowRef<Room<Type> | null>;
  /** As of the room; rejects with the code "left" where there is none. */
  emit: Room<Type>["emit"];
}

/**
 * Joins a room once the component is mounted, and leaves it with it. Joins another one when the name changes.
 *
 * @param live What `connect` gives; one for the whole page, made in a module of its own. null is no room.
 * @param name The room's name, as text, ref or getter; null is no room.
 * @param options As of `join`.
 */
export function useRoom<Rooms, Name extends Extract<keyof Rooms, string>>(
  live: Socket<Rooms> | null | undefined,
  name: MaybeRefOrGetter<Name | null | undefined>,
  options?: UseRoomOptions<Rooms[Name]>,
): RoomView<Rooms[Name]>;
