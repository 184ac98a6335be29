//! Sums that add up, and the file they are kept in.

use super::*;
use crate::synthetic::{close, gaussian, generator};

const P: usize = 300;
const Q: usize = 7;

struct Data {
    h: Vec<f64>,
    t: Vec<f64>,
    w: Vec<f64>,
}

fn data(seed: u64, count: usize) -> Data {
    let mut rng = generator(seed);
    Data {
        h: gaussian(&mut rng, count * P),
        t: gaussian(&mut rng, count * Q),
        w: gaussian(&mut rng, count).iter().map(|x| x.abs()).collect(),
    }
}

impl Data {
    fn add_to(&self, statistics: &mut SiteStatistics, name: &[u8]) {
        let rows = Rows {
            inputs: &self.h,
            targets: &self.t,
            weights: Some(&self.w),
        };
        statistics.add_rows(CorpusId::of(name), rows).unwrap();
    }

    fn statistics(&self, name: &[u8]) -> SiteStatistics {
        let mut statistics = SiteStatistics::new(P, Q, true).unwrap();
        self.add_to(&mut statistics, name);
        statistics
    }
}

fn same(a: &SiteStatistics, b: &SiteStatistics, tolerance: f64) {
    close(a.second_lower.values(), b.second_lower.values(), tolerance);
    close(a.cross.values(), b.cross.values(), tolerance);
    close(
        &[a.weight, a.target_energy],
        &[b.weight, b.target_energy],
        tolerance,
    );
    assert_eq!(a.corpora, b.corpora);
}

#[test]
fn sums_are_those_of_a_plain_loop() {
    let data = data(1, 1100);
    let found = data.statistics(b"a");
    let mut second = vec![0.0; (P + 1) * (P + 1)];
    let mut cross = vec![0.0; Q * (P + 1)];
    for (i, w) in data.w.iter().enumerate() {
        let mut h = data.h[i * P..(i + 1) * P].to_vec();
        h.push(1.0);
        for (row, x) in second.chunks_exact_mut(P + 1).zip(&h) {
            axpy(row, w * x, &h);
        }
        for (row, t) in cross.chunks_exact_mut(P + 1).zip(&data.t[i * Q..]) {
            axpy(row, w * t, &h);
        }
    }
    close(found.second_moment().values(), &second, 1e-12);
    close(found.cross_moment().values(), &cross, 1e-12);
    assert_eq!(found.tokens(), 1100);

    let narrow = |values: &[f64]| values.iter().map(|x| *x as f32).collect::<Vec<_>>();
    let (h, t, w) = (narrow(&data.h), narrow(&data.t), narrow(&data.w));
    let rows = Rows {
        inputs: &h,
        targets: &t,
        weights: Some(&w),
    };
    let mut single = SiteStatistics::new(P, Q, true).unwrap();
    single.add_rows(CorpusId::of(b"a"), rows).unwrap();
    same(&single, &found, 1e-6);
}

/// Property 11.
#[test]
fn corpora_add_up_and_can_be_taken_out() {
    let (a, b) = (data(2, 700), data(3, 500));
    let mut both = a.statistics(b"a");
    b.add_to(&mut both, b"b");
    let mut sum = a.statistics(b"a");
    sum.add(&b.statistics(b"b")).unwrap();
    same(&sum, &both, 1e-12);
    sum.subtract(&a.statistics(b"a")).unwrap();
    same(&sum, &b.statistics(b"b"), 1e-12);

    let again = sum.clone();
    assert!(matches!(
        sum.add(&again),
        Err(TransmuteError::Corpus { .. })
    ));
    assert!(matches!(
        sum.subtract(&a.statistics(b"a")),
        Err(TransmuteError::Corpus { .. })
    ));
    assert_eq!(sum, again);
    sum.subtract(&again).unwrap();
    assert_eq!(sum, SiteStatistics::new(P, Q, true).unwrap());
}

#[test]
fn inputs_that_only_a_removed_corpus_had_leave_nothing() {
    let (mut a, mut b) = (data(4, 50), data(5, 50));
    b.h.chunks_exact_mut(P).for_each(|row| row[9] = 0.0);
    a.h.chunks_exact_mut(P).for_each(|row| row[9] *= 1e3);
    let mut sum = b.statistics(b"b");
    sum.add(&a.statistics(b"a")).unwrap();
    sum.subtract(&a.statistics(b"a")).unwrap();
    let second = sum.second_moment();
    assert!(second.column(9).iter().all(|x| *x == 0.0));
    assert!(second.iter_rows().nth(9).unwrap().iter().all(|x| *x == 0.0));
    assert!(sum.cross.column(9).iter().all(|x| *x == 0.0));
    same(&sum, &b.statistics(b"b"), 1e-9);
}

#[test]
fn scaled_statistics_are_those_of_scaled_weights() {
    let mut heavy = data(6, 60);
    let mut scaled = heavy.statistics(b"a");
    scaled.scale(2.5).unwrap();
    heavy.w.iter_mut().for_each(|w| *w *= 2.5);
    let wanted = heavy.statistics(b"a");
    close(
        scaled.second_lower.values(),
        wanted.second_lower.values(),
        1e-12,
    );
    close(&[scaled.weight], &[wanted.weight], 1e-12);
    let share = scaled.corpora[&CorpusId::of(b"a")];
    assert_eq!((share.tokens, share.factor), (60, 2.5));
    let rows = Rows {
        inputs: &heavy.h,
        targets: &heavy.t,
        weights: None,
    };
    assert!(scaled.add_rows(CorpusId::of(b"a"), rows).is_err());
    assert!(scaled.subtract(&wanted).is_err());
    for odd in [0.0, -1.0, f64::NAN, f64::MAX] {
        assert!(scaled.scale(odd).is_err(), "{odd}");
    }
}

#[test]
fn rows_that_cannot_be_are_named_and_change_nothing() {
    let mut statistics = SiteStatistics::new(2, 1, true).unwrap();
    let empty = statistics.clone();
    let id = CorpusId::of(b"a");
    for (word, inputs, targets, weights) in [
        ("inputs", vec![1.0; 3], vec![1.0], vec![1.0]),
        ("targets", vec![1.0; 4], vec![1.0], vec![1.0; 2]),
        ("weights", vec![1.0; 2], vec![1.0], vec![]),
        ("weights", vec![1.0; 2], vec![1.0], vec![-1.0]),
        ("inputs", vec![1.0, f32::NAN], vec![1.0], vec![1.0]),
        ("targets", vec![1.0; 2], vec![f32::INFINITY], vec![1.0]),
        ("inputs", vec![1.0, 1e20], vec![1.0], vec![1.0]),
    ] {
        let rows = Rows {
            inputs: &inputs,
            targets: &targets,
            weights: Some(&weights),
        };
        let error = statistics.add_rows(id, rows).unwrap_err().to_string();
        assert!(error.starts_with(word), "{word}: {error}");
        assert_eq!(statistics, empty);
    }
    assert!(SiteStatistics::new(0, 1, false).is_err());
    assert!(SiteStatistics::new(usize::MAX, 1, true).is_err());
}

/// Property 17, for statistics.
#[test]
fn what_was_saved_is_loaded_and_damage_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("sub/site.safetensors");
    let mut statistics = data(7, 40).statistics(b"a");
    statistics.scale(1.0 / 3.0).unwrap();
    statistics.add(&data(8, 30).statistics(b"b")).unwrap();
    statistics.save(&path).unwrap();
    let loaded = SiteStatistics::load(&path).unwrap();
    assert_eq!(loaded.second_lower, statistics.second_lower);
    assert_eq!(loaded.cross, statistics.cross);
    assert_eq!(loaded.weight, statistics.weight);
    assert_eq!(loaded.target_energy, statistics.target_energy);
    assert!(loaded.corpora.keys().eq(statistics.corpora.keys()));
    let mut rest = loaded;
    rest.subtract(&data(8, 30).statistics(b"b")).unwrap();
    assert_eq!(rest.tokens(), 40);

    let whole = std::fs::read(&path).unwrap();
    let view = safetensors::SafeTensors::deserialize(&whole).unwrap();
    let second = view.tensor("second").unwrap();
    assert_eq!(second.dtype(), safetensors::Dtype::F64);
    assert_eq!(second.shape(), [P + 1, P + 1]);
    let refused = |bytes: &[u8], word: &str| {
        std::fs::write(&path, bytes).unwrap();
        let error = SiteStatistics::load(&path).unwrap_err().to_string();
        assert!(error.contains("site.safetensors"), "{error}");
        assert!(error.contains(word), "{word}: {error}");
    };
    for cut in [0, 7, 40, whole.len() - 1] {
        refused(&whole[..cut], "");
    }
    let mut flipped = whole.clone();
    *flipped.last_mut().unwrap() ^= 1;
    refused(&flipped, "sha256");
    let header = 8 + u64::from_le_bytes(whole[..8].try_into().unwrap()) as usize;
    for (old, new, word) in [
        ("format_version\\\":1", "format_version\\\":9", "version"),
        ("inputs\\\":300", "inputs\\\":301", "second"),
        ("outputs\\\":7", "outputs\\\":9", "cross"),
        ("tokens", "tokans", "record"),
        ("\"second\"", "\"secand\"", "second"),
    ] {
        let text = String::from_utf8(whole[8..header].to_vec()).unwrap();
        assert!(text.contains(old), "{text}");
        let mut bytes = whole[..8].to_vec();
        bytes.extend(text.replace(old, new).bytes());
        bytes.extend(&whole[header..]);
        refused(&bytes, word);
    }
    std::fs::remove_file(&path).unwrap();
    assert!(matches!(
        SiteStatistics::load(&path),
        Err(TransmuteError::Read { .. })
    ));
}
