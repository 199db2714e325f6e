//! What happens to a stream when it is stopped, continued, split, or cannot read everything.

mod common;

use common::golden;
use common::patch::{Image, Place};
use common::receiver::{Target, local, timeless};
use common::streams::{edge, records, source, stream, view};
use mallet::btree::{AsOf, good_data};
use mallet::error::{Class, Error, Result};
use mallet::format::mrecord::Body;
use mallet::format::record::rt;
use mallet::format::volume::VolumeHeader;
use mallet::format::{Key, Offset, Tid, Zone};
use mallet::io::{Buf, Bytes};
use mallet::mirror::dump::Dump;
use mallet::mirror::window::Resume;
use mallet::mirror::wire::Sink;
use mallet::mirror::{Asked, Cycle, Report, Request, What, Window, plan, run, window};
use mallet::progress::{Progress, Status};
use mallet::store::{Fetch, NodeRef, View, ViewOptions, VolumeSet};
use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

const END_10: Tid = Tid(0x1_0005_8630);
const END_20: Tid = Tid(0x1_000a_0cd0);

fn whole(view: &mut impl Fetch, end: Tid) -> Request {
    let pfs = source(view, 1, end);
    Request {
        pfs,
        window: window::one_way(&pfs, Asked::default(), None).expect("a window"),
        split: None,
        accept_damage: false,
        live: false,
    }
}

/// The last mark but TERM, and whether TERM is there.
fn ending(stream: &[u8]) -> (Option<&'static str>, bool) {
    let records = records(stream);
    let names: Vec<&str> = records
        .iter()
        .map(|r| mallet::mirror::dump::name(&Body::parse(r, 0).expect("a sound record")))
        .collect();
    let mark = names.iter().rev().find(|n| ["SYNC", "IDLE"].contains(n));
    (mark.copied(), names.last() == Some(&"TERM"))
}

/// Stops at the given look.
struct StopAt(u32);

impl Progress for StopAt {
    fn at(&mut self, _: &Status) -> Result<()> {
        self.0 = self.0.saturating_sub(1);
        match self.0 {
            0 => Err(Error::new(Class::Interrupted, "enough")),
            _ => Ok(()),
        }
    }
}

/// What a source shows as of `asof`.
fn shown(view: &mut View, asof: Tid) -> Vec<(Key, Vec<u8>)> {
    let mut cursor = AsOf::new(Key::pfs_min(1), Key::pfs_max(1), asof);
    let mut shown = Vec::new();
    while let Some(leaf) = cursor.next(view).expect("a readable tree") {
        let key = leaf.base.key();
        let data = good_data(view, &leaf).expect("good data");
        shown.push((local(key), timeless(key, &data)));
    }
    shown
}

fn masters(dir: &Path) -> (View, View) {
    let open = |name| view(&golden::file(dir, name));
    (open("mirror/master-10.img"), open("mirror/master-20.img"))
}

/// A stream stopped anywhere ends with TERM and without SYNC. Continued on the volume as it is ten
/// rounds of changes later, it gives its target everything: what changed below the place where it
/// stopped, too.
#[test]
fn stopped_streams_continue() {
    let Some(dir) = golden::dir() else { return };
    let (mut early, mut late) = masters(&dir);
    let expected = shown(&mut late, END_20);
    let mut stops = 0;
    for look in 1..400 {
        let first = whole(&mut early, END_10);
        let (bytes, report) = stream(&mut early, &first, &mut StopAt(look));
        let Some(stop) = report.stopped else { break };
        assert_eq!(
            (stop.why.class(), ending(&bytes)),
            (Class::Interrupted, (None, true))
        );
        let mut target = Target::default();
        target.apply(&bytes);
        assert_eq!(target.sync_end, Tid::ZERO);
        assert_eq!(stop.resume, stop.at);
        let cycle = Cycle::stopped(&stop.at.window, stop.at.key);
        let (begin, resume) = cycle.resume(1);
        let pfs = source(&mut late, 1, END_20);
        let go_on = |resume| Request {
            pfs,
            window: window::one_way(&pfs, Asked::default(), Some((begin, resume))).unwrap(),
            ..first
        };
        let (bytes, _) = stream(&mut late, &go_on(resume), &mut ());
        let mut second = target.clone();
        target.apply(&bytes);
        assert_eq!(
            (ending(&bytes), target.sync_end),
            ((Some("SYNC"), true), END_20)
        );
        assert!(target.visible(END_20) == expected, "stopped at look {look}");
        // The original's file does not know where the first window ended: it is all sent again.
        let mut forgetful = cycle;
        forgetful.base.btype = b'R';
        let (begin, resume) = forgetful.resume(1);
        assert_eq!(begin, stop.at.window.begin);
        let (bytes, _) = stream(&mut late, &go_on(resume), &mut ());
        second.apply(&bytes);
        assert!(second.visible(END_20) == expected, "stopped at look {look}");
        stops += 1;
    }
    assert!(stops > 10, "{stops} stops");
}

/// Stopped in the prescan, a stream says who it is, and that that was all.
#[test]
fn prescans_can_be_stopped() {
    let Some(dir) = golden::dir() else { return };
    let (_, mut master) = masters(&dir);
    let request = Request {
        split: Some(1 << 20),
        ..whole(&mut master, END_20)
    };
    let (bytes, report) = stream(&mut master, &request, &mut StopAt(1));
    let mut dump = Dump::new(&bytes[..]);
    let mut names = Vec::new();
    while let Some(record) = dump.next().expect("a sound stream") {
        names.push(mallet::mirror::dump::name(&record.body));
    }
    assert_eq!(
        (names, dump.grammar().stopped),
        (vec!["PFSD", "TERM"], true)
    );
    let stop = report.stopped.expect("it was stopped");
    assert_eq!(stop.at.key, Key::pfs_min(1));
}

/// A stream that goes on somewhere sends no data of what is before, and says what is there no more:
/// something may have been removed without a TID since.
#[test]
fn continuations_send_nothing_again() {
    let Some(dir) = golden::dir() else { return };
    let mut view = view(&golden::file(&dir, "mirror/master-10.img"));
    let mut request = whole(&mut view, END_10);
    let all = records(&stream(&mut view, &request, &mut ()).0);
    let Ok(Body::Record { leaf, .. }) = Body::parse(&all[200], 0) else {
        panic!("a REC")
    };
    let key = leaf.base.key();
    request.window.resume = Some(Resume { key, end: END_10 });
    let rest = records(&stream(&mut view, &request, &mut ()).0);
    let (before, behind) = rest.split_at(rest.len() - (all.len() - 200));
    assert_eq!(behind, &all[200..]);
    for record in &before[2..] {
        let at = match Body::parse(record, 0).expect("a sound stream") {
            Body::Pass(leaf) => leaf.base.key(),
            Body::Skip { from, to } => {
                assert!(to.key() <= key);
                from.key()
            }
            other => panic!("{other:?} below the key"),
        };
        assert!(at < key);
    }
}

/// Chunks are whole batches whose windows follow each other; a target that gets them all has what
/// it has from one batch, and after each chunk what the source shows as of its end.
#[test]
fn chunks_add_up() {
    let Some(dir) = golden::dir() else { return };
    let mut view = view(&golden::file(&dir, "mirror/master-20.img"));
    let mut request = whole(&mut view, END_20);
    let (bytes, _) = stream(&mut view, &request, &mut ());
    let mut expected = Target::default();
    expected.apply(&bytes);
    assert!(expected.visible(END_20) == shown(&mut view, END_20));
    for (split, least) in [(300_000, 4), (3_000_000, 2)] {
        request.split = Some(split);
        let (bytes, report) = stream(&mut view, &request, &mut ());
        assert!(report.batches >= least, "{} batches", report.batches);
        let mut dump = Dump::new(&bytes[..]);
        while dump.next().expect("a sound stream").is_some() {}
        assert_eq!(dump.grammar().synced, report.batches);
        let (mut target, mut windows) = (Target::default(), Vec::new());
        for batch in batches(&bytes) {
            target.apply(&batch);
            assert!(target.visible(target.sync_end) == shown(&mut view, target.sync_end));
            windows.push(target.sync_end);
        }
        assert!(windows.is_sorted() && windows.last() == Some(&END_20));
        assert!(target.visible(END_20) == expected.visible(END_20));
    }
}

/// A stream cut behind every SYNC and IDLE.
fn batches(stream: &[u8]) -> Vec<Vec<u8>> {
    let mut dump = Dump::new(stream);
    let (mut batches, mut start) = (Vec::new(), 0);
    while let Some(record) = dump.next().expect("a sound stream") {
        if matches!(record.body, Body::Sync | Body::Idle) {
            let end = record.at as usize + 24;
            batches.push(stream[start..end].to_vec());
            start = end;
        }
    }
    batches
}

/// A slave as a source gives what it has in full, and what it gives are its master's records.
#[test]
fn slaves_are_sources() {
    let Some(dir) = golden::dir() else { return };
    let mut slave = view(&golden::file(&dir, "mirror/slaveB.img"));
    let pfs = source(&mut slave, 1, Tid::ZERO);
    assert!(pfs.data.is_slave());
    let request = whole(&mut slave, pfs.data.sync_end_tid());
    assert_eq!(request.window.end, END_20);
    let (bytes, _) = stream(&mut slave, &request, &mut ());
    let mut target = Target::default();
    target.apply(&bytes);
    let (_, mut master) = masters(&dir);
    assert!(target.visible(END_20) == shown(&mut master, END_20));
}

/// A view with faults planted.
struct Faulty {
    view: View,
    faults: HashMap<u64, Class>,
    asked: usize,
    under_way: usize,
    most: usize,
}

impl Faulty {
    fn new(view: View) -> Faulty {
        Faulty {
            view,
            faults: HashMap::new(),
            asked: 0,
            under_way: 0,
            most: 0,
        }
    }
}

impl Fetch for Faulty {
    fn header(&self) -> &VolumeHeader {
        self.view.header()
    }
    fn bytes(&mut self, at: Offset, len: usize) -> Result<Bytes> {
        self.under_way = self.under_way.saturating_sub(len);
        let bytes = self.view.bytes(at, len)?;
        match self.faults.get(&at.0) {
            None => Ok(bytes),
            Some(Class::Damage) => {
                let mut copy = Buf::zeroed(len);
                copy.copy_from_slice(&bytes);
                copy[0] ^= 1;
                Ok(Bytes::new(Arc::new(copy)))
            }
            Some(class) => Err(Error::new(*class, "planted")),
        }
    }
    fn node(&mut self, at: Offset) -> Result<NodeRef> {
        match self.faults.get(&at.0) {
            None => self.view.node(at),
            Some(class) => Err(Error::new(*class, "planted")),
        }
    }
    fn want(&mut self, extents: &[(Offset, usize)]) {
        self.asked += 1;
        if extents.iter().any(|(at, _)| at.zone().0 != 8) {
            self.under_way += extents.iter().map(|(_, len)| len).sum::<usize>();
            self.most = self.most.max(self.under_way);
        }
        self.view.want(extents);
    }
    fn readahead(&self) -> usize {
        1 << 20
    }
    fn forget(&mut self, at: Offset, len: usize) {
        self.view.forget(at, len);
    }
}

/// Data with a wrong CRC goes out as it is, data that cannot be read as zeros, both flagged, with
/// everything else as ever.
#[test]
fn damaged_data_is_flagged() {
    let Some(dir) = golden::dir() else { return };
    let mut faulty = Faulty::new(view(&golden::file(&dir, "mirror/master-20.img")));
    let request = whole(&mut faulty, END_20);
    let good = stream(&mut faulty, &request, &mut ()).0;
    let places: Vec<(usize, Offset, Key)> = records(&good)
        .iter()
        .enumerate()
        .filter_map(|(index, r)| match Body::parse(r, 0) {
            Ok(Body::Record { leaf, data, .. }) if data.len() >= 16384 => {
                Some((index, leaf.data_offset(), leaf.base.key()))
            }
            _ => None,
        })
        .collect();
    let (first, second) = (places[10], places[20]);
    faulty.faults.insert(first.1.0, Class::Damage);
    faulty.faults.insert(second.1.0, Class::Io);
    let (bytes, report) = stream(&mut faulty, &request, &mut ());
    assert_eq!(ending(&bytes), (Some("IDLE"), true));
    let (good, bad) = (records(&good), records(&bytes));
    assert_eq!(good.len(), bad.len());
    let marks = good.len() - 2;
    for (index, (good, bad)) in good[..marks].iter().zip(&bad).enumerate() {
        if index != first.0 && index != second.0 {
            assert!(good == bad, "record {index}");
            continue;
        }
        assert_eq!(bad[12..16], 0xc000_0001_u32.to_le_bytes());
        let Ok(Body::Record { data, bad, .. }) = Body::parse(bad, 0) else {
            panic!("a REC")
        };
        let Ok(Body::Record { data: was, .. }) = Body::parse(good, 0) else {
            panic!("a REC")
        };
        let mut expected = match index == first.0 {
            true => was.to_vec(),
            false => vec![0; was.len()],
        };
        if index == first.0 {
            expected[0] ^= 1;
        }
        assert!(bad && data == expected);
    }
    let damage = &report.damage;
    let found: Vec<_> = damage
        .first
        .iter()
        .map(|d| (d.what, d.at, d.from))
        .collect();
    let expected = [
        (What::Sum, first.1, first.2),
        (What::Data, second.1, second.2),
    ];
    assert_eq!((damage.count, &found[..]), (2, &expected[..]));
    let text = damage.first[0].to_string();
    let end = first.2.key;
    assert!(
        text.contains(&format!("object 0x{:016x}", first.2.obj_id)),
        "{text}"
    );
    assert!(text.contains(&format!(" to {end}:")), "{text}");
}

/// Where data of PFS 1 lies and the record's key, in key order.
fn places(view: &mut impl Fetch, request: &Request) -> Vec<(Offset, Key)> {
    let bytes = stream(view, request, &mut ()).0;
    let place = |record: &Vec<u8>| match Body::parse(record, 0) {
        Ok(Body::Record { leaf, data, .. }) if data.len() >= 16384 => {
            Some((leaf.data_offset(), leaf.base.key()))
        }
        _ => None,
    };
    records(&bytes).iter().filter_map(place).collect()
}

/// One flagged record is enough: its batch and those behind it are not acknowledged, unless the
/// user accepts that.
#[test]
fn flagged_records_are_not_acknowledged() {
    let Some(dir) = golden::dir() else { return };
    let mut faulty = Faulty::new(view(&golden::file(&dir, "mirror/master-20.img")));
    let mut request = whole(&mut faulty, END_20);
    let (at, _) = places(&mut faulty, &request)[10];
    for class in [Class::Damage, Class::Io] {
        faulty.faults.insert(at.0, class);
        for (accept, split) in [(false, None), (true, None), (false, Some(2_000_000))] {
            request.accept_damage = accept;
            request.split = split;
            let (bytes, report) = stream(&mut faulty, &request, &mut ());
            let mark = if accept { "SYNC" } else { "IDLE" };
            assert_eq!(ending(&bytes), (Some(mark), true));
            assert_eq!(report.damage.count, 1);
            assert_eq!(report.batches > 1, split.is_some());
            let mut dump = Dump::new(&bytes[..]);
            let mut damaged = false;
            while let Some(record) = dump.next().expect("a sound stream") {
                damaged |= matches!(record.body, Body::Record { bad: true, .. });
                assert!(accept || !damaged || !matches!(record.body, Body::Sync));
            }
        }
    }
}

/// A stream stopped behind damage is continued from the damage on: what could not be read the first
/// time is not acknowledged before it was read.
#[test]
fn continuations_do_not_pass_damage() {
    let Some(dir) = golden::dir() else { return };
    let mut faulty = Faulty::new(view(&golden::file(&dir, "mirror/master-20.img")));
    let request = whole(&mut faulty, END_20);
    let expected = shown(&mut faulty.view, END_20);
    let (data, key) = places(&mut faulty, &request)[10];
    let root = faulty
        .node(Offset(faulty.header().btree_root.get()))
        .expect("the root");
    let child = root.children()[3];
    let node = (Offset(child.subtree_offset.get()), child.base.key());
    for ((at, key), class, split, accept) in [
        ((data, key), Class::Damage, None, false),
        ((data, key), Class::Io, None, true),
        (node, Class::Damage, None, false),
        (node, Class::Damage, None, true),
        ((data, key), Class::Damage, Some(500_000), false),
        ((data, key), Class::Damage, Some(500_000), true),
    ] {
        let request = Request {
            split,
            accept_damage: accept,
            ..request
        };
        let (mut before, mut behind, mut later) = (0, 0, 0);
        for look in (1..2000).step_by(if split.is_some() { 7 } else { 3 }) {
            faulty.faults.insert(at.0, class);
            let (bytes, report) = stream(&mut faulty, &request, &mut StopAt(look));
            faulty.faults.clear();
            let Some(stop) = report.stopped else { break };
            let mut target = Target::default();
            target.apply(&bytes);
            if report.damage.is_empty() {
                assert_eq!(stop.resume, stop.at);
                before += 1;
            } else if stop.resume.key == key {
                match stop.at.window == stop.resume.window {
                    true => behind += 1,
                    false => later += 1,
                }
                // Begun again where nothing was acknowledged.
                assert_eq!(stop.resume.window.begin, target.sync_end.next());
            } else {
                // Its batch was acknowledged all the same.
                assert!(accept && stop.resume == stop.at && !target.sync_end.is_zero());
                later += 1;
            }
            if accept {
                continue;
            }
            let cycle = Cycle::stopped(&stop.resume.window, stop.resume.key);
            let go_on = Request {
                window: window::one_way(&request.pfs, Asked::default(), Some(cycle.resume(1)))
                    .expect("a window"),
                split: None,
                ..request
            };
            let (bytes, _) = stream(&mut faulty, &go_on, &mut ());
            target.apply(&bytes);
            assert_eq!(target.sync_end, END_20);
            assert!(target.visible(END_20) == expected, "stopped at look {look}");
        }
        println!("{key}: {before} stops before, {behind} behind, {later} in later batches");
        assert!(before > 0 && behind > 0);
        assert_eq!(later > 0, split.is_some());
    }
}

/// A record whose length or place is impossible is damage that a plan finds as the stream does.
#[test]
fn plans_find_impossible_records() {
    let Some(dir) = golden::dir() else { return };
    let image = Image::over(&golden::file(&dir, "mirror/master-10.img"));
    let open = |image: &Image| {
        let set = VolumeSet::open(vec![image.device()]).expect("a volume");
        View::open(set, &ViewOptions::default()).expect("a view")
    };
    let all = image.records();
    let data: Vec<&Place> = all
        .iter()
        .filter(|p| {
            p.leaf.base.key().localization.pfs() == 1 && p.leaf.base.rec_type.get() == rt::DATA
        })
        .collect();
    let misplaced = Offset::new(Zone::BTREE, 0, 8 << 20);
    image.edit_leaf(data[5], |leaf| leaf.data_len.set(-1));
    image.edit_leaf(data[9], |leaf| leaf.data_len.set(65537));
    image.edit_leaf(data[12], |leaf| leaf.data_offset.set(misplaced.0));
    image.edit_leaf(data[15], |leaf| leaf.data_offset.set(0));
    let mut view = open(&image);
    let request = whole(&mut view, END_10);
    let (_, report) = stream(&mut view, &request, &mut ());
    let planned = edge(&mut (), |edge| plan(&mut view, &request, edge)).expect("a plan");
    let keys = |report: &Report| -> Vec<Key> {
        let damage = report.damage.first.iter();
        damage.map(|damage| damage.from).collect()
    };
    assert_eq!(keys(&report).len(), 4);
    assert_eq!(keys(&planned), keys(&report));
    assert_eq!(planned.counts, report.counts);
}

/// A view that a writer has overtaken stops the stream at the record before; what is neither that
/// nor the medium's fault ends it in the middle.
#[test]
fn a_lost_view_stops_the_stream() {
    let Some(dir) = golden::dir() else { return };
    let mut faulty = Faulty::new(view(&golden::file(&dir, "mirror/master-10.img")));
    let request = whole(&mut faulty, END_10);
    let all = records(&stream(&mut faulty, &request, &mut ()).0);
    let Ok(Body::Record { leaf, .. }) = Body::parse(&all[100], 0) else {
        panic!("a REC")
    };
    let (at, key) = (leaf.data_offset().0, leaf.base.key());
    faulty.faults.insert(at, Class::Expired);
    let (bytes, report) = stream(&mut faulty, &request, &mut ());
    assert_eq!(ending(&bytes), (None, true));
    assert_eq!(records(&bytes)[..100], all[..100]);
    let stop = report.stopped.expect("it was stopped");
    assert_eq!(
        (stop.why.class(), records(&bytes).len()),
        (Class::Expired, 101)
    );
    assert!(stop.at.key <= key);
    faulty.faults.insert(at, Class::Other);
    let mut out = Vec::new();
    let mut sink = Sink::new(&mut out, None);
    let result = edge(&mut (), |edge| run(&mut faulty, &request, &mut sink, edge));
    assert_eq!(result.expect_err("an error").class(), Class::Other);
}

/// That goes for the very first look at a batch, too.
#[test]
fn a_view_lost_before_a_batch_stops_the_stream() {
    let Some(dir) = golden::dir() else { return };
    let mut faulty = Faulty::new(view(&golden::file(&dir, "mirror/master-10.img")));
    let request = whole(&mut faulty, END_10);
    let root = faulty.header().btree_root.get();
    faulty.faults.insert(root, Class::Expired);
    let (bytes, report) = stream(&mut faulty, &request, &mut ());
    assert_eq!(ending(&bytes), (None, true));
    let stop = report.stopped.expect("it was stopped");
    assert_eq!(stop.why.class(), Class::Expired);
    assert_eq!((stop.at, stop.at.key), (stop.resume, Key::pfs_min(1)));
}

/// An unreadable node is a SKIP of its bounds that nobody may acknowledge.
#[test]
fn unreadable_nodes_are_skipped_and_not_acknowledged() {
    let Some(dir) = golden::dir() else { return };
    let mut faulty = Faulty::new(view(&golden::file(&dir, "mirror/master-20.img")));
    let mut request = whole(&mut faulty, END_20);
    let good = records(&stream(&mut faulty, &request, &mut ()).0);
    let root = faulty
        .node(Offset(faulty.header().btree_root.get()))
        .expect("the root");
    let child = root.children()[4];
    let bounds = (child.base.key(), root.base(5).key());
    faulty
        .faults
        .insert(child.subtree_offset.get(), Class::Damage);
    for (accept, mark) in [(false, "IDLE"), (true, "SYNC")] {
        request.accept_damage = accept;
        let (bytes, report) = stream(&mut faulty, &request, &mut ());
        assert_eq!(ending(&bytes), (Some(mark), true));
        assert_eq!(
            (report.damage.count, report.damage.first[0].what),
            (1, What::Node)
        );
        let bad = records(&bytes);
        let skipped = |key: Key| bounds.0 <= key && key < bounds.1;
        let kept: Vec<_> = good[..good.len() - 2]
            .iter()
            .filter(|r| match Body::parse(r, 0) {
                Ok(Body::Record { leaf, .. }) => !skipped(leaf.base.key()),
                _ => true,
            })
            .collect();
        let (skips, rest): (Vec<_>, Vec<_>) = bad[..bad.len() - 2]
            .iter()
            .partition(|r| matches!(Body::parse(r, 0), Ok(Body::Skip { .. })));
        assert_eq!(rest, kept);
        let Ok(Body::Skip { from, to }) = Body::parse(skips[0], 0) else {
            panic!("a SKIP")
        };
        assert_eq!((skips.len(), from.key(), to.key()), (1, bounds.0, bounds.1));
    }
    // Later batches are not acknowledged either.
    request.accept_damage = false;
    request.split = Some(2_000_000);
    let (bytes, _) = stream(&mut faulty, &request, &mut ());
    let mut dump = Dump::new(&bytes[..]);
    while dump.next().expect("a sound stream").is_some() {}
    assert_eq!(dump.grammar().synced, 0);
}

/// Data is asked for ahead, in two batches that together are what the view recommends, give or take
/// one record.
#[test]
fn data_is_read_ahead_within_bounds() {
    let Some(dir) = golden::dir() else { return };
    let mut faulty = Faulty::new(view(&golden::file(&dir, "mirror/master-20.img")));
    let request = whole(&mut faulty, END_20);
    stream(&mut faulty, &request, &mut ());
    let recommended = faulty.readahead();
    assert!(faulty.asked > 10);
    assert!(
        faulty.most <= recommended + 2 * 65536,
        "{} under way",
        faulty.most
    );
    assert!(
        faulty.most > recommended * 3 / 4,
        "{} under way",
        faulty.most
    );
}

/// An idle window costs the root and nothing else.
#[test]
fn idle_windows_cost_the_root() {
    let Some(dir) = golden::dir() else { return };
    let mut view = view(&golden::file(&dir, "skips/m.img"));
    let end = view.header().next_tid();
    let mut request = whole(&mut view, end);
    request.window = Window {
        begin: end,
        end,
        resume: None,
    };
    let root = view.header().btree_root.get();
    view.node(Offset(root)).expect("the root");
    let before = view.counters();
    let (bytes, report) = stream(&mut view, &request, &mut ());
    assert_eq!(view.counters(), before);
    assert_eq!(
        (ending(&bytes), report.counts.records),
        ((Some("IDLE"), true), 0)
    );
}
