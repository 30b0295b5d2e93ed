// The page's one socket: says what the page shows, drops what is older, follows new rows, and keeps the badge honest.
//
// Elements carry data-live="<name>:<id>" data-rev="…". After each connect and swap, and every five seconds, the page sends
// these pairs and gets what is newer: first paint, reconnect, overflow and resume are one path. The server sends
// <hx-partial>s, which htmx swaps, and JSON: {mode}, {newer, count}, {rows, content, …}, {stale}, {topic, message}.
import { selecting } from "./select.js";

const BEAT_MS = 5000;
const SILENT_MS = 13_000;
const CHUNK = 500;
const SIGNED_OUT = 4401;
const RECONNECTS = new Set(htmx.config.ws.reconnectCodes);
const MOST_ROWS = 200;

let connection = null;
let registered = "";
let heardAt = 0;
let leaving = false;

const open = () => connection?.socket?.readyState === WebSocket.OPEN;

// What the page shows

function shown() {
  const pairs = new Map();
  for (const element of document.querySelectorAll("[data-live]")) {
    if ("uiHeld" in element.dataset) continue;
    const { live, rev = "" } = element.dataset;
    if (!pairs.has(live) || older(rev, pairs.get(live))) pairs.set(live, rev);
  }
  for (const lines of document.querySelectorAll("[data-live-append]")) pairs.set(lines.dataset.liveAppend, lastLine(lines));
  const list = followed();
  if (list) pairs.set(list.key, list.first);
  return [...pairs];
}

const numeric = (rev) => /^\d+$/.test(rev);
const older = (rev, than) => numeric(rev) && numeric(than) && BigInt(rev) < BigInt(than);
const lastLine = (lines) => lines.lastElementChild?.dataset.line ?? "";

/** The open list of jobs, if it is the newest first: on its first page, or on one that already says how many are newer. */
function followed() {
  const list = document.querySelector("[data-view]");
  if (!list || !("newest" in list.dataset) || !("follow" in list.dataset || document.querySelector("#job-newer:not([hidden])"))) return null;
  const first = list.querySelector('[data-rows] [data-live^="job-row:"]');
  return { element: list, key: `job-list:${list.dataset.view}`, first: first ? first.dataset.live.slice("job-row:".length) : "" };
}

// What it says

const send = (message) => { if (open()) connection.socket.send(JSON.stringify(message)); };

function register() {
  const pairs = shown();
  registered = keys(pairs);
  send({ watch: pairs.slice(0, CHUNK) });
  for (let at = CHUNK; at < pairs.length; at += CHUNK) send({ also: pairs.slice(at, at + CHUNK) });
}

const keys = (pairs) => pairs.map(([key]) => key).join("\n");

let soon = 0;

function registerSoon() {
  clearTimeout(soon);
  soon = setTimeout(() => { if (open() && keys(shown()) !== registered) register(); }, 5);
}

setInterval(() => {
  if (!open()) return;
  if (performance.now() - heardAt > SILENT_MS) connection.socket.close();
  else register();
}, BEAT_MS);

// The connection

function badge(state) {
  const element = document.getElementById("connection");
  if (element && element.dataset.state !== state) element.dataset.state = state;
}

function connected(to) {
  connection = to;
  heardAt = performance.now();
  register();
}

document.addEventListener("htmx:ws:after:connection", (event) => connected(event.detail.connection));

document.addEventListener("htmx:ws:close", (event) => {
  const { code, reason } = event.detail;
  if (leaving || reason !== "closed") return;
  if (code === SIGNED_OUT) {
    location.assign(`/sign-in?next=${encodeURIComponent(location.pathname + location.search)}`);
  } else {
    badge(RECONNECTS.has(code) ? "waiting" : "ended");
  }
});

addEventListener("pagehide", () => { leaving = true; });

// A page taken out of the browser's cache has lost its socket: htmx closed it for good when the page was left.
addEventListener("pageshow", (event) => {
  if (event.persisted) location.reload();
});

// What it hears

document.addEventListener("htmx:ws:before:message:incoming", (event) => {
  heardAt = performance.now();
  const { data } = event.detail.message;
  if (typeof data !== "string" || !data.startsWith("{")) return;
  const message = JSON.parse(data);
  if (message.mode) badge(message.mode === "live" ? "live" : "slow");
  else if ("newer" in message) offer(message);
  else if ("rows" in message) { if (!mayInsert() || followed()?.key !== message.rows) event.detail.cancelled = true; }
  else if ("stale" in message) refetch();
  else if ("topic" in message) document.dispatchEvent(new CustomEvent("desk:message", { detail: message }));
});

// Older revisions are dropped: an answer over HTTP may be overtaken by the socket, and the other way round.
document.addEventListener("htmx:before:swap", (event) => {
  const { tasks } = event.detail;
  for (let at = tasks.length - 1; at >= 0; at--) if (outdated(tasks[at])) tasks.splice(at, 1);
});

function outdated({ type, fragment, target }) {
  if (!fragment?.querySelectorAll || !(target instanceof Element)) return false;
  if (target.dataset.liveAppend) {
    dropKnownLines(fragment, target);
    return !fragment.firstElementChild;
  }
  if (target.matches("[data-rows]")) dropKnownRows(fragment, target);
  const incoming = fragment.firstElementChild;
  if (type === "partial" && incoming && incoming.dataset.live === target.dataset.live) {
    return older(incoming.dataset.rev ?? "", target.dataset.rev ?? "");
  }
  keepNewer(fragment);
  return false;
}

function dropKnownLines(fragment, lines) {
  const [epoch, seq] = (lastLine(lines) || "0-0").split("-").map(Number);
  for (const line of fragment.querySelectorAll("[data-line]")) {
    const [e, s] = line.dataset.line.split("-").map(Number);
    if (e < epoch || (e === epoch && s <= seq)) line.remove();
  }
}

function dropKnownRows(fragment, rows) {
  for (const row of fragment.querySelectorAll("[data-live]")) {
    if (rows.querySelector(`[data-live="${CSS.escape(row.dataset.live)}"]`)) row.remove();
    else inserted.push(performance.now());
  }
}

/** In a whole list or page that comes over HTTP, what is already shown newer stays as it is. */
function keepNewer(fragment) {
  for (const incoming of fragment.querySelectorAll("[data-live][data-rev]")) {
    const current = document.querySelector(`[data-live="${CSS.escape(incoming.dataset.live)}"]`);
    if (current && current.tagName === incoming.tagName && older(incoming.dataset.rev, current.dataset.rev ?? "")) {
      incoming.replaceWith(current.cloneNode(true));
    }
  }
}

document.addEventListener("htmx:after:swap", () => { follow(); mark(); relist(); showHeld(); registerSoon(); });

// A part that is held is not among what the page shows, so nothing is sent for it until it is let go.

document.addEventListener("click", (event) => {
  const button = event.target.closest?.("[data-hold]");
  if (!button) return;
  document.getElementById(button.dataset.hold)?.toggleAttribute("data-ui-held");
  showHeld();
  register();
});

function showHeld() {
  for (const button of document.querySelectorAll("[data-hold]")) {
    const held = document.getElementById(button.dataset.hold)?.hasAttribute("data-ui-held") ?? false;
    button.hidden = false;
    button.setAttribute("aria-pressed", String(held));
    const words = held ? "Paused, go on" : "Pause";
    if (button.textContent !== words) button.textContent = words;
  }
}

showHeld();

// New rows

const ROWS_A_SECOND = 5;
let inserted = [];

const budget = () => {
  inserted = inserted.filter((at) => performance.now() - at < 1000);
  return ROWS_A_SECOND - inserted.length;
};

function offer({ newer, count, more }) {
  const list = followed();
  if (!list || list.key !== newer) return;
  const few = list.first && !more && count && mayInsert() ? Math.min(budget(), count) : 0;
  if (few > 0) send({ rows: { key: newer, after: list.first, limit: few } });
  hint(list, count - few, more);
}

let hinted = 0;

/** "12 new, show", changed at most once a second. */
function hint(list, count, more) {
  const element = document.getElementById("job-newer");
  if (!element || (element.hidden && !count)) return;
  if (count && !element.hidden && performance.now() - hinted < 1000) return;
  hinted = performance.now();
  element.hidden = !count;
  if (!count) { element.replaceChildren(); return; }
  const link = element.querySelector("a") ?? element.appendChild(document.createElement("a"));
  link.href = list.element.dataset.newest;
  const words = `${count}${more ? "+" : ""} new, show`;
  if (link.textContent !== words) link.textContent = words;
}

/** Rows may come in by themselves only where nobody reads, points, selects or has scrolled. */
function mayInsert() {
  const list = followed();
  if (!list || !("follow" in list.element.dataset) || scrollY > 0 || selecting() || document.hidden) return false;
  const rows = list.element.querySelector("[data-rows]");
  return Boolean(rows) && rows.children.length < MOST_ROWS && !list.element.querySelector("[data-rows]:hover, #job-newer:hover") && !rows.contains(document.activeElement);
}

// Log lines: the end stays in view while it is in view.

function follow() {
  for (const lines of document.querySelectorAll("[data-live-append]")) {
    const atEnd = Number(lines.dataset.uiEnd ?? lines.scrollHeight) - lines.scrollTop - lines.clientHeight < 40;
    if (atEnd) lines.scrollTop = lines.scrollHeight;
    lines.dataset.uiEnd = lines.scrollHeight;
  }
}

// A row never leaves the list by itself; one that stopped matching the list's status says so.

function mark() {
  const list = document.querySelector("[data-view][data-status]");
  if (!list) return;
  for (const row of list.querySelectorAll("[data-rows] > [data-live]")) {
    const matches = row.classList.contains(`is-${list.dataset.status}`);
    if (matches === "uiLeft" in row.dataset) row.toggleAttribute("data-ui-left", !matches);
  }
}

// A job that ended without a line has no list to append to: if it runs again, that part is fetched.

function relist() {
  const pane = document.querySelector('[id^="job-logs-"]');
  const running = document.querySelector('[data-live^="job-header:"].is-running');
  if (!pane || !running || pane.querySelector("ol") || pane.querySelector("input[name=lines]")?.value) return;
  if ("uiAsked" in pane.dataset) return;
  pane.dataset.uiAsked = "";
  htmx.ajax("GET", location.pathname + location.search, { target: `#${pane.id}`, select: `#${pane.id}`, swap: "outerMorph" });
}

// What did not fit into a frame, and what rights have changed, comes over HTTP.

let refetching = 0;

function refetch() {
  clearTimeout(refetching);
  refetching = setTimeout(() => {
    htmx.ajax("GET", location.pathname + location.search, { target: "#main", select: "#main", swap: "outerMorph" });
  }, 200 + Math.random() * 300);
}
