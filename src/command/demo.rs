//! `lakegram demo`: the whole pipeline on loopback, with stand-ins and a chat page.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::{Verdict, output};
use crate::app::{App, Listeners, Role};
use crate::demo::page::{ChatPage, PageInfo, PageOptions};
use crate::error::{Context, ErrorKind, Result};
use crate::id::random_id;
use crate::settings::{Environment, Settings, shown_url};
use crate::standin::model::{ModelStandIn, ModelStandInOptions};
use crate::standin::telegram::{Options as TelegramOptions, Pace, TelegramStandIn};
use crate::telegram::client::{BotClient, WebhookRequest};
use crate::telegram::update::UPDATE_KINDS;

/// Rows of each table shown on the page.
const SHOWN_ROWS: usize = 5;
/// The stand-in model takes a moment, so that one can see it being asked.
const THINKING: Duration = Duration::from_millis(400);

#[derive(Debug, clap::Args)]
pub(super) struct Options {
    /// Folder for raw JSON and tables. It is kept, so that `lakegram query` and Python can read it afterwards.
    #[arg(long, default_value = "./demo-data")]
    data: PathBuf,
    /// Port of the chat page; 0 picks a free one.
    #[arg(long, default_value_t = 8080)]
    port: u16,
}

pub(super) async fn demo(
    options: Options,
    environment: Environment,
    overrides: &[String],
    stop: CancellationToken,
) -> Result<Verdict> {
    let stand_in = TelegramOptions { pace: Some(Pace::default()), ..Default::default() };
    let telegram = Arc::new(TelegramStandIn::start(stand_in).await?);
    let model = ModelStandIn::start(ModelStandInOptions { delay: THINKING }).await?;
    let real_model = environment.get("LLM_BASE_URL")?;
    let secret = random_id().simple().to_string();
    let data = options.data.display().to_string();
    let settings = Settings::of(environment.with([
        ("LAKEGRAM_DATA", data.clone()),
        ("LAKEGRAM_LISTEN", "127.0.0.1:0".to_owned()),
        ("LAKEGRAM_CONSOLE", "127.0.0.1:0".to_owned()),
        ("TELEGRAM_API_URL", telegram.api_url()),
        ("TELEGRAM_BOT_TOKEN", telegram.token().to_owned()),
        ("TELEGRAM_WEBHOOK_SECRET", secret.clone()),
        ("LLM_BASE_URL", real_model.clone().unwrap_or_else(|| model.base_url())),
    ]))?;
    let app = App::open(settings, &[], overrides)?;
    let listeners = Listeners::bind(&app).await?;
    let page = page_listener(options.port).await?;
    set_webhook(&app, &telegram, &listeners, secret).await?;

    let who = match real_model {
        Some(url) => format!("the model at {}", shown_url(&url)),
        None => "an echoing stand-in".to_owned(),
    };
    let address = page.local_addr().context(ErrorKind::Unavailable, "the chat page's address")?;
    output::print(&format!(
        "\n  Lakegram demo: open http://{address} and write a message\n\n  data    {data}\n  model   {who}\n  stop    Ctrl-C\n"
    ))?;
    let routes = ChatPage::new(PageOptions {
        telemetry: app.telemetry.clone(),
        stand_in: Arc::clone(&telegram),
        rows: newest_rows(app.clone()),
        info: PageInfo::new(&data, &who),
        port: address.port(),
        stop: stop.clone(),
    });
    let serving = axum::serve(page, routes).with_graceful_shutdown(stop.clone().cancelled_owned());
    let pages = tokio::spawn(async move { serving.await });
    let served = app.serve(&Role::all(), listeners, stop.clone()).await;
    stop.cancel();
    pages.abort();
    served?;
    output::print(&format!(
        "\n  The data stays in {data}:\n  LAKEGRAM_DATA={data} lakegram query \"select text from bronze\"\n"
    ))
}

async fn page_listener(port: u16) -> Result<TcpListener> {
    match TcpListener::bind(("127.0.0.1", port)).await {
        Ok(listener) => Ok(listener),
        // The usual port is taken; any other will do.
        Err(_) => TcpListener::bind(("127.0.0.1", 0))
            .await
            .context(ErrorKind::Unavailable, "cannot open a port for the chat page"),
    }
}

async fn set_webhook(app: &App, telegram: &TelegramStandIn, listeners: &Listeners, secret: String) -> Result<()> {
    let address = listeners.receive.local_addr().context(ErrorKind::Unavailable, "the listener's address")?;
    let path = app.pipelines.first().and_then(|pipeline| pipeline.receive.paths.first()).cloned().unwrap_or_default();
    let request = WebhookRequest {
        url: format!("http://{address}{path}"),
        secret_token: secret,
        allowed_updates: UPDATE_KINDS.iter().map(|&kind| kind.to_owned()).collect(),
        max_connections: 40,
    };
    let bot = BotClient::new(&telegram.api_url(), telegram.token())?;
    bot.set_webhook(&request).await.map_err(super::webhook::into_error)
}

/// Reads the newest rows of the tables for the page.
fn newest_rows(app: App) -> crate::demo::page::Rows {
    Arc::new(move || -> BoxFuture<'static, Value> {
        let app = app.clone();
        Box::pin(async move {
            let mut found = json!({});
            let Some(pipeline) = app.pipelines.first() else { return found };
            for table in app.tables(pipeline) {
                match app.newest_rows(&table, SHOWN_ROWS).await {
                    Ok(Some((version, rows))) => found[table.name] = json!({"version": version, "rows": rows}),
                    Ok(None) => {}
                    Err(error) => tracing::warn!(%error, "cannot show the rows of a table"),
                }
            }
            found
        })
    })
}
