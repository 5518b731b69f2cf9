//! The faulty store: an object store whose calls fail as scripted, and stop returning when the process is dead.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use chrono::DateTime;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use futures::{FutureExt, StreamExt, stream};
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, GetResultPayload, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    ObjectStoreExt, PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};
use tokio::runtime::Handle;

use super::gate::Gate;
use super::script::{Fault, FaultScript, Operation, SLOW, class};
use crate::storage::Storage;
use crate::tests::kit::Dice;

/// Longer than anyone waits for a response.
const ENDLESS: Duration = Duration::from_secs(150);

/// The storage of one process: the world's, behind a gate and a script. Late puts happen on `network`, which outlives
/// the process.
pub(super) fn faulty(storage: &Storage, script: &Arc<FaultScript>, gate: &Arc<Gate>, network: &Handle) -> Storage {
    let (script, gate, network) = (Arc::clone(script), Arc::clone(gate), network.clone());
    storage.clone().decorated(|inner| Arc::new(Faulty { inner, script, gate, network }))
}

#[derive(Clone, Debug)]
struct Faulty {
    inner: Arc<dyn ObjectStore>,
    script: Arc<FaultScript>,
    gate: Arc<Gate>,
    network: Handle,
}

impl fmt::Display for Faulty {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("faulty")
    }
}

fn failed(why: &'static str) -> Error {
    Error::Generic { store: "faulty", source: why.into() }
}

/// The error of a call that is not done; `None` for other kinds of faults.
fn refusal(fault: Fault, path: &Path) -> Option<Error> {
    match fault {
        Fault::Before => Some(failed("the connection was reset")),
        Fault::Server => Some(failed("503 Slow Down")),
        Fault::Busy => Some(failed("429 Too Many Requests")),
        Fault::Full => Some(failed("no space left on device")),
        Fault::Conflict => {
            Some(Error::AlreadyExists { path: path.to_string(), source: "409 ConditionalRequestConflict".into() })
        }
        _ => None,
    }
}

fn delay(dice: &mut Dice) -> Duration {
    if dice.per_mille(20) { ENDLESS } else { SLOW.mul_f64(dice.below(1_000) as f64 / 1_000.0) }
}

impl Faulty {
    /// One call: `act` is what it does.
    async fn call<T: Send + 'static>(
        &self,
        operation: Operation,
        path: &Path,
        act: BoxFuture<'static, Result<T>>,
    ) -> Result<(T, Option<Fault>)> {
        let passage = self.gate.enter(&class(operation, path)).await;
        if let Some(death) = &passage.death {
            self.script.note(operation, Fault::Crash);
            if !death.after {
                self.gate.die(death.kind).await;
            }
        }
        let (fault, dice) = self.script.next(operation, path, passage.armed);
        let outcome = self.suffer(fault, dice, path, act).await;
        if let Some(death) = passage.death {
            self.gate.die(death.kind).await;
        }
        // Nobody is left to receive the response.
        self.gate.alive().await;
        outcome.map(|done| (done, fault))
    }

    async fn suffer<T: Send + 'static>(
        &self,
        fault: Option<Fault>,
        mut dice: Dice,
        path: &Path,
        act: BoxFuture<'static, Result<T>>,
    ) -> Result<T> {
        let clock = self.script.clock().clone();
        match fault {
            Some(Fault::Lost) => {
                act.await?;
                Err(failed("the connection was reset while waiting for the answer"))
            }
            Some(Fault::Slow) => {
                clock.sleep(delay(&mut dice)).await;
                act.await
            }
            Some(Fault::Late) => {
                let late = self.script.lateness(&mut dice);
                self.network.spawn(async move {
                    clock.sleep(late).await;
                    act.await.map(drop)
                });
                Err(failed("operation timed out"))
            }
            Some(fault) => match refusal(fault, path) {
                Some(error) => Err(error),
                None => act.await,
            },
            None => act.await,
        }
    }

    fn dated(&self, mut meta: ObjectMeta) -> ObjectMeta {
        let at = self.script.written(&meta.location).and_then(|at| DateTime::from_timestamp_micros(at.as_micros()));
        meta.last_modified = at.unwrap_or(meta.last_modified);
        meta
    }

    fn listing(&self, prefix: Option<&Path>, offset: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let (this, inner) = (self.clone(), Arc::clone(&self.inner));
        let (prefix, offset) = (prefix.cloned().unwrap_or_default(), offset.cloned());
        let listed = async move {
            let folder = prefix.clone();
            let act = async move {
                let listing = match offset {
                    Some(offset) => inner.list_with_offset(Some(&folder), &offset),
                    None => inner.list(Some(&folder)),
                };
                Ok(listing.collect::<Vec<_>>().await)
            };
            match this.call(Operation::List, &prefix, act.boxed()).await {
                Ok((listed, fault)) => this.shown(listed, fault),
                Err(error) => vec![Err(error)],
            }
        };
        stream::once(listed).flat_map(stream::iter).boxed()
    }

    /// What the caller sees of a listing.
    fn shown(&self, mut listed: Vec<Result<ObjectMeta>>, fault: Option<Fault>) -> Vec<Result<ObjectMeta>> {
        // In path order, as cloud stores return it.
        listed.sort_by(|one, other| {
            let path = |item: &Result<ObjectMeta>| item.as_ref().map(|meta| meta.location.clone()).ok();
            path(one).cmp(&path(other))
        });
        match fault {
            Some(Fault::Stale) => {
                listed.retain(|item| item.as_ref().map_or(true, |meta| self.script.is_shown(&meta.location)));
            }
            Some(Fault::Torn) => {
                listed.truncate(listed.len() / 2);
                listed.push(Err(failed("the listing broke off")));
            }
            _ => {}
        }
        listed.into_iter().map(|item| item.map(|meta| self.dated(meta))).collect()
    }
}

/// An object whose second half never arrives.
async fn torn(found: GetResult) -> Result<GetResult> {
    let (meta, range, attributes) = (found.meta.clone(), found.range.clone(), found.attributes.clone());
    let bytes = found.bytes().await?;
    let half = bytes.slice(..bytes.len() / 2);
    let payload = stream::iter([Ok(half), Err(failed("the object broke off"))]).boxed();
    Ok(GetResult { payload: GetResultPayload::Stream(payload), meta, range, attributes })
}

#[async_trait]
impl ObjectStore for Faulty {
    async fn put_opts(&self, location: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        let operation = Operation::of_put(location);
        assert!(operation == Operation::PutOther || options.mode == PutMode::Create, "{location} may be overwritten");
        let (inner, script, path) = (Arc::clone(&self.inner), Arc::clone(&self.script), location.clone());
        let act = async move {
            let put = inner.put_opts(&path, payload, options).await?;
            script.wrote(&path);
            Ok(put)
        };
        self.call(operation, location, act.boxed()).await.map(|(put, _)| put)
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.gate.alive().await;
        self.inner.put_multipart_opts(location, options).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let operation = if options.head { Operation::Head } else { Operation::Get };
        let (inner, path) = (Arc::clone(&self.inner), location.clone());
        let act = async move { inner.get_opts(&path, options).await };
        let (mut found, fault) = self.call(operation, location, act.boxed()).await?;
        found.meta = self.dated(found.meta);
        if fault == Some(Fault::Torn) { torn(found).await } else { Ok(found) }
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        let (inner, path, ranges) = (Arc::clone(&self.inner), location.clone(), ranges.to_vec());
        let act = async move { inner.get_ranges(&path, &ranges).await };
        self.call(Operation::Get, location, act.boxed()).await.map(|(found, _)| found)
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let this = self.clone();
        let deleted = locations.then(move |location| {
            let this = this.clone();
            async move {
                let location = location?;
                let (inner, path) = (Arc::clone(&this.inner), location.clone());
                let act = async move { inner.delete(&path).await };
                this.call(Operation::Delete, &location, act.boxed()).await.map(|_| location)
            }
        });
        deleted.boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.listing(prefix, None)
    }

    fn list_with_offset(&self, prefix: Option<&Path>, offset: &Path) -> BoxStream<'static, Result<ObjectMeta>> {
        self.listing(prefix, Some(offset))
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        let (inner, folder) = (Arc::clone(&self.inner), prefix.cloned().unwrap_or_default());
        let path = folder.clone();
        let act = async move { inner.list_with_delimiter(Some(&folder)).await };
        let (mut found, fault) = self.call(Operation::List, &path, act.boxed()).await?;
        if fault == Some(Fault::Torn) {
            return Err(failed("the listing broke off"));
        }
        found.objects = self.shown(found.objects.into_iter().map(Ok).collect(), fault).into_iter().flatten().collect();
        Ok(found)
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.gate.alive().await;
        self.inner.copy_opts(from, to, options).await
    }
}
