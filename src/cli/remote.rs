//! Other machines: a copy one of whose ends, or both, another program works at, reached by ssh.
//!
//! The command line over there is the one that hammer builds (mirroring.md §6.3): DragonFly's own
//! program can be the other end, and either may call the other.

use super::args::{MirrorCopyArgs, RemoteArgs};
use super::input::Input;
use super::open::open;
use super::peer::Peer as End;
use super::slave::Slave;
use super::spec::{Remote, Spec};
use super::views::Views;
use super::{Context, Exit, Outcome, errors, mirror, mirror_write};
use crate::error::{Class, Error, Result};
use std::ffi::OsString;
use std::io;
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// The programs that may do it over there, where the user names none: the second is tried where the
/// first is not to be found.
const PROGRAMS: [&str; 2] = ["hammer", "mallet"];
/// Directives that hammer does not have.
const ASKED: [&str; 2] = ["mirror-verify", "mirror-status"];
/// What a shell says of a program that it does not find.
const NOT_FOUND: i32 = 127;
/// How long the other end may take to end by itself once nobody talks to it any more.
const GRACE: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(20);

/// `mirror-copy` wherever its ends are: to the slaves of this machine together, by `here`, then to
/// those of others one by one. The exit status is the highest.
pub fn everywhere(
    args: &MirrorCopyArgs,
    here: impl FnOnce(&[Spec]) -> Outcome,
    cx: &Context,
) -> Outcome {
    let is_remote = |spec: &Spec| matches!(spec, Spec::Remote(_));
    let from_there = is_remote(&args.source);
    let (far, near): (Vec<&Spec>, Vec<&Spec>) = args
        .targets
        .iter()
        .partition(|target| from_there || is_remote(target));
    let near: Vec<Spec> = near.into_iter().cloned().collect();
    let ours = (!near.is_empty()).then(|| here(&near));
    let far = far.into_iter();
    let ends = Ends::new(&args.remote, None, cx);
    let theirs = far.map(|target| ends.copy(&args.source, target));
    worst(ours.into_iter().chain(theirs), cx)
}

/// Of several outcomes the one with the highest status; the errors of others are said here.
pub(super) fn worst(outcomes: impl Iterator<Item = Outcome>, cx: &Context) -> Outcome {
    let code = |outcome: &Outcome| match outcome {
        Ok(exit) => *exit as u8,
        Err(error) => errors::class_of(error).exit_code(),
    };
    let mut worst = Ok(Exit::Done);
    for outcome in outcomes {
        let (less, more) = match code(&outcome) > code(&worst) {
            true => (worst, outcome),
            false => (outcome, worst),
        };
        if let Err(error) = less {
            cx.ui.warn(errors::text_of(&error));
        }
        worst = more;
    }
    worst
}

/// What may be run over there, the first choice first.
pub(super) fn programs(args: &RemoteArgs) -> Vec<OsString> {
    match &args.remote_command {
        Some(program) => vec![program.clone()],
        None => PROGRAMS.map(OsString::from).to_vec(),
    }
}

/// What the first of `programs` that is there makes of it.
pub(super) fn first<T>(
    programs: &[OsString],
    mut with: impl FnMut(&OsString) -> Result<Ended<T>>,
) -> anyhow::Result<T> {
    let mut missing = Error::usage("no remote program");
    for program in programs {
        match with(program)? {
            Ended::As(outcome) => return outcome,
            Ended::NotFound(error) => missing = error,
        }
    }
    Err(missing.into())
}

/// How a try with one program ended.
pub(super) enum Ended<T = Exit> {
    As(anyhow::Result<T>),
    /// There is no such program over there.
    NotFound(Error),
}

impl<T> Ended<T> {
    pub fn outcome(self) -> anyhow::Result<T> {
        match self {
            Ended::As(outcome) => outcome,
            Ended::NotFound(error) => Err(error.into()),
        }
    }
}

/// How ends on other machines are reached, and what for.
pub(super) struct Ends<'a> {
    args: &'a RemoteArgs,
    /// The source is followed, with this pause between two batches at least.
    interval: Option<Duration>,
    cx: &'a Context,
}

impl<'a> Ends<'a> {
    /// For one copy, or to follow the source with this pause between two batches.
    pub fn new(args: &'a RemoteArgs, interval: Option<Duration>, cx: &'a Context) -> Ends<'a> {
        Ends { args, interval, cx }
    }

    /// From or to another machine, or both.
    pub fn copy(&self, source: &Spec, target: &Spec) -> Outcome {
        self.cx.goes_on()?;
        let programs = programs(self.args);
        match (source, target) {
            (Spec::Remote(source), Spec::Remote(target)) => self.relay(source, target, &programs),
            (Spec::Remote(there), Spec::Local(_)) => {
                first(&programs, |program| self.take(there, target, program))
            }
            (Spec::Local(_), Spec::Remote(there)) => {
                first(&programs, |program| self.give(source, there, program))
            }
            (Spec::Local(_), Spec::Local(_)) => {
                Err(Error::usage("neither end is on another machine").into())
            }
        }
    }

    /// What the source's end does.
    fn reading(&self) -> &'static str {
        match self.interval {
            Some(_) => "mirror-read-stream",
            None => "mirror-read",
        }
    }

    /// From this machine to `there`.
    fn give(&self, source: &Spec, there: &Remote, program: &OsString) -> Result<Ended> {
        let (name, target) = (source.to_string(), Spec::Remote(there.clone()).to_string());
        let Some(interval) = self.interval else {
            let mut opened = open(self.cx, source)?;
            let mut peer = self.start(there, program, "mirror-write")?;
            let (to, from) = peer.ends()?;
            let end = End::target(self.cx, &from, to)?;
            let from = Input::new(self.cx, from);
            let ended = mirror::give(self.cx, &mut opened, &end, from, &name);
            drop(end);
            return Ok(peer.gone()?.judged(ended));
        };
        let mut peer = self.start(there, program, "mirror-write")?;
        let (to, from) = peer.ends()?;
        let end = End::target(self.cx, &from, to)?;
        let mut listens = || end.is_there();
        let ended = match Views::new(self.cx, source, (None, interval), &mut listens) {
            Ok(mut views) => {
                let from = Input::new(self.cx, &from);
                mirror::give_on(self.cx, &mut views, &end, from, (&name, Some(&target)))
            }
            Err(error) => Err(error.into()),
        };
        drop((end, from));
        Ok(peer.gone()?.judged(ended))
    }

    /// From `there` to this machine.
    fn take(&self, there: &Remote, target: &Spec, program: &OsString) -> Result<Ended> {
        // Whatever is wrong here shows before anybody is called.
        let mut slave = Slave::new(self.cx, target)?;
        let mut peer = self.start(there, program, self.reading())?;
        let (to, from) = peer.ends()?;
        let end = End::source(self.cx, &from, to)?;
        let (from, name) = (self.paced(from), target.to_string());
        let ended = mirror_write::take(self.cx, &mut slave, &end, from, &name);
        drop((slave, end));
        Ok(peer.gone()?.judged(ended))
    }

    /// The program at `there`, doing `directive`.
    pub fn start(&self, there: &Remote, program: &OsString, directive: &str) -> Result<Peer> {
        let line = self.line(there, program, directive);
        let name = line.iter().map(|word| word.to_string_lossy());
        let name = name.collect::<Vec<_>>().join(" ");
        let (shell, words) = line.split_first().ok_or_else(|| Error::usage("no words"))?;
        let mut command = Command::new(shell);
        command.args(words);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let child = command.spawn().map_err(|e| Error::io(&name, e))?;
        self.cx.ui.note(2, format_args!("started {name}"));
        Ok(Peer { child, name })
    }

    /// The command line that reaches it, in hammer's order.
    fn line(&self, there: &Remote, program: &OsString, directive: &str) -> Vec<OsString> {
        let global = &self.cx.global;
        let shell = std::env::var_os("HAMMER_RSH").unwrap_or_else(|| "ssh".into());
        let mut line = vec![shell];
        let mut add = |words: &[&str]| line.extend(words.iter().map(OsString::from));
        if self.args.compress {
            add(&["-C"]);
        }
        if let Some(user) = &there.user {
            add(&["-l"]);
            line.push(user.clone());
        }
        line.push(there.host.clone());
        if let Some(port) = self.args.port {
            line.extend(["-p".into(), port.to_string().into()]);
        }
        line.push(program.clone());
        let mut add = |words: &[&str]| line.extend(words.iter().map(OsString::from));
        match self.cx.ui.level() {
            ..=0 => {}
            1 => add(&["-v"]),
            2 => add(&["-vv"]),
            3.. => add(&["-vvv"]),
        }
        if global.yes {
            add(&["-y"]);
        }
        add(&["-2"]);
        if let Some(limit) = global.time_limit {
            add(&["-t", &limit.as_secs().max(1).to_string()]);
        }
        if let Some(split) = global.split.filter(|_| !global.no_split) {
            add(&["-S", &split.to_string()]);
        }
        // Only mallet is asked that.
        if global.live && ASKED.contains(&directive) {
            add(&["--live"]);
        }
        add(&[directive]);
        line.push(there.target.clone());
        line
    }

    /// Both ends are elsewhere: what one says is handed to the other. Each may have another program.
    fn relay(&self, source: &Remote, target: &Remote, programs: &[OsString]) -> Outcome {
        let (mut from, mut to) = (0, 0);
        loop {
            self.cx.goes_on()?;
            let reader = self.start(source, &programs[from], self.reading())?;
            let writer = self.start(target, &programs[to], "mirror-write")?;
            let (read, written) = self.relayed(reader, writer)?;
            let is_missing = |peer: &Gone| peer.status.code() == Some(NOT_FOUND);
            let (before, left) = ((from, to), |at: usize| at + 1 < programs.len());
            from += usize::from(is_missing(&read) && left(from));
            to += usize::from(is_missing(&written) && left(to));
            if (from, to) == before {
                return both(&read, &written);
            }
        }
    }

    /// Hands on what two programs say to each other, until both have ended.
    fn relayed(&self, mut reader: Peer, mut writer: Peer) -> Result<(Gone, Gone)> {
        let (mut to_reader, from_reader) = reader.ends()?;
        let (mut to_writer, mut from_writer) = writer.ends()?;
        self.cx.ui.manager().ready();
        // Whoever ends closes its side, and the other one hears the end of the bytes.
        thread::spawn(move || io::copy(&mut from_writer, &mut to_reader).map(drop));
        let mut from_reader = self.paced(from_reader);
        // What breaks here shows in how they end.
        let _ = io::copy(&mut from_reader, &mut to_writer);
        drop((from_reader, to_writer));
        let written = writer.gone()?;
        let read = reader.gone()?;
        self.cx.goes_on()?;
        Ok((read, written))
    }

    /// What a far source says, no faster than the user allows.
    fn paced(&self, from: ChildStdout) -> Input<'_, ChildStdout> {
        let rate = self.cx.global.bandwidth.filter(|rate| *rate > 0);
        Input::new(self.cx, from).at_most(rate)
    }
}

/// What two far ends came to. The one that says more than that the other is gone has the word.
fn both(read: &Gone, written: &Gone) -> Outcome {
    let outcome = |gone: &Gone| gone.judged(Ok(Exit::Done)).outcome();
    let (read, written) = (outcome(read), outcome(written));
    let is_lost = |outcome: &Outcome| {
        let class = outcome.as_ref().err().map(errors::class_of);
        class == Some(Class::Protocol)
    };
    match (&read, &written) {
        (_, Ok(Exit::Done)) => read,
        (Err(_), _) if is_lost(&written) => read,
        _ => written,
    }
}

/// The class that an exit status stands for, where the other end is mallet; `hammer` has 1 for all.
fn class_of(code: Option<i32>) -> Class {
    match code {
        Some(2) => Class::Usage,
        Some(3) => Class::Incompatible,
        Some(4) => Class::Busy,
        Some(5) => Class::Io,
        Some(6) => Class::Damage,
        Some(8) => Class::Brake,
        Some(9) => Class::Interrupted,
        Some(10) => Class::NoSpace,
        _ => Class::Protocol,
    }
}

/// What came of something of which this end came to `ours`, and the other one ended with `status`.
fn judged(name: &str, status: ExitStatus, ours: Outcome) -> Ended {
    let exit = match ours {
        Ok(exit) => exit,
        Err(error) => return failed(name, status, error),
    };
    match (status.code(), exit) {
        (Some(0), exit) => Ended::As(Ok(exit)),
        // Our end is content; theirs has the last word on what it has.
        (Some(6), _) => Ended::As(Ok(Exit::Damage)),
        (Some(9), _) => Ended::As(Ok(Exit::Interrupted)),
        (_, Exit::Done) => Ended::As(Err(said(name, status).into())),
        (_, exit) => Ended::As(Ok(exit)),
    }
}

/// What came of something that failed with `error` at this end, while the other one ended with
/// `status`.
fn failed<T>(name: &str, status: ExitStatus, error: anyhow::Error) -> Ended<T> {
    let is_lost = errors::class_of(&error) == Class::Protocol || errors::is_broken_pipe(&error);
    match status.code() {
        Some(0) => Ended::As(Err(error)),
        Some(NOT_FOUND) => Ended::NotFound(said(name, status)),
        // A broken link says less than why the other end has gone.
        _ if is_lost => {
            let said = said(name, status).context(errors::text_of(&error));
            Ended::As(Err(said.into()))
        }
        _ => Ended::As(Err(error)),
    }
}

fn said(name: &str, status: ExitStatus) -> Error {
    Error::new(
        class_of(status.code()),
        format!("{name} ended with {status}"),
    )
}

/// A program that reaches the other end.
pub(super) struct Peer {
    child: Child,
    name: String,
}

/// One that has ended.
pub(super) struct Gone {
    name: String,
    status: ExitStatus,
}

impl Gone {
    /// What came of something of which this end came to `ours`.
    pub fn judged(&self, ours: Outcome) -> Ended {
        judged(&self.name, self.status, ours)
    }

    /// What came of something that failed with `error` at this end.
    pub fn failed<T>(&self, error: anyhow::Error) -> Ended<T> {
        failed(&self.name, self.status, error)
    }
}

impl Peer {
    /// The ways to it and from it.
    pub fn ends(&mut self) -> Result<(ChildStdin, ChildStdout)> {
        let ends = self.child.stdin.take().zip(self.child.stdout.take());
        ends.ok_or_else(|| Error::new(Class::Other, format!("{}: no pipes", self.name)))
    }

    /// Waits for its end, which is near: its bytes have ended.
    pub fn gone(mut self) -> Result<Gone> {
        let start = Instant::now();
        loop {
            let ended = self.child.try_wait();
            let ended = ended.map_err(|e| Error::io(format!("waiting for {}", self.name), e))?;
            if let Some(status) = ended {
                let name = std::mem::take(&mut self.name);
                return Ok(Gone { name, status });
            }
            if start.elapsed() > GRACE {
                // One that has ended meanwhile needs none.
                let _ = self.child.kill();
            }
            thread::sleep(PAUSE);
        }
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        if let Ok(None) = self.child.try_wait() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}
