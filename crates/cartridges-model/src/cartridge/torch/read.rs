//! From the pickled dict of four lists to a cartridge in memory.

use std::collections::BTreeMap;
use std::path::Path;

use super::container::Container;
use super::pickle::{Id, Node, Pickle, Tensor};
use super::storage::{Storages, check_view};
use crate::cartridge::error::CartridgeError;
use crate::cartridge::host::{HostCartridge, HostLayer};

/// Each layer takes about 800 bytes of pickle.
pub(crate) const MAX_PICKLE: u64 = 1 << 20;

/// The four lists of a cartridge file, in the order of [`Lists`].
const KEYS: [&str; 4] = [
    "frozen_keys",
    "frozen_values",
    "trainable_keys",
    "trainable_values",
];

/// Tensors per list and layer: frozen keys, frozen values, trainable keys, trainable values.
type Lists = [Vec<Tensor>; 4];

/// Reads a cartridge that the reference saved with `torch.save`: a dict of four `ParameterList`s or
/// plain lists, `frozen_keys`, `frozen_values` (in older files `fixed_*`), `trainable_keys` and
/// `trainable_values`, of tensors `(1, kv_heads, slots, head_dim)` in bfloat16, float16 or float32.
/// The frozen lists may be empty. The number of frozen slots is the size of axis 2 of the frozen
/// tensors; the reference's own loader takes axis 1 by mistake.
///
/// Nothing in the file is executed, and everything that does not belong into such a file is refused.
///
/// # Errors
/// If the file cannot be read or is not such a file; the error names the entry or tensor.
pub fn read_pt(path: &Path) -> Result<HostCartridge, CartridgeError> {
    let mut container = Container::open(path)?;
    let bytes = container.read("data.pkl", MAX_PICKLE)?;
    let lists = parse(path, &bytes)?;
    let sizes = Sizes::of(path, &lists, container.file_len())?;

    let [frozen_keys, frozen_values, keys, values] = &lists;
    let mut storages = Storages::new(container);
    let mut layers = Vec::new();
    for layer in 0..keys.len() {
        layers.push(HostLayer {
            key: join(&mut storages, frozen_keys.get(layer), &keys[layer])?,
            value: join(&mut storages, frozen_values.get(layer), &values[layer])?,
        });
    }
    let slots = sizes.frozen + sizes.trainable;
    HostCartridge::new(sizes.kv_heads, sizes.head_dim, slots, sizes.frozen, layers)
        .map_err(|e| e.in_file(path))
}

/// Finds the tensors in the pickle.
pub(super) fn parse(path: &Path, bytes: &[u8]) -> Result<Lists, CartridgeError> {
    let wrong = |problem: String| CartridgeError::file(path, problem);
    let pickle = Pickle::parse(bytes).map_err(|source| CartridgeError::Pickle {
        path: path.to_owned(),
        source,
    })?;
    let Node::Dict(entries) = pickle.root() else {
        return Err(wrong("the pickled value is not a dict".to_owned()));
    };
    let mut found: [Option<Vec<Tensor>>; 4] = Default::default();
    for (key, value) in entries {
        let name = pickle.text(*key).unwrap_or("(not text)");
        let canonical = match name {
            "fixed_keys" => "frozen_keys",
            "fixed_values" => "frozen_values",
            name => name,
        };
        let Some(at) = KEYS.iter().position(|known| *known == canonical) else {
            let name: String = name.chars().take(100).collect();
            return Err(wrong(format!(
                "unknown key '{name}', expected {}",
                KEYS.join(", ")
            )));
        };
        if found[at]
            .replace(tensors(path, &pickle, canonical, *value)?)
            .is_some()
        {
            return Err(wrong(format!("the key '{canonical}' is there twice")));
        }
    }
    if let Some(at) = found.iter().position(Option::is_none) {
        return Err(wrong(format!("the key '{}' is missing", KEYS[at])));
    }
    Ok(found.map(Option::unwrap_or_default))
}

/// The tensors of one list.
fn tensors(
    path: &Path,
    pickle: &Pickle,
    name: &str,
    list: Id,
) -> Result<Vec<Tensor>, CartridgeError> {
    let ids = match pickle.node(list) {
        Node::List(ids) | Node::Tuple(ids) => ids.clone(),
        Node::ParameterList(Some(state)) => (parameters(pickle, *state))
            .map_err(|problem| CartridgeError::tensor(path, name, problem))?,
        _ => {
            let problem = "is neither a list nor a ParameterList";
            return Err(CartridgeError::tensor(path, name, problem));
        }
    };
    let tensor = |(layer, id): (usize, Id)| match pickle.node(id) {
        Node::Tensor(tensor) if tensor.axes == 4 => Ok((**tensor).clone()),
        other => {
            let problem = match other {
                Node::Tensor(_) => "does not have four axes (1, kv_heads, slots, head_dim)",
                _ => "is not a tensor",
            };
            let name = format!("{name}.{layer}");
            Err(CartridgeError::tensor(path, &name, problem))
        }
    };
    ids.into_iter().enumerate().map(tensor).collect()
}

/// The entries of a `ParameterList`, whose state keeps them under "0", "1", ...
fn parameters(pickle: &Pickle, state: Id) -> Result<Vec<Id>, String> {
    let Node::Dict(state) = pickle.node(state) else {
        return Err("has a state that is not a dict".to_owned());
    };
    // As in Python, the last of several equal keys counts.
    let field = |name| (state.iter().rev()).find(|(key, _)| pickle.text(*key) == Some(name));
    let Some((_, parameters)) = field("_parameters") else {
        return Err("has no _parameters".to_owned());
    };
    let Node::Dict(entries) = pickle.node(*parameters) else {
        return Err("has _parameters that are not a dict".to_owned());
    };
    let mut by_index = BTreeMap::new();
    for (key, value) in entries {
        let index: usize = (pickle.text(*key))
            .and_then(|key| key.parse().ok())
            .ok_or("has a parameter whose name is not a number")?;
        by_index.insert(index, *value);
    }
    let count = by_index.len();
    if by_index
        .last_key_value()
        .is_some_and(|(last, _)| *last != count - 1)
    {
        return Err("has gaps between its parameters".to_owned());
    }
    if let Some((_, size)) = field("_size") {
        match pickle.node(*size) {
            Node::Int(size) if usize::try_from(*size) == Ok(count) => {}
            _ => return Err(format!("has {count} parameters, but another _size")),
        }
    }
    Ok(by_index.into_values().collect())
}

/// What all tensors agree on.
#[derive(Debug)]
struct Sizes {
    kv_heads: usize,
    head_dim: usize,
    frozen: usize,
    trainable: usize,
}

impl Sizes {
    /// Checks every tensor against its storage and all of them against each other. In total they may
    /// not claim more bytes than the file has, so that nothing small unfolds into something large.
    fn of(path: &Path, lists: &Lists, file_len: u64) -> Result<Self, CartridgeError> {
        let layers = lists[2].len();
        let Some(first) = lists[2].first() else {
            return Err(CartridgeError::tensor(path, KEYS[2], "is empty"));
        };
        let frozen_layers = lists[0].len();
        for (name, list) in KEYS.iter().zip(lists) {
            let frozen = name.starts_with("frozen");
            let expected = if frozen { frozen_layers } else { layers };
            if list.len() != expected || (frozen && ![0, layers].contains(&expected)) {
                let problem = format!("has {} layers, trainable_keys has {layers}", list.len());
                return Err(CartridgeError::tensor(path, name, problem));
            }
        }
        let mut total: u64 = 0;
        for (at, (name, list)) in KEYS.iter().zip(lists).enumerate() {
            // Keys and values have the same number of slots: compare with the list of keys.
            let model = lists[at & !1].first().unwrap_or(first);
            for (layer, tensor) in list.iter().enumerate() {
                let wrong = |problem: String| {
                    CartridgeError::tensor(path, &format!("{name}.{layer}"), problem)
                };
                let [_, heads, _, width] = first.shape;
                let expected = [1, heads, model.shape[2], width];
                if tensor.shape != expected {
                    let found = tensor.shape;
                    return Err(wrong(format!("has shape {found:?}, expected {expected:?}")));
                }
                let count = check_view(tensor).map_err(wrong)?;
                total = total.saturating_add(count.saturating_mul(tensor.dtype.size() as u64));
            }
        }
        if total > file_len {
            let problem = format!("the tensors claim {total} bytes, the file has {file_len}");
            return Err(CartridgeError::file(path, problem));
        }
        let size = |n: u64| {
            usize::try_from(n).map_err(|_| CartridgeError::file(path, "a size is out of range"))
        };
        let sizes = Self {
            kv_heads: size(first.shape[1])?,
            head_dim: size(first.shape[3])?,
            frozen: size(lists[0].first().map_or(0, |tensor| tensor.shape[2]))?,
            trainable: size(first.shape[2])?,
        };
        let slots = sizes.frozen.max(sizes.trainable);
        if slots == 0 || sizes.kv_heads == 0 || sizes.head_dim == 0 {
            return Err(CartridgeError::file(
                path,
                format!("holds no elements: {sizes:?}"),
            ));
        }
        Ok(sizes)
    }
}

/// Joins the frozen and the trainable slots of one tensor: `[kv_heads, slots, head_dim]`.
fn join(
    storages: &mut Storages,
    frozen: Option<&Tensor>,
    rest: &Tensor,
) -> Result<Vec<f32>, CartridgeError> {
    let parts = [
        frozen
            .map(|tensor| storages.rows(tensor))
            .transpose()?
            .unwrap_or_default(),
        storages.rows(rest)?,
    ];
    let heads = rest.shape[1] as usize;
    let mut joined = Vec::with_capacity(parts[0].len() + parts[1].len());
    for head in 0..heads {
        for part in &parts {
            let n = part.len() / heads;
            joined.extend(&part[head * n..(head + 1) * n]);
        }
    }
    Ok(joined)
}
