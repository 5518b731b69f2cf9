//! Many small files: how many a second, and what a start costs once a million are known.

use std::fs;
use std::path::Path;
use std::time::Instant;

use crate::support::figures::thousands;
use crate::support::generate::small_files;
use crate::support::loader::{again, from_nothing};
use crate::support::report::{Findings, Row};
use crate::support::{Bench, Result};

const SETTINGS: &str = "payload = true\n";
/// Files a second, from a local disk.
const FILES_A_SECOND: f64 = 20_000.0;
/// Peak memory at default settings.
const MEMORY_MEGABYTES: f64 = 512.0;
/// Until a start knows a million files: from the memo, and from the table.
const FROM_MEMO_SECONDS: f64 = 2.0;
const FROM_TABLE_SECONDS: f64 = 15.0;
const NEW_FILES: usize = 100;

pub(crate) async fn run(bench: &Bench) -> Result<Findings> {
    let mut findings = Findings::default();
    many(bench, &mut findings)?;
    known(bench, &mut findings)?;
    Ok(findings)
}

#[allow(clippy::cast_precision_loss)]
fn many(bench: &Bench, findings: &mut Findings) -> Result<()> {
    let count = bench.scaled(100_000, 10_000);
    let folder = bench.folder()?;
    let landing = folder.path().join("data/landing");
    let bytes = small_files(&landing, count)?;
    let bare = read_all(&landing)?;
    let cost = from_nothing(folder.path(), SETTINGS)?;
    let rate = count as f64 / cost.seconds;
    findings.rows.push(Row {
        work: format!("{} files of one update each, discovered and loaded", thousands(count as f64)),
        ours: format!("{:.2} s, {:.1} s of CPU, {:.0} MB", cost.seconds, cost.cpu_seconds, cost.peak_megabytes),
        beside: format!("listed and read one after another, and nothing else: {bare:.2} s"),
        bar: format!("at least {} files a second", thousands(FILES_A_SECOND)),
        measured: format!("{} files a second", thousands(rate)),
        reached: Some(rate >= FILES_A_SECOND && cost.peak_megabytes < MEMORY_MEGABYTES),
    });
    findings.note(format!("{count} files of {} bytes on average, columns inferred", bytes / count as u64));
    Ok(())
}

/// Names are links to a thousand files: a million files would fill a small disk, and to the loader they look the same.
#[allow(clippy::cast_precision_loss)]
fn known(bench: &Bench, findings: &mut Findings) -> Result<()> {
    let count = bench.scaled(1_000_000, 20_000);
    let folder = bench.folder()?;
    let landing = folder.path().join("data/landing");
    let originals = folder.path().join("originals");
    small_files(&originals, 1_000)?;
    link(&originals, &landing, 0..count)?;
    let first = from_nothing(folder.path(), SETTINGS)?;
    link(&originals, &landing, count..count + NEW_FILES)?;
    let with_memo = again(folder.path())?;
    fs::remove_dir_all(folder.path().join("checkpoints"))?;
    link(&originals, &landing, count + NEW_FILES..count + 2 * NEW_FILES)?;
    let without = again(folder.path())?;
    for (how, cost, most) in
        [("from its memo", with_memo, FROM_MEMO_SECONDS), ("from the table", without, FROM_TABLE_SECONDS)]
    {
        let knew = cost.knew_after_seconds.ok_or("it did not say when it knew the files")?;
        findings.rows.push(Row {
            work: format!("start with {} known files, {how}", thousands(count as f64)),
            ours: format!("knows them after {knew:.2} s"),
            beside: format!(
                "{NEW_FILES} new ones found among them and loaded: {:.2} s in all, {:.0} MB",
                cost.seconds, cost.peak_megabytes
            ),
            bar: format!("under {most:.0} s"),
            measured: format!("{knew:.2} s"),
            reached: Some(knew < most),
        });
    }
    findings.note(format!(
        "the {count} files were loaded in {:.1} s with {:.0} MB at most",
        first.seconds, first.peak_megabytes
    ));
    Ok(())
}

/// Gives these numbers a name each below `landing`, a thousand in a folder.
fn link(originals: &Path, landing: &Path, numbers: std::ops::Range<usize>) -> Result<()> {
    for number in numbers {
        let folder = landing.join(format!("{:04}", number / 1_000));
        if number % 1_000 == 0 {
            fs::create_dir_all(&folder)?;
        }
        let original = originals.join(format!("0000/telegram_{:07}.json", number % 1_000));
        fs::hard_link(original, folder.join(format!("telegram_{number:07}.json")))?;
    }
    Ok(())
}

/// Seconds to list a folder of folders and read every file in it, on one thread.
fn read_all(landing: &Path) -> Result<f64> {
    let (began, mut bytes) = (Instant::now(), 0);
    for folder in fs::read_dir(landing)? {
        for file in fs::read_dir(folder?.path())? {
            bytes += fs::read(file?.path())?.len();
        }
    }
    let seconds = began.elapsed().as_secs_f64();
    if bytes == 0 { Err("there was nothing to read".into()) } else { Ok(seconds) }
}
