/**
 * The chat demo in the browser: a room, the pulse that each page listens to, and the shell's page.
 *
 * dwebsocket.js comes back by itself after a break, and gets what was missed. Everything that
 * somebody wrote goes into the page as text, never as markup.
 */
import { connect } from "../dwebsocket/dwebsocket.js";
import "./blocked.js";
import { describeDay, initial, shortTime, stored, store, time, tint } from "./looks.js";

const $ = (id) => document.getElementById(id);
const { page, room: here, group, position, name } = document.body.dataset;

// ---------------------------------------------------------------- the connection

const STATES = {
  connecting: ["connecting", "Connecting"],
  open: ["live", "Live"],
  waiting: ["waiting", "Reconnecting"],
  closed: ["closed", "Closed"],
};

/** Show the state of a socket. */
function showState(socket) {
  socket.on("state", (state) => {
    const [short, text] = STATES[state];
    $("state").textContent = text;
    Object.assign($("state").dataset, { state: short, transport: socket.transport });
  });
  // What a browser does when the network is back; the module takes it as a reason to try again.
  $("retry").onclick = () => dispatchEvent(new Event("online"));
}

// ---------------------------------------------------------------- the pulse

/** Follow the clock, how many are in each room, and how much is new there. */
function followPulse(describe) {
  const socket = connect($("pulse").href, { fallback: true });
  socket.on("message", ({ now, rooms }) => {
    $("clock").textContent = time(new Date(now));
    for (const link of document.querySelectorAll("a[data-room]")) {
      const { here: count, position } = rooms[link.dataset.room] ?? { here: 0 };
      link.querySelector("[data-count]").textContent = describe(count);
      link.querySelector("[data-count]").classList.toggle("busy", count > 0);
      const fresh = position && link.dataset.room !== here ? unread(link.dataset.room, position) : 0;
      link.querySelector("[data-unread]").textContent = `${fresh} new`;
      link.querySelector("[data-unread]").hidden = !fresh;
    }
  });
  return socket;
}

/** Count what was said in a room since this browser has looked: positions are numbered. */
function unread(room, position) {
  const seen = stored(`seen-${room}`);
  if (!seen) markSeen(room, position);
  const [[epoch, newest], [ours, last]] = [position, seen || position].map((each) => each.split("-"));
  return epoch === ours ? newest - last : Number(newest);
}

function markSeen(room, position) {
  store(`seen-${room}`, position);
}

// ---------------------------------------------------------------- the room

function startRoom() {
  const log = $("messages");
  const box = $("message");
  const socket = connect(location.pathname, {
    resume: true, fallback: true, positions: { [group]: position },
  });

  // ---- what is said

  const find = (key) => log.querySelector(`[data-key="${CSS.escape(key)}"]`);

  /** Add a message. One that was said twice, to be sure that it arrives, is there once. */
  function show({ key, author, text, at }) {
    if (find(key)) return;
    const article = $("message-template").content.cloneNode(true).firstElementChild;
    article.dataset.key = key;
    article.querySelector(".author").textContent = author;
    article.querySelector(".text").textContent = text;
    article.querySelector("time").dateTime = at;
    const follow = isAtEnd() || author === name;
    log.append(article);
    dress(article);
    stopTyping(author);
    $("empty").hidden = true;
    if (follow) toEnd();
    else $("to-end").hidden = false;
  }

  /** Give a message its colours and times, and leave out what the one before it says already. */
  function dress(article) {
    const author = article.querySelector(".author").textContent;
    const at = new Date(article.querySelector("time").dateTime);
    const before = article.previousElementSibling?.dataset ?? {};
    const isNewDay = before.day !== describeDay(at);
    Object.assign(article.dataset, { author, at: at.getTime(), day: describeDay(at) });
    article.querySelector("time").textContent = shortTime(at);
    article.querySelector(".avatar").textContent = initial(author);
    tint(article.querySelector(".avatar"), author);
    article.classList.toggle("own", author === name);
    article.classList.toggle("new-day", isNewDay);
    const soon = at - before.at < 5 * 60 * 1000;
    article.classList.toggle("follows", !isNewDay && soon && before.author === author);
  }

  const isAtEnd = () => log.scrollHeight - log.scrollTop - log.clientHeight < 80;

  function toEnd() {
    log.scrollTop = log.scrollHeight;
    $("to-end").hidden = true;
  }

  socket.on("message", (message, { position }) => {
    if (position) show(message);
    else if (message.here) showPeople(message);
    else if (message.typing) showTyping(message.typing);
    if (!document.hidden) markSeen(here, socket.positions[group]);
  });
  socket.on("recovered", ({ recovered }) => {
    $("hint-gap").hidden &&= recovered;
  });

  // ---- who is here

  const people = new Map(); // key -> name

  function showPeople({ here, worker }) {
    $("worker").textContent = `Served by process ${worker}`;
    people.clear();
    here.forEach(enter);
  }

  function enter({ key, info }) {
    // The others listen only.
    if (info.name) people.set(key, info.name);
    drawPeople();
  }

  function drawPeople() {
    $("people-count").textContent = people.size;
    $("people").replaceChildren(...[...people.values()].sort().map((who) => {
      const item = $("person-template").content.cloneNode(true).firstElementChild;
      item.querySelector(".avatar").textContent = initial(who);
      item.querySelector(".person").textContent = who;
      item.classList.toggle("self", who === name);
      tint(item.querySelector(".avatar"), who);
      return item;
    }));
  }

  socket.on("joined", enter);
  socket.on("left", ({ key }) => {
    people.delete(key);
    drawPeople();
  });

  // ---- who is typing

  const typing = new Map(); // name -> timer that takes it away

  function showTyping(who) {
    clearTimeout(typing.get(who));
    typing.set(who, setTimeout(stopTyping, 4000, who));
    drawTyping();
  }

  function stopTyping(who) {
    clearTimeout(typing.get(who));
    typing.delete(who);
    drawTyping();
  }

  function drawTyping() {
    const names = new Intl.ListFormat("en").format(typing.keys());
    $("typing").textContent = names && `${names} ${typing.size > 1 ? "are" : "is"} typing`;
  }

  // ---- saying something

  const unsure = []; // what was under way when a connection ended

  /** Say something. Without a connection it waits for the next one. */
  async function say(message) {
    try {
      // The answer is the receipt.
      await socket.request(message, { timeout: Infinity });
    } catch (error) {
      if (error.name === "ConnectionLostError") unsure.push(message);
      else box.value ||= message.text;
    }
  }

  // What came back has arrived, and what has not is said again, by the same key.
  socket.on("recovered", () => {
    for (const message of unsure.splice(0)) if (!find(message.key)) say(message);
  });

  let typingToldAt = 0;

  box.oninput = () => {
    fitBox();
    if (socket.state === "open" && box.value.trim() && Date.now() - typingToldAt > 2000) {
      typingToldAt = Date.now();
      socket.send({ typing: true });
    }
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
    if (!text) return;
    say({ key: crypto.randomUUID(), text });
    box.value = "";
    typingToldAt = 0;
    fitBox();
    box.focus();
  };

  function fitBox() {
    box.style.height = "auto";
    box.style.height = `${box.scrollHeight}px`;
    const left = box.maxLength - box.value.length;
    $("remaining").hidden = left > 100;
    $("remaining").textContent = `${left} left`;
  }

  if ($("rename")) {
    $("rename").onclick = () => {
      $("say-form").hidden = true;
      $("join-form").hidden = false;
      $("name").select();
    };
  }

  // ---- the page

  socket.on("state", (state) => {
    // Still away while a try is under way: the hint must not flicker with each of them.
    if (state === "connecting") return;
    $("hint-here").hidden = state !== "open";
    $("hint-away").hidden = state !== "waiting";
    // Another tab has taken another name, so this one must not go on by the former.
    $("hint-closed").hidden = state !== "closed";
  });
  $("to-end").onclick = toEnd;
  log.addEventListener("scroll", () => isAtEnd() && toEnd());
  document.addEventListener("visibilitychange", () => {
    if (!document.hidden) markSeen(here, socket.positions[group]);
  });
  log.querySelectorAll("article").forEach(dress);
  markSeen(here, position);
  fitBox();
  toEnd();
  // A taller box or an on-screen keyboard must not hide the last message from who was reading it.
  let wasAtEnd = true;
  log.addEventListener("scroll", () => { wasAtEnd = isAtEnd(); });
  new ResizeObserver(() => wasAtEnd && toEnd()).observe(log);
  return socket;
}

// ---------------------------------------------------------------- the shell's page

function startShell() {
  const socket = connect(location.pathname, { fallback: true });
  socket.on("message", (data) => {
    const line = document.createElement("li");
    line.textContent = typeof data === "string" ? data : JSON.stringify(data);
    $("lines").append(line);
    $("no-lines").hidden = true;
  });
  return socket;
}

// ---------------------------------------------------------------- start

for (const element of document.querySelectorAll(".avatar[data-name]")) {
  tint(element, element.dataset.name);
}
if (page === "lobby") {
  showState(followPulse((count) => (count ? `${count} here` : "quiet")));
} else {
  showState(page === "room" ? startRoom() : startShell());
  followPulse((count) => count || "");
}
