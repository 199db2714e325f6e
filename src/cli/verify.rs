//! `mirror-verify`, wherever its ends are.

use super::args::MirrorVerifyArgs;
use super::json::hex;
use super::size::{counted, human};
use super::spec::Spec;
use super::witness::{self, End};
use super::{Context, Exit, Outcome};
use crate::error::{Class, Error, Result};
use crate::format::Tid;
use crate::fs::pfs::Pfs;
use crate::mirror::verify::{self, Depth, Difference, Edge, Report, Service};
use crate::mirror::{SourcePfs, ready};
use serde_json::{Value, json};
use std::io::Write;

/// Differences that are shown, unless people want to see all.
const SHOWN: u64 = 100;

/// `mirror-verify`.
pub fn verify(args: &MirrorVerifyArgs, cx: &Context) -> Outcome {
    let target = match (&args.target, cx.global.two_way) {
        (Some(target), false) => target,
        (None, true) => return witness::answer(cx, &args.source, Service::Ranges),
        (None, false) => return Err(Error::usage("the slave is missing: SRC DST").into()),
        (Some(_), true) => {
            let text = "two-way (-2) questions about one file system are answered: leave DST out";
            return Err(Error::usage(text).into());
        }
    };
    let mut ends = witness::ends(cx, &[&args.source, target], &args.remote, "mirror-verify")?;
    let ours = compared(args, target, &mut ends, cx);
    witness::over(ends, cx, ours)
}

fn compared(args: &MirrorVerifyArgs, target: &Spec, ends: &mut [End<'_>], cx: &Context) -> Outcome {
    let [source, slave] = ends else {
        return Err(Error::usage("two file systems are needed").into());
    };
    let (ours, theirs) = (source.standing(), slave.standing());
    let (from, to) = (ours.pfs, theirs.pfs);
    let as_of = moment(args, target, &from, &to)?;
    let depth = match args.data {
        true => Depth::Data,
        false => Depth::between(ours.version, theirs.version),
    };
    let mut shown = 0;
    let mut found = |difference: &Difference| {
        shown += 1;
        show(cx, difference, shown).map_err(|error| Error::io("standard output", error))
    };
    let mut meter = cx.meter("mirror-verify", "records");
    let mut edge = Edge {
        progress: &mut meter,
        found: &mut found,
    };
    let report = verify::verify(source, slave, as_of, depth, &mut edge)?;
    drop(meter);
    let crossed = source.crossed().into_iter().chain(slave.crossed());
    let verdict = Verdict {
        args,
        slave: target,
        from: &from,
        report: &report,
        crossed: crossed.reduce(|one, other| one + other),
    };
    verdict.tell(cx)
}

/// As of when the two can be compared: the slave's TID, but not within an operation of the source
/// that is not complete.
fn moment(args: &MirrorVerifyArgs, target: &Spec, from: &Pfs, to: &Pfs) -> Result<Tid> {
    let fits = ready::fits(to, &SourcePfs::from(from));
    fits.map_err(|error| error.context(target))?;
    let synced = to.sync_end;
    if from.is_slave() && from.sync_end < synced {
        let text = format!(
            "{} is a slave itself and has only {}, {target} is as of {synced}: compare with the \
             master, or the other way round",
            args.source, from.sync_end
        );
        return Err(Error::new(Class::Incompatible, text));
    }
    Ok(from.tree(Some(synced)).asof)
}

fn show(cx: &Context, difference: &Difference, shown: u64) -> std::io::Result<()> {
    if cx.json() {
        return cx.events.emit("difference", event(difference));
    }
    match shown <= SHOWN || cx.ui.level() > 0 {
        true => writeln!(cx.out(), "{difference}"),
        false => Ok(()),
    }
}

fn event(difference: &Difference) -> Value {
    let (place, bytes) = (&difference.place, difference.bytes());
    let tid = |tid: Option<Tid>| tid.map(|tid| hex(tid.0));
    let damaged = match difference.how {
        verify::How::Damaged { source, slave } => (source, slave),
        _ => (false, false),
    };
    json!({
        "what": difference.how.name(),
        "obj": hex(place.obj_id.cast_unsigned()),
        "class": place.class,
        "rt": place.rec_type,
        "key": hex(place.key.cast_unsigned()),
        "file_begin": bytes.as_ref().map(|b| b.start),
        "file_end": bytes.as_ref().map(|b| b.end),
        "source_tid": tid(difference.source),
        "slave_tid": tid(difference.slave),
        "source_damaged": damaged.0,
        "slave_damaged": damaged.1,
        "detail": difference.to_string(),
    })
}

/// What a comparison came to.
struct Verdict<'v> {
    args: &'v MirrorVerifyArgs,
    slave: &'v Spec,
    from: &'v Pfs,
    report: &'v Report,
    /// Bytes that crossed links; `None` where there are none.
    crossed: Option<u64>,
}

impl Verdict<'_> {
    fn summary(&self) -> Value {
        let report = self.report;
        json!({
            "as_of": hex(report.as_of.0),
            "equal": report.is_equal(),
            "records": report.source_records,
            "slave_records": report.slave_records,
            "data": report.data,
            "ranges_asked": report.asked,
            "bytes_crossed": report.crossed,
            "link_bytes": self.crossed,
            "missing": report.missing,
            "extra": report.extra,
            "differing": report.differing,
            "damaged": report.damaged,
        })
    }

    fn cost(&self) -> String {
        let asked = counted(self.report.asked, "range", "ranges");
        let crossed = human(self.crossed.unwrap_or(self.report.crossed));
        match self.crossed {
            Some(_) => format!("{asked} asked, {crossed} over the link"),
            None => format!("{asked} asked, {crossed} of questions and answers"),
        }
    }

    fn tell(&self, cx: &Context) -> Outcome {
        let Verdict { slave, report, .. } = self;
        cx.events.summary(self.summary());
        let records = counted(report.source_records, "record", "records");
        let (cost, as_of) = (self.cost(), report.as_of);
        if report.is_equal() {
            if !cx.json() {
                let how = if report.data { "data read" } else { "by CRCs" };
                let line = format!("{slave} is equal as of {as_of}: {records}, {how} ({cost})");
                writeln!(cx.out(), "{line}")?;
            }
            return Ok(Exit::Done);
        }
        if !cx.json() {
            let mut out = cx.out();
            let count = report.differences();
            if count > SHOWN && cx.ui.level() <= 0 {
                writeln!(out, "and {} more (-v shows all)", count - SHOWN)?;
            }
            let (missing, extra) = (report.missing, report.extra);
            let (differing, damaged) = (report.differing, report.damaged);
            writeln!(
                out,
                "{slave} is different as of {as_of}: of {records}, {missing} missing, {extra} only \
                 in the slave, {differing} different, {damaged} damaged ({cost})"
            )?;
        }
        self.caution(cx);
        Ok(Exit::Difference)
    }

    /// A slave's later state is a later pass, which deletes nothing of this one.
    fn caution(&self, cx: &Context) {
        let (from, as_of) = (self.from, self.report.as_of);
        if from.is_slave() || from.sync_end <= as_of {
            return;
        }
        cx.ui.note(
            0,
            format_args!(
                "{} goes up to {}: what it pruned, or changed without history, since {as_of} counts \
                 as different; mirror-copy first to be sure",
                self.args.source, from.sync_end
            ),
        );
    }
}
