//! `lakegram serve`.

use std::collections::BTreeSet;

use tokio_util::sync::CancellationToken;

use super::{Pipelines, Verdict};
use crate::app::{App, Listeners, Role};
use crate::error::Result;

#[derive(Debug, clap::Args)]
pub(super) struct Options {
    #[command(flatten)]
    pub(super) pipelines: Pipelines,
    /// Parts of the service to run, separated by commas; all by default.
    #[arg(long, value_enum, value_delimiter = ',')]
    roles: Vec<Role>,
}

pub(super) async fn serve(app: App, options: Options, stop: CancellationToken) -> Result<Verdict> {
    let named: BTreeSet<Role> = options.roles.into_iter().collect();
    let roles = if named.is_empty() { Role::all() } else { named };
    let listeners = Listeners::bind(&app).await?;
    app.serve(&roles, listeners, stop).await?;
    Ok(Verdict::Done)
}
