//! Random runs over a failing connection: each seed has its own faults and deaths, and the result is checked.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use tokio::runtime::Handle;

use super::bucket::Bucket;
use super::connection::Wire;
use super::life::{FENCE, Life, ROOT, TABLE, Witness};
use super::script::{Operation, WireScript};
use crate::clock::Clock;
use crate::storage::StorageKey;
use crate::tests::kit::{Dice, Outcome, Suite, Table, once_each};

const SUITE: Suite = Suite { seeds: 24, at_once: 8 };
/// How many times faster than real time.
const PACE: u32 = 200;
/// Longer than anything on the wire can be late.
const CALM: Duration = Duration::from_secs(60);
/// For the last life, which meets no faults.
const PATIENCE: Duration = Duration::from_secs(6_000);

async fn run(seed: u64) -> Outcome<Operation> {
    let mut dice = Dice::new(seed);
    let clock = Clock::fast(PACE);
    let rate = *dice.pick(&[50, 100, 200, 350]);
    let (bucket, script) = (Arc::new(Bucket::new(&clock)), Arc::new(WireScript::new(seed, rate)));
    let wire = Wire { bucket, script, clock, network: Handle::current() };
    let witness = Arc::new(Witness::default());
    let life = |lane, dice| Life { wire: wire.clone(), witness: Arc::clone(&witness), lane, dice };
    let mut lives = 0;
    for _ in 0..3 {
        witness.wanted.fetch_add(10, Ordering::SeqCst);
        let (span, lines) = (Duration::from_secs(20 + dice.below(120)), 4 + dice.below(8));
        let one = life("lane", Dice::new(dice.next()));
        // A second process writes the same table and, by mistake, the same lane; no lock stops it.
        let twin = dice.per_mille(500).then(|| life(*dice.pick(&["lane", "twin"]), Dice::new(dice.next())));
        lives += 1 + u64::from(twin.is_some());
        let others = async {
            if let Some(twin) = twin {
                twin.live(span, lines).await;
            }
        };
        tokio::join!(one.live(span, lines), others);
    }
    wire.script.end();
    wire.clock.sleep(CALM).await;
    let last = life("lane", Dice::new(dice.next())).append(wire.open());
    let mut wrong = Vec::new();
    if wire.clock.timeout(PATIENCE, last).await.is_none() {
        wrong.push("the last append does not end".to_owned());
    }
    wrong.extend(check(&wire, &witness).await);
    let given = |count: &AtomicI64| count.load(Ordering::SeqCst).unsigned_abs();
    let durable = witness.durable.lock().unwrap().len() as u64;
    let counts = vec![
        ("lives", lives),
        ("lines given", given(&witness.lines)),
        ("of them durable", durable),
        ("rows", given(&witness.wanted)),
    ];
    Outcome { wrong, matrix: wire.script.matrix(), counts }
}

/// What is wrong with the final state of the bucket.
async fn check(wire: &Wire, witness: &Witness) -> Vec<String> {
    let mut wrong = witness.wrong.lock().unwrap().clone();
    let overwritten = wire.bucket.overwritten();
    wrong.extend(overwritten.iter().map(|key| format!("{key} was put over what may be there")));
    let contents = wire.bucket.contents();
    wrong.extend(contents.keys().filter(|key| !key.starts_with(ROOT)).map(|key| format!("{key} is astray")));
    let mut lines: BTreeMap<i64, usize> = BTreeMap::new();
    for (key, bytes) in &contents {
        let path = object_store::path::Path::from(key.trim_start_matches(ROOT));
        if !matches!(StorageKey::parse(&path), Some(StorageKey::Segment { .. })) {
            continue;
        }
        if !bytes.ends_with(b"\n") {
            wrong.push(format!("{key} is torn"));
        }
        for line in String::from_utf8_lossy(bytes).lines() {
            let line: serde_json::Value = serde_json::from_str(line).unwrap();
            *lines.entry(line["n"].as_i64().unwrap()).or_default() += 1;
        }
    }
    let durable = witness.durable.lock().unwrap().clone();
    wrong.extend(durable.iter().filter(|line| !lines.contains_key(line)).map(|line| format!("line {line} is lost")));
    wrong.extend(lines.iter().filter(|(_, count)| **count > 1).map(|(line, count)| format!("line {line}: {count}")));
    let table = Table::read(&wire.open(), TABLE).await;
    let rows: BTreeSet<i64> = (1..=witness.wanted.load(Ordering::SeqCst)).collect();
    wrong.extend(table.check_txns("table", FENCE));
    wrong.extend(once_each("table", &table.integers("n"), &rows));
    if !witness.committed.lock().unwrap().is_subset(&rows) {
        wrong.push("rows were committed that nobody wanted".to_owned());
    }
    wrong
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_seed_loses_a_line_or_doubles_a_row() {
    SUITE.run(run).await;
}
