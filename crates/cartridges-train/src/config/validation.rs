//! Whether settings are in range.

use std::fmt::Display;

use super::choices::Targets;
use super::settings::TrainConfig;

/// A field outside its range.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("training: {field} is {found}, expected {expected}")]
pub struct TrainConfigError {
    field: String,
    found: String,
    expected: &'static str,
}

impl TrainConfigError {
    /// Refuses a field that is not `ok`.
    pub(crate) fn check(
        ok: bool,
        field: &str,
        found: impl Display,
        expected: &'static str,
    ) -> Result<(), Self> {
        check(ok, field, found, expected)
    }
}

fn check(
    ok: bool,
    field: &str,
    found: impl Display,
    expected: &'static str,
) -> Result<(), TrainConfigError> {
    match ok {
        true => Ok(()),
        false => Err(TrainConfigError {
            field: field.to_owned(),
            found: found.to_string(),
            expected,
        }),
    }
}

fn share(x: f64) -> bool {
    (0.0..1.0).contains(&x)
}

fn positive(x: f64) -> bool {
    x.is_finite() && x > 0.0
}

fn not_negative(x: f64) -> bool {
    x.is_finite() && x >= 0.0
}

impl TrainConfig {
    /// Checks every field.
    ///
    /// # Errors
    /// [`TrainConfigError`], which names the first field that is out of range.
    pub fn validate(&self) -> Result<(), TrainConfigError> {
        self.validate_data()?;
        self.validate_rate()?;
        self.validate_optimizer()?;
        self.validate_on_policy()?;
        let mut seen = self.trackers.clone();
        seen.dedup();
        seen.sort_by_key(|kind| *kind as u8);
        seen.dedup();
        let found = format!("{:?}", self.trackers);
        let once = seen.len() == self.trackers.len();
        check(once, "trackers", found, "each at most once")?;
        let project = &self.wandb.project;
        check(
            !project.is_empty() && !project.contains(['/', '\\']),
            "wandb.project",
            format!("{project:?}"),
            "a name without slashes",
        )
    }

    fn validate_data(&self) -> Result<(), TrainConfigError> {
        for (name, sources) in [("data", &self.data), ("eval_data", &self.eval_data)] {
            for (i, source) in sources.iter().enumerate() {
                let field = format!("{name}[{i}].weight");
                let fits = positive(source.weight) && source.weight <= 1e6;
                check(fits, &field, source.weight, "more than 0, at most 1e6")?;
            }
        }
        check(
            self.steps > 0 || self.epochs > 0,
            "epochs",
            self.epochs,
            "at least 1 (or steps)",
        )?;
        let rows = self.rows_per_step;
        check(rows > 0, "rows_per_step", rows, "at least 1")?;
        let length = self.packed_seq_length;
        check(length >= 2, "packed_seq_length", length, "at least 2")?;
        let weight = self.verbatim_weight;
        check(
            positive(f64::from(weight)),
            "verbatim_weight",
            weight,
            "more than 0",
        )?;
        check(
            !self.tail_bucket || self.targets == Targets::Logits,
            "tail_bucket",
            self.tail_bucket,
            "false with targets = \"tokens\", which leave no mass over",
        )?;
        self.validate_evaluations()
    }

    fn validate_evaluations(&self) -> Result<(), TrainConfigError> {
        for (i, questions) in self.eval_questions.iter().enumerate() {
            let most = questions.max_new_tokens;
            let field = format!("eval_questions[{i}].max_new_tokens");
            check(most > 0, &field, most, "at least 1")?;
        }
        let lists = self.eval_questions.len();
        check(
            lists == 0 || self.eval_every > 0,
            "eval_questions",
            format!("{lists} lists"),
            "none where eval_every is 0: nothing is asked",
        )?;
        if let Some(best_by) = self.best_by {
            let fits = self.eval_every > 0 && self.measures(best_by);
            let found = format!("{:?}", best_by.name());
            let expected = "something that is measured: give eval_every, and eval_data for \
                            held_out_loss, likelihood lists in eval_questions for nll and choice, \
                            generation lists for generation";
            check(fits, "best_by", found, expected)?;
        }
        check(
            self.patience == 0 || self.eval_every > 0,
            "patience",
            self.patience,
            "0 where eval_every is 0: nothing is scored",
        )
    }

    fn validate_on_policy(&self) -> Result<(), TrainConfigError> {
        let policy = &self.on_policy;
        if policy.every == 0 {
            return Ok(());
        }
        check(
            self.targets == Targets::Logits,
            "on_policy.every",
            policy.every,
            "0 with targets = \"tokens\": the teacher gives a distribution",
        )?;
        for (field, value) in [
            ("on_policy.conversations", policy.conversations),
            ("on_policy.max_tokens", policy.max_tokens),
            ("on_policy.top_logprobs", policy.top_logprobs),
        ] {
            check(value > 0, field, value, "at least 1")?;
        }
        let temperature = policy.temperature;
        check(
            not_negative(f64::from(temperature)),
            "on_policy.temperature",
            temperature,
            "0 or more",
        )?;
        let mass = policy.min_prob_mass;
        check(
            positive(mass) && mass <= 1.0,
            "on_policy.min_prob_mass",
            mass,
            "more than 0, at most 1",
        )
    }

    fn validate_rate(&self) -> Result<(), TrainConfigError> {
        check(positive(self.lr), "lr", self.lr, "more than 0")?;
        if let Some(low) = self.warmup_min_lr {
            let fits = (0.0..self.lr).contains(&low);
            check(fits, "warmup_min_lr", low, "0 to below lr")?;
        }
        let ratio = self.final_lr_ratio;
        check(
            (0.0..=1.0).contains(&ratio),
            "final_lr_ratio",
            ratio,
            "0 to 1",
        )?;
        let steps = self.schedule_steps;
        check(
            steps == 0 || steps > self.warmup_steps,
            "schedule_steps",
            steps,
            "0 or more than warmup_steps",
        )
    }

    fn validate_optimizer(&self) -> Result<(), TrainConfigError> {
        check(share(self.beta1), "beta1", self.beta1, "0 to below 1")?;
        check(share(self.beta2), "beta2", self.beta2, "0 to below 1")?;
        let epsilon = self.epsilon;
        check(positive(epsilon), "epsilon", epsilon, "more than 0")?;
        let norm = self.max_grad_norm;
        check(not_negative(norm), "max_grad_norm", norm, "0 or more")?;
        let decay = self.weight_decay;
        check(
            not_negative(decay) && decay * self.lr < 1.0,
            "weight_decay",
            decay,
            "0 or more, times lr below 1",
        )?;
        let ema = self.ema_decay;
        check(share(ema), "ema_decay", ema, "0 to below 1")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{BestBy, DataSource, EvalQuestions, QuestionKind, TrackerKind};

    fn ask() -> EvalQuestions {
        let json = r#"{"path": "q.json", "kind": "generation"}"#;
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn what_decides_is_what_is_measured() {
        let mut config = TrainConfig::default();
        assert_eq!(config.decided_by(), None);
        config.eval_questions = vec![EvalQuestions {
            kind: QuestionKind::Likelihood,
            ..ask()
        }];
        assert_eq!(config.decided_by(), Some(BestBy::Nll));
        config.eval_questions.push(ask());
        assert_eq!(config.decided_by(), Some(BestBy::Generation));
        config.eval_data = vec![DataSource::new("a")];
        assert_eq!(config.decided_by(), Some(BestBy::HeldOutLoss));
        config.best_by = Some(BestBy::Choice);
        assert_eq!(config.decided_by(), Some(BestBy::Choice));
    }

    #[test]
    fn defaults_are_valid_and_wrong_fields_are_named() {
        TrainConfig::default().validate().unwrap();
        type Change = fn(&mut TrainConfig);
        let wrong: [(&str, Change); 16] = [
            ("lr is NaN", |c| c.lr = f64::NAN),
            ("epochs is 0", |c| c.epochs = 0),
            ("rows_per_step is 0", |c| c.rows_per_step = 0),
            ("packed_seq_length is 1", |c| c.packed_seq_length = 1),
            ("warmup_min_lr is 0.005", |c| c.warmup_min_lr = Some(c.lr)),
            ("schedule_steps is 5", |c| c.schedule_steps = 5),
            ("weight_decay is -1", |c| c.weight_decay = -1.0),
            ("ema_decay is 1", |c| c.ema_decay = 1.0),
            ("patience is 2", |c| c.patience = 2),
            ("eval_questions is 1 lists", |c| {
                c.eval_questions = vec![ask()]
            }),
            ("eval_questions[0].max_new_tokens is 0", |c| {
                c.eval_every = 1;
                c.eval_questions = vec![EvalQuestions {
                    max_new_tokens: 0,
                    ..ask()
                }];
            }),
            ("best_by is \"choice\"", |c| {
                c.eval_every = 1;
                c.eval_questions = vec![ask()];
                c.best_by = Some(BestBy::Choice);
            }),
            ("tail_bucket is true", |c| {
                c.tail_bucket = true;
                c.targets = Targets::Tokens;
            }),
            ("data[1].weight is 0", |c| {
                c.data = vec![DataSource::new("a"), DataSource::new("b")];
                c.data[1].weight = 0.0;
            }),
            ("trackers is [Jsonl, Wandb, Jsonl]", |c| {
                c.trackers = vec![TrackerKind::Jsonl, TrackerKind::Wandb, TrackerKind::Jsonl];
            }),
            ("wandb.project is \"\"", |c| c.wandb.project.clear()),
        ];
        for (said, change) in wrong {
            let mut config = TrainConfig::default();
            change(&mut config);
            let error = config.validate().unwrap_err().to_string();
            assert!(error.contains(said), "{error}");
        }
    }

    #[test]
    fn fields_are_optional_and_unknown_ones_refused() {
        let read = |text: &str| serde_json::from_str::<TrainConfig>(text);
        let old = read(r#"{"steps": 4, "lr": 0.01, "schedule": "linear"}"#).unwrap();
        assert_eq!((old.steps, old.lr), (4, 0.01));
        let new = r#"{"data": ["a.parquet", {"path": "b.parquet", "weight": 0.5, "limit": 3}]}"#;
        let half = DataSource {
            weight: 0.5,
            limit: 3,
            ..DataSource::new("b.parquet")
        };
        assert_eq!(
            read(new).unwrap().data,
            [DataSource::new("a.parquet"), half]
        );
        for wrong in [
            r#"{"learning_rate": 1}"#,
            r#"{"data": [{"path": "a", "wight": 1}]}"#,
            r#"{"data": [3]}"#,
            r#"{"wandb": {"projekt": "a"}}"#,
            r#"{"trackers": ["paper"]}"#,
            r#"{"best_by": "luck"}"#,
            r#"{"eval_questions": [{"path": "q.json"}]}"#,
        ] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
        let all = serde_json::to_string(&TrainConfig::default()).unwrap();
        assert_eq!(read(&all).unwrap(), TrainConfig::default());
    }
}
