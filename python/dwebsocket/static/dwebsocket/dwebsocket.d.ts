/** A WebSocket that comes back by itself. See docs/client.md. */

/** Text in JSON that is an object or a list arrives as such, other text as a string. */
export type Data = any;

/** "waiting": a connection has ended, and the next one is tried in a while. */
export type State = "connecting" | "open" | "waiting" | "closed";

export type Transport = "websocket" | "sse" | "polling";

/** A value, or a function that gives it, asked anew for each attempt. */
export type Given<T> = T | (() => T | Promise<T>);

export interface Options {
  /** Subprotocols to offer. */
  protocols?: Given<string | string[]> | undefined;
  /**
   * Seconds between two signs of life by the server, 10 to 300 (20); 0 for none. Where nothing comes for one
   * and a half times as long, the connection is over.
   */
  beat?: number | undefined;
  /** JSON stays a text. */
  text?: boolean | undefined;
  /** Comes back with the position in each group; for views with `resume=True`. */
  resume?: boolean | undefined;
  /** With `resume`: leaves out missed messages that exclude the connection before this one. */
  former?: boolean | undefined;
  /** Uses HTTP where WebSockets do not open; for views with `fallback=True`. */
  fallback?: boolean | undefined;
  /** For the POSTs of the fallback; else, on the page's own host, the cookie `csrftoken`. */
  csrfToken?: string | undefined;
  /** Positions that the page was rendered with: `{"room-42": "epoch-offset"}`. */
  positions?: Record<string, string> | undefined;
}

/** Why a connection has ended. */
export interface Why {
  code: number;
  reason: string;
  /** Milliseconds until the next attempt; not there when it is closed for good. */
  delay?: number;
  /** 404 or 410, if that has ended it. */
  status?: number;
}

/** Where a message comes from; empty for one that is not of a numbered group. */
export interface Origin {
  group?: string;
  position?: string;
}

export interface Recovered {
  group: string;
  /** False: messages are missing, and the page has to load its state anew. */
  recovered: boolean;
  missed: number;
}

export interface Member<Info = Data> {
  key: string;
  user: string | null;
  /** null where no connection of the user has one. */
  info: Info | null;
  since: string;
  /** Those of the user: 7 KB of them at most, none within the grace. */
  connections: { id: string; info: Info | null }[];
}

export interface Events {
  /** A text, an object or list that came as JSON, or bytes. */
  message: (data: Data, origin: Origin) => void;
  state: (
    ...told: [state: "connecting" | "open", why: undefined] | [state: "waiting" | "closed", why: Why]
  ) => void;
  recovered: (recovered: Recovered) => void;
  /** A user has joined a group with presence. Like `left` it needs no `resume`. */
  joined: (member: Member, group: string) => void;
  left: (member: Member, group: string) => void;
}

/** What `send`, `request`, and `emit` of a room reject with. */
export interface Failure extends Error {
  /** Of "RoomError": "denied", "unknown", "invalid", "limit", "unavailable", "failed", "evicted", "left" or "closed". */
  code: string;
  name:
    | "RoomError"
    | "ClosedError"
    | "QueueFullError"
    | "RefusedError"
    | "ConnectionLostError"
    | "TimeoutError";
}

export interface Answer<T = Data> {
  id: number;
  data: T;
}

/** Text, bytes, or a value that becomes JSON. */
export type Message = string | ArrayBuffer | ArrayBufferView | object | number | boolean | null;

/** "refused", "ended" and "left" are final: `join` gives a new room. */
export type RoomState = "joining" | "joined" | "waiting" | "refused" | "ended" | "left";

/** Why a room is in its state. */
export interface RoomWhy {
  /** For "waiting" that of the connection's close, or "unavailable"; else as of {@link Failure}. */
  code: number | string;
  /** What the server says beside it. */
  text?: string;
  /** For "waiting", as of {@link Why}. */
  reason?: string;
  delay?: number;
}

/**
 * What a room is about, where nothing more is said: for
 * `connect<{ bell: RoomType, [name: `room-${number}`]: RoomType }>("/live/")`.
 *
 * `events` has the data of each event; one that the server acknowledges is a function, from its data to the
 * acknowledgement: `say: (data: { text: string }) => number`.
 */
export interface RoomType {
  message?: Data;
  events?: Record<string, Data>;
  info?: Data;
}

type Of<Type, Key, Else = Data> = Key extends keyof Type ? NonNullable<Type[Key]> : Else;
/** Some of it, as JSON leaves out what is undefined. */
type Part<Info> = { [Key in keyof Info]?: Info[Key] | undefined };
type Sent<Event> = Event extends (data: infer D) => unknown ? D : Event;
type Acknowledged<Event> = Event extends (data: never) => infer A ? Awaited<A> : Data;
type EventsOf<Type> = Of<Type, "events", Record<string, Data>>;
/** What `message` handlers of a room get. */
export type MessageOf<Type> = Of<Type, "message">;
type NameOf<Events> = Extract<keyof Events, string>;

export interface RoomEvents<Type = any> {
  message: (data: Of<Type, "message">, origin: { position: string | null }) => void;
  state: (
    ...told:
      | [state: "joining" | "joined", why: undefined]
      | [state: "waiting" | "refused" | "ended" | "left", why: RoomWhy]
  ) => void;
  /** Behind each join; false: messages are missing, and the page has to load its state anew. */
  recovered: (recovered: { recovered: boolean; missed: number }) => void;
  joined: (member: Member<Of<Type, "info">>) => void;
  left: (member: Member<Of<Type, "info">>) => void;
  updated: (member: Member<Of<Type, "info">>) => void;
}

export interface Room<Type = any> {
  readonly name: string;
  readonly state: RoomState;
  /** Those that are present; at most 100 of those that were there before, and all that came later. */
  readonly members: Member<Of<Type, "info">>[];
  /** The last position; null in a room without a history. */
  readonly position: string | null;
  /** Calls `handler` for each event; the result ends that. */
  on<Name extends keyof RoomEvents<Type>>(name: Name, handler: RoomEvents<Type>[Name]): () => void;
  /** An event of another page. */
  on<Name extends Exclude<NameOf<EventsOf<Type>>, keyof RoomEvents>>(
    name: Name,
    handler: (data: Sent<EventsOf<Type>[Name]>, member: Member<Of<Type, "info">>) => void,
  ): () => void;
  /**
   * Sends an event, and resolves with the acknowledgement.
   *
   * Rejects with RoomError and its code when the server refuses it or the room is "refused", "ended" or
   * "left", else as `request` does.
   */
  emit<Name extends NameOf<EventsOf<Type>>>(
    event: Name,
    data?: Sent<EventsOf<Type>[Name]>,
    options?: { timeout?: number | undefined },
  ): Promise<Acknowledged<EventsOf<Type>[Name]>>;
  /** Says what others see of this connection, in place of what was said before. Rejects as `emit` does. */
  update(info: Part<Of<Type, "info", object>>): Promise<object>;
  /** Leaves it, if all that have joined it here have left. */
  leave(): void;
}

export interface JoinOptions<Type = any> {
  /** The position from which on messages are missing here. */
  position?: string | null | undefined;
  /** What others see of this connection, beside what the server says. */
  info?: Part<Of<Type, "info", object>> | undefined;
}

export interface Socket<Rooms = any> {
  /** Calls `handler` for each event; the result ends that. */
  on<Name extends keyof Events>(name: Name, handler: Events[Name]): () => void;
  /**
   * Sends a message, as soon as there is a connection and never twice. Resolves when the message was
   * handed to an open connection of which less than 1 MiB waits in the browser.
   *
   * Rejects with ClosedError, with QueueFullError when 1,000 messages wait or 16 MiB, and with RefusedError when
   * the server refuses a POST of the fallback.
   */
  send(message: Message): Promise<void>;
  /**
   * Sends `{"id": n, "data": data}`, where n is random, and resolves with the message that has the same id,
   * and data.
   *
   * Rejects as `send` does, with TimeoutError after `timeout` milliseconds (10,000), and with
   * ConnectionLostError when the connection that was asked ends.
   */
  request<T = Data>(data: Data, options?: { timeout?: number | undefined }): Promise<Answer<T>>;
  /**
   * Joins a room, and joins it again after each break. Several joins of one name give one room, with the
   * options of the first.
   */
  join<Name extends Extract<keyof Rooms, string>>(
    name: Name,
    options?: JoinOptions<Rooms[Name]>,
  ): Room<Rooms[Name]>;
  /**
   * Closes for good, with 1000 or a code of 3000 to 4999. What waits to be sent is rejected.
   *
   * Throws as that of a WebSocket where no page may say this: InvalidAccessError, or SyntaxError when the reason has
   * more than 123 bytes.
   */
  close(code?: number, reason?: string): void;
  readonly state: State;
  readonly transport: Transport;
  /** The subprotocol that was agreed, or "". */
  readonly protocol: string;
  /** The last position in each numbered group. */
  readonly positions: Record<string, string>;
  /** Bytes that wait to be sent, here and in the browser. */
  readonly bufferedAmount: number;
}

/**
 * Connects, and goes on connecting until `close()`, until the server closes with 4401, or with 1008 before anything
 * has come, or until it answers with 404 or 410.
 *
 * @param url Absolute, or relative to the page; its scheme may be http(s) or ws(s).
 */
export function connect<Rooms = any>(url: Given<string | URL>, options?: Options): Socket<Rooms>;
