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

#[cfg(all(test, feature = "std"))]
mod tests {
    use std::boxed::Box;
    use std::sync::{Mutex, PoisonError};
    use std::vec::Vec;

    use super::*;
    use crate::sched::wake::Hook;

    struct Item(Hook<Item>, u8, usize);

    impl Node for Item {
        fn hook(&self) -> &Hook<Self> {
            &self.0
        }
    }

    fn items(priorities: &[u8]) -> Vec<&'static Item> {
        // Kept where Miri finds them.
        static ALL: Mutex<Vec<&Item>> = Mutex::new(Vec::new());
        let item = |(i, &priority)| &*Box::leak(Box::new(Item(Hook::new(), priority, i)));
        let items: Vec<_> = priorities.iter().enumerate().map(item).collect();
        ALL.lock().unwrap_or_else(PoisonError::into_inner).extend(&items);
        items
    }

    #[test]
    fn the_most_important_come_first_and_equals_in_turn() {
        let priorities = [12, 31, 0, 12, 28, 31, 0, 12, 1];
        let all = items(&priorities);
        let mut queue = RunQueue::new();
        assert_eq!((queue.best(), queue.pop().is_none()), (None, true));
        for _ in 0..2 {
            for &item in &all {
                queue.push(item, Priority::new(item.1).unwrap());
            }
            assert_eq!(queue.best(), Some(Priority::MAX));
            let order: Vec<usize> = core::iter::from_fn(|| queue.pop()).map(|item| item.2).collect();
            assert_eq!(order, [1, 5, 4, 0, 3, 7, 8, 2, 6]);
            assert_eq!(queue.best(), None);
        }
    }

    #[test]
    fn what_comes_while_others_leave_keeps_its_place() {
        let all = items(&[5, 5, 5, 5]);
        let five = Priority::new(5).unwrap();
        let mut queue = RunQueue::new();
        queue.push(all[0], five);
        queue.push(all[1], five);
        assert_eq!(queue.pop().unwrap().2, 0);
        queue.push(all[2], five);
        queue.push(all[0], five);
        let order: Vec<usize> = core::iter::from_fn(|| queue.pop()).map(|item| item.2).collect();
        assert_eq!(order, [1, 2, 0]);
        queue.push(all[3], five);
        assert_eq!(queue.pop().unwrap().2, 3);
    }
}
