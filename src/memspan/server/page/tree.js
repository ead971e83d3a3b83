// The tree of categories and clusters: a level is asked for when it is opened.

import { api } from "./api.js";
import { about, el, link, place, plural, short, whole } from "./dom.js";
import { empty, failed, loading } from "./notices.js";
import { virtualList } from "./virtual.js";

const CHUNK = 100, EXAMPLES = 12, ROW = 64;

export async function show(main, { query, signal }) {
  document.title = "Tree · memspan";
  const wanted = query.getAll("at");
  const tree = el("ul", { role: "tree", "aria-label": "Categories and clusters", cls: "tree" }), within = el("section", { cls: "within", "aria-live": "polite" });
  main.replaceChildren(el("h1", { tabindex: -1 }, "Tree"), el("p", { cls: "lead" }, "The categories somebody named, and below them the clusters that grow by themselves."), el("div", { cls: "split" }, el("div", { cls: "side-tree" }, tree), within));
  tree.append(el("li", {}, loading(5)));
  const root = await api.tree({ depth: 2, examples: 0 }, signal);
  if (!root.segments) { tree.replaceWith(empty("Nothing is remembered here yet", "The tree grows with what you add.")); return; }
  root.label = "Everything";
  root.base = []; root.level = 0;
  tree.replaceChildren(item(root, 1, 1, 1));
  const first = tree.firstChild;
  first.tabIndex = 0;
  await open(first);
  let chosen = first;
  for (const step of wanted) {  // the way down to what the address names
    const next = [...chosen.querySelectorAll(":scope > ul > li")].find(child => child.node?.kind === "category" && child.node.label === step);
    if (!next) break;
    chosen = next;
    if (chosen.getAttribute("aria-expanded")) await open(chosen);
  }
  choose(chosen, false);

  // A node: where the API finds it is the category it lies in (`base`) and how many levels below that it is.
  function item(node, level, size, position) {
    const opens = node.children === undefined || node.children.length > 0;
    const made = el("li", { role: "treeitem", tabindex: -1, "aria-level": level, "aria-setsize": size, "aria-posinset": position, "aria-expanded": opens ? "false" : null, "aria-selected": "false" },
      el("div", { cls: `branch ${node.kind}`, vars: { "--level": level - 1 } }, el("i", { cls: "twist", "aria-hidden": "true" }), el("span", { cls: "name" }, node.label || "unnamed"), el("span", { cls: "count" }, whole(node.segments))));
    made.node = node;
    return made;
  }

  async function open(li) {
    if (li.getAttribute("aria-expanded") === null) return;
    li.setAttribute("aria-expanded", "true");
    if (li.querySelector(":scope > ul")) return;
    const node = li.node, group = el("ul", { role: "group" }, el("li", { role: "none" }, loading(2)));
    li.append(group);
    try {
      const found = node.kind === "category" ? await api.tree({ path: node.path, depth: 2, examples: 0 }, signal)
        : located(await api.tree({ path: node.base, depth: Math.min(32, node.level + 2), examples: 0 }, signal), node.key);
      const level = Number(li.getAttribute("aria-level")) + 1, children = (found?.children ?? []).map(child => ({ ...child,
        base: child.kind === "category" ? child.path : node.base, level: child.kind === "category" ? 0 : node.level + 1 }));
      group.replaceChildren();
      const show = from => {
        group.append(...children.slice(from, from + CHUNK).map((child, at) => item(child, level, children.length, from + at + 1)));
        if (from + CHUNK < children.length) {
          const rest = el("li", { role: "none", cls: "rest" }, el("button", { type: "button", on: { click: () => { rest.remove(); show(from + CHUNK); } } }, `${whole(children.length - from - CHUNK)} more`));
          group.append(rest);
        }
      };
      show(0);
      if (!children.length) { li.removeAttribute("aria-expanded"); group.remove(); }
    } catch (problem) {
      if (problem.name === "AbortError") return;
      li.setAttribute("aria-expanded", "false");
      group.remove();
      within.replaceChildren(failed(problem));
    }
  }
  function close(li) { if (li.getAttribute("aria-expanded") !== null) li.setAttribute("aria-expanded", "false"); }

  function choose(li, focus = true) {
    for (const other of tree.querySelectorAll('[tabindex="0"], [aria-selected="true"]')) { other.tabIndex = -1; other.setAttribute("aria-selected", "false"); }
    li.tabIndex = 0;
    li.setAttribute("aria-selected", "true");
    if (focus) li.focus();
    contents(li.node);
  }
  function move(li) {
    for (const other of tree.querySelectorAll('[tabindex="0"]')) other.tabIndex = -1;
    li.tabIndex = 0;
    li.focus();
    li.firstChild.scrollIntoView({ block: "nearest" });
  }

  async function contents(node) {
    const address = link("tree", { at: node.kind === "category" ? node.path : node.base });
    if (place().view === "tree" && location.hash !== address) history.replaceState(null, "", address);
    const title = [el("h2", {}, node.label), el("p", { cls: "soft" }, plural(node.segments, "memory", "memories"), node.kind === "cluster" ? " · a cluster that grew by itself" : "")];
    within.node = node;
    try {
      if (node.kind === "cluster") {
        const found = located(await api.tree({ path: node.base, depth: Math.min(32, node.level + 1), examples: EXAMPLES }, signal), node.key);
        if (within.node !== node) return;
        within.replaceChildren(...title, el("ul", { cls: "plain cards" }, (found?.examples ?? []).map(text => el("li", {}, el("a", { cls: "card", href: link("search", { q: short(text, 200) }) }, el("p", { cls: "said" }, short(text, 300)))))));
        return;
      }
      const filters = node.path.length ? { category: node.path } : undefined;
      const list = virtualList({ total: node.segments, label: node.label, tall: ROW, signal, load: async (skip, limit) => (await api.timeline({ bins: 0, skip, limit, filters }, signal)).page,
        row: segment => el("a", { cls: "line two", href: link(`segment/${segment.id}`) }, el("span", { cls: "said" }, short(segment.text, 200)), about(segment)) });
      within.replaceChildren(...title, list);
    } catch (problem) { if (problem.name !== "AbortError") within.replaceChildren(...title, failed(problem)); }
  }

  tree.addEventListener("click", async event => {
    const li = event.target.closest('[role="treeitem"]');
    if (!li || event.target.closest("button")) return;
    const opened = li.getAttribute("aria-expanded") === "true";
    if (event.target.closest(".twist") || li.getAttribute("aria-selected") === "true") { if (opened) close(li); else await open(li); } else await open(li);
    choose(li);
  });
  tree.addEventListener("keydown", async event => {
    const li = event.target.closest('[role="treeitem"]');
    if (!li || event.ctrlKey || event.metaKey || event.altKey) return;
    const seen = [...tree.querySelectorAll('[role="treeitem"]')].filter(other => !other.parentElement.closest('[aria-expanded="false"]')), from = seen.indexOf(li), expanded = li.getAttribute("aria-expanded");
    const acts = {
      ArrowDown: () => seen[from + 1] && move(seen[from + 1]), ArrowUp: () => seen[from - 1] && move(seen[from - 1]),
      Home: () => move(seen[0]), End: () => move(seen.at(-1)), Enter: () => choose(li), " ": () => choose(li),
      ArrowRight: async () => { if (expanded === "false") await open(li); else if (expanded === "true" && li.querySelector('li[role="treeitem"]')) move(li.querySelector('li[role="treeitem"]')); },
      ArrowLeft: () => { if (expanded === "true") close(li); else if (li.parentElement.closest('[role="treeitem"]')) move(li.parentElement.closest('[role="treeitem"]')); },
    };
    if (acts[event.key]) { event.preventDefault(); event.stopPropagation(); await acts[event.key](); return; }
    if (event.key.length === 1 && event.key !== "/" && event.key !== "?") {
      const match = [...seen.slice(from + 1), ...seen.slice(0, from)].find(other => other.node.label.toLowerCase().startsWith(event.key.toLowerCase()));
      if (match) { event.preventDefault(); move(match); }
    }
  });
}

const located = (node, key) => (node.key === key ? node : node.children.reduce((found, child) => found ?? located(child, key), null));
