//! What can stand on a shelf: cartridges and adapters.

use std::path::Path;
use std::sync::Arc;

use cartridges_engine::{AdapterHandle, CartridgeHandle};
use cartridges_model::LanguageModel;
use cartridges_model::adapter::{
    ADAPTER_FILE, ADAPTER_MANIFEST_FILE, AdapterManifest, HostAdapter, load_adapter,
    load_adapter_manifest,
};
use cartridges_model::cartridge::{
    CartridgeDtype, CartridgeManifest, HostCartridge, MANIFEST_FILE, TENSOR_FILE, load,
    load_manifest,
};

use super::engine_thread::EngineThread;

/// Something that lives in a folder of two files and can be brought into the engine.
pub trait Ware: Sized + Send + Sync + 'static {
    /// What requests name.
    type Handle: Copy + PartialEq + Send;
    /// What is known without its tensors.
    type Manifest;
    /// One of it.
    const NOUN: &'static str;
    /// Its files: manifest, tensors.
    const FILES: [&'static str; 2];

    /// Reads and checks the files. The message may name files of this machine.
    fn load(path: &Path) -> Result<(Self, Self::Manifest), String>;
    /// Reads the manifest alone.
    fn manifest(path: &Path) -> Option<Self::Manifest>;
    /// Whether it was made for the model; the message is for clients.
    fn check(&self, manifest: &Self::Manifest, model: &LanguageModel) -> Result<(), String>;
    /// Bytes in memory.
    fn bytes(&self) -> u64;
    /// Brings it into the engine.
    fn add(self: &Arc<Self>, engine: &EngineThread) -> Result<Self::Handle, String>;
    /// Takes it out of the engine once nobody uses it.
    fn remove(handle: Self::Handle, engine: &EngineThread);
}

impl Ware for HostCartridge {
    type Handle = CartridgeHandle;
    type Manifest = CartridgeManifest;
    const NOUN: &'static str = "cartridge";
    const FILES: [&'static str; 2] = [MANIFEST_FILE, TENSOR_FILE];

    fn load(path: &Path) -> Result<(Self, CartridgeManifest), String> {
        load(path).map_err(|error| error.to_string())
    }

    fn manifest(path: &Path) -> Option<CartridgeManifest> {
        load_manifest(path).ok()
    }

    fn check(&self, manifest: &CartridgeManifest, model: &LanguageModel) -> Result<(), String> {
        let checked = manifest.check(&model.identity, false);
        checked.map_err(|error| error.to_string())
    }

    fn bytes(&self) -> u64 {
        self.byte_len(CartridgeDtype::F32) as u64
    }

    fn add(self: &Arc<Self>, engine: &EngineThread) -> Result<CartridgeHandle, String> {
        engine.add(self.clone())
    }

    fn remove(handle: CartridgeHandle, engine: &EngineThread) {
        engine.remove(handle);
    }
}

impl Ware for HostAdapter {
    type Handle = AdapterHandle;
    type Manifest = AdapterManifest;
    const NOUN: &'static str = "adapter";
    const FILES: [&'static str; 2] = [ADAPTER_MANIFEST_FILE, ADAPTER_FILE];

    fn load(path: &Path) -> Result<(Self, AdapterManifest), String> {
        load_adapter(path).map_err(|error| error.to_string())
    }

    fn manifest(path: &Path) -> Option<AdapterManifest> {
        load_adapter_manifest(path).ok()
    }

    fn check(&self, manifest: &AdapterManifest, model: &LanguageModel) -> Result<(), String> {
        let checked = manifest.check(&model.identity, false);
        let fits = checked.and_then(|()| HostAdapter::check(self, model.decoder.config()));
        fits.map_err(|error| error.to_string())
    }

    fn bytes(&self) -> u64 {
        self.byte_len() as u64
    }

    fn add(self: &Arc<Self>, engine: &EngineThread) -> Result<AdapterHandle, String> {
        engine.add_adapter(self.clone())
    }

    fn remove(handle: AdapterHandle, engine: &EngineThread) {
        engine.remove_adapter(handle);
    }
}
