/**
 * The chat demo in the browser.
 *
 * keepOpen() holds one WebSocket open across server restarts; the lobby uses one (the pulse), a
 * room two (the pulse and the conversation), the shell's page two as well. Everything that came from somebody else goes into the
 * page as text, never as markup.
 */

const $ = (id) => document.getElementById(id);

// ---------------------------------------------------------------- connection

// Close codes after which trying again would only give the same answer: a normal end, a message
// that the server refuses, a room that is not there.
const FINAL = new Set([1000, 1002, 1003, 1007, 1008, 1009, 4404]);
const LONGEST_WAIT_S = 15;
const STEADY_AFTER_S = 5;

/**
 * Keep a WebSocket to `address()` open.
 *
 * Calls `onEvent(event)` for each message, as `read` makes it of the text, `onOpen()` after each connect, and
 * `onState(state, detail)` with "connecting", "live", "waiting" (detail: whole seconds left) or
 * "closed" (detail: the close code). Returns `send(object)`, which says whether the socket took
 * it, and `retry()`, which cuts a wait short.
 *
 * The wait doubles with each failure up to 15 s and is jittered, so that the browsers of a
 * restarted server do not all come back in the same instant.
 */
function keepOpen(address, { onEvent, onOpen = () => {}, onState = () => {}, read = JSON.parse }) {
  let socket = null;
  let failures = 0;
  let timer = null;

  function connect() {
    clearTimeout(timer);
    timer = null;
    onState("connecting");
    const scheme = location.protocol === "https:" ? "wss:" : "ws:";
    const current = new WebSocket(`${scheme}//${location.host}${address()}`);
    let openedAt = null;
    socket = current;
    current.onopen = () => {
      openedAt = performance.now();
      onState("live");
      onOpen();
    };
    current.onmessage = (event) => onEvent(read(event.data));
    current.onclose = (event) => {
      socket = null;
      if (FINAL.has(event.code)) {
        onState("closed", event.code);
        return;
      }
      // A server that accepts and drops at once must not be hammered: only a connection that
      // lasted counts as a success.
      const steady = openedAt !== null && performance.now() - openedAt > STEADY_AFTER_S * 1000;
      failures = steady ? 0 : failures + 1;
      wait();
    };
  }

  function wait() {
    const longest = Math.min(LONGEST_WAIT_S, 2 ** failures);
    const until = performance.now() + (longest / 2 + (Math.random() * longest) / 2) * 1000;
    (function tick() {
      const left = until - performance.now();
      if (left <= 0) {
        connect();
      } else {
        onState("waiting", Math.ceil(left / 1000));
        timer = setTimeout(tick, left % 1000 || 1000);
      }
    })();
  }

  function retry() {
    if (timer !== null) connect();
  }

  function send(event) {
    if (socket?.readyState !== WebSocket.OPEN) return false;
    socket.send(JSON.stringify(event));
    return true;
  }

  // The network is back, or somebody looks at the page again: no reason to wait any longer.
  addEventListener("online", retry);
  document.addEventListener("visibilitychange", () => document.hidden || retry());
  connect();
  return { send, retry };
}

function showState(state, detail) {
  const text = {
    connecting: "Connecting",
    live: "Live",
    waiting: `Reconnecting in ${detail} s`,
    closed: detail === 4404 ? "Closed: no such room" : "Closed",
  }[state];
  const element = $("state");
  // Written only on a change: a screen reader says each change aloud.
  if (element.textContent !== text) element.textContent = text;
  element.dataset.state = state;
  $("retry").hidden = state !== "waiting";
}

// ---------------------------------------------------------------- small things of both pages

const clockFormat = new Intl.DateTimeFormat("en-GB", { timeStyle: "medium" });
const timeFormat = new Intl.DateTimeFormat("en-GB", { timeStyle: "short" });
const dayFormat = new Intl.DateTimeFormat("en-GB", {
  weekday: "long", month: "long", day: "numeric",
});

/** Colour an avatar by its name: the same name has the same colour everywhere. */
function tint(element, name) {
  // FNV-1a, folded: short names that differ in a letter should not look alike.
  let hash = 0x811c9dc5;
  for (const char of name) hash = Math.imul(hash ^ char.codePointAt(0), 0x01000193);
  hash = Math.imul(hash ^ (hash >>> 15), 0x2c1b3c6d);
  element.style.setProperty("--hue", ((hash ^ (hash >>> 13)) >>> 0) % 24 * 15);
}

function initial(name) {
  return [...name][0]?.toUpperCase() ?? "?";
}

function dayName(date) {
  const start = (d) => new Date(d.getFullYear(), d.getMonth(), d.getDate());
  const days = Math.round((start(new Date()) - start(date)) / 86_400_000);
  return days === 0 ? "Today" : days === 1 ? "Yesterday" : dayFormat.format(date);
}

/**
 * Listen to the pulse: the clock, how many are in each room, and what is unread there.
 *
 * What was read is kept in the browser, for all of its windows; the server counts from there.
 */
function followPulse(onState, describe) {
  const here = document.body.dataset.room;
  const counted = new Map(); // room -> the last message that is in its count
  const unread = new Map();

  function showUnread(slug, count) {
    unread.set(slug, count);
    for (const place of document.querySelectorAll("a[data-room] [data-unread]")) {
      if (place.closest("[data-room]").dataset.room !== slug) continue;
      place.textContent = count ? `${count} new` : "";
      place.hidden = !count;
    }
  }

  function onUnread(rooms) {
    for (const [slug, { unread: count, last }] of Object.entries(rooms)) {
      counted.set(slug, last);
      if (!(slug in readUp())) markRead(slug, last);
      showUnread(slug, slug === here ? 0 : count);
    }
  }

  function onSaid({ room, id }) {
    if (room === here || id <= (counted.get(room) ?? 0)) return;
    counted.set(room, id);
    showUnread(room, (unread.get(room) ?? 0) + 1);
  }

  function onPulse({ now, rooms }) {
    const date = new Date(now);
    $("clock").textContent = clockFormat.format(date);
    $("clock").dateTime = date.toISOString();
    for (const place of document.querySelectorAll("a[data-room] [data-count]")) {
      const count = rooms[place.closest("[data-room]").dataset.room] ?? 0;
      place.textContent = describe(count);
      place.classList.toggle("busy", count > 0);
    }
  }

  function address() {
    const read = Object.entries(readUp()).map(([slug, id]) => ["read", `${slug}:${id}`]);
    return `${document.body.dataset.pulse}?${new URLSearchParams(read)}`;
  }

  return keepOpen(address, {
    onState,
    onEvent(event) {
      if (event.type === "pulse") onPulse(event);
      else if (event.type === "unread") onUnread(event.rooms);
      else if (event.type === "said") onSaid(event);
    },
  });
}

// ---------------------------------------------------------------- the room

const SAME_BREATH_MS = 5 * 60 * 1000;
const TYPING_AGAIN_MS = 2000;
const TYPING_FADES_MS = 5000;

function startRoom() {
  const log = $("messages");
  const box = $("message");
  const typing = new Map(); // name -> timer that takes it away
  const title = document.title;
  let name = "";
  let away = false; // was live or tried to be, and is not
  let lastId = 0;
  let peopleRevision = 0;
  let atEnd = true; // of the log, or close to it
  let unseen = 0;
  let sent = []; // said, and not yet seen to come back

  const room = keepOpen(() => `${location.pathname}?after=${lastId}`, {
    onState(state, detail) {
      showState(state, detail);
      $("send").disabled = state !== "live";
      // Still away while a try is under way: the hint must not flicker with each of them.
      if (state !== "connecting") away = state !== "live";
      showHint();
      if (state !== "live") {
        // A new connection may be to a new process, which counts from the start.
        peopleRevision = 0;
        for (const who of [...typing.keys()]) stopTyping(who);
      }
    },
    onOpen() {
      if (name) room.send({ type: "name", name });
    },
    onEvent(event) {
      if (event.type === "welcome") welcome(event);
      else if (event.type === "message") showMessages([event]);
      else if (event.type === "people") showPeople(event);
      else if (event.type === "typing") showTyping(event);
    },
  });

  function welcome({ history, people, revision, worker }) {
    $("worker").textContent = `Served by process ${worker}`;
    showMessages(history, { quiet: lastId === 0 });
    showPeople({ people, revision });
    // What was on its way when the line broke and never arrived goes back into the box.
    if (sent.length && !box.value) {
      box.value = sent.join("\n");
      fitBox();
    }
    sent = [];
  }

  // ---- messages

  function showMessages(messages, { quiet = false } = {}) {
    const follow = atEnd;
    let fresh = 0;
    let own = false;
    for (const message of messages) {
      if (log.querySelector(`[data-id="${message.id}"]`)) continue;
      insert(message);
      fresh += 1;
      lastId = Math.max(lastId, message.id);
      stopTyping(message.author);
      if (message.author === name) {
        own = true;
        const index = sent.indexOf(message.text);
        if (index >= 0) sent.splice(index, 1);
      }
    }
    $("empty").hidden = lastId > 0;
    if (!document.hidden) markRead(document.body.dataset.room, lastId);
    if (!fresh) return;
    if (follow || own || quiet) toEnd();
    else $("to-end").hidden = false;
    if (document.hidden && !quiet) {
      unseen += fresh;
      document.title = `(${unseen}) ${title}`;
    }
  }

  /** Put a message where its id belongs; two of them may arrive the wrong way round. */
  function insert({ id, author, text, at }) {
    const date = new Date(at);
    const article = $("message-template").content.cloneNode(true).firstElementChild;
    Object.assign(article.dataset, { id, author, at, day: dayName(date) });
    article.classList.toggle("own", author === name);
    const avatar = article.querySelector(".avatar");
    avatar.textContent = initial(author);
    tint(avatar, author);
    article.querySelector(".author").textContent = author;
    article.querySelector("time").textContent = timeFormat.format(date);
    article.querySelector("time").dateTime = date.toISOString();
    article.querySelector(".text").textContent = text;

    let before = log.lastElementChild;
    while (before?.dataset.id && Number(before.dataset.id) > id) {
      before = before.previousElementSibling;
    }
    before.after(article);
    group(article);
    group(article.nextElementSibling);
  }

  /** A message soon after one of the same author needs no name and no face of its own. */
  function group(article) {
    if (!article) return;
    const previous = article.previousElementSibling?.dataset ?? {};
    const { author, at, day } = article.dataset;
    const newDay = previous.day !== day;
    article.classList.toggle("new-day", newDay);
    article.classList.toggle(
      "follows",
      !newDay && previous.author === author && at - previous.at < SAME_BREATH_MS,
    );
  }

  function toEnd() {
    log.scrollTop = log.scrollHeight;
    $("to-end").hidden = true;
  }

  $("to-end").onclick = toEnd;
  log.addEventListener("scroll", () => {
    atEnd = log.scrollHeight - log.scrollTop - log.clientHeight < 80;
    if (atEnd) $("to-end").hidden = true;
  });
  // A taller box or an on-screen keyboard must not hide the last message from who was reading it.
  new ResizeObserver(() => atEnd && toEnd()).observe(log);
  document.addEventListener("visibilitychange", () => {
    unseen = 0;
    document.title = title;
    if (!document.hidden) markRead(document.body.dataset.room, lastId);
  });

  // ---- people

  function showPeople({ people, revision }) {
    if (revision <= peopleRevision) return;
    peopleRevision = revision;
    $("people-count").textContent = people.length;
    $("people").replaceChildren(
      ...people.map((who) => {
        const item = document.createElement("li");
        const avatar = document.createElement("span");
        avatar.className = "avatar small";
        avatar.textContent = initial(who);
        avatar.ariaHidden = "true";
        tint(avatar, who);
        const label = document.createElement("span");
        label.className = "person";
        label.textContent = who;
        item.append(avatar, label);
        item.classList.toggle("self", who === name);
        return item;
      }),
    );
    for (const who of [...typing.keys()]) if (!people.includes(who)) stopTyping(who);
  }

  function showTyping({ name: who, active }) {
    stopTyping(who);
    if (!active || who === name) return;
    typing.set(who, setTimeout(() => stopTyping(who), TYPING_FADES_MS));
    describeTyping();
  }

  function stopTyping(who) {
    if (!typing.has(who)) return;
    clearTimeout(typing.get(who));
    typing.delete(who);
    describeTyping();
  }

  function describeTyping() {
    const names = [...typing.keys()];
    $("typing").textContent =
      names.length === 0 ? ""
      : names.length === 1 ? `${names[0]} is typing`
      : names.length === 2 ? `${names[0]} and ${names[1]} are typing`
      : "Several people are typing";
  }

  // ---- joining

  function join(wanted, { focus = true } = {}) {
    // The same tidying as the server's, so that both know me by the same name.
    name = [...wanted.replace(/[\p{C}\p{Z}]+/gu, " ").trim()]
      .slice(0, $("name").maxLength).join("").trim();
    if (!name) return;
    remember(name);
    room.send({ type: "name", name });
    $("own-name").textContent = name;
    for (const article of log.querySelectorAll("article")) {
      article.classList.toggle("own", article.dataset.author === name);
    }
    showForm({ joined: true });
    if (focus) box.focus();
  }

  function showForm({ joined }) {
    $("join-form").hidden = joined;
    $("say-form").hidden = !joined;
    showHint();
    fitBox();
  }

  function showHint() {
    const joined = $("join-form").hidden;
    $("hint-away").hidden = !away;
    $("hint-join").hidden = away || joined;
    $("hint-say").hidden = away || !joined;
  }

  $("join-form").onsubmit = (event) => {
    event.preventDefault();
    join($("name").value);
  };

  $("rename").onclick = () => {
    $("name").value = name;
    showForm({ joined: false });
    $("name").select();
  };

  // ---- talking

  let typingSaidAt = null;

  function sayTyping(active) {
    const said = typingSaidAt !== null;
    const due = !said || performance.now() - typingSaidAt > TYPING_AGAIN_MS;
    if (active ? due : said) {
      room.send({ type: "typing", active });
      typingSaidAt = active ? performance.now() : null;
    }
  }

  function fitBox() {
    box.style.height = "auto";
    box.style.height = `${box.scrollHeight}px`;
    const left = box.maxLength - box.value.length;
    $("remaining").hidden = left > 100;
    $("remaining").textContent = `${left} left`;
  }

  box.oninput = () => {
    fitBox();
    sayTyping(box.value.trim() !== "");
  };

  box.onkeydown = (event) => {
    // Enter that ends an input method's composition is not meant for us.
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
      event.preventDefault();
      $("say-form").requestSubmit();
    }
  };

  $("say-form").onsubmit = (event) => {
    event.preventDefault();
    const text = box.value.trim();
    if (!text || !room.send({ type: "say", text })) return;
    sent.push(text);
    typingSaidAt = null;
    box.value = "";
    fitBox();
    box.focus();
  };

  $("retry").onclick = room.retry;
  const known = recall();
  $("name").value = known;
  if (known) join(known, { focus: matchMedia("(pointer: fine)").matches });
}

// Storage may be forbidden; the chat works without, it only forgets the name.
function remember(name) {
  try { localStorage.setItem("chat-name", name); } catch { /* forgotten, then */ }
}

function recall() {
  try { return localStorage.getItem("chat-name") ?? ""; } catch { return ""; }
}

/** The last message that was read, by room. */
function readUp() {
  try { return JSON.parse(localStorage.getItem("chat-read")) ?? {}; } catch { return {}; }
}

function markRead(slug, id) {
  const read = readUp();
  if (id <= (read[slug] ?? -1)) return;
  try {
    localStorage.setItem("chat-read", JSON.stringify({ ...read, [slug]: id }));
  } catch { /* counted anew each time, then */ }
}

// ---------------------------------------------------------------- the shell's page

function startShell() {
  const socket = keepOpen(() => location.pathname, {
    onState: showState,
    read: (data) => data,
    onEvent(data) {
      const line = document.createElement("li");
      line.textContent = typeof data === "string" ? data : `${data.size} bytes`;
      $("lines").append(line);
      $("no-lines").hidden = true;
    },
  });
  $("retry").onclick = socket.retry;
}

// ---------------------------------------------------------------- start

for (const element of document.querySelectorAll(".avatar[data-name]")) {
  tint(element, element.dataset.name);
}
if (document.body.dataset.page === "room") {
  startRoom();
  followPulse(() => {}, (count) => (count ? String(count) : ""));
} else if (document.body.dataset.page === "shell") {
  startShell();
  followPulse(() => {}, String);
} else {
  const pulse = followPulse(showState, (count) => (count ? `${count} here` : "quiet"));
  $("retry").onclick = pulse.retry;
}
