//! The lines of a span of time, each with what its row must contain.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};

use futures::{FutureExt, StreamExt, TryStreamExt, stream};

use super::source::Span;
use super::walk::{Lanes, LinePosition, Listed, Walk};
use crate::clock::Timestamp;
use crate::error::{Context, ErrorKind, Result};
use crate::storage::Storage;
use crate::telegram::Update;

/// Lines per chunk; one more segment may exceed it. Tests use small chunks, so that they hit every boundary.
const LINES: usize = if cfg!(test) { 2 } else { 250_000 };
/// Bytes of segments read together, and how many segments; a larger one is read alone.
const READING: (u64, usize) = if cfg!(test) { (1, 1) } else { (4 * 1_024 * 1_024, 512) };
/// Segments read at the same time.
const AT_ONCE: usize = 16;

/// The lines of all lanes that were received within a span of time.
pub(super) struct Chunk {
    pub(super) span: Span,
    lines: Vec<Line>,
    segments: HashMap<(u32, Timestamp), Segment>,
}

/// The lines of a segment, and how many of them have a row.
#[derive(Clone, Copy, Debug)]
struct Segment {
    first: usize,
    lines: usize,
    with_rows: usize,
}

/// A non-blank line.
#[derive(Clone, Copy, Debug)]
struct Line {
    number: u32,
    content: Content,
    rows: u16,
}

/// What a line, or a row, contains.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Content {
    /// `None` when it is corrupt.
    pub(super) update_id: Option<i64>,
    digest: u64,
}

/// A line without a row.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rowless {
    pub(super) place: LinePosition,
    pub(super) update_id: Option<i64>,
    /// What it says.
    pub(super) content: Content,
    /// Whether other lines of its segment have rows.
    pub(super) is_loaded: bool,
}

/// How a row matches the lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fit {
    /// Its line has the same content.
    Right,
    /// Its line has other content.
    Differs,
    /// Its line has the same content, but already has a row.
    Second,
    /// Its segment has no such line.
    NoLine,
    /// Its segment is gone.
    NoSegment,
}

impl Content {
    /// An update, verbatim.
    pub(super) fn update(update_id: Option<i64>, payload: &str) -> Self {
        Self { update_id, digest: digest(0, payload) }
    }

    /// Something that is not an update.
    pub(super) fn corrupt(text: &str) -> Self {
        Self { update_id: None, digest: digest(1, text) }
    }

    fn of_line(line: &[u8]) -> Self {
        match Update::parse(line) {
            Update::Known(update) => Self::update(Some(update.update_id), &String::from_utf8_lossy(line)),
            Update::Corrupt { text } => Self::corrupt(&text),
        }
    }
}

fn digest(kind: u8, text: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    (kind, text).hash(&mut hasher);
    hasher.finish()
}

impl Chunk {
    /// Reads segments from the walk's position to the end of `span`, or until there are enough lines. The chunk's own
    /// span says how far it got.
    pub(super) async fn read(storage: &Storage, lanes: &Lanes, walk: &mut Walk, span: Span) -> Result<Self> {
        let mut chunk = Self { span, lines: Vec::new(), segments: HashMap::new() };
        let (mut reading, mut bytes, mut end) = (Vec::new(), 0, None);
        loop {
            let next = walk.next(end.unwrap_or(span.1)).await?;
            if next.is_none() || bytes >= READING.0 || reading.len() >= READING.1 {
                chunk.take(storage, lanes, &std::mem::take(&mut reading)).await?;
                bytes = 0;
            }
            let Some(listed) = next else { break };
            bytes += listed.size_bytes;
            reading.push(listed);
            if chunk.lines.len() >= LINES && end.is_none() {
                // Lines of other lanes with the same time belong to this chunk as well.
                end = Some(listed.micros);
                chunk.span.1 = listed.micros;
            }
        }
        Ok(chunk)
    }

    async fn take(&mut self, storage: &Storage, lanes: &Lanes, listed: &[Listed]) -> Result<()> {
        let get = |listed: Listed| {
            let path = lanes.path(listed.lane, listed.micros);
            async move { Result::Ok((listed, storage.get(&path).await?)) }.boxed()
        };
        let gets: Vec<_> = listed.iter().map(|listed| get(*listed)).collect();
        let segments: Vec<_> = stream::iter(gets).buffered(AT_ONCE).try_collect().await?;
        let parsing = tokio::task::spawn_blocking(move || {
            // If it disappeared since the listing, its rows will show that.
            let there = segments.into_iter().filter_map(|(listed, bytes)| Some((listed, bytes?)));
            there.map(|(listed, bytes)| (listed, lines(&bytes))).collect::<Vec<_>>()
        });
        for (listed, lines) in parsing.await.context(ErrorKind::Unavailable, "split segments into lines")? {
            let segment = Segment { first: self.lines.len(), lines: lines.len(), with_rows: 0 };
            self.lines.extend(lines);
            self.segments.insert((listed.lane, listed.micros), segment);
        }
        Ok(())
    }

    pub(super) fn lines(&self) -> u64 {
        self.lines.len() as u64
    }

    /// Adds a row of the table.
    pub(super) fn fit(&mut self, place: LinePosition, content: Content) -> Fit {
        let Some(segment) = self.segments.get_mut(&(place.lane, place.micros)) else { return Fit::NoSegment };
        let lines = self.lines.get_mut(segment.first..segment.first + segment.lines).unwrap_or_default();
        let found = lines.binary_search_by_key(&place.line, |line| i64::from(line.number));
        let Some(line) = found.ok().and_then(|index| lines.get_mut(index)) else { return Fit::NoLine };
        line.rows = line.rows.saturating_add(1);
        segment.with_rows += usize::from(line.rows == 1);
        match line.content == content {
            false => Fit::Differs,
            true if line.rows > 1 => Fit::Second,
            true => Fit::Right,
        }
    }

    /// The lines without a row.
    pub(super) fn rowless(&self) -> impl Iterator<Item = Rowless> {
        self.segments.iter().flat_map(|((lane, micros), segment)| {
            let lines = self.lines.get(segment.first..segment.first + segment.lines).unwrap_or_default();
            lines.iter().filter(|line| line.rows == 0).map(|line| Rowless {
                place: LinePosition { lane: *lane, micros: *micros, line: i64::from(line.number) },
                update_id: line.content.update_id,
                content: line.content,
                is_loaded: segment.with_rows > 0,
            })
        })
    }
}

/// The lines of a segment, numbered from 1; blank ones count but are left out.
fn lines(bytes: &[u8]) -> Vec<Line> {
    let numbered = (1..).zip(bytes.split(|byte| *byte == b'\n'));
    let numbered = numbered.map(|(number, line)| (number, line.strip_suffix(b"\r").unwrap_or(line)));
    let numbered = numbered.filter(|(_, line)| !line.iter().all(u8::is_ascii_whitespace));
    numbered.map(|(number, line)| Line { number, content: Content::of_line(line), rows: 0 }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_numbered_from_one_and_blank_ones_are_none() {
        let found = lines(b" \r\n{\"update_id\":7}\r\n\nodd\n");
        let expected = [(2, Some(7)), (4, None)];
        assert_eq!(found.iter().map(|line| (line.number, line.content.update_id)).collect::<Vec<_>>(), expected);
        assert_eq!(found[0].content, Content::update(Some(7), "{\"update_id\":7}"));
        assert_eq!(found[1].content, Content::corrupt("odd"));
    }

    #[test]
    fn a_row_fits_its_line_once_and_word_for_word() {
        let lines = lines(b"{\"update_id\":7}\n{\"update_id\":8}\nodd");
        let micros = Timestamp::from_micros(5);
        let segment = Segment { first: 0, lines: lines.len(), with_rows: 0 };
        let span = (micros, micros);
        let mut chunk = Chunk { span, lines, segments: HashMap::from([((0, micros), segment)]) };
        let place = |line| LinePosition { lane: 0, micros, line };
        let seven = Content::update(Some(7), "{\"update_id\":7}");
        assert_eq!(chunk.fit(place(1), seven), Fit::Right);
        assert_eq!(chunk.fit(place(1), seven), Fit::Second);
        assert_eq!(chunk.fit(place(2), seven), Fit::Differs);
        assert_eq!(chunk.fit(place(9), seven), Fit::NoLine);
        assert_eq!(chunk.fit(LinePosition { lane: 1, ..place(1) }, seven), Fit::NoSegment);
        let rowless: Vec<_> = chunk.rowless().collect();
        assert_eq!(rowless.len(), 1);
        assert_eq!((rowless[0].place, rowless[0].update_id, rowless[0].is_loaded), (place(3), None, true));
    }
}
