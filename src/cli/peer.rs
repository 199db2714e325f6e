//! The other end of a two-way session: not kept waiting in silence, and not waited for without end.
//!
//! Where both ends have announced it, a thread says ALIVE while the session has nothing to say.
//! `--peer-timeout` ends a session whose other end is not heard any more, be it that something is to be
//! read from it or that it takes nothing. While it takes nothing, what it says is read and kept: it may
//! be that it is alive and slow.

use super::Context;
use super::input::Input;
use crate::error::{Error, Result};
use crate::format::mrecord::Capabilities;
use crate::mirror::alive::{EVERY, Patience, Pulse};
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
    /// Said while nobody read.
    ahead: VecDeque<u8>,
    /// Whether it owes something whenever something is to be read from it.
    answers: bool,
}

impl Ear {
    fn new(most: Option<Duration>, answers: bool) -> Ear {
        Ear(Arc::new(Mutex::new(Heard {
            start: Instant::now(),
            patience: Patience::new(most, Duration::ZERO),
            ahead: VecDeque::new(),
            answers,
        })))
    }

    fn heard(&self) -> MutexGuard<'_, Heard> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes from what was said while nobody read; a reader begins to wait.
    pub fn take(&self, buf: &mut [u8]) -> usize {
        let heard = &mut *self.heard();
        let now = heard.start.elapsed();
        heard.patience.heard(now);
        if heard.answers {
            heard.patience.owed(true, now);
        }
        heard.ahead.read(buf).unwrap_or(0)
    }

    /// Takes notice that something was read, or that the bytes ended.
    pub fn listened(&self) {
        self.listens();
        let heard = &mut *self.heard();
        let now = heard.start.elapsed();
        if heard.answers {
            heard.patience.owed(false, now);
        }
    }

    /// What was said up to now is heard, or will be.
    fn listens(&self) {
        let heard = &mut *self.heard();
        let now = heard.start.elapsed();
        heard.patience.heard(now);
    }

    /// An error if the other end has been silent for too long.
    pub fn lasts(&self) -> io::Result<()> {
        let heard = &*self.heard();
        match heard.patience.is_over(heard.start.elapsed()) {
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
        let ear = Ear::new(most, answers);
        let pulse = Pulse::new(Output {
            out: File::from(to.into()),
            from: Some(from),
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
        let now = heard.start.elapsed();
        heard.patience.agreed(what, now);
    }

    /// It owes something from now on, or does not any more.
    pub fn owed(&self, owed: bool) {
        let heard = &mut *self.ear.heard();
        let now = heard.start.elapsed();
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
    /// The way from it, until that ends.
    from: Option<OwnedFd>,
    /// Who knows how long it may be silent; `None`: for ever.
    ear: Option<Ear>,
}

impl Output {
    /// Whether a little is taken at once.
    fn is_ready(&self) -> bool {
        let mut fds = [PollFd::new(self.out.as_fd(), PollFlags::POLLOUT)];
        matches!(poll(&mut fds, PollTimeout::ZERO), Ok(1..))
    }

    /// Waits until something is taken.
    fn wait(&mut self, ear: &Ear) -> io::Result<()> {
        ear.listens();
        loop {
            // Only while nothing is taken is anything read here: whoever reads otherwise does so itself.
            if self.is_ready() {
                return Ok(());
            }
            ear.lasts()?;
            let room = AHEAD.saturating_sub(ear.heard().ahead.len());
            let mut fds = vec![PollFd::new(self.out.as_fd(), PollFlags::POLLOUT)];
            if let Some(from) = self.from.as_ref().filter(|_| room > 0) {
                fds.push(PollFd::new(from.as_fd(), PollFlags::POLLIN));
            }
            match poll(&mut fds, PollTimeout::from(100u8)) {
                Ok(_) | Err(Errno::EINTR) => {}
                Err(error) => return Err(error.into()),
            }
            let taken = |fd: &PollFd<'_>| fd.any().unwrap_or(false);
            if !taken(&fds[0]) && fds.get(1).is_some_and(taken) {
                self.listen(ear, room)?;
            }
        }
    }

    /// Keeps what the other end says.
    fn listen(&mut self, ear: &Ear, room: usize) -> io::Result<()> {
        let Some(from) = &self.from else {
            return Ok(());
        };
        let mut buf = [0; PORTION];
        let most = room.min(buf.len());
        match nix::unistd::read(from, &mut buf[..most]) {
            Ok(0) => self.from = None,
            Ok(count) => {
                ear.heard().ahead.extend(&buf[..count]);
                ear.listens();
            }
            Err(Errno::EINTR | Errno::EAGAIN) => {}
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }
}

impl Write for Output {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let Some(ear) = self.ear.clone() else {
            return self.out.write(buf);
        };
        self.wait(&ear)?;
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
