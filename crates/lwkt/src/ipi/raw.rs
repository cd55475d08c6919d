//! All unsafe code of the IPI queues: a closure in two words, a queue of them, and a borrowed function that other CPUs
//! call. None of the three trusts its callers: whatever they do, in whatever context, memory stays whole.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::mem::{ManuallyDrop, MaybeUninit, align_of, size_of};
use core::ptr::NonNull;

use dfly_hal::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use dfly_hal::sync::cell::UnsafeCell;
use dfly_hal::sync::hint;

use super::cx::IrqCx;
use super::mask::MAX_CPUS;

/// What a closure may capture: two words.
type Words = [MaybeUninit<usize>; 2];

/// A closure to be called on another CPU, at most once. Dropped uncalled, it drops what it captured.
pub(super) struct Message {
    /// Calls what is in `words`, or with no context drops it; not valid any more afterwards.
    run: unsafe fn(*mut Words, Option<&IrqCx<'_>>),
    words: Words,
}

impl Message {
    #[inline]
    pub(super) fn new<F: FnOnce(&IrqCx<'_>) + Send + 'static>(f: F) -> Self {
        const {
            assert!(size_of::<F>() <= size_of::<Words>(), "an IPI's closure captures at most two words");
            assert!(align_of::<F>() <= align_of::<Words>(), "an IPI's closure captures nothing overaligned");
        }
        let mut words: Words = [MaybeUninit::uninit(); 2];
        // SAFETY: large enough and aligned, as asserted; the words are ours.
        unsafe { words.as_mut_ptr().cast::<F>().write(f) };
        Self { run: run::<F>, words }
    }

    #[inline]
    pub(super) fn call(self, cx: &IrqCx<'_>) {
        let mut this = ManuallyDrop::new(self);
        let run = this.run;
        // SAFETY: the words hold the closure, and nobody uses them afterwards: `this` is not dropped.
        unsafe { run(&raw mut this.words, Some(cx)) };
    }
}

impl Drop for Message {
    fn drop(&mut self) {
        let run = self.run;
        // SAFETY: the words hold the closure, and this is their end.
        unsafe { run(&raw mut self.words, None) };
    }
}

/// # Safety
/// `words` holds an `F`, which is moved out.
unsafe fn run<F: FnOnce(&IrqCx<'_>)>(words: *mut Words, cx: Option<&IrqCx<'_>>) {
    // SAFETY: as promised by the caller.
    let f = unsafe { words.cast::<F>().read() };
    if let Some(cx) = cx {
        f(cx);
    }
}

/// A cache line, and the one that the hardware fetches with it.
#[repr(align(128))]
pub(super) struct Line<T>(pub(super) T);

/// The queue from one CPU to another. Indexes count for ever, modulo the word.
///
/// Meant for one sending CPU and one receiving CPU, but safe for any number of either: an interrupt handler that sends
/// over a half-done send of the thread below it is a second producer.
pub(super) struct Fifo<const DEPTH: usize> {
    slots: Box<[Slot; DEPTH]>,
    producer: Line<Producer>,
    consumer: Line<Consumer>,
}

/// What the sender writes.
struct Producer {
    /// The next place to be reserved (`ip_windex`).
    head: AtomicUsize,
    /// `tail` as the sender last saw it, so that it need not touch the receiver's line at each send.
    tail_seen: AtomicUsize,
}

/// What the receiver writes.
struct Consumer {
    /// The next place to be taken (`ip_rindex`).
    tail: AtomicUsize,
    /// Somebody is between `tail` and its message.
    taking: AtomicBool,
    /// How many calls have begun and not ended.
    running: AtomicUsize,
    /// All before this have been called, and have returned (`ip_xindex`).
    done: AtomicUsize,
}

struct Slot {
    /// The place of the message that is here, plus one.
    filled: AtomicUsize,
    message: UnsafeCell<MaybeUninit<Message>>,
}

// SAFETY: a place is written by whoever reserved it, with nobody reading until `filled` says so, and read by whoever has
// `taking`, once, with nobody writing until `tail` says so. A message may be sent.
unsafe impl<const DEPTH: usize> Sync for Fifo<DEPTH> {}

impl<const DEPTH: usize> Fifo<DEPTH> {
    /// An empty queue whose indexes begin with `first`.
    pub(super) fn starting_at(first: usize) -> Self {
        const { assert!(DEPTH.is_power_of_two() && DEPTH >= 2, "a queue's depth is a power of two, at least 2") };
        let mut slots = Vec::with_capacity(DEPTH);
        slots.resize_with(DEPTH, || Slot {
            // No place plus one.
            filled: AtomicUsize::new(first),
            message: UnsafeCell::new(MaybeUninit::uninit()),
        });
        let Ok(slots) = slots.into_boxed_slice().try_into() else { unreachable!("DEPTH slots were pushed") };
        Self {
            slots,
            producer: Line(Producer { head: AtomicUsize::new(first), tail_seen: AtomicUsize::new(first) }),
            consumer: Line(Consumer {
                tail: AtomicUsize::new(first),
                taking: AtomicBool::new(false),
                running: AtomicUsize::new(0),
                done: AtomicUsize::new(first),
            }),
        }
    }

    fn slot(&self, place: usize) -> &Slot {
        &self.slots[place % DEPTH]
    }

    /// (1) Adds a message if no more than `most` are queued, which is less than the depth. Returns what `done` will reach
    /// once it has been called.
    #[inline]
    pub(super) fn push(&self, message: Message, most: usize) -> Result<usize, Message> {
        let most = most.min(DEPTH - 1);
        let producer = &self.producer.0;
        let mut place = producer.head.load(Ordering::Relaxed);
        loop {
            // Acquire: whoever stored it had acquired `tail`, see there.
            if place.wrapping_sub(producer.tail_seen.load(Ordering::Acquire)) > most {
                // Acquire: the places before it have been read (pairs with the Release in `pop`).
                let tail = self.consumer.0.tail.load(Ordering::Acquire);
                producer.tail_seen.store(tail, Ordering::Release);
                if place.wrapping_sub(tail) > most {
                    // An older place than the head's is not full, it is taken.
                    let now = producer.head.load(Ordering::Relaxed);
                    if now == place {
                        return Err(message);
                    }
                    place = now;
                    continue;
                }
            }
            // It publishes nothing: the place is empty until `filled` says otherwise.
            let next = place.wrapping_add(1);
            match producer.head.compare_exchange(place, next, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => break,
                Err(now) => place = now,
            }
        }
        let slot = self.slot(place);
        // SAFETY: the place is reserved for this call alone, and its last message was taken: `tail` is past it.
        slot.message.with_mut(|to| unsafe { to.write(MaybeUninit::new(message)) });
        let filled = place.wrapping_add(1);
        // Release: whoever sees the place filled sees the message (pairs with the Acquire in `pop`).
        slot.filled.store(filled, Ordering::Release);
        Ok(filled)
    }

    /// (2) Takes the oldest message. Nothing if there is none, if its sender has not finished, or if somebody else is just
    /// taking one: he looks again.
    #[inline]
    pub(super) fn pop(&self) -> Option<(Message, Running<'_, DEPTH>)> {
        let consumer = &self.consumer.0;
        self.ready(Ordering::Relaxed)?;
        // Acquire: the last one has moved `tail` (pairs with the Release below).
        consumer.taking.compare_exchange(false, true, Ordering::Acquire, Ordering::Relaxed).ok()?;
        // Acquire: see `push`.
        let taken = self.ready(Ordering::Acquire).map(|place| {
            // SAFETY: filled, and `tail` has not passed it, so nobody writes here and nobody has read it.
            let message = self.slot(place).message.with(|from| unsafe { from.read() });
            consumer
                .running
                .store(consumer.running.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
            // Release: the place is read (pairs with the Acquire in `push`). Before the call, so that the call may
            // wait for room in the other direction without keeping this one full.
            consumer.tail.store(place.wrapping_add(1), Ordering::Release);
            // SAFETY: the place was filled.
            let message = unsafe { message.assume_init() };
            (message, Running { fifo: self })
        });
        // Release: see above.
        consumer.taking.store(false, Ordering::Release);
        taken
    }

    /// The place of the oldest message, if it is there.
    #[inline]
    fn ready(&self, order: Ordering) -> Option<usize> {
        let place = self.consumer.0.tail.load(Ordering::Relaxed);
        (self.slot(place).filled.load(order) == place.wrapping_add(1)).then_some(place)
    }

    /// Whether a message is to be taken.
    pub(super) fn is_ready(&self) -> bool {
        self.ready(Ordering::Relaxed).is_some()
    }

    /// Asked by its sender: whether the oldest message is one that this very CPU has not finished, because it was
    /// interrupted. Then there is nothing to wait for.
    pub(super) fn is_stuck(&self) -> bool {
        let tail = self.consumer.0.tail.load(Ordering::Acquire);
        self.producer.0.head.load(Ordering::Relaxed) != tail
            && self.slot(tail).filled.load(Ordering::Relaxed) != tail.wrapping_add(1)
    }

    /// Whether the message of which `push` returned `filled` has been called, and has returned.
    pub(super) fn is_done(&self, filled: usize) -> bool {
        // Acquire: what the call did is seen (pairs with the Release in `Running::drop`).
        let done = self.consumer.0.done.load(Ordering::Acquire);
        done.wrapping_sub(filled) as isize >= 0
    }

    /// The next index to be sent, and the next to be received.
    pub(super) fn indexes(&self) -> (usize, usize) {
        (self.producer.0.head.load(Ordering::Relaxed), self.consumer.0.tail.load(Ordering::Relaxed))
    }
}

impl<const DEPTH: usize> Drop for Fifo<DEPTH> {
    fn drop(&mut self) {
        while let Some((message, _running)) = self.pop() {
            drop(message);
        }
    }
}

/// A message that was taken is being called, until this is dropped.
pub(super) struct Running<'a, const DEPTH: usize> {
    fifo: &'a Fifo<DEPTH>,
}

impl<const DEPTH: usize> Drop for Running<'_, DEPTH> {
    fn drop(&mut self) {
        let consumer = &self.fifo.consumer.0;
        let left = consumer.running.load(Ordering::Relaxed).wrapping_sub(1);
        consumer.running.store(left, Ordering::Relaxed);
        // Only when none is left: a call inside another one ends first, and was taken last.
        if left == 0 {
            // Release: what the calls did (pairs with the Acquire in `is_done`).
            consumer.done.store(consumer.tail.load(Ordering::Relaxed), Ordering::Release);
        }
    }
}

/// What other CPUs are asked to call.
pub(super) type Function<'f> = dyn Fn(&IrqCx<'_>) + Sync + 'f;

/// A function that is lent to other CPUs until each of them has called it.
pub(super) struct Errand {
    taken: AtomicBool,
    function: UnsafeCell<Option<NonNull<Function<'static>>>>,
    /// Calls that have not begun, and above them the number of the loan.
    to_begin: AtomicUsize,
    /// Calls that have not ended.
    to_end: AtomicUsize,
}

// SAFETY: `function` is written by whoever has `taken`, while `to_begin` is zero and no call is under way; others read it
// after they have lowered `to_begin`. What it points to is `Sync`.
unsafe impl Sync for Errand {}
// SAFETY: the pointer is only followed in `run`.
unsafe impl Send for Errand {}

/// Bits of `to_begin` for the calls.
const CALLS_BITS: u32 = MAX_CPUS.ilog2() + 1;
const CALLS: usize = (1 << CALLS_BITS) - 1;

/// Which loan of an errand. A message says which one it is for: one that comes too late takes no place of a later one.
/// The numbers wrap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Loan(usize);

impl Loan {
    fn of(to_begin: usize) -> Self {
        Self(to_begin >> CALLS_BITS)
    }
}

impl Errand {
    pub(super) fn new() -> Self {
        Self {
            taken: AtomicBool::new(false),
            function: UnsafeCell::new(None),
            to_begin: AtomicUsize::new(0),
            to_end: AtomicUsize::new(0),
        }
    }

    /// Whether anybody lends a function, or is about to.
    pub(super) fn is_taken(&self) -> bool {
        self.taken.load(Ordering::Acquire)
    }

    /// For a new function; nothing if one is lent already.
    pub(super) fn take(&self) -> Option<TakenErrand<'_>> {
        // Acquire: the last one is over (pairs with the Release in `TakenErrand::drop`).
        self.taken.compare_exchange(false, true, Ordering::Acquire, Ordering::Relaxed).ok()?;
        Some(TakenErrand { errand: self })
    }

    /// The last loan: of a function that is lent as long as somebody waits for the caller.
    pub(super) fn loan(&self) -> Loan {
        Loan::of(self.to_begin.load(Ordering::Relaxed))
    }

    /// Calls the function of a loan, unless that is over or the function was called often enough.
    pub(super) fn run(&self, loan: Loan, cx: &IrqCx<'_>) {
        // In one step: the next loan may begin at any time.
        let begin = |left: usize| (Loan::of(left) == loan && left & CALLS != 0).then(|| left - 1);
        // Acquire: the function is there (pairs with the Release in `lend`).
        if self.to_begin.fetch_update(Ordering::Acquire, Ordering::Relaxed, begin).is_err() {
            return;
        }
        // Dropped last, and where the function panics, too.
        let _ending = Ending { to_end: &self.to_end };
        // SAFETY: nobody writes it while a call is under way.
        let function = self.function.with(|function| unsafe { *function });
        if let Some(function) = function {
            // SAFETY: `lend` does not return before `to_end` is zero, and so its borrow is alive.
            let function = unsafe { function.as_ref() };
            function(cx);
        }
    }

    /// As `calls` calls that will not be made. By whoever lends.
    pub(super) fn skip(&self, calls: usize) {
        let skip = |left: usize| Some(left - calls.min(left & CALLS));
        if let Ok(left) = self.to_begin.fetch_update(Ordering::Relaxed, Ordering::Relaxed, skip) {
            // Release: see `Ending::drop`.
            self.to_end.fetch_sub(calls.min(left & CALLS), Ordering::Release);
        }
    }
}

struct Ending<'a> {
    to_end: &'a AtomicUsize,
}

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        // Release: what the call did is seen by who lent the function (pairs with the Acquire in `WaitForAll::drop`).
        self.to_end.fetch_sub(1, Ordering::Release);
    }
}

/// The right to lend a function.
pub(super) struct TakenErrand<'a> {
    errand: &'a Errand,
}

impl TakenErrand<'_> {
    /// Lends `function` for exactly `calls` calls, at most one for each CPU, which `during` causes. Waits for the last of
    /// them by `turn` after `turn`, even where `during` panics.
    pub(super) fn lend<R>(
        &mut self,
        function: &Function<'_>,
        calls: usize,
        turn: &dyn Fn(),
        during: impl FnOnce(Loan) -> R,
    ) -> R {
        let errand = self.errand;
        let pointer = NonNull::from(function);
        // SAFETY: the same fat pointer. Its lifetime is kept by waiting, see `run`.
        let pointer: NonNull<Function<'static>> = unsafe { core::mem::transmute(pointer) };
        // SAFETY: `taken` is ours, and so no call is under way: the last `lend` has waited for them.
        errand.function.with_mut(|function| unsafe { *function = Some(pointer) });
        let calls = calls.min(CALLS);
        errand.to_end.store(calls, Ordering::Relaxed);
        let to_begin = errand.loan().0.wrapping_add(1) << CALLS_BITS | calls;
        // Release: see `run`.
        errand.to_begin.store(to_begin, Ordering::Release);
        let _wait = WaitForAll { errand, turn };
        during(Loan::of(to_begin))
    }
}

impl Drop for TakenErrand<'_> {
    fn drop(&mut self) {
        // Release: see `take`.
        self.errand.taken.store(false, Ordering::Release);
    }
}

struct WaitForAll<'a> {
    errand: &'a Errand,
    turn: &'a dyn Fn(),
}

impl Drop for WaitForAll<'_> {
    fn drop(&mut self) {
        // The borrow must not end even where a turn panics.
        let _spin = SpinForAll { errand: self.errand };
        // Acquire: see `Ending::drop`.
        while self.errand.to_end.load(Ordering::Acquire) != 0 {
            (self.turn)();
        }
    }
}

struct SpinForAll<'a> {
    errand: &'a Errand,
}

impl Drop for SpinForAll<'_> {
    fn drop(&mut self) {
        // Acquire: see `Ending::drop`.
        while self.errand.to_end.load(Ordering::Acquire) != 0 {
            hint::spin_loop();
        }
    }
}
