//! Many threads, many tokens, in random order: somebody always gets on, and nobody has what another one has.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use dfly_hal::{Clock, CpuId, Instant, ThreadWait, block_on, sleep_until};
use dfly_lwkt::host::Machine;
use dfly_lwkt::token::Token;
use dfly_lwkt::{Config, Cx, Priority, Spec};

/// Miri is some thousand times slower.
const CPUS: u32 = 3;
const THREADS: u32 = if cfg!(miri) { 3 } else { 12 };
const ROUNDS: u32 = if cfg!(miri) { 3 } else { 2000 };
const TOKENS: usize = 5;

/// A token's data says itself who has it.
#[derive(Default)]
struct Guarded {
    writer: AtomicU32,
    readers: AtomicU32,
    /// Not atomic: whoever has the token alone adds to it.
    rounds: u64,
}

struct World {
    tokens: [Token<Guarded>; TOKENS],
    steps: AtomicU64,
}

/// xorshift64*: the same for every run of a seed.
struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) % n
    }
}

/// Takes a few tokens more, each inside of the others, then waits or does not.
fn nest(cx: &mut Cx<'_>, world: &World, random: &mut Random, depth: u32, shared: u32) {
    world.steps.fetch_add(1, Ordering::Relaxed);
    if depth == 0 {
        return pause(cx, random);
    }
    let which = random.below(TOKENS as u64) as usize;
    let token = &world.tokens[which];
    // Not alone inside of a share of one's own.
    let share = random.below(3) == 0 || shared & 1 << which != 0;
    if share {
        let (mut cx, held) = cx.hold_shared(token);
        let data = held.get(&cx);
        data.readers.fetch_add(1, Ordering::Relaxed);
        // Nobody has it alone, unless it is this thread, which has it alone further out.
        std::hint::spin_loop();
        data.readers.fetch_sub(1, Ordering::Relaxed);
        let rounds = data.rounds;
        nest(&mut cx, world, random, depth - 1, shared | 1 << which);
        assert!(held.get(&cx).rounds >= rounds);
    } else {
        let (mut cx, mut held) = cx.hold(token);
        alone(held.get_mut(&mut cx));
        nest(&mut cx, world, random, depth - 1, shared);
        alone(held.get_mut(&mut cx));
    }
}

fn alone(data: &mut Guarded) {
    assert_eq!(data.writer.swap(1, Ordering::Relaxed), 0, "two have it alone");
    assert_eq!(data.readers.load(Ordering::Relaxed), 0, "somebody reads");
    data.rounds += 1;
    assert_eq!(data.writer.swap(0, Ordering::Relaxed), 1);
}

fn pause(cx: &mut Cx<'_>, random: &mut Random) {
    match random.below(8) {
        0 => {
            let clock = cx.scheduler().platform();
            let soon = clock.now().saturating_add(Duration::from_micros(random.below(50)));
            block_on(cx, sleep_until(clock, soon), None).unwrap();
        }
        1..=3 => cx.yield_now(),
        // Others want what it holds, and do not get it.
        4 => (0..random.below(3)).for_each(|_| std::thread::yield_now()),
        _ => {}
    }
}

fn torture(seed: u64) {
    let machine = Machine::start(CPUS, Config::default()).unwrap();
    let world =
        Arc::new(World { tokens: std::array::from_fn(|_| Token::default()), steps: AtomicU64::new(0) });
    let threads: Vec<_> = (0..THREADS)
        .map(|i| {
            let world = world.clone();
            let priority = Priority::new(10 + (i % 3) as u8).unwrap();
            let thread = move |cx: &mut Cx<'_>| {
                let mut random = Random(seed + u64::from(i));
                for _ in 0..ROUNDS {
                    let depth = 1 + random.below(4) as u32;
                    nest(cx, &world, &mut random, depth, 0);
                }
            };
            let spec = Spec::new("torturer").priority(priority);
            machine.scheduler().spawn(CpuId(i % CPUS), spec, thread).unwrap()
        })
        .collect();
    let mut seen = (world.steps.load(Ordering::Relaxed), now());
    for thread in threads {
        while !thread.is_finished() {
            std::thread::sleep(Duration::from_millis(1));
            let steps = world.steps.load(Ordering::Relaxed);
            if steps != seen.0 {
                seen = (steps, now());
            }
            let stuck = now().saturating_since(seen.1);
            assert!(stuck < Duration::from_secs(60), "nobody gets on: {:?}", world.tokens);
        }
        thread.join(&mut ThreadWait::new()).unwrap();
    }
    let held = |token: &Token<Guarded>| token.holders() != dfly_lwkt::lock::Holders::Nobody;
    assert!(!world.tokens.iter().any(held));
}

fn now() -> Instant {
    dfly_hal::host::HostClock::new().now()
}

#[test]
fn threads_that_take_tokens_in_random_order_always_get_on() {
    torture(0x5EED_0001);
}

#[test]
#[ignore = "long: cargo test -p dfly-lwkt --release --features std --test token -- --ignored torture"]
fn torture_for_a_minute() {
    let begin = now();
    let mut seed = 1 << 20;
    while now().saturating_since(begin) < Duration::from_secs(60) {
        torture(seed);
        seed += 1000;
    }
}
