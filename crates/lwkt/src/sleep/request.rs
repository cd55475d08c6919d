//! What wakers ask of a CPU: a ring that anybody writes, at any instruction, and the CPU empties.

// What only the owner touches is on `core`'s atomic: no order hangs on it.
use core::sync::atomic::AtomicUsize as Owned;

use dfly_hal::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};

use super::ident::{Channel, Domain, Ident};

/// How many wake-ups may wait for a CPU to look. One more wakes all its sleepers.
pub(super) const ROOM: usize = if cfg!(loom) { 2 } else { 64 };

/// A wake-up for the sleepers of one CPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Request {
    pub(crate) channel: Channel,
    pub(crate) count: Count,
    /// Whoever asks is on another CPU, or on none.
    pub(crate) from_elsewhere: bool,
}

/// How many sleepers a wake-up is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Count {
    All,
    One,
}

/// Requests, first come first served.
#[repr(align(128))]
pub(super) struct Requests {
    /// How many were begun, ever. It and all that follows from it wraps.
    begun: AtomicUsize,
    slots: [Slot; ROOM],
    /// There was no room for one.
    overflow: AtomicBool,
    /// How many were taken, ever.
    taken: Owned,
}

struct Slot {
    /// n: free for the request n. n + 1: it is here.
    turn: AtomicUsize,
    ident: AtomicUsize,
    rest: AtomicU32,
}

impl Requests {
    pub(super) fn new() -> Self {
        Self::starting_at(0)
    }

    fn starting_at(first: usize) -> Self {
        const { assert!(ROOM.is_power_of_two()) };
        let slot = |i: usize| {
            // The slot i is for the first number from `first` on that is i, in turns of ROOM.
            let turn = first.wrapping_add(i.wrapping_sub(first) % ROOM);
            Slot { turn: AtomicUsize::new(turn), ident: AtomicUsize::new(0), rest: AtomicU32::new(0) }
        };
        Self {
            begun: AtomicUsize::new(first),
            slots: core::array::from_fn(slot),
            overflow: AtomicBool::new(false),
            taken: Owned::new(first),
        }
    }

    fn slot(&self, number: usize) -> &Slot {
        &self.slots[number % ROOM]
    }

    /// Adds a request. From any context; never waits. One read-modify-write where nobody else does the same.
    pub(super) fn ask(&self, request: Request) {
        let mut number = self.begun.load(Ordering::Relaxed);
        loop {
            let slot = self.slot(number);
            // Acquire: it was read before it is written again (pairs with the Release in `take`).
            let turn = slot.turn.load(Ordering::Acquire);
            if turn == number {
                let next = number.wrapping_add(1);
                match self.begun.compare_exchange(number, next, Ordering::Relaxed, Ordering::Relaxed) {
                    Ok(_) => {
                        let (ident, rest) = request.encode();
                        slot.ident.store(ident, Ordering::Relaxed);
                        slot.rest.store(rest, Ordering::Relaxed);
                        // Release: whoever takes it sees it, and what the waker did before (pairs with `take`).
                        slot.turn.store(next, Ordering::Release);
                        return;
                    }
                    Err(now) => number = now,
                }
            } else if number.wrapping_sub(turn) <= ROOM {
                // The last round's is still there, or somebody whom this one may have interrupted still writes it. Release:
                // as for a request.
                self.overflow.store(true, Ordering::Release);
                return;
            } else {
                number = self.begun.load(Ordering::Relaxed);
            }
        }
    }

    /// The next request. By the owner only.
    #[inline]
    pub(super) fn take(&self) -> Option<Request> {
        let number = self.taken.load(Ordering::Relaxed);
        let slot = self.slot(number);
        let next = number.wrapping_add(1);
        // Acquire: see `ask`.
        if slot.turn.load(Ordering::Acquire) != next {
            return None;
        }
        let request = Request::decode(slot.ident.load(Ordering::Relaxed), slot.rest.load(Ordering::Relaxed));
        // Release: see `ask`.
        slot.turn.store(number.wrapping_add(ROOM), Ordering::Release);
        self.taken.store(next, Ordering::Relaxed);
        Some(request)
    }

    /// Whether a request had no room since the last call. By the owner only.
    #[inline]
    pub(super) fn take_overflow(&self) -> bool {
        // Acquire: see `ask`.
        self.overflow.load(Ordering::Relaxed) && self.overflow.swap(false, Ordering::Acquire)
    }

    /// Whether there is something to take.
    #[inline]
    pub(super) fn is_asked(&self) -> bool {
        let number = self.taken.load(Ordering::Relaxed);
        self.slot(number).turn.load(Ordering::Relaxed) == number.wrapping_add(1)
            || self.overflow.load(Ordering::Relaxed)
    }
}

impl Request {
    fn encode(self) -> (usize, u32) {
        let Channel { ident: Ident(ident), domain: Domain(domain) } = self.channel;
        let one = u32::from(self.count == Count::One);
        (ident, u32::from(domain) << 2 | one << 1 | u32::from(self.from_elsewhere))
    }

    fn decode(ident: usize, rest: u32) -> Self {
        let domain = Domain((rest >> 2) as u16);
        let count = if rest & 2 == 0 { Count::All } else { Count::One };
        Self { channel: Ident(ident).in_domain(domain), count, from_elsewhere: rest & 1 != 0 }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    fn request(n: usize) -> Request {
        let count = if n.is_multiple_of(3) { Count::One } else { Count::All };
        let channel = Ident(n).in_domain(Domain(n as u16));
        Request { channel, count, from_elsewhere: n.is_multiple_of(2) }
    }

    #[test]
    fn requests_come_in_order_also_where_their_numbers_wrap() {
        for first in [0, 1, usize::MAX - 5, usize::MAX - ROOM] {
            let requests = Requests::starting_at(first);
            assert_eq!((requests.take(), requests.is_asked()), (None, false));
            let mut next = 0;
            for round in 0..3 * ROOM {
                requests.ask(request(2 * round));
                requests.ask(request(2 * round + 1));
                assert!(requests.is_asked());
                for _ in 0..2 {
                    assert_eq!(requests.take(), Some(request(next)));
                    next += 1;
                }
            }
            assert_eq!((requests.take(), requests.take_overflow()), (None, false));
        }
    }

    #[test]
    fn nobody_waits_for_one_that_is_half_written() {
        let requests = Requests::starting_at(3);
        // Its writer has been interrupted.
        requests.begun.store(4, Ordering::Relaxed);
        (1..=ROOM).for_each(|n| requests.ask(request(n)));
        assert!(requests.take_overflow());
        assert_eq!(requests.take(), None);
        // It goes on.
        requests.slot(3).turn.store(4, Ordering::Relaxed);
        assert_eq!(core::iter::from_fn(|| requests.take()).count(), ROOM);
    }

    #[test]
    fn what_has_no_room_is_told_once_and_the_rest_is_whole() {
        let requests = Requests::starting_at(usize::MAX - 7);
        (0..ROOM).for_each(|n| requests.ask(request(n)));
        assert!(!requests.take_overflow());
        requests.ask(request(1000));
        assert_eq!((0..ROOM).map(|_| requests.take()).filter(Option::is_none).count(), 0);
        assert!(requests.is_asked());
        assert!(requests.take_overflow());
        assert_eq!((requests.take_overflow(), requests.is_asked()), (false, false));
        requests.ask(request(7));
        assert_eq!(requests.take(), Some(request(7)));
    }
}
