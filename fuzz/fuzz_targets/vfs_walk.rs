//! The path walk against a model of it, on a tree that the input describes.
//!
//! The input is lines: `d DIR NAME` makes a directory, `f DIR NAME` a file, `l DIR NAME TARGET` a symbolic link, and
//! `w PATH` walks. What cannot be made is left out.
#![no_main]

use std::collections::VecDeque;

use dfly_hal::SpinWait;
use dfly_vfs::{
    Call, FileSystem, FileSystemExt, Kind, Name, NodeId, PATH_MAX, SYMLINKS_MAX, Walk, mem::MemFs, readlink,
    walk,
};
use libfuzzer_sys::fuzz_target;

/// Longer programs find nothing that these do not.
const LINES: usize = 64;

fuzz_target!(|program: &[u8]| {
    let fs = MemFs::with_capacity_bytes(1 << 20);
    let mut idle = || ();
    let mut waiter = SpinWait::new(&mut idle);
    let w = &mut waiter;
    for line in program.split(|&byte| byte == b'\n').take(LINES) {
        let words: Vec<&[u8]> = line.split(|&byte| byte == b' ').collect();
        match words[..] {
            [b"d", dir, name] => drop(fs.at(w).walk(dir).and_then(|dir| dir.nmkdir(name, 0o755))),
            [b"f", dir, name] => drop(fs.at(w).walk(dir).and_then(|dir| dir.ncreate(name, 0o644))),
            [b"l", dir, name, to] => drop(fs.at(w).walk(dir).and_then(|dir| dir.nsymlink(name, to))),
            [b"w", path] => {
                let c = &mut Call::new(w);
                let found = walk(&fs, c, fs.root(), path, &Walk::default()).map(|attr| attr.node).ok();
                let (expected, bytes) = model(&fs, c, path);
                // The walk may give up on a path that links made too long; it may not find anything else.
                if found.is_some() || bytes < PATH_MAX {
                    assert_eq!(found, expected, "{:?}", String::from_utf8_lossy(path));
                }
            }
            _ => {}
        }
    }
});

/// Where `path` leads, and how many bytes it has with all links' targets. A queue of components and a stack of
/// directories: nothing in common with the walk but the rules.
fn model(fs: &MemFs, c: &mut Call<'_>, path: &[u8]) -> (Option<NodeId>, usize) {
    let (mut stack, mut bytes, mut links) = (vec![fs.root()], 0, 0);
    let mut here = fs.root();
    let mut rest = VecDeque::new();
    let mut text = Some(path.to_vec());
    loop {
        if let Some(text) = text.take() {
            if text.is_empty() || text.contains(&0) {
                return (None, bytes);
            }
            bytes += text.len() + 1;
            if text[0] == b'/' {
                stack.truncate(1);
                here = fs.root();
            }
            for component in text.split(|&byte| byte == b'/').rev() {
                rest.push_front(component.to_vec());
            }
        }
        let Some(component) = rest.pop_front() else { return (Some(here), bytes) };
        if fs.getattr(c, here).map(|attr| attr.kind).ok() != Some(Kind::Directory) {
            return (None, bytes);
        }
        match component.as_slice() {
            b"" | b"." => {}
            b".." => {
                if stack.len() > 1 {
                    stack.pop();
                }
                here = stack[stack.len() - 1];
            }
            name => {
                let found = Name::new(name).ok().and_then(|name| fs.nresolve(c, here, name).ok());
                let Some(found) = found else { return (None, bytes) };
                if found.kind == Kind::Symlink {
                    links += 1;
                    if links > SYMLINKS_MAX {
                        return (None, bytes);
                    }
                    text = readlink(fs, c, found.node).ok().map(|target| target.to_vec());
                    if text.is_none() {
                        return (None, bytes);
                    }
                } else {
                    here = found.node;
                    if found.kind == Kind::Directory {
                        stack.push(here);
                    }
                }
            }
        }
    }
}
