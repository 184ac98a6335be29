//! The cartridge as a Burn module.

use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor};

use super::error::CartridgeError;
use super::host::{HostCartridge, HostLayer};

/// Trained keys and values that stand before the tokens of a request (arXiv 2506.06266).
///
/// Per layer, frozen and trainable parts are `[slots, kv_heads, head_dim]`; keys are stored after
/// rope for positions `0 .. p`, so a request's first token stands at position `p`. The frozen part is
/// the attention sink, which training leaves alone.
#[derive(Module, Debug)]
pub struct Cartridge {
    frozen_keys: Vec<Tensor<3>>,
    frozen_values: Vec<Tensor<3>>,
    keys: Vec<Param<Tensor<3>>>,
    values: Vec<Param<Tensor<3>>>,
}

impl Cartridge {
    /// Puts a cartridge on a device.
    pub fn from_host(host: &HostCartridge, device: &Device) -> Self {
        let (frozen, slots) = (host.frozen, host.slots);
        let part = |x: &Tensor<3>, from: usize, to: usize| x.clone().narrow(0, from, to - from);
        let mut made = Self {
            frozen_keys: Vec::new(),
            frozen_values: Vec::new(),
            keys: Vec::with_capacity(host.layers.len()),
            values: Vec::with_capacity(host.layers.len()),
        };
        for (key, value) in host.tensors(device) {
            // A narrow of zero rows is not a tensor on every backend.
            if frozen > 0 {
                made.frozen_keys.push(part(&key, 0, frozen));
                made.frozen_values.push(part(&value, 0, frozen));
            }
            made.keys
                .push(Param::from_tensor(part(&key, frozen, slots)));
            made.values
                .push(Param::from_tensor(part(&value, frozen, slots)));
        }
        made
    }

    /// Copies the cartridge into plain memory and checks it.
    ///
    /// # Errors
    /// If a value is not finite.
    pub fn to_host(&self) -> Result<HostCartridge, CartridgeError> {
        let [_, kv_heads, head_dim] = self.keys[0].val().dims();
        let read = |tensor: Tensor<3>| -> Result<Vec<f32>, CartridgeError> {
            tensor
                .permute([1, 0, 2])
                .into_data()
                .convert::<f32>()
                .try_to_vec::<f32>()
                .map_err(|_| {
                    CartridgeError::shape("cartridge", "could not be read from the device")
                })
        };
        let layers = (0..self.keys.len())
            .map(|layer| {
                let (key, value) = self.layer(layer);
                Ok(HostLayer {
                    key: read(key.inner())?,
                    value: read(value.inner())?,
                })
            })
            .collect::<Result<_, CartridgeError>>()?;
        HostCartridge::new(kv_heads, head_dim, self.slots(), self.frozen(), layers)
    }

    /// Number of slots `p`, frozen ones included.
    pub fn slots(&self) -> usize {
        self.frozen() + self.keys[0].val().dims()[0]
    }

    /// Number of frozen slots.
    pub fn frozen(&self) -> usize {
        self.frozen_keys.first().map_or(0, |keys| keys.dims()[0])
    }

    /// Number of layers.
    pub fn num_layers(&self) -> usize {
        self.keys.len()
    }

    /// Keys and values of one layer, `[p, kv_heads, head_dim]`, tracked where the parameters are.
    pub fn layer(&self, layer: usize) -> (Tensor<3>, Tensor<3>) {
        self.layer_with(layer, self.keys[layer].val(), self.values[layer].val())
    }

    /// The layer's frozen slots followed by the given trainable keys and values.
    pub fn layer_with(
        &self,
        layer: usize,
        keys: Tensor<3>,
        values: Tensor<3>,
    ) -> (Tensor<3>, Tensor<3>) {
        match (self.frozen_keys.get(layer), self.frozen_values.get(layer)) {
            (Some(k), Some(v)) => (
                Tensor::cat(vec![k.clone(), keys], 0),
                Tensor::cat(vec![v.clone(), values], 0),
            ),
            _ => (keys, values),
        }
    }

    /// All trainable tensors, `[p − frozen, kv_heads, head_dim]`: keys of every layer, then values.
    pub fn trainable(&self) -> Vec<Tensor<3>> {
        self.keys
            .iter()
            .chain(&self.values)
            .map(|p| p.val())
            .collect()
    }

    /// The same cartridge with other trainable tensors, in the order of [`Cartridge::trainable`].
    ///
    /// # Panics
    /// If the number of tensors differs.
    pub fn with_trainable(mut self, tensors: Vec<Tensor<3>>) -> Self {
        assert_eq!(tensors.len(), self.keys.len() + self.values.len());
        let parameters = self.keys.iter_mut().chain(&mut self.values);
        for (parameter, tensor) in parameters.zip(tensors) {
            *parameter = Param::initialized(parameter.id, tensor);
        }
        self
    }
}
