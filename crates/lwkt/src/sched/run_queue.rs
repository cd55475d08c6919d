//! The ready threads of one CPU, by priority and rank, first come first served among equals.

use core::ptr;

use crate::sched::wake::Node;
use crate::spec::Priority;

/// Its owner is one CPU. Every operation takes constant time, but for a push between others of the same priority and of ranks
/// above and below, away from where the last one went: so many of one rank are pushed as cheaply as one.
pub(crate) struct RunQueue<T: Node> {
    /// A bit for each queue that is not empty.
    ready: u32,
    queues: [Queue<T>; Priority::COUNT],
}

struct Queue<T: Node> {
    ends: Option<(&'static T, &'static T)>,
    /// The last node that was pushed between two others.
    between: Option<&'static T>,
}

impl<T: Node> RunQueue<T> {
    pub(crate) fn new() -> Self {
        Self { ready: 0, queues: [const { Queue { ends: None, between: None } }; Priority::COUNT] }
    }

    /// Adds a node that is on no queue, after its equals.
    #[inline]
    pub(crate) fn push(&mut self, node: &'static T, priority: Priority) {
        let Some(queue) = self.queues.get_mut(usize::from(priority.get())) else { return };
        queue.push(node);
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
    fn push(&mut self, node: &'static T) {
        let rank = node.rank();
        node.hook().set_next(None);
        self.ends = match self.ends {
            None => Some((node, node)),
            // No rank is below 0, so most never look at the other node.
            Some((first, last)) if rank == 0 || last.rank() >= rank => {
                last.hook().set_next(Some(node));
                Some((first, node))
            }
            Some((first, last)) if first.rank() < rank => {
                node.hook().set_next(Some(first));
                Some((node, last))
            }
            Some((first, last)) => {
                let mut before = self.between.filter(|between| between.rank() >= rank).unwrap_or(first);
                while let Some(next) = before.hook().next().filter(|next| next.rank() >= rank) {
                    before = next;
                }
                node.hook().set_next(before.hook().next());
                before.hook().set_next(Some(node));
                self.between = Some(node);
                Some((first, last))
            }
        };
    }

    #[inline]
    fn pop(&mut self, mut fits: impl FnMut(&'static T) -> bool) -> Option<&'static T> {
        let (first, last) = self.ends?;
        let (mut before, mut node): (Option<&'static T>, _) = (None, first);
        while !fits(node) {
            (before, node) = (Some(node), node.hook().next()?);
        }
        let next = node.hook().next();
        if self.between.is_some_and(|between| ptr::eq(between, node)) {
            self.between = None;
        }
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

    /// With a priority, a number and a rank.
    struct Item(Hook<Item>, u8, usize, u8);

    impl Node for Item {
        fn hook(&self) -> &Hook<Self> {
            &self.0
        }
        fn rank(&self) -> u8 {
            self.3
        }
    }

    fn items(priorities: &[u8]) -> Vec<&'static Item> {
        ranked(&priorities.iter().map(|&priority| (priority, 0)).collect::<Vec<_>>())
    }

    fn ranked(priorities: &[(u8, u8)]) -> Vec<&'static Item> {
        // Kept where Miri finds them.
        static ALL: Mutex<Vec<&Item>> = Mutex::new(Vec::new());
        let item = |(i, &(priority, rank))| &*Box::leak(Box::new(Item(Hook::new(), priority, i, rank)));
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

    #[test]
    fn any_order_of_ranks_comes_out_sorted_and_equals_in_turn() {
        let mut random = 1_u32;
        let mut next = |below: u32| {
            random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (random >> 16) % below
        };
        let all = ranked(&(0..40).map(|_| (7, next(4) as u8)).collect::<Vec<_>>());
        let (mut queue, mut expected) = (RunQueue::new(), Vec::<&Item>::new());
        let mut outside = all;
        for _ in 0..if cfg!(miri) { 200 } else { 5000 } {
            if !outside.is_empty() && next(5) < 3 {
                let item = outside.swap_remove(next(outside.len() as u32) as usize);
                queue.push(item, Priority::new(7).unwrap());
                let at = expected.partition_point(|other| other.3 >= item.3);
                expected.insert(at, item);
            } else {
                // Now and then the first ones do not fit.
                let mut skip = next(3) as usize;
                let popped = queue.pop(|_| {
                    let fits = skip == 0;
                    skip = skip.saturating_sub(1);
                    fits
                });
                let at = expected.len().min(3);
                let place =
                    popped.map(|item| expected.iter().position(|other| ptr::eq(*other, item)).unwrap());
                assert!(place.is_none_or(|place| place < at), "{place:?}");
                if let Some(place) = place {
                    outside.push(expected.remove(place));
                }
            }
        }
        let order: Vec<usize> = core::iter::from_fn(|| queue.pop(|_| true)).map(|item| item.2).collect();
        assert_eq!(order, expected.iter().map(|item| item.2).collect::<Vec<_>>());
    }

    /// Each of many equals between a better and a worse one is looked at by none of those that come later.
    #[test]
    fn many_of_one_rank_are_pushed_as_cheaply_as_one() {
        let mut ranks = std::vec![(3, 9), (3, 1)];
        ranks.extend([(3, 5); 20_000]);
        let all = ranked(&ranks);
        let mut queue = RunQueue::new();
        let begin = std::time::Instant::now();
        all.iter()
            .take(if cfg!(miri) { 100 } else { 20_002 })
            .for_each(|item| queue.push(*item, Priority::new(3).unwrap()));
        // Half of the square of 20,000 steps would take longer.
        assert!(cfg!(miri) || begin.elapsed() < core::time::Duration::from_millis(200));
        assert_eq!(queue.pop(|_| true).map(|item| item.2), Some(0));
        assert_eq!(queue.pop(|_| true).map(|item| item.2), Some(2));
    }
}
