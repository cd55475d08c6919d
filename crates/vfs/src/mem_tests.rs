//! The in-memory file system, through the interface's handles: so these tests are the interface's own.

use super::*;
use crate::{Cred, DeviceNumber, FileFlags, FileSystemExt, SetAttr, SetTime, WriteAt};
use dfly_hal::SpinWait;
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use std::string::{String, ToString};
use std::vec::Vec;

/// Binds `$w` to a waiter: nothing here ever waits.
macro_rules! waiter {
    ($w:ident) => {
        let mut nothing = || ();
        let $w = &mut SpinWait::new(&mut nothing);
    };
}

fn errno<T>(r: Result<T>) -> core::result::Result<T, Errno> {
    r.map_err(|e| e.errno())
}

/// Names and cookies of a directory from `cookie` on, at most `most`.
fn list(fs: &MemFs, dir: NodeId, cookie: u64, most: usize) -> Vec<(String, u64)> {
    waiter!(w);
    let mut seen = Vec::new();
    fs.at(w)
        .to(dir)
        .readdir(cookie, &mut |e| {
            seen.push((String::from_utf8_lossy(e.name).into_owned(), e.next));
            if seen.len() < most { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        })
        .unwrap();
    seen
}

fn names(fs: &MemFs, dir: NodeId) -> Vec<String> {
    list(fs, dir, FIRST_COOKIE, usize::MAX).into_iter().map(|(name, _)| name).collect()
}

#[test]
fn what_is_written_is_read() {
    waiter!(w);
    let fs = MemFs::new();
    let file = fs.at(w).ncreate("f", 0o640).unwrap().open(Access::ReadWrite).unwrap();
    file.write_at(w, 5000, b"world").unwrap();
    file.write_at(w, 0, b"hello").unwrap();
    file.fsync(w).unwrap();
    assert_eq!(file.attr(w).unwrap().size, 5005);
    let mut buf = [1; 6000];
    assert_eq!(file.read_at(w, 0, &mut buf).unwrap(), 5005);
    assert_eq!((&buf[..6], &buf[4999..5005]), (&b"hello\0"[..], &b"\0world"[..]));
    assert_eq!(file.read_at(w, 5005, &mut buf).unwrap(), 0);
    assert_eq!(file.read_at(w, u64::MAX, &mut buf).unwrap(), 0);
}

#[test]
fn appending_goes_to_the_end() {
    waiter!(w);
    let fs = MemFs::new();
    let node = fs.at(w).ncreate("f", 0o600).unwrap().node();
    let c = &mut Call::new(w);
    for part in [&b"one "[..], b"two"] {
        assert_eq!(fs.write(c, node, WriteAt::End, part).unwrap(), part.len());
    }
    assert_eq!(fs.getattr(c, node).unwrap().size, 7);
    assert_eq!(errno(fs.write(c, node, WriteAt::Offset(u64::MAX), b"x")), Err(Errno::EFBIG));
}

#[test]
fn a_reader_can_stop_early() {
    waiter!(w);
    let fs = MemFs::new();
    let file = fs.at(w).ncreate("f", 0o600).unwrap().open(Access::ReadWrite).unwrap();
    file.write_at(w, 0, &[7; 3 * 4096]).unwrap();
    let mut slices = 0;
    let read = file.read(w, 0, u64::MAX, &mut |_| {
        slices += 1;
        ControlFlow::Break(())
    });
    assert_eq!((read.unwrap(), slices), (4096, 1));
}

#[test]
fn a_file_is_used_only_as_it_was_opened() {
    waiter!(w);
    let fs = MemFs::new();
    let written = fs.at(w).ncreate("f", 0o600).unwrap().open(Access::Write).unwrap();
    assert_eq!(errno(written.read_at(w, 0, &mut [0])), Err(Errno::EBADF));
    let read = fs.at(w).walk("f").unwrap().open(Access::Read).unwrap();
    assert_eq!(errno(read.write_at(w, 0, b"x")), Err(Errno::EBADF));
    assert_eq!(errno(fs.at(w).open(Access::Write).map(drop)), Err(Errno::EISDIR));
}

#[test]
fn an_open_file_outlives_its_name() {
    waiter!(w);
    let fs = MemFs::new();
    let file = fs.at(w).ncreate("f", 0o600).unwrap().open(Access::ReadWrite).unwrap();
    file.write_at(w, 0, b"still here").unwrap();
    fs.at(w).nremove("f").unwrap();
    assert_eq!(errno(fs.at(w).nresolve("f").map(drop)), Err(Errno::ENOENT));
    let mut buf = [0; 10];
    assert_eq!(file.read_at(w, 0, &mut buf).unwrap(), 10);
    let node = file.node();
    assert_eq!(fs.open_files(), 1);
    drop(file);
    assert_eq!(fs.open_files(), 0);
    assert_eq!(errno(fs.getattr(&mut Call::new(w), node)), Err(Errno::ESTALE));
    // Closing once more, or what was never open, does nothing.
    fs.close(OpenId(1));
    fs.close(OpenId(99));
}

#[test]
fn a_number_is_never_used_for_another_node() {
    waiter!(w);
    let fs = MemFs::new();
    let old = fs.at(w).ncreate("f", 0o600).unwrap().node();
    fs.at(w).nremove("f").unwrap();
    assert_ne!(fs.at(w).ncreate("f", 0o600).unwrap().node(), old);
    assert_eq!(errno(fs.at(w).to(old).attr()), Err(Errno::ESTALE));
    assert_eq!(errno(fs.at(w).to(NodeId([1, 0, 7])).attr()), Err(Errno::ESTALE));
}

#[test]
fn hard_links_count() {
    waiter!(w);
    let fs = MemFs::new();
    let node = fs.at(w).ncreate("a", 0o600).unwrap().node();
    let dir = fs.at(w).nmkdir("d", 0o700).unwrap().node();
    assert_eq!(fs.at(w).to(dir).nlink(node, "b").unwrap().attr().unwrap().nlink, 2);
    assert_eq!(errno(fs.at(w).nlink(node, "a").map(drop)), Err(Errno::EEXIST));
    assert_eq!(errno(fs.at(w).nlink(dir, "e").map(drop)), Err(Errno::EPERM));
    fs.at(w).nremove("a").unwrap();
    assert_eq!(fs.at(w).walk("d/b").unwrap().attr().unwrap().nlink, 1);
}

#[test]
fn removing_minds_the_kind() {
    waiter!(w);
    let fs = MemFs::new();
    fs.at(w).nmkdir("d", 0o700).unwrap().ncreate("f", 0o600).unwrap();
    assert_eq!(errno(fs.at(w).nremove("d")), Err(Errno::EISDIR));
    assert_eq!(errno(fs.at(w).nrmdir("d")), Err(Errno::ENOTEMPTY));
    assert_eq!(errno(fs.at(w).walk("d").unwrap().nrmdir("f")), Err(Errno::ENOTDIR));
    assert_eq!(errno(fs.at(w).nremove("none")), Err(Errno::ENOENT));
    fs.at(w).walk("d").unwrap().nremove("f").unwrap();
    fs.at(w).nrmdir("d").unwrap();
    assert_eq!(names(&fs, fs.root()), Vec::<String>::new());
}

#[test]
fn special_nodes_keep_their_number() {
    waiter!(w);
    let fs = MemFs::new();
    let number = DeviceNumber { major: 14, minor: 0xffff_00ff };
    let attr = fs.at(w).nmknod("dev", Special::CharDevice(number), 0o666).unwrap().attr().unwrap();
    assert_eq!((attr.kind, attr.rdev), (Kind::CharDevice, number));
    let user = fs.at(w).with_cred(Cred::user(1, 1));
    assert_eq!(errno(user.nmknod("mine", Special::BlockDevice(number), 0o666).map(drop)), Err(Errno::EPERM));
    let pipe = fs.at(w).nmknod("pipe", Special::Fifo, 0o600).unwrap();
    assert_eq!(errno(pipe.open(Access::Read).map(drop)), Err(Errno::ENXIO));
}

#[test]
fn links_hold_any_text_but_nul() {
    waiter!(w);
    let fs = MemFs::new();
    assert_eq!(&*fs.at(w).nsymlink("l", b"\xff/${X}").unwrap().readlink().unwrap(), b"\xff/${X}");
    assert_eq!(errno(fs.at(w).nsymlink("m", b"a\0b").map(drop)), Err(Errno::EINVAL));
    assert_eq!(errno(fs.at(w).nsymlink("m", [b'x'; 1024]).map(drop)), Err(Errno::ENAMETOOLONG));
    assert!(fs.at(w).nsymlink("m", [b'x'; 1023]).is_ok());
    assert_eq!(errno(fs.at(w).readlink().map(drop)), Err(Errno::EINVAL));
}

#[test]
fn renaming_follows_the_rules() {
    waiter!(w);
    let fs = MemFs::new();
    let root = fs.root();
    let a = fs.at(w).nmkdir("a", 0o700).unwrap().node();
    let b = fs.at(w).to(a).nmkdir("b", 0o700).unwrap().node();
    let f = fs.at(w).ncreate("f", 0o600).unwrap().node();
    assert_eq!(errno(fs.at(w).nrename("a", b, "x")), Err(Errno::EINVAL));
    assert_eq!(errno(fs.at(w).nrename("a", a, "x")), Err(Errno::EINVAL));
    assert_eq!(errno(fs.at(w).nrename("f", root, "a")), Err(Errno::EISDIR));
    assert_eq!(errno(fs.at(w).nrename("a", root, "f")), Err(Errno::ENOTDIR));
    fs.at(w).nmkdir("c", 0o700).unwrap();
    assert_eq!(errno(fs.at(w).nrename("c", root, "a")), Err(Errno::ENOTEMPTY));
    fs.at(w).to(a).nrename("b", root, "c").unwrap();
    assert_eq!(fs.at(w).walk("c").unwrap().node(), b);
    assert_eq!(fs.at(w).walk("c/..").unwrap().node(), root);
    // Over another file, which goes; onto itself, which changes nothing.
    let g = fs.at(w).ncreate("g", 0o600).unwrap().node();
    fs.at(w).nrename("f", root, "g").unwrap();
    assert_eq!(fs.at(w).walk("g").unwrap().node(), f);
    assert_eq!(errno(fs.at(w).to(g).attr()), Err(Errno::ESTALE));
    fs.at(w).nlink(f, "h").unwrap();
    fs.at(w).nrename("g", root, "h").unwrap();
    assert_eq!(names(&fs, root), ["a", "c", "g", "h"].map(String::from).to_vec());
}

#[test]
fn permission_is_checked_on_the_way() {
    waiter!(w);
    let fs = MemFs::new();
    fs.at(w).nmkdir("shut", 0o700).unwrap().ncreate("f", 0o666).unwrap();
    fs.at(w).nmkdir("look", 0o711).unwrap().ncreate("f", 0o644).unwrap();
    let user = Cred::user(7, 7);
    assert_eq!(errno(fs.at(w).with_cred(user).walk("shut/f").map(drop)), Err(Errno::EACCES));
    let look = fs.at(w).with_cred(user).walk("look").unwrap().node();
    assert_eq!(
        errno(fs.at(w).with_cred(user).to(look).readdir(0, &mut |_| ControlFlow::Continue(()))),
        Err(Errno::EACCES)
    );
    let f = fs.at(w).with_cred(user).walk("look/f").unwrap();
    assert_eq!(errno(f.open(Access::Write).map(drop)), Err(Errno::EACCES));
    assert_eq!(errno(fs.at(w).with_cred(user).to(look).ncreate("g", 0o600).map(drop)), Err(Errno::EACCES));
    assert_eq!(errno(fs.at(w).with_cred(user).to(look).nremove("f")), Err(Errno::EACCES));
    let truncate = SetAttr { size: Some(0), ..SetAttr::default() };
    assert_eq!(
        errno(fs.at(w).with_cred(user).walk("look/f").unwrap().setattr(&truncate)),
        Err(Errno::EACCES)
    );
}

#[test]
fn attributes_change_all_or_none() {
    waiter!(w);
    let fs = MemFs::new();
    let mut f = fs.at(w).ncreate("f", 0o600).unwrap();
    let change = SetAttr {
        mode: Some(0o4755),
        size: Some(10_000),
        mtime: Some(SetTime::To(Timestamp::from_micros(-5))),
        flags: Some(FileFlags::UF_NODUMP),
        ..SetAttr::default()
    };
    let attr = f.setattr(&change).unwrap();
    assert_eq!((attr.mode, attr.size, attr.mtime.split()), (0o4755, 10_000, (-1, 999_995)));
    assert_eq!(f.attr().unwrap(), attr);
    let refused = SetAttr { mode: Some(0), size: Some(1 << 40), ..SetAttr::default() };
    assert_eq!(errno(f.setattr(&refused)), Err(Errno::ENOSPC));
    assert_eq!(f.attr().unwrap(), attr);
}

#[test]
fn space_is_bounded_and_comes_back() {
    waiter!(w);
    let fs = MemFs::with_capacity_bytes(10_000);
    let file = fs.at(w).ncreate("f", 0o600).unwrap().open(Access::Write).unwrap();
    file.write_at(w, 0, &[1; 9_000]).unwrap();
    assert_eq!(errno(file.write_at(w, 9_000, &[1; 1_001])), Err(Errno::ENOSPC));
    assert_eq!(errno(fs.at(w).nsymlink("l", [b'x'; 1_001]).map(drop)), Err(Errno::ENOSPC));
    assert_eq!(fs.statfs(&mut Call::new(w)).unwrap().blocks_free, 0);
    drop(file);
    fs.at(w).nremove("f").unwrap();
    assert_eq!(fs.statfs(&mut Call::new(w)).unwrap().blocks_free, 2);
}

#[test]
fn a_listing_begins_with_the_dots() {
    waiter!(w);
    let fs = MemFs::new();
    let d = fs.at(w).nmkdir("d", 0o700).unwrap().node();
    let mut seen = Vec::new();
    fs.at(w)
        .to(d)
        .readdir(0, &mut |e| {
            seen.push((e.name.to_vec(), e.node, e.kind, e.next));
            ControlFlow::Continue(())
        })
        .unwrap();
    let dir = Kind::Directory;
    assert_eq!(seen, [(b".".to_vec(), d, dir, 1), (b"..".to_vec(), fs.root(), dir, 2)]);
    assert_eq!(list(&fs, d, 1, 1)[0].0, "..");
}

proptest! {
    /// Entries come and go between the parts of a listing: what stays is seen exactly once, what was gone before or
    /// came after is seen at most once.
    #[test]
    fn cookies_stay_good_while_a_directory_changes(
        initial in prop::collection::btree_set(0..40u8, 0..30),
        steps in prop::collection::vec((1..5usize, prop::collection::vec((any::<bool>(), 0..40u8), 0..4)), 1..20),
    ) {
        waiter!(w);
        let fs = MemFs::new();
        let root = fs.root();
        let mut present: BTreeSet<String> = initial.iter().map(u8::to_string).collect();
        for name in &present {
            fs.at(w).ncreate(name, 0o600).unwrap();
        }
        let mut stayed = present.clone();
        let mut seen: BTreeMap<String, usize> = BTreeMap::new();
        let mut made_again = BTreeSet::new();
        let mut cookie = 0;
        let mut steps = steps.into_iter();
        loop {
            let step = steps.next();
            let most = step.as_ref().map_or(usize::MAX, |(most, _)| *most);
            let part = list(&fs, root, cookie, most);
            for (name, next) in &part {
                *seen.entry(name.clone()).or_default() += 1;
                cookie = *next;
            }
            let Some((_, changes)) = step else { break };
            for (add, number) in changes {
                let name = number.to_string();
                if add && present.insert(name.clone()) {
                    made_again.insert(name.clone());
                    fs.at(w).ncreate(&name, 0o600).unwrap();
                } else if !add && present.remove(&name) {
                    stayed.remove(&name);
                    fs.at(w).nremove(&name).unwrap();
                }
            }
        }
        prop_assert_eq!((seen.remove("."), seen.remove("..")), (Some(1), Some(1)));
        for name in &stayed {
            prop_assert_eq!(seen.get(name), Some(&1), "{}", name);
        }
        for (name, times) in seen {
            prop_assert!(times == 1 || made_again.contains(&name), "{} seen {} times", name, times);
        }
    }
}
