//! Which tables are a pipeline's own: asked before a stage opens one, so that no stage works on what belongs to another.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;

use super::App;
use crate::error::Result;
use crate::id::Name;
use crate::identity::{self, Inspection, OwnTables, Wanted};
use crate::load::lanes;
use crate::pipeline::Pipeline;
use crate::stage::{reply, silver};
use crate::table::{OwnTable, TableRole};

/// The stages of a pipeline open together: what was found for one of them holds for the others so long.
const HOLDS: Duration = Duration::from_secs(2);

/// What was found last, by pipeline, and when. One look at a time: it may make tables.
pub(super) type Looks = Arc<Mutex<HashMap<Name, (Duration, OwnTables)>>>;

impl App {
    /// What the tables of a pipeline must be.
    ///
    /// # Errors
    /// A configuration error when a schema or a path cannot be used.
    pub fn wanted(&self, pipeline: &Pipeline) -> Result<Wanted> {
        let schema = |file: &str| crate::schema::load(&self.settings.schemas, file);
        Ok(Wanted {
            pipeline: pipeline.name.clone(),
            bot_id: self.bot_id(pipeline).ok(),
            specs: [
                lanes::table_spec(&pipeline.bronze.table, schema(&pipeline.bronze.schema)?)?,
                silver::table_spec(&pipeline.silver.table, schema(crate::schema::RESPONSES)?)?,
                reply::table_spec(&pipeline.reply.table, schema(crate::schema::REPLIES)?)?,
            ],
        })
    }

    /// Looks at the tables of a pipeline and changes nothing.
    ///
    /// # Errors
    /// When the store fails, or a table is not understood.
    pub async fn inspect(&self, pipeline: &Pipeline) -> Result<Inspection<'_>> {
        identity::inspect(&self.storage, &self.clock, self.wanted(pipeline)?).await
    }

    /// The table that a stage of a pipeline may open. Makes the tables of a new pipeline.
    ///
    /// # Errors
    /// A configuration error that says what does not fit, and how to fix it; else as the store.
    pub(super) async fn own_table(&self, pipeline: &Pipeline, role: TableRole) -> Result<OwnTable> {
        let mut looks = self.looks.lock().await;
        let now = self.clock.monotonic();
        if let Some((at, own)) = looks.get(&pipeline.name)
            && now.saturating_sub(*at) < HOLDS
        {
            return own.of(role);
        }
        let own = self.inspect(pipeline).await?.settle().await?;
        let table = own.of(role);
        if own.are_whole() {
            looks.insert(pipeline.name.clone(), (now, own));
        }
        table
    }
}
