/**
 * Shows what happens in a network that blocks WebSockets: open a page with `?websocket=off`, and
 * with `?websocket=on` to end it. The tab remembers it.
 */

/** A WebSocket that never opens, as the browser's own behind such a proxy. */
class Blocked extends EventTarget {
  constructor() {
    super();
    setTimeout(() => this.onclose?.({ code: 1006, reason: "" }));
  }

  close() {}
}

try {
  const choice = new URLSearchParams(location.search).get("websocket");
  if (choice) sessionStorage.setItem("chat-websocket", choice);
  if (sessionStorage.getItem("chat-websocket") === "off") globalThis.WebSocket = Blocked;
} catch { /* Storage is forbidden: the browser's own WebSocket, then. */ }
