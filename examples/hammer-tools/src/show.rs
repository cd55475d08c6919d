//! `hammer show`: the B-tree as it lies on the volumes, in the format of DragonFly's own `hammer show`.

use std::io::Write;

use anyhow::Result;
use dfly_hal::Wait;
use dfly_hammer::crc::Flavor;
use dfly_hammer::inspect::{DataFault, DataReport, ElementFault, NodeFault, NodeReport, Nodes, is_known};
use dfly_hammer::ondisk::node::{Element, TYPE_INTERNAL, TYPE_LEAF, TYPE_RECORD};
use dfly_hammer::ondisk::record::{DirentHead, FIX_KEY_SYMLINK, InodeData, PfsData, RecType, SnapshotData};
use dfly_hammer::ondisk::volume::{VolumeHeader, until_nul};
use dfly_hammer::ondisk::{Offset, Zone};
use dfly_hammer::{Error, Key, Tid};
use zerocopy::FromBytes;

use crate::Incomplete;
use crate::cli::{Search, ShowArgs};
use crate::disk::Disk;
use crate::text::{self, Names};

pub(crate) fn run(args: &ShowArgs, out: &mut dyn Write) -> Result<()> {
    let mut disk = Disk::mount_raw(&args.volumes)?;
    header(disk.fs.header(), out)?;
    if let Some(search) = &args.search {
        announce(search, out)?;
    }
    let mut show = Show {
        nodes: match &args.search {
            Some(search) => disk.fs.nodes().starting_at(search.first()),
            None => disk.fs.nodes(),
        },
        search: args.search.as_ref(),
        names: Names::for_stdout(),
        counts: Vec::new(),
        bad: Bad::default(),
        out,
    };
    show.tree(&mut disk.wait)?;
    let Bad { nodes, elements, records } = show.bad;
    for (n, what) in [(nodes, "nodes"), (elements, "elms"), (records, "records")] {
        if n > 0 {
            writeln!(out, "{n} bad {what}")?;
        }
    }
    if nodes + elements + records > 0 { Err(Incomplete.into()) } else { Ok(()) }
}

fn header(h: &VolumeHeader, out: &mut dyn Write) -> Result<()> {
    const ZONES: [&str; 16] = [
        "",
        "raw_volume",
        "raw_buffer",
        "undo",
        "freemap",
        "",
        "",
        "",
        "btree",
        "meta",
        "large_data",
        "small_data",
        "",
        "",
        "",
        "unavail",
    ];
    write!(out, "vol_label\t")?;
    Names::for_stdout().write(out, h.label())?;
    writeln!(out, "\nvol_count\t{}", h.vol_count.get())?;
    writeln!(out, "vol_fstype\t{} \"DragonFly HAMMER\"", text::uuid(&h.vol_fstype))?;
    writeln!(out, "vol_fsid\t{}", text::uuid(&h.vol_fsid))?;
    for (name, at) in [
        ("vol_bot_beg", h.vol_bot_beg),
        ("vol_mem_beg", h.vol_mem_beg),
        ("vol_buf_beg", h.vol_buf_beg),
        ("vol_buf_end", h.vol_buf_end),
    ] {
        writeln!(out, "{name}\t{}", text::size(at.get()))?;
    }
    writeln!(out, "vol0_next_tid\t{:016x}", h.vol0_next_tid.get())?;
    if let Some(undo) = h.vol0_blockmap.get(usize::from(Zone::UNDO.0)) {
        let [first, next, end] =
            [undo.first_offset, undo.next_offset, undo.alloc_offset].map(|o| Offset(o.get()).long());
        let used = if first <= next { next - first } else { end.saturating_sub(first).saturating_add(next) };
        writeln!(out, "undo_size\t{}", text::size(end as i64))?;
        writeln!(out, "undo_used\t{}", text::size(used as i64))?;
    }
    writeln!(out, "zone #             phys             first            next             alloc")?;
    for (i, (zone, label)) in h.vol0_blockmap.iter().zip(ZONES).enumerate() {
        let [phys, first, next, alloc] =
            [zone.phys_offset, zone.first_offset, zone.next_offset, zone.alloc_offset].map(|o| o.get());
        writeln!(out, "zone {i:<2} {label:<10} {phys:016x} {first:016x} {next:016x} {alloc:016x}")?;
    }
    Ok(())
}

fn announce(search: &Search, out: &mut dyn Write) -> Result<()> {
    let Search { text, key, fields } = search;
    write!(out, "arg=\"{text}\"")?;
    let words = [
        format!(" lo={:08x}", key.localization),
        format!(" objid={:016x}", key.obj_id),
        format!(" rt={:02x}", key.rec_type),
        format!(" key={:016x}", key.key),
        format!(" tid={:016x}", key.create_tid.0),
    ];
    words.iter().take(*fields).try_for_each(|word| out.write_all(word.as_bytes()))?;
    Ok(writeln!(out)?)
}

impl Search {
    /// Compares the fields that were given.
    fn compare(&self, key: &Key) -> i8 {
        // The magnitude tells which field differs first: 5 is the first one.
        let order = key.compare(&self.key);
        if usize::from(order.unsigned_abs()) + self.fields >= 6 { order.signum() } else { 0 }
    }

    /// The first key that can match.
    fn first(&self) -> Key {
        let all = &self.key;
        let field = |number| self.fields >= number;
        Key {
            localization: all.localization,
            obj_id: if field(2) { all.obj_id } else { i64::MIN },
            rec_type: all.rec_type,
            key: if field(4) { all.key } else { i64::MIN },
            create_tid: if field(5) { all.create_tid } else { Tid::MIN },
        }
    }

    /// Whether what lies from `left` up to `right` may hold a match.
    fn meets(&self, left: &Key, right: &Key) -> bool {
        let complete = self.fields == 5;
        self.compare(left) <= 0 && if complete { self.compare(right) > 0 } else { self.compare(right) >= 0 }
    }
}

struct Show<'a> {
    nodes: Nodes<'a>,
    search: Option<&'a Search>,
    names: Names,
    /// Elements of the nodes on the way down.
    counts: Vec<i32>,
    bad: Bad,
    out: &'a mut dyn Write,
}

#[derive(Default)]
struct Bad {
    nodes: u64,
    elements: u64,
    records: u64,
}

impl Show<'_> {
    fn tree(&mut self, w: &mut dyn Wait) -> Result<()> {
        // Until the first leaf that may hold a match only the way to it is shown, after it everything.
        let mut seeking = self.search;
        while let Some(node) = self.nodes.next(w) {
            let report = match node {
                Ok(report) => report,
                Err((at, e)) => {
                    self.bad.nodes += 1;
                    writeln!(self.out, "BI   NODE {at} error=\"{e}\"")?;
                    continue;
                }
            };
            self.counts.truncate(report.depth);
            self.counts.push(report.node.count.get());
            let beside = seeking.is_some_and(|s| report.depth > 0 && !s.meets(&report.left, &report.right));
            if beside {
                continue;
            }
            self.node(w, &report)?;
            if report.node.node_type == TYPE_LEAF {
                seeking = None;
            }
        }
        Ok(())
    }

    fn node(&mut self, w: &mut dyn Wait, report: &NodeReport) -> Result<()> {
        let node = &report.node;
        let (count, node_type) = (node.count.get(), node.node_type);
        let reason = match report.fault {
            Some(NodeFault::Type) => 'U',
            Some(NodeFault::Count) => 'C',
            Some(NodeFault::Depth) => 'D',
            _ if count == 0 && self.parent_count(report).is_some_and(|n| n != 1) => 'C',
            Some(NodeFault::MirrorTid) => 'M',
            _ => ' ',
        };
        let verdict = if reason != ' ' || report.checksum.is_none() { 'B' } else { ' ' };
        self.bad.nodes += u64::from(verdict == 'B');
        write!(
            self.out,
            "{verdict}{reason}   NODE {} cnt={count:02} p={:016x} type={} depth={} mirror={:016x} fill=",
            report.at,
            node.parent.get(),
            letter(node_type, '?'),
            report.depth,
            node.mirror_tid.get()
        )?;
        self.fill(w, report.at)?;
        writeln!(self.out, " {{")?;
        let elements = report.elements();
        for (i, e) in elements.iter().enumerate() {
            let next = elements.get(i + 1).map(|e| e.base.key());
            self.element(w, report, i, e, next)?;
        }
        Ok(writeln!(self.out, "     }}")?)
    }

    fn parent_count(&self, report: &NodeReport) -> Option<i32> {
        self.counts.get(report.depth.checked_sub(1)?).copied()
    }

    fn element(
        &mut self,
        w: &mut dyn Wait,
        report: &NodeReport,
        i: usize,
        e: &Element,
        next: Option<Key>,
    ) -> Result<()> {
        let is_leaf = report.node.node_type == TYPE_LEAF;
        let is_bound = !is_leaf && next.is_none();
        let flags = self.flags(w, report, i, e, is_bound);
        self.bad.elements += u64::from(flags.starts_with('B'));
        let base = &e.base;
        let key = base.key();
        writeln!(
            self.out,
            "{flags} {} {i:2} {} lo={:08x} objid={:016x} rt={:02x} key={:016x} tid={:016x}",
            if is_bound { "RBN" } else { "ELM" },
            letter(base.btype, '*'),
            key.localization,
            key.obj_id,
            key.rec_type,
            key.key,
            key.create_tid.0
        )?;
        let deleted = base.delete_tid.get();
        let mark = match (is_leaf, i) {
            (false, 0) if key == Key::BEGIN && deleted == 1 => '>',
            (false, 1..) if key == Key::END && deleted == 0 => '<',
            _ if deleted != 0 => 'd',
            _ => ' ',
        };
        write!(self.out, "               {mark} del={deleted:016x} ot={:02x}", base.obj_type)?;
        if is_leaf {
            if base.btype == TYPE_RECORD {
                self.record(w, e)?;
            } else {
                write!(self.out, " badtype={}", base.btype)?;
            }
        } else {
            let tail = e.as_internal();
            let (child, mirror) = (tail.subtree_offset.get(), tail.mirror_tid.get());
            write!(self.out, " suboff={child:016x} mirror={mirror:016x}")?;
        }
        let matches = self.search.is_some_and(|s| match next {
            _ if is_leaf => s.compare(&key) == 0,
            Some(next) => s.meets(&key, &next),
            None => false,
        });
        Ok(self.out.write_all(if matches { b" *\n" } else { b"\n" })?)
    }

    /// The seven letters before an element: good or bad, and why.
    fn flags(&self, w: &mut dyn Wait, report: &NodeReport, i: usize, e: &Element, is_bound: bool) -> String {
        let node = &report.node;
        let node_mirror = node.mirror_tid.get();
        let (child_or_place, mirror) = if node.node_type == TYPE_INTERNAL {
            let tail = e.as_internal();
            let wrong = match is_bound {
                true => tail.subtree_offset.get() != 0,
                false => self.nodes.element_fault(w, report, i) == Some(ElementFault::ChildParent),
            };
            (wrong, tail.mirror_tid.get() > node_mirror)
        } else {
            let tail = e.as_leaf();
            // The root of a fresh file system is the one leaf that has no transaction id.
            let fresh = node.parent.get() == 0 && node.count.get() == 2;
            let newer = e.base.create_tid.get().max(e.base.delete_tid.get()) > node_mirror;
            let mirror = if node_mirror == 0 { !fresh } else { newer };
            (tail.data_offset.get() == 0 || tail.data_len.get() == 0, mirror)
        };
        let own = report.element_fault(i);
        let before = i.checked_sub(1).and_then(|i| node.elements.get(i)).map(|e| e.base.key());
        let letters = [
            // Not seen by the real tool: a search does not find what is out of order.
            (before.is_some_and(|before| before >= e.base.key()), 'O'),
            (own == Some(ElementFault::LeftOfBounds), 'L'),
            (own == Some(ElementFault::RightOfBounds), 'R'),
            (own == Some(ElementFault::Type), 'T'),
            (child_or_place, 'C'),
            (mirror, 'M'),
        ];
        let verdict = if letters.iter().any(|(set, _)| *set) { "B" } else { "G" };
        letters.iter().fold(verdict.into(), |mut text: String, &(set, letter)| {
            text.push(if set { letter } else { '-' });
            text
        })
    }

    fn record(&mut self, w: &mut dyn Wait, e: &Element) -> Result<()> {
        let tail = e.as_leaf();
        let (at, len, crc) = (Offset(tail.data_offset.get()), tail.data_len.get(), tail.data_crc.get());
        let rec_type = RecType(e.base.rec_type.get());
        let data = self.nodes.data(w, e);
        let label = match data.checksum {
            Some(Flavor::Iscsi) => "icrc",
            Some(Flavor::Iso) => "ocrc",
            None => "bcrc",
        };
        write!(self.out, " dataoff={at}/{len} {label}={crc:08x}")?;
        let error = match data.fault {
            _ if at == Offset::NONE || len == 0 => Some("ZO"),
            _ if !is_known(rec_type) => Some("RT"),
            Some(DataFault::Checksum) if crc == 0 => Some("Bx"),
            Some(DataFault::Checksum) => Some("BX"),
            Some(DataFault::Place(Error::Corrupt { .. })) if rec_type == RecType::INODE => Some("BI"),
            Some(_) => Some("BO"),
            None => None,
        };
        if let Some(error) = error {
            self.bad.records += 1;
            write!(self.out, " error={error}")?;
        }
        write!(self.out, " fill=")?;
        self.fill(w, at)?;
        self.contents(rec_type, e, &data)
    }

    fn contents(&mut self, rec_type: RecType, e: &Element, data: &DataReport) -> Result<()> {
        const INDENT: &str = "                 ";
        let Some(bytes) = data.bytes() else { return Ok(()) };
        let out = &mut *self.out;
        match rec_type {
            RecType::INODE => {
                let Ok((inode, _)) = InodeData::ref_from_prefix(bytes) else { return Ok(()) };
                let (size, links) = (inode.size.get() as i64, inode.nlinks.get() as i64);
                let (mode, uflags, caps) = (inode.mode.get(), inode.uflags.get(), inode.cap_flags);
                write!(
                    out,
                    "\n{INDENT}inode size={size} nlinks={links} mode={mode:05o} uflags={uflags:08x}"
                )?;
                write!(
                    out,
                    " caps={caps:02x} pobjid={:016x} ot={:02x}",
                    inode.parent_obj_id.get(),
                    inode.obj_type
                )?;
                let (ctime, mtime, atime) = (inode.ctime.get(), inode.mtime.get(), inode.atime.get());
                write!(out, "\n{INDENT}      ctime={ctime:016x} mtime={mtime:016x} atime={atime:016x}")?;
                let symlink = until_nul(&inode.symlink);
                if !symlink.is_empty() {
                    quoted(out, self.names, " symlink", symlink)?;
                }
            }
            RecType::DIRENTRY => {
                let Ok((head, name)) = DirentHead::ref_from_prefix(bytes) else { return Ok(()) };
                let (id, localization) = (head.obj_id.get(), head.localization.get());
                write!(out, "\n{INDENT}dir-entry objid={id:016x} lo={localization:08x}")?;
                quoted(out, self.names, " name", name)?;
            }
            RecType::FIX if e.base.key.get() == FIX_KEY_SYMLINK => {
                write!(out, "\n{INDENT}")?;
                quoted(out, self.names, "fix-symlink name", bytes)?;
            }
            RecType::PFS => {
                let Ok((pfs, _)) = PfsData::ref_from_prefix(bytes) else { return Ok(()) };
                let (begin, end) = (pfs.sync_beg_tid.get(), pfs.sync_end_tid.get());
                write!(out, "\n{INDENT}pfs sync_beg_tid={begin:016x} sync_end_tid={end:016x}")?;
                write!(out, "\n{INDENT}    shared_uuid={}", text::uuid(&pfs.shared_uuid))?;
                write!(out, "\n{INDENT}    unique_uuid={}", text::uuid(&pfs.unique_uuid))?;
                write!(out, "\n{INDENT}    mirror_flags={:08x}", pfs.mirror_flags.get())?;
                quoted(out, self.names, " label", until_nul(&pfs.label))?;
                let snapshots = until_nul(&pfs.snapshots);
                if !snapshots.is_empty() {
                    quoted(out, self.names, " snapshots", snapshots)?;
                }
            }
            RecType::SNAPSHOT => {
                let Ok((snapshot, _)) = SnapshotData::ref_from_prefix(bytes) else { return Ok(()) };
                write!(out, "\n{INDENT}snapshot tid={:016x}", snapshot.tid.get())?;
                quoted(out, self.names, " label", until_nul(&snapshot.label))?;
            }
            _ => {}
        }
        Ok(())
    }

    /// Where something lies in its big-block, and how full that is.
    fn fill(&mut self, w: &mut dyn Wait, at: Offset) -> Result<()> {
        let (layer1, layer2) = (at.long() >> 42, at.long() >> 23 & 0x7_ffff);
        write!(self.out, "z{}:v{}:{layer1}:{layer2}:{}=", at.zone().0, at.volume(), at.in_big_block())?;
        match self.nodes.fill_percent(w, at) {
            Some(percent) => write!(self.out, "{percent}%")?,
            None => write!(self.out, "B")?,
        }
        Ok(())
    }
}

fn quoted(out: &mut dyn Write, names: Names, what: &str, text: &[u8]) -> Result<()> {
    write!(out, "{what}=\"")?;
    names.write(out, text)?;
    Ok(out.write_all(b"\"")?)
}

/// A type, which should be a letter.
fn letter(byte: u8, zero: char) -> char {
    match byte {
        0 => zero,
        b if b.is_ascii_graphic() => char::from(b),
        _ => '?',
    }
}
