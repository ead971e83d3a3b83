// What the graph leads to from a memory: it in the middle, what each hop reaches further out, on both sides.

import { api } from "./api.js";
import { el, link, roving, short, svg } from "./dom.js";
import { empty, failed, loading } from "./notices.js";

const ROW = 46, NARROW = 640, MOST = 14;
const KINDS = { next: "beside it", mentions: "shared name", similar: "alike in meaning" };

export async function graph(box, segment, { hops, signal }) {
  const stage = el("div", { cls: "stage" }, loading(3));
  const choose = el("div", { cls: "segmented", role: "group", "aria-label": "Hops" }, [1, 2, 3].map(number => el("button", { type: "button", "aria-pressed": String(number === hops), on: { click: () => {
    history.replaceState(null, "", link(`segment/${segment.id}`, { hops: number === 1 ? "" : number }));
    graph(box, segment, { hops: number, signal }).then(() => box.querySelector('[aria-pressed="true"]')?.focus());
  } } }, number === 1 ? "1 hop" : `${number} hops`)));
  box.replaceChildren(el("div", { cls: "title" }, el("h2", { id: "around" }, "Around it"), choose), stage);
  let found;
  try { found = await api.neighbors(segment.id, { hops, limit: MOST * hops }, signal); } catch (problem) {
    if (problem.name !== "AbortError") stage.replaceChildren(failed(problem));
    return;
  }
  if (!found.length) { stage.replaceChildren(empty("Nothing is linked to it yet", "Memories are linked when they stand beside each other, share a name, or are alike in meaning.")); return; }
  const draw = () => stage.isConnected && stage.replaceChildren(drawn(segment, found, stage.clientWidth - 32), listed(found));
  draw();
  let wide = stage.clientWidth;
  new ResizeObserver(() => { if (Math.abs(stage.clientWidth - wide) > 8) { wide = stage.clientWidth; draw(); } }).observe(stage);
}

// A tree of the paths: each neighbour hangs on the last step that led to it.
function rooted(segment, found) {
  const nodes = new Map([[segment.id, { id: segment.id, text: segment.text, below: [], depth: 0 }]]);
  for (const near of [...found].sort((a, b) => a.path.length - b.path.length)) {
    const step = near.path.at(-1), above = nodes.get(step.id) ?? nodes.get(segment.id);
    const node = { id: near.id, text: near.text, strength: near.strength, step, below: [], depth: above.depth + 1 };
    if (nodes.has(near.id)) continue;
    nodes.set(near.id, node);
    above.below.push(node);
  }
  return nodes.get(segment.id);
}

function drawn(segment, found, width) {
  const root = rooted(segment, found), narrow = width < NARROW;
  const leaves = node => Math.max(1, node.below.reduce((sum, child) => sum + leaves(child), 0));
  const deepest = node => node.below.reduce((most, child) => Math.max(most, deepest(child)), node.depth);
  const sides = [[], []];
  for (const child of root.below) {  // the lighter side takes the next one
    const heavy = side => side.reduce((sum, node) => sum + leaves(node), 0);
    sides[!narrow && heavy(sides[1]) < heavy(sides[0]) ? 1 : 0].push(child);
  }
  const inner = narrow ? width - 40 : width / 2, lead = narrow ? 26 : 64, depth = deepest(root);
  const room = Math.max(narrow ? 170 : 190, (inner - lead) / depth);
  const rows = Math.max(...sides.map(side => side.reduce((sum, node) => sum + leaves(node), 0)), 1);
  const high = rows * ROW + 24, wide = (narrow ? 1 : 2) * (lead + room * depth) + (narrow ? 14 : 0), middle = narrow ? 14 : wide / 2;
  const edges = svg("g", { cls: "edges" }), marks = svg("g", { cls: "nodes" });
  root.x = middle; root.y = high / 2;
  sides.forEach((side, at) => {
    const sign = at ? -1 : 1, total = side.reduce((sum, node) => sum + leaves(node), 0);
    let line = high / 2 - (total - 1) * ROW / 2;
    const place = node => {
      const first = line;
      node.below.forEach(place);
      if (!node.below.length) line += ROW;
      node.x = middle + sign * (lead + (node.depth - 1) * room);
      node.y = node.below.length ? (node.below[0].y + node.below.at(-1).y) / 2 : first;
      node.sign = sign;
    };
    side.forEach(place);
  });
  const draw = (node, above) => {
    if (above) {
      // out of a labelled node the line runs straight below its text, then bends
      const from = above.depth ? node.x - node.sign * 40 : above.x, bend = (node.x - from) / 2, kind = node.step.kind in KINDS ? node.step.kind : "stated";
      edges.append(svg("path", { cls: `edge ${kind}`, d: `M${above.x} ${above.y}L${from} ${above.y}C${from + bend} ${above.y} ${node.x - bend} ${node.y} ${node.x} ${node.y}`, "stroke-width": (0.8 + 2.2 * node.strength).toFixed(2) }));
      // a node that leads no further has the whole row
      const free = node.below.length ? room : room * (depth - node.depth + 1), letters = Math.max(12, Math.floor((free - 30) / 7.1));
      const anchor = node.sign < 0 ? "end" : "start", gap = node.sign * 11;
      const label = `${short(node.text, 80)} (${words(node.step)})`;
      marks.append(svg("a", { href: link(`segment/${node.id}`), cls: "node", "aria-label": label, tabindex: -1 },
        svg("title", {}, `${short(node.text, 240)}`),
        svg("rect", { cls: "hit", x: node.sign < 0 ? node.x - free + 18 : node.x - 10, y: node.y - ROW / 2 + 2, width: free - 8, height: ROW - 4, rx: 8 }),
        svg("circle", { cx: node.x, cy: node.y, r: (3.5 + 3.5 * node.strength).toFixed(1), cls: kind }),
        svg("text", { x: node.x + gap, y: node.y - 5, "text-anchor": anchor }, short(node.text, letters)),
        svg("text", { x: node.x + gap, y: node.y + 14, "text-anchor": anchor, cls: "via" }, short(words(node.step), letters))));
    }
    node.below.forEach(child => draw(child, node));
  };
  draw(root, null);
  const picture = svg("svg", { cls: "graph", width: wide, height: high, viewBox: `0 0 ${wide} ${high}`, role: "group", "aria-label": "The graph around this memory; arrows go through it, Enter walks on" },
    edges, svg("circle", { cls: "root", cx: root.x, cy: root.y, r: 9 }), marks);
  const held = el("div", { cls: "scrolls" }, picture);
  roving(held, "a.node", { across: true });  // an svg that listens for the focus would be a stop of its own in Chromium
  return held;
}

const words = step => (step.kind === "mentions" ? `shares “${step.via}”` : KINDS[step.kind] ?? step.kind);

// The legend: what the lines mean, of those there are.
function listed(found) {
  const kinds = [...new Set(found.map(near => (near.path.at(-1).kind in KINDS ? near.path.at(-1).kind : "stated")))];
  return el("ul", { cls: "legend" }, kinds.map(kind => el("li", {}, el("i", { cls: kind }), kind === "stated" ? "stated link" : KINDS[kind])), el("li", { cls: "soft" }, "thicker is stronger; a click walks on"));
}
