//! What is planned for a text.

use std::collections::{BTreeMap, BTreeSet};

use super::tests::{numbered_text, resources, small_config};
use super::*;

#[test]
fn the_plan_depends_on_seed_text_and_configuration_only() {
    let config = small_config();
    let text = numbered_text(30);
    let plan = Plan::new(&config, &resources(&config, &text)).unwrap();
    assert_eq!(
        plan,
        Plan::new(&config, &resources(&config, &text)).unwrap()
    );
    let numbers: Vec<usize> = plan
        .batches
        .iter()
        .flat_map(|b| b.tasks.iter().map(|t| t.index))
        .collect();
    assert_eq!(numbers, (0..plan.num_tasks).collect::<Vec<_>>());
    assert!(plan.batches.iter().all(|b| b.tasks.len() <= 4));
    for change in [
        |c: &mut SelfStudyConfig| c.seed = 1,
        |c: &mut SelfStudyConfig| c.num_conversations = 21,
        |c: &mut SelfStudyConfig| c.coverage_share = 0.25,
        |c: &mut SelfStudyConfig| c.verbatim_stride = 11,
    ] {
        let mut other = small_config();
        change(&mut other);
        let other = Plan::new(&other, &resources(&other, &text)).unwrap();
        assert_ne!(other.sha256(), plan.sha256());
    }
}

#[test]
fn shares_are_kept() {
    let text = numbered_text(30);
    for (share, expected) in [(0.0, 0), (0.5, 10), (0.33, 7), (1.0, 20)] {
        let config = SelfStudyConfig {
            coverage_share: share,
            verbatim: false,
            ..small_config()
        };
        let plan = Plan::new(&config, &resources(&config, &text)).unwrap();
        assert_eq!(plan.num_tasks, 20);
        let coverage = plan
            .batches
            .iter()
            .flat_map(|b| &b.tasks)
            .filter(|t| t.seed_type == "coverage")
            .count();
        assert_eq!(coverage, expected);
    }
}

#[test]
fn every_sentence_is_asked_about_with_its_context_in_view() {
    let text = numbered_text(30);
    for num_conversations in [10, 30, 75] {
        let config = SelfStudyConfig {
            coverage_share: 1.0,
            verbatim: false,
            num_conversations,
            ..small_config()
        };
        let plan = Plan::new(&config, &resources(&config, &text)).unwrap();
        assert_eq!(plan.num_tasks, num_conversations);
        let mut asked: BTreeMap<usize, BTreeSet<&str>> = BTreeMap::new();
        for batch in &plan.batches {
            for task in &batch.tasks {
                for i in 0..30 {
                    let sentence =
                        format!("Gate number {i} is painted in colour {i}x by keeper {i}k.");
                    if task.prompt.contains(&sentence) {
                        assert!(batch.system_prompt.contains(&sentence));
                        assert!(
                            asked.entry(i).or_default().insert(&task.prompt),
                            "asked twice alike"
                        );
                    }
                }
            }
            assert!(batch.system_prompt.split_whitespace().count() <= 60 + 10);
        }
        assert_eq!(asked.len(), 30, "with {num_conversations} questions");
    }
}

#[test]
fn verbatim_pieces_cover_the_text_and_quote_what_stands_before() {
    let config = SelfStudyConfig {
        num_conversations: 0,
        verbatim_repeats: 2,
        ..small_config()
    };
    let text = numbered_text(30);
    let plan = Plan::new(&config, &resources(&config, &text)).unwrap();
    let mut covered = vec![0usize; text.len()];
    for batch in &plan.batches {
        for task in &batch.tasks {
            let TaskWork::Given {
                text: piece,
                token_ids,
                ..
            } = &task.work
            else {
                panic!("only pieces were planned");
            };
            assert!(token_ids.len() <= 16);
            assert_eq!(text.matches(piece.as_str()).count(), 1);
            let at = text.find(piece.as_str()).unwrap();
            covered[at..at + piece.len()]
                .iter_mut()
                .for_each(|c| *c += 1);
            assert!(batch.system_prompt.contains(piece.as_str()));
            assert!(!piece.starts_with(' '));
            if at == 0 {
                assert!(
                    task.prompt
                        .contains("\"Gate number 0 is painted in colour 0x\"")
                );
            } else {
                // The last words before the piece are quoted.
                let before: Vec<&str> = text[..at].split_whitespace().rev().take(2).collect();
                assert!(
                    task.prompt
                        .contains(&format!("{} {}", before[1], before[0])),
                    "{}",
                    task.prompt
                );
            }
            assert!(!task.prompt.contains("LEAD") && !task.prompt.contains("TITLE"));
        }
    }
    let trimmed = text.trim_end().len();
    let missed: Vec<usize> = (0..trimmed)
        .filter(|&i| covered[i] == 0 && !text.as_bytes()[i].is_ascii_whitespace())
        .collect();
    assert!(missed.is_empty(), "{missed:?}");
    assert!(covered[trimmed - 1] >= 2 && covered[trimmed / 2] >= 2);
}

#[test]
fn an_ambiguous_quotation_is_made_longer() {
    // The words before the second piece stand in the text three times; only more of them tell.
    let refrain = "and the bell was rung twice";
    let text = format!(
        "First came Ada {refrain} by day. Then came Bo {refrain} by night. Last came Cy {refrain} at noon."
    );
    let mut config = small_config();
    config.num_conversations = 0;
    config.verbatim_tokens = 4;
    config.verbatim_stride = 3;
    config.verbatim_lead_tokens = 3;
    config.verbatim_repeats = 1;
    let plan = Plan::new(&config, &resources(&config, &text)).unwrap();
    let task = plan
        .batches
        .iter()
        .flat_map(|b| &b.tasks)
        .find(|t| {
            matches!(&t.work, TaskWork::Given { text, .. } if text.starts_with("by night")
            || text.contains("twice by night"))
        })
        .unwrap();
    assert!(task.prompt.contains("Bo"), "{}", task.prompt);
}
