//! The modes and quirks as a page: `docs/src/reference/compat.md` is what this writes.

use super::quirk::{Modes, Quirk};

/// A kind of stage and the quirks that it asks about, part by part.
pub type Asking<'a> = (&'a str, &'a [&'a [Quirk]]);

const HEAD: &str = "\
# Modes and quirks

This page is written by the code (`src/compat/`): `make schemas` writes it anew, and a test holds it to that.

The authors' program exists in three states that behave differently, and each has faults that show in results. Stages that
touch such a place have two parameters:

```yaml
with: {compat: repo-head, quirks: {Q5: fixed, Q12: fixed}}
```

`compat` says whose behaviour is kept; `quirks` names single quirks that another mode decides. A quirk that a stage does not ask
about is an error, so that no setting is without effect unnoticed. Give all stages of an experiment the same `compat`: the
environment that a task was converted for should be the one that it is played in.

| mode | what it is |
|---|---|
| `paper` | the code that made the published trees: SQLite records, failing alternatives deleted |
| `repo-head` | the repository of October 2024: JSON records, nothing deleted |
| `pypi-0.1.4` | the package `josh-train` 0.1.4; its environment is that of `repo-head` |
| `fixed` | ours, and the default: the quirks mended |

Some differences between the modes are no quirks and go with `compat` alone. In `paper`, records are those of the SQLite tables
where these differ from the JSON files (`ask` for `ask restaurant`, `meze bar restaurant` for `meze bar`); a round of the
search is one reply, which earns only where the agent does not speak, and is kept as it was generated; a path has at most 10 agent
turns instead of 15; the same example may be recorded twice. In `repo-head` and `pypi-0.1.4`, `data.sft` shuffles as Python's
`random.Random(42)` does.

What agents, prompts and training do besides is the same in every mode: `Q25` to `Q27` and `Q31` to `Q35` are mended or do not
arise, and no mode brings them back.
";

/// The whole page.
pub fn document(asking: &[Asking]) -> String {
    let mut page = HEAD.to_owned();
    page.push_str("\n## All quirks\n\n| quirk | what it is | can be switched in |\n|---|---|---|\n");
    for quirk in Quirk::ALL {
        let stages = stages(*quirk, asking);
        let stages = if stages.is_empty() { "-".to_owned() } else { stages };
        page.push_str(&format!("| {} | {} | {stages} |\n", quirk.name(), quirk.entry().title));
    }
    Quirk::ALL.iter().for_each(|quirk| section(*quirk, asking, &mut page));
    page
}

/// The stages that ask about a quirk.
fn stages(quirk: Quirk, asking: &[Asking]) -> String {
    let asks = |(_, parts): &&Asking| parts.iter().copied().flatten().any(|asked| *asked == quirk);
    asking.iter().filter(asks).map(|(kind, _)| format!("`{kind}`")).collect::<Vec<_>>().join(", ")
}

fn section(quirk: Quirk, asking: &[Asking], page: &mut String) {
    let entry = quirk.entry();
    page.push_str(&format!("\n### {}: {}\n\n{}\n", quirk.name(), entry.title, entry.what));
    match entry.modes {
        Modes::Always(text) => page.push_str(&format!("\n{text}\n")),
        Modes::Switched { paper, repo_head, pypi, fixed } => {
            page.push_str("\n| mode | behaviour |\n|---|---|\n");
            for (mode, text) in [("paper", paper), ("repo-head", repo_head), ("pypi-0.1.4", pypi), ("fixed", fixed)] {
                page.push_str(&format!("| `{mode}` | {text} |\n"));
            }
            page.push_str(&format!("\nAsked about by {}.\n", stages(quirk, asking)));
        }
    }
}
