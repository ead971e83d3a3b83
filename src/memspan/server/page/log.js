// What was done, the last first, and taking it back.

import { api } from "./api.js";
import { el, plural, put, roving, when } from "./dom.js";
import { done, empty, loading, troubled } from "./notices.js";

const PAGE = 50;
const VERBS = { add: "Added", add_document: "Added a document", update: "Changed", delete: "Deleted", erase: "Erased for good", undo: "Took back", accept: "Decided a conflict: the later counts", reject: "Decided a conflict: both stand",
  resolve: "Decided conflicts", supersede: "Replaced", restore: "Went back in time", move_category: "Moved a category", link: "Linked", unlink: "Unlinked", import: "Imported", extract: "Extracted facts", sleep: "Consolidated", prune: "Pruned",
  quarantine: "Quarantined", release: "Released from quarantine", feedback: "Judged" };
const FINAL = new Set(["erase", "feedback"]);

export async function show(main, { signal, reload }) {
  document.title = "Log · memspan";
  const list = el("ol", { cls: "plain operations" }), more = el("div", {}, loading(6)), known = new Map();
  main.replaceChildren(el("h1", { tabindex: -1 }, "Log"), el("p", { cls: "lead" }, "What changed this memory, the last first. Undo is an operation too, and can be undone."), list, more);
  const undo = operation => async () => {
    try {
      const { id } = await api.undo(operation.id);
      await reload();
      done(`Took back: ${(VERBS[operation.verb] ?? operation.verb).toLowerCase()}`, id, reload);
    } catch (problem) { troubled(problem); }
  };
  const row = operation => el("li", { cls: operation.undone_by ? "undone" : "", tabindex: -1 },
    el("span", { cls: "what" }, el("strong", {}, VERBS[operation.verb] ?? operation.verb), operation.undoes && known.has(operation.undoes) && ` (${(VERBS[known.get(operation.undoes)] ?? known.get(operation.undoes)).toLowerCase()})`,
      el("span", { cls: "soft" }, plural(operation.segments, "memory", "memories"), operation.actor && ` · by ${operation.actor}`)),
    when(operation.at),
    operation.undone_by ? el("span", { cls: "soft state" }, "taken back") : FINAL.has(operation.verb) ? el("span", { cls: "soft state" }, "for good")
      : el("button", { type: "button", "aria-label": `Undo: ${VERBS[operation.verb] ?? operation.verb}`, on: { click: undo(operation) } }, "Undo"));
  const load = async before => {
    const page = await api.operations({ limit: PAGE, before }, signal);
    for (const operation of page) known.set(operation.id, operation.verb);
    list.append(...page.map(row));
    roving(list, "li");
    put(more, !list.children.length ? empty("Nothing was done here yet") : page.length === PAGE && el("button", { type: "button", on: { click: () => load(page.at(-1).id).catch(troubled) } }, "Show older"));
  };
  await load();
}
