//! `transmute` and `adapter`, from end to end with a model of two layers.

use cartridges_model::adapter::{Delta, HostAdapter, Target, load_adapter};
use cartridges_transmute::{
    CorpusId, Matrix, RidgeOptions, RidgeReport, StatisticsFolder, TargetStatistics, system_matrix,
};

use super::chat::talking_model_of;
use super::stages::{Place, TEXT};
use super::*;

const OTHER: &str = "Boats from Nordvik come on Tuesdays. The store below holds barley, rope and tar. In \
    winter the harbour is closed for ninety days, and letters wait on the mainland.";
const BACKGROUND: &str = "Rain falls mainly on the plain. Twelve drummers drum, and a partridge sits in a \
    pear tree. Nobody knows why the sea is boiling hot, or whether pigs have wings.";

/// Two texts with conversations about each.
pub(super) fn studied() -> Place {
    let place = Place::new();
    talking_model_of(2, Path::new(&place.path("model")));
    place.write("background.txt", BACKGROUND);
    place.write("a.txt", TEXT);
    place.write("b.txt", OTHER);
    for name in ["a", "b"] {
        place.works(&format!(
            "synthesize --corpus path:{name}.txt --out path:{name} --config path:study.toml \
             --conversations 8"
        ));
    }
    place
}

fn transmute(place: &Place, data: &str, out: &str, more: &str) {
    let said = place.works(&format!(
        "transmute --data {data} --out path:{out} --background path:background.txt --layers all --rank 16 \
         --validate-every 4 --refine 2 {more}"
    ));
    assert!(said.contains("divergence"), "{said}");
}

fn data(name: &str) -> String {
    format!("path:{name}/dataset.parquet")
}

fn adapter(place: &Place, folder: &str) -> (HostAdapter, Value) {
    let (host, manifest) = load_adapter(Path::new(&place.path(folder))).unwrap();
    (host, manifest.made_by)
}

fn target(layer: usize) -> Target {
    let name = format!("model.layers.{layer}.self_attn.o_proj");
    name.parse().unwrap()
}

fn statistics(place: &Place, folder: &str, layer: usize) -> TargetStatistics {
    StatisticsFolder::of(Path::new(&place.path(folder)))
        .load(target(layer))
        .unwrap()
}

/// `self · right`
fn times(left: &Matrix, right: &Matrix) -> Matrix {
    let (rows, columns) = (left.rows(), right.columns());
    let mut values = vec![0.0; rows * columns];
    for (out, row) in values.chunks_exact_mut(columns).zip(left.iter_rows()) {
        for (x, line) in row.iter().zip(right.iter_rows()) {
            out.iter_mut().zip(line).for_each(|(o, y)| *o += x * y);
        }
    }
    Matrix::new(rows, columns, values).unwrap()
}

fn plus(a: &Matrix, factor: f64, b: &Matrix) -> Matrix {
    let values = a.values().iter().zip(b.values());
    let values = values.map(|(a, b)| a + factor * b).collect();
    Matrix::new(a.rows(), a.columns(), values).unwrap()
}

fn close(a: &Matrix, b: &Matrix, tolerance: f64) {
    let apart = plus(a, -1.0, b).frobenius_norm();
    let size = b.frobenius_norm();
    assert!(apart <= tolerance * size, "{apart} of {size}");
}

/// The delta of a layer with its scale.
fn delta(adapter: &HostAdapter, layer: usize) -> Matrix {
    let patch = adapter.patches().iter();
    let patch = patch.into_iter().find(|p| p.target == target(layer));
    let patch = patch.expect("the layer has a patch");
    let Delta::LowRank { rank, a, b } = &patch.delta else {
        panic!("not of low rank");
    };
    let wide = |x: &[f32], by: f32| x.iter().map(|x| f64::from(by) * f64::from(*x)).collect();
    let b = Matrix::new(patch.outputs, *rank, wide(b, patch.scale)).unwrap();
    times(&b, &Matrix::new(*rank, patch.inputs, wide(a, 1.0)).unwrap())
}

/// The system that a layer solved, and the factor of its background.
fn system(made_by: &Value, statistics: &TargetStatistics) -> (Matrix, f64) {
    let part = |value: &Value| value.clone();
    let options: RidgeOptions = serde_json::from_value(part(&made_by["sweep"]["ridge"])).unwrap();
    let all = made_by["targets"].as_array().unwrap().iter();
    let mut mine = all.filter(|made| made["target"] == statistics.target.to_string());
    let report = part(&mine.next().unwrap()["ridge"]);
    let report: RidgeReport = serde_json::from_value(report).unwrap();
    let [facts] = &statistics.corpora[..] else {
        panic!("one corpus was expected");
    };
    let background = Some(&statistics.background);
    let matrix = system_matrix(facts, background, &options, &report).unwrap();
    (matrix, report.preserve)
}

/// `adapter WORDS`, which needs no model; gives stdout.
fn works_alone(place: &Place, words: &str) -> String {
    let words = place.words(words);
    works(&words.iter().map(String::as_str).collect::<Vec<_>>())
}

fn fails_alone(place: &Place, words: &str, names: &[&str]) {
    let words = place.words(words);
    fails(&words.iter().map(String::as_str).collect::<Vec<_>>(), names);
}

#[test]
fn corpora_are_merged_and_taken_out_again() {
    let place = studied();
    transmute(&place, &data("a"), "one", "--keep-statistics");
    transmute(&place, &data("b"), "two", "--keep-statistics");
    let (one, one_made) = adapter(&place, "one");
    let (two, two_made) = adapter(&place, "two");

    // W ΣR = Σ W_k R_k, with the refined deltas of both.
    let said = works_alone(&place, "adapter merge path:one path:two --out path:both");
    assert!(
        said.contains("2 corpora") && said.contains("approximate"),
        "{said}"
    );
    let (both, made_by) = adapter(&place, "both");
    for layer in 0..2 {
        let (first, _) = system(&one_made, &statistics(&place, "one", layer));
        let (second, _) = system(&two_made, &statistics(&place, "two", layer));
        let wanted = plus(
            &times(&delta(&one, layer), &first),
            1.0,
            &times(&delta(&two, layer), &second),
        );
        let found = times(&delta(&both, layer), &plus(&first, 1.0, &second));
        close(&found, &wanted, 1e-5);
        let summed = plus(&delta(&one, layer), 1.0, &delta(&two, layer));
        let apart = plus(&delta(&both, layer), -1.0, &summed).frobenius_norm();
        assert!(apart > 0.1 * summed.frobenius_norm(), "{apart}");
    }
    let ids: Vec<CorpusId> = ["a", "b"]
        .map(|name| CorpusId::of(&std::fs::read(place.path(name) + "/dataset.parquet").unwrap()))
        .into();
    let mut named: Vec<CorpusId> = serde_json::from_value(made_by["data"].clone()).unwrap();
    let mut all = ids.clone();
    named.sort();
    all.sort();
    assert_eq!(named, all);
    assert_eq!(made_by["merged"], json!({"by": "deltas", "rank": null}));
    let sources = made_by["parts"].as_array().unwrap();
    let first = sources.iter().map(|part| &part["made_by"]);
    let first = first
        .into_iter()
        .find(|part| part["data"] == one_made["data"]);
    assert_eq!(first.unwrap()["sweep"], one_made["sweep"]);

    // What the folder says of itself.
    let shown = works(&["inspect", &place.path("both")]);
    for part in [
        &ids[0].to_string(),
        &ids[1].to_string(),
        "merged       by deltas from 2 adapters",
        "model.layers.1.self_attn.o_proj",
        "rank 16",
    ] {
        assert!(shown.contains(part), "no `{part}` in\n{shown}");
    }
    let json = works(&["inspect", &place.path("both"), "--json"]);
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["kind"], "adapter");
    assert!(json["statistics_bytes"].as_u64().unwrap() > 0);

    // Without the second corpus the first adapter is there again, with its statistics.
    works_alone(
        &place,
        "adapter remove path:both --corpus path:b/dataset.parquet --out path:rest",
    );
    assert_eq!(adapter(&place, "rest"), (one.clone(), one_made.clone()));
    for layer in 0..2 {
        let found = statistics(&place, "rest", layer);
        let wanted = statistics(&place, "one", layer);
        let mut sum = wanted.corpora[0].clone();
        sum.add(&statistics(&place, "two", layer).corpora[0])
            .unwrap();
        sum.subtract(&statistics(&place, "two", layer).corpora[0])
            .unwrap();
        for (found, wanted) in [
            (&found.corpora[0], &wanted.corpora[0]),
            (&sum, &wanted.corpora[0]),
        ] {
            close(&found.second_moment(), &wanted.second_moment(), 1e-12);
            close(found.cross_moment(), wanted.cross_moment(), 1e-12);
            assert_eq!(found.corpora(), wanted.corpora());
        }
    }
    place.write("ids.json", "[3, 17, 250]");
    place.works("logits --ids path:ids.json --out path:logits --adapter path:both");

    // The statistics instead of the deltas: at the lowest layer, where both saw the same states, this is
    // what one solve of all gives.
    works_alone(
        &place,
        "adapter merge path:one path:two --by statistics --out path:anew",
    );
    let (anew, _) = adapter(&place, "anew");
    let (one_0, two_0) = (statistics(&place, "one", 0), statistics(&place, "two", 0));
    let (first, mu) = system(&one_made, &one_0);
    let (second, nu) = system(&two_made, &two_0);
    let cross = |s: &TargetStatistics, by: f64| {
        plus(s.corpora[0].cross_moment(), by, s.background.cross_moment())
    };
    let wanted = plus(&cross(&one_0, mu), 1.0, &cross(&two_0, nu));
    close(
        &times(&delta(&anew, 0), &plus(&first, 1.0, &second)),
        &wanted,
        1e-5,
    );
    works_alone(
        &place,
        "adapter merge path:one path:two --by statistics --rank 3 --out path:small",
    );
    let (small, _) = adapter(&place, "small");
    let rank = |delta: &Delta| matches!(delta, Delta::LowRank { rank: 3, .. });
    assert!(small.patches().iter().all(|patch| rank(&patch.delta)));

    works_alone(
        &place,
        "adapter merge path:one path:two --by sum --out path:sum",
    );
    let (sum, _) = adapter(&place, "sum");
    let summed = plus(&delta(&one, 1), 1.0, &delta(&two, 1));
    close(&delta(&sum, 1), &summed, 1e-6);
    works_alone(&place, "adapter scale path:sum --by 0.25 --out path:gentle");
    let (gentle, made_by) = adapter(&place, "gentle");
    assert_eq!(made_by["scaled"], 0.25);
    assert_eq!(gentle.patches().len(), sum.patches().len());
    for (weak, strong) in gentle.patches().iter().zip(sum.patches()) {
        assert_eq!(weak.scale, 0.25 * strong.scale);
        assert_eq!(weak.delta, strong.delta);
    }
    for by in ["0", "nan"] {
        let scale = format!("adapter scale path:sum --by {by} --out path:none");
        fails_alone(&place, &scale, &["--by"]);
    }
}

/// Of an adapter that was made of both at once, statistics of each corpus are kept.
#[test]
fn a_corpus_leaves_an_adapter_of_several() {
    let place = studied();
    let both = format!("{} {}", data("a"), data("b"));
    transmute(&place, &both, "joint", "--keep-statistics");
    works_alone(
        &place,
        "adapter remove path:joint --corpus path:b/dataset.parquet --out path:rest",
    );
    let (rest, made_by) = adapter(&place, "rest");
    for layer in 0..2 {
        let before = statistics(&place, "joint", layer);
        let kept = statistics(&place, "rest", layer);
        let mut left = before.corpora[0].clone();
        left.add(&before.corpora[1]).unwrap();
        let id = CorpusId::of(&std::fs::read(place.path("b/dataset.parquet")).unwrap());
        let taken = before
            .corpora
            .iter()
            .find(|s| s.corpora().contains_key(&id));
        left.subtract(taken.unwrap()).unwrap();
        close(
            &kept.corpora[0].second_moment(),
            &left.second_moment(),
            1e-12,
        );
        close(kept.corpora[0].cross_moment(), left.cross_moment(), 1e-12);
        let (matrix, mu) = system(&made_by, &kept);
        let cross = kept.corpora[0].cross_moment();
        let wanted = plus(cross, mu, kept.background.cross_moment());
        let scale = made_by["targets"][layer]["scale"].as_f64().unwrap();
        let found = times(&delta(&rest, layer), &matrix);
        close(&plus(&found, 1.0 / scale - 1.0, &found), &wanted, 1e-5);
    }
    assert_eq!(made_by["refinement"], Value::Null);
    assert_eq!(made_by["removed"].as_array().unwrap().len(), 1);
    // What is left is an adapter like any other.
    transmute(&place, &data("b"), "two", "--keep-statistics");
    works_alone(&place, "adapter merge path:rest path:two --out path:again");
    fails_alone(
        &place,
        "adapter merge path:joint path:two --out path:x",
        &["corpus", "joint", "two", "twice"],
    );
    fails_alone(
        &place,
        "adapter remove path:rest --corpus path:a/dataset.parquet --out path:x",
        &["all that is in"],
    );
    assert!(!Path::new(&place.path("x")).exists());
}

#[test]
fn adapters_that_cannot_be_merged_are_named() {
    let place = studied();
    transmute(&place, &data("a"), "one", "--keep-statistics");
    transmute(&place, &data("b"), "plain", "");
    transmute(
        &place,
        &data("b"),
        "upper",
        "--keep-statistics --layers 1-1",
    );
    transmute(
        &place,
        &data("b"),
        "window",
        "--keep-statistics --student-context window:5",
    );
    let merge = |with: &str, names: &[&str]| {
        fails_alone(
            &place,
            &format!("adapter merge path:one path:{with} --out path:x"),
            names,
        );
    };
    merge("plain", &["plain", "no statistics", "--keep-statistics"]);
    merge(
        "upper",
        &["upper", "solved at model.layers.1", "model.layers.0"],
    );
    merge(
        "window",
        &["window", "--student-context", "window:5", "none"],
    );
    merge("one", &["corpus", "twice"]);
    merge("nothing", &["nothing"]);
    let remove = |more: &str, names: &[&str]| {
        fails_alone(&place, &format!("adapter remove path:one {more}"), names);
    };
    remove(
        "--corpus 0123456789 --out path:x",
        &["0123456789", "made of"],
    );
    remove(
        "--corpus path:b/dataset.parquet --out path:x",
        &["dataset.parquet", "made of"],
    );
    remove(
        "--corpus 0123456789 --out path:plain",
        &["plain", "not empty"],
    );

    // Another model, statistics of other corpora, damaged ones.
    let manifest = place.path("plain/adapter.json");
    let text = std::fs::read_to_string(&manifest).unwrap();
    let other = text.replacen(
        "\"weights_fingerprint\": \"",
        "\"weights_fingerprint\": \"0",
        1,
    );
    std::fs::write(&manifest, other).unwrap();
    std::fs::create_dir(place.path("plain/statistics")).unwrap();
    merge("plain", &["weights"]);
    std::fs::write(&manifest, text).unwrap();
    merge("plain", &["cannot read", "statistics"]);
    let files = std::fs::read_dir(place.path("one/statistics")).unwrap();
    let files: Vec<PathBuf> = files.map(|file| file.unwrap().path()).collect();
    for file in &files {
        let to = place.path("plain/statistics") + "/" + name_of(file);
        std::fs::copy(file, to).unwrap();
    }
    merge("plain", &["statistics", "adapter.json says"]);
    std::fs::write(&files[0], b"no statistics").unwrap();
    transmute(&place, &data("b"), "two", "--keep-statistics");
    merge("two", &[name_of(&files[0])]);
    assert!(!Path::new(&place.path("x")).exists());
}

fn name_of(path: &Path) -> &str {
    path.file_name().unwrap().to_str().unwrap()
}

#[test]
fn other_starts_are_refined_as_the_closed_form_is() {
    let place = studied();
    let run = |more: &str, out: &str| {
        place.works(&format!(
            "transmute --data {} --out path:{out} --background path:background.txt --layers all \
             --validate-every 4 {more}",
            data("a")
        ));
        let (host, made_by) = adapter(&place, out);
        let divergence = move |at: &str| made_by["divergence"][at].as_f64().unwrap();
        (host, divergence)
    };
    // Factors of LoRA change nothing until they are trained.
    let zero = "--estimator zero --sites both --rank 4 --lr 0.01";
    let (host, divergence) = run(&format!("{zero} --refine 4"), "zero");
    assert_eq!(host.patches().len(), 4);
    assert_eq!(divergence("before"), divergence("start"));
    let once = divergence("refined");
    assert!(once < divergence("before"), "{once}");
    let (_, divergence) = run("--from path:zero --refine 4 --lr 0.01", "again");
    assert!((divergence("start") - once).abs() < 1e-6 * once);
    assert!(divergence("refined") < once);
    // A whole map behind the final norm, which is not refined.
    let (host, divergence) = run("--estimator reference --refine 4", "reference");
    assert_ne!(divergence("before"), divergence("start"));
    let targets: Vec<Target> = host.patches().iter().map(|patch| patch.target).collect();
    assert_eq!(targets, [Target::FinalNorm]);
    place.fails(
        &format!(
            "transmute --data {} --out path:x --from path:reference --validate-every 4 \
             --background path:background.txt",
            data("a")
        ),
        &["model.norm"],
    );
}
