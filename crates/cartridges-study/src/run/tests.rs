use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use super::*;
use crate::parquet::read_conversations;
use crate::self_study::SelfStudyConfig;
use crate::self_study::tests::{MockClient, numbered_text, resources, small_config};

mod servers;

fn open(folder: &Path, config: &SelfStudyConfig) -> Result<SynthesisRun, RunError> {
    let resources = resources(config, &numbered_text(30));
    SynthesisRun::open(folder, config.clone(), &resources, "mock")
}

fn run(
    folder: &Path,
    config: &SelfStudyConfig,
    client: &mut MockClient,
) -> Result<Outcome, RunError> {
    open(folder, config)?.run(client, &AtomicBool::new(false), &mut |_| {})
}

fn client() -> MockClient {
    MockClient {
        empty_if: Some(|r| r.seed % 7 == 0),
        ..MockClient::default()
    }
}

fn dataset(folder: &Path) -> Vec<u8> {
    std::fs::read(folder.join("dataset.parquet")).unwrap()
}

/// Runs until `steps` steps are done, then raises the flag.
fn run_steps(folder: &Path, config: &SelfStudyConfig, steps: usize) -> Outcome {
    let stop = AtomicBool::new(false);
    let mut between = 0;
    open(folder, config)
        .unwrap()
        .run(&mut client(), &stop, &mut |p| {
            if p.step_total == 0 {
                // The first report comes before the first step.
                if between == steps {
                    stop.store(true, Ordering::Relaxed);
                }
                between += 1;
            }
        })
        .unwrap()
}

#[test]
fn stopping_at_any_batch_gives_the_same_data_set() {
    // Small, since every batch is a stop.
    let mut config = small_config();
    config.num_conversations = 12;
    config.verbatim_repeats = 1;
    config.verbatim_tokens = 40;
    config.verbatim_stride = 36;
    let whole = tempfile::tempdir().unwrap();
    let Outcome::Finished { report, .. } = run(whole.path(), &config, &mut client()).unwrap()
    else {
        panic!("not stopped");
    };
    assert!(report.dropped.values().sum::<usize>() > 0);
    assert_eq!(report.settled(), report.planned);
    let expected = dataset(whole.path());
    let rows = read_conversations(&whole.path().join("dataset.parquet"), None).unwrap();
    assert_eq!(rows.len(), report.finished);
    assert!(rows.is_sorted_by_key(|c| c.metadata.task));

    let batches = open(whole.path(), &config).unwrap().plan().batches.len();
    for stop_after in 0..batches {
        let folder = tempfile::tempdir().unwrap();
        let outcome = run_steps(folder.path(), &config, stop_after);
        assert!(matches!(outcome, Outcome::Stopped { .. }), "{stop_after}");
        assert!(!folder.path().join("dataset.parquet").exists());
        let Outcome::Finished { report: again, .. } =
            run(folder.path(), &config, &mut client()).unwrap()
        else {
            panic!("not stopped");
        };
        assert_eq!(again, report);
        assert!(
            dataset(folder.path()) == expected,
            "stopped after {stop_after}"
        );
    }

    // Stopped after every single batch, and with several batches per step.
    let folder = tempfile::tempdir().unwrap();
    while matches!(
        run_steps(folder.path(), &config, 1),
        Outcome::Stopped { .. }
    ) {}
    assert!(dataset(folder.path()) == expected);
    let folder = tempfile::tempdir().unwrap();
    let parallel = SelfStudyConfig {
        batches_in_parallel: 3,
        ..config
    };
    run(folder.path(), &parallel, &mut client()).unwrap();
    assert!(dataset(folder.path()) == expected);
}

#[test]
fn a_finished_run_asks_nothing_again() {
    let folder = tempfile::tempdir().unwrap();
    run(folder.path(), &small_config(), &mut client()).unwrap();
    let mut second = client();
    let outcome = run(folder.path(), &small_config(), &mut second).unwrap();
    assert_eq!(second.calls, 0);
    assert!(matches!(outcome, Outcome::Finished { .. }));
    // A data set that was lost is merged again from the parts.
    let before = dataset(folder.path());
    std::fs::remove_file(folder.path().join("dataset.parquet")).unwrap();
    run(folder.path(), &small_config(), &mut second).unwrap();
    assert!(dataset(folder.path()) == before);
    assert_eq!(second.calls, 0);
}

#[test]
fn another_run_in_the_folder_is_refused_with_the_difference() {
    let folder = tempfile::tempdir().unwrap();
    let config = small_config();
    run(folder.path(), &config, &mut client()).unwrap();
    let other = SelfStudyConfig {
        temperature_a: 0.7,
        ..small_config()
    };
    let error = open(folder.path(), &other).err().unwrap().to_string();
    assert!(
        error.contains("temperature_a") && error.contains("another folder"),
        "{error}"
    );
    let text = resources(&config, "Another text altogether.");
    let error = SynthesisRun::open(folder.path(), config.clone(), &text, "mock");
    assert!(
        error
            .err()
            .unwrap()
            .to_string()
            .contains("`gates` has changed")
    );
    let text = resources(&config, &numbered_text(30));
    let error = SynthesisRun::open(folder.path(), config.clone(), &text, "other");
    assert!(error.err().unwrap().to_string().contains("model"));
    std::fs::write(folder.path().join("plan.json"), b"{").unwrap();
    assert!(matches!(
        open(folder.path(), &config),
        Err(RunError::PlanFile { .. })
    ));
}

#[test]
fn two_runs_cannot_share_a_folder() {
    let folder = tempfile::tempdir().unwrap();
    let first = open(folder.path(), &small_config()).unwrap();
    assert!(matches!(
        open(folder.path(), &small_config()),
        Err(RunError::Busy { .. })
    ));
    drop(first);
    open(folder.path(), &small_config()).unwrap();
}

#[test]
fn what_a_killed_process_was_writing_is_swept_away() {
    let folder = tempfile::tempdir().unwrap();
    run_steps(folder.path(), &small_config(), 1);
    let litter = ["parts/.tmp-abc123", ".tmp-xyz"].map(|name| folder.path().join(name));
    for path in &litter {
        std::fs::write(path, b"half a part").unwrap();
    }
    // Not while another process is at work.
    let first = open(folder.path(), &small_config()).unwrap();
    assert!(litter.iter().all(|path| !path.exists()));
    std::fs::write(&litter[0], b"half a part").unwrap();
    assert!(open(folder.path(), &small_config()).is_err());
    assert!(litter[0].exists());
    drop(first);
}

#[test]
fn damaged_parts_are_set_aside_and_done_again() {
    let folder = tempfile::tempdir().unwrap();
    let config = small_config();
    run(folder.path(), &config, &mut client()).unwrap();
    let expected = dataset(folder.path());
    let part = folder.path().join("parts/part-00002.parquet");
    let bytes = std::fs::read(&part).unwrap();
    std::fs::write(&part, &bytes[..bytes.len() / 2]).unwrap();
    let mut again = client();
    let Outcome::Finished { report, .. } = run(folder.path(), &config, &mut again).unwrap() else {
        panic!("not stopped");
    };
    assert!(again.calls > 0 && again.calls <= 2);
    assert_eq!(report.damaged_parts.len(), 1);
    assert!(
        folder
            .path()
            .join("parts/part-00002.parquet.damaged")
            .exists()
    );
    assert!(dataset(folder.path()) == expected);
}

#[test]
fn failed_tasks_are_reported_and_tried_again_by_the_next_run() {
    let whole = tempfile::tempdir().unwrap();
    let config = small_config();
    run(whole.path(), &config, &mut client()).unwrap();
    let folder = tempfile::tempdir().unwrap();
    // The third batch fails twice.
    let mut failing = MockClient {
        failing_calls: [2, 3].into(),
        ..client()
    };
    let Outcome::Finished { report, .. } = run(folder.path(), &config, &mut failing).unwrap()
    else {
        panic!("not stopped");
    };
    assert_eq!(report.failed.get("generation failed"), Some(&4));
    assert_eq!(report.settled() + report.num_failed(), report.planned);
    assert!(
        report
            .last_failure
            .as_deref()
            .unwrap()
            .contains("out of memory")
    );
    let Outcome::Finished { report, .. } = run(folder.path(), &config, &mut client()).unwrap()
    else {
        panic!("not stopped");
    };
    assert!(report.failed.is_empty());
    assert!(dataset(folder.path()) == dataset(whole.path()));
    let json = std::fs::read_to_string(folder.path().join("report.json")).unwrap();
    let read: SynthesisReport = serde_json::from_str(&json).unwrap();
    assert_eq!(read, report);
}

#[test]
fn a_model_that_always_fails_ends_the_run() {
    let folder = tempfile::tempdir().unwrap();
    let mut broken = MockClient {
        failing_calls: (0..1000).collect(),
        ..client()
    };
    let error = run(folder.path(), &small_config(), &mut broken)
        .err()
        .unwrap();
    assert!(
        matches!(error, RunError::GaveUp { steps: 5, .. }),
        "{error}"
    );
    let config = SelfStudyConfig {
        verbatim: false,
        ..small_config()
    };
    let folder = tempfile::tempdir().unwrap();
    let mut silent = MockClient {
        empty_if: Some(|_| true),
        ..MockClient::default()
    };
    let error = run(folder.path(), &config, &mut silent).err().unwrap();
    assert!(error.to_string().contains("empty question"), "{error}");
}

#[test]
fn progress_reaches_the_total() {
    let folder = tempfile::tempdir().unwrap();
    let mut last = None;
    let mut steps = 0;
    open(folder.path(), &small_config())
        .unwrap()
        .run(&mut client(), &AtomicBool::new(false), &mut |p| {
            assert!(p.done <= p.total && p.step_done <= p.step_total);
            steps += usize::from(p.step_total > 0);
            last = Some(p);
        })
        .unwrap();
    let last = last.unwrap();
    assert_eq!(last.done, last.total);
    assert!(last.tokens > 0 && steps > 0);
}

#[test]
fn a_stopped_run_can_be_merged_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    run_steps(folder.path(), &small_config(), 3);
    let run = open(folder.path(), &small_config()).unwrap();
    let rows = run.merge().unwrap();
    assert_eq!(rows, run.report().finished);
    assert_eq!(
        read_conversations(&run.dataset_path(), None).unwrap().len(),
        rows
    );
}
