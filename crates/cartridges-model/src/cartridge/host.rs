//! A cartridge in plain memory: what files are read into and written from.

use burn::tensor::{Device, Tensor, TensorData};

use super::dtype::CartridgeDtype;
use super::error::{CartridgeError, Part};

/// Keys and values of one layer, each `[kv_heads, slots, head_dim]` row-major, frozen slots first.
#[derive(Debug, Clone, PartialEq)]
pub struct HostLayer {
    /// Keys, after rotary embedding (and after the key norm where the model has one).
    pub key: Vec<f32>,
    /// Values.
    pub value: Vec<f32>,
}

/// A cartridge in plain memory (arXiv 2506.06266): per layer the keys and values that stand before
/// the tokens of a request.
#[derive(Debug, Clone, PartialEq)]
pub struct HostCartridge {
    /// The first `frozen` slots were not trained (attention sink; 1 in the reference).
    pub frozen: usize,
    /// One entry per decoder layer.
    pub layers: Vec<HostLayer>,
    /// Number of key/value heads.
    pub kv_heads: usize,
    /// Width of one head.
    pub head_dim: usize,
    /// Number of slots `p`, frozen ones included.
    pub slots: usize,
}

impl HostCartridge {
    /// Builds a cartridge and checks it.
    ///
    /// # Errors
    /// See [`HostCartridge::validate`].
    pub fn new(
        kv_heads: usize,
        head_dim: usize,
        slots: usize,
        frozen: usize,
        layers: Vec<HostLayer>,
    ) -> Result<Self, CartridgeError> {
        let cartridge = Self {
            frozen,
            layers,
            kv_heads,
            head_dim,
            slots,
        };
        cartridge.validate()?;
        Ok(cartridge)
    }

    /// Checks that no size is zero, `frozen <= slots`, every tensor has
    /// `kv_heads * slots * head_dim` elements, and every element is finite.
    ///
    /// # Errors
    /// [`CartridgeError::Shape`], [`CartridgeError::Length`] or [`CartridgeError::NotFinite`], which
    /// name the layer, the tensor and the index.
    pub fn validate(&self) -> Result<(), CartridgeError> {
        self.validate_as(CartridgeDtype::F32)
    }

    /// Like [`HostCartridge::validate`], and every element must stay finite when rounded to `dtype`.
    ///
    /// # Errors
    /// As [`HostCartridge::validate`].
    pub fn validate_as(&self, dtype: CartridgeDtype) -> Result<(), CartridgeError> {
        let sizes = [
            ("layers", self.layers.len()),
            ("kv_heads", self.kv_heads),
            ("head_dim", self.head_dim),
            ("slots", self.slots),
        ];
        for (field, size) in sizes {
            if size == 0 {
                return Err(CartridgeError::shape(field, "is 0, expected at least 1"));
            }
        }
        if self.frozen > self.slots {
            let problem = format!(
                "is {}, expected at most the {} slots",
                self.frozen, self.slots
            );
            return Err(CartridgeError::shape("frozen", problem));
        }
        let expected = (self.kv_heads)
            .checked_mul(self.slots)
            .and_then(|n| n.checked_mul(self.head_dim))
            .ok_or_else(|| CartridgeError::shape("slots", "times heads and width overflows"))?;
        for (layer, tensors) in self.layers.iter().enumerate() {
            for (part, data) in [(Part::Key, &tensors.key), (Part::Value, &tensors.value)] {
                if data.len() != expected {
                    return Err(CartridgeError::Length {
                        layer,
                        part,
                        expected,
                        found: data.len(),
                    });
                }
                if let Some(index) = data.iter().position(|v| !dtype.round(*v).is_finite()) {
                    return Err(CartridgeError::NotFinite {
                        layer,
                        part,
                        index,
                        value: data[index],
                        dtype: dtype.name(),
                    });
                }
            }
        }
        Ok(())
    }

    /// Keys and values of one layer on a device, `[slots, kv_heads, head_dim]`.
    pub fn layer_tensors(&self, layer: &HostLayer, device: &Device) -> (Tensor<3>, Tensor<3>) {
        let shape = [self.kv_heads, self.slots, self.head_dim];
        let upload = |values: &[f32]| {
            Tensor::<3>::from_data(TensorData::new(values.to_vec(), shape), device)
                .permute([1, 0, 2])
        };
        (upload(&layer.key), upload(&layer.value))
    }

    /// Those of all layers, in order.
    pub fn tensors(&self, device: &Device) -> Vec<(Tensor<3>, Tensor<3>)> {
        let layers = self.layers.iter();
        layers.map(|l| self.layer_tensors(l, device)).collect()
    }

    /// Elements of one tensor: `kv_heads * slots * head_dim`.
    pub fn tensor_len(&self) -> usize {
        self.kv_heads * self.slots * self.head_dim
    }

    /// The slots that are trained: `slots - frozen`.
    pub fn trainable(&self) -> usize {
        self.slots - self.frozen
    }

    /// Bytes of all keys and values in `dtype`.
    pub fn byte_len(&self, dtype: CartridgeDtype) -> usize {
        self.layers.len() * 2 * self.tensor_len() * dtype.size()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layer(n: usize) -> HostLayer {
        HostLayer {
            key: vec![0.5; n],
            value: vec![-0.5; n],
        }
    }

    #[test]
    fn sizes_are_checked() {
        assert!(HostCartridge::new(2, 3, 4, 4, vec![layer(24)]).is_ok());
        for (args, word) in [
            ((0, 3, 4, 0), "kv_heads"),
            ((2, 0, 4, 0), "head_dim"),
            ((2, 3, 0, 0), "slots"),
            ((2, 3, 4, 5), "frozen"),
            ((usize::MAX, 3, 4, 0), "overflow"),
        ] {
            let (h, d, p, f) = args;
            let error = HostCartridge::new(h, d, p, f, vec![layer(24)]).unwrap_err();
            assert!(error.to_string().contains(word), "{error}");
        }
        let none = HostCartridge::new(2, 3, 4, 0, vec![]).unwrap_err();
        assert!(none.to_string().contains("layers"), "{none}");
        let mut short = layer(24);
        short.value.pop();
        let error = HostCartridge::new(2, 3, 4, 1, vec![layer(24), short]).unwrap_err();
        let text = error.to_string();
        assert_eq!(text, "cartridge layer 1 value: 23 elements, expected 24");
    }

    #[test]
    fn numbers_are_checked_against_their_type() {
        let mut bad = layer(24);
        bad.key[7] = f32::NAN;
        let error = HostCartridge::new(2, 3, 4, 1, vec![layer(24), bad]).unwrap_err();
        assert!(
            error.to_string().contains("layer 1 key: element 7 is NaN"),
            "{error}"
        );
        let mut big = layer(24);
        big.value[3] = 1e6;
        let cartridge = HostCartridge::new(2, 3, 4, 1, vec![big]).unwrap();
        assert!(cartridge.validate_as(CartridgeDtype::Bf16).is_ok());
        let error = cartridge.validate_as(CartridgeDtype::F16).unwrap_err();
        assert!(error.to_string().contains("finite f16"), "{error}");
    }
}
