//! Writing, held against a file system in memory: the same operations, the same answers, the same tree; on the disk
//! nothing for the check to find; and after a power cut a state that was there.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex};

use dfly_bio::{BlockDevice, Cut, JobList, Limits, MemDisk, Op, PowerCut};
use dfly_hal::ThreadWait;
use dfly_hammer::check::{self, Event};
use dfly_hammer::{Hammer, MountError, MountOptions, Tid, WallClock, format};
use dfly_vfs::mem::MemFs;
use dfly_vfs::{
    self as vfs, Access, Attr, Call, DeviceNumber, Errno, FileFlags, FileSystem, Kind, Name, NodeId, SetAttr,
    Special, WriteAt,
};

use crate::common::stat;

fn newfs(version: u32, bytes: u64) -> Arc<MemDisk> {
    let disk = Arc::new(MemDisk::new(512, bytes / 512));
    let mut options = format::Options::new(b"WRITING", [3; 16], 1_600_000_000_000_000);
    options.undo_bytes = Some(8 << 20);
    options.version = version;
    let devices: [Arc<dyn BlockDevice>; 1] = [disk.clone()];
    format::newfs(&devices, &options, &mut ThreadWait::new()).unwrap();
    disk
}

fn clock() -> Box<dyn WallClock> {
    let now = AtomicI64::new(1_700_000_000_000_000);
    Box::new(move || vfs::Timestamp::from_micros(now.fetch_add(137, Ordering::Relaxed)))
}

fn mount(disk: Arc<dyn BlockDevice>) -> Result<Hammer, MountError> {
    mount_with_cache(disk, MountOptions::default().cache_bytes)
}

fn mount_with_cache(disk: Arc<dyn BlockDevice>, cache_bytes: usize) -> Result<Hammer, MountError> {
    let mut options = MountOptions::default();
    options.cache_bytes = cache_bytes;
    Hammer::mount_writable(&[disk], options, clock(), &mut ThreadWait::new())
}

#[track_caller]
fn assert_clean(disk: Arc<dyn BlockDevice>, context: &str) {
    let mut first = None;
    check::check(&[disk], &check::Options::default(), &mut ThreadWait::new(), &mut |event| {
        if let Event::Found(finding) = event {
            first.get_or_insert(finding);
        }
    })
    .unwrap();
    assert!(first.is_none(), "{context}: {}", first.unwrap());
}

/// What a path leads to, as far as any two file systems agree.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Seen {
    kind: Kind,
    mode: u16,
    owner: (u32, u32),
    /// Of directories file systems count differently.
    links: u64,
    device: DeviceNumber,
    contents: Vec<u8>,
}

type Listing = BTreeMap<Vec<u8>, Seen>;

fn contents(fs: &dyn FileSystem, w: &mut ThreadWait, node: NodeId) -> Vec<u8> {
    let mut bytes = Vec::new();
    fs.read(&mut Call::new(w), node, 0, u64::MAX, &mut |b| {
        bytes.extend_from_slice(b);
        ControlFlow::Continue(())
    })
    .unwrap();
    bytes
}

/// Everything below a directory.
fn listing(fs: &dyn FileSystem, root: NodeId) -> Listing {
    let w = &mut ThreadWait::new();
    let mut all = Listing::new();
    let mut stack = vec![(Vec::new(), root)];
    while let Some((path, node)) = stack.pop() {
        let attr = fs.getattr(&mut Call::new(w), node).unwrap();
        let mut seen = Seen {
            kind: attr.kind,
            mode: attr.mode,
            owner: (attr.uid, attr.gid),
            links: attr.nlink,
            device: attr.rdev,
            contents: Vec::new(),
        };
        match attr.kind {
            Kind::Directory => {
                seen.links = 1;
                fs.readdir(&mut Call::new(w), node, vfs::FIRST_COOKIE, &mut |e| {
                    stack.push(([&path, &b"/"[..], e.name].concat(), e.node));
                    ControlFlow::Continue(())
                })
                .unwrap();
            }
            Kind::Regular => {
                seen.contents = contents(fs, w, node);
                assert_eq!(seen.contents.len() as u64, attr.size);
            }
            Kind::Symlink => {
                fs.readlink(&mut Call::new(w), node, &mut |b| seen.contents.extend_from_slice(b)).unwrap();
            }
            _ => {}
        }
        assert!(all.insert(path, seen).is_none());
    }
    all
}

/// Numbers that look random and are the same every time.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % sides
    }

    /// Few names, so that they meet; three of them have the same key.
    fn name(&mut self) -> String {
        match self.roll(12) {
            0 => "a.b.c.d.h.g.e.f".into(),
            1 => "b.c.a.g.h.f.e.d".into(),
            2 => "b.h.c.g.f.e.a.d".into(),
            3 => "long".repeat(60),
            n => format!("f{n}"),
        }
    }

    fn size(&mut self) -> u64 {
        match self.roll(5) {
            0 => self.roll(40),
            1 => self.roll(9000),
            2 => 8192 * (1 + self.roll(4)),
            3 => self.roll(100_000),
            _ => (1 << 20) - 30_000 + self.roll(300_000),
        }
    }
}

/// One operation, by places in the tree. The numbers of directories count those that were ever made.
#[derive(Clone, Debug)]
enum Step {
    Create { dir: usize, name: String, mode: u16 },
    Mkdir { dir: usize, name: String },
    Symlink { dir: usize, name: String, len: usize },
    Mknod { dir: usize, name: String, what: Special },
    Link { from: (usize, String), to: (usize, String) },
    Unlink { dir: usize, name: String },
    Rmdir { dir: usize, name: String },
    Rename { from: (usize, String), to: (usize, String) },
    Chmod { dir: usize, name: String, mode: u16 },
    Chown { dir: usize, name: String, uid: u32 },
    Truncate { dir: usize, name: String, size: u64 },
    Write { dir: usize, name: String, at: WriteAt, len: u64, seed: u8 },
}

impl Step {
    fn any(dice: &mut Dice, dirs: usize) -> Self {
        let dir = dice.roll(dirs as u64) as usize;
        let name = dice.name();
        let mut other = || (dice.roll(dirs as u64) as usize, dice.name());
        let second = other();
        match dice.roll(20) {
            0..=3 => Self::Create { dir, name, mode: dice.roll(0o10000) as u16 },
            4..=5 => Self::Mkdir { dir, name },
            6 => Self::Symlink { dir, name, len: dice.roll(80) as usize + 1 },
            7 => {
                let what = match dice.roll(3) {
                    0 => Special::Fifo,
                    1 => Special::Socket,
                    _ => Special::CharDevice(DeviceNumber { major: 3, minor: dice.roll(99) as u32 }),
                };
                Self::Mknod { dir, name, what }
            }
            8 => Self::Link { from: (dir, name), to: second },
            9 => Self::Unlink { dir, name },
            10 => Self::Rmdir { dir, name },
            11..=12 => Self::Rename { from: (dir, name), to: second },
            13 => Self::Chmod { dir, name, mode: dice.roll(0o10000) as u16 },
            14 => Self::Chown { dir, name, uid: dice.roll(3) as u32 },
            15 => Self::Truncate { dir, name, size: dice.size() },
            _ => {
                let at = if dice.roll(3) == 0 { WriteAt::End } else { WriteAt::Offset(dice.size()) };
                Self::Write { dir, name, at, len: dice.size() / 2 + 1, seed: dice.roll(250) as u8 + 1 }
            }
        }
    }
}

/// A file system, and its directories by number.
struct Subject<F> {
    fs: F,
    dirs: Vec<NodeId>,
}

impl<F: FileSystem> Subject<F> {
    fn new(fs: F) -> Self {
        let dirs = vec![fs.root()];
        Self { fs, dirs }
    }

    fn apply(&mut self, step: &Step) -> Result<(), Errno> {
        let w = &mut ThreadWait::new();
        let result = self.attempt(w, step);
        result.map_err(|e| match e.errno() {
            // A directory that was removed: which of the two is a matter of taste.
            Errno::ESTALE => Errno::ENOENT,
            errno => errno,
        })
    }

    fn attempt(&mut self, w: &mut ThreadWait, step: &Step) -> vfs::Result<()> {
        let fs = &self.fs;
        let c = &mut Call::new(w);
        let at = |dir: &usize, name| (self.dirs[*dir], Name::new(name).unwrap());
        match step {
            Step::Create { dir, name, mode } => {
                let (dir, name) = at(dir, name);
                fs.ncreate(c, dir, name, *mode).map(drop)
            }
            Step::Mkdir { dir, name } => {
                let (dir, name) = at(dir, name);
                let made = fs.nmkdir(c, dir, name, 0o755)?;
                self.dirs.push(made.node);
                Ok(())
            }
            Step::Symlink { dir, name, len } => {
                let (dir, name) = at(dir, name);
                fs.nsymlink(c, dir, name, &"target/".repeat(12).as_bytes()[..*len]).map(drop)
            }
            Step::Mknod { dir, name, what } => {
                let (dir, name) = at(dir, name);
                fs.nmknod(c, dir, name, *what, 0o600).map(drop)
            }
            Step::Link { from, to } => {
                let ((dir, name), (to_dir, to_name)) = (at(&from.0, &from.1), at(&to.0, &to.1));
                let node = fs.nresolve(c, dir, name)?.node;
                fs.nlink(c, node, to_dir, to_name).map(drop)
            }
            Step::Unlink { dir, name } => {
                let (dir, name) = at(dir, name);
                fs.nremove(c, dir, name)
            }
            Step::Rmdir { dir, name } => {
                let (dir, name) = at(dir, name);
                fs.nrmdir(c, dir, name)
            }
            Step::Rename { from, to } => fs.nrename(c, at(&from.0, &from.1), at(&to.0, &to.1)),
            Step::Chmod { dir, name, mode } => {
                self.set(c, *dir, name, |change| change.mode = Some(*mode)).map(drop)
            }
            Step::Chown { dir, name, uid } => {
                self.set(c, *dir, name, |change| (change.uid, change.gid) = (Some(*uid), Some(7))).map(drop)
            }
            Step::Truncate { dir, name, size } => {
                self.set(c, *dir, name, |change| change.size = Some(*size)).map(drop)
            }
            Step::Write { dir, name, at: place, len, seed } => {
                let (dir, name) = at(dir, name);
                let node = fs.nresolve(c, dir, name)?.node;
                let bytes: Vec<u8> = (0..*len).map(|i| seed.wrapping_add((i / 61) as u8)).collect();
                let mut rest = &bytes[..];
                let mut place = *place;
                while !rest.is_empty() {
                    let n = fs.write(c, node, place, rest)?;
                    rest = &rest[n..];
                    if let WriteAt::Offset(offset) = &mut place {
                        *offset += n as u64;
                    }
                }
                Ok(())
            }
        }
    }

    fn set(
        &self,
        c: &mut Call<'_>,
        dir: usize,
        name: &str,
        edit: impl FnOnce(&mut SetAttr),
    ) -> vfs::Result<Attr> {
        let node = self.fs.nresolve(c, self.dirs[dir], Name::new(name).unwrap())?.node;
        let mut change = SetAttr::default();
        edit(&mut change);
        self.fs.setattr(c, node, &change)
    }

    fn listing(&self) -> Listing {
        listing(&self.fs, self.fs.root())
    }

    fn sync(&self) -> vfs::Result<()> {
        self.fs.sync(&mut Call::new(&mut ThreadWait::new()))
    }
}

#[test]
fn the_same_operations_give_the_same_answers_and_the_same_tree_as_in_memory() {
    for (version, seed, cache_bytes) in [(7, 1, 32 << 20), (7, 2, 1 << 20), (6, 3, 8 << 20), (7, 4, 32 << 20)]
    {
        let disk = newfs(version, 512 << 20);
        let mut dice = Dice(seed);
        let mut ours = Subject::new(mount_with_cache(disk.clone(), cache_bytes).unwrap());
        let mut model = Subject::new(MemFs::with_capacity_bytes(1 << 30));
        let mut done = 0;
        for n in 0..1500 {
            let step = Step::any(&mut dice, model.dirs.len());
            let (got, want) = (ours.apply(&step), model.apply(&step));
            assert_eq!(got, want, "seed {seed}, step {n}: {step:?}");
            done += u32::from(got.is_ok());
            if n % 100 == 0 {
                assert!(ours.listing() == model.listing(), "seed {seed}, step {n}: {step:?}");
            }
            if dice.roll(70) == 0 {
                ours.sync().unwrap();
            }
            if dice.roll(400) == 0 {
                let dirs = std::mem::take(&mut ours.dirs);
                ours.fs.unmount(&mut ThreadWait::new()).unwrap();
                assert_clean(disk.clone(), &format!("seed {seed}, step {n}"));
                ours = Subject { fs: mount_with_cache(disk.clone(), cache_bytes).unwrap(), dirs };
            }
        }
        assert!(done > 300, "only {done} operations succeeded");
        assert!(ours.listing() == model.listing());
        ours.fs.unmount(&mut ThreadWait::new()).unwrap();
        assert_clean(disk.clone(), &format!("seed {seed}"));
        let again = Hammer::mount(&[disk], MountOptions::default(), &mut ThreadWait::new()).unwrap();
        assert!(!again.recovery().crashed);
        assert!(listing(&again, again.root()) == model.listing());
    }
}

/// Works until it is done or the power goes. Returns what the last sync that returned promised, and every state since.
fn work_until_cut(disk: Arc<dyn BlockDevice>, seed: u64) -> Vec<Listing> {
    let mut states = Vec::new();
    let Ok(fs) = mount(disk) else { return states };
    let (mut ours, mut model) = (Subject::new(fs), Subject::new(MemFs::new()));
    let mut dice = Dice(seed);
    // Where MemFs and the disk begin the same.
    states.push(model.listing());
    for _ in 0..60 {
        let step = Step::any(&mut dice, model.dirs.len());
        let (got, want) = (ours.apply(&step), model.apply(&step));
        if got != want {
            return states;
        }
        states.push(model.listing());
        if dice.roll(6) == 0 {
            if ours.sync().is_err() {
                return states;
            }
            states.drain(..states.len() - 1);
        }
    }
    let _ = ours.fs.unmount(&mut ThreadWait::new());
    states
}

#[test]
fn after_a_power_cut_everything_synced_is_there_and_the_disk_is_sound() {
    let base = newfs(7, 128 << 20).image();
    for seed in [11, 12] {
        let whole = Arc::new(PowerCut::new(MemDisk::from_image(512, base.clone()), Cut::Never));
        work_until_cut(whole.clone(), seed);
        let stats = whole.stats();
        assert!(stats.flushes > 10 && stats.writes > 50, "{stats:?}");
        let cuts = (0..stats.writes).map(Cut::AtWrite).chain((0..stats.flushes).map(Cut::AtFlush));
        for (n, cut) in cuts.enumerate() {
            let disk = Arc::new(PowerCut::new(MemDisk::from_image(512, base.clone()), cut));
            let states = work_until_cut(disk.clone(), seed);
            let left = Arc::new(disk.survivor_disk(n as u64 + 1).unwrap());
            let context = format!("seed {seed}, {cut:?}");
            let fs = mount(left.clone()).unwrap_or_else(|e| panic!("{context}: {e}"));
            let found = listing(&fs, fs.root());
            assert!(states.contains(&found), "{context}: none of {} states", states.len());
            let c = &mut ThreadWait::new();
            fs.ncreate(&mut Call::new(c), fs.root(), Name::new("after the cut").unwrap(), 0o600).unwrap();
            fs.unmount(c).unwrap();
            assert_clean(left, &context);
        }
    }
}

#[test]
fn every_synced_state_stays_visible_as_of_its_time() {
    let disk = newfs(7, 256 << 20);
    let mut ours = Subject::new(mount(disk.clone()).unwrap());
    let mut dice = Dice(77);
    let mut states: Vec<(Tid, Listing)> = Vec::new();
    let newest = |fs: &Hammer| {
        let mut tid = Tid::ZERO;
        let mut nodes = fs.nodes();
        let w = &mut ThreadWait::new();
        while let Some(report) = nodes.next(w) {
            tid = tid.max(Tid(report.unwrap().node.mirror_tid.get()));
        }
        tid
    };
    for _ in 0..25 {
        for _ in 0..20 {
            let _ = ours.apply(&Step::any(&mut dice, ours.dirs.len()));
        }
        ours.sync().unwrap();
        states.push((newest(&ours.fs), ours.listing()));
    }
    for (tid, state) in &states {
        let root = stat(&ours.fs, &format!("/@@{tid}")).unwrap();
        assert!(listing(&ours.fs, root.node) == *state, "as of {tid}");
        let c = &mut ThreadWait::new();
        let refused = ours.fs.ncreate(&mut Call::new(c), root.node, Name::new("x").unwrap(), 0o600);
        assert_eq!(refused.map_err(|e| e.errno()).err(), Some(Errno::EROFS));
    }
    ours.fs.unmount(&mut ThreadWait::new()).unwrap();
    let fs = Hammer::mount(&[disk], MountOptions::default(), &mut ThreadWait::new()).unwrap();
    for (tid, state) in &states {
        assert!(listing(&fs, stat(&fs, &format!("/@@{tid}")).unwrap().node) == *state, "as of {tid}");
    }
}

#[test]
fn an_unlinked_file_lives_until_it_is_closed() {
    let disk = newfs(7, 128 << 20);
    let fs = mount(disk.clone()).unwrap();
    let w = &mut ThreadWait::new();
    let c = &mut Call::new(w);
    let name = Name::new("file").unwrap();
    let inodes = fs.statfs(c).unwrap().files;
    let file = fs.ncreate(c, fs.root(), name, 0o600).unwrap().node;
    let open = fs.open(c, file, Access::ReadWrite).unwrap().open;
    fs.write(c, file, WriteAt::End, b"still here").unwrap();
    fs.nremove(c, fs.root(), name).unwrap();
    assert_eq!(fs.nresolve(c, fs.root(), name).unwrap_err().errno(), Errno::ENOENT);
    fs.write(c, file, WriteAt::End, b", and longer").unwrap();
    fs.sync(c).unwrap();
    assert_eq!(fs.getattr(c, file).unwrap().nlink, 0);
    assert_eq!(contents(&fs, &mut ThreadWait::new(), file), b"still here, and longer");
    fs.close(open);
    fs.sync(c).unwrap();
    assert_eq!(fs.getattr(c, file).unwrap_err().errno(), Errno::ESTALE);
    assert_eq!(fs.statfs(c).unwrap().files, inodes);
    fs.unmount(&mut ThreadWait::new()).unwrap();
    assert_clean(disk, "after the last close");
}

#[test]
fn a_full_disk_says_so_and_stays_usable() {
    let disk = newfs(7, 128 << 20);
    let fs = mount(disk.clone()).unwrap();
    let w = &mut ThreadWait::new();
    let c = &mut Call::new(w);
    let data = vec![5; 200_000];
    let mut made = Vec::new();
    let full = (0..).find_map(|n| {
        let name = format!("file{n}");
        let file = match fs.ncreate(c, fs.root(), Name::new(&name).unwrap(), 0o600) {
            Ok(attr) => attr.node,
            Err(e) => return Some(e),
        };
        made.push(name);
        fs.write(c, file, WriteAt::End, &data).err()
    });
    assert_eq!(full.unwrap().errno(), Errno::ENOSPC);
    assert!(made.len() > 200);
    fs.sync(c).unwrap();
    // Removing takes no space that is not there, whatever the history.
    for name in &made {
        fs.nremove(c, fs.root(), Name::new(name).unwrap()).unwrap();
    }
    fs.unmount(&mut ThreadWait::new()).unwrap();
    assert_clean(disk.clone(), "full");
    let fs = mount(disk).unwrap();
    assert_eq!(listing(&fs, fs.root()).len(), 1);
}

#[test]
fn a_file_of_thousands_of_records_is_cut_and_removed_in_steps() {
    const BLOCK: u64 = 65536;
    let disk = newfs(7, 640 << 20);
    let fs = mount(disk.clone()).unwrap();
    let w = &mut ThreadWait::new();
    let c = &mut Call::new(w);
    let inodes = fs.statfs(c).unwrap().files;
    for name in ["cut", "removed"] {
        let name = Name::new(name).unwrap();
        let file = fs.ncreate(c, fs.root(), name, 0o600).unwrap().node;
        for n in 0..4300 {
            // One byte makes a record of a whole block.
            fs.write(c, file, WriteAt::Offset((100 + n) * BLOCK), &[n as u8 | 1]).unwrap();
        }
    }
    fs.sync(c).unwrap();
    let cut = fs.nresolve(c, fs.root(), Name::new("cut").unwrap()).unwrap().node;
    let change = SetAttr { size: Some(101 * BLOCK + 1), ..SetAttr::default() };
    assert_eq!(fs.setattr(c, cut, &change).unwrap().size, 101 * BLOCK + 1);
    fs.nremove(c, fs.root(), Name::new("removed").unwrap()).unwrap();
    assert_eq!(fs.statfs(c).unwrap().files, inodes + 1);
    let read = contents(&fs, &mut ThreadWait::new(), cut);
    assert_eq!((read[100 * BLOCK as usize], read[101 * BLOCK as usize]), (1, 1));
    assert_eq!(read.iter().filter(|b| **b != 0).count(), 2);
    fs.unmount(&mut ThreadWait::new()).unwrap();
    assert_clean(disk, "after both");
}

#[test]
fn without_history_space_comes_back() {
    let disk = newfs(7, 128 << 20);
    let fs = mount(disk.clone()).unwrap();
    let w = &mut ThreadWait::new();
    let c = &mut Call::new(w);
    let dir = fs.nmkdir(c, fs.root(), Name::new("scratch").unwrap(), 0o700).unwrap().node;
    let change = SetAttr { flags: Some(FileFlags::UF_NOHISTORY), ..SetAttr::default() };
    fs.setattr(c, dir, &change).unwrap();
    let data = vec![9; 65536];
    // Several times what the disk holds.
    for n in 0..40 {
        let name = format!("file{n}");
        let name = Name::new(&name).unwrap();
        let file = fs.ncreate(c, dir, name, 0o600).unwrap();
        assert!(file.flags.contains(FileFlags::UF_NOHISTORY));
        for i in 0..160 {
            fs.write(c, file.node, WriteAt::Offset(i * 65536), &data).unwrap();
        }
        fs.sync(c).unwrap();
        fs.nremove(c, dir, name).unwrap();
        fs.sync(c).unwrap();
    }
    fs.unmount(&mut ThreadWait::new()).unwrap();
    assert_clean(disk, "after many rounds");
}

#[test]
fn readers_writers_and_syncs_go_on_beside_each_other() {
    let disk = newfs(7, 256 << 20);
    let fs = Arc::new(mount(disk.clone()).unwrap());
    let stop = Arc::new(AtomicBool::new(false));
    let writers: Vec<_> = (0..3)
        .map(|n| {
            let fs = fs.clone();
            std::thread::spawn(move || {
                let w = &mut ThreadWait::new();
                let c = &mut Call::new(w);
                let dir = format!("dir{n}");
                let dir = fs.nmkdir(c, fs.root(), Name::new(&dir).unwrap(), 0o755).unwrap().node;
                for i in 0..150u32 {
                    let name = format!("file{i}");
                    let file = fs.ncreate(c, dir, Name::new(&name).unwrap(), 0o644).unwrap().node;
                    // The same byte throughout: a reader can tell what is torn.
                    fs.write(c, file, WriteAt::Offset(0), &vec![i as u8; 30_000]).unwrap();
                    if i % 40 == n {
                        fs.fsync(c, file).unwrap();
                    }
                    if i % 3 == 0 {
                        fs.nremove(c, dir, Name::new(&name).unwrap()).unwrap();
                    }
                }
            })
        })
        .collect();
    let readers: Vec<_> = (0..2)
        .map(|_| {
            let (fs, stop) = (fs.clone(), stop.clone());
            std::thread::spawn(move || {
                let mut looks = 0;
                while !stop.load(Ordering::Relaxed) {
                    let w = &mut ThreadWait::new();
                    let mut stack = vec![fs.root()];
                    while let Some(dir) = stack.pop() {
                        let mut found = Vec::new();
                        fs.readdir(&mut Call::new(w), dir, vfs::FIRST_COOKIE, &mut |e| {
                            found.push((e.node, e.kind));
                            ControlFlow::Continue(())
                        })
                        .unwrap();
                        for (node, kind) in found {
                            if kind == Kind::Directory {
                                stack.push(node);
                                continue;
                            }
                            let mut first = None;
                            let read = fs.read(&mut Call::new(w), node, 0, u64::MAX, &mut |b| {
                                let first = *first.get_or_insert(b[0]);
                                assert!(b.iter().all(|b| *b == first), "a torn write");
                                ControlFlow::Continue(())
                            });
                            match read {
                                Ok(0 | 30_000) => {}
                                Ok(n) => panic!("{n} bytes of a write of 30,000"),
                                Err(e) => assert_eq!(e.errno(), Errno::ESTALE),
                            }
                        }
                    }
                    looks += 1;
                }
                looks
            })
        })
        .collect();
    writers.into_iter().for_each(|t| t.join().unwrap());
    stop.store(true, Ordering::Relaxed);
    let looks: u32 = readers.into_iter().map(|t| t.join().unwrap()).sum();
    assert!(looks > 0);
    assert_eq!(listing(&*fs, fs.root()).len(), 1 + 3 * (1 + 100));
    Arc::into_inner(fs).unwrap().unmount(&mut ThreadWait::new()).unwrap();
    assert_clean(disk, "after all");
}

/// A disk whose flushes take until they are let go.
struct SlowFlush {
    disk: Arc<MemDisk>,
    holds: AtomicBool,
    held: Mutex<JobList>,
}

impl SlowFlush {
    fn let_go(&self) {
        self.holds.store(false, Ordering::SeqCst);
        self.disk.submit(std::mem::take(&mut *self.held.lock().unwrap()));
    }

    fn wait_until_held(&self) {
        while self.held.lock().unwrap().is_empty() {
            std::thread::yield_now();
        }
    }
}

impl BlockDevice for SlowFlush {
    fn limits(&self) -> Limits {
        self.disk.limits()
    }

    fn submit(&self, mut batch: JobList) {
        let mut now = JobList::new();
        while let Some(job) = batch.pop() {
            let held = job.op() == Op::Flush && self.holds.load(Ordering::SeqCst);
            if held { self.held.lock().unwrap().push(job) } else { now.push(job) }
        }
        self.disk.submit(now);
    }

    fn poll(&self) -> usize {
        self.disk.poll()
    }
}

#[test]
fn while_a_sync_waits_for_the_device_reads_and_changes_go_on() {
    let disk = newfs(7, 128 << 20);
    let slow =
        Arc::new(SlowFlush { disk: disk.clone(), holds: AtomicBool::new(false), held: Mutex::default() });
    let fs = Arc::new(mount(slow.clone()).unwrap());
    let w = &mut ThreadWait::new();
    let c = &mut Call::new(w);
    let before = fs.ncreate(c, fs.root(), Name::new("before").unwrap(), 0o600).unwrap().node;
    fs.write(c, before, WriteAt::End, &[1; 50_000]).unwrap();
    slow.holds.store(true, Ordering::SeqCst);
    let sync = {
        let fs = fs.clone();
        std::thread::spawn(move || fs.sync(&mut Call::new(&mut ThreadWait::new())))
    };
    slow.wait_until_held();
    // The group that is on its way is read, and changed again, in the same pages.
    for n in 0..50 {
        let name = format!("meanwhile {n}");
        let file = fs.ncreate(c, fs.root(), Name::new(&name).unwrap(), 0o600).unwrap().node;
        fs.write(c, file, WriteAt::End, &[n; 3000]).unwrap();
    }
    fs.write(c, before, WriteAt::Offset(0), &[2; 20_000]).unwrap();
    let read = contents(&*fs, &mut ThreadWait::new(), before);
    assert!(read[..20_000].iter().all(|b| *b == 2) && read[20_000..].iter().all(|b| *b == 1));
    assert_eq!(listing(&*fs, fs.root()).len(), 52);
    assert!(!sync.is_finished());
    slow.let_go();
    sync.join().unwrap().unwrap();
    // What the sync promised is there without another, and nothing of what came later.
    let copy = Arc::new(MemDisk::from_image(512, disk.image()));
    let then = Hammer::mount(&[copy], MountOptions::default(), &mut ThreadWait::new()).unwrap();
    assert!(!then.recovery().crashed);
    assert_eq!(listing(&then, then.root()).len(), 2);
    let node = stat(&then, "/before").unwrap().node;
    assert_eq!(contents(&then, &mut ThreadWait::new(), node), [1; 50_000]);
    Arc::into_inner(fs).unwrap().unmount(&mut ThreadWait::new()).unwrap();
    assert_clean(disk, "after both groups");
}

#[test]
fn what_cannot_be_written_is_refused() {
    let w = &mut ThreadWait::new();
    for version in [3, 5] {
        let refused = mount(newfs(version, 64 << 20)).err();
        assert!(matches!(refused, Some(MountError::NotWritable { .. })), "version {version}: {refused:?}");
    }
    let fs = Hammer::mount(&[newfs(7, 64 << 20)], MountOptions::default(), w).unwrap();
    let refused = fs.ncreate(&mut Call::new(w), fs.root(), Name::new("x").unwrap(), 0o600);
    assert_eq!(refused.unwrap_err().errno(), Errno::EROFS);
    let fs = mount(newfs(7, 128 << 20)).unwrap();
    let c = &mut Call::new(w);
    let dir = fs.nmkdir(c, fs.root(), Name::new("d").unwrap(), 0o755).unwrap().node;
    let below = fs.nmkdir(c, dir, Name::new("e").unwrap(), 0o755).unwrap().node;
    let (d, e) = (Name::new("d").unwrap(), Name::new("x").unwrap());
    assert_eq!(fs.nrename(c, (fs.root(), d), (below, e)).unwrap_err().errno(), Errno::EINVAL);
    let extension = Name::new("file@@0x0000000100000000").unwrap();
    assert_eq!(fs.ncreate(c, dir, extension, 0o600).unwrap_err().errno(), Errno::EEXIST);
    let far = fs.ncreate(c, dir, Name::new("far").unwrap(), 0o600).unwrap().node;
    let beyond = fs.write(c, far, WriteAt::Offset(i64::MAX as u64), b"x");
    assert_eq!(beyond.unwrap_err().errno(), Errno::EFBIG);
    assert_eq!(fs.write(c, far, WriteAt::Offset(1 << 50), b"x").unwrap(), 1);
    assert_eq!(fs.getattr(c, far).unwrap().size, (1 << 50) + 1);
}
