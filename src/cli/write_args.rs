//! The commands that change what is in a PFS, as on the command line and as lines of a batch.

use super::args::spec;
use super::mode::ModeChange;
use super::size;
use super::spec::Spec;
use clap::{Args, Parser, Subcommand};
use std::ffi::OsString;

/// A command's arguments with the file system in front.
#[derive(Args, Clone, Debug)]
pub struct On<A: Args> {
    /// The file system, and the PFS in it.
    #[arg(value_parser = spec())]
    pub spec: Spec,
    /// The rest.
    #[command(flatten)]
    pub what: A,
}

/// A line of a batch.
#[derive(Clone, Debug, Parser)]
#[command(
    name = "batch",
    no_binary_name = true,
    disable_help_flag = true,
    disable_help_subcommand = true,
    subcommand_required = true
)]
pub struct Line {
    /// What to do.
    #[command(subcommand)]
    pub change: Change,
}

/// One change. A batch knows these and `sync`.
#[derive(Clone, Debug, Subcommand)]
pub enum Change {
    /// Copy in.
    Put(PutArgs),
    /// Add to a file.
    Append(AppendArgs),
    /// Set a file's length.
    Truncate(TruncateArgs),
    /// Make a directory.
    Mkdir(MkdirArgs),
    /// Remove.
    Rm(RmArgs),
    /// Move.
    Mv(MvArgs),
    /// Make a link.
    Ln(LnArgs),
    /// Change permissions.
    Chmod(ChmodArgs),
    /// Change the owner.
    Chown(ChownArgs),
}

/// Arguments of `put`.
#[derive(Args, Clone, Debug)]
pub struct PutArgs {
    /// What to copy: a file, a folder, a block device, a pipe, or - for standard input. A symlink
    /// named here is followed; those inside a folder are copied as they are.
    pub src: OsString,
    /// Where it goes, exactly: the file's own path, not the directory that it goes into. A folder's
    /// contents become those of the directory PATH; what is there and not in the folder stays.
    pub path: OsString,
    /// Keep what a longer file holds behind the end of SRC.
    #[arg(long)]
    pub inplace_size: bool,
}

/// Arguments of `append`.
#[derive(Args, Clone, Debug)]
pub struct AppendArgs {
    /// What to append: a file, a block device, a pipe, or - for standard input.
    pub src: OsString,
    /// The file, which is made if it is not there.
    pub path: OsString,
}

/// Arguments of `truncate`.
#[derive(Args, Clone, Debug)]
pub struct TruncateArgs {
    /// The file.
    pub path: OsString,
    /// Its new length in bytes, with k, m, g. What is added is a hole.
    #[arg(value_parser = size::bytes)]
    pub size: u64,
}

/// Arguments of `mkdir`.
#[derive(Args, Clone, Debug)]
pub struct MkdirArgs {
    /// The directory.
    pub path: OsString,
    /// Make those on the way too; one that is there already will do.
    #[arg(short = 'p', long)]
    pub parents: bool,
}

/// Arguments of `rm`.
#[derive(Args, Clone, Debug)]
pub struct RmArgs {
    /// What to remove: anything but a directory that is not empty.
    pub path: OsString,
    /// Directories with all that is in them.
    #[arg(short = 'r', long)]
    pub recursive: bool,
    /// It need not be there.
    #[arg(short = 'f', long)]
    pub ignore_missing: bool,
}

/// Arguments of `mv`.
#[derive(Args, Clone, Debug)]
pub struct MvArgs {
    /// What to move.
    pub from: OsString,
    /// Its new path, exactly. A file there gives way to a file, an empty directory to a directory.
    pub to: OsString,
}

/// Arguments of `ln`.
#[derive(Args, Clone, Debug)]
pub struct LnArgs {
    /// Make a symlink, which may lead anywhere.
    #[arg(short = 's', long)]
    pub symbolic: bool,
    /// What the link leads to.
    #[arg(allow_hyphen_values = true)]
    pub target: OsString,
    /// The link's path.
    pub path: OsString,
}

/// Arguments of `chmod`.
#[derive(Args, Clone, Debug)]
pub struct ChmodArgs {
    /// The new permissions: octal, or changes such as u+rwx,go-w.
    #[arg(value_parser = super::mode::parse)]
    pub mode: ModeChange,
    /// The object; a symlink is followed.
    pub path: OsString,
}

/// Arguments of `chown`.
#[derive(Args, Clone, Debug)]
pub struct ChownArgs {
    /// The new owner by numbers: UID, UID:GID or :GID.
    #[arg(value_name = "UID:GID", value_parser = owner)]
    pub owner: Ids,
    /// The object; a symlink is followed.
    pub path: OsString,
}

/// Owner and group; `None` leaves it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ids {
    /// User.
    pub uid: Option<u32>,
    /// Group.
    pub gid: Option<u32>,
}

fn owner(text: &str) -> Result<Ids, String> {
    let id = |part: &str| match part {
        "" => Ok(None),
        digits if digits.bytes().all(|b| b.is_ascii_digit()) => match digits.parse() {
            Ok(id) => Ok(Some(id)),
            Err(_) => Err(format!("{digits} is more than 32 bits")),
        },
        name => Err(format!(
            "{name:?} is no number; the names of this machine mean nothing in a volume"
        )),
    };
    let (uid, gid) = text.split_once(':').unwrap_or((text, ""));
    let ids = Ids {
        uid: id(uid)?,
        gid: id(gid)?,
    };
    match ids {
        Ids {
            uid: None,
            gid: None,
        } => Err("write UID, UID:GID or :GID".into()),
        ids => Ok(ids),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn lines() {
        Line::command().debug_assert();
        for line in [
            "put /tmp/a /b",
            "put --inplace-size - /b",
            "append - /b",
            "truncate /b 8k",
            "mkdir -p /a/b",
            "rm -rf /a",
            "mv /a /b",
            "ln -s ../x /a",
            "ln /x /a",
            "chmod u+x,go-w /a",
            "chown 0:5 /a",
        ] {
            Line::try_parse_from(line.split(' ')).unwrap_or_else(|e| panic!("{line}: {e}"));
        }
        for line in [
            "",
            "sync",
            "put /a",
            "ls /",
            "chmod 9 /a",
            "truncate /b x",
            "put SPEC /a /b",
        ] {
            assert!(Line::try_parse_from(line.split(' ')).is_err(), "{line}");
        }
    }

    #[test]
    fn owners() {
        let ids = |uid, gid| Ok(Ids { uid, gid });
        assert_eq!(owner("5"), ids(Some(5), None));
        assert_eq!(owner("5:"), ids(Some(5), None));
        assert_eq!(owner("0:4294967295"), ids(Some(0), Some(u32::MAX)));
        assert_eq!(owner(":7"), ids(None, Some(7)));
        for wrong in [
            "",
            ":",
            "root",
            "1:wheel",
            "-1",
            "+1",
            "4294967296",
            "1:2:3",
        ] {
            assert!(owner(wrong).is_err(), "{wrong}");
        }
    }
}
