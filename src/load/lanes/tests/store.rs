//! A store that dates objects by the test's clock, writes its calls down, fails on command, and can die at any call.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use futures::stream::{self, StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{
    Error, GetOptions, GetResult, ListResult, ObjectMeta, PutMode, PutOptions, PutPayload, PutResult, Result,
};
use tokio::sync::Notify;

use crate::clock::{Clock, Timestamp};
use crate::storage::Storage;
use crate::storage::tests::intercepted::{Inner, Intercept, Listing, listing};

/// What happens to a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// It fails and nothing is done.
    Refuse,
    /// It is done and its answer is lost, and so is that of the next reading.
    LoseAndBlind,
    /// It is done, and then the wall clock steps forward so many seconds.
    StepAfter(i64),
}

/// The commands to a store, and what it was asked.
#[derive(Debug)]
pub(super) struct Script {
    clock: Clock,
    modified: Mutex<HashMap<Path, Timestamp>>,
    calls: Mutex<Vec<String>>,
    faults: Mutex<Vec<(&'static str, &'static str, Fault, usize)>>,
    /// So many calls are left to a process that is about to die; twice, plus one when it dies after the last of them.
    fuse: AtomicUsize,
    blown: Notify,
}

impl Script {
    /// The next `times` calls of this kind to paths that contain `path` fail so.
    pub(super) fn fail(&self, call: &'static str, path: &'static str, fault: Fault, times: usize) {
        self.faults.lock().unwrap().push((call, path, fault, times));
    }

    /// Takes all commands back.
    pub(super) fn heal(&self) {
        self.faults.lock().unwrap().clear();
        self.fuse.store(usize::MAX, Ordering::SeqCst);
    }

    /// The calls since the last look.
    pub(super) fn calls(&self) -> Vec<String> {
        std::mem::take(&mut self.calls.lock().unwrap())
    }

    /// Lets the process die at its `calls`th call from now, before or after that is done. Returns when it has.
    pub(super) async fn die_at(&self, calls: usize, after: bool) {
        self.fuse.store(calls * 2 + usize::from(after), Ordering::SeqCst);
        self.blown.notified().await;
    }

    async fn step_fuse(&self) {
        let left = self.fuse.load(Ordering::SeqCst);
        if left == usize::MAX {
            return;
        }
        if left == 0 {
            self.blown.notify_one();
            std::future::pending::<()>().await;
        }
        self.fuse.store(left - 1, Ordering::SeqCst);
    }

    async fn before(&self, call: &'static str, path: &Path) -> Result<Option<Fault>> {
        self.calls.lock().unwrap().push(format!("{call} {path}"));
        self.step_fuse().await;
        let fault = {
            let mut faults = self.faults.lock().unwrap();
            let planned = faults
                .iter_mut()
                .find(|(on, part, _, times)| *on == call && *times > 0 && path.as_ref().contains(*part));
            planned.map(|(_, _, fault, times)| {
                *times -= 1;
                *fault
            })
        };
        if fault == Some(Fault::Refuse) { Err(broken()) } else { Ok(fault) }
    }

    async fn after<T>(&self, fault: Option<Fault>, done: Result<T>) -> Result<T> {
        self.step_fuse().await;
        match fault {
            Some(Fault::LoseAndBlind) => {
                self.fail("get", "", Fault::Refuse, 1);
                Err(broken())
            }
            Some(Fault::StepAfter(seconds)) => {
                self.clock.step(seconds * 1_000_000);
                done
            }
            Some(Fault::Refuse) | None => done,
        }
    }

    fn dated(&self, mut meta: ObjectMeta) -> ObjectMeta {
        if let Some(modified) = self.modified.lock().unwrap().get(&meta.location) {
            meta.last_modified = modified.to_datetime().unwrap();
        }
        meta
    }
}

/// The same storage under a script.
pub(super) fn scripted(storage: Storage, clock: &Clock) -> (Storage, Arc<Script>) {
    let script = Arc::new(Script {
        clock: clock.clone(),
        modified: Mutex::default(),
        calls: Mutex::default(),
        faults: Mutex::default(),
        fuse: AtomicUsize::new(usize::MAX),
        blown: Notify::new(),
    });
    (storage.intercepted(Arc::clone(&script)), script)
}

fn broken() -> Error {
    Error::Generic { store: "scripted", source: "the connection was reset".into() }
}

#[async_trait]
impl Intercept for Arc<Script> {
    async fn put(&self, inner: &Inner, location: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        let call = if options.mode == PutMode::Create { "create" } else { "put" };
        let fault = self.before(call, location).await?;
        let put = inner.put_opts(location, payload, options).await;
        if put.is_ok() {
            self.modified.lock().unwrap().insert(location.clone(), self.clock.now());
        }
        self.after(fault, put).await
    }

    async fn get(&self, inner: &Inner, location: &Path, options: GetOptions) -> Result<GetResult> {
        let fault = self.before("get", location).await?;
        let got = inner.get_opts(location, options).await;
        let got = got.map(|got| GetResult { meta: self.dated(got.meta.clone()), ..got });
        self.after(fault, got).await
    }

    fn list(&self, inner: &Inner, prefix: Option<&Path>, offset: Option<&Path>) -> Listing {
        let (script, inner) = (Self::clone(self), Arc::clone(inner));
        let (prefix, offset) = (prefix.cloned(), offset.cloned());
        let listed = async move {
            let fault = script.before("list", &prefix.clone().unwrap_or_default()).await?;
            script.after(fault, Ok(())).await?;
            let listed = listing(&inner, prefix.as_ref(), offset.as_ref());
            Ok::<_, Error>(listed.map_ok(move |meta| script.dated(meta)))
        };
        stream::once(listed).try_flatten().boxed()
    }

    async fn list_folders(&self, inner: &Inner, prefix: Option<&Path>) -> Result<ListResult> {
        let fault = self.before("folders", &prefix.cloned().unwrap_or_default()).await?;
        let listed = inner.list_with_delimiter(prefix).await;
        self.after(fault, listed).await
    }
}
