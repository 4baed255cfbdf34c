"use strict";
// What all sections stand on: their data, elements, numbers as text, tables, keys, links, the hovering note.
// Text of dialogues and files only ever becomes text nodes: nothing here reads HTML.
const thresh = (() => {
  const drawers = new Map(), drawn = new Map(), keys = [];
  const byId = (id) => document.getElementById(id);

  /** The data of a section, as its Rust part wrote it. */
  const data = (id) => JSON.parse(byId(`data-${id}`)?.textContent ?? "null");
  const page = data("page");

  function filled(node, attributes, children) {
    for (const [name, value] of Object.entries(attributes ?? {})) {
      if (value === null || value === undefined || value === false) continue;
      if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
      else if (name === "style") Object.entries(value).forEach(([key, to]) => node.style.setProperty(key, to));
      else node.setAttribute(name, value === true ? "" : value);
    }
    node.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
    return node;
  }
  /** An element: `el("p", {class: "note"}, "text", [more])`. Attributes `onclick` and so on are listeners. */
  const el = (tag, attributes, ...children) => filled(document.createElement(tag), attributes, children);
  /** The same in SVG. */
  const svg = (tag, attributes, ...children) =>
    filled(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);

  const absent = "–";
  const known = (value) => typeof value === "number" && Number.isFinite(value);
  const grouped = (digits) => digits.replace(/\B(?=(\d{3})+(?!\d))/g, "\u202f");
  const minus = (text) => text.replace("-", "\u2212");
  /** A number with so many decimals, its thousands apart. */
  const number = (value, decimals = 0) => {
    if (!known(value)) return absent;
    const [whole, part] = Math.abs(value).toFixed(decimals).split(".");
    const zero = /^[0.]*$/.test(whole + (part ?? ""));
    return (value < 0 && !zero ? "\u2212" : "") + grouped(whole) + (part ? `.${part}` : "");
  };
  const text = {
    absent, number,
    /** Of any size, to some four significant digits: `0.0123`, `5e−7`, `12 345`. */
    figure(value) {
      if (!known(value)) return absent;
      const size = Math.abs(value);
      if (Number.isInteger(value) && size < 1e12) return number(value);
      if (size < 1e-3 || size >= 1e9) return minus(value.toExponential(2).replace(/\.?0+e/, "e").replace("e+", "e"));
      if (size >= 1000) return number(value, size >= 1e5 ? 0 : 1);
      return minus(String(Number(value.toPrecision(4))));
    },
    signed: (value, decimals) => (known(value) ? (value > 0 ? "+" : "") + number(value, decimals) : absent),
    percent: (share, decimals = 1) => (known(share) ? `${number(share * 100, decimals)}\u202f%` : absent),
    p: (p) => (!known(p) ? absent : p < 0.001 ? "< 0.001" : p.toFixed(3)),
    seconds(value) {
      if (!known(value)) return absent;
      if (value < 0.0995) return `${number(value * 1000)} ms`;
      if (value < 100) return `${number(value, value < 10 ? 2 : 1)} s`;
      if (value < 5999.5) return `${Math.floor(Math.round(value) / 60)} min ${Math.round(value) % 60} s`;
      const minutes = Math.round(value / 60);
      return `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
    },
    bytes(value) {
      if (!known(value)) return absent;
      const step = value < 1024 ? 0 : value < 1048576 ? 1 : value < 1073741824 ? 2 : 3;
      return `${number(value / 1024 ** step, step && value / 1024 ** step < 100 ? 1 : 0)} ${["B", "KiB", "MiB", "GiB"][step]}`;
    },
    /** Thousands and millions: `950`, `12.3 k`, `4.56 M`. */
    short(value) {
      if (!known(value)) return absent;
      const unit = value < 1e4 ? [1, ""] : value < 1e6 ? [1e3, " k"] : value < 1e9 ? [1e6, " M"] : [1e9, " G"];
      const scaled = value / unit[0];
      return number(scaled, unit[0] === 1 ? (Number.isInteger(value) ? 0 : 1) : scaled < 10 ? 2 : scaled < 100 ? 1 : 0) + unit[1];
    },
  };

  /** The colour of a run, or of anything else that is counted from 0. */
  const colour = (index) => `var(--c${index % 6})`;
  /** The mark of a run: its letter in its colour, its name for who hovers. */
  const mark = (index) =>
    el("span", { class: "run", style: { "--own": colour(index) }, title: page.runs[index].run, "aria-label": `run ${page.runs[index].letter}` }, page.runs[index].letter);

  /** A table in its scrolling frame. Columns: `{title, cell(row), num?, head?}`; a cell is text, a node or a list of them. */
  function table(name, columns, rows) {
    const kind = (column) => ({ class: [column.num && "num", column.tight && "tight"].filter(Boolean).join(" ") || null });
    const cell = (column, row) => el(column.head ? "th" : "td", { scope: column.head ? "row" : null, ...kind(column) }, column.cell(row));
    const head = columns.map((column) => el("th", { scope: "col", ...kind(column), title: column.hint }, column.title));
    return el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": name },
      el("table", null, el("caption", { class: "unseen" }, name), el("thead", null, el("tr", null, head)),
        el("tbody", null, rows.map((row) => el("tr", null, columns.map((column) => cell(column, row)))))));
  }

  /** Buttons of which one is chosen; `show(index)` is called for the first and at each choice. Nothing where there is but one. */
  function tabs(name, titles, show) {
    const buttons = titles.map((title, index) => el("button", { type: "button", "aria-pressed": String(index === 0), onclick: () => choose(index) }, title));
    const choose = (chosen) => {
      buttons.forEach((button, index) => button.setAttribute("aria-pressed", String(index === chosen)));
      show(chosen);
    };
    show(0);
    return el("div", { class: "tabs", role: "group", "aria-label": name }, titles.length > 1 ? buttons : []);
  }

  const tip = byId("tip");
  function place(event, node) {
    const box = node.getBoundingClientRect(), own = tip.getBoundingClientRect();
    const [x, y] = event.clientX === undefined ? [box.left, box.bottom - 8] : [event.clientX, event.clientY];
    const below = y + 16 + own.height < innerHeight;
    tip.style.left = `${Math.max(8, Math.min(x + 12, innerWidth - own.width - 8))}px`;
    tip.style.top = `${below ? y + 16 : Math.max(8, y - own.height - 12)}px`;
  }
  /** Shows `said()` (text or nodes) beside a node while it is hovered or has the focus. */
  function note(node, said) {
    const show = (event) => {
      tip.replaceChildren(...[said(event)].flat());
      tip.hidden = !tip.hasChildNodes();
      if (!tip.hidden) place(event, node);
    };
    const hide = () => (tip.hidden = true);
    for (const name of ["pointermove", "focus"]) node.addEventListener(name, show);
    for (const name of ["pointerleave", "blur"]) node.addEventListener(name, hide);
    return node;
  }

  /** A key that does something on the whole page, listed under `?`. `name` as in KeyboardEvent.key. */
  const key = (name, what, act) => keys.push({ name, what, act });
  const typing = (target) => target.isContentEditable || /^(INPUT|SELECT|TEXTAREA)$/.test(target.tagName);
  addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented || typing(event.target) || document.querySelector("dialog[open]")) return;
    const found = keys.find((one) => one.name === event.key);
    if (found && found.act(event) !== false) event.preventDefault();
  });

  /** The address of a place in a section: `href("browse", {dialogue: "x"})` is `#browse?dialogue=x`. */
  const href = (id, values) => `#${id}${values ? `?${new URLSearchParams(values)}` : ""}`;
  function follow() {
    const [id, query] = location.hash.slice(1).split("?");
    if (query !== undefined) drawn.get(id)?.open?.(Object.fromEntries(new URLSearchParams(query)));
    const section = drawn.has(id) ? byId(id) : null;
    section?.focus({ preventScroll: true });
    if (query !== undefined) section?.scrollIntoView();
  }

  function theme() {
    const root = document.documentElement;
    const dark = root.dataset.theme === "dark" || (root.dataset.theme === "auto" && matchMedia("(prefers-color-scheme: dark)").matches);
    root.dataset.theme = dark ? "light" : "dark";
    try { localStorage.setItem("thresh.theme", root.dataset.theme); } catch { /* the choice lasts as long as the page */ }
  }

  function help() {
    const list = keys.map(({ name, what }) => [el("dt", null, el("kbd", null, name)), el("dd", null, what)]);
    byId("keys").querySelector("dl").replaceChildren(...list.flat());
    byId("keys").showModal();
  }

  /** Marks in the list of sections the one that is being read. */
  function watch() {
    const links = new Map(page.sections.map(({ id }) => [id, document.querySelector(`nav a[href="#${id}"]`)]));
    const seen = new Set();
    const observer = new IntersectionObserver((entries) => {
      entries.forEach(({ target, isIntersecting }) => (isIntersecting ? seen.add(target.id) : seen.delete(target.id)));
      const first = page.sections.find(({ id }) => seen.has(id))?.id;
      links.forEach((link, id) => (id === first ? link.setAttribute("aria-current", "true") : link.removeAttribute("aria-current")));
    }, { rootMargin: "-10% 0px -70% 0px" });
    page.sections.forEach(({ id }) => observer.observe(byId(id)));
  }

  function step(by) {
    const tops = page.sections.map(({ id }) => byId(id).getBoundingClientRect().top);
    const here = tops.filter((top) => top < 80).length - 1;
    const to = page.sections[Math.max(0, Math.min(tops.length - 1, here + by))];
    if (to) location.hash = to.id;
  }

  /** Says how a section is drawn: `draw(body, data)` fills its body; it may return `{open(values)}` for links into it. */
  const section = (id, draw) => drawers.set(id, draw);

  /** Draws all sections, then shows them at once. A section that cannot be drawn says so and leaves the others alone. */
  function start() {
    page.sections.forEach(({ id, title }, index) => {
      if (index < 9) key(String(index + 1), title, () => { location.hash = id; });
      const body = byId(id).querySelector(".body");
      try {
        drawn.set(id, drawers.get(id)(body, data(id)) ?? {});
      } catch (error) {
        drawn.set(id, {});
        body.append(el("p", { class: "notice" }, `This section could not be drawn: ${error.message}`));
        console.error(error);
      }
    });
    key("n", "next section", () => step(1));
    key("p", "section before", () => step(-1));
    key("t", "light or dark", theme);
    key("?", "these keys", help);
    byId("theme").addEventListener("click", theme);
    byId("help").addEventListener("click", help);
    document.documentElement.classList.remove("drawing");
    watch();
    addEventListener("hashchange", follow);
    // Sections with compressed data have it only when the document is whole.
    addEventListener("DOMContentLoaded", () => location.hash && follow());
  }

  return { page, data, el, svg, text, known, colour, mark, table, tabs, note, key, href, section, start };
})();
