//! Reads segments: several at a time, up to the bounds of a batch.

use std::ops::RangeInclusive;

use futures::{FutureExt, StreamExt, stream};

use super::lane::{Found, LaneId, SegmentKey};
use super::rows::{self, Line};
use crate::error::{Context, Error, ErrorKind, Result};
use crate::storage::Storage;

/// Segments read at the same time.
const READ_AHEAD: usize = 16;
/// Lines of a larger segment are split on another thread.
pub(super) const INLINE_BYTES: usize = 64 * 1_024;

/// A segment that was read.
#[derive(Clone, Debug)]
pub(super) struct Segment {
    pub(super) key: SegmentKey,
    pub(super) lines: Vec<Line>,
}

/// The result of reading segments.
#[derive(Debug, Default)]
pub(super) struct Batch {
    pub(super) segments: Vec<Segment>,
    /// How many of the requested segments were tried; the rest goes into the next batch.
    pub(super) tried: usize,
    /// Why one of them could not be read now.
    pub(super) trouble: Option<Error>,
    /// The lanes of those that could not be read now.
    pub(super) unread: Vec<LaneId>,
}

/// Bounds of a batch. A segment is never split, so one more may exceed the bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    pub(super) files: usize,
    pub(super) bytes: u64,
}

impl Bounds {
    /// Whether this much is a full batch.
    pub(super) fn are_met(self, files: usize, bytes: u64) -> bool {
        files >= self.files.max(1) || bytes >= self.bytes.max(1)
    }
}

/// From the smallest to the largest id of updates in these segments.
pub(super) fn range_of(segments: &[Segment]) -> RangeInclusive<i64> {
    let ids = || segments.iter().flat_map(|segment| &segment.lines).filter_map(Line::update_id);
    ids().min().unwrap_or(i64::MAX)..=ids().max().unwrap_or(i64::MIN)
}

/// Reads segments from the front of `wanted` up to the bounds. Segments that are gone or cannot be read now are left
/// out: a later listing finds them.
///
/// # Errors
/// Fatal errors of the store; also the error if many were tried and none could be read.
pub(super) async fn read<'a>(storage: &'a Storage, wanted: &'a [Found], bounds: Bounds) -> Result<Batch> {
    let mut batch = Batch::default();
    let mut bytes = 0;
    let get = |found: &'a Found| async move { (found, storage.get(&found.path).await) }.boxed();
    let gets: Vec<_> = wanted.iter().take(bounds.files.max(1)).map(get).collect();
    let mut gets = stream::iter(gets).buffered(READ_AHEAD);
    while !bounds.are_met(batch.segments.len(), bytes) {
        let Some((found, content)) = gets.next().await else { break };
        batch.tried += 1;
        match content {
            Ok(Some(content)) => {
                bytes += content.len() as u64;
                batch.segments.push(Segment { key: found.key.clone(), lines: lines(found, content).await? });
            }
            Ok(None) => tracing::warn!(path = %found.path, "a segment disappeared before it was loaded"),
            Err(error) if error.kind() == ErrorKind::Fatal => return Err(error),
            Err(error) => {
                tracing::warn!(%error, "cannot read a segment now; leaving it to the next listing");
                batch.trouble = Some(error);
                batch.unread.push(found.key.lane.clone());
            }
        }
    }
    match batch.trouble {
        // One that cannot be read must not hold up others, but an unavailable store is not asked a thousand times.
        Some(error) if batch.segments.is_empty() && batch.tried >= READ_AHEAD => Err(error),
        _ => Ok(batch),
    }
}

async fn lines(found: &Found, content: bytes::Bytes) -> Result<Vec<Line>> {
    let (key, path) = (found.key.clone(), found.path.clone());
    if content.len() <= INLINE_BYTES {
        return Ok(rows::lines(&key, &path, &content));
    }
    let parsing = tokio::task::spawn_blocking(move || rows::lines(&key, &path, &content));
    parsing.await.context(ErrorKind::Unavailable, "split a segment into lines")
}
