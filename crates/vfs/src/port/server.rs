//! The side of the file system.

use alloc::sync::Arc;
use core::fmt;

use dfly_hal::Wait;
use dfly_msgport::PortStats;

use super::{PortFs, Shared};
use crate::FileSystem;

/// Runs a file system for those who hold its [`PortFs`].
///
/// ```
/// # #[cfg(feature = "mem")] {
/// use dfly_hal::ThreadWait;
/// use dfly_vfs::{Access, FileSystemExt, FsServer, mem::MemFs};
/// use std::sync::Arc;
///
/// let (server, fs) = FsServer::new(Arc::new(MemFs::new()), 8);
/// let server = std::thread::spawn(move || server.run(&mut ThreadWait::new()));
///
/// let w = &mut ThreadWait::new();
/// let file = fs.at(w).ncreate("notes", 0o644)?.open(Access::Write)?;
/// file.write_at(w, 0, b"milk")?;
/// drop(file);
///
/// drop(fs);                        // the server ends
/// server.join().unwrap();
/// # }
/// # Ok::<(), dfly_vfs::Error>(())
/// ```
pub struct FsServer {
    fs: Arc<dyn FileSystem>,
    shared: Arc<Shared>,
}

impl FsServer {
    /// A server for `fs`, and the file system for others, of which at most `calls_max` (at least one) calls are under way
    /// at a time; who comes then waits. Each keeps a buffer of up to 64 KiB once it was needed.
    pub fn new(fs: Arc<dyn FileSystem>, calls_max: usize) -> (Self, PortFs) {
        let shared = Shared::new(fs.root(), calls_max);
        let client = PortFs::new(shared.clone());
        (Self { fs, shared }, client)
    }

    /// Serves, one call after the other, until the [`PortFs`] is gone or [shut down](PortFs::shut_down). Blocks: `w` is who
    /// waits, for calls and in the file system.
    ///
    /// Several threads may be here at once; then as many calls overlap, and a file that is written and read by two calls
    /// at a time sees them in any order, as without a port. When the last of them ends, for whatever reason, the port
    /// is closed.
    pub fn run(&self, w: &mut dyn Wait) {
        let mut receiver = self.shared.port.receiver();
        while let Some(mut call) = receiver.wait(w) {
            call.dispatch(&*self.fs, w);
            call.complete();
        }
    }

    /// What the port has done so far.
    pub fn stats(&self) -> PortStats {
        self.shared.port.stats()
    }
}

impl Drop for FsServer {
    fn drop(&mut self) {
        // One that never ran leaves nobody waiting either.
        self.shared.port.close();
    }
}

impl fmt::Debug for FsServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FsServer").finish_non_exhaustive()
    }
}
