// A list of any length: only the rows in sight are elements, and only their pages are asked for.

import { el } from "./dom.js";

export const PAGE = 100;  // rows that are asked for at once
const KEPT = 24, MARGIN = 12, REST = 90, TALLEST = 30_000_000;  // pages, rows, milliseconds, and pixels that browsers can lay out

// `load(skip, limit, signal)` gives rows, of which `first` are here; `row(item, index)` an element that can have the
// focus. The window scrolls.
export function virtualList({ total, label, tall, first = null, load, row, signal }) {
  const shown = new Map(), pages = new Map(), box = el("div", { cls: "virtual", role: "list", "aria-label": label });
  if (first) pages.set(0, { rows: first });
  const most = Math.min(total, Math.floor(TALLEST / tall));
  box.style.height = `${most * tall}px`;
  let active = 0, wanted = null, frame = 0;

  // The rows of a page, null until they have come. What is only scrolled past is not asked for.
  function page(number) {
    if (!pages.has(number)) {
      const kept = { rows: null };
      pages.set(number, kept);
      setTimeout(() => {
        const [top, end] = span();
        if (!box.isConnected || (number + 1) * PAGE <= top || number * PAGE >= end) { pages.delete(number); return; }
        load(number * PAGE, PAGE, signal).then(rows => { kept.rows = rows; paint(); }, () => pages.delete(number));
      }, pages.size === 1 ? 0 : REST);
      for (const old of pages.keys()) if (pages.size > KEPT && old !== number) pages.delete(old);
    }
    return pages.get(number).rows;
  }

  function span() {
    const top = box.getBoundingClientRect().top;
    const first = Math.floor(-top / tall) - MARGIN, last = Math.ceil((innerHeight - top) / tall) + MARGIN;
    return [Math.max(0, first), Math.min(most, last)];
  }

  function paint() {
    frame = 0;
    if (!box.isConnected) return;
    const [first, last] = span();
    for (const [index, element] of shown)
      if (index < first || index >= last) if (!element.contains(document.activeElement)) { element.remove(); shown.delete(index); }
    for (let index = first; index < last; index += 1) {
      const rows = page(Math.floor(index / PAGE)), item = rows?.[index % PAGE], known = shown.get(index);
      if (known && (known.dataset.full || !item)) continue;
      const made = el("div", { cls: "slot", role: "listitem", "aria-setsize": total, "aria-posinset": index + 1 }, item && row(item, index));
      made.style.top = `${index * tall}px`;
      made.style.height = `${tall}px`;
      if (item) made.dataset.full = "yes";
      if (made.firstChild) made.firstChild.tabIndex = index === active ? 0 : -1;
      if (known) known.replaceWith(made); else box.append(made);
      shown.set(index, made);
    }
    if (wanted !== null && shown.get(wanted)?.dataset.full) { const to = wanted; wanted = null; focus(to); }
    if (!box.querySelector('[tabindex="0"]')) { const any = shown.get(first + MARGIN) ?? shown.get(first); if (any?.firstChild) any.firstChild.tabIndex = 0; }
  }
  const ask = () => { frame ||= requestAnimationFrame(paint); };

  function focus(index) {
    const element = shown.get(index)?.firstChild;
    for (const stop of box.querySelectorAll('[tabindex="0"]')) stop.tabIndex = -1;
    active = index;
    if (!element) {  // not there yet: it is scrolled to, and gets the focus when it has come
      wanted = index;
      scrollTo({ top: box.getBoundingClientRect().top + scrollY + index * tall - innerHeight / 2 });
      ask();
      return;
    }
    element.tabIndex = 0;
    element.focus({ preventScroll: true });
    element.scrollIntoView({ block: "nearest" });
  }

  box.addEventListener("focusin", event => {
    const slot = event.target.closest(".slot");
    if (slot) active = Number(slot.getAttribute("aria-posinset")) - 1;
  });
  box.addEventListener("keydown", event => {
    const leap = Math.max(1, Math.floor(innerHeight / tall) - 4);
    const to = { ArrowDown: active + 1, ArrowUp: active - 1, Home: 0, End: most - 1, PageDown: active + leap, PageUp: active - leap }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    focus(Math.min(most - 1, Math.max(0, to)));
  });
  addEventListener("scroll", ask, { passive: true, signal });
  addEventListener("resize", ask, { signal });
  requestAnimationFrame(paint);
  return box;
}
