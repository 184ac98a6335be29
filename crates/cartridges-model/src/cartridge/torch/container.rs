//! The ZIP container that `torch.save` writes: every entry stored, none compressed.

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};

use zip::read::ZipReadOptions;
use zip::{CompressionMethod, ZipArchive};

use crate::cartridge::error::CartridgeError;

/// An open `.pt` file.
pub(crate) struct Container {
    archive: ZipArchive<BufReader<File>>,
    path: PathBuf,
    file_len: u64,
    /// Folder of `data.pkl` with its slash; all other entries lie below it.
    root: String,
}

impl Container {
    pub(crate) fn open(path: &Path) -> Result<Self, CartridgeError> {
        let read = |e| CartridgeError::read(path, e);
        let wrong = |problem: String| CartridgeError::file(path, problem);

        let mut file = File::open(path).map_err(read)?;
        let file_len = file.metadata().map_err(read)?.len();
        let mut magic = [0; 4];
        if file_len < 4 || file.read_exact(&mut magic).is_err() || magic != *b"PK\x03\x04" {
            let problem = "is not a ZIP container as torch.save writes since PyTorch 1.6";
            return Err(wrong(problem.to_owned()));
        }
        let archive = ZipArchive::new(BufReader::new(file))
            .map_err(|e| wrong(format!("bad ZIP container: {e}")))?;
        let mut roots = (archive.file_names_raw())
            .filter_map(|name| name.strip_suffix(b"data.pkl"))
            .filter(|root| root.is_empty() || root.ends_with(b"/"))
            .filter_map(|root| str::from_utf8(root).ok());
        let (root, other) = (roots.next().map(str::to_owned), roots.next());
        if let (Some(root), Some(other)) = (&root, other) {
            let problem = format!("holds more than one data.pkl: in {root:?} and {other:?}");
            return Err(wrong(problem));
        }
        drop(roots);
        let root = root.ok_or_else(|| wrong("holds no data.pkl".to_owned()))?;
        let mut container = Self {
            archive,
            path: path.to_owned(),
            file_len,
            root,
        };
        // Old versions of torch did not write the entry; they were little-endian in practice.
        if container
            .archive
            .index_for_name(&container.full("byteorder"))
            .is_some()
        {
            let order = container.read("byteorder", 16)?;
            if order.trim_ascii() != b"little" {
                return Err(CartridgeError::file(path, "byteorder is not 'little'"));
            }
        }
        Ok(container)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn file_len(&self) -> u64 {
        self.file_len
    }

    fn full(&self, name: &str) -> String {
        format!("{}{name}", self.root)
    }

    /// Reads a whole entry of at most `limit` bytes; never more than the file is long.
    pub(crate) fn read(&mut self, name: &str, limit: u64) -> Result<Vec<u8>, CartridgeError> {
        let full = self.full(name);
        let path = &self.path;
        let wrong =
            |problem: String| CartridgeError::file(path, format!("entry {full}: {problem}"));

        let index =
            (self.archive.index_for_name(&full)).ok_or_else(|| wrong("is missing".into()))?;
        let about = (self.archive.by_index_data(index)).map_err(|e| wrong(e.to_string()))?;
        if about.compression() != CompressionMethod::Stored || about.encrypted() {
            return Err(wrong(
                "is compressed or encrypted; torch.save stores entries as they are".into(),
            ));
        }
        let size = about.size();
        if size != about.compressed_size() || size > self.file_len {
            return Err(wrong(format!(
                "claims {size} bytes, more than the file holds"
            )));
        }
        if size > limit {
            return Err(wrong(format!("has {size} bytes, at most {limit} are read")));
        }
        // A checksum of 0 means that none was computed (`compute_crc32=False`).
        let options = ZipReadOptions::new().ignore_crc32(about.crc32() == 0);
        let mut entry = (self.archive.by_index_with_options(index, options))
            .map_err(|e| wrong(e.to_string()))?;
        let mut bytes = Vec::with_capacity(size as usize);
        (entry.by_ref().take(size + 1).read_to_end(&mut bytes))
            .map_err(|e| wrong(e.to_string()))?;
        if bytes.len() as u64 != size {
            return Err(wrong(format!("has {} bytes, expected {size}", bytes.len())));
        }
        Ok(bytes)
    }
}
