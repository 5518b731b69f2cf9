//! SIGKILL at random moments: nothing is lost, nothing is answered twice.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;

use crate::support::{Dice, TestApp, rows};

const MESSAGES: i64 = 1_000;
const CHATS: i64 = 100;
const KILLS: usize = 30;

#[tokio::test(flavor = "multi_thread")]
async fn thirty_kills_during_a_thousand_messages_lose_nothing_and_double_nothing() {
    let app = TestApp::new().await.set("reply.intent_ttl=1s");
    let mut dice = Dice(0x1a4e);
    let mut running = app.serve().await;
    for kill in 0..KILLS {
        let from = MESSAGES * kill as i64 / KILLS as i64;
        let to = MESSAGES * (kill as i64 + 1) / KILLS as i64;
        for number in from..to {
            app.telegram.user_sends(1 + number % CHATS, &format!("message {number}"));
        }
        // The moment of the kill is what is random here, not a wait for something to have happened.
        tokio::time::sleep(Duration::from_millis(50 + dice.below(900))).await;
        running.kill();
        running = app.serve().await;
    }
    let status =
        app.wait_for_status(|status| rows(status, 1) == MESSAGES && status["tables"][2]["rows"] == MESSAGES).await;
    assert_eq!(rows(&status, 0), MESSAGES, "{status:#}");
    assert_eq!(rows(&status, 1), MESSAGES, "{status:#}");

    let mut replies: BTreeMap<String, usize> = BTreeMap::new();
    for message in app.telegram.sent() {
        *replies.entry(format!("{} {}", message.chat_id, quoted(&message.text))).or_default() += 1;
    }
    let doubled: Vec<_> = replies.iter().filter(|(_, count)| **count > 1).collect();
    assert!(doubled.is_empty(), "answered twice: {doubled:?}");

    let by_status = &status["tables"][2]["by_status"];
    let count = |status: &str| by_status[status].as_i64().unwrap_or(0);
    let (sent, unknown) = (count("sent"), count("unknown"));
    let accepted = app.telegram.sent().len() as i64;
    println!("kills {KILLS}, sent {sent}, unknown {unknown}, accepted by Telegram {accepted}");
    assert_eq!(sent + unknown, MESSAGES, "{status:#}");
    assert!(accepted >= sent && accepted <= MESSAGES);
    // No more unknown ones than intents were open at the kills: at most one a chat and kill, and few in fact.
    assert!(unknown <= (KILLS * 32) as i64);
    running.terminate().await;
    let audit = app.audit().await;
    assert_eq!(audit["unknown"]["count"], unknown, "{audit:#}");
    app.count_by_sql(MESSAGES).await;

    let found = app.tables().await;
    assert_eq!(unique(&found["bronze"]["ids"]), MESSAGES as usize);
    assert_eq!(unique(&found["silver"]["ids"]), MESSAGES as usize);
    assert_eq!(unique(&found["replies"]["ids"]), MESSAGES as usize);
}

pub(crate) fn quoted(text: &str) -> String {
    let start = text.find("message ").unwrap_or_default();
    text[start..].chars().take_while(|c| c.is_alphanumeric() || *c == ' ').collect::<String>().trim().to_owned()
}

pub(crate) fn unique(ids: &Value) -> usize {
    let ids: Vec<i64> = ids.as_array().unwrap().iter().filter_map(Value::as_i64).collect();
    let distinct: std::collections::BTreeSet<_> = ids.iter().collect();
    assert_eq!(ids.len(), distinct.len(), "an update has two rows");
    distinct.len()
}
