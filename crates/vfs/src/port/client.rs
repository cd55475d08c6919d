//! The side of everybody else.

use alloc::sync::Arc;
use core::fmt;
use core::ops::Range;
use core::time::Duration;

use dfly_hal::{Clock, Instant, Wait};
use dfly_msgport::{Event, Own};

use super::call::{Op, Reply, VfsCall, append};
use super::{PIECE_BYTES, Shared, Slot};
use crate::{
    Access, Attr, Call, DirSink, Errno, Error, FileSystem, LinkSink, Name, NodeId, OpenId, Opened, ReadSink,
    Result, SetAttr, Special, StatFs, WriteAt,
};

/// A file system that an [`FsServer`](super::FsServer) runs: every call is a message to it and back.
///
/// Bytes are copied once more than without the port, in pieces of 64 KiB; a `write` at the end of a file takes at most one
/// of these. When this is dropped the server ends. A server that dies leaves `EIO` for the call that it had, and `ENXIO` for all others.
pub struct PortFs {
    shared: Arc<Shared>,
    limit: Option<Limit>,
}

struct Limit {
    clock: Arc<dyn Clock>,
    each: Duration,
}

impl PortFs {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared, limit: None }
    }

    /// No message is waited for longer than `each`: then the call is aborted, and is `ETIMEDOUT`. What the server has begun
    /// it ends all the same, so a change may happen yet; until then it counts as one of the calls under way.
    #[must_use]
    pub fn with_limit(mut self, clock: Arc<dyn Clock>, each: Duration) -> Self {
        self.limit = Some(Limit { clock, each });
        self
    }

    /// Ends the server: calls that it has not begun, and those that come, are `ENXIO`.
    pub fn shut_down(&self) {
        self.shared.port.close();
    }

    /// Sends `op` with `bytes`, waits for the answer, and reads it.
    fn ask<R>(
        &self,
        c: &mut Call<'_>,
        op: Op,
        bytes: &[u8],
        read: impl FnOnce(Reply, &VfsCall) -> Option<R>,
    ) -> Result<R> {
        let deadline = self.limit.as_ref().map(|limit| limit.clock.now().saturating_add(limit.each));
        let mut slot = self.slot(c.wait, deadline)?;
        let mut call = slot.take().unwrap_or_else(|| Own::new(VfsCall::new(Op::Idle)));
        call.op = op;
        call.cred = c.cred;
        call.reply = Ok(Reply::Nothing);
        call.entries.clear();
        call.bytes.clear();
        append(&mut call.bytes, bytes, PIECE_BYTES)?;
        call.slot = Some(slot);
        let mut call = self.send(call, c.wait, deadline)?;
        let answer = call.reply.clone();
        let slot = call.slot.take();
        let read = answer.and_then(|reply| read(reply, &call).ok_or(MIXED_UP));
        if let Some(mut slot) = slot {
            slot.put(call);
        }
        read
    }

    fn slot(&self, w: &mut dyn Wait, deadline: Option<Instant>) -> Result<Slot> {
        let mut receiver = self.shared.slots.receiver();
        loop {
            match receiver.wait_event(w, deadline) {
                Ok(Event::Arrived(job)) => return Ok(Slot { job: Some(job), shared: self.shared.clone() }),
                Ok(Event::Closed) => return Err(Errno::ENXIO.into()),
                Ok(Event::Recall) => {}
                Err(_) if deadline.is_none() => {}
                Err(_) => return Err(LATE),
            }
        }
    }

    fn send(&self, call: Own<VfsCall>, w: &mut dyn Wait, deadline: Option<Instant>) -> Result<Own<VfsCall>> {
        let port = &self.shared.port;
        let Some(deadline) = deadline else { return Ok(call.call(port, w)) };
        call.call_until(port, w, deadline).or_else(|sent| {
            // In the port it ends here; what the server has comes home by itself.
            sent.abort(port);
            let mut call = sent.try_take().map_err(|_| LATE)?;
            if call.reply.as_ref().is_err_and(|e| *e == Errno::ECANCELED) {
                call.reply = Err(LATE);
            }
            Ok(call)
        })
    }

    fn nothing(&self, c: &mut Call<'_>, op: Op) -> Result<()> {
        self.ask(c, op, &[], |reply, _| matches!(reply, Reply::Nothing).then_some(()))
    }

    fn write_piece(&self, c: &mut Call<'_>, node: NodeId, at: WriteAt, data: &[u8]) -> Result<usize> {
        let piece = data.get(..PIECE_BYTES).unwrap_or(data);
        self.ask(c, Op::Write(node, at), piece, |reply, _| match reply {
            Reply::Count(count) => Some(count.min(piece.len())),
            _ => None,
        })
    }

    fn attr(&self, c: &mut Call<'_>, op: Op, bytes: &[u8]) -> Result<Attr> {
        self.ask(c, op, bytes, |reply, _| match reply {
            Reply::Attr(attr) => Some(attr),
            _ => None,
        })
    }
}

const LATE: Error = Error::new(Errno::ETIMEDOUT).because("no answer from the file system's server");
const MIXED_UP: Error = Error::new(Errno::EPROTO).because("an answer of another kind than was asked for");

impl FileSystem for PortFs {
    fn root(&self) -> NodeId {
        self.shared.root
    }

    fn statfs(&self, c: &mut Call<'_>) -> Result<StatFs> {
        self.ask(c, Op::Statfs, &[], |reply, _| match reply {
            Reply::StatFs(figures) => Some(figures),
            _ => None,
        })
    }

    fn getattr(&self, c: &mut Call<'_>, node: NodeId) -> Result<Attr> {
        self.attr(c, Op::Getattr(node), &[])
    }

    fn nresolve(&self, c: &mut Call<'_>, dir: NodeId, name: Name<'_>) -> Result<Attr> {
        self.attr(c, Op::Nresolve(dir, name.into()), &[])
    }

    fn nlookupdotdot(&self, c: &mut Call<'_>, dir: NodeId) -> Result<Attr> {
        self.attr(c, Op::Nlookupdotdot(dir), &[])
    }

    fn readlink(&self, c: &mut Call<'_>, node: NodeId, out: &mut LinkSink<'_>) -> Result<()> {
        self.ask(c, Op::Readlink(node), &[], |_, call| {
            out(&call.bytes);
            Some(())
        })
    }

    fn open(&self, c: &mut Call<'_>, node: NodeId, how: Access) -> Result<Opened> {
        self.ask(c, Op::Open(node, how), &[], |reply, _| match reply {
            Reply::Opened(opened) => Some(opened),
            _ => None,
        })
    }

    fn close(&self, open: OpenId) {
        // Nobody waits for it, and no slot is waited for. It is served after what was asked for before.
        Own::new(VfsCall::new(Op::Close(open))).post(&self.shared.port);
    }

    fn read(
        &self,
        c: &mut Call<'_>,
        node: NodeId,
        offset: u64,
        len: u64,
        out: &mut ReadSink<'_>,
    ) -> Result<u64> {
        let mut done = 0;
        while done < len {
            let Some(offset) = offset.checked_add(done) else { break };
            let len = len - done;
            let (count, goes_on) = self.ask(c, Op::Read { node, offset, len }, &[], |reply, call| {
                let Reply::Count(count) = reply else { return None };
                let wants_more = count > 0 && out(&call.bytes).is_continue();
                Some((count as u64, wants_more && count as u64 == len.min(PIECE_BYTES as u64)))
            })?;
            done += count;
            if !goes_on {
                break;
            }
        }
        Ok(done)
    }

    fn next_data(&self, c: &mut Call<'_>, node: NodeId, offset: u64) -> Result<Option<Range<u64>>> {
        self.ask(c, Op::NextData(node, offset), &[], |reply, _| match reply {
            Reply::Range(range) => Some(range),
            _ => None,
        })
    }

    fn readdir(&self, c: &mut Call<'_>, dir: NodeId, cookie: u64, out: &mut DirSink<'_>) -> Result<()> {
        let mut cookie = cookie;
        loop {
            let next = self.ask(c, Op::Readdir { dir, cookie }, &[], |reply, call| {
                let Reply::More(more) = reply else { return None };
                for listed in &call.entries {
                    if out(listed.entry(&call.bytes)).is_break() {
                        return Some(None);
                    }
                }
                let last = call.entries.last().filter(|_| more.is_break());
                Some(last.map(|listed| listed.entry(&[]).next))
            })?;
            match next {
                Some(next) => cookie = next,
                None => return Ok(()),
            }
        }
    }

    fn ncreate(&self, c: &mut Call<'_>, dir: NodeId, name: Name<'_>, mode: u16) -> Result<Attr> {
        self.attr(c, Op::Ncreate(dir, name.into(), mode), &[])
    }

    fn nmkdir(&self, c: &mut Call<'_>, dir: NodeId, name: Name<'_>, mode: u16) -> Result<Attr> {
        self.attr(c, Op::Nmkdir(dir, name.into(), mode), &[])
    }

    fn nmknod(
        &self,
        c: &mut Call<'_>,
        dir: NodeId,
        name: Name<'_>,
        what: Special,
        mode: u16,
    ) -> Result<Attr> {
        self.attr(c, Op::Nmknod(dir, name.into(), what, mode), &[])
    }

    fn nsymlink(&self, c: &mut Call<'_>, dir: NodeId, name: Name<'_>, target: &[u8]) -> Result<Attr> {
        self.attr(c, Op::Nsymlink(dir, name.into()), target)
    }

    fn nlink(&self, c: &mut Call<'_>, node: NodeId, dir: NodeId, name: Name<'_>) -> Result<Attr> {
        self.attr(c, Op::Nlink(node, dir, name.into()), &[])
    }

    fn nremove(&self, c: &mut Call<'_>, dir: NodeId, name: Name<'_>) -> Result<()> {
        self.nothing(c, Op::Nremove(dir, name.into()))
    }

    fn nrmdir(&self, c: &mut Call<'_>, dir: NodeId, name: Name<'_>) -> Result<()> {
        self.nothing(c, Op::Nrmdir(dir, name.into()))
    }

    fn nrename(&self, c: &mut Call<'_>, from: (NodeId, Name<'_>), to: (NodeId, Name<'_>)) -> Result<()> {
        self.nothing(c, Op::Nrename { from: (from.0, from.1.into()), to: (to.0, to.1.into()) })
    }

    fn setattr(&self, c: &mut Call<'_>, node: NodeId, change: &SetAttr) -> Result<Attr> {
        self.attr(c, Op::Setattr(node, *change), &[])
    }

    fn write(&self, c: &mut Call<'_>, node: NodeId, at: WriteAt, data: &[u8]) -> Result<usize> {
        // At the end of the file, a second piece could come behind somebody else's.
        let WriteAt::Offset(offset) = at else { return self.write_piece(c, node, at, data) };
        let mut done = 0;
        loop {
            let at = WriteAt::Offset(offset.saturating_add(done as u64));
            match self.write_piece(c, node, at, data.get(done..).unwrap_or_default()) {
                Ok(more) => done += more,
                // What was written is written.
                Err(_) if done > 0 => return Ok(done),
                Err(error) => return Err(error),
            }
            // A piece that was cut short ends it, too.
            if done >= data.len() || !done.is_multiple_of(PIECE_BYTES) {
                return Ok(done);
            }
        }
    }

    fn fsync(&self, c: &mut Call<'_>, node: NodeId) -> Result<()> {
        self.nothing(c, Op::Fsync(node))
    }

    fn sync(&self, c: &mut Call<'_>) -> Result<()> {
        self.nothing(c, Op::Sync)
    }
}

impl Drop for PortFs {
    fn drop(&mut self) {
        self.shut_down();
    }
}

impl fmt::Debug for PortFs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PortFs").field("port", &self.shared.port.stats()).finish_non_exhaustive()
    }
}
