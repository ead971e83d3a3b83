// Adding a memory, and changing one.

import { api } from "./api.js";
import { el, go, link } from "./dom.js";
import { dialog, done, field } from "./notices.js";

const KINDS = [["episodic", "what happened"], ["semantic", "what is so"], ["procedural", "how it is done"], ["core", "always in the context"], ["working", "for a day"]].map(([value, words]) => [value, `${value}: ${words}`]);
const path = text => text.split("/").map(step => step.trim()).filter(Boolean);
const local = iso => iso ? new Date(new Date(iso) - new Date(iso).getTimezoneOffset() * 60_000).toISOString().slice(0, 16) : "";
const instant = value => (value ? new Date(value).toISOString() : undefined);

const form = segment => el("div", { cls: "fields" },
  field("text", "What to remember", { rows: 5, required: true, value: segment?.text ?? "" }),
  !segment && field("user_id", "User", { placeholder: "whose memory it is" }),
  field("category", "Category", { placeholder: "Work / Plans", value: segment?.category?.join(" / ") ?? "" }),
  field("kind", "Kind", { options: KINDS, value: segment?.kind ?? "episodic" }),
  field("occurred_at", "When it happened", { type: "datetime-local", value: local(segment?.occurred_at) }),
  field("importance", "Importance, 0 to 1", { type: "number", min: 0, max: 1, step: "any", value: segment?.importance ?? 0.5 }));

export async function editor() {
  const added = await dialog("Add a memory", form(), { label: "Remember", submit: async given => {
    const user = given.get("user_id").trim();
    return api.add({ content: given.get("text"), user_id: user || undefined, category: path(given.get("category")), kind: given.get("kind"),
      occurred_at: instant(given.get("occurred_at")), importance: Number(given.get("importance")) });
  } });
  if (!added) return;
  if (added.ids[0]) go(link(`segment/${added.ids[0]}`));
  done(added.added ? "Remembered" : added.ids.length ? "That was known already, and is counted again" : "That was a recalled context, and is not remembered again", added.added ? added.operation : null, () => go(link("")));
}

// Only what differs is sent, for the version that was read. Gives whether anything was changed.
export function correct(segment, tag) {
  return dialog("Edit this memory", form(segment), { submit: async given => {
    const now = { text: given.get("text"), category: path(given.get("category")), kind: given.get("kind"), importance: Number(given.get("importance")) };
    const body = Object.fromEntries(Object.entries(now).filter(([name, value]) => JSON.stringify(value) !== JSON.stringify(segment[name])));
    if (given.get("occurred_at") && given.get("occurred_at") !== local(segment.occurred_at)) body.occurred_at = instant(given.get("occurred_at"));
    if (Object.keys(body).length) await api.update(segment.id, body, tag);
    return Object.keys(body).length > 0;
  } });
}
