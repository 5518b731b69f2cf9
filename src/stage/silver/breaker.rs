//! The circuit breaker for the model: in an outage rows wait, and one probe at a time checks whether it is over.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

use crate::clock::Clock;
use crate::flow::key::UpdateKey;
use crate::retry::Backoff;

/// How long a row that met the outage leaves the probe to others before it sends a ping.
const LEAVE_TO_OTHERS: Duration = Duration::from_millis(200);
/// It counts as an outage if calls of this many chats have failed in a row without any success.
const OUTAGE_AT_CHATS: usize = 3;

/// What a row may do now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pass {
    /// Ask.
    Closed,
    /// Ask; the result decides whether the outage is over.
    Probe,
    /// Send a ping first: a row must not be the judge of itself.
    Ping,
}

#[derive(Debug)]
struct State {
    /// When the next probe may be sent; `None` if there is no outage.
    open_until: Option<Duration>,
    /// Rows whose call has failed since the last success: the model may not accept any of them.
    suspects: HashSet<UpdateKey>,
    /// Chats that worked before, and whose calls have failed since the last success.
    failing_chats: HashSet<i64>,
    probing: bool,
    successes: u64,
    backoff: Backoff,
}

/// Shared by all rows that ask one model.
#[derive(Debug)]
pub(super) struct Breaker {
    state: Mutex<State>,
    changed: Notify,
    clock: Clock,
}

impl Breaker {
    pub(super) fn new(clock: &Clock) -> Self {
        let state = State {
            open_until: None,
            suspects: HashSet::new(),
            failing_chats: HashSet::new(),
            probing: false,
            successes: 0,
            backoff: Backoff::new(Duration::from_secs(1), Duration::from_secs(60)),
        };
        Self { state: Mutex::new(state), changed: Notify::new(), clock: clock.clone() }
    }

    /// Waits until the row may ask.
    pub(super) async fn admit(&self, row: &UpdateKey) -> Pass {
        loop {
            let changed = self.changed.notified();
            let wait = match self.try_admit(row) {
                Ok(pass) => return pass,
                Err(wait) => wait,
            };
            tokio::select! {
                () = changed => {}
                () = self.clock.sleep(wait) => {}
            }
        }
    }

    /// A pass, or how long to wait before asking for one again.
    fn try_admit(&self, row: &UpdateKey) -> Result<Pass, Duration> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let is_suspect = state.suspects.contains(row);
        let Some(until) = state.open_until else {
            // No one else has found the model to work since this row's call failed.
            return Ok(if is_suspect { Pass::Ping } else { Pass::Closed });
        };
        let now = self.clock.monotonic();
        if state.probing || now < until {
            return Err(until.saturating_sub(now).max(LEAVE_TO_OTHERS));
        }
        if is_suspect && now < until + LEAVE_TO_OTHERS {
            return Err(until + LEAVE_TO_OTHERS - now);
        }
        state.probing = true;
        Ok(if is_suspect { Pass::Ping } else { Pass::Probe })
    }

    /// The model answered.
    pub(super) fn succeeded(&self) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.successes += 1;
        state.open_until = None;
        state.suspects.clear();
        state.failing_chats.clear();
        state.probing = false;
        state.backoff.reset();
        drop(state);
        self.changed.notify_waiters();
    }

    /// This row's call says that the model is unavailable. It is believed if it says for how long, if there already is
    /// an outage, and if calls of several chats agree, each counted only while it was `well_before`. `true` if nobody
    /// asks for a while; otherwise only this row should wait.
    pub(super) fn failed(
        &self,
        row: &UpdateKey,
        chat_id: i64,
        well_before: bool,
        retry_after: Option<Duration>,
    ) -> bool {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let now = self.clock.monotonic();
        state.suspects.insert(*row);
        if well_before {
            state.failing_chats.insert(chat_id);
        }
        let is_outage = state.failing_chats.len() >= OUTAGE_AT_CHATS;
        if retry_after.is_none() && state.open_until.is_none() && !is_outage {
            return false;
        }
        // Calls that were in flight together fail together; one outage backs off once.
        if state.open_until.is_none_or(|until| until <= now) {
            let delay = state.backoff.next_delay();
            state.open_until = Some(now + retry_after.unwrap_or(delay));
        } else if let Some(asked) = retry_after {
            state.open_until = state.open_until.max(Some(now + asked));
        }
        state.probing = false;
        drop(state);
        self.changed.notify_waiters();
        true
    }

    /// A row that held a pass is gone without a result.
    pub(super) fn released(&self, pass: Pass) {
        if pass != Pass::Closed {
            self.state.lock().unwrap_or_else(PoisonError::into_inner).probing = false;
            self.changed.notify_waiters();
        }
    }

    /// The number of successful calls so far.
    pub(super) fn successes(&self) -> u64 {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).successes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::BotId;

    const ONE: UpdateKey = UpdateKey { bot_id: BotId(1), update_id: 1, attempt: 1 };
    const TWO: UpdateKey = UpdateKey { bot_id: BotId(1), update_id: 2, attempt: 1 };

    #[test]
    fn chats_that_keep_failing_are_no_outage_for_the_others() {
        let breaker = Breaker::new(&Clock::system());
        // Twenty chats fail for the first time, so it may be an outage; another row finds out that it is none.
        let opened = (0..20).filter(|chat| breaker.failed(&ONE, *chat, true, None)).count();
        assert_eq!(opened, 18);
        breaker.succeeded();
        // From now on they are known to be in trouble.
        for chat in (0..20).cycle().take(1_000) {
            assert!(!breaker.failed(&ONE, chat, false, None));
            assert_eq!((breaker.try_admit(&TWO), breaker.try_admit(&ONE)), (Ok(Pass::Closed), Ok(Pass::Ping)));
        }
    }

    #[test]
    fn in_an_outage_rows_wait_and_one_other_row_probes() {
        let breaker = Breaker::new(&Clock::system());
        assert_eq!(breaker.try_admit(&ONE), Ok(Pass::Closed));
        assert!(breaker.failed(&ONE, 1, true, Some(Duration::from_secs(60))));
        assert!(breaker.try_admit(&TWO).unwrap_err() > Duration::from_secs(50));
        breaker.succeeded();
        breaker.failed(&ONE, 1, true, Some(Duration::ZERO));
        assert!(breaker.try_admit(&ONE).is_err(), "it leaves the probe to others");
        assert_eq!(breaker.try_admit(&TWO), Ok(Pass::Probe));
        assert!(breaker.try_admit(&TWO).is_err(), "one probe at a time");
        breaker.succeeded();
        assert_eq!(breaker.try_admit(&ONE), Ok(Pass::Closed));
    }

    #[tokio::test]
    async fn a_row_alone_sends_a_ping_before_it_asks_again() {
        let breaker = Breaker::new(&Clock::system());
        breaker.failed(&ONE, 1, true, Some(Duration::ZERO));
        assert_eq!(breaker.admit(&ONE).await, Pass::Ping);
        breaker.released(Pass::Ping);
        assert_eq!(breaker.admit(&ONE).await, Pass::Ping);
    }
}
