//! Other machines: a copy one of whose ends, or both, another program works at, reached by ssh.
//!
//! The command line over there is the one that hammer builds (mirroring.md §6.3): DragonFly's own
//! program can be the other end, and either may call the other.

use super::args::{MirrorCopyArgs, RemoteArgs};
use super::input::Input;
use super::open::{open, open_rw};
use super::spec::{Remote, Spec};
use super::{Context, Exit, Outcome, errors, mirror, mirror_write};
use crate::error::{Class, Error, Result};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::ffi::OsString;
use std::io;
use std::os::fd::AsFd;
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// The programs that may do it over there, where the user names none: the second is tried where the
/// first is not to be found.
const PROGRAMS: [&str; 2] = ["hammer", "mallet"];
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
    let theirs = far.map(|target| copy(&args.source, target, &args.remote, cx));
    worst(ours.into_iter().chain(theirs), cx)
}

/// Of several outcomes the one with the highest status; the errors of others are said here.
fn worst(outcomes: impl Iterator<Item = Outcome>, cx: &Context) -> Outcome {
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

/// From or to another machine, or both.
fn copy(source: &Spec, target: &Spec, args: &RemoteArgs, cx: &Context) -> Outcome {
    let programs: Vec<OsString> = match &args.remote_command {
        Some(program) => vec![program.clone()],
        None => PROGRAMS.map(OsString::from).to_vec(),
    };
    let mut last = None;
    for program in programs {
        let ends = Ends { args, program, cx };
        match ends.copy(source, target)? {
            Ended::As(outcome) => return outcome,
            Ended::NotFound(error) => last = Some(error),
        }
    }
    let error = last.unwrap_or_else(|| Error::usage("no remote program"));
    Err(error.into())
}

/// How a try with one program ended.
enum Ended {
    As(Outcome),
    /// There is no such program over there.
    NotFound(Error),
}

struct Ends<'a> {
    args: &'a RemoteArgs,
    program: OsString,
    cx: &'a Context,
}

impl Ends<'_> {
    fn copy(&self, source: &Spec, target: &Spec) -> Result<Ended> {
        match (source, target) {
            (Spec::Local(_), Spec::Remote(there)) => {
                let mut opened = open(self.cx, source)?;
                let mut peer = self.start(there, "mirror-write")?;
                let (to, from) = peer.ends()?;
                let from = Input::new(self.cx, from);
                let name = source.to_string();
                let ended = mirror::give(self.cx, &mut opened, to, from, &name);
                self.ended(peer, ended)
            }
            (Spec::Remote(there), Spec::Local(_)) => {
                let mut peer = self.start(there, "mirror-read")?;
                let (mut to, from) = peer.ends()?;
                // The source speaks first. Before it does there is nothing to open a slave for.
                if !self.speaks(&from)? {
                    drop((to, from));
                    let gone = Error::new(Class::Protocol, "the source said nothing");
                    return self.ended(peer, Err(gone.into()));
                }
                let mut opened = open_rw(self.cx, target)?;
                let from = Input::new(self.cx, from);
                let name = target.to_string();
                let ended = mirror_write::take(self.cx, &mut opened, from, Some(&mut to), &name);
                drop(to);
                self.ended(peer, ended)
            }
            (Spec::Remote(source), Spec::Remote(target)) => self.relay(source, target),
            (Spec::Local(_), Spec::Local(_)) => {
                Err(Error::usage("neither end is on another machine"))
            }
        }
    }

    /// The program at `there`, doing `directive`.
    fn start(&self, there: &Remote, directive: &str) -> Result<Peer> {
        let line = self.line(there, directive);
        let name = line.iter().map(|word| word.to_string_lossy());
        let name = name.collect::<Vec<_>>().join(" ");
        let (program, words) = line.split_first().ok_or_else(|| Error::usage("no words"))?;
        let mut command = Command::new(program);
        command.args(words);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let child = command.spawn().map_err(|e| Error::io(&name, e))?;
        self.cx.ui.note(2, format_args!("started {name}"));
        Ok(Peer { child, name })
    }

    /// The command line that reaches it, in hammer's order.
    fn line(&self, there: &Remote, directive: &str) -> Vec<OsString> {
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
        line.push(self.program.clone());
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
        add(&[directive]);
        line.push(there.target.clone());
        line
    }

    /// Whether anything comes before the end.
    fn speaks(&self, from: &ChildStdout) -> Result<bool> {
        loop {
            self.cx.goes_on()?;
            let mut fds = [PollFd::new(from.as_fd(), PollFlags::POLLIN)];
            match poll(&mut fds, PollTimeout::from(100u8)) {
                Ok(0) | Err(nix::errno::Errno::EINTR) => {}
                Ok(_) => {
                    let seen = fds[0].revents().unwrap_or(PollFlags::empty());
                    return Ok(seen.contains(PollFlags::POLLIN));
                }
                Err(error) => return Err(Error::io("waiting for the source", error.into())),
            }
        }
    }

    /// Both ends are elsewhere: what one says is handed to the other.
    fn relay(&self, source: &Remote, target: &Remote) -> Result<Ended> {
        let mut reader = self.start(source, "mirror-read")?;
        let mut writer = self.start(target, "mirror-write")?;
        let (mut to_reader, mut from_reader) = reader.ends()?;
        let (mut to_writer, mut from_writer) = writer.ends()?;
        // Each ends when its side does: who hears the end of the bytes ends too.
        let back = thread::spawn(move || io::copy(&mut from_writer, &mut to_reader).map(drop));
        let forth = thread::spawn(move || io::copy(&mut from_reader, &mut to_writer).map(drop));
        while !(back.is_finished() && forth.is_finished()) {
            if self.cx.goes_on().is_err() {
                reader.kill();
                writer.kill();
            }
            thread::sleep(PAUSE);
        }
        self.cx.goes_on()?;
        let read = reader.wait()?;
        match self.ended(writer, Ok(Exit::Done))? {
            Ended::As(Ok(Exit::Done)) => {}
            other => return Ok(other),
        }
        let (name, status) = (reader.name.clone(), read);
        Ok(judged(&name, status, Ok(Exit::Done)))
    }

    /// What a copy came to whose own end ended so.
    fn ended(&self, mut peer: Peer, ours: Outcome) -> Result<Ended> {
        let status = peer.wait()?;
        Ok(judged(&peer.name, status, ours))
    }
}

/// A broken link says less than the other end's own exit status.
fn judged(name: &str, status: ExitStatus, ours: Outcome) -> Ended {
    let code = status.code();
    let said = |class| Error::new(class, format!("{name} ended with {status}"));
    let lost = match &ours {
        Ok(_) => false,
        Err(error) => errors::class_of(error) == Class::Protocol || errors::is_broken_pipe(error),
    };
    match (code, ours) {
        (Some(NOT_FOUND), Err(_)) => Ended::NotFound(said(Class::Protocol)),
        (Some(0), ours) => Ended::As(ours),
        (code, Err(error)) if lost => {
            let class = match code {
                Some(3) => Class::Incompatible,
                Some(4) => Class::Busy,
                Some(5) => Class::Io,
                Some(6) => Class::Damage,
                Some(8) => Class::Brake,
                Some(10) => Class::NoSpace,
                _ => Class::Protocol,
            };
            Ended::As(Err(said(class).context(errors::text_of(&error)).into()))
        }
        (_, Err(error)) => Ended::As(Err(error)),
        // Our end is content; theirs has the last word on what it has.
        (Some(6), Ok(_)) => Ended::As(Ok(Exit::Damage)),
        (Some(9), Ok(_)) => Ended::As(Ok(Exit::Interrupted)),
        (_, Ok(Exit::Done)) => Ended::As(Err(said(Class::Protocol).into())),
        (_, ours) => Ended::As(ours),
    }
}

/// A program that reaches the other end.
struct Peer {
    child: Child,
    name: String,
}

impl Peer {
    /// The ways to it and from it.
    fn ends(&mut self) -> Result<(ChildStdin, ChildStdout)> {
        let ends = self.child.stdin.take().zip(self.child.stdout.take());
        ends.ok_or_else(|| Error::new(Class::Other, format!("{}: no pipes", self.name)))
    }

    fn kill(&mut self) {
        // One that has ended needs none.
        let _ = self.child.kill();
    }

    /// Waits for its end, which is near: its bytes have ended.
    fn wait(&mut self) -> Result<ExitStatus> {
        let failed = |name: &str, e| Error::io(format!("waiting for {name}"), e);
        let start = Instant::now();
        loop {
            let ended = self.child.try_wait();
            if let Some(status) = ended.map_err(|e| failed(&self.name, e))? {
                return Ok(status);
            }
            if start.elapsed() > GRACE {
                self.kill();
            }
            thread::sleep(PAUSE);
        }
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        if let Ok(None) = self.child.try_wait() {
            self.kill();
            let _ = self.child.wait();
        }
    }
}
