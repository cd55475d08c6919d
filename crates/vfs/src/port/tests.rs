//! A file system behind a port does what it does without one, and its clients outlive it.

use std::string::{String, ToString};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::thread::{self, JoinHandle};
use std::time::Duration;
use std::vec::Vec;
use std::{format, vec};

use core::ops::ControlFlow;

use dfly_hal::ThreadWait;
use dfly_hal::host::HostClock;
use proptest::prelude::*;

use super::*;
use crate::mem::MemFs;
use crate::{
    Access, Attr, Call, Cred, DirSink, Errno, FIRST_COOKIE, FileSystem, FileSystemExt, LinkSink, Name,
    OpenId, Opened, ReadSink, Result, SetAttr, Special, StatFs, WriteAt,
};

fn start<F: FileSystem + 'static>(fs: F, calls_max: usize, threads: usize) -> (Vec<JoinHandle<()>>, PortFs) {
    serve(Arc::new(fs), calls_max, threads)
}

fn serve(fs: Arc<dyn FileSystem>, calls_max: usize, threads: usize) -> (Vec<JoinHandle<()>>, PortFs) {
    let (server, fs) = FsServer::new(fs, calls_max);
    let server = Arc::new(server);
    let run = |_| {
        let server = server.clone();
        thread::spawn(move || server.run(&mut ThreadWait::new()))
    };
    ((0..threads).map(run).collect(), fs)
}

/// Everything there is, as text.
fn tree(fs: &dyn FileSystem) -> String {
    let mut w = ThreadWait::new();
    let c = &mut Call::new(&mut w);
    let mut text = String::new();
    let mut stack = vec![fs.root()];
    while let Some(dir) = stack.pop() {
        let mut entries = Vec::new();
        fs.readdir(c, dir, 0, &mut |e| {
            entries.push((e.name.to_vec(), e.node, e.next));
            ControlFlow::Continue(())
        })
        .unwrap();
        for (name, node, next) in entries {
            let mut bytes = Vec::new();
            let attr = fs.getattr(c, node).unwrap();
            match attr.kind {
                crate::Kind::Directory if next > FIRST_COOKIE => stack.push(node),
                crate::Kind::Symlink => fs.readlink(c, node, &mut |b| bytes.extend_from_slice(b)).unwrap(),
                crate::Kind::Regular => {
                    fs.read(c, node, 0, u64::MAX, &mut |b| {
                        bytes.extend_from_slice(b);
                        ControlFlow::Continue(())
                    })
                    .unwrap();
                }
                _ => {}
            }
            // Its clock counts changes, and a long write is several behind a port.
            let none = Default::default();
            let attr = Attr { mtime: none, ctime: none, atime: none, ..attr };
            text += &format!("{} {next} {attr:?} {}\n", name.escape_ascii(), bytes.escape_ascii());
        }
    }
    text
}

/// One operation on one of few names; what it gives, as text.
fn step(fs: &dyn FileSystem, (what, a, b): (u8, u8, u8)) -> String {
    let mut w = ThreadWait::new();
    let c = &mut Call::on_behalf_of(Cred::user(u32::from(b % 2), 5), &mut w);
    let root = fs.root();
    let names = [format!("n{}", a % 4), format!("n{}", b % 4)];
    let [name, other] = names.each_ref().map(|n| Name::new(n).unwrap());
    let dir = |c: &mut Call<'_>| match fs.nresolve(c, root, Name::new("d").unwrap()) {
        Ok(attr) if b % 3 == 0 => attr.node,
        _ => root,
    };
    let dir = dir(c);
    let node = |c: &mut Call<'_>| fs.nresolve(c, dir, name).map(|attr| attr.node);
    let still = |attr: Attr| (attr.kind, attr.mode, attr.uid, attr.nlink, attr.size, attr.fileid);
    let mut bytes = Vec::new();
    match what % 16 {
        0 => format!("{:?}", fs.ncreate(c, dir, name, 0o644).map(still)),
        1 => format!("{:?}", fs.nmkdir(c, root, Name::new("d").unwrap(), 0o755).map(still)),
        2 => format!("{:?}", fs.nsymlink(c, dir, name, &[b'x'; 7]).map(still)),
        3 => format!("{:?}", node(c).and_then(|n| fs.nlink(c, n, dir, other)).map(still)),
        4 => format!("{:?}", fs.nremove(c, dir, name)),
        5 => format!("{:?}", fs.nrmdir(c, root, Name::new("d").unwrap())),
        6 => format!("{:?}", fs.nrename(c, (dir, name), (root, other))),
        7 => {
            let data = vec![a; 300 * usize::from(b)];
            format!("{:?}", node(c).and_then(|n| fs.write(c, n, WriteAt::Offset(u64::from(a) * 9), &data)))
        }
        8 => format!("{:?}", node(c).and_then(|n| fs.write(c, n, WriteAt::End, b"more"))),
        9 => {
            let change = SetAttr { mode: Some(0o600), size: Some(u64::from(b) * 700), ..SetAttr::default() };
            format!("{:?}", node(c).and_then(|n| fs.setattr(c, n, &change)).map(still))
        }
        10 => {
            let done = node(c).and_then(|n| {
                fs.read(c, n, u64::from(a), 100 * u64::from(b), &mut |part| {
                    bytes.extend_from_slice(part);
                    ControlFlow::Continue(())
                })
            });
            format!("{done:?} {bytes:?}")
        }
        11 => format!("{:?}", node(c).and_then(|n| fs.readlink(c, n, &mut |b| bytes.extend_from_slice(b)))),
        12 => format!("{:?}", fs.nmknod(c, dir, name, Special::Fifo, 0o600).map(still)),
        13 => {
            let opened = node(c).and_then(|n| fs.open(c, n, Access::ReadWrite));
            let _ = opened.map(|opened| fs.close(opened.open));
            format!("{:?} {:?}", opened.map(|_| ()), node(c).and_then(|n| fs.next_data(c, n, 3)))
        }
        14 => format!("{:?} {:?}", fs.statfs(c), fs.nlookupdotdot(c, dir).map(still)),
        _ => format!("{:?} {:?}", fs.sync(c), node(c).and_then(|n| fs.fsync(c, n))),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..Default::default() })]

    #[test]
    fn every_call_gives_behind_a_port_what_it_gives_without(
        steps in proptest::collection::vec(any::<(u8, u8, u8)>(), 0..60),
    ) {
        let direct = MemFs::new();
        let (servers, behind) = start(MemFs::new(), 2, 1);
        for at in steps {
            prop_assert_eq!(step(&behind, at), step(&direct, at));
        }
        prop_assert_eq!(tree(&behind), tree(&direct));
        drop(behind);
        for server in servers {
            server.join().unwrap();
        }
    }
}

#[test]
fn long_files_and_long_directories_come_in_pieces() {
    let (servers, fs) = start(MemFs::new(), 1, 1);
    let w = &mut ThreadWait::new();
    let bytes: Vec<u8> = (0..3 * PIECE_BYTES + 17).map(|n| (n / 251) as u8).collect();
    let file = fs.at(w).ncreate("long", 0o644).unwrap().open(Access::ReadWrite).unwrap();
    let node = fs.at(w).walk("long").unwrap().node();
    let mut done = 0;
    while done < bytes.len() {
        let more = fs.write(&mut Call::new(w), node, WriteAt::End, &bytes[done..]).unwrap();
        assert!((1..=PIECE_BYTES).contains(&more));
        done += more;
    }
    let mut back = Vec::new();
    let count = fs.read(&mut Call::new(w), node, 5, u64::MAX, &mut |part| {
        back.extend_from_slice(part);
        ControlFlow::Continue(())
    });
    assert_eq!(count, Ok(bytes.len() as u64 - 5));
    assert!(back == bytes[5..]);
    let mut looks = 0;
    let count = fs.read(&mut Call::new(w), node, 0, u64::MAX, &mut |_| {
        looks += 1;
        ControlFlow::Break(())
    });
    assert_eq!((looks, count), (1, Ok(PIECE_BYTES as u64)));
    drop(file);

    for n in 0..2 * ENTRIES_MAX + 3 {
        fs.at(w).ncreate(n.to_string(), 0o644).unwrap();
    }
    let list = |cookie, most| {
        let mut seen = Vec::new();
        fs.readdir(&mut Call::new(&mut ThreadWait::new()), fs.root(), cookie, &mut |e| {
            seen.push((String::from_utf8_lossy(e.name).into_owned(), e.next));
            if seen.len() < most { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        })
        .unwrap();
        seen
    };
    let all = list(0, usize::MAX);
    assert_eq!(all.len(), 2 + 1 + 2 * ENTRIES_MAX + 3);
    let half = list(0, 300);
    assert_eq!(half, all[..300]);
    assert_eq!(list(half[299].1, usize::MAX), all[300..]);
    drop(fs);
    servers.into_iter().for_each(|server| server.join().unwrap());
}

#[test]
fn what_is_closed_behind_a_port_is_closed() {
    let mem = Arc::new(MemFs::new());
    let (servers, fs) = serve(mem.clone(), 2, 1);
    let w = &mut ThreadWait::new();
    let file = fs.at(w).ncreate("a", 0o644).unwrap().open(Access::Read).unwrap();
    fs.at(w).nremove("a").unwrap();
    assert_eq!(mem.open_files(), 1);
    assert_eq!(file.read_at(w, 0, &mut [0; 4]), Ok(0), "open, so still there");
    drop(file);
    // Nobody waits for it; what comes after is served after.
    fs.sync(&mut Call::new(w)).unwrap();
    assert_eq!(mem.open_files(), 0);
    drop(fs);
    servers.into_iter().for_each(|server| server.join().unwrap());
}

#[test]
fn many_clients_and_servers_share_one_file_system() {
    let (servers, fs) = start(MemFs::new(), 3, 2);
    let fs = Arc::new(fs);
    let clients: Vec<_> = (0..4)
        .map(|client| {
            let fs = fs.clone();
            thread::spawn(move || {
                let w = &mut ThreadWait::new();
                for n in 0..50 {
                    let name = format!("{client}-{n}");
                    let file = fs.at(w).ncreate(&name, 0o644).unwrap().open(Access::ReadWrite).unwrap();
                    file.write_at(w, 0, name.as_bytes()).unwrap();
                    let mut back = vec![0; name.len()];
                    assert_eq!(file.read_at(w, 0, &mut back), Ok(name.len()));
                    assert_eq!(back, name.as_bytes());
                }
            })
        })
        .collect();
    clients.into_iter().for_each(|client| client.join().unwrap());
    assert_eq!(tree(&*fs).lines().count(), 2 + 4 * 50);
    drop(fs);
    servers.into_iter().for_each(|server| server.join().unwrap());
}

/// Answers nothing but `statfs`: late, by a panic, or by how many it serves at a time.
struct Odd<S>(S);

macro_rules! required {
    ($fs:expr) => {
        fn root(&self) -> NodeId {
            ($fs)(self).root()
        }
        fn getattr(&self, c: &mut Call<'_>, node: NodeId) -> Result<Attr> {
            ($fs)(self).getattr(c, node)
        }
        fn nresolve(&self, c: &mut Call<'_>, dir: NodeId, name: Name<'_>) -> Result<Attr> {
            ($fs)(self).nresolve(c, dir, name)
        }
        fn nlookupdotdot(&self, c: &mut Call<'_>, dir: NodeId) -> Result<Attr> {
            ($fs)(self).nlookupdotdot(c, dir)
        }
        fn readlink(&self, c: &mut Call<'_>, node: NodeId, out: &mut LinkSink<'_>) -> Result<()> {
            ($fs)(self).readlink(c, node, out)
        }
        fn open(&self, c: &mut Call<'_>, node: NodeId, how: Access) -> Result<Opened> {
            ($fs)(self).open(c, node, how)
        }
        fn close(&self, open: OpenId) {
            ($fs)(self).close(open);
        }
        fn read(
            &self,
            c: &mut Call<'_>,
            node: NodeId,
            offset: u64,
            len: u64,
            out: &mut ReadSink<'_>,
        ) -> Result<u64> {
            ($fs)(self).read(c, node, offset, len, out)
        }
        fn readdir(&self, c: &mut Call<'_>, dir: NodeId, cookie: u64, out: &mut DirSink<'_>) -> Result<()> {
            ($fs)(self).readdir(c, dir, cookie, out)
        }
    };
}

impl<S: Fn() + Send + Sync> FileSystem for Odd<S> {
    required!(|_: &Self| MemFs::new());
    fn statfs(&self, _: &mut Call<'_>) -> Result<StatFs> {
        (self.0)();
        Ok(StatFs::new("odd"))
    }
}

fn statfs(fs: &PortFs) -> Result<&'static str> {
    fs.statfs(&mut Call::new(&mut ThreadWait::new())).map(|figures| figures.type_name)
}

#[test]
fn no_more_calls_are_under_way_than_was_said() {
    static NOW: AtomicUsize = AtomicUsize::new(0);
    static MOST: AtomicUsize = AtomicUsize::new(0);
    let gauge = || {
        MOST.fetch_max(NOW.fetch_add(1, SeqCst) + 1, SeqCst);
        thread::sleep(Duration::from_millis(1));
        NOW.fetch_sub(1, SeqCst);
    };
    let (servers, fs) = start(Odd(gauge), 2, 4);
    thread::scope(|scope| {
        for _ in 0..6 {
            scope.spawn(|| (0..4).for_each(|_| assert_eq!(statfs(&fs), Ok("odd"))));
        }
    });
    assert!((1..=2).contains(&MOST.load(SeqCst)));
    drop(fs);
    servers.into_iter().for_each(|server| server.join().unwrap());
}

#[test]
fn a_server_that_panics_or_never_ran_is_an_error_and_no_hang() {
    let (mut servers, fs) = start(Odd(|| panic!("a defect")), 1, 1);
    assert_eq!(statfs(&fs).unwrap_err(), Errno::EIO);
    assert!(servers.remove(0).join().is_err());
    assert_eq!(statfs(&fs).unwrap_err(), Errno::ENXIO);
    fs.close(OpenId(1));

    let (server, fs) = FsServer::new(Arc::new(MemFs::new()), 1);
    drop(server);
    assert_eq!(statfs(&fs).unwrap_err(), Errno::ENXIO);

    let (servers, fs) = start(MemFs::new(), 1, 1);
    fs.shut_down();
    servers.into_iter().for_each(|server| server.join().unwrap());
    assert_eq!(statfs(&fs).unwrap_err(), Errno::ENXIO);
}

/// With one slot for another call, which is aborted in the port and gives it back, and with none, which is waited for.
#[test]
fn a_call_that_runs_late_is_given_up_and_counts_until_it_is_over() {
    for calls_max in [2, 1] {
        let gate = Arc::new(std::sync::Barrier::new(2));
        let wait = gate.clone();
        let (servers, fs) = start(Odd(move || _ = wait.wait()), calls_max, 1);
        let clock = Arc::new(HostClock::new());
        let fs = fs.with_limit(clock.clone(), Duration::from_millis(10));
        for _ in 0..4 {
            assert_eq!(statfs(&fs).unwrap_err(), Errno::ETIMEDOUT);
        }
        // The first one's answer comes, and nobody is there to take it: its slot is back.
        gate.wait();
        let fs = fs.with_limit(clock, Duration::from_secs(60));
        let relay = thread::spawn(move || gate.wait());
        assert_eq!(statfs(&fs), Ok("odd"));
        relay.join().unwrap();
        drop(fs);
        servers.into_iter().for_each(|server| server.join().unwrap());
    }
}

#[test]
fn a_call_is_small_enough_for_a_kernel_stack() {
    assert!(size_of::<VfsCall>() <= 1024, "{}", size_of::<VfsCall>());
}
