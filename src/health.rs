//! The state of each stage of this process: maintained by the keepers, shown by the probes.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use serde::{Serialize, Serializer};

use crate::clock::Timestamp;
use crate::redact::redact;

/// The states of all stages of this process. Cheap to clone; clones share them.
#[derive(Clone, Debug, Default)]
pub struct Health {
    stages: Arc<Mutex<BTreeMap<StageId, StageState>>>,
}

/// Which stage.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct StageId {
    /// The pipeline; empty for a stage that serves all of them.
    pub pipeline: String,
    /// The stage: `bronze`, `silver`, `reply`, `maintain`, …
    pub stage: &'static str,
}

/// The state of a stage.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum StageState {
    /// It is being opened for the first time.
    Opening,
    /// It works.
    Ok,
    /// It does not work now; everything else does.
    Unwell(Unwell),
}

/// Why a stage does not work, and what happens next.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Unwell {
    /// What failed, in one line.
    pub reason: String,
    /// Since when it has not worked.
    #[serde(serialize_with = "as_text")]
    pub since: Timestamp,
    /// When it will be reopened.
    #[serde(serialize_with = "as_text")]
    pub next_try: Timestamp,
}

/// A stage and its state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct StageHealth {
    /// Which stage.
    #[serde(flatten)]
    pub id: StageId,
    /// Its state.
    #[serde(flatten)]
    pub state: StageState,
}

/// The overall state, for a probe.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Report {
    /// `ok`; `degraded` when a stage is unwell; `failing` when nothing can be landed.
    pub status: &'static str,
    /// `ok`, or why nothing can be landed.
    pub landing: String,
    /// Every stage.
    pub stages: Vec<StageHealth>,
}

fn as_text<S: Serializer>(moment: &Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(moment)
}

impl Health {
    /// Sets the state of a stage; returns the previous one.
    pub fn note(&self, id: &StageId, state: StageState) -> Option<StageState> {
        self.stages.lock().unwrap_or_else(PoisonError::into_inner).insert(id.clone(), state)
    }

    /// Shows a stage as unwell, since it first was; returns its previous state.
    pub fn unwell(&self, id: &StageId, mut unwell: Unwell) -> Option<StageState> {
        let mut stages = self.stages.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(StageState::Unwell(before)) = stages.get(id) {
            unwell.since = before.since;
        }
        stages.insert(id.clone(), StageState::Unwell(unwell))
    }

    /// Shows a stage as well if it is unwell; returns whether it was.
    pub fn recover(&self, id: &StageId) -> bool {
        let mut stages = self.stages.lock().unwrap_or_else(PoisonError::into_inner);
        match stages.get_mut(id) {
            Some(state @ StageState::Unwell(_)) => {
                *state = StageState::Ok;
                true
            }
            _ => false,
        }
    }

    /// Whether a stage does not work.
    pub fn is_unwell(&self, id: &StageId) -> bool {
        let stages = self.stages.lock().unwrap_or_else(PoisonError::into_inner);
        matches!(stages.get(id), Some(StageState::Unwell(_)))
    }

    /// All stages, by pipeline and name.
    pub fn stages(&self) -> Vec<StageHealth> {
        let stages = self.stages.lock().unwrap_or_else(PoisonError::into_inner);
        stages.iter().map(|(id, state)| StageHealth { id: id.clone(), state: state.clone() }).collect()
    }

    /// The response to a probe, given whether bytes can be landed.
    pub fn report(&self, landing: &Result<(), String>) -> Report {
        let stages = self.stages();
        let status = match landing {
            Err(_) => "failing",
            Ok(()) if stages.iter().any(StageHealth::is_unwell) => "degraded",
            Ok(()) => "ok",
        };
        let landing = landing.as_ref().err().map_or("ok", String::as_str).to_owned();
        Report { status, landing, stages }
    }
}

impl Report {
    /// The same with its reasons redacted.
    #[must_use]
    pub fn without_secrets(mut self) -> Self {
        self.landing = redact(&self.landing).into_owned();
        for stage in &mut self.stages {
            if let StageState::Unwell(unwell) = &mut stage.state {
                unwell.reason = redact(&unwell.reason).into_owned();
            }
        }
        self
    }

    /// The same without reasons, for unauthenticated callers: errors contain names of buckets and hosts.
    #[must_use]
    pub fn without_reasons(mut self) -> Self {
        for stage in &mut self.stages {
            if let StageState::Unwell(unwell) = &mut stage.state {
                "see the console or the log".clone_into(&mut unwell.reason);
            }
        }
        self
    }
}

impl fmt::Display for Report {
    /// Lines for people.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(formatter, "landing: {}", self.landing)?;
        self.stages.iter().try_for_each(|stage| writeln!(formatter, "{stage}"))
    }
}

impl StageHealth {
    /// Whether it does not work.
    pub fn is_unwell(&self) -> bool {
        matches!(self.state, StageState::Unwell(_))
    }

    /// The state in one word.
    pub fn word(&self) -> &'static str {
        match self.state {
            StageState::Opening => "opening",
            StageState::Ok => "ok",
            StageState::Unwell(_) => "unwell",
        }
    }
}

impl fmt::Display for StageId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.pipeline.is_empty() {
            true => formatter.write_str(self.stage),
            false => write!(formatter, "{}/{}", self.pipeline, self.stage),
        }
    }
}

impl fmt::Display for StageHealth {
    /// One line for people.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: {}", self.id, self.word())?;
        if let StageState::Unwell(Unwell { reason, since, next_try }) = &self.state {
            write!(formatter, " since {since}, next try {next_try}: {reason}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_stage_is_shown_to_people_and_to_programs() {
        let health = Health::default();
        let id = StageId { pipeline: "telegram".to_owned(), stage: "silver" };
        assert_eq!(health.note(&id, StageState::Opening), None);
        let moment = Timestamp::from_micros(0);
        let unwell = Unwell { reason: "the store is away".to_owned(), since: moment, next_try: moment };
        assert_eq!(health.note(&id, StageState::Unwell(unwell)), Some(StageState::Opening));
        let stages = health.stages();
        let time = "1970-01-01T00:00:00.000000Z";
        let line = format!("telegram/silver: unwell since {time}, next try {time}: the store is away");
        assert_eq!(stages[0].to_string(), line);
        let expected = json!([{"pipeline": "telegram", "stage": "silver", "state": "unwell",
            "reason": "the store is away", "since": time, "next_try": time}]);
        assert_eq!(serde_json::to_value(&stages).unwrap(), expected);
        let report = health.report(&Ok(()));
        assert_eq!((report.status, report.to_string()), ("degraded", format!("landing: ok\n{line}\n")));
        assert!(!report.without_reasons().to_string().contains("the store"));
        crate::redact::know("health-canary-1");
        let unwell = Unwell { reason: "403 of /?key=health-canary-1".to_owned(), since: moment, next_try: moment };
        health.note(&id, StageState::Unwell(unwell));
        let shown = health.report(&Err("bot%2Fhealth%2Dcanary-1".to_owned())).without_secrets();
        let expected = "landing: bot%2F***\ntelegram/silver: unwell since 1970-01-01T00:00:00.000000Z, \
                        next try 1970-01-01T00:00:00.000000Z: 403 of /?key=***\n";
        assert_eq!(shown.to_string(), expected);
        let failing = health.report(&Err("the disk is full".to_owned()));
        assert_eq!((failing.status, failing.landing.as_str()), ("failing", "the disk is full"));
    }
    #[test]
    fn a_stage_is_unwell_since_it_first_was_until_it_recovers() {
        let health = Health::default();
        let id = StageId { pipeline: String::new(), stage: "clock" };
        assert!(!health.recover(&id) && health.stages().is_empty(), "it was never unwell");
        let unwell = |seconds: i64| {
            let now = Timestamp::from_micros(seconds * 1_000_000);
            Unwell { reason: format!("at {seconds}"), since: now, next_try: now }
        };
        assert_eq!(health.unwell(&id, unwell(1)), None);
        assert_eq!(health.unwell(&id, unwell(2)), Some(StageState::Unwell(unwell(1))));
        let shown = Unwell { since: Timestamp::from_micros(1_000_000), ..unwell(2) };
        assert_eq!(health.stages()[0].state, StageState::Unwell(shown));
        assert!(health.recover(&id) && !health.recover(&id) && !health.is_unwell(&id));
        health.unwell(&id, unwell(3));
        assert_eq!(health.stages()[0].state, StageState::Unwell(unwell(3)), "a new time");
    }
}
