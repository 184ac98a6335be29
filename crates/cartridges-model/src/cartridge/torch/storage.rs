//! The elements behind the tensors of a pickle.

use super::container::Container;
use super::pickle::Tensor;
use crate::cartridge::error::CartridgeError;

/// Checks that a view stays within its storage and does not repeat elements beyond its size; gives
/// back the number of elements.
pub(crate) fn check_view(tensor: &Tensor) -> Result<u64, String> {
    let count = (tensor.shape.iter())
        .try_fold(1, |n: u64, size| n.checked_mul(*size))
        .ok_or("has a shape that overflows")?;
    if count == 0 {
        return Ok(0);
    }
    let last = (tensor.shape.iter().zip(tensor.stride))
        .try_fold(tensor.offset, |at, (size, stride)| {
            at.checked_add((size - 1).checked_mul(stride)?)
        })
        .ok_or("has strides that overflow")?;
    if last >= tensor.storage_len || count > tensor.storage_len {
        let len = tensor.storage_len;
        return Err(format!("reaches beyond its storage of {len} elements"));
    }
    Ok(count)
}

/// Reads storages; keeps the last one, since several tensors may share it.
pub(crate) struct Storages {
    container: Container,
    last: Option<(u64, Vec<u8>)>,
}

impl Storages {
    pub(crate) fn new(container: Container) -> Self {
        Self {
            container,
            last: None,
        }
    }

    /// The elements of a checked view whose first axis is 1, in row-major order.
    pub(crate) fn rows(&mut self, tensor: &Tensor) -> Result<Vec<f32>, CartridgeError> {
        let [_, heads, slots, width] = tensor.shape.map(|n| n as usize);
        let [_, head_step, slot_step, step] = tensor.stride.map(|n| n as usize);
        let mut values = Vec::new();
        if heads * slots * width == 0 {
            return Ok(values);
        }
        let size = tensor.dtype.size();
        let bytes = self.storage(tensor)?;
        values.reserve_exact(heads * slots * width);
        for head in 0..heads {
            for slot in 0..slots {
                let row = tensor.offset as usize + head * head_step + slot * slot_step;
                if step == 1 || width == 1 {
                    tensor
                        .dtype
                        .decode(&bytes[row * size..(row + width) * size], &mut values);
                } else {
                    for i in 0..width {
                        let at = (row + i * step) * size;
                        tensor.dtype.decode(&bytes[at..at + size], &mut values);
                    }
                }
            }
        }
        Ok(values)
    }

    fn storage(&mut self, tensor: &Tensor) -> Result<&[u8], CartridgeError> {
        let number = tensor.storage;
        let name = format!("data/{number}");
        let bytes = match self.last.take() {
            Some((last, bytes)) if last == number => bytes,
            _ => self.container.read(&name, self.container.file_len())?,
        };
        let expected = tensor
            .storage_len
            .saturating_mul(tensor.dtype.size() as u64);
        if bytes.len() as u64 != expected {
            let problem = format!("has {} bytes, the pickle says {expected}", bytes.len());
            return Err(CartridgeError::tensor(
                self.container.path(),
                &name,
                problem,
            ));
        }
        Ok(&self.last.insert((number, bytes)).1)
    }
}
