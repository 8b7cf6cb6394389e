// How does a backend look? Cells that are written only when they change, sparklines, and words for numbers and times.
// Text is only ever set as text: what a backend says of itself stays words.
"use strict";
const SECONDS = 60;
const STATES = ["UNREACHABLE", "EJECTED", "THROTTLED", "DRAINING", "PENDING", "HEALTHY"];
const SVG = "http://www.w3.org/2000/svg";

const make = (tag, className, text) => {
  const node = document.createElement(tag);
  if (className) node.className = className;
  if (text !== undefined) node.textContent = text;
  return node;
};
const drawn = (tag, attributes) => {
  const node = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  return node;
};
const put = (node, text) => { if (node.textContent !== text) node.textContent = text; };
const mark = (node, name, is) => { if (node.classList.contains(name) !== is) node.classList.toggle(name, is); };
const word = (state) => {
  const node = make("span", "word", state);
  node.dataset.state = state;
  return node;
};

const whole = new Intl.NumberFormat("en");
const count = (n) => n >= 1e6 ? `${(n / 1e6).toFixed(1)}M` : n >= 1e5 ? `${Math.round(n / 1e3)}k` : whole.format(Math.round(n));
const rate = (n) => n >= 100 ? count(n) : n === 0 ? "0" : n.toFixed(1);
const millis = (n) => n === null || n === undefined ? "–"
  : n >= 10000 ? `${(n / 1000).toFixed(0)} s` : n >= 1000 ? `${(n / 1000).toFixed(1)} s` : n >= 10 ? `${n.toFixed(0)} ms` : `${n.toFixed(1)} ms`;
const short = (n) => n >= 100 || Number.isInteger(n) ? n.toFixed(0) : n.toFixed(1);
const size = (n) => n >= 2 ** 30 ? `${short(n / 2 ** 30)} GiB` : n >= 2 ** 20 ? `${short(n / 2 ** 20)} MiB` : `${Math.round(n / 1024)} KiB`;
const span = (seconds) => {
  const s = Math.max(0, Math.round(seconds));
  if (s < 60) return `${s} s`;
  if (s < 3600) return `${Math.floor(s / 60)} min`;
  if (s < 86400) return `${Math.floor(s / 3600)} h ${Math.floor(s % 3600 / 60)} min`;
  return `${Math.floor(s / 86400)} d ${Math.floor(s % 86400 / 3600)} h`;
};
// Clocks differ: times are compared with the front door's, not with ours.
const ago = (time, now) => {
  const s = (now - Date.parse(time)) / 1000;
  return s < 2 ? "now" : `${span(s)} ago`;
};
const clock = (time) => new Date(time).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit", second: "2-digit", hour12: false });

// A line of the last minute, the latest at the right. A few seconds without an answer are bridged, more leave a gap.
const BRIDGE = 15;
function curve(values, width, height, highest) {
  const top = Math.max(highest, 1e-9);
  const step = width / (SECONDS - 1);
  const start = SECONDS - values.length;
  let line = "", area = "", open = -1, last = 0, seen = -BRIDGE - 1;
  const close = () => { if (open >= 0) area += `V${height}H${open.toFixed(1)}Z`; open = -1; };
  values.forEach((value, index) => {
    if (value === null || value === undefined) { close(); return; }
    const x = (start + index) * step, y = height - 1 - (value / top) * (height - 3);
    if (open < 0) {
      line += index - seen <= BRIDGE ? `L${x.toFixed(1)} ${y.toFixed(1)}` : `M${x.toFixed(1)} ${y.toFixed(1)}h.01`;
      area += `M${x.toFixed(1)} ${height}V${y.toFixed(1)}`;
      open = x;
    } else {
      line += `L${x.toFixed(1)} ${y.toFixed(1)}`;
      area += `L${x.toFixed(1)} ${y.toFixed(1)}`;
    }
    last = x;
    seen = index;
  });
  close();
  return { line, area, last };
}

const COLUMNS = [
  ["state", "State"], ["name-cell", "Backend"], ["weight", "Weight"], ["flight", "In flight"], ["rps", "Requests/s"],
  ["p50", "p50"], ["p95", "p95"], ["spark", "p95, last minute"], ["errors", "Errors/s"], ["healthy", "Last healthy"], ["quota", "Quota left"],
];

class Row {
  constructor(key, upstream) {
    this.key = key;
    this.upstream = upstream;
    this.seen = false;
    this.dirty = true;
    this.node = make("tr");
    this.node.tabIndex = -1;
    this.node.dataset.key = key;
    this.cells = {};
    for (const [name] of COLUMNS) {
      const cell = make("td", name);
      this.cells[name] = cell;
      this.node.append(cell);
    }
    this.word = make("span", "word");
    this.cells.state.append(this.word);
    this.name = make("span", "name");
    this.tag = make("span", "tag");
    this.note = make("span", "note");
    this.cells["name-cell"].append(this.name, this.tag, this.note);
    this.svg = drawn("svg", { viewBox: "0 0 108 22", "aria-hidden": "true" });
    this.area = drawn("path", { class: "area" });
    this.line = drawn("path", { class: "line" });
    this.svg.append(drawn("path", { class: "base", d: "M0 21.5H108" }), this.area, this.line);
    this.cells.spark.append(this.svg);
  }

  // Takes over everything that is known.
  take(data) {
    this.data = data;
    this.history = [...(data.history?.p95_ms ?? [])].slice(-SECONDS);
    this.requests = [...(data.history?.requests ?? [])].slice(-SECONDS);
    this.dirty = true;
  }

  // One second is over.
  tick() {
    this.history.push(this.data.last_second.p95_ms);
    this.requests.push(this.data.last_second.requests);
    if (this.history.length > SECONDS) { this.history.shift(); this.requests.shift(); }
    this.dirty = true;
  }

  note_of(now) {
    const it = this.data;
    if (it.state === "HEALTHY") return "";
    const parts = [];
    if (it.on_trial) parts.push("single requests try it");
    if (it.state_until) parts.push(`for ${span((Date.parse(it.state_until) - now) / 1000)}`);
    if (it.state === "DRAINING") parts.push(it.in_flight > 0 ? "finishing what it has" : "nothing in flight");
    else if (it.last_error) parts.push(it.last_error.what);
    return parts.join(", ");
  }

  draw(now) {
    this.dirty = false;
    const { data: it, cells } = this;
    if (this.node.dataset.state !== it.state) this.node.dataset.state = it.state;
    put(this.word, it.state);
    put(this.name, it.name);
    const tags = [];
    if (it.tier > 0) tags.push(`tier ${it.tier}`);
    if (it.source !== "file") tags.push({ discovery: "discovered", api: "added here", gone: "leaving" }[it.source]);
    if (it.changed.includes("drained")) tags.push("drained here");
    if (it.changed.includes("weight")) tags.push("weight changed");
    put(this.tag, tags.join(" · "));
    this.tag.hidden = tags.length === 0;
    const note = this.note_of(now);
    put(this.note, note);
    const title = note ? `${it.name}: ${note}` : it.name;
    if (cells["name-cell"].title !== title) cells["name-cell"].title = title;
    put(cells.weight, String(it.weight));
    put(cells.flight, it.max_in_flight === null ? count(it.in_flight) : `${count(it.in_flight)} / ${count(it.max_in_flight)}`);
    mark(cells.flight, "zero", it.in_flight === 0);
    put(cells.rps, rate(it.requests_per_second));
    mark(cells.rps, "zero", it.requests_per_second === 0);
    put(cells.p50, millis(it.p50_ms));
    put(cells.p95, millis(it.p95_ms));
    mark(cells.p50, "zero", it.p50_ms === null);
    mark(cells.p95, "zero", it.p95_ms === null);
    put(cells.errors, rate(it.errors_per_second));
    mark(cells.errors, "zero", it.errors_per_second === 0);
    mark(cells.errors, "failing", it.errors_per_second > 0);
    put(cells.healthy, it.state === "HEALTHY" ? "now" : it.last_healthy ? ago(it.last_healthy, now) : "never");
    mark(cells.healthy, "zero", it.state === "HEALTHY");
    put(cells.quota, it.quota ? `${count(it.quota.left)} of ${it.quota.quota}` : "–");
    mark(cells.quota, "low", Boolean(it.quota) && it.quota.left * 10 < it.quota.of);
    const highest = Math.max(...this.history.map((value) => value ?? 0), 0);
    const { line, area } = curve(this.history, 108, 21, highest);
    if (this.drawn_line !== line) {
      this.drawn_line = line;
      this.line.setAttribute("d", line);
      this.area.setAttribute("d", area);
    }
  }
}

class Section {
  constructor(name) {
    this.name = name;
    this.node = make("section", "upstream");
    const head = make("div", "upstream-head");
    this.title = make("h3");
    this.title.id = `upstream-${encodeURIComponent(name)}`;
    put(this.title, name);
    this.node.setAttribute("aria-labelledby", this.title.id);
    this.policy = make("span", "policy");
    this.facts = ["healthy", "requests/s", "errors/s", "p50", "p95", "in flight", "waiting"].map((label) => {
      const fact = make("span"), value = make("b");
      fact.append(value, ` ${label}`);
      return [label, fact, value];
    });
    head.append(this.title, this.policy, ...this.facts.map(([, fact]) => fact));
    const share = make("div", "share");
    this.bar = drawn("svg", { viewBox: "0 0 1000 4", preserveAspectRatio: "none", role: "img" });
    share.append(this.bar);
    this.rects = STATES.slice().reverse().map((state) => {
      const rect = drawn("rect", { height: 4, y: 0 });
      rect.dataset.state = state;
      this.bar.append(rect);
      return [state, rect];
    });
    this.table = make("table");
    const columns = make("colgroup"), headings = make("tr"), head_row = make("thead");
    for (const [name, label] of COLUMNS) {
      const column = make("col", `c-${name === "name-cell" ? "name" : name}${name === "quota" ? " quota" : ""}`);
      const heading = make("th", name, label);
      heading.scope = "col";
      columns.append(column);
      headings.append(heading);
    }
    head_row.append(headings);
    this.body = make("tbody");
    const caption = make("caption", "unseen", `Backends of ${name}`);
    this.table.append(caption, columns, head_row, this.body);
    const scroll = make("div", "scroll");
    scroll.append(this.table);
    this.node.append(head, share, scroll);
  }

  draw(data) {
    const states = Object.fromEntries(STATES.map((state) => [state, 0]));
    for (const backend of data.backends) states[backend.state] += 1;
    const all = data.backends.length;
    put(this.policy, data.balance.replaceAll("_", " "));
    const values = {
      healthy: `${states.HEALTHY} of ${all}`, "requests/s": rate(data.requests_per_second), "errors/s": rate(data.errors_per_second),
      p50: millis(data.p50_ms), p95: millis(data.p95_ms), "in flight": count(data.in_flight), waiting: data.waiting === null ? null : count(data.waiting),
    };
    for (const [label, fact, value] of this.facts) {
      fact.hidden = values[label] === null;
      put(value, values[label] ?? "");
      if (label === "errors/s") mark(value, "failing", data.errors_per_second > 0);
    }
    let x = 0;
    const said = [];
    for (const [state, rect] of this.rects) {
      const width = all ? states[state] / all * 1000 : 0;
      rect.setAttribute("x", x.toFixed(1));
      rect.setAttribute("width", Math.max(0, width - (states[state] === all ? 0 : 1)).toFixed(1));
      x += width;
      if (states[state]) said.push(`${states[state]} ${state}`);
    }
    this.bar.setAttribute("aria-label", said.join(", ") || "no backends");
    mark(this.table, "no-quota", !data.backends.some((backend) => backend.quota));
  }
}
