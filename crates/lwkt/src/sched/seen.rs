//! What is seen of a thread from elsewhere.

use core::time::Duration;

use dfly_hal::sync::atomic::{AtomicU8, AtomicU64, Ordering, fence};

use crate::sched::info::{ThreadId, ThreadInfo, ThreadState};
use crate::sched::thread::Thread;
use crate::spec::{Name, Priority, Spec};

/// What is seen of a slot from elsewhere. A number of 0 says that it is being written.
#[derive(Default)]
pub(crate) struct Seen {
    id: AtomicU64,
    name: [AtomicU64; 4],
    priority: AtomicU8,
    sub_priority: AtomicU8,
    state: AtomicU8,
    pub(crate) switches: Counter,
    pub(crate) wakes: Counter,
    pub(crate) run_ns: Counter,
}

/// The state of a slot without a thread.
const FREE: u8 = 0;

impl Seen {
    pub(crate) fn fill(&self, id: ThreadId, spec: &Spec) {
        self.id.store(0, Ordering::Relaxed);
        // Release, and the Acquire fence of `read`: who sees anything of what follows sees the 0 too.
        fence(Ordering::Release);
        for (to, word) in self.name.iter().zip(spec.name.to_words()) {
            to.store(word, Ordering::Relaxed);
        }
        self.priority.store(spec.priority.get(), Ordering::Relaxed);
        self.sub_priority.store(spec.sub_priority, Ordering::Relaxed);
        self.set_state(ThreadState::New);
        for counter in [&self.switches, &self.wakes, &self.run_ns] {
            counter.set(0);
        }
        // Release pairs with the first load of `read`.
        self.id.store(id.0, Ordering::Release);
    }

    pub(crate) fn read(&self, thread: &Thread) -> Option<ThreadInfo> {
        let id = self.id.load(Ordering::Acquire);
        let words = core::array::from_fn(|i| self.name.get(i).map_or(0, |word| word.load(Ordering::Relaxed)));
        let info = ThreadInfo {
            id: ThreadId(id),
            name: Name::from_words(words),
            cpu: thread.cpu().id(),
            priority: self.priority(),
            state: self.state()?,
            sleeps_on: thread.place.sleeps_on(),
            switches: self.switches.get(),
            wakes: self.wakes.get(),
            run_time: Duration::from_nanos(self.run_ns.get()),
            stack_bytes: thread.stack.size().bytes(),
            stack_used_bytes: thread.stack.used_bytes(),
            stack_is_guarded: thread.stack.is_guarded(),
        };
        // Acquire: pairs with the fence of `fill`.
        fence(Ordering::Acquire);
        (id != 0 && self.id.load(Ordering::Relaxed) == id).then_some(info)
    }

    pub(crate) fn id(&self) -> ThreadId {
        ThreadId(self.id.load(Ordering::Relaxed))
    }

    pub(crate) fn priority(&self) -> Priority {
        Priority::new(self.priority.load(Ordering::Relaxed)).unwrap_or_default()
    }

    #[inline]
    pub(crate) fn sub_priority(&self) -> u8 {
        self.sub_priority.load(Ordering::Relaxed)
    }

    pub(crate) fn name(&self) -> Name {
        Name::from_words(core::array::from_fn(|i| {
            self.name.get(i).map_or(0, |word| word.load(Ordering::Relaxed))
        }))
    }

    /// `None` if there is no thread in the slot.
    pub(crate) fn state(&self) -> Option<ThreadState> {
        use ThreadState::{Blocked, Exiting, Moving, New, Preempted, Ready, Running};
        // Acquire: see `set_state`.
        let state = self.state.load(Ordering::Acquire);
        [New, Ready, Running, Blocked, Exiting, Preempted, Moving]
            .into_iter()
            .find(|&known| known as u8 == state)
    }

    pub(crate) fn set_state(&self, state: ThreadState) {
        // Release: who sees the state sees which CPU the thread belonged to by then (pairs with the Acquire in `state`; see
        // `Cpu::abandon`).
        self.state.store(state as u8, Ordering::Release);
    }

    pub(crate) fn set_free(&self) {
        self.state.store(FREE, Ordering::Release);
    }
}

/// A count with one writer: a load and a store, no read-modify-write.
#[derive(Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    pub(crate) fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }

    #[inline]
    pub(crate) fn add(&self, n: u64) {
        self.set(self.get().wrapping_add(n));
    }
}

impl Name {
    /// As four words, for a place that is read while it is written.
    fn to_words(self) -> [u64; 4] {
        let mut all = [0; 32];
        let (text, last) = all.split_at_mut(Self::MAX_BYTES);
        text.copy_from_slice(&self.bytes);
        last.copy_from_slice(&[self.len]);
        let (words, _) = all.as_chunks::<8>();
        core::array::from_fn(|i| words.get(i).map_or(0, |&word| u64::from_le_bytes(word)))
    }

    /// Back from words, which were not torn.
    fn from_words(words: [u64; 4]) -> Self {
        let mut all = [0; 32];
        for (to, word) in all.chunks_exact_mut(8).zip(words) {
            to.copy_from_slice(&word.to_le_bytes());
        }
        let mut bytes = [0; Self::MAX_BYTES];
        let (text, last) = all.split_at(Self::MAX_BYTES);
        bytes.copy_from_slice(text);
        Self { bytes, len: last.first().copied().unwrap_or(0) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_survives_being_words() {
        for name in ["", "x", "0123456789012345678901234567890"] {
            let name = Name::new(name);
            assert_eq!(Name::from_words(name.to_words()), name);
        }
    }
}
