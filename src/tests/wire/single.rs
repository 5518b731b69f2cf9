//! Single faults and what the client makes of them: there is one retry layer, and it is ours.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use object_store::path::Path;
use tokio::runtime::Handle;

use super::bucket::Bucket;
use super::connection::Wire;
use super::script::{Fault, Operation, WireScript};
use crate::clock::Clock;
use crate::error::ErrorKind;
use crate::storage::PutNew;

const BYTES: Bytes = Bytes::from_static(b"{\"a\": 1}\n");

fn wire() -> Wire {
    let clock = Clock::fast(200);
    let (bucket, script) = (Arc::new(Bucket::new(&clock)), Arc::new(WireScript::new(0, 0)));
    Wire { bucket, script, clock, network: Handle::current() }
}

fn segment() -> Path {
    Path::from("raw/telegram/42/lane/2026-01-01/00/00001767225600000000.json")
}

#[tokio::test]
async fn a_put_whose_answer_is_lost_is_sent_once_and_read_back() {
    for fault in [Fault::Lost, Fault::InternalDone] {
        let wire = wire();
        let storage = wire.open();
        wire.script.plan(Operation::PutSegment, [fault]);
        assert_eq!(storage.put_new(&segment(), BYTES).await.unwrap(), PutNew::Created, "{fault:?}");
        assert_eq!(wire.script.take_requests(), [Operation::PutSegment, Operation::Get], "{fault:?}");
    }
}

#[tokio::test]
async fn a_put_that_did_nothing_is_sent_once_and_said_to_have_failed() {
    for fault in [Fault::Connect, Fault::Reset, Fault::Internal, Fault::SlowDown, Fault::Busy, Fault::Conflict] {
        let wire = wire();
        let storage = wire.open();
        wire.script.plan(Operation::PutSegment, [fault]);
        let error = storage.put_new(&segment(), BYTES).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{fault:?}: {error}");
        assert_eq!(wire.script.take_requests(), [Operation::PutSegment, Operation::Get], "{fault:?}");
        assert!(wire.bucket.contents().is_empty());
    }
}

#[tokio::test]
async fn a_put_whose_reading_back_fails_is_unknown() {
    for fault in [Fault::Reset, Fault::SlowDown, Fault::Torn] {
        let wire = wire();
        let storage = wire.open();
        wire.script.plan(Operation::PutSegment, [Fault::Lost]);
        wire.script.plan(Operation::Get, [fault]);
        let error = storage.put_new(&segment(), BYTES).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unknown, "{fault:?}: {error}");
        assert_eq!(storage.put_new(&segment(), BYTES).await.unwrap(), PutNew::Created);
    }
}

#[tokio::test]
async fn reads_and_deletions_are_sent_once() {
    let wire = wire();
    let (storage, reader) = (wire.open(), wire.open());
    storage.put_new(&segment(), BYTES).await.unwrap();
    wire.script.take_requests();
    for fault in [Fault::Connect, Fault::Reset, Fault::Internal, Fault::SlowDown, Fault::Busy, Fault::Torn] {
        wire.script.plan(Operation::Get, [fault]);
        wire.script.plan(Operation::List, [fault]);
        wire.script.plan(Operation::Delete, [fault]);
        assert_eq!(reader.get(&segment()).await.unwrap_err().kind(), ErrorKind::Unavailable, "{fault:?}");
        let listed = reader.list_after(&Path::from("raw"), None, 10).await;
        assert_eq!(listed.unwrap_err().kind(), ErrorKind::Unavailable, "{fault:?}");
        assert!(storage.delete(&segment()).await.is_err(), "{fault:?}");
        assert_eq!(wire.script.take_requests(), [Operation::Get, Operation::List, Operation::Delete], "{fault:?}");
    }
    wire.script.plan(Operation::Delete, [Fault::Inside]);
    assert!(storage.delete(&segment()).await.is_err(), "an error in an answer of 200 is one");
    storage.delete(&segment()).await.unwrap();
    assert_eq!(reader.head(&segment()).await.unwrap(), None);
}

#[tokio::test]
async fn a_store_that_puts_over_what_is_there_is_found_and_one_that_fails_is_not_blamed() {
    let wire = wire();
    wire.bucket.ignores_conditions.store(true, Ordering::Relaxed);
    for _ in 0..2 {
        let error = wire.open().check_creates().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Configuration);
        assert!(error.to_string().contains("s3://lake/in/here ignores If-None-Match"), "{error}");
    }
    wire.bucket.ignores_conditions.store(false, Ordering::Relaxed);
    let storage = wire.open();
    wire.script.plan(Operation::Get, [Fault::Internal]);
    wire.script.take_requests();
    storage.check_creates().await.unwrap_err();
    storage.check_creates().await.unwrap();
    assert!(wire.bucket.contents().is_empty(), "nothing of it stays");
    wire.script.take_requests();
    storage.check_creates().await.unwrap();
    assert!(wire.script.take_requests().is_empty(), "once is enough");
}

#[tokio::test]
async fn listings_go_on_over_pages_and_from_any_key() {
    let wire = wire();
    let storage = wire.open();
    let name =
        |number: u64| Path::from(format!("raw/telegram/42/lane/2026-01-01/{:02}/{number:020}.json", number / 20));
    for number in 0..60 {
        storage.put_new(&name(number), BYTES).await.unwrap();
    }
    let all = storage.list_after(&Path::from("raw"), None, 1_000).await.unwrap();
    assert!(all.iter().map(|meta| meta.location.clone()).eq((0..60).map(name)));
    let some = storage.list_after(&Path::from("raw"), Some(&name(31)), 20).await.unwrap();
    assert!(some.iter().map(|meta| meta.location.clone()).eq((32..52).map(name)));
    let folders = storage.list_folders(&Path::from("raw/telegram/42/lane/2026-01-01")).await.unwrap();
    assert_eq!(folders.len(), 3);
}
