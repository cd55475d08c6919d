//! Random numbers that a seed repeats.

/// Marsaglia's xorshift64, with the seed scrambled so that small seeds differ.
#[derive(Clone, Copy, Debug)]
pub(super) struct XorShift(u64);

impl XorShift {
    pub(super) const fn new(seed: u64) -> Self {
        let mixed = (seed ^ 0x9e37_79b9_7f4a_7c15).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        // Zero is the one state that it never leaves.
        Self(if mixed == 0 { 1 } else { mixed })
    }

    pub(super) const fn next(&mut self) -> u64 {
        let mut x = self.0;
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        self.0 = x;
        // The low bits of the state alone are weak.
        x.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16
    }

    /// A number below `n`, zero if `n` is.
    pub(super) const fn below(&mut self, n: u64) -> u64 {
        let r = self.next();
        if n == 0 { 0 } else { r % n }
    }
}
