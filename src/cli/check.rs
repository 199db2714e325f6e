//! Is it whole: `check`.

use super::args::CheckArgs;
use super::json::hex;
use super::show::open_damaged;
use super::spec::Spec;
use super::{Context, Exit, Outcome, escape, size};
use crate::check::{self, Finding, Options, Report, Severity};
use crate::error::{Class, Error, Result};
use crate::format::Rule;
use crate::progress::{Progress, Status};
use serde_json::{Map, Value, json};
use std::cell::RefCell;
use std::io::{self, Write};

/// Findings of one rule that are shown, unless people want to hear all.
const SHOWN: u64 = 100;

/// `check`.
pub fn check(args: &CheckArgs, cx: &Context) -> Outcome {
    if matches!(&args.spec, Spec::Local(local) if local.pfs.is_some()) {
        let text = "check looks at the whole file system; leave out what follows the #";
        return Err(Error::usage(text).into());
    }
    let options = Options {
        data: args.data,
        mirror_tid: args.mirror_tid,
        per_rule: if cx.ui.level() > 0 { u64::MAX } else { SHOWN },
    };
    let printer = Printer::new(cx);
    let mut opened = match open_damaged(cx, &args.spec) {
        Ok(opened) => opened,
        Err(error) => return unopened(cx, &printer, error),
    };
    let mut progress = Gate {
        below: cx.meter("check", "records"),
        printer: &printer,
    };
    let mut put = |finding| printer.put(&finding);
    let result = check::run(&mut opened.view, &options, &mut put, &mut progress);
    printer.result()?;
    let report = result?;
    cx.events.summary(summary(&report));
    if !cx.json() {
        sums(cx, &report, &options)?;
    }
    Ok(match report.errors() {
        0 => Exit::Done,
        _ => Exit::Damage,
    })
}

/// What cannot even be opened for want of a rule that holds is found to be damaged, too.
fn unopened(cx: &Context, printer: &Printer<'_>, error: Error) -> Outcome {
    let Some(mut finding) = check::finding(&error) else {
        return Err(error.into());
    };
    // Something else altogether is no damaged volume.
    if finding.fault.rule == Rule::VolumeSignature && error.class() == Class::Incompatible {
        return Err(error.into());
    }
    let text = error.to_string();
    let context = text.strip_suffix(&finding.fault.to_string());
    finding.detail = context
        .unwrap_or_default()
        .trim_end_matches(": ")
        .to_owned();
    printer.put(&finding);
    printer.result()?;
    cx.ui
        .warn(format_args!("nothing else can be checked: {error}"));
    cx.events.summary(json!({"errors": 1, "warnings": 0}));
    Ok(Exit::Damage)
}

/// Prints findings as they come, and keeps the first error of doing so.
struct Printer<'a> {
    cx: &'a Context,
    failed: RefCell<Option<io::Error>>,
}

impl Printer<'_> {
    fn new(cx: &Context) -> Printer<'_> {
        Printer {
            cx,
            failed: RefCell::new(None),
        }
    }

    fn put(&self, finding: &Finding) {
        if self.failed.borrow().is_some() {
            return;
        }
        if let Err(error) = self.print(finding) {
            *self.failed.borrow_mut() = Some(error);
        }
    }

    fn print(&self, finding: &Finding) -> io::Result<()> {
        let fault = &finding.fault;
        if self.cx.json() {
            let fields = json!({
                "severity": finding.severity.name(),
                "rule": fault.rule.name(),
                "at": hex(fault.at.0),
                "expected": fault.expected,
                "found": fault.found,
                "detail": finding.detail,
            });
            return self.cx.events.emit("finding", fields);
        }
        let warning = finding.severity == Severity::Warn;
        // Opening has said so, to those who want to hear it.
        let stale = matches!(fault.rule, Rule::VolumeCrc | Rule::BlockmapCrc);
        if warning && (stale || self.cx.ui.level() < 0) {
            return Ok(());
        }
        let mut line = format!("{}: {fault}", finding.severity.name());
        if !finding.detail.is_empty() {
            line = format!("{line} ({})", finding.detail);
        }
        writeln!(self.cx.out(), "{}", escape::sentence(&line))
    }

    fn result(&self) -> io::Result<()> {
        self.failed.borrow_mut().take().map_or(Ok(()), Err)
    }
}

/// Ends the check when nobody reads its findings.
struct Gate<'a, P> {
    below: P,
    printer: &'a Printer<'a>,
}

impl<P: Progress> Progress for Gate<'_, P> {
    fn at(&mut self, status: &Status) -> Result<()> {
        if self.printer.failed.borrow().is_some() {
            let text = "the findings cannot be written";
            return Err(Error::new(Class::Interrupted, text));
        }
        self.below.at(status)
    }
}

/// The last lines: what was looked at, and what came of it.
fn sums(cx: &Context, report: &Report, options: &Options) -> anyhow::Result<()> {
    let mut out = cx.out();
    for (rule, severity, count) in &report.counts {
        let shown = count.min(&options.per_rule);
        if shown < count {
            let name = severity.name();
            writeln!(out, "{name}: {rule}: {} more", count - shown)?;
        }
    }
    if cx.ui.level() < 0 {
        return Ok(());
    }
    let what = if options.data { "data" } else { "metadata" };
    writeln!(
        out,
        "{} nodes, {} records, {} inodes, {} views, {} big-blocks in use; {} of {what} verified",
        report.nodes,
        report.records,
        report.inodes,
        report.views,
        report.bigblocks_used,
        size::human(report.data_bytes)
    )?;
    if report.snapshots_left_out > 0 {
        let count = report.snapshots_left_out;
        writeln!(out, "{count} snapshots were left out: there are too many")?;
    }
    let (errors, warnings) = (report.errors(), report.warnings());
    writeln!(out, "{errors} errors, {warnings} warnings")?;
    Ok(())
}

fn summary(report: &Report) -> Value {
    let mut rules = Map::new();
    for (rule, severity, count) in &report.counts {
        let name = format!("{}:{}", severity.name(), rule.name());
        rules.insert(name, Value::from(*count));
    }
    json!({
        "errors": report.errors(),
        "warnings": report.warnings(),
        "rules": rules,
        "nodes": report.nodes,
        "leaves": report.leaves,
        "records": report.records,
        "inodes": report.inodes,
        "views": report.views,
        "snapshots_left_out": report.snapshots_left_out,
        "bigblocks_used": report.bigblocks_used,
        "fifo_records": report.fifo_records,
        "bytes_verified": report.data_bytes,
        "complete": report.complete,
    })
}
