//! The result of an audit: for each promise how much was checked, what is waiting, what breaks it, what cannot be
//! proven.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;

use crate::clock::Timestamp;

/// Broken rows listed per check; any more are only counted.
const NAMED: usize = 1_000;

/// The result of auditing a pipeline.
#[derive(Clone, Debug, Serialize)]
pub struct PipelineAudit {
    /// Its name.
    pub pipeline: String,
    /// Only what was received since then was checked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<String>,
    /// The tables, at the version that was read.
    pub tables: Vec<AuditedTable>,
    /// The checks, in the order in which data flows.
    pub checks: Vec<Check>,
    /// Parts of replies that may or may not have arrived: not broken, but unknown.
    pub unknown: Listed,
}

/// A table as it was read.
#[derive(Clone, Debug, Serialize)]
pub struct AuditedTable {
    /// `bronze`, `silver` or `replies`.
    pub table: &'static str,
    /// Its folder.
    pub path: String,
    /// The version; `None` if it does not exist or cannot be read.
    pub version: Option<i64>,
    /// Rows, as its log says.
    pub rows: u64,
}

/// One promise.
#[derive(Clone, Debug, Serialize)]
pub struct Check {
    /// Its name.
    pub check: &'static str,
    /// What was proven, if nothing is broken.
    pub promise: &'static str,
    /// How many lines, rows, answers or files were checked.
    pub checked: u64,
    /// How many of them a stage still has to handle.
    pub waiting: u64,
    /// When the oldest of those was received.
    pub waiting_since: Option<String>,
    /// The same, in seconds before the audit.
    pub waiting_seconds: Option<u64>,
    /// How many break the promise.
    pub broken: u64,
    /// How many can no longer be proven.
    pub unproven: u64,
    /// Why not, with a count for each reason.
    pub unproven_because: BTreeMap<String, u64>,
    /// What `clean_source` removed although rows came from it, so that nothing is left to compare them with: files of a
    /// loader, rows of lanes.
    pub cleaned: u64,
    /// Those that break it, at most a thousand.
    pub rows: Vec<Finding>,
}

/// Findings, counted completely and listed up to a limit.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Listed {
    /// How many.
    pub count: u64,
    /// The first of them.
    pub rows: Vec<Finding>,
}

/// A row, line, part or file, and what is wrong with it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What is wrong.
    pub what: String,
    /// The bot.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bot_id: Option<i64>,
    /// The update.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub update_id: Option<i64>,
    /// Silver's attempt.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attempt: Option<i64>,
    /// The send of the part.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub send: Option<i64>,
    /// The part of the reply.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub part: Option<i64>,
    /// The segment, or the data file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// The line in the segment, from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub line: Option<i64>,
    /// When the update was received, to find its line.
    #[serde(skip)]
    pub(super) received: Option<Timestamp>,
}

impl PipelineAudit {
    /// What an audit says of raw folders that no pipeline reads, each in a line.
    pub fn of_unread_raw(folders: &[String]) -> Self {
        let mut check = Check::new("raw folders", "each that holds messages is read by a pipeline");
        check.checked = folders.len() as u64;
        folders.iter().for_each(|folder| check.broken(Finding::new(folder)));
        Self {
            pipeline: "raw".to_owned(),
            since: None,
            tables: Vec::new(),
            checks: vec![check],
            unknown: Listed::default(),
        }
    }

    /// Whether a promise is broken.
    pub fn is_broken(&self) -> bool {
        self.checks.iter().any(|check| check.broken > 0)
    }
}

impl Check {
    pub(super) fn new(check: &'static str, promise: &'static str) -> Self {
        Self {
            check,
            promise,
            checked: 0,
            waiting: 0,
            waiting_since: None,
            waiting_seconds: None,
            broken: 0,
            unproven: 0,
            unproven_because: BTreeMap::new(),
            cleaned: 0,
            rows: Vec::new(),
        }
    }

    pub(super) fn broken(&mut self, finding: Finding) {
        self.broken += 1;
        if self.rows.len() < NAMED {
            self.rows.push(finding);
        }
    }

    pub(super) fn unproven(&mut self, count: u64, why: impl Into<String>) {
        if count > 0 {
            self.unproven += count;
            *self.unproven_because.entry(why.into()).or_default() += count;
        }
    }

    /// By update, so that audits list them in the same order.
    pub(super) fn sort(&mut self) {
        let key = |row: &Finding| (row.bot_id, row.update_id, row.attempt, row.part, row.send);
        self.rows.sort_by(|one, other| (key(one), &one.file, one.line).cmp(&(key(other), &other.file, other.line)));
    }

    /// Counts one more waiting, received at that time.
    pub(super) fn waits(&mut self, received: Timestamp, now: Timestamp) {
        self.waiting += 1;
        let seconds = now.since(received).as_secs();
        if self.waiting_seconds.is_none_or(|oldest| seconds >= oldest) {
            self.waiting_seconds = Some(seconds);
            self.waiting_since = Some(received.to_string());
        }
    }
}

impl Listed {
    pub(super) fn add(&mut self, finding: Finding) {
        self.count += 1;
        if self.rows.len() < NAMED {
            self.rows.push(finding);
        }
    }
}

impl Finding {
    pub(super) fn new(what: impl Into<String>) -> Self {
        Self { what: what.into(), ..Self::default() }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.what)?;
        let numbers = [
            ("bot", self.bot_id),
            ("update", self.update_id),
            ("attempt", self.attempt),
            ("send", self.send),
            ("part", self.part),
        ];
        let mut before = ": ";
        for (name, number) in numbers {
            if let Some(number) = number {
                write!(formatter, "{before}{name} {number}")?;
                before = ", ";
            }
        }
        if let Some(file) = &self.file {
            write!(formatter, "{before}{file}")?;
            if let Some(line) = self.line {
                write!(formatter, " line {line}")?;
            }
        }
        Ok(())
    }
}
