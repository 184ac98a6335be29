//! The start of training, the same for all members.

use cartridges_model::cartridge::{HostCartridge, HostLayer};

use super::exchange::{Exchange, GroupError};
use crate::trainer::TrainError;

/// Gives the cartridge that member 0 starts from to all. The others bring none: making one takes long,
/// and its last digits depend on the machine.
///
/// # Errors
/// If a member is lost, or member 0 brings none.
pub fn share_start(
    group: &mut dyn Exchange,
    start: Option<HostCartridge>,
) -> Result<HostCartridge, TrainError> {
    let bytes = start.as_ref().map(write).unwrap_or_default();
    let shared = group.share(bytes)?;
    match start {
        Some(start) if group.rank() == 0 => Ok(start),
        _ => read(&shared),
    }
}

/// Five sizes, then every layer's keys and values.
fn write(cartridge: &HostCartridge) -> Vec<u8> {
    let sizes = [
        cartridge.frozen,
        cartridge.kv_heads,
        cartridge.head_dim,
        cartridge.slots,
        cartridge.layers.len(),
    ];
    let values = cartridge.layers.iter().flat_map(|l| [&l.key, &l.value]);
    let values = values.flatten().flat_map(|x| x.to_le_bytes());
    let sizes = sizes.iter().flat_map(|n| (*n as u64).to_le_bytes());
    sizes.chain(values).collect()
}

fn read(bytes: &[u8]) -> Result<HostCartridge, TrainError> {
    let broken = || GroupError::Lost {
        who: "the leader".to_owned(),
        problem: "the cartridge to start from did not come whole".to_owned(),
    };
    let (sizes, rest) = bytes.split_at_checked(40).ok_or_else(broken)?;
    let (sizes, _) = sizes.as_chunks::<8>();
    let size = |i: usize| usize::try_from(u64::from_le_bytes(sizes[i])).map_err(|_| broken());
    let [frozen, kv_heads, head_dim, slots, layers] =
        [size(0)?, size(1)?, size(2)?, size(3)?, size(4)?];
    let (values, _) = rest.as_chunks::<4>();
    let values: Vec<f32> = values.iter().map(|b| f32::from_le_bytes(*b)).collect();
    let width = values.len().checked_div(2 * layers).ok_or_else(broken)?;
    if width == 0 || rest.len() != 8 * layers * width {
        return Err(broken().into());
    }
    let layers = values.chunks_exact(2 * width).map(|both| HostLayer {
        key: both[..width].to_vec(),
        value: both[width..].to_vec(),
    });
    let layers = layers.collect();
    Ok(HostCartridge::new(
        kv_heads, head_dim, slots, frozen, layers,
    )?)
}
