//! Which tables a pipeline has, written down beside them: without it a table that was removed looks like one that
//! was never there.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::error::{Context, ErrorKind, Result};
use crate::id::{BotId, Name};
use crate::storage::{Storage, StorageKey};

/// The tables of a pipeline by their ids, as `_lakegram/pipelines/<pipeline>.json` says.
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

    /// What is written down of a pipeline; `None` before its tables were made.
    ///
    /// # Errors
    /// Corrupt when it cannot be understood; else as the store.
    pub async fn read(storage: &Storage, pipeline: &Name) -> Result<Option<Self>> {
        let path = StorageKey::Pipeline { pipeline: pipeline.clone() }.path();
        let Some(bytes) = storage.get(&path).await? else { return Ok(None) };
        let unreadable = || format!("{path} cannot be read; restore it, or delete it to have it written anew");
        serde_json::from_slice(&bytes).map(Some).context(ErrorKind::Configuration, unreadable())
    }

    /// Writes it down for the first time. Another process may just have: then what that one wrote counts, and the next
    /// look tells whether it fits.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn create(&self, storage: &Storage) -> Result<()> {
        storage.put_new(&self.path(), self.bytes()?).await.map(drop)
    }

    /// Writes it in the place of an earlier one.
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
        let text = serde_json::to_string_pretty(self).context(ErrorKind::Fatal, "write down a pipeline's tables")?;
        Ok(Bytes::from(text + "\n"))
    }
}
