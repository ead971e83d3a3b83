// One memory: what it says, what is around it, what became of it.

import { api } from "./api.js";
import { about, compared, el, icon, link, plural, put, short, when, whole } from "./dom.js";
import { copy, done, empty, failed, loading, toast, troubled } from "./notices.js";
import { correct } from "./editor.js";
import { graph } from "./graph.js";

const EVENTS = { ADD: "Remembered", UPDATE: "Changed", DELETE: "Deleted", ERASE: "Erased for good" };

export async function show(main, { id, query, signal, reload }) {
  const back = el("button", { cls: "back", type: "button", on: { click: goBack } }, icon("back"), "Back");
  main.replaceChildren(loading(4));
  let events;
  try { events = await api.history(id, signal); } catch (problem) {
    if (problem.status !== 404) throw problem;
    document.title = "No such memory · memspan";
    main.replaceChildren(back, el("h1", { tabindex: -1 }, "No such memory"), failed(problem));
    return;
  }
  const end = events.at(-1), erased = end.event === "ERASE";
  if (erased || end.event === "DELETE") {
    document.title = `${EVENTS[end.event]} · memspan`;
    const bring = () => api.undo(end.operation).then(() => { toast("It is back"); reload(); }, troubled);
    put(main, back, el("h1", { tabindex: -1 }, erased ? "This memory was erased" : "This memory was deleted"),
      el("p", { cls: "lead" }, erased ? "Nothing is left of what it said." : "Nothing finds it any more. Its history stays, and it can come back."),
      !erased && end.operation && el("button", { cls: "primary", type: "button", on: { click: bring } }, "Bring it back"), told(events));
    return;
  }
  const { segment, tag } = await api.segment(id, signal);
  document.title = `${short(segment.text, 40)} · memspan`;
  const edit = async () => {
    if (!await correct(segment, tag)) return;
    await reload();
    const [latest] = (await api.history(id)).slice(-1);
    done("Changed", latest?.operation, reload);
  };
  const remove = async () => {
    try {
      await api.remove(id);
      const [latest] = (await api.history(id)).slice(-1);
      await reload();
      done("Deleted", latest?.operation, reload);
    } catch (problem) { troubled(problem); }
  };
  const fact = (name, ...value) => (value.some(part => part !== null && part !== undefined && part !== "") ? el("div", {}, el("dt", {}, name), el("dd", {}, value)) : null);
  const around = el("section", { cls: "around", "aria-labelledby": "around" });
  main.replaceChildren(back, el("article", { cls: "whole" },
    el("h1", { cls: "unseen", tabindex: -1 }, "Memory"),
    el("p", { cls: "said", id: "text" }, segment.text), about(segment),
    el("div", { cls: "acts" }, el("button", { type: "button", on: { click: edit } }, "Edit"), el("button", { cls: "danger-quiet", type: "button", on: { click: remove } }, "Delete"))),
  around, told(events), el("section", { "aria-labelledby": "details" }, el("h2", { id: "details" }, "Details"),
    el("dl", { cls: "facts" },
      fact("Happened", segment.occurred_at ? when(segment.occurred_at) : "nobody said"), fact("Stored", when(segment.recorded_at)),
      fact("Category", segment.category.length ? el("a", { href: link("tree", { at: segment.category }) }, segment.category.join(" / ")) : null),
      fact("Session", segment.session), fact("User", segment.user_id), fact("Agent", segment.agent_id), fact("Run", segment.run_id),
      fact("Source", segment.source), fact("Kind", segment.kind), fact("Importance", segment.importance.toFixed(2)),
      fact("True from", segment.valid_from && when(segment.valid_from)), fact("True until", segment.valid_to && when(segment.valid_to)), fact("Expires", segment.expires_at && when(segment.expires_at)),
      fact("State", segment.state), fact("Version", String(segment.version)), fact("Tokens", whole(segment.tokens)),
      fact("Said again", segment.repeats ? plural(segment.repeats, "time") : null),
      ...Object.entries(segment.metadata ?? {}).map(([name, value]) => fact(name, typeof value === "string" ? value : JSON.stringify(value))),
      fact("Id", el("button", { cls: "id", type: "button", title: "Copy", on: { click: () => copy(segment.id, "The id was copied") } }, segment.id)))));
  await graph(around, segment, { hops: Number(query.get("hops")) || 1, signal });
}

function goBack() {
  if (history.length > 1) history.back(); else location.hash = link("");
}

// Its versions, the last first, with what differs between them.
function told(events) {
  let before = null;
  const items = events.map(event => {
    const text = event.text ?? null, differs = before !== null && text !== null && text !== before;
    const shown = text === null || event.event === "DELETE" ? null : differs ? el("p", { cls: "said" }, compared(before, text)[1]) : el("p", { cls: "said" }, text === before ? "The text stayed as it was." : text);
    const was = differs ? el("p", { cls: "said was" }, compared(before, text)[0]) : null;
    if (text !== null) before = text;
    return el("li", {}, el("p", { cls: "event" }, el("strong", {}, EVENTS[event.event] ?? event.event), " ", when(event.at), el("span", {}, `version ${event.version}`)), was, shown);
  });
  return el("section", { "aria-labelledby": "history" }, el("h2", { id: "history" }, "History"), items.length ? el("ol", { cls: "plain events" }, items.reverse()) : empty("No history"));
}
