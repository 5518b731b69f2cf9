//! One promise each, in the situation it was made for. `teeth` shows that each test fails when its check is disabled.

use std::time::Duration;

use futures::TryStreamExt;
use object_store::path::Path;

use super::ledger;
use super::life::Life;
use super::script::Fault;
use super::world::{Finisher, Nature, World};
use crate::standin::telegram::Behavior;
use crate::table::{LakeTable, TxnId};

/// On the fast clock: long for a busy machine, short for whoever waits for a failure.
const PATIENCE: Duration = Duration::from_secs(2_000);

/// Waits until each of these updates has reached a step.
async fn wait_for(world: &World, life: &Life, chats: &[i64], step: &str) {
    let mut hops = life.hops.resubscribe();
    let mut open: Vec<i64> = chats.iter().map(|chat_id| world.say(*chat_id)).collect();
    let reported = async {
        while !open.is_empty() {
            let hop = hops.recv().await.unwrap();
            open.retain(|update_id| *update_id != hop.update_id || hop.step != step);
        }
    };
    assert!(world.clock.timeout(PATIENCE, reported).await.is_some(), "nobody tells of the step `{step}`");
}

async fn assert_sound(world: &World) {
    let wrong = world.finish(Finisher::Batch).await;
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_processes_on_one_pipeline_double_nothing() {
    let world = World::new(Nature::CALM).await;
    let one = world.start("lane", None, u64::MAX).await;
    let two = world.start("twin", None, u64::MAX).await;
    world.point_at(&one).await;
    for round in 0..4_u64 {
        world.say(30 + i64::try_from(round).unwrap());
        // One is told of it, and the other finds it by listing, unless it has learned of it from the upstream table.
        let deadline = world.clock.monotonic() + Duration::from_secs(300);
        let reads = |life: &Life| life.gate.counts().get("Get raw").copied().unwrap_or(0);
        while reads(&one).min(reads(&two)) <= round && world.clock.monotonic() < deadline {
            world.clock.sleep(Duration::from_secs(1)).await;
        }
    }
    one.kill().await;
    two.stop().await;
    assert_sound(&world).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lost_answers_of_the_store_leave_nothing_in_doubt() {
    let world = World::new(Nature::CALM).await;
    let life = world.start("lane", None, u64::MAX).await;
    world.point_at(&life).await;
    wait_for(&world, &life, &[40], "replied").await;
    for step in ["PutRaw raw", "PutIntent intents"] {
        world.script.plan(step, [Fault::Lost, Fault::Late, Fault::Lost]);
    }
    for table in ["telegram_messages", "telegram_responses", "telegram_replies"] {
        world.script.plan(&format!("PutCommit {table} commit"), [Fault::Lost, Fault::Lost, Fault::Late]);
    }
    // Every step is reported, as if nothing had been lost.
    wait_for(&world, &life, &[41], "bronze").await;
    wait_for(&world, &life, &[42], "silver").await;
    wait_for(&world, &life, &[43, 44], "replied").await;
    life.stop().await;
    assert_sound(&world).await;
    assert_eq!(ledger::replies_with(&world, "unknown").await, 0, "nothing of Telegram's was ever in doubt");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_data_file_whose_put_is_in_doubt_is_put_once() {
    let world = World::new(Nature::CALM).await;
    let life = world.start("lane", None, u64::MAX).await;
    world.point_at(&life).await;
    for table in ["telegram_messages", "telegram_responses", "telegram_replies"] {
        world.script.plan(&format!("PutParquet {table} file"), [Fault::Lost, Fault::Late, Fault::Conflict]);
    }
    for chat_id in 45..48 {
        wait_for(&world, &life, &[chat_id], "replied").await;
    }
    life.stop().await;
    assert_sound(&world).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_may_have_reached_telegram_is_not_sent_again() {
    let world = World::new(Nature::CALM).await;
    let life = world.start("lane", None, u64::MAX).await;
    world.point_at(&life).await;
    world.telegram.script("sendMessage", vec![Behavior::AcceptThenHang]);
    world.say(50);
    assert!(world.telegram.wait_for(|ledger| ledger.sent().count() == 1, PATIENCE).await);
    life.kill().await;
    assert_sound(&world).await;
    assert_eq!(ledger::replies_with(&world, "unknown").await, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_segment_that_cannot_be_read_for_long_is_loaded_in_the_end() {
    let world = World::new(Nature { settle: "5s", ..Nature::CALM }).await;
    let life = world.start("lane", None, u64::MAX).await;
    world.point_at(&life).await;
    wait_for(&world, &life, &[60], "replied").await;
    // The daily look-back, which would find anything, has run before anything is missing.
    wait_for_txn(&world, &TxnId::LookBack).await;
    let before = segments(&world).await;
    world.script.make_unreadable("raw/");
    world.say(61);
    assert!(world.telegram.wait_for_acks(PATIENCE).await);
    let hidden = segments(&world).await.into_iter().find(|path| !before.contains(path)).unwrap();
    world.script.make_unreadable(hidden.as_ref());
    for chat_id in 62..65 {
        wait_for(&world, &life, &[chat_id], "replied").await;
        world.clock.sleep(Duration::from_secs(20)).await;
    }
    life.stop().await;
    assert_sound(&world).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_intent_that_could_not_be_deleted_does_not_end_its_reply() {
    let world = World::new(Nature::CALM).await;
    let life = world.start("lane", None, u64::MAX).await;
    world.point_at(&life).await;
    world.telegram.script("sendMessage", vec![Behavior::too_many_requests(1), Behavior::too_many_requests(1)]);
    world.script.plan("Delete intents", [Fault::Server, Fault::Before, Fault::Lost]);
    wait_for(&world, &life, &[70], "replied").await;
    life.stop().await;
    assert_sound(&world).await;
    assert_eq!(ledger::replies_with(&world, "unknown").await, 0, "429 says that nothing was taken");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deletion_that_comes_late_takes_no_later_intent() {
    let world = World::new(Nature::CALM).await;
    let life = world.start("lane", None, u64::MAX).await;
    world.point_at(&life).await;
    world.telegram.script("sendMessage", vec![Behavior::too_many_requests(1), Behavior::AcceptThenHang]);
    // The deletion of the first intent arrives after the second was created, and the process dies before the outcome.
    world.script.set_lateness(Duration::from_secs(8));
    world.script.plan("Delete intents", [Fault::Late]);
    world.say(71);
    assert!(world.telegram.wait_for(|ledger| ledger.sent().count() == 1, PATIENCE).await);
    world.clock.sleep(Duration::from_secs(20)).await;
    life.kill().await;
    assert_sound(&world).await;
    assert_eq!(ledger::replies_with(&world, "unknown").await, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_ends_at_its_deadline_though_the_store_is_away() {
    let world = World::new(Nature::CALM).await;
    let life = world.start("lane", None, u64::MAX).await;
    world.point_at(&life).await;
    let class = "PutParquet telegram_responses file";
    world.script.plan(class, [Fault::Server; 100_000]);
    wait_for(&world, &life, &[80], "bronze").await;
    life.kill().await;
    let ended = world.run_until(class, 3).await;
    let troubles = ended.unwrap().troubles;
    assert!(troubles.iter().any(|error| error.to_string().contains("not finished in time")), "{troubles:?}");
    assert_sound(&world).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sender_that_was_taken_for_dead_sends_no_further_part() {
    // First seen with seed 38, on a machine that was slow enough.
    let world = World::new(Nature::CALM).await;
    let (one, two) = (world.start("lane", None, u64::MAX).await, world.start("twin", None, u64::MAX).await);
    world.point_at(&one).await;
    world.telegram.script("sendMessage", vec![Behavior::Delay(Duration::from_secs(400))]);
    world.say_much(90);
    assert!(world.telegram.wait_for(|ledger| ledger.sent().count() > 0, PATIENCE).await);
    // Long enough for a second part, if it were sent.
    world.clock.sleep(Duration::from_secs(60)).await;
    one.kill().await;
    two.kill().await;
    assert_sound(&world).await;
    assert_eq!((world.telegram.sent().len(), ledger::replies_with(&world, "unknown").await), (1, 1));
}

async fn segments(world: &World) -> Vec<Path> {
    let listed = world.storage.object_store().list(Some(&Path::from("raw")));
    listed.map_ok(|meta| meta.location).try_collect().await.unwrap()
}

async fn wait_for_txn(world: &World, id: &TxnId) {
    let path = Path::from("bronze/telegram_messages");
    loop {
        let table = LakeTable::open_existing(&world.storage, &path, &world.clock).await.unwrap().unwrap();
        if table.txn(id).is_some() {
            return;
        }
        world.clock.sleep(Duration::from_secs(1)).await;
    }
}
