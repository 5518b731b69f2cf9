//! Where a table is, in one canonical form: two spellings of one folder must never pass for two tables.

use std::fmt;
use std::ops::Deref;

use object_store::path::Path;
use serde::{Deserialize, Deserializer};

use crate::error::{Error, Result};

/// Folders of `LAKEGRAM_DATA` that are not for tables.
const RESERVED: [&str; 3] = ["raw", "intents", "_lakegram"];
/// The folder of a table's log.
const LOG: &str = "_delta_log";

/// The folder of a table, relative to `LAKEGRAM_DATA`: no empty parts, no `.` and `..`, no escapes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TablePath(String);

impl TablePath {
    /// Converts `text` into the canonical form.
    ///
    /// # Errors
    /// A configuration error when it is not a folder of `LAKEGRAM_DATA` that can hold a table.
    pub fn new(text: &str) -> Result<Self> {
        let fail = |why: &str| Err(Error::configuration(format!("table `{text}`: {why}")));
        let Some(folder) = canonical(text) else {
            return fail("write a folder relative to LAKEGRAM_DATA, like \"bronze/messages\"");
        };
        if text.contains('%') {
            return fail("write the name itself, without %-escapes");
        }
        let parts: Vec<String> = folder.split('/').map(str::to_lowercase).collect();
        if let Some(reserved) = parts.first().filter(|first| RESERVED.contains(&first.as_str())) {
            return fail(&format!("`{reserved}/` is not for tables; use another folder"));
        }
        if parts.iter().any(|part| part == LOG) {
            return fail("it is inside the log of a table; use another folder");
        }
        Ok(Self(folder))
    }

    /// The folder as written in storage keys.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether one is inside the other, or both are the same. Some file systems ignore case.
    pub fn overlaps(&self, other: &str) -> bool {
        is_within(&self.0, other) || is_within(other, &self.0)
    }
}

impl Deref for TablePath {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl AsRef<str> for TablePath {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for TablePath {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for TablePath {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        Self::new(&String::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}

/// A folder relative to `LAKEGRAM_DATA` without empty parts, `.` and `..`; `None` if it is invalid, leads out of it, or
/// is hidden.
pub(super) fn canonical(text: &str) -> Option<String> {
    if text.starts_with('/') || text.contains("://") {
        return None;
    }
    let mut parts: Vec<&str> = Vec::new();
    for part in text.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()?),
            hidden if hidden.starts_with('.') => return None,
            part => parts.push(part),
        }
    }
    let folder = parts.join("/");
    (!folder.is_empty() && Path::parse(&folder).is_ok()).then_some(folder)
}

/// Whether a folder is equal to another one or below it, ignoring case.
pub fn is_within(inner: &str, outer: &str) -> bool {
    let parts = |path: &str| -> Vec<String> {
        path.split('/').filter(|part| !matches!(*part, "" | ".")).map(str::to_lowercase).collect()
    };
    parts(inner).starts_with(&parts(outer))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_no_folder_for_a_table_is_refused_with_the_fix() {
        for (text, expected) in [
            ("", "relative to LAKEGRAM_DATA"),
            (".", "relative to LAKEGRAM_DATA"),
            ("/srv/bronze", "relative to LAKEGRAM_DATA"),
            ("s3://bucket/bronze", "relative to LAKEGRAM_DATA"),
            ("bronze/../..", "relative to LAKEGRAM_DATA"),
            ("../data/bronze", "relative to LAKEGRAM_DATA"),
            ("bronze/.hidden", "relative to LAKEGRAM_DATA"),
            ("bronze/a\u{0}b", "relative to LAKEGRAM_DATA"),
            ("bronze%2Fmessages", "without %-escapes"),
            ("raw/telegram", "`raw/` is not for tables"),
            ("x/../Raw", "`raw/` is not for tables"),
            ("intents", "`intents/` is not for tables"),
            ("./_lakegram/x", "`_lakegram/` is not for tables"),
            ("bronze/_delta_log", "the log of a table"),
        ] {
            let error = TablePath::new(text).unwrap_err().to_string();
            assert!(error.contains(expected), "{text}: {error}");
        }
        assert_eq!(TablePath::new("rawhide/messages").unwrap().as_str(), "rawhide/messages");
    }

    #[test]
    fn one_folder_in_another_is_noticed_and_a_longer_name_is_none() {
        let table = TablePath::new("bronze/messages").unwrap();
        for other in ["bronze", "bronze/messages", "BRONZE//Messages/", "./bronze/messages/deep"] {
            assert!(table.overlaps(other), "{other}");
        }
        for other in ["bronze/messages2", "bronze/message", "silver/messages", "messages"] {
            assert!(!table.overlaps(other), "{other}");
        }
    }

    /// A way to write a folder's parts.
    fn spelled(parts: &[String], dressing: &[u8]) -> String {
        let mut text = String::new();
        for (part, how) in parts.iter().zip(dressing.iter().cycle()) {
            text.push_str(match how % 5 {
                0 => "",
                1 => "./",
                2 => "elsewhere/../",
                3 => "a/b/../../",
                _ => ".//./",
            });
            text.push_str(part);
            text.push_str(if how % 2 == 0 { "/" } else { "///" });
        }
        text
    }

    proptest! {
        #[test]
        fn any_two_spellings_of_a_folder_are_one_and_of_two_folders_are_two(
            parts in proptest::collection::vec("[a-z][a-z0-9_-]{0,5}", 1..4),
            others in proptest::collection::vec("[a-z][a-z0-9_-]{0,5}", 1..4),
            dressings in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 1..5), 2),
        ) {
            prop_assume!(!RESERVED.contains(&parts[0].as_str()) && !RESERVED.contains(&others[0].as_str()));
            let table = |parts: &[String], dressing: &[u8]| TablePath::new(&spelled(parts, dressing)).unwrap();
            let plain = parts.join("/");
            prop_assert_eq!(table(&parts, &dressings[0]), table(&parts, &dressings[1]));
            let canonical = table(&parts, &dressings[0]);
            prop_assert_eq!(canonical.as_str(), plain.as_str());
            prop_assert!(canonical.overlaps(&plain.to_uppercase()));
            let is_one = parts == others;
            prop_assert_eq!(canonical == table(&others, &dressings[1]), is_one);
            let nested = parts.starts_with(&others) || others.starts_with(&parts);
            prop_assert_eq!(canonical.overlaps(&others.join("/")), nested);
        }
    }
}
