//! The raw segments of a pipeline, all lanes together, oldest first.

use std::collections::{HashMap, VecDeque};

use object_store::path::Path;

use crate::clock::Timestamp;
use crate::error::Result;
use crate::id::{BotId, Name};
use crate::storage::{Storage, StorageKey};

/// Keys held for all lanes together.
const HELD: usize = 16_000;

/// The lanes seen so far, by number.
#[derive(Debug, Default)]
pub(super) struct Lanes {
    names: Vec<LaneName>,
    numbers: HashMap<LaneName, u32>,
}

/// What a lane is called: the pipeline in whose raw folder it lies, the bot, and its own name.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct LaneName {
    pub(super) pipeline: Name,
    pub(super) bot_id: BotId,
    pub(super) lane: Name,
}

/// Where a line is: lane, segment, and line number from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct LinePosition {
    pub(super) lane: u32,
    pub(super) micros: Timestamp,
    pub(super) line: i64,
}

/// A segment of a listing.
#[derive(Clone, Copy, Debug)]
pub(super) struct Listed {
    pub(super) lane: u32,
    pub(super) micros: Timestamp,
    pub(super) size_bytes: u64,
}

/// The walk.
#[derive(Debug)]
pub(super) struct Walk {
    storage: Storage,
    cursors: Vec<Cursor>,
    page: usize,
}

#[derive(Debug)]
struct Cursor {
    lane: u32,
    folder: Path,
    after: Option<Path>,
    page: VecDeque<Listed>,
    is_exhausted: bool,
}

impl Lanes {
    pub(super) fn number(&mut self, name: &LaneName) -> u32 {
        if let Some(number) = self.numbers.get(name) {
            return *number;
        }
        let number = u32::try_from(self.names.len()).unwrap_or(u32::MAX);
        self.names.push(name.clone());
        self.numbers.insert(name.clone(), number);
        number
    }

    pub(super) fn name(&self, lane: u32) -> Option<&LaneName> {
        self.names.get(usize::try_from(lane).ok()?)
    }

    pub(super) fn bot(&self, lane: u32) -> Option<i64> {
        self.name(lane).map(|name| name.bot_id.0)
    }

    /// The path of a segment.
    pub(super) fn path(&self, lane: u32, micros: Timestamp) -> Path {
        self.name(lane).cloned().map_or_else(Path::default, |name| name.segment(micros))
    }
}

impl LaneName {
    fn segment(self, micros: Timestamp) -> Path {
        let Self { pipeline, bot_id, lane } = self;
        StorageKey::Segment { pipeline, bot_id, lane, micros }.path()
    }
}

impl Walk {
    /// Finds the lanes; the walk begins with the first segment at or after `since`.
    pub(super) async fn new(
        storage: &Storage,
        pipelines: &[Name],
        since: Option<Timestamp>,
        lanes: &mut Lanes,
    ) -> Result<Self> {
        let mut bots = Vec::new();
        for pipeline in pipelines {
            let root = StorageKey::RawPipeline { pipeline: pipeline.clone() }.path();
            bots.extend(storage.list_folders(&root).await?.into_iter().map(|bot| (pipeline, bot)));
        }
        let mut cursors = Vec::new();
        for (pipeline, bot) in bots {
            let Some(bot_id) = bot.filename().and_then(|name| name.parse().ok()).map(BotId) else { continue };
            for folder in storage.list_folders(&bot).await? {
                let Some(lane) = folder.filename().and_then(|name| Name::new(name).ok()) else { continue };
                let name = LaneName { pipeline: pipeline.clone(), bot_id, lane };
                let before = since.map(|since| Timestamp::from_micros(since.as_micros().saturating_sub(1)));
                let after = before.filter(|before| *before > Timestamp::default());
                let after = after.map(|micros| name.clone().segment(micros));
                let lane = lanes.number(&name);
                cursors.push(Cursor { lane, folder, after, page: VecDeque::new(), is_exhausted: false });
            }
        }
        let page = (HELD / cursors.len().max(1)).clamp(16, 1_000);
        Ok(Self { storage: storage.clone(), cursors, page })
    }

    /// The oldest remaining segment, if it is not after `to`.
    pub(super) async fn next(&mut self, to: Timestamp) -> Result<Option<Listed>> {
        for cursor in &mut self.cursors {
            cursor.fill(&self.storage, self.page).await?;
        }
        let heads = self.cursors.iter_mut().filter_map(|cursor| Some((cursor.page.front()?.micros, cursor)));
        let oldest = heads.filter(|(micros, _)| *micros <= to).min_by_key(|(micros, cursor)| (*micros, cursor.lane));
        Ok(oldest.and_then(|(_, cursor)| cursor.page.pop_front()))
    }
}

impl Cursor {
    async fn fill(&mut self, storage: &Storage, limit: usize) -> Result<()> {
        while self.page.is_empty() && !self.is_exhausted {
            let objects = storage.list_after(&self.folder, self.after.as_ref(), limit).await?;
            self.is_exhausted = objects.len() < limit;
            self.after = objects.last().map(|object| object.location.clone());
            let lane = self.lane;
            self.page.extend(objects.iter().filter_map(|object| match StorageKey::parse(&object.location)? {
                StorageKey::Segment { micros, .. } => Some(Listed { lane, micros, size_bytes: object.size }),
                _ => None,
            }));
        }
        Ok(())
    }
}
