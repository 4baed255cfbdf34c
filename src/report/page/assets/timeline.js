// When each stage ran: a row for each stage that was tried, a bar for each attempt.
thresh.section("timeline", (body) => {
  const { el, text, page, charts } = thresh;
  const runs = thresh.data("stages"), facts = thresh.data("runs");
  const area = el("div");

  function axis(end) {
    const marks = charts.ticks(0, end, 5).filter((at) => at <= end);
    const place = (at) => `${(at / end) * 100}%`;
    return el("li", { "aria-hidden": "true" }, el("span"), el("div", { class: "axis" }, marks.map((at) => el("span", { class: at > end * 0.93 ? "end" : null, style: { left: place(at) } }, at === 0 ? "0" : text.seconds(at).replace(/\.0+ s$/, " s")))), el("span"));
  }
  function row(stage, end, timed) {
    let before = 0;
    const bars = stage.attempts.map((attempt, number) => {
      const began = timed ? attempt.began : before;
      before += attempt.seconds;
      const bar = el("div", { class: attempt.error ? "bar failed" : "bar", style: { left: `${(began / end) * 100}%`, width: `${(attempt.seconds / end) * 100}%` } });
      return thresh.note(bar, () => [el("strong", null, stage.name), stage.attempts.length > 1 ? `, attempt ${number + 1}` : "", timed ? `\n${text.seconds(began)} to ${text.seconds(began + attempt.seconds)}` : "", `\ntook ${text.seconds(attempt.seconds)}`, attempt.error ? `\n${attempt.error.split("\n")[0]}` : ""]);
    });
    return el("li", null, el("span", { class: "name", title: stage.name }, stage.name), el("div", { class: "track" }, bars), el("span", { class: "num" }, text.seconds(stage.seconds)));
  }
  function show(index) {
    const tried = runs[index].filter((stage) => stage.attempts);
    const timed = tried.every((stage) => stage.attempts.every(({ began }) => typeof began === "number"));
    const total = (stage) => stage.attempts.reduce((sum, { seconds }) => sum + seconds, 0);
    const ends = tried.map((stage) => (timed ? stage.attempts.at(-1).began + stage.attempts.at(-1).seconds : total(stage)));
    const end = Math.max(1e-3, ...ends, timed ? facts[index].seconds ?? 0 : 0);
    const sorted = timed ? tried.toSorted((a, b) => a.attempts[0].began - b.attempts[0].began) : tried;
    const idle = runs[index].length - tried.length;
    const notes = [
      !timed && tried.length && "This run was recorded by an earlier version that kept no starting times: bars show how long stages took, not when.",
      idle > 0 && `${idle} of ${runs[index].length} stages were not computed in this run.`,
    ].filter(Boolean);
    area.replaceChildren(tried.length ? el("ol", { class: "gantt", "aria-label": "Stages by when they ran" }, axis(end), sorted.map((stage) => row(stage, end, timed))) : "", ...notes.map((note) => el("p", { class: "note" }, note)));
  }
  body.append(thresh.tabs("Run", page.runs.map(({ letter, run }) => `${letter} ${run}`), show), area);
});
