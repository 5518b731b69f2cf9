//! A reference model of the states of a reply: whatever the Bot API, the store and crashes do, what the replies table
//! says about a part follows from what was on the wire for it, and what has no outcome is still waiting.
//!
//! `LAKEGRAM_SEEDS=500 cargo test --lib faults::replies` tries more cases.

mod model;
mod world;

use std::time::Duration;

use proptest::prelude::*;

use self::world::{Ended, World};
use super::gate::{Death, Kind, Point};
use super::script::Fault;
use crate::standin::telegram::Behavior;
use crate::tests::kit::number;

/// Cases when the environment asks for none in particular.
const CASES: u32 = 16;

/// Calls of the store that a sender makes.
const CLASSES: [&str; 8] = [
    "PutIntent intents",
    "Delete intents",
    "Head intents",
    "Get intents",
    "List intents",
    "PutParquet telegram_replies file",
    "PutCommit telegram_replies commit",
    "Get telegram_replies commit",
];

const FAULTS: [Fault; 5] = [Fault::Before, Fault::Lost, Fault::Server, Fault::Slow, Fault::Late];

#[derive(Clone, Debug)]
enum Step {
    /// Answers with this many messages each, by chat, in one commit.
    Answer(Vec<(i64, usize)>),
    /// What the Bot API does with the next calls.
    Behave(Vec<Behavior>),
    /// What the store does with the next calls of a class.
    Trouble(&'static str, Vec<Fault>),
    /// A process runs until everything is done or it dies.
    Live(Option<Death>),
    /// Two processes at the same time, by mistake.
    Two(Option<Death>, Option<Death>),
}

fn death() -> impl Strategy<Value = Option<Death>> {
    let point = prop_oneof![
        1 => (1_u64..60).prop_map(Point::Any),
        3 => (proptest::sample::select(&CLASSES[..]), 1_u64..4).prop_map(|(class, number)| Point::Of(class.to_owned(), number)),
    ];
    let death = (point, any::<bool>()).prop_map(|(point, after)| Death { point, after, kind: Kind::Exit });
    proptest::option::weighted(0.6, death)
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let behavior = prop_oneof![
        4 => Just(Behavior::Proceed),
        2 => (1_u64..4).prop_map(Behavior::too_many_requests),
        1 => Just(Behavior::fail(403, "Forbidden: bot was blocked by the user")),
        1 => Just(Behavior::fail(500, "Internal Server Error")),
        1 => Just(Behavior::AcceptThenFail { code: 502 }),
        1 => Just(Behavior::AcceptThenDropConnection),
        1 => Just(Behavior::DropBefore),
        1 => Just(Behavior::AcceptThenHang),
        1 => (1_u64..20).prop_map(|seconds| Behavior::Delay(Duration::from_secs(seconds))),
    ];
    let trouble = (
        proptest::sample::select(&CLASSES[..]),
        proptest::collection::vec(proptest::sample::select(&FAULTS[..]), 1..4),
    );
    let answer = (20_i64..23, prop_oneof![4 => Just(1_usize), 1 => 2_usize..4]);
    let step = prop_oneof![
        4 => proptest::collection::vec(answer, 1..4).prop_map(Step::Answer),
        3 => proptest::collection::vec(behavior, 1..5).prop_map(Step::Behave),
        2 => trouble.prop_map(|(class, faults)| Step::Trouble(class, faults.into_iter().filter(|fault| fits(class, *fault)).collect())),
        4 => death().prop_map(Step::Live),
        1 => (death(), death()).prop_map(|(one, two)| Step::Two(one, two)),
    ];
    proptest::collection::vec(step, 2..14)
}

/// A read cannot be lost or late.
fn fits(class: &str, fault: Fault) -> bool {
    class.starts_with("Put") || class.starts_with("Delete") || !matches!(fault, Fault::Lost | Fault::Late)
}

async fn run(steps: Vec<Step>) -> Result<(), String> {
    let mut world = World::new().await;
    for step in steps {
        match step {
            Step::Answer(answers) => world.answer(&answers).await,
            Step::Behave(behaviors) => world.telegram.script("sendMessage", behaviors),
            Step::Trouble(class, faults) => world.script.plan(class, faults),
            Step::Live(death) => {
                let ended = world.live(death).await;
                world.lived(ended).await;
            }
            Step::Two(one, two) => {
                tokio::join!(world.live(one), world.live(two));
                // Each may assume that the other is dead.
                world.lived(Ended::Died).await;
            }
        }
        model::check_waiting(&world).await?;
    }
    world.calm().await;
    for _ in 0..5 {
        let ended = world.live(None).await;
        world.lived(ended).await;
        if ended == Ended::Done {
            return model::check(&world).await;
        }
    }
    Err("what is left is never done".to_owned())
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: number("LAKEGRAM_SEEDS").map_or(CASES, |seeds| u32::try_from(seeds).unwrap()),
        max_shrink_iters: 60,
        ..ProptestConfig::default()
    })]
    #[test]
    fn what_became_of_a_part_follows_from_what_was_on_the_wire(steps in steps()) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let ran = runtime.block_on(run(steps));
        prop_assert!(ran.is_ok(), "{}", ran.unwrap_err());
    }
}
