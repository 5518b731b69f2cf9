//! Random runs: each seed is a world with its own faults, deaths and twins, and its ledger is checked at the end.

use std::fmt::Write;
use std::time::Duration;

use futures::{StreamExt, stream};

use super::dice::Dice;
use super::gate::{Death, Kind, Point};
use super::ledger;
use super::life::{End, Life};
use super::number;
use super::script::{Fault, Matrix, Operation};
use super::world::{Finisher, Nature, World};
use crate::standin::model::ModelTrouble;
use crate::standin::telegram::Behaviour;

/// Seeds of a run without a wish.
const SEEDS: u64 = 40;
/// Worlds at the same time: most of a world's time is spent waiting.
const AT_ONCE: usize = 6;
/// The longest that a life lasts, and how long nothing is put in one that has nothing left to do.
const LIFE: Duration = Duration::from_millis(1_500);
const QUIET: Duration = Duration::from_millis(40);

/// The calls that a process makes of its store before it serves.
const OPENING: u64 = 40;

/// From here on every cell of the matrix is to be met so often.
const MANY_SEEDS: usize = 500;
const MET_EACH: u64 = 20;

/// Calls at which a process may die in the midst of its work; what few processes come to stands here more than once.
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

/// What a seed came to.
#[derive(Debug, Default)]
struct Run {
    seed: u64,
    wrong: Vec<String>,
    matrix: Matrix,
    lives: usize,
    deaths: usize,
    messages: usize,
    accepted: usize,
}

fn behaviours(dice: &mut Dice) -> Vec<Behaviour> {
    let one = |dice: &mut Dice| match dice.below(20) {
        0 => Behaviour::too_many_requests(1 + dice.below(3)),
        1 => Behaviour::AcceptThenFail { code: 502 },
        2 => Behaviour::AcceptThenDropConnection,
        3 => Behaviour::DropBefore,
        4 => Behaviour::Delay(Duration::from_secs(dice.below(10))),
        5 => Behaviour::fail(403, "Forbidden: bot was blocked by the user"),
        6 => Behaviour::AcceptThenHang,
        7 => Behaviour::fail(500, "Internal Server Error"),
        _ => Behaviour::Proceed,
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

/// How a process dies. One that finds intents of another looks at them before it sends: a place that few come to.
fn death(dice: &mut Dice, finds_intents: bool) -> Option<Death> {
    let kind = if dice.per_mille(250) { Kind::Panic } else { Kind::Exit };
    let point = match dice.below(4) {
        _ if finds_intents && dice.per_mille(400) => Point::Of("Head intents".to_owned(), 1),
        0 => Point::Any(1 + dice.below(OPENING)),
        1 => Point::Any(OPENING + dice.below(80)),
        _ => {
            let class = *dice.pick(&CLASSES);
            // Looks are rare: hardly a life comes to a second one.
            let number = 1 + if class.starts_with("Head") { 0 } else { dice.below(2) };
            Point::Of(class.to_owned(), number)
        }
    };
    let death = Death { point, after: dice.per_mille(500), kind };
    dice.per_mille(600).then_some(death)
}

fn armed_from(dice: &mut Dice) -> u64 {
    // Most processes come up before trouble begins; there is little to see in one that does not.
    if dice.per_mille(100) { 0 } else { OPENING + dice.below(40) }
}

/// Lets people speak and a life go on, until it ends, nothing is put any more, or it has lasted long enough.
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

async fn one_life(world: &World, dice: &mut Dice, run: &mut Run) {
    world.telegram.script("sendMessage", behaviours(dice));
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
        // Refused or not heard, it is all the same: the queue delivers it in any case.
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
    run.lives += 1 + usize::from(twin.is_some());
    run.deaths += usize::from(!matches!(ended, End::Served(Ok(()))));
    if let Some(twin) = twin {
        end(twin, dice).await;
    }
}

async fn run(seed: u64) -> Run {
    let mut dice = Dice::new(seed);
    let rate = *dice.pick(&[30, 80, 150, 250]);
    let on_disk = dice.per_mille(120);
    let world = World::new(Nature { seed, rate, on_disk, settle: "20s", model_timeout: "400ms" }).await;
    let mut run = Run { seed, ..Run::default() };
    for _ in 0..2 + dice.below(2) {
        one_life(&world, &mut dice, &mut run).await;
    }
    let by = *dice.pick(&[Finisher::Service, Finisher::Batch]);
    run.wrong = match tokio::time::timeout(Duration::from_secs(400), world.finish(by)).await {
        Ok(wrong) => wrong,
        Err(_) => vec!["it hangs".to_owned()],
    };
    run.matrix = world.script.matrix();
    run.messages = world.said().len();
    run.accepted = world.telegram.sent().len();
    run
}

/// The matrix as a table, and the cells that were met less often than `least`.
fn told(matrix: &Matrix, least: u64) -> (String, Vec<String>) {
    use Fault::{Before, Busy, Conflict, Crash, Full, Late, Lost, Server, Slow, Stale, Torn};
    let faults = [Before, Lost, Conflict, Server, Busy, Slow, Late, Full, Torn, Stale, Crash];
    let (mut text, mut rare) = (format!("{:<10}", ""), Vec::new());
    faults.iter().for_each(|fault| write!(text, "{:>9}", format!("{fault:?}")).unwrap());
    for operation in Operation::ALL {
        write!(text, "\n{:<10}", format!("{operation:?}")).unwrap();
        for fault in faults {
            let makes_sense = fault == Crash || operation.faults().contains(&fault);
            let met = matrix.get(&(operation, fault)).copied().unwrap_or(0);
            let cell = if makes_sense { met.to_string() } else { "-".to_owned() };
            write!(text, "{cell:>9}").unwrap();
            if makes_sense && met < least {
                rare.push(format!("{operation:?} × {fault:?}: {met}"));
            }
        }
    }
    (text, rare)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_seed_loses_a_message_or_answers_twice() {
    let began = std::time::Instant::now();
    let seeds: Vec<u64> = match (number("LAKEGRAM_SEED"), number("LAKEGRAM_SEEDS")) {
        (Some(seed), _) => vec![seed],
        (None, seeds) => (0..seeds.unwrap_or(SEEDS)).collect(),
    };
    let count = seeds.len();
    let (mut matrix, mut total, mut wrong) = (Matrix::new(), Run::default(), Vec::new());
    let mut runs = stream::iter(seeds).map(|seed| tokio::spawn(run(seed))).buffer_unordered(AT_ONCE);
    while let Some(run) = runs.next().await {
        let run = run.unwrap();
        run.matrix.iter().for_each(|(cell, met)| *matrix.entry(*cell).or_default() += met);
        total.lives += run.lives;
        total.deaths += run.deaths;
        total.messages += run.messages;
        total.accepted += run.accepted;
        for what in run.wrong {
            println!("seed {}: {what}", run.seed);
            wrong.push(run.seed);
        }
    }
    let (table, rare) = told(&matrix, MET_EACH);
    println!(
        "{count} seeds in {:?}: {} lives, {} ended by a death or an error, {} messages, {} accepted by Telegram",
        began.elapsed(),
        total.lives,
        total.deaths,
        total.messages,
        total.accepted
    );
    println!("{table}");
    wrong.dedup();
    assert!(wrong.is_empty(), "broken promises; again with LAKEGRAM_SEED=<one of {wrong:?}>");
    assert!(count < MANY_SEEDS || rare.is_empty(), "met too rarely: {rare:?}");
}
