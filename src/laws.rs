//! What must hold for any outside input: the laws that fuzzers and property tests hold the parsers to. Inputs that once
//! broke one are kept in `tests/fixtures/found`.
#![allow(clippy::panic)]

use std::collections::BTreeMap;
use std::path::Path;

use arrow::array::{Array, AsArray};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::value::RawValue;

use crate::load::lanes::batch_of;
use crate::pipeline::load;
use crate::telegram::text::{self, MESSAGE_LIMIT_UTF16, Part};
use crate::telegram::update::Update;

/// Any line either is an update with its columns or is kept whole as a corrupt record.
pub fn update(line: &[u8]) {
    let update = Update::parse(line);
    assert_eq!(update, Update::parse(line), "one line is one update, always");
    match update {
        Update::Known(columns) => {
            if let Some(rescued) = &columns.rescued {
                // Its content stays as it arrived, including numbers that no float can hold.
                let fields = serde_json::from_str::<BTreeMap<String, &RawValue>>(rescued);
                assert!(fields.is_ok(), "{rescued} is no object");
            }
            if let Some(sent_at) = columns.sent_at {
                assert_eq!(columns.date.map(|seconds| seconds * 1_000_000), Some(sent_at.as_micros()));
            }
        }
        Update::Corrupt { text } => match std::str::from_utf8(line) {
            Ok(line) => assert!(text == line || line.contains("_corrupt_record"), "{line:?} became {text:?}"),
            Err(_) => {
                let decoded = text.strip_prefix("data:;base64,").map(|encoded| STANDARD.decode(encoded));
                assert_eq!(decoded, Some(Ok(line.to_vec())), "{text} is not the line in base64");
            }
        },
    }
}

/// Every non-blank line of a segment is one row, which holds it verbatim or as a corrupt record.
pub fn segment(bytes: &[u8]) {
    let rows = batch_of(bytes).unwrap_or_else(|error| panic!("a segment makes no rows: {error}"));
    let lines = bytes.split(|byte| *byte == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line));
    let lines: Vec<&[u8]> = lines.filter(|line| !line.iter().all(u8::is_ascii_whitespace)).collect();
    assert_eq!(rows.num_rows(), lines.len());
    let column = |name: &str| rows.column_by_name(name).and_then(|column| column.as_string_opt::<i32>());
    let (Some(payloads), Some(corrupt)) = (column("payload"), column("_corrupt_record")) else {
        panic!("a row has no column for its text");
    };
    for (row, line) in lines.iter().enumerate() {
        assert_ne!(payloads.is_valid(row), corrupt.is_valid(row), "row {row} is neither or both");
        if payloads.is_valid(row) {
            assert_eq!(payloads.value(row).as_bytes(), *line, "row {row}");
        }
    }
}

/// Any text either is a pipeline or is refused with the file's name.
pub fn pipeline_file(text: &str) {
    if let Err(error) = load::parse(text, Path::new("nowhere/any.toml"), &[]) {
        assert!(error.to_string().contains("any.toml"), "{error}");
    }
}

/// Any answer becomes messages that Telegram accepts.
pub fn reply(markdown: &str) {
    let parts = text::render(markdown);
    assert_eq!(parts, text::render(markdown), "one answer is one reply, always");
    for Part { text, entities } in &parts {
        let units: Vec<u16> = text.encode_utf16().collect();
        assert!(!text.trim().is_empty() && units.len() <= MESSAGE_LIMIT_UTF16, "{} units", units.len());
        for entity in entities {
            let end = entity.offset + entity.length;
            assert!(entity.length > 0 && end <= units.len(), "{entity:?} of {} units", units.len());
            let cuts_a_pair = |at: usize| units.get(at).is_some_and(|unit| (0xdc00..0xe000).contains(unit));
            assert!(!cuts_a_pair(entity.offset) && !cuts_a_pair(end), "{entity:?} cuts a character");
        }
        assert!(entities.is_sorted_by_key(|entity| entity.offset), "{entities:?}");
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Inputs that once broke a law, or look as if they could.
    fn found(law: &str) -> Vec<Vec<u8>> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/found").join(law);
        let files = std::fs::read_dir(folder).into_iter().flatten().flatten();
        let read = |path: std::path::PathBuf| {
            std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
        };
        files.map(|file| read(file.path())).collect()
    }

    #[test]
    fn what_once_broke_a_law_keeps_it_now() {
        found("update").iter().for_each(|input| update(input));
        found("segment").iter().for_each(|input| segment(input));
        found("pipeline_file").iter().for_each(|input| pipeline_file(&String::from_utf8_lossy(input)));
        found("reply").iter().for_each(|input| reply(&String::from_utf8_lossy(input)));
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_segment(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            update(&bytes);
            segment(&bytes);
        }

        #[test]
        fn any_marks_are_a_reply(markdown in "([*_`~|>#\\[\\]() \n-]|[a-z]|😀){0,80}") {
            reply(&markdown);
        }

        #[test]
        fn any_keys_are_a_pipeline_or_refused(text in "([a-z_]{1,8} = (1|\"x\"|\\[\\])\n|\\[[a-z.]{1,9}\\]\n){0,6}") {
            pipeline_file(&text);
        }
    }
}
