//! All tools of a run.

use std::collections::BTreeSet;

use super::call::requests;
use super::config::ToolConfig;
use super::error::ToolError;
use super::mcp::McpTools;
use super::prompt;
use super::retrieval::Retrieval;
use super::tool_set::{ToolDefinition, ToolSet};
use crate::conversation::ToolCall;
use crate::resource::Resource;

/// The tools that the agents of a run can call.
#[derive(Default)]
pub struct ToolBox {
    sets: Vec<Box<dyn ToolSet>>,
    description: String,
}

impl ToolBox {
    /// Sets the tools up.
    ///
    /// # Errors
    /// If one cannot be had, or two have one name.
    pub fn new(configs: &[ToolConfig], resources: &[Box<dyn Resource>]) -> Result<Self, ToolError> {
        let mut sets: Vec<Box<dyn ToolSet>> = Vec::new();
        for config in configs {
            sets.push(match config {
                ToolConfig::Retrieval(config) => Box::new(Retrieval::new(config, resources)?),
                ToolConfig::Mcp(config) => Box::new(McpTools::start(config)?),
            });
        }
        Self::of(sets)
    }

    /// A box of tools that are there already.
    ///
    /// # Errors
    /// If two have one name.
    pub fn of(sets: Vec<Box<dyn ToolSet>>) -> Result<Self, ToolError> {
        let definitions: Vec<&ToolDefinition> =
            sets.iter().flat_map(|set| set.definitions()).collect();
        let mut names = BTreeSet::new();
        if let Some(twice) = definitions.iter().find(|tool| !names.insert(&tool.name)) {
            return Err(ToolError::SameName(twice.name.clone()));
        }
        let description = match definitions.is_empty() {
            true => String::new(),
            false => prompt::block(&definitions),
        };
        Ok(Self { sets, description })
    }

    /// Whether there is no tool.
    pub fn is_empty(&self) -> bool {
        self.description.is_empty()
    }

    /// The tools in words, for a model.
    pub fn description(&self) -> &str {
        &self.description
    }

    /// Makes the calls that a model's reply asks for, in order, and records them. None is an error: what
    /// fails is told in its record.
    pub fn answer(&mut self, reply: &str) -> Vec<ToolCall> {
        let mut calls = Vec::new();
        for request in requests(reply) {
            let (name, input, result) = match request.parsed {
                Ok((name, input)) => {
                    let has = |set: &&mut Box<dyn ToolSet>| {
                        set.definitions().iter().any(|tool| tool.name == name)
                    };
                    let result = match self.sets.iter_mut().find(has) {
                        Some(set) => set.call(&name, &input),
                        None => Err("there is no such tool".to_owned()),
                    };
                    (name, input.to_string(), result)
                }
                Err(reason) => (String::new(), String::new(), Err(reason)),
            };
            let success = result.is_ok();
            calls.push(ToolCall {
                name,
                input,
                output: result.unwrap_or_else(|reason| format!("Error: {reason}")),
                success,
                raw_request: request.raw,
            });
        }
        calls
    }

    /// What the calls add to a system prompt.
    pub(crate) fn context(calls: &[ToolCall]) -> String {
        let good = calls.iter().filter(|call| call.success);
        good.map(prompt::result).collect()
    }
}
