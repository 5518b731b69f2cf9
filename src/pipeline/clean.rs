//! `clean_source`: what happens to files of a source once they are loaded.

use std::time::Duration;

use object_store::path::Path;
use serde::{Deserialize, Serialize};

use super::table_path::is_within;
use super::{BronzeSettings, duration};
use crate::clock::Timestamp;
use crate::error::{Error, Result};

/// How far below the position of a lane the daily look-back reaches.
pub const LOOK_BACK: Duration = Duration::from_secs(48 * 3_600);

/// What happens to a loaded file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum CleanAction {
    /// It is kept.
    #[default]
    Keep,
    /// It is deleted.
    Delete,
    /// It is moved to another folder.
    Move,
}

/// Which loaded files are cleaned, and how.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CleanSource {
    /// What happens to them.
    pub action: CleanAction,
    /// How long ago they must have been loaded; zero means as soon as they are.
    #[serde(default = "default_after", deserialize_with = "duration")]
    pub after: Duration,
    /// The folder they are moved to, written the way the source is.
    #[serde(default)]
    pub to: Option<String>,
}

impl Default for CleanSource {
    fn default() -> Self {
        Self { action: CleanAction::Keep, after: default_after(), to: None }
    }
}

impl CleanSource {
    /// Whether anything is ever cleaned.
    pub fn is_on(&self) -> bool {
        self.action != CleanAction::Keep
    }

    /// What was loaded before this is old enough at `now`. With `after = "0s"` everything loaded is, whatever clocks
    /// say: rows have our time, and `now` may be that of a store which is a little behind.
    pub fn loaded_before(&self, now: Timestamp) -> Timestamp {
        match self.after.is_zero() {
            true => Timestamp::from_micros(i64::MAX),
            false => now.minus(self.after),
        }
    }

    /// Checks what the settings alone can tell: that a move has a destination, separate from these other folders.
    ///
    /// # Errors
    /// A configuration error with the fix.
    pub(super) fn check(&self, key: &str, source: &str, others: &[&str]) -> Result<()> {
        let fail = |text: &str| Err(Error::configuration(format!("{key}{text}")));
        let to = match (self.action, self.to.as_deref()) {
            (CleanAction::Move, Some(to)) => to,
            (CleanAction::Move, None) => {
                return fail(": action = \"move\" needs a destination; add to = \"archive\"");
            }
            (_, Some(_)) => return fail(".to only applies to action = \"move\"; set that, or remove `to`"),
            (_, None) => return Ok(()),
        };
        if is_own(source) != is_own(to) {
            return fail(&format!(
                ".to = \"{to}\": write it the way the source \"{source}\" is written, both relative to LAKEGRAM_DATA or both in full"
            ));
        }
        if !is_own(to) && (Path::parse(to).is_err() || to.is_empty() || to.split('/').any(|part| part.starts_with('.')))
        {
            return fail(&format!(".to = \"{to}\": write a folder relative to LAKEGRAM_DATA, like \"archive\""));
        }
        if to.split('/').any(|part| part == "..") {
            return fail(&format!(".to = \"{to}\": remove `..`"));
        }
        match others.iter().chain([&source]).find(|other| is_within(to, other) || is_within(other, to)) {
            Some(other) => fail(&format!(".to = \"{to}\" and \"{other}\" overlap; use separate folders")),
            None => Ok(()),
        }
    }
}

impl BronzeSettings {
    /// Checks the cleaning of the lanes, whose loader still looks back at recent segments.
    ///
    /// # Errors
    /// A configuration error with the fix.
    pub(super) fn check_clean_source(&self, tables: &[&str]) -> Result<()> {
        let shortest = self.redelivery_window.saturating_add(LOOK_BACK);
        let CleanSource { after, .. } = self.clean_source;
        if self.clean_source.is_on() && after <= shortest {
            let [after, shortest] = [after, shortest].map(humantime::format_duration);
            return Err(Error::configuration(format!(
                "bronze.clean_source.after = \"{after}\": redeliveries and the daily look-back reach {shortest} back; \
                 use more than that"
            )));
        }
        let others: Vec<&str> = tables.iter().copied().chain(["intents", "_lakegram"]).collect();
        self.clean_source.check("bronze.clean_source", "raw", &others)
    }
}

/// Whether a folder is given in full, rather than relative to `LAKEGRAM_DATA`.
pub fn is_own(path: &str) -> bool {
    path.contains("://") || path.starts_with('/')
}

const fn default_after() -> Duration {
    Duration::from_secs(30 * 86_400)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(settings: &str, source: &str) -> Result<()> {
        toml::from_str::<CleanSource>(settings).unwrap().check("source.clean_source", source, &["bronze/t"])
    }

    #[test]
    fn settings_that_make_no_sense_are_refused_with_the_fix() {
        let said = |settings: &str, source: &str| check(settings, source).unwrap_err().to_string();
        assert!(said("action = \"move\"", "in").contains("add to = \"archive\""));
        assert!(said("action = \"delete\"\nto = \"archive\"", "in").contains("remove `to`"));
        for to in ["in", "in/done", "bronze/t/x", "bronze", "in/"] {
            let error = said(&format!("action = \"move\"\nto = \"{to}\""), "in");
            assert!(error.contains("separate folders") || error.contains("relative to"), "{to}: {error}");
        }
        assert!(said("action = \"move\"\nto = \"in\"", "in/deep").contains("separate folders"));
        for to in ["", "../out", ".hidden", "a//b"] {
            let error = said(&format!("action = \"move\"\nto = \"{to}\""), "in");
            assert!(error.contains("relative to LAKEGRAM_DATA"), "{to}: {error}");
        }
        assert!(said("action = \"move\"\nto = \"archive\"", "s3://b/in").contains("both in full"));
        assert!(said("action = \"move\"\nto = \"s3://b/in/done\"", "s3://b/in").contains("separate folders"));
        assert!(toml::from_str::<CleanSource>("action = \"burn\"").is_err());
        assert!(toml::from_str::<CleanSource>("action = \"delete\"\nafter = \"soon\"").is_err());
    }

    #[test]
    fn lanes_are_not_cleaned_of_what_their_loader_still_looks_at() {
        let check = |clean_source: &str| {
            let settings: BronzeSettings =
                toml::from_str(&format!("table = \"bronze/m\"\nclean_source = {{ {clean_source} }}")).unwrap();
            settings.check_clean_source(&["bronze/m"])
        };
        let short = check("action = \"delete\", after = \"4d\"").unwrap_err().to_string();
        assert!(short.contains("reach 4days back"), "{short}");
        check("action = \"delete\", after = \"5d\"").unwrap();
        check("action = \"keep\", after = \"1d\"").unwrap();
        for to in ["raw", "raw/old", "bronze", "intents/x"] {
            assert!(check(&format!("action = \"move\", to = \"{to}\"")).is_err(), "{to}");
        }
        check("action = \"move\", to = \"archive/raw\"").unwrap();
    }

    #[test]
    fn the_default_keeps_and_thirty_days_is_the_time() {
        assert!(!CleanSource::default().is_on());
        let delete: CleanSource = toml::from_str("action = \"delete\"").unwrap();
        assert_eq!((delete.is_on(), delete.after), (true, Duration::from_secs(2_592_000)));
        check("action = \"move\"\nto = \"in-archive\"", "in").unwrap();
        check("action = \"move\"\nto = \"/srv/done\"", "/srv/in").unwrap();
    }
}
