//! The yardstick: what one durable put costs on this disk with nothing around it.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::time::Instant;

use super::Result;
use super::figures::Samples;

/// Times of `count` bare durable puts of `bytes` each below `folder`: write, fsync, link, fsync of the folder. They
/// stay there, because making files is slow for a while where some were deleted.
pub(crate) fn bare_durable_puts(folder: &Path, count: usize, bytes: usize) -> Result<Samples> {
    let folder = tempfile::Builder::new().prefix("bare-").tempdir_in(folder)?.keep();
    let content = vec![b'x'; bytes];
    let directory = File::open(&folder)?;
    let mut samples = Samples::default();
    for number in 0..count {
        let (staging, name) = (folder.join(format!(".{number}")), folder.join(number.to_string()));
        let began = Instant::now();
        let mut file = File::create_new(&staging)?;
        file.write_all(&content)?;
        file.sync_all()?;
        fs::hard_link(&staging, &name)?;
        directory.sync_all()?;
        samples.push(began.elapsed());
        fs::remove_file(&staging)?;
    }
    Ok(samples)
}
