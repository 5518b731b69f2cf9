//! The committer: one create-only put at the version after the head, and what to do if the version is taken, the
//! response is lost, or it comes too late.
//!
//! Every commit to a table goes through here, including those of maintenance.

use std::time::Duration;

use bytes::Bytes;
use object_store::path::Path;
use serde_json::{Value, json};

use super::head::{FRESH, LIFE, Moment, Recent};
use super::log::{Action, CommitInfo, commit_bytes};
use super::snapshot::Want;
use super::state::State;
use super::{Anchor, Commit, LakeTable};
use crate::error::{Error, ErrorKind, Result};
use crate::id::random_id;
use crate::retry::Backoff;
use crate::sabotage::{Sabotage, is_on};
use crate::storage::{Beside, Mark, PutNew};

/// The first and the longest delay between retries of transient failures.
const RETRY: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(10));
/// A handle further behind than this is reopened rather than caught up.
const READ_ON_LIMIT: usize = 10_000;

/// A commit by someone else, found on the way to the head.
#[derive(Clone, Debug)]
pub(crate) struct Passed {
    pub(crate) version: i64,
    pub(crate) actions: Vec<Action>,
}

/// What was found beyond the head that a plan was based on.
#[derive(Clone, Debug)]
pub(crate) enum News {
    /// These commits, all of them, in order.
    Commits(Vec<Passed>),
    /// A gap: a clean-up deleted commits before they were read. Only the state is known.
    Gap,
}

/// Who commits what, for the table's history.
#[derive(Clone, Debug)]
pub(crate) struct Provenance {
    /// As Spark names it: `WRITE`, `OPTIMIZE`, `ADD COLUMNS`.
    pub(crate) operation: &'static str,
    /// Its parameters.
    pub(crate) parameters: Value,
    /// Counts, as text.
    pub(crate) metrics: Value,
    /// Whether it adds files without having read the table.
    pub(crate) blind_append: bool,
}

/// How a commit ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Landing {
    /// It created this version; `earlier` if an earlier try did, whose response was lost.
    Landed { version: i64, earlier: bool },
    /// Its planner withdrew it.
    Withdrawn,
    /// Its time ran out; its outcome is unknown.
    Expired,
}

/// How a retried put ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum PutEnd {
    /// With the mark of the object, where this very try has created it and a store on a local disk says so.
    Created {
        earlier: bool,
        mark: Option<Mark>,
    },
    Taken,
    Expired,
    /// The head is no longer what it was, so nothing was put.
    Displaced,
}

impl LakeTable {
    /// Commits what `plan` returns for the given state, at the version after it. `plan` is called again after every
    /// lost race, with the commits that won, and withdraws by returning `None`.
    ///
    /// # Errors
    /// Errors of `plan`; Fatal, Refused and Configuration errors of the store immediately, Unavailable when the time of
    /// the attempt has run out.
    pub(crate) async fn land<P>(&mut self, provenance: &Provenance, mut plan: P) -> Result<Landing>
    where
        P: FnMut(&State, &News) -> Result<Option<Vec<Action>>>,
    {
        let commit_id = random_id().to_string();
        let mut news = self.freshen().await?;
        loop {
            if self.stale {
                return Ok(Landing::Expired);
            }
            let Some(planned) = plan(&self.state, &news)? else { return Ok(Landing::Withdrawn) };
            let mut beside = self.beside();
            if beside.is_none() {
                if let Some(gap) = self.ensure_there().await? {
                    news = gap;
                    continue;
                }
                beside = self.beside();
            }
            let mut actions = vec![Action::CommitInfo(self.commit_info(provenance, &commit_id))];
            actions.extend(planned);
            let version = self.state.version + 1;
            let put_at = Moment::now(&self.clock);
            let path = self.log.commit_path(version);
            match self.put_patiently(&path, commit_bytes(&actions)?, beside.as_ref()).await? {
                PutEnd::Expired => return Ok(Landing::Expired),
                PutEnd::Displaced => {
                    (self.head_mark, news) = (None, News::Commits(Vec::new()));
                }
                PutEnd::Created { earlier, mark } => {
                    if let Some(Beside { path, mark }) = beside {
                        self.keep_anchor(path, mark, put_at);
                    }
                    self.pass(&[Passed { version, actions }])?;
                    self.head_mark = mark;
                    self.touched = put_at;
                    return Ok(Landing::Landed { version, earlier });
                }
                PutEnd::Taken => {
                    let passed = self.read_on_patiently().await?;
                    tracing::info!(table = %self.log.table, version, "lost the race for a version");
                    if let Some(version) = passed.iter().find(|passed| passed.is(&commit_id)).map(|ours| ours.version) {
                        return Ok(Landing::Landed { version, earlier: true });
                    }
                    if passed.is_empty() {
                        return Ok(Landing::Expired);
                    }
                    news = News::Commits(passed);
                }
            }
        }
    }

    /// Puts a new object, retrying with the same bytes while the head is young enough. How long one put may take is up
    /// to the store. Nothing is put if what must be `beside` it is not there.
    pub(crate) async fn put_patiently(&self, path: &Path, bytes: Bytes, beside: Option<&Beside>) -> Result<PutEnd> {
        let mut backoff = Backoff::new(RETRY.0, RETRY.1);
        let mut in_doubt = false;
        while self.is_alive() {
            let put = match beside {
                Some(beside) => self.log.storage.put_new_beside(path, bytes.clone(), beside.clone()).await,
                None => self.log.storage.put_new_marked(path, bytes.clone()).await.map(Some),
            };
            let error = match put {
                // Too late: a file may be vacuumed by now, and a commit may be below the part of the log that is left.
                Ok(_) if !self.is_alive() => break,
                // An earlier try may have put it, and is looked for when the head is read on.
                Ok(None) => return Ok(PutEnd::Displaced),
                Ok(Some((PutNew::Created, mark))) => return Ok(PutEnd::Created { earlier: in_doubt, mark }),
                Ok(Some((PutNew::Taken, _))) => return Ok(PutEnd::Taken),
                Err(error) if is_transient(&error) => error,
                Err(error) => return Err(error),
            };
            in_doubt |= error.kind() == ErrorKind::Unknown;
            tracing::warn!(%error, tries = backoff.tries(), "a put failed; retrying");
            self.clock.sleep(backoff.next_delay()).await;
        }
        Ok(PutEnd::Expired)
    }

    /// Whether an attempt on the known head may continue.
    pub(crate) fn is_alive(&self) -> bool {
        self.touched.age(&self.clock) < LIFE
    }

    /// Reads the head again if it was read too long ago to commit on it.
    pub(crate) async fn freshen(&mut self) -> Result<News> {
        match self.touched.age(&self.clock) < FRESH {
            true => Ok(News::Commits(Vec::new())),
            false => self.renew().await,
        }
    }

    /// Reads on from a head that may be older than the log's clean-up. If commits are gone, the state is read anew.
    pub(crate) async fn renew(&mut self) -> Result<News> {
        let began = Moment::now(&self.clock);
        let version = self.state.version;
        let checkpoint = self.log.last_checkpoint().await?.map_or(-1, |checkpoint| checkpoint.version);
        // A clean-up stays below the checkpoint that is named: a head above it still exists, unless the table is another.
        let in_place = checkpoint >= version || self.is_anchored().await?;
        if in_place && checkpoint < version {
            self.seen = Some(began);
        }
        if in_place {
            let passed = self.read_on().await?;
            if self.state.version >= checkpoint {
                self.touched = began;
                return Ok(News::Commits(passed));
            }
        }
        self.read_anew(began).await
    }

    /// Reads the state of the table from its checkpoint on.
    pub(super) async fn read_anew(&mut self, began: Moment) -> Result<News> {
        match self.log.snapshot(Want::default()).await? {
            Some(fresh) if self.is_same(&fresh.state) && fresh.state.version >= self.state.version => {
                self.recent = Recent::from(&fresh.state.txns);
                self.state = fresh.state;
                self.anchor = fresh.newest.map(|object| Anchor::new(object, began));
                self.head_mark = None;
                (self.touched, self.seen) = (began, None);
                Ok(News::Gap)
            }
            Some(other) if !self.is_same(&other.state) => Err(self.gone("was replaced by another one")),
            Some(_) => Err(self.gone("was replaced by an older copy of itself")),
            None => Err(self.gone("was removed")),
        }
    }

    fn is_same(&self, state: &State) -> bool {
        state.metadata.id == self.state.metadata.id
    }

    fn gone(&self, what: &str) -> Error {
        Error::corrupt(format!(
            "table {} {what} while it was in use; restore it, or run `lakegram adopt` to continue with what is there now",
            self.log.table
        ))
    }

    /// Reads commits up to the first that does not exist. On an error none of it is known.
    pub(crate) async fn read_on(&mut self) -> Result<Vec<Passed>> {
        let began = Moment::now(&self.clock);
        let mut passed = Vec::new();
        let mut version = self.state.version + 1;
        while let Some(actions) = self.log.read(version).await? {
            passed.push(Passed { version, actions });
            version += 1;
            if passed.len() > READ_ON_LIMIT {
                self.stale = true;
                let text = format!("table {} is far ahead of what was read; open it again", self.log.table);
                return Err(Error::unavailable(text));
            }
        }
        if let Some(last) = passed.last() {
            // Its writer may have died before it was durable, and we are about to act on it.
            self.log.storage.persist_folder_of(&self.log.commit_path(last.version)).await?;
            self.pass(&passed)?;
        }
        self.touched = began;
        Ok(passed)
    }

    async fn read_on_patiently(&mut self) -> Result<Vec<Passed>> {
        let mut backoff = Backoff::new(RETRY.0, RETRY.1);
        loop {
            match self.read_on().await {
                Err(error) if is_transient(&error) && self.is_alive() && !self.stale => {
                    self.clock.sleep(backoff.next_delay()).await;
                    // The machine may have slept for longer. A head that is read now would look fresh, while the data
                    // file of this attempt may be gone.
                    if !self.is_alive() {
                        return Err(error);
                    }
                }
                ended => return ended,
            }
        }
    }

    /// Moves the head past these commits, all of them or none.
    fn pass(&mut self, commits: &[Passed]) -> Result<()> {
        let mut state = self.state.clone();
        for commit in commits {
            state.advance(&self.log.table, &commit.actions)?;
        }
        if !self.is_same(&state) {
            return Err(self.gone("was replaced by another one"));
        }
        self.state = state;
        self.head_mark = None;
        for commit in commits {
            self.recent.push(Commit::from_actions(commit.version, &commit.actions));
        }
        Ok(())
    }

    fn commit_info(&self, provenance: &Provenance, commit_id: &str) -> CommitInfo {
        let other = json!({
            "operation": provenance.operation,
            "operationParameters": provenance.parameters,
            "operationMetrics": provenance.metrics,
            "readVersion": self.state.version,
            "isBlindAppend": provenance.blind_append,
            "engineInfo": concat!("lakegram/", env!("CARGO_PKG_VERSION")),
        });
        CommitInfo {
            timestamp: Some(self.clock.now().as_millis()),
            txn_id: Some(commit_id.to_owned()),
            other: other.as_object().cloned().unwrap_or_default(),
        }
    }
}

impl Passed {
    fn is(&self, commit_id: &str) -> bool {
        let ours =
            |action: &Action| matches!(action, Action::CommitInfo(info) if info.txn_id.as_deref() == Some(commit_id));
        self.actions.iter().any(ours) && !is_on(Sabotage::ReadBack)
    }
}

/// Whether the same call may succeed later.
pub(crate) fn is_transient(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Unknown)
}
