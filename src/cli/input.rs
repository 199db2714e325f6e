//! A stream that comes in, from standard input or another program.

use super::Context;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::io::{self, Read};
use std::os::fd::AsFd;

/// Bytes from `from`; once the command is to end, an error.
pub struct Input<'a, F> {
    cx: &'a Context,
    from: F,
}

impl<F: AsFd> Input<'_, F> {
    /// What `from` gives, read without a buffer.
    pub fn new(cx: &Context, from: F) -> Input<'_, F> {
        Input { cx, from }
    }
}

impl<F: AsFd> Read for Input<'_, F> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        loop {
            self.cx.goes_on().map_err(io::Error::other)?;
            let mut fds = [PollFd::new(self.from.as_fd(), PollFlags::POLLIN)];
            match poll(&mut fds, PollTimeout::from(100u8)) {
                Ok(0) | Err(Errno::EINTR) => {}
                Ok(_) => return Ok(nix::unistd::read(&self.from, buf)?),
                Err(error) => return Err(error.into()),
            }
        }
    }
}
