//! A storm: thousands of clients and servers on several threads, that answer, drop, keep, forward, abort, withdraw, give
//! up, close and exit at random. Every message ends once, counted.
#![cfg(not(loom))]
#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use dfly_hal::{ThreadWait, host};
use dfly_msgport::{
    Body, Completions, Event, Job, List, Own, Pending, Pool, Port, Receiver, SpinPort, Unanswered, WakerPort,
    WakerReceiver,
};

/// Sizes: of a run on a machine, and of one under Miri.
struct Size {
    client_threads: u64,
    clients: usize,
    steps: usize,
    server_threads: usize,
    /// Servers of one thread.
    servers: usize,
    /// How long a server thread lives, in looks at all its ports.
    looks: usize,
}

const SIZE: Size = if cfg!(miri) {
    Size { client_threads: 2, clients: 6, steps: 60, server_threads: 2, servers: 3, looks: 12 }
} else {
    Size { client_threads: 4, clients: 500, steps: 5_000_000, server_threads: 3, servers: 64, looks: 300 }
};

static SENT: AtomicU64 = AtomicU64::new(0);
static ENDED: AtomicU64 = AtomicU64::new(0);
/// By outcome: answered, orphaned, aborted, withdrawn, port closed.
static OUTCOMES: [AtomicU64; 5] = [const { AtomicU64::new(0) }; 5];

#[derive(Default)]
struct Load {
    under_way: bool,
    urgent: bool,
    outcome: usize,
    /// Where it was, added up by its receivers: a race would show under Miri.
    hops: u64,
}

impl Load {
    fn end(&mut self) {
        if std::mem::take(&mut self.under_way) {
            ENDED.fetch_add(1, SeqCst);
            OUTCOMES[self.outcome].fetch_add(1, SeqCst);
        }
    }
}

impl Body for Load {
    type Shared = ();
    type Key = ();

    fn sent(&mut self) {
        assert!(!self.under_way, "sent while it is under way");
        SENT.fetch_add(1, SeqCst);
        *self = Self { under_way: true, urgent: self.urgent, ..Self::default() };
    }
    fn orphaned(&mut self) {
        assert!(self.under_way && self.outcome == 0, "ended twice");
        self.outcome = 1;
    }
    fn unanswered(&mut self, why: Unanswered) {
        self.orphaned();
        self.outcome = match why {
            Unanswered::Aborted => 2,
            Unanswered::Withdrawn => 3,
            Unanswered::PortClosed => 4,
            _ => 1,
        };
    }
    fn is_urgent(&self) -> bool {
        self.urgent
    }
    fn reset(&mut self) {
        self.end();
    }
}

struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % n as u64) as usize
    }
}

enum AnyPort {
    Spin(SpinPort<Load>),
    Waker(WakerPort<Load>),
}

enum AnyReceiver<'p> {
    Spin(Receiver<'p, Load>),
    Waker(WakerReceiver<'p, Load>),
}

impl AnyPort {
    fn receiver(&self) -> AnyReceiver<'_> {
        match self {
            Self::Spin(port) => AnyReceiver::Spin(port.receiver()),
            Self::Waker(port) => AnyReceiver::Waker(port.receiver().expect("one server")),
        }
    }
}

impl Port<Load> for AnyPort {
    fn put(&self, job: Job<Load>) -> dfly_msgport::Put<Load> {
        match self {
            Self::Spin(port) => port.put(job),
            Self::Waker(port) => port.put(job),
        }
    }
    fn sweep(&self) {
        match self {
            Self::Spin(port) => port.sweep(),
            Self::Waker(port) => port.sweep(),
        }
    }
}

impl AnyReceiver<'_> {
    fn get(&mut self) -> Option<Job<Load>> {
        match self {
            Self::Spin(receiver) => receiver.get(),
            Self::Waker(receiver) => receiver.get(),
        }
    }
    fn wait_shortly(&mut self, w: &mut ThreadWait) -> Option<Event<Load>> {
        let soon = Some(host::now().saturating_add(Duration::from_micros(50)));
        match self {
            Self::Spin(receiver) => receiver.wait_event(w, soon).ok(),
            Self::Waker(receiver) => receiver.wait_event(w, soon).ok(),
        }
    }
}

/// The ports that are served now; a dead one is replaced, and those who still have it learn that it is closed.
type Directory = Mutex<Vec<Arc<AnyPort>>>;

fn some_port(directory: &Directory, random: &mut Random) -> Arc<AnyPort> {
    let ports = directory.lock().unwrap();
    ports[random.below(ports.len())].clone()
}

/// One life of a server thread: it serves its part of the directory, and exits with whatever it has in hand.
fn serve(directory: &Directory, part: std::ops::Range<usize>, random: &mut Random, looks: usize) -> usize {
    let ports: Vec<Arc<AnyPort>> = directory.lock().unwrap()[part].to_vec();
    let mut servers: Vec<_> = ports.iter().map(|port| (port.receiver(), List::new())).collect();
    let w = &mut ThreadWait::new();
    for look in 0..looks {
        let mut idle = true;
        for (receiver, kept) in &mut servers {
            while let Some(mut job) = receiver.get() {
                idle = false;
                job.hops += 1;
                match random.below(10) {
                    0 => drop(job),
                    1 | 2 if job.hops < 5 => job.forward(&some_port(directory, random)),
                    3 | 4 => kept.push(job),
                    _ => job.complete(),
                }
            }
            // Some of what is kept is answered, some stays to the end.
            if random.below(8) == 0
                && let Some(job) = kept.pop()
            {
                job.complete();
            }
        }
        if idle {
            let n = random.below(servers.len());
            let (receiver, kept) = &mut servers[n];
            match receiver.wait_shortly(w) {
                Some(Event::Arrived(job)) => kept.push(job),
                Some(Event::Recall) => {
                    kept.extract(Job::is_abort_asked).for_each(|job| job.refuse(Unanswered::Aborted));
                }
                Some(Event::Closed) | None => {}
            }
        }
        if look % 50 == 49 {
            // Some close by themselves.
            if let AnyPort::Spin(port) = &*ports[random.below(ports.len())] {
                port.close();
            }
        }
    }
    servers.len()
}

/// What one client is doing.
enum Client {
    Idle,
    Waiting(Pending<Load>, Arc<AnyPort>),
}

fn take_back(mut own: Own<Load>) {
    own.end();
}

fn step(
    client: &mut Client,
    pool: &Pool<Load>,
    replies: &Arc<Completions<Load>>,
    directory: &Directory,
    random: &mut Random,
) {
    *client = match std::mem::replace(client, Client::Idle) {
        Client::Idle => {
            let Some(mut own) = pool.get() else { return };
            own.urgent = random.below(5) == 0;
            let port = some_port(directory, random);
            match random.below(6) {
                0 => own.post(&port),
                1 => own.send(&port, replies.clone()),
                _ => {
                    *client = Client::Waiting(own.start(&port), port);
                    return;
                }
            }
            Client::Idle
        }
        Client::Waiting(sent, port) => {
            let rest = match random.below(12) {
                // Gives up: nobody waits any more.
                0 => return,
                1 | 2 => {
                    sent.abort(&port);
                    sent.try_take()
                }
                3 | 4 => sent.withdraw(&port),
                _ => sent.try_take(),
            };
            match rest {
                Ok(own) => {
                    take_back(own);
                    Client::Idle
                }
                Err(sent) => Client::Waiting(sent, port),
            }
        }
    };
}

#[test]
fn every_message_ends_once() {
    let new_port = |n: usize| {
        Arc::new(if n % 3 == 2 { AnyPort::Waker(WakerPort::new()) } else { AnyPort::Spin(SpinPort::new()) })
    };
    let parts = SIZE.server_threads * SIZE.servers;
    let directory: Directory = Mutex::new((0..parts).map(new_port).collect());
    let clients = SIZE.client_threads as usize * SIZE.clients;
    let pool = Pool::new(clients * 2, Load::default);
    let replies = Arc::new(Completions::new());
    let (over, servers) = (AtomicBool::new(false), AtomicUsize::new(0));

    thread::scope(|scope| {
        let (directory, pool, replies, over, servers) = (&directory, &pool, &replies, &over, &servers);
        let keepers: Vec<_> = (0..SIZE.server_threads)
            .map(|thread| {
                scope.spawn(move || {
                    let part = thread * SIZE.servers..(thread + 1) * SIZE.servers;
                    let mut life = 0;
                    while !over.load(SeqCst) {
                        life += 1;
                        let seed = 0x9e37_79b9 * (1 + life * 7 + thread as u64);
                        let part = part.clone();
                        // A thread for each life: what it leaves, its exit drops.
                        thread::scope(|scope| {
                            let served =
                                scope.spawn(|| serve(directory, part.clone(), &mut Random(seed), SIZE.looks));
                            servers.fetch_add(served.join().unwrap(), SeqCst);
                        });
                        part.for_each(|n| {
                            let new = new_port(n);
                            let _dead = std::mem::replace(&mut directory.lock().unwrap()[n], new);
                        });
                    }
                })
            })
            .collect();
        let client_threads: Vec<_> = (0..SIZE.client_threads)
            .map(|thread| {
                scope.spawn(move || {
                    let random = &mut Random(0xdead_beef + thread);
                    let mut clients: Vec<_> = (0..SIZE.clients).map(|_| Client::Idle).collect();
                    for _ in 0..SIZE.steps {
                        let client = random.below(clients.len());
                        step(&mut clients[client], pool, replies, directory, random);
                        replies.drain().for_each(take_back);
                    }
                    // Half of them wait to the end, in earnest; the others exit.
                    let w = &mut ThreadWait::new();
                    for (n, client) in clients.into_iter().enumerate() {
                        if let (0, Client::Waiting(sent, _)) = (n % 2, client) {
                            take_back(sent.wait(w));
                        }
                    }
                })
            })
            .collect();
        client_threads.into_iter().for_each(|thread| thread.join().unwrap());
        over.store(true, SeqCst);
        keepers.into_iter().for_each(|thread| thread.join().unwrap());
    });
    // What was sent to the last ports, which nobody served.
    drop(directory);
    replies.drain().for_each(take_back);

    let home: Vec<_> = std::iter::from_fn(|| pool.get()).collect();
    assert_eq!(home.len(), pool.capacity(), "a message is lost");
    assert!(home.iter().all(|own| !own.under_way));
    let (sent, outcomes) = (SENT.load(SeqCst), OUTCOMES.each_ref().map(|n| n.load(SeqCst)));
    println!("{clients} clients, {} servers, {sent} messages: {outcomes:?}", servers.load(SeqCst));
    assert_eq!(ENDED.load(SeqCst), sent);
    assert_eq!(outcomes.iter().sum::<u64>(), sent);
    if !cfg!(miri) {
        assert!(outcomes.iter().all(|&n| n > 0), "something never happened: {outcomes:?}");
    }
}
