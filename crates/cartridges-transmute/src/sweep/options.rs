//! How a sweep goes.

use cartridges_model::adapter::Target;
use cartridges_model::decoder::Half;
use serde::{Deserialize, Serialize};

use crate::error::{TransmuteError, check_not_negative};
use crate::ridge::RidgeOptions;

/// What a fitted position counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Weighting {
    /// All the same.
    #[default]
    Uniform,
    /// What the prompt changes there: the divergence between teacher and student, between 0.05 and 5.
    Divergence,
}

/// The maps of a layer that get a patch: those whose output is added to the residual stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Sites {
    /// `mlp.down_proj`.
    Down,
    /// `self_attn.o_proj`.
    #[default]
    Output,
    /// First `self_attn.o_proj`, then `mlp.down_proj` for what is left.
    Both,
}

impl Sites {
    /// The halves of a layer that end in them, in the order of the computation.
    fn halves(self) -> &'static [Half] {
        match self {
            Self::Down => &[Half::Mlp],
            Self::Output => &[Half::Attention],
            Self::Both => &[Half::Attention, Half::Mlp],
        }
    }
}

/// The settings of a sweep.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SweepOptions {
    /// First and last layer with patches; all layers if there is none.
    pub layers: Option<(usize, usize)>,
    /// The maps of a layer with a patch. Default [`Sites::Output`].
    pub sites: Sites,
    /// Rank of each patch. Default 32.
    pub rank: usize,
    /// The regression.
    pub ridge: RidgeOptions,
    /// Whether its ridge is only where a search begins, at each map anew, for the one with which the
    /// validation's states come nearest to the teacher's. Default true.
    pub search_ridge: bool,
    /// What a position counts. Default the same for all.
    pub weighting: Weighting,
    /// What a position of a question counts against one of an answer: answers attend to it. Default 0.
    pub questions: f32,
    /// Most tokens behind a prompt in one batch; the prompt is computed once for each. Default 4096.
    pub batch_tokens: usize,
}

impl Default for SweepOptions {
    fn default() -> Self {
        Self {
            layers: None,
            rank: 32,
            ridge: RidgeOptions::default(),
            search_ridge: true,
            sites: Sites::Output,
            weighting: Weighting::Uniform,
            questions: 0.0,
            batch_tokens: 4096,
        }
    }
}

impl SweepOptions {
    /// The maps with a patch in a model of so many layers, in the order of the computation.
    ///
    /// # Errors
    /// [`TransmuteError::Field`] for a setting that means nothing.
    pub fn targets(&self, layers: usize) -> Result<Vec<Target>, TransmuteError> {
        self.ridge.check()?;
        for (field, value) in [("rank", self.rank), ("batch_tokens", self.batch_tokens)] {
            if value == 0 {
                return Err(TransmuteError::field(field, "is 0, expected at least 1"));
            }
        }
        check_not_negative("questions", f64::from(self.questions))?;
        let (first, last) = self.layers.unwrap_or((0, layers.saturating_sub(1)));
        if first > last || last >= layers {
            let problem = format!("are {first} to {last}, the model has 0 to {}", layers - 1);
            return Err(TransmuteError::field("layers", problem));
        }
        let halves = self.sites.halves();
        Ok((first..=last)
            .flat_map(|layer| halves.iter().map(move |half| half.target(layer)))
            .collect())
    }
}
