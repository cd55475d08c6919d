//! What an originator does with a port, and a receiver with a job: send, call, forward, abort.

use dfly_hal::{Instant, Wait, block_on};

use super::{Port, Put};
use crate::carrier::Recall;
use crate::{Body, Job, Own, Pending, SinkRef};

impl<T: Body> Own<T> {
    /// Sends it and waits until it is back. DragonFly: `lwkt_domsg`.
    ///
    /// A port that answers at once costs a function call: no queue, no wait, no atomic read-modify-write. Blocks else,
    /// for as long as the receiver takes; a receiver that drops it, or dies, answers it as orphaned.
    pub fn call(self, port: &(impl Port<T> + ?Sized), w: &mut (impl Wait + ?Sized)) -> Self {
        match self.offer(port) {
            Ok(own) => own,
            Err(pending) => pending.wait(w),
        }
    }

    /// As [`call`](Self::call), but waits no longer than to `deadline`, and then gives what can be waited for again,
    /// [aborted](Pending::abort) or dropped.
    pub fn call_until(
        self,
        port: &(impl Port<T> + ?Sized),
        w: &mut (impl Wait + ?Sized),
        deadline: Instant,
    ) -> Result<Self, Pending<T>> {
        self.offer(port).or_else(|pending| pending.wait_until(w, deadline))
    }

    /// Sends it and goes on: several can be under way. DragonFly: `lwkt_sendmsg`, then `lwkt_waitmsg`.
    pub fn start(self, port: &(impl Port<T> + ?Sized)) -> Pending<T> {
        let (job, pending) = self.waitable();
        job.forward(port);
        pending
    }

    /// Sends it, to be handed to the reply port `reply` when it is answered. DragonFly: `lwkt_sendmsg`.
    pub fn send(self, port: &(impl Port<T> + ?Sized), reply: impl Into<SinkRef<T>>) {
        self.send_to(reply).forward(port);
    }

    /// Sends it and forgets it: it goes home when it is answered. DragonFly: an auto-free reply port.
    pub fn post(self, port: &(impl Port<T> + ?Sized)) {
        self.detached().forward(port);
    }

    fn offer(self, port: &(impl Port<T> + ?Sized)) -> Result<Self, Pending<T>> {
        let (job, pending) = self.waitable();
        match port.put(job) {
            Put::Done(job) => job.rejoin(pending),
            Put::Async => Err(pending),
        }
    }
}

impl<T: Body> Job<T> {
    /// Sends it on to another port, which answers its originator. DragonFly: `lwkt_forwardmsg`.
    pub fn forward(self, port: &(impl Port<T> + ?Sized)) {
        if let Put::Done(job) = port.put(self) {
            job.complete();
        }
    }

    /// Its originator wants it back soon: a receiver that keeps it [refuses](Job::refuse) it as
    /// [`Aborted`](crate::Unanswered::Aborted), or answers it after all.
    ///
    /// A wish for what is being worked on; a port with a queue looks for it by itself.
    pub fn is_abort_asked(&self) -> bool {
        self.recalled() == Recall::Abort
    }
}

impl<T: Body> Pending<T> {
    /// Waits until the message is back. DragonFly: `lwkt_waitmsg`.
    pub fn wait(mut self, w: &mut (impl Wait + ?Sized)) -> Own<T> {
        loop {
            // Without a deadline a waiter has no reason to give up; one that does is asked again.
            if let Ok(own) = block_on(w, &mut self, None) {
                return own;
            }
        }
    }

    /// Waits until the message is back, or until `deadline`; then it can be waited for again.
    pub fn wait_until(mut self, w: &mut (impl Wait + ?Sized), deadline: Instant) -> Result<Own<T>, Self> {
        block_on(w, &mut self, Some(deadline)).map_err(|_| self)
    }

    /// Asks for the message back, and goes on waiting for it: it comes as
    /// [`Aborted`](crate::Unanswered::Aborted), or answered where the answer was faster. DragonFly: `lwkt_abortmsg`.
    ///
    /// `port` is the one that it was sent to. What stands in its queue ends at once; what its receiver has begun ends
    /// when the receiver looks, if it does. A receiver that forwarded it tells the next port by
    /// [`Port::sweep`]; one that does not lets the wish be found when the next receiver takes the message.
    /// Thread context. To give a message up without waiting, drop this value.
    pub fn abort(&self, port: &(impl Port<T> + ?Sized)) {
        self.set_recall(Recall::Abort);
        port.sweep();
    }

    /// Takes the message back if nobody has begun with it; it is then
    /// [`Withdrawn`](crate::Unanswered::Withdrawn). DragonFly: `lwkt_dropmsg`.
    ///
    /// `port` is the one that it was sent to, and has a queue of its own, as [`SpinPort`](super::SpinPort) has; else
    /// this fails. An error is `ENOENT`: it has been received, forwarded, or answered. Thread context.
    pub fn withdraw(self, port: &(impl Port<T> + ?Sized)) -> Result<Own<T>, Self> {
        if self.is_recalled() {
            // It is aborted already, which is more.
            port.sweep();
            return self.try_take();
        }
        self.set_recall(Recall::Withdraw);
        port.sweep();
        self.try_take().inspect_err(|pending| {
            pending.set_recall(Recall::No);
        })
    }
}
