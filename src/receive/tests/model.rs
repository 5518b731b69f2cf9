//! A reference model of a lane: whatever comes, fails and dies when, what was answered is what is there.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::store::{Puts, THEIRS};
use super::*;
use crate::receive::body::VerifiedBody;
use crate::receive::landing::Landing;

/// So many times as fast as life, and how long a waiter waits on that clock.
const PACE: u32 = 400;
const PATIENCE: Duration = Duration::from_secs(4);
const BUDGET: usize = 120;

#[derive(Clone, Debug)]
enum Step {
    /// So many lines come at once.
    Come(usize),
    /// What the next puts do.
    Trouble(Vec<Puts>),
    /// The wall clock steps, by seconds.
    Tick(i64),
    Pass(Duration),
    /// The process dies with what is under way, or ends when all of it has been answered; another follows.
    Die,
    End,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let span = |most: u64| (1..most).prop_map(Duration::from_millis);
    let trouble = prop_oneof![
        Just(Puts::Work),
        Just(Puts::Fail),
        Just(Puts::LoseAnswers),
        (1_usize..4).prop_map(Puts::LoseSight),
        span(8_000).prop_map(Puts::Late),
        span(8_000).prop_map(Puts::Slow),
        Just(Puts::ComeSecond),
    ];
    let step = prop_oneof![
        6 => (1_usize..8).prop_map(Step::Come),
        4 => proptest::collection::vec(trouble, 1..5).prop_map(Step::Trouble),
        2 => (-7_200_i64..3_600).prop_map(Step::Tick),
        2 => span(6_000).prop_map(Step::Pass),
        1 => Just(Step::Die),
        1 => Just(Step::End),
    ];
    proptest::collection::vec(step, 1..20)
}

/// A line and what its giver was told, `None` while it waits.
struct Given {
    life: usize,
    landing: Option<Landing>,
}

/// What must be so, and what is.
struct Model {
    storage: Storage,
    clock: Clock,
    /// Of the process that lives.
    lane: Option<Lane>,
    /// By line, in the order of their coming.
    given: BTreeMap<usize, Given>,
    waiting: Vec<JoinHandle<(usize, Landing)>>,
    /// The newest key when each life began.
    newest: Vec<i64>,
}

/// The lane's lines by key, as they are in the store; those of others are left out.
async fn lines(storage: &Storage) -> Vec<(i64, usize)> {
    let mut found = Vec::new();
    for key in keys(storage).await {
        let bytes = storage.get(&key).await.unwrap().unwrap();
        if bytes == THEIRS {
            continue;
        }
        assert!(bytes.ends_with(b"\n"), "{key} is torn");
        let numbers = String::from_utf8(bytes.to_vec()).unwrap();
        let number = |line: &str| serde_json::from_str::<serde_json::Value>(line).unwrap()["n"].as_u64().unwrap();
        found.extend(numbers.lines().map(|line| (micros(&key), usize::try_from(number(line)).unwrap())));
    }
    found
}

impl Model {
    async fn new() -> Self {
        let (storage, clock) = (Storage::memory(), Clock::fast(PACE));
        let lane = Some(open(&storage, &clock).await);
        Self { storage, clock, lane, given: BTreeMap::new(), waiting: Vec::new(), newest: vec![0] }
    }

    /// One line comes; its giver looks into the store itself when told that it is durable.
    fn come(&mut self) {
        let number = self.given.len();
        self.given.insert(number, Given { life: self.newest.len() - 1, landing: None });
        let (writer, storage) = (self.lane().writer.clone(), self.storage.clone());
        let Some(body) = VerifiedBody::of_pull(format!("{{\"n\": {number}}}").into_bytes(), writer.intake()) else {
            self.given.entry(number).and_modify(|given| given.landing = Some(Landing::Full));
            return;
        };
        self.waiting.push(tokio::spawn(async move {
            let landing = writer.land(body).await;
            if landing == Landing::Durable {
                let there = lines(&storage).await.into_iter().filter(|(_, line)| *line == number).count();
                assert_eq!(there, 1, "line {number} was said to be durable");
            }
            (number, landing)
        }));
    }

    /// Waits until everybody has been answered, which takes no longer than they wait.
    async fn answered(&mut self) {
        for waiting in std::mem::take(&mut self.waiting) {
            let (number, landing) = waiting.await.unwrap();
            self.given.entry(number).and_modify(|given| given.landing = Some(landing));
        }
    }

    fn lane(&self) -> &Lane {
        self.lane.as_ref().unwrap()
    }

    async fn follow(&mut self, dies: bool) {
        if dies {
            self.lane().task.abort();
        }
        self.answered().await;
        let last = self.lane.take().unwrap();
        drop(last.writer);
        match last.task.await {
            Ok(ended) => ended.unwrap(),
            Err(error) => assert!(dies && error.is_cancelled(), "{error}"),
        }
        // What a dead process has on the wire may come later.
        self.newest.push(keys(&self.storage).await.iter().map(micros).max().unwrap_or(0));
        self.lane = Some(open(&self.storage, &self.clock).await);
    }

    async fn step(&mut self, step: Step) {
        match step {
            Step::Come(count) => (0..count).for_each(|_| self.come()),
            Step::Trouble(puts) => self.lane().control.plan(puts),
            Step::Tick(seconds) => self.clock.step(seconds * 1_000_000),
            Step::Pass(span) => self.clock.sleep(span).await,
            Step::Die => self.follow(true).await,
            Step::End => self.follow(false).await,
        }
    }

    async fn check(mut self) {
        self.answered().await;
        self.lane().control.calm();
        // After trouble comes a time when lines are landed again, and what was late has arrived.
        self.clock.sleep(Duration::from_secs(20)).await;
        self.come();
        self.answered().await;
        let last = self.given.values().last().and_then(|given| given.landing);
        assert_eq!((last, self.lane().writer.readiness()()), (Some(Landing::Durable), Ok(())));
        let rendered = self.lane().telemetry.render();
        assert!(
            rendered.lines().any(|line| line == "lakegram_receive_in_flight_bytes 0"),
            "bytes are held: {rendered}"
        );
        let found = lines(&self.storage).await;
        let mut counts: BTreeMap<usize, usize> = BTreeMap::new();
        found.iter().for_each(|(_, line)| *counts.entry(*line).or_default() += 1);
        for (number, given) in &self.given {
            let count = counts.remove(number).unwrap_or(0);
            let fits = match given.landing.unwrap() {
                Landing::Durable => count == 1,
                Landing::Failed => count <= 1,
                Landing::Full => count == 0,
            };
            assert!(fits, "line {number} is there {count} times, and {:?} was said", given.landing);
        }
        assert_eq!(counts, BTreeMap::new(), "nobody gave these");
        self.check_order(&found);
    }

    /// Within a life the order of the keys is that of the lines, and all are after those that it found.
    fn check_order(&self, found: &[(i64, usize)]) {
        for (life, newest) in self.newest.iter().enumerate() {
            let own: Vec<_> = found.iter().filter(|(_, line)| self.given[line].life == life).collect();
            assert!(own.iter().all(|(key, _)| key > newest), "life {life} put before {newest}: {own:?}");
            assert!(own.is_sorted_by_key(|(_, line)| *line), "life {life} is out of order: {own:?}");
        }
        let keys: BTreeSet<i64> = found.iter().map(|(key, _)| *key).collect();
        assert!(keys.iter().all(|key| *key > 0));
    }
}

async fn open(storage: &Storage, clock: &Clock) -> Lane {
    let (storage, clock) = (storage.clone(), clock.clone());
    LaneSetup { storage, clock, max_in_flight: BUDGET, patience: PATIENCE }.open().await
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, max_shrink_iters: 200, ..ProptestConfig::default() })]
    #[test]
    fn whatever_fails_when_what_was_answered_is_there(steps in steps()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut model = Model::new().await;
            for step in steps {
                model.step(step).await;
            }
            model.check().await;
        });
    }
}
