//! What a file system is called on the command line:
//!
//! ```text
//! SPEC = [[user@]host:] VOL[,VOL...] [#PFS]
//! VOL  = PATH [@OFFSET]
//! PFS  = number | label
//! ```
//!
//! A colon before the first slash means another machine; what follows it goes there as it is. A
//! local path with a colon in its first part is written `./a:b`. A file whose name ends like an
//! offset or a PFS is named by adding one: `image@5@0`, `image#x#0`.

use super::size;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

/// A file system, or one of its PFSs, here or on another machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Spec {
    /// Volumes of this machine.
    Local(Local),
    /// A file system that another machine opens.
    Remote(Remote),
}

/// Volumes of this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Local {
    /// The volumes, at least one, in the order given.
    pub volumes: Vec<Volume>,
    /// The PFS; `None` where none was named.
    pub pfs: Option<Pfs>,
}

/// One volume: an image file or a device, or a part of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Volume {
    /// The file.
    pub path: PathBuf,
    /// Where in it the volume starts, in bytes; `None` where that was not said.
    pub offset: Option<u64>,
}

/// A PFS by its number or its label.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pfs {
    /// `#3`.
    Number(u16),
    /// `#home`.
    Label(Vec<u8>),
}

/// A file system that another machine opens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remote {
    /// Who to be there.
    pub user: Option<OsString>,
    /// The machine.
    pub host: OsString,
    /// Everything behind the colon, verbatim.
    pub target: OsString,
}

/// Reads a SPEC.
pub fn parse(text: &OsStr) -> Result<Spec, String> {
    let bytes = text.as_bytes();
    let colon = bytes.iter().position(|b| *b == b':');
    let slash = bytes.iter().position(|b| *b == b'/');
    match colon {
        Some(colon) if slash.is_none_or(|slash| colon < slash) => remote(bytes, colon),
        _ => local(bytes).map(Spec::Local),
    }
}

fn remote(bytes: &[u8], colon: usize) -> Result<Spec, String> {
    let (user, host) = match bytes[..colon].iter().position(|b| *b == b'@') {
        Some(at) => (Some(&bytes[..at]), &bytes[at + 1..colon]),
        None => (None, &bytes[..colon]),
    };
    let target = &bytes[colon + 1..];
    let example = "write [user@]host:VOLUMES, or ./ before a local path with a colon";
    for (what, part) in [
        ("user", user.unwrap_or(b"-")),
        ("host", host),
        ("volume", target),
    ] {
        if part.is_empty() {
            return Err(format!("the {what} is missing; {example}"));
        }
    }
    // ssh would take either for an option.
    if host.starts_with(b"-") || user.is_some_and(|user| user.starts_with(b"-")) {
        return Err("a user or host cannot begin with a dash".into());
    }
    Ok(Spec::Remote(Remote {
        user: user.map(os),
        host: os(host),
        target: os(target),
    }))
}

fn local(bytes: &[u8]) -> Result<Local, String> {
    // A label has no slash, so a `#` in a folder's name does not start one.
    let (volumes, pfs) = match bytes.iter().rposition(|b| *b == b'#') {
        Some(at) if !bytes[at..].contains(&b'/') => (&bytes[..at], Some(pfs(&bytes[at + 1..])?)),
        _ => (bytes, None),
    };
    let volumes = volumes
        .split(|b| *b == b',')
        .map(volume)
        .collect::<Result<Vec<_>, _>>()?;
    Ok(Local { volumes, pfs })
}

fn volume(bytes: &[u8]) -> Result<Volume, String> {
    let at = bytes.iter().rposition(|b| *b == b'@');
    let (path, offset) = match at.map(|at| (&bytes[..at], &bytes[at + 1..])) {
        Some((path, typed)) if is_meant_as_offset(typed) => {
            let offset = offset(typed).map_err(|error| {
                let name = super::escape::name(bytes);
                format!("the offset behind @: {error}; if @ is part of the name, write {name}@0")
            });
            (path, Some(offset?))
        }
        _ => (bytes, None),
    };
    if path.is_empty() {
        return Err("a volume has no name; write PATH or PATH@OFFSET, commas between them".into());
    }
    Ok(Volume {
        path: os(path).into(),
        offset,
    })
}

/// Whether what follows an `@` is an offset, if perhaps a wrong one; a path may hold an `@` too.
fn is_meant_as_offset(typed: &[u8]) -> bool {
    let letters = typed.iter().filter(|b| b.is_ascii_alphabetic()).count();
    let plain = |b: &u8| b.is_ascii_alphanumeric() || *b == b'.';
    match typed.first() {
        None => true,
        Some(first) if !first.is_ascii_digit() => false,
        // `2.img` and `2nd-disk` are names; `2x`, `1.5m` and `8MB` are not.
        Some(_) => offset(typed).is_ok() || (letters < 3 && typed.iter().all(plain)),
    }
}

fn offset(typed: &[u8]) -> Result<u64, String> {
    size::bytes(&String::from_utf8_lossy(typed))
}

fn pfs(bytes: &[u8]) -> Result<Pfs, String> {
    if bytes.is_empty() {
        return Err("the PFS behind # is missing; write its number or its label".into());
    }
    if !bytes.iter().all(u8::is_ascii_digit) {
        return Ok(Pfs::Label(bytes.to_vec()));
    }
    std::str::from_utf8(bytes)
        .ok()
        .and_then(|digits| digits.parse().ok())
        .map(Pfs::Number)
        .ok_or_else(|| "PFS numbers go from 0 to 65535".into())
}

fn os(bytes: &[u8]) -> OsString {
    OsString::from_vec(bytes.to_vec())
}

impl Spec {
    /// The spec as it is written.
    pub fn to_os_string(&self) -> OsString {
        let mut text = OsString::new();
        match self {
            Spec::Remote(remote) => {
                if let Some(user) = &remote.user {
                    text.push(user);
                    text.push("@");
                }
                text.push(&remote.host);
                text.push(":");
                text.push(&remote.target);
            }
            Spec::Local(local) => {
                for (index, volume) in local.volumes.iter().enumerate() {
                    text.push(if index == 0 { "" } else { "," });
                    text.push(volume.to_os_string());
                }
                if let Some(pfs) = &local.pfs {
                    text.push("#");
                    text.push(match pfs {
                        Pfs::Number(number) => OsString::from(number.to_string()),
                        Pfs::Label(label) => os(label),
                    });
                }
            }
        }
        text
    }
}

impl Volume {
    /// The volume as it is written.
    pub fn to_os_string(&self) -> OsString {
        let mut text = self.path.clone().into_os_string();
        if let Some(offset) = self.offset {
            text.push(format!("@{offset}"));
        }
        text
    }
}

impl fmt::Display for Spec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        super::escape::name(self.to_os_string().as_bytes()).fmt(f)
    }
}

impl fmt::Display for Volume {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        super::escape::name(self.to_os_string().as_bytes()).fmt(f)
    }
}

impl fmt::Display for Pfs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Pfs::Number(number) => number.fmt(f),
            Pfs::Label(label) => super::escape::name(label).fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(text: &str) -> Spec {
        parse(OsStr::new(text)).unwrap()
    }

    fn here(volumes: &[(&str, Option<u64>)], pfs: Option<Pfs>) -> Spec {
        let volumes = volumes
            .iter()
            .map(|(path, offset)| Volume {
                path: path.into(),
                offset: *offset,
            })
            .collect();
        Spec::Local(Local { volumes, pfs })
    }

    fn there(user: Option<&str>, host: &str, target: &str) -> Spec {
        Spec::Remote(Remote {
            user: user.map(Into::into),
            host: host.into(),
            target: target.into(),
        })
    }

    #[test]
    fn local_volumes() {
        assert_eq!(read("a.img"), here(&[("a.img", None)], None));
        assert_eq!(
            read("/dev/sdb@1M,b@0x200#3"),
            here(
                &[("/dev/sdb", Some(1 << 20)), ("b", Some(512))],
                Some(Pfs::Number(3))
            )
        );
        assert_eq!(
            read("v#home"),
            here(&[("v", None)], Some(Pfs::Label(b"home".into())))
        );
    }

    #[test]
    fn names_that_look_like_something_else() {
        assert_eq!(read("./a:b"), here(&[("./a:b", None)], None));
        assert_eq!(read("/a:b"), here(&[("/a:b", None)], None));
        assert_eq!(read("x@y"), here(&[("x@y", None)], None));
        for name in ["x@2.img", "x@2nd-disk", "a@2x/y"] {
            assert_eq!(read(name), here(&[(name, None)], None));
        }
        assert_eq!(read("x@2x@0"), here(&[("x@2x", Some(0))], None));
        assert_eq!(read("x@5@0"), here(&[("x@5", Some(0))], None));
        assert_eq!(read("/d#1/v"), here(&[("/d#1/v", None)], None));
        assert_eq!(read("x#y#0"), here(&[("x#y", None)], Some(Pfs::Number(0))));
    }

    #[test]
    fn other_machines() {
        assert_eq!(read("host:/v/a,b#1"), there(None, "host", "/v/a,b#1"));
        assert_eq!(read("me@host:a:b"), there(Some("me"), "host", "a:b"));
        // The user ends at the first at sign, as in the original.
        assert_eq!(read("a@b@c:v"), there(Some("a"), "b@c", "v"));
    }

    #[test]
    fn refused() {
        for (text, hint) in [
            ("", "no name"),
            ("a,", "no name"),
            (",a", "no name"),
            ("@5", "no name"),
            ("x@2x", "\"2x\" is not a size"),
            ("x@1.5m", "\"1.5m\""),
            ("x@", "\"\" is not a size"),
            ("x@99999999999t", "64 bits"),
            ("a#", "PFS"),
            ("a#65536", "65535"),
            (":v", "host"),
            ("@h:v", "user"),
            ("h:", "volume"),
            ("-oProxyCommand=x:v", "dash"),
        ] {
            let error = parse(OsStr::new(text)).unwrap_err();
            assert!(error.contains(hint), "{text:?}: {error}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(
            volumes in prop::collection::vec(("[a-z./][a-z./@#]{0,9}", any::<u64>()), 1..4),
            pfs in prop_oneof![
                any::<u16>().prop_map(Pfs::Number),
                "[a-z@:,]{1,8}".prop_map(|label| Pfs::Label(label.into_bytes())),
            ],
        ) {
            // With an offset and a PFS said, nothing in a path is mistaken for one; a slash first
            // keeps a colon from being a host's.
            let volumes = volumes
                .into_iter()
                .map(|(path, offset)| Volume { path: format!("/{path}").into(), offset: Some(offset) })
                .collect();
            let spec = Spec::Local(Local { volumes, pfs: Some(pfs) });
            // A comma in a label comes after the volumes' last `#` and stays the label's.
            prop_assert_eq!(parse(&spec.to_os_string()), Ok(spec));
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes: Vec<u8>) {
            if let Ok(spec) = parse(&os(&bytes)) {
                // A number may be written in several ways, but it means the same again.
                prop_assert_eq!(parse(&spec.to_os_string()), Ok(spec));
            }
        }

        #[test]
        fn any_line_is_read_or_refused(text in "[a-c0-9@#:,/-]{0,12}") {
            if let Ok(spec) = parse(OsStr::new(&text)) {
                prop_assert_eq!(parse(&spec.to_os_string()), Ok(spec));
            }
        }
    }
}
