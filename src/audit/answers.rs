//! Compares silver rows with bronze rows: no update twice, and exactly one row per attempt.

use super::Scope;
use super::keys::{BronzeKey, SilverKey};
use super::missing::Missing;
use super::redelivery::apart;
use super::report::{Check, Finding};
use super::source::Source;

/// Finds updates with two rows within the redelivery window.
pub(super) fn check_unique(scope: &Scope<'_>, rows: &[BronzeKey], check: &mut Check) {
    check.checked += rows.iter().filter(|row| scope.holds(row.received)).count() as u64;
    for pair in rows.windows(2) {
        let [one, other] = pair else { continue };
        let same = one.bot_id == other.bot_id && one.update_id == other.update_id;
        if same && apart(one.received, other.received) <= scope.window() && scope.holds(other.received) {
            check.broken(bronze_finding("an update has two bronze rows", other));
        }
    }
}

/// Compares silver rows with bronze rows, both sorted; returns the bronze rows without a silver row.
pub(super) fn check_answers(
    scope: &Scope<'_>,
    bronze: (&[BronzeKey], &Source),
    mut silver: &[SilverKey],
    check: &mut Check,
) -> Vec<Missing> {
    let mut missing = Vec::new();
    for row in bronze.0.chunk_by(same_row).filter_map(<[BronzeKey]>::first) {
        if !scope.holds(row.received) {
            continue;
        }
        check.checked += 1;
        let key = (row.bot_id, row.update_id, row.received);
        let (before, rest) = silver.split_at(silver.partition_point(|silver| silver.update() < key));
        orphans(before, bronze.1, check);
        let (mine, rest) = rest.split_at(rest.partition_point(|silver| silver.update() == key));
        silver = rest;
        doubles(mine, check);
        if mine.iter().all(|silver| silver.attempt != 1) {
            let (bot_id, update_id, received) = key;
            missing.push(Missing { bot_id, update_id, received, attempt: 0, part: 0, is_fresh: row.is_fresh });
        }
    }
    orphans(silver, bronze.1, check);
    missing
}

fn same_row(one: &BronzeKey, other: &BronzeKey) -> bool {
    (one.bot_id, one.update_id, one.received) == (other.bot_id, other.update_id, other.received)
}

fn doubles(rows: &[SilverKey], check: &mut Check) {
    for pair in rows.windows(2) {
        if let [one, other] = pair
            && one.attempt == other.attempt
        {
            check.broken(other.finding("an attempt has two silver rows"));
        }
    }
}

fn orphans(rows: &[SilverKey], bronze: &Source, check: &mut Check) {
    for row in rows {
        if bronze.is_blind((row.received, row.received)) {
            check.unproven(1, "a bronze file that may have the row cannot be read");
        } else if bronze.table.is_none() {
            check.unproven(1, "the bronze table does not exist");
        } else {
            check.broken(row.finding("a silver row has no bronze row"));
        }
    }
}

fn bronze_finding(what: &str, row: &BronzeKey) -> Finding {
    Finding {
        bot_id: Some(row.bot_id),
        update_id: Some(row.update_id),
        received: Some(row.received),
        ..Finding::new(what)
    }
}

impl SilverKey {
    fn update(&self) -> (i64, i64, crate::clock::Timestamp) {
        (self.bot_id, self.update_id, self.received)
    }

    fn finding(&self, what: &str) -> Finding {
        Finding {
            bot_id: Some(self.bot_id),
            update_id: Some(self.update_id),
            attempt: Some(i64::from(self.attempt)),
            received: Some(self.received),
            ..Finding::new(what)
        }
    }
}
