// Paints every <time data-time> in the chosen zone and keeps the clocks going.
// Modes: relative, ago, elapsed, absolute, clock, precise.

const ZONE = "m.zone";
let zone = read() === "utc" ? "UTC" : undefined;
let formats = build();

function read() {
  try { return localStorage.getItem(ZONE); } catch { return null; }
}

function build() {
  const time = { hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23", timeZone: zone };
  return {
    full: new Intl.DateTimeFormat("en-GB", { weekday: "short", day: "numeric", month: "short", year: "numeric", timeZoneName: "short", ...time }),
    absolute: new Intl.DateTimeFormat("en-GB", { day: "numeric", month: "short", year: "numeric", ...time }),
    clock: new Intl.DateTimeFormat("en-GB", time),
    precise: new Intl.DateTimeFormat("en-GB", { ...time, fractionalSecondDigits: 3 }),
  };
}

/** 75 -> "1 min"; the largest whole unit. */
export function relative(seconds) {
  const span = Math.abs(seconds);
  const words = span < 1 ? "now"
    : span < 60 ? `${Math.floor(span)} s`
    : span < 3600 ? `${Math.floor(span / 60)} min`
    : span < 86400 ? `${Math.floor(span / 3600)} h`
    : `${Math.floor(span / 86400)} d`;
  if (words === "now") return words;
  return seconds < 0 ? `in ${words}` : words;
}

/** 3725 -> "1:02:05" */
export function elapsed(seconds) {
  const whole = Math.max(0, Math.floor(seconds));
  const two = (n) => String(n).padStart(2, "0");
  const hours = Math.floor(whole / 3600);
  const rest = `${two(Math.floor(whole / 60) % 60)}:${two(whole % 60)}`;
  return hours ? `${hours}:${rest}` : rest.replace(/^0/, "");
}

function paint(element, now) {
  const at = new Date(element.dateTime);
  if (Number.isNaN(at.getTime())) return;
  const mode = element.dataset.time;
  const seconds = (now - at) / 1000;
  const text = mode === "relative" ? relative(seconds)
    : mode === "ago" ? relative(seconds) + (seconds < 1 ? "" : " ago")
    : mode === "elapsed" ? elapsed(seconds)
    : formats[mode].format(at);
  if (element.textContent !== text) element.textContent = text;
  if (element.dataset.painted === element.dateTime + zone) return;
  element.dataset.painted = element.dateTime + zone;
  element.title = (mode === "elapsed" ? "since " : "") + formats.full.format(at);
}

/** Paints the clocks below root; called again after each swap. */
export function paintTimes(root = document) {
  const now = Date.now();
  if (root.matches?.("time[data-time]")) paint(root, now);
  for (const element of root.querySelectorAll("time[data-time]")) paint(element, now);
}

function tick() {
  if (!document.hidden) {
    const now = Date.now();
    for (const element of document.querySelectorAll('time:is([data-time="relative"], [data-time="ago"], [data-time="elapsed"])')) paint(element, now);
  }
  setTimeout(tick, 1000 - (Date.now() % 1000));
}

function offerZones() {
  const choice = document.querySelector("[data-zone-choice]");
  const select = choice?.querySelector("[data-zone]");
  if (!select) return;
  choice.hidden = false;
  select.options[0].textContent = Intl.DateTimeFormat().resolvedOptions().timeZone || "local time";
  select.value = zone ? "utc" : "local";
  select.addEventListener("change", () => {
    try { localStorage.setItem(ZONE, select.value); } catch { /* this page only */ }
    zone = select.value === "utc" ? "UTC" : undefined;
    formats = build();
    paintTimes();
  });
}

// Fragments arrive by swaps and by the live script: whatever brings a <time>, it is painted before it is seen.
new MutationObserver((records) => {
  const now = Date.now();
  for (const record of records) {
    for (const node of record.addedNodes) if (node.nodeType === 1) paintTimes(node);
    const target = record.target.nodeType === 1 ? record.target : record.target.parentElement;
    if (record.type === "attributes" && target?.matches("time[data-time]")) paint(target, now);
    const painted = target?.closest("time[data-time]");
    if (record.type !== "attributes" && painted) paint(painted, now);
  }
}).observe(document.documentElement, { subtree: true, childList: true, characterData: true, attributes: true, attributeFilter: ["datetime"] });

paintTimes();
offerZones();
tick();
document.addEventListener("visibilitychange", () => { if (!document.hidden) paintTimes(); });
