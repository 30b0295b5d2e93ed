// Keys. "/", "?" and "g" act anywhere outside a field; single letters on rows only while the list has the focus.
// All single keys can be switched off (WCAG 2.1.4).

import { clear, selecting, toggle } from "./select.js";

const CHOICE = "m.keys";
let going = 0;

function enabled() {
  try { return localStorage.getItem(CHOICE) !== "off"; } catch { return true; }
}

const rows = () => [...document.querySelectorAll("[data-row]")];
const typing = (element) => element.closest?.("textarea, select, [contenteditable], input:not([type=checkbox], [type=radio])");

function focusRow(row) {
  if (!row) return;
  for (const other of document.querySelectorAll('[data-row][tabindex="0"]')) other.tabIndex = -1;
  row.tabIndex = 0;
  row.focus({ preventScroll: true });
  row.scrollIntoView({ block: "nearest" });
}

function step(current, by) {
  const all = rows();
  const at = all.indexOf(current);
  focusRow(all[Math.max(0, Math.min(all.length - 1, at + by))]);
}

function onRow(event, row) {
  switch (event.key) {
    case "j": case "ArrowDown": step(row, 1); break;
    case "k": case "ArrowUp": step(row, -1); break;
    case "x": case "X": {
      const box = row.querySelector("[data-select]");
      if (!box) return false;
      toggle(box, !box.checked, event.shiftKey);
      break;
    }
    case "Enter":
      if (event.target !== row) return false;
      row.querySelector("a")?.click();
      break;
    default: {
      const button = row.querySelector(`[data-key="${CSS.escape(event.key)}"]`);
      if (!button || button.getAttribute("aria-disabled") === "true") return false;
      button.click();
    }
  }
  return true;
}

function go(letter) {
  const link = document.querySelector(`[data-go="${CSS.escape(letter)}"]`);
  link?.click();
  return Boolean(link);
}

function escape(event) {
  if (document.querySelector("dialog[open], :popover-open")) return false;
  const menu = document.querySelector("details.menu[open]");
  if (menu) { menu.open = false; menu.querySelector("summary").focus(); return true; }
  if (typing(event.target)) { event.target.blur(); return true; }
  if (selecting()) { clear(); return true; }
  const back = document.querySelector("[data-back]");
  back?.click();
  return Boolean(back);
}

function handle(event) {
  if (event.key === "Escape") return escape(event);
  if (!enabled() || typing(event.target) || document.querySelector("dialog[open]")) return false;
  if (Date.now() < going) { going = 0; return go(event.key); }
  const row = event.target.closest?.("[data-row]");
  if (row && onRow(event, row)) return true;
  switch (event.key) {
    case "/": {
      const field = document.querySelector("[data-search]");
      field?.focus();
      field?.select();
      return Boolean(field);
    }
    case "?": return openShortcuts();
    case "g": going = Date.now() + 1500; return true;
    case "j": case "k":
      if (event.target !== document.body && event.target.id !== "main") return false;
      focusRow(rows()[0]);
      return rows().length > 0;
    default: return false;
  }
}

function openShortcuts() {
  const dialog = document.getElementById("shortcuts");
  dialog?.showModal();
  return Boolean(dialog);
}

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.isComposing || event.defaultPrevented) return;
  if (handle(event)) event.preventDefault();
});

// The list is one stop in the tab order; its rows are reached with j and k or the arrows.
function rove() {
  const all = rows();
  if (all.length && !all.some((row) => row.tabIndex === 0)) all[0].tabIndex = 0;
}
new MutationObserver(rove).observe(document.getElementById("main") ?? document.body, { subtree: true, childList: true });
rove();

const choice = document.querySelector("[data-keys-choice]");
if (choice) {
  const box = choice.querySelector("[data-keys]");
  choice.hidden = false;
  box.checked = enabled();
  box.addEventListener("change", () => {
    try { localStorage.setItem(CHOICE, box.checked ? "on" : "off"); } catch { /* this page only */ }
  });
}
const opener = document.querySelector("[data-open-shortcuts]");
if (opener) {
  opener.hidden = false;
  opener.addEventListener("click", openShortcuts);
}
