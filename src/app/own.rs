//! Which tables are a pipeline's own: asked before a stage opens one, so that no stage works on what belongs to another.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::App;
use crate::error::Result;
use crate::id::Name;
use crate::identity::{self, Inspection, OwnTables, Wanted};
use crate::load::lanes;
use crate::pipeline::Pipeline;
use crate::stage::{reply, silver};
use crate::table::{OwnTable, TableRole};

/// The stages of a pipeline open together: what was found for one of them holds for the others for this long.
const HOLDS: Duration = Duration::from_secs(2);

/// The last look at the tables of each pipeline. A look may create tables, so each pipeline has one at a time;
/// one that hangs does not hold up other pipelines.
pub(super) type Looks = Arc<Mutex<HashMap<Name, Arc<Look>>>>;

/// The last look at a pipeline's tables: when it was, on the monotonic clock, and what it found.
type Look = tokio::sync::Mutex<Option<(Duration, OwnTables)>>;

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

    /// The table that a stage of a pipeline may open. Creates the tables of a new pipeline.
    ///
    /// # Errors
    /// A configuration error that says what does not match, and how to fix it; otherwise the store's error.
    pub(super) async fn own_table(&self, pipeline: &Pipeline, role: TableRole) -> Result<OwnTable> {
        let look = {
            let mut looks = self.looks.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(looks.entry(pipeline.name.clone()).or_default())
        };
        let mut look = look.lock().await;
        let now = self.clock.monotonic();
        if let Some((at, own)) = &*look
            && now.saturating_sub(*at) < HOLDS
        {
            return own.of(role);
        }
        let own = self.inspect(pipeline).await?.settle().await?;
        let table = own.of(role);
        if own.are_whole() {
            *look = Some((now, own));
        }
        table
    }
}
