//! What every command is given besides its arguments: options, output, time, the wish to stop.

use super::args::{Cli, Command, Global};
use super::json::Events;
use super::manager::Manager;
use super::ui::{Manners, Meter, Signals, Ui};
use crate::error::{Error, Result};
use jiff::Timestamp;
use std::fs::File;
use std::io::{self, BufWriter, IsTerminal, LineWriter, Write};
use std::os::fd::AsFd;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// Bytes of text gathered before they are written where nobody looks on.
const TEXT_BUFFER: usize = 64 << 10;

/// What every command is given besides its arguments.
pub struct Context {
    /// The options of every command.
    pub global: Global,
    /// The way to people.
    pub ui: Ui,
    /// The way to scripts.
    pub events: Events,
    signals: Signals,
    deadline: Option<Instant>,
    now: Timestamp,
    text: Arc<Mutex<Text>>,
}

/// Standard output as text, buffered.
struct Text {
    out: Box<dyn Write + Send>,
    terminal: bool,
}

impl Context {
    /// The context of the command line `cli`; `signals` are the flags that handlers set.
    pub fn new(cli: &Cli, signals: Signals) -> io::Result<Context> {
        let global = cli.global.clone();
        let text = Arc::new(Mutex::new(Text::open()?));
        let stderr: Arc<Mutex<dyn Write + Send>> = Arc::new(Mutex::new(io::stderr()));
        let events = Events::new(match (global.json, cli.command.owns_stdout(&cli.global)) {
            (false, _) => None,
            (true, false) => Some(text.clone()),
            (true, true) => Some(stderr),
        });
        let deadline = global
            .time_limit
            .and_then(|limit| Instant::now().checked_add(limit));
        let manners = Manners {
            level: global.level(),
            progress: global.progress,
            terminal: io::stderr().is_terminal(),
            deadline,
        };
        let shared = cli.command.owns_stdout(&cli.global) && global.json;
        let ui = Ui::new(manners, signals.clone(), shared.then(|| events.clone()));
        // Others do not run as services, and a stream's own children are not the service.
        let manager = match cli.command {
            Command::MirrorStream(_) => {
                Manager::of(|name| std::env::var_os(name), std::process::id())
            }
            _ => Manager::default(),
        };
        let ui = ui.under(manager);
        Ok(Context {
            global,
            ui,
            events,
            signals,
            deadline,
            now: Timestamp::now(),
            text,
        })
    }

    /// When the command started; what "ago" counts from.
    pub fn now(&self) -> Timestamp {
        self.now
    }

    /// When to end, if a time limit was given. A [`Meter`] sees to it by itself.
    pub fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// Set once the command should end at its next safe point. A [`Meter`] sees to it by itself.
    pub fn stop(&self) -> &AtomicBool {
        &self.signals.stop
    }

    /// An error once the command should end; for waits that have no [`Meter`].
    pub fn goes_on(&self) -> Result<()> {
        self.ui.goes_on()
    }

    /// Whether output is events, not text.
    pub fn json(&self) -> bool {
        self.events.on()
    }

    /// A progress display that also ends the operation on request; hand it to the library.
    pub fn meter(&self, title: impl Into<String>, unit: &'static str) -> Meter {
        self.ui.meter(title, unit)
    }

    /// Standard output for lines of text. Buffered; the end of the command flushes it.
    pub fn out(&self) -> Out<'_> {
        Out {
            text: &self.text,
            ui: &self.ui,
        }
    }

    /// Standard output for bytes, unbuffered. `binary` bytes are not written to a terminal.
    pub fn raw(&self, binary: bool) -> Result<File> {
        if binary && io::stdout().is_terminal() {
            return Err(Error::usage(
                "standard output is a terminal; send the stream to a file or a pipe",
            ));
        }
        stdout().map_err(|e| Error::io("standard output", e))
    }

    /// Writes out what is buffered.
    pub fn flush(&self) -> io::Result<()> {
        self.out().flush()
    }
}

/// Standard output without the line buffer that Rust's own has, and with its errors.
fn stdout() -> io::Result<File> {
    Ok(File::from(io::stdout().as_fd().try_clone_to_owned()?))
}

impl Text {
    fn open() -> io::Result<Text> {
        let file = stdout()?;
        let terminal = file.is_terminal();
        let out: Box<dyn Write + Send> = match terminal {
            true => Box::new(LineWriter::new(file)),
            false => Box::new(BufWriter::with_capacity(TEXT_BUFFER, file)),
        };
        Ok(Text { out, terminal })
    }
}

impl Write for Text {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.out.write(bytes)
    }
    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// Standard output for text, kept clear of a progress bar.
#[derive(Clone, Copy)]
pub struct Out<'a> {
    text: &'a Mutex<Text>,
    ui: &'a Ui,
}

impl Out<'_> {
    fn text(&self) -> MutexGuard<'_, Text> {
        let text = self.text.lock().unwrap_or_else(PoisonError::into_inner);
        if text.terminal {
            self.ui.make_way();
        }
        text
    }
}

impl Write for Out<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.text().write(bytes)
    }
    fn flush(&mut self) -> io::Result<()> {
        self.text().flush()
    }
}
