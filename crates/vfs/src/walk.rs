//! The path walk: from a start and a path to a node, one component after the other.
//!
//! Source: nlookup(9) of DragonFly, path_resolution of POSIX.

use crate::path_text::{PathText, TEXT_MAX};
use crate::varsym::{self, Variables};
use crate::{Attr, Call, Errno, Error, FileSystem, Kind, Name, NameBuf, NodeId, Result};

/// How many symbolic links one walk follows. Source: `MAXSYMLINKS` of DragonFly's `<sys/param.h>`.
pub const SYMLINKS_MAX: u32 = 32;

/// What a walk does with a symbolic link that is the last component.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Last {
    /// It goes where the link points, as stat(2) does.
    #[default]
    Follow,
    /// It stops at the link itself, as lstat(2) does; a slash after it still makes the walk follow.
    Keep,
}

/// How to walk: in one file system, or with `P` = [`Place`](crate::Place) in a [`MountTable`](crate::MountTable).
#[derive(Clone, Copy)]
pub struct Walk<'a, P = NodeId> {
    /// Where absolute paths begin and where `..` leads no further up; `None` is the root of the file system or of the
    /// table.
    pub root: Option<P>,
    /// What to do with a symbolic link at the end.
    pub last: Last,
    /// Variables of variant symlinks; `None` leaves `${...}` as text.
    pub variables: Option<&'a dyn Variables>,
}

impl<P> Default for Walk<'_, P> {
    fn default() -> Self {
        Self { root: None, last: Last::default(), variables: None }
    }
}

/// Where a name is to be made, removed or changed: what [`walk_parent`] found.
#[derive(Clone, Copy, Debug)]
pub struct Parent {
    /// The directory.
    pub dir: Attr,
    /// The last component, which may or may not exist in it.
    pub name: NameBuf,
    /// Whether the path ended with a slash, so that it can only mean a directory.
    pub trailing_slash: bool,
}

/// Finds the node at `path`, from `start` if the path is relative. Each directory on the way must let `c.cred` search.
///
/// Errors: `ENOENT` for a component that is not there, an empty path or an empty link; `ENOTDIR` for one that is no
/// directory and has something behind it; `EACCES`; `ELOOP` after [`SYMLINKS_MAX`] links; `ENAMETOOLONG` for a
/// component over [`NAME_MAX`](crate::NAME_MAX) bytes, or a path that has, with what a link put into it, 1024 bytes or
/// more; `EINVAL` for a NUL in it; and what the file system answers.
///
/// May block. Takes some 3.5 KiB of stack while it follows a link and 2.5 KiB else, beside the file system's; allocates
/// nothing; makes at most one step for each byte of the path and of the links' targets.
///
/// ```
/// # #[cfg(feature = "mem")] {
/// use dfly_hal::SpinWait;
/// use dfly_vfs::{Call, FileSystem, FileSystemExt, Kind, Walk, mem::MemFs, walk};
///
/// let fs = MemFs::new();
/// let mut nothing = || ();
/// let mut w = SpinWait::new(&mut nothing);
/// fs.at(&mut w).nmkdir("usr", 0o755)?.nmkdir("bin", 0o755)?;
/// fs.at(&mut w).nsymlink("bin", "usr/bin")?;
///
/// let found = walk(&fs, &mut Call::new(&mut w), fs.root(), b"/bin/../bin//.", &Walk::default())?;
/// assert_eq!(found.kind, Kind::Directory);
/// # }
/// # Ok::<(), dfly_vfs::Error>(())
/// ```
pub fn walk<F: FileSystem + ?Sized>(
    fs: &F,
    c: &mut Call<'_>,
    start: NodeId,
    path: &[u8],
    how: &Walk<'_>,
) -> Result<Attr> {
    Ok(walk_in(fs, c, &start, path, how)?.attr)
}

/// Finds the directory in which `path`'s last component is, or is to be, without looking at that component.
///
/// Errors as [`walk`]; `EINVAL` if the last component is `.`, `..` or the root itself.
pub fn walk_parent<F: FileSystem + ?Sized>(
    fs: &F,
    c: &mut Call<'_>,
    start: NodeId,
    path: &[u8],
    how: &Walk<'_>,
) -> Result<Parent> {
    Ok(walk_parent_in(fs, c, &start, path, how)?.1)
}

/// The target of a symbolic link, as stored.
///
/// Errors: `EINVAL` if the node is none, `ENAMETOOLONG` for 1024 bytes or more, and what the file system answers. May
/// block.
pub fn readlink<F: FileSystem + ?Sized>(fs: &F, c: &mut Call<'_>, link: NodeId) -> Result<PathText> {
    let mut target = PathText::new();
    readlink_into(fs, c, link, &mut target)?;
    Ok(target)
}

/// Puts the target of a symbolic link into `target`, which is empty: in place, because it is large for a stack.
pub(crate) fn readlink_into<F: FileSystem + ?Sized>(
    fs: &F,
    c: &mut Call<'_>,
    link: NodeId,
    target: &mut PathText,
) -> Result<()> {
    let mut fits = Ok(());
    fs.readlink(c, link, &mut |part| {
        if fits.is_ok() {
            fits = target.push(part);
        }
    })?;
    fits.map_err(|e| Error::new(e).because("the target of a symbolic link is too long"))
}

/// What can be walked: the steps between the components of a path.
pub(crate) trait Space {
    /// What names a node.
    type Place: Clone + PartialEq;

    /// Where absolute paths begin.
    fn top(&self) -> Self::Place;
    fn attr(&self, c: &mut Call<'_>, at: &Self::Place) -> Result<Attr>;
    fn down(&self, c: &mut Call<'_>, dir: &Self::Place, name: Name<'_>) -> Result<Found<Self::Place>>;
    fn up(&self, c: &mut Call<'_>, dir: &Self::Place) -> Result<Found<Self::Place>>;
    /// Puts what `link` says into `target`, which is empty.
    fn target(&self, c: &mut Call<'_>, link: &Self::Place, target: &mut PathText) -> Result<()>;
}

/// Where a step led.
pub(crate) struct Found<P> {
    pub(crate) place: P,
    pub(crate) attr: Attr,
}

/// One file system.
impl<F: FileSystem + ?Sized> Space for F {
    type Place = NodeId;

    fn top(&self) -> NodeId {
        self.root()
    }

    fn attr(&self, c: &mut Call<'_>, at: &NodeId) -> Result<Attr> {
        self.getattr(c, *at)
    }

    fn down(&self, c: &mut Call<'_>, dir: &NodeId, name: Name<'_>) -> Result<Found<NodeId>> {
        let attr = self.nresolve(c, *dir, name)?;
        Ok(Found { place: attr.node, attr })
    }

    fn up(&self, c: &mut Call<'_>, dir: &NodeId) -> Result<Found<NodeId>> {
        let attr = self.nlookupdotdot(c, *dir)?;
        Ok(Found { place: attr.node, attr })
    }

    fn target(&self, c: &mut Call<'_>, link: &NodeId, target: &mut PathText) -> Result<()> {
        readlink_into(self, c, *link, target)
    }
}

/// See [`walk`].
pub(crate) fn walk_in<S: Space + ?Sized>(
    space: &S,
    c: &mut Call<'_>,
    start: &S::Place,
    path: &[u8],
    how: &Walk<'_, S::Place>,
) -> Result<Found<S::Place>> {
    let mut rest = Rest::new();
    let mut at = Walker::begin(space, c, start, path, how, &mut rest)?;
    while let Some(step) = at.rest.take_component() {
        let found = at.find(c, step)?;
        let keep = how.last == Last::Keep && step.end == End::Last;
        if found.attr.kind == Kind::Symlink && !keep {
            at.follow(c, &found.place)?;
        } else if found.attr.kind != Kind::Directory && step.end == End::LastWithSlash {
            return Err(Errno::ENOTDIR.into());
        } else {
            at.here = found;
        }
    }
    Ok(at.here)
}

/// See [`walk_parent`].
pub(crate) fn walk_parent_in<S: Space + ?Sized>(
    space: &S,
    c: &mut Call<'_>,
    start: &S::Place,
    path: &[u8],
    how: &Walk<'_, S::Place>,
) -> Result<(S::Place, Parent)> {
    let mut rest = Rest::new();
    let mut at = Walker::begin(space, c, start, path, how, &mut rest)?;
    while let Some(step) = at.rest.take_component() {
        if step.end != End::More {
            let dir = at.here.attr;
            dir.check_search(&c.cred)?;
            let name = Name::new(at.rest.bytes_of(step))?.into();
            return Ok((at.here.place, Parent { dir, name, trailing_slash: step.end == End::LastWithSlash }));
        }
        let found = at.find(c, step)?;
        if found.attr.kind == Kind::Symlink {
            at.follow(c, &found.place)?;
        } else {
            at.here = found;
        }
    }
    Err(Error::new(Errno::EINVAL).because("the root has no name"))
}

struct Walker<'a, S: Space + ?Sized> {
    space: &'a S,
    how: &'a Walk<'a, S::Place>,
    root: S::Place,
    /// Where the walk is.
    here: Found<S::Place>,
    /// What is still to be walked. Not in here, because whatever moves this would need room for it twice.
    rest: &'a mut Rest,
    links: u32,
}

impl<'a, S: Space + ?Sized> Walker<'a, S> {
    fn begin(
        space: &'a S,
        c: &mut Call<'_>,
        start: &S::Place,
        path: &[u8],
        how: &'a Walk<'a, S::Place>,
        rest: &'a mut Rest,
    ) -> Result<Self> {
        let root = how.root.clone().unwrap_or_else(|| space.top());
        if path.is_empty() {
            return Err(Error::new(Errno::ENOENT).because("empty path"));
        }
        rest.prepend(path)?;
        let place = if path.starts_with(b"/") { root.clone() } else { start.clone() };
        let here = Found { attr: space.attr(c, &place)?, place };
        Ok(Self { space, how, root, here, rest, links: 0 })
    }

    /// One component further: `.`, `..` or an entry.
    fn find(&self, c: &mut Call<'_>, step: Step) -> Result<Found<S::Place>> {
        self.here.attr.check_search(&c.cred)?;
        let here = &self.here.place;
        match self.rest.bytes_of(step) {
            b"." => Ok(Found { place: here.clone(), attr: self.here.attr }),
            b".." if *here == self.root => Ok(Found { place: here.clone(), attr: self.here.attr }),
            b".." => self.space.up(c, here),
            name => self.space.down(c, here, Name::new(name)?),
        }
    }

    /// Puts the target of `link` before what is still to be walked.
    // Apart from the walk, so that a walk without links does not pay for its stack.
    #[inline(never)]
    fn follow(&mut self, c: &mut Call<'_>, link: &S::Place) -> Result<()> {
        if self.links >= SYMLINKS_MAX {
            return Err(Errno::ELOOP.into());
        }
        self.links += 1;
        let mut target = PathText::new();
        self.space.target(c, link, &mut target)?;
        if let Some(variables) = self.how.variables {
            varsym::expand(&mut target, variables)?;
        }
        if target.is_empty() {
            return Err(Error::new(Errno::ENOENT).because("empty symbolic link"));
        }
        if target.starts_with(b"/") && self.here.place != self.root {
            let attr = self.space.attr(c, &self.root)?;
            self.here = Found { place: self.root.clone(), attr };
        }
        self.rest.prepend(&target)
    }
}

/// One component of a path: its bytes, by their place in [`Rest`], and what comes after it.
#[derive(Clone, Copy)]
struct Step {
    start: usize,
    len: usize,
    end: End,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    More,
    Last,
    LastWithSlash,
}

/// What is still to be walked, at the end of a fixed buffer: a link's target goes in front of it without moving it.
struct Rest {
    start: usize,
    bytes: [u8; TEXT_MAX],
}

impl Rest {
    fn new() -> Self {
        Self { start: TEXT_MAX, bytes: [0; TEXT_MAX] }
    }

    fn prepend(&mut self, text: &[u8]) -> Result<()> {
        if let Some(at) = text.iter().position(|&b| b == 0) {
            return Err(Error::new(Errno::EINVAL).because("a NUL in a path").at(at as u64));
        }
        let start = self.start.checked_sub(text.len()).ok_or(Errno::ENAMETOOLONG)?;
        let room = self.bytes.get_mut(start..self.start).ok_or(Errno::ENAMETOOLONG)?;
        room.copy_from_slice(text);
        self.start = start;
        Ok(())
    }

    /// Takes the next component off the front, with the slashes before it. Those behind it stay, so that a link's
    /// target that takes its place still has them behind it.
    fn take_component(&mut self) -> Option<Step> {
        let rest = self.bytes.get(self.start..)?;
        let before = rest.iter().position(|&b| b != b'/')?;
        let rest = rest.get(before..)?;
        let len = rest.iter().position(|&b| b == b'/').unwrap_or(rest.len());
        let behind = rest.get(len..)?;
        let end = match behind.iter().any(|&b| b != b'/') {
            true => End::More,
            false if behind.is_empty() => End::Last,
            false => End::LastWithSlash,
        };
        let start = self.start + before;
        self.start = start + len;
        Some(Step { start, len, end })
    }

    /// The bytes of the component that was taken last; they stand until something is put in front of the rest.
    fn bytes_of(&self, step: Step) -> &[u8] {
        self.bytes.get(step.start..step.start + step.len).unwrap_or_default()
    }
}

#[cfg(test)]
#[path = "walk_tests.rs"]
pub(crate) mod tests;
