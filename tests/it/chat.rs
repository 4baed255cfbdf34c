//! `thresh chat`, its input a pipe.

use std::io::Write as _;
use std::process::Stdio;

use thresh::model::config::TokenIds;
use thresh::model::device::device;
use thresh::model::{Bundle, Decoder, ModelConfig, Tokenizer};

use crate::project::Project;

/// An untrained model, in `model/`.
fn project() -> Project {
    let project = Project::new();
    let tokenizer = Tokenizer::train(["I want italian food in the centre"; 20], 300).unwrap();
    let config = ModelConfig {
        hidden_size: 16,
        intermediate_size: 24,
        num_hidden_layers: 1,
        num_attention_heads: 2,
        vocab_size: tokenizer.vocab_size(),
        max_position_embeddings: 64,
        tie_word_embeddings: true,
        eos_token_id: tokenizer.token("<|end|>").map(TokenIds::One),
        ..ModelConfig::default()
    };
    let decoder = Decoder::init(&config, 3, &device("cpu").unwrap()).unwrap();
    Bundle { decoder, tokenizer }.save(&project.path().join("model")).unwrap();
    project
}

/// Exit code, standard output and standard error of a chat.
fn chat(project: &Project, arguments: &[&str], input: &str) -> (Option<i32>, String, String) {
    let mut all = vec!["chat"];
    all.extend(arguments);
    let mut command = project.command(&all);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    // The command may end before it has read all.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    let output = child.wait_with_output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

#[test]
fn replies_come_on_standard_output_and_the_same_seed_gives_the_same() {
    let project = project();
    let arguments = ["model", "--max-tokens", "6", "--seed", "4", "--system", "Help."];
    let (code, first, said) = chat(&project, &arguments, "food\n\nin the centre\n/exit\nnever read\n");
    assert_eq!((code, said.as_str()), (Some(0), ""));
    assert!(first.ends_with('\n') && first.matches('\n').count() >= 2, "{first:?}");
    assert_eq!(chat(&project, &arguments, "food\nin the centre").1, first);
    // Greedy replies depend on nothing but what was said: forgotten, it is as if it never had been.
    let greedy = ["model", "--max-tokens", "6", "--temperature", "0"];
    let once = chat(&project, &greedy, "food\n").1;
    assert_eq!(chat(&project, &greedy, "food\n/reset\nfood\n").1, once.repeat(2));
}

#[test]
fn what_cannot_be_is_said() {
    let project = project();
    let (code, _, said) = chat(&project, &["model", "--max-tokens", "4"], &"food ".repeat(90));
    assert_eq!(code, Some(1));
    assert!(said.contains("tokens, the model's context 64; /reset begins anew"), "{said}");
    let (code, _, said) = chat(&project, &["nothing"], "");
    assert_eq!((code, said.contains("`nothing` is not there")), (Some(2), true), "{said}");
    let (code, _, said) = chat(&project, &["model", "--top-p", "2"], "");
    assert_eq!((code, said.contains("`--top-p` must lie between 0 and 1")), (Some(2), true), "{said}");
    let (code, _, said) = chat(&project, &["http://127.0.0.1:1/v1"], "hi\n");
    assert_eq!((code, said.contains("did not answer")), (Some(1), true), "{said}");
    project.write("model/tokenizer_config.json", "{}");
    let (code, _, said) = chat(&project, &["model"], "hi\n");
    assert_eq!((code, said.contains("the model has no chat template")), (Some(1), true), "{said}");
}
