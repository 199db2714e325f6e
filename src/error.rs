//! Errors as values: what failed, where, what was expected and what was found.
//!
//! Each error belongs to one [`Class`]; the exit codes of the command line are derived from the
//! class in one place ([`Class::exit_code`]).

use crate::format::Fault;
use std::fmt;
use std::io;

/// Result with the crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What kind of failure this is; decides the exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Anything without a class of its own.
    Other,
    /// The request itself is wrong.
    Usage,
    /// Not a HAMMER volume, an unsupported version, or the wrong target.
    Incompatible,
    /// Locked or in use.
    Busy,
    /// The device or the host failed.
    Io,
    /// The medium holds something that violates a rule of the format.
    Damage,
    /// Stopped before harm: a stream implies the deletion of too much.
    Brake,
    /// Ended early on request; can be resumed.
    Interrupted,
    /// No space left.
    NoSpace,
    /// The peer or the stream broke the protocol, or the link is gone.
    Protocol,
    /// The view was overtaken by a writer and must be taken again.
    Expired,
}

impl Class {
    /// The process exit status of this class (the table in the manual page).
    pub fn exit_code(self) -> u8 {
        match self {
            Class::Other => 1,
            Class::Usage => 2,
            Class::Incompatible => 3,
            Class::Busy => 4,
            Class::Io => 5,
            Class::Damage => 6,
            Class::Brake => 8,
            Class::Interrupted | Class::Expired => 9,
            Class::NoSpace => 10,
            Class::Protocol => 11,
        }
    }
}

/// An error with its class, its text and, where there is one, the host's error below it.
#[derive(Debug)]
pub struct Error {
    class: Class,
    text: String,
    source: Option<io::Error>,
    fault: Option<Box<Fault>>,
    /// Whether it is about everything that could be read, not about what was.
    whole: bool,
}

impl Error {
    /// An error of `class` described by `text`.
    pub fn new(class: Class, text: impl Into<String>) -> Error {
        Error {
            class,
            text: text.into(),
            source: None,
            fault: None,
            whole: false,
        }
    }

    /// A host I/O error; `what` says what was being done, and to what.
    pub fn io(what: impl Into<String>, source: io::Error) -> Error {
        Error {
            class: match source.raw_os_error() {
                Some(nix::libc::ENOSPC | nix::libc::EDQUOT) => Class::NoSpace,
                _ => Class::Io,
            },
            text: what.into(),
            source: Some(source),
            fault: None,
            whole: false,
        }
    }

    /// A request that cannot be carried out as written.
    pub fn usage(text: impl Into<String>) -> Error {
        Error::new(Class::Usage, text)
    }

    /// Damage on the medium.
    pub fn damage(text: impl Into<String>) -> Error {
        Error::new(Class::Damage, text)
    }

    /// The violated rule with its place, where the error is about one.
    pub fn fault(&self) -> Option<&Fault> {
        self.fault.as_deref()
    }

    /// The class.
    pub fn class(&self) -> Class {
        self.class
    }

    /// The same error in another class.
    pub fn with_class(mut self, class: Class) -> Error {
        self.class = class;
        self
    }

    /// Puts `context` in front of the text.
    pub fn context(mut self, context: impl fmt::Display) -> Error {
        self.text = format!("{context}: {}", self.text);
        self
    }

    /// The same error, about everything that could be read: no scan passes over it.
    pub fn of_all(mut self) -> Error {
        self.whole = true;
        self
    }

    /// Whether the medium's contents (not the request, not the host) are at fault, or the medium
    /// could not be read: what a scan may report and pass over.
    pub fn is_media(&self) -> bool {
        matches!(self.class, Class::Damage | Class::Io) && !self.whole
    }
}

impl From<Fault> for Error {
    fn from(fault: Fault) -> Error {
        Error {
            class: Class::Damage,
            text: fault.to_string(),
            source: None,
            fault: Some(Box::new(fault)),
            whole: false,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)?;
        match &self.source {
            Some(source) => write!(f, ": {source}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_ref().map(|e| e as _)
    }
}
