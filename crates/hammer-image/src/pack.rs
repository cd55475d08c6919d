//! Packs a directory of the host.

use std::collections::HashMap;
use std::fs::File;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use dfly_hammer::ondisk::record::ObjType;

use crate::content::Content;
use crate::layout::Format;
use crate::objects::{Builder, Object};
use crate::{Error, Result};

/// Describes a file system with the tree below `directory`: names, contents, modes, owners, times, hard links. Files
/// are read when [`Builder::finish`] writes the image, and must not change until then.
pub fn pack(format: Format, directory: impl AsRef<Path>) -> Result<Builder> {
    let mut fs = Builder::new(format);
    let root = fs.root();
    let mut attributes = vec![(root, directory.as_ref().metadata()?)];
    let mut linked: HashMap<(u64, u64), Object> = HashMap::new();
    let mut todo: Vec<(PathBuf, Object)> = vec![(directory.as_ref().into(), root)];
    while let Some((path, parent)) = todo.pop() {
        let mut entries: Vec<_> = path.read_dir()?.collect::<std::io::Result<_>>()?;
        entries.sort_by_key(std::fs::DirEntry::file_name);
        for entry in entries {
            let (path, name) = (entry.path(), entry.file_name());
            let (name, meta) = (name.as_bytes(), entry.metadata()?);
            let file = (meta.dev(), meta.ino());
            if let Some(&object) = linked.get(&file) {
                fs.link(parent, name, object);
                continue;
            }
            let object = if meta.is_dir() {
                let object = fs.directory(parent, name);
                todo.push((path, object));
                object
            } else if meta.is_file() {
                fs.file(parent, name, host_file(path, meta.len()))
            } else if meta.is_symlink() {
                fs.symlink(parent, name, path.read_link()?.as_os_str().as_bytes())
            } else {
                let kind = meta.file_type();
                let obj_type = match () {
                    () if kind.is_fifo() => ObjType::FIFO,
                    () if kind.is_socket() => ObjType::SOCKET,
                    () if kind.is_char_device() => ObjType::CHAR_DEVICE,
                    () if kind.is_block_device() => ObjType::BLOCK_DEVICE,
                    () => return Err(Error::Description(format!("{}: unknown type", path.display()))),
                };
                fs.special(parent, name, obj_type, device_numbers(meta.rdev()))
            };
            if meta.nlink() > 1 && !meta.is_dir() {
                linked.insert(file, object);
            }
            attributes.push((object, meta));
        }
    }
    // Last of all: names and links that were made have set times to now.
    for (object, meta) in &attributes {
        copy_attributes(&mut fs, *object, meta);
    }
    fs.commit();
    Ok(fs)
}

/// The content of a host file, read when it is wanted.
fn host_file(path: PathBuf, size: u64) -> Content {
    Content::try_made(size, move |offset, buf| File::open(&path)?.read_exact_at(buf, offset))
}

fn copy_attributes(fs: &mut Builder, object: Object, meta: &std::fs::Metadata) {
    let micros = |seconds: i64, nanos: i64| (seconds * 1_000_000 + nanos / 1000) as u64;
    fs.inode(object, |inode| {
        inode.mode = ((meta.mode() & 0o7777) as u16).into();
        inode.uid.id = meta.uid().into();
        inode.gid.id = meta.gid().into();
        inode.ctime = micros(meta.ctime(), meta.ctime_nsec()).into();
        inode.mtime = micros(meta.mtime(), meta.mtime_nsec()).into();
        inode.atime = micros(meta.atime(), meta.atime_nsec()).into();
    });
}

/// Major and minor number as Linux packs them.
fn device_numbers(rdev: u64) -> (u32, u32) {
    let major = (rdev >> 8 & 0xfff) | (rdev >> 32 & 0xffff_f000);
    let minor = (rdev & 0xff) | (rdev >> 12 & 0xffff_ff00);
    (major as u32, minor as u32)
}
