//! Candidates as servers list them, made into a dense matrix.

use super::protocol::bad;
use super::{ClientError, DenseTopLogprobs};

/// A token that could stand at a position, with its natural log-probability.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Candidate {
    pub id: u32,
    pub logprob: f32,
}

/// The k likeliest of every row, most likely first. Servers put the sampled token before the others
/// or list it twice, so rows are sorted and ids kept once.
pub(super) fn dense(rows: Vec<Vec<Candidate>>, k: usize) -> Result<DenseTopLogprobs, ClientError> {
    let mut dense = DenseTopLogprobs {
        k,
        ..DenseTopLogprobs::default()
    };
    let count = rows.len();
    for (position, mut row) in rows.into_iter().enumerate() {
        if row.iter().any(|c| c.logprob.is_nan()) {
            return Err(bad(format!(
                "a log-probability at position {position} is not a number"
            )));
        }
        // Stable: of equally likely ones, the one the server names first stays first.
        row.sort_by(|a, b| b.logprob.total_cmp(&a.logprob));
        let begin = dense.token_ids.len();
        for candidate in row {
            if dense.token_ids.len() - begin == k {
                break;
            }
            if !dense.token_ids[begin..].contains(&candidate.id) {
                dense.token_ids.push(candidate.id);
                dense.logprobs.push(candidate.logprob);
            }
        }
        let found = dense.token_ids.len() - begin;
        if found < k {
            return Err(bad(format!(
                "{found} candidates at position {position}, expected {k}"
            )));
        }
    }
    dense.check(count)?;
    Ok(dense)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(values: &[(u32, f32)]) -> Vec<Candidate> {
        let candidate = |&(id, logprob)| Candidate { id, logprob };
        values.iter().map(candidate).collect()
    }

    #[test]
    fn rows_are_sorted_without_repetition_and_cut_to_k() {
        let sampled_first = row(&[(7, -3.0), (1, -0.5), (2, -1.5), (7, -3.0)]);
        let plain = row(&[(4, -0.1), (5, -4.0), (6, -5.0)]);
        let matrix = dense(vec![sampled_first, plain], 2).unwrap();
        assert_eq!(matrix.token_ids, [1, 2, 4, 5]);
        assert_eq!(matrix.logprobs, [-0.5, -1.5, -0.1, -4.0]);
    }

    #[test]
    fn short_rows_and_odd_values_are_refused() {
        for bad in [
            row(&[(1, -0.5)]),
            row(&[(1, -0.5), (1, -0.5)]),
            row(&[(1, -0.5), (2, f32::NAN)]),
            row(&[(1, 0.5), (2, -1.0)]),
        ] {
            assert!(matches!(dense(vec![bad], 2), Err(ClientError::BadReply(_))));
        }
        assert_eq!(dense(Vec::new(), 2).unwrap().rows(), 0);
    }
}
