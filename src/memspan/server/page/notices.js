// What is told in passing: toasts, problems with their mend, dialogs.

import { api } from "./api.js";
import { at, el, icon } from "./dom.js";

const STAYS = 12_000;  // milliseconds; a toast that is pointed at or has the focus stays longer

export function toast(text, action) {
  const gone = () => note.remove();
  const note = el("div", { cls: "toast" }, el("span", {}, text),
    action && el("button", { type: "button", on: { click: async () => { gone(); await action.run(); } } }, action.label),
    el("button", { type: "button", cls: "icon", "aria-label": "Close", on: { click: gone } }, icon("close")));
  at("toasts").replaceChildren(note);
  const leave = () => { if (note.matches(":hover, :focus-within")) setTimeout(leave, 2_000); else gone(); };
  setTimeout(leave, STAYS);
}

export function troubled(problem) {
  toast([problem.message, problem.mend].filter(Boolean).join(" · "));
}

// A problem in the place of what it kept from being shown.
export function failed(problem, retry) {
  return el("div", { cls: "notice bad", role: "alert" }, el("strong", {}, problem.message),
    problem.mend && el("p", {}, problem.mend), retry && el("button", { type: "button", on: { click: retry } }, "Try again"));
}

export const empty = (title, ...kids) => el("div", { cls: "notice" }, el("strong", {}, title), ...kids.map(kid => (typeof kid === "string" ? el("p", {}, kid) : kid)));
export const loading = (rows = 3) => el("div", { cls: "loading", role: "status", "aria-label": "Loading" }, Array.from({ length: rows }, () => el("i", {})));

// Tells what was done, with a way back.
export function done(text, operation, after) {
  toast(text, operation && { label: "Undo", run: async () => {
    try {
      await api.undo(operation);
      toast("Taken back");
      await after?.();
    } catch (problem) { troubled(problem); }
  } });
}

// A dialog with a form; resolves to what `submit` gave, null where it was left. `submit` may throw a Problem, which is shown inside.
export function dialog(title, fields, { label = "Save", submit, dangerous = false, cancel = "Cancel" }) {
  return new Promise(resolve => {
    const trouble = el("div", { role: "alert" }), act = el("button", { cls: dangerous ? "danger" : "primary", type: "submit" }, label);
    const form = el("form", { method: "dialog" }, el("h2", { id: "dialog-title" }, title), fields, trouble,
      el("footer", {}, cancel && el("button", { type: "button", on: { click: () => box.close() } }, cancel), act));
    const box = el("dialog", { "aria-labelledby": "dialog-title" }, form);
    let value = null;
    form.addEventListener("submit", async event => {
      event.preventDefault();
      act.disabled = true;
      trouble.replaceChildren();
      try {
        value = await submit(new FormData(form)) ?? true;
        box.close();
      } catch (problem) {
        trouble.replaceChildren(el("p", { cls: "trouble" }, [problem.message, problem.mend].filter(Boolean).join(". ")));
      } finally { act.disabled = false; }
    });
    box.addEventListener("close", () => { box.remove(); resolve(value); });
    box.addEventListener("click", event => { if (event.target === box) box.close(); });
    document.body.append(box);
    box.showModal();
  });
}

export const field = (name, label, props = {}, hint) => el("label", { cls: "field" }, el("span", {}, label),
  props.options ? el("select", { name }, props.options.map(([value, words]) => el("option", { value, selected: value === props.value }, words)))
    : el(props.rows ? "textarea" : "input", { name, autocomplete: "off", ...props }), hint && el("small", {}, hint));

export const copy = async (text, words) => {
  try { await navigator.clipboard.writeText(text); toast(words); } catch { toast("The browser did not allow copying"); }
};
