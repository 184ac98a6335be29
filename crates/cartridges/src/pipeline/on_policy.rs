//! The student answers questions of the data, and the model with the text in view says what it would have
//! said in its place.

use std::error::Error;
use std::sync::Arc;

use anyhow::{Result, bail};
use cartridges_engine::{
    Engine, EngineOptions, Flow, GenerateRequest, Sampling, ScoreRequest, StopRules,
};
use cartridges_model::LanguageModel;
use cartridges_model::cartridge::Cartridge;
use cartridges_model::text::{ChatMessage, RenderOptions};
use cartridges_study::conversation::{Conversation, ConversationKind, Message, Metadata, Role};
use cartridges_study::self_study::SelfStudyConfig;
use cartridges_train::{PackedRow, Teacher, TrainConfig, TrainOn, examples, pack, prompt_ids};
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use sha2::{Digest, Sha256};

use crate::local_client::dense;

/// A question as student and teacher read it.
struct Question {
    messages: Vec<Message>,
    /// Without the text, as in training.
    student: Vec<u32>,
    /// With the text in the system message, as in self-study.
    teacher: Vec<u32>,
}

/// Student and teacher are the same model, behind the cartridge and with the text in view. A fresh engine
/// is used each time, so that nothing but the student, the seed and the step decides what comes out.
pub struct EngineTeacher {
    model: Arc<LanguageModel>,
    questions: Vec<Question>,
    config: TrainConfig,
}

impl EngineTeacher {
    /// Reads the questions of conversations about a text: their first turns, with the system prompt that is
    /// stored beside them or, without one, the whole `corpus`. `None` where the settings do not ask for it.
    ///
    /// # Errors
    /// If no conversation has a question that fits into the model behind `slots`, or there is no text.
    pub fn open(
        model: &Arc<LanguageModel>,
        conversations: &[Conversation],
        corpus: Option<&str>,
        slots: usize,
        config: &TrainConfig,
    ) -> Result<Option<Self>> {
        let policy = &config.on_policy;
        if policy.every == 0 {
            return Ok(None);
        }
        let window = model.decoder.config().max_position_embeddings;
        let whole = corpus.map(|text| SelfStudyConfig::default().system_prompt(text));
        let (mut questions, mut without_text, mut too_long) = (Vec::new(), 0, 0);
        // Pieces to continue and gaps to fill have one right answer, which the data has already.
        let talks = conversations.iter().filter(|c| {
            !matches!(
                c.metadata.kind,
                Some(ConversationKind::Verbatim | ConversationKind::Gap)
            )
        });
        for conversation in talks {
            let turns = conversation.messages.iter();
            let asked: Vec<Message> = turns
                .take_while(|m| m.role != Role::Assistant)
                .cloned()
                .collect();
            let stored = Some(&conversation.system_prompt).filter(|text| !text.is_empty());
            let Some(system) = stored.or(whole.as_ref()) else {
                without_text += 1;
                continue;
            };
            if asked.is_empty() {
                continue;
            }
            let mut chat = vec![ChatMessage::system(system.clone())];
            chat.extend(
                asked
                    .iter()
                    .map(|m| ChatMessage::new(m.role.as_str(), m.content.clone())),
            );
            let options = RenderOptions {
                add_generation_prompt: true,
                ..RenderOptions::default()
            };
            let question = Question {
                student: prompt_ids(&asked, &model.text)?,
                teacher: model.text.encode_chat(&chat, &options)?,
                messages: asked,
            };
            let longest = question.teacher.len().max(slots + question.student.len());
            match longest + policy.max_tokens <= window {
                true => questions.push(question),
                false => too_long += 1,
            }
        }
        if questions.is_empty() && without_text > 0 {
            bail!(
                "training: on_policy needs the text that the {without_text} conversations are about, but \
                 they carry no system prompt; give --corpus FILE"
            );
        }
        if questions.is_empty() {
            bail!(
                "training: on_policy finds no question to answer in {} conversations ({too_long} are too \
                 long for the model's window of {window} tokens)",
                conversations.len()
            );
        }
        if without_text + too_long > 0 {
            eprintln!(
                "on_policy: {} questions; {without_text} conversations without a text and {too_long} too \
                 long ones are left out",
                questions.len()
            );
        }
        Ok(Some(Self {
            model: model.clone(),
            questions,
            config: config.clone(),
        }))
    }

    /// A digest of what is asked: other questions make another run.
    pub(super) fn digest(&self) -> Vec<u8> {
        let mut hash = Sha256::new();
        for question in &self.questions {
            for ids in [&question.student, &question.teacher] {
                ids.iter().for_each(|id| hash.update(id.to_le_bytes()));
            }
        }
        hash.finalize().to_vec()
    }

    fn conversation(question: &Question, answer: Message) -> Conversation {
        let messages = question.messages.iter().cloned();
        Conversation {
            messages: messages.chain([answer]).collect(),
            system_prompt: String::new(),
            metadata: Metadata::default(),
            conversation_type: None,
        }
    }
}

impl Teacher for EngineTeacher {
    fn rows(
        &mut self,
        student: &Cartridge,
        step: usize,
        rank: usize,
        size: usize,
    ) -> Result<Vec<PackedRow>, Box<dyn Error + Send + Sync>> {
        let policy = &self.config.on_policy;
        let mut rng = ChaCha8Rng::seed_from_u64(self.config.seed);
        rng.set_stream(1 + step as u64);
        let mut order: Vec<usize> = (0..self.questions.len()).collect();
        order.shuffle(&mut rng);
        order.truncate(policy.conversations);
        let drawn: Vec<(&Question, u64)> = order
            .into_iter()
            .map(|i| (&self.questions[i], rng.random()))
            .skip(rank)
            .step_by(size)
            .collect();
        if drawn.is_empty() {
            return Ok(Vec::new());
        }
        let mut engine = Engine::new(self.model.clone(), EngineOptions::default());
        let handle = engine.add_cartridge(&student.to_host()?)?;
        let asked: Vec<GenerateRequest> = drawn
            .iter()
            .map(|(question, seed)| GenerateRequest {
                cartridges: vec![handle],
                sampling: Sampling {
                    temperature: policy.temperature,
                    seed: *seed,
                    ..Sampling::default()
                },
                stop: StopRules {
                    ids: self.model.text.stop_ids(),
                    strings: Vec::new(),
                },
                ..GenerateRequest::new(question.student.clone(), policy.max_tokens)
            })
            .collect();
        let answers = engine.generate(&asked, &mut |_| Flow::Continue)?;
        engine.remove_cartridge(handle);
        let questions = drawn.into_iter().map(|(question, _)| question);
        let said: Vec<_> = questions
            .zip(answers)
            .filter(|(_, answer)| !answer.token_ids.is_empty())
            .collect();
        let requests: Vec<ScoreRequest> = said
            .iter()
            .map(|(question, answer)| ScoreRequest {
                cartridges: Vec::new(),
                adapters: Vec::new(),
                prompt: question.teacher.clone(),
                continuation: answer.token_ids.clone(),
                top_logprobs: policy.top_logprobs,
            })
            .collect();
        let scores = engine.score(&requests)?;
        let mut conversations = Vec::with_capacity(said.len());
        for ((question, answer), score) in said.into_iter().zip(scores) {
            let top = dense(score.top_logprobs.unwrap_or_default());
            let answer = Message {
                content: answer.text,
                role: Role::Assistant,
                token_ids: Some(answer.token_ids),
                top_logprobs: Some(top.flatten(policy.min_prob_mass)?),
            };
            conversations.push(Self::conversation(question, answer));
        }
        if conversations.is_empty() {
            return Ok(Vec::new());
        }
        // Only the answers are the student's own.
        let config = TrainConfig {
            train_on: TrainOn::Assistant,
            ..self.config.clone()
        };
        let vocab = self.model.decoder.config().vocab_size;
        let (made, _) = examples(&conversations, &self.model.text, vocab, &config)?;
        Ok(pack(&made, &config))
    }
}
