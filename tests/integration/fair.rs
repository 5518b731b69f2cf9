//! A busy chat, or one in trouble, holds up nobody: in front of the model and in front of Telegram.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use lakegram::standin::model::ModelTrouble;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::silver::{Received, World, pairs};
use crate::support::{self, PATIENCE};
use crate::{reply, silver};

/// A group that never stops talking.
const GROUP: i64 = -100;

async fn until(done: impl AsyncFn() -> bool) {
    let done = async {
        while !done().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, done).await.unwrap();
}

/// Runs the stage until this many questions with `word` were asked, then stops it.
async fn run_until_asked(world: &silver::World, word: &str, count: usize) {
    let stop = CancellationToken::new();
    let (_versions, hints) = watch::channel(-1);
    let running = tokio::spawn(world.stage().await.run(hints, stop.clone()));
    until(async || asked(world, word) >= count).await;
    stop.cancel();
    running.await.unwrap().unwrap();
}

fn asked(world: &silver::World, word: &str) -> usize {
    world.model.requests().iter().filter(|request| request.question().contains(word)).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chat_of_twenty_thousand_messages_holds_up_none_of_a_hundred_others() {
    for max_waiting in [10_000, 3] {
        let mut world = World::new().await;
        world.pipeline.silver.max_waiting = max_waiting;
        let group: Vec<Received<'_>> = (0..20_000).map(|id| ("message", Some(id), GROUP, "of the group")).collect();
        for rows in group.chunks(5_000) {
            world.receive(rows).await;
        }
        let others: Vec<_> = (0..100).map(|number| ("message", Some(20_000 + number), 1 + number, "private")).collect();
        world.receive(&others).await;
        let began = Instant::now();
        run_until_asked(&world, "private", 100).await;
        let before = asked(&world, "of the group");
        println!("max_waiting {max_waiting}: 100 others asked in {:?}, after {before} of the group", began.elapsed());
        assert!(before < 1_000, "{before} of the group came first");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn with_room_for_three_a_private_question_does_not_wait_for_a_group() {
    let mut world = World::new().await;
    world.pipeline.silver.max_waiting = 3;
    world.model.poison("of the group", ModelTrouble::Delay(Duration::from_secs(1)));
    let group: Vec<Received<'_>> = (0..25).map(|id| ("message", Some(id), GROUP, "of the group")).collect();
    world.receive(&group).await;
    world.receive(&[("message", Some(25), 1, "private")]).await;
    run_until_asked(&world, "private", 1).await;
    assert!(asked(&world, "of the group") <= 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_in_the_table_is_answered_whole_and_in_order() {
    let mut world = World::new().await;
    world.pipeline.silver.max_waiting = 8;
    let texts: Vec<String> = (0..60).map(|id| format!("number {id}")).collect();
    let row = |id: i64| ("message", Some(id), if id % 10 == 9 { id } else { GROUP }, texts[id as usize].as_str());
    world.receive(&(0..30).map(row).collect::<Vec<_>>()).await;
    for id in 30..60 {
        world.receive(&[row(id)]).await;
    }
    let summary = tokio::time::timeout(PATIENCE, world.work()).await.unwrap();
    assert_eq!((summary.rows, summary.waiting), (60, 0));
    let requests = world.model.requests();
    let of_group: Vec<&str> =
        requests.iter().map(|request| request.question()).filter(|text| !text.ends_with('9')).collect();
    let expected: Vec<&str> = texts.iter().map(String::as_str).filter(|text| !text.ends_with('9')).collect();
    assert_eq!(of_group, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_in_files_that_are_cleaned_away_is_found_again() {
    let mut world = World::new().await;
    world.pipeline.silver.max_waiting = 4;
    for id in 0..40 {
        world.receive(&[("message", Some(id), GROUP, "hello")]).await;
    }
    world.model.trouble([ModelTrouble::Hang]);
    world.timeout = Duration::from_secs(60);
    let (versions, hints) = watch::channel(-1);
    let stop = CancellationToken::new();
    let running = tokio::spawn(world.stage().await.run(hints, stop.clone()));
    tokio::time::timeout(PATIENCE, world.model.wait_for_requests(1)).await.unwrap();
    // It has read everything once it asks what came last.
    world.receive(&[("message", Some(40), 7, "the last")]).await;
    versions.send_replace(world.bronze.version());
    tokio::time::timeout(PATIENCE, world.model.wait_for_requests(2)).await.unwrap();
    support::clean_up(&world.storage, &world.pipeline.bronze.table, &world.clock).await;
    world.model.release();
    until(async || world.statuses().await.len() == 41).await;
    stop.cancel();
    running.await.unwrap().unwrap();
    let expected: Vec<(i64, &str)> = (0..41).map(|id| (id, "answered")).collect();
    assert_eq!(world.statuses().await, pairs(&expected));
    assert_eq!(world.model.request_count(), 41);
    assert_eq!(world.work().await.rows, 0);
}

/// Rows of chats whose questions are poison, each several times, and of as many others as are given.
async fn receive_poison(world: &mut silver::World, chats: i64, others: i64) {
    for round in 0..3 {
        let poison = (0..chats).map(|chat| ("message", Some(round * 1_000 + chat), 1 + chat, "poison"));
        let sound = (0..others).map(|chat| ("message", Some(round * 1_000 + 500 + chat), 501 + chat, "sound"));
        world.receive(&poison.chain(sound).collect::<Vec<_>>()).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn failures_of_twenty_chats_slow_nobody_else() {
    let mut world = World::new().await;
    world.model.poison("poison", ModelTrouble::status(500));
    receive_poison(&mut world, 20, 40).await;
    let began = Instant::now();
    run_until_asked(&world, "sound", 120).await;
    println!("120 sound questions asked in {:?}, with {} of poison", began.elapsed(), asked(&world, "poison"));
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_that_hang_leave_permits_to_others() {
    let mut world = World::new().await;
    world.pipeline.silver.concurrency = 8;
    world.timeout = Duration::from_secs(2);
    world.model.poison("poison", ModelTrouble::Delay(Duration::from_secs(600)));
    receive_poison(&mut world, 40, 20).await;
    let began = Instant::now();
    run_until_asked(&world, "sound", 60).await;
    println!("60 sound questions asked in {:?}, with {} that hang", began.elapsed(), asked(&world, "poison"));
    // Forty chats hang for two seconds each, eight at a time, before they are known for it.
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn twelve_thousand_replies_to_a_group_hold_up_none_of_forty_others() {
    let mut world = reply::World::new().await;
    let group: Vec<(i64, i64, &str)> = (0..12_000).map(|id| (id, GROUP, "of the group")).collect();
    world.answer(&group).await;
    let others: Vec<(i64, i64, &str)> = (0..40).map(|number| (12_000 + number, 1 + number, "private")).collect();
    world.answer(&others).await;
    let stop = CancellationToken::new();
    let (_versions, hints) = watch::channel(-1);
    let running = tokio::spawn(world.stage().await.run(hints, stop.clone()));
    let sent = || {
        let mut sent: BTreeMap<bool, usize> = BTreeMap::new();
        world.telegram.sent().iter().for_each(|message| *sent.entry(message.chat_id == GROUP).or_default() += 1);
        (sent.get(&true).copied().unwrap_or(0), sent.get(&false).copied().unwrap_or(0))
    };
    let began = Instant::now();
    until(async || sent().1 == 40).await;
    println!("40 others sent in {:?}, after {} of the group", began.elapsed(), sent().0);
    assert!(sent().0 < 30);
    stop.cancel();
    running.await.unwrap().unwrap();
}
