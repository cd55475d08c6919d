use super::*;
use crate::mem::MemFs;
use crate::walk::tests::{Model, Plain, arb_node, arb_path, plain_walk, tree};
use crate::{Cred, Last, SetAttr};
use dfly_hal::SpinWait;
use proptest::prelude::*;
use std::format;
use std::string::{String, ToString};
use std::vec;

type Short<T> = core::result::Result<T, Errno>;

fn with<T>(body: impl FnOnce(&mut Call<'_>) -> T) -> T {
    body(&mut Call::new(&mut SpinWait::new(&mut || ())))
}

fn walk_from(table: &MountTable, start: &Place, path: &str) -> Short<Place> {
    with(|c| table.walk(c, start, path.as_bytes(), &Walk::default())).map(|f| f.0).map_err(|e| e.errno())
}

fn find(table: &MountTable, path: &str) -> Short<Place> {
    walk_from(table, &table.root(), path)
}

fn mount(table: &MountTable, on: &str, fs: MemFs) -> Short<()> {
    let at = find(table, on)?;
    let from = format!("from {on}");
    with(|c| table.mount(c, &at, Arc::new(fs), from.as_bytes(), on.as_bytes())).map_err(|e| e.errno())
}

fn unmount(table: &MountTable, on: &str) -> Short<()> {
    let at = find(table, on)?;
    with(|c| table.unmount(c, at)).map(drop).map_err(|e| e.errno())
}

/// A root with `/mnt`, and mounted there a file system with `sub`, and mounted there a third.
fn three() -> MountTable {
    let table = MountTable::new(
        Arc::new(tree("f0\n mnt/\n mnt/hidden\n to_mnt -> mnt\n to_f2 -> mnt/sub/f2")),
        b"root",
    );
    let middle =
        tree("f1\n sub/\n sub/hidden\n abs -> /f0\n up -> ../f0\n jail/\n jail/out -> /f1\n jail/sub/");
    mount(&table, "/mnt", middle).unwrap();
    mount(&table, "/mnt/sub", tree("f2\n d/\n d/f2d\n far_up -> ../../../f0")).unwrap();
    table
}

#[test]
fn a_path_leads_down_through_mounts() {
    let table = three();
    for (path, from) in [
        ("/", "root"),
        ("/f0", "root"),
        ("/mnt", "from /mnt"),
        ("/mnt/", "from /mnt"),
        ("/mnt/f1", "from /mnt"),
        ("/to_mnt/f1", "from /mnt"),
        ("/mnt/sub", "from /mnt/sub"),
        ("/mnt/sub/d/f2d", "from /mnt/sub"),
        ("/to_f2", "from /mnt/sub"),
    ] {
        let place = find(&table, path).unwrap();
        assert_eq!(place.mounted.from(), from.as_bytes(), "{path}");
    }
    assert_eq!(find(&table, "/mnt/hidden"), Err(Errno::ENOENT));
    assert_eq!(find(&table, "/mnt/sub/hidden"), Err(Errno::ENOENT));
}

#[test]
fn dots_lead_up_through_mounts() {
    let table = three();
    for (path, same) in [
        ("/mnt/..", "/"),
        ("/mnt/../f0", "/f0"),
        ("/mnt/sub/..", "/mnt"),
        ("/mnt/sub/../f1", "/mnt/f1"),
        ("/mnt/sub/d/../../..", "/"),
        ("/mnt/sub/d/../../../mnt/sub/f2", "/mnt/sub/f2"),
        ("/../mnt/./sub/.", "/mnt/sub"),
    ] {
        assert_eq!(find(&table, path), find(&table, same), "{path}");
    }
}

#[test]
fn dots_lead_to_what_was_mounted_meanwhile() {
    let table = MountTable::new(Arc::new(tree("a/\n a/b/")), b"root");
    let b = find(&table, "/a/b").unwrap();
    mount(&table, "/a", tree("new")).unwrap();
    assert_eq!(walk_from(&table, &b, "../new"), find(&table, "/a/new"));
    assert_eq!(walk_from(&table, &b, "../.."), Ok(table.root()));
    assert_eq!(walk_from(&table, &b, "../b"), Err(Errno::ENOENT));
}

#[test]
fn links_lead_through_mounts_and_absolute_ones_begin_at_the_tables_root() {
    let table = three();
    for path in ["/mnt/abs", "/mnt/up", "/mnt/sub/far_up"] {
        assert_eq!(find(&table, path), find(&table, "/f0"), "{path}");
    }
    // What stands in a file system's own tree means nothing: it does not begin at the root of its file system.
    assert_eq!(find(&table, "/mnt/jail/out"), Err(Errno::ENOENT));
}

#[test]
fn a_walk_begins_where_it_is_told() {
    let table = three();
    let d = find(&table, "/mnt/sub/d").unwrap();
    assert_eq!(walk_from(&table, &d, "../f2"), find(&table, "/to_f2"));
    assert_eq!(walk_from(&table, &d, "../../f1"), find(&table, "/mnt/f1"));
    assert_eq!(walk_from(&table, &d, "../../.."), Ok(table.root()));
    assert_eq!(walk_from(&table, &d, "/f0"), find(&table, "/f0"));
}

#[test]
fn a_root_of_its_own_is_not_left() {
    let table = three();
    let walk = |root: &str, path: &str| {
        let how = Walk { root: Some(find(&table, root).unwrap()), ..Walk::default() };
        with(|c| table.walk(c, how.root.as_ref().unwrap(), path.as_bytes(), &how)).map(|f| f.0)
    };
    assert_eq!(walk("/mnt", "/../sub/../f1").unwrap(), find(&table, "/mnt/f1").unwrap());
    assert_eq!(walk("/mnt", "../f0").unwrap_err(), Errno::ENOENT);
    assert_eq!(walk("/mnt", "/jail/out").unwrap(), find(&table, "/mnt/f1").unwrap());
    assert_eq!(walk("/mnt/jail", "../../f0").unwrap_err(), Errno::ENOENT);
}

#[test]
fn equal_keys_in_different_file_systems_are_different_places() {
    let table = MountTable::new(Arc::new(tree("a/\n a/x/")), b"root");
    mount(&table, "/a", tree("b/\n b/x/")).unwrap();
    // Both made their nodes in the same order.
    let (a, b) = (find(&table, "/").unwrap(), find(&table, "/a").unwrap());
    assert_eq!(a.node, b.node);
    assert_ne!(a, b);
    mount(&table, "/a/b", tree("inner")).unwrap();
    assert!(find(&table, "/a/b/inner").is_ok());
}

#[test]
fn only_directories_that_carry_nothing_yet_are_mounted_on() {
    let table = three();
    let before = find(&table, "/mnt/jail").unwrap();
    assert_eq!(mount(&table, "/f0", MemFs::new()), Err(Errno::ENOTDIR));
    assert_eq!(mount(&table, "/none", MemFs::new()), Err(Errno::ENOENT));
    for path in ["/", "/mnt", "/mnt/sub"] {
        assert_eq!(mount(&table, path, MemFs::new()), Err(Errno::EBUSY), "{path}");
    }
    mount(&table, "/mnt/jail", MemFs::new()).unwrap();
    let again = with(|c| table.mount(c, &before, Arc::new(MemFs::new()), b"", b""));
    assert_eq!(again.unwrap_err(), Errno::EBUSY);
}

#[test]
fn what_was_covered_comes_back() {
    let table = three();
    unmount(&table, "/mnt/sub").unwrap();
    assert!(find(&table, "/mnt/sub/hidden").is_ok());
    unmount(&table, "/mnt").unwrap();
    assert!(find(&table, "/mnt/hidden").is_ok());
    assert_eq!(find(&table, "/mnt/f1"), Err(Errno::ENOENT));
}

#[test]
fn what_is_in_use_stays_mounted() {
    let table = three();
    assert_eq!(unmount(&table, "/mnt"), Err(Errno::EBUSY), "something is mounted below");
    let cwd = find(&table, "/mnt/sub/d").unwrap();
    assert_eq!(unmount(&table, "/mnt/sub"), Err(Errno::EBUSY), "a place in it");
    let file = with(|c| find(&table, "/mnt/sub/f2").unwrap().open(c, Access::Read)).unwrap();
    drop(cwd);
    assert_eq!(unmount(&table, "/mnt/sub"), Err(Errno::EBUSY), "an open file");
    assert_eq!(with(|c| file.attr(c.wait)).unwrap().size, 0);
    drop(file);
    assert_eq!(unmount(&table, "/mnt/sub"), Ok(()));
    assert_eq!(unmount(&table, "/mnt"), Ok(()));
}

#[test]
fn only_the_root_of_a_mount_is_unmounted() {
    let (table, other) = (three(), three());
    assert_eq!(unmount(&table, "/"), Err(Errno::EBUSY));
    assert_eq!(unmount(&table, "/mnt/jail"), Err(Errno::EINVAL));
    assert_eq!(unmount(&table, "/f0"), Err(Errno::EINVAL));
    let theirs = find(&other, "/mnt/sub").unwrap();
    assert_eq!(with(|c| table.unmount(c, theirs)).err().unwrap(), Errno::EINVAL);
    assert_eq!(table.list().len(), 3);
}

#[test]
fn the_file_system_comes_back_from_its_mount() {
    let table = three();
    let at = find(&table, "/mnt/sub").unwrap();
    let fs = with(|c| table.unmount(c, at)).unwrap();
    assert_eq!(Arc::strong_count(&fs), 1);
    assert!(with(|c| crate::walk(&*fs, c, fs.root(), b"f2", &Walk::default())).is_ok());
}

#[test]
fn the_list_has_the_order_of_mounting() {
    let table = three();
    mount(&table, "/mnt/jail", MemFs::new()).unwrap();
    unmount(&table, "/mnt/sub").unwrap();
    let list: Vec<_> = table.list().iter().map(|m| (m.from().to_vec(), m.on().to_vec())).collect();
    let expected = [("root", "/"), ("from /mnt", "/mnt"), ("from /mnt/jail", "/mnt/jail")];
    assert_eq!(list, expected.map(|(from, on)| (from.as_bytes().to_vec(), on.as_bytes().to_vec())));
}

#[test]
fn a_directory_knows_what_is_mounted_on_it() {
    let table = three();
    let covered = |path: &str| {
        let parent =
            with(|c| table.walk_parent(c, &table.root(), path.as_bytes(), &Walk::default())).unwrap();
        let (dir, Parent { name, .. }) = parent;
        let attr = with(|c| dir.mounted.nresolve(c, dir.node, name.as_name())).unwrap();
        table.mounted_on(&Place { node: attr.node, ..dir }).map(|m| m.on().to_vec())
    };
    assert_eq!(covered("/mnt"), Some(b"/mnt".to_vec()));
    assert_eq!(covered("/mnt/sub"), Some(b"/mnt/sub".to_vec()));
    assert_eq!(covered("/mnt/jail"), None);
}

#[test]
fn the_parent_walk_ends_inside_the_mount() {
    let table = three();
    let parent = |path: &str| {
        with(|c| table.walk_parent(c, &table.root(), path.as_bytes(), &Walk::default()))
            .map(|(place, p)| (place, p.name.as_name().to_string()))
            .map_err(|e| e.errno())
    };
    assert_eq!(parent("/mnt/new"), Ok((find(&table, "/mnt").unwrap(), "new".into())));
    assert_eq!(parent("/mnt/sub/../new"), Ok((find(&table, "/mnt").unwrap(), "new".into())));
    // The name of a mount point belongs to the directory around it.
    assert_eq!(parent("/mnt/sub"), Ok((find(&table, "/mnt").unwrap(), "sub".into())));
    assert_eq!(parent("/mnt/sub/.."), Err(Errno::EINVAL));
}

#[test]
fn the_root_of_a_mount_decides_who_may_search_it() {
    let table = three();
    let user = |path: &str| {
        with(|c| {
            c.cred = Cred::user(5, 5);
            table.walk(c, &table.root(), path.as_bytes(), &Walk::default()).map(drop).map_err(|e| e.errno())
        })
    };
    let sub = find(&table, "/mnt/sub").unwrap();
    assert_eq!(user("/mnt/sub/f2"), Ok(()));
    with(|c| sub.at(c.wait).setattr(&SetAttr { mode: Some(0o700), ..SetAttr::default() })).unwrap();
    for path in ["/mnt/sub/f2", "/mnt/sub/.."] {
        assert_eq!(user(path), Err(Errno::EACCES), "{path}");
    }
}

#[test]
fn threads_that_walk_and_mount_do_not_meet_half_a_mount() {
    let table = MountTable::new(Arc::new(tree("a/\n a/below")), b"root");
    std::thread::scope(|s| {
        for _ in 0..2 {
            s.spawn(|| {
                for _ in 0..500 {
                    let below = find(&table, "/a/below");
                    let above = find(&table, "/a/above");
                    assert!(below.is_ok() || below == Err(Errno::ENOENT));
                    assert!(above.is_ok() || above == Err(Errno::ENOENT));
                    assert_eq!(find(&table, "/a/.."), Ok(table.root()));
                }
            });
        }
        for _ in 0..200 {
            mount(&table, "/a", tree("above")).unwrap();
            while unmount(&table, "/a") == Err(Errno::EBUSY) {}
            assert!(find(&table, "/a/below").is_ok());
        }
    });
}

// The naive model: one tree of paths, from which a mount first takes everything below its point.

/// Makes `nodes` in a new file system, and in the model below `top`, with the place that each path of the model has.
fn grow(
    nodes: Vec<(usize, &'static str, Plain)>,
    top: &[String],
    model: &mut Model,
    keys: &mut BTreeMap<Vec<String>, (Vec<u8>, NodeId)>,
) -> MemFs {
    let fs = MemFs::new();
    let from = format!("from /{}", top.join("/")).into_bytes();
    model.retain(|path, _| !path.starts_with(top));
    keys.retain(|path, _| !path.starts_with(top));
    model.insert(top.to_vec(), Plain::Dir);
    keys.insert(top.to_vec(), (from.clone(), fs.root()));
    let mut dirs = vec![top.to_vec()];
    for (dir, name, what) in nodes {
        let dir = dirs[dir % dirs.len()].clone();
        let mut path = dir.clone();
        path.push(name.to_string());
        if model.contains_key(&path) {
            continue;
        }
        let mut nothing = || ();
        let mut w = SpinWait::new(&mut nothing);
        let at = fs.at(&mut w).to(keys[&dir].1);
        let made = match &what {
            Plain::Dir => {
                dirs.push(path.clone());
                at.nmkdir(name, 0o755)
            }
            Plain::File => at.ncreate(name, 0o644),
            Plain::Link(target) => at.nsymlink(name, target),
        };
        keys.insert(path.clone(), (from.clone(), made.unwrap().node()));
        model.insert(path, what);
    }
    fs
}

proptest! {
    #[test]
    fn walks_across_mounts_agree_with_one_plain_tree(
        root in prop::collection::vec(arb_node(), 0..16),
        mounts in prop::collection::vec((any::<prop::sample::Index>(), prop::collection::vec(arb_node(), 0..10)), 0..5),
        walks in prop::collection::vec((any::<prop::sample::Index>(), arb_path(), any::<bool>()), 1..16),
    ) {
        let (mut model, mut keys) = (Model::new(), BTreeMap::new());
        let table = MountTable::new(Arc::new(grow(root, &[], &mut model, &mut keys)), b"from /");
        for (at, nodes) in mounts {
            let dirs: Vec<_> = model.iter().filter(|(_, n)| matches!(n, Plain::Dir)).map(|(p, _)| p.clone()).collect();
            let top = at.get(&dirs).clone();
            let on = format!("/{}", top.join("/"));
            // The model knows a root by who mounted it.
            if keys[&top].0 == format!("from {on}").into_bytes() {
                prop_assert_eq!(mount(&table, &on, MemFs::new()), Err(Errno::EBUSY));
            } else {
                let fs = grow(nodes, &top, &mut model, &mut keys);
                prop_assert_eq!(mount(&table, &on, fs), Ok(()));
            }
        }
        let dirs: Vec<_> = model.iter().filter(|(_, n)| matches!(n, Plain::Dir)).map(|(p, _)| p.clone()).collect();
        for (start, path, keep) in walks {
            let last = if keep { Last::Keep } else { Last::Follow };
            let mut at = start.get(&dirs).clone();
            let start = find(&table, &format!("/{}", at.join("/"))).unwrap();
            let plain = plain_walk(&model, &mut at, &path, last, &mut 0).map(|()| keys[&at].clone());
            let how = Walk { last, ..Walk::default() };
            let real = with(|c| table.walk(c, &start, path.as_bytes(), &how));
            let real = real.map(|(p, attr)| {
                assert_eq!(p.node, attr.node);
                (p.mounted.from().to_vec(), p.node)
            });
            match real {
                Err(e) if e == Errno::ENAMETOOLONG => prop_assert_eq!(plain, Err(Errno::ELOOP)),
                real => prop_assert_eq!(real.map_err(|e| e.errno()), plain, "{}", path),
            }
        }
    }
}
