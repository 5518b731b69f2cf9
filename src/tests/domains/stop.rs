//! Whatever hangs, the service ends within its drain and a batch within its time.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::world::{Service, World};
use crate::error::ErrorKind;
use crate::standin::model::ModelTrouble;
use crate::standin::telegram::Behavior;
use crate::storage::tests::troubled::Trouble;

/// What hangs.
#[derive(Clone, Copy, Debug)]
enum Hung {
    /// Every call of the store below a path.
    Store(&'static [&'static str]),
    Model,
    /// A method of the Bot API.
    BotApi(&'static str),
}

const HUNG: [Hung; 11] = [
    Hung::Store(&["raw/"]),
    Hung::Store(&["_lakegram/"]),
    Hung::Store(&["bronze/telegram_messages"]),
    Hung::Store(&["silver/telegram_responses"]),
    Hung::Store(&["silver/telegram_replies"]),
    Hung::Store(&["intents/"]),
    Hung::Store(&["landing", "bronze/foreign"]),
    Hung::Store(&[""]),
    Hung::Model,
    Hung::BotApi("sendMessage"),
    Hung::BotApi("sendChatAction"),
];
/// On the machine's clock. The drain takes half a second of it, and a machine that does much else may need more; what
/// hangs here hangs for ever.
const SOON: Duration = Duration::from_secs(20);

impl World {
    fn hang(&self, what: Hung) {
        match what {
            Hung::Store(prefixes) => self.switch.begin(Trouble::Hang, prefixes),
            Hung::Model => self.model.trouble((0..100).map(|_| ModelTrouble::Hang)),
            Hung::BotApi(method) => {
                self.telegram.script(method, vec![Behavior::Delay(Duration::from_secs(100_000)); 100]);
            }
        }
    }
}

/// Posts whether or not it is answered.
async fn post_unheard(world: &World, service: &Service, numbers: std::ops::Range<i64>) {
    for number in numbers {
        let _unheard = world.wall.timeout(Duration::from_millis(300), service.post(number)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_service_ends_within_its_drain_whatever_hangs() {
    let mut ended = 0;
    for what in HUNG {
        for is_there_at_the_start in [true, false] {
            let world = World::new().await;
            if is_there_at_the_start {
                world.hang(what);
            }
            let service = world.serve().await;
            world.put_foreign(0).await;
            if !is_there_at_the_start {
                assert_eq!(service.post(1).await, 200);
                assert!(world.until(async || world.chats_answered().len() == 1).await, "{what:?}");
                world.hang(what);
            }
            post_unheard(&world, &service, 2..4).await;
            let stopped = world.wall.timeout(SOON, service.stop()).await;
            stopped.unwrap_or_else(|| panic!("{what:?} holds the service")).unwrap();
            ended += 1;
        }
    }
    println!("{ended} hanging services ended in time");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lane_that_hangs_at_the_start_answers_503_and_opens_once_it_can() {
    let world = World::new().await;
    world.switch.begin(Trouble::Hang, &["raw/"]);
    let service = world.serve().await;
    assert_eq!((service.ready().await, service.post(1).await), (503, 503));
    world.switch.end();
    assert!(world.until(async || service.ready().await == 200).await);
    assert_eq!(service.post(1).await, 200);
    service.stop().await.unwrap();
    // A store that refuses is no different.
    let world = World::new().await;
    world.switch.begin(Trouble::Forbidden, &["raw/"]);
    let service = world.serve().await;
    assert_eq!((service.ready().await, service.post(1).await), (503, 503));
    world.switch.end();
    assert!(world.until(async || service.ready().await == 200).await);
    service.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_ends_at_its_deadline_whatever_hangs() {
    let mut ended = 0;
    for what in HUNG {
        let world = World::new().await;
        // Something for every stage, landed by a service that does nothing else.
        let service = world.serve().await;
        assert_eq!(service.post(1).await, 200);
        service.stop().await.unwrap();
        world.put_foreign(0).await;
        world.hang(what);
        let (app, deadline) = (world.app(), CancellationToken::new());
        let (clock, late) = (app.clock.clone(), deadline.clone());
        let timer = async {
            clock.sleep(Duration::from_secs(5)).await;
            late.cancel();
        };
        let run = world.wall.timeout(SOON, async { tokio::join!(Box::pin(app.run(|_| {}, &deadline)), timer).0 });
        let summary = run.await.unwrap_or_else(|| panic!("{what:?} holds the batch")).unwrap();
        let kinds: Vec<ErrorKind> = summary.troubles.iter().map(crate::error::Error::kind).collect();
        assert!(!kinds.contains(&ErrorKind::Fatal) && !kinds.contains(&ErrorKind::Panicked), "{:?}", summary.troubles);
        ended += 1;
    }
    println!("{ended} hanging batches ended in time");
}
