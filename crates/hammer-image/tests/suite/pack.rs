//! A packed folder holds what the folder holds.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};

use super::check::check;
use dfly_hammer::ondisk::node::TYPE_LEAF;
use dfly_hammer::ondisk::record::{InodeData, RecType};
use dfly_hammer::ondisk::{Offset, SMALL_BLOCK};
use dfly_hammer_image::{Format, pack};

#[test]
fn a_folder_is_packed_with_links_modes_and_contents() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let content: Vec<u8> = (0..50_000u32).flat_map(u32::to_le_bytes).collect();
    fs::create_dir(at("sub")).unwrap();
    fs::write(at("sub/file"), &content).unwrap();
    fs::set_permissions(at("sub/file"), PermissionsExt::from_mode(0o4751)).unwrap();
    fs::hard_link(at("sub/file"), at("twin")).unwrap();
    symlink("sub/file", at("link")).unwrap();

    let fs = pack(Format::default(), folder.path()).unwrap();
    let file = fs.lookup(fs.root(), "sub/file").unwrap();
    assert_eq!(fs.lookup(fs.root(), "twin"), Some(file));
    let image = fs.finish().unwrap();
    check(&image).unwrap();

    let (mut found, mut inode) = (vec![0; content.len().next_multiple_of(SMALL_BLOCK as usize)], None);
    for leaf in image.nodes().unwrap().iter().filter(|n| n.node.node_type == TYPE_LEAF) {
        for element in &leaf.node.elements[..leaf.node.count.get() as usize] {
            let (base, tail) = (&element.base, element.as_leaf());
            let data = Offset(tail.data_offset.get());
            match RecType(base.rec_type.get()) {
                _ if base.obj_id.get() != file.id => (),
                RecType::INODE => inode = Some(image.view::<InodeData>(data).unwrap()),
                RecType::DATA => {
                    let (end, len) = (base.key.get() as usize, tail.data_len.get() as usize);
                    found[end - len..end].copy_from_slice(&image.read(data, len).unwrap());
                }
                _ => (),
            }
        }
    }
    assert!(found[..content.len()] == content, "content");
    let inode = inode.unwrap();
    let (mode, links, size) = (inode.mode.get(), inode.nlinks.get(), inode.size.get());
    assert_eq!((mode, links, size), (0o4751, 2, content.len() as u64));
}

#[test]
fn a_file_that_shrinks_while_it_is_packed_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("file"), [1; 1000]).unwrap();
    let packed = pack(Format::default(), folder.path()).unwrap();
    fs::write(folder.path().join("file"), [1; 10]).unwrap();
    assert!(packed.finish().is_err());
}
