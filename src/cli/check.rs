//! Is it whole: `check`.

use super::args::CheckArgs;
use super::json::hex;
use super::show::open_damaged;
use super::size::counted;
use super::spec::{Local, Spec};
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
    if let Spec::Local(Local { pfs: Some(pfs), .. }) = &args.spec {
        let text = format!("check looks at the whole file system, not only at PFS {pfs}");
        cx.ui.note(0, text);
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
        if warning && (is_stale(fault.rule) || self.cx.ui.level() < 0) {
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

/// Whether opening tells of warnings of this rule, to those who want to hear it.
fn is_stale(rule: Rule) -> bool {
    matches!(rule, Rule::VolumeCrc | Rule::BlockmapCrc)
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
    let (bytes, what) = match options.data {
        true => (report.data_bytes, "data"),
        false => (report.metadata_bytes, "metadata"),
    };
    writeln!(
        out,
        "{}, {}, {}, {}, {} in use; {} of {what} verified",
        counted(report.nodes, "node", "nodes"),
        counted(report.records, "record", "records"),
        counted(report.inodes, "inode", "inodes"),
        counted(report.views, "view", "views"),
        counted(report.bigblocks_used, "big-block", "big-blocks"),
        size::human(bytes)
    )?;
    if report.snapshots_left_out > 0 {
        let count = counted(report.snapshots_left_out, "snapshot", "snapshots");
        writeln!(out, "left out: {count}, for there are too many")?;
    }
    let (errors, warnings) = (report.errors(), report.warnings());
    let counts = report.counts.iter();
    let silent =
        counts.filter(|(rule, severity, _)| *severity == Severity::Warn && is_stale(*rule));
    let hint = match silent.map(|(_, _, count)| *count).sum::<u64>() {
        0 => String::new(),
        _ if cx.ui.level() > 0 => String::new(),
        1 if warnings == 1 => "; -v shows it".to_owned(),
        count if count == warnings => "; -v shows them".to_owned(),
        count => format!("; -v shows {count} more"),
    };
    writeln!(
        out,
        "{}, {}{hint}",
        counted(errors, "error", "errors"),
        counted(warnings, "warning", "warnings")
    )?;
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
        "bytes_verified": report.metadata_bytes + report.data_bytes,
        "data_bytes_verified": report.data_bytes,
        "complete": report.complete,
    })
}
