// Whether the server is well, how large the memory is, and who may ask it.

import { api, here, key } from "./api.js";
import { bytes, el, plural, put, when, whole } from "./dom.js";
import { copy, dialog, empty, failed, field, loading, toast, troubled } from "./notices.js";

const RIGHTS = ["read", "write", "admin"];

export async function show(main, { signal, reload }) {
  document.title = "Status · memspan";
  const health = el("section", { "aria-labelledby": "health" }, loading(3)), keys = el("section", { "aria-labelledby": "keys" }, loading(2));
  main.replaceChildren(el("h1", { tabindex: -1 }, "Status"), health, keys);
  await Promise.all([healthy(health, signal), known(keys, signal, reload)]);
}

async function healthy(box, signal) {
  const [ready, stats] = await Promise.allSettled([api.ready(signal), api.stats(signal)]);
  if (signal.aborted) return;
  const well = ready.status === "fulfilled";
  const number = (name, value, more) => el("div", { cls: "number" }, el("dt", {}, name), el("dd", {}, value, more && el("small", {}, more)));
  box.replaceChildren(el("h2", { id: "health" }, "Health"), el("p", { cls: `health ${well ? "well" : "ill"}` }, el("i", {}), well ? "The server is ready" : ready.reason.message));
  const told = stats.value;
  if (stats.status === "rejected") {
    if (stats.reason.status !== 403) { box.append(failed(stats.reason)); return; }
    const { namespaces } = await api.namespaces();  // a key for a part of the store is told of that part
    const own = namespaces.find(space => space.name === here.namespace) ?? {};
    box.append(el("dl", { cls: "numbers" }, number("Memories", whole(own.segments), `in ${here.namespace}`), number("Tokens", whole(own.tokens)), number("Waiting for vectors", whole(own.pending))),
      el("p", { cls: "soft" }, "A key for the whole store, with the right “admin”, shows more."));
    return;
  }
  const space = told.namespaces?.[here.namespace] ?? {}, encoder = told.encoder;
  box.append(el("div", {}, el("dl", { cls: "numbers" },
    number("Memories", whole(space.segments), `in ${here.namespace}`), number("Tokens", whole(space.tokens)), number("Versions", whole(told.versions), "of the whole store"),
    number("On disk", bytes(told.bytes?.total ?? 0), told.bytes?.per_segment ? `${bytes(told.bytes.per_segment)} each` : ""),
    number("Encoder", encoder?.id ?? "none", encoder ? plural(encoder.dim, "dimension") : "keywords only"), number("Waiting for vectors", whole(space.pending ?? told.pending)),
    number("Log", plural(told.log?.entries ?? 0, "entry", "entries")), number("Backup", told.backup ? (told.backup.at ? when(told.backup.at) : "there is one") : "none yet")),
  (told.search_failure || encoder?.failure) && el("p", { cls: "trouble" }, told.search_failure || encoder.failure),
  told.views && el("table", {}, el("caption", {}, "Indexes"), el("thead", {}, el("tr", {}, ["Index", "In the snapshot", "After it", "Size", "State"].map(name => el("th", { scope: "col" }, name)))),
    el("tbody", {}, Object.entries(told.views).map(([name, view]) => el("tr", {}, el("th", { scope: "row" }, name), el("td", {}, whole(view.rows)), el("td", {}, whole(view.tail)), el("td", {}, bytes(view.bytes ?? 0)), el("td", {}, view.failure ?? "well")))))));
}

async function known(box, signal, reload) {
  const title = el("div", { cls: "title" }, el("h2", { id: "keys" }, "API keys"));
  const own = key.get() && el("button", { type: "button", on: { click: () => { key.forget(); toast("The key is forgotten in this tab"); reload(); } } }, "Forget my key");
  let list;
  try { list = await api.keys(signal); } catch (problem) {
    if (problem.name === "AbortError") throw problem;
    put(box, title, problem.status === 403 ? empty("Only a key for the whole store, with the right “admin”, may see keys") : failed(problem), own);
    return;
  }
  const make = async () => {
    const made = await dialog("Make a key", el("div", { cls: "fields" }, field("name", "Name", { required: true, placeholder: "what it is for" }), field("namespaces", "Namespaces", { value: list.length ? here.namespace : "*", required: true }, "Several are separated by commas; * is all of them."),
      el("fieldset", {}, el("legend", {}, "It may"), RIGHTS.map(right => el("label", {}, el("input", { type: "checkbox", name: "rights", value: right, checked: right !== "admin" || !list.length }), right)))),
    { label: "Make it", submit: given => api.makeKey({ name: given.get("name").trim(), namespaces: given.get("namespaces").split(",").map(name => name.trim()).filter(Boolean), rights: given.getAll("rights") }) });
    if (!made) return;
    if (!list.length && !key.get()) key.set(made.secret);  // from now on the server asks for one
    await dialog("Here is the key", el("div", {}, el("p", {}, "It is shown this once. The server keeps only a hash of it."), el("p", { cls: "secret" }, el("code", {}, made.secret)),
      el("button", { type: "button", on: { click: () => copy(made.secret, "The key was copied") } }, "Copy")), { label: "Done", cancel: null, submit: () => true });
    await reload();
  };
  const revoke = one => async () => {
    const sure = await dialog(`Revoke “${one.name}”?`, el("p", {}, "Whoever uses it is turned away from now on. This cannot be undone."), { label: "Revoke", dangerous: true, submit: () => api.revokeKey(one.id) });
    if (sure) { toast(`“${one.name}” was revoked`); await reload(); }
  };
  title.append(el("div", { cls: "row" }, own, el("button", { type: "button", on: { click: () => make().catch(troubled) } }, "Make a key")));
  box.replaceChildren(title, list.length ? el("table", {}, el("thead", {}, el("tr", {}, ["Name", "May", "Namespaces", "Made", ""].map(name => el("th", { scope: "col" }, name || el("span", { cls: "unseen" }, "Actions"))))),
    el("tbody", {}, list.map(one => el("tr", { cls: one.revoked_at ? "undone" : "" }, el("th", { scope: "row" }, one.name), el("td", {}, one.rights.join(", ")), el("td", {}, one.namespaces.map(name => (name === "*" ? "all" : name)).join(", ")), el("td", {}, when(one.created_at)),
      el("td", {}, one.revoked_at ? el("span", { cls: "soft" }, "revoked") : el("button", { cls: "danger-quiet", type: "button", "aria-label": `Revoke ${one.name}`, on: { click: () => revoke(one)().catch(troubled) } }, "Revoke"))))))
    : empty("There are no keys", "Whoever reaches this server may do everything, so it listens on this machine only. Make a key to change that; the first should be for all namespaces, with the right “admin”."));
}
