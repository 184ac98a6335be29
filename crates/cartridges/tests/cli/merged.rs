//! `convert --to merged`: the model with the adapter in its weights computes what both do side by side.

use cartridges_model::LanguageModel;
use cartridges_model::adapter::{Delta, HostAdapter, HostPatch, Mode, save_adapter};
use cartridges_model::decoder::ModelConfig;

use super::convert::model_of;
use super::logits::floats;
use super::*;

/// A tiny model, adapters for it, and what they compute.
struct Bench {
    home: TempDir,
    model: PathBuf,
    identity: ModelIdentity,
    config: ModelConfig,
    state: u64,
}

impl Bench {
    fn new(fixture: &str) -> Self {
        let home = TempDir::new().unwrap();
        let model = model_of(fixture, &home);
        write_ids(home.path(), &[3, 17, 250, 9, 88, 41, 7, 300, 12]);
        let (config, _, identity) = LanguageModel::identify(&model, fixture).unwrap();
        Self {
            home,
            model,
            identity,
            config,
            state: 1,
        }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    /// Numbers between -`most` and `most`.
    fn values(&mut self, count: usize, most: f32) -> Vec<f32> {
        let mut next = || {
            self.state = self
                .state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            (self.state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
        };
        (0..count).map(|_| most * next()).collect()
    }

    fn patch(&mut self, target: &str, rank: usize, most: f32) -> HostPatch {
        let target: cartridges_model::adapter::Target = target.parse().unwrap();
        let (inputs, outputs) = target.widths(&self.config).unwrap();
        let a = self.values(rank * inputs, most);
        let b = self.values(rank * outputs, most);
        HostPatch {
            scale: 0.5,
            ..HostPatch::low_rank(target, rank, a, b)
        }
    }

    fn save(&self, name: &str, patches: Vec<HostPatch>) -> PathBuf {
        let host = HostAdapter::new(patches).unwrap();
        let how = json!({ "program": "test" });
        let folder = self.at(name);
        save_adapter(&folder, &host, &self.identity, &how, CartridgeDtype::F32).unwrap();
        folder
    }

    fn logits(&self, model: &Path, more: &[&str]) -> Vec<f32> {
        let (ids, out) = (self.at("ids.json"), self.at("logits.safetensors"));
        let mut args = vec!["logits", "--model", text(model), "--ids", text(&ids)];
        args.extend(["--out", text(&out)]);
        args.extend(more);
        works(&args);
        let bytes = std::fs::read(&out).unwrap();
        floats(&SafeTensors::deserialize(&bytes).unwrap(), "logits")
    }

    fn args<'a>(&'a self, adapter: &'a Path, out: &'a Path) -> Vec<&'a str> {
        let args = [
            "convert",
            text(adapter),
            "--to",
            "merged",
            "--out",
            text(out),
        ];
        [&args[..], &["--model", text(&self.model)]].concat()
    }

    /// Merges, and gives what was said on stdout and stderr.
    fn merge(&self, adapter: &Path, name: &str, more: &[&str]) -> (String, String) {
        let out = self.at(name);
        let mut args = self.args(adapter, &out);
        args.extend(more);
        let output = run(&args);
        assert!(output.status.success(), "{}", utf8(&output.stderr));
        (utf8(&output.stdout), utf8(&output.stderr))
    }

    fn refused(&self, adapter: &Path, more: &[&str], names: &[&str]) {
        let out = self.at("refused");
        let mut args = self.args(adapter, &out);
        args.extend(more);
        fails(&args, names);
        assert!(!out.exists());
    }
}

fn apart(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    a.iter()
        .zip(b)
        .map(|(a, b)| (a - b).abs())
        .fold(0.0, f32::max)
}

#[test]
fn a_merged_model_computes_what_model_and_adapter_do() {
    for fixture in ["tiny-llama3", "tiny-qwen2", "tiny-qwen3"] {
        let mut bench = Bench::new(fixture);
        let mut patches: Vec<HostPatch> = (0..bench.config.num_layers)
            .map(|layer| bench.patch(&format!("model.layers.{layer}.mlp.down_proj"), 3, 0.4))
            .collect();
        patches.push(bench.patch("model.layers.1.self_attn.o_proj", 2, 0.4));
        patches.push(bench.patch("lm_head", 4, 0.4));
        let mut queries = bench.patch("model.layers.0.self_attn.q_proj", 2, 0.4);
        if bench.config.qkv_bias {
            queries.bias = Some(bench.values(queries.outputs, 0.4));
        }
        patches.push(queries);
        let changed = patches.len() + usize::from(bench.config.qkv_bias);
        let adapter = bench.save("adapter", patches);

        let (said, warned) = bench.merge(&adapter, "merged", &[]);
        assert!(said.contains(&format!("in {changed} of")), "{said}");
        assert!(said.contains("rounding takes 0.00 %"), "{said}");
        assert!(!warned.contains("warning"), "{warned}");
        let tied = bench.config.tie_word_embeddings;
        assert_eq!(
            said.contains("no longer the embedding table"),
            tied,
            "{said}"
        );

        let wanted = bench.logits(&bench.model, &["--adapter", text(&adapter)]);
        let found = bench.logits(&bench.at("merged"), &[]);
        let size = wanted.iter().fold(1f32, |most, x| most.max(x.abs()));
        let off = apart(&found, &wanted);
        assert!(off <= 1e-5 * size, "{fixture}: off by {off} of {size}");
        assert!(apart(&wanted, &bench.logits(&bench.model, &[])) > 0.1);
        for file in ["tokenizer.json", "tokenizer_config.json"] {
            let copy = std::fs::read(bench.at("merged").join(file)).unwrap();
            assert_eq!(copy, std::fs::read(bench.model.join(file)).unwrap());
        }
    }
}

/// The tensors that are not changed are the same bytes, and the head of a model that shares it with the
/// embedding stays shared as long as it is not changed.
#[test]
fn the_rest_of_a_merged_model_is_untouched() {
    let mut bench = Bench::new("tiny-qwen2");
    let name = "model.layers.1.mlp.down_proj";
    let patch = bench.patch(name, 3, 0.4);
    let adapter = bench.save("adapter", vec![patch]);
    bench.merge(&adapter, "merged", &[]);
    let read = |folder: &Path| std::fs::read(folder.join("model.safetensors")).unwrap();
    let (before, after) = (read(&bench.model), read(&bench.at("merged")));
    let before = SafeTensors::deserialize(&before).unwrap();
    let after = SafeTensors::deserialize(&after).unwrap();
    assert_eq!(before.names().len(), after.names().len());
    for (tensor, view) in before.tensors() {
        let same = after.tensor(&tensor).unwrap().data() == view.data();
        assert_eq!(same, tensor != format!("{name}.weight"), "{tensor}");
    }
    let config = |folder: &Path| -> Value {
        serde_json::from_slice(&std::fs::read(folder.join("config.json")).unwrap()).unwrap()
    };
    assert_eq!(config(&bench.model), config(&bench.at("merged")));

    bench.merge(&adapter, "half", &["--dtype", "f16"]);
    let bytes = read(&bench.at("half"));
    let half = SafeTensors::deserialize(&bytes).unwrap();
    assert!(
        half.tensors()
            .iter()
            .all(|(_, view)| view.dtype() == Dtype::F16)
    );
    assert_eq!(config(&bench.at("half"))["dtype"], "float16");
    bench.logits(&bench.at("half"), &[]);
}

#[test]
fn what_rounding_swallows_is_said() {
    let mut bench = Bench::new("tiny-llama3");
    let patch = bench.patch("model.layers.1.mlp.down_proj", 3, 0.05);
    let (a, b) = match &patch.delta {
        Delta::LowRank { a, b, .. } => (a.clone(), b.clone()),
        _ => unreachable!(),
    };
    let (inputs, outputs) = (patch.inputs, patch.outputs);
    let adapter = bench.save("adapter", vec![patch]);
    // Weights that are bf16 already, so that only the delta can be lost.
    let base = bench.at("base");
    let zero = bench.patch("model.layers.0.mlp.down_proj", 1, 0.0);
    let nothing = bench.save("nothing", vec![zero]);
    bench.merge(&nothing, "base", &["--dtype", "bf16"]);
    let args = ["--allow-other-weights", "--model", text(&base)];
    let out = bench.at("merged");
    let mut all = vec![
        "convert",
        text(&adapter),
        "--to",
        "merged",
        "--out",
        text(&out),
    ];
    all.extend(args);
    let output = run(&all);
    let (said, warned) = (utf8(&output.stdout), utf8(&output.stderr));
    assert!(output.status.success(), "{warned}");
    assert!(
        warned.contains("warning") && warned.contains("--dtype f32"),
        "{warned}"
    );

    // The share, from the two files.
    let values = |folder: &Path| -> Vec<f64> {
        let bytes = std::fs::read(folder.join("model.safetensors")).unwrap();
        let file = SafeTensors::deserialize(&bytes).unwrap();
        let view = file.tensor("model.layers.1.mlp.down_proj.weight").unwrap();
        assert_eq!(view.dtype(), Dtype::BF16);
        let pairs = view.data().chunks_exact(2);
        let wide = |b: &[u8]| f32::from_bits(u32::from(u16::from_le_bytes([b[0], b[1]])) << 16);
        pairs.map(|b| f64::from(wide(b))).collect()
    };
    let (before, after) = (values(&base), values(&out));
    let (mut lost, mut whole) = (0.0, 0.0);
    for row in 0..outputs {
        for column in 0..inputs {
            let product =
                (0..3).map(|k| f64::from(b[row * 3 + k]) * f64::from(a[k * inputs + column]));
            let delta = 0.5 * product.sum::<f64>();
            let at = row * inputs + column;
            lost += (after[at] - (before[at] + delta)).powi(2);
            whole += delta.powi(2);
        }
    }
    let share = 100.0 * (lost / whole).sqrt();
    let said_share: f64 = said
        .split("rounding takes ")
        .nth(1)
        .and_then(|rest| rest.split(' ').next())
        .unwrap()
        .parse()
        .unwrap();
    assert!(
        share > 5.0 && (said_share - share).abs() < 0.02,
        "{said_share} for {share}"
    );
}

#[test]
fn what_cannot_be_merged_is_named() {
    let mut bench = Bench::new("tiny-llama3");
    let good = bench.patch("model.layers.1.mlp.down_proj", 3, 0.4);
    let fine = bench.save("fine", vec![good.clone()]);
    let mut biased = good.clone();
    biased.bias = Some(vec![0.5; biased.outputs]);
    let biased = bench.save("biased", vec![biased]);
    bench.refused(
        &biased,
        &[],
        &["model.layers.1.mlp.down_proj", "bias", "intercept"],
    );
    let hidden = bench.config.hidden_size;
    let post = HostPatch {
        target: "model.norm".parse().unwrap(),
        mode: Mode::Post,
        scale: 1.0,
        inputs: hidden,
        outputs: hidden,
        delta: Delta::Dense(vec![0.1; hidden * hidden]),
        bias: None,
    };
    let post = bench.save("post", vec![post]);
    bench.refused(&post, &[], &["model.norm", "post", "beside the model"]);
    let mut huge = good;
    huge.scale = 1e6;
    let huge = bench.save("huge", vec![huge]);
    bench.refused(
        &huge,
        &["--dtype", "f16"],
        &["down_proj.weight", "no finite f16"],
    );

    let out = bench.at("refused");
    let alone = [
        "convert",
        text(&fine),
        "--to",
        "merged",
        "--out",
        text(&out),
    ];
    fails(&alone, &["--model"]);
    bench.merge(&fine, "merged", &[]);
    let merged = bench.at("merged");
    fails(&bench.args(&fine, &merged), &["merged", "not empty"]);
    // The merged model has other weights than the adapter was made for.
    let again = [&alone[..], &["--model", text(&merged)]].concat();
    fails(&again, &["weights"]);

    let config = bench.model.join("config.json");
    let settings = std::fs::read_to_string(&config).unwrap();
    let quantised = settings.replacen('{', "{\"quantization_config\": {\"bits\": 4},", 1);
    std::fs::write(&config, quantised).unwrap();
    bench.refused(
        &fine,
        &[],
        &["config.json", "quantised", "beside the model"],
    );
}
