// Dialogues and trees: lines from columns, bodies from compressed pieces, and the search through all that was said.
// `src/report/page/browse/body.rs` says what a body looks like.
const browseData = (index) => {
  const sets = index.sets.map((set, number) => ({ ...set, number, size: set.name.length }));
  let size = 0;
  for (const set of sets) {
    set.first = size;
    size += set.size;
  }
  /** By row: its table. */
  const setOf = new Uint16Array(size);
  sets.forEach((set) => setOf.fill(set.number, set.first, set.first + set.size));

  const outcomes = { s: "success", f: "failure", b: "broken", c: "complete", p: "partial", e: "empty" };
  /** What the list shows of a row. */
  function line(row) {
    const set = sets[setOf[row]], at = row - set.first, reward = set.reward[at], split = set.split[at];
    return {
      row, set, trees: set.trees, name: index.names[set.name[at]], task: set.name[at], outcome: outcomes[set.outcome[at]],
      reward: reward < 0 ? null : index.rewards[reward], split: split < 0 ? null : index.splits[split],
      goals: index.goals[set.goals[at]].map((tool) => index.tools[tool]), reached: set.reached[at],
      length: set.length[at], calls: set.calls[at], opening: set.opening[at],
    };
  }

  // Pieces.
  const pieces = index.chunks.rows.length;
  const texts = [], bodies = [], references = [], loading = [];
  /** The last place of a sorted list that is not above a value. */
  function last(list, value) {
    let [low, high] = [0, list.length - 1];
    while (low < high) {
      const middle = (low + high + 1) >> 1;
      if (list[middle] <= value) low = middle;
      else high = middle - 1;
    }
    return low;
  }
  const pieceOfText = (number) => last(index.chunks.texts, number);
  const whole = new Promise((done) => {
    if (document.readyState === "loading") addEventListener("DOMContentLoaded", done, { once: true });
    else done();
  });

  const decoded = (text) => (Uint8Array.fromBase64 ? Uint8Array.fromBase64(text) : Uint8Array.from(atob(text), (one) => one.charCodeAt(0)));
  async function read(piece) {
    await whole;
    const bytes = decoded(document.getElementById(`browse-${piece}`).textContent);
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    const content = JSON.parse(await new Response(stream).text());
    texts[piece] = content.texts;
    bodies[piece] = content.bodies;
    references[piece] = content.bodies.map((body, at) => referred(body, sets[setOf[index.chunks.rows[piece] + at]].trees));
  }
  /** Opens a piece; once, however often it is asked for. */
  const load = (piece) => (loading[piece] ??= read(piece));
  const loaded = () => texts.reduce((count) => count + 1, 0);

  /** A text by its number; null where it is absent or its piece was not opened yet. */
  function text(number) {
    if (number < 0) return null;
    const piece = pieceOfText(number);
    return texts[piece]?.[number - index.chunks.texts[piece]] ?? null;
  }
  /** Opens the pieces that texts are in. */
  const need = (numbers) => Promise.all([...new Set(numbers.map(pieceOfText))].map(load));

  /** The numbers of all texts of a body. */
  function referred(body, trees) {
    const found = [body[0], body[1]];
    const goals = (list) => list.forEach(([tool, wanted, entity]) => found.push(tool, wanted, entity));
    const turns = (list) => list.forEach(([, , steps]) => steps.forEach((step) => (step[0] === 2 ? found.push(step[1], step[2], step[3], step[4]) : found.push(step[1]))));
    if (trees) {
      goals(body[2]);
      body[3].forEach((node) => turns(node[5]));
    } else {
      goals(body[3]);
      turns(body[4]);
    }
    return Uint32Array.from(new Set(found.filter((number) => number >= 0)));
  }

  const roles = ["user", "agent", "system"], kinds = ["said", "plan", "call", "seen", "unread"];
  const goal = ([tool, wanted, entity, reached, turn]) => ({ tool: text(tool), wanted: text(wanted), entity: text(entity), reached: reached === 1, turn });
  function step([kind, ...of]) {
    if (kind !== 2) return { kind: kinds[kind], text: text(of[0]) };
    const [tool, given, malformed, observation, error, ...goals] = of;
    return { kind: "call", tool: text(tool), arguments: text(given), malformed: text(malformed), observation: text(observation), error: error === 1, goals };
  }
  const turns = (list, first) => list.map(([role, goals, steps], at) => ({ number: first + at, role: roles[role], goals, steps: steps.map(step) }));
  function node([parent, order, marks, hits, first, list], number) {
    return { number, parent: parent < 0 ? null : parent, order: order < 0 ? null : order, success: (marks & 1) > 0, golden: (marks & 2) > 0, hits, turns: turns(list, first), children: [] };
  }

  /** All of a dialogue or tree. */
  async function body(row) {
    const piece = last(index.chunks.rows, row), at = row - index.chunks.rows[piece];
    await load(piece);
    await need([...references[piece][at]]);
    const of = bodies[piece][at];
    if (!sets[setOf[row]].trees) {
      const [wish, reason, ended, goals, list, tokens] = of;
      return { wish: text(wish), reason: text(reason), ended: ended === 1, goals: goals.map(goal), turns: turns(list, 1), tokens };
    }
    const [wish, reason, goals, list] = of;
    const nodes = list.map(node);
    nodes.forEach((one) => one.parent !== null && nodes[one.parent].children.push(one.number));
    return { wish: text(wish), reason: text(reason), goals: goals.map(goal), nodes };
  }

  // Search. All texts of a piece stand in one string in small letters, so that one look finds all.
  const small = [];
  function lowered(piece) {
    if (small[piece]) return small[piece];
    let length = 0;
    const lower = texts[piece].map((one) => one.toLowerCase());
    const starts = Uint32Array.from(lower, (one) => (length += one.length + 1) - one.length - 1);
    return (small[piece] = { all: lower.join("\n"), starts });
  }
  /** Marks the texts of a piece that hold a term. */
  function mark(piece, term, marks) {
    const { all, starts } = lowered(piece), base = index.chunks.texts[piece];
    for (let at = all.indexOf(term); at >= 0; ) {
      const found = last(starts, at);
      marks[base + found] = 1;
      at = found + 1 < starts.length ? all.indexOf(term, starts[found + 1]) : -1;
    }
  }
  const breath = () => new Promise((done) => setTimeout(done));

  /**
   * The rows in which all terms stand somewhere: in what was said, planned, called or seen, in the wish, or in the name. Pieces are
   * searched one after the other, the page stays responsive meanwhile; `progress(share)` hears how far it is, and `stopped()`
   * ends it with null.
   */
  async function search(terms, progress, stopped) {
    const marks = terms.map(() => []);
    for (let piece = 0, began = performance.now(); piece < pieces; piece += 1) {
      await load(piece);
      if (stopped()) return null;
      terms.forEach((term, at) => mark(piece, term, marks[at]));
      if (performance.now() - began > 12) {
        progress((piece + 1) / pieces);
        await breath();
        began = performance.now();
      }
    }
    const named = index.names.map((name) => name.toLowerCase());
    const hits = new Uint8Array(size);
    for (let piece = 0, row = 0; piece < pieces; piece += 1) {
      for (const numbers of references[piece]) {
        const name = named[sets[setOf[row]].name[row - sets[setOf[row]].first]];
        if (terms.every((term, at) => name.includes(term) || numbers.some((number) => marks[at][number]))) hits[row] = 1;
        row += 1;
      }
    }
    return stopped() ? null : hits;
  }

  /** Opens all pieces while nothing else is to be done. */
  async function loadAll() {
    const idle = window.requestIdleCallback ?? ((act) => setTimeout(act, 50));
    for (let piece = 0; piece < pieces; piece += 1) {
      await new Promise((done) => idle(done, { timeout: 2000 }));
      await load(piece);
    }
  }

  return { sets, size, line, text, need, body, search, loadAll, loaded, pieces, index };
};

/** The terms of a search: words, and phrases within quotes, in small letters. */
const browseTerms = (query) => [...query.toLowerCase().matchAll(/"([^"]+)"?|(\S+)/g)].map((found) => found[1] ?? found[2]).filter((term) => term !== '"');
