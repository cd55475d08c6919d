//! For models of disks: what they keep their bytes on (feature `model`).

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::vec;

use crate::{Access, Failure, Image};

/// The bytes behind a disk of a model. Called with the model's lock held, by whoever writes the register that starts a
/// command: it may take as long as the host's disk does.
///
/// A model asks for ranges inside the medium only. What fails becomes the device's own word for it: as a rule there is one
/// for [`Failure::NoSpace`] and one for [`Failure::WriteProtected`], and everything else is an unrecovered read or a write
/// fault.
pub trait Medium: Send {
    /// Bytes in it; they stay as many.
    fn size_bytes(&self) -> u64;

    /// Whether it can be written. If not, the disk is write-protected.
    fn access(&self) -> Access {
        Access::ReadWrite
    }

    /// Copies the bytes from `at` on into `to`.
    fn read(&mut self, at: u64, to: &mut [u8]) -> Result<(), Failure>;

    /// Writes `from` at `at`.
    fn write(&mut self, at: u64, from: &[u8]) -> Result<(), Failure>;

    /// Makes durable what was written.
    fn flush(&mut self) -> Result<(), Failure>;
}

impl<M: Medium + ?Sized> Medium for Box<M> {
    fn size_bytes(&self) -> u64 {
        (**self).size_bytes()
    }
    fn access(&self) -> Access {
        (**self).access()
    }
    fn read(&mut self, at: u64, to: &mut [u8]) -> Result<(), Failure> {
        (**self).read(at, to)
    }
    fn write(&mut self, at: u64, from: &[u8]) -> Result<(), Failure> {
        (**self).write(at, from)
    }
    fn flush(&mut self) -> Result<(), Failure> {
        (**self).flush()
    }
}

/// In memory, sparse.
impl Medium for Image {
    fn size_bytes(&self) -> u64 {
        self.len()
    }
    fn read(&mut self, at: u64, to: &mut [u8]) -> Result<(), Failure> {
        Image::read(self, at, to);
        Ok(())
    }
    fn write(&mut self, at: u64, from: &[u8]) -> Result<(), Failure> {
        Ok(Image::write(self, at, from)?)
    }
    fn flush(&mut self) -> Result<(), Failure> {
        Ok(())
    }
}

/// Bytes of a chunk of an [`Overlay`].
const CHUNK: u64 = 64 << 10;

/// A medium that is never written, under what was written to it: copy on write, in memory, forgotten when dropped.
///
/// ```
/// use dfly_bio::Image;
/// use dfly_bio::model::{Medium, Overlay};
/// let golden = Image::from_bytes(b"as it was")?;
/// let mut scratch = Overlay::new(golden);
/// scratch.write(3, b"is now")?;
/// let mut bytes = [0; 9];
/// scratch.read(0, &mut bytes)?;
/// assert_eq!(&bytes, b"as is now");
/// # Ok::<(), Box<dyn core::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Overlay<M> {
    base: M,
    /// What was written to, by number.
    chunks: BTreeMap<u64, Box<[u8]>>,
}

impl<M: Medium> Overlay<M> {
    /// Nothing is written yet.
    pub const fn new(base: M) -> Self {
        Self { base, chunks: BTreeMap::new() }
    }

    /// Bytes of memory that writes take so far.
    pub fn resident_bytes(&self) -> u64 {
        self.chunks.len() as u64 * CHUNK
    }
}

impl<M: Medium> Medium for Overlay<M> {
    fn size_bytes(&self) -> u64 {
        self.base.size_bytes()
    }

    fn read(&mut self, mut at: u64, mut to: &mut [u8]) -> Result<(), Failure> {
        while !to.is_empty() {
            let start = (at % CHUNK) as usize;
            let (now, later) = to.split_at_mut(to.len().min(CHUNK as usize - start));
            match self.chunks.get(&(at / CHUNK)).and_then(|chunk| chunk.get(start..start + now.len())) {
                Some(bytes) => now.copy_from_slice(bytes),
                None => self.base.read(at, now)?,
            }
            at += now.len() as u64;
            to = later;
        }
        Ok(())
    }

    fn write(&mut self, mut at: u64, mut from: &[u8]) -> Result<(), Failure> {
        while !from.is_empty() {
            let (number, start) = (at / CHUNK, (at % CHUNK) as usize);
            let (now, later) = from.split_at(from.len().min(CHUNK as usize - start));
            if !self.chunks.contains_key(&number) {
                let mut chunk = vec![0; CHUNK as usize].into_boxed_slice();
                let begin = number * CHUNK;
                let inside = self.base.size_bytes().saturating_sub(begin).min(CHUNK) as usize;
                self.base.read(begin, chunk.get_mut(..inside).unwrap_or_default())?;
                self.chunks.insert(number, chunk);
            }
            let chunk = self.chunks.get_mut(&number);
            match chunk.and_then(|chunk| chunk.get_mut(start..start + now.len())) {
                Some(bytes) => bytes.copy_from_slice(now),
                None => return Err(Failure::OutOfRange),
            }
            at += now.len() as u64;
            from = later;
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), Failure> {
        Ok(())
    }
}

#[cfg(all(feature = "std", unix))]
pub use file::FileMedium;

#[cfg(all(feature = "std", unix))]
mod file {
    use std::fs::File;
    use std::io::{self, Seek, SeekFrom};
    use std::os::unix::fs::FileExt;
    use std::path::Path;

    use super::Medium;
    use crate::{Access, Failure};

    /// A file or block special file of the host (Unix): each access is one `pread` or `pwrite`, a flush is `fdatasync`.
    /// Nothing of it is kept in memory, so it may be of any length, holes included.
    #[derive(Debug)]
    pub struct FileMedium {
        file: File,
        bytes: u64,
        access: Access,
    }

    impl FileMedium {
        /// Opens `path`, for reading only or for writing too.
        pub fn open(path: impl AsRef<Path>, access: Access) -> io::Result<Self> {
            let write = access == Access::ReadWrite;
            Self::from_file(File::options().read(true).write(write).open(path)?, access)
        }

        /// Over an open file, which allows what `access` says. Its size is where its end is now.
        pub fn from_file(mut file: File, access: Access) -> io::Result<Self> {
            let bytes = file.seek(SeekFrom::End(0))?;
            Ok(Self { file, bytes, access })
        }
    }

    impl Medium for FileMedium {
        fn size_bytes(&self) -> u64 {
            self.bytes
        }
        fn access(&self) -> Access {
            self.access
        }
        fn read(&mut self, at: u64, to: &mut [u8]) -> Result<(), Failure> {
            self.file.read_exact_at(to, at).map_err(|error| failure_of(&error))
        }
        fn write(&mut self, at: u64, from: &[u8]) -> Result<(), Failure> {
            match self.access {
                Access::ReadWrite => self.file.write_all_at(from, at).map_err(|error| failure_of(&error)),
                Access::ReadOnly => Err(Failure::WriteProtected),
            }
        }
        fn flush(&mut self) -> Result<(), Failure> {
            match self.access {
                Access::ReadWrite => self.file.sync_data().map_err(|error| failure_of(&error)),
                Access::ReadOnly => Ok(()),
            }
        }
    }

    fn failure_of(error: &io::Error) -> Failure {
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Failure::NoSpace,
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => Failure::WriteProtected,
            _ => Failure::Media,
        }
    }
}
