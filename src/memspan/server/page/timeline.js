// When things happened: counts over the time in sight, and the memories themselves below, as many as there are.

import { api } from "./api.js";
import { about, clock, date, el, go, link, plural, short, spoken, svg, timeOf, whole } from "./dom.js";
import { empty, loading } from "./notices.js";
import { PAGE, virtualList } from "./virtual.js";

const HIGH = 132, FOOT = 22, ROW = 36, TALL = 64, PHONE = 700, DAY = 86_400_000;
const STEPS = [60e3, 5 * 60e3, 15 * 60e3, 3_600e3, 3 * 3_600e3, 6 * 3_600e3, DAY, 2 * DAY, 7 * DAY, 14 * DAY];
const MONTHS = [1, 2, 3, 6, 12, 24, 60, 120, 240, 600, 1200];

let byKey = false;  // who moves by keyboard goes on by keyboard in the chart that comes next

export async function show(main, { query, signal }) {
  document.title = "Timeline · memspan";
  const start = query.get("start") ?? "", end = query.get("end") ?? "";
  const chart = el("div", { cls: "chart", tabindex: 0, role: "group", "aria-roledescription": "chart", "aria-describedby": "keys" }, loading(1)), told = el("p", { cls: "window", "aria-live": "polite" }), list = el("div", {});
  const button = (label, act, words) => el("button", { type: "button", "aria-label": words, on: { click: act } }, label);
  main.replaceChildren(el("div", { cls: "title" }, el("h1", { tabindex: -1 }, "Timeline"), el("div", { cls: "row" }, button("+", () => zoom(0.5), "Zoom in"), button("−", () => zoom(2), "Zoom out"), button("All", () => go(link("timeline"))))),
    chart, el("p", { id: "keys", cls: "soft hint" }, "Drag over a part to zoom into it. Keys: + and − zoom, arrows move, 0 shows all."), told, list);
  const acts = { "0": () => go(link("timeline")) };  // the others when it is known what is in sight
  chart.addEventListener("keydown", event => {
    if (acts[event.key]) { event.preventDefault(); byKey = true; acts[event.key](); }
  });
  if (byKey) chart.focus({ preventScroll: true });
  byKey = false;
  const bins = Math.max(24, Math.min(160, Math.floor(chart.clientWidth / 7)));
  const seen = await api.timeline({ start, end, bins, limit: PAGE }, signal);
  if (!seen.start || (!seen.segments && !start && !end)) { chart.remove(); main.querySelector("#keys").remove(); list.replaceChildren(empty("Nothing is remembered here yet")); return; }
  const from = Date.parse(seen.start), until = Date.parse(seen.end ?? seen.start), span = Math.max(1, until - from);
  chart.setAttribute("aria-label", `${plural(seen.segments, "memory", "memories")} from ${date(from)} to ${date(until)}`);
  told.replaceChildren(el("strong", {}, plural(seen.segments, "memory", "memories")), ` from ${span < 3 * DAY ? `${date(from)}, ${clock(from)}` : date(from)} to ${span < 3 * DAY ? `${date(until)}, ${clock(until)}` : date(until)}`);
  draw();
  let wide = chart.clientWidth;
  const watch = new ResizeObserver(() => { if (chart.clientWidth !== wide) { wide = chart.clientWidth; draw(); } });
  watch.observe(chart);
  signal.addEventListener("abort", () => watch.disconnect());
  const phone = innerWidth < PHONE;
  if (seen.segments) list.replaceChildren(virtualList({ total: seen.segments, first: seen.page, label: "Memories in the order of time", tall: phone ? TALL : ROW, signal,
    load: async (skip, limit) => (await api.timeline({ start, end, bins: 0, skip, limit }, signal)).page,
    row: segment => (phone ? el("a", { cls: "line two", href: link(`segment/${segment.id}`) }, el("span", { cls: "said" }, short(segment.text, 160)), about(segment))
      : el("a", { cls: "line", href: link(`segment/${segment.id}`) }, el("time", { datetime: timeOf(segment) }, spoken(timeOf(segment))[0], el("small", {}, spoken(timeOf(segment))[1])), el("span", { cls: "who" }, segment.speaker || segment.user_id || ""), el("span", { cls: "said" }, short(segment.text, 220)))) }));
  else list.replaceChildren(empty("Nothing happened in this time", el("a", { href: link("timeline") }, "Show all")));

  function window(low, high) {
    if (high - low < 1000) return;
    go(link("timeline", { start: new Date(low).toISOString(), end: new Date(high).toISOString() }));
  }
  function zoom(factor, middle = from + span / 2) {
    const low = middle - (middle - from) * factor, high = middle + (until - middle) * factor;
    window(Math.max(low, -62_135_596_800_000), Math.min(high, 253_402_300_799_000));
  }

  function draw() {
    const width = chart.clientWidth, most = Math.max(1, ...seen.counts), each = width / seen.counts.length;
    const x = time => (time - from) / span * width, time = place => from + place / width * span;
    const bars = svg("g", { cls: "bars-of-time" }, seen.counts.map((count, at) => {
      const high = count ? Math.max(2, count / most * HIGH) : 0;
      return svg("rect", { x: (at * each + 0.5).toFixed(2), y: (HIGH - high).toFixed(2), width: Math.max(0.5, each - 1).toFixed(2), height: high.toFixed(2), rx: Math.min(2, each / 4) });
    }));
    const axis = svg("g", { cls: "axis" }, svg("line", { x1: 0, x2: width, y1: HIGH + 0.5, y2: HIGH + 0.5 }), ticks(from, until, width / 90).map(([tick, words]) => {
      const place = x(tick), anchor = place < 24 ? "start" : place > width - 24 ? "end" : "middle";
      return [svg("line", { x1: place, x2: place, y1: HIGH, y2: HIGH + 4 }), svg("text", { x: place, y: HIGH + FOOT - 5, "text-anchor": anchor }, words)];
    }));
    const brush = svg("rect", { cls: "brush", y: 0, height: HIGH, width: 0 }), tip = el("div", { cls: "tip", hidden: true });
    const picture = svg("svg", { width, height: HIGH + FOOT, "aria-hidden": "true" }, bars, axis, brush);
    chart.replaceChildren(picture, tip);
    let down = null;
    const at = event => Math.min(width, Math.max(0, event.clientX - picture.getBoundingClientRect().left));
    picture.addEventListener("pointerdown", event => { down = at(event); picture.setPointerCapture(event.pointerId); });
    picture.addEventListener("pointermove", event => {
      const place = at(event), bin = Math.min(seen.counts.length - 1, Math.floor(place / each));
      tip.hidden = false;
      tip.replaceChildren(el("strong", {}, whole(seen.counts[bin])), ` ${span / seen.counts.length < DAY ? `${date(time(bin * each))}, ${clock(time(bin * each))}` : date(time(bin * each))}`);
      tip.style.left = `${Math.min(width - 130, Math.max(0, place - 60))}px`;
      if (down !== null) { brush.setAttribute("x", Math.min(down, place)); brush.setAttribute("width", Math.abs(place - down)); }
    });
    picture.addEventListener("pointerleave", () => { tip.hidden = true; });
    picture.addEventListener("pointerup", event => {
      const place = at(event), began = down;
      down = null;
      if (began === null) return;
      if (Math.abs(place - began) > 6) window(time(Math.min(began, place)), time(Math.max(began, place)));
      else { const bin = Math.floor(place / each); if (seen.counts[bin]) window(time(bin * each), time((bin + 1) * each)); }
    });
  }
  chart.addEventListener("wheel", event => {
    if (!event.ctrlKey && !event.shiftKey) return;  // the wheel alone scrolls the page
    event.preventDefault();
    zoom(event.deltaY > 0 ? 1.6 : 0.6, from + (event.clientX - chart.getBoundingClientRect().left) / chart.clientWidth * span);
  }, { passive: false });
  const closer = () => zoom(0.5), shift = part => () => window(from + span * part, until + span * part);
  Object.assign(acts, { "+": closer, "=": closer, "-": () => zoom(2), ArrowLeft: shift(-0.25), ArrowRight: shift(0.25) });
}

// About `most` round times between two, each with its words, in the reader's time zone.
function ticks(from, until, most) {
  const span = until - from, step = STEPS.find(each => span / each <= most), made = [];
  if (step) {
    const zone = new Date(from).getTimezoneOffset() * 60_000;
    for (let time = Math.ceil((from - zone) / step) * step + zone; time < until; time += step) made.push([time, step < DAY ? clock(time) : date(time).replace(/ \d+$/, "")]);
    return made;
  }
  const months = MONTHS.find(each => span / (each * 30.44 * DAY) <= most) ?? 2400, first = new Date(from);
  let month = Math.ceil((first.getFullYear() * 12 + first.getMonth()) / months) * months;
  for (; month < 200_000; month += months) {
    const time = new Date(2000, 0, 1).setFullYear(Math.floor(month / 12), month % 12, 1);
    if (time >= until) break;
    if (time >= from) made.push([time, months < 12 ? date(time).replace(/^\d+ /, "") : String(Math.floor(month / 12))]);
  }
  return made;
}
