//! A store that fails, answers that are lost, a process that slept or died.

use super::*;

#[tokio::test]
async fn a_store_that_fails_at_a_put_is_asked_again_with_nothing_lost_or_doubled() {
    let world = World::new();
    world.put("a", MINUTE, &(update(1) + "odd\n")).await;
    world.script.fail("create", "part-", Fault::Refuse, 1);
    world.script.fail("create", "_delta_log/00000000000000000001", Fault::LoseAndBlind, 1);
    world.load().await;
    world.load().await;
    assert_eq!(world.update_ids().await, [None, Some(1)]);
}

#[tokio::test]
async fn a_listing_or_the_table_that_fails_ends_a_batch_run_and_nothing_else() {
    let world = World::new();
    world.put("a", MINUTE, &(update(1) + "odd\n")).await;
    let mut stage = world.stage().await;
    for call in ["folders", "list"] {
        world.script.fail(call, "raw/", Fault::Refuse, 1);
        assert_eq!(stage.work_until_idle(&never()).await.unwrap_err().kind(), ErrorKind::Unavailable);
    }
    assert_eq!(stage.work_until_idle(&never()).await.unwrap().rows, 2);
    assert_eq!(world.update_ids().await, [None, Some(1)]);
}

#[tokio::test]
async fn a_process_that_slept_through_its_commit_opens_again() {
    let world = World::new();
    world.put("a", 30 * MINUTE, &(update(1) + "odd\n")).await;
    let mut stage = world.stage().await;
    world.script.fail("create", "_delta_log", Fault::StepAfter(3_600), 1);
    stage.work_until_idle(&never()).await.unwrap();
    world.put("a", 0, &(update(2) + &update(1))).await;
    stage.work_until_idle(&never()).await.unwrap();
    assert_eq!(stage.ledger.epoch(), 1);
    assert_eq!(world.update_ids().await, [None, Some(1), Some(2)]);
}

#[tokio::test]
async fn opening_again_may_fail_at_any_call_and_forgets_nothing() {
    for failing in 0..12 {
        let world = World::new();
        world.put("a", 30 * MINUTE, &(update(1) + "odd\n")).await;
        let mut stage = world.stage().await;
        world.script.fail("create", "_delta_log", Fault::StepAfter(3_600), 1);
        // The calls that follow the put are those of opening again.
        let calls = ["get", "list", "folders"][failing % 3];
        world.script.fail(calls, ["_delta_log", "raw/", "part-", ""][failing / 3], Fault::Refuse, 1 + failing / 2);
        for _ in 0..10 {
            // Whether it fails depends on where; what is in the table does not.
            let _outcome = stage.work_until_idle(&never()).await;
        }
        world.script.heal();
        world.put("a", 0, &(update(2) + &update(1))).await;
        stage.work_until_idle(&never()).await.unwrap();
        assert_eq!(world.update_ids().await, [None, Some(1), Some(2)], "failing {failing}");
    }
}

#[tokio::test]
async fn a_process_may_die_at_any_call() {
    let mut deaths = 0;
    for calls in 0.. {
        for after in [false, true] {
            let mut world = World::new();
            world.settings.max_files = 2;
            world.settings.settle = Duration::ZERO;
            for id in 0..3 {
                world.put("a", (10 - id) * MINUTE, &(update(id) + "odd\n")).await;
                world.put("b", (10 - id) * MINUTE, &update(id)).await;
            }
            world.load().await;
            world.put("a", 2 * MINUTE, &(update(7) + "odd\n")).await;
            world.put("b", MINUTE, &(update(7) + &update(8))).await;
            world.pass(MINUTE);
            let died = tokio::select! {
                biased;
                () = world.script.die_at(calls, after) => true,
                _ = world.load() => false,
            };
            world.script.heal();
            deaths += usize::from(died);
            world.load().await;
            let expected: Vec<_> = some([0, 1, 2, 7, 8]);
            let odd = vec![None; 4];
            assert_eq!(world.update_ids().await, [odd, expected].concat(), "died at call {calls}, after: {after}");
            assert_eq!(world.sources().await.iter().collect::<BTreeSet<_>>().len(), 9);
            if !died {
                assert!(deaths > 20, "only {deaths} calls to die at");
                return;
            }
        }
    }
}

#[tokio::test]
async fn a_table_that_was_deleted_meanwhile_is_not_made_again_behind_everybodys_back() {
    let world = World::new();
    for id in 0..4 {
        world.put("a", (30 - id) * MINUTE, &update(id)).await;
    }
    world.pass(20 * MINUTE);
    let mut stage = world.stage().await;
    stage.work_until_idle(&never()).await.unwrap();
    stage.work_until_idle(&never()).await.unwrap();
    assert!(world.position("a").await.is_some());
    delete_table(&world).await;
    world.pass(HOUR);
    world.put("a", 0, &update(9)).await;
    let error = stage.work_until_idle(&never()).await.unwrap_err();
    assert!(error.to_string().contains("was removed"), "{error}");
    assert!(world.storage.list_after(&Path::from(TABLE), None, 1).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_round_that_began_before_the_table_was_opened_again_moves_no_position() {
    let mut world = World::new();
    world.settings.max_files = 1;
    for id in 0..4 {
        world.put("a", (30 - id) * MINUTE, &update(id)).await;
    }
    world.pass(20 * MINUTE);
    let mut stage = world.stage().await;
    for _ in 0..2 {
        assert!(stage.list_on(&never()).await.unwrap());
    }
    world.pass(HOUR);
    // Between two batches a hint or a look-back had to open the table again.
    stage.ledger.reopen().await.unwrap();
    let path = world.put("a", 0, &update(9)).await;
    stage.load_hinted(hinted([path]), &never()).await.unwrap();
    assert_eq!(stage.ledger.epoch(), 1);
    while stage.list_on(&never()).await.unwrap() {}
    stage.ledger.commit(&[], true).await.unwrap();
    assert_eq!(world.update_ids().await, some([0, 1, 2, 3, 9]), "and without the help of a look-back");
}

async fn delete_table(world: &World) {
    for object in world.storage.list_after(&Path::from(TABLE), None, 1_000).await.unwrap() {
        world.storage.delete(&object.location).await.unwrap();
    }
}
