//! Byte permits: bytes received and not yet durable are bounded, and callers beyond the limit are turned away.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// A budget of bytes in memory.
#[derive(Clone, Debug)]
pub struct Admission {
    budget: Arc<Semaphore>,
    limit_bytes: usize,
}

/// A number of bytes of the budget, returned on drop. It travels with the bytes it stands for.
#[derive(Debug)]
pub struct AdmissionPermit {
    permit: OwnedSemaphorePermit,
}

impl Admission {
    /// A budget of `limit_bytes`.
    pub fn new(limit_bytes: usize) -> Self {
        let limit_bytes = limit_bytes.min(Semaphore::MAX_PERMITS).min(u32::MAX as usize);
        Self { budget: Arc::new(Semaphore::new(limit_bytes)), limit_bytes }
    }

    /// A permit for `bytes`, or `None` when the budget is used up for now.
    pub fn try_admit(&self, bytes: usize) -> Option<AdmissionPermit> {
        let bytes = u32::try_from(bytes).ok()?;
        let permit = Arc::clone(&self.budget).try_acquire_many_owned(bytes).ok()?;
        Some(AdmissionPermit { permit })
    }

    /// Bytes currently admitted.
    pub fn used_bytes(&self) -> usize {
        self.limit_bytes - self.budget.available_permits()
    }
}

impl AdmissionPermit {
    /// How many bytes it stands for.
    pub fn bytes(&self) -> usize {
        self.permit.num_permits()
    }

    /// Takes over the bytes of `other`, which belongs to the same budget.
    pub fn merge(&mut self, other: Self) {
        self.permit.merge(other.permit);
    }

    /// Gives back all but `bytes`.
    pub fn shrink_to(&mut self, bytes: usize) {
        let surplus = self.bytes().saturating_sub(bytes);
        drop(self.permit.split(surplus));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_budget_refuses_until_a_permit_is_dropped() {
        let admission = Admission::new(10);
        let mut first = admission.try_admit(8).unwrap();
        assert!(admission.try_admit(3).is_none());
        first.shrink_to(5);
        let second = admission.try_admit(5).unwrap();
        first.merge(second);
        assert_eq!((first.bytes(), admission.used_bytes()), (10, 10));
        drop(first);
        assert_eq!(admission.used_bytes(), 0);
    }
}
