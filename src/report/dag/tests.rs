//! Laws of the drawing, for any pipeline.

use proptest::prelude::*;

use super::layout::{Area, Layout, layout};
use super::*;

/// Stages `s0`, `s1` … with these connections.
pub fn dag(stages: usize, edges: &[(usize, usize)]) -> Dag {
    let stage = |index: usize| Stage {
        name: format!("s{index}"),
        kind: "family.verb".to_owned(),
        outcome: Some([Outcome::Computed, Outcome::Fresh, Outcome::Failed][index % 3]),
        seconds: Some(index as f64),
    };
    let read = |&(from, to): &(usize, usize)| (from, format!("port{}", to % 3), to, "in".to_owned());
    Dag::new("p", (0..stages).map(stage).collect(), edges.iter().map(read).collect())
}

/// Any pipeline: what reads comes behind what it reads.
fn any_dag() -> impl Strategy<Value = Dag> {
    (1_usize..40).prop_flat_map(|stages| {
        let edge = (0..stages, 0..stages).prop_map(|(one, other)| (one.min(other), one.max(other)));
        prop::collection::vec(edge, 0..3 * stages).prop_map(move |edges| dag(stages, &edges))
    })
}

fn apart(one: &Area, other: &Area) -> bool {
    let beside = one.x + one.width <= other.x || other.x + other.width <= one.x;
    beside || one.y + one.height <= other.y || other.y + other.height <= one.y
}

/// Everything that holds of every drawing.
fn check(dag: &Dag, Layout { width, height, boxes, outputs, lines }: &Layout) -> Result<(), TestCaseError> {
    prop_assert_eq!((boxes.len(), lines.len()), (dag.stages.len(), dag.edges.len()));
    for (at, one) in boxes.iter().enumerate() {
        prop_assert!(one.x >= 0.0 && one.y >= 0.0 && one.x + one.width <= *width && one.y + one.height <= *height);
        prop_assert!(boxes[at + 1..].iter().all(|other| apart(one, other)), "{boxes:?}");
    }
    for (edge, line) in dag.edges.iter().zip(lines) {
        let (from, to) = (&boxes[edge.from], &boxes[edge.to]);
        let (first, last) = (line.0.first().unwrap(), line.0.last().unwrap());
        prop_assert_eq!((first.top, last.bottom), (from.y + from.height, to.y));
        let leaves = (edge.from, edge.port.as_str(), first.x, first.top);
        let known = outputs.iter().any(|output| (output.stage, output.port.as_str(), output.x, output.y) == leaves);
        prop_assert!(known, "{leaves:?}");
        for (area, x) in [(from, first.x), (to, last.x)] {
            prop_assert!(area.x < x && x < area.x + area.width, "{x} {area:?}");
        }
        prop_assert!(line.0.iter().all(|piece| piece.top <= piece.bottom));
        prop_assert!(line.0.windows(2).all(|pair| pair[0].bottom < pair[1].top), "{line:?}");
        // Straight pieces touch no box but those that they join; between them there is none.
        for piece in &line.0 {
            for area in boxes {
                let beside = piece.x < area.x || area.x + area.width < piece.x;
                prop_assert!(
                    beside || piece.bottom <= area.y || area.y + area.height <= piece.top,
                    "{piece:?} {area:?}"
                );
            }
        }
        for pair in line.0.windows(2) {
            let between = |area: &Area| area.y < pair[1].top && pair[0].bottom < area.y + area.height;
            prop_assert!(!boxes.iter().any(between), "{pair:?}");
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, ..ProptestConfig::default() })]

    #[test]
    fn any_pipeline_is_drawn(dag in any_dag()) {
        check(&dag, &layout(&dag))?;
        let text = standalone(&dag);
        prop_assert_eq!(&text, &standalone(&dag.clone()));
        prop_assert_eq!(text.matches("class=\"dag-stage ").count(), dag.stages.len());
        prop_assert_eq!(text.matches("class=\"dag-edge\"").count(), dag.edges.len());
        prop_assert!(!text.contains("NaN") && !text.contains("inf") && !text.contains("var("));
    }
}

#[test]
fn wide_and_long_pipelines_are_drawn() {
    let fan = |many: usize| (1..=many).flat_map(|one| [(0, one), (one, many + 1)]).collect::<Vec<_>>();
    let chain = (1..300).map(|to| (to - 1, to)).collect::<Vec<_>>();
    let layers = (20..300).flat_map(|to| [(to - 20, to), (to - to % 20 - 20 + (to * 7) % 20, to)]).collect::<Vec<_>>();
    let all = [(1, vec![], 200.0), (302, fan(300), 7e3), (300, chain, 200.0), (300, layers, 9e3), (50, vec![], 2e3)];
    for (stages, edges, widest) in all {
        let dag = dag(stages, &edges);
        let layout = layout(&dag);
        check(&dag, &layout).unwrap();
        assert!(layout.width < widest, "{}", layout.width);
    }
    assert_eq!(layout(&dag(0, &[])).boxes, []);
}

#[test]
fn a_straight_line_stays_straight() {
    let drawn = layout(&dag(4, &[(0, 1), (1, 2), (2, 3)]));
    assert!(drawn.lines.iter().all(|line| line.0.iter().all(|piece| piece.x == line.0[0].x)), "{:?}", drawn.lines);
}

#[test]
fn names_cannot_break_the_drawing() {
    let mut dag = dag(2, &[(0, 1)]);
    dag.stages[0].name = "train[<a href=\"x\">&]\u{1}".to_owned();
    dag.stages[1].name = "long_".repeat(40);
    dag.edges[0].port = "<p>".to_owned();
    let text = standalone(&dag);
    assert!(
        text.contains("&lt;a href=&quot;x&quot;&gt;&amp;]\u{fffd}") && !text.contains("<a") && !text.contains("<p>")
    );
    assert!(text.contains("long_long") && text.contains("…</text>"));
    assert!(layout(&dag).boxes[1].width <= 260.0);
}

#[test]
fn an_output_read_twice_is_one_edge() {
    let read = |input: &str| (0, "rows".to_owned(), 1, input.to_owned());
    let stages = dag(2, &[]).stages;
    let dag = Dag::new(
        "p",
        stages,
        vec![read("a"), read("b"), (1, "x".to_owned(), 0, "c".to_owned()), (7, "x".to_owned(), 0, "d".to_owned())],
    );
    assert_eq!(dag.edges.len(), 1);
    assert_eq!(dag.edges[0].inputs, ["a", "b"]);
}
