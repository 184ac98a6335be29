//! Writing the reference's file format.

use std::io::{self, Write};
use std::path::Path;

use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipWriter};

use crate::atomic_file::write_atomic;
use crate::cartridge::dtype::CartridgeDtype;
use crate::cartridge::error::CartridgeError;
use crate::cartridge::host::HostCartridge;

/// Alignment of the storages, as newer versions of torch write them.
const ALIGNMENT: u16 = 64;
/// From here on an entry needs the 64-bit fields of ZIP.
const LARGE: usize = u32::MAX as usize;

/// Saves a cartridge as a `.pt` file that the reference's trainer and server load: a dict of four plain
/// lists of tensors `(1, kv_heads, slots, head_dim)`, which `torch.load` accepts even with
/// `weights_only=True`. The reference itself uses `dtype` bfloat16.
///
/// A cartridge without frozen slots gets frozen tensors of zero slots instead of empty lists, because
/// the reference refuses lists of different lengths.
///
/// # Errors
/// If an element is not finite in `dtype`, or writing fails; an older file then stays as it was.
pub fn write_pt(
    path: &Path,
    cartridge: &HostCartridge,
    dtype: CartridgeDtype,
) -> Result<(), CartridgeError> {
    cartridge.validate_as(dtype)?;
    // torch names the folder after the file; any plain name will do.
    let stem = (path.file_stem().and_then(|stem| stem.to_str()))
        .filter(|stem| {
            stem.bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
        })
        .unwrap_or("archive");
    write_atomic(path, |w| write_container(w, stem, cartridge, dtype))?;
    Ok(())
}

fn write_container(
    writer: &mut dyn Write,
    root: &str,
    cartridge: &HostCartridge,
    dtype: CartridgeDtype,
) -> io::Result<()> {
    let mut zip = ZipWriter::new_stream(writer);
    let mut entry = |name: &str, bytes: &[u8]| -> io::Result<()> {
        let options = SimpleFileOptions::default()
            .compression_method(CompressionMethod::Stored)
            .with_alignment(ALIGNMENT)
            .large_file(bytes.len() >= LARGE);
        zip.start_file(format!("{root}/{name}"), options)?;
        zip.write_all(bytes)
    };
    entry("data.pkl", &pickle(cartridge, dtype))?;
    entry("byteorder", b"little")?;
    let mut bytes = Vec::new();
    let tensors = (LISTS.iter()).flat_map(|list| cartridge.layers.iter().map(move |l| (list, l)));
    for (number, (list, layer)) in tensors.enumerate() {
        let data = if list.values {
            &layer.value
        } else {
            &layer.key
        };
        let (from, to) = list.slots(cartridge);
        bytes.clear();
        for head in data.chunks_exact(cartridge.slots * cartridge.head_dim) {
            dtype.encode(
                &head[from * cartridge.head_dim..to * cartridge.head_dim],
                &mut bytes,
            );
        }
        entry(&format!("data/{number}"), &bytes)?;
    }
    entry("version", b"3\n")?;
    zip.finish()?;
    Ok(())
}

/// One of the four lists.
struct List {
    name: &'static str,
    values: bool,
    frozen: bool,
}

/// In the order in which the reference writes them.
const LISTS: [List; 4] = [
    List {
        name: "trainable_keys",
        values: false,
        frozen: false,
    },
    List {
        name: "trainable_values",
        values: true,
        frozen: false,
    },
    List {
        name: "frozen_keys",
        values: false,
        frozen: true,
    },
    List {
        name: "frozen_values",
        values: true,
        frozen: true,
    },
];

impl List {
    /// First slot and the one after the last.
    fn slots(&self, cartridge: &HostCartridge) -> (usize, usize) {
        if self.frozen {
            (0, cartridge.frozen)
        } else {
            (cartridge.frozen, cartridge.slots)
        }
    }
}

/// The pickle (protocol 2) that describes the tensors.
fn pickle(cartridge: &HostCartridge, dtype: CartridgeDtype) -> Vec<u8> {
    let class = match dtype {
        CartridgeDtype::F32 => "FloatStorage",
        CartridgeDtype::F16 => "HalfStorage",
        CartridgeDtype::Bf16 => "BFloat16Storage",
    };
    let mut out = PickleWriter {
        bytes: b"\x80\x02}(".to_vec(),
    };
    let mut number = 0;
    for list in &LISTS {
        out.text(list.name);
        out.raw(b"](");
        let (from, to) = list.slots(cartridge);
        let shape = [1, cartridge.kv_heads, to - from, cartridge.head_dim];
        for _ in &cartridge.layers {
            out.tensor(number, class, shape);
            number += 1;
        }
        out.raw(b"e");
    }
    out.raw(b"u.");
    out.bytes
}

struct PickleWriter {
    bytes: Vec<u8>,
}

impl PickleWriter {
    fn raw(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    fn text(&mut self, text: &str) {
        self.raw(b"X");
        // Only names of this file come here.
        self.raw(&(text.len() as u32).to_le_bytes());
        self.raw(text.as_bytes());
    }

    fn class(&mut self, module: &str, name: &str) {
        self.raw(format!("c{module}\n{name}\n").as_bytes());
    }

    fn int(&mut self, n: usize) {
        if let Ok(n) = u8::try_from(n) {
            self.raw(&[b'K', n]);
        } else if let Ok(n) = i32::try_from(n) {
            self.raw(b"J");
            self.raw(&n.to_le_bytes());
        } else {
            // LONG1 is signed; nothing in memory has 2^63 elements.
            self.raw(&[0x8a, 8]);
            self.raw(&(n as u64).to_le_bytes());
        }
    }

    /// `_rebuild_tensor_v2(storage, 0, shape, strides, False, OrderedDict())`.
    fn tensor(&mut self, number: usize, class: &str, shape: [usize; 4]) {
        let [_, heads, slots, width] = shape;
        self.class("torch._utils", "_rebuild_tensor_v2");
        self.raw(b"((");
        self.text("storage");
        self.class("torch", class);
        self.text(&number.to_string());
        self.text("cpu");
        self.int(heads * slots * width);
        self.raw(b"tQ");
        self.int(0);
        for four in [shape, [heads * slots * width, slots * width, width, 1]] {
            self.raw(b"(");
            four.iter().for_each(|n| self.int(*n));
            self.raw(b"t");
        }
        self.raw(b"\x89");
        self.class("collections", "OrderedDict");
        self.raw(b")RtR");
    }
}
