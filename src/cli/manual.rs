//! What the help, the man pages and the book say of a command beyond its arguments: examples and exit codes. The only source.

use clap::Command;

/// An example: the command line, and what it does.
pub(super) type Example = (&'static str, &'static str);

/// A group of `thresh --help`: its title and its commands.
pub(super) type Group = (&'static str, &'static [&'static str]);

/// The commands in the order in which one meets them. What is not built in is left out.
pub(super) const GROUPS: &[Group] = &[
    ("Begin", &["init", "check", "graph", "kinds", "doctor"]),
    ("Run", &["plan", "run", "why"]),
    ("Look at runs and results", &["runs", "tag", "note", "log", "show", "sql", "view", "path"]),
    ("Compare and pass on", &["compare", "report", "export"]),
    ("Work with models", &["model", "chat", "serve"]),
    ("Keep the store small", &["gc", "pin"]),
    ("Set up shell and editor", &["completions", "man", "schema"]),
];

/// Environment variables that matter to every command.
pub(super) const ENVIRONMENT: &[(&str, &str)] = &[
    ("NO_COLOR", "No colour, whatever the terminal can do. Into a pipe or a file there is none anyway."),
    ("CLICOLOR_FORCE", "Colour even into a pipe, as for `less -R`."),
    ("XDG_CACHE_HOME", "Outside of a project, kernels compiled for CUDA are kept in its folder `thresh/cuda`."),
    ("CUDA_PATH, CUDA_HOME", "Where CUDA's libraries are looked for besides the usual places."),
];

/// Files that matter to every command.
pub(super) const FILES: &[(&str, &str)] = &[
    (
        "thresh.toml",
        "Marks a project's folder and says where stages run: store, jobs, pools, device, endpoints, profiles.",
    ),
    (
        ".thresh/results",
        "Results by the fingerprint of what they depend on: Parquet files and folders, and a manifest.",
    ),
    (".thresh/runs", "A record of each run, and the logs of its stages."),
    (".thresh/rows", "Journals of finished rows, from which interrupted stages go on."),
    (".thresh/work", "What is being computed, and what killed runs left to go on from."),
    (".thresh/pins", "The runs that `thresh gc` never removes."),
];

/// The exit codes of a command: `name` is its path without `thresh`, as in `model inspect`.
pub(super) fn exit_codes(name: &str) -> Vec<(u8, &'static str)> {
    let done = match name {
        "check" => "the pipeline is right",
        "doctor" => "everything that a run needs works",
        _ => "done",
    };
    let failed = match name {
        "run" => "a stage failed",
        "compare" => "a gate of --fail-if was crossed, or a result is missing",
        "doctor" => "something is wrong; what to do is said",
        "show" | "path" | "export" | "view" | "sql" | "report" => "a result is missing or damaged",
        _ => "something failed on the way, such as a disk",
    };
    let wrong = match name {
        "check" => "the pipeline, thresh.toml or the command is wrong",
        "plan" | "run" | "why" | "graph" | "path" | "export" | "show" => {
            "the pipeline, thresh.toml or the command is wrong; nothing was done"
        }
        _ => "the command or thresh.toml is wrong; nothing was done",
    };
    let mut codes = vec![(0, done), (1, failed), (2, wrong)];
    if name == "run" {
        codes.push((130, "stopped by ctrl-c or SIGTERM; the next run goes on from there"));
    }
    codes
}

/// The examples of a command, by its path without `thresh`.
pub(super) fn examples(name: &str) -> &'static [Example] {
    EXAMPLES.iter().find(|(command, _)| *command == name).map_or(&[], |(_, examples)| examples)
}

/// The exit codes and examples of a command, as they stand below its options.
pub(super) fn after_help(name: &str) -> String {
    let mut text = String::new();
    for (index, (line, what)) in examples(name).iter().enumerate() {
        text.push_str(if index == 0 { "Examples:\n" } else { "" });
        text.push_str(&format!("  {line}\n      {what}\n"));
    }
    text.push_str(if text.is_empty() { "Exit codes:\n" } else { "\nExit codes:\n" });
    for (code, meaning) in exit_codes(name) {
        text.push_str(&format!("  {code:<4} {meaning}\n"));
    }
    text.trim_end().to_owned()
}

/// Environment variables and files, as they stand below `thresh --help`.
pub(super) fn surroundings() -> String {
    let section = |title: &str, entries: &[(&str, &str)]| {
        let lines = entries.iter().map(|(name, text)| format!("  {name}\n          {text}\n"));
        format!("{title}:\n{}", lines.collect::<String>())
    };
    format!("{}\n{}", section("Environment variables", ENVIRONMENT), section("Files", FILES)).trim_end().to_owned()
}

/// The commands that are not hidden, those inside others too, each with its path without `thresh`.
pub fn commands(root: &Command) -> Vec<(String, &Command)> {
    let mut found = Vec::new();
    let mut open: Vec<(String, &Command)> =
        root.get_subcommands().map(|one| (one.get_name().to_owned(), one)).collect();
    open.reverse();
    while let Some((name, command)) = open.pop() {
        if command.is_hide_set() || command.get_name() == "help" {
            continue;
        }
        let inner = command.get_subcommands().map(|one| (format!("{name} {}", one.get_name()), one));
        open.extend(inner.collect::<Vec<_>>().into_iter().rev());
        found.push((name, command));
    }
    found
}

const EXAMPLES: &[(&str, &[Example])] = &[
    (
        "init",
        &[
            ("thresh init my-agent", "write a commented starter project into the new folder my-agent"),
            ("thresh init", "the same into the folder where one is"),
        ],
    ),
    (
        "view",
        &[
            ("thresh view base_episodes.episodes", "list the dialogues of a table with outcome, reward and goals"),
            (
                "thresh view base_episodes.episodes --outcome failure --find hotel",
                "those that failed and speak of a hotel",
            ),
            (
                "thresh view base_episodes.episodes SYN000004",
                "one dialogue: plan, calls, what they returned, goals reached",
            ),
            ("thresh view base_episodes josh_episodes", "the dialogues that came out otherwise in another table"),
            (
                "thresh view base_episodes josh_episodes SYN000004",
                "one dialogue of both side by side, and where they part",
            ),
            (
                "thresh view harvest.trees SYN001433 --branch golden",
                "of a tree the dialogue that the search went on from",
            ),
            (
                "thresh view harvest.trees SYN001433 --depth 3",
                "a tree: its branches, where rewards fell, the golden path",
            ),
        ],
    ),
    (
        "check",
        &[
            ("thresh check pipelines/quickstart.yaml", "show every mistake of the file, each with its place"),
            ("thresh check pipelines/josh.yaml --set harvest.beam=16", "the same with one value changed"),
            ("thresh check pipelines/josh.yaml --json", "mistakes as JSON, for editors and CI"),
        ],
    ),
    (
        "graph",
        &[
            ("thresh graph pipelines/josh.yaml", "one line a stage: its kind and what it reads"),
            ("thresh graph pipelines/josh.yaml --format mermaid", "for a README"),
            ("thresh graph latest --format svg -o run.svg", "the newest run as a picture: what became of each stage"),
        ],
    ),
    (
        "kinds",
        &[
            ("thresh kinds", "what stages there are"),
            ("thresh kinds josh.harvest", "ports, parameters with defaults, and an example of one"),
        ],
    ),
    (
        "doctor",
        &[
            ("thresh doctor", "store, profile, device and every endpoint"),
            ("thresh doctor --offline", "the same without asking a server"),
            ("thresh doctor --endpoint gpt-4o", "what one endpoint can do: seeds, tools, log-probabilities, usage"),
        ],
    ),
    (
        "plan",
        &[
            ("thresh plan pipelines/quickstart.yaml", "which stages would run, and why"),
            ("thresh plan pipelines/quickstart.yaml --set params.seed=21", "what one changed value would cost"),
        ],
    ),
    (
        "run",
        &[
            ("thresh run pipelines/quickstart.yaml", "compute what is missing"),
            ("thresh run pipelines/quickstart.yaml --set harvest.beam=16", "with one value changed"),
            ("thresh run pipelines/quickstart.yaml --set params.seed=1,2,3", "three seeds; what is common runs once"),
            ("thresh run pipelines/quickstart.yaml --upto harvest", "no further than one stage"),
            ("thresh run pipelines/josh.yaml --retry-broken", "again only those rows for which a model did not answer"),
        ],
    ),
    (
        "why",
        &[
            ("thresh why pipelines/quickstart.yaml", "every stage that would run of itself, and why"),
            ("thresh why pipelines/quickstart.yaml josh_kto", "the first cause upstream, with old and new values"),
        ],
    ),
    (
        "runs",
        &[
            ("thresh runs", "all runs of the project, the newest first"),
            (
                "thresh runs quickstart --since \"2 d\" --outcome done",
                "those of one pipeline, of the last days, that succeeded",
            ),
            ("thresh runs --where harvest.beam=8 --sort kto_scores.success", "by a parameter, the best first"),
        ],
    ),
    (
        "tag",
        &[
            ("thresh tag latest baseline", "call the newest run `baseline` from now on"),
            ("thresh tag josh~1 baseline --move", "the run before instead, and no other"),
        ],
    ),
    ("note", &[("thresh note baseline \"beam 8, before the new prompt\"", "what one wants to know of it later")]),
    (
        "log",
        &[
            ("thresh log", "what the newest run did: times, memory, figures, warnings"),
            ("thresh log latest~1 harvest", "what a stage and its programs said in the run before"),
        ],
    ),
    (
        "show",
        &[
            ("thresh show latest.harvest.trees", "columns and first rows of a table of the newest run"),
            ("thresh show harvest.trees --rows 100 --json", "a hundred rows as JSON, of the newest run that has them"),
            (
                "thresh show josh~1.harvest.trees --columns dialogue,hits,messages",
                "some columns, of the last run but one of `josh`",
            ),
            ("thresh show .thresh/table.parquet", "any Parquet file"),
        ],
    ),
    (
        "sql",
        &[
            (
                "thresh sql \"select outcome, count(*) as n from latest.base.scores group by outcome\"",
                "SQL over any tables of any runs",
            ),
            (
                "thresh sql \"select dialogue, a.reward, b.reward as now from latest~1.base.scores a join base.scores b using (dialogue)\"",
                "one stage in two runs, side by side",
            ),
            (
                "thresh sql \"select dialogue, call.api from base.episodes cross join unnest(calls) as call\" -o calls.csv",
                "what stands within a table, as CSV",
            ),
            (
                "thresh sql \"select run, stage, seconds from stages order by seconds desc limit 10\"",
                "what took longest",
            ),
        ],
    ),
    (
        "path",
        &[
            ("thresh path pipelines/quickstart.yaml harvest.trees", "where the Parquet file lies"),
            (
                "thresh serve \"$(thresh path pipelines/quickstart.yaml josh_kto.model)\"",
                "hand a result to another command",
            ),
        ],
    ),
    (
        "compare",
        &[
            ("thresh compare latest~1 latest", "the newest run against the one before"),
            (
                "thresh compare josh.base_scores josh.kto_scores --flips",
                "two arms of one run, every dialogue that flipped",
            ),
            ("thresh compare \"scores[arm=base]\" \"scores[arm=kto]\"", "arms of a matrix; its seeds are replicates"),
            (
                "thresh compare base=josh.base_scores kto=josh.kto_scores --format scores -o scores.parquet",
                "the scores themselves, to be kept or committed",
            ),
            ("thresh compare scores.parquet:base scores.parquet:kto", "arms of such a file; no store is needed"),
            ("thresh compare baseline~* kto~*", "all runs of one tag against all of another"),
            ("thresh compare baseline latest --fail-if \"success < -0.02 and p < 0.05\"", "a gate for CI: exit code 1"),
        ],
    ),
    (
        "report",
        &[
            ("thresh report latest", "one page about the newest run: report.html"),
            ("thresh report latest~1 latest -o compared.html", "two runs side by side, in a file of another name"),
            ("thresh report quickstart --dialogues none", "without the dialogues: a small page"),
        ],
    ),
    (
        "report",
        &[
            ("thresh report", "the newest run, as report.html"),
            ("thresh report latest~1 latest -o changed.html", "two runs beside each other"),
        ],
    ),
    (
        "export",
        &[
            ("thresh export pipelines/josh.yaml --to out", "every result there is, as Parquet"),
            ("thresh export pipelines/josh.yaml harvest.trees --to out --format jsonl", "one table, an object a row"),
            ("thresh export pipelines/josh.yaml --to out --format trl", "training examples as TRL reads them"),
            ("thresh export latest.harvest.trees --to out", "one table of the newest run that has it"),
            ("thresh export latest --to logs --format tensorboard", "training logs, for `tensorboard --logdir logs`"),
        ],
    ),
    (
        "model inspect",
        &[("thresh model inspect models/smollm2.gguf", "family, size, number formats, vocabulary, layers")],
    ),
    (
        "model logits",
        &[("thresh model logits models/smollm2.gguf --tokens 1,5,9", "the ten likeliest tokens to follow these")],
    ),
    (
        "model convert",
        &[(
            "thresh model convert models/smollm2.gguf out --dtype bf16",
            "a folder that transformers, vLLM and llama.cpp's converter load",
        )],
    ),
    (
        "chat",
        &[
            ("thresh chat models/smollm2.gguf --temperature 0", "talk to a model of a file"),
            ("thresh chat http://localhost:8000/v1 --name small", "or to one behind an address"),
        ],
    ),
    (
        "serve",
        &[("thresh serve models/smollm2 --port 8080 --name small", "at http://127.0.0.1:8080/v1, as OpenAI's API")],
    ),
    (
        "gc",
        &[
            ("thresh gc --dry-run", "what no run needs any more, with sizes; nothing is removed"),
            ("thresh gc --older-than 30d --keep 5", "let old runs go, but never the five newest of a pipeline"),
        ],
    ),
    (
        "pin",
        &[("thresh pin latest", "keep the newest run for good"), ("thresh pin latest --remove", "let it go again")],
    ),
    (
        "completions",
        &[
            (
                "thresh completions bash > ~/.local/share/bash-completion/completions/thresh",
                "for bash, from the next shell on",
            ),
            ("thresh completions zsh > ~/.zfunc/_thresh", "for zsh, where ~/.zfunc stands in $fpath"),
            ("thresh completions fish > ~/.config/fish/completions/thresh.fish", "for fish"),
        ],
    ),
    (
        "man",
        &[
            ("thresh man run | man -l -", "read the page of one command"),
            ("thresh man --out ~/.local/share/man/man1", "install all pages: `man thresh-run`"),
        ],
    ),
    (
        "schema",
        &[
            ("thresh schema", "the JSON Schema of pipelines, for editors"),
            ("thresh schema --out schemas", "that and one of each table, as files"),
        ],
    ),
];
