//! Slots shared out over all heads of a model.
//!
//! A slot that halves the misfit of a head whose output is hardly there changes nothing, and one that
//! takes a tenth off that of a loud head does, so what counts is the absolute misfit: relative misfit
//! times the mean square of the head's output.

/// Of the slots that all heads would have alike, each keeps one of so many whatever it gains.
const LEAST_OF: usize = 4;

/// Shares `total` slots out: one by one to the block of the head where it leaves least unexplained, given
/// what is there. `curves[head][block]` are those of [`unexplained`](super::unexplained), all for the same
/// `most`.
///
/// Every head keeps a quarter of the mean and none gets more than `most`; every block has one slot at
/// least, and none more than its curve is long. `total` is met exactly unless these bounds forbid it.
pub fn allot(curves: &[Vec<Vec<f64>>], total: usize, most: usize) -> Vec<Vec<usize>> {
    let least = (total / curves.len().max(1) / LEAST_OF).min(most);
    let mut slots: Vec<Vec<usize>> = curves.iter().map(|blocks| vec![1; blocks.len()]).collect();
    let mut given: usize = slots.iter().map(Vec::len).sum();
    for (slots, blocks) in slots.iter_mut().zip(curves) {
        while slots.iter().sum::<usize>() < least {
            let Some((block, _)) = best(blocks, slots) else {
                break;
            };
            slots[block] += 1;
            given += 1;
        }
    }
    while given < total {
        let open = |slots: &[usize]| slots.iter().sum::<usize>() < most;
        let found = curves
            .iter()
            .zip(&slots)
            .enumerate()
            .filter(|(_, (_, slots))| open(slots))
            .filter_map(|(head, (blocks, slots))| Some((head, best(blocks, slots)?)))
            .max_by(|(_, (_, a)), (_, (_, b))| a.total_cmp(b));
        let Some((head, (block, _))) = found else {
            break;
        };
        slots[head][block] += 1;
        given += 1;
    }
    slots
}

/// The block of a head where one more slot gains most, and how much.
fn best(blocks: &[Vec<f64>], slots: &[usize]) -> Option<(usize, f64)> {
    let gain = |(block, (left, &have)): (usize, (&Vec<f64>, &usize))| {
        let (now, next) = (left.get(have.checked_sub(1)?)?, left.get(have)?);
        Some((block, now - next))
    };
    let gains = blocks.iter().zip(slots).enumerate().filter_map(gain);
    gains.max_by(|(_, a), (_, b)| a.total_cmp(b))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `scale / n` is left behind `n` slots.
    fn falling(scale: f64, length: usize) -> Vec<f64> {
        (1..=length).map(|n| scale / n as f64).collect()
    }

    fn totals(slots: &[Vec<usize>]) -> Vec<usize> {
        slots.iter().map(|blocks| blocks.iter().sum()).collect()
    }

    #[test]
    fn the_total_is_met_and_loud_heads_get_more() {
        let curves: Vec<_> = [1.0, 4.0, 16.0, 0.01]
            .map(|scale| vec![falling(scale, 80)])
            .into();
        let slots = totals(&allot(&curves, 160, 80));
        assert_eq!(slots.iter().sum::<usize>(), 160);
        // Equal marginal gains: slots go as the root of the scale, above the floor of 10.
        assert_eq!(slots[3], 10);
        for (got, want) in slots.iter().zip([150.0 / 7.0, 300.0 / 7.0, 600.0 / 7.0]) {
            // The third is held at 80, and its surplus goes to the others.
            assert!((*got as f64 - want).abs() < 6.0, "{slots:?}");
        }
        assert_eq!(slots[2], 80);
    }

    #[test]
    fn no_choice_is_better_where_gains_fall() {
        let curves: Vec<_> = [3.0, 1.0].map(|scale| vec![falling(scale, 12)]).into();
        let slots = totals(&allot(&curves, 12, 12));
        let left = |a: usize| 3.0 / a as f64 + 1.0 / (12 - a) as f64;
        let best = (2..=10).min_by(|&a, &b| left(a).total_cmp(&left(b)));
        assert_eq!(slots, [best.unwrap(), 12 - best.unwrap()]);
    }

    #[test]
    fn with_the_mean_as_the_most_all_are_alike() {
        let curves: Vec<_> = [1.0, 100.0, 0.0]
            .map(|scale| vec![falling(scale, 30)])
            .into();
        assert_eq!(totals(&allot(&curves, 60, 20)), [20, 20, 20]);
    }

    #[test]
    fn blocks_compete_and_are_never_overfilled() {
        let blocks = vec![falling(1.0, 40), falling(9.0, 5), falling(9.0, 40)];
        let slots = allot(&[blocks], 30, 30);
        assert_eq!(slots[0].iter().sum::<usize>(), 30);
        assert_eq!(slots[0][1], 5);
        assert!(slots[0][2] > slots[0][0] && slots[0][0] > 1, "{slots:?}");
        // More than there is room for.
        assert_eq!(allot(&[vec![falling(1.0, 3)]], 9, 9), [[3]]);
        assert!(allot(&[], 9, 9).is_empty());
    }
}
