//! The state of a table at one version, as far as a writer needs it: protocol, metadata, schema and txns. Not its
//! files.

use std::collections::BTreeMap;

use arrow::datatypes::SchemaRef;
use object_store::path::Path;

use super::columns;
use super::log::{Action, MetaData, Protocol};
use crate::error::{Error, Result};

/// A table at one version.
#[derive(Clone, Debug)]
pub(crate) struct State {
    pub(crate) version: i64,
    pub(crate) protocol: Protocol,
    pub(crate) metadata: MetaData,
    pub(crate) schema: SchemaRef,
    pub(crate) txns: BTreeMap<String, i64>,
}

/// Actions being collected into a [`State`]: the last of each kind counts.
#[derive(Clone, Debug, Default)]
pub(crate) struct Replay {
    protocol: Option<Protocol>,
    metadata: Option<MetaData>,
    txns: BTreeMap<String, i64>,
}

impl Replay {
    /// Adds one action.
    pub(crate) fn take(&mut self, action: Action) {
        match action {
            Action::Protocol(protocol) => self.protocol = Some(protocol),
            Action::MetaData(metadata) => self.metadata = Some(metadata),
            Action::Txn(txn) => {
                self.txns.insert(txn.app_id, txn.version);
            }
            Action::CommitInfo(_) | Action::Add(_) | Action::Remove(_) => {}
        }
    }

    /// The state after `version`.
    ///
    /// # Errors
    /// Corrupt when the log has no protocol or metadata; configuration when they require more than we support.
    pub(crate) fn finish(self, table: &Path, version: i64) -> Result<State> {
        let (Some(protocol), Some(metadata)) = (self.protocol, self.metadata) else {
            return Err(Error::corrupt(format!("the log of table {table} has no protocol or no metadata")));
        };
        columns::check_protocol(table, &protocol)?;
        let schema = columns::arrow_schema(table, &metadata)?;
        Ok(State { version, protocol, metadata, schema, txns: self.txns })
    }
}

impl State {
    /// The state after one more version.
    ///
    /// # Errors
    /// As [`Replay::finish`]. The state is unchanged then.
    pub(crate) fn advance(&mut self, table: &Path, actions: &[Action]) -> Result<()> {
        let reshaped = |action: &Action| matches!(action, Action::Protocol(_) | Action::MetaData(_));
        if actions.iter().any(reshaped) {
            let (protocol, metadata) = (Some(self.protocol.clone()), Some(self.metadata.clone()));
            let mut replay = Replay { protocol, metadata, txns: self.txns.clone() };
            actions.iter().cloned().for_each(|action| replay.take(action));
            *self = replay.finish(table, self.version + 1)?;
            return Ok(());
        }
        for action in actions {
            if let Action::Txn(txn) = action {
                self.txns.insert(txn.app_id.clone(), txn.version);
            }
        }
        self.version += 1;
        Ok(())
    }
}
