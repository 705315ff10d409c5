/** Colours, times, and what the browser remembers. */

const formats = {
  clock: new Intl.DateTimeFormat("en-GB", { timeStyle: "medium" }),
  short: new Intl.DateTimeFormat("en-GB", { timeStyle: "short" }),
  day: new Intl.DateTimeFormat("en-GB", { weekday: "long", month: "long", day: "numeric" }),
};

export const time = (date) => formats.clock.format(date);
export const shortTime = (date) => formats.short.format(date);
export const initial = (name) => [...name][0]?.toUpperCase() ?? "?";

export function describeDay(date) {
  const start = (day) => new Date(day.getFullYear(), day.getMonth(), day.getDate());
  const days = Math.round((start(new Date()) - start(date)) / 86_400_000);
  return ["Today", "Yesterday"][days] ?? formats.day.format(date);
}

/** Colour an avatar by its name: the same name has the same colour everywhere. */
export function tint(element, name) {
  // FNV-1a, folded: short names that differ in a letter should not look alike.
  let hash = 0x811c9dc5;
  for (const char of name) hash = Math.imul(hash ^ char.codePointAt(0), 0x01000193);
  hash = Math.imul(hash ^ (hash >>> 15), 0x2c1b3c6d);
  element.style.setProperty("--hue", (((hash ^ (hash >>> 13)) >>> 0) % 24) * 15);
}

// Storage may be forbidden; the chat works without, and counts nothing as new then.
export function stored(key) {
  try { return localStorage.getItem(`chat-${key}`); } catch { return null; }
}

export function store(key, value) {
  try { localStorage.setItem(`chat-${key}`, value); } catch { /* forgotten, then */ }
}
