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

    /// Takes the most important node that `fits`, of equals the one that came first. Each is asked once at most, and those
    /// that do not fit keep their places.
    #[inline]
    pub(crate) fn pop(&mut self, fits: impl FnMut(&'static T) -> bool) -> Option<&'static T> {
        self.pop_of(u32::MAX, fits)
    }

    /// As [`pop`](Self::pop), of those that are more important than `priority`.
    pub(crate) fn pop_above(
        &mut self,
        priority: Priority,
        fits: impl FnMut(&'static T) -> bool,
    ) -> Option<&'static T> {
        self.pop_of(u32::MAX << 1 << priority.get(), fits)
    }

    #[inline]
    fn pop_of(&mut self, priorities: u32, mut fits: impl FnMut(&'static T) -> bool) -> Option<&'static T> {
        let mut rest = self.ready & priorities;
        while let Some(bit) = rest.checked_ilog2() {
            rest &= !(1 << bit);
            let queue = self.queues.get_mut(bit as usize)?;
            let node = queue.pop(&mut fits);
            if queue.ends.is_none() {
                self.ready &= !(1 << bit);
            }
            if node.is_some() {
                return node;
            }
        }
        None
    }

    /// The priority of the most important node.
    #[inline]
    pub(crate) fn best(&self) -> Option<Priority> {
        self.ready.checked_ilog2().and_then(|bit| Priority::new(bit as u8))
    }
}

impl<T: Node> Queue<T> {
    #[inline]
    fn pop(&mut self, mut fits: impl FnMut(&'static T) -> bool) -> Option<&'static T> {
        let (first, last) = self.ends?;
        let (mut before, mut node): (Option<&'static T>, _) = (None, first);
        while !fits(node) {
            (before, node) = (Some(node), node.hook().next()?);
        }
        let next = node.hook().next();
        self.ends = match before {
            None => next.map(|next| (next, last)),
            Some(before) => {
                before.hook().set_next(next);
                Some((first, if next.is_some() { last } else { before }))
            }
        };
        Some(node)
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
        assert_eq!((queue.best(), queue.pop(|_| true).is_none()), (None, true));
        for _ in 0..2 {
            for &item in &all {
                queue.push(item, Priority::new(item.1).unwrap());
            }
            assert_eq!(queue.best(), Some(Priority::MAX));
            let order: Vec<usize> = core::iter::from_fn(|| queue.pop(|_| true)).map(|item| item.2).collect();
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
        assert_eq!(queue.pop(|_| true).unwrap().2, 0);
        queue.push(all[2], five);
        queue.push(all[0], five);
        let order: Vec<usize> = core::iter::from_fn(|| queue.pop(|_| true)).map(|item| item.2).collect();
        assert_eq!(order, [1, 2, 0]);
        queue.push(all[3], five);
        assert_eq!(queue.pop(|_| true).unwrap().2, 3);
    }

    #[test]
    fn those_that_do_not_fit_keep_their_places() {
        let all = items(&[7, 7, 7, 3, 3]);
        let mut queue = RunQueue::new();
        for &item in &all {
            queue.push(item, Priority::new(item.1).unwrap());
        }
        let mut take = |fits: &[usize]| {
            let mut asked = Vec::new();
            let taken = queue.pop(|item| {
                asked.push(item.2);
                fits.contains(&item.2)
            });
            (taken.map(|item| item.2), asked)
        };
        assert_eq!(take(&[]), (None, [0, 1, 2, 3, 4].into()));
        assert_eq!(take(&[2, 3]), (Some(2), [0, 1, 2].into()));
        assert_eq!(take(&[4]), (Some(4), [0, 1, 3, 4].into()));
        queue.push(all[2], Priority::new(7).unwrap());
        let mut take = |fits: &[usize]| queue.pop(|item| fits.contains(&item.2)).map(|item| item.2);
        assert_eq!([take(&[1]), take(&[2]), take(&[2]), take(&[3])], [Some(1), Some(2), None, Some(3)]);
        assert_eq!(queue.best(), Priority::new(7));
        assert_eq!(queue.pop(|_| true).map(|item| item.2), Some(0));
        assert_eq!((queue.best(), queue.pop(|_| true).is_none()), (None, true));
    }
}
