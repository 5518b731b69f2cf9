//! `lakegram poll`.

use tokio_util::sync::CancellationToken;

use super::{Pipelines, Verdict};
use crate::app::{App, Listeners};
use crate::error::Result;

#[derive(Debug, clap::Args)]
pub(super) struct Options {
    #[command(flatten)]
    pub(super) pipelines: Pipelines,
}

pub(super) async fn poll(app: App, stop: CancellationToken) -> Result<Verdict> {
    let console = Listeners::bind_console(&app).await?;
    app.poll(console, stop).await?;
    Ok(Verdict::Done)
}
