//! `mirror-status`, wherever the PFSs are.

use super::args::MirrorStatusArgs;
use super::json::{Fields, hex, put_name};
use super::size::{counted, human};
use super::spec::Spec;
use super::ui::Meter;
use super::witness::{self, End};
use super::{Context, Exit, Outcome, escape};
use crate::error::{Error, Result};
use crate::fs::pfs::Pfs;
use crate::mirror::lag::{Lag, lag};
use crate::mirror::verify::Service;
use serde_json::Value;
use std::io::Write;
use uuid::Uuid;

/// `mirror-status`.
pub fn status(args: &MirrorStatusArgs, cx: &Context) -> Outcome {
    if cx.global.two_way {
        let [spec] = &args.specs[..] else {
            let text = "two-way (-2) questions about one file system are answered: name one";
            return Err(Error::usage(text).into());
        };
        return witness::answer(cx, spec, Service::Changes);
    }
    let specs: Vec<&Spec> = args.specs.iter().collect();
    let mut ends = witness::ends(cx, &specs, &args.remote, "mirror-status")?;
    let ours = told(&specs, &mut ends, cx);
    witness::over(ends, cx, ours)
}

fn told(specs: &[&Spec], ends: &mut [End<'_>], cx: &Context) -> Outcome {
    let mut behind = Vec::with_capacity(ends.len());
    for (at, spec) in specs.iter().enumerate() {
        let mut meter = cx.meter("mirror-status", "leaves");
        let found = behind_of(ends, at, &mut meter);
        behind.push(found.map_err(|error| error.context(spec))?);
    }
    if !cx.json() {
        writeln!(cx.out(), "SPEC\tPFS\tKIND\tLABEL\tSYNC-END\tBEHIND")?;
    }
    for ((spec, end), behind) in specs.iter().zip(ends).zip(behind) {
        row(spec, &end.standing().pfs, &behind, cx)?;
    }
    Ok(Exit::Done)
}

fn row(spec: &Spec, pfs: &Pfs, behind: &Behind, cx: &Context) -> std::io::Result<()> {
    let kind = if pfs.is_slave() { "slave" } else { "master" };
    let label = pfs.data.label();
    if cx.json() {
        let mut fields = Fields::new();
        fields.insert("spec".into(), spec.to_string().into());
        fields.insert("id".into(), pfs.id.into());
        fields.insert("kind".into(), kind.into());
        put_name(&mut fields, "label", label);
        let uuid = Uuid::from_bytes_le(pfs.data.shared_uuid).to_string();
        fields.insert("shared_uuid".into(), uuid.into());
        fields.insert("sync_end_tid".into(), hex(pfs.sync_end.0));
        fields.extend(behind.fields());
        return cx.events.emit("status", Value::Object(fields));
    }
    let label = match label {
        [] => "-".to_owned(),
        label => escape::name(label).to_string(),
    };
    let (id, end) = (pfs.id, pfs.sync_end);
    let line = format!("{spec}\t{id}\t{kind}\t{label}\t{end}\t{}", behind.text());
    writeln!(cx.out(), "{line}")
}

/// What is known of how far a PFS is behind its master.
enum Behind {
    /// It is a master, or its master is not among those named.
    Unknown,
    By(Lag),
    /// It has more than its master.
    Ahead,
}

impl Behind {
    fn text(&self) -> String {
        match self {
            Behind::Unknown => "-".into(),
            Behind::Ahead => "ahead of its master".into(),
            Behind::By(Lag { tids: 0, .. }) => "nothing".into(),
            Behind::By(lag) => {
                let tids = counted(lag.tids, "TID", "TIDs");
                let bytes = human(lag.bytes);
                match lag.seconds {
                    Some(seconds) => format!("{tids}, {bytes}, {seconds} s"),
                    None => format!("{tids}, {bytes}"),
                }
            }
        }
    }

    fn fields(&self) -> Fields {
        let mut fields = Fields::new();
        match self {
            Behind::Unknown => {}
            Behind::Ahead => {
                fields.insert("ahead".into(), true.into());
            }
            Behind::By(lag) => {
                fields.insert("lag_tids".into(), lag.tids.into());
                fields.insert("lag_bytes".into(), lag.bytes.into());
                if let Some(seconds) = lag.seconds {
                    fields.insert("lag_seconds".into(), seconds.into());
                }
            }
        }
        fields
    }
}

fn behind_of(ends: &mut [End<'_>], at: usize, meter: &mut Meter) -> Result<Behind> {
    let own = ends[at].standing().pfs;
    let is_master = |end: &End<'_>| {
        let pfs = end.standing().pfs;
        !pfs.is_slave() && pfs.data.shared_uuid == own.data.shared_uuid
    };
    let master = ends.iter().position(is_master);
    let Some(master) = master.filter(|_| own.is_slave()) else {
        return Ok(Behind::Unknown);
    };
    let Ok([slave, master]) = ends.get_disjoint_mut([at, master]) else {
        return Ok(Behind::Unknown);
    };
    let end = master.standing().pfs.sync_end;
    if own.sync_end > end {
        return Ok(Behind::Ahead);
    }
    lag((master, end), (slave, own.sync_end), meter).map(Behind::By)
}
