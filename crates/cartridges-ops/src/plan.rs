//! An attention layout cut into pieces of work for a device: which rows meet which keys.

use crate::layout::{AttentionLayout, KeyRange, QueryRun};

/// Numbers of a [`Piece`] as the kernels read it.
pub const FIELDS: usize = 8;

/// Fewer pieces than this leave a large device idle; ranges of keys are then split.
const ENOUGH_PIECES: usize = 512;

/// Keys that are not worth splitting.
const FEW_KEYS: usize = 128;

/// Consecutive query rows and consecutive keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Piece {
    /// First query row.
    pub row: usize,
    /// Number of query rows.
    pub rows: usize,
    /// First key.
    pub key: usize,
    /// Number of keys.
    pub keys: usize,
    /// How many of the keys the first row sees, less than none if it sees none.
    pub limit: isize,
    /// How many more each further row sees: 1 in a causal range, else 0.
    pub step: usize,
    /// Which partial result of its rows this is.
    pub slot: usize,
}

impl Piece {
    /// How many of the keys the row `row` of the piece sees.
    fn visible(&self, row: usize) -> usize {
        let seen = self.limit + (self.step * row) as isize;
        seen.clamp(0, self.keys as isize) as usize
    }

    fn fields(&self) -> [i32; FIELDS] {
        let int = |value: usize| value as i32;
        [
            int(self.row),
            int(self.rows),
            int(self.key),
            int(self.keys),
            self.limit as i32,
            int(self.step),
            int(self.slot),
            0,
        ]
    }

    /// The part from the row `from` on of at most `rows` rows, without keys that none of them sees.
    fn narrow(&self, from: usize, rows: usize) -> Self {
        let rows = rows.min(self.rows - from);
        let mut piece = Self {
            row: self.row + from,
            rows,
            limit: self.limit + (self.step * from) as isize,
            ..*self
        };
        piece.keys = piece.visible(rows - 1);
        piece
    }
}

/// Ranges of keys with all the neighbouring rows that see them: a cartridge that a whole batch shares is
/// one of them.
fn spans(layout: &AttentionLayout) -> Vec<Piece> {
    let mut spans: Vec<Piece> = Vec::new();
    // Those that ended with the last row of the run before.
    let mut open: Vec<usize> = Vec::new();
    for run in layout.runs() {
        let mut next = Vec::with_capacity(run.keys.len());
        for range in run.keys.iter().filter(|range| range.len > 0) {
            let same = |at: &&usize| {
                let span = &spans[**at];
                span.step == 0 && (span.key, span.keys) == (range.start, range.len)
            };
            let shared = open.iter().find(same).filter(|_| !range.causal).copied();
            match shared {
                Some(at) => spans[at].rows += run.len,
                None => spans.push(span(run, range)),
            }
            next.push(shared.unwrap_or(spans.len() - 1));
        }
        open = next;
    }
    spans
}

fn span(run: &QueryRun, range: &KeyRange) -> Piece {
    Piece {
        row: run.start,
        rows: run.len,
        key: range.start,
        keys: range.len,
        limit: AttentionLayout::visible(run, range, run.start) as isize,
        step: usize::from(range.causal),
        slot: 0,
    }
}

/// The work of a forward pass: every visible pair of a row and a key is in exactly one piece.
#[derive(Debug, Default)]
pub struct Forward {
    /// Pieces of at most so many rows as was asked for.
    pub pieces: Vec<Piece>,
    /// How many partial results a row has at most.
    pub slots: usize,
}

impl Forward {
    /// Cuts `layout` into pieces of at most `rows` rows. A piece is worked on once for each of `heads`.
    pub fn new(layout: &AttentionLayout, rows: usize, heads: usize) -> Self {
        let spans = spans(layout);
        let whole: usize = spans.iter().map(|span| span.rows.div_ceil(rows)).sum();
        let parts = (ENOUGH_PIECES / (whole * heads).max(1)).max(1);
        let mut used = vec![0; layout.num_queries()];
        let mut plan = Self::default();
        for span in spans {
            let width = span.keys.div_ceil(parts).max(FEW_KEYS);
            for from in (0..span.keys).step_by(width) {
                let of_rows = &mut used[span.row..span.row + span.rows];
                let slot = of_rows.iter().copied().max().unwrap_or_default();
                of_rows.fill(slot + 1);
                plan.slots = plan.slots.max(slot + 1);
                let part = Piece {
                    key: span.key + from,
                    keys: width.min(span.keys - from),
                    limit: span.limit - from as isize,
                    slot,
                    ..span
                };
                let pieces = (0..part.rows).step_by(rows).map(|at| part.narrow(at, rows));
                plan.pieces.extend(pieces.filter(|piece| piece.keys > 0));
            }
        }
        plan
    }

    /// The pieces as the kernels read them.
    pub fn data(&self) -> Vec<i32> {
        self.pieces.iter().flat_map(Piece::fields).collect()
    }
}

/// The work of the gradients for keys and values, by blocks of keys: the start of each block's pieces, a
/// last number for the end, then the pieces, whose rows are not cut.
pub fn by_keys(layout: &AttentionLayout, block: usize) -> Vec<i32> {
    let blocks = layout.num_keys().div_ceil(block);
    let mut pieces: Vec<Vec<Piece>> = vec![Vec::new(); blocks];
    for span in spans(layout) {
        let last = span.key + span.keys - 1;
        for (at, pieces) in pieces
            .iter_mut()
            .enumerate()
            .take(last / block + 1)
            .skip(span.key / block)
        {
            // The first row that sees the first key of the block.
            let first = (at * block).saturating_sub(span.key) as isize;
            let blind = (first + 1 - span.limit).max(0) as usize * span.step;
            pieces.push(span.narrow(blind, span.rows - blind));
        }
    }
    let mut data = Vec::with_capacity(blocks + 1);
    let mut next = 0;
    for pieces in &pieces {
        data.push(next);
        next += pieces.len() as i32;
    }
    data.push(next);
    data.extend(pieces.iter().flatten().flat_map(Piece::fields));
    data
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A prompt, three short answers of which two share two ranges, and a run that sees nothing.
    fn layouts() -> Vec<AttentionLayout> {
        let key = |start, len, causal| KeyRange { start, len, causal };
        let run = |start, len, keys| QueryRun { start, len, keys };
        let mixed = vec![
            run(0, 3, vec![key(0, 400, false), key(420, 5, true)]),
            run(
                3,
                1,
                vec![key(0, 400, false), key(410, 3, false), key(425, 1, true)],
            ),
            run(
                4,
                2,
                vec![key(410, 3, false), key(0, 400, false), key(430, 20, true)],
            ),
            run(6, 1, vec![]),
            run(7, 1, vec![key(0, 400, false)]),
        ];
        vec![
            AttentionLayout::packed(4, &[2, 0, 3]),
            AttentionLayout::packed(0, &[37]),
            AttentionLayout::packed(300, &[130, 1, 57]),
            AttentionLayout::new(mixed, 8, 460).unwrap(),
        ]
    }

    fn seen_by_layout(layout: &AttentionLayout) -> Vec<(usize, usize)> {
        let mut pairs = Vec::new();
        for run in layout.runs() {
            for query in run.start..run.start + run.len {
                for range in &run.keys {
                    let seen = AttentionLayout::visible(run, range, query);
                    pairs.extend((range.start..range.start + seen).map(|key| (query, key)));
                }
            }
        }
        pairs.sort_unstable();
        pairs
    }

    /// The pairs of one piece, as a kernel reads it.
    fn seen_by(fields: &[i32]) -> Vec<(usize, usize)> {
        let [row, rows, key, keys, limit, step, ..] = *fields else {
            panic!("{} fields", fields.len())
        };
        let of_row = |i: i32| {
            let seen = (limit + step * i).clamp(0, keys);
            (key..key + seen).map(move |key| ((row + i) as usize, key as usize))
        };
        (0..rows).flat_map(of_row).collect()
    }

    #[test]
    fn the_forward_pieces_hold_every_visible_pair_once() {
        for layout in layouts() {
            for (rows, heads) in [(1, 1), (3, 1), (16, 8), (64, 1000)] {
                let plan = Forward::new(&layout, rows, heads);
                let data = plan.data();
                let mut pairs: Vec<_> = data.chunks(FIELDS).flat_map(seen_by).collect();
                pairs.sort_unstable();
                assert_eq!(pairs, seen_by_layout(&layout));
                let fits = |piece: &Piece| piece.rows <= rows && piece.slot < plan.slots;
                assert!(plan.pieces.iter().all(fits));
                let mut slots: Vec<_> = (plan.pieces.iter())
                    .flat_map(|p| (p.row..p.row + p.rows).map(|row| (row, p.slot)))
                    .collect();
                slots.sort_unstable();
                let twice = slots.windows(2).any(|pair| pair[0] == pair[1]);
                assert!(!twice, "a slot is written twice");
            }
        }
    }

    #[test]
    fn a_shared_range_is_one_span_and_few_rows_split_their_keys() {
        let layout = AttentionLayout::packed(1024, &[1; 16]);
        let shared = |plan: &Forward| plan.pieces.iter().filter(|p| p.rows == 16).count();
        assert_eq!(shared(&Forward::new(&layout, 16, 64)), 1);
        assert_eq!(shared(&Forward::new(&layout, 16, 1)), 8);
    }

    #[test]
    fn the_pieces_by_keys_hold_every_visible_pair_once() {
        for layout in layouts() {
            for block in [1, 4, 16] {
                let data = by_keys(&layout, block);
                let blocks = layout.num_keys().div_ceil(block);
                let (starts, pieces) = data.split_at(blocks + 1);
                let mut pairs = Vec::new();
                for (at, ends) in starts.windows(2).enumerate() {
                    let of_block = ends[0] as usize * FIELDS..ends[1] as usize * FIELDS;
                    let seen = pieces[of_block].chunks(FIELDS).flat_map(seen_by);
                    pairs.extend(seen.filter(|(_, key)| key / block == at));
                }
                pairs.sort_unstable();
                assert_eq!(pairs, seen_by_layout(&layout));
            }
        }
    }
}
