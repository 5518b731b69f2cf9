//! Random runs: each seed is a world with its own faults, deaths and second processes, and its result is checked at the
//! end.

use std::time::Duration;

use super::gate::{Death, Kind, Point};
use super::ledger;
use super::life::{End, Life};
use super::script::Operation;
use super::world::{Finisher, Nature, World};
use crate::standin::model::ModelTrouble;
use crate::standin::telegram::Behavior;
use crate::tests::kit::{Dice, Outcome, Suite};

const SUITE: Suite = Suite { seeds: 40, at_once: 6 };
/// The longest duration of a life, and how long no put happens in one that has nothing left to do.
const LIFE: Duration = Duration::from_millis(1_500);
const QUIET: Duration = Duration::from_millis(40);

/// The store calls that a process makes before it serves.
const OPENING: u64 = 40;

/// Calls at which a process may die in the middle of its work; those that few processes reach are listed more than
/// once.
const CLASSES: [&str; 27] = [
    "PutRaw raw",
    "PutRaw raw",
    "PutRaw raw",
    "PutRaw raw",
    "Get raw",
    "PutParquet telegram_messages file",
    "PutCommit telegram_messages commit",
    "PutParquet telegram_responses file",
    "PutCommit telegram_responses commit",
    "PutIntent intents",
    "PutIntent intents",
    "PutIntent intents",
    "PutIntent intents",
    "PutParquet telegram_replies file",
    "PutCommit telegram_replies commit",
    "Delete intents",
    "Delete intents",
    "Delete intents",
    "Delete intents",
    "Delete intents",
    "Head intents",
    "Head intents",
    "Head intents",
    "Head intents",
    "Head intents",
    "Head telegram_messages commit",
    "Get telegram_replies commit",
];

/// How many processes lived, and how many of them ended by a death or an error.
#[derive(Debug, Default)]
struct Lives {
    all: u64,
    dead: u64,
}

fn behaviors(dice: &mut Dice) -> Vec<Behavior> {
    let one = |dice: &mut Dice| match dice.below(20) {
        0 => Behavior::too_many_requests(1 + dice.below(3)),
        1 => Behavior::AcceptThenFail { code: 502 },
        2 => Behavior::AcceptThenDropConnection,
        3 => Behavior::DropBefore,
        4 => Behavior::Delay(Duration::from_secs(dice.below(10))),
        5 => Behavior::fail(403, "Forbidden: bot was blocked by the user"),
        6 => Behavior::AcceptThenHang,
        7 => Behavior::fail(500, "Internal Server Error"),
        _ => Behavior::Proceed,
    };
    (0..8).map(|_| one(dice)).collect()
}

fn troubles(dice: &mut Dice) -> Vec<ModelTrouble> {
    let one = |dice: &mut Dice| match dice.below(16) {
        0 => ModelTrouble::status(500),
        1 => ModelTrouble::retry_after(429, "2"),
        2 => ModelTrouble::malformed(),
        3 => ModelTrouble::Drop,
        4 => ModelTrouble::Hang,
        5 => ModelTrouble::status(400),
        6 => ModelTrouble::status(503),
        _ => ModelTrouble::Delay(Duration::from_millis(dice.below(4))),
    };
    (0..8).map(|_| one(dice)).collect()
}

/// How a process dies. One that finds another's intents looks at them before it sends, which few processes get to.
fn death(dice: &mut Dice, finds_intents: bool) -> Option<Death> {
    let kind = if dice.per_mille(250) { Kind::Panic } else { Kind::Exit };
    let point = match dice.below(4) {
        _ if finds_intents && dice.per_mille(400) => Point::Of("Head intents".to_owned(), 1),
        0 => Point::Any(1 + dice.below(OPENING)),
        1 => Point::Any(OPENING + dice.below(80)),
        _ => {
            let class = *dice.pick(&CLASSES);
            // Looks at intents are rare: hardly any life gets to a second one.
            let number = 1 + if class.starts_with("Head") { 0 } else { dice.below(2) };
            Point::Of(class.to_owned(), number)
        }
    };
    let death = Death { point, after: dice.per_mille(500), kind };
    dice.per_mille(600).then_some(death)
}

fn armed_from(dice: &mut Dice) -> u64 {
    // Most processes come up before the faults begin; there is little to see in one that does not.
    if dice.per_mille(100) { 0 } else { OPENING + dice.below(40) }
}

/// Lets users write and a process live, until it ends, makes no more puts, or has lasted long enough.
async fn live(world: &World, life: &mut Life, dice: &mut Dice) -> Option<End> {
    let mut to_say = 2 + dice.below(5);
    let (began, acked) = (std::time::Instant::now(), world.telegram.totals().acked);
    let (mut puts, mut changed) = (world.script.puts(), std::time::Instant::now());
    loop {
        if to_say > 0 && dice.per_mille(400) {
            let chat_id = *dice.pick(&[11, 12, 14, -13]);
            if dice.per_mille(100) {
                world.say_much(chat_id)
            } else {
                world.say(chat_id)
            };
            to_say -= 1;
        }
        tokio::select! {
            end = life.ended() => return Some(end),
            () = tokio::time::sleep(QUIET / 8) => {}
        }
        if world.script.puts() != puts {
            (puts, changed) = (world.script.puts(), std::time::Instant::now());
        }
        let at_work = world.telegram.totals().acked == acked || changed.elapsed() < QUIET;
        if to_say == 0 && !at_work || began.elapsed() > LIFE {
            return None;
        }
    }
}

async fn end(life: Life, dice: &mut Dice) -> End {
    if dice.per_mille(300) { life.stop().await } else { life.kill().await }
}

async fn one_life(world: &World, dice: &mut Dice, lives: &mut Lives) {
    world.telegram.script("sendMessage", behaviors(dice));
    world.model.trouble(troubles(dice));
    world.telegram.lose_acks(u32::from(dice.per_mille(200)));
    let finds_intents = !ledger::intents(world).await.is_empty();
    let mut life = world.start("lane", death(dice, finds_intents), armed_from(dice)).await;
    world.point_at(&life).await;
    let twin = match dice.per_mille(300) {
        true => Some(world.start("twin", death(dice, finds_intents), armed_from(dice)).await),
        false => None,
    };
    if let (Some(twin), Some(said)) = (&twin, world.said().last()) {
        // Refused or lost, it makes no difference: the queue delivers it in any case.
        let _answer = world.telegram.redeliver_to(&twin.url, said.update_id).await;
    }
    let maintains = dice.per_mille(400);
    let class = *dice.pick(&["PutOther telegram_messages log", "PutOther telegram_responses log", "Get raw"]);
    let point = Point::Of(class.to_owned(), 1 + dice.below(2));
    let its_death = Death { point, after: dice.per_mille(500), kind: Kind::Exit };
    let its_death = dice.per_mille(600).then_some(its_death);
    let maintained = async {
        if maintains {
            world.maintain(its_death).await;
        }
    };
    let (ended, ()) = tokio::join!(live(world, &mut life, dice), maintained);
    let ended = match ended {
        Some(ended) => ended,
        None => end(life, dice).await,
    };
    lives.all += 1 + u64::from(twin.is_some());
    lives.dead += u64::from(!matches!(ended, End::Served(Ok(()))));
    if let Some(twin) = twin {
        end(twin, dice).await;
    }
}

async fn run(seed: u64) -> Outcome<Operation> {
    let mut dice = Dice::new(seed);
    let rate = *dice.pick(&[30, 80, 150, 250]);
    let on_disk = dice.per_mille(120);
    let world = World::new(Nature { seed, rate, on_disk, settle: "20s", model_timeout: "400ms" }).await;
    let mut lives = Lives::default();
    for _ in 0..2 + dice.below(2) {
        one_life(&world, &mut dice, &mut lives).await;
    }
    let by = *dice.pick(&[Finisher::Service, Finisher::Batch]);
    let wrong = match tokio::time::timeout(Duration::from_secs(400), world.finish(by)).await {
        Ok(wrong) => wrong,
        Err(_) => vec!["it hangs".to_owned()],
    };
    let counts = vec![
        ("lives", lives.all),
        ("ended by a death or an error", lives.dead),
        ("messages", world.said().len() as u64),
        ("accepted by Telegram", world.telegram.sent().len() as u64),
    ];
    Outcome { wrong, matrix: world.script.matrix(), counts }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_seed_loses_a_message_or_answers_twice() {
    SUITE.run(run).await;
}
