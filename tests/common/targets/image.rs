//! A whole image, opened and read in every way there is: check, walk, files, streams.

use super::base;
use mallet::check;
use mallet::error::{Class, Error};
use mallet::format::Tid;
use mallet::fs::file::{Blocks, read_at};
use mallet::fs::namespace::{Final, Object, resolve};
use mallet::fs::walk::{Scope, Visit, Walk};
use mallet::fs::{Tree, list, pfs, root, snapshot};
use mallet::io::sim::SimDisk;
use mallet::mirror::dump::Dump;
use mallet::mirror::wire::Sink;
use mallet::mirror::{self, Asked, Clock, Edge, Event, Request, SourcePfs, window};
use mallet::store::{View, ViewOptions, VolumeSet};
use std::hint::black_box;
use std::time::Duration;

/// Objects looked at of one tree.
const OBJECTS_MAX: usize = 2000;
/// Blocks looked at of one file.
const BLOCKS_MAX: usize = 200;
/// PFSs and snapshots looked at.
const TREES_MAX: usize = 4;

/// Which image (byte 0), what to do with it (byte 1), in which order its device completes (byte 2);
/// then patches.
pub fn image(data: &[u8]) {
    let [choice, mode, seed, patches @ ..] = data else {
        return;
    };
    let disk = base::image(*choice).patched(patches);
    let Some(mut view) = open(&disk, u64::from(*seed), *mode) else {
        return;
    };
    // A check reads the whole freemap: a hundred times the work of the rest, an eighth of the runs.
    match mode % 8 {
        0 => check(&mut view, mode & 0x40 != 0),
        1 | 4 => contents(&mut view),
        2 | 5 => streams(&mut view, u64::from(*seed)),
        3 => paths(&mut view),
        _ => history(&mut view, u64::from(*seed)),
    }
}

/// Bit 7 of `mode`: in spite of a damaged FIFO; bit 5: as if another system were writing to it.
fn open(disk: &SimDisk, seed: u64, mode: u8) -> Option<View> {
    let device = Box::new(disk.reader(seed));
    let set = VolumeSet::open(vec![device]).map_err(media_error).ok()?;
    let options = ViewOptions {
        cache_bytes: 2 << 20,
        readahead_bytes: 1 << 20,
        live: mode & 0x20 != 0,
        despite_fifo_faults: mode & 0x80 != 0,
    };
    View::open(set, &options).map_err(media_error).ok()
}

/// What damage of an image may lead to: never an error of the request, the host or a peer.
fn media_error(error: Error) {
    let class = error.class();
    let text = error.to_string();
    assert!(!text.is_empty());
    let expected = [
        Class::Damage,
        Class::Incompatible,
        Class::Io,
        Class::Other,
        // A damaged FIFO can look like one that its writer goes on with.
        Class::Expired,
    ];
    assert!(expected.contains(&class), "{class:?}: {text}");
}

fn check(view: &mut View, data: bool) {
    let options = check::Options {
        data,
        mirror_tid: data,
        per_rule: 10,
    };
    let mut handed_out = 0;
    let result = check::run(
        view,
        &options,
        &mut |finding| {
            handed_out += 1;
            black_box(finding.fault.to_string());
        },
        &mut (),
    );
    match result {
        Ok(report) => assert!(handed_out <= report.errors() + report.warnings()),
        Err(error) => media_error(error),
    }
}

fn trees(view: &mut View) -> Vec<Tree> {
    let mut trees = Vec::new();
    match pfs::all(view) {
        Ok(table) => trees.extend(table.iter().map(|pfs| pfs.tree(None)).take(TREES_MAX)),
        Err(error) => media_error(error),
    }
    for pfs in 0..2 {
        match snapshot::all(view, pfs) {
            Ok(all) => {
                let views = all.iter().map(|snapshot| Tree {
                    pfs,
                    asof: snapshot.tid,
                });
                trees.extend(views.take(TREES_MAX));
            }
            Err(error) => media_error(error),
        }
    }
    trees
}

fn contents(view: &mut View) {
    for tree in trees(view) {
        walk_tree(view, tree);
    }
}

/// Trees as of a TID in the midst of what the images hold.
fn history(view: &mut View, choice: u64) {
    for pfs in 0..TREES_MAX as u16 {
        let asof = Tid(0x1_0000_0000 + (choice << 10));
        walk_tree(view, Tree { pfs, asof });
    }
}

fn walk_tree(view: &mut View, tree: Tree) {
    match root(view, tree) {
        Ok(Some(inode)) => {
            let object = Object {
                inode,
                asof: tree.asof,
            };
            walk(view, object);
        }
        Ok(None) => {}
        Err(error) => media_error(error),
    }
}

fn walk(view: &mut View, object: Object) {
    let mut walk = Walk::new(object, b"/", Scope::All);
    for _ in 0..OBJECTS_MAX {
        let found = match walk.next(view) {
            Ok(Some(Visit::Object(found))) => found,
            Ok(Some(Visit::Leave { .. } | Visit::Trouble { .. })) => continue,
            Ok(None) => return,
            Err(error) => return media_error(error),
        };
        assert!(found.path.starts_with(b"/"));
        if let Some(inode) = &found.inode {
            blocks(view, inode, found.asof);
        }
        let detail = &mut list::Detail::default();
        let entry = list::entry(view, found, detail, &mut (), &mut Default::default());
        if let Err(error) = entry {
            return media_error(error);
        }
    }
}

fn blocks(view: &mut View, file: &mallet::fs::Inode, asof: Tid) {
    let mut blocks = Blocks::new(file, asof, 0, u64::MAX);
    let mut last = 0;
    for _ in 0..BLOCKS_MAX {
        match blocks.next(view) {
            Ok(Some(block)) => {
                assert!(last <= block.start && block.start < block.end);
                last = block.end;
            }
            Ok(None) => break,
            Err(error) => return media_error(error),
        }
    }
    let mut buf = [0; 300];
    for at in [0, 16384, file.size().saturating_sub(100), u64::MAX] {
        match read_at(view, file, asof, at, &mut buf) {
            Ok(len) => assert!(len as u64 <= file.size().saturating_sub(at).min(300)),
            Err(error) => return media_error(error),
        }
    }
}

fn paths(view: &mut View) {
    let paths: [&[u8]; 5] = [b"/", b"/..", b"/a/../b", b"/pfs1/.", b"/@@-1:00001/x"];
    for tree in trees(view) {
        for path in paths {
            for last in [Final::Follow, Final::Itself] {
                match resolve(view, tree, path, last) {
                    Ok(object) => assert_eq!(object.asof, tree.asof),
                    Err(error) => media_error(error),
                }
            }
        }
    }
}

/// Time stands still.
struct Still;

impl Clock for Still {
    fn now(&mut self) -> Duration {
        Duration::ZERO
    }
    fn sleep(&mut self, _: Duration) {}
}

fn streams(view: &mut View, choice: u64) {
    let table = match pfs::all(view) {
        Ok(table) => table,
        Err(error) => return media_error(error),
    };
    for pfs in table.iter().take(TREES_MAX) {
        let source = SourcePfs::from(pfs);
        let begin = (choice & 1 == 1).then_some(Tid(0x1_0000_8000 + (choice << 8)));
        let asked = Asked { begin, end: None };
        let Ok(window) = window::one_way(&source, asked, None) else {
            continue;
        };
        let request = Request {
            pfs: source,
            window,
            split: (choice & 2 == 2).then_some(1 << 20),
            accept_damage: choice & 4 == 4,
            live: choice & 8 == 8,
        };
        stream(view, &request);
    }
}

/// A stream of a damaged volume is still a stream, and holds what the plan says.
fn stream(view: &mut View, request: &Request) {
    let mut out = Vec::new();
    let mut sink = Sink::new(&mut out, None);
    let mut edge = Edge {
        clock: &mut Still,
        progress: &mut (),
        events: &mut |_: &Event<'_>| {},
    };
    let report = match mirror::run(view, request, &mut sink, &mut edge) {
        Ok(report) => report,
        Err(error) => return media_error(error),
    };
    drop(sink);
    assert_eq!(out.len() as u64, report.counts.stream_bytes);
    let mut dump = Dump::new(&out[..]);
    while dump.next().expect("our own stream").is_some() {}
    let planned = mirror::plan(view, request, &mut edge).expect("what could be streamed");
    assert_eq!(planned.counts, report.counts);
    assert!(planned.damage.count <= report.damage.count);
}
