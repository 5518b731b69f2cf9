//! Finds strings and brackets in 64 bytes at once, without branches. Most of a file lies deep inside its records, and
//! going byte by byte mispredicts a branch at nearly every quote.

/// Bytes in a block.
pub(super) const BLOCK_BYTES: usize = 64;

const ONES: u64 = 0x0101_0101_0101_0101;
const LOW_BITS: u64 = 0x7f7f_7f7f_7f7f_7f7f;
/// Multiplying by this gathers the lowest bits of eight bytes in the highest byte.
const GATHER: u64 = 0x0102_0408_1020_4080;
/// The bit in which `[` differs from `{`, and `]` from `}`.
const CURLY: u64 = 0x20 * ONES;

/// What 64 bytes within a value contain: one bit per byte, the first byte lowest.
#[derive(Debug)]
pub(super) struct Block {
    /// Opening brackets outside strings.
    pub(super) opening: u64,
    /// Closing brackets outside strings.
    pub(super) closing: u64,
    pub(super) ends_in_string: bool,
    /// Whether the last byte escapes the next one.
    pub(super) ends_in_escape: bool,
}

impl Block {
    /// `None` if there is a backslash outside a string: that is not JSON, and not worth a special case here.
    pub(super) fn of(bytes: &[u8; BLOCK_BYTES], in_string: bool, in_escape: bool) -> Option<Self> {
        let [mut backslashes, mut quotes, mut opening, mut closing] = [0; 4];
        for (index, word) in bytes.as_chunks::<8>().0.iter().enumerate() {
            let (word, shift) = (u64::from_le_bytes(*word), 8 * index);
            backslashes |= equal_bytes(word, b'\\') << shift;
            quotes |= equal_bytes(word, b'"') << shift;
            opening |= equal_bytes(word | CURLY, b'{') << shift;
            closing |= equal_bytes(word | CURLY, b'}') << shift;
        }
        let (escaped, ends_in_escape) = escaped_bytes(backslashes, in_escape);
        let strings = within_quotes(quotes & !escaped, in_string);
        if backslashes & !strings != 0 {
            return None;
        }
        let ends_in_string = strings >> (BLOCK_BYTES - 1) == 1;
        Some(Self { opening: opening & !strings, closing: closing & !strings, ends_in_string, ends_in_escape })
    }
}

/// The bytes after an unescaped backslash, and whether the first byte after the block is one.
fn escaped_bytes(backslashes: u64, in_escape: bool) -> (u64, bool) {
    let mut escaped = u64::from(in_escape);
    let mut escaping = backslashes & !escaped;
    let mut escapes_next = false;
    while escaping != 0 {
        let backslash = escaping & escaping.wrapping_neg();
        escapes_next = backslash << 1 == 0;
        escaped |= backslash << 1;
        escaping &= !(backslash | backslash << 1);
    }
    (escaped, escapes_next)
}

/// The bytes inside strings, including the opening quote but not the closing one.
fn within_quotes(quotes: u64, in_string: bool) -> u64 {
    let mut inside = quotes;
    for distance in [1, 2, 4, 8, 16, 32] {
        inside ^= inside << distance;
    }
    if in_string { !inside } else { inside }
}

/// One bit for each of eight bytes: whether it equals this byte.
fn equal_bytes(word: u64, byte: u8) -> u64 {
    let difference = word ^ (ONES * u64::from(byte));
    let same = !(((difference & LOW_BITS) + LOW_BITS) | difference | LOW_BITS);
    (same >> 7).wrapping_mul(GATHER) >> 56
}
