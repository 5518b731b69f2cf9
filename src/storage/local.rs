//! The durable local store: object_store's trait over a folder, with every fsync that a power cut asks for.

/// A folder as an object store whose puts survive a power cut.
#[derive(Debug)]
pub struct DurableLocal;
