// Dialogues that ended otherwise than in the baseline, with what was reached and missed; each leads to the two dialogues side by side.
thresh.section("flips", (body) => {
  const { el, text, page } = thresh;
  const groups = thresh.data("comparison").filter(({ comparison }) => comparison);
  const tone = { broken: "warn", lost: "bad", gained: "good", mended: "good" };
  const some = 50;
  const browsable = page.sections.some(({ id }) => id === "browse");

  // As lists, because there may be thousands; what is empty at an end is not there.
  const flip = ([dialogue, change, before, after, reached = [], missed = [], seed = null]) => ({ dialogue, change, before: end(before), after: end(after), reached, missed, seed });
  const end = ([successes = 0, failures = 0, broken = 0, reward = null, reasons = []] = []) => ({ successes, failures, broken, reward, reasons });
  function ending({ successes, failures, broken, reward }) {
    const many = successes + failures + broken > 1;
    const parts = [[successes, "success"], [failures, "failure"], [broken, "broken"]].filter(([count]) => count);
    return [parts.map(([count, name]) => (many ? `${count} ${name}` : name)).join(", ") || text.absent, reward !== null && el("span", { class: "soft" }, ` ${text.number(reward, 2)}`)];
  }
  /** Where an arm's episodes of a table are, those of a seed where it has several; of a part of a run there is but one table. */
  function episodes(replicates, table, seed) {
    const { tables } = replicates.find((one) => seed !== null && one.seed === seed) ?? replicates[0];
    return typeof tables === "string" ? tables : tables?.[table] ?? null;
  }
  function name(flip, group, table, arm) {
    const [left, right] = [group.episodes[0], group.episodes[arm]].map((one) => episodes(one, table, flip.seed));
    const values = Object.fromEntries(Object.entries({ dialogue: flip.dialogue, left: left ?? right, right: left && right }).filter(([, value]) => value));
    return browsable && values.left ? el("a", { href: thresh.href("browse", values) }, flip.dialogue) : flip.dialogue;
  }
  const reasons = (flip) => {
    const why = [...new Set([...flip.after.reasons, ...flip.before.reasons])];
    const list = (word, of) => of.length > 0 && [el("span", { class: "soft" }, `${word} `), of.join(", "), "  "];
    return [list("reached", flip.reached), list("missed", flip.missed), why.length ? el("span", { class: "warn" }, why.join("; ")) : null];
  };
  function part(group, flips) {
    const { arms } = group.comparison;
    const columns = [
      { title: "Dialogue", head: true, tight: true, cell: (flip) => [name(flip, group, flips.table, flips.arm), flip.seed && el("span", { class: "soft" }, ` seed ${flip.seed}`)] },
      { title: "", tight: true, cell: (flip) => el("span", { class: tone[flip.change] }, flip.change) },
      { title: arms[0].name, tight: true, cell: (flip) => ending(flip.before) },
      { title: arms[flips.arm].name, tight: true, cell: (flip) => ending(flip.after) },
      { title: "Goals and reasons", cell: reasons },
    ];
    const list = el("div"), dialogues = flips.dialogues.map(flip);
    let wanted = null;
    function draw(whole) {
      const found = dialogues.filter(({ change }) => wanted === null || change === wanted);
      const rows = whole ? found : found.slice(0, some);
      const more = found.length > rows.length && el("p", { class: "row screen" }, el("button", { type: "button", onclick: () => draw(true) }, `Show all ${text.number(found.length)}`));
      list.replaceChildren(...[thresh.table(`Flips of ${arms[flips.arm].name}`, columns, rows), more].filter(Boolean));
    }
    const choices = ["gained", "lost", "broken", "mended"].filter((change) => flips[change]).map((change) => {
      const button = el("button", { type: "button", "aria-pressed": "false", onclick: () => {
        wanted = wanted === change ? null : change;
        buttons.forEach((one, at) => one.setAttribute("aria-pressed", String(choices[at].change === wanted)));
        draw();
      } }, el("span", { class: tone[change] }, text.number(flips[change])), ` ${change}`);
      return { change, button };
    });
    const buttons = choices.map(({ button }) => button);
    draw();
    return el("div", { class: "flips" }, el("h3", null, `${arms[flips.arm].name} against ${arms[0].name}`, el("span", { class: "soft" }, ` ${flips.table}`)),
      flips.dialogues.length ? [el("div", { class: "flips-counts", role: "group", "aria-label": "Only" }, buttons), list] : el("p", { class: "note" }, "Every dialogue ended as in the baseline."));
  }
  const area = el("div");
  const show = (index) => {
    const group = groups[index], found = group.comparison.flips;
    area.replaceChildren(...(found.length ? found.map((flips) => part(group, flips)) : [el("p", { class: "note" }, "Nothing was scored in both.")]));
  };
  if (!groups.length) return void body.append(el("p", { class: "note" }, "Nothing could be compared."));
  body.append(thresh.tabs("Comparison", groups.map(({ title }) => title), show), area);
});
