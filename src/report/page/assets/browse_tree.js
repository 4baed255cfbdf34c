// A tree: drawn from left to right, and below it what was said on the way to the node that is chosen.
const browseTree = (() => {
  const { el, svg } = thresh;
  const step = 46, gap = 19, margin = 14;

  /** Where nodes stand: leaves one below the other, a parent in the middle of its children. */
  function layout(nodes) {
    const places = nodes.map(() => ({ x: 0, y: 0 }));
    const order = [];
    let leaves = 0;
    const roots = nodes.filter((node) => node.parent === null);
    const waiting = roots.map((node) => [node, 0, false]).reverse();
    while (waiting.length) {
      const [node, depth, after] = waiting.pop();
      const place = places[node.number];
      if (after) {
        place.y = (places[node.children[0]].y + places[node.children.at(-1)].y) / 2;
        continue;
      }
      order.push(node.number);
      place.x = margin + depth * step;
      if (!node.children.length) place.y = margin + leaves++ * gap;
      else waiting.push([node, depth, true]);
      for (const child of [...node.children].reverse()) waiting.push([nodes[child], depth + 1, false]);
    }
    const width = Math.max(...places.map(({ x }) => x)) + margin + 34;
    return { places, order, width, height: margin * 2 + Math.max(0, leaves - 1) * gap };
  }

  /** The nodes from the root to a node. */
  function lineage(nodes, number) {
    const way = [];
    for (let at = number; at !== null; at = nodes[at].parent) way.unshift(at);
    return way;
  }

  /** The deepest golden node, else the first that a reward fell at, else the last. */
  function start(nodes) {
    const depth = (number) => lineage(nodes, number).length;
    const golden = nodes.filter((node) => node.golden).sort((a, b) => depth(b.number) - depth(a.number))[0];
    return (golden ?? nodes.find((node) => node.hits.length) ?? nodes.at(-1)).number;
  }

  const called = (node, goals) => {
    const hits = node.hits.map((hit) => goals[hit]?.tool || `goal ${hit + 1}`);
    return [`node ${node.number}`, node.golden && "golden path", node.success && !node.golden && "led to a reward", !node.success && !node.golden && "came to nothing",
      hits.length && `reached ${hits.join(", ")}`, node.order === null && "no example"].filter(Boolean).join(" · ");
  };

  function draw(body, choose) {
    const { nodes, goals } = body;
    const { places, order, width, height } = layout(nodes);
    const edge = (node) => {
      const [a, b] = [places[node.parent], places[node.number]], middle = (a.x + b.x) / 2;
      const golden = node.golden && nodes[node.parent].golden;
      return svg("path", { class: golden ? "browse-edge browse-golden" : "browse-edge", d: `M${a.x} ${a.y}C${middle} ${a.y} ${middle} ${b.y} ${b.x} ${b.y}`, "data-to": node.number });
    };
    const dot = (node) => {
      const { x, y } = places[node.number];
      const kinds = ["browse-node", node.golden && "browse-golden", node.success && "browse-lucky", !node.turns.length && "browse-silent"];
      const mark = svg("g", { class: kinds.filter(Boolean).join(" "), role: "treeitem", tabindex: -1, "aria-level": lineage(nodes, node.number).length, "aria-selected": "false",
        "aria-label": called(node, goals), "data-node": node.number, transform: `translate(${x} ${y})`, onclick: () => choose(node.number, true) },
      svg("circle", { r: 9, class: "browse-halo" }), svg("circle", { r: node.turns.length ? 6 : 3.5 }),
      node.hits.length ? svg("text", { x: 11, y: 4 }, `+${node.hits.length}`) : []);
      return thresh.note(mark, () => called(node, goals));
    };
    const keys = (event) => {
      const here = Number(event.target.closest("[data-node]")?.dataset.node);
      const at = order.indexOf(here);
      if (at < 0) return;
      const to = {
        ArrowRight: nodes[here].children[0], ArrowLeft: nodes[here].parent, ArrowUp: order[at - 1], ArrowDown: order[at + 1], Home: order[0], End: order.at(-1),
      }[event.key];
      if (event.key.startsWith("Arrow") || event.key === "Home" || event.key === "End") event.preventDefault();
      if (to !== undefined && to !== null) choose(to, true);
    };
    return svg("svg", { class: "browse-tree", role: "tree", "aria-label": "The tree: arrow keys move", width, height, viewBox: `0 0 ${width} ${height}`, onkeydown: keys },
      nodes.filter((node) => node.parent !== null).sort((a, b) => a.golden - b.golden).map(edge), order.map((number) => dot(nodes[number])));
  }

  const legend = () => el("p", { class: "browse-legend soft" },
    [["browse-node browse-golden browse-lucky", "golden path"], ["browse-node browse-lucky", "led to a reward"], ["browse-node", "came to nothing"]].map(([kind, what]) =>
      el("span", null, svg("svg", { width: 18, height: 18, viewBox: "-9 -9 18 18", "aria-hidden": "true" }, svg("g", { class: kind }, svg("circle", { r: 6 }))), what)),
    el("span", null, "+1 goals reached there"));

  /** A tree, a node of it chosen; `changed(node)` hears of another choice. */
  function show(line, body, chosen, changed) {
    const said = el("div", { class: "browse-turns browse-way", "aria-live": "off" });
    const choose = (number, focus) => {
      const way = lineage(body.nodes, number);
      for (const mark of drawing.querySelectorAll("[data-node]")) {
        const own = Number(mark.dataset.node) === number;
        mark.setAttribute("aria-selected", String(own));
        mark.setAttribute("tabindex", own ? 0 : -1);
        mark.classList.toggle("browse-on", way.includes(Number(mark.dataset.node)));
        if (own && focus) mark.focus({ preventScroll: true });
      }
      drawing.querySelectorAll("[data-to]").forEach((edge) => edge.classList.toggle("browse-on", way.includes(Number(edge.dataset.to))));
      said.replaceChildren(...way.flatMap((at) => stretch(body.nodes[at])));
      changed(number);
    };
    const stretch = (node) => [el("p", { class: "browse-stretch", "data-stretch": node.number }, called(node, body.goals)), ...node.turns.map((turn) => browseShow.turn(turn, body.goals))];
    const drawing = draw(body, choose);
    const parts = [browseShow.facts(line, body), browseShow.goals(body.goals), browseShow.wish(body.wish),
      body.nodes.length ? [el("div", { class: "browse-drawing" }, drawing), legend(), said] : el("p", { class: "soft" }, "The tree is empty.")];
    if (body.nodes.length) choose(body.nodes[chosen] ? chosen : start(body.nodes), false);
    return parts;
  }

  return { show };
})();
