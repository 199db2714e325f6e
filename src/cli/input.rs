//! A stream that comes in, from standard input or another program.

use super::Context;
use super::mirror::Wall;
use super::peer::Ear;
use crate::error::{Class, Error, Result};
use crate::mirror::Clock;
use crate::mirror::throttle::Throttle;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{MsgFlags, recv};
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd};

/// An error if `end` (a pipe or socket, read from or written to, on which nothing is owed) has nobody
/// at its other end any more. `who` that is, for people.
pub fn still_there(end: impl AsFd, who: &str) -> Result<()> {
    let fd = end.as_fd();
    let mut fds = [PollFd::new(fd, PollFlags::POLLIN)];
    let seen = match poll(&mut fds, PollTimeout::ZERO) {
        Ok(_) => fds[0].revents().unwrap_or(PollFlags::empty()),
        Err(_) => PollFlags::empty(),
    };
    // A socket that was closed over there can be read from, and gives nothing.
    let is_at_end = || {
        let peek = MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT;
        recv(fd.as_raw_fd(), &mut [0], peek) == Ok(0)
    };
    let is_gone = match seen.contains(PollFlags::POLLIN) {
        true => is_at_end(),
        false => seen.intersects(PollFlags::POLLHUP | PollFlags::POLLERR),
    };
    match is_gone {
        true => Err(Error::new(Class::Protocol, format!("{who} is gone"))),
        false => Ok(()),
    }
}

/// Bytes from `from`; once the command is to end, an error.
pub struct Input<'a, F> {
    cx: &'a Context,
    from: F,
    pace: Option<(Throttle, Wall<'a>)>,
    /// Who knows how long it may be silent.
    ear: Option<Ear>,
}

impl<'a, F: AsFd> Input<'a, F> {
    /// What `from` gives, read without a buffer.
    pub fn new(cx: &'a Context, from: F) -> Input<'a, F> {
        Input {
            cx,
            from,
            pace: None,
            ear: None,
        }
    }

    /// The same from the other end of a session: once that counts as gone, an error.
    pub(super) fn heard_by(mut self, ear: Ear) -> Self {
        self.ear = Some(ear);
        self
    }

    /// The same, at most `rate` bytes a second: whoever sends waits.
    pub fn at_most(mut self, rate: Option<u64>) -> Input<'a, F> {
        self.pace = rate.map(|rate| (Throttle::new(rate), Wall::new(self.cx)));
        self
    }
}

impl<F: AsFd> Read for Input<'_, F> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let mut most = buf.len();
        if let Some((throttle, clock)) = &mut self.pace {
            let wait = throttle.wait(clock.now());
            if !wait.is_zero() {
                clock.sleep(wait);
            }
            most = most.min(throttle.portion());
        }
        if let Some(ear) = &self.ear {
            let kept = ear.take(&mut buf[..most]);
            if kept > 0 {
                ear.listened();
                return Ok(kept);
            }
        }
        loop {
            self.cx.goes_on().map_err(io::Error::other)?;
            let mut fds = [PollFd::new(self.from.as_fd(), PollFlags::POLLIN)];
            match poll(&mut fds, PollTimeout::from(100u8)) {
                Ok(0) => self.ear.as_ref().map_or(Ok(()), Ear::lasts)?,
                Err(Errno::EINTR) => {}
                Ok(_) => {
                    let n = nix::unistd::read(&self.from, &mut buf[..most])?;
                    if let Some((throttle, _)) = &mut self.pace {
                        throttle.spent(n);
                    }
                    if let Some(ear) = &self.ear {
                        ear.listened();
                    }
                    return Ok(n);
                }
                Err(error) => return Err(error.into()),
            }
        }
    }
}
