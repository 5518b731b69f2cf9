//! What happens to requests on the wire: which fault hits which request.

use std::sync::Mutex;

use axum::http::Method;

use super::bucket::Request;
use crate::tests::kit::{self, Dice, FaultPlan, Matrix, Operation as _};

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

/// What happens to a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Fault {
    /// No connection.
    Connect,
    /// The connection breaks before anything is done.
    Reset,
    /// It is done, and the connection breaks before the response arrives.
    Lost,
    /// 500 with nothing done.
    Internal,
    /// 500, but it is done.
    InternalDone,
    /// 503 with nothing done.
    SlowDown,
    /// 429 with nothing done.
    Busy,
    /// 409 with nothing done: another conditional request is under way.
    Conflict,
    /// It arrives late, within the client's time-out or after it.
    Late,
    /// The body of the response breaks off half way.
    Torn,
    /// 200 with an error in the body, and nothing done.
    Inside,
}

impl Operation {
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
}

impl kit::Operation for Operation {
    type Fault = Fault;
    const ALL: &'static [Self] = &[
        Self::PutSegment,
        Self::PutFile,
        Self::PutCommit,
        Self::PutScratch,
        Self::Get,
        Self::Head,
        Self::List,
        Self::Delete,
    ];
    const FAULTS: &'static [Fault] = &[
        Fault::Connect,
        Fault::Reset,
        Fault::Lost,
        Fault::Internal,
        Fault::InternalDone,
        Fault::SlowDown,
        Fault::Busy,
        Fault::Conflict,
        Fault::Late,
        Fault::Torn,
        Fault::Inside,
    ];

    /// The faults it can meet. Others make no sense: only a conditional put conflicts, only a body can be torn, only a
    /// bulk delete reports each error in a body, and a read that is lost was never done.
    fn faults(self) -> &'static [Fault] {
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

/// The script of one bucket.
#[derive(Debug)]
pub(super) struct WireScript {
    faults: FaultPlan<Operation>,
    /// Requests in a thousand that meet a fault.
    rate: u64,
    /// Every request, in order of arrival.
    requests: Mutex<Vec<Operation>>,
}

impl WireScript {
    pub(super) fn new(seed: u64, rate: u64) -> Self {
        Self { faults: FaultPlan::new(seed), rate, requests: Mutex::default() }
    }

    /// No more faults.
    pub(super) fn end(&self) {
        self.faults.end();
    }

    /// Plans these faults for the next requests of a kind.
    pub(super) fn plan(&self, operation: Operation, faults: impl IntoIterator<Item = Fault>) {
        self.faults.plan(&class(operation), faults);
    }

    /// The requests since the last call.
    pub(super) fn take_requests(&self) -> Vec<Operation> {
        std::mem::take(&mut *self.requests.lock().unwrap())
    }

    pub(super) fn matrix(&self) -> Matrix<Operation> {
        self.faults.matrix()
    }

    /// The fault of the next request of a kind, and its dice.
    pub(super) fn next(&self, operation: Operation) -> (Option<Fault>, Dice) {
        self.requests.lock().unwrap().push(operation);
        let (planned, mut dice) = self.faults.next(&class(operation));
        let by_chance = || {
            let meets = !self.faults.has_ended() && dice.per_mille(self.rate);
            meets.then(|| *dice.pick(operation.faults()))
        };
        let fault = planned.or_else(by_chance);
        if let Some(fault) = fault {
            self.faults.note(operation, fault);
        }
        (fault, dice)
    }
}

/// Requests of a kind are alike.
fn class(operation: Operation) -> String {
    format!("{operation:?}")
}
