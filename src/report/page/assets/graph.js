// The stages of a run: a drawing whose boxes tell what is known of their stage, and the same as a table.
thresh.section("stages", (body, runs) => {
  const { el, text, page } = thresh;
  const tone = { failed: "bad", skipped: "warn", pending: "warn", computed: "good" };
  const drawings = [...body.querySelectorAll(".graph-drawing")];
  const detail = el("div", { class: "graph-detail", role: "region", "aria-label": "The chosen stage", "aria-live": "polite" });
  let run = 0, chosen = null;

  const last = (stage) => stage.attempts?.at(-1);
  const cpu = (stage) => (last(stage) ? text.seconds(last(stage).cpu) + (last(stage).shared ? " *" : "") : text.absent);
  const memory = (stage) => (last(stage) ? text.bytes(last(stage).memory) + (last(stage).shared ? " *" : "") : text.absent);
  const figures = (stage) => (stage.figures ?? []).map(([name, value]) => `${name} ${text.figure(value)}`).join(", ");
  const brief = (stage) => [el("strong", null, stage.name), `\n${stage.kind}, ${stage.outcome}`, stage.seconds !== undefined && `\n${text.seconds(stage.seconds)}, CPU ${cpu(stage)}, ${memory(stage)}`, stage.warnings && `\n${stage.warnings.length} warnings`, stage.error && `\n${stage.error.split("\n")[0]}`].filter(Boolean);

  const list = (title, pairs) => pairs?.length ? [el("h4", null, title), el("dl", null, pairs.map(([name, value]) => [el("dt", null, name), el("dd", null, value)]))] : [];
  function describe(stage) {
    const retried = stage.attempts?.length > 1;
    const took = stage.attempts ? [["took", text.seconds(stage.seconds)], ["CPU", cpu(stage)], ["peak memory", memory(stage)], retried && ["attempts", String(stage.attempts.length)]].filter(Boolean) : [];
    const failed = (stage.attempts ?? []).slice(0, -1).filter(({ error }) => error).map(({ error }, at) => el("pre", null, `attempt ${at + 1}: ${error}`));
    detail.replaceChildren(...[
      el("h3", null, stage.name),
      el("p", { class: "soft" }, stage.kind, ", ", el("span", { class: tone[stage.outcome] ?? null }, stage.outcome), stage.by && [" by run ", el("code", null, stage.by)]),
      stage.error && [el("h4", null, "Error"), el("pre", { class: "bad" }, stage.error)],
      failed.length ? [el("h4", null, "Earlier attempts"), failed] : [],
      stage.warnings && [el("h4", null, "Warnings"), el("ul", null, stage.warnings.map((warning) => el("li", { class: "warn" }, warning)))],
      list("Time and memory", took),
      last(stage)?.shared && el("p", { class: "note" }, "* of the whole process, in which other stages ran as well"),
      list("Figures", stage.figures?.map(([name, value]) => [name, text.figure(value)])),
      list("Reads", stage.inputs?.map(([name, from]) => [name, from])),
      list("Writes", stage.outputs?.map(([port, holds, bytes]) => [port, `${holds}, ${text.bytes(bytes)}`])),
      list("Parameters", stage.parameters?.map(([name, value]) => [name, el("code", null, value)])),
    ].flat(Infinity).filter(Boolean));
  }
  function choose(index) {
    chosen = index;
    describe(runs[run][index]);
    drawings[run]?.querySelectorAll(".dag-stage").forEach((box) => box.setAttribute("aria-pressed", String(Number(box.dataset.index) === index)));
    drawings[run]?.querySelectorAll(".dag-edge").forEach((edge) => edge.classList.toggle("graph-near", [edge.dataset.from, edge.dataset.to].includes(String(index))));
  }
  /** Brings the chosen stage into the frame, where the drawing is wider than that. */
  function centre() {
    const drawing = drawings[run], box = drawing?.querySelector('[aria-pressed="true"]');
    if (!box || drawing.scrollWidth <= drawing.clientWidth) return;
    const [inner, frame] = [box.getBoundingClientRect(), drawing.getBoundingClientRect()];
    drawing.scrollLeft += inner.left + inner.width / 2 - frame.left - frame.width / 2;
  }
  function prepare(drawing, number) {
    const image = drawing.querySelector("svg");
    image.setAttribute("role", "group");
    drawing.setAttribute("tabindex", "0");
    drawing.setAttribute("role", "region");
    drawing.setAttribute("aria-label", `Stages of run ${page.runs[number].letter}`);
    for (const box of drawing.querySelectorAll(".dag-stage")) {
      const index = Number(box.dataset.index), stage = runs[number][index];
      box.querySelector("title")?.remove(); // The note beside the pointer says more.
      box.setAttribute("tabindex", "0");
      box.setAttribute("role", "button");
      box.setAttribute("aria-label", `${stage.name}, ${stage.kind}, ${stage.outcome}`);
      box.addEventListener("click", () => choose(index));
      box.addEventListener("keydown", (event) => {
        if (event.key !== "Enter" && event.key !== " ") return;
        event.preventDefault();
        choose(index);
      });
      thresh.note(box, () => brief(stage));
    }
  }
  drawings.forEach(prepare);

  const table = el("div");
  const columns = [
    { title: "Stage", head: true, cell: (stage) => el("button", { type: "button", class: "plain", onclick: () => choose(runs[run].indexOf(stage)) }, stage.name) },
    { title: "Kind", tight: true, cell: (stage) => stage.kind },
    { title: "", tight: true, cell: (stage) => el("span", { class: tone[stage.outcome] ?? null }, stage.outcome) },
    { title: "Took", num: true, cell: (stage) => text.seconds(stage.seconds ?? NaN) },
    { title: "CPU", num: true, cell: cpu },
    { title: "Peak memory", num: true, cell: memory },
    { title: "Figures", cell: (stage) => el("span", { class: "graph-figures" }, figures(stage)) },
  ];
  function show(index) {
    run = index;
    drawings.forEach((drawing, number) => { drawing.hidden = number !== index; });
    table.replaceChildren(thresh.table(`Stages of run ${page.runs[index].letter}`, columns, runs[index]));
    const worst = runs[index].findIndex(({ outcome }) => outcome === "failed");
    const longest = runs[index].reduce((best, stage, at) => ((stage.seconds ?? 0) > (runs[index][best].seconds ?? 0) ? at : best), 0);
    choose(worst >= 0 ? worst : Math.min(longest, runs[index].length - 1));
    centre();
  }
  if (!runs[0].length) return void body.append(el("p", { class: "note" }, "The pipeline has no stages."));
  const pick = thresh.tabs("Run", page.runs.map(({ letter, run: name }) => `${letter} ${name}`), show);
  body.prepend(pick);
  body.append(el("div", { class: "graph" }, el("div", null, drawings), detail), el("details", { open: drawings.length === 0 }, el("summary", null, "As a table"), table));
  centre();
});
