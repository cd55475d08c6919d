//! Tokens that belong to no object, for objects that come and go.

use core::cell::Cell;
use core::fmt;
use core::marker::PhantomData;
use core::ptr;

use super::Token;

/// `N` tokens, a power of two, of which each object uses the one that its address or key says.
///
/// For what cannot have a token of its own, or can be freed while somebody waits for it: the token is there before the
/// object and after it. Different objects may have the same token. So it is held exclusively only, because one thread
/// that shares one object and wants another one alone could meet itself; and holding two objects at once is fine, because
/// a token that a thread has is had again at once.
///
/// A pool token lends nothing: it puts in order what threads do to data that is elsewhere.
///
/// ```
/// # use dfly_lwkt::Cx;
/// use dfly_lwkt::token::TokenPool;
///
/// static VNODES: TokenPool<1024> = TokenPool::new("vnodes");
///
/// fn rename(cx: &mut Cx<'_>, from: u64, to: u64) {
///     let mut cx = cx.hold(VNODES.of_key(from)).0;
///     let _cx = cx.hold(VNODES.of_key(to)).0;
/// }
/// ```
pub struct TokenPool<const N: usize> {
    tokens: [Own; N],
}

/// On a line of its own: holders of different tokens do not disturb each other.
#[repr(align(64))]
struct Own(Token<Pooled>);

/// What a pool token is about: nothing that it could lend, and nothing that may be shared.
pub struct Pooled(PhantomData<Cell<()>>);

impl<const N: usize> TokenPool<N> {
    /// Free tokens, all of this name.
    #[cfg(not(loom))]
    pub const fn new(name: &'static str) -> Self {
        const { assert!(N.is_power_of_two(), "the number of tokens is a power of two") };
        let mut tokens = [const { Own(Token::new(Pooled(PhantomData))) }; N];
        let mut i = 0;
        while i < N {
            tokens[i] = Own(Token::named(name, Pooled(PhantomData)));
            i += 1;
        }
        Self { tokens }
    }

    /// Free tokens, all of this name.
    #[cfg(loom)]
    pub fn new(name: &'static str) -> Self {
        const { assert!(N.is_power_of_two(), "the number of tokens is a power of two") };
        Self { tokens: core::array::from_fn(|_| Own(Token::named(name, Pooled(PhantomData)))) }
    }

    /// The token of what lies at this address.
    #[inline]
    pub fn of<T: ?Sized>(&self, object: &T) -> &Token<Pooled> {
        self.of_key(ptr::from_ref(object).addr() as u64)
    }

    /// The token of whatever has this key.
    #[inline]
    pub fn of_key(&self, key: u64) -> &Token<Pooled> {
        // Two rounds of the golden ratio: any bits in which keys differ change the upper bits of the product.
        let first = key.wrapping_mul(0x9E37_79B9_7F4A_7C15);
        let hash = (first ^ first >> 32).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        let index = hash.checked_shr(u64::BITS - N.trailing_zeros()).unwrap_or(0);
        let Own(token) = &self.tokens[index as usize];
        token
    }

    /// How often a thread gave way for one of them. Wraps around.
    pub fn collisions(&self) -> usize {
        self.tokens.iter().fold(0, |sum, own| sum.wrapping_add(own.0.site().collisions()))
    }
}

impl<const N: usize> fmt::Debug for TokenPool<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenPool").field("tokens", &N).field("collisions", &self.collisions()).finish()
    }
}
