//! Bytes received and not yet durable, counted from the first chunk of a body.

use prometheus::IntGauge;

use crate::admission::{Admission, AdmissionPermit};

/// A lane's byte budget, and the gauge that shows it.
#[derive(Clone, Debug)]
pub(super) struct Intake {
    admission: Admission,
    in_flight: IntGauge,
}

/// A number of bytes of the budget. It travels with them into the batch and is returned after their put.
#[derive(Debug)]
pub(super) struct Admitted {
    permit: AdmissionPermit,
    in_flight: IntGauge,
}

impl Intake {
    pub(super) fn new(admission: Admission, in_flight: IntGauge) -> Self {
        Self { admission, in_flight }
    }

    /// `None` when the budget is used up for now.
    pub(super) fn try_admit(&self, bytes: usize) -> Option<Admitted> {
        let permit = self.admission.try_admit(bytes)?;
        self.in_flight.add(gauge_value(&permit));
        Some(Admitted { permit, in_flight: self.in_flight.clone() })
    }

    /// Adds `bytes`; false when the budget is used up for now.
    pub(super) fn try_grow(&self, held: &mut Admitted, bytes: usize) -> bool {
        let Some(more) = self.admission.try_admit(bytes) else { return false };
        self.in_flight.add(gauge_value(&more));
        held.permit.merge(more);
        true
    }
}

impl Admitted {
    pub(super) fn bytes(&self) -> usize {
        self.permit.bytes()
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        self.in_flight.sub(gauge_value(&self.permit));
    }
}

fn gauge_value(permit: &AdmissionPermit) -> i64 {
    i64::try_from(permit.bytes()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_gauge_shows_what_is_held() {
        let gauge = IntGauge::new("bytes", "bytes").unwrap();
        let intake = Intake::new(Admission::new(10), gauge.clone());
        let mut held = intake.try_admit(0).unwrap();
        assert!(intake.try_grow(&mut held, 6) && intake.try_grow(&mut held, 4));
        assert!(!intake.try_grow(&mut held, 1) && intake.try_admit(1).is_none());
        assert_eq!(gauge.get(), 10);
        drop(held);
        assert_eq!(gauge.get(), 0);
    }
}
