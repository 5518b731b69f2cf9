//! The loop that serves: hints, listings, what it tells and what a message costs.

use super::*;

#[tokio::test]
async fn a_single_hinted_message_costs_one_get_and_two_puts() {
    let world = World::new();
    world.put("a", MINUTE, &update(1)).await;
    let mut running = world.serve().await;
    let version = running.committed_after(-1).await;
    let path = world.put("a", 0, &update(2)).await;
    world.script.calls();
    running.hinter.hint(path.clone());
    running.committed_after(version).await;
    let calls: Vec<_> = world.script.calls();
    let calls: Vec<_> = calls.iter().map(|call| call.split("part-").next().unwrap().to_owned()).collect();
    let commit = format!("create {TABLE}/_delta_log/{:020}.json", version + 1);
    assert_eq!(calls, [format!("get {path}"), format!("create {TABLE}/"), commit]);
    running.end().await.unwrap();
}

#[tokio::test]
async fn hints_gather_while_a_commit_is_in_flight() {
    let world = World::new();
    let mut running = world.serve().await;
    running.hinter.hint(world.put("a", 10_000, &update(0)).await);
    running.committed_after(-1).await;
    for id in 1..200 {
        running.hinter.hint(world.put("a", 9_000 - id, &update(id)).await);
    }
    eventually(async || world.update_ids().await == some(0..200)).await;
    assert!(world.version().await < 150, "many segments share a commit");
    running.end().await.unwrap();
}

#[tokio::test]
async fn what_was_never_hinted_comes_before_the_hints_and_a_lost_hint_is_made_good() {
    let mut world = World::new();
    world.settings.max_files = 1;
    let (hinter, hints) = key_hints();
    let older = world.put("a", 2 * MINUTE, &update(1)).await;
    let newer = world.put("b", MINUTE, &update(2)).await;
    hinter.hint(newer);
    hinter.hint(older);
    for number in 0..5_000 {
        hinter.hint(Path::from(format!("raw/{number}")));
    }
    let options = world.options();
    let mut committed = options.committed.subscribe();
    let stop = never();
    let task = tokio::spawn(BronzeStage::open(options).await.unwrap().run(hints, stop.clone()));
    committed.wait_for(|version| *version >= 2).await.unwrap();
    assert_eq!(world.in_order().await, some([1, 2]));
    world.put("b", 0, &update(3)).await;
    for number in 0..5_000 {
        hinter.hint(Path::from(format!("raw/{number}")));
    }
    eventually(async || world.update_ids().await == some([1, 2, 3])).await;
    stop.cancel();
    task.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_lane_that_appears_while_it_runs_is_found_without_a_hint() {
    let world = World::new();
    let running = world.serve().await;
    eventually(async || world.script.calls().iter().any(|call| call.starts_with("folders"))).await;
    world.put("new", 0, &update(1)).await;
    eventually(async || world.update_ids().await == some([1])).await;
    // The giver of hints may go; the listing goes on.
    let Running { hinter, stop, task, .. } = running;
    drop(hinter);
    world.put("newer", 0, &update(2)).await;
    eventually(async || world.update_ids().await == some([1, 2])).await;
    stop.cancel();
    task.await.unwrap().unwrap();
}

#[tokio::test]
async fn it_goes_on_after_an_outage_and_ends_on_what_a_person_must_fix() {
    let world = World::new();
    let mut running = world.serve().await;
    running.hinter.hint(world.put("a", MINUTE, &update(1)).await);
    let version = running.committed_after(-1).await;
    for call in ["get", "list", "folders"] {
        world.script.fail(call, "", Fault::Refuse, 3);
    }
    running.hinter.hint(world.put("a", 1_000, &update(2)).await);
    running.committed_after(version).await;
    world.script.heal();
    assert_eq!(world.update_ids().await, some([1, 2]));
    // The next commit cannot be read any more: a version of another format.
    let next = world.version().await + 1;
    let commit = StorageKey::Commit { table: Path::from(TABLE), version: next }.path();
    let protocol = "{\"protocol\":{\"minReaderVersion\":9,\"minWriterVersion\":9}}\n";
    world.storage.put_new(&commit, Bytes::from(protocol)).await.unwrap();
    running.hinter.hint(world.put("a", 0, &update(3)).await);
    let ended = Clock::system().timeout(Duration::from_secs(20), running.task).await.unwrap().unwrap();
    assert_eq!(ended.unwrap_err().kind(), ErrorKind::Configuration);
}

#[tokio::test]
async fn one_segment_that_cannot_be_read_holds_up_no_hint() {
    let world = World::new();
    let bad = world.put("a", MINUTE, &update(1)).await;
    let name: &'static str = Box::leak(bad.filename().unwrap().to_owned().into_boxed_str());
    world.script.fail("get", name, Fault::Refuse, usize::MAX);
    let mut running = world.serve().await;
    let good = world.put("a", 0, &update(2)).await;
    running.hinter.hint(good);
    running.committed_after(-1).await;
    assert_eq!(world.update_ids().await, some([2]));
    world.script.heal();
    eventually(async || world.update_ids().await == some([1, 2])).await;
    running.end().await.unwrap();
}

#[tokio::test]
async fn it_tells_hops_metrics_and_versions() {
    let world = World::new();
    let mut hops = world.telemetry.watch_hops();
    world.put("a", 2 * MINUTE, &(update(5) + &update(5) + "odd\n")).await;
    let mut running = world.serve().await;
    let version = running.committed_after(-1).await;
    let hop = hops.recv().await.unwrap();
    assert_eq!((hop.update_id, hop.step, hop.detail.as_str()), (5, "bronze", format!("v{version}").as_str()));
    assert!(hops.try_recv().is_err(), "neither a redelivery nor a corrupt line is a hop");
    let metrics = world.telemetry.render();
    for line in [
        "lakegram_bronze_files_total 1",
        "lakegram_bronze_rows_total 2",
        "lakegram_bronze_redeliveries_total 1",
        "lakegram_bronze_corrupt_rows_total 1",
        "lakegram_bronze_commit_seconds_count 1",
        "lakegram_bronze_lag_seconds_count 1",
    ] {
        assert!(metrics.contains(line), "{line}");
    }
    running.end().await.unwrap();
}

#[tokio::test]
async fn progress_gets_a_commit_of_its_own_after_the_settle_time_and_at_the_end() {
    let mut world = World::new();
    world.settings.settle = Duration::from_millis(50);
    world.put("a", MINUTE, &update(1)).await;
    let mut running = world.serve().await;
    let version = running.committed_after(-1).await;
    eventually(async || world.position("a").await.is_some()).await;
    assert!(world.version().await > version);
    let version = world.version().await;
    running.end().await.unwrap();
    assert!(world.version().await <= version + 1);
}
