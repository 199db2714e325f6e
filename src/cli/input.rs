//! A stream that comes in, from standard input or another program.

use super::Context;
use super::mirror::Wall;
use super::peer::Ear;
use crate::mirror::Clock;
use crate::mirror::throttle::Throttle;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::io::{self, Read};
use std::os::fd::AsFd;

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
    pub fn heard_by(mut self, ear: Ear) -> Self {
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
