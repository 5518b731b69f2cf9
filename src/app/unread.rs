//! Raw folders that no pipeline reads: what was received in them waits for nobody.

use std::collections::BTreeSet;
use std::fmt;

use serde::Serialize;

use super::App;
use crate::error::Result;
use crate::id::Name;
use crate::pipeline::load::PipelineFile;
use crate::storage::{Storage, StorageKey};

/// Segments that are counted in a folder; beyond it there are more.
const COUNTED: usize = 1_000;

/// Names and folders that the pipelines of the pipelines folder read.
#[derive(Clone, Debug, Default)]
pub(crate) struct Readers {
    names: BTreeSet<Name>,
    folders: Vec<String>,
}

/// A folder of received messages that no pipeline reads.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct UnreadRaw {
    /// The folder: `raw/<name>/<bot>`.
    pub folder: String,
    /// Segments in it.
    pub segments: usize,
    /// Whether there are more than were counted.
    pub has_more: bool,
}

impl Readers {
    pub(super) fn add(&mut self, pipeline: &PipelineFile) {
        match pipeline {
            PipelineFile::Bot(bot) => drop(self.names.insert(bot.name.clone())),
            PipelineFile::Files(_) => self.folders.extend(pipeline.source().map(str::to_owned)),
        }
    }

    /// Whether a pipeline reads `raw/<name>/`. The one place that knows which names those are.
    fn reads(&self, name: &Name) -> bool {
        let folder = StorageKey::RawPipeline { pipeline: name.clone() }.path();
        self.names.contains(name) || self.folders.iter().any(|read| crate::pipeline::is_within(folder.as_ref(), read))
    }
}

impl App {
    /// The raw folders that hold segments and that no pipeline of the pipelines folder reads.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn unread_raw(&self) -> Result<Vec<UnreadRaw>> {
        let mut unread = Vec::new();
        for folder in self.storage.list_folders(&StorageKey::Raw.path()).await? {
            let Some(name) = folder.filename().and_then(|name| Name::new(name).ok()) else { continue };
            if self.readers.reads(&name) {
                continue;
            }
            for bot in self.storage.list_folders(&folder).await? {
                unread.extend(count(&self.storage, &bot).await?);
            }
        }
        Ok(unread)
    }
}

async fn count(storage: &Storage, folder: &object_store::path::Path) -> Result<Option<UnreadRaw>> {
    let objects = storage.list_after(folder, None, COUNTED + 1).await?;
    let segments = objects.iter().filter(|object| StorageKey::parse(&object.location).is_some()).count();
    let (segments, has_more) = (segments.min(COUNTED), objects.len() > COUNTED);
    Ok((segments > 0).then(|| UnreadRaw { folder: folder.to_string(), segments, has_more }))
}

impl fmt::Display for UnreadRaw {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (folder, segments) = (&self.folder, self.segments);
        let name = folder.split('/').nth(1).unwrap_or_default();
        let more = if self.has_more { "more than " } else { "" };
        write!(
            formatter,
            "{folder}: no pipeline reads its {more}{segments} segments, so that their messages are never answered; run \
             `lakegram adopt` to take them over, or write a pipeline file with name = \"{name}\""
        )
    }
}
