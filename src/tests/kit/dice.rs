//! Repeatable randomness: everything in a run follows from its seed.

/// A generator (SplitMix64, <https://prng.di.unimi.it/splitmix64.c>). Clones continue identically.
#[derive(Clone, Debug)]
pub(in crate::tests) struct Dice(u64);

impl Dice {
    pub(in crate::tests) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Separate dice for one thing in a run, so that what happens elsewhere does not change how they fall.
    pub(in crate::tests) fn of(seed: u64, thing: &str, number: u64) -> Self {
        let mut state = seed ^ 0x6c61_6b65_6772_616d;
        for byte in thing.bytes().chain(number.to_le_bytes()) {
            state = Self(state ^ u64::from(byte)).next();
        }
        Self(state)
    }

    pub(in crate::tests) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^ (bits >> 31)
    }

    /// Below `limit`, which is not zero.
    pub(in crate::tests) fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    /// True this many times in a thousand.
    pub(in crate::tests) fn per_mille(&mut self, chance: u64) -> bool {
        self.below(1_000) < chance
    }

    pub(in crate::tests) fn pick<'a, T>(&mut self, choice: &'a [T]) -> &'a T {
        let index = self.below(choice.len() as u64);
        &choice[usize::try_from(index).unwrap()]
    }
}
