// One dialogue as people read it, and two side by side. Nothing that was said becomes anything but text.
const browseShow = (() => {
  const { el, text } = thresh;
  const glyphs = { success: "✓", complete: "✓", partial: "◐", failure: "✕", empty: "✕", broken: "!" };
  const tones = { success: "good", complete: "good", partial: "warn", failure: "bad", empty: "bad", broken: "warn" };

  /** The sign of an outcome, told apart by its shape too. */
  const outcome = (name) => el("span", { class: `browse-sign ${tones[name]}`, role: "img", "aria-label": name, title: name }, glyphs[name]);
  const plural = (count, one, many) => `${text.number(count)} ${count === 1 ? one : many ?? `${one}s`}`;
  /** A reward, or that there is none. */
  const reward = (line) => (line.reward === null ? (line.outcome === "broken" ? "broken" : text.absent) : line.reward.toFixed(2));

  /** The letters of the runs that a table is of, and its stage. */
  function place(set) {
    const runs = [...new Set(set.places.map(([run]) => run))];
    return el("span", { class: "browse-place" }, runs.map((run) => [thresh.mark(run), " "]), el("span", null, set.label));
  }

  let terms = [];
  /** What is marked from now on. */
  const seek = (wanted) => (terms = wanted);
  /** A text with what was searched for marked. */
  function marked(said) {
    if (!terms.length) return [said];
    const lower = said.toLowerCase();
    // Where small letters take another room, places in one text say nothing about the other.
    if (lower.length !== said.length) return [said];
    const parts = [];
    for (let at = 0; at < said.length; ) {
      let [from, to] = [said.length, said.length];
      for (const term of terms) {
        const found = lower.indexOf(term, at);
        if (found >= 0 && (found < from || (found === from && found + term.length > to))) [from, to] = [found, found + term.length];
      }
      if (from > at) parts.push(said.slice(at, from));
      if (from < said.length) parts.push(el("mark", null, said.slice(from, to)));
      at = to;
    }
    return parts;
  }
  const finds = (said) => terms.some((term) => said.toLowerCase().includes(term));

  const parsed = (json) => {
    try {
      return JSON.parse(json);
    } catch {
      return undefined;
    }
  };
  const plain = (value) => (typeof value === "string" ? value : JSON.stringify(value));

  /** What a call was given: `food: thai, area: north`. */
  function given(json) {
    const value = json === null ? null : parsed(json);
    if (value === null || typeof value !== "object" || Array.isArray(value)) return json === null ? [] : marked(json);
    return Object.entries(value).map(([name, of], at) => [at ? ", " : "", el("span", { class: "soft" }, `${name}: `), marked(plain(of))]);
  }

  const short = 120;
  /** What a call returned: whole where it is short, else folded, with its beginning to be seen. */
  function observation(step) {
    if (step.observation === null) return el("p", { class: "browse-seen soft" }, "no answer: the dialogue broke off here");
    const tone = step.error ? "browse-seen bad" : "browse-seen";
    const said = step.observation;
    if (said.length <= short) return el("p", { class: tone }, marked(said));
    const value = parsed(said);
    const count = Array.isArray(value) ? `${plural(value.length, "row")} ` : "";
    const whole = value === undefined ? said : JSON.stringify(value, null, 1);
    return el("details", { class: tone, open: finds(said) },
      el("summary", null, el("span", { class: "browse-count" }, count), el("span", { class: "browse-cut" }, said.slice(0, 300))), el("pre", null, marked(whole)));
  }

  function call(step, goals) {
    const what = step.malformed === null
      ? [el("b", null, marked(step.tool)), "(", given(step.arguments), ")"]
      : [el("b", null, step.tool || "no call"), " ", marked(step.malformed)];
    const hits = step.goals.map((goal) => el("span", { class: "browse-hit good" }, `✓ goal ${goal + 1}`));
    return el("div", { class: "browse-call" }, el("p", { class: "browse-code" }, what, hits.length ? [" ", hits] : []), observation(step));
  }

  const steps = {
    said: (step) => el("p", { class: "browse-said" }, marked(step.text)),
    plan: (step) => el("p", { class: "browse-plan", title: "what the agent planned" }, marked(step.text)),
    seen: (step) => el("p", { class: "browse-seen" }, marked(step.text)),
    unread: (step) => el("p", { class: "browse-seen bad", title: "a reply without a command: nobody heard it" }, marked(step.text)),
    call,
  };

  /** A turn: who had the word, what it did, which goals it was the first to reach. */
  function turn(one, goals) {
    const reached = one.goals.map((goal) => el("p", { class: "browse-reached good" }, `✓ reached goal ${goal + 1}`, goals[goal]?.tool ? `: ${goals[goal].tool}` : ""));
    return el("div", { class: `browse-turn browse-${one.role}`, "data-turn": one.number },
      el("p", { class: "browse-who" }, el("span", { class: "soft num" }, one.number), " ", one.role), el("div", { class: "browse-what" }, one.steps.map((step) => steps[step.kind](step, goals)), reached));
  }

  /** The goals, each with the turn that reached it. */
  function goals(list, jump) {
    if (!list.length) return null;
    const item = (goal, at) => {
      const place = goal.turn ? el("button", { type: "button", class: "browse-jump", onclick: () => jump(goal.turn) }, `turn ${goal.turn}`) : null;
      const detail = [goal.wanted && ["(", marked(goal.wanted), ")"], goal.entity && ` → ${goal.entity}`];
      return el("li", { class: goal.reached ? null : "browse-missed" },
        el("span", { class: goal.reached ? "good" : "bad", role: "img", "aria-label": goal.reached ? "reached" : "not reached" }, goal.reached ? "✓" : "✕"),
        el("span", { class: "soft num" }, at + 1), el("span", { class: "browse-code" }, el("b", null, goal.tool || "goal"), detail), place);
    };
    return el("ol", { class: "browse-goals" }, list.map(item));
  }

  const about = (body) => JSON.stringify(body.goals.map(({ tool, wanted, entity }) => [tool, wanted, entity]));
  /** The goals of two dialogues about one task: who reached them, and when. */
  function both(left, right, jump) {
    const sign = (goal) => el("span", { class: goal.reached ? "good" : "bad", role: "img", "aria-label": goal.reached ? "reached" : "not reached" }, goal.reached ? "✓" : "✕");
    const place = (goal) => (goal.turn ? el("button", { type: "button", class: "browse-jump", onclick: () => jump(goal.turn) }, `turn ${goal.turn}`) : el("span", { class: "soft" }, text.absent));
    const item = (goal, at) => el("li", null, sign(goal), sign(right.goals[at]), el("span", { class: "soft num" }, at + 1),
      el("span", { class: "browse-code" }, el("b", null, goal.tool || "goal"), goal.wanted && ["(", marked(goal.wanted), ")"]), el("span", { class: "browse-jumps" }, place(goal), place(right.goals[at])));
    return el("ol", { class: "browse-goals" }, left.goals.map(item));
  }

  const wish = (said) => said && el("details", { class: "browse-wish" }, el("summary", null, "What the customer wants"), el("p", null, marked(said)));

  /** The facts of a dialogue or tree in one line. */
  function facts(line, body) {
    const reached = body.goals.filter((goal) => goal.reached).length;
    const parts = [
      el("b", { class: tones[line.outcome] }, line.outcome),
      line.reward === null ? "no reward" : `reward ${line.reward.toFixed(2)}`,
      body.goals.length ? `${reached} of ${plural(body.goals.length, "goal")}` : null,
      line.trees ? `${plural(line.length, "node")}, ${plural(line.calls, "example")}` : `${plural(line.length, "turn")}, ${plural(line.calls, "call")}`,
      line.split && `split ${line.split}`,
      !line.trees && !body.ended && line.outcome !== "broken" ? "ended by the limit of messages" : null,
      body.tokens?.length ? `${text.short(body.tokens[0] + body.tokens[2])} tokens read, ${text.short(body.tokens[1] + body.tokens[3])} written` : null,
    ].filter(Boolean);
    return [el("p", { class: "browse-facts" }, parts.map((part, at) => [at ? " · " : "", part])), body.reason && el("p", { class: "warn" }, marked(body.reason))];
  }

  /** A dialogue from its first word to its last. */
  function talk(line, body, jump) {
    return [facts(line, body), goals(body.goals, jump), wish(body.wish), el("div", { class: "browse-turns" }, body.turns.map((one) => turn(one, body.goals)))];
  }

  const same = (a, b) => JSON.stringify(a) === JSON.stringify(b);
  /** Two dialogues about one task, turn beside turn; where they part is marked. */
  function pair(left, right, jump) {
    const rows = [];
    const count = Math.max(left.body.turns.length, right.body.turns.length);
    let parted = false;
    const cell = (side, one) => el("div", { class: "browse-side", "data-side": side.letter }, one ? turn(one, side.body.goals) : el("p", { class: "soft browse-over" }, "ended before"));
    for (let at = 0; at < count; at += 1) {
      const [a, b] = [left.body.turns[at], right.body.turns[at]];
      const differs = !a || !b || !same([a.role, a.steps], [b.role, b.steps]);
      if (differs && !parted) {
        rows.push(el("p", { class: "browse-part" }, at ? "They part here" : "They differ from the start"));
        parted = true;
      }
      rows.push(cell(left, a), cell(right, b));
    }
    if (!parted) rows.unshift(el("p", { class: "browse-part" }, "Both say the same"));
    const alike = about(left.body) === about(right.body);
    const head = (side) => el("div", { class: "browse-side" }, el("p", null, outcome(side.line.outcome), " ", place(side.line.set)), facts(side.line, side.body), alike ? null : goals(side.body.goals, jump));
    const other = "These are different tasks that have the same name: their goals differ.";
    return [alike ? [both(left.body, right.body, jump), wish(left.body.wish)] : el("p", { class: "notice" }, other), el("div", { class: "browse-pair" }, head(left), head(right), rows)];
  }

  return { outcome, plural, reward, place, seek, turn, goals, wish, facts, talk, pair };
})();
