//! The sleepers of one CPU. What is here is touched by that CPU only, in thread or idle context, without preemption; it
//! is on atomics that cost nothing, so that a mistake about that would be a mistake and not undefined.

use alloc::boxed::Box;
// `core`'s, not the facade's: no order hangs on them, and a model need not look at them.
use core::sync::atomic::{AtomicBool, AtomicU8, AtomicU16, AtomicUsize, Ordering::Relaxed};

use super::BUCKETS;
use super::ident::{Channel, Domain, Ident};
use super::request::{Count, ROOM, Request, Requests};
use crate::sched::link::OwnRef;

/// What sleeps.
pub(crate) trait Sleeper: Sync + Sized + 'static {
    fn place(&self) -> &Place<Self>;

    /// It is to run at once when it is woken, and may preempt who runs.
    fn is_urgent(&self) -> bool;
}

/// The part of a thread that sleeps. The numbered transitions are in DESIGN.md.
pub(crate) struct Place<T: Sleeper> {
    state: AtomicU8,
    /// It was urgent when it entered.
    urgent: AtomicBool,
    ident: AtomicUsize,
    domain: AtomicU16,
    previous: OwnRef<T>,
    next: OwnRef<T>,
}

/// On no list.
const OUT: u8 = 0;
/// On a list, and its thread has not begun to sleep.
const INTERLOCKED: u8 = 1;
/// On a list, and its thread sleeps, or is about to.
const ASLEEP: u8 = 2;
/// On no list any more: a wake-up has taken it out.
const WOKEN: u8 = 3;

impl<T: Sleeper> Place<T> {
    pub(crate) fn new() -> Self {
        Self {
            state: AtomicU8::new(OUT),
            urgent: AtomicBool::new(false),
            ident: AtomicUsize::new(0),
            domain: AtomicU16::new(0),
            previous: OwnRef::none(),
            next: OwnRef::none(),
        }
    }

    /// (2) INTERLOCKED to ASLEEP, by the thread.
    pub(crate) fn fall_asleep(&self) {
        if self.state.load(Relaxed) == INTERLOCKED {
            self.state.store(ASLEEP, Relaxed);
        }
    }

    pub(super) fn is_woken(&self) -> bool {
        self.state.load(Relaxed) == WOKEN
    }

    fn is_listed(&self) -> bool {
        matches!(self.state.load(Relaxed), INTERLOCKED | ASLEEP)
    }

    fn channel(&self) -> Channel {
        Ident(self.ident.load(Relaxed)).in_domain(Domain(self.domain.load(Relaxed)))
    }

    /// What the thread sleeps on, as far as others can tell.
    pub(crate) fn sleeps_on(&self) -> Option<Channel> {
        (self.state.load(Relaxed) == ASLEEP).then(|| self.channel())
    }
}

/// The sleepers of one CPU, and what others ask of them.
pub(crate) struct Sleepers<T: Sleeper> {
    requests: Requests,
    /// How many on the lists are urgent.
    urgent: AtomicUsize,
    buckets: Box<[Bucket<T>]>,
}

/// Sleepers in order of arrival.
struct Bucket<T: Sleeper> {
    first: OwnRef<T>,
    last: OwnRef<T>,
}

impl<T: Sleeper> Bucket<T> {
    fn new() -> Self {
        Self { first: OwnRef::none(), last: OwnRef::none() }
    }

    fn push(&self, node: &'static T) {
        let place = node.place();
        let last = self.last.get();
        place.previous.set(last);
        place.next.set(None);
        last.map_or(&self.first, |last| &last.place().next).set(Some(node));
        self.last.set(Some(node));
    }

    fn unlink(&self, node: &'static T) {
        let place = node.place();
        let (previous, next) = (place.previous.get(), place.next.get());
        previous.map_or(&self.first, |previous| &previous.place().next).set(next);
        next.map_or(&self.last, |next| &next.place().previous).set(previous);
    }

    fn is_empty(&self) -> bool {
        self.first.get().is_none()
    }
}

/// From anybody.
impl<T: Sleeper> Sleepers<T> {
    pub(crate) fn new() -> Self {
        let buckets = (0..BUCKETS).map(|_| Bucket::new()).collect();
        Self { requests: Requests::new(), urgent: AtomicUsize::new(0), buckets }
    }

    /// Asks for a wake-up. From any context.
    pub(super) fn ask(&self, request: Request) {
        self.requests.ask(request);
    }

    /// Whether one of the sleepers may be urgent. For a waker, behind the fence that follows what it asks: a sleeper that is
    /// not seen here sees what the waker did before.
    pub(crate) fn any_urgent(&self) -> bool {
        self.urgent.load(Relaxed) != 0
    }

    /// Whether somebody has asked.
    #[inline]
    pub(crate) fn is_asked(&self) -> bool {
        self.requests.is_asked()
    }
}

/// By the CPU.
impl<T: Sleeper> Sleepers<T> {
    /// (1) OUT or WOKEN to INTERLOCKED; returns whether the bucket was empty.
    pub(crate) fn enter(&self, node: &'static T, channel: Channel) -> bool {
        let bucket = &self.buckets[channel.bucket()];
        let was_empty = bucket.is_empty();
        let place = node.place();
        place.ident.store(channel.ident.0, Relaxed);
        place.domain.store(channel.domain.0, Relaxed);
        place.state.store(INTERLOCKED, Relaxed);
        place.urgent.store(node.is_urgent(), Relaxed);
        self.urgent.store(self.urgent.load(Relaxed) + usize::from(node.is_urgent()), Relaxed);
        bucket.push(node);
        was_empty
    }

    /// (4) To OUT.
    pub(crate) fn leave(&self, node: &'static T) -> Left {
        let place = node.place();
        let left = if place.is_listed() {
            let bucket = place.channel().bucket();
            self.unlink(node);
            if self.buckets[bucket].is_empty() { Left::Emptied(bucket) } else { Left::Listed }
        } else if place.is_woken() {
            Left::Woken
        } else {
            Left::WasOut
        };
        place.state.store(OUT, Relaxed);
        left
    }

    /// Does what was asked: `wake` is called for sleepers that are to run and says whether somebody elsewhere asked, `emptied` for buckets that are empty now. At
    /// most as many requests as there is room for; the caller comes again.
    #[inline]
    pub(crate) fn serve(&self, wake: &mut dyn FnMut(&'static T, bool), emptied: &mut dyn FnMut(usize)) {
        if self.is_asked() {
            self.serve_all(wake, emptied);
        }
    }

    #[cold]
    fn serve_all(&self, wake: &mut dyn FnMut(&'static T, bool), emptied: &mut dyn FnMut(usize)) {
        if self.requests.take_overflow() {
            // Somebody is not told what was asked, so everybody is woken.
            for (number, bucket) in self.buckets.iter().enumerate().filter(|(_, bucket)| !bucket.is_empty()) {
                let mut next = bucket.first.get();
                while let Some(node) = next {
                    next = node.place().next.get();
                    self.wake(node, true, wake);
                }
                emptied(number);
            }
        }
        for request in core::iter::from_fn(|| self.requests.take()).take(ROOM) {
            self.serve_one(&request, wake, emptied);
        }
    }

    fn serve_one(
        &self,
        request: &Request,
        wake: &mut dyn FnMut(&'static T, bool),
        emptied: &mut dyn FnMut(usize),
    ) {
        let number = request.channel.bucket();
        let bucket = &self.buckets[number];
        let mut next = bucket.first.get();
        if next.is_none() {
            return;
        }
        while let Some(node) = next {
            next = node.place().next.get();
            // One that does not sleep yet looks again by itself, and is not the one of a wake-up for one.
            let slept =
                node.place().channel() == request.channel && self.wake(node, request.from_elsewhere, wake);
            if slept && request.count == Count::One {
                break;
            }
        }
        if bucket.is_empty() {
            emptied(number);
        }
    }

    fn unlink(&self, node: &'static T) {
        let urgent = usize::from(node.place().urgent.load(Relaxed));
        self.urgent.store(self.urgent.load(Relaxed).saturating_sub(urgent), Relaxed);
        self.buckets[node.place().channel().bucket()].unlink(node);
    }

    /// (3) INTERLOCKED or ASLEEP to WOKEN; returns whether it was asleep.
    fn wake(&self, node: &'static T, from_elsewhere: bool, wake: &mut dyn FnMut(&'static T, bool)) -> bool {
        let place = node.place();
        let was_asleep = place.state.load(Relaxed) == ASLEEP;
        self.unlink(node);
        place.state.store(WOKEN, Relaxed);
        if was_asleep {
            wake(node, from_elsewhere);
        }
        was_asleep
    }
}

/// What a place was that is OUT now.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Left {
    /// OUT before.
    WasOut,
    /// Taken out by a wake-up before.
    Woken,
    /// On a list, where others are left.
    Listed,
    /// The last one of this bucket.
    Emptied(usize),
}
