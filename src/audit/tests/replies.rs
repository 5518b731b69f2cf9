//! Silver answers and replies rows.

use super::*;

/// Updates of an hour ago, each answered with so many parts.
async fn answered(parts: &[i64]) -> World {
    let world = World::new();
    let lines: String = (1..).zip(parts).map(|(id, _)| update(id)).collect();
    world.put("a", HOUR, &lines).await;
    world.load().await;
    let answers: Vec<_> = (1..).zip(parts).map(|(id, parts)| Answer(id, HOUR, 1, *parts)).collect();
    world.answer(&answers, world.version(BRONZE).await).await;
    world
}

/// The same, and these outcomes of all of them.
async fn replied(parts: &[i64], outcomes: &[Outcome]) -> World {
    let world = answered(parts).await;
    world.reply(outcomes, world.version(SILVER).await).await;
    world
}

#[tokio::test]
async fn parts_come_in_order_up_to_the_first_that_did_not_arrive() {
    let outcomes = [
        Outcome(1, 1, 1, 1, "sent"),
        Outcome(1, 1, 1, 2, "sent"),
        Outcome(2, 1, 1, 1, "sent"),
        Outcome(2, 1, 1, 2, "failed"),
        Outcome(3, 1, 1, 1, "unknown"),
        Outcome(4, 1, 1, 1, "unknown"),
        Outcome(4, 1, 2, 1, "sent"),
        Outcome(4, 1, 1, 2, "sent"),
    ];
    let world = replied(&[2, 3, 2, 2, 0], &outcomes).await;
    let audit = world.audit().await;
    assert_eq!(counts(&audit)[3], ("replies", [4, 0, 0, 0]));
    assert!(!audit.is_broken());
    assert_eq!(audit.unknown.count, 2);
    let first = audit.unknown.rows[0].to_string();
    assert_eq!(first, "it may or may not have arrived: bot 1, update 3, attempt 1, send 1, part 1");
}

#[tokio::test]
async fn an_answer_that_reply_has_not_passed_waits_and_one_that_it_has_is_lost() {
    let world = answered(&[2, 1]).await;
    assert_eq!(counts(&world.audit().await)[3], ("replies", [2, 2, 0, 0]));
    world.reply(&[Outcome(1, 1, 1, 1, "sent")], -1).await;
    let audit = world.audit().await;
    assert_eq!(counts(&audit)[3], ("replies", [2, 2, 0, 0]));
    world.reply(&[Outcome(2, 1, 1, 1, "sent")], world.version(SILVER).await).await;
    let audit = world.audit().await;
    assert!(only(&audit, &["replies"]));
    let lost =
        "a part of an answer is lost: the replier has passed it without an outcome: bot 1, update 1, attempt 1, part 2";
    assert!(broken(&audit, "replies")[0].starts_with(lost), "{:?}", broken(&audit, "replies"));
}

#[tokio::test]
async fn a_part_that_was_sent_twice_or_out_of_order_or_for_no_answer_is_named() {
    let outcomes = [
        Outcome(1, 1, 1, 1, "sent"),
        Outcome(1, 1, 2, 1, "sent"),
        Outcome(2, 1, 1, 1, "failed"),
        Outcome(2, 1, 1, 2, "sent"),
        Outcome(3, 1, 1, 1, "sent"),
        Outcome(3, 1, 1, 2, "sent"),
        Outcome(9, 1, 1, 1, "sent"),
    ];
    let world = replied(&[1, 3, 1], &outcomes).await;
    let audit = world.audit().await;
    assert!(only(&audit, &["replies"]));
    let found = broken(&audit, "replies");
    assert_eq!(found.len(), 4, "{found:?}");
    assert!(found[0].starts_with("a part was sent twice: bot 1, update 1, attempt 1, send 2, part 1, raw/"));
    let odd = "a part is where none may be: beyond the answer, or after one that did not arrive";
    assert!(found[1].starts_with(&format!("{odd}: bot 1, update 2, attempt 1, send 1, part 2")), "{found:?}");
    assert!(found[2].starts_with(&format!("{odd}: bot 1, update 3, attempt 1, send 1, part 2")), "{found:?}");
    assert_eq!(found[3], "a reply has no answer: bot 1, update 9, attempt 1, send 1, part 1");
}

#[tokio::test]
async fn the_same_row_twice_is_found() {
    let world = replied(&[1, 1], &[Outcome(1, 1, 1, 1, "sent"), Outcome(2, 1, 1, 1, "failed")]).await;
    world.rewrite(REPLIES, |_| true, |_| true).await;
    let audit = world.audit().await;
    assert!(only(&audit, &["replies"]));
    let found = broken(&audit, "replies");
    assert!(found[0].starts_with("a part was sent twice: bot 1, update 1"), "{found:?}");
    assert!(found[1].starts_with("a send has two outcomes: bot 1, update 2"), "{found:?}");
    assert_eq!(found.len(), 2);
}

#[tokio::test]
async fn with_since_a_reply_of_an_earlier_answer_is_not_judged() {
    let world = replied(&[1], &[Outcome(1, 1, 1, 1, "sent")]).await;
    let audit = world.audit_since(Some(world.now.minus(Duration::from_secs(60)))).await;
    assert!(!audit.is_broken());
    assert_eq!(counts(&audit)[3], ("replies", [0, 0, 0, 0]));
}
