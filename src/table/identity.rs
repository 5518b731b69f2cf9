//! What a table says it belongs to, in the properties of its metadata, so that nobody has to guess from its path.

use std::collections::BTreeMap;

use serde_json::json;

use super::commit::{Landing, Provenance};
use super::log::{Action, MetaData, Txn};
use super::{LakeTable, TableRole, TxnId, txn};
use crate::clock::Timestamp;
use crate::error::{Context, Error, ErrorKind, Result};
use crate::id::{BotId, Name};

const PIPELINE: &str = "lakegram.pipeline";
const FORMER_PIPELINES: &str = "lakegram.formerPipelines";
const ROLE: &str = "lakegram.role";
const BOT: &str = "lakegram.bot";
const UPSTREAM: &str = "lakegram.upstream";
const SOURCE: &str = "lakegram.source";
const HISTORY_BEFORE: &str = "lakegram.historyBefore";

/// What a table belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The pipeline.
    pub pipeline: Name,
    /// What it was called before somebody adopted its tables under another name: their raw folders and intents are
    /// still its own.
    pub former_pipelines: Vec<Name>,
    /// What the table is in it.
    pub role: TableRole,
    /// The bot; `None` for a loader of foreign files.
    pub bot_id: Option<BotId>,
    /// The id of the table it is fed from; `None` for bronze.
    pub upstream: Option<String>,
    /// The folder that a loader of foreign files feeds it from, without credentials; `None` for a bot's tables.
    pub source: Option<String>,
    /// Rows of the upstream table from before this moment are history: they were handled before this table was made.
    pub history_before: Option<Timestamp>,
}

/// The table that a stage may open, as whoever looked at it before says. By default any, and it may be made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OwnTable {
    /// Its id.
    pub id: Option<String>,
    /// What the pipeline was called before: those raw folders and intents are its own too.
    pub former_pipelines: Vec<Name>,
    /// Rows of the upstream table from before this moment were handled before this table was made.
    pub history_before: Option<Timestamp>,
}

impl Identity {
    /// Of a table that is made now.
    pub fn new(pipeline: &Name, role: TableRole, bot_id: Option<BotId>, upstream: Option<String>) -> Self {
        let pipeline = pipeline.clone();
        Self { pipeline, former_pipelines: Vec::new(), role, bot_id, upstream, source: None, history_before: None }
    }

    /// What these properties say; `None` when they name no role.
    fn read(properties: &BTreeMap<String, Option<String>>) -> Result<Option<Self>> {
        let get = |name: &str| properties.get(name).and_then(Option::as_deref).filter(|value| !value.is_empty());
        let Some(role) = get(ROLE) else { return Ok(None) };
        let unreadable = |name: &str| format!("the table property {name} cannot be read; restore it");
        let role = TableRole::parse(role).ok_or_else(|| Error::configuration(unreadable(ROLE)))?;
        let pipeline = Name::new(get(PIPELINE).unwrap_or_default()).map_err(|error| error.during(PIPELINE))?;
        let former = get(FORMER_PIPELINES).unwrap_or_default().split(',').filter(|name| !name.is_empty());
        let bot_id = get(BOT).map(str::parse).transpose().context(ErrorKind::Configuration, unreadable(BOT))?;
        let history_before = get(HISTORY_BEFORE).map(str::parse).transpose();
        let history_before = history_before.context(ErrorKind::Configuration, unreadable(HISTORY_BEFORE))?;
        Ok(Some(Self {
            pipeline,
            former_pipelines: former.map(Name::new).collect::<Result<_>>()?,
            role,
            bot_id: bot_id.map(BotId),
            upstream: get(UPSTREAM).map(str::to_owned),
            source: get(SOURCE).map(str::to_owned),
            history_before: history_before.map(Timestamp::from_micros),
        }))
    }

    /// The properties of a table that say so.
    pub(super) fn write(&self, properties: &mut BTreeMap<String, Option<String>>) {
        let former: Vec<&str> = self.former_pipelines.iter().map(Name::as_str).collect();
        let values = [
            (PIPELINE, Some(self.pipeline.to_string())),
            (FORMER_PIPELINES, Some(former.join(",")).filter(|names| !names.is_empty())),
            (ROLE, Some(self.role.to_string())),
            (BOT, self.bot_id.map(|bot| bot.to_string())),
            (UPSTREAM, self.upstream.clone()),
            (SOURCE, self.source.clone()),
            (HISTORY_BEFORE, self.history_before.map(|moment| moment.as_micros().to_string())),
        ];
        for (name, value) in values {
            match value {
                Some(value) => properties.insert(name.to_owned(), Some(value)),
                None => properties.remove(name),
            };
        }
    }
}

impl LakeTable {
    /// What the table says it belongs to; `None` for a table of release 0.1 or of somebody else.
    ///
    /// # Errors
    /// A configuration error when somebody has set a property to what it cannot be.
    pub fn identity(&self) -> Result<Option<Identity>> {
        Identity::read(&self.state.metadata.configuration).map_err(|error| error.during(&self.log.table))
    }

    /// The pipelines that processes of release 0.1 have appended to it for.
    pub fn legacy_pipelines(&self) -> Vec<Name> {
        txn::legacy_pipelines(&self.state.txns)
    }

    /// Says what the table belongs to, in one commit with what is known of progress. The fence is raised, so that
    /// whoever still appends on what the table was before plans again.
    ///
    /// # Errors
    /// Unavailable when the store fails; the same call may be made again.
    pub async fn identify(&mut self, identity: &Identity, progress: &[(TxnId, i64)]) -> Result<()> {
        self.identify_where(identity, progress, |_| true).await.map(drop)
    }

    /// As [`LakeTable::identify`], unless the table says already what it belongs to: of several that say so at once, the
    /// first is right, and the others have to look at it again. Returns whether this call has said it.
    ///
    /// # Errors
    /// As [`LakeTable::identify`]. A configuration error when what the table says cannot be read.
    pub async fn identify_if_unnamed(&mut self, identity: &Identity) -> Result<bool> {
        self.identify_where(identity, &[], Option::is_none).await
    }

    /// Identifies the table if `may` says so about what it says at the moment of the commit.
    async fn identify_where(
        &mut self,
        identity: &Identity,
        progress: &[(TxnId, i64)],
        may: impl Fn(&Option<Identity>) -> bool,
    ) -> Result<bool> {
        let mut properties = BTreeMap::new();
        identity.write(&mut properties);
        let provenance = Provenance {
            operation: "SET TBLPROPERTIES",
            parameters: json!({ "properties": json!(properties).to_string() }),
            metrics: json!({}),
            blind_append: false,
        };
        let role = identity.role;
        let landing = self.land(&provenance, |state, _| {
            if !may(&Identity::read(&state.metadata.configuration)?) {
                return Ok(None);
            }
            let mut metadata = MetaData::clone(&state.metadata);
            identity.write(&mut metadata.configuration);
            let mut txns: BTreeMap<String, i64> = BTreeMap::new();
            for (id, value) in txn::progress(&state.txns).into_iter().chain(progress.iter().cloned()) {
                let id = id.to_string();
                if state.txns.get(&id).is_none_or(|there| *there < value) {
                    txns.insert(id, value);
                }
            }
            if metadata == state.metadata && txns.is_empty() {
                return Ok(None);
            }
            txns.extend(txn::raised_fence(&state.txns, role));
            let txns = txns.into_iter().map(|(app_id, version)| Txn { app_id, version, last_updated: None });
            Ok(Some(std::iter::once(Action::MetaData(metadata)).chain(txns.map(Action::Txn)).collect()))
        });
        match landing.await? {
            Landing::Expired => {
                Err(Error::unavailable(format!("table {} could not be identified in time", self.log.table)))
            }
            Landing::Landed { .. } => Ok(true),
            Landing::Withdrawn => Ok(false),
        }
    }
}
