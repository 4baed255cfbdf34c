//! Policies of our own that call tools natively, and models that come from outside.

use thresh::chat::Role;
use thresh::dialogue::episode::{EpisodeRow, Outcome};
use thresh::table;

use crate::project::Project;

const NATIVE: &str = "name: p
stages:
  corpus: {kind: multiwoz.synthesize, with: {dialogues: 40, domains: [restaurant, hotel], seed: 3}}
  toolwoz: {kind: toolwoz.convert, in: {corpus: corpus.corpus}}
  demonstrations:
    kind: demonstrations.build
    in: {corpus: corpus.corpus, tasks: toolwoz.tasks, world: toolwoz.world}
    with: {tasks: {split: train}}
  words: {kind: tokenizer.train, in: {examples: demonstrations.examples}, with: {vocab_size: 500}}
  blank:
    kind: model.init
    in: {tokenizer: words.tokenizer}
    with: {family: qwen3, layers: 1, hidden_size: 16, heads: 2, kv_heads: 1, intermediate_size: 16, context: 1024, seed: 1}
  episodes:
    kind: dialogue.simulate
    in: {tasks: toolwoz.tasks, world: toolwoz.world, policy: blank.model}
    with:
      agent: {kind: policy, style: tools, max_tokens: 8}
      tasks: {split: test}
      seed: 1
";

#[test]
fn a_policy_of_our_own_may_call_tools_natively_and_come_from_outside() {
    let project = Project::new();
    project.write("p.yaml", NATIVE);
    assert_eq!(project.run(&["p.yaml"])["failed"].as_u64(), Some(0));
    let episodes: Vec<EpisodeRow> = table::read(&project.result("p.yaml", "episodes.episodes")).unwrap();
    assert!(!episodes.is_empty());
    for episode in &episodes {
        // It knows nothing yet, but every reply of it is one that the template can write again.
        assert_ne!(episode.outcome, Outcome::Broken, "{episode:?}");
        assert!(episode.internal.iter().any(|message| message.role == Role::Assistant));
    }

    let model = project.result("p.yaml", "blank.model");
    let import = format!(
        "name: p\nstages:\n  base:\n    kind: model.import\n    with: {{path: {}, date: 2025-01-02}}\n",
        model.display()
    );
    project.write("import.yaml", &import);
    assert_eq!(project.run(&["import.yaml"])["computed"], 1);
    assert_eq!(project.run(&["import.yaml"])["fresh"], 1);
    let imported = project.result("import.yaml", "base.model");
    let bytes = |folder: &std::path::Path, name: &str| std::fs::read(folder.join(name)).unwrap();
    assert_eq!(bytes(&imported, "model.safetensors"), bytes(&model, "model.safetensors"));
    assert!(String::from_utf8(bytes(&imported, "chat.json")).unwrap().contains("2025-01-02"));
    project.write("import.yaml", &import.replace("2025-01-02", "2025-02-30"));
    let ran = project.thresh(&["check", "import.yaml"]);
    assert_eq!(ran.code, Some(2));
    assert!(ran.stderr.contains("`2025-02-30` is no day; expected one like `2024-07-26`"), "{}", ran.stderr);
}
