// Pairs of which the later may have taken the place of the earlier, for the reader to decide.

import { api } from "./api.js";
import { about, compared, el, link, plural } from "./dom.js";
import { done, empty, loading, troubled } from "./notices.js";

const REASONS = { number: "another number", date: "another date", name: "another name", preference: "another liking", negation: "one denies the other", wording: "another word in nearly the same sentence", "said again": "nearly the same, said again" };

export async function show(main, { signal, reload }) {
  document.title = "Conflicts · memspan";
  const list = el("div", { cls: "pairs" }, el("p", { cls: "soft" }, "What was said is compared. In a large memory that takes a while."), loading(3));
  main.replaceChildren(el("h1", { tabindex: -1 }, "Conflicts"),
    el("p", { cls: "lead" }, "Two statements of one speaker, of which the later may have taken the place of the earlier. Nothing changes until you decide, and every decision can be undone."), list);
  const pairs = await api.conflicts({ limit: 20, recent: 500 }, signal);
  if (!pairs.length) { list.replaceChildren(empty("Nothing seems to contradict", "When a later statement looks as if it took the place of an earlier one, the pair comes here.")); return; }
  const decide = (pair, verb, words) => async () => {
    try {
      const operation = await api[verb]({ older: pair.older.id, newer: pair.newer.id });
      await reload();
      done(words, operation.id, reload);
    } catch (problem) { troubled(problem); }
  };
  list.replaceChildren(...pairs.map(pair => {
    const [older, newer] = compared(pair.older.text, pair.newer.text);
    const side = (label, segment, text) => el("a", { cls: "side-of", href: link(`segment/${segment.id}`) }, el("span", { cls: "label" }, label), el("p", { cls: "said" }, text), about(segment));
    return el("article", { cls: "card pair" },
      el("p", { cls: "reasons" }, pair.reasons.map(reason => el("span", { cls: "tag" }, REASONS[reason] ?? reason)), el("span", { cls: "soft" }, `sure to ${Math.round(100 * pair.score)} %`)),
      el("div", { cls: "both" }, side("Earlier", pair.older, older), side("Later", pair.newer, newer)),
      el("div", { cls: "acts" }, el("button", { cls: "primary", type: "button", on: { click: decide(pair, "accept", "The later one counts from now on") } }, "The later one counts"),
        el("button", { type: "button", on: { click: decide(pair, "reject", "Both stand") } }, "Both stand")));
  }));
  list.prepend(el("p", { cls: "soft" }, `${plural(pairs.length, "pair")}${pairs.length === 20 ? " or more" : ""}, the surest first`));
}
