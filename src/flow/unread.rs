//! Files of a table that have not been read, and which updates they may hold.

use serde_json::Value;

use crate::table::DataFile;

/// The column by whose bounds files are left out.
const BOUNDED_COLUMN: &str = "update_id";

/// A file whose rows are not known yet.
pub(super) struct Unread {
    pub(super) file: DataFile,
    /// Smallest and largest update in it; `None` where the log does not say.
    bounds: Option<(i64, i64)>,
}

impl Unread {
    pub(super) fn new(file: &DataFile) -> Self {
        let bound = |values: &Value| values.get(BOUNDED_COLUMN).and_then(Value::as_i64);
        let bounds = bound(&file.min_values).zip(bound(&file.max_values));
        // What else the log says of it is not needed any more, and there may be many.
        let file = DataFile { min_values: Value::Null, max_values: Value::Null, ..file.clone() };
        Self { file, bounds }
    }

    /// Whether it may hold one of these updates, which are sorted.
    pub(super) fn may_hold(&self, update_ids: &[i64]) -> bool {
        let Some((first, last)) = self.bounds else { return true };
        let at = update_ids.partition_point(|id| *id < first);
        update_ids.get(at).is_some_and(|id| *id <= last)
    }
}
