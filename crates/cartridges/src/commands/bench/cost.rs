//! What work needs at least: operations and bytes, by formula.
//!
//! A product of `[n, k]` and `[k, m]` is `2nkm` operations. Only pairs that the mask allows count, and what is
//! computed a second time to save memory does not.

use cartridges_model::decoder::{Decoder, ModelConfig};

/// Rows that go through a model together.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rows {
    /// Tokens.
    pub(super) tokens: usize,
    /// Rows whose logits are computed.
    pub(super) predicting: usize,
    /// Pairs of a query and a key that it sees, in one head of one layer.
    pub(super) pairs: usize,
}

impl Rows {
    /// `segments` conversations of `segment` tokens each, all behind the same `prefix` rows of keys.
    pub(super) fn packed(segments: usize, segment: usize, prefix: usize) -> Self {
        Self {
            tokens: segments * segment,
            predicting: segments * (segment / 2),
            pairs: segments * (segment * prefix + segment * (segment + 1) / 2),
        }
    }
}

/// Operations of a forward pass: of the layers, of attention, and of the head.
fn forward(shape: &ModelConfig, rows: Rows) -> [f64; 3] {
    let table = shape.vocab_size * shape.hidden_size;
    let layers = shape.matrix_values(true) - table;
    let attention = 4 * shape.num_heads * shape.head_dim * shape.num_layers;
    [
        2.0 * (layers * rows.tokens) as f64,
        (attention * rows.pairs) as f64,
        2.0 * (table * rows.predicting) as f64,
    ]
}

/// Operations of a forward pass.
pub(super) fn forward_operations(shape: &ModelConfig, rows: Rows) -> f64 {
    forward(shape, rows).iter().sum()
}

/// Operations of a training step with frozen weights: backwards a matrix costs what it costs forwards, and
/// attention twice that.
pub(super) fn training_operations(shape: &ModelConfig, rows: Rows) -> f64 {
    let [layers, attention, head] = forward(shape, rows);
    2.0 * layers + 3.0 * attention + 2.0 * head
}

/// Bytes that a pass over few rows reads: all matrices once, and `rows` of keys and values in f32.
pub(super) fn bytes_read(decoder: &Decoder, rows: usize) -> f64 {
    let keys_and_values = decoder.config().kv_bytes_per_token(4) * rows;
    (decoder.bytes_per_pass() + keys_and_values) as f64
}

#[cfg(test)]
mod tests {
    use cartridges_model::hub::find_card;

    use super::{Rows, forward_operations, training_operations};

    #[test]
    fn operations_are_those_of_a_count_by_hand() {
        let shape = &find_card("smollm2-135m").unwrap().unwrap().shape;
        let rows = Rows::packed(2, 3, 5);
        // Each of the three queries of a segment sees five slots, and one, two or three tokens.
        assert_eq!((rows.tokens, rows.predicting, rows.pairs), (6, 2, 42));
        // q and o: 576 × 576; k and v: 192 × 576; gate, up and down: 1536 × 576. Thirty layers.
        let per_layer = 2 * 576 * 576 + 2 * 192 * 576 + 3 * 1536 * 576;
        let layers = (2 * 6 * 30 * per_layer) as f64;
        // A score and a share of a value for each of 9 · 64 numbers.
        let attention = (2 * 2 * 42 * 9 * 64 * 30) as f64;
        let head = (2 * 2 * 49_152 * 576) as f64;
        assert_eq!(forward_operations(shape, rows), layers + attention + head);
        let training = 2.0 * layers + 3.0 * attention + 2.0 * head;
        assert_eq!(training_operations(shape, rows), training);
    }
}
