use super::*;
use crate::mem::MemFs;
use crate::{FileSystemExt, SetAttr};
use dfly_hal::SpinWait;
use std::vec::Vec;

/// Another file system's reading half, and nothing else.
struct ReadOnly(MemFs);

impl FileSystem for ReadOnly {
    fn root(&self) -> NodeId {
        self.0.root()
    }
    fn statfs(&self, c: &mut Call<'_>) -> Result<StatFs> {
        Ok(StatFs { flags: MountFlags::READ_ONLY, ..self.0.statfs(c)? })
    }
    fn getattr(&self, c: &mut Call<'_>, node: NodeId) -> Result<Attr> {
        self.0.getattr(c, node)
    }
    fn nresolve(&self, c: &mut Call<'_>, dir: NodeId, name: Name<'_>) -> Result<Attr> {
        self.0.nresolve(c, dir, name)
    }
    fn nlookupdotdot(&self, c: &mut Call<'_>, dir: NodeId) -> Result<Attr> {
        self.0.nlookupdotdot(c, dir)
    }
    fn readlink(&self, c: &mut Call<'_>, node: NodeId, out: &mut LinkSink<'_>) -> Result<()> {
        self.0.readlink(c, node, out)
    }
    fn open(&self, c: &mut Call<'_>, node: NodeId, how: Access) -> Result<Opened> {
        if how == Access::Read { self.0.open(c, node, how) } else { Err(READ_ONLY) }
    }
    fn close(&self, open: OpenId) {
        self.0.close(open);
    }
    fn read(
        &self,
        c: &mut Call<'_>,
        node: NodeId,
        offset: u64,
        len: u64,
        out: &mut ReadSink<'_>,
    ) -> Result<u64> {
        self.0.read(c, node, offset, len, out)
    }
    fn readdir(&self, c: &mut Call<'_>, dir: NodeId, cookie: u64, out: &mut DirSink<'_>) -> Result<()> {
        self.0.readdir(c, dir, cookie, out)
    }
}

#[test]
fn without_a_writing_half_everything_that_writes_is_refused() {
    let mem = MemFs::new();
    let mut nothing = || ();
    let w = &mut SpinWait::new(&mut nothing);
    mem.at(w).nmkdir("d", 0o755).unwrap();
    mem.at(w).ncreate("f", 0o644).unwrap().open(Access::Write).unwrap().write_at(w, 0, b"data").unwrap();

    // Behind a `dyn`, as a kernel holds it.
    let fs: &dyn FileSystem = &ReadOnly(mem);
    let root = fs.root();
    let f = fs.at(w).walk("f").unwrap().node();
    let refused = [
        fs.at(w).ncreate("x", 0o644).map(drop),
        fs.at(w).nmkdir("x", 0o755).map(drop),
        fs.at(w).nmknod("x", Special::Fifo, 0o644).map(drop),
        fs.at(w).nsymlink("x", "f").map(drop),
        fs.at(w).nlink(f, "x").map(drop),
        fs.at(w).nremove("f"),
        fs.at(w).nrmdir("d"),
        fs.at(w).nrename("f", root, "x"),
        fs.at(w).to(f).setattr(&SetAttr { mode: Some(0), ..SetAttr::default() }).map(drop),
        fs.at(w).to(f).open(Access::ReadWrite).map(drop),
        fs.write(&mut Call::new(w), f, WriteAt::End, b"x").map(drop),
    ];
    assert_eq!(refused.map(|r| r.map_err(|e| e.errno())), [Err(Errno::EROFS); 11]);
    assert_eq!(fs.fsync(&mut Call::new(w), f), Ok(()));
    assert_eq!(fs.sync(&mut Call::new(w)), Ok(()));
    let mut buf = [0; 8];
    assert_eq!(fs.at(w).to(f).open(Access::Read).unwrap().read_at(w, 0, &mut buf), Ok(4));
    assert_eq!(&buf[..4], b"data");
}

#[test]
fn a_file_without_map_is_all_data() {
    let mem = MemFs::new();
    let mut nothing = || ();
    let w = &mut SpinWait::new(&mut nothing);
    let f = mem.at(w).ncreate("f", 0o644).unwrap().node();
    mem.write(&mut Call::new(w), f, WriteAt::Offset(90), b"0123456789").unwrap();
    let c = &mut Call::new(w);
    let found: Vec<_> = [0, 99, 100, u64::MAX].map(|at| mem.next_data(c, f, at).unwrap()).into();
    assert_eq!(found, [Some(0..100), Some(99..100), None, None]);
}
