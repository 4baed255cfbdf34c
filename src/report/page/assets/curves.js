// Learning curves: a group for each training stage, in it a panel for each measure, in that a line for each run or variant.
thresh.section("curves", (body, trainings) => {
  const { el, text, page, colour, charts } = thresh;
  const titles = {
    loss: "Loss", eval_loss: "Held-out loss", rewards_margin: "Reward margin", rewards_accuracy: "Reward accuracy", rewards_chosen: "Rewards, chosen",
    rewards_rejected: "Rewards, rejected", kl: "KL", grad_norm: "Gradient norm", learning_rate: "Learning rate",
  };
  // The stages of a matrix stand together: `train[lr=0.1]` and `train[lr=0.2]`.
  const base = (stage) => stage.split("[")[0];
  const groups = Map.groupBy(trainings, (training) => `${base(training.stage)} ${training.kind}`);
  const many = page.runs.length > 1;
  let logarithmic = false;

  const steps = (curve) => curve.at ?? curve.low.map((_, index) => curve.from[0] + index * curve.from[1]);
  function lines(group, name, variants) {
    return group.flatMap((training, index) => {
      const curve = training.curves.find((one) => one.name === name);
      if (!curve) return [];
      const run = page.runs[training.run], own = variants ? index : training.run;
      return [{ name: many ? `run ${run.letter} ${training.stage}` : training.stage, colour: colour(own), dash: charts.dashes[Math.floor(own / 6) % 6], at: steps(curve), low: curve.low, high: curve.high, final: curve.last, unbounded: curve.unbounded }];
    });
  }
  function legend(group, variants) {
    return el("p", { class: "keys" }, group.map((training, index) => {
      const letter = page.runs[training.run].letter;
      const named = [many && `${letter}`, variants && training.stage.slice(base(training.stage).length)].filter(Boolean).join(" ");
      const facts = `${text.number(training.steps)} steps, ${text.figure(training.epochs)} epochs, ${text.short(training.tokens)} tokens`;
      return el("span", { class: many || variants ? "key" : null, style: { "--own": colour(variants ? index : training.run) } }, named && el("strong", null, named), named && " ", facts);
    }));
  }
  function drawn(group) {
    const variants = group.length > new Set(group.map(({ run }) => run)).size;
    const last = Math.max(...group.map((training) => training.steps));
    const names = Object.keys(titles).filter((name) => group.some(({ curves }) => curves.some((curve) => curve.name === name)));
    const panels = [];
    const onlook = (step) => panels.forEach((panel) => panel.look(step));
    names.forEach((name) => panels.push(charts.curves({ title: titles[name], lines: lines(group, name, variants), first: 1, last, logarithmic, onlook })));
    const lost = names.flatMap((name) => lines(group, name, variants).filter(({ unbounded }) => unbounded).map((line) => `${titles[name]} of ${line.name} is no finite number in ${line.unbounded} steps; these are left out.`));
    return [
      el("div", { class: "group-head" }, el("h3", null, base(group[0].stage), " ", el("span", { class: "soft" }, group[0].kind)), legend(group, variants)),
      el("div", { class: "panels" }, panels),
      lost.map((line) => el("p", { class: "note" }, line)),
    ];
  }
  const area = el("div");
  const draw = () => area.replaceChildren(...[...groups.values()].flatMap(drawn).flat(Infinity));
  const box = el("input", { type: "checkbox", onchange: () => { logarithmic = box.checked; draw(); } });
  draw();
  body.append(el("div", { class: "row screen" }, el("label", { class: "check" }, box, "Logarithmic")), area,
    el("p", { class: "note" }, "A filled area spans the lowest and the highest value of the steps that share a place. Numbers above a panel are those of the last step, or of the step under the pointer (arrow keys move it)."));
});
