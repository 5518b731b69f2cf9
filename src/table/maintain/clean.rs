//! Log clean-up: what the newest checkpoint holds goes once it is old, unless a reader has still to come by.

use object_store::ObjectMeta;

use super::{PAGE, READER_PATIENCE, Work};
use crate::error::Result;
use crate::table::checkpoint::split_version;

/// What to do with one entry of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Delete,
    Keep,
    /// Nothing after this one goes either.
    Stop,
}

/// What decides about an entry.
struct Rules {
    /// The version of the checkpoint that is named.
    named: i64,
    /// Milliseconds since 1970 before which an entry is old.
    old_millis: i64,
    /// Milliseconds since 1970 before which no reader counts.
    ancient_millis: i64,
    reader_watermark: Option<i64>,
    /// A commit was kept: the log must not get a hole, so all after it are kept.
    kept: bool,
}

impl Work<'_> {
    /// Deletes, oldest first, the commits and checkpoints below the checkpoint that is named; returns how many.
    pub(super) async fn clean_log(&self) -> Result<usize> {
        let Some(named) = self.log.last_checkpoint().await? else { return Ok(0) };
        // The hint may name what is gone, and then the older entries are all there is.
        if !self.is_complete(&named).await? {
            return Ok(0);
        }
        let mut rules = Rules {
            named: named.version,
            old_millis: self.cutoff_millis(self.options.log_retention),
            ancient_millis: self.cutoff_millis(READER_PATIENCE),
            reader_watermark: self.options.reader_watermark,
            kept: false,
        };
        let (folder, mut after, mut deleted) = (self.log_folder(), None, 0);
        loop {
            let page = self.log.storage.list_after(&folder, after.as_ref(), PAGE).await?;
            for entry in &page {
                if self.stop.is_cancelled() {
                    return Ok(deleted);
                }
                match rules.judge(entry) {
                    Verdict::Keep => {}
                    Verdict::Stop => return Ok(deleted),
                    Verdict::Delete => {
                        self.log.storage.delete(&entry.location).await?;
                        deleted += 1;
                    }
                }
            }
            match page.last() {
                Some(last) if page.len() == PAGE => after = Some(last.location.clone()),
                _ => return Ok(deleted),
            }
        }
    }
}

impl Rules {
    /// Entries come in the order of their versions.
    fn judge(&mut self, entry: &ObjectMeta) -> Verdict {
        let Some((version, kind)) = entry.location.filename().and_then(split_version) else { return Verdict::Keep };
        let modified_millis = entry.last_modified.timestamp_millis();
        if version >= self.named {
            return Verdict::Stop;
        }
        if kind.starts_with("checkpoint") {
            return if modified_millis < self.old_millis { Verdict::Delete } else { Verdict::Keep };
        }
        if kind != "json" && kind != "crc" {
            return Verdict::Keep;
        }
        if modified_millis >= self.old_millis {
            return Verdict::Stop;
        }
        let read = self.reader_watermark.is_none_or(|watermark| version <= watermark);
        self.kept |= !read && modified_millis >= self.ancient_millis;
        if self.kept { Verdict::Keep } else { Verdict::Delete }
    }
}
