//! What happens to the calls of a store: which fault hits which call.

use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use object_store::path::Path;

use crate::clock::{Clock, Timestamp};
use crate::tests::kit::{self, Dice, FaultPlan, Matrix, Operation as _};

/// The longest duration of a slow call (except for the few that outlast every time-out), and the longest delay of a
/// late one.
pub(super) const SLOW: Duration = Duration::from_secs(5);

/// A call of the store, by its purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Operation {
    PutRaw,
    PutParquet,
    PutCommit,
    PutIntent,
    /// A checkpoint and the file that names it.
    PutOther,
    Get,
    List,
    Head,
    Delete,
}

/// What happens to a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Fault {
    /// The connection breaks before anything is done.
    Before,
    /// It is done, but the response is lost.
    Lost,
    /// 409: "already exists", with nothing written by this call or any other.
    Conflict,
    /// 503 with nothing done.
    Server,
    /// 429 with nothing done.
    Busy,
    /// It takes long.
    Slow,
    /// The caller is told that it failed, but it is done a little later.
    Late,
    /// No space is left for this put and the next few.
    Full,
    /// The response breaks off half way: an object, or a listing.
    Torn,
    /// A listing that does not show recent objects yet.
    Stale,
    /// The process dies before or after it.
    Crash,
}

impl Operation {
    /// The purpose of a put to this path.
    pub(super) fn of_put(path: &Path) -> Self {
        match path.as_ref() {
            path if path.starts_with("raw/") => Self::PutRaw,
            path if path.starts_with("intents/") => Self::PutIntent,
            path if path.contains("_delta_log/") && path.ends_with(".json") => Self::PutCommit,
            path if path.contains("_delta_log/") || path.starts_with("_lakegram/") => Self::PutOther,
            _ => Self::PutParquet,
        }
    }

    fn is_put(self) -> bool {
        matches!(self, Self::PutRaw | Self::PutParquet | Self::PutCommit | Self::PutIntent | Self::PutOther)
    }
}

impl kit::Operation for Operation {
    type Fault = Fault;
    const ALL: &'static [Self] = &[
        Self::PutRaw,
        Self::PutParquet,
        Self::PutCommit,
        Self::PutIntent,
        Self::PutOther,
        Self::Get,
        Self::List,
        Self::Head,
        Self::Delete,
    ];
    const FAULTS: &'static [Fault] = {
        use Fault::{Before, Busy, Conflict, Crash, Full, Late, Lost, Server, Slow, Stale, Torn};
        &[Before, Lost, Conflict, Server, Busy, Slow, Late, Full, Torn, Stale, Crash]
    };

    /// The faults it can meet. Others make no sense: only a create can find another object, only a put needs space,
    /// only a listing or an object can be torn, and a read that is lost was never done.
    fn faults(self) -> &'static [Fault] {
        use Fault::{Before, Busy, Conflict, Full, Late, Lost, Server, Slow, Stale, Torn};
        match self {
            Self::PutRaw | Self::PutParquet | Self::PutCommit | Self::PutIntent => {
                &[Before, Lost, Conflict, Server, Busy, Slow, Late, Full]
            }
            Self::PutOther => &[Before, Lost, Server, Busy, Slow, Full],
            Self::Get => &[Before, Server, Busy, Slow, Torn],
            Self::List => &[Before, Server, Busy, Slow, Torn, Stale],
            Self::Head => &[Before, Server, Busy, Slow],
            Self::Delete => &[Before, Lost, Server, Busy, Slow, Late],
        }
    }

    fn can_meet(self, fault: Fault) -> bool {
        fault == Fault::Crash || self.faults().contains(&fault)
    }
}

/// The script of one world, shared by all lives in it.
#[derive(Debug)]
pub(super) struct FaultScript {
    faults: FaultPlan<Operation>,
    /// Calls in a thousand that meet a fault.
    rate: u64,
    /// Puts that will still find no space.
    full: AtomicUsize,
    puts: AtomicU64,
    /// Objects that cannot be read.
    unreadable: Mutex<Option<String>>,
    /// When each object was put, on the test's clock; the store below uses the machine's.
    written: Mutex<HashMap<Path, Timestamp>>,
    /// The longest delay of late calls.
    lateness: Mutex<Duration>,
    clock: Clock,
}

impl FaultScript {
    pub(super) fn new(seed: u64, rate: u64, clock: &Clock) -> Self {
        Self {
            faults: FaultPlan::new(seed),
            rate,
            full: AtomicUsize::new(0),
            puts: AtomicU64::new(0),
            unreadable: Mutex::default(),
            written: Mutex::default(),
            lateness: Mutex::new(SLOW),
            clock: clock.clone(),
        }
    }

    /// No more faults.
    pub(super) fn end(&self) {
        self.faults.end();
        *self.unreadable.lock().unwrap() = None;
    }

    pub(super) fn has_ended(&self) -> bool {
        self.faults.has_ended()
    }

    /// Plans these faults for the next calls of a class.
    pub(super) fn plan(&self, class: &str, faults: impl IntoIterator<Item = Fault>) {
        self.faults.plan(class, faults);
    }

    /// How many faults are still planned for a class.
    pub(super) fn planned_for(&self, class: &str) -> usize {
        self.faults.planned_for(class)
    }

    /// Objects with this in their path cannot be read until the end of all faults.
    pub(super) fn make_unreadable(&self, fragment: &str) {
        *self.unreadable.lock().unwrap() = Some(fragment.to_owned());
    }

    /// From now on late calls arrive after exactly this long.
    pub(super) fn set_lateness(&self, span: Duration) {
        *self.lateness.lock().unwrap() = span;
    }

    /// The delay of a late call.
    pub(super) fn lateness(&self, dice: &mut Dice) -> Duration {
        let most = *self.lateness.lock().unwrap();
        if most == SLOW { most.mul_f64(dice.below(1_000) as f64 / 1_000.0) } else { most }
    }

    /// The number of puts in all lives so far.
    pub(super) fn puts(&self) -> u64 {
        self.puts.load(Ordering::SeqCst)
    }

    fn is_unreadable(&self, operation: Operation, path: &Path) -> bool {
        let fragment = self.unreadable.lock().unwrap();
        operation == Operation::Get
            && fragment.as_ref().is_some_and(|fragment| path.as_ref().contains(fragment.as_str()))
    }

    pub(super) fn matrix(&self) -> Matrix<Operation> {
        self.faults.matrix()
    }

    pub(super) fn note(&self, operation: Operation, fault: Fault) {
        self.faults.note(operation, fault);
    }

    /// The fault of the next call of a class, and its dice.
    pub(super) fn next(&self, operation: Operation, path: &Path, armed: bool) -> (Option<Fault>, Dice) {
        let class = class(operation, path);
        self.puts.fetch_add(u64::from(operation.is_put()), Ordering::SeqCst);
        let (planned, mut dice) = self.faults.next(&class);
        if self.is_unreadable(operation, path) {
            return (Some(Fault::Before), dice);
        }
        if planned.is_some() {
            return (planned, dice);
        }
        if !armed || self.faults.has_ended() {
            return (None, dice);
        }
        let took = |full: usize| full.checked_sub(1);
        if operation.is_put() && self.full.fetch_update(Ordering::SeqCst, Ordering::SeqCst, took).is_ok() {
            self.note(operation, Fault::Full);
            return (Some(Fault::Full), dice);
        }
        if !dice.per_mille(self.rate_of(operation)) {
            return (None, dice);
        }
        let fault = *dice.pick(operation.faults());
        if fault == Fault::Full {
            self.full.store(usize::try_from(dice.below(4)).unwrap(), Ordering::SeqCst);
        }
        self.note(operation, fault);
        (Some(fault), dice)
    }

    /// A run makes many reads, and a process that cannot read does not get far; there are few segments, heads and
    /// deletes, and even fewer checkpoints.
    fn rate_of(&self, operation: Operation) -> u64 {
        match operation {
            Operation::Get | Operation::List => self.rate / 6,
            Operation::PutRaw | Operation::PutIntent => (self.rate * 3 / 2).min(500),
            Operation::Head | Operation::Delete => (self.rate * 3).min(600),
            Operation::PutOther => (self.rate * 5).min(700),
            _ => self.rate,
        }
    }

    pub(super) fn wrote(&self, path: &Path) {
        self.written.lock().unwrap().insert(path.clone(), self.clock.now());
    }

    /// When an object was put.
    pub(super) fn written(&self, path: &Path) -> Option<Timestamp> {
        self.written.lock().unwrap().get(path).copied()
    }

    /// Whether a lagging listing shows an object.
    pub(super) fn is_shown(&self, path: &Path) -> bool {
        const LAG: Duration = Duration::from_secs(5);
        self.written(path).is_none_or(|at| self.clock.now().since(at) > LAG)
    }

    pub(super) fn clock(&self) -> &Clock {
        &self.clock
    }
}

/// The class of a call: the operation, and what it is about.
pub(super) fn class(operation: Operation, path: &Path) -> String {
    format!("{operation:?} {}", kind(path))
}

/// What a path is, without what makes it unique.
fn kind(path: &Path) -> String {
    let path = path.as_ref();
    let table = ["telegram_messages", "telegram_responses", "telegram_replies"];
    if let Some(table) = table.iter().find(|table| path.contains(**table)) {
        return match (path.contains("_delta_log"), path.rsplit_once('.').map(|(_, end)| end)) {
            (true, Some("json")) => format!("{table} commit"),
            (true, _) => format!("{table} log"),
            (false, _) => format!("{table} file"),
        };
    }
    path.split('/').next().unwrap_or_default().to_owned()
}
