// Small manners of the page: menus close, flashes leave, text is copied, unavailable buttons do nothing.

const FLASH_MS = 10_000;

// The way back from a job, over all its tabs and forms, leads to the list as it was left.
const LIST = "/job-logs";
const PLACE = "m.list";

addEventListener("pagehide", () => {
  try {
    if (location.pathname === LIST) sessionStorage.setItem(PLACE, location.search);
    else if (!location.pathname.startsWith(`${LIST}/`)) sessionStorage.removeItem(PLACE);
  } catch { /* the link leads where the server said */ }
});

// A list that a row is opened from is left at its first row: whoever comes back sees the same rows, however many came since.
document.addEventListener("click", (event) => {
  const list = event.target.closest?.("[data-rows] a[href]")?.closest("[data-begin]");
  if (!list || event.defaultPrevented || event.ctrlKey || event.metaKey || event.shiftKey || event.altKey) return;
  const place = new URL(location);
  place.searchParams.set("cursor", beginOf(list));
  history.replaceState(history.state, "", place);
});

/** The server's word for the first row; one that came in live since is named by its id, as that list is the newest first. */
function beginOf(list) {
  const first = list.querySelector('[data-rows] > [data-live^="job-row:"]').dataset.live.slice("job-row:".length);
  const byId = `from~${first.replaceAll("-", "")}`;
  return list.dataset.begin.startsWith(byId) ? list.dataset.begin : byId;
}

function placeInList(otherwise) {
  try { return sessionStorage.getItem(PLACE) ?? otherwise; } catch { return otherwise; }
}

document.addEventListener("click", (event) => {
  const off = event.target.closest?.('button[aria-disabled="true"]');
  if (off) { event.preventDefault(); event.stopPropagation(); return; }

  for (const menu of document.querySelectorAll("details.menu[open]")) if (!menu.contains(event.target)) menu.open = false;

  const back = event.target.closest?.("a[data-back]");
  if (back && back.pathname === LIST) back.href = LIST + placeInList(back.search);

  const dismiss = event.target.closest?.("[data-dismiss]");
  if (dismiss) dismiss.closest("[data-flash]").remove();

  const copy = event.target.closest?.("[data-copy]");
  if (copy) copyText(copy);
}, true);

// A row that was acted on dims until its answer comes.
document.addEventListener("submit", (event) => {
  const row = event.target.id === "act" ? event.submitter?.closest("[data-row], tr[data-live]") : null;
  if (row) row.dataset.acting = "";
});
document.addEventListener("htmx:finally:request", () => {
  for (const row of document.querySelectorAll("[data-acting]")) delete row.dataset.acting;
});

async function copyText(button) {
  const text = document.getElementById(button.dataset.copy)?.textContent ?? "";
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    // Over plain http there is no clipboard API.
    const area = Object.assign(document.createElement("textarea"), { value: text, readOnly: true, className: "visually-hidden" });
    document.body.append(area);
    area.select();
    document.execCommand("copy");
    area.remove();
    button.focus();
  }
  const words = button.lastChild;
  const before = words.textContent;
  if (before === "Copied") return;
  words.textContent = "Copied";
  setTimeout(() => { words.textContent = before; }, 1500);
}

function settle(root) {
  for (const button of root.querySelectorAll("[data-copy][hidden], [data-dismiss][hidden]")) button.hidden = false;
  for (const flash of root.querySelectorAll("[data-flash]:not([data-leaving])")) {
    flash.dataset.leaving = "";
    if (!flash.matches(".is-failed, .is-error")) leave(flash);
  }
}

// A flash stays while the pointer or the focus is on it; errors stay until they are dismissed.
function leave(flash) {
  setTimeout(function away() {
    if (flash.matches(":hover, :focus-within")) setTimeout(away, 2000);
    else flash.remove();
  }, FLASH_MS);
}

new MutationObserver(() => settle(document)).observe(document.body, { subtree: true, childList: true });
settle(document);
document.querySelector("[data-focus]")?.focus();
