// The charts of the page about WebSockets in Django's admin. The page itself works without them.

const script = document.getElementById("ws-script");
const data = JSON.parse(document.getElementById("ws-data").textContent);
// A text in the language of the page, with `value` in its place.
const told = (text, value) => (data.texts[text] ?? text).replace("{}", value);
const SVG = "http://www.w3.org/2000/svg";
const WIDTH = 300, HEIGHT = 120, TOP = 14;

// Each chart: its title, its fields with their names, and whether a value is for each second.
const CHARTS = [
  { title: "Open", lines: [["open", "open"]], isRate: false },
  { title: "Handshakes and ends a second", lines: [["opened", "opened"], ["refused", "refused"], ["closed", "closed"]] },
  { title: "Messages a second", lines: [["messages_in", "in"], ["messages_out", "out"], ["dropped", "dropped"]] },
  { title: "Bytes a second", lines: [["bytes_in", "in"], ["bytes_out", "out"]], isBytes: true },
];

const samples = new Map(data.samples.map((sample) => [sample[0], sample]));
let now = data.now;

function element(parent, name, attributes = {}, text = "") {
  const made = name === "svg" || parent.namespaceURI === SVG
    ? document.createElementNS(SVG, name) : document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.textContent = text;
  parent.append(made);
  return made;
}

function short(value, isBytes) {
  const step = isBytes ? 1024 : 1000;
  let unit = 0;
  while (value >= step && unit < 4) { value /= step; unit += 1; }
  const digits = value === 0 || value >= 100 || (unit === 0 && Number.isInteger(value)) ? 0 : 1;
  return value.toFixed(digits) + ["", "k", "M", "G", "T"][unit] + (isBytes ? "B" : "");
}

// The lowest round number that is not below `value`.
function ceiling(value, isBytes) {
  if (value <= 1) return 1;
  const unit = isBytes ? 1024 ** Math.floor(Math.log(value) / Math.log(1024)) : 1;
  const power = unit * 10 ** Math.floor(Math.log10(value / unit));
  return [1, 2, 5, 10].find((step) => step * power >= value) * power;
}

class Chart {
  constructor(parent, { title, lines, isRate = true, isBytes = false }) {
    this.lines = lines.map(([field]) => data.fields.indexOf(field) + 1);
    this.scale = isRate ? 1 / data.slot_s : 1;
    this.isBytes = isBytes;
    const figure = element(parent, "figure");
    const caption = element(figure, "figcaption");
    element(caption, "strong", {}, told(title));
    const legend = element(caption, "span", { class: "ws-legend" });
    this.values = lines.map(([, name], index) => {
      const entry = element(legend, "span", { class: `ws-name-${index}` }, `${told(name)} `);
      return element(entry, "b");
    });
    const svg = element(figure, "svg", {
      viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", role: "img", "aria-label": told(title),
    });
    for (const y of [TOP, HEIGHT - 1]) {
      element(svg, "line", { class: "ws-grid", x1: 0, x2: WIDTH, y1: y, y2: y });
    }
    this.paths = lines.map((_, index) => element(svg, "path", { class: `ws-line-${index}` }));
    const axis = element(figure, "div", { class: "ws-axis" });
    element(axis, "span", {}, told("{} min ago", Math.round(data.kept * data.slot_s / 60)));
    this.top = element(axis, "span");
    element(axis, "span", {}, told("now"));
  }

  draw() {
    const first = now - data.kept + 1;
    const columns = this.lines.map((column) => {
      const values = [];
      for (let slot = first; slot <= now; slot += 1) {
        const sample = samples.get(slot);
        values.push(sample === undefined ? null : sample[column] * this.scale);
      }
      return values;
    });
    const highest = ceiling(Math.max(0, ...columns.flat()), this.isBytes);
    this.top.textContent = told("top {}", short(highest, this.isBytes));
    columns.forEach((values, index) => {
      let path = "", isDown = false;
      values.forEach((value, place) => {
        if (value === null) { isDown = false; return; }
        const x = (place / (data.kept - 1)) * WIDTH;
        const y = HEIGHT - 1 - (value / highest) * (HEIGHT - 1 - TOP);
        path += `${isDown ? "L" : "M"}${x.toFixed(1)} ${y.toFixed(1)}`;
        isDown = true;
      });
      this.paths[index].setAttribute("d", path);
      const last = values[values.length - 1];
      this.values[index].textContent = last === null ? "–" : short(last, this.isBytes);
    });
  }
}

const charts = CHARTS.map((chart) => new Chart(document.getElementById("ws-charts"), chart));
const draw = () => charts.forEach((chart) => chart.draw());
draw();

function take(message) {
  if (message.problem !== undefined) return show("closed", message.problem);
  now = message.slot;
  for (const sample of message.samples) samples.set(sample[0], sample);
  for (const slot of samples.keys()) if (slot <= now - data.kept) samples.delete(slot);
  const last = samples.get(now);
  if (last !== undefined) {
    document.getElementById("ws-open").textContent = last[1].toLocaleString("en");
  }
  show("open", message.missing ? told("live, {} processes missing", message.missing) : told("live"));
  draw();
}

const state = document.getElementById("ws-live");
function show(name, text) {
  state.dataset.state = name;
  state.textContent = told("Charts: {}", text);
}

for (const form of document.querySelectorAll("form[data-confirm]")) {
  form.addEventListener("submit", (event) => {
    if (!window.confirm(form.dataset.confirm)) event.preventDefault();
  });
}

const { connect } = await import(script.dataset.client);
const socket = connect(script.dataset.live);
socket.on("message", take);
socket.on("state", (name, why) => {
  if (name === "closed") show("closed", told("ended: {}", (why && why.reason) || told("reload the page")));
  if (name === "waiting") show("waiting", told("waiting for the server"));
});
