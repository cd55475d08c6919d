//! The demonstration: a small file system with something of everything.

use dfly_hammer::ondisk::record::ObjType;

use crate::content::Content;
use crate::layout::Format;
use crate::objects::Builder;

/// Files of all kinds, history over three transactions, a pseudo file system with a slave, a snapshot.
pub fn demo(format: Format) -> Builder {
    let mut fs = Builder::new(format);
    let root = fs.root();
    let docs = fs.directory(root, "docs");
    let notes = fs.file(docs, "notes", Content::bytes("Monday: began.\n"));
    fs.file(docs, "draft", Content::bytes("Nobody will miss this.\n"));
    let kinds = fs.directory(root, "kinds");
    let sparse = Content::hole(3 << 20).with_bytes(1_500_000, "an island");
    fs.file(kinds, "empty", Content::default());
    fs.file(kinds, "large", Content::pattern(1, 1_500_000));
    fs.file(kinds, "sparse", sparse);
    fs.symlink(kinds, "short-link", "../docs/notes");
    fs.symlink(kinds, "long-link", "../a/target/that/does/not/fit/into/an/inode");
    fs.special(kinds, "fifo", ObjType::FIFO, (0, 0));
    fs.special(kinds, "socket", ObjType::SOCKET, (0, 0));
    fs.special(kinds, "null", ObjType::CHAR_DEVICE, (2, 2));
    fs.special(kinds, "disk", ObjType::BLOCK_DEVICE, (14, 0x10002));
    let bin = fs.directory(root, "bin");
    let tool = fs.file(bin, "tool", Content::bytes("#!/bin/sh\necho hello\n"));
    fs.inode(tool, |inode| {
        inode.mode = 0o755.into();
        inode.uid.id = 1001.into();
        inode.gid.id = 1001.into();
    });
    fs.link(kinds, "hard-link", tool);
    let home = fs.pfs_master(1, "home");
    fs.symlink(root, "home", "@@PFS00001");
    fs.file(home, "hello", Content::bytes("from another file system\n"));
    let first = fs.commit();

    fs.write(notes, 15, b"Tuesday: went on.\n");
    fs.rename((docs, "draft"), (root, "draft"));
    fs.snapshot(0, first, "monday");
    fs.commit();

    fs.unlink(root, "draft");
    fs.set_content(notes, Content::bytes("Wednesday: began anew.\n"));
    let synced = fs.commit();

    fs.pfs_slave(2, "home, mirrored", 1, synced);
    fs.symlink(root, "home-mirror", "@@PFS00002");
    fs.config(0, "snapshots 1d 60d\nprune     1d 5m\n");
    fs.commit();
    fs
}
