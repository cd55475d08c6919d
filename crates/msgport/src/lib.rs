//! DragonFly's message ports: typed, intrusive, answered at once or later as the receiver chooses.
//!
//! A message is one node of memory that walks, and its type says where it is. At rest it is its originator's
//! ([`Msg`]); sent, it is a receiver's ([`Request`]), who answers it, forwards it, or keeps it for a while; its originator
//! holds a [`Sent`] meanwhile, to wait for it or ask it back. So a message that is answered twice, or touched while it is
//! under way, does not compile. Nothing is copied, counted or allocated on the way, and a queue cannot be full, because
//! the link is in the node.
//!
//! A [`Port`] takes a message in its sender's context and says whether it is [done](Put::Done) or [will
//! be](Put::Async). A call that is answered at once is a function call: no queue, no switch, no atomic operation.
//!
//! ```
//! use dfly_hal::ThreadWait;
//! use dfly_msgport::{Msg, Message, Put, PutOnly, Request, SpinPort};
//!
//! struct Square { x: u64 }
//! static SERVER: SpinPort<Message<Square>> = SpinPort::new();
//!
//! let w = &mut ThreadWait::new();         // whoever may wait: a thread's context, a parked host thread, ...
//! let server = std::thread::spawn(|| {
//!     let w = &mut ThreadWait::new();
//!     let mut receiver = SERVER.receiver();
//!     while let Some(mut request) = receiver.wait(w) {
//!         request.x *= request.x;
//!         request.reply();                // dropped instead, it would be answered as orphaned
//!     }
//! });
//! let a = Msg::with(Square { x: 7 }).start(&SERVER);          // several can be under way
//! let b = Msg::with(Square { x: 8 }).call(&SERVER, w);
//! let a = a.wait(w);
//! a.outcome()?;                           // answered, or why not
//! assert_eq!((a.x, b.x), (49, 64));
//!
//! // Another receiver's choice: in the sender's context. The sender does not notice.
//! let here = PutOnly::new(|mut r: Request<Square>| { r.x *= r.x; Put::Done(r) });
//! assert_eq!(a.call(&here, w).x, 2401);
//!
//! SERVER.close();
//! # server.join().unwrap();
//! # Ok::<(), dfly_msgport::Unanswered>(())
//! ```
//!
//! # The words of DragonFly
//!
//! | msgport(9) | here |
//! |---|---|
//! | `lwkt_initmsg`, `struct lwkt_msg` in a bigger one | [`Msg::with`], a [`Message`] around any content; a [`Body`] of one's own |
//! | `lwkt_domsg` | [`Own::call`] |
//! | `lwkt_sendmsg`, and its reply port | [`Own::send`] to a [`Sink`] such as [`Completions`]; [`Own::start`] to wait for the message itself |
//! | `EASYNC` or a result | [`Put::Async`] or [`Put::Done`] |
//! | `lwkt_forwardmsg`, `lwkt_replymsg` | [`Job::forward`], [`Job::reply`] |
//! | `lwkt_waitmsg`, `lwkt_checkmsg` | [`Pending::wait`], [`Pending::is_done`] |
//! | `lwkt_getport`, `lwkt_waitport` | [`Receiver::get`], [`Receiver::wait`] |
//! | `lwkt_abortmsg`, `ms_abortfn` | [`Pending::abort`]; the receiver hears [`Event::Recall`] and looks for [`Job::is_abort_asked`] |
//! | `lwkt_dropmsg`, `ENOENT` | [`Pending::withdraw`], its error |
//! | `MSGF_PRIORITY`, `MSGF_RECEIPT` | [`Message::set_urgent`], [`Message::set_receipt`] |
//! | `MSGF_DONE`, `MSGF_REPLY`, `MSGF_QUEUED`, `MSGF_SYNC` | which type one holds: [`Own`], [`Job`], in a [`List`], with a [`Pending`] |
//! | `lwkt_initport_spin` | [`SpinPort`] |
//! | `lwkt_initport_replyonly`, `_replyonly_null`, `_putonly`, `_panic` | [`ReplyOnly`], [`NullReply`], [`PutOnly`], [`PanicPort`] and [`PanicReply`] |
//! | auto-free reply port | [`Own::post`] |
//! | a port that handles its own thread's messages at once | [`ShortCut`] |
//! | `lwkt_initport_thread`, `_serialize` | not yet: they will stand in `dfly-lwkt`, whose threads receive from a [`WakerPort`] meanwhile |
//!
//! Beyond them: [`WakerPort`], which interrupt handlers may send to and any executor receives from, and [`Layer`].
//!
//! # The carrier
//!
//! Below the ports, and of use without them, is the node that walks: [`Own`] at rest, [`Job`] on its way, [`Pending`] for
//! who waits. Its content is a [`Body`], which may have children of a [split](Job::split) and stacked
//! [hooks](Hook); a block request is one, so it can be sent to ports like any message. A [`Job`] is completed into the
//! destination that its originator chose: a waiter, a [`Sink`], a parent ([`Family`]), or nobody, and then it goes home to
//! its [`Pool`] or its box.
//!
//! | | allocates | may block | from an interrupt handler | stack |
//! |---|---|---|---|---|
//! | [`Msg::with`], [`Own::new`], [`Pool::new`] | yes | no | no | flat |
//! | [`Own::call`], [`Pending::wait`], [`Receiver::wait`] | no | **yes** | no | the waiter's |
//! | [`Own::start`], [`send`](Own::send), [`post`](Own::post), [`Job::forward`] | no | no | as the port and what answers | flat, and the port's |
//! | putting to a [`SpinPort`]; [`Receiver::get`] | no | no: short lock | no: short lock | flat |
//! | putting to a [`WakerPort`] | no | no | yes, while it is open and if the wakers may be woken there | flat |
//! | [`Pending::abort`], [`withdraw`](Pending::withdraw), closing a port | no | no | no: jobs complete | flat |
//! | [`Own::detached`], [`waitable`](Own::waitable), [`send_to`](Own::send_to) | no | no | yes | flat |
//! | [`Fifo`]: push, pop, append | no | no | yes | flat |
//! | [`Job::complete`], dropping a `Job`, `Own`, `List` or `Family` | no | no | no: hooks, sinks and wakers run | flat, and what those use |
//! | [`Family::adopt`] | no | no | yes | flat |
//! | [`Pending`]: poll, `try_take`, drop | no | no (*) | no: drops wakers | flat |
//! | [`Pool::get`], [`Completions::drain`] | no | no: short lock | no: short lock | flat |
//! | [`Completions::wait`] | no | **yes** | no | the waiter's |
//!
//! (*) It spins while the completer moves a waker out, which is three instructions with preemption off.
//!
//! # What is dropped too early
//!
//! Nobody waits for ever, and nothing is lost: a [`Job`] comes back as [orphaned](Unanswered::Orphaned); what stands in
//! a port that is closed, dropped, or left by its last receiver comes back as [`PortClosed`](Unanswered::PortClosed); the
//! node of a dropped [`Pending`] goes home when the receiver is done with it; the nodes of a dropped [`Pool`] free
//! themselves. A handle that is *forgotten* (`mem::forget`) leaks its node, and a forgotten job hangs its waiter; that
//! is all.
//!
//! How it works inside, and what its tests prove, is in `DESIGN.md`.
#![no_std]
#![deny(missing_docs)]
#![deny(unsafe_code)]

extern crate alloc;

mod body;
#[expect(unsafe_code, reason = "the one place where ownership of nodes is made of pointers")]
mod carrier;
mod completions;
mod pool;
mod port;

pub use body::{Body, Hook, HookRef, Plain, Sink, SinkRef, Unanswered};
pub use carrier::{Family, Fifo, Handle, Job, Own, Pending};
pub use completions::Completions;
pub use pool::Pool;
pub use port::{
    Event, Layer, Message, Msg, NullPort, NullReply, PanicPort, PanicReply, Port, PortStats, Put, PutOnly,
    Receiver, ReplyOnly, Request, Sent, ShortCut, SpinPort, WakerPort, WakerReceiver,
};

/// An owned first-in-first-out queue of jobs. Dropping it completes them as [orphaned](Body::orphaned).
pub type List<T> = Fifo<Job<T>>;

/// An owned first-in-first-out queue of messages that came back. Dropping it sends them home.
pub type Returned<T> = Fifo<Own<T>>;

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
mod readme {}
