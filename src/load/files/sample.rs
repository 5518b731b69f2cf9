//! Infers types from the first records.

use super::content::{Content, Reader};
use super::discover::Found;
use crate::error::{Context, ErrorKind, Result};
use crate::json::partition::with_partitions;
use crate::json::records::Records;
use crate::json::types::{InferOptions, JsonType};

/// The size of the sample: number of files, and total bytes of records.
const SAMPLE_FILES: usize = 1_000;
const SAMPLE_BYTES: usize = 32 << 20;
/// The bytes are divided among at most this many files.
const MOST_SHARES: usize = 8;

/// The type that holds every record of a sample; `None` if there are none. Files that cannot be read are ignored.
///
/// # Errors
/// When the reading thread is gone.
pub(super) async fn infer(
    reader: &Reader,
    files: &[Found],
    options: InferOptions,
) -> Result<(usize, Option<JsonType>)> {
    let (reader, files) = (reader.clone(), files.iter().take(SAMPLE_FILES).cloned().collect::<Vec<_>>());
    let inferring = tokio::task::spawn_blocking(move || {
        let (mut seen, mut partitions, mut left, mut sampled) = (None, Vec::new(), SAMPLE_BYTES, 0);
        // A large file must not crowd out the others.
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

/// Adds the first records of a file; returns their bytes.
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
