//! Words in, words out: the command line and everything people and scripts see of this program.
//!
//! A command is a function of its arguments and the [`Context`]: arguments → options → one library
//! call → print. What it returns becomes the exit status here and nowhere else.

pub mod args;
pub mod asof;
pub mod batch;
pub mod check;
pub mod contents;
pub mod context;
pub mod copy;
pub mod dumps;
mod ends;
pub mod errors;
pub mod escape;
pub mod examples;
pub mod forced;
pub mod gauge;
pub mod history;
pub mod input;
pub mod json;
mod links;
pub mod manager;
pub mod manual;
pub mod mirror;
pub mod mirror_dump;
pub mod mirror_write;
pub mod mode;
pub mod moment;
pub mod newfs;
pub mod open;
mod peer;
pub mod pfs;
pub mod pfs_write;
pub mod pfsd;
pub mod record;
pub mod remote;
pub mod show;
pub mod size;
mod slave;
pub mod spec;
pub mod status;
mod stream;
pub mod ui;
pub mod verify;
mod views;
pub mod volumes;
pub mod watchdog;
mod witness;
pub mod words;
pub mod write;
pub mod write_args;

pub use context::Context;

use crate::error::{Class, Error, Result};
use args::{Cli, Command};
use clap::{CommandFactory, Parser};
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

impl Exit {
    /// What scripts are told in an error's place; `None` where there is nothing to tell.
    fn text(self) -> Option<&'static str> {
        match self {
            Exit::Done => None,
            Exit::Damage => Some("damage was found"),
            Exit::Difference => Some("a difference was found"),
            Exit::Interrupted => Some("interrupted; it can be resumed"),
        }
    }
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
    let cli = match asked_for(cli) {
        Ok(cli) => cli,
        Err(error) => {
            let _ = writeln!(
                io::stderr(),
                "mallet: {}",
                escape::sentence(&error.to_string())
            );
            return ExitCode::from(error.class().exit_code());
        }
    };
    let status = signals()
        .and_then(|(signals, raised)| {
            let cx = Context::new(&cli, signals)?;
            watchdog::start(&cx, raised, cli.command.writes())?;
            Ok(cx)
        })
        .map(|cx| finish(&cli.command, &cx, run(&cli.command, &cx)));
    ExitCode::from(status.unwrap_or_else(|error| {
        // Standard error is all there is left to say it on.
        let _ = writeln!(io::stderr(), "mallet: {error}");
        Class::Io.exit_code()
    }))
}

/// The command line itself, or what a peer asks for through it.
fn asked_for(cli: Cli) -> Result<Cli> {
    let Command::SshRemote(args) = &cli.command else {
        return Ok(cli);
    };
    let line = forced::line(args, std::env::var_os("SSH_ORIGINAL_COMMAND"))?;
    let asked = Cli::try_parse_from(line).map_err(|error| Error::usage(error.to_string()))?;
    Ok(Cli {
        global: forced::within(cli.global, &asked.global),
        ..asked
    })
}

fn run(command: &Command, cx: &Context) -> Outcome {
    match command {
        Command::Newfs(args) => newfs::newfs(args, cx),
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
        Command::Put(_)
        | Command::Append(_)
        | Command::Truncate(_)
        | Command::Mkdir(_)
        | Command::Rm(_)
        | Command::Mv(_)
        | Command::Ln(_)
        | Command::Chmod(_)
        | Command::Chown(_) => write::command(command, cx),
        Command::Batch(args) => batch::batch(args, cx),
        Command::History(args) => history::history(args, cx),
        Command::Diff(args) => history::diff(args, cx),
        Command::PfsStatus(args) => pfs::status(args, cx),
        Command::PfsMaster(args) => pfs_write::master(args, cx),
        Command::PfsSlave(args) => pfs_write::slave(args, cx),
        Command::PfsUpdate(args) => pfs_write::update(args, cx),
        Command::PfsUpgrade(args) => pfs_write::upgrade(args, cx),
        Command::PfsDowngrade(args) => pfs_write::downgrade(args, cx),
        Command::PfsDestroy(args) => pfs_write::destroy(args, cx),
        Command::Snapls(args) => pfs::snapshots(args, cx),
        Command::MirrorRead(args) => mirror::read(args, cx),
        Command::MirrorReadStream(args) => mirror::read_stream(args, cx),
        Command::MirrorWrite(args) => mirror_write::run(args, cx),
        Command::MirrorDump(args) => mirror_dump::dump(args, cx),
        Command::MirrorPlan(args) => match &args.target {
            Some(target) => copy::plan(args, target, cx),
            None => mirror::planned(args, cx),
        },
        Command::MirrorCopy(args) => copy::copy(args, cx),
        Command::MirrorStream(args) => stream::stream(args, cx),
        Command::MirrorStatus(args) => status::status(args, cx),
        Command::MirrorVerify(args) => verify::verify(args, cx),
        // Done before: another command stands in its place.
        Command::SshRemote(_) => Ok(Exit::Done),
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
        Err(error) if errors::is_broken_pipe(error) => match command.is_stream() {
            true => (Class::Protocol.exit_code(), Some(errors::text_of(error))),
            false => (0, None),
        },
        Err(error) => (
            errors::class_of(error).exit_code(),
            Some(errors::sentence_of(error, command)),
        ),
    };
    if let Some(error) = &error
        && !(cx.json() && command.owns_stdout(&cx.global))
    {
        let error = escape::sentence(error);
        let _ = cx
            .ui
            .beside_bar(|| writeln!(io::stderr(), "mallet: {error}"));
    }
    let found = outcome.as_ref().ok().and_then(|exit| exit.text());
    let told = error.as_deref().or(found);
    match cx.events.finish(command.name(), status, told) {
        Err(broken) if broken.kind() != ErrorKind::BrokenPipe && status == 0 => {
            let broken = anyhow::Error::from(broken);
            let _ = writeln!(io::stderr(), "mallet: {}", errors::text_of(&broken));
            errors::class_of(&broken).exit_code()
        }
        _ => status,
    }
}

/// Says what is wrong with a command line, or gives the help it asks for. Scripts that asked for
/// events get their summary too.
fn refuse(line: &[OsString], error: &clap::Error) -> u8 {
    // Help that nobody reads to its end is read well enough.
    let _ = error.print();
    let status = u8::try_from(error.exit_code()).unwrap_or(Class::Usage.exit_code());
    if status != 0 && line.iter().any(|word| word == "--json") {
        let text = error.to_string();
        // What is wrong ends at the first empty line; usage and hints follow.
        let wrong = text.lines().map(str::trim).take_while(|l| !l.is_empty());
        let wrong = wrong.collect::<Vec<_>>().join(" ");
        let events = Events::new(Some(Arc::new(Mutex::new(io::stdout()))));
        let wrong = wrong.trim_start_matches("error: ");
        let _ = events.finish(&command_in(line), status, Some(wrong));
    }
    status
}

/// The name of the command in a line that is wrong elsewhere; empty if there is none.
fn command_in(line: &[OsString]) -> String {
    let parser = Cli::command().ignore_errors(true);
    let found = parser.try_get_matches_from(line).ok();
    let name = found.as_ref().and_then(clap::ArgMatches::subcommand_name);
    name.unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_in_wrong_lines() {
        for (line, name) in [
            ("mallet --json info", "info"),
            ("mallet -c check --json ls a b c d", "ls"),
            ("mallet mirror-read --json a yesterday", "mirror-read"),
            ("mallet --json ls --frobnicate a", "ls"),
            ("mallet --json frobnicate", ""),
            ("mallet --json", ""),
        ] {
            let words: Vec<OsString> = line.split(' ').map(OsString::from).collect();
            assert!(Cli::try_parse_from(&words).is_err(), "{line}");
            assert_eq!(command_in(&words), name, "{line}");
        }
    }
}
