// A list of any length: only the rows that can be seen are in the document.
const browseList = (name, height, render, chosen) => {
  const { el } = thresh;
  const over = 6;
  const space = el("div", { class: "browse-space" });
  const box = el("div", { class: "browse-list", role: "listbox", tabindex: 0, "aria-label": name }, space);
  /** Rows that are drawn, by their places. */
  const drawn = new Map();
  let rows = [], active = -1, asked = false;

  function draw() {
    asked = false;
    const seen = box.clientHeight || height * 12;
    const from = Math.max(0, Math.floor(box.scrollTop / height) - over);
    const to = Math.min(rows.length, Math.ceil((box.scrollTop + seen) / height) + over);
    for (const [at, node] of drawn) {
      if (at < from || at >= to) {
        node.remove();
        drawn.delete(at);
      }
    }
    for (let at = from; at < to; at += 1) if (!drawn.has(at)) put(at);
    const own = drawn.get(active);
    if (own) box.setAttribute("aria-activedescendant", own.id);
    else box.removeAttribute("aria-activedescendant");
  }
  function put(at) {
    const node = el("div", { class: "browse-row", role: "option", id: `browse-row-${at}`, "aria-setsize": rows.length, "aria-posinset": at + 1,
      "aria-selected": String(at === active), style: { top: `${at * height}px` }, "data-at": at }, render(rows[at]));
    drawn.set(at, node);
    space.append(node);
  }
  const ask = () => {
    if (!asked) requestAnimationFrame(draw);
    asked = true;
  };
  function again() {
    for (const node of drawn.values()) node.remove();
    drawn.clear();
    draw();
  }

  /** Shows other rows; the active one is kept where it is still there. */
  function set(next, keep) {
    rows = next;
    active = rows.indexOf(keep);
    space.style.height = `${rows.length * height}px`;
    again();
    if (active >= 0) reveal(active);
    else box.scrollTop = 0;
  }
  /** Scrolls no more than is needed to show a row. */
  function reveal(at) {
    const [top, seen] = [at * height, box.clientHeight];
    if (top < box.scrollTop) box.scrollTop = top;
    else if (top + height > box.scrollTop + seen) box.scrollTop = top + height - seen;
  }
  function activate(at, how) {
    if (!rows.length) return;
    drawn.get(active)?.setAttribute("aria-selected", "false");
    active = Math.max(0, Math.min(rows.length - 1, at));
    reveal(active);
    draw();
    drawn.get(active)?.setAttribute("aria-selected", "true");
    chosen(rows[active], how);
  }
  /** Marks a row as the active one, and does nothing else. */
  function mark(row) {
    active = rows.indexOf(row);
    again();
  }
  box.addEventListener("scroll", ask, { passive: true });
  box.addEventListener("click", (event) => {
    const row = event.target.closest(".browse-row");
    if (row) activate(Number(row.dataset.at), "enter");
  });
  box.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const page = Math.max(1, Math.floor(box.clientHeight / height) - 1);
    const to = { ArrowDown: active + 1, ArrowUp: active - 1, PageDown: active + page, PageUp: active - page, Home: 0, End: rows.length - 1 }[event.key];
    if (to !== undefined) activate(active < 0 && event.key !== "End" ? 0 : to, "move");
    else if (event.key === "Enter" || event.key === " ") activate(Math.max(0, active), "enter");
    else return;
    event.preventDefault();
  });
  new ResizeObserver(ask).observe(box);
  return { box, set, mark, focus: () => box.focus({ preventScroll: true }) };
};
