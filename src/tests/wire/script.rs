//! What happens to the requests on the wire: which fault meets which, and how often each has met each.

use std::collections::{BTreeMap, VecDeque};
use std::fmt::Write;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::http::Method;

use super::bucket::Request;
use crate::tests::faults::dice::Dice;

/// A request, by what it does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Operation {
    PutSegment,
    PutFile,
    PutCommit,
    PutScratch,
    Get,
    Head,
    List,
    Delete,
}

/// What befalls a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Fault {
    /// There is no connection.
    Connect,
    /// The connection breaks before anything is done.
    Reset,
    /// It is done, and the connection breaks before the answer is there.
    Lost,
    /// 500 with nothing done.
    Internal,
    /// 500, and it is done all the same.
    InternalDone,
    /// 503 with nothing done.
    SlowDown,
    /// 429 with nothing done.
    Busy,
    /// 409 with nothing done: another conditional request is under way.
    Conflict,
    /// It arrives late, within the client's patience or after it.
    Late,
    /// The body of the answer breaks off half way.
    Torn,
    /// 200 with an error in the body, and nothing done.
    Inside,
}

impl Operation {
    pub(super) const ALL: [Self; 8] = [
        Self::PutSegment,
        Self::PutFile,
        Self::PutCommit,
        Self::PutScratch,
        Self::Get,
        Self::Head,
        Self::List,
        Self::Delete,
    ];

    pub(super) fn of(request: &Request) -> Self {
        let key = request.key();
        match request.method {
            Method::PUT if key.contains("/raw/") => Self::PutSegment,
            Method::PUT if key.contains("/_delta_log/") => Self::PutCommit,
            Method::PUT if key.contains("/scratch/") => Self::PutScratch,
            Method::PUT => Self::PutFile,
            Method::POST => Self::Delete,
            Method::HEAD => Self::Head,
            _ if request.is_listing() => Self::List,
            _ => Self::Get,
        }
    }

    /// The faults it can meet. What is not here makes no sense: only a put with a condition conflicts, only a body can
    /// break off, only a deletion of many tells of each in a body, and a read that is lost was never done.
    pub(super) fn faults(self) -> &'static [Fault] {
        use Fault::{Busy, Conflict, Connect, Inside, Internal, InternalDone, Late, Lost, Reset, SlowDown, Torn};
        match self {
            Self::PutSegment | Self::PutFile | Self::PutCommit | Self::PutScratch => {
                &[Connect, Reset, Lost, Internal, InternalDone, SlowDown, Busy, Conflict, Late]
            }
            Self::Get | Self::List => &[Connect, Reset, Internal, SlowDown, Busy, Late, Torn],
            Self::Head => &[Connect, Reset, Internal, SlowDown, Busy, Late],
            Self::Delete => &[Connect, Reset, Lost, Internal, InternalDone, SlowDown, Busy, Late, Torn, Inside],
        }
    }
}

impl Fault {
    pub(super) const ALL: [Self; 11] = [
        Self::Connect,
        Self::Reset,
        Self::Lost,
        Self::Internal,
        Self::InternalDone,
        Self::SlowDown,
        Self::Busy,
        Self::Conflict,
        Self::Late,
        Self::Torn,
        Self::Inside,
    ];
}

/// How often which operation has met which fault.
pub(super) type Matrix = BTreeMap<(Operation, Fault), u64>;

/// The script of one bucket.
#[derive(Debug)]
pub(super) struct Script {
    seed: u64,
    /// Requests in a thousand that meet a fault.
    rate: u64,
    on: AtomicBool,
    /// What the next requests of a kind meet, before all else.
    planned: Mutex<BTreeMap<Operation, VecDeque<Fault>>>,
    met: Mutex<BTreeMap<Operation, u64>>,
    /// Every request, in the order of their coming.
    requests: Mutex<Vec<Operation>>,
    matrix: Mutex<Matrix>,
}

impl Script {
    pub(super) fn new(seed: u64, rate: u64) -> Self {
        Self {
            seed,
            rate,
            on: AtomicBool::new(true),
            planned: Mutex::default(),
            met: Mutex::default(),
            requests: Mutex::default(),
            matrix: Mutex::default(),
        }
    }

    /// No more faults.
    pub(super) fn end(&self) {
        self.on.store(false, Ordering::SeqCst);
    }

    /// The next requests of a kind meet these faults.
    pub(super) fn plan(&self, operation: Operation, faults: impl IntoIterator<Item = Fault>) {
        self.planned.lock().unwrap().entry(operation).or_default().extend(faults);
    }

    /// The requests since the last call of this.
    pub(super) fn take_requests(&self) -> Vec<Operation> {
        std::mem::take(&mut *self.requests.lock().unwrap())
    }

    pub(super) fn matrix(&self) -> Matrix {
        self.matrix.lock().unwrap().clone()
    }

    /// What befalls the next request of a kind, and dice for how.
    pub(super) fn next(&self, operation: Operation) -> (Option<Fault>, Dice) {
        self.requests.lock().unwrap().push(operation);
        let number = {
            let mut met = self.met.lock().unwrap();
            let number = met.entry(operation).or_default();
            *number += 1;
            *number
        };
        let mut dice = Dice::of(self.seed, &format!("{operation:?}"), number);
        let planned = self.planned.lock().unwrap().get_mut(&operation).and_then(VecDeque::pop_front);
        let by_chance = || {
            let meets = self.on.load(Ordering::SeqCst) && dice.per_mille(self.rate);
            meets.then(|| *dice.pick(operation.faults()))
        };
        let fault = planned.or_else(by_chance);
        if let Some(fault) = fault {
            *self.matrix.lock().unwrap().entry((operation, fault)).or_default() += 1;
        }
        (fault, dice)
    }
}

/// The matrix as a table, and the cells that were met less often than `least`.
pub(super) fn told(matrix: &Matrix, least: u64) -> (String, Vec<String>) {
    let (mut text, mut rare) = (format!("{:<11}", ""), Vec::new());
    Fault::ALL.iter().for_each(|fault| write!(text, "{:>13}", format!("{fault:?}")).unwrap());
    for operation in Operation::ALL {
        write!(text, "\n{:<11}", format!("{operation:?}")).unwrap();
        for fault in Fault::ALL {
            let makes_sense = operation.faults().contains(&fault);
            let met = matrix.get(&(operation, fault)).copied().unwrap_or(0);
            let cell = if makes_sense { met.to_string() } else { "-".to_owned() };
            write!(text, "{cell:>13}").unwrap();
            if makes_sense && met < least {
                rare.push(format!("{operation:?} × {fault:?}: {met}"));
            }
        }
    }
    (text, rare)
}
