//! Words in, words out: the command line and everything people and scripts see of this program.
//!
//! A command is a function of its arguments and the [`Context`]: arguments → options → one library
//! call → print. What it returns becomes the exit status here and nowhere else.

pub mod args;
pub mod asof;
pub mod check;
pub mod contents;
pub mod context;
pub mod dumps;
pub mod escape;
pub mod examples;
pub mod gauge;
pub mod history;
pub mod json;
pub mod manual;
pub mod mirror;
pub mod moment;
pub mod open;
pub mod pfs;
pub mod pfsd;
pub mod record;
pub mod show;
pub mod size;
pub mod spec;
pub mod ui;
pub mod volumes;
pub mod watchdog;

pub use context::Context;

use crate::error::{Class, Error};
use args::{Cli, Command};
use clap::Parser;
use json::Events;
use signal_hook::consts::{SIGINT, SIGTERM, SIGUSR1};
use signal_hook::{flag, low_level};
use std::ffi::OsString;
use std::io::{self, ErrorKind, Write};
use std::os::unix::net::UnixStream;
use std::process::ExitCode;
use std::sync::{Arc, Mutex};
use ui::Signals;

/// How a command that did its work ended; its number is the exit status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Done.
    Done = 0,
    /// Done, and damage was found.
    Damage = 6,
    /// Done, and a difference was found.
    Difference = 7,
    /// Ended early on request; can be resumed.
    Interrupted = 9,
}

/// What a command gives back. An error's exit status follows from its [`Class`].
pub type Outcome = anyhow::Result<Exit>;

/// Runs the command line of this process and returns its exit status.
pub fn main() -> ExitCode {
    let line: Vec<OsString> = std::env::args_os().collect();
    let cli = match Cli::try_parse_from(&line) {
        Ok(cli) => cli,
        Err(error) => return ExitCode::from(refuse(&line, &error)),
    };
    let status = signals()
        .and_then(|(signals, raised)| {
            let cx = Context::new(&cli, signals)?;
            watchdog::start(&cx, raised)?;
            Ok(cx)
        })
        .map(|cx| finish(&cli.command, &cx, run(&cli.command, &cx)));
    ExitCode::from(status.unwrap_or_else(|error| {
        // Standard error is all there is left to say it on.
        let _ = writeln!(io::stderr(), "mallet: {error}");
        Class::Io.exit_code()
    }))
}

fn run(command: &Command, cx: &Context) -> Outcome {
    match command {
        Command::Info(args) => volumes::info(args, cx),
        Command::Version(args) => volumes::version(args, cx),
        Command::VolumeList(args) => volumes::list(args, cx),
        Command::Show(args) => show::tree(args, cx),
        Command::ShowUndo(args) => dumps::undo(args, cx),
        Command::Blockmap(args) => dumps::blockmap(args, cx),
        Command::Check(args) => check::check(args, cx),
        Command::Ls(args) => contents::ls(args, cx),
        Command::Stat(args) => contents::stat(args, cx),
        Command::Cat(args) => contents::cat(args, cx),
        Command::Get(args) => contents::get(args, cx),
        Command::History(args) => history::history(args, cx),
        Command::Diff(args) => history::diff(args, cx),
        Command::PfsStatus(args) => pfs::status(args, cx),
        Command::Snapls(args) => pfs::snapshots(args, cx),
        Command::MirrorRead(args) => mirror::read(args, cx),
        Command::MirrorDump(args) => mirror::dump(args, cx),
        Command::MirrorPlan(args) => mirror::planned(args, cx),
        Command::Completions(args) => manual::completions(args, cx),
        Command::Man(args) => manual::man(args, cx),
    }
}

/// Flags set by signals, and a byte for each `SIGINT` and `SIGTERM`. The second of these ends the
/// process at once.
fn signals() -> io::Result<(Signals, UnixStream)> {
    let signals = Signals::default();
    let (raised, raise) = UnixStream::pair()?;
    for signal in [SIGINT, SIGTERM] {
        let status = Class::Interrupted.exit_code().into();
        flag::register_conditional_shutdown(signal, status, Arc::clone(&signals.stop))?;
        flag::register(signal, Arc::clone(&signals.stop))?;
        low_level::pipe::register(signal, raise.try_clone()?)?;
    }
    flag::register(SIGUSR1, Arc::clone(&signals.poke))?;
    Ok((signals, raised))
}

/// Reports the end of a command and returns the exit status.
fn finish(command: &Command, cx: &Context, outcome: Outcome) -> u8 {
    let outcome = outcome.and_then(|exit| Ok(cx.flush().map(|()| exit)?));
    let (status, error) = match &outcome {
        Ok(exit) => (*exit as u8, None),
        Err(error) if is_broken_pipe(error) => match command.is_stream() {
            true => (Class::Protocol.exit_code(), Some(format!("{error:#}"))),
            false => (0, None),
        },
        Err(error) => (status_of(error), Some(text_of(error))),
    };
    if let Some(error) = &error
        && !(cx.json() && command.owns_stdout())
    {
        let error = escape::sentence(error);
        let _ = cx
            .ui
            .beside_bar(|| writeln!(io::stderr(), "mallet: {error}"));
    }
    match cx.events.finish(command.name(), status, error.as_deref()) {
        Err(broken) if broken.kind() != ErrorKind::BrokenPipe && status == 0 => {
            let _ = writeln!(io::stderr(), "mallet: standard output: {broken}");
            Class::Io.exit_code()
        }
        _ => status,
    }
}

/// The exit status of a command that failed.
fn status_of(error: &anyhow::Error) -> u8 {
    let class = match error.chain().find_map(|e| e.downcast_ref::<Error>()) {
        Some(error) => error.class(),
        None if error.chain().any(|e| e.is::<io::Error>()) => Class::Io,
        None => Class::Other,
    };
    class.exit_code()
}

/// Everything an error has to say, each part once: an [`Error`] already tells its source.
fn text_of(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for part in error.chain() {
        if !text.is_empty() {
            text.push_str(": ");
        }
        text.push_str(&part.to_string());
        if part.is::<Error>() {
            break;
        }
    }
    text
}

/// Whether whoever read our output has had enough. The read half writes to nothing else that is
/// a pipe.
fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error
        .chain()
        .filter_map(|e| e.downcast_ref::<io::Error>())
        .any(|e| e.kind() == ErrorKind::BrokenPipe)
}

/// Says what is wrong with a command line, or gives the help it asks for. Scripts that asked for
/// events get their summary too.
fn refuse(line: &[OsString], error: &clap::Error) -> u8 {
    // Help that nobody reads to its end is read well enough.
    let _ = error.print();
    let status = u8::try_from(error.exit_code()).unwrap_or(Class::Usage.exit_code());
    if status != 0 && line.iter().any(|word| word == "--json") {
        let text = error.to_string();
        let first = text.lines().next().unwrap_or_default();
        let events = Events::new(Some(Arc::new(Mutex::new(io::stdout()))));
        let _ = events.finish("", status, Some(first.trim_start_matches("error: ")));
    }
    status
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::Context as _;

    fn failed(error: impl Into<anyhow::Error>) -> anyhow::Error {
        error.into()
    }

    #[test]
    fn statuses_follow_from_classes() {
        for (class, status) in [
            (Class::Other, 1),
            (Class::Usage, 2),
            (Class::Incompatible, 3),
            (Class::Busy, 4),
            (Class::Io, 5),
            (Class::Damage, 6),
            (Class::Interrupted, 9),
            (Class::Expired, 9),
            (Class::NoSpace, 10),
            (Class::Protocol, 11),
        ] {
            let error = failed(Error::new(class, "x"));
            assert_eq!(status_of(&error.context("reading y")), status);
        }
        assert_eq!(status_of(&failed(io::Error::other("x"))), 5);
        assert_eq!(status_of(&anyhow::anyhow!("x")), 1);
    }

    #[test]
    fn each_part_is_said_once() {
        let error = Error::io("a.img", io::Error::other("no medium"));
        let error = Err::<(), _>(error).context("reading").unwrap_err();
        assert_eq!(text_of(&error), "reading: a.img: no medium");
    }

    #[test]
    fn pipes_break_at_any_depth() {
        let pipe = || io::Error::from(ErrorKind::BrokenPipe);
        assert!(is_broken_pipe(&failed(pipe())));
        let wrapped = Error::io("standard output", pipe());
        assert!(is_broken_pipe(&failed(wrapped).context("listing")));
        assert!(!is_broken_pipe(&failed(io::Error::other("x"))));
    }
}
