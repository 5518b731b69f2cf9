//! Log clean-up: entries covered by a checkpoint are deleted once they are old, unless a reader still needs them.

use object_store::ObjectMeta;

use super::{PAGE, READER_PATIENCE, Work};
use crate::error::Result;
use crate::table::checkpoint::{self, Checkpoint, Newest, split_version};
use crate::table::log::Action;

impl Work<'_> {
    /// Deletes entries below the newest checkpoint that everything to be kept depends on, oldest first and without
    /// leaving a gap; returns how many. A crash leaves a log that begins later.
    pub(super) async fn clean_log(&self) -> Result<usize> {
        let Some(base) = self.base().await? else { return Ok(0) };
        if !self.is_sound(base).await? {
            tracing::warn!(table = %self.log.table, version = base.version, "a checkpoint is corrupt; not cleaning up the log");
            return Ok(0);
        }
        let (folder, mut after, mut deleted) = (self.log_folder(), None, 0);
        loop {
            let page = self.log.storage.list_after(&folder, after.as_ref(), PAGE).await?;
            for entry in &page {
                let Some((version, kind)) = split(entry) else { continue };
                if version >= base.version || self.stop.is_cancelled() {
                    return Ok(deleted);
                }
                if is_entry(kind) || is_checkpoint(kind) {
                    self.log.storage.delete(&entry.location).await?;
                    deleted += 1;
                }
            }
            match page.last() {
                Some(last) if page.len() == PAGE => after = Some(last.location.clone()),
                _ => return Ok(deleted),
            }
        }
    }

    /// The checkpoint that the log may begin with: the newest one before everything that is young or unread, so that
    /// every kept version can still be read; `None` when nothing lies below it. Never beyond the one that
    /// `_last_checkpoint` names, because readers that miss a version rely on that one.
    async fn base(&self) -> Result<Option<Checkpoint>> {
        let Some(named) = self.log.last_checkpoint().await? else { return Ok(None) };
        let old_millis = self.cutoff_millis(self.options.log_retention);
        let ancient_millis = self.cutoff_millis(READER_PATIENCE);
        let (mut newest, mut first) = (Newest::default(), None);
        let (folder, mut after) = (self.log_folder(), None);
        'log: loop {
            let page = self.log.storage.list_after(&folder, after.as_ref(), PAGE).await?;
            for entry in &page {
                let Some((version, kind)) = split(entry) else { continue };
                if version > named.version {
                    break 'log;
                }
                first = first.or(Some(version));
                newest.take(version, kind);
                let modified_millis = entry.last_modified.timestamp_millis();
                let read = self.options.reader_watermark.is_none_or(|watermark| version <= watermark);
                let kept = modified_millis >= old_millis || (!read && modified_millis >= ancient_millis);
                // A checkpoint may be written late; the entries it covers are as old as they are.
                if kept && is_entry(kind) {
                    break 'log;
                }
            }
            match page.last() {
                Some(last) if page.len() == PAGE => after = Some(last.location.clone()),
                _ => break,
            }
        }
        Ok(newest.complete().filter(|base| first.is_some_and(|first| first < base.version)))
    }

    /// Whether the table can be read from a checkpoint: nothing is deleted just because a checkpoint's name exists.
    async fn is_sound(&self, base: Checkpoint) -> Result<bool> {
        let (mut protocol, mut metadata) = (false, false);
        for path in base.paths(&self.log_folder()) {
            let Some(bytes) = self.log.storage.get(&path).await? else { return Ok(false) };
            let Ok(actions) = checkpoint::actions(bytes, false) else { return Ok(false) };
            protocol |= actions.iter().any(|action| matches!(action, Action::Protocol(_)));
            metadata |= actions.iter().any(|action| matches!(action, Action::MetaData(_)));
        }
        Ok(protocol && metadata)
    }
}

fn split(entry: &ObjectMeta) -> Option<(i64, &str)> {
    split_version(entry.location.filename()?)
}

fn is_entry(kind: &str) -> bool {
    matches!(kind, "json" | "crc")
}

fn is_checkpoint(kind: &str) -> bool {
    kind.starts_with("checkpoint")
}
