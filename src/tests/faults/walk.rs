//! The walk over crash points: a run of a few messages dies before or after each call to the store, the model and the
//! Bot API that a run without a death makes; then it restarts, finishes, and the result is checked.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures::{StreamExt, stream};
use tokio::sync::broadcast::Receiver;

use super::gate::{Death, Gate, Kind, Point};
use super::ledger;
use super::world::{Finisher, Nature, World};
use crate::standin::model::ModelTrouble;
use crate::standin::telegram::{Behavior, CallHistory};
use crate::telemetry::Hop;

const MESSAGES: u64 = 3;
/// Worlds at the same time: most of a world's time is spent waiting.
const AT_ONCE: usize = 12;
/// Long for a message to have its outcome.
const LONG: Duration = Duration::from_secs(6_000);
/// Long enough for a Bot API call never to be answered.
const FOR_EVER: Duration = Duration::from_secs(1_000_000);

/// Whose call it is that kills the process.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Whose {
    /// A call of this class to the store.
    Store(String),
    Model,
    Bot,
}

/// A point at which to die.
#[derive(Clone, Debug)]
struct DeathPoint {
    whose: Whose,
    number: u64,
    after: bool,
    kind: Kind,
}

impl fmt::Display for DeathPoint {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { whose, number, after, kind } = self;
        let side = if *after { "after" } else { "before" };
        write!(formatter, "{kind:?} {side} call {number} of {whose:?}")
    }
}

impl DeathPoint {
    /// Whether the call changes something permanently.
    fn is_write(&self) -> bool {
        matches!(&self.whose, Whose::Store(class) if class.starts_with("Put"))
    }

    fn is_delete(&self) -> bool {
        matches!(&self.whose, Whose::Store(class) if class.starts_with("Delete"))
    }

    fn death(&self) -> Option<Death> {
        let Whose::Store(class) = &self.whose else { return None };
        Some(Death { point: Point::Of(class.clone(), self.number), after: self.after, kind: self.kind })
    }

    /// Tells the stand-ins how to handle the call.
    fn prepare(&self, world: &World) {
        let before = usize::try_from(self.number - 1).unwrap();
        match (&self.whose, self.after) {
            (Whose::Store(_), _) => {}
            (Whose::Bot, after) => {
                let last = if after { Behavior::AcceptThenHang } else { Behavior::Delay(FOR_EVER) };
                let calls = std::iter::repeat_n(Behavior::Proceed, before).chain([last]);
                world.telegram.script("sendMessage", calls.collect());
            }
            (Whose::Model, after) => {
                let calls = std::iter::repeat_n(ModelTrouble::Delay(Duration::ZERO), before);
                world.model.trouble(calls.chain((!after).then_some(ModelTrouble::Hang)));
            }
        }
    }

    /// Returns when a stand-in's call is the one that kills the process. A store kills by itself.
    async fn reached(&self, world: &World, mut hops: Receiver<Arc<Hop>>) {
        match (&self.whose, self.after) {
            (Whose::Store(_), _) => std::future::pending().await,
            (Whose::Model, false) => world.model.wait_for_requests(self.number).await,
            (Whose::Model, true) => {
                for _ in 0..self.number {
                    while hops.recv().await.is_ok_and(|hop| hop.step != "answered") {}
                }
            }
            (Whose::Bot, after) => {
                let number = usize::try_from(self.number).unwrap();
                let count = |ledger: &CallHistory| match after {
                    true => ledger.sent().count(),
                    false => ledger.calls_of("sendMessage").count(),
                };
                let _in_time = world.telegram.wait_for(|ledger| count(ledger) >= number, FOR_EVER).await;
            }
        }
    }
}

/// The result of one run.
#[derive(Debug, Default)]
struct Walked {
    /// Calls by class, of the first life.
    calls: BTreeMap<Whose, u64>,
    reached: bool,
    unknown: usize,
    wrong: Vec<String>,
}

/// Says one message after another, each when the previous one has its outcome.
async fn talk(world: &World, hops: &Receiver<Arc<Hop>>) {
    for number in 0..MESSAGES {
        let mut hops = hops.resubscribe();
        let update_id = world.say(20 + i64::try_from(number).unwrap());
        let of_another = |hop: Arc<Hop>| hop.update_id != update_id || hop.step != "replied";
        let replied = async { while hops.recv().await.is_ok_and(of_another) {} };
        // Whatever became of it, the ledger is checked in the end.
        let _in_time = world.clock.timeout(LONG, replied).await;
    }
}

async fn calls(world: &World, gate: &Gate) -> BTreeMap<Whose, u64> {
    let store = gate.counts().into_iter().map(|(class, count)| (Whose::Store(class), count));
    let bot = world.telegram.read(|ledger| ledger.calls_of("sendMessage").count());
    let others = [(Whose::Model, world.model.request_count()), (Whose::Bot, u64::try_from(bot).unwrap())];
    store.chain(others).collect()
}

/// One run, with a death at `point`.
async fn walk(point: Option<DeathPoint>) -> Walked {
    let world = World::new(Nature::CALM).await;
    let death = point.as_ref().and_then(DeathPoint::death);
    let mut walked = Walked::default();
    if let Some(point) = &point {
        point.prepare(&world);
    }
    let life = world.start("lane", death, u64::MAX).await;
    world.point_at(&life).await;
    let gate = Arc::clone(&life.gate);
    let (hops, watched) = (life.hops.resubscribe(), life.hops.resubscribe());
    let dies = async {
        match &point {
            Some(point) => point.reached(&world, watched).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        () = dies => {
            walked.reached = true;
            life.kill().await;
        }
        () = gate.died() => {
            life.kill().await;
        }
        () = talk(&world, &hops) => {
            life.stop().await;
        }
    }
    walked.calls = calls(&world, &gate).await;
    let after = point.as_ref().is_some_and(|point| point.after);
    let is_store = point.is_some_and(|point| matches!(point.whose, Whose::Store(_)));
    walked.reached |= is_store && gate.is_spent();
    for number in world.said().len() as u64..MESSAGES {
        world.say(20 + i64::try_from(number).unwrap());
    }
    // Points after a call continue with a service, those before it with a batch.
    let by = if after { Finisher::Service } else { Finisher::Batch };
    walked.wrong = world.finish(by).await;
    if walked.wrong.is_empty() {
        walked.unknown = ledger::replies_with(&world, "unknown").await;
        if walked.unknown > 1 {
            walked.wrong.push(format!("{} replies are unknown of one death", walked.unknown));
        }
    }
    walked
}

/// The calls that every run makes: timers add a few now and then.
async fn reference() -> BTreeMap<Whose, u64> {
    let mut least: Option<BTreeMap<Whose, u64>> = None;
    for _ in 0..3 {
        let walked = walk(None).await;
        assert!(walked.wrong.is_empty() && walked.unknown == 0, "a run without a death: {:?}", walked.wrong);
        let others = least.unwrap_or_else(|| walked.calls.clone());
        let both = others.into_iter().filter_map(|(whose, count)| Some((count.min(*walked.calls.get(&whose)?), whose)));
        least = Some(both.map(|(count, whose)| (whose, count)).collect());
    }
    least.unwrap_or_default()
}

/// Every point, with one or all kinds of death. Dying after a read is no different from dying before it.
fn points(calls: &BTreeMap<Whose, u64>, all: bool) -> Vec<DeathPoint> {
    let mut points = Vec::new();
    for (whose, count) in calls {
        for number in 1..=*count {
            for (after, kind) in [(false, Kind::Exit), (true, Kind::Exit), (false, Kind::Panic), (true, Kind::Panic)] {
                let point = DeathPoint { whose: whose.clone(), number, after, kind };
                let is_store = matches!(whose, Whose::Store(_));
                let is_read = is_store && !point.is_write() && !point.is_delete();
                let wanted = match kind {
                    Kind::Exit => all || !after || !is_read,
                    // The stand-ins belong to another process: only a store call can panic.
                    Kind::Panic => all && is_store,
                };
                if wanted {
                    points.push(point);
                }
            }
        }
    }
    points
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_death_at_any_call_loses_a_message_or_answers_twice() {
    let began = std::time::Instant::now();
    let all = std::env::var("LAKEGRAM_WALK").is_ok_and(|wish| wish == "all");
    let calls = reference().await;
    let points = points(&calls, all);
    let (count, writes) = (points.len(), points.iter().filter(|point| point.is_write()).count());
    let (mut reached, mut unknown, mut wrong, mut missed) = (BTreeMap::new(), 0, Vec::new(), Vec::new());
    let mut runs = stream::iter(points)
        .map(|point| async move { (point.clone(), tokio::spawn(walk(Some(point))).await.unwrap()) })
        .buffer_unordered(AT_ONCE);
    while let Some((point, walked)) = runs.next().await {
        unknown += walked.unknown;
        wrong.extend(walked.wrong.into_iter().map(|what| format!("{point}: {what}")));
        match walked.reached {
            true => *reached.entry(format!("{:?}", point.kind)).or_insert(0) += 1,
            false => missed.push(point),
        }
    }
    println!(
        "{count} points, {writes} of them puts; reached {reached:?}, missed {}; {unknown} replies unknown; {:?}",
        missed.len(),
        began.elapsed()
    );
    assert!(wrong.is_empty(), "broken promises:\n{}", wrong.join("\n"));
    let missed: Vec<String> = missed.iter().filter(|point| point.is_write()).map(DeathPoint::to_string).collect();
    assert!(missed.is_empty(), "the walk did not come to {missed:?}");
}
