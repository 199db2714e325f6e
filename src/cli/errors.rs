//! What is said of a command that failed, and its exit status.

use super::args::Command;
use super::escape;
use super::spec::{Local, Spec};
use crate::error::{Class, Error};
use nix::libc;
use std::io::{self, ErrorKind};

/// The class of a command's failure.
pub fn class_of(error: &anyhow::Error) -> Class {
    if let Some(error) = error.chain().find_map(|e| e.downcast_ref::<Error>()) {
        return error.class();
    }
    let host = error.chain().find_map(|e| e.downcast_ref::<io::Error>());
    match host.map(io::Error::raw_os_error) {
        Some(Some(libc::ENOSPC | libc::EDQUOT)) => Class::NoSpace,
        Some(_) => Class::Io,
        None => Class::Other,
    }
}

/// Everything an error has to say, each part once: an [`Error`] already tells its source.
pub fn text_of(error: &anyhow::Error) -> String {
    let mut text = String::new();
    // What fails without further words is the writing of lines and events.
    if error.chain().next().is_some_and(|e| e.is::<io::Error>()) {
        text.push_str("standard output");
    }
    for part in error.chain() {
        if !text.is_empty() {
            text.push_str(": ");
        }
        text.push_str(&part.to_string());
        if part.is::<Error>() {
            break;
        }
    }
    text
}

/// What the user is told of `error`: with the file system's name in front where it does not name
/// it, and behind damage what to do next.
pub fn sentence_of(error: &anyhow::Error, command: &Command) -> String {
    let (mut text, class) = (text_of(error), class_of(error));
    let Some(spec) = command.spec() else {
        return text;
    };
    let about_output = text.starts_with("standard output") || is_broken_pipe(error);
    if !about_output && class != Class::Interrupted && !names(&text, spec) {
        text = format!("{spec}: {text}");
    }
    if class == Class::Damage
        && let Spec::Local(local) = spec
        && !matches!(command, Command::Check(_))
    {
        let volumes = Spec::Local(Local {
            pfs: None,
            ..local.clone()
        });
        text = format!("{text} (mallet check {volumes} tells more)");
    }
    text
}

/// Whether `text` names one of the volumes of `spec`: the name as a word of its own, and with
/// something behind it that a plain word of a sentence has not.
fn names(text: &str, spec: &Spec) -> bool {
    let named = |name: &str| {
        text.match_indices(name).any(|(at, _)| {
            let before = text[..at].chars().next_back();
            let behind = text[at + name.len()..].chars().next();
            !before.is_some_and(|c| c.is_alphanumeric() || c == '/')
                && behind.is_none_or(|c| ":@,#;\"".contains(c))
        })
    };
    match spec {
        Spec::Remote(_) => text.contains(&spec.to_string()),
        Spec::Local(local) => local.volumes.iter().any(|volume| {
            let path = volume.path.as_os_str();
            let escaped = escape::name(path.as_encoded_bytes()).to_string();
            named(&path.to_string_lossy()) || named(&escaped)
        }),
    }
}

/// Whether whoever read our output has had enough. The read half writes to nothing else that is
/// a pipe.
pub fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error
        .chain()
        .filter_map(|e| e.downcast_ref::<io::Error>())
        .any(|e| e.kind() == ErrorKind::BrokenPipe)
}

#[cfg(test)]
mod tests {
    use super::super::args::Cli;
    use super::*;
    use anyhow::Context as _;
    use clap::Parser;

    fn failed(error: impl Into<anyhow::Error>) -> anyhow::Error {
        error.into()
    }

    #[test]
    fn statuses_follow_from_classes() {
        for (class, status) in [
            (Class::Other, 1),
            (Class::Usage, 2),
            (Class::Incompatible, 3),
            (Class::Busy, 4),
            (Class::Io, 5),
            (Class::Damage, 6),
            (Class::Brake, 8),
            (Class::Interrupted, 9),
            (Class::Expired, 9),
            (Class::NoSpace, 10),
            (Class::Protocol, 11),
        ] {
            let error = failed(Error::new(class, "x"));
            assert_eq!(class_of(&error.context("reading y")).exit_code(), status);
        }
        assert_eq!(class_of(&failed(io::Error::other("x"))), Class::Io);
        let full = failed(io::Error::from_raw_os_error(libc::ENOSPC));
        assert!(text_of(&full).starts_with("standard output: No space"));
        assert_eq!(class_of(&full), Class::NoSpace);
        assert_eq!(class_of(&full.context("x")), Class::NoSpace);
        assert_eq!(class_of(&anyhow::anyhow!("x")), Class::Other);
    }

    #[test]
    fn each_part_is_said_once() {
        let error = Error::io("a.img", io::Error::other("no medium"));
        let error = Err::<(), _>(error).context("reading").unwrap_err();
        assert_eq!(text_of(&error), "reading: a.img: no medium");
    }

    #[test]
    fn errors_name_the_volume_and_what_to_do() {
        let said = |line: &str, class, text: &str| {
            let cli = Cli::try_parse_from(line.split(' ')).unwrap();
            sentence_of(&failed(Error::new(class, text)), &cli.command)
        };
        let (ls, check) = ("mallet ls a,/d/b.img@1m#1 /", "mallet check a#0");
        for (line, class, text, expected) in [
            (ls, Class::Io, "a: no medium", "a: no medium"),
            (
                ls,
                Class::Io,
                "at a place",
                "a,/d/b.img@1048576#1: at a place",
            ),
            (ls, Class::Io, "/d/b.img@1048576: x", "/d/b.img@1048576: x"),
            (
                ls,
                Class::Usage,
                "no ba: x",
                "a,/d/b.img@1048576#1: no ba: x",
            ),
            (ls, Class::Interrupted, "interrupted", "interrupted"),
            (
                ls,
                Class::Damage,
                "a: bad",
                "a: bad (mallet check a,/d/b.img@1048576 tells more)",
            ),
            (check, Class::Damage, "bad", "a#0: bad"),
            ("mallet mirror-dump", Class::Damage, "bad", "bad"),
        ] {
            assert_eq!(said(line, class, text), expected);
        }
    }

    #[test]
    fn pipes_break_at_any_depth() {
        let pipe = || io::Error::from(ErrorKind::BrokenPipe);
        assert!(is_broken_pipe(&failed(pipe())));
        let wrapped = Error::io("standard output", pipe());
        assert!(is_broken_pipe(&failed(wrapped).context("listing")));
        assert!(!is_broken_pipe(&failed(io::Error::other("x"))));
    }
}
