//! A reference model of it all: whatever comes when, by whom it is loaded and wherever that one dies.

use proptest::prelude::*;

use super::*;

#[derive(Clone, Debug)]
enum Step {
    /// Lane, age in seconds (less than the settle time), update, whether a corrupt line comes along, and who is hinted.
    Put {
        lane: u8,
        age: i64,
        update: i64,
        corrupt: bool,
        hinted: Option<bool>,
    },
    /// One of the two processes lists.
    List(bool),
    /// One of them dies at this call, before or after it is done, and starts again.
    Die(bool, usize, bool),
    Pass(i64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let put = (0_u8..3, 0_i64..590, 0_i64..25, any::<bool>(), any::<Option<bool>>());
    let step = prop_oneof![
        8 => put.prop_map(|(lane, age, update, corrupt, hinted)| Step::Put { lane, age, update, corrupt, hinted }),
        4 => any::<bool>().prop_map(Step::List),
        2 => (any::<bool>(), 0_usize..30, any::<bool>()).prop_map(|(who, calls, after)| Step::Die(who, calls, after)),
        3 => (0_i64..900).prop_map(Step::Pass),
    ];
    proptest::collection::vec(step, 1..40)
}

/// Puts what the steps say and compares what the table comes to with what was put.
async fn check(steps: Vec<Step>, max_files: usize) {
    let mut world = World::new();
    world.settings.max_files = max_files;
    let stop = never();
    let mut stages = [world.stage().await, world.stage().await];
    let mut updates = BTreeSet::new();
    let mut corrupt = BTreeSet::new();
    let mut put = Vec::new();
    let mut positions = [0; 3];
    for step in steps {
        match step {
            Step::Put { lane, age, update: id, corrupt: is_corrupt, hinted: who } => {
                let line = if is_corrupt { "odd\n" } else { "" };
                let path = world.put(&format!("lane{lane}"), age * 1_000_000, &(update(id) + line)).await;
                updates.insert(id);
                if is_corrupt {
                    corrupt.insert((path.to_string(), 2));
                }
                put.push(path.clone());
                if let Some(who) = who {
                    stages[usize::from(who)].load_hinted(hinted([path]), &stop).await.unwrap();
                }
            }
            Step::List(who) => drop(stages[usize::from(who)].work_until_idle(&stop).await.unwrap()),
            Step::Die(who, calls, after) => {
                let stage = &mut stages[usize::from(who)];
                tokio::select! {
                    biased;
                    () = world.script.die_at(calls, after) => {}
                    _ = stage.work_until_idle(&stop) => {}
                }
                world.script.heal();
                *stage = world.stage().await;
            }
            Step::Pass(seconds) => world.pass(seconds * 1_000_000),
        }
        for (lane, before) in positions.iter_mut().enumerate() {
            let position = world.position(&format!("lane{lane}")).await.unwrap_or_default();
            assert!(position >= *before, "a position went back");
            *before = position;
        }
    }
    for stage in &mut stages {
        stage.work_until_idle(&stop).await.unwrap();
    }
    assert_eq!(world.load().await.rows, 0);
    let ids = world.update_ids().await;
    assert_eq!(ids.iter().flatten().copied().collect::<Vec<_>>(), updates.into_iter().collect::<Vec<_>>());
    let sources = world.sources().await;
    let odd: Vec<_> = sources.iter().filter(|(_, row)| *row == 2).cloned().collect();
    assert_eq!(odd, corrupt.into_iter().collect::<Vec<_>>());
    assert_eq!(sources.len(), ids.len());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, max_shrink_iters: 400, ..ProptestConfig::default() })]
    #[test]
    fn whatever_comes_when_each_line_is_one_row(steps in steps(), max_files in 1_usize..4) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(check(steps, max_files));
    }
}
