//! `thresh completions`: what shells need to complete commands, options, and the names of pipelines, runs and stages.

use std::fmt::Write as _;
use std::io::Write as _;

use clap::Args;
use clap_complete::{Shell, generate};
use serde_json::json;

use super::{Common, Outcome, command, commands, names, say_json};

#[derive(Args)]
pub(super) struct CompletionsArgs {
    /// The shell.
    shell: Shell,
}

/// Asks [`names`] first, and the generated function where that knows nothing.
const BASH: &str = r#"
_thresh_names() {
    local name
    COMPREPLY=()
    while IFS= read -r name; do
        COMPREPLY+=("$(printf %q "$name")")
    done < <("$1" __complete -- "${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null)
    [[ ${#COMPREPLY[@]} -gt 0 ]] || _thresh "$@"
}

complete -F _thresh_names -o nosort -o bashdefault -o default thresh
"#;

/// The same for zsh, in place of the generated function of this name.
const ZSH: &str = r#"_thresh() {
    local -a names
    names=("${(@f)$("${words[1]}" __complete -- "${(@Q)words[2,CURRENT]}" 2>/dev/null)}")
    names=("${(@)names:#}")
    if (( $#names )); then
        compadd -a names
    else
        _thresh_generated "$@"
    fi
}

"#;

const FISH: &str = r#"
function __thresh_names
    set -l words (commandline -opc) (commandline -ct)
    $words[1] __complete -- $words[2..] 2>/dev/null
end

complete -c thresh -a '(__thresh_names)'
"#;

pub(super) fn run(args: &CompletionsArgs, common: &Common) -> Outcome {
    let script = script(args.shell);
    if common.json {
        return say_json(&json!({"shell": args.shell.to_string(), "script": script}));
    }
    Ok(std::io::stdout().lock().write_all(script.as_bytes())?)
}

fn script(shell: Shell) -> String {
    let mut text = Vec::new();
    generate(shell, &mut command(), "thresh", &mut text);
    let text = String::from_utf8_lossy(&text).into_owned();
    match shell {
        Shell::Bash => text + BASH,
        Shell::Zsh => {
            let begin = "if [ \"$funcstack[1]\" = \"_thresh\" ]";
            text.replacen("\n_thresh() {", "\n_thresh_generated() {", 1).replacen(begin, &format!("{ZSH}{begin}"), 1)
        }
        Shell::Fish => text + FISH + &fish_options(),
        _ => text,
    }
}

/// Fish asks for the values of an option only where the option says so.
fn fish_options() -> String {
    let mut text = String::new();
    for (name, one) in commands(&command()) {
        for option in one.get_opts().filter(|option| names::known(&name, option.get_id().as_str())) {
            if let Some(long) = option.get_long() {
                let at = format!("__fish_thresh_using_subcommand {name}");
                let _ = writeln!(text, "complete -c thresh -n \"{at}\" -l {long} -r -f -a '(__thresh_names)'");
            }
        }
    }
    text
}
