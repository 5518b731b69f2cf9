//! Messages through the real binary, from the webhook to the reply.

use std::time::Duration;

use lakegram::standin::model::ModelTrouble;
use lakegram::standin::telegram::{Behavior, CallHistory};
use serde_json::json;

use crate::support::{PATIENCE, SECRET, TestApp, rows};

#[tokio::test(flavor = "multi_thread")]
async fn a_message_becomes_raw_json_a_bronze_row_an_answer_a_silver_row_and_a_reply() {
    let app = TestApp::new().await;
    let running = app.serve().await;
    let update_id = app.telegram.user_sends(77, "What is a lakehouse?");
    app.wait_for_sent(1).await;

    let sent = app.telegram.sent();
    assert_eq!(sent[0].chat_id, 77);
    assert!(sent[0].text.contains("What is a lakehouse?"), "{}", sent[0].text);
    app.wait_for_status(|status| rows(status, 2) == 1).await;
    assert_eq!(running.terminate().await, Some(0));

    let raw = app.stdout(&["query", "select payload, _source_file, _source_row from bronze", "--format", "json"]).await;
    let row: serde_json::Value = serde_json::from_str(raw.trim()).unwrap();
    let landed = std::fs::read_to_string(app.data().join(row["_source_file"].as_str().unwrap())).unwrap();
    assert_eq!(landed.trim_end(), row["payload"].as_str().unwrap());
    assert_eq!(row["_source_row"], 1);

    let joined = app
        .stdout(&[
            "query",
            "select s.status, s.user_message, r.status as reply, r.telegram_message_id, b._trace_id = r.trace_id as traced
             from bronze b join silver s using (bot_id, update_id) join replies r using (bot_id, update_id)",
            "--format",
            "json",
        ])
        .await;
    let joined: serde_json::Value = serde_json::from_str(joined.trim()).unwrap();
    assert_eq!(joined["status"], "answered");
    assert_eq!(joined["user_message"], "What is a lakehouse?");
    assert_eq!(joined["reply"], "sent");
    assert_eq!(joined["traced"], true);
    assert_eq!(joined["telegram_message_id"], sent[0].message_id);
    assert!(update_id > 0);
    app.audit().await;
    app.count_by_sql(1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_later_question_brings_the_turns_before_it_across_a_restart() {
    let app = TestApp::new().await;
    let running = app.serve().await;
    app.telegram.user_sends(5, "first");
    app.wait_for_sent(1).await;
    app.wait_for_status(|status| rows(status, 2) == 1).await;
    running.terminate().await;
    let running = app.serve().await;
    app.telegram.user_sends(5, "second");
    app.wait_for_sent(2).await;
    let requests = app.model.requests();
    let last: Vec<String> = requests.last().unwrap().messages.iter().map(|message| message.content.clone()).collect();
    assert!(last.iter().any(|content| content == "first"), "{last:?}");
    assert_eq!(last.last().unwrap(), "second");
    running.terminate().await;
    app.audit().await;
    app.count_by_sql(2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_kind_of_update_is_landed_and_becomes_a_row_of_both_tables() {
    let app = TestApp::new().await;
    let running = app.serve().await;
    let kinds = lakegram::telegram::update::UPDATE_KINDS;
    for (number, kind) in kinds.iter().enumerate() {
        let file = format!("{}/tests/fixtures/updates/{kind}.json", env!("CARGO_MANIFEST_DIR"));
        let mut update: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(file).unwrap()).unwrap();
        update["update_id"] = json!(1_000 + number);
        app.telegram.push_update(update);
    }
    app.telegram.push_update(json!({"update_id": 2_000, "brand_new_kind": {"from": {"id": 1}}}));
    let total = kinds.len() as i64 + 1;
    app.wait_for_status(|status| rows(status, 0) == total && rows(status, 1) == total).await;
    let listed =
        app.stdout(&["query", "select update_type from bronze where update_type is not null", "--format", "csv"]).await;
    for kind in kinds.iter().chain(&["brand_new_kind"]) {
        assert!(listed.lines().any(|line| line == *kind), "{kind} has no row");
    }
    running.terminate().await;
    app.audit().await;
    app.count_by_sql(total).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redelivery_makes_no_second_row_or_answer() {
    let app = TestApp::new().await;
    let running = app.serve().await;
    let update_id = app.telegram.user_sends(9, "only once");
    app.wait_for_sent(1).await;
    // To the same lane, to another receiver's lane, and across a restart.
    app.telegram.redeliver(update_id).await.unwrap();
    let other = app.start(&["serve", "--set", "receive.lane=other"]).await;
    app.telegram.redeliver_to(&format!("{}/telegram-webhook", other.url), update_id).await.unwrap();
    running.terminate().await;
    let running = app.serve().await;
    app.telegram.redeliver(update_id).await.unwrap();
    let marker = app.telegram.user_sends(10, "marker");
    app.wait_for_sent(2).await;
    let status = app.wait_for_status(|status| rows(status, 2) == 2).await;
    assert_eq!((rows(&status, 0), rows(&status, 1)), (2, 2), "{status:#}");
    assert!(app.telegram.sent().iter().filter(|message| message.chat_id == 9).count() == 1);
    assert_ne!(marker, update_id);
    other.terminate().await;
    running.terminate().await;
    app.audit().await;
    app.count_by_sql(2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_secret_lands_nothing_and_odd_bodies_are_kept() {
    let app = TestApp::new().await;
    let running = app.serve().await;
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let post = |secret: &str, body: &[u8]| {
        let request = client.post(format!("{}/telegram-webhook", running.url)).body(body.to_vec());
        request.header("X-Telegram-Bot-Api-Secret-Token", secret).send()
    };
    assert_eq!(post("wrong", br#"{"update_id": 1}"#).await.unwrap().status(), 401);
    assert_eq!(post(SECRET, b"not json").await.unwrap().status(), 200);
    assert_eq!(post(SECRET, b"\xff\xfe").await.unwrap().status(), 200);
    assert_eq!(post(SECRET, b"{\"update_id\": 3,\n\"message\": {}}").await.unwrap().status(), 200);
    let get = client.get(format!("{}/telegram-webhook", running.url)).send().await.unwrap();
    assert_eq!(get.status(), 405);
    assert_eq!(client.post(format!("{}/elsewhere", running.url)).send().await.unwrap().status(), 404);
    app.wait_for_status(|status| rows(status, 0) == 3 && rows(status, 1) == 1).await;
    let corrupt = app
        .stdout(&["query", "select count(*) as n from bronze where _corrupt_record is not null", "--format", "json"])
        .await;
    assert_eq!(corrupt.trim(), r#"{"n":2}"#);
    running.terminate().await;
    app.audit().await;
    app.count_by_sql(1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_processes_on_one_pipeline_keep_the_tables_right() {
    let app = TestApp::new().await;
    let first = app.serve().await;
    let second = app.start(&["serve", "--set", "receive.lane=second"]).await;
    for number in 0..40 {
        app.telegram.user_sends(100 + number % 20, &format!("message {number}"));
    }
    app.wait_for_sent(40).await;
    let status = app.wait_for_status(|status| rows(status, 2) == 40).await;
    assert_eq!((rows(&status, 0), rows(&status, 1)), (40, 40), "{status:#}");
    assert_eq!(status["tables"][2]["by_status"], json!({"sent": 40}));
    assert_eq!(app.telegram.sent().len(), 40);
    second.terminate().await;
    first.terminate().await;
    app.audit().await;
    app.count_by_sql(40).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_answer_comes_in_parts_and_in_order() {
    let app = TestApp::new().await;
    app.model.answer_with(&"All work and no play makes Jack a dull boy. ".repeat(150));
    let running = app.serve().await;
    app.telegram.user_sends(3, "tell me more");
    app.wait_for_sent(2).await;
    let status = app.wait_for_status(|status| rows(status, 2) == 2).await;
    assert_eq!(status["tables"][2]["by_status"], json!({"sent": 2}));
    let sent = app.telegram.sent();
    assert!(sent.iter().all(|message| message.text.encode_utf16().count() <= 4_096));
    assert!(sent[0].message_id < sent[1].message_id);
    running.terminate().await;
    app.audit().await;
    app.count_by_sql(1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_field_becomes_a_column_under_way_or_stops_the_loader_and_nothing_else() {
    let message = |text: &str| json!({"message_id": 1, "chat": {"id": 7, "type": "private"}, "text": text});
    let with_field = |update_id: i64, text: &str| {
        let mut message = message(text);
        message["mood"] = json!({"level": 3});
        json!({"update_id": update_id, "message": message})
    };
    let app = TestApp::new().await.set("bronze.evolution=fail");
    let running = app.serve().await;
    app.telegram.push_update(json!({"update_id": 1, "message": message("known")}));
    app.wait_for_sent(1).await;
    app.telegram.push_update(with_field(2, "new"));
    let landed = app.telegram.wait_for(|ledger| ledger.acked().any(|id| id == 2), Duration::from_secs(20)).await;
    assert!(landed, "the receiver goes on");
    assert_eq!(running.terminate().await, Some(0), "a paused loader is no reason to end");
    let output = app.run(&["run"]).await;
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("new fields of a message in raw/telegram/") && said.contains("line 1: mood;"), "{said}");

    let app = app.set("bronze.evolution=add_columns");
    let running = app.serve().await;
    app.telegram.push_update(with_field(3, "newer"));
    app.wait_for_sent(3).await;
    assert_eq!(running.terminate().await, Some(0));
    let statement = "select update_id, msg_mood['level'] as level from bronze order by 1";
    let rows = app.stdout(&["query", statement, "--format", "csv"]).await;
    assert_eq!(rows.trim(), "update_id,level\n1,\n2,3\n3,3");
    app.audit().await;
    app.count_by_sql(3).await;
}

/// A model that takes its time: "typing…" lasts only five seconds.
#[tokio::test(flavor = "multi_thread")]
async fn typing_is_shown_until_the_answer_is_there() {
    let app = TestApp::new().await;
    let running = app.serve().await;
    app.model.trouble([ModelTrouble::Hang]);
    app.telegram.user_sends(5, "a long one");
    let typing = |history: &CallHistory| history.calls_of("sendChatAction").count();
    assert!(app.telegram.wait_for(|history| typing(history) >= 2, PATIENCE).await);
    app.model.release();
    app.wait_for_sent(1).await;
    let shown = app.telegram.read(typing);
    app.telegram.user_sends(5, "a short one");
    app.wait_for_sent(2).await;
    assert_eq!(app.telegram.read(typing), shown + 1, "it ended with the answer");
    assert_eq!(running.terminate().await, Some(0));
}

/// What users of other bots saw of answers, sources and thoughts.
#[tokio::test(flavor = "multi_thread")]
async fn what_the_reader_gets_is_the_answer_whole_and_nothing_else() {
    let app = TestApp::new().await;
    let running = app.serve().await;
    for (index, (content, reason, expected)) in [
        ("<think>\nhm\n</think>\n\nHello!", "stop", "Hello!"),
        ("Open [the dashboard](http://localhost:3000).", "stop", "Open the dashboard (http://localhost:3000)."),
        ("[Ann]: Hello!\n[Bob]: Hi.", "stop", "[Ann]: Hello!\n[Bob]: Hi."),
        (
            "Step 1: mix. Step 2:",
            "length",
            "Step 1: mix. Step 2:\n\n(The answer was cut off: it reached the length limit.)",
        ),
        (
            "Run:\n\n~~~sh\nls",
            "FinishReason.MAX_TOKENS",
            "Run:\n\nls\n\n(The answer was cut off: it reached the length limit.)",
        ),
    ]
    .into_iter()
    .enumerate()
    {
        let body = json!({"choices": [{"message": {"content": content}, "finish_reason": reason}], "error": ""});
        app.model.answer_raw(&body.to_string());
        app.telegram.user_sends(5, "hello");
        app.wait_for_sent(index + 1).await;
        assert_eq!(app.telegram.sent()[index].text, expected);
    }
    assert_eq!(running.terminate().await, Some(0));
    app.audit().await;
}

/// In whatever words Telegram refuses the formatting, the answer arrives with its addresses.
#[tokio::test(flavor = "multi_thread")]
async fn an_answer_whose_formatting_is_refused_arrives_as_text_with_its_addresses() {
    let app = TestApp::new().await;
    let running = app.serve().await;
    app.model.answer_with("**see** [x](https://e.org/y)");
    for (index, refusal) in [
        "can't parse MessageEntity: Type is not specified",
        "wrong message entity: Wrong HTTP URL",
        "entity URL 'https://e.org/y' is invalid: Wrong HTTP URL",
    ]
    .into_iter()
    .enumerate()
    {
        app.telegram.script("sendMessage", vec![Behavior::fail(400, &format!("Bad Request: {refusal}"))]);
        app.telegram.user_sends(5, "hello");
        app.wait_for_sent(index + 1).await;
        let sent = &app.telegram.sent()[index];
        assert_eq!(sent.text, "see x (https://e.org/y)", "{refusal}");
    }
    assert_eq!(running.terminate().await, Some(0));
    app.audit().await;
}

/// A topic is a conversation of its own: the answer and "typing…" go there, and what was said elsewhere does not.
#[tokio::test(flavor = "multi_thread")]
async fn an_answer_goes_to_the_topic_of_its_question_and_topics_share_no_history() {
    let app = TestApp::new().await.set("silver.groups=all");
    let running = app.serve().await;
    let (group, ada) = (-1_004_006, json!({"id": 4006, "is_bot": false, "first_name": "Ada"}));
    let mut answered = 0;
    for (chat, extra, parameters) in [
        (
            json!({"id": group, "type": "supergroup", "title": "G"}),
            json!({"message_thread_id": 15, "is_topic_message": true}),
            json!([15, null]),
        ),
        (
            json!({"id": group, "type": "supergroup", "title": "G"}),
            json!({"message_thread_id": 16, "is_topic_message": true}),
            json!([16, null]),
        ),
        // A chain of replies, to which nothing can be sent.
        (
            json!({"id": group, "type": "supergroup", "title": "G"}),
            json!({"message_thread_id": 99}),
            json!([null, null]),
        ),
        (
            json!({"id": 4006, "type": "private", "first_name": "Ada"}),
            json!({"message_thread_id": 17, "is_topic_message": true}),
            json!([17, null]),
        ),
        (
            json!({"id": -1_004_020, "type": "supergroup", "title": "DM of News", "is_direct_messages": true}),
            json!({"direct_messages_topic": {"topic_id": 777, "user": ada}}),
            json!([null, 777]),
        ),
    ] {
        for word in ["first", "second"] {
            app.telegram.add_chat(chat["id"].as_i64().unwrap());
            let mut message = json!({"message_id": 1_000 + answered, "date": 1_795_632_472, "chat": chat, "from": ada,
                "text": format!("{word} in {parameters}")});
            message.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
            app.telegram.push_update(json!({ "message": message }));
            answered += 1;
            app.wait_for_sent(answered).await;
            let raw: serde_json::Value = serde_json::from_str(&app.telegram.sent()[answered - 1].raw).unwrap();
            assert_eq!(json!([raw["message_thread_id"], raw["direct_messages_topic_id"]]), parameters, "{raw}");
            app.wait_for_status(|status| rows(status, 2) == answered as i64).await;
        }
        let typing = app.telegram.read(|history| history.calls_of("sendChatAction").next_back().unwrap().raw.clone());
        let typing: serde_json::Value = serde_json::from_str(&typing).unwrap();
        assert_eq!(typing["message_thread_id"], parameters[0], "{typing}");
        let asked = app.model.requests().last().unwrap().messages.clone();
        let said: Vec<&str> = asked.iter().map(|message| message.content.as_str()).collect();
        let both = ["first", "second"].map(|word| format!("{word} in {parameters}"));
        assert!(said.contains(&both[0].as_str()) && said.ends_with(&[&both[1]]), "{said:?}");
        let others =
            said.iter().filter(|content| content.contains(" in [") && !content.contains(&parameters.to_string()));
        assert_eq!(others.count(), 0, "{said:?}");
    }
    // The same after a restart.
    assert_eq!(running.terminate().await, Some(0));
    let running = app.serve().await;
    app.telegram.push_update(json!({"message": {"message_id": 2_000, "date": 1_795_632_472, "from": ada, "text": "third",
        "chat": {"id": group, "type": "supergroup", "title": "G"}, "message_thread_id": 15, "is_topic_message": true}}));
    app.wait_for_sent(answered + 1).await;
    let asked = app.model.requests().last().unwrap().messages.clone();
    let turns: Vec<&str> =
        asked.iter().map(|message| message.content.as_str()).filter(|text| text.starts_with("first")).collect();
    assert_eq!(turns, ["first in [15,null]"]);
    assert_eq!(running.terminate().await, Some(0));
    app.audit().await;
}

/// Two bots that answer each other would never stop, and a channel post would be answered twice.
#[tokio::test(flavor = "multi_thread")]
async fn bots_and_copies_of_channel_posts_are_not_answered() {
    let app = TestApp::new().await.set("silver.groups=all");
    let running = app.serve().await;
    let group = json!({"id": -1_002_220, "type": "supergroup", "title": "Bots"});
    app.telegram.add_chat(-1_002_220);
    let message = |from: serde_json::Value, extra: serde_json::Value| {
        let mut message = json!({"message_id": 8, "date": 1_795_632_269, "from": from, "chat": group, "text": "hello"});
        message.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        json!({ "message": message })
    };
    let bot = json!({"id": 444_555, "is_bot": true, "first_name": "Other", "username": "other_bot"});
    app.telegram.push_update(message(bot.clone(), json!({})));
    let forward = json!({"sender_chat": {"id": -1_003, "type": "channel"}, "is_automatic_forward": true});
    app.telegram.push_update(message(json!({"id": 777_000, "is_bot": false, "first_name": "Telegram"}), forward));
    let admin = json!({"id": 1_087_968_824, "is_bot": true, "first_name": "Group", "username": "GroupAnonymousBot"});
    app.telegram.push_update(message(admin, json!({"sender_chat": group})));
    app.wait_for_sent(1).await;
    app.wait_for_status(|status| rows(status, 1) == 3).await;
    assert_eq!(running.terminate().await, Some(0));
    let statement = "select status, user_id from silver order by update_id";
    let table = app.stdout(&["query", statement, "--format", "csv"]).await;
    assert_eq!(table.trim(), "status,user_id\nignored,444555\nignored,777000\nanswered,1087968824");
    assert_eq!(app.telegram.sent().len(), 1);
    app.audit().await;
}
