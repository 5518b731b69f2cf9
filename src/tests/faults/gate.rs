//! The life of one process as its store sees it: alive, or dead from a certain call on.

use std::collections::HashMap;
use std::sync::Mutex;

use tokio::sync::watch;

/// How a process dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// The whole process at once.
    Exit,
    /// The task that made the call panics, and the rest winds down.
    Panic,
}

/// The call at which a process dies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Point {
    /// The call with this number, from 1, whatever it is.
    Any(u64),
    /// The call of this class with this number within the class.
    Of(String, u64),
}

/// A planned death.
#[derive(Clone, Debug)]
pub(super) struct Death {
    pub(super) point: Point,
    /// Whether the call takes effect; its response is lost either way.
    pub(super) after: bool,
    pub(super) kind: Kind,
}

#[derive(Debug, Default)]
struct State {
    calls: u64,
    of_class: HashMap<String, u64>,
    death: Option<Death>,
}

/// Guards the store of one process.
#[derive(Debug)]
pub(super) struct Gate {
    state: Mutex<State>,
    dead: watch::Sender<bool>,
    /// From this call on there may be faults.
    armed_from: u64,
}

/// A call that was let through.
#[derive(Debug)]
pub(super) struct Passage {
    pub(super) armed: bool,
    /// The process dies at this call.
    pub(super) death: Option<Death>,
}

impl Gate {
    pub(super) fn new(death: Option<Death>, armed_from: u64) -> Self {
        let state = Mutex::new(State { death, ..State::default() });
        Self { state, dead: watch::Sender::new(false), armed_from }
    }

    /// Lets a call through; never returns once the process is dead.
    pub(super) async fn enter(&self, class: &str) -> Passage {
        self.alive().await;
        let mut state = self.state.lock().unwrap();
        state.calls += 1;
        let calls = state.calls;
        let of_class = state.of_class.entry(class.to_owned()).or_default();
        *of_class += 1;
        let of_class = *of_class;
        let reached = state.death.as_ref().is_some_and(|death| match &death.point {
            Point::Any(number) => *number == calls,
            Point::Of(wanted, number) => wanted == class && *number == of_class,
        });
        let death = if reached { state.death.take() } else { None };
        Passage { armed: calls >= self.armed_from, death }
    }

    /// Returns at once while the process lives, and never once it is dead.
    pub(super) async fn alive(&self) {
        if *self.dead.borrow() {
            std::future::pending::<()>().await;
        }
    }

    /// Ends the process.
    pub(super) async fn die(&self, kind: Kind) {
        match kind {
            // Like a panic, but without the message.
            Kind::Panic => std::panic::resume_unwind(Box::new("a scripted death")),
            Kind::Exit => self.kill(),
        }
        std::future::pending::<()>().await;
    }

    /// Ends the process from outside.
    pub(super) fn kill(&self) {
        self.dead.send_replace(true);
    }

    /// Returns when the process is dead.
    pub(super) async fn died(&self) {
        let mut dead = self.dead.subscribe();
        // We hold the sender.
        let _dead = dead.wait_for(|dead| *dead).await;
    }

    /// The number of calls of each class.
    pub(super) fn counts(&self) -> HashMap<String, u64> {
        self.state.lock().unwrap().of_class.clone()
    }

    /// Whether the planned death has happened.
    pub(super) fn is_spent(&self) -> bool {
        self.state.lock().unwrap().death.is_none()
    }
}
