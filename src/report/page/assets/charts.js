// Charts as SVG, in the colours of the page. Every chart has a name for who cannot see it, and its numbers stand beside it or in a table.
thresh.charts = (() => {
  const { svg, el, text, known } = thresh;

  /** Round numbers between two ends, about so many. */
  function ticks(low, high, about) {
    const rough = (high - low) / about, unit = 10 ** Math.floor(Math.log10(rough));
    const step = [1, 2, 5, 10].find((one) => one * unit >= rough) * unit;
    const found = [];
    for (let at = Math.ceil(low / step - 1e-9); at * step <= high + step * 1e-9; at += 1) found.push(Number((at * step).toPrecision(12)));
    return found;
  }
  /** Powers of ten between two ends, with 2 and 5 between them where there is room. */
  function powers(low, high) {
    const found = [];
    const tens = Math.log10(high / low), marks = tens > 3 ? [1] : tens > 1.2 ? [1, 3] : [1, 2, 5];
    for (let power = Math.floor(Math.log10(low)); 10 ** power <= high; power += 1)
      marks.forEach((mark) => mark * 10 ** power >= low * 0.999 && mark * 10 ** power <= high * 1.001 && found.push(Number((mark * 10 ** power).toPrecision(3))));
    return tens > 6 ? found.filter((_, at) => at % 2 === 0) : found;
  }
  /** From values to pixels: linear, or by the logarithm. */
  function scale([low, high], [from, to], logarithmic) {
    const turn = logarithmic ? Math.log10 : (value) => value;
    const [a, b] = [turn(low), turn(high)], spread = b - a || 1;
    return (value) => from + ((turn(value) - a) / spread) * (to - from);
  }

  const fix = (value) => Math.round(value * 10) / 10;
  const path = (points) => points.map(([x, y], at) => `${at ? "L" : "M"}${fix(x)} ${fix(y)}`).join("");
  const dashes = [null, "5 2", "2 2", "7 2 2 2", "1 3", "9 3"];

  /** The ends of what is drawn: of all values, with a little air, or of the positive ones where it is logarithmic. */
  function ends(lines, logarithmic) {
    const values = lines.flatMap(({ low, high }) => [...low, ...(high ?? [])]).filter((value) => known(value) && (!logarithmic || value > 0));
    if (!values.length) return null;
    let [least, most] = [values.reduce((a, b) => Math.min(a, b)), values.reduce((a, b) => Math.max(a, b))];
    if (logarithmic) return least === most ? [least / 2, most * 2] : [least, most];
    // An axis from 0 where that costs little: a fall from 2 to 1 should not look like one to nothing.
    if (least > 0 && least < most * 0.6) least = 0;
    const air = (most - least || Math.abs(most) || 1) * 0.06;
    return [least === 0 ? 0 : least - air, most + air];
  }

  /** Curves over steps. Lines: `{name, colour, at: [step], low: [], high?: []}`; where a place stands for several steps, the area
      between the lowest and the highest of them is filled. Returns the figure; `figure.look(step or null)` shows the values there. */
  function curves({ title, lines, logarithmic, first, last, onlook }) {
    const width = 300, height = 150, left = 44, right = 8, top = 8, bottom = 20;
    const range = ends(lines, logarithmic);
    const steps = [first, last];
    const x = scale(steps, [left, width - right]), y = range && scale(range, [height - bottom, top], logarithmic);
    const clear = (value) => (logarithmic && value <= 0 ? range[0] : value);
    const marks = range ? (logarithmic ? powers(...range) : ticks(...range, 4)) : [];
    const grid = marks.map((value) => svg("g", null,
      svg("line", { class: "grid", x1: left, x2: width - right, y1: fix(y(value)), y2: fix(y(value)) }),
      svg("text", { x: left - 6, y: fix(y(value)) + 3.5, "text-anchor": "end" }, text.figure(value))));
    const along = ticks(steps[0], steps[1] + 1e-9, 4).filter((step) => Number.isInteger(step)).map((step) =>
      svg("text", { x: fix(x(step)), y: height - 5, "text-anchor": "middle" }, text.short(step)));
    const drawn = range ? lines.map(({ colour, at, low, high, dash }) => {
      const lows = at.map((step, index) => [x(step), y(clear(low[index]))]);
      if (at.length === 1) return svg("circle", { cx: fix(lows[0][0]), cy: fix(lows[0][1]), r: 2.5, fill: colour });
      if (!high) return svg("path", { class: "curve", d: path(lows), stroke: colour, "stroke-dasharray": dash });
      const highs = at.map((step, index) => [x(step), y(clear(high[index]))]).reverse();
      return svg("path", { class: "curve band", d: `${path(lows)}L${path(highs).slice(1)}Z`, stroke: colour, fill: colour });
    }) : [];
    const hair = svg("line", { class: "hair", y1: top, y2: height - bottom, x1: 0, x2: 0, visibility: "hidden" });
    const dots = lines.map(({ colour }) => svg("circle", { class: "dot", r: 2.5, fill: colour, visibility: "hidden" }));
    const image = svg("svg", { class: "chart", viewBox: `0 0 ${width} ${height}`, role: "img", tabindex: "0", "aria-label": spoken(title, lines) },
      grid, along, drawn, hair, dots);
    const values = lines.map(({ colour }) => el("span", { class: "value", style: { "--own": colour } }));
    const at = el("span", { class: "soft" });
    const figure = el("figure", { class: "panel" }, el("figcaption", null, el("span", { class: "title" }, title), at), el("p", { class: "values" }, values), image);

    /** The place of a line that a step is in. */
    const index = (line, step) => Math.max(0, line.at.findLastIndex((from) => from <= step));
    const said = (line, place) => {
      const [low, high] = [line.low[place], line.high?.[place]];
      return high !== undefined && high !== low ? `${text.figure(low)}–${text.figure(high)}` : text.figure(low);
    };
    figure.look = (step) => {
      at.textContent = step === null ? "" : `step ${text.number(step)}`;
      hair.setAttribute("visibility", step === null ? "hidden" : "visible");
      if (step !== null) ["x1", "x2"].forEach((name) => hair.setAttribute(name, fix(x(step))));
      lines.forEach((line, number) => {
        const place = index(line, step ?? Infinity);
        values[number].textContent = step === null ? text.figure(line.final ?? line.low[place]) : step < line.at[0] ? text.absent : said(line, place);
        const shows = step !== null && range && step >= line.at[0];
        dots[number].setAttribute("visibility", shows ? "visible" : "hidden");
        if (!shows) return;
        dots[number].setAttribute("cx", fix(x(line.at[place])));
        dots[number].setAttribute("cy", fix(y(clear(line.high ? (line.low[place] + line.high[place]) / 2 : line.low[place]))));
      });
    };
    const stepAt = (event) => {
      const box = image.getBoundingClientRect(), inside = ((event.clientX - box.left) / box.width) * width;
      return Math.round(steps[0] + (Math.min(1, Math.max(0, (inside - left) / (width - right - left)))) * (steps[1] - steps[0]));
    };
    let here = null;
    const look = (step) => { here = step; onlook(step); };
    image.addEventListener("pointermove", (event) => look(stepAt(event)));
    image.addEventListener("pointerleave", () => look(null));
    image.addEventListener("blur", () => look(null));
    image.addEventListener("keydown", (event) => {
      const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
      if (!by) return;
      event.preventDefault();
      const stride = Math.max(1, Math.round((steps[1] - steps[0]) / (event.shiftKey ? 10 : 60)));
      look(Math.min(steps[1], Math.max(steps[0], (here ?? steps[by > 0 ? 0 : 1]) + by * (here === null ? 0 : stride))));
    });
    figure.look(null);
    return figure;
  }
  const spoken = (title, lines) => {
    const parts = lines.map((line) => `${line.name} from ${text.figure(line.low[0])} to ${text.figure(line.final ?? line.low.at(-1))}`);
    return `${title}: ${parts.join("; ")}`;
  };

  /** Bars beside each other over some bins. Series: `{name, colour, shares: [0…1], counts: []}`; bins: `[label]`. */
  function bars({ title, bins, series, most }) {
    const width = 300, height = 120, left = 34, right = 2, top = 6, bottom = 18;
    const y = scale([0, most], [height - bottom, top]), room = (width - left - right) / bins.length;
    const grid = ticks(0, most, 3).map((share) => svg("g", null,
      svg("line", { class: "grid", x1: left, x2: width - right, y1: fix(y(share)), y2: fix(y(share)) }),
      svg("text", { x: left - 6, y: fix(y(share)) + 3.5, "text-anchor": "end" }, text.percent(share, 0))));
    const labels = bins.map((bin, at) => bin.mark && svg("text", { x: fix(left + room * (at + 0.5)), y: height - 4, "text-anchor": "middle" }, bin.mark));
    const bar = room * 0.84 / series.length;
    const columns = bins.map((bin, at) => {
      const rects = series.map(({ colour, shares }, number) =>
        svg("rect", { x: fix(left + room * (at + 0.08) + bar * number), width: fix(Math.max(1, bar - (series.length > 1 ? 0.5 : 0))), y: fix(y(shares[at])), height: fix(Math.max(shares[at] > 0 ? 0.8 : 0, height - bottom - y(shares[at]))), fill: colour }));
      const area = svg("g", { class: "bin" }, svg("rect", { class: "reach", x: fix(left + room * at), width: fix(room), y: top, height: height - bottom - top }), rects);
      return thresh.note(area, () => [el("strong", null, bin.name), ...series.flatMap((one) => ["\n", `${one.name}: ${text.number(one.counts[at])} (${text.percent(one.shares[at])})`])]);
    });
    const words = series.map((one) => `${one.name}: ${one.counts.map((count, at) => (count ? `${bins[at].name} ${count}` : "")).filter(Boolean).join(", ")}`).join("; ");
    return svg("svg", { class: "chart", viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": `${title}. ${words}` }, grid, columns, labels);
  }

  /** An interval on a line: a bar from low to high, a tick at the mean, and a mark where 0 or the baseline is. */
  function interval({ low, mean, high, range, at, colour }) {
    const width = 120, height = 14, x = scale(range, [3, width - 3]);
    return svg("svg", { class: "interval", viewBox: `0 0 ${width} ${height}`, width, height, "aria-hidden": "true" },
      svg("line", { class: "grid", x1: 3, x2: width - 3, y1: 7, y2: 7 }),
      known(at) && svg("line", { class: "zero", x1: fix(x(at)), x2: fix(x(at)), y1: 0, y2: height }),
      known(low) && known(high) && svg("line", { x1: fix(x(low)), x2: fix(x(high)), y1: 7, y2: 7, stroke: colour, "stroke-width": 3, "stroke-linecap": "round", opacity: 0.55 }),
      known(mean) && svg("circle", { cx: fix(x(mean)), cy: 7, r: 3.2, fill: colour }));
  }

  return { ticks, powers, scale, curves, bars, interval, dashes };
})();
