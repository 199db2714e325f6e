//! `batch`: many changes, a line each; what stands between two `sync` lines is one transaction.

use super::args::SpecArgs;
use super::open::{Writable, now_us, open, open_rw};
use super::ui::Meter;
use super::write::{carry_out, ending, left_over, losses, volumes, writable};
use super::write_args::{Change, Line};
use super::{Context, Exit, Outcome, escape, words};
use crate::error::{Error, Result};
use crate::fs::import::{FileId, Report};
use crate::fs::operation::{self, Operation};
use clap::Parser;
use serde_json::json;
use std::ffi::OsString;
use std::io::{self, BufRead};
use std::os::unix::ffi::OsStringExt;

/// The longest line of a script, in bytes.
const LINE_MAX: usize = 64 << 10;

/// What a line asks for.
enum Asked {
    Change(Box<Change>),
    Sync,
    Nothing,
}

/// A script, read line by line.
struct Script<R> {
    input: R,
    line: u64,
}

/// `batch`.
pub fn batch(args: &SpecArgs, cx: &Context) -> Outcome {
    let mut script = Script {
        input: io::stdin().lock(),
        line: 0,
    };
    if cx.global.dry_run {
        return dry(args, &mut script, cx);
    }
    let mut opened = open_rw(cx, &args.spec)?;
    let pfs = writable(&opened.pfs()?)?;
    let volumes = volumes(&opened.spec)?;
    let mut meter = cx.meter("batch", "objects");
    let (mut transactions, mut changes) = (0u64, 0u64);
    loop {
        let first = script.line + 1;
        let (group, done) = operation::run(&mut opened.store, pfs, now_us(cx), |op| {
            group(op, &mut script, &volumes, cx, &mut meter)
        })
        .map_err(|error| aborted(error, transactions))?;
        changes += group.changes;
        left_over(cx, &done);
        if group.changes > 0 {
            transactions += 1;
            if cx.json() {
                tell(cx, &mut opened, pfs, &done, (first, script.line))?;
            } else {
                cx.ui.note(
                    1,
                    format_args!("lines {first} to {}: TID {}", script.line, done.tid),
                );
            }
        }
        if group.over {
            break;
        }
    }
    drop(meter);
    let counts = json!({"transactions": transactions, "changes": changes, "lines": script.line});
    cx.events.summary(counts);
    Ok(Exit::Done)
}

/// What became of the lines before a failure.
fn aborted(error: Error, transactions: u64) -> Error {
    let before = super::size::counted(
        transactions,
        "transaction before it is",
        "transactions before it are",
    );
    error.context(format_args!(
        "nothing of this transaction was done ({before} complete)"
    ))
}

fn tell(
    cx: &Context,
    opened: &mut Writable,
    pfs: u16,
    done: &operation::Done,
    lines: (u64, u64),
) -> anyhow::Result<()> {
    let ending = ending(opened, pfs, done)?;
    let lines = json!({"first_line": lines.0, "last_line": lines.1});
    cx.events
        .emit("transaction", super::show::with(lines, ending))?;
    Ok(())
}

/// How a group of lines ended.
struct Group {
    changes: u64,
    /// Whether the script ended with it.
    over: bool,
}

/// Carries out lines up to a `sync` or the end.
fn group<R: BufRead>(
    op: &mut Operation<'_>,
    script: &mut Script<R>,
    volumes: &[FileId],
    cx: &Context,
    meter: &mut Meter,
) -> Result<Group> {
    let mut group = Group {
        changes: 0,
        over: false,
    };
    loop {
        let Some(asked) = script.next()? else {
            group.over = true;
            return Ok(group);
        };
        let change = match asked {
            Asked::Nothing => continue,
            Asked::Sync => return Ok(group),
            Asked::Change(change) => change,
        };
        let report: Report = carry_out(op, &change, volumes, cx, meter)
            .map_err(|e| e.context(format_args!("line {}", script.line)))?;
        losses(cx, &report);
        group.changes += 1;
    }
}

impl<R: BufRead> Script<R> {
    /// What the next line asks for; `None` at the end.
    fn next(&mut self) -> Result<Option<Asked>> {
        let mut line = Vec::new();
        let mut input = io::Read::take(&mut self.input, LINE_MAX as u64 + 1);
        let read = input
            .read_until(b'\n', &mut line)
            .map_err(|e| Error::io("standard input", e))?;
        if read == 0 {
            return Ok(None);
        }
        self.line += 1;
        if line.last() == Some(&b'\n') {
            line.pop();
        }
        let asked = match line.len() > LINE_MAX {
            true => Err(format!("is longer than {LINE_MAX} bytes")),
            false => asked(&line),
        };
        asked
            .map(Some)
            .map_err(|text| Error::usage(format!("line {}: {text}", self.line)))
    }
}

fn asked(line: &[u8]) -> Result<Asked, String> {
    let words = words::split(line)?;
    let Some(first) = words.first() else {
        return Ok(Asked::Nothing);
    };
    if first == b"sync" {
        return match words.len() {
            1 => Ok(Asked::Sync),
            _ => Err("nothing follows sync".into()),
        };
    }
    let words = words.into_iter().map(OsString::from_vec);
    let line = Line::try_parse_from(words).map_err(|error| {
        let text = error.to_string();
        let wrong = text.lines().map(str::trim).take_while(|l| !l.is_empty());
        let wrong = wrong.collect::<Vec<_>>().join(" ");
        wrong.trim_start_matches("error: ").to_owned()
    })?;
    match line.change.reads_input() {
        true => Err("standard input is the script itself".into()),
        false => Ok(Asked::Change(Box::new(line.change))),
    }
}

/// Reads the script and says what is wrong with it.
fn dry<R: BufRead>(args: &SpecArgs, script: &mut Script<R>, cx: &Context) -> Outcome {
    let mut opened = open(cx, &args.spec)?;
    writable(&opened.pfs()?)?;
    let mut changes = 0u64;
    while let Some(asked) = script.next()? {
        match asked {
            Asked::Change(change) => {
                changes += 1;
                let name = escape::name(change.name().as_bytes());
                cx.ui
                    .note(1, format_args!("line {}: would {name}", script.line));
            }
            Asked::Sync | Asked::Nothing => {}
        }
    }
    cx.events
        .summary(json!({"dry_run": true, "changes": changes, "lines": script.line}));
    cx.ui.note(
        0,
        format_args!("{changes} changes, all well written; not tried"),
    );
    Ok(Exit::Done)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scripts() {
        let text = b"# begin\n\nmkdir -p '/a b'\nsync\nput - /x\nfrob\nrm /c".as_slice();
        let mut script = Script {
            input: text,
            line: 0,
        };
        let mut said = Vec::new();
        loop {
            said.push(match script.next() {
                Ok(None) => break,
                Ok(Some(Asked::Nothing)) => String::new(),
                Ok(Some(Asked::Sync)) => "sync".to_owned(),
                Ok(Some(Asked::Change(change))) => format!("{:?}", change.name()),
                Err(error) => error.to_string(),
            });
        }
        assert_eq!(said[..4], ["", "", "\"mkdir\"", "sync"]);
        assert_eq!(said[4], "line 5: standard input is the script itself");
        assert!(
            said[5].starts_with("line 6: ") && said[5].contains("frob"),
            "{}",
            said[5]
        );
        assert_eq!(said[6..], ["\"rm\""]);
        let long = vec![b'x'; LINE_MAX + 1];
        let mut script = Script {
            input: &long[..],
            line: 0,
        };
        assert!(script.next().is_err());
    }
}
