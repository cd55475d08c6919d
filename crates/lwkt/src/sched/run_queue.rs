//! The ready threads of one CPU, by priority, first come first served among equals.

use crate::sched::wake::Node;
use crate::spec::Priority;

/// Its owner is one CPU. Every operation takes constant time.
pub(crate) struct RunQueue<T: Node> {
    /// A bit for each queue that is not empty.
    ready: u32,
    queues: [Queue<T>; Priority::COUNT],
}

struct Queue<T: Node> {
    ends: Option<(&'static T, &'static T)>,
}

impl<T: Node> RunQueue<T> {
    pub(crate) fn new() -> Self {
        Self { ready: 0, queues: [const { Queue { ends: None } }; Priority::COUNT] }
    }

    /// Adds a node that is on no queue, after its equals.
    #[inline]
    pub(crate) fn push(&mut self, node: &'static T, priority: Priority) {
        let Some(queue) = self.queues.get_mut(usize::from(priority.get())) else { return };
        node.hook().set_next(None);
        let first = match queue.ends {
            Some((first, last)) => {
                last.hook().set_next(Some(node));
                first
            }
            None => node,
        };
        queue.ends = Some((first, node));
        self.ready |= 1 << priority.get();
    }

    /// Takes the most important node, of equals the one that came first.
    #[inline]
    pub(crate) fn pop(&mut self) -> Option<&'static T> {
        let best = self.best()?;
        let queue = self.queues.get_mut(usize::from(best.get()))?;
        let (first, last) = queue.ends?;
        queue.ends = first.hook().next().map(|next| (next, last));
        if queue.ends.is_none() {
            self.ready &= !(1 << best.get());
        }
        Some(first)
    }

    /// The priority of what [`pop`](Self::pop) would give.
    #[inline]
    pub(crate) fn best(&self) -> Option<Priority> {
        self.ready.checked_ilog2().and_then(|bit| Priority::new(bit as u8))
    }
}
