// Elements, words for values, and the keys that lists share. What was stored only ever becomes a text node.

const SVG = "http://www.w3.org/2000/svg";
const icons = new URL("icons.svg", import.meta.url);

function filled(element, props, kids) {
  for (const [name, value] of Object.entries(props ?? {})) {
    if (value === undefined || value === null || value === false) continue;
    if (name === "on") for (const [event, act] of Object.entries(value)) element.addEventListener(event, act);
    else if (name === "value") element.value = value;
    else if (name === "vars") for (const [key, set] of Object.entries(value)) element.style.setProperty(key, set);
    else element.setAttribute(name === "cls" ? "class" : name, value === true ? "" : value);
  }
  element.append(...kids.flat(2).filter(kid => kid !== null && kid !== undefined && kid !== false));
  return element;
}
export const el = (tag, props, ...kids) => filled(document.createElement(tag), props, kids);
export const svg = (tag, props, ...kids) => filled(document.createElementNS(SVG, tag), props, kids);
export const icon = name => svg("svg", { viewBox: "0 0 24 24", "aria-hidden": "true" }, svg("use", { href: `${icons}#${name}` }));
// What an element holds from now on; what is nothing is left out.
export const put = (element, ...kids) => { element.replaceChildren(); return filled(element, null, kids); };
export const at = id => document.getElementById(id);

// A link to a view, in the namespace that is shown.
export function link(path, query = {}, namespace = current()) {
  const params = new URLSearchParams();
  for (const [name, value] of Object.entries(query)) for (const one of [value].flat()) if (one !== undefined && one !== null && one !== "") params.append(name, one);
  if (namespace !== "default") params.set("in", namespace);
  const tail = params.toString();
  return `#/${path}${tail ? `?${tail}` : ""}`;
}
export const current = () => place().query.get("in") || "default";
export function place() {
  const [, path, query = ""] = /^#?\/?([^?]*)\??(.*)$/s.exec(location.hash);
  const [view, ...rest] = path.split("/");
  let id = rest.join("/");
  try { id = decodeURIComponent(id); } catch { /* an address typed wrong stays as it is, and is not found */ }
  return { view: view || "search", id, query: new URLSearchParams(query) };
}
export const go = hash => { location.hash = hash; };

export const whole = n => Number(n ?? 0).toLocaleString("en");
export const plural = (n, word, many = `${word}s`) => `${whole(n)} ${n === 1 ? word : many}`;
export function bytes(n) {
  const units = ["bytes", "KB", "MB", "GB", "TB"];
  let unit = 0;
  while (n >= 1000 && unit < 4) { n /= 1000; unit += 1; }
  return `${unit && n < 10 ? n.toFixed(1) : Math.round(n)} ${units[unit]}`;
}
const DATE_PARTS = { day: "numeric", month: "short", year: "numeric" };
const DATE = new Intl.DateTimeFormat("en-GB", DATE_PARTS);
const CLOCK = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit" });
const UTC_DATE = new Intl.DateTimeFormat("en-GB", { ...DATE_PARTS, timeZone: "UTC" });
export const date = time => DATE.format(new Date(time));
export const clock = time => CLOCK.format(new Date(time));
// A time as its day and its hour. One that was given as a day is that day everywhere, and has no hour.
export function spoken(iso) {
  const time = new Date(iso);
  if (Number.isNaN(time.valueOf())) return [String(iso), ""];
  return time % 86_400_000 === 0 ? [UTC_DATE.format(time), ""] : [date(time), clock(time)];
}
export const when = iso => el("time", { datetime: iso, title: iso }, spoken(iso).filter(Boolean).join(", "));
export const timeOf = segment => segment.occurred_at || segment.heard_at || segment.recorded_at;
export const short = (text, most) => {
  const flat = text.replace(/\s+/g, " ").trim();
  return flat.length > most ? `${flat.slice(0, most - 1).trimEnd()}…` : flat;
};

// Who, when, where: the quiet line below a text.
export function about(segment) {
  const said = [segment.speaker || segment.role, segment.user_id?.toLowerCase() === segment.speaker?.toLowerCase() ? null : segment.user_id];
  const where = [segment.category?.length ? segment.category.join(" / ") : null, segment.session, segment.kind !== "episodic" ? segment.kind : null];
  return el("p", { cls: "about" }, [...said.filter(Boolean).map(word => el("span", {}, word)), when(timeOf(segment)), ...where.filter(Boolean).map(word => el("span", {}, word))]);
}

// One stop for Tab in a list; arrows, Home and End move inside it.
export function roving(list, selector, { across = false } = {}) {
  const items = () => [...list.querySelectorAll(selector)];
  const settle = chosen => items().forEach((item, index) => { item.tabIndex = (chosen ? item === chosen : index === 0) ? 0 : -1; });
  list.addEventListener("focusin", event => { const item = event.target.closest(selector); if (item) settle(item); });
  list.addEventListener("keydown", event => {
    if (event.target.matches("input, textarea, select")) return;
    const all = items(), from = all.indexOf(event.target.closest(selector));
    if (from < 0) return;
    const [before, after] = across ? [["ArrowLeft", "ArrowUp"], ["ArrowRight", "ArrowDown"]] : [["ArrowUp"], ["ArrowDown"]];
    const to = before.includes(event.key) ? from - 1 : after.includes(event.key) ? from + 1 : event.key === "Home" ? 0 : event.key === "End" ? all.length - 1 : null;
    if (to === null || !all[to]) return;
    event.preventDefault();
    all[to].focus();
  });
  settle();
  return settle;
}

// Words of two texts with what differs marked in each: the longest common run of words stays unmarked.
export function compared(before, after) {
  const a = before.split(/(\s+)/), b = after.split(/(\s+)/);
  if (a.length * b.length > 250_000) return [[before], [after]];
  const long = Array.from({ length: a.length + 1 }, () => new Uint16Array(b.length + 1));
  for (let i = a.length - 1; i >= 0; i -= 1)
    for (let j = b.length - 1; j >= 0; j -= 1) long[i][j] = a[i] === b[j] ? long[i + 1][j + 1] + 1 : Math.max(long[i + 1][j], long[i][j + 1]);
  const left = [], right = [];
  for (let i = 0, j = 0; i < a.length || j < b.length;) {
    if (i < a.length && j < b.length && a[i] === b[j]) { left.push([a[i], true]); right.push([b[j], true]); i += 1; j += 1; }
    else if (j >= b.length || (i < a.length && long[i + 1][j] >= long[i][j + 1])) { left.push([a[i], false]); i += 1; }
    else { right.push([b[j], false]); j += 1; }
  }
  const shown = (words, tag) => words.map(([word, same]) => (same || !word.trim() ? word : el(tag, {}, word)));
  return [shown(left, "del"), shown(right, "ins")];
}
