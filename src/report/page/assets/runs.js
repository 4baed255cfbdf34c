// The runs: one row each.
thresh.section("runs", (body, facts) => {
  const { el, text, mark, page } = thresh;
  const rows = facts.map((fact, index) => ({ ...fact, ...page.runs[index], index }));
  const tone = { failed: "bad", skipped: "warn", pending: "warn" };
  const stages = (row) => {
    const counts = row.stages.filter(([, count]) => count > 0);
    return counts.map(([outcome, count], at) => [at ? ", " : "", el("span", { class: tone[outcome] ?? null }, `${count} ${outcome}`)]);
  };
  const started = (row) => el("time", { datetime: row.started }, row.started.replace("T", " ").replace("Z", " UTC"));
  const name = (row) => [
    mark(row.index), " ", el("code", null, row.run),
    el("span", { class: "runs-of" }, row.file, row.set.map((set) => [" ", el("code", { class: "chip" }, set)])),
  ];
  const columns = [
    { title: "Run", head: true, tight: true, cell: name },
    { title: "Began", tight: true, cell: started },
    { title: "Took", num: true, hint: "wall time of the whole run", cell: (row) => (row.seconds === null ? el("span", { class: "warn" }, "not finished") : text.seconds(row.seconds)) },
    { title: "Work", num: true, hint: "seconds of all stages together", cell: (row) => text.seconds(row.work) },
    { title: "Peak memory", num: true, cell: (row) => text.bytes(row.memory ?? NaN) },
    { title: "Tokens", num: true, hint: "that models read and wrote", cell: (row) => [text.short(row.tokens[0] ?? NaN), " + ", text.short(row.tokens[1] ?? NaN)] },
    { title: "Stages", tight: true, cell: stages },
  ];
  body.append(thresh.table("Runs", columns, rows));
});
