//! Reads pipeline files and their prompts.

use super::Pipeline;
use crate::error::{Context, ErrorKind, Result};

/// The shipped pipeline.
pub const BUILT_IN: &str = include_str!("../../pipelines/telegram.toml");
/// The shipped system prompt.
pub const BUILT_IN_PROMPT: &str = include_str!("../../pipelines/prompts/support.md");

/// The pipeline that is built into the binary.
///
/// # Errors
/// Never, short of a slip in the shipped file that a test would catch.
pub fn built_in() -> Result<Pipeline> {
    let mut pipeline: Pipeline = toml::from_str(BUILT_IN).context(ErrorKind::Configuration, "the built-in pipeline")?;
    pipeline.silver.model.system = Some(BUILT_IN_PROMPT.to_owned());
    Ok(pipeline)
}
