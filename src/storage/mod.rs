//! Where everything durable lives: one object store below `LAKEGRAM_DATA`, whatever its scheme.

mod bounded;
mod cloud;
mod copy;
mod disk;
mod fault;
mod folders;
mod key;
mod local;
mod mark;
mod open;
mod origin;
mod probe;
mod recent;
mod root;
mod root_state;
mod staging;
mod time;
mod upload;
mod walk;

use std::sync::Arc;

use object_store::ObjectStore;
use url::Url;

pub use self::key::StorageKey;
pub use self::local::DurableLocal;
pub use self::mark::{Beside, Mark};
pub use self::open::StorageLock;
pub use self::origin::origin;
use self::recent::Recent;
use self::root_state::RootState;

/// The object store below `LAKEGRAM_DATA`. Cheap to clone. All paths are relative to its root.
#[derive(Clone, Debug)]
pub struct Storage {
    store: Arc<dyn ObjectStore>,
    url: Url,
    local: Option<Arc<DurableLocal>>,
    /// `None` if every read must reach the store, so that tests can count and fail it.
    recent: Option<Arc<Recent>>,
    root_state: Arc<RootState>,
}

/// What a create-only put found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PutNew {
    /// The object exists and has the given bytes: created now, or by an earlier try whose response was lost.
    Created,
    /// Another object is there. Nothing was written.
    Taken,
}

#[cfg(test)]
pub(crate) mod tests;
#[cfg(test)]
pub(crate) use self::fault::disk_failure;
