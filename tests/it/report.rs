//! The page that `thresh report` writes, in a real Chromium: what people see of it, do with it, and must never see.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::browser::{Browser, Page, Screen};
use crate::project::Project;
use thresh::chat::{Message, Role};
use thresh::dialogue::episode::{EpisodeRow, Outcome};
use thresh::table;

/// Two agents on the same 500 tasks, and some trees: rules all of them, so that it takes seconds.
const TALKS: &str = "name: talks
stages:
  corpus: {kind: multiwoz.synthesize, with: {dialogues: 720, domains: [restaurant, hotel], max_domains: 2, seed: 3}}
  toolwoz: {kind: toolwoz.convert, in: {corpus: corpus.corpus}}
  rule:
    kind: dialogue.simulate
    in: {tasks: toolwoz.tasks, world: toolwoz.world}
    with: {agent: {kind: rule}, tasks: {split: train, limit: 500}, seed: 4}
  noisy:
    kind: dialogue.simulate
    in: {tasks: toolwoz.tasks, world: toolwoz.world}
    with: {agent: {kind: rule, noise: 0.3}, tasks: {split: train, limit: 500}, seed: 4}
  harvest:
    kind: josh.harvest
    in: {tasks: toolwoz.tasks, world: toolwoz.world}
    with: {agent: {kind: rule, noise: 0.3}, tasks: {split: train, limit: 30}, beam: 6, max_steps: 6, seed: 4}
  rule_scores: {kind: eval.toolwoz, in: {episodes: rule.episodes}}
  noisy_scores: {kind: eval.toolwoz, in: {episodes: noisy.episodes}}
  comparison:
    kind: eval.compare
    in: {rule: rule_scores.scores, noisy: noisy_scores.scores}
    with: {baseline: rule, samples: 100}
";

/// A table of dialogues that comes from elsewhere.
const MANY: &str = "name: many
stages:
  many:
    kind: command.run
    with:
      command: [cp, \"{project}/many.parquet\", \"{out.episodes}\"]
      files: [many.parquet]
      outputs: {episodes: {path: episodes.parquet, type: dialogue.episode/v2}}
";

fn report(project: &Project, arguments: &[&str]) -> PathBuf {
    project.ok(&[&["report", "-q", "-o", "report.html"], arguments].concat());
    project.path().join("report.html")
}

/// What the list says of itself: `1 000 dialogues`, `12 of 30 trees`.
fn status(page: &Page) -> String {
    page.until("document.querySelector('.browse-list').ariaBusy !== 'true'");
    page.eval("document.querySelector('.browse-status').textContent").as_str().unwrap().replace('\u{202f}', " ")
}

/// Sets one of the filters.
fn choose(page: &Page, name: &str, value: &str) {
    let select = format!("document.querySelector('select[aria-label=\"{name}\"]')");
    page.eval(&format!(
        "{select}.value = {}, {select}.dispatchEvent(new Event('change', {{bubbles: true}}))",
        json!(value)
    ));
    assert_eq!(page.eval(&format!("{select}.value")), value, "{name} has no such choice");
}

/// Searches for something, and waits until it is found.
fn search(page: &Page, query: &str) -> String {
    page.eval("document.querySelector('.browse-search').focus(), document.querySelector('.browse-search').select()");
    if query.is_empty() {
        page.key("Delete")
    } else {
        page.insert(query)
    }
    status(page)
}

/// The text of what is open, once it is about this dialogue.
fn shown(page: &Page, name: &str) -> String {
    page.until(&format!("document.querySelector('.browse-shown h3')?.textContent === {}", json!(name)));
    page.eval("document.querySelector('.browse-shown').innerText").as_str().unwrap().to_owned()
}

fn count(page: &Page, selector: &str) -> u64 {
    page.eval(&format!("document.querySelectorAll({}).length", json!(selector))).as_u64().unwrap()
}

fn fine(page: &Page, what: &str) {
    let problems = page.problems();
    assert!(problems.is_empty(), "{what}: {}", problems.join("\n"));
    assert_eq!(page.eval("document.querySelectorAll('.notice').length"), 0, "{what}: a notice on the page");
    let wide = page.eval("document.documentElement.scrollWidth - document.documentElement.clientWidth");
    assert_eq!(wide, 0, "{what}: the page scrolls sideways");
    assert!(page.shift() == 0.0, "{what}: something moved: {}", page.eval("JSON.stringify(window.shifts)"));
}

/// The first dialogue of which the noisy agent failed: its name.
fn lost(project: &Project) -> String {
    let rows: Vec<EpisodeRow> = table::read(&project.result("talks.yaml", "noisy.episodes")).unwrap();
    rows.iter().find(|row| row.outcome == Outcome::Failure).unwrap().dialogue.clone()
}

#[test]
fn a_page_of_a_thousand_dialogues_in_a_browser() {
    let Some(browser) = Browser::start() else { return };
    let project = Project::new();
    project.write("talks.yaml", TALKS);
    project.run(&["talks.yaml"]);
    let path = report(&project, &[]);
    let bytes = std::fs::read(&path).unwrap();
    assert_eq!(std::fs::read(report(&project, &[])).unwrap(), bytes, "the same runs give the same bytes");
    let page = Page::open(&browser, &path, "", Screen::DESKTOP);
    let paint = page.first_paint();
    assert!(paint < 1000.0, "the first paint came after {paint} ms");
    assert!(!page.eval("document.body.innerText").as_str().unwrap().contains("could not be drawn"));
    filters(&page);
    keyboard(&page);
    let lost = lost(&project);
    side_by_side(&page, &lost);
    trees(&page);
    fine(&page, "on a laptop");
    for (dark, print) in [(true, false), (false, true)] {
        page.media(dark, print);
        shown_on_paper_and_in_the_dark(&page, &lost, print);
    }
    page.media(false, false);
    phone(&browser, &path, &lost);
}

fn filters(page: &Page) {
    assert_eq!(status(page), "1 000 dialogues");
    assert!(count(page, ".browse-row") < 40);
    choose(page, "Outcome", "failure");
    let failed = status(page);
    assert!(failed.ends_with("of 1 000 dialogues") && !failed.starts_with("0 "), "{failed}");
    assert_eq!(count(page, ".browse-row .good"), 0);
    choose(page, "Stage", "A.noisy.episodes");
    assert_eq!(status(page).split(' ').next(), failed.split(' ').next(), "rules without noise never fail");
    choose(page, "Outcome", "");
    choose(page, "Beside another stage", "A.rule.episodes");
    choose(page, "How it changed", "gained");
    assert_eq!(status(page).split(' ').next(), failed.split(' ').next());
    choose(page, "How it changed", "lost");
    assert_eq!(status(page), "0 of 500 dialogues");
    page.click(".browse-clear");
    assert_eq!(status(page), "1 000 dialogues");
    let number = |status: String| status.split(" of").next().unwrap().replace(' ', "").parse::<u64>().unwrap();
    let (hotels, both) = (number(search(page, "book_hotel")), number(search(page, "book_hotel book_restaurant")));
    assert!(0 < both && both < hotels && hotels < 1000, "{both} {hotels}");
    assert_eq!(search(page, "\"nobody ever says this\""), "0 of 1 000 dialogues");
    assert_eq!(search(page, ""), "1 000 dialogues");
    choose(page, "Order", "low");
    assert_eq!(page.eval("document.querySelector('.browse-row[data-at=\"0\"] .num').textContent"), "0.00");
    choose(page, "Order", "name");
}

fn keyboard(page: &Page) {
    page.eval("document.activeElement.blur()");
    page.key("/");
    page.insert("hotel");
    let found = status(page);
    page.key("ArrowDown");
    assert_eq!(page.eval("document.activeElement.getAttribute('role')"), "listbox");
    for key in ["Home", "ArrowDown", "ArrowDown", "ArrowUp", "PageDown", "PageUp"] {
        page.key(key);
    }
    let active =
        "document.getElementById(document.querySelector('.browse-list').getAttribute('aria-activedescendant'))";
    assert_eq!(page.eval(&format!("{active}.getAttribute('aria-posinset')")), "2");
    page.key("End");
    let last = page.eval(&format!("[{active}.getAttribute('aria-posinset'), {active}.getAttribute('aria-setsize')]"));
    assert_eq!(last[0], last[1]);
    assert!(found.replace(' ', "").starts_with(last[0].as_str().unwrap()), "{found} {last}");
    let name = page.eval(&format!("{active}.querySelector('.browse-name').textContent"));
    let text = shown(page, name.as_str().unwrap());
    assert!(text.contains("reward") && text.contains("user") && text.contains("search_hotel("), "{text}");
    assert!(count(page, ".browse-shown mark") > 0, "what was searched for is marked");
    page.key("Enter");
    page.until("document.activeElement.classList.contains('browse-shown')");
    page.key("Escape");
    page.until("document.activeElement.classList.contains('browse-list')");
    page.reload();
    assert_eq!(status(page), found);
    shown(page, name.as_str().unwrap());
    assert_eq!(page.eval(&format!("{active}.getAttribute('aria-selected')")), "true");
}

fn side_by_side(page: &Page, name: &str) {
    page.go(&format!("browse?dialogue={name}&left=A.rule.episodes&right=A.noisy.episodes"));
    let text = shown(page, name);
    assert!(text.contains("success") && text.contains("failure") && text.contains("part here"), "{text}");
    assert!(count(page, ".browse-pair .browse-side") > 4);
    page.click(".browse-actions button:last-child");
    page.until("location.hash.includes('left=A.noisy.episodes&right=A.rule.episodes')");
    page.click(".browse-actions button");
    page.until("!location.hash.includes('right=') && !document.querySelector('.browse-pair')");
    let goals = page.eval("document.querySelectorAll('.browse-goals .bad').length");
    assert!(goals.as_u64() > Some(0), "a goal is missed");
    page.click(".browse-jump");
    page.until("document.querySelector('.browse-flash')");
}

fn trees(page: &Page) {
    page.click(".browse-kinds [data-trees=true]");
    assert_eq!(status(page), "30 trees");
    page.click(".browse-row[data-at='1']");
    page.until("document.querySelector('.browse-tree [aria-selected=true]')");
    let nodes = count(page, ".browse-tree [role=treeitem]");
    assert!(nodes > 3 && count(page, ".browse-tree .browse-edge.browse-golden") > 0);
    assert!(count(page, ".browse-tree text") > 0, "rewards fell somewhere");
    page.click(".browse-tree [data-node='0']");
    page.until("document.querySelectorAll('.browse-stretch').length === 1");
    for key in ["ArrowRight", "ArrowRight", "ArrowLeft"] {
        page.key(key);
    }
    page.until("document.querySelectorAll('.browse-stretch').length === 2");
    page.key("End");
    let node = page.eval("document.activeElement.dataset.node");
    page.until(&format!("location.hash.endsWith('node={}')", node.as_str().unwrap()));
    page.reload();
    page.until("document.querySelector('.browse-tree [aria-selected=true]')");
    assert_eq!(page.eval("document.querySelector('.browse-tree [aria-selected=true]').dataset.node"), node);
}

fn shown_on_paper_and_in_the_dark(page: &Page, name: &str, print: bool) {
    page.go(&format!("browse?dialogue={name}&left=A.noisy.episodes"));
    shown(page, name);
    let light = |property: &str, of: &str| -> f64 {
        let drawn = format!(
            "(() => {{ const paper = document.createElement('canvas').getContext('2d'); paper.fillStyle = getComputedStyle({of}).{property};
               paper.fillRect(0, 0, 1, 1); return [...paper.getImageData(0, 0, 1, 1).data].slice(0, 3).reduce((a, b) => a + b) / 765; }})()"
        );
        page.eval(&drawn).as_f64().unwrap()
    };
    let (paper, ink) =
        (light("backgroundColor", "document.body"), light("color", "document.querySelector('.browse-said')"));
    assert!(if print { paper > 0.9 && ink < 0.3 } else { paper < 0.2 && ink > 0.7 }, "{print} {paper} {ink}");
    if print {
        let hidden = "['.browse-list', '.browse-search', '.browse-filters', '.tools'].every((one) => !document.querySelector(one)?.offsetParent)";
        assert_eq!(page.eval(hidden), true, "what cannot be used on paper is not printed");
        let whole = "(() => { const one = document.querySelector('.browse-shown'); return one.scrollHeight <= one.clientHeight; })()";
        assert_eq!(page.eval(whole), true, "the dialogue is printed whole");
        assert!(page.pdf().starts_with(b"%PDF"));
    }
    assert!(page.problems().is_empty());
}

fn phone(browser: &Browser, path: &Path, name: &str) {
    let page = Page::open(browser, path, "browse", Screen::PHONE);
    assert_eq!(status(&page), "1 000 dialogues");
    assert_eq!(page.eval("document.querySelector('.browse-right').offsetParent"), Value::Null, "one thing at a time");
    page.click(".browse-row[data-at='2']");
    page.until("document.querySelector('.browse-shown .browse-turns')?.offsetParent && document.activeElement.matches('.browse-back')");
    fine(&page, "on a phone");
    page.click(".browse-back");
    page.until(
        "document.querySelector('.browse-list').offsetParent && !document.querySelector('.browse-right').offsetParent",
    );
    page.go(&format!("browse?dialogue={name}&left=A.rule.episodes&right=A.noisy.episodes"));
    shown(&page, name);
    fine(&page, "on a phone, by a link");
}

/// What a dialogue may say to a page that is not careful.
const HOSTILE: &str = "</script><img src=x onerror=\"window.harmed = 1\"><script>window.harmed = 1</script><!-- ]]> {{data}} ${1} \u{2028} \u{0} &lt;b&gt;";

/// So many dialogues, made of real ones; one of them is hostile, one broken.
fn many(project: &Project, count: usize) {
    project.write("talks.yaml", &TALKS.replace("500", "100").replace("720", "150"));
    project.run(&["talks.yaml", "--upto", "noisy"]);
    let rows: Vec<EpisodeRow> = table::read(&project.result("talks.yaml", "noisy.episodes")).unwrap();
    let row = |number: usize| {
        let mut row = rows[number % rows.len()].clone();
        row.dialogue = format!("D{number:05}");
        let own = Message::user(format!("my number is {number}, and nobody else has it"));
        row.internal.push(own);
        if number == 70 {
            row.outcome = Outcome::Broken;
            row.reason = Some("the endpoint gave no answer".to_owned());
        }
        if number == 77 {
            row.dialogue = format!("D00077{HOSTILE}");
            let call = format!("APICALL {{\"name\": {0}, \"parameters\": {{{0}: {0}}}}} <COMMAND_END>", json!(HOSTILE));
            row.internal.push(Message::assistant(call));
            row.internal.push(Message::user(format!("APIRETURN {HOSTILE}")));
            row.internal.push(Message::new(Role::System, HOSTILE));
        }
        row
    };
    table::write(&project.path().join("many.parquet"), (0..count).map(row)).unwrap();
    project.write("many.yaml", MANY);
    project.run(&["many.yaml"]);
}

#[test]
fn ten_thousand_dialogues_and_one_that_means_harm() {
    let Some(browser) = Browser::start() else { return };
    let project = Project::new();
    many(&project, 10_000);
    let path = report(&project, &["many"]);
    let page = Page::open(&browser, &path, "", Screen::DESKTOP);
    assert_eq!(status(&page), "10 000 dialogues");
    page.eval("document.querySelector('.browse-list').focus()");
    for key in ["End", "PageUp", "Home", "PageDown"] {
        page.key(key);
        page.until("document.querySelector('.browse-row')");
        let rows = count(&page, ".browse-row");
        assert!((5..60).contains(&rows), "{rows} rows are in the document");
    }
    page.eval("document.querySelector('.browse-list').scrollTop = 250000");
    page.until("Number(document.querySelector('.browse-row').dataset.at) > 4000");
    assert!(count(&page, "*") < 3000, "the document stays small");
    assert_eq!(search(&page, "\"number is 9876,\""), "1 of 10 000 dialogues");
    page.click(".browse-row");
    shown(&page, "D09876");
    search(&page, "");
    choose(&page, "Outcome", "broken");
    assert_eq!(status(&page), "1 of 10 000 dialogues");
    page.click(".browse-row");
    let broken = shown(&page, "D00070");
    assert!(broken.contains("the endpoint gave no answer") && broken.contains("no reward"), "{broken}");
    page.click(".browse-clear");
    assert_eq!(search(&page, "\"</script><img\""), "1 of 10 000 dialogues");
    page.click(".browse-row");
    let hostile = shown(&page, &format!("D00077{HOSTILE}").replace('\0', "\u{0}"));
    assert!(hostile.matches("<img src=x onerror=").count() >= 4, "{hostile}");
    page.reload();
    page.until("document.querySelector('.browse-shown h3')");
    assert_eq!(page.eval("window.harmed ?? document.images.length"), 0);
    fine(&page, "with 10,000 dialogues");
    some_or_none(&browser, &project);
}

/// A page may hold a part of the dialogues, and says so.
fn some_or_none(browser: &Browser, project: &Project) {
    let page = Page::open(browser, &report(project, &["many", "--dialogues", "50"]), "", Screen::DESKTOP);
    assert_eq!(status(&page), "50 dialogues");
    let notice = page.eval("document.querySelector('.notice').textContent");
    assert!(notice.as_str().unwrap().replace('\u{202f}', " ").contains("50 of 10 000"), "{notice}");
    let path = report(project, &["many", "--dialogues", "none"]);
    let page = Page::open(browser, &path, "", Screen::DESKTOP);
    assert_eq!(page.eval("document.getElementById('browse')"), Value::Null);
    assert!(
        page.eval("document.body.innerText")
            .as_str()
            .unwrap()
            .contains("10000 dialogues and trees of these runs are left out")
    );
    assert!(page.problems().is_empty());
    let ran = project.thresh(&["report", "many", "--dialogues", "few"]);
    assert!(ran.code == Some(2) && ran.stderr.contains("expected `all`, `none` or a number"), "{}", ran.stderr);
}
