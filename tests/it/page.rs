//! `thresh report` without a browser: what is in the file, for good runs and for others.

use serde_json::Value;

use super::project::Project;

/// A pipeline without models: the rules' agent over a synthetic town.
const RULES: &str = "name: rules
stages:
  corpus: {kind: multiwoz.synthesize, with: {dialogues: 40, seed: 3}}
  toolwoz: {kind: toolwoz.convert, in: {corpus: corpus.corpus}}
  episodes:
    kind: dialogue.simulate
    in: {tasks: toolwoz.tasks, world: toolwoz.world}
    with: {agent: {kind: rule, noise: 0.5}, tasks: {split: test}, seed: 1}
  scores: {kind: eval.toolwoz, in: {episodes: episodes.episodes}}
";

/// The small data of a section.
fn data(page: &str, section: &str) -> Value {
    let begin = format!("<script type=\"application/json\" id=\"data-{section}\">");
    let rest = page.split_once(&begin).unwrap_or_else(|| panic!("no data of `{section}`")).1;
    serde_json::from_str(rest.split_once("</script>").unwrap().0).unwrap()
}

fn sections(page: &str) -> Vec<String> {
    let sections = data(page, "page")["sections"].clone();
    sections.as_array().unwrap().iter().map(|section| section["id"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn a_page_is_the_same_each_time_and_fetches_nothing() {
    let project = Project::new();
    project.write("rules.yaml", RULES);
    project.run(&["rules.yaml"]);
    let said = project.ok(&["report", "rules", "--output", "a.html", "--dialogues", "none", "--json"]);
    let said: Value = serde_json::from_str(&said).unwrap();
    project.ok(&["report", "latest", "-o", "b.html", "--dialogues", "none"]);
    let page = std::fs::read_to_string(project.path().join("a.html")).unwrap();
    assert_eq!(page, std::fs::read_to_string(project.path().join("b.html")).unwrap());
    assert_eq!(page, project.ok(&["report", "--output", "-", "--dialogues", "none"]));
    assert_eq!((said["file"].as_str(), said["bytes"].as_u64()), (Some("a.html"), Some(page.len() as u64)));
    assert!(page.len() < 150_000, "{}", page.len());
    let rest = page.replace("http://www.w3.org/2000/svg", "");
    for forbidden in ["http:", "https:", "src=\"", "@import", "{{"] {
        assert!(!rest.contains(forbidden), "{forbidden}");
    }
    assert!(page.contains("default-src 'none'"));
    let found = sections(&page);
    for section in ["runs", "stages", "timeline", "rewards"] {
        assert!(found.iter().any(|one| one == section), "{section} is not in {found:?}");
        assert!(page.contains(&format!("<section id=\"{section}\"")) && page.contains(&format!("href=\"#{section}\"")));
    }
    // No training, no learning curves.
    assert!(!found.iter().any(|section| section == "curves"));
}

#[test]
fn the_data_is_what_the_run_did() {
    let project = Project::new();
    project.write("rules.yaml", RULES);
    project.run(&["rules.yaml"]);
    project.run(&["rules.yaml", "--set", "episodes.seed=2"]);
    let page = project.ok(&["report", "rules~1", "rules", "-o", "-", "--dialogues", "none"]);
    let runs = data(&page, "page")["runs"].clone();
    assert_eq!((runs[0]["letter"].as_str(), runs[1]["letter"].as_str()), (Some("A"), Some("B")));
    assert_eq!(runs[1]["set"][0], "episodes.seed=2");
    let stages = data(&page, "stages");
    let stage = |run: usize, name: &str| {
        let all = stages[run].as_array().unwrap();
        all.iter().find(|stage| stage["name"] == name).unwrap().clone()
    };
    let (first, second) = (stage(0, "episodes"), stage(1, "episodes"));
    assert_eq!((first["outcome"].as_str(), second["outcome"].as_str()), (Some("computed"), Some("computed")));
    assert_eq!(stage(1, "toolwoz")["by"], runs[0]["run"]);
    assert!(stage(1, "toolwoz").get("attempts").is_none());
    let (corpus, attempt) = (stage(0, "corpus")["attempts"][0].clone(), first["attempts"][0].clone());
    let end = corpus["began"].as_f64().unwrap() + corpus["seconds"].as_f64().unwrap();
    assert!(attempt["began"].as_f64().unwrap() >= end, "{corpus} {attempt}");
    let rewards = data(&page, "rewards");
    assert_eq!(rewards.as_array().unwrap().len(), 2);
    for table in rewards.as_array().unwrap() {
        let number = |name: &str| table[name].as_u64().unwrap();
        let in_bins: u64 = table["bins"].as_array().unwrap().iter().map(|bin| bin.as_u64().unwrap()).sum();
        assert_eq!(number("dialogues"), number("success") + number("failure") + number("broken"));
        assert_eq!(in_bins, number("success") + number("failure"));
        // The last bin holds those that reached everything.
        assert_eq!(table["bins"][10].as_u64().unwrap(), number("success"));
        assert!(number("failure") > 0);
    }
    compared(&data(&page, "comparison")[0], &rewards);
}

/// The comparison of the two runs says the same as their tables of scores, and where to find each dialogue that flipped.
fn compared(group: &Value, rewards: &Value) {
    assert_eq!(group["title"], "Runs", "{group}");
    let found = &group["comparison"];
    assert_eq!((&found["arms"][0]["name"], &found["arms"][1]["name"]), (&Value::from("A"), &Value::from("B")));
    let metric = found["metrics"].as_array().unwrap().iter().find(|metric| metric["name"] == "success").unwrap();
    for (arm, table) in rewards.as_array().unwrap().iter().enumerate() {
        let share = table["success"].as_f64().unwrap() / table["dialogues"].as_f64().unwrap();
        assert!((metric["values"][arm]["mean"].as_f64().unwrap() - share).abs() < 1e-5, "{metric}");
    }
    let flips = &found["flips"][0];
    let number = |name: &str| flips[name].as_i64().unwrap();
    let successes = |table: usize| rewards[table]["success"].as_i64().unwrap();
    assert_eq!(number("gained") - number("lost"), successes(1) - successes(0));
    assert_eq!(flips["dialogues"].as_array().unwrap().len() as i64, number("gained") + number("lost"));
    assert_eq!(group["episodes"][0][0]["tables"]["scores"], "A.episodes.episodes");
    assert_eq!(group["episodes"][1][0]["tables"]["scores"], "B.episodes.episodes");
}

#[test]
fn runs_that_failed_and_results_that_are_gone_are_told() {
    let project = Project::new();
    let pipeline = r#"
name: fails
stages:
  a:
    kind: command.run
    with:
      command: "echo '</script><b>' >&2; exit 3"
      outputs: {n: {path: n.txt}}
"#;
    project.write("fails.yaml", pipeline);
    assert_eq!(project.thresh(&["run", "fails.yaml"]).code, Some(1));
    let page = project.ok(&["report", "fails", "-o", "-"]);
    assert!(page.contains("has no results"), "{page}");
    let stage = data(&page, "stages")[0][0].clone();
    assert_eq!(stage["outcome"], "failed");
    assert!(stage["error"].as_str().unwrap().contains("</script><b>"), "{stage}");
    assert!(!page.contains("</script><b>"));

    project.write("rules.yaml", RULES);
    project.run(&["rules.yaml"]);
    let scores = project.result("rules.yaml", "scores.scores");
    let mut bytes = std::fs::read(&scores).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&scores, &bytes).unwrap();
    let page = project.ok(&["report", "rules", "-o", "-", "--dialogues", "none"]);
    assert!(page.contains("The result of scores in run") && page.contains("is damaged and left out"));
    assert!(!sections(&page).iter().any(|section| section == "rewards"));
    std::fs::remove_dir_all(scores.parent().unwrap()).unwrap();
    let page = project.ok(&["report", "rules", "-o", "-", "--dialogues", "none"]);
    assert!(page.contains("is no longer in the store"));
}

#[test]
fn what_is_no_run_is_an_error_of_the_command() {
    let project = Project::new();
    let ran = project.thresh(&["report", "nothing"]);
    assert_eq!(ran.code, Some(2), "{}", ran.stderr);
    assert!(ran.stderr.contains("there is no run `nothing`"), "{}", ran.stderr);
    let ran = project.thresh(&["report", "--dialogues", "few"]);
    assert_eq!(ran.code, Some(2));
    assert!(ran.stderr.contains("expected `all`, `none` or a number"), "{}", ran.stderr);
    assert!(!project.path().join("report.html").exists());
}
