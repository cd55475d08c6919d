use super::*;
use crate::mem::MemFs;
use crate::{Cred, FileSystemExt, NAME_MAX, PATH_MAX, SetAttr};
use dfly_hal::SpinWait;
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::format;
use std::string::{String, ToString};
use std::vec::Vec;

/// A tree of plain text: `dir/`, `file`, `link -> target`, one per line.
pub(crate) fn tree(lines: &str) -> MemFs {
    let fs = MemFs::new();
    with(&fs, |c| {
        for line in lines.lines().map(str::trim).filter(|l| !l.is_empty()) {
            let (path, target) = match line.split_once(" -> ") {
                Some((path, target)) => (path, Some(target)),
                None => (line, None),
            };
            let parent = walk_parent(&fs, c, fs.root(), path.as_bytes(), &Walk::default()).unwrap();
            let (dir, name) = (parent.dir.node, parent.name.as_name());
            match target {
                Some(target) => fs.nsymlink(c, dir, name, target.as_bytes()).unwrap(),
                None if parent.trailing_slash => fs.nmkdir(c, dir, name, 0o755).unwrap(),
                None => fs.ncreate(c, dir, name, 0o644).unwrap(),
            };
        }
    });
    fs
}

fn with<T>(_: &MemFs, body: impl FnOnce(&mut Call<'_>) -> T) -> T {
    body(&mut Call::new(&mut SpinWait::new(&mut || ())))
}

fn try_find(fs: &MemFs, path: &str, how: &Walk<'_>) -> core::result::Result<NodeId, Errno> {
    with(fs, |c| walk(fs, c, fs.root(), path.as_bytes(), how)).map(|a| a.node).map_err(|e| e.errno())
}

fn find(fs: &MemFs, path: &str) -> core::result::Result<NodeId, Errno> {
    try_find(fs, path, &Walk::default())
}

#[test]
fn slashes_and_dots_do_not_matter() {
    let fs = tree("a/\n a/b/\n a/b/f");
    let f = find(&fs, "a/b/f").unwrap();
    for path in ["/a/b/f", "//a///b//f", "./a/./b/./f", "a/../a/b/../b/f", "../../a/b/f", "/../a/b/f"] {
        assert_eq!(find(&fs, path), Ok(f), "{path}");
    }
    for path in ["/", "///", ".", "/.", "..", "a/..", "a/b/../.."] {
        assert_eq!(find(&fs, path), Ok(fs.root()), "{path}");
    }
}

#[test]
fn a_walk_begins_where_it_is_told() {
    let fs = tree("a/\n a/f\n f");
    let a = find(&fs, "a").unwrap();
    let from_a = |path: &str| with(&fs, |c| walk(&fs, c, a, path.as_bytes(), &Walk::default())).unwrap().node;
    assert_eq!(from_a("f"), find(&fs, "a/f").unwrap());
    assert_eq!(from_a("/f"), find(&fs, "f").unwrap());
    assert_eq!(from_a("../f"), find(&fs, "f").unwrap());
}

#[test]
fn a_root_of_its_own_is_not_left() {
    let fs = tree("jail/\n jail/f\n jail/out -> ../../f\n jail/abs -> /f\n f");
    let how = Walk { root: find(&fs, "jail").ok(), ..Walk::default() };
    let inner = find(&fs, "jail/f").unwrap();
    for path in ["/f", "/../f", "/../../jail/../f", "/out", "/abs"] {
        let expected = if path.contains("jail") { Err(Errno::ENOENT) } else { Ok(inner) };
        assert_eq!(try_find(&fs, path, &how), expected, "{path}");
    }
}

#[test]
fn what_is_no_directory_has_nothing_behind_it() {
    let fs = tree("f\n d/\n l -> f\n ld -> d");
    for path in ["f/", "f/.", "f/..", "f/x", "l/", "l/."] {
        assert_eq!(find(&fs, path), Err(Errno::ENOTDIR), "{path}");
    }
    for path in ["d/", "ld/", "ld/.", "d//"] {
        assert_eq!(find(&fs, path), find(&fs, "d"), "{path}");
    }
}

#[test]
fn the_empty_path_leads_nowhere() {
    assert_eq!(find(&tree(""), ""), Err(Errno::ENOENT));
}

#[test]
fn links_are_followed_where_they_must() {
    let fs = tree(
        "a/\n a/f\n to_a -> a\n to_f -> a/f\n abs -> /a/f\n a/up -> ../to_f\n chain -> to_a/up\n none -> nowhere",
    );
    let f = find(&fs, "a/f");
    for path in ["to_a/f", "to_f", "abs", "a/up", "chain", "to_a/up", "to_a/../abs"] {
        assert_eq!(find(&fs, path), f, "{path}");
    }
    assert_eq!(find(&fs, "none"), Err(Errno::ENOENT));
}

#[test]
fn the_last_link_is_kept_on_request_unless_a_slash_follows() {
    let fs = tree("a/\n l -> a\n m -> l");
    let keep = Walk { last: Last::Keep, ..Walk::default() };
    let link = with(&fs, |c| fs.nresolve(c, fs.root(), Name::new("l").unwrap())).unwrap();
    assert_eq!(link.kind, Kind::Symlink);
    assert_eq!(try_find(&fs, "l", &keep), Ok(link.node));
    assert_eq!(try_find(&fs, "l/", &keep), find(&fs, "a"));
    assert_eq!(try_find(&fs, "m/", &keep), find(&fs, "a"));
}

#[test]
fn thirty_two_links_are_followed_and_one_more_is_not() {
    let mut lines = String::from("f\nl0 -> f\n");
    for i in 1..33 {
        lines += &format!("l{i} -> l{}\n", i - 1);
    }
    let fs = tree(&lines);
    assert_eq!(find(&fs, "l31"), find(&fs, "f"));
    assert_eq!(find(&fs, "l32"), Err(Errno::ELOOP));
}

#[test]
fn a_link_to_itself_ends() {
    let fs = tree("l -> l\n a -> b\n b -> a\n grow -> ./grow/grow");
    for path in ["l", "a", "b/x"] {
        assert_eq!(find(&fs, path), Err(Errno::ELOOP), "{path}");
    }
    assert_eq!(find(&fs, "grow"), Err(Errno::ELOOP));
}

#[test]
fn lengths_are_limited() {
    let fs = tree("d/");
    let long = "x".repeat(NAME_MAX + 1);
    assert_eq!(find(&fs, &long), Err(Errno::ENAMETOOLONG));
    assert_eq!(find(&fs, &long[1..]), Err(Errno::ENOENT));
    // 1023 bytes are a path, 1024 are none.
    let path = "./".repeat(511);
    assert_eq!(find(&fs, &format!("{path}d")), find(&fs, "d"));
    assert_eq!(find(&fs, &format!("{path}./")), Err(Errno::ENAMETOOLONG));
    assert_eq!(PATH_MAX, 1024);
}

#[test]
fn a_link_that_makes_the_path_too_long_is_refused() {
    let target = "./".repeat(500) + ".";
    let fs = tree(&format!("d/\n l -> {target}"));
    assert_eq!(find(&fs, "l/d"), find(&fs, "d"));
    assert_eq!(find(&fs, &format!("l/{}d", "./".repeat(11))), Err(Errno::ENAMETOOLONG));
}

#[test]
fn a_nul_is_refused() {
    assert_eq!(find(&tree("d/"), "d\0"), Err(Errno::EINVAL));
}

#[test]
fn searching_needs_permission() {
    let fs = tree("d/\n d/f");
    let user = |path: &str| {
        with(&fs, |c| {
            c.cred = Cred::user(5, 5);
            walk(&fs, c, fs.root(), path.as_bytes(), &Walk::default()).map(|a| a.node).map_err(|e| e.errno())
        })
    };
    assert_eq!(user("d/f"), find(&fs, "d/f"));
    let d = find(&fs, "d").unwrap();
    with(&fs, |c| fs.setattr(c, d, &SetAttr { mode: Some(0o700), ..SetAttr::default() })).unwrap();
    assert_eq!(user("d"), Ok(d));
    for path in ["d/f", "d/.", "d/.."] {
        assert_eq!(user(path), Err(Errno::EACCES), "{path}");
    }
}

#[test]
fn variables_in_links_are_expanded_only_on_request() {
    let fs = tree("usr/\n usr/dfly/\n usr/dfly/bin/\n bin -> /usr/${OS}/bin\n '${OS}'/");
    let variables = |name: &[u8]| (name == b"OS").then(|| varsym::Value::new(b"dfly").unwrap());
    let how = Walk { variables: Some(&variables), ..Walk::default() };
    assert_eq!(try_find(&fs, "bin", &how), find(&fs, "usr/dfly/bin"));
    assert_eq!(find(&fs, "bin"), Err(Errno::ENOENT));
    // Only links are expanded, never what the caller wrote.
    assert_eq!(try_find(&fs, "usr/${OS}", &how), Err(Errno::ENOENT));
}

#[test]
fn the_parent_walk_stops_before_the_last_component() {
    let fs = tree("a/\n a/l -> /nowhere\n to_a -> a");
    let parent = |path: &str| {
        with(&fs, |c| walk_parent(&fs, c, fs.root(), path.as_bytes(), &Walk::default()))
            .map(|p| (p.dir.node, p.name.as_name().to_string(), p.trailing_slash))
            .map_err(|e| e.errno())
    };
    let a = find(&fs, "a").unwrap();
    assert_eq!(parent("a/l"), Ok((a, "l".into(), false)));
    assert_eq!(parent("to_a/new/"), Ok((a, "new".into(), true)));
    assert_eq!(parent("/new"), Ok((fs.root(), "new".into(), false)));
    for path in ["/", "a/.", "a/..", "."] {
        assert_eq!(parent(path), Err(Errno::EINVAL), "{path}");
    }
    assert_eq!(parent("none/x"), Err(Errno::ENOENT));
    assert_eq!(parent("a/l/x"), Err(Errno::ENOENT));
}

// The same walk in the plainest words: recursive, on strings, without any limit but the number of links.

#[derive(Clone, Debug)]
pub(crate) enum Plain {
    Dir,
    File,
    Link(String),
}

pub(crate) type Model = BTreeMap<Vec<String>, Plain>;

pub(crate) fn plain_walk(
    m: &Model,
    at: &mut Vec<String>,
    path: &str,
    last: Last,
    links: &mut u32,
) -> core::result::Result<(), Errno> {
    if path.is_empty() {
        return Err(Errno::ENOENT);
    }
    if path.starts_with('/') {
        at.clear();
    }
    let parts: Vec<&str> = path.split('/').filter(|p| !p.is_empty()).collect();
    for (i, part) in parts.iter().enumerate() {
        let is_last = i + 1 == parts.len();
        let slash = is_last && path.ends_with('/');
        if !matches!(m.get(at), Some(Plain::Dir)) {
            return Err(Errno::ENOTDIR);
        }
        match *part {
            "." => continue,
            ".." => {
                at.pop();
                continue;
            }
            name => at.push(name.to_string()),
        }
        match m.get(at).ok_or(Errno::ENOENT)? {
            Plain::Link(_) if is_last && !slash && last == Last::Keep => {}
            Plain::Link(target) => {
                *links += 1;
                if *links > SYMLINKS_MAX {
                    return Err(Errno::ELOOP);
                }
                at.pop();
                plain_walk(m, at, target, Last::Follow, links)?;
                if (slash || !is_last) && !matches!(m.get(at), Some(Plain::Dir)) {
                    return Err(Errno::ENOTDIR);
                }
            }
            Plain::File if slash => return Err(Errno::ENOTDIR),
            Plain::File | Plain::Dir => {}
        }
    }
    Ok(())
}

pub(crate) fn arb_path() -> impl Strategy<Value = String> {
    let part = prop::sample::select(std::vec!["a", "b", "c", "d", ".", "..", "", "a", "b"]);
    (prop::collection::vec(part, 1..6), any::<bool>(), any::<bool>()).prop_map(|(parts, absolute, slash)| {
        let mut path = parts.join("/");
        if absolute {
            path.insert(0, '/');
        }
        if slash {
            path.push('/');
        }
        path
    })
}

/// What to make: in which of the directories made so far, under which name.
pub(crate) fn arb_node() -> impl Strategy<Value = (usize, &'static str, Plain)> {
    let what = prop_oneof![
        3 => Just(Plain::Dir),
        1 => Just(Plain::File),
        3 => arb_path().prop_map(Plain::Link),
    ];
    (0..8usize, prop::sample::select(std::vec!["a", "b", "c", "d"]), what)
}

proptest! {
    #[test]
    fn the_walk_agrees_with_a_plain_one(
        nodes in prop::collection::vec(arb_node(), 0..24),
        paths in prop::collection::vec((arb_path(), any::<bool>()), 1..16),
    ) {
        let fs = MemFs::new();
        let mut model = Model::from([(Vec::new(), Plain::Dir)]);
        let mut ids = BTreeMap::from([(Vec::new(), fs.root())]);
        let mut dirs = std::vec![Vec::new()];
        for (dir, name, what) in nodes {
            let dir: Vec<String> = dirs[dir % dirs.len()].clone();
            let mut path = dir.clone();
            path.push(name.to_string());
            if model.contains_key(&path) {
                continue;
            }
            let mut nothing = || ();
            let mut w = SpinWait::new(&mut nothing);
            let at = fs.at(&mut w).to(ids[&dir]);
            let made = match &what {
                Plain::Dir => { dirs.push(path.clone()); at.nmkdir(name, 0o755) }
                Plain::File => at.ncreate(name, 0o644),
                Plain::Link(target) => at.nsymlink(name, target),
            };
            ids.insert(path.clone(), made.unwrap().node());
            model.insert(path, what);
        }
        for (path, keep) in paths {
            let last = if keep { Last::Keep } else { Last::Follow };
            let mut at = Vec::new();
            let plain = plain_walk(&model, &mut at, &path, last, &mut 0).map(|()| ids[&at]);
            let real = try_find(&fs, &path, &Walk { last, ..Walk::default() });
            // The real one also has a limit for the length, which links that grow may meet first.
            if real == Err(Errno::ENAMETOOLONG) {
                prop_assert_eq!(plain, Err(Errno::ELOOP));
            } else {
                prop_assert_eq!(real, plain, "{}", path);
            }
        }
    }

    #[test]
    fn no_bytes_make_the_walk_panic(path in prop::collection::vec(any::<u8>(), 0..1200)) {
        let fs = tree("a/\n l -> a");
        let _ = with(&fs, |c| walk(&fs, c, fs.root(), &path, &Walk::default()));
        let _ = with(&fs, |c| walk_parent(&fs, c, fs.root(), &path, &Walk::default()));
    }
}
