//! Raw folders that no pipeline reads: what was received in them waits for nobody.

use std::collections::BTreeSet;
use std::fmt;

use object_store::path::Path;
use serde::Serialize;

use super::App;
use crate::error::Result;
use crate::id::Name;
use crate::pipeline::load::PipelineFile;
use crate::storage::{Storage, StorageKey};
use crate::table::LakeTable;

/// Segments that are counted in a folder; beyond it there are more.
const COUNTED: usize = 1_000;

/// Names and folders that the pipelines of the pipelines folder read.
#[derive(Clone, Debug, Default)]
pub(crate) struct Readers {
    names: BTreeSet<Name>,
    /// The bronze tables, which say what names their pipelines had before.
    tables: Vec<Path>,
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
            PipelineFile::Bot(bot) => {
                self.names.insert(bot.name.clone());
                self.tables.push(Path::from(bot.bronze.table.as_str()));
            }
            PipelineFile::Files(_) => self.folders.extend(pipeline.source().map(str::to_owned)),
        }
    }

    /// The names that the pipelines had before: they read those folders too. The one place that knows which those are.
    async fn former_names(&self, app: &App) -> Result<BTreeSet<Name>> {
        let mut names = BTreeSet::new();
        for table in &self.tables {
            let opened = LakeTable::open_existing(&app.storage, table, &app.clock).await?;
            let identity = opened.as_ref().map(LakeTable::identity).transpose()?.flatten();
            names.extend(identity.into_iter().flat_map(|identity| identity.former_pipelines));
        }
        Ok(names)
    }

    /// Whether a pipeline reads `raw/<name>/`, going by the pipeline files alone.
    fn reads_as_written(&self, name: &Name) -> bool {
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
        let named = |folder: Path| Some((Name::new(folder.filename()?).ok()?, folder));
        let folders = self.storage.list_folders(&StorageKey::Raw.path()).await?.into_iter().filter_map(named);
        let others: Vec<_> = folders.filter(|(name, _)| !self.readers.reads_as_written(name)).collect();
        if others.is_empty() {
            return Ok(Vec::new());
        }
        let (former, mut unread) = (self.readers.former_names(self).await?, Vec::new());
        for (_, folder) in others.into_iter().filter(|(name, _)| !former.contains(name)) {
            for bot in self.storage.list_folders(&folder).await? {
                unread.extend(count(&self.storage, &bot).await?);
            }
        }
        Ok(unread)
    }
}

async fn count(storage: &Storage, folder: &Path) -> Result<Option<UnreadRaw>> {
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
