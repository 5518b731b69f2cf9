//! What records look like, from the first of them.

use super::content::{Content, Reader};
use super::discover::Found;
use crate::error::{Context, ErrorKind, Result};
use crate::json::partition::with_partitions;
use crate::json::records::Records;
use crate::json::types::{InferOptions, JsonType};

/// How much is looked at: so many files, and bytes of records of them all.
const SAMPLE_FILES: usize = 1_000;
const SAMPLE_BYTES: usize = 32 << 20;
/// Bytes are shared out among so many files at most.
const MOST_SHARES: usize = 8;

/// The type that holds every record of a sample; `None` where there is none. What cannot be read says nothing.
///
/// # Errors
/// When the thread that reads is gone.
pub(super) async fn infer(
    reader: &Reader,
    files: &[Found],
    options: InferOptions,
) -> Result<(usize, Option<JsonType>)> {
    let (reader, files) = (reader.clone(), files.iter().take(SAMPLE_FILES).cloned().collect::<Vec<_>>());
    let inferring = tokio::task::spawn_blocking(move || {
        let (mut seen, mut partitions, mut left, mut sampled) = (None, Vec::new(), SAMPLE_BYTES, 0);
        // A large file must not hide the others.
        let share = SAMPLE_BYTES / files.len().clamp(1, MOST_SHARES);
        for (file, records) in reader.open_each(files) {
            sampled += 1;
            let bytes = records.map_or(0, |records| take(records, share.min(left), options, &mut seen));
            left -= left.min(bytes);
            if bytes > 0 {
                partitions.push(reader.partition(&file));
            }
            if left == 0 {
                break;
            }
        }
        let values = partitions.iter().flat_map(|partition| partition.iter());
        (sampled, with_partitions(seen, values, options))
    });
    inferring.await.context(ErrorKind::Unavailable, "infer columns")
}

/// Takes the first records of a file in; returns how many bytes they were.
fn take(mut records: Records<Content>, share: usize, options: InferOptions, seen: &mut Option<JsonType>) -> usize {
    let mut bytes = 0;
    while bytes < share
        && let Ok(Some(chunk)) = records.next_chunk()
    {
        for text in chunk.records.iter().filter_map(|record| chunk.text(record)) {
            if let Ok(here @ JsonType::Struct(_)) = JsonType::read(text, options) {
                *seen = Some(match seen.take() {
                    Some(before) => before.merge(here),
                    None => here,
                });
            }
        }
        bytes += chunk.len();
    }
    bytes
}
