//! A store that a test can stop, break and repair while it is in use.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use object_store::path::Path;
use object_store::{Error, GetOptions, GetResult, PutOptions, PutPayload, PutResult, Result};
use tokio::sync::watch;

use crate::clock::Clock;
use crate::storage::tests::intercepted::{Inner, Intercept};
use crate::storage::{Storage, disk_failure};

/// What puts do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Puts {
    Work,
    /// Nothing is written.
    Fail,
    /// It is written, and the answer is lost.
    LoseAnswers,
    /// They wait until something else is said.
    Hang,
    /// The disk does not persist them.
    BreakTheDisk,
    /// It is written, the answer is lost, and so many reads after it fail.
    LoseSight(usize),
    /// The answer is that it failed, and it is written after this long all the same.
    Late(Duration),
    /// It is written after this long, and then answered.
    Slow(Duration),
    /// Another process has put something there just before.
    ComeSecond,
}

/// What another process puts.
pub(super) const THEIRS: &[u8] = b"{\"theirs\": 1}\n";

/// The test's hand on the store.
#[derive(Debug)]
pub(super) struct Control {
    puts: watch::Sender<Puts>,
    begun: watch::Sender<usize>,
    /// What the next puts do, before all else.
    planned: Mutex<VecDeque<Puts>>,
    /// Reads that still fail.
    blind: AtomicUsize,
}

impl Control {
    /// The next puts do this, one each.
    pub(super) fn plan(&self, puts: impl IntoIterator<Item = Puts>) {
        self.planned.lock().unwrap().extend(puts);
    }

    /// Nothing is planned any more.
    pub(super) fn calm(&self) {
        self.planned.lock().unwrap().clear();
        self.blind.store(0, Ordering::SeqCst);
        self.set(Puts::Work);
    }

    pub(super) fn set(&self, puts: Puts) {
        self.puts.send_replace(puts);
    }

    /// Returns when so many puts have begun.
    pub(super) async fn begun(&self, puts: usize) {
        self.begun.subscribe().wait_for(|begun| *begun >= puts).await.unwrap();
    }
}

pub(super) fn controlled(storage: Storage, clock: &Clock) -> (Storage, Arc<Control>) {
    let control = Control {
        puts: watch::Sender::new(Puts::Work),
        begun: watch::Sender::new(0),
        planned: Mutex::default(),
        blind: AtomicUsize::new(0),
    };
    let control = Arc::new(control);
    let controlled = Controlled { control: Arc::clone(&control), clock: clock.clone() };
    (storage.intercepted(controlled), control)
}

#[derive(Debug)]
struct Controlled {
    control: Arc<Control>,
    clock: Clock,
}

fn broken() -> Error {
    Error::Generic { store: "controlled", source: "the connection was reset".into() }
}

#[async_trait]
impl Intercept for Controlled {
    async fn put(&self, inner: &Inner, location: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        self.control.begun.send_modify(|begun| *begun += 1);
        let planned = self.control.planned.lock().unwrap().pop_front();
        let puts = match planned {
            Some(planned) => planned,
            None => *self.control.puts.subscribe().wait_for(|puts| *puts != Puts::Hang).await.unwrap(),
        };
        match puts {
            Puts::Work | Puts::Hang => inner.put_opts(location, payload, options).await,
            Puts::Fail => Err(broken()),
            Puts::LoseAnswers => {
                inner.put_opts(location, payload, options).await?;
                Err(broken())
            }
            Puts::BreakTheDisk => Err(disk_failure()),
            Puts::LoseSight(reads) => {
                inner.put_opts(location, payload, options).await?;
                self.control.blind.store(reads, Ordering::SeqCst);
                Err(broken())
            }
            Puts::Late(span) => {
                let (inner, clock, location) = (Arc::clone(inner), self.clock.clone(), location.clone());
                tokio::spawn(async move {
                    clock.sleep(span).await;
                    inner.put_opts(&location, payload, options).await.map(drop)
                });
                Err(broken())
            }
            Puts::Slow(span) => {
                self.clock.sleep(span).await;
                inner.put_opts(location, payload, options).await
            }
            Puts::ComeSecond => {
                // Where something is already, they do not come first.
                let _theirs = inner.put_opts(location, THEIRS.into(), options.clone()).await;
                inner.put_opts(location, payload, options).await
            }
        }
    }

    async fn get(&self, inner: &Inner, location: &Path, options: GetOptions) -> Result<GetResult> {
        let sees_less = |blind: usize| blind.checked_sub(1);
        match self.control.blind.fetch_update(Ordering::SeqCst, Ordering::SeqCst, sees_less) {
            Ok(_) => Err(broken()),
            Err(_) => inner.get_opts(location, options).await,
        }
    }
}
