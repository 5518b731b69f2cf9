//! What was done to a simulated disk, and how much of it is durable.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::{fs, io};

use super::dice::Dice;

/// The unit in which a disk writes.
const BLOCK_BYTES: usize = 512;

/// Every folder and file of a disk, as they are and as they are durable.
#[derive(Debug, Default)]
pub(super) struct Journal {
    folders: BTreeMap<PathBuf, Folder>,
    files: Vec<Content>,
}

#[derive(Debug, Default)]
struct Folder {
    /// The names as of the last sync.
    durable: BTreeMap<OsString, Node>,
    /// The names as everyone sees them.
    current: BTreeMap<OsString, Node>,
    /// What lies between the two, in order.
    pending: Vec<Change>,
}

/// What a name stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Node {
    /// Its index.
    File(usize),
    Folder,
}

/// The bytes of a file, whatever its names.
#[derive(Clone, Debug, Default)]
struct Content {
    bytes: Vec<u8>,
    /// As of the last sync; empty when there was none.
    durable: Vec<u8>,
}

#[derive(Clone, Debug)]
enum Change {
    Set(OsString, Node),
    Remove(OsString),
    Rename(OsString, OsString, Node),
}

impl Change {
    fn names(&self) -> Vec<&OsString> {
        match self {
            Self::Set(name, _) | Self::Remove(name) => vec![name],
            Self::Rename(from, to, _) => vec![from, to],
        }
    }

    fn apply(&self, names: &mut BTreeMap<OsString, Node>) {
        match self {
            Self::Set(name, node) => {
                names.insert(name.clone(), *node);
            }
            Self::Remove(name) => {
                names.remove(name);
            }
            Self::Rename(from, to, node) => {
                names.remove(from);
                names.insert(to.clone(), *node);
            }
        }
    }
}

impl Journal {
    /// A disk on which everything in `folder` is durable.
    pub(super) fn of(folder: &Path) -> io::Result<Self> {
        let mut journal = Self::default();
        journal.import(folder)?;
        Ok(journal)
    }

    fn import(&mut self, folder: &Path) -> io::Result<()> {
        let mut names = BTreeMap::new();
        for entry in fs::read_dir(folder)? {
            let path = entry?.path();
            let node = if path.is_dir() {
                self.import(&path)?;
                Node::Folder
            } else {
                let bytes = fs::read(&path)?;
                self.files.push(Content { durable: bytes.clone(), bytes });
                Node::File(self.files.len() - 1)
            };
            names.insert(path.file_name().unwrap_or_default().to_owned(), node);
        }
        self.folders.insert(folder.to_owned(), Folder { durable: names.clone(), current: names, pending: Vec::new() });
        Ok(())
    }

    pub(super) fn created(&mut self, path: &Path) {
        self.files.push(Content::default());
        let node = Node::File(self.files.len() - 1);
        self.change(path, |name| Change::Set(name, node));
    }

    pub(super) fn written(&mut self, path: &Path, offset: u64, bytes: &[u8]) {
        let content = self.content(path);
        let start = usize::try_from(offset).unwrap();
        content.bytes.resize(content.bytes.len().max(start + bytes.len()), 0);
        content.bytes[start..start + bytes.len()].copy_from_slice(bytes);
    }

    pub(super) fn file_synced(&mut self, path: &Path) {
        let content = self.content(path);
        content.durable = content.bytes.clone();
    }

    pub(super) fn linked(&mut self, from: &Path, to: &Path) {
        let node = self.node(from);
        self.change(to, |name| Change::Set(name, node));
    }

    pub(super) fn renamed(&mut self, from: &Path, to: &Path) {
        assert_eq!(from.parent(), to.parent(), "the contract knows no rename from folder to folder");
        let (node, from) = (self.node(from), from.file_name().unwrap().to_owned());
        self.change(to, |name| Change::Rename(from, name, node));
    }

    pub(super) fn unlinked(&mut self, path: &Path) {
        self.change(path, Change::Remove);
    }

    pub(super) fn folder_made(&mut self, path: &Path) {
        self.change(path, |name| Change::Set(name, Node::Folder));
        self.folders.insert(path.to_owned(), Folder::default());
    }

    pub(super) fn folder_synced(&mut self, path: &Path) {
        let folder = self.folder(path);
        folder.durable = folder.current.clone();
        folder.pending.clear();
    }

    fn change(&mut self, path: &Path, change: impl FnOnce(OsString) -> Change) {
        let change = change(path.file_name().unwrap().to_owned());
        let folder = self.folder(path.parent().unwrap());
        change.apply(&mut folder.current);
        folder.pending.push(change);
    }

    /// Whoever makes a folder or a file past the disk would have the simulation prove nothing.
    fn folder(&mut self, path: &Path) -> &mut Folder {
        let behind = || panic!("{} was not made through the disk", path.display());
        self.folders.get_mut(path).unwrap_or_else(behind)
    }

    fn node(&mut self, path: &Path) -> Node {
        let node = self.folder(path.parent().unwrap()).current.get(path.file_name().unwrap()).copied();
        node.unwrap_or_else(|| panic!("{} was not made through the disk", path.display()))
    }

    fn content(&mut self, path: &Path) -> &mut Content {
        match self.node(path) {
            Node::File(index) => &mut self.files[index],
            Node::Folder => panic!("{} is a folder", path.display()),
        }
    }

    /// Writes into `to`, an empty folder, what a reboot finds of `folder`.
    pub(super) fn write_survivors(&self, folder: &Path, to: &Path, dice: &mut Dice) -> io::Result<()> {
        // Some cuts come long after the last write-back and some right before it.
        let chance = dice.pick(&[0, 25, 50, 75, 100]);
        let files: Vec<Vec<u8>> = self.files.iter().map(|content| content.survivor(dice)).collect();
        self.write_folder(folder, to, &mut Survival { chance, dice, files: &files, written: BTreeMap::new() })
    }

    fn write_folder(&self, folder: &Path, to: &Path, survival: &mut Survival<'_>) -> io::Result<()> {
        for (name, node) in self.folders[folder].survivors(survival.chance, survival.dice) {
            let target = to.join(&name);
            match node {
                Node::Folder => {
                    fs::create_dir(&target)?;
                    self.write_folder(&folder.join(&name), &target, survival)?;
                }
                Node::File(index) => match survival.written.get(&index) {
                    Some(other) => fs::hard_link(other, &target)?,
                    None => {
                        fs::write(&target, &survival.files[index])?;
                        survival.written.insert(index, target);
                    }
                },
            }
        }
        Ok(())
    }
}

/// A cut under way.
struct Survival<'a> {
    /// Of a hundred changes that were not synced, how many survive.
    chance: u64,
    dice: &'a mut Dice,
    files: &'a [Vec<u8>],
    /// The files that have a name already: further ones are links.
    written: BTreeMap<usize, PathBuf>,
}

impl Folder {
    /// The names after a cut. A change that is lost takes along the later ones of the same names: a disk does not know
    /// the second state of a name without the first.
    fn survivors(&self, chance: u64, dice: &mut Dice) -> BTreeMap<OsString, Node> {
        let (mut names, mut lost) = (self.durable.clone(), BTreeSet::new());
        for change in &self.pending {
            let survives = dice.percent(chance);
            if survives && !change.names().iter().any(|name| lost.contains(*name)) {
                change.apply(&mut names);
            } else {
                lost.extend(change.names().into_iter().cloned());
            }
        }
        names
    }
}

impl Content {
    /// The bytes after a cut.
    fn survivor(&self, dice: &mut Dice) -> Vec<u8> {
        let choice = dice.below(5);
        let cut_at = usize::try_from(dice.below(self.bytes.len() as u64 + 1)).unwrap();
        if self.bytes == self.durable {
            return self.bytes.clone();
        }
        let mut bytes = self.bytes.clone();
        match choice {
            0 => return self.durable.clone(),
            1 => bytes.truncate(cut_at),
            // The length is there, the last block is not.
            2 => {
                let last = bytes.len().saturating_sub(1) / BLOCK_BYTES * BLOCK_BYTES;
                bytes[last..].fill(0);
            }
            // As delayed allocation leaves it.
            3 => bytes.fill(0),
            _ => {}
        }
        bytes
    }
}
