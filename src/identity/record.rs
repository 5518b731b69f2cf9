//! Which tables a pipeline has, recorded beside them: without it a removed table looks like one that never existed.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::error::{Context, ErrorKind, Result};
use crate::id::{BotId, Name};
use crate::storage::{Storage, StorageKey};

/// The tables of a pipeline by id, from `_lakegram/pipelines/<pipeline>.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// The pipeline.
    pub pipeline: Name,
    /// The bot.
    pub bot: BotId,
    /// The id of the bronze table.
    pub bronze: String,
    /// The id of the silver table.
    pub silver: String,
    /// The id of the replies table.
    pub replies: String,
}

impl Record {
    /// The ids, upstream first.
    pub fn ids(&self) -> [&str; 3] {
        [&self.bronze, &self.silver, &self.replies]
    }

    /// The record of a pipeline; `None` before its tables were created.
    ///
    /// # Errors
    /// Corrupt when it cannot be understood; otherwise the store's error.
    pub async fn read(storage: &Storage, pipeline: &Name) -> Result<Option<Self>> {
        let path = StorageKey::Pipeline { pipeline: pipeline.clone() }.path();
        let Some(bytes) = storage.get(&path).await? else { return Ok(None) };
        let unreadable = || format!("cannot read {path}; restore it, or delete it to have it written again");
        serde_json::from_slice(&bytes).map(Some).context(ErrorKind::Configuration, unreadable())
    }

    /// Writes it for the first time. If another process just has, its record counts, and the next check shows whether
    /// it matches.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn create(&self, storage: &Storage) -> Result<()> {
        storage.put_new(&self.path(), self.bytes()?).await.map(drop)
    }

    /// Replaces an earlier record.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn replace(&self, storage: &Storage) -> Result<()> {
        storage.put_overwrite(&self.path(), self.bytes()?).await
    }

    fn path(&self) -> object_store::path::Path {
        StorageKey::Pipeline { pipeline: self.pipeline.clone() }.path()
    }

    fn bytes(&self) -> Result<Bytes> {
        let text = serde_json::to_string_pretty(self).context(ErrorKind::Fatal, "record a pipeline's tables")?;
        Ok(Bytes::from(text + "\n"))
    }
}
