//! The raw segments of a pipeline, all lanes together, oldest first.

use std::collections::{HashMap, VecDeque};

use object_store::path::Path;

use crate::clock::Timestamp;
use crate::error::Result;
use crate::id::{BotId, Name};
use crate::storage::{Storage, StorageKey};

/// Keys held of all lanes together.
const HELD: usize = 16_000;

/// The lanes that were met, by number.
#[derive(Debug, Default)]
pub(super) struct Lanes {
    names: Vec<(BotId, Name)>,
    numbers: HashMap<(BotId, Name), u32>,
}

/// Where a line stands: lane, segment, and the line from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Place {
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
    pipeline: Name,
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
    pub(super) fn number(&mut self, bot_id: BotId, lane: &Name) -> u32 {
        if let Some(number) = self.numbers.get(&(bot_id, lane.clone())) {
            return *number;
        }
        let number = u32::try_from(self.names.len()).unwrap_or(u32::MAX);
        self.names.push((bot_id, lane.clone()));
        self.numbers.insert((bot_id, lane.clone()), number);
        number
    }

    pub(super) fn name(&self, lane: u32) -> Option<&(BotId, Name)> {
        self.names.get(usize::try_from(lane).ok()?)
    }

    pub(super) fn bot(&self, lane: u32) -> Option<i64> {
        self.name(lane).map(|(bot_id, _)| bot_id.0)
    }

    /// The path of a segment.
    pub(super) fn path(&self, pipeline: &Name, lane: u32, micros: Timestamp) -> Path {
        let Some((bot_id, lane)) = self.name(lane).cloned() else { return Path::default() };
        StorageKey::Segment { pipeline: pipeline.clone(), bot_id, lane, micros }.path()
    }
}

impl Walk {
    /// Finds the lanes; the walk begins with the first segment at or after `since`.
    pub(super) async fn new(
        storage: &Storage,
        pipeline: &Name,
        since: Option<Timestamp>,
        lanes: &mut Lanes,
    ) -> Result<Self> {
        let root = StorageKey::RawPipeline { pipeline: pipeline.clone() }.path();
        let mut cursors = Vec::new();
        for bot in storage.list_folders(&root).await? {
            let Some(bot_id) = bot.filename().and_then(|name| name.parse().ok()).map(BotId) else { continue };
            for folder in storage.list_folders(&bot).await? {
                let Some(lane) = folder.filename().and_then(|name| Name::new(name).ok()) else { continue };
                let before = since.map(|since| Timestamp::from_micros(since.as_micros().saturating_sub(1)));
                let after = before.filter(|before| *before > Timestamp::default()).map(|micros| {
                    StorageKey::Segment { pipeline: pipeline.clone(), bot_id, lane: lane.clone(), micros }.path()
                });
                let lane = lanes.number(bot_id, &lane);
                cursors.push(Cursor { lane, folder, after, page: VecDeque::new(), is_exhausted: false });
            }
        }
        let page = (HELD / cursors.len().max(1)).clamp(16, 1_000);
        Ok(Self { storage: storage.clone(), pipeline: pipeline.clone(), cursors, page })
    }

    /// The oldest segment that is left, when it is not after `to`.
    pub(super) async fn next(&mut self, to: Timestamp) -> Result<Option<Listed>> {
        for cursor in &mut self.cursors {
            cursor.fill(&self.storage, &self.pipeline, self.page).await?;
        }
        let heads = self.cursors.iter_mut().filter_map(|cursor| Some((cursor.page.front()?.micros, cursor)));
        let oldest = heads.filter(|(micros, _)| *micros <= to).min_by_key(|(micros, cursor)| (*micros, cursor.lane));
        Ok(oldest.and_then(|(_, cursor)| cursor.page.pop_front()))
    }
}

impl Cursor {
    async fn fill(&mut self, storage: &Storage, pipeline: &Name, limit: usize) -> Result<()> {
        while self.page.is_empty() && !self.is_exhausted {
            let objects = storage.list_after(&self.folder, self.after.as_ref(), limit).await?;
            self.is_exhausted = objects.len() < limit;
            self.after = objects.last().map(|object| object.location.clone());
            let lane = self.lane;
            self.page.extend(objects.iter().filter_map(|object| match StorageKey::parse(&object.location)? {
                StorageKey::Segment { pipeline: of, micros, .. } if of == *pipeline => {
                    Some(Listed { lane, micros, size_bytes: object.size })
                }
                _ => None,
            }));
        }
        Ok(())
    }
}
