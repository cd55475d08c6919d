//! Messages and ports beside queues and channels: bars M1 to M5. (M6, no allocations, is a test of the crate.)
//!
//! The peers carry a word, ours and cordyceps link a message that comes back. No contender blocks.

use std::{
    cell::RefCell,
    hint::spin_loop,
    mem,
    ptr::NonNull,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{
            AtomicUsize,
            Ordering::{Acquire, Release},
        },
    },
};

use anyhow::{Context, Result};
use cordyceps::{
    Linked,
    mpsc_queue::{Links, MpscQueue},
};
use crossbeam_queue::ArrayQueue;
use dfly_hal::{CpuId, SpinWait, ThreadWait};
use dfly_lwkt::{Config, Cx, RunTime, Spec, host::Machine};
use dfly_msgport::{Job, List, Message, Msg, Port, Put, PutOnly, Request, SpinPort, WakerPort};

use crate::{
    harness::{Bar, Effort, Group, Unit},
    ipi::{Run, beside, compare, other_cpu},
};

/// Operations of a table's line, so that calling it weighs nothing.
const TURNS: usize = 100;
/// Messages between two CPUs before the sender waits.
const WINDOW: usize = 1024;

type Load = Message<usize>;

/// An entry of cordyceps' intrusive queue.
#[derive(Default)]
struct Entry {
    links: Links<Entry>,
    _value: usize,
}

// SAFETY: an entry lives for ever where it is, and the links are the field of that name.
unsafe impl Linked<Links<Self>> for Entry {
    type Handle = &'static Self;

    fn into_ptr(handle: &'static Self) -> NonNull<Self> {
        NonNull::from(handle)
    }

    unsafe fn from_ptr(ptr: NonNull<Self>) -> &'static Self {
        // SAFETY: it came from `into_ptr`.
        unsafe { ptr.as_ref() }
    }

    unsafe fn links(ptr: NonNull<Self>) -> NonNull<Links<Self>> {
        // SAFETY: the entry is alive.
        let links = unsafe { &raw mut (*ptr.as_ptr()).links };
        // SAFETY: a field of what is not null.
        unsafe { NonNull::new_unchecked(links) }
    }
}

fn entry() -> &'static Entry {
    Box::leak(Box::default())
}

#[expect(deprecated, reason = "the peer as its users have it")]
fn heapless_queue() -> heapless::mpmc::Queue<usize, WINDOW> {
    heapless::mpmc::Queue::new()
}

fn request(n: usize) -> Request<usize> {
    Msg::with(n).detached()
}

pub(crate) fn bench(effort: Effort) -> Result<()> {
    one_thread(effort);
    batches(effort);
    calls(effort);
    let machine = Machine::start(1, Config::default().run_time(RunTime::NotMeasured))?;
    let spec = Spec::new("bench").stack_bytes(1 << 20);
    let main = machine.scheduler().spawn(CpuId(0), spec, move |cx| two_threads(effort, &RefCell::new(cx)))?;
    main.join(&mut ThreadWait::new()).context("the thread that measures")?;
    if let Some(other) = other_cpu() {
        two_cpus(other, effort);
    }
    Ok(())
}

fn turns(mut turn: impl FnMut(usize)) -> impl FnMut() {
    move || (0..TURNS).for_each(&mut turn)
}

fn one_thread(effort: Effort) {
    let array = ArrayQueue::<usize>::new(WINDOW);
    let (cb_tx, cb_rx) = crossbeam_channel::bounded::<usize>(WINDOW);
    let small = heapless_queue();
    let (kanal_tx, kanal_rx) = kanal::bounded::<usize>(WINDOW);
    let (flume_tx, flume_rx) = flume::bounded::<usize>(WINDOW);
    let thing = thingbuf::ThingBuf::<usize>::new(WINDOW);
    let (mut ring_tx, mut ring_rx) = rtrb::RingBuffer::<usize>::new(WINDOW);
    let links = MpscQueue::<Entry>::new_with_stub(entry());
    let mut linked = Some(entry());
    let (spin, lockless) = (SpinPort::<Load>::new(), WakerPort::<Load>::new());
    let (mut at_spin, Some(mut at_lockless)) = (spin.receiver(), lockless.receiver()) else { return };
    let mut list = List::<Load>::new();
    let [mut a, mut b, mut c] = [0, 1, 2].map(|n| Some(request(n)));

    let mut group = Group::new(format!("{TURNS} x put, get, on one thread"), Unit::Operation);
    let base = group.add("crossbeam ArrayQueue", turns(|n| _ = (array.push(n), array.pop())));
    group.add("crossbeam channel, bounded", turns(|n| _ = (cb_tx.try_send(n), cb_rx.try_recv())));
    group.add("heapless mpmc", turns(|n| _ = (small.enqueue(n), small.dequeue())));
    group.add("kanal, bounded", turns(|n| _ = (kanal_tx.try_send(n), kanal_rx.try_recv())));
    group.add("flume, bounded", turns(|n| _ = (flume_tx.try_send(n), flume_rx.try_recv())));
    group.add("thingbuf", turns(|n| _ = (thing.push(n).is_ok(), thing.pop())));
    group.add("rtrb (one to one)", turns(|n| _ = (ring_tx.push(n), ring_rx.pop())));
    let cordyceps = group.add(
        "cordyceps MpscQueue",
        turns(|_| {
            linked.take().into_iter().for_each(|entry| links.enqueue(entry));
            // SAFETY: this thread alone receives.
            linked = unsafe { links.dequeue_unchecked() };
        }),
    );
    let ours = group.add(
        "List (a port of one CPU)",
        turns(|_| {
            list.extend(a.take());
            a = list.pop();
        }),
    );
    group.ratio(ours, base, Bar::TimeAtMost(0.50), "M1");
    let ours = group.add(
        "SpinPort",
        turns(|_| {
            b.take().into_iter().for_each(|job| job.forward(&spin));
            b = at_spin.get();
        }),
    );
    group.ratio(ours, base, Bar::TimeAtMost(1.0), "M2");
    let ours = group.add(
        "WakerPort",
        turns(|_| {
            c.take().into_iter().for_each(|job| job.forward(&lockless));
            c = at_lockless.get();
        }),
    );
    group.ratio(ours, cordyceps, Bar::TimeAtMost(1.0), "M5");
    group.run(effort);
}

fn batches(effort: Effort) {
    let links = MpscQueue::<Entry>::new_with_stub(entry());
    let mut linked: Vec<_> = (0..TURNS).map(|_| entry()).collect();
    let (spin, lockless) = (SpinPort::<Load>::new(), WakerPort::<Load>::new());
    let (mut at_spin, Some(mut at_lockless)) = (spin.receiver(), lockless.receiver()) else { return };
    let [mut a, mut b] = [(); 2].map(|()| (0..TURNS).map(request).collect::<List<_>>());

    let mut group = Group::new(format!("{TURNS} x put, then {TURNS} x get, on one thread"), Unit::Operation);
    let cordyceps = group.add("cordyceps MpscQueue", || {
        linked.drain(..).for_each(|entry| links.enqueue(entry));
        // SAFETY: this thread alone receives.
        while let Some(entry) = unsafe { links.dequeue_unchecked() } {
            linked.push(entry);
        }
    });
    let ours = group.add("SpinPort, get_up_to", || {
        a.by_ref().for_each(|job| job.forward(&spin));
        a = at_spin.get_up_to(TURNS);
    });
    group.ratio(ours, cordyceps, Bar::None, "no bar");
    let ours = group.add("WakerPort", || {
        b.by_ref().for_each(|job| job.forward(&lockless));
        while let Some(job) = at_lockless.get() {
            b.push(job);
        }
    });
    group.ratio(ours, cordyceps, Bar::TimeAtMost(1.0), "M5");
    group.run(effort);
}

fn calls(effort: Effort) {
    fn answer(mut request: Request<usize>) -> Put<Load> {
        **request += 1;
        Put::Done(request)
    }
    let at_once = PutOnly::new(answer);
    let dynamic: &dyn Port<Load> = &PutOnly::new(answer);
    let spin = SpinPort::<Load>::new();
    let mut receiver = spin.receiver();
    let (mut nothing, mut nothing_either) = (|| (), || ());
    let (w1, w2) = (&mut SpinWait::new(&mut nothing), &mut SpinWait::new(&mut nothing_either));
    let [mut a, mut b, mut c] = [0, 1, 2].map(|n| Some(Msg::with(n)));

    let mut group = Group::new(format!("{TURNS} x a call and its answer, on one thread"), Unit::Operation);
    group.add("answered at once", turns(|_| a = a.take().map(|msg| msg.call(&at_once, w1))));
    group.add("answered at once, dyn Port", turns(|_| b = b.take().map(|msg| msg.call(dynamic, w2))));
    group.add(
        "SpinPort: start, get, reply, take",
        turns(|_| {
            let sent = c.take().map(|msg| msg.start(&spin));
            receiver.get().into_iter().for_each(Job::reply);
            c = sent.and_then(|sent| sent.try_take().ok());
        }),
    );
    group.run(effort);
}

/// Client and server are threads of one CPU, which switches to and fro.
fn two_threads(effort: Effort, cx: &RefCell<&mut Cx<'_>>) {
    let (spin, lockless) = (Arc::new(SpinPort::<Load>::new()), Arc::new(WakerPort::<Load>::new()));
    let at_spin = spin.clone();
    let first = cx.borrow().scheduler().spawn(CpuId(0), "spin port".into(), move |cx| {
        let mut receiver = at_spin.receiver();
        while let Some(request) = receiver.wait(cx) {
            request.reply();
        }
    });
    let at_lockless = lockless.clone();
    let second = cx.borrow().scheduler().spawn(CpuId(0), "waker port".into(), move |cx| {
        let Some(mut receiver) = at_lockless.receiver() else { return };
        while let Some(request) = receiver.wait(cx) {
            request.reply();
        }
    });
    let array = ArrayQueue::<usize>::new(WINDOW);
    let [mut a, mut b] = [0, 1].map(|n| Some(Msg::with(n)));
    let mut group = Group::new(format!("{TURNS} x a call to a thread of the same CPU"), Unit::Operation);
    let base = group.add("crossbeam ArrayQueue, put, get", turns(|n| _ = (array.push(n), array.pop())));
    let ours = group.add("SpinPort", turns(|_| a = a.take().map(|msg| msg.call(&spin, *cx.borrow_mut()))));
    group.ratio(ours, base, Bar::TimeAtMost(2.5), "M3");
    let ours =
        group.add("WakerPort", turns(|_| b = b.take().map(|msg| msg.call(&lockless, *cx.borrow_mut()))));
    group.ratio(ours, base, Bar::TimeAtMost(2.5), "M3");
    group.run(effort);
    spin.close();
    lockless.close();
    for server in [first, second].into_iter().flatten() {
        // Its end is not what is measured.
        _ = server.join(*cx.borrow_mut());
    }
}

fn two_cpus(other: usize, effort: Effort) {
    let round_trips: [Run<'_>; 6] = [
        ("crossbeam channels, bounded", Box::new(|n| crossbeam_trips(other, n))),
        ("crossbeam ArrayQueue x2", Box::new(|n| array_trips(other, n))),
        ("kanal x2, bounded", Box::new(|n| kanal_trips(other, n))),
        ("rtrb x2", Box::new(|n| rtrb_trips(other, n))),
        ("WakerPort: start, is_done", Box::new(|n| waker_trips(other, n))),
        ("SpinPort: start, is_done", Box::new(|n| spin_trips(other, n))),
    ];
    compare("a call between two CPUs that poll", effort, &round_trips, &[(0, 0.75)], "M4");

    let one_way: [Run<'_>; 9] = [
        ("cordyceps MpscQueue", Box::new(|n| cordyceps_windows(other, n))),
        ("crossbeam ArrayQueue", Box::new(|n| array_windows(other, n))),
        ("crossbeam channel, bounded", Box::new(|n| crossbeam_windows(other, n))),
        ("heapless mpmc", Box::new(|n| heapless_windows(other, n))),
        ("kanal, bounded", Box::new(|n| kanal_windows(other, n))),
        ("flume, bounded", Box::new(|n| flume_windows(other, n))),
        ("thingbuf", Box::new(|n| thingbuf_windows(other, n))),
        ("SpinPort, get_up_to", Box::new(|n| spin_windows(other, n))),
        ("WakerPort", Box::new(|n| waker_windows(other, n))),
    ];
    let title = format!("a message one way between two CPUs, {WINDOW} at a time");
    compare(&title, effort, &one_way, &[(0, 0.75)], "M5");
}

/// `near` asks and waits for the answer, so often; `far` answers what there is.
fn trips(other: usize, count: usize, far: impl FnMut() + Send, mut near: impl FnMut(usize)) {
    beside(other, far, || (0..count).for_each(&mut near));
}

fn until<R>(mut look: impl FnMut() -> Option<R>) -> R {
    loop {
        if let Some(found) = look() {
            return found;
        }
        spin_loop();
    }
}

fn crossbeam_trips(other: usize, count: usize) {
    let (there, at_far) = crossbeam_channel::bounded::<usize>(1);
    let (back, at_near) = crossbeam_channel::bounded::<usize>(1);
    let far = move || _ = at_far.try_recv().map(|n| back.try_send(n));
    trips(other, count, far, |n| {
        _ = there.try_send(n);
        until(|| at_near.try_recv().ok());
    });
}

fn array_trips(other: usize, count: usize) {
    let [there, back] = [(); 2].map(|()| ArrayQueue::<usize>::new(2));
    let far = || _ = there.pop().map(|n| back.push(n));
    trips(other, count, far, |n| {
        _ = there.push(n);
        until(|| back.pop());
    });
}

fn kanal_trips(other: usize, count: usize) {
    let (there, at_far) = kanal::bounded::<usize>(1);
    let (back, at_near) = kanal::bounded::<usize>(1);
    let far = move || _ = at_far.try_recv().ok().flatten().map(|n| back.try_send(n));
    trips(other, count, far, |n| {
        _ = there.try_send(n);
        until(|| at_near.try_recv().ok().flatten());
    });
}

fn rtrb_trips(other: usize, count: usize) {
    let (mut there, mut at_far) = rtrb::RingBuffer::<usize>::new(2);
    let (mut back, mut at_near) = rtrb::RingBuffer::<usize>::new(2);
    let far = move || _ = at_far.pop().map(|n| back.push(n));
    trips(other, count, far, |n| {
        _ = there.push(n);
        until(|| at_near.pop().ok());
    });
}

fn spin_trips(other: usize, count: usize) {
    let port = SpinPort::<Load>::new();
    let mut receiver = port.receiver();
    port_trips(other, count, &port, move || receiver.get());
}

fn waker_trips(other: usize, count: usize) {
    let port = WakerPort::<Load>::new();
    let Some(mut receiver) = port.receiver() else { return };
    port_trips(other, count, &port, move || receiver.get());
}

fn port_trips(
    other: usize,
    count: usize,
    port: &impl Port<Load>,
    mut get: impl FnMut() -> Option<Request<usize>> + Send,
) {
    let mut idle = Some(Msg::with(0));
    let far = move || get().into_iter().for_each(Job::reply);
    trips(other, count, far, |_| {
        let Some(mut sent) = idle.take().map(|msg| msg.start(port)) else { return };
        while !sent.is_done() {
            spin_loop();
        }
        loop {
            match sent.try_take() {
                Ok(msg) => break idle = Some(msg),
                Err(again) => sent = again,
            }
        }
    });
}

/// `put` sends one; `get` receives what there is and says how much. The sender waits after each window.
fn windows(other: usize, count: usize, mut put: impl FnMut(), mut get: impl FnMut() -> usize + Send) {
    let seen = AtomicUsize::new(0);
    let far = || match get() {
        0 => {}
        n => _ = seen.fetch_add(n, Release),
    };
    beside(other, far, || {
        for window in 1..=count.div_ceil(WINDOW) {
            (0..WINDOW).for_each(|_| put());
            while seen.load(Acquire) < window * WINDOW {
                spin_loop();
            }
        }
    });
}

/// How much a queue of words gives until it is empty.
fn drain(mut get: impl FnMut() -> Option<usize>) -> usize {
    let mut count = 0;
    while get().is_some() {
        count += 1;
    }
    count
}

fn array_windows(other: usize, count: usize) {
    let queue = ArrayQueue::<usize>::new(WINDOW);
    windows(other, count, || _ = queue.push(1), || drain(|| queue.pop()));
}

fn crossbeam_windows(other: usize, count: usize) {
    let (tx, rx) = crossbeam_channel::bounded::<usize>(WINDOW);
    windows(other, count, || _ = tx.try_send(1), || drain(|| rx.try_recv().ok()));
}

fn heapless_windows(other: usize, count: usize) {
    let queue = heapless_queue();
    windows(other, count, || _ = queue.enqueue(1), || drain(|| queue.dequeue()));
}

fn kanal_windows(other: usize, count: usize) {
    let (tx, rx) = kanal::bounded::<usize>(WINDOW);
    windows(other, count, || _ = tx.try_send(1), || drain(|| rx.try_recv().ok().flatten()));
}

fn flume_windows(other: usize, count: usize) {
    let (tx, rx) = flume::bounded::<usize>(WINDOW);
    windows(other, count, || _ = tx.try_send(1), || drain(|| rx.try_recv().ok()));
}

fn thingbuf_windows(other: usize, count: usize) {
    let queue = thingbuf::ThingBuf::<usize>::new(WINDOW);
    windows(other, count, || _ = queue.push(1), || drain(|| queue.pop()));
}

/// A window of messages on its way back to the sender, in one piece.
struct Back<T>(Mutex<T>);

impl<T: Default> Back<T> {
    fn take(&self) -> T {
        mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
    fn give(&self, all: T) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = all;
    }
}

fn cordyceps_windows(other: usize, count: usize) {
    let queue = MpscQueue::<Entry>::new_with_stub(entry());
    let back = Back(Mutex::new((0..WINDOW).map(|_| entry()).collect::<Vec<_>>()));
    let (mut idle, mut got) = (Vec::new(), Vec::with_capacity(WINDOW));
    let put = || {
        if idle.is_empty() {
            idle = back.take();
        }
        idle.pop().into_iter().for_each(|entry| queue.enqueue(entry));
    };
    let get = || {
        let before = got.len();
        // SAFETY: this thread alone receives.
        while let Some(entry) = unsafe { queue.dequeue_unchecked() } {
            got.push(entry);
        }
        let more = got.len() - before;
        if got.len() == WINDOW {
            back.give(mem::replace(&mut got, Vec::with_capacity(WINDOW)));
        }
        more
    };
    windows(other, count, put, get);
}

fn spin_windows(other: usize, count: usize) {
    let port = SpinPort::<Load>::new();
    let mut receiver = port.receiver();
    port_windows(other, count, &port, move |got| got.append(&mut receiver.get_up_to(WINDOW)));
}

fn waker_windows(other: usize, count: usize) {
    let port = WakerPort::<Load>::new();
    let Some(mut receiver) = port.receiver() else { return };
    port_windows(other, count, &port, move |got| {
        while let Some(job) = receiver.get() {
            got.push(job);
        }
    });
}

fn port_windows(
    other: usize,
    count: usize,
    port: &impl Port<Load>,
    mut receive: impl FnMut(&mut List<Load>) + Send,
) {
    let back = Back(Mutex::new((0..WINDOW).map(request).collect::<List<_>>()));
    let (mut idle, mut got) = (List::new(), List::new());
    let put = || {
        if idle.is_empty() {
            idle = back.take();
        }
        idle.pop().into_iter().for_each(|job| job.forward(port));
    };
    let get = || {
        let before = got.len();
        receive(&mut got);
        let more = got.len() - before;
        if got.len() == WINDOW {
            back.give(mem::take(&mut got));
        }
        more
    };
    windows(other, count, put, get);
}
