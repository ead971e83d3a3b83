// What a question finds, why, and the context a model would get for it.

import { api, here } from "./api.js";
import { about, date, el, go, icon, link, plural, roving, short, whole } from "./dom.js";
import { copy, empty, failed, loading } from "./notices.js";
import { editor } from "./editor.js";

const BUDGET = 1000, HITS = 10, LATEST = 6, LONGEST = 600;
export const RECIPES = ["default", "fast", "deep", "dsm", "flat", "semantic", "keyword"];
// The channels and features of a score, in words.
const CHANNELS = {
  semantic: ["Meaning", "how near the meaning of the whole text is to the question"],
  keyword: ["Words", "the words it shares with the question, rare ones most"],
  maxsim: ["Word by word", "each word of the question beside the most like word of the text"],
  window: ["With its turns", "the same, read together with the turns beside it"],
  nearby: ["Words around", "the words of the turns around it"],
  next: ["Beside a hit", "it stands next to something that was found"],
  mentions: ["Shared name", "it shares a telling name with something that was found"],
  named: ["Named", "it mentions a name of the question"],
  graph: ["Near in the graph", "few hops from what was found"],
  tree: ["Tree", "the branch that the question was led down"],
  margin: ["Stands out", "how far its meaning stands out from all others"],
  echo: ["Like the best", "how like the very best hits it is"],
  asks: ["Asks", "it is a question itself"],
  asked: ["Answers", "it follows a turn that asks the same"],
  speaker: ["Speaker", "the question names who said it"],
  user: ["Said by the user", "the user's own words"],
  rerank: ["Reranker", "what the reranker thinks of it"],
  importance: ["Importance", "what was stated when it was stored"],
  category: ["Category", "its category is about the question"],
  recency: ["Recent", "how lately it was stored"],
  frequency: ["Used", "how often searches returned it"],
  relevance: ["Relevant before", "the best score it ever had"],
  strength: ["Strength", "what has not faded of it"],
};
const HOPS = { next: "stands beside", mentions: "shares the name", similar: "is like", reply: "replies to", supersedes: "takes the place of", duplicate: "says the same as" };
let last = null;  // the answers to the last question, so that Back shows them at once

const hop = step => (step.kind === "mentions" ? [HOPS.mentions, " ", el("q", {}, step.via ?? ""), " with"] : [HOPS[step.kind] ?? `is linked (“${step.kind}”) to`]);

export async function show(main, { query, signal }) {
  const q = query.get("q") ?? "", budget = Number(query.get("budget")) || BUDGET, recipe = query.get("recipe") || "default";
  const user = query.get("user") || "", asOf = query.get("as_of") || "", k = Number(query.get("k")) || HITS;
  const results = el("div", { cls: "results" });
  const words = el("input", { id: "q", name: "q", type: "search", value: q, placeholder: "Search this memory", "aria-label": "Search this memory", autocomplete: "off", enterkeyhint: "search", spellcheck: "false" });
  const option = (name, label, props) => el("label", {}, el("span", {}, label), props.options
    ? el("select", { name }, props.options.map(value => el("option", { value, selected: value === props.value }, value))) : el("input", { name, ...props }));
  const form = el("form", { cls: "ask", role: "search", on: { submit: event => {
    event.preventDefault();
    const given = Object.fromEntries(new FormData(form));
    const to = link("search", { ...given, budget: Number(given.budget) === BUDGET ? "" : given.budget, recipe: given.recipe === "default" ? "" : given.recipe });
    if (to === location.hash) { last = null; render(); } else go(given.q.trim() ? to : link(""));
  } } },
    el("div", { cls: "field-of-search" }, icon("search"), words, el("kbd", { "aria-hidden": "true" }, "/"), el("button", { cls: "primary", type: "submit" }, "Search")),
    el("details", { open: Boolean(user || asOf || recipe !== "default" || budget !== BUDGET) }, el("summary", {}, "Options"), el("div", { cls: "options" },
      option("budget", "Context, tokens", { type: "number", min: 1, max: 10_000_000, value: budget, inputmode: "numeric" }),
      option("recipe", "Recipe", { options: RECIPES, value: recipe }),
      option("user", "User", { value: user, placeholder: "anyone", autocomplete: "off" }),
      option("as_of", "Known at", { type: "date", value: asOf }))));
  main.replaceChildren(el("h1", { cls: q ? "unseen" : "welcome", tabindex: -1 }, q ? `Search: ${q}` : "What do you remember?"), form, results);
  if (!q) { document.title = "memspan"; return latest(results, signal); }
  document.title = `${short(q, 40)} · memspan`;
  return render();

  async function render() {
    const ask = { query: q, recipe, user_id: user || undefined, as_of: asOf || undefined };
    const asked = JSON.stringify([ask, k, budget, here.namespace, here.writes]);
    if (last?.asked !== asked) {
      results.replaceChildren(loading(5));
      const [found, context] = await Promise.allSettled([api.search({ ...ask, k, explain: true }, signal), api.context({ ...ask, budget }, signal)]);
      if (signal.aborted) return;
      last = { asked, found, context };
    }
    const { found, context } = last;
    const again = () => { last = null; render(); };
    const hits = el("section", { cls: "hits", "aria-labelledby": "hits" }), model = el("section", { cls: "context", "aria-labelledby": "context" });
    const tabs = el("div", { cls: "tabs" }, ["Hits", "Context"].map((label, index) => el("button", { type: "button", "aria-pressed": String(index === 0), on: { click: event => {
      results.dataset.shows = label.toLowerCase();
      for (const tab of tabs.children) tab.setAttribute("aria-pressed", String(tab === event.target));
    } } }, label)));
    results.dataset.shows = "hits";
    results.replaceChildren(tabs, hits, model);
    if (found.status === "fulfilled") listed(hits, found.value.hits, { k, query }); else hits.append(failed(found.reason, again));
    if (context.status === "fulfilled") packed(model, context.value); else model.append(el("h2", { id: "context" }, "What a model would read"), failed(context.reason));
  }
}

// Before anything is asked: what came last.
async function latest(box, signal) {
  box.replaceChildren(loading(4));
  const { segments } = await api.timeline({ bins: 0, limit: 1 }, signal);
  if (!segments) {
    box.replaceChildren(empty("Nothing is remembered here yet",
      "Add a memory, connect an assistant, or write from Python:", el("pre", {}, 'memory.add("I moved to Lisbon in May.", user_id="ana")'),
      el("button", { cls: "primary", type: "button", on: { click: () => editor() } }, "Add the first memory")));
    return;
  }
  const { page } = await api.timeline({ bins: 0, limit: LATEST, skip: Math.max(0, segments - LATEST) }, signal);
  const list = el("ol", { cls: "plain cards" }, page.reverse().map(segment => el("li", {}, el("a", { cls: "card", href: link(`segment/${segment.id}`) },
    el("p", { cls: "said" }, short(segment.text, 240)), about(segment)))));
  box.replaceChildren(el("section", { cls: "latest", "aria-labelledby": "latest" },
    el("h2", { id: "latest" }, "Latest"), el("p", { cls: "soft" }, `${plural(segments, "memory", "memories")} in ${here.namespace}`, " · ", el("a", { href: link("timeline") }, "all of them, by time")), list));
  roving(list, "a.card");
}

function listed(box, hits, { k, query }) {
  if (!hits.length) {
    box.append(el("h2", { id: "hits" }, "Hits"), empty("Nothing was found", "Try other words, the recipe “deep”, or another namespace."));
    return;
  }
  const texts = new Map(hits.map(hit => [hit.id, hit.text]));
  const list = el("ol", { cls: "plain cards" }, hits.map((hit, index) => {
    const parts = Object.entries(hit.channels ?? {}).filter(([, part]) => part > 0.005).sort((a, b) => b[1] - a[1]);
    const bars = some => some.map(([name, part]) => {
      const [label, meaning] = CHANNELS[name] ?? [name, ""], share = Math.min(1, part);
      return el("li", { title: meaning }, el("span", {}, label), el("i", { vars: { "--part": `${(100 * share).toFixed(1)}%` } }), el("b", {}, part.toFixed(2)));
    });
    return el("li", {}, el("article", { cls: "card hit" },
      el("div", { cls: "score", title: "How probable it is that this is evidence for an answer" }, el("span", { cls: "unseen" }, "Score "), el("strong", {}, hit.score.toFixed(2)), el("i", { vars: { "--part": `${(100 * hit.score).toFixed(1)}%` } })),
      el("a", { cls: "said", href: link(`segment/${hit.id}`), id: `hit-${index + 1}` }, short(hit.text, LONGEST)),
      about(hit),
      parts.length > 0 && el("details", { cls: "why" }, el("summary", {}, el("span", {}, "Why it is here"), el("small", {}, parts.slice(0, 3).map(([name]) => (CHANNELS[name] ?? [name])[0].toLowerCase()).join(", "))),
        el("ul", { cls: "bars" }, bars(parts)),
        hit.path?.length > 0 && el("p", { cls: "path" }, "Through the graph: ", hit.path.map((step, at) => [at ? ", which " : "it ", ...hop(step), " ",
          el("a", { href: link(`segment/${step.id}`) }, texts.has(step.id) ? `“${short(texts.get(step.id), 60)}”` : "another memory")])))));
  }));
  box.append(el("h2", { id: "hits" }, plural(hits.length, "hit")), list);
  if (hits.length === k) box.append(el("a", { cls: "button", href: link("search", { ...Object.fromEntries(query), in: undefined, k: k + HITS }) }, "Show more"));
  roving(list, "a.said");
}

// The text as it would be sent, to the letter; a citation leads to what it stands for.
function packed(box, context) {
  const used = context.tokens / context.budget, cited = new Map(context.citations.map(citation => [String(citation.number), citation]));
  const lines = context.text.split("\n").map(line => {
    const head = /^\[(\d+)\] ?(.*)$/.exec(line), citation = head && cited.get(head[1]);
    if (citation) return el("p", { cls: "head" }, el("a", { href: link(`segment/${citation.ids[0]}`), title: `Score ${citation.score.toFixed(2)} · ${date(citation.time)}` }, `[${head[1]}]`), ` ${head[2]}`);
    return line.startsWith(">") ? el("p", { cls: "quoted" }, line) : el("p", {}, line || " ");
  });
  box.append(el("h2", { id: "context" }, "What a model would read"),
    el("div", { cls: "gauge" }, el("div", { cls: "meter", role: "meter", "aria-label": "Tokens used of the budget", "aria-valuemin": 0, "aria-valuemax": context.budget, "aria-valuenow": context.tokens, vars: { "--part": `${(100 * used).toFixed(1)}%` } }, el("i", {})),
      el("p", {}, el("strong", {}, whole(context.tokens)), ` of ${whole(context.budget)} tokens`, el("span", { cls: "soft" }, ` · ${context.complete ? "everything in scope fits" : plural(context.citations.length, "citation")} · counted by ${context.tokenizer}`))),
    el("div", { cls: "sent", tabindex: 0, role: "group", "aria-label": "The context" }, lines),
    el("button", { type: "button", on: { click: () => copy(context.text, "The context was copied") } }, "Copy"));
}
export const forget = () => { last = null; };
