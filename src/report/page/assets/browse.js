// The browser of dialogues and trees: filters and search above, the list on the left, what was chosen on the right.
thresh.section("browse", (body, index) => {
  const { el, text } = thresh;
  const data = browseData(index), { sets, size } = data;
  const narrow = matchMedia("(max-width: 60rem)");
  const letter = (run) => thresh.page.runs[run].letter;
  const address = ([run, stage, port]) => `${letter(run)}.${stage}.${port}`;
  const several = thresh.page.runs.length > 1;
  for (const set of sets) {
    set.addresses = set.places.map(address);
    // A stage with several tables is named with its port.
    set.label = sets.some((other) => other !== set && other.places[0][1] === set.places[0][1] && other.places[0][0] === set.places[0][0]) ? `${set.places[0][1]}.${set.places[0][2]}` : set.places[0][1];
    set.title = `${several ? `${[...new Set(set.places.map(([run]) => letter(run)))].join(" ")} · ` : ""}${set.label}`;
    // Names are unique within a table, but for tables that somebody else wrote: then the first counts.
    set.rowOf = new Map();
    for (let at = set.size - 1; at >= 0; at -= 1) set.rowOf.set(set.name[at], set.first + at);
  }
  const setOf = (reference) => sets.find((set) => set.addresses.includes(reference)) ?? null;

  // What is shown: all of it stands in the page's address.
  const blank = { trees: sets[0].trees, q: "", stage: "", beside: "", flip: "", outcome: "", split: "", tool: "", reward: "", sort: "name" };
  const state = { ...blank };
  /** What is open: a row, one beside it, a node of a tree. */
  const open = { row: -1, right: -1, node: -1, asked: false };
  let hits = null, rows = [];

  // Filters.
  const select = (key, name, options) => {
    const node = el("select", { "aria-label": name, title: name, onchange: () => change({ [key]: node.value }) });
    node.fill = (list) => node.replaceChildren(...list.map(([value, title]) => el("option", { value }, title)));
    if (options) node.fill(options);
    controls[key] = node;
    return node;
  };
  const controls = {};
  const search = el("input", { type: "search", class: "browse-search", placeholder: "Search in all that was said and called", "aria-label": "Search", autocomplete: "off", spellcheck: "false", oninput: () => change({ q: search.value }) });
  const status = el("p", { class: "browse-status soft", role: "status" });
  const bar = el("div", { class: "browse-progress", "aria-hidden": "true" });
  const kinds = el("div", { class: "tabs browse-kinds", role: "group", "aria-label": "What is listed" },
    [false, true].map((trees) => {
      const count = sets.reduce((sum, set) => sum + (set.trees === trees ? set.size : 0), 0);
      return count ? el("button", { type: "button", "aria-pressed": "false", "data-trees": String(trees), onclick: () => change({ ...blank, q: state.q, trees }) }, trees ? "Trees" : "Dialogues", " ", el("span", { class: "soft" }, text.number(count))) : null;
    }));
  const filters = el("div", { class: "browse-filters" },
    select("stage", "Stage"), select("beside", "Beside another stage"), select("flip", "How it changed"), select("outcome", "Outcome"), select("reward", "Reward"),
    select("tool", "Goal"), select("split", "Split"), select("sort", "Order"),
    el("button", { type: "button", class: "browse-clear", onclick: () => { change({ ...blank, trees: state.trees }); search.focus(); } }, "Clear"));

  const list = browseList("Dialogues and trees", 56, (row) => item(row), (row, how) => show(row, how));
  const shown = el("div", { class: "browse-shown", tabindex: -1, role: "region", "aria-label": "What is open" });
  const back = el("button", { type: "button", class: "browse-back", onclick: () => { panes.classList.remove("browse-open"); list.focus(); } }, "← List");
  const panes = el("div", { class: "browse-panes" }, el("div", { class: "browse-left" }, list.box, bar), el("div", { class: "browse-right" }, shown));
  const left = index.left_out;
  const notice = left && el("p", { class: "notice" }, `This page holds ${text.number(size)} of ${text.number(left.rows)} dialogues and trees: all there is of ${text.number(index.names.length)} of ${text.number(left.tasks)} tasks, which were chosen by the hashes of their names and not by how they went. \`thresh report --dialogues all\` takes all.`);
  body.append(notice || "", el("div", { class: "browse-top screen" }, kinds, search, filters, status), panes);

  /** The tools of the goals of dialogues, and of trees. */
  const tools = [false, true].map((trees) => {
    const lists = new Set(sets.filter((set) => set.trees === trees).flatMap((set) => set.goals));
    return [...new Set([...lists].flatMap((list) => index.goals[list]))].map((tool) => index.tools[tool]).filter(Boolean).sort();
  });
  function options() {
    const own = sets.filter((set) => set.trees === state.trees);
    const named = own.map((set) => [set.addresses[0], set.title]);
    const stage = setOf(state.stage);
    controls.stage.fill([["", own.length > 1 ? "All stages" : own[0].title], ...(own.length > 1 ? named : [])]);
    controls.beside.fill([["", "Beside: none"], ...named.filter(([value]) => setOf(value) !== stage).map(([value, title]) => [value, `Beside ${title}`])]);
    controls.stage.hidden = own.length < 2;
    controls.beside.hidden = own.length < 2 || state.trees || !stage;
    controls.flip.hidden = !state.beside || controls.beside.hidden;
    controls.flip.fill([["", "Changed or not"], ["any", "Changed outcome"], ["gained", "Gained"], ["lost", "Lost"], ["broken", "Broken in one"], ["reward", "Changed reward"]]);
    const outcomes = state.trees ? ["complete", "partial", "empty", "broken"] : ["success", "failure", "broken"];
    controls.outcome.fill([["", "Any outcome"], ...outcomes.map((one) => [one, one[0].toUpperCase() + one.slice(1)])]);
    controls.reward.fill([["", "Any reward"], ["0", "Reward 0"], ["part", "Between 0 and 1"], ["1", "Reward 1"], ["none", "No reward"]]);
    const known = tools[Number(state.trees)];
    controls.tool.fill([["", "Any goal"], ...known.flatMap((tool) => [[tool, tool], [`!${tool}`, `${tool} missed`]])]);
    controls.tool.hidden = !known.length;
    controls.split.fill([["", "Any split"], ...index.splits.map((split) => [split, `Split ${split}`])]);
    controls.split.hidden = index.splits.length < 2 || state.trees;
    const [length, calls] = state.trees ? ["Most nodes", "Most examples"] : ["Longest", "Most calls"];
    controls.sort.fill([["name", "By name"], ["low", "Lowest reward"], ["high", "Highest reward"], ["length", length], ["calls", calls], ["short", state.trees ? "Fewest nodes" : "Shortest"]]);
    for (const [key, node] of Object.entries(controls)) {
      node.value = state[key];
      if (node.selectedIndex < 0) node.value = state[key] = blank[key];
      node.classList.toggle("browse-set", state[key] !== blank[key]);
    }
    for (const button of kinds.children) button.setAttribute("aria-pressed", String(button.dataset.trees === String(state.trees)));
    if (search.value !== state.q) search.value = state.q;
  }

  const changes = {
    any: (a, b) => a.outcome !== b.outcome,
    gained: (a, b) => a.outcome === "failure" && b.outcome === "success",
    lost: (a, b) => a.outcome === "success" && b.outcome === "failure",
    broken: (a, b) => (a.outcome === "broken") !== (b.outcome === "broken"),
    reward: (a, b) => a.reward !== b.reward,
  };
  const rewards = { 0: (line) => line.reward === 0, part: (line) => line.reward > 0 && line.reward < 1, 1: (line) => line.reward === 1, none: (line) => line.reward === null };
  function wanted(line, beside) {
    if (state.outcome && line.outcome !== state.outcome) return false;
    if (state.split && line.split !== state.split) return false;
    if (state.reward && !rewards[state.reward](line)) return false;
    if (state.tool) {
      const tool = state.tool.replace("!", "");
      const missed = (at) => at < 31 && !((line.reached >> at) & 1);
      if (!line.goals.some((goal, at) => goal === tool && (state.tool[0] !== "!" || missed(at)))) return false;
    }
    if (!beside) return true;
    const other = beside.rowOf.get(line.task);
    return other !== undefined && (!state.flip || changes[state.flip](line, data.line(other)));
  }
  const collate = new Intl.Collator("en", { numeric: true });
  const ranks = (() => {
    const rank = new Uint32Array(index.names.length);
    [...index.names.keys()].sort((a, b) => collate.compare(index.names[a], index.names[b])).forEach((name, at) => (rank[name] = at));
    return rank;
  })();
  const orders = {
    name: () => 0, low: (a, b) => (a.reward ?? 2) - (b.reward ?? 2), high: (a, b) => (b.reward ?? -1) - (a.reward ?? -1),
    length: (a, b) => b.length - a.length, short: (a, b) => a.length - b.length, calls: (a, b) => b.calls - a.calls,
  };
  function filter() {
    const stage = setOf(state.stage), beside = stage && setOf(state.beside);
    const lines = [];
    for (const set of sets) {
      if (set.trees !== state.trees || (stage && stage !== set)) continue;
      for (let row = set.first; row < set.first + set.size; row += 1) {
        if (hits && !hits[row] && !(beside && hits[beside.rowOf.get(set.name[row - set.first])])) continue;
        const line = data.line(row);
        if (wanted(line, beside)) lines.push(line);
      }
    }
    lines.sort((a, b) => orders[state.sort](a, b) || ranks[a.task] - ranks[b.task] || a.row - b.row);
    rows = lines.map((line) => line.row);
    const all = sets.reduce((sum, set) => sum + (set.trees === state.trees && (!stage || set === stage) ? set.size : 0), 0);
    const what = state.trees ? "trees" : "dialogues";
    status.textContent = rows.length === all ? `${text.number(all)} ${what}` : `${text.number(rows.length)} of ${text.number(all)} ${what}`;
    list.box.classList.toggle("browse-none", !rows.length);
    list.set(rows, open.asked ? open.row : -1);
    // As long as nobody chose anything, what comes first is shown where there is room beside the list.
    if (!open.asked && rows.length && !narrow.matches && !panes.classList.contains("browse-open")) show(rows[0], "first");
  }

  /** Whether there is but one table of dialogues, and of trees. */
  const alone = [false, true].map((trees) => sets.filter((set) => set.trees === trees).length < 2);
  /** A line of the list. */
  function item(row) {
    const line = data.line(row), beside = setOf(state.stage) && setOf(state.beside);
    const other = beside && beside.rowOf.get(line.task) !== undefined ? data.line(beside.rowOf.get(line.task)) : null;
    const opening = el("span", { class: "browse-opening soft" }, data.text(line.opening) ?? "\u00a0");
    if (line.opening >= 0 && data.text(line.opening) === null) data.need([line.opening]).then(() => (opening.textContent = data.text(line.opening)));
    const sign = other ? [browseShow.outcome(line.outcome), el("span", { class: "soft" }, "→"), browseShow.outcome(other.outcome)] : browseShow.outcome(line.outcome);
    const reward = other ? `${browseShow.reward(line)} → ${browseShow.reward(other)}` : browseShow.reward(line);
    return [el("span", { class: "browse-line" }, el("span", { class: "browse-signs" }, sign), el("span", { class: "browse-name" }, line.name), el("span", { class: "num" }, reward)),
      el("span", { class: "browse-line" }, setOf(state.stage) || alone[Number(line.trees)] ? null : browseShow.place(line.set), opening)];
  }

  // Search: while one goes on, the next ends it.
  let asking = 0;
  async function seek() {
    const terms = browseTerms(state.q), own = ++asking;
    browseShow.seek(terms);
    busy(terms.length > 0);
    if (!terms.length) {
      hits = null;
      return filter();
    }
    const told = (share) => {
      bar.style.width = `${share * 100}%`;
      status.textContent = `Searching ${Math.round(share * 100)} %`;
    };
    const found = await data.search(terms, told, () => own !== asking);
    if (!found) return;
    hits = found;
    busy(false);
    filter();
  }
  function busy(now) {
    list.box.setAttribute("aria-busy", String(now));
    bar.style.width = "0";
  }

  function change(next) {
    const before = { ...state };
    Object.assign(state, next);
    if (state.stage !== before.stage && (!state.stage || state.stage === state.beside)) state.beside = state.flip = "";
    if (!state.beside) state.flip = "";
    options();
    if (state.q !== before.q) seek();
    else filter();
    remember();
  }

  /** Puts what is shown into the page's address. */
  function remember() {
    const values = {};
    if (open.asked && open.row >= 0) {
      const line = data.line(open.row);
      Object.assign(values, { dialogue: line.name, left: line.set.addresses[0] });
      if (open.right >= 0) values.right = data.line(open.right).set.addresses[0];
      if (open.node >= 0) values.node = open.node;
    }
    for (const key of ["q", "stage", "beside", "flip", "outcome", "split", "tool", "reward", "sort"]) if (state[key] !== blank[key]) values[key] = state[key];
    if (state.trees !== blank.trees && !values.left) values.trees = state.trees ? 1 : 0;
    history.replaceState(null, "", Object.keys(values).length ? thresh.href("browse", values) : thresh.href("browse"));
  }

  /** Shows a row of the list; `enter` goes there, `move` leaves the focus in the list, `link` came from an address. */
  function show(row, how) {
    const line = data.line(row), beside = setOf(state.stage) && setOf(state.beside);
    const right = beside ? beside.rowOf.get(line.task) ?? -1 : -1;
    Object.assign(open, { row, right, node: -1, asked: how !== "first" });
    present(how);
    if (how === "first") list.mark(row);
    else remember();
  }

  let presenting = 0;
  async function present(how) {
    const own = ++presenting;
    if (how === "enter" || how === "link") panes.classList.add("browse-open");
    const line = data.line(open.row), other = open.right >= 0 ? data.line(open.right) : null;
    const bodies = await Promise.all([data.body(line.row), other && data.body(other.row)]);
    if (own !== presenting) return;
    shown.classList.toggle("browse-twice", Boolean(other));
    shown.replaceChildren(head(line, other), ...parts(line, other, bodies).flat(Infinity).filter(Boolean));
    shown.scrollTop = 0;
    if (how === "enter" && narrow.matches) back.focus({ preventScroll: true });
    else if (how === "enter") shown.focus({ preventScroll: true });
  }
  function parts(line, other, [own, its]) {
    if (line.trees) return browseTree.show(line, own, open.node, (node) => { open.node = node; if (open.asked) remember(); });
    if (!other) return browseShow.talk(line, own, jump);
    const side = (one, content) => ({ line: one, body: content, letter: one.set.title });
    return browseShow.pair(side(line, own), side(other, its), jump);
  }
  function jump(turn) {
    const node = shown.querySelector(`[data-turn="${turn}"]`);
    node?.scrollIntoView({ block: "center" });
    node?.classList.add("browse-flash");
    setTimeout(() => node?.classList.remove("browse-flash"), 1200);
  }

  /** What stands above a dialogue: its name, and the other dialogues and trees of its task, to open or to put beside it. */
  function head(line, other) {
    const family = sets.map((set) => set.rowOf.get(line.task)).filter((row) => row !== undefined && row !== line.row && row !== open.right).map(data.line);
    const go = (row, right) => {
      Object.assign(open, { row, right, node: -1, asked: true });
      present("link");
      remember();
    };
    const talks = line.trees ? [] : family.filter((one) => !one.trees);
    const chooser = (name, lines, act) => lines.length ? el("select", { "aria-label": name, title: name, class: "screen", onchange: (event) => act(Number(event.target.value)) },
      el("option", { value: "" }, name), lines.map((one) => el("option", { value: one.row }, `${one.set.title}${one.trees ? " (tree)" : ""}: ${one.outcome}`))) : null;
    return el("div", { class: "browse-head" }, back,
      el("h3", null, el("span", { class: "browse-name" }, line.name)), other ? null : browseShow.place(line.set),
      el("span", { class: "browse-actions" },
        other ? el("button", { type: "button", class: "screen", onclick: () => go(line.row, -1) }, "Only the first") : null,
        other ? el("button", { type: "button", class: "screen", onclick: () => go(other.row, line.row) }, "Swap") : chooser("Put beside …", talks, (row) => go(line.row, row)),
        other ? null : chooser("Open instead …", family, (row) => go(row, -1))));
  }

  /** What a link into the section asks for. */
  function adopt(values) {
    for (const key of Object.keys(blank)) if (key !== "trees") state[key] = values[key] ?? blank[key];
    const set = setOf(values.left ?? "") ?? setOf(values.stage ?? "");
    state.trees = set ? set.trees : values.trees === undefined ? blank.trees : values.trees === "1";
    const name = values.dialogue === undefined ? -1 : index.names.indexOf(values.dialogue);
    const row = (set ?? sets.find((one) => one.rowOf.has(name)))?.rowOf.get(name) ?? -1;
    Object.assign(open, { row, right: setOf(values.right ?? "")?.rowOf.get(name) ?? -1, node: values.node === undefined ? -1 : Number(values.node), asked: row >= 0 });
    panes.classList.toggle("browse-open", values.dialogue !== undefined);
    busy(state.q !== "");
    options();
  }
  function follow(values) {
    adopt(values);
    seek();
    if (open.row >= 0) present("link");
    else if (values.dialogue !== undefined) {
      shown.replaceChildren(el("div", { class: "browse-head" }, back), el("p", { class: "notice" }, `${values.dialogue}${values.left ? ` of ${values.left}` : ""} is not in this page${left ? ": it holds a part of the dialogues only" : ""}.`));
    }
  }

  // What the address asks for is known before the first paint, so that nothing moves after it.
  const [id, query] = location.hash.slice(1).split("?");
  if (id === "browse" && query !== undefined) adopt(Object.fromEntries(new URLSearchParams(query)));
  else options();
  filter();
  thresh.key("/", "search dialogues", () => {
    document.getElementById("browse").scrollIntoView();
    search.focus({ preventScroll: true });
    search.select();
  });
  shown.addEventListener("keydown", (event) => {
    if (event.key !== "Escape") return;
    panes.classList.remove("browse-open");
    list.focus();
  });
  search.addEventListener("keydown", (event) => {
    if (event.key !== "ArrowDown" && event.key !== "Enter") return;
    event.preventDefault();
    list.focus();
  });
  data.loadAll();
  return { open: follow };
});
