//! The storms. Each adds threads to a crew, and says what must be true at the end.

use crate::crew::Crew;

mod ipis;
mod locks;
mod moves;
mod preempt;
mod sleep;
mod spawn;
mod tokens;

/// A storm, and what it is about.
type Storm = (&'static str, fn(&mut Crew));

/// All of them.
pub(crate) const ALL: [Storm; 8] = [
    ("tokens in random orders", tokens::storm),
    ("sleepers and wake-ups", sleep::storm),
    ("wake-ups against time-outs", sleep::races),
    ("locks of all kinds", locks::storm),
    ("threads that begin and end", spawn::storm),
    ("messages from CPU to CPU", ipis::storm),
    ("threads that move", moves::storm),
    ("interrupt threads and critical sections", preempt::storm),
];

/// Two counts that are the same whenever nobody changes them, and a third that only whoever has them alone touches. Not
/// atomic: one that is held twice shows.
#[derive(Debug, Default)]
struct Twin {
    left: u64,
    right: u64,
}

impl Twin {
    /// One more, not at once. The caller has it alone.
    fn grow(&mut self, work: impl FnOnce()) -> bool {
        let was_whole = self.is_whole();
        let left = core::hint::black_box(self.left);
        work();
        self.left = left + 1;
        self.right = core::hint::black_box(self.right) + 1;
        was_whole
    }

    /// The caller has it alone, or with others who look.
    fn is_whole(&self) -> bool {
        core::hint::black_box(self.left) == core::hint::black_box(self.right)
    }
}
