"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const at = id => document.getElementById(id);
const whole = n => n.toLocaleString("en");

// Everything that was stored goes through here, as text.
function make(tag, name, text) {
  const element = document.createElement(tag);
  if (name) element.className = name;
  if (text !== undefined) element.textContent = text;
  return element;
}

// Arrays and lines of text come deflated, in base64.
async function unpack(packed, Kind) {
  const raw = Uint8Array.from(atob(packed), sign => sign.charCodeAt(0));
  const plain = new Blob([raw]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Kind(await new Response(plain).arrayBuffer());
}
async function unpackLines(packed) {
  return new TextDecoder().decode(await unpack(packed, Uint8Array)).split("\n");
}

// Light or dark: as the system has it, until the button says otherwise. A canvas is told by its repaint.
const system = matchMedia("(prefers-color-scheme: dark)");
const isDark = () => document.documentElement.classList.contains("dark") || (system.matches && !document.documentElement.classList.contains("light"));
function themed(repaint) {
  const told = () => { at("theme").textContent = isDark() ? "Light" : "Dark"; repaint(); };
  at("theme").addEventListener("click", () => { document.documentElement.className = isDark() ? "light" : "dark"; told(); });
  system.addEventListener("change", told);
  told();
}

const rgb = color => [1, 3, 5].map(place => parseInt(color.slice(place, place + 2), 16));
const moment = ms => new Date(ms).toISOString().slice(0, 16).replace("T", " ");

// At most one repaint a frame, in the size the canvas has by then.
function painter(canvas, paint) {
  let asked = false;
  const ask = () => {
    if (asked) return;
    asked = true;
    requestAnimationFrame(() => { asked = false; paint(); });
  };
  new ResizeObserver(ask).observe(canvas);
  return ask;
}
function sized(canvas) {
  const scale = Math.min(devicePixelRatio || 1, 2), width = canvas.clientWidth, height = canvas.clientHeight;
  const w = Math.max(1, Math.round(width * scale)), h = Math.max(1, Math.round(height * scale));
  if (canvas.width !== w || canvas.height !== h) [canvas.width, canvas.height] = [w, h];
  return [width, height, scale];
}

// Drag, wheel, pinch and keys become: pan(dx, dy), zoom(factor, x, y), hover(x, y) or leave(), choose(x, y), reset().
const STEP = 60;
function handle(canvas, acts) {
  const down = new Map();
  let moved = 0, wide = 0;
  const place = event => {
    const box = canvas.getBoundingClientRect();
    return [event.clientX - box.x, event.clientY - box.y];
  };
  const apart = () => {
    const [a, b] = [...down.values()];
    return [Math.hypot(a[0] - b[0], a[1] - b[1]), (a[0] + b[0]) / 2, (a[1] + b[1]) / 2];
  };
  canvas.addEventListener("pointerdown", event => {
    if (event.button) return;
    canvas.setPointerCapture(event.pointerId);
    down.set(event.pointerId, place(event));
    moved = down.size > 1 ? 99 : 0;
    if (down.size === 2) wide = apart()[0];
  });
  canvas.addEventListener("pointermove", event => {
    const [x, y] = place(event), before = down.get(event.pointerId);
    if (!before) { acts.hover(x, y); return; }
    down.set(event.pointerId, [x, y]);
    moved += Math.abs(x - before[0]) + Math.abs(y - before[1]);
    if (moved < 4) return;
    acts.pan((x - before[0]) / down.size, (y - before[1]) / down.size);
    if (down.size === 2) {
      const [now, middle, level] = apart();
      if (wide > 0 && now > 0) acts.zoom(now / wide, middle, level);
      wide = now;
    }
  });
  const up = event => {
    if (!down.delete(event.pointerId)) return;
    if (event.type === "pointerup" && moved < 4) acts.choose(...place(event));
  };
  canvas.addEventListener("pointerup", up);
  canvas.addEventListener("pointercancel", up);
  canvas.addEventListener("pointerleave", () => { if (!down.size) acts.leave(); });
  canvas.addEventListener("wheel", event => {
    event.preventDefault();
    const by = event.deltaY * (event.deltaMode ? 30 : 1);
    if (event.shiftKey) acts.pan(0, -(by || event.deltaX));
    else acts.zoom(Math.exp(-Math.max(-300, Math.min(300, by)) * 0.0022), ...place(event));
  }, { passive: false });
  canvas.addEventListener("dblclick", event => acts.zoom(2, ...place(event)));
  canvas.addEventListener("keydown", event => {
    const ways = { ArrowLeft: [STEP, 0], ArrowRight: [-STEP, 0], ArrowUp: [0, STEP], ArrowDown: [0, -STEP] };
    const middle = [canvas.clientWidth / 2, canvas.clientHeight / 2];
    if (ways[event.key]) acts.pan(...ways[event.key]);
    else if ("+=".includes(event.key)) acts.zoom(1.4, ...middle);
    else if (event.key === "-") acts.zoom(1 / 1.4, ...middle);
    else if (event.key === "0" || event.key === "Home") acts.reset();
    else if (event.key === "Escape") acts.leave(true);
    else return;
    event.preventDefault();
  });
  at("reset").addEventListener("click", acts.reset);
}

// A card beside the place x, y of a stage; what is pinned stays, and can be selected and copied.
const tip = {
  show(x, y, text, notes, pinned) {
    const card = at("tip");
    card.replaceChildren(make("div", "", text), ...notes.filter(Boolean).map(note => make("small", "", note)));
    card.hidden = false;
    card.classList.toggle("pinned", Boolean(pinned));
    tip.place(x, y);
  },
  place(x, y) {
    const card = at("tip"), stage = card.parentElement;
    const right = x + 16 + card.offsetWidth > stage.clientWidth, under = y + 16 + card.offsetHeight > stage.clientHeight;
    card.style.left = Math.max(4, right ? x - 14 - card.offsetWidth : x + 16) + "px";
    card.style.top = Math.max(4, under ? y - 14 - card.offsetHeight : y + 16) + "px";
  },
  get pinned() { return !at("tip").hidden && at("tip").classList.contains("pinned"); },
  hide() { at("tip").hidden = true; },
};

// The legend: a click hides or shows a group, a double click shows it alone.
const hidden = new Set();
function legend(groups, changed) {
  const buttons = groups.map(([label, count, color], number) => {
    const button = make("button"), swatch = make("i");
    swatch.style.background = color;
    button.title = label;
    button.append(swatch, make("span", "", label), make("small", "", whole(count)));
    button.addEventListener("click", event => {
      if (event.detail > 1) return;
      hidden.has(number) ? hidden.delete(number) : hidden.add(number);
      told();
    });
    button.addEventListener("dblclick", () => {
      const alone = groups.every((_, other) => other === number || hidden.has(other));
      groups.forEach((_, other) => alone || other === number ? hidden.delete(other) : hidden.add(other));
      told();
    });
    return button;
  });
  function told() {
    buttons.forEach((button, number) => button.setAttribute("aria-pressed", String(!hidden.has(number))));
    changed();
  }
  at("legend").replaceChildren(...buttons);
  buttons.forEach(button => button.setAttribute("aria-pressed", "true"));
}
