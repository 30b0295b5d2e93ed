// Selecting rows: the checkbox, Shift for a range, the whole page; the bar counts what is chosen.

let last = null;

const boxes = () => [...document.querySelectorAll("[data-rows] [data-select]")];
const chosen = () => boxes().filter((box) => box.checked);

/** While rows are selected the list keeps its members; live.js asks here. */
export const selecting = () => boxes().some((box) => box.checked);

export function refresh() {
  const all = boxes();
  const count = chosen().length;
  const bar = document.querySelector("[data-bulk]");
  if (bar) {
    bar.classList.toggle("is-on", count > 0);
    const number = bar.querySelector("[data-selected]");
    if (number && number.textContent !== String(count)) number.textContent = count;
    const matching = bar.querySelector("[data-select-matching]");
    if (matching) {
      matching.hidden = count === 0 || count < all.length;
      if (matching.hidden) matching.querySelector("input").checked = false;
    }
    const none = bar.querySelector("[data-select-none]");
    if (none) none.hidden = false;
  }
  const page = document.querySelector("[data-select-page]");
  if (page) {
    page.hidden = all.length === 0;
    const box = page.querySelector("input");
    box.checked = count > 0 && count === all.length;
    box.indeterminate = count > 0 && count < all.length;
  }
}

/** Selects or clears a row; with range, everything since the last one touched. */
export function toggle(box, checked = !box.checked, range = false) {
  const all = boxes();
  const from = range && last?.isConnected ? all.indexOf(last) : -1;
  const to = all.indexOf(box);
  const few = from < 0 ? [box] : all.slice(Math.min(from, to), Math.max(from, to) + 1);
  for (const one of few) one.checked = checked;
  last = box;
  refresh();
}

export function clear() {
  for (const box of boxes()) box.checked = false;
  last = null;
  refresh();
}

document.addEventListener("click", (event) => {
  const box = event.target.closest?.("[data-select]");
  if (box) toggle(box, box.checked, event.shiftKey);
  const page = event.target.closest?.("[data-select-all]");
  if (page) {
    for (const one of boxes()) one.checked = page.checked;
    refresh();
  }
  if (event.target.closest?.("[data-select-none]")) clear();
});

// Shift-click selects text by default; in a list it selects rows.
document.addEventListener("mousedown", (event) => {
  if (event.shiftKey && event.target.closest?.(".tick")) event.preventDefault();
});

new MutationObserver(refresh).observe(document.getElementById("main") ?? document.body, { subtree: true, childList: true });
addEventListener("pageshow", refresh);
refresh();
