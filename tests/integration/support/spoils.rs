//! What only makes a start fast and may be deleted, in the states that careless handling leaves it: deleted, an old
//! copy, or another table's. That is all of `checkpoints/`, in which nothing is kept so far and nothing may be trusted,
//! and in the log of each table the hint to its newest checkpoint.

use std::path::{Path, PathBuf};

use super::Dice;

const TABLES: [&str; 3] = ["bronze/telegram_messages", "silver/telegram_responses", "silver/telegram_replies"];

/// How often each was done.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Spoiled {
    pub deleted: usize,
    pub old_copies: usize,
    pub of_another_table: usize,
    pub hints_deleted: usize,
    pub old_hints: usize,
}

/// The folder of a service, and copies of an earlier hour of it.
pub(crate) struct Spoils {
    checkpoints: PathBuf,
    data: PathBuf,
    copies: PathBuf,
    pub spoiled: Spoiled,
}

impl Spoils {
    pub(crate) fn new(folder: &Path) -> Self {
        Self {
            checkpoints: folder.join("checkpoints"),
            data: folder.join("data"),
            copies: folder.join("copies"),
            spoiled: Spoiled::default(),
        }
    }

    /// Copies what there is, to be brought back when it is old.
    pub(crate) fn keep(&self) {
        clear(&self.copies);
        copy_files(&self.checkpoints, &self.copies.join("checkpoints"));
        for table in TABLES {
            let hint = self.hint(table);
            if hint.exists() {
                let kept = self.copies.join(table);
                std::fs::create_dir_all(&kept).unwrap();
                std::fs::copy(hint, kept.join("_last_checkpoint")).unwrap();
            }
        }
    }

    /// Does one of these things to `checkpoints/`, and sometimes one to a hint.
    pub(crate) fn spoil(&mut self, dice: &mut Dice) {
        let table = TABLES[dice.index(TABLES.len())];
        match dice.below(3) {
            0 => {
                self.spoiled.deleted += 1;
                clear(&self.checkpoints);
            }
            1 => {
                self.spoiled.old_copies += 1;
                clear(&self.checkpoints);
                copy_files(&self.copies.join("checkpoints"), &self.checkpoints);
            }
            _ => {
                self.spoiled.of_another_table += 1;
                copy_files(&self.log(table), &self.checkpoints);
            }
        }
        let (hint, kept) = (self.hint(table), self.copies.join(table).join("_last_checkpoint"));
        match dice.below(6) {
            0 if hint.exists() => {
                self.spoiled.hints_deleted += 1;
                std::fs::remove_file(hint).unwrap();
            }
            1 if kept.exists() => {
                self.spoiled.old_hints += 1;
                std::fs::copy(kept, hint).unwrap();
            }
            _ => {}
        }
    }

    /// The entries of all logs.
    pub(crate) fn log_entries(&self) -> usize {
        TABLES.iter().map(|table| files(&self.log(table)).len()).sum()
    }

    fn log(&self, table: &str) -> PathBuf {
        self.data.join(table).join("_delta_log")
    }

    fn hint(&self, table: &str) -> PathBuf {
        self.log(table).join("_last_checkpoint")
    }
}

fn clear(folder: &Path) {
    // Not there before the first thing is kept in it.
    let _gone = std::fs::remove_dir_all(folder);
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).filter(|path| path.is_file()).collect()
}

/// Copies the checkpoints of a folder, and the hint to them; whoever writes beside us may take one away meanwhile.
fn copy_files(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    let is_checkpoint = |name: &str| name.contains("checkpoint");
    for file in files(from) {
        let name = file.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_owned();
        if is_checkpoint(&name) {
            let _gone = std::fs::copy(&file, to.join(name));
        }
    }
}
