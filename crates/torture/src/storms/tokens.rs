//! Threads that hold tokens in random orders, inside of each other, and wait with them.

use alloc::format;
use alloc::sync::Arc;
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

use dfly_lwkt::Cx;
use dfly_lwkt::token::Token;

use super::Twin;
use crate::crew::{Crew, Hand};

const TOKENS: usize = 6;
/// Holds inside of each other.
const DEPTH: u32 = 4;
const THREADS: u32 = 6;

struct Sea {
    tokens: [Token<Twin>; TOKENS],
    /// How often each has grown.
    grown: [AtomicU64; TOKENS],
}

/// What a thread holds, as sets of tokens.
#[derive(Clone, Copy, Default)]
struct Held {
    alone: u32,
    shared: u32,
}

pub(super) fn storm(crew: &mut Crew) {
    let sea = Arc::new(Sea {
        tokens: core::array::from_fn(|_| Token::named("torture", Twin::default())),
        grown: core::array::from_fn(|_| AtomicU64::new(0)),
    });
    for cpu in crew.cpus() {
        for _ in 0..THREADS {
            let sea = sea.clone();
            crew.add(cpu, "tokens".into(), move |cx, hand| {
                dive(cx, hand, &sea, Held::default(), DEPTH);
                hand.dawdle(cx);
            });
        }
    }
    crew.check(move |cx| {
        for (number, (token, grown)) in sea.tokens.iter().zip(&sea.grown).enumerate() {
            let (cx, twin) = cx.hold(token);
            let (Twin { left, right }, grown) = (twin.get(&cx), grown.load(Relaxed));
            if (*left, *right) != (grown, grown) {
                return Err(format!("token {number} has grown {grown} times, and is {left}, {right}"));
            }
        }
        Ok(())
    });
}

/// Holds a token, does something with it, and perhaps holds more.
fn dive(cx: &mut Cx<'_>, hand: &mut Hand, sea: &Sea, mut held: Held, depth: u32) {
    let number = hand.rng.below(TOKENS as u64) as usize;
    let (token, bit) = (&sea.tokens[number], 1 << number);
    // Alone inside of shared is refused, and shared inside of alone is alone.
    let shared = held.alone & bit == 0 && (held.shared & bit != 0 || hand.rng.once_in(3));
    if shared {
        held.shared |= bit;
        let (mut cx, twin) = cx.hold_shared(token);
        for _ in 0..2 {
            let seen = twin.get(&cx);
            let before = seen.left;
            hand.work();
            let same = seen.is_whole() && core::hint::black_box(seen.left) == before;
            hand.ensure(same, || format!("token {number} changes while it is shared"));
            deeper(&mut cx, hand, sea, held, depth);
        }
    } else {
        held.alone |= bit;
        let (mut cx, mut twin) = cx.hold(token);
        for _ in 0..2 {
            let whole = twin.get_mut(&mut cx).grow(|| hand.work());
            sea.grown[number].fetch_add(1, Relaxed);
            hand.ensure(whole, || format!("token {number} is held twice"));
            deeper(&mut cx, hand, sea, held, depth);
        }
    }
}

fn deeper(cx: &mut Cx<'_>, hand: &mut Hand, sea: &Sea, held: Held, depth: u32) {
    hand.dawdle(cx);
    if depth > 1 && hand.rng.once_in(2) {
        dive(cx, hand, sea, held, depth - 1);
    }
}
