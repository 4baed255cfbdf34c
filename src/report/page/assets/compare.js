// What differs: for each table of scores and each measure in it a row for each arm, with intervals as bars beside the numbers.
thresh.section("comparison", (body, groups) => {
  const { el, text, page, colour, mark, known, charts } = thresh;
  const titles = { reward: "Reward", success: "Success", broken: "Broken", messages: "Messages", calls: "Calls", agent_tokens: "Agent tokens", user_tokens: "User tokens" };
  const rank = (name) => { const at = Object.keys(titles).indexOf(name); return at < 0 ? 99 : at; };
  const area = el("div");
  let all = false, here = 0;

  const size = (metric) => Math.max(...metric.values.map(({ mean }) => Math.abs(mean ?? 0)));
  const shown = (metric) => metric.share ? (value) => text.percent(value) : (value) => text.number(value ?? NaN, size(metric) >= 1000 ? 0 : size(metric) >= 10 ? 1 : 3);
  const change = (metric) => metric.share ? (value) => text.signed(value * 100, 1) : (value) => text.signed(value, size(metric) >= 1000 ? 0 : size(metric) >= 10 ? 1 : 3);
  const brackets = (say, low, high) => (known(low) && known(high) ? `[${say(low)}, ${say(high)}]`.replaceAll("\u202f%", "") : "");
  const differs = (metric) => new Set(metric.values.map(({ mean }) => mean)).size > 1 || metric.differences.some((one) => one && one.mean !== 0);

  /** One axis for all means of a measure, and one, around 0, for its differences. */
  function ranges(metric) {
    const values = metric.values.flatMap(({ low, mean, high }) => [low, mean, high]).filter(known);
    const apart = metric.differences.flatMap((one) => (one ? [one.low, one.mean, one.high] : [])).filter(known).map(Math.abs);
    const [least, most] = [Math.min(...values), Math.max(...values)], air = (most - least || Math.abs(most) || 1) * 0.08, far = Math.max(1e-9, ...apart) * 1.08;
    return { means: [least - air, most + air], apart: [-far, far] };
  }
  /** How a difference is shown that chance hardly explains: strong, and whether it is for the better where that can be said. */
  function verdict(metric, difference) {
    if (!difference || !(difference.p < 0.05)) return "";
    if (typeof metric.more_is_better !== "boolean") return "sure";
    return difference.mean > 0 === metric.more_is_better ? "sure good" : "sure bad";
  }
  function metricRows(metric, arms) {
    if (!metric.values.some(({ mean }) => known(mean))) return [];
    const range = ranges(metric), say = shown(metric), signed = change(metric);
    return metric.values.map((value, at) => {
      const difference = metric.differences[at], tone = verdict(metric, difference);
      return el("tr", { class: [at === 0 && "first", at === metric.values.length - 1 && "last"].filter(Boolean).join(" ") || null },
        at === 0 && el("th", { scope: "rowgroup", rowspan: metric.values.length, class: "tight" }, titles[metric.name] ?? metric.name),
        el("td", { class: "tight" }, el("span", { class: "arm", style: { "--own": colour(at) } }, arms[at].name)),
        el("td", { class: "num" }, say(value.mean)),
        el("td", null, charts.interval({ low: value.low, mean: value.mean, high: value.high, range: range.means, at: metric.values[0].mean, colour: colour(at) })),
        el("td", { class: "num soft" }, brackets(say, value.low, value.high)),
        el("td", { class: `num ${tone}` }, difference ? signed(difference.mean) : ""),
        el("td", null, difference && charts.interval({ ...difference, range: range.apart, at: 0, colour: colour(at) })),
        el("td", { class: "num soft" }, difference ? brackets(signed, difference.low, difference.high) : ""),
        el("td", { class: `num ${tone}` }, difference ? text.p(difference.p) : ""),
        el("td", { class: "num soft", title: difference && `${difference.unmatched} dialogues have a value in one of them only` }, difference ? text.number(difference.matched) : text.number(value.count)),
        el("td", { class: value.broken ? "num warn" : "num soft" }, text.number(value.broken)));
    });
  }
  const head = ["Measure", "Arm", "Mean", "", "95 % interval", "Difference", "", "95 % interval", "p", "Dialogues", "Broken"];
  function metricTable({ arms, metrics }) {
    const wanted = metrics.filter((metric) => all || differs(metric)).toSorted((a, b) => rank(a.name) - rank(b.name));
    if (!wanted.length) return el("p", { class: "note" }, "No measure differs.");
    const number = (at) => (at === 2 || at > 3 && at !== 6 ? "num" : null);
    const bodies = [...Map.groupBy(wanted, ({ table }) => table)].map(([name, of]) =>
      el("tbody", null, el("tr", null, el("th", { class: "table-name", colspan: head.length, scope: "rowgroup" }, name)), of.map((metric) => metricRows(metric, arms))));
    return el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Measures" },
      el("table", { class: "metrics" }, el("caption", { class: "unseen" }, "Measures with intervals"), el("thead", null, el("tr", null, head.map((title, at) => el("th", { scope: "col", class: number(at) }, title)))), bodies));
  }

  const values = (row, say) => row.map((value) => (value === null || value === undefined ? text.absent : say(value)));
  const perArm = (arms, cells) => arms.map((arm, at) => ({ title: arm.name, num: true, cell: (row) => cells(row)[at] }));
  const part = (title, rows, columns) => (rows.length ? el("div", { class: "differs" }, el("h3", null, title), thresh.table(title, columns, rows)) : null);
  const presence = { present: "with a result", without_result: "without a result", absent: "absent" };
  function rest(found) {
    const { arms } = found;
    const spent = (name) => found.costs.filter(({ arms: of }) => of.some((one) => known(one[name])) && (all || new Set(of.map((one) => one[name])).size > 1));
    const stage = { title: "Stage", head: true, tight: true, cell: (row) => row.stage ?? "all stages" };
    const cost = (title, name, say) => part(title, spent(name), [stage, ...perArm(arms, (row) => values(row.arms.map((one) => one[name]), say))]);
    const figures = found.figures.filter((figure) => all || new Set(figure.values).size > 1);
    return [
      part("Parameters that differ", found.parameters, [stage, { title: "Field", tight: true, cell: (row) => el("code", null, row.field.replace(/^with\./, "")) }, ...arms.map((arm, at) => ({ title: arm.name, cell: (row) => el("code", null, row.values[at] ?? text.absent) }))]),
      part("Stages that not all have", found.lone_stages, [stage, { title: "Kind", tight: true, cell: (row) => row.kind }, ...perArm(arms, (row) => row.arms.map((one) => presence[one] ?? one))]),
      el("details", null, el("summary", null, "Time, tokens and figures"),
        cost("Wall seconds", "seconds", text.seconds), cost("Tokens read", "tokens_read", text.short), cost("Tokens written", "tokens_written", text.short), cost("Money", "money", (value) => text.number(value, 4)),
        part("Figures", figures, [stage, { title: "Figure", cell: (row) => row.name }, ...perArm(arms, (row) => values(row.values, text.figure))])),
    ];
  }
  const armLine = (arm, at) => {
    const of = arm.replicates.map(({ run, stage, seed }) => {
      const index = page.runs.findIndex((one) => one.run === run);
      return [index >= 0 && page.runs.length > 1 ? [mark(index), " "] : "", stage ?? page.runs[index]?.run ?? run, seed ? el("span", { class: "soft" }, ` seed ${seed}`) : ""];
    });
    const whole = arm.replicates.length === 1 && !arm.replicates[0].stage && page.runs.some(({ letter }) => letter === arm.name);
    return whole ? el("span", null, of) : el("span", null, el("strong", { class: "arm", style: { "--own": colour(at) } }, arm.name), " ", of.map((one, number) => [number ? ", " : "", one]));
  };
  function draw() {
    const { comparison, failed } = groups[here];
    if (failed) return area.replaceChildren(el("p", { class: "notice" }, failed));
    area.replaceChildren(...[
      el("div", { class: "arms" }, comparison.arms.map(armLine)),
      metricTable(comparison),
      comparison.notes.map((note) => el("p", { class: "note" }, note)),
      rest(comparison),
    ].flat(Infinity).filter(Boolean));
  }
  const box = el("input", { type: "checkbox", onchange: () => { all = box.checked; draw(); } });
  const pick = thresh.tabs("Comparison", groups.map(({ title }) => title), (index) => { here = index; draw(); });
  body.append(el("div", { class: "row screen" }, pick, el("label", { class: "check" }, box, "Also what does not differ")), area,
    el("p", { class: "note" }, "The first arm is the baseline, and the dashed line its mean. Differences are paired by dialogue; those of shares are in points of percent. Bold: p < 0.05. Broken dialogues are in no mean."));
});
