//! A clock that steps by days or years and comes right again: every message is one row and has one answer.

use std::time::Duration;

use lakegram::app::{App, Listeners, Role};
use lakegram::clock::Clock;
use lakegram::settings::{Environment, Settings};
use lakegram::standin::model::{ModelStandIn, ModelStandInOptions};
use lakegram::standin::telegram::{Options, TelegramStandIn};
use lakegram::storage::Storage;
use lakegram::table::LakeTable;
use lakegram::telegram::client::{BotClient, WebhookRequest};
use object_store::path::Path;
use tokio_util::sync::CancellationToken;

use crate::support::{PATIENCE, SECRET, environment};

const DAY: i64 = 86_400_000_000;

async fn rows(storage: &Storage, table: &str) -> i64 {
    let table = LakeTable::open_existing(storage, &Path::from(table), &Clock::system()).await.unwrap().unwrap();
    table.files().await.unwrap().iter().filter_map(|file| file.num_records).sum()
}

async fn answered(telegram: &TelegramStandIn, chat: i64) {
    telegram.user_sends(chat, "what time is it?");
    let answered = telegram.wait_for(|ledger| ledger.sent_to(chat).count() > 0, PATIENCE).await;
    assert!(answered, "chat {chat} has no answer");
}

/// Delivers an update again until it is taken: after a long sleep a receiver takes nothing for a moment.
async fn redeliver(telegram: &TelegramStandIn, update_id: i64) {
    for _ in 0..90 {
        if telegram.redeliver(update_id).await.unwrap() == 200 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    panic!("update {update_id} was never taken");
}

async fn steps(days: i64) {
    let folder = tempfile::tempdir().unwrap();
    let options = Options { first_retry_delay: Duration::from_millis(200), ..Options::default() };
    let telegram = TelegramStandIn::start(options).await.unwrap();
    let model = ModelStandIn::start(ModelStandInOptions::default()).await.unwrap();
    let environment = environment(folder.path(), &telegram, &model);
    let app = App::open(Settings::of(environment).unwrap(), &[], &[]).unwrap();
    let (clock, storage) = (app.clock.clone(), app.storage.clone());
    let listeners = Listeners::bind(&app).await.unwrap();
    let url = format!("http://{}/telegram-webhook", listeners.receive.local_addr().unwrap());
    let stop = CancellationToken::new();
    let serving = tokio::spawn({
        let stop = stop.clone();
        async move { app.serve(&Role::all(), listeners, stop).await }
    });
    let request =
        WebhookRequest { url, secret_token: SECRET.to_owned(), allowed_updates: Vec::new(), max_connections: 4 };
    BotClient::new(&telegram.api_url(), telegram.token()).unwrap().set_webhook(&request).await.unwrap();

    answered(&telegram, 1).await;
    clock.step(days * DAY);
    answered(&telegram, 2).await;
    let before = telegram.read(|ledger| ledger.acked().collect::<Vec<_>>());
    redeliver(&telegram, before[0]).await;
    clock.step(-days * DAY);
    let all = telegram.read(|ledger| ledger.acked().collect::<std::collections::BTreeSet<_>>());
    for update_id in all {
        redeliver(&telegram, update_id).await;
    }
    // What comes after the redeliveries is loaded after them.
    answered(&telegram, 3).await;
    assert!(telegram.wait_for_acks(PATIENCE).await);
    assert_eq!(telegram.sent().len(), 3, "{days} days: a message was answered twice");
    assert_eq!(rows(&storage, "bronze/telegram_messages").await, 3, "{days} days");
    assert_eq!(rows(&storage, "silver/telegram_responses").await, 3, "{days} days");
    stop.cancel();
    serving.await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_clock_that_stepped_and_came_right_a_redelivery_is_one_row_and_one_answer() {
    tokio::join!(steps(-400), steps(10), steps(27_000));
}

/// An app on a folder with one message in its tables, and nothing running.
async fn at_rest(folder: &std::path::Path) -> App {
    let environment = Environment::from_pairs([]).with([
        ("HOSTNAME", "lane".to_owned()),
        ("LAKEGRAM_DATA", folder.to_str().unwrap().to_owned()),
        ("TELEGRAM_BOT_TOKEN", "42:token".to_owned()),
        ("TELEGRAM_WEBHOOK_SECRET", SECRET.to_owned()),
        ("LLM_BASE_URL", "http://127.0.0.1:9".to_owned()),
    ]);
    let clean = ["bronze.clean_source={action=\"delete\",after=\"5d\"}".to_owned()];
    App::open(Settings::of(environment).unwrap(), &[], &clean).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_deleted_by_age_while_our_clock_and_the_stores_are_an_hour_apart() {
    let folder = tempfile::tempdir().unwrap();
    let app = at_rest(folder.path()).await;
    let (schema, stop) = (lakegram::schema::built_in(lakegram::schema::MESSAGES).unwrap(), CancellationToken::new());
    let path = Path::from("bronze/telegram_messages");
    let spec = lakegram::table::TableSpec { path: path.clone(), schema, stats_columns: Vec::new(), id: None };
    LakeTable::open(&app.storage, &spec, &app.clock).await.unwrap();
    let orphan = path.join("orphan.parquet");
    app.storage.put_new(&orphan, "x".into()).await.unwrap();
    let options = lakegram::table::maintain::MaintainOptions::default();
    for days in [10, -400, 27_000] {
        app.clock.step(days * DAY);
        let refused = app.maintain(&options, |_| {}, &stop).await.unwrap_err().to_string();
        assert!(refused.contains("nothing is deleted by age") && refused.contains("set the clock"), "{refused}");
        let refused = app.clean(false, &stop).await.unwrap_err().to_string();
        assert!(refused.contains("nothing is deleted by age"), "{refused}");
        assert!(app.storage.head(&orphan).await.unwrap().is_some(), "{days} days: a young file was vacuumed");
        app.clock.step(-days * DAY);
    }
    app.clock.step(DAY / 48);
    app.maintain(&options, |_| {}, &stop).await.unwrap();
    assert!(app.storage.head(&orphan).await.unwrap().is_some());
}
