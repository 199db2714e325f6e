//! From a SPEC and `--as-of` to one PFS at one moment.

use super::Context;
use super::asof::AsOf;
use super::json::hex;
use super::open::Opened;
use crate::error::Result;
use crate::format::Tid;
use crate::fs::asof::{self, Moment};
use crate::fs::pfs::Pfs;
use crate::fs::{self, Tree};
use serde_json::json;

/// The PFS that the SPEC names, and its view: as of `as_of`, else a master's current state and a
/// slave's last complete pass. Tells people and scripts the TID that was used for a time or a label.
pub fn tree(cx: &Context, opened: &mut Opened, as_of: Option<&AsOf>) -> Result<(Pfs, Tree)> {
    let pfs = opened.pfs()?;
    let asof = match as_of {
        Some(as_of) => Some(tid(cx, opened, &pfs, as_of)?),
        None => None,
    };
    let tree = pfs.tree(asof);
    if tree.asof != Tid::MAX {
        cx.events.summary(json!({"as_of": hex(tree.asof.0)}));
    }
    Ok((pfs, tree))
}

/// The TID that `as_of` stands for in `pfs`.
pub fn tid(cx: &Context, opened: &mut Opened, pfs: &Pfs, as_of: &AsOf) -> Result<Tid> {
    let moment = match (as_of, as_of.time(cx.now())) {
        (AsOf::Tid(tid), _) => return Ok(*tid),
        (AsOf::Label(label), _) => Moment::Label(label.clone()),
        // Records carry whole seconds: one of the second that has begun is not after the time.
        (_, time) => Moment::Time(time.map_or(i64::MIN, |time| time.as_second())),
    };
    let mut meter = cx.meter("finding the TID", "records");
    let tid = asof::resolve(&mut opened.view, pfs, &moment, &mut meter)?;
    drop(meter);
    cx.ui.note(0, format_args!("as of {tid}"));
    Ok(tid)
}

/// Whether `tree` is that of a slave that nothing was mirrored into yet; says so. Such a slave is
/// empty, not damaged.
pub fn is_empty_slave(cx: &Context, opened: &mut Opened, pfs: &Pfs, tree: Tree) -> Result<bool> {
    let empty = pfs.is_slave() && fs::root(&mut opened.view, tree)?.is_none();
    if empty {
        let (id, asof) = (pfs.id, tree.asof);
        cx.ui.note(
            0,
            format_args!("PFS {id} is a slave, and empty as of {asof}"),
        );
    }
    Ok(empty)
}
