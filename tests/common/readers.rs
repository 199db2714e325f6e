//! Every reader of the library run over a volume that may be damaged in any way: what matters is
//! that each ends, and without a panic.

use mallet::btree::{AsOf, Cursor, data};
use mallet::check::{self, Finding, Options, Report};
use mallet::error::Result;
use mallet::format::{Key, Tid};
use mallet::fs::list::{self, Detail};
use mallet::fs::namespace::Object;
use mallet::fs::walk::{Scope, Visit, Walk};
use mallet::fs::{Tree, pfs, root, snapshot};
use mallet::io::Device;
use mallet::mirror::Window;
use mallet::mirror::source::Source;
use mallet::progress::Status;
use mallet::store::freemap::BigBlocks;
use mallet::store::{Fetch, View, ViewOptions, VolumeSet};

/// Files larger than this are not hashed: a damaged size is not to keep the test waiting.
const HASHED_MAX: u64 = 8 << 20;

/// Little memory, so that the paths for little memory are taken.
fn options(despite_fifo_faults: bool) -> ViewOptions {
    ViewOptions {
        cache_bytes: 4 << 20,
        readahead_bytes: 4 << 20,
        despite_fifo_faults,
        ..ViewOptions::default()
    }
}

/// A full check, opening included: a damaged header is a finding too.
pub fn check(device: Box<dyn Device>, options: &Options) -> (Vec<Finding>, Result<Report>) {
    let mut findings = Vec::new();
    let opened =
        VolumeSet::open(vec![device]).and_then(|set| View::open(set, &self::options(true)));
    let result = match opened {
        Ok(mut view) => check::run(&mut view, options, &mut |f| findings.push(f), &mut ()),
        Err(error) => {
            findings.extend(check::finding(&error));
            Err(error)
        }
    };
    (findings, result)
}

/// Runs all other readers; errors are what they give for damage.
pub fn read_everything(device: Box<dyn Device>) -> Result<()> {
    let mut view = View::open(VolumeSet::open(vec![device])?, &options(false))?;
    let bound = bound(&view);
    let mut cursor = Cursor::new(Key::MIN, Key::MAX);
    drain("cursor", bound, || match cursor.next(&mut view) {
        Ok(Some(leaf)) => {
            let _ = data(&mut view, &leaf);
            true
        }
        Ok(None) => false,
        Err(_) => true,
    });
    let mut current = AsOf::new(Key::MIN, Key::MAX, Tid::MAX);
    drain("view", bound, || {
        !matches!(current.next(&mut view), Ok(None))
    });
    let mut bigblocks = BigBlocks::new(0, view.header().buffer_space());
    drain("freemap", bound, || {
        !matches!(bigblocks.next(&mut view), Ok(None))
    });
    let _ = pfs::committed_end(&mut view);
    for pfs in pfs::all(&mut view)? {
        let mut trees = vec![pfs.tree(None)];
        let snapshots = snapshot::all(&mut view, pfs.id).unwrap_or_default();
        trees.extend(snapshots.iter().take(8).map(|s| pfs.tree(Some(s.tid))));
        for tree in trees {
            let _ = list(&mut view, tree, bound);
        }
        for begin in [1, 0x1_0003_8200] {
            mirror(&mut view, pfs.id, Tid(begin), bound);
        }
    }
    Ok(())
}

/// Lists a tree, contents included.
fn list(view: &mut View, tree: Tree, bound: u64) -> Result<()> {
    let Some(inode) = root(view, tree)? else {
        return Ok(());
    };
    let asof = tree.asof;
    let mut walk = Walk::new(Object { inode, asof }, b"/", Scope::All);
    let mut status = Status::default();
    drain("walk", bound, || match walk.next(view) {
        Ok(Some(Visit::Object(found))) => {
            let size = found.inode.as_ref().map_or(0, |i| i.size());
            let sha256 = size <= HASHED_MAX;
            let detail = &mut Detail {
                sha256,
                ..Detail::default()
            };
            let _ = list::entry(view, found, detail, &mut (), &mut status);
            true
        }
        Ok(Some(_)) => true,
        Ok(None) | Err(_) => false,
    });
    Ok(())
}

/// Reads a PFS as a stream would.
fn mirror(view: &mut View, pfs: u16, begin: Tid, bound: u64) {
    let window = Window {
        begin,
        end: Tid(0x1_0100_0000),
        resume: None,
    };
    let mut source = Source::new(pfs, window, true);
    drain("stream", bound, || matches!(source.next(view), Ok(Some(_))));
}

/// More steps than any reader can need: every 64 bytes a record.
fn bound(view: &View) -> u64 {
    view.header().buffer_space() / 64 + (1 << 20)
}

fn drain(what: &str, bound: u64, mut step: impl FnMut() -> bool) {
    let mut steps = 0;
    while step() {
        steps += 1;
        assert!(steps < bound, "a {what} without end");
    }
}
