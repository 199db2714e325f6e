//! The other end of a two-way session: not kept waiting in silence, and not waited for without end.
//!
//! Where both ends have announced it, a thread says ALIVE while the session has nothing to say.
//! `--peer-timeout` ends a session whose other end is not heard any more, be it that something is to be
//! read from it or that it takes nothing. While it takes nothing, what it says is read and kept: it may
//! be that it is alive and slow.

use super::Context;
use super::input::Input;
use crate::error::{Class, Error, Result};
use crate::format::mrecord::{self, Capabilities};
use crate::mirror::alive::{EVERY, Patience, Pulse};
use crate::mirror::wire::silent;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// Bytes that a pipe or a socket takes at once when it says that it takes any (`PIPE_BUF`).
const PORTION: usize = 4096;
/// Bytes kept of an end that speaks and does not listen.
const AHEAD: usize = 64 << 10;
/// Between two looks at whether something is to be said.
const LOOK: Duration = EVERY.checked_div(4).expect("not by zero");

/// What is known of the other end: copies know the same.
#[derive(Clone)]
pub(super) struct Ear(Arc<Mutex<Heard>>);

struct Heard {
    start: Instant,
    patience: Patience,
    /// The way from it, until that ends.
    from: Option<OwnedFd>,
    /// Said while nobody read.
    ahead: VecDeque<u8>,
    /// Whether it owes something whenever something is to be read from it.
    answers: bool,
}

impl Heard {
    fn now(&self) -> Duration {
        self.start.elapsed()
    }

    /// Reads what is there, and keeps it; what only says that it is alive has said it then.
    fn listen(&mut self) -> io::Result<()> {
        let mut alive = Vec::new();
        mrecord::append_alive(&mut alive);
        while let Some(from) = self.from.as_ref().filter(|_| self.ahead.len() < AHEAD) {
            let mut fds = [PollFd::new(from.as_fd(), PollFlags::POLLIN)];
            if !matches!(poll(&mut fds, PollTimeout::ZERO), Ok(1..)) {
                break;
            }
            let mut buf = [0; PORTION];
            match nix::unistd::read(from, &mut buf) {
                Ok(0) => self.from = None,
                Ok(count) => {
                    self.ahead.extend(&buf[..count]);
                    self.patience.heard(self.start.elapsed());
                    strip(&mut self.ahead, &alive);
                }
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => break,
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }
}

/// Takes `what` out of `bytes`, wherever it stands. An end that has nothing else to say for weeks takes
/// no room then.
fn strip(bytes: &mut VecDeque<u8>, what: &[u8]) {
    let find = |bytes: &[u8]| bytes.windows(what.len()).position(|some| some == what);
    while let Some(at) = find(bytes.make_contiguous()) {
        bytes.drain(at..at + what.len());
    }
}

impl Ear {
    fn heard(&self) -> MutexGuard<'_, Heard> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes from what was said while nobody read; a reader begins to wait.
    pub fn take(&self, buf: &mut [u8]) -> usize {
        let heard = &mut *self.heard();
        let now = heard.now();
        heard.patience.heard(now);
        if heard.answers {
            heard.patience.owed(true, now);
        }
        heard.ahead.read(buf).unwrap_or(0)
    }

    /// Takes notice that something was read, or that the bytes ended.
    pub fn listened(&self) {
        let heard = &mut *self.heard();
        let now = heard.now();
        heard.patience.heard(now);
        if heard.answers {
            heard.patience.owed(false, now);
        }
    }

    /// An error if the other end has been silent for too long.
    pub fn lasts(&self) -> io::Result<()> {
        let heard = &*self.heard();
        match heard.patience.is_over(heard.now()) {
            true => Err(ErrorKind::TimedOut.into()),
            false => Ok(()),
        }
    }
}

/// The other end.
pub(super) struct Peer {
    ear: Ear,
    pulse: Pulse<Output>,
}

impl Peer {
    /// The target that a source talks to: it owes an answer whenever one is waited for.
    pub fn target(cx: &Context, from: impl AsFd, to: impl Into<OwnedFd>) -> Result<Peer> {
        Peer::new(cx, from, to, true)
    }

    /// The source that a target talks to: it says when that owes something ([`Peer::owed`]).
    pub fn source(cx: &Context, from: impl AsFd, to: impl Into<OwnedFd>) -> Result<Peer> {
        Peer::new(cx, from, to, false)
    }

    fn new(cx: &Context, from: impl AsFd, to: impl Into<OwnedFd>, answers: bool) -> Result<Peer> {
        let most = cx.global.peer_timeout;
        let from = from.as_fd().try_clone_to_owned();
        let from = from.map_err(|e| Error::io("the way from the other end", e))?;
        let ear = Ear(Arc::new(Mutex::new(Heard {
            start: Instant::now(),
            patience: Patience::new(most, Duration::ZERO),
            from: Some(from),
            ahead: VecDeque::new(),
            answers,
        })));
        let pulse = Pulse::new(Output {
            out: File::from(to.into()),
            ear: most.is_some().then(|| ear.clone()),
        });
        Ok(Peer { ear, pulse })
    }

    /// What `input`, the way from it, gives.
    pub fn hears<'a, F: AsFd>(&self, input: Input<'a, F>) -> Input<'a, F> {
        input.heard_by(self.ear.clone())
    }

    /// The way to it.
    pub fn says(&self) -> Pulse<Output> {
        self.pulse.clone()
    }

    /// Takes notice of what both ends can do.
    pub fn agreed(&self, what: Capabilities) {
        self.pulse.agreed(what);
        let heard = &mut *self.ear.heard();
        let now = heard.now();
        heard.patience.agreed(what, now);
    }

    /// An error if it is gone, or has not been heard for too long. To be called while nothing is to be
    /// read from it and nothing said.
    pub fn is_there(&self) -> Result<()> {
        let mut heard = self.ear.heard();
        let listened = heard.listen();
        listened.map_err(|e| Error::io("listening to the other end", e))?;
        if heard.from.is_none() {
            return Err(Error::new(Class::Protocol, "the other end is gone"));
        }
        match heard.patience.is_over(heard.now()) {
            true => Err(silent()),
            false => Ok(()),
        }
    }

    /// It owes something from now on, or does not any more.
    pub fn owed(&self, owed: bool) {
        let heard = &mut *self.ear.heard();
        let now = heard.now();
        heard.patience.owed(owed, now);
    }

    /// Does `session`, while the other end is kept from waiting in silence.
    pub fn talk<T>(&self, session: impl FnOnce() -> T) -> T {
        let over = AtomicBool::new(false);
        thread::scope(|scope| {
            let beating = scope.spawn(|| self.beat(&over));
            let _ends = Ends(&over, beating.thread().clone());
            session()
        })
    }

    /// Says ALIVE whenever that is due, until it is over or nobody hears it.
    fn beat(&self, over: &AtomicBool) {
        let start = Instant::now();
        while !over.load(Ordering::Relaxed) {
            // What cannot be said shows when the session says something.
            if self.pulse.beat(start.elapsed(), Output::is_ready).is_err() {
                return;
            }
            thread::park_timeout(LOOK);
        }
    }
}

/// Lets a thread end when this goes.
struct Ends<'a>(&'a AtomicBool, thread::Thread);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
        self.1.unpark();
    }
}

/// The way to the other end.
pub(super) struct Output {
    out: File,
    /// Who knows how long it may be silent; `None`: for ever.
    ear: Option<Ear>,
}

impl Output {
    /// Whether a little is taken at once.
    fn is_ready(&self) -> bool {
        let mut fds = [PollFd::new(self.out.as_fd(), PollFlags::POLLOUT)];
        matches!(poll(&mut fds, PollTimeout::ZERO), Ok(1..))
    }

    /// Waits until something is taken. Only while nothing is, anything is read here: otherwise whoever
    /// reads may be at it.
    fn wait(&self, ear: &Ear) -> io::Result<()> {
        let mut begun = false;
        while !self.is_ready() {
            let mut heard = ear.heard();
            if !begun {
                // What came before this is yet to be heard.
                let now = heard.now();
                heard.patience.heard(now);
            }
            begun = true;
            heard.listen()?;
            drop(heard);
            ear.lasts()?;
            let mut fds = [PollFd::new(self.out.as_fd(), PollFlags::POLLOUT)];
            match poll(&mut fds, PollTimeout::from(100u8)) {
                Ok(_) | Err(Errno::EINTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }
}

impl Write for Output {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let Some(ear) = &self.ear else {
            return self.out.write(buf);
        };
        self.wait(ear)?;
        self.out.write(&buf[..buf.len().min(PORTION)])
    }

    fn write_vectored(&mut self, bufs: &[io::IoSlice<'_>]) -> io::Result<usize> {
        match self.ear {
            Some(_) => {
                let first = bufs.iter().find(|buf| !buf.is_empty());
                self.write(first.map_or(&[][..], |buf| buf))
            }
            None => self.out.write_vectored(bufs),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_says_nothing_takes_no_room() {
        let mut alive = Vec::new();
        mrecord::append_alive(&mut alive);
        let (mut head, mut tail) = (alive.clone(), alive.split_off(10));
        head.truncate(10);
        let mut bytes = VecDeque::new();
        // The begin of a record is with a reader already.
        bytes.extend(&tail);
        for _ in 0..5 {
            bytes.extend(head.iter().chain(&tail));
            strip(&mut bytes, &[&head[..], &tail].concat());
        }
        assert_eq!(bytes, tail);
        tail.extend(b"something");
        bytes.extend(b"something");
        bytes.extend(&head);
        strip(&mut bytes, &[&head[..], &tail[..14]].concat());
        tail.extend(&head);
        assert_eq!(bytes, tail);
    }
}
