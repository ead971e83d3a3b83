// The frame: which view the address names, the namespace, the theme, the keys that work everywhere.

import { api, here, key, onKeyNeeded } from "./api.js";
import { at, current, el, go, link, place } from "./dom.js";
import { dialog, failed, field } from "./notices.js";
import { editor } from "./editor.js";
import * as search from "./search.js";
import * as segment from "./segment.js";

const views = {
  search: async () => search,
  segment: async () => segment,
  timeline: () => import("./timeline.js"),
  tree: () => import("./tree.js"),
  conflicts: () => import("./conflicts.js"),
  log: () => import("./log.js"),
  status: () => import("./status.js"),
};
const main = at("main");
let showing = null, first = true, asked = 0;
const places = new Map();  // how far each address was scrolled, for Back
let address = location.hash;

onKeyNeeded((problem, wrong) => dialog(wrong ? "This key does not open the memory" : "This server asks for a key", el("div", { cls: "fields" },
  el("p", {}, wrong ? [problem.message, problem.mend].filter(Boolean).join(". ") : "It stays in this tab, and is forgotten when you close it."),
  field("key", "API key", { type: "password", required: true, autocomplete: "off", autofocus: true })), { label: "Open", submit: given => { key.set(given.get("key").trim()); } }).then(Boolean));

async function render({ kept = false } = {}) {
  const turn = ++asked, { view, id, query } = place();
  showing?.abort();
  showing = new AbortController();
  const { signal } = showing;
  if (here.namespace !== current()) { here.namespace = current(); search.forget(); spaces(); }
  for (const item of at("nav").children) {
    const chosen = item.dataset.view === view || (view === "segment" && item.dataset.view === "search");
    if (chosen) item.setAttribute("aria-current", "page"); else item.removeAttribute("aria-current");
    item.href = link(item.dataset.view === "search" ? "" : item.dataset.view);
  }
  document.querySelector(".brand").href = link("");
  main.setAttribute("aria-busy", "true");
  main.dataset.view = view;
  const top = kept ? scrollY : places.get(location.hash) ?? 0;
  try {
    if (!views[view]) { main.replaceChildren(el("h1", { tabindex: -1 }, "There is no such page"), el("p", {}, el("a", { href: link("") }, "To the start"))); } else {
      const { show } = await views[view]();
      await show(main, { id, query, signal, reload: () => render({ kept: true }) });
    }
  } catch (problem) {
    if (problem.name === "AbortError" || turn !== asked) return;
    main.replaceChildren(el("h1", { tabindex: -1 }, "That did not work"), failed(problem, () => render()));
  }
  if (turn !== asked) return;
  main.removeAttribute("aria-busy");
  if (!first && !kept && !main.contains(document.activeElement)) main.querySelector("h1")?.focus({ preventScroll: true });
  first = false;
  scrollTo(0, top);
}

// The namespaces there are, and one more that the reader names.
async function spaces() {
  const select = at("namespace"), other = " other";
  const fill = names => select.replaceChildren(...[...new Set([here.namespace, ...names])].sort().map(name => el("option", { value: name, selected: name === here.namespace }, name)), el("option", { value: other }, "Another…"));
  fill([]);
  try {
    const told = await api.namespaces(), list = told.namespaces ?? told;
    fill(Array.isArray(list) ? list.map(space => space.name ?? space.namespace ?? space) : Object.keys(list));
  } catch { /* a key for one namespace may not list them all */ }
  select.onchange = async () => {
    let name = select.value;
    if (name === other) name = await dialog("Another namespace", field("name", "Its name", { required: true, autofocus: true }, "It begins to be with the first memory in it."), { label: "Open", submit: given => given.get("name").trim() });
    if (!name) { select.value = here.namespace; return; }
    const { view } = place();
    go(link(view === "segment" || view === "search" ? "" : view, {}, name));
  };
}

const system = matchMedia("(prefers-color-scheme: dark)"), page = document.documentElement;
const dark = () => page.classList.contains("dark") || (system.matches && !page.classList.contains("light"));
const theme = () => { at("theme").textContent = dark() ? "Light" : "Dark"; at("theme").setAttribute("aria-label", dark() ? "Light theme" : "Dark theme"); };
at("theme").addEventListener("click", () => {
  const next = dark() ? "light" : "dark";
  page.className = next;
  localStorage.setItem("memspan.theme", next);
  theme();
});
system.addEventListener("change", theme);
theme();

at("add").addEventListener("click", () => editor());
at("skip").addEventListener("click", event => { event.preventDefault(); main.focus(); });
addEventListener("keydown", event => {
  if (event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]")) return;
  const writing = event.target.closest?.("input, textarea, select, [contenteditable]");
  if (event.key === "Escape") { if (writing) event.target.blur(); at("toasts").replaceChildren(); }
  if (writing) return;
  if (event.key === "/") {
    event.preventDefault();
    const field = at("q");
    if (field) { field.focus(); field.select(); } else { go(link("")); addEventListener("memspan:shown", () => at("q")?.focus(), { once: true }); }
  }
  if (event.key === "a") { event.preventDefault(); editor(); }
});
history.scrollRestoration = "manual";
addEventListener("scroll", () => { if (!main.hasAttribute("aria-busy")) places.set(address, scrollY); }, { passive: true });
addEventListener("hashchange", () => { address = location.hash; render().then(() => dispatchEvent(new Event("memspan:shown"))); });
here.namespace = current();
spaces();
render();
