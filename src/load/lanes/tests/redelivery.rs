//! The same update again: in one file, in another lane, after a restart, long ago, by another process.

use proptest::strategy::Strategy;

use super::*;

const DAY: i64 = 24 * HOUR;

#[tokio::test]
async fn a_redelivery_makes_no_row_in_one_file_in_another_lane_or_after_a_restart() {
    let world = World::new();
    world.put("a", 5 * MINUTE, &(update(1) + &update(1))).await;
    world.put("b", 4 * MINUTE, &update(1)).await;
    assert_eq!(world.load().await, BronzeSummary { files: 2, rows: 1, redeliveries: 2, corrupt: 0, commits: 1 });
    world.put("a", MINUTE, &(update(1) + &update(2))).await;
    assert_eq!(world.load().await.rows, 1);
    assert_eq!(world.update_ids().await, some([1, 2]));
}

#[tokio::test]
async fn a_segment_of_nothing_but_redeliveries_leaves_no_trace_and_does_not_hold_up_the_position() {
    let world = World::new();
    world.put("a", 3 * MINUTE, &update(1)).await;
    world.load().await;
    let twin = world.put("a", 2 * MINUTE, &update(1)).await;
    let empty = world.put("a", MINUTE, " \n").await;
    assert_eq!(world.load().await.redeliveries, 1);
    assert_eq!(world.load().await.redeliveries, 1, "the set has forgotten it, and loading it again adds nothing");
    world.pass(20 * MINUTE);
    world.load().await;
    let key = |path: &Path| SegmentKey::parse(path).unwrap().micros.as_micros();
    assert!(world.position("a").await.unwrap() > key(&twin));
    assert_eq!(world.position("a").await.unwrap(), key(&empty));
    let looked_back = BronzeSummary { files: 2, redeliveries: 1, ..BronzeSummary::default() };
    assert_eq!(world.load().await, looked_back, "without a trace a look-back reads them once more, and adds nothing");
    assert_eq!(world.load().await.files, 0);
    assert_eq!(world.update_ids().await, some([1]));
}

#[tokio::test]
async fn a_redelivery_is_known_two_days_later_and_after_a_restart() {
    let world = World::new();
    world.put("a", 0, &update(1)).await;
    let mut stage = world.stage().await;
    stage.work_until_idle(&never()).await.unwrap();
    world.pass(47 * HOUR);
    world.put("b", 0, &(update(1) + &update(2))).await;
    assert_eq!(world.load().await.redeliveries, 1);
    assert_eq!(stage.work_until_idle(&never()).await.unwrap().rows, 0);
    assert_eq!(world.update_ids().await, some([1, 2]));
}

#[tokio::test]
async fn a_segment_older_than_the_window_is_asked_of_the_table() {
    let world = World::new();
    world.put("a", 50 * HOUR, &update(1)).await;
    world.put("a", MINUTE, &update(7)).await;
    let mut stage = world.stage().await;
    stage.work_until_idle(&never()).await.unwrap();
    // A receiver that was cut off for four days turns up with what it had landed.
    world.put("late", 100 * HOUR, &(update(1) + &update(2))).await;
    assert_eq!(stage.work_until_idle(&never()).await.unwrap().redeliveries, 1);
    assert_eq!(world.update_ids().await, some([1, 2, 7]));
    assert_eq!(world.load().await.rows, 0);
}

#[tokio::test]
async fn a_lane_that_was_away_at_the_start_is_not_loaded_twice() {
    let world = World::new();
    let (old, odd) = (world.put("away", 200 * HOUR, &update(1)).await, world.put("away", 199 * HOUR, "odd\n").await);
    world.load().await;
    for path in [&old, &odd] {
        world.storage.delete(path).await.unwrap();
    }
    let mut stage = world.stage().await;
    for (path, line) in [(&old, update(1)), (&odd, "odd\n".to_owned())] {
        world.storage.put_new(path, Bytes::from(line)).await.unwrap();
    }
    stage.work_until_idle(&never()).await.unwrap();
    assert_eq!(world.update_ids().await, [None, Some(1)]);
}

#[tokio::test]
async fn a_like_id_after_a_silent_week_is_another_update() {
    let world = World::new();
    world.put("a", 20 * DAY, &told(5, "one")).await;
    world.put("a", 12 * DAY, &told(5, "another")).await;
    let mut stage = world.stage().await;
    assert_eq!(stage.work_until_idle(&never()).await.unwrap().rows, 2);
    // Also when it is asked of the table.
    world.put("late", 40 * DAY, &told(5, "a third")).await;
    assert_eq!(stage.work_until_idle(&never()).await.unwrap().rows, 1);
    assert_eq!(world.load().await.rows, 0);
}

#[tokio::test]
async fn one_receiver_with_a_mad_clock_makes_the_others_neither_slow_nor_double() {
    let world = World::new();
    world.put("mad", -400 * DAY, &update(100)).await;
    world.put("a", MINUTE, &update(1)).await;
    let mut stage = world.stage().await;
    stage.work_until_idle(&never()).await.unwrap();
    let path = world.put("a", 0, &(update(1) + &update(2))).await;
    world.script.calls();
    stage.load_hinted(hinted([path]), &never()).await.unwrap();
    assert_eq!(world.script.calls().len(), 3, "the table was not asked");
    assert_eq!(world.update_ids().await, some([1, 2, 100]));
}

#[tokio::test]
async fn two_loaders_on_one_table_make_each_update_one_row() {
    let mut world = World::new();
    for id in 0..40 {
        world.put("a", (100 - id) * 1_000, &(update(id) + "corrupt\n")).await;
    }
    world.settings.max_files = 3;
    let mut one = world.stage().await;
    world.settings.max_files = 5;
    let mut other = world.stage().await;
    let stop = never();
    let (first, second) = tokio::join!(one.work_until_idle(&stop), other.work_until_idle(&stop));
    assert_eq!(first.unwrap().rows + second.unwrap().rows, 80);
    let sources = world.sources().await;
    assert_eq!(sources.len(), 80);
    assert_eq!(sources.iter().collect::<BTreeSet<_>>().len(), 80);
}

#[tokio::test]
async fn a_twin_that_passes_our_position_hides_nothing_that_we_have_under_way() {
    let world = World::new();
    let (mut one, mut other) = (world.stage().await, world.stage().await);
    let path = world.put("a", MINUTE, &(update(1) + "odd\n")).await;
    world.pass(30 * MINUTE);
    other.work_until_idle(&never()).await.unwrap();
    world.put("a", 0, &update(2)).await;
    other.work_until_idle(&never()).await.unwrap();
    assert!(world.position("a").await.is_some());
    one.load_hinted(hinted([path]), &never()).await.unwrap();
    one.work_until_idle(&never()).await.unwrap();
    assert_eq!(world.update_ids().await, [None, Some(1), Some(2)]);
    assert_eq!(one.summary.rows, 0);
}

/// An update whose content is its own, as Telegram's always is.
fn told(id: i64, text: &str) -> String {
    format!("{{\"update_id\":{id},\"message\":{{\"text\":\"{text}\"}}}}\n")
}

/// What may happen to a receiver and a loader whose clock steps.
#[derive(Clone, Copy, Debug)]
enum Event {
    /// The clock says so many days more than the true time.
    Off(i64),
    New,
    /// Two new updates in one segment, whose ids have room for all others between them.
    Apart,
    /// The update that came so many before the newest, again.
    Again(usize),
    Restart,
}

/// One lane, whose keys are the time or one more than the last.
struct Stepping {
    world: World,
    off_days: i64,
    last_key: Timestamp,
    updates: Vec<i64>,
}

impl Stepping {
    fn new() -> Self {
        Self { world: World::new(), off_days: 0, last_key: Timestamp::default(), updates: Vec::new() }
    }

    async fn land(&mut self, ids: &[i64]) {
        let key = self.world.clock.now().max(self.last_key.plus(Duration::from_micros(1)));
        assert!(key > self.last_key);
        self.last_key = key;
        let lines: String = ids.iter().map(|id| told(*id, &format!("message {id}"))).collect();
        self.world.put_at("a", key, &lines).await;
    }

    async fn land_new(&mut self, of: impl Fn(i64) -> Vec<i64>) {
        let ids = of(i64::try_from(self.updates.len()).unwrap() + 100);
        self.land(&ids).await;
        self.updates.extend(ids);
    }

    async fn follow(&mut self, events: &[Event]) {
        let mut stage = self.world.stage().await;
        for event in events {
            match *event {
                Event::Off(days) => {
                    self.world.pass((days - self.off_days) * DAY);
                    self.off_days = days;
                }
                Event::New => self.land_new(|next| vec![next]).await,
                Event::Apart => self.land_new(|next| vec![next, next + 1_000_000]).await,
                Event::Again(back) => {
                    let Some(id) = self.updates.iter().rev().nth(back).copied() else { continue };
                    self.land(&[id]).await;
                }
                Event::Restart => stage = self.world.stage().await,
            }
            stage.work_until_idle(&never()).await.unwrap();
        }
        self.updates.sort_unstable();
        assert_eq!(self.world.update_ids().await, some(self.updates.clone()), "{events:?}");
    }
}

#[tokio::test]
async fn a_redelivery_is_known_after_a_clock_has_stepped_and_come_right_with_and_without_a_restart() {
    use Event::{Again, New, Off, Restart};
    for days in [-400, 10, 27_000] {
        for events in [
            vec![New, Off(days), New, Off(0), Again(0), Again(1), New],
            vec![New, Off(days), New, Restart, Off(0), Restart, Again(0), Again(1), New, Again(0)],
            vec![Off(days), New, Restart, Again(0), Off(0), Restart, New, Again(1)],
            vec![New, Restart, Off(days), Restart, Again(0), New, Off(0), Again(1)],
        ] {
            Stepping::new().follow(&events).await;
        }
    }
}

#[tokio::test]
async fn a_file_of_the_table_that_lies_between_the_ids_of_one_that_was_read_still_counts_as_unread() {
    use Event::{Again, Apart, New, Off, Restart};
    Stepping::new().follow(&[Apart, New, Off(20), Restart, Again(2), Again(0)]).await;
    Stepping::new().follow(&[New, Apart, New, Off(20), Restart, Again(1), Again(0), Again(3)]).await;
}

fn event() -> impl Strategy<Value = Event> {
    proptest::prop_oneof![
        proptest::sample::select(vec![-400, -3, 0, 0, 2, 10, 27_000]).prop_map(Event::Off),
        proptest::strategy::Just(Event::New),
        proptest::strategy::Just(Event::Apart),
        (0_usize..6).prop_map(Event::Again),
        (0_usize..6).prop_map(Event::Again),
        proptest::strategy::Just(Event::Restart),
    ]
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(64))]

    #[test]
    fn whatever_a_clock_does_a_redelivery_makes_no_second_row(
        mut events in proptest::collection::vec(event(), 0..8),
        is_later in proptest::bool::ANY,
        rest in proptest::collection::vec(event(), 1..9),
    ) {
        if is_later {
            events.extend([Event::Off(20), Event::Restart]);
        }
        events.extend(rest);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(Stepping::new().follow(&events));
    }
}

#[tokio::test]
async fn a_like_id_from_far_away_is_a_redelivery_only_if_it_says_the_same_and_the_table_is_read_once_for_it() {
    let world = World::new();
    for (id, days) in [(1, 60), (9, 50)] {
        world.put("a", days * DAY, &told(id, "long ago")).await;
        world.load().await;
    }
    let mut stage = world.stage().await;
    world.put("a", HOUR, &(told(1, "long ago") + &told(9, "another") + &told(5, "new"))).await;
    let loaded = stage.work_until_idle(&never()).await.unwrap();
    assert_eq!((loaded.rows, loaded.redeliveries), (2, 1));
    let path = world.put("b", MINUTE, &(told(6, "new") + &told(7, "new"))).await;
    world.script.calls();
    stage.load_hinted(hinted([path]), &never()).await.unwrap();
    assert_eq!(world.script.calls().len(), 3, "ids between those of files that were read are known to be new");
}
