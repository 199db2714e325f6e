//! What is copied in, read from its first byte to its last: regular files, block devices and
//! streams, in windows of a fixed size, with a thread that reads ahead where there is more than one.

use crate::error::{Class, Error, Result};
use nix::errno::Errno;
use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};
use nix::unistd::{Whence, lseek};
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender, channel, sync_channel};
use std::thread;
use std::time::Duration;

/// Bytes of a window: a multiple of every block size, aligned in the file.
pub const WINDOW: usize = 4 << 20;
/// Windows read ahead.
const AHEAD: usize = 2;
/// How often a wait for the source looks up.
const TICK: Duration = Duration::from_millis(100);

/// A run of the source. Windows follow each other without a gap.
pub struct Window {
    /// Its first byte.
    pub at: u64,
    /// Its length; less than [`WINDOW`] only in the last one, more only in a hole.
    pub len: u64,
    /// Its bytes, with zeros behind them up to the end of their 64 KiB; `None`: zeros.
    pub bytes: Option<Vec<u8>>,
    /// Whether it ends the source.
    pub last: bool,
}

impl Window {
    /// The byte behind it.
    pub fn end(&self) -> u64 {
        self.at + self.len
    }
}

/// What windows are read from.
pub enum Source {
    /// A file or device of known size, with its holes.
    File(Sparse),
    /// Bytes until they end.
    Stream(Stream),
}

/// A file or device.
pub struct Sparse {
    file: File,
    at: u64,
    size: u64,
    /// The next run of data at or behind `at`: start and end.
    data: (u64, u64),
    done: bool,
}

/// A stream.
pub struct Stream {
    read: Box<dyn Read + Send>,
    at: u64,
    done: bool,
}

impl Source {
    /// A file or block device that holds `size` bytes.
    pub fn file(file: File, size: u64) -> Source {
        // Advice; a host that takes none reads all the same.
        let _ = posix_fadvise(&file, 0, 0, PosixFadviseAdvice::POSIX_FADV_SEQUENTIAL);
        Source::File(Sparse {
            file,
            at: 0,
            size,
            data: (0, 0),
            done: false,
        })
    }

    /// A stream.
    pub fn stream(read: Box<dyn Read + Send>) -> Source {
        Source::Stream(Stream {
            read,
            at: 0,
            done: false,
        })
    }

    /// Whether one window holds it all.
    fn is_short(&self) -> bool {
        matches!(self, Source::File(file) if file.size <= WINDOW as u64)
    }

    /// The next window; `buf` is memory to reuse.
    fn next(&mut self, buf: Vec<u8>) -> Result<Option<Window>> {
        match self {
            Source::File(file) => file.next(buf),
            Source::Stream(stream) => stream.next(buf),
        }
    }
}

impl Sparse {
    fn next(&mut self, mut buf: Vec<u8>) -> Result<Option<Window>> {
        if self.done {
            return Ok(None);
        }
        self.find_data()?;
        let (at, window) = (self.at, WINDOW as u64);
        // Whole windows without data are one hole.
        let hole_to = match self.data.0 >= self.size {
            true => self.size,
            false => self.data.0 - self.data.0 % window,
        };
        if hole_to > at {
            return Ok(Some(self.window(hole_to, None)));
        }
        let end = (at + window).min(self.size);
        buf.resize(padded(end - at), 0);
        let mut filled = at;
        while filled < end {
            self.find_data()?;
            let from = self.data.0.clamp(filled, end);
            let to = self.data.1.clamp(from, end);
            buf[(filled - at) as usize..(from - at) as usize].fill(0);
            self.read(&mut buf[(from - at) as usize..(to - at) as usize], from)?;
            filled = to;
            self.at = to;
        }
        buf[(end - at) as usize..].fill(0);
        self.at = at;
        Ok(Some(self.window(end, Some(buf))))
    }

    fn window(&mut self, end: u64, bytes: Option<Vec<u8>>) -> Window {
        let at = std::mem::replace(&mut self.at, end);
        self.done = end >= self.size;
        Window {
            at,
            len: end - at,
            bytes,
            last: self.done,
        }
    }

    fn read(&self, buf: &mut [u8], at: u64) -> Result<()> {
        self.file
            .read_exact_at(buf, at)
            .map_err(|error| match error.kind() {
                io::ErrorKind::UnexpectedEof => self.too_short(),
                _ => Error::io(format!("cannot be read at byte {at}"), error),
            })
    }

    fn too_short(&self) -> Error {
        let size = self.size;
        let text = format!("ends before byte {size}: it became shorter while it was read");
        Error::new(Class::Io, text)
    }

    /// Finds the run of data that `at` lies in or before.
    fn find_data(&mut self) -> Result<()> {
        if self.at < self.data.1 {
            return Ok(());
        }
        let here = self.at.min(i64::MAX as u64).cast_signed();
        let seek = |from: i64, whence| lseek(&self.file, from, whence);
        let start = match seek(here, Whence::SeekData) {
            Ok(start) => start,
            // Nothing but a hole up to the end.
            Err(Errno::ENXIO) => {
                // So says a file that ends early, too.
                let found = self.file.metadata();
                let len = found.map_err(|e| Error::io("cannot be examined", e))?.len();
                if len < self.size {
                    return Err(self.too_short());
                }
                self.data = (self.size, u64::MAX);
                return Ok(());
            }
            // No holes to be seen here.
            Err(_) => {
                self.data = (self.at, u64::MAX);
                return Ok(());
            }
        };
        let end = seek(start, Whence::SeekHole).unwrap_or(i64::MAX);
        self.data = (start.max(here) as u64, end.max(start).max(here) as u64);
        if self.data.1 <= self.at {
            // A file that changes; what is there is read.
            self.data = (self.at, u64::MAX);
        }
        Ok(())
    }
}

impl Stream {
    fn next(&mut self, mut buf: Vec<u8>) -> Result<Option<Window>> {
        if self.done {
            return Ok(None);
        }
        buf.resize(WINDOW, 0);
        let mut len = 0;
        while len < WINDOW {
            match self.read.read(&mut buf[len..]) {
                Ok(0) => break,
                Ok(more) => len += more,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    let at = self.at + len as u64;
                    return Err(Error::io(format!("cannot be read at byte {at}"), error));
                }
            }
        }
        self.done = len < WINDOW;
        buf.truncate(padded(len as u64).max(len));
        buf[len..].fill(0);
        let at = self.at;
        self.at += len as u64;
        Ok(Some(Window {
            at,
            len: len as u64,
            bytes: Some(buf),
            last: self.done,
        }))
    }
}

/// `len`, at most a window's, up to the end of its 64 KiB.
fn padded(len: u64) -> usize {
    len.next_multiple_of(crate::format::XBUFFER as u64) as usize
}

/// Gives a source's windows in order.
pub struct Feed(Inner);

enum Inner {
    Here(Source),
    Ahead {
        windows: Receiver<Result<Window>>,
        spare: Sender<Vec<u8>>,
        done: bool,
    },
}

impl Feed {
    /// Begins to read.
    pub fn new(source: Source) -> Result<Feed> {
        if source.is_short() {
            return Ok(Feed(Inner::Here(source)));
        }
        let (send, windows) = sync_channel(AHEAD);
        let (spare, reuse) = channel();
        let name = "source".to_owned();
        // Nobody waits for this thread: it ends when nobody listens, or with the process if the
        // source stands still.
        thread::Builder::new()
            .name(name)
            .spawn(move || read_ahead(source, &send, &reuse))
            .map_err(|e| Error::io("no thread to read with", e))?;
        Ok(Feed(Inner::Ahead {
            windows,
            spare,
            done: false,
        }))
    }

    /// The next window; `None` behind the last. `tick` is called while the source lets one wait,
    /// and can end it with an error.
    pub fn next(&mut self, mut tick: impl FnMut() -> Result<()>) -> Result<Option<Window>> {
        match &mut self.0 {
            Inner::Here(source) => source.next(Vec::new()),
            Inner::Ahead { done: true, .. } => Ok(None),
            Inner::Ahead { windows, done, .. } => loop {
                match windows.recv_timeout(TICK) {
                    Ok(window) => {
                        let window = window?;
                        *done = window.last;
                        return Ok(Some(window));
                    }
                    Err(RecvTimeoutError::Timeout) => tick()?,
                    Err(RecvTimeoutError::Disconnected) => {
                        return Err(Error::new(Class::Io, "the thread that reads it has ended"));
                    }
                }
            },
        }
    }

    /// Takes the memory of a window back.
    pub fn reuse(&mut self, window: Window) {
        if let (Inner::Ahead { spare, .. }, Some(buf)) = (&self.0, window.bytes) {
            // The thread may be done.
            let _ = spare.send(buf);
        }
    }
}

fn read_ahead(mut source: Source, send: &SyncSender<Result<Window>>, reuse: &Receiver<Vec<u8>>) {
    loop {
        let window = source.next(reuse.try_recv().unwrap_or_default());
        let over = !matches!(&window, Ok(Some(window)) if !window.last);
        let Some(window) = window.transpose() else {
            return;
        };
        if send.send(window).is_err() || over {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::io::Cursor;

    /// All bytes, and how many windows were holes.
    fn drain(source: Source) -> (Vec<u8>, usize) {
        let mut feed = Feed::new(source).expect("it begins");
        let (mut all, mut holes, mut last) = (Vec::new(), 0, false);
        while let Some(window) = feed.next(|| Ok(())).expect("readable") {
            assert!(!last && window.at == all.len() as u64);
            last = window.last;
            match &window.bytes {
                Some(bytes) => {
                    let (data, rest) = bytes.split_at(window.len as usize);
                    assert!(rest.iter().all(|b| *b == 0) && bytes.len() % 65536 == 0);
                    all.extend_from_slice(data);
                }
                None => {
                    holes += 1;
                    all.resize(window.end() as usize, 0);
                }
            }
            assert!(last || window.len % WINDOW as u64 == 0);
            feed.reuse(window);
        }
        assert!(last);
        (all, holes)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(12))]

        /// Whatever lies where in a sparse file, its bytes come out, and long holes unread.
        #[test]
        fn sparse_files(runs in proptest::collection::vec((0u64..24 << 20, 1usize..200_000), 0..6), size in 0u64..28 << 20) {
            let file = tempfile::tempfile().expect("a file");
            for (index, (at, len)) in runs.iter().enumerate() {
                file.write_all_at(&vec![index as u8 + 1; *len], *at).expect("space");
            }
            let end = file.metadata().expect("it is there").len();
            let size = size.max(end);
            file.set_len(size).expect("it grows");
            let mut expected = vec![0; size as usize];
            file.read_exact_at(&mut expected, 0).expect("readable");
            let (found, holes) = drain(Source::file(file, size));
            prop_assert!(found == expected);
            prop_assert!(holes > 0 || size == 0 || !runs.is_empty());
        }

        #[test]
        fn streams(len in 0usize..10 << 20) {
            let bytes: Vec<u8> = (0..len).map(|i| (i / 7) as u8).collect();
            let (found, _) = drain(Source::stream(Box::new(Cursor::new(bytes.clone()))));
            prop_assert!(found == bytes);
        }
    }

    #[test]
    fn streams_that_end_with_a_window() {
        let bytes = vec![7; 2 * WINDOW];
        let (found, _) = drain(Source::stream(Box::new(Cursor::new(bytes.clone()))));
        assert!(found == bytes);
    }

    #[test]
    fn files_that_shrink() {
        let file = tempfile::tempfile().expect("a file");
        file.write_all_at(&[1; 100], 0).expect("space");
        let mut feed = Feed::new(Source::file(file, 200)).expect("it begins");
        let error = feed.next(|| Ok(())).map(drop).expect_err("too short");
        assert!(error.to_string().contains("became shorter"), "{error}");
    }

    #[test]
    fn waiting_can_be_ended() {
        let (read, _write) = io::pipe().expect("a pipe");
        let mut feed = Feed::new(Source::stream(Box::new(read))).expect("it begins");
        let stop = || Err(Error::new(Class::Interrupted, "enough"));
        let error = feed.next(stop).map(drop).expect_err("nothing comes");
        assert_eq!(error.class(), Class::Interrupted);
    }
}
