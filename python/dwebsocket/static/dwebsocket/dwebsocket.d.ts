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
  protocols?: Given<string | string[]>;
  /**
   * Seconds between two signs of life by the server, 10 to 300 (20); 0 for none. Where nothing comes for one
   * and a half times as long, the connection is over.
   */
  beat?: number;
  /** JSON stays a text. */
  text?: boolean;
  /** Comes back with the position in each group; for views with `resume=True`. */
  resume?: boolean;
  /** With `resume`: leaves out missed messages that exclude the connection before this one. */
  former?: boolean;
  /** Uses HTTP where WebSockets do not open; for views with `fallback=True`. */
  fallback?: boolean;
  /** For the POSTs of the fallback; else it is the cookie `csrftoken`. */
  csrfToken?: string;
  /** Positions that the page was rendered with: `{"room-42": "epoch-offset"}`. */
  positions?: Record<string, string>;
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

export interface Member {
  key: string;
  user: string | null;
  info: Data;
  since: string;
}

export interface Events {
  /** A text, an object or list that came as JSON, or bytes. */
  message: (data: Data, origin: Origin) => void;
  /** `why` is there for "waiting" and "closed". */
  state: (state: State, why?: Why) => void;
  recovered: (recovered: Recovered) => void;
  /** A user has joined a group with presence. Like `left` it needs no `resume`. */
  joined: (member: Member, group: string) => void;
  left: (member: Member, group: string) => void;
}

/** What `send` and `request` reject with. */
export interface Failure extends Error {
  name:
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

export interface Socket {
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
  request<T = Data>(data: Data, options?: { timeout?: number }): Promise<Answer<T>>;
  /** Closes for good. What waits to be sent is rejected. */
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
export function connect(url: Given<string | URL>, options?: Options): Socket;
