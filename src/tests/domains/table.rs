//! Every stage with every trouble, at its opening and while it runs.

use std::collections::BTreeSet;
use std::time::Duration;

use futures::{StreamExt, stream};

use super::world::{Service, World};
use crate::storage::tests::troubled::Trouble;

/// What a stage stands on, apart from what it reads.
#[derive(Clone, Copy, Debug)]
pub(super) struct Domain {
    stage: &'static str,
    pub(super) prefixes: &'static [&'static str],
    pub(super) tables: &'static [&'static str],
}

const DOMAINS: [Domain; 5] = [
    Domain { stage: "bronze", prefixes: &["bronze/telegram_messages"], tables: &["bronze/telegram_messages"] },
    Domain { stage: "silver", prefixes: &["silver/telegram_responses"], tables: &["silver/telegram_responses"] },
    Domain { stage: "reply", prefixes: &["silver/telegram_replies", "intents/"], tables: &["silver/telegram_replies"] },
    Domain { stage: "files", prefixes: &["bronze/foreign"], tables: &["bronze/foreign"] },
    // With what looks after the tables as well.
    Domain {
        stage: "all",
        prefixes: &["bronze/", "silver/", "intents/", "landing"],
        tables: &["bronze/telegram_messages", "silver/telegram_responses", "silver/telegram_replies", "bronze/foreign"],
    },
];
/// Posts before, and while, there is trouble; and one more in the end.
const EACH: i64 = 3;
const ALL: i64 = 2 * EACH + 1;
/// Worlds at the same time.
const AT_ONCE: usize = 6;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum When {
    Opening,
    Running,
}

/// What one cell of the table came to.
struct Cell {
    stage: &'static str,
    trouble: Trouble,
    when: When,
    landed: usize,
    met: u64,
    was_unwell: bool,
    unknown: usize,
    wrong: Vec<String>,
}

async fn cell(domain: Domain, trouble: Trouble, when: When) -> Cell {
    let world = World::new().await;
    let mut cell = Cell {
        stage: domain.stage,
        trouble,
        when,
        landed: 0,
        met: 0,
        was_unwell: false,
        unknown: 0,
        wrong: Vec::new(),
    };
    // The tables are there before the trouble is.
    let mut service = world.serve().await;
    world.put_foreign(0).await;
    cell.post(&service, 1..=EACH).await;
    cell.wait("it did not begin", &world, async || is_done(&world, EACH, 1).await).await;
    let ends = match when {
        When::Running => world.begin(trouble, &domain).await,
        When::Opening => {
            cell.stop(service).await;
            let ends = world.begin(trouble, &domain).await;
            service = world.serve().await;
            ends
        }
    };
    world.put_foreign(1).await;
    cell.post(&service, EACH + 1..=2 * EACH).await;
    if service.ready().await != 200 {
        cell.wrong.push("it says that nothing can be landed".to_owned());
    }
    let is_met = async || match trouble {
        Trouble::UnknownFeature => !service.unwell().is_empty(),
        _ => world.switch.met() > 0,
    };
    cell.wait("the trouble was never met", &world, is_met).await;
    // A moment in which it may spread.
    world.wall.sleep(Duration::from_millis(300)).await;
    cell.post(&service, ALL..=ALL).await;
    cell.was_unwell = !service.unwell().is_empty();
    cell.look_for_spread(&service);
    world.switch.end();
    world.take_back(ends).await;
    cell.wait("not all is done", &world, async || is_settled(&world, &service).await).await;
    cell.unknown = unknown(&service).await.len();
    cell.wait("a stage stays unwell", &world, async || service.all_ok()).await;
    cell.wrong.extend(service.unwell().iter().map(ToString::to_string));
    let twice = world.chats_answered().into_iter().filter(|(_, count)| *count > 1);
    cell.wrong.extend(twice.map(|(chat, count)| format!("chat {chat} got {count} answers")));
    cell.met = world.switch.met();
    cell.stop(service).await;
    if !cell.wrong.is_empty() {
        println!("{} {} {when:?}: {}", cell.stage, trouble.name(), cell.wrong.join("; "));
    }
    cell
}

/// Whether so many chats are answered, and so many foreign rows loaded.
async fn is_done(world: &World, chats: i64, rows: i64) -> bool {
    world.chats_answered().len() == usize::try_from(chats).unwrap() && world.foreign_rows().await == rows
}

/// The chats whose reply was on its way when the stage failed: nobody knows whether it arrived, and it is not sent
/// again. None while the table cannot be read.
async fn unknown(service: &Service) -> BTreeSet<i64> {
    let bot = service.app.pipelines.first().unwrap();
    let [.., table] = service.app.tables(bot);
    let rows = service.app.newest_rows(&table, 100).await.ok().flatten().map_or_else(Vec::new, |(_, rows)| rows);
    let unknown = rows.iter().filter(|row| row["status"] == "unknown");
    unknown.filter_map(|row| row["chat_id"].as_i64()).collect()
}

/// Whether every chat has its answer, or an outcome that says that nobody knows.
async fn is_settled(world: &World, service: &Service) -> bool {
    let mut chats = unknown(service).await;
    chats.extend(world.chats_answered().into_keys());
    chats.len() == usize::try_from(ALL).unwrap() && world.foreign_rows().await == 2
}

impl Cell {
    async fn post(&mut self, service: &Service, numbers: std::ops::RangeInclusive<i64>) {
        for number in numbers {
            match service.post(number).await {
                200 => self.landed += 1,
                status => self.wrong.push(format!("post {number} was answered with {status}")),
            }
        }
    }

    async fn wait(&mut self, otherwise: &str, world: &World, holds: impl AsyncFn() -> bool) {
        if !world.until(holds).await {
            self.wrong.push(otherwise.to_owned());
        }
    }

    async fn stop(&mut self, service: Service) {
        if let Err(error) = service.stop().await {
            self.wrong.push(format!("it ended with {error}"));
        }
    }

    /// Whatever reads or maintains a table shares its trouble; nothing else does.
    fn look_for_spread(&mut self, service: &Service) {
        let unwell = service.unwell().into_iter();
        let stage = self.stage;
        let others = unwell.filter(|other| stage != "all" && other.id.stage != stage && !reads(other.id.stage, stage));
        self.wrong.extend(others.map(|other| format!("it has spread: {other}")));
    }
}

/// Whether a stage reads or maintains the table of another, or needs it to know at its opening whose its own table is.
fn reads(stage: &str, other: &str) -> bool {
    matches!(
        (stage, other),
        ("silver" | "reply", "bronze") | ("reply", "silver") | ("maintain", _) | ("clean", "files")
    )
}

/// All of them, or those of `LAKEGRAM_CELL=<stage>-<trouble>-<when>`, of which each part may be left empty.
fn is_wanted((domain, trouble, when): (Domain, Trouble, When)) -> bool {
    #[allow(clippy::disallowed_methods)]
    let Ok(wanted) = std::env::var("LAKEGRAM_CELL") else { return true };
    let parts = [domain.stage, trouble.name(), &format!("{when:?}")].map(str::to_owned);
    wanted.split('-').zip(parts).all(|(wanted, part)| wanted.is_empty() || wanted == part)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_stage_comes_back_from_every_trouble_and_landing_goes_on() {
    let mut cells = Vec::new();
    for domain in DOMAINS {
        for trouble in Trouble::ALL {
            let both = [When::Opening, When::Running].map(|when| (domain, trouble, when));
            cells.extend(both.into_iter().filter(|cell| is_wanted(*cell)));
        }
    }
    let count = cells.len();
    let cells = stream::iter(cells).map(|(domain, trouble, when)| Box::pin(cell(domain, trouble, when)));
    let mut done: Vec<Cell> = cells.buffer_unordered(AT_ONCE).collect().await;
    done.sort_by_key(|cell| (cell.stage, cell.trouble.name(), cell.when == When::Running));
    println!("stage   trouble  when     200s  calls that met it  shown unwell");
    for cell in &done {
        let (when, unwell) = (format!("{:?}", cell.when), if cell.was_unwell { "yes" } else { "no" });
        println!("{:7} {:8} {when:8} {:4}  {:17}  {unwell}", cell.stage, cell.trouble.name(), cell.landed, cell.met);
    }
    let landed: usize = done.iter().map(|cell| cell.landed).sum();
    let unwell = done.iter().filter(|cell| cell.was_unwell).count();
    println!("{count} cells, {landed} posts answered with 200, {unwell} cells in which a stage was shown as unwell");
    println!("{} replies unknown", done.iter().map(|cell| cell.unknown).sum::<usize>());
    let wrong: Vec<String> = done
        .iter()
        .filter(|cell| !cell.wrong.is_empty())
        .map(|cell| format!("{} {} {:?}: {}", cell.stage, cell.trouble.name(), cell.when, cell.wrong.join("; ")))
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(landed, count * usize::try_from(ALL).unwrap());
}
