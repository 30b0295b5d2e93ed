// The theme changes at once; the form still tells the server, so that the next page is painted in it.

document.addEventListener("submit", (event) => {
  const form = event.target.closest?.("[data-theme-form]");
  const button = event.submitter;
  if (!form || !button) return;
  event.preventDefault();
  const theme = button.value;
  if (theme === "auto") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = theme;
  for (const other of form.querySelectorAll("button")) other.setAttribute("aria-pressed", String(other === button));
  fetch(form.action, { method: "POST", body: new URLSearchParams(new FormData(form, button)), redirect: "manual", headers: { "HX-Request": "true" } }).catch(() => {});
});
