// How rewards are spread: a panel for each table of scores, in it bars for each run.
thresh.section("rewards", (body, tables) => {
  const { el, text, page, colour, mark, charts } = thresh;
  const bins = Array.from({ length: 11 }, (_, at) => ({
    name: at === 10 ? "reward 1, all goals" : at === 0 ? "reward 0 to under 0.1" : `reward ${at / 10} to under ${(at + 1) / 10}`,
    mark: { 0: "0", 5: "0.5", 10: "1" }[at],
  }));
  const groups = Map.groupBy(tables, ({ stage }) => stage);
  const scored = (table) => table.success + table.failure;
  const share = (table) => table.bins.map((count) => count / Math.max(1, scored(table)));
  const most = Math.max(0.05, ...tables.flatMap(share));
  const line = (table) => [
    page.runs.length > 1 ? mark(table.run) : el("span"),
    el("span", null, "mean ", el("strong", null, text.number(table.mean ?? NaN, 3))),
    el("span", { class: "soft" }, `${text.number(scored(table))} scored`),
    el("span", { class: table.broken ? "warn" : "soft" }, `${text.number(table.broken)} broken`),
  ];
  const panel = ([stage, group]) => el("figure", { class: "panel" },
    el("figcaption", null, el("span", { class: "title" }, stage)),
    el("div", { class: "spread" }, group.map(line)),
    charts.bars({ title: `Rewards of ${stage}`, bins, most, series: group.map((table) => ({ name: `run ${page.runs[table.run].letter}`, colour: colour(table.run), shares: share(table), counts: table.bins })) }));
  const outside = tables.filter((table) => table.outside).map((table) => `${table.outside} rewards of ${table.stage} are not between 0 and 1 and in no bar.`);
  body.append(el("div", { class: "panels" }, [...groups].map(panel)), outside.map((said) => el("p", { class: "note" }, said)),
    el("p", { class: "note" }, "Shares of the dialogues that have a score, by the share of goals reached. The last bar is all goals. Broken dialogues, in which a model gave no reply, have no reward."));
});
