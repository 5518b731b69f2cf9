//! `lakegram check`: each thing the service needs, with its verdict and the fix.

use bytes::Bytes;
use object_store::path::Path;

use super::{Pipelines, Verdict, output};
use crate::app::App;
use crate::error::{Error, ErrorKind, Result};
use crate::id::random_id;
use crate::llm::{ChatMessage, ChatRequest, ModelFault, Role};
use crate::pipeline::Pipeline;
use crate::storage::PutNew;
use crate::table::{LakeTable, check_columns};

#[derive(Debug, clap::Args)]
pub(super) struct Options {
    #[command(flatten)]
    pub(super) pipelines: Pipelines,
}

struct Finding {
    what: String,
    outcome: Result<String>,
}

pub(super) async fn check(app: App) -> Result<Verdict> {
    let mut findings = vec![Finding { what: "storage".to_owned(), outcome: check_storage(&app).await }];
    let time = app.storage.time().await;
    if let Ok(theirs) = &time {
        let trouble = app.clock_trouble(*theirs).map_or_else(|| Ok(format!("agrees with the store's, {theirs}")), told);
        findings.push(Finding { what: "clock".to_owned(), outcome: trouble });
    }
    findings.push(Finding { what: "raw folders".to_owned(), outcome: check_raw(&app).await });
    for pipeline in &app.pipelines {
        let mut add =
            |what: &str, outcome| findings.push(Finding { what: format!("{}: {what}", pipeline.name), outcome });
        add("schemas and tables", check_tables(&app, pipeline).await);
        add("ownership", check_ownership(&app, pipeline).await);
        add("lane", check_lane(&app, pipeline));
        if let Ok(theirs) = &time
            && let Ok(Some(trouble)) = app.lane_trouble(pipeline, *theirs).await
        {
            add("keys", told(trouble));
        }
        add(
            "webhook secret",
            app.webhook_secrets(pipeline).map(|secrets| format!("{} set", secrets.current().split(',').count())),
        );
        add("bot", check_bot(&app, pipeline).await);
        add("model", check_model(&app, pipeline).await);
    }
    for loader in &app.loaders {
        let verdicts = app.check_loader(loader).await.into_iter();
        findings.extend(verdicts.map(|(what, outcome)| Finding { what: format!("{}: {what}", loader.name), outcome }));
    }
    let found = findings.iter().any(|finding| finding.outcome.is_err());
    let rows = findings.into_iter().map(|finding| match finding.outcome {
        Ok(detail) => vec![finding.what, "ok".to_owned(), detail],
        Err(error) => vec![finding.what, "fix".to_owned(), error.to_string()],
    });
    output::print(&output::table(&["what", "verdict", "detail"], rows))?;
    Ok(if found { Verdict::Found } else { Verdict::Done })
}

fn told(trouble: String) -> Result<String> {
    Err(Error::configuration(trouble))
}

async fn check_raw(app: &App) -> Result<String> {
    let unread = app.unread_raw().await?;
    match unread.is_empty() {
        true => Ok("each is read by a pipeline".to_owned()),
        false => Err(Error::configuration(unread.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))),
    }
}

async fn check_storage(app: &App) -> Result<String> {
    if let Ok(folder) = app.storage.url().to_file_path()
        && !folder.exists()
    {
        return Ok(format!("{} does not exist yet; the first start creates it", folder.display()));
    }
    app.storage.check_creates().await?;
    let probe = Path::from(format!(".lakegram-check-{}", random_id()));
    let put = app.storage.put_new(&probe, Bytes::from_static(b"lakegram check")).await?;
    app.storage.delete(&probe).await?;
    match put {
        PutNew::Created => Ok(format!("{} is writable", app.storage.place())),
        PutNew::Taken => Err(Error::corrupt("a new name was already taken; does this store support create-only puts?")),
    }
}

async fn check_tables(app: &App, pipeline: &Pipeline) -> Result<String> {
    let files = [&pipeline.bronze.schema, crate::schema::RESPONSES, crate::schema::REPLIES];
    let mut there = 0;
    for (table, file) in app.tables(pipeline).iter().zip(files) {
        let schema = crate::schema::load(&app.settings.schemas, file)?;
        if let Some(opened) = LakeTable::open_existing(&app.storage, &table.path, &app.clock).await? {
            there += 1;
            check_columns(&table.path, &opened.schema(), &schema)?;
        }
    }
    Ok(format!("{there} of 3 tables exist and match; the first start creates the others"))
}

async fn check_ownership(app: &App, pipeline: &Pipeline) -> Result<String> {
    let inspection = app.inspect(pipeline).await?;
    match inspection.problems().first() {
        None => Ok("every table belongs to the pipeline, or may be created".to_owned()),
        Some(problem) => Err(Error::configuration(problem.to_string())),
    }
}

fn check_lane(app: &App, pipeline: &Pipeline) -> Result<String> {
    let lane = app.lane(pipeline);
    let looks_random = lane.as_str().len() == 12 && lane.as_str().chars().all(|c| c.is_ascii_hexdigit());
    if looks_random && pipeline.receive.lane.is_none() {
        return Err(Error::configuration(format!(
            "lane `{lane}` looks like a container's random host name; set receive.lane to a stable name"
        )));
    }
    Ok(lane.to_string())
}

async fn check_bot(app: &App, pipeline: &Pipeline) -> Result<String> {
    let bot = app.bot_client(pipeline)?;
    let user = bot.get_me().await.map_err(super::webhook::into_error)?;
    let info = bot.get_webhook_info().await.map_err(super::webhook::into_error)?;
    if let Some(message) = info.last_error_message {
        return Err(Error::unavailable(format!("the last delivery to {} failed: {message}", info.url)));
    }
    let webhook = if info.url.is_empty() { "no webhook".to_owned() } else { format!("webhook {}", info.url) };
    Ok(format!("@{}, {webhook}, {} waiting", user.username.unwrap_or(user.first_name), info.pending_update_count))
}

async fn check_model(app: &App, pipeline: &Pipeline) -> Result<String> {
    let model = app.model_client(pipeline)?;
    let question = ChatMessage { role: Role::User, content: "Say ok.".to_owned() };
    let request = ChatRequest { messages: vec![question], request_id: random_id().to_string(), max_tokens: Some(16) };
    match model.complete(&request).await {
        Ok(answer) => Ok(format!("{} answers", answer.model.unwrap_or_else(|| pipeline.silver.model.name.clone()))),
        Err(
            ModelFault::Rejected { message } | ModelFault::TooLong { message } | ModelFault::Misconfigured { message },
        ) => Err(Error::new(ErrorKind::Refused, message)),
        Err(ModelFault::Unavailable { message, .. } | ModelFault::Failing { message, .. }) => {
            Err(Error::unavailable(message))
        }
    }
}
