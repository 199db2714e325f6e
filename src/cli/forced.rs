//! `ssh-remote`: the forced command of a key in `authorized_keys`. Whoever has the key can run the
//! directives that it allows on the one file system that it names, and nothing else.

use super::args::{Global, SshRemoteArgs};
use super::spec::{self, Local, Spec};
use crate::error::{Error, Result};
use std::ffi::{OsStr, OsString};
use std::path::Path;

/// What a command may be called by.
const PROGRAMS: [&str; 2] = ["hammer", "mallet"];
/// Options that a peer sends and that reach nothing but the stream, and how volumes are read.
const FLAGS: [&str; 8] = ["-v", "-vv", "-vvv", "-q", "-y", "-2", "-B", "--live"];
/// The same, with a number behind each.
const NUMBERS: [&str; 4] = ["-t", "-S", "-b", "-i"];
/// Directives that can be allowed.
const DIRECTIVES: [&str; 5] = [
    "mirror-read",
    "mirror-read-stream",
    "mirror-write",
    "mirror-verify",
    "mirror-status",
];

/// The command line to carry out in place of `asked`, which the peer's ssh asked for.
///
/// Errors: class `Usage` for anything that is not allowed.
pub fn line(args: &SshRemoteArgs, asked: Option<OsString>) -> Result<Vec<OsString>> {
    let refused = |what: String| Error::usage(format!("this key does not allow {what}"));
    let unknown = args
        .only
        .iter()
        .find(|name| !DIRECTIVES.contains(&name.as_str()));
    if let Some(name) = unknown {
        let text = format!("--only {name}: one of {}", DIRECTIVES.join(", "));
        return Err(Error::usage(text));
    }
    let Some(asked) = asked else {
        return Err(refused("a shell: name a command".into()));
    };
    let asked = asked
        .to_str()
        .ok_or_else(|| refused("a command that is not UTF-8".into()))?;
    // No shell reads it: what a shell would expand is refused below, for it is no path of ours.
    let mut words = asked.split_ascii_whitespace();
    let program = words.next().unwrap_or_default();
    let name = Path::new(program).file_name().and_then(OsStr::to_str);
    if !name.is_some_and(|name| PROGRAMS.contains(&name)) {
        return Err(refused(format!("the program {program:?}")));
    }
    let mut line = vec![OsString::from("mallet")];
    let mut rest = Vec::new();
    while let Some(word) = words.next() {
        if FLAGS.contains(&word) {
            line.push(word.into());
        } else if NUMBERS.contains(&word) {
            let number = words.next().unwrap_or_default();
            let is_number = number.starts_with(|c: char| c.is_ascii_digit());
            if !is_number || !number.bytes().all(|b| b.is_ascii_alphanumeric()) {
                return Err(refused(format!("{word} {number:?}")));
            }
            line.extend([word.into(), number.into()]);
        } else if word.starts_with('-') {
            return Err(refused(format!("the option {word:?}")));
        } else {
            rest.push(word);
        }
    }
    let [directive, target] = rest[..] else {
        return Err(refused(format!(
            "{asked:?}: a directive and a file system are expected"
        )));
    };
    if !args.only.iter().any(|only| only == directive) {
        return Err(refused(format!("the directive {directive:?}")));
    }
    if !is_within(&args.path, target) {
        return Err(refused(format!("the file system {target:?}")));
    }
    line.extend([directive.into(), target.into()]);
    Ok(line)
}

/// The options under which it is carried out: those of the key's owner, and beside them what the peer
/// may ask for. A limit of the owner's holds.
pub fn within(own: Global, asked: &Global) -> Global {
    let least = |own: Option<u64>, asked: Option<u64>| {
        let given = [own, asked].into_iter().flatten();
        given.filter(|rate| *rate > 0).min()
    };
    let limits = [own.time_limit, asked.time_limit];
    Global {
        verbose: own.verbose.max(asked.verbose),
        quiet: own.quiet.max(asked.quiet),
        yes: own.yes || asked.yes,
        live: own.live || asked.live,
        two_way: asked.two_way,
        time_limit: limits.into_iter().flatten().min(),
        bandwidth: least(own.bandwidth, asked.bandwidth),
        split: asked.split.or(own.split),
        no_split: own.no_split || asked.no_split,
        interval: own.interval.max(asked.interval),
        ..own
    }
}

/// Whether `target` names what `allowed` does: the same volumes, and the same PFS if that names one.
fn is_within(allowed: &Spec, target: &str) -> bool {
    let (Spec::Local(allowed), Ok(Spec::Local(target))) =
        (allowed, spec::parse(OsStr::new(target)))
    else {
        return false;
    };
    let Local { volumes, pfs } = target;
    allowed.volumes == volumes && (allowed.pfs.is_none() || allowed.pfs == pfs)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(path: &str, command: &str) -> Result<String> {
        let args = SshRemoteArgs {
            only: vec!["mirror-write".into()],
            path: spec::parse(OsStr::new(path)).expect("a SPEC"),
        };
        let line = line(&args, Some(command.into()))?;
        let words: Vec<&str> = line.iter().filter_map(|word| word.to_str()).collect();
        Ok(words.join(" "))
    }

    #[test]
    fn what_a_peer_sends() {
        for command in [
            "hammer -2 mirror-write /v#1",
            "/sbin/hammer -vv -y -2 -t 30 -S 4g mirror-write /v#1",
            "mallet -2 mirror-write /v#1",
        ] {
            let got = asked("/v#1", command).unwrap();
            assert!(got.starts_with("mallet -"), "{got}");
            assert!(got.ends_with(" mirror-write /v#1"), "{got}");
        }
        assert!(asked("/v", "hammer -2 mirror-write /v#7").is_ok());
    }

    #[test]
    fn the_owners_options_hold() {
        let own = Global {
            bandwidth: Some(1000),
            no_redo: true,
            ..Global::default()
        };
        let asked = |bandwidth| Global {
            bandwidth,
            two_way: true,
            yes: true,
            no_redo: false,
            ..Global::default()
        };
        for (rate, least) in [
            (None, 1000),
            (Some(0), 1000),
            (Some(70), 70),
            (Some(5000), 1000),
        ] {
            let got = within(own.clone(), &asked(rate));
            assert_eq!(got.bandwidth, Some(least), "{rate:?}");
            assert!(got.two_way && got.yes && got.no_redo);
        }
    }

    #[test]
    fn everything_else_is_refused() {
        for command in [
            "",
            "sh -c true",
            "hammer",
            "hammer -2 mirror-write",
            "hammer -2 mirror-read /v#1",
            "hammer -2 rm /v#1 /file",
            "hammer -2 mirror-write /v#2",
            "hammer -2 mirror-write /w#1",
            "hammer -2 mirror-write /v,/w#1",
            "hammer -2 mirror-write /v@1m#1",
            "hammer -2 mirror-write host:/v#1",
            "hammer -2 mirror-write /x/../v#1",
            "hammer -2 mirror-write /v#1 more",
            "hammer -2 mirror-write /v#1;true",
            "hammer -2 mirror-write $(true)",
            "hammer -2 -c /etc/passwd mirror-write /v#1",
            "hammer -2 -F mirror-write /v#1",
            "hammer -2 --metrics /x mirror-write /v#1",
            "hammer -2 -t mirror-write /v#1",
            "hammer -2 -t 1;x mirror-write /v#1",
            "hammer -2c/etc/passwd mirror-write /v#1",
        ] {
            let error = asked("/v#1", command).unwrap_err();
            assert_eq!(error.class(), crate::error::Class::Usage, "{command}");
        }
    }
}
