//! The command line as a value: one definition feeds the parser, the help, the manual and the
//! completions.
//!
//! Names and letters are those of `hammer(8)`. The options of [`Global`] may stand before or after
//! the command.

mod copies;
mod making;
mod mirror;
mod remote;

pub use copies::{MirrorCopyArgs, MirrorStreamArgs};
pub use making::{NewfsArgs, PfsDestroyArgs, PfsNewArgs, PfsUpdateArgs};
pub use mirror::{
    MirrorPlanArgs, MirrorReadArgs, MirrorReadStreamArgs, MirrorStatusArgs, MirrorVerifyArgs,
    MirrorWriteArgs,
};
pub use remote::{RemoteArgs, SshRemoteArgs};

use super::asof::{self, AsOf};
use super::examples;
use super::size;
use super::spec::{self, Spec};
use super::write_args::{
    AppendArgs, Change, ChmodArgs, ChownArgs, LnArgs, MkdirArgs, MvArgs, On, PutArgs, RmArgs,
    TruncateArgs,
};
use clap::builder::{OsStringValueParser, TypedValueParser, ValueParser};
use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum};
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

/// Read, check and mirror DragonFly BSD HAMMER volumes in user space.
#[derive(Clone, Debug, Parser)]
#[command(
    name = "mallet",
    version,
    subcommand_required = true,
    arg_required_else_help = true,
    disable_help_subcommand = true,
    infer_subcommands = false,
    after_help = SPEC_HELP,
    after_long_help = concat!(
        "Naming a file system:\n",
        "  SPEC is VOL[,VOL...][#PFS]: every volume of one file system, image files or devices in\n",
        "  any order, and the number or the label of a PFS (the root PFS where none is named).\n",
        "  VOL is PATH[@OFFSET]; the offset of a volume inside a larger device is in bytes, with k,\n",
        "  m, g for KiB, MiB, GiB. Paths inside a file system are absolute; name@@0x... is a name\n",
        "  as of a TID.\n",
        "\n",
        "Exit status:\n",
        "  0 done, 1 other error, 2 usage, 3 wrong or incompatible target, 4 busy, 5 I/O error,\n",
        "  6 damage found, 7 difference found, 8 too many implied deletes, 9 interrupted,\n",
        "  10 no space, 11 protocol or link error.\n",
    ),
)]
pub struct Cli {
    /// Options of every command.
    #[command(flatten)]
    pub global: Global,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

const SPEC_HELP: &str = "SPEC is VOL[,VOL...][#PFS], VOL is PATH[@OFFSET]. More with --help.";

/// Options accepted before and after every command.
#[derive(Args, Clone, Debug, Default)]
pub struct Global {
    /// Say more; repeat for still more.
    #[arg(short, long, global = true, action = ArgAction::Count)]
    pub verbose: u8,

    /// Say less: no progress, no notes; warnings and errors stay.
    #[arg(short, long, global = true, action = ArgAction::Count)]
    pub quiet: u8,

    /// One JSON object a line on standard output (on standard error where standard output carries
    /// a stream or a file).
    #[arg(long, global = true)]
    pub json: bool,

    /// When to show progress; a bar on a terminal, else a line now and then.
    #[arg(
        long,
        global = true,
        value_enum,
        value_name = "WHEN",
        default_value_t,
        hide_possible_values = false
    )]
    pub progress: When,

    /// How to read devices.
    #[arg(long, global = true, value_enum, value_name = "ENGINE", default_value_t, help_heading = DEVICES)]
    pub io: Engine,

    /// Whether to read around the host's page cache.
    #[arg(long, global = true, value_enum, value_name = "HOW", default_value_t, help_heading = DEVICES)]
    pub direct: Switch,

    /// Memory for metadata, in bytes with k, m, g.
    #[arg(short = 'C', long, global = true, value_name = "SIZE", value_parser = size::cache, default_value = "64m", help_heading = DEVICES)]
    pub cache: u64,

    /// Read beside a running writer: takes no lock, and reads as of a committed state.
    #[arg(long, global = true, help_heading = DEVICES)]
    pub live: bool,

    /// How long to wait for a lock, in seconds.
    #[arg(long, global = true, value_name = "SECS", value_parser = size::seconds, default_value = "0", help_heading = DEVICES)]
    pub lock_wait: Duration,

    /// Give up the other end of a two-way session that is not heard for so many seconds; what was
    /// acknowledged stays.
    ///
    /// Two mallets tell each other that they are alive while they have nothing else to say; with them,
    /// less than 3 seconds count as 3. Any other end may be silent as long as it owes no answer.
    #[arg(long, global = true, value_name = "SECS", value_parser = size::seconds)]
    pub peer_timeout: Option<Duration>,

    /// End at the next safe point after so many seconds, with status 9.
    #[arg(short = 't', global = true, value_name = "SECS", value_parser = size::seconds)]
    pub time_limit: Option<Duration>,

    /// Answer every question with yes.
    #[arg(short = 'y', global = true)]
    pub yes: bool,

    /// Say what would be done, and change nothing.
    #[arg(short = 'n', long, global = true)]
    pub dry_run: bool,

    /// Do it all the same: what a command asks about or would refuse. A volume that needs recovery
    /// is not watched for another writer first.
    #[arg(short = 'F', long, global = true)]
    pub force: bool,

    /// Do not carry out the REDO log of a crashed system: what its programs had made durable by
    /// fsync since its last flush is lost.
    #[arg(long, global = true, help_heading = DEVICES)]
    pub no_redo: bool,

    /// At most so many bytes per second into a stream, with k, m, g; 0 is no limit.
    #[arg(short = 'b', global = true, value_name = "RATE", value_parser = size::bytes, help_heading = STREAMS)]
    pub bandwidth: Option<u64>,

    /// Split a bulk stream into parts of about so many bytes, with k, m, g.
    #[arg(short = 'S', global = true, value_name = "SIZE", value_parser = size::some_bytes, help_heading = STREAMS)]
    pub split: Option<u64>,

    /// Do not split.
    #[arg(short = 'B', global = true, help_heading = STREAMS)]
    pub no_split: bool,

    /// Keep the position of an interrupted one-way stream in this file.
    #[arg(short = 'c', global = true, value_name = "FILE", help_heading = STREAMS)]
    pub cycle: Option<PathBuf>,

    /// Let the target acknowledge a stream although not everything could be read.
    #[arg(long, global = true, help_heading = STREAMS)]
    pub accept_damage: bool,

    /// Let a stream delete most of what it meets in a slave.
    #[arg(long, global = true, help_heading = STREAMS)]
    pub allow_deletes: bool,

    /// Two-way: a stream on one of standard input and output, answers on the other.
    #[arg(short = '2', global = true, help_heading = STREAMS)]
    pub two_way: bool,
}

const DEVICES: &str = "Devices";
const STREAMS: &str = "Streams";

impl Global {
    /// How talkative to be: 0 is usual, below is quiet. `-v` and `-q` cancel each other.
    pub fn level(&self) -> i32 {
        i32::from(self.verbose) - i32::from(self.quiet)
    }
}

/// When to show progress.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum When {
    /// Where an operation takes more than a moment.
    #[default]
    Auto,
    /// From the start to the end.
    Always,
    /// Not at all.
    Never,
}

/// How to read devices.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Engine {
    /// io_uring where the host allows it.
    #[default]
    Auto,
    /// io_uring, or fail.
    Uring,
    /// Positioned reads.
    Posix,
}

/// Whether to use something.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Switch {
    /// Where the host allows it.
    #[default]
    Auto,
    /// Yes, or fail.
    On,
    /// No.
    Off,
}

/// What to do.
#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// Make a file system on image files or devices.
    #[command(after_long_help = examples::NEWFS)]
    Newfs(NewfsArgs),
    /// Describe a file system: versions, space per zone, TIDs, UNDO state, PFSs, volumes.
    #[command(after_long_help = examples::INFO)]
    Info(InfoArgs),
    /// Print the B-Tree, in key order, with what is wrong in it.
    #[command(after_long_help = examples::SHOW)]
    Show(ShowArgs),
    /// Print the UNDO FIFO.
    ShowUndo(SpecArgs),
    /// Print the freemap.
    Blockmap(SpecArgs),
    /// Verify a file system without writing to it.
    #[command(after_long_help = examples::CHECK)]
    Check(CheckArgs),
    /// List directories.
    #[command(after_long_help = examples::LS)]
    Ls(LsArgs),
    /// Show what is known of an object.
    Stat(PathArgs),
    /// Write a file to standard output.
    Cat(PathArgs),
    /// Copy a file or a tree out of a volume.
    #[command(after_long_help = examples::GET)]
    Get(GetArgs),
    /// Copy a file, a folder, a disk image or a block device into a volume.
    #[command(after_long_help = examples::PUT)]
    Put(On<PutArgs>),
    /// Add to the end of a file.
    Append(On<AppendArgs>),
    /// Set a file's length.
    Truncate(On<TruncateArgs>),
    /// Make a directory.
    Mkdir(On<MkdirArgs>),
    /// Remove a file, or a directory with -r.
    Rm(On<RmArgs>),
    /// Move or rename.
    Mv(On<MvArgs>),
    /// Give an object another name, or make a symlink.
    Ln(On<LnArgs>),
    /// Change permissions.
    #[command(after_long_help = examples::CHMOD)]
    Chmod(On<ChmodArgs>),
    /// Change owner and group.
    Chown(On<ChownArgs>),
    /// Carry out changes from standard input, one a line.
    #[command(after_long_help = examples::BATCH)]
    Batch(SpecArgs),
    /// List the versions of an object, with TIDs and times.
    History(HistoryArgs),
    /// List what differs between two TIDs.
    #[command(after_long_help = examples::DIFF)]
    Diff(DiffArgs),
    /// Show PFSs.
    PfsStatus(SpecArgs),
    /// Make a PFS that is written to.
    #[command(after_long_help = examples::PFS)]
    PfsMaster(PfsNewArgs),
    /// Make a PFS that follows a master.
    #[command(after_long_help = examples::PFS)]
    PfsSlave(PfsNewArgs),
    /// Change what a PFS's record says.
    #[command(after_long_help = examples::PFS)]
    PfsUpdate(PfsUpdateArgs),
    /// Make a master of a slave; what is above its sync-end-tid is taken back.
    PfsUpgrade(SpecArgs),
    /// Make a slave of a master.
    PfsDowngrade(SpecArgs),
    /// Destroy a PFS with everything in it.
    PfsDestroy(PfsDestroyArgs),
    /// List snapshots.
    Snapls(SpecArgs),
    /// Write a mirroring stream to standard output.
    #[command(after_long_help = examples::MIRROR_READ)]
    MirrorRead(MirrorReadArgs),
    /// Write a stream to standard output that goes on whenever the source has more, until stopped.
    #[command(after_long_help = examples::MIRROR_READ_STREAM)]
    MirrorReadStream(MirrorReadStreamArgs),
    /// Print the stream on standard input.
    MirrorDump(MirrorDumpArgs),
    /// Apply the mirroring stream on standard input to a slave.
    #[command(after_long_help = examples::MIRROR_WRITE)]
    MirrorWrite(MirrorWriteArgs),
    /// Bring slaves up to date with a PFS: those of this machine in one scan, others over ssh.
    #[command(after_long_help = examples::MIRROR_COPY)]
    MirrorCopy(MirrorCopyArgs),
    /// Keep slaves up to date with a PFS that is being written to, until stopped.
    #[command(after_long_help = examples::MIRROR_STREAM)]
    MirrorStream(MirrorStreamArgs),
    /// Say what a stream would hold, without reading data; with a target, what a copy would do.
    #[command(after_long_help = examples::MIRROR_PLAN)]
    MirrorPlan(MirrorPlanArgs),
    /// Show how far PFSs are, and how far slaves are behind their masters.
    #[command(after_long_help = examples::MIRROR_STATUS)]
    MirrorStatus(MirrorStatusArgs),
    /// Prove that a slave shows what its source shows as of the slave's TID.
    #[command(after_long_help = examples::MIRROR_VERIFY)]
    MirrorVerify(MirrorVerifyArgs),
    /// Do what a peer's ssh asks for, if it is what this key allows (for authorized_keys).
    #[command(after_long_help = examples::SSH_REMOTE)]
    SshRemote(SshRemoteArgs),
    /// Show a file system's version and what each version means.
    Version(SpecArgs),
    /// List the volumes of a file system.
    VolumeList(SpecArgs),
    /// Write completions for a shell to standard output.
    Completions(CompletionsArgs),
    /// Write a manual page to standard output.
    Man(ManArgs),
}

impl Command {
    /// Its name as typed.
    pub fn name(&self) -> &'static str {
        match self {
            Command::Newfs(_) => "newfs",
            Command::Info(_) => "info",
            Command::Show(_) => "show",
            Command::ShowUndo(_) => "show-undo",
            Command::Blockmap(_) => "blockmap",
            Command::Check(_) => "check",
            Command::Ls(_) => "ls",
            Command::Stat(_) => "stat",
            Command::Cat(_) => "cat",
            Command::Get(_) => "get",
            Command::Put(_) => "put",
            Command::Append(_) => "append",
            Command::Truncate(_) => "truncate",
            Command::Mkdir(_) => "mkdir",
            Command::Rm(_) => "rm",
            Command::Mv(_) => "mv",
            Command::Ln(_) => "ln",
            Command::Chmod(_) => "chmod",
            Command::Chown(_) => "chown",
            Command::Batch(_) => "batch",
            Command::History(_) => "history",
            Command::Diff(_) => "diff",
            Command::PfsStatus(_) => "pfs-status",
            Command::PfsMaster(_) => "pfs-master",
            Command::PfsSlave(_) => "pfs-slave",
            Command::PfsUpdate(_) => "pfs-update",
            Command::PfsUpgrade(_) => "pfs-upgrade",
            Command::PfsDowngrade(_) => "pfs-downgrade",
            Command::PfsDestroy(_) => "pfs-destroy",
            Command::Snapls(_) => "snapls",
            Command::MirrorRead(_) => "mirror-read",
            Command::MirrorReadStream(_) => "mirror-read-stream",
            Command::MirrorWrite(_) => "mirror-write",
            Command::MirrorDump(_) => "mirror-dump",
            Command::MirrorPlan(_) => "mirror-plan",
            Command::MirrorStatus(_) => "mirror-status",
            Command::MirrorVerify(_) => "mirror-verify",
            Command::MirrorCopy(_) => "mirror-copy",
            Command::MirrorStream(_) => "mirror-stream",
            Command::SshRemote(_) => "ssh-remote",
            Command::Version(_) => "version",
            Command::VolumeList(_) => "volume-list",
            Command::Completions(_) => "completions",
            Command::Man(_) => "man",
        }
    }

    /// The file system it is about.
    pub fn spec(&self) -> Option<&Spec> {
        match self {
            Command::Info(InfoArgs { spec, .. })
            | Command::Show(ShowArgs { spec, .. })
            | Command::Check(CheckArgs { spec, .. })
            | Command::Ls(LsArgs { spec, .. })
            | Command::Get(GetArgs { spec, .. })
            | Command::Put(On { spec, .. })
            | Command::Append(On { spec, .. })
            | Command::Truncate(On { spec, .. })
            | Command::Mkdir(On { spec, .. })
            | Command::Rm(On { spec, .. })
            | Command::Mv(On { spec, .. })
            | Command::Ln(On { spec, .. })
            | Command::Chmod(On { spec, .. })
            | Command::Chown(On { spec, .. })
            | Command::History(HistoryArgs { spec, .. })
            | Command::Diff(DiffArgs { spec, .. })
            | Command::MirrorRead(MirrorReadArgs { spec, .. })
            | Command::MirrorReadStream(MirrorReadStreamArgs { spec, .. })
            | Command::MirrorPlan(MirrorPlanArgs { spec, .. })
            | Command::MirrorWrite(MirrorWriteArgs { spec })
            | Command::Stat(PathArgs { spec, .. })
            | Command::Cat(PathArgs { spec, .. })
            | Command::ShowUndo(SpecArgs { spec })
            | Command::Batch(SpecArgs { spec })
            | Command::Blockmap(SpecArgs { spec })
            | Command::PfsStatus(SpecArgs { spec })
            | Command::PfsMaster(PfsNewArgs { spec, .. })
            | Command::PfsSlave(PfsNewArgs { spec, .. })
            | Command::PfsUpdate(PfsUpdateArgs { spec, .. })
            | Command::PfsDestroy(PfsDestroyArgs { spec, .. })
            | Command::PfsUpgrade(SpecArgs { spec })
            | Command::PfsDowngrade(SpecArgs { spec })
            | Command::Snapls(SpecArgs { spec })
            | Command::Version(SpecArgs { spec })
            | Command::VolumeList(SpecArgs { spec }) => Some(spec),
            // These name several, and errors say which one they are about.
            Command::Newfs(_)
            | Command::MirrorCopy(_)
            | Command::MirrorStream(_)
            | Command::MirrorDump(_)
            | Command::MirrorStatus(_)
            | Command::MirrorVerify(_)
            | Command::SshRemote(_)
            | Command::Completions(_)
            | Command::Man(_) => None,
        }
    }

    /// The change that it makes to the contents of a PFS, if it is one.
    pub fn change(&self) -> Option<Change> {
        Some(match self {
            Command::Put(on) => Change::Put(on.what.clone()),
            Command::Append(on) => Change::Append(on.what.clone()),
            Command::Truncate(on) => Change::Truncate(on.what.clone()),
            Command::Mkdir(on) => Change::Mkdir(on.what.clone()),
            Command::Rm(on) => Change::Rm(on.what.clone()),
            Command::Mv(on) => Change::Mv(on.what.clone()),
            Command::Ln(on) => Change::Ln(on.what.clone()),
            Command::Chmod(on) => Change::Chmod(on.what.clone()),
            Command::Chown(on) => Change::Chown(on.what.clone()),
            _ => return None,
        })
    }

    /// Whether standard output carries bytes that are not lines of ours, so that events go to
    /// standard error.
    pub fn owns_stdout(&self, global: &Global) -> bool {
        match self {
            Command::Cat(_)
            | Command::MirrorRead(_)
            | Command::MirrorReadStream(_)
            | Command::Completions(_)
            | Command::Man(_) => true,
            Command::MirrorWrite(_) | Command::MirrorVerify(_) | Command::MirrorStatus(_) => {
                global.two_way
            }
            _ => false,
        }
    }

    /// Whether it writes to volumes: it may take a while then to come to a safe point.
    pub fn writes(&self) -> bool {
        matches!(
            self,
            Command::Newfs(_)
                | Command::MirrorCopy(_)
                | Command::MirrorStream(_)
                | Command::MirrorWrite(_)
                | Command::PfsMaster(_)
                | Command::PfsSlave(_)
                | Command::PfsUpdate(_)
                | Command::PfsUpgrade(_)
                | Command::PfsDowngrade(_)
                | Command::PfsDestroy(_)
        )
    }

    /// Whether a broken pipe is an error: standard output carries a stream that is worthless unless
    /// complete, or the command would go on.
    pub fn is_stream(&self) -> bool {
        matches!(
            self,
            Command::MirrorRead(_)
                | Command::MirrorReadStream(_)
                | Command::MirrorWrite(_)
                | Command::MirrorStream(_)
        )
    }
}

/// Reads a SPEC.
pub fn spec() -> ValueParser {
    OsStringValueParser::new()
        .try_map(|text: OsString| spec::parse(&text))
        .into()
}

/// Arguments of a command on a whole file system or PFS.
#[derive(Args, Clone, Debug)]
pub struct SpecArgs {
    /// The file system.
    #[arg(value_parser = spec())]
    pub spec: Spec,
}

/// Arguments of `info`.
#[derive(Args, Clone, Debug)]
pub struct InfoArgs {
    /// The file system.
    #[arg(value_parser = spec())]
    pub spec: Spec,
    /// Draw the freemap, a character a big-block.
    #[arg(long)]
    pub map: bool,
}

/// Arguments of `show`.
#[derive(Args, Clone, Debug)]
pub struct ShowArgs {
    /// The file system.
    #[arg(value_parser = spec())]
    pub spec: Spec,
    /// Only this localization, hexadecimal: the PFS times 0x10000, plus 1 for inodes, 2 for the
    /// rest.
    #[arg(long, value_name = "LO", value_parser = localization)]
    pub lo: Option<u32>,
    /// Only this object, hexadecimal.
    #[arg(long, value_name = "OBJ", value_parser = size::hex)]
    pub obj: Option<u64>,
}

fn localization(text: &str) -> Result<u32, String> {
    u32::try_from(size::hex(text)?).map_err(|_| format!("{text:?} is more than 32 bits"))
}

/// Arguments of `check`.
#[derive(Args, Clone, Debug)]
pub struct CheckArgs {
    /// The file system.
    #[arg(value_parser = spec())]
    pub spec: Spec,
    /// Read all file data too and verify it.
    #[arg(long)]
    pub data: bool,
    /// Verify that no change is hidden from an incremental mirror.
    #[arg(long)]
    pub mirror_tid: bool,
}

/// Which moment to look at.
#[derive(Args, Clone, Debug, Default)]
pub struct AsOfArgs {
    /// The state at a TID (0x...), a time (RFC 3339), so long ago (2h, 30d), or of a snapshot's
    /// label.
    #[arg(long, value_name = "WHEN", value_parser = asof::parse)]
    pub as_of: Option<AsOf>,
}

/// Arguments of `ls`.
#[derive(Args, Clone, Debug)]
pub struct LsArgs {
    /// The file system.
    #[arg(value_parser = spec())]
    pub spec: Spec,
    /// What to list.
    #[arg(default_value = "/")]
    pub path: OsString,
    /// Kind, mode, links, owner, size, time of each.
    #[arg(short = 'l', long)]
    pub long: bool,
    /// With everything below.
    #[arg(short = 'R', long)]
    pub recursive: bool,
    /// With the SHA-256 of every file's contents.
    #[arg(long)]
    pub sha256: bool,
    /// When.
    #[command(flatten)]
    pub when: AsOfArgs,
}

/// Arguments of `stat` and `cat`.
#[derive(Args, Clone, Debug)]
pub struct PathArgs {
    /// The file system.
    #[arg(value_parser = spec())]
    pub spec: Spec,
    /// The object.
    pub path: OsString,
    /// When.
    #[command(flatten)]
    pub when: AsOfArgs,
}

/// Arguments of `get`.
#[derive(Args, Clone, Debug)]
pub struct GetArgs {
    /// The file system.
    #[arg(value_parser = spec())]
    pub spec: Spec,
    /// The file or tree inside it.
    pub path: OsString,
    /// Where to put it: a tree's contents into this folder, which is made if need be; a file under
    /// this name, or into this folder.
    pub dest: PathBuf,
    /// Replace files that are there already.
    #[arg(short = 'F', long)]
    pub force: bool,
    /// When.
    #[command(flatten)]
    pub when: AsOfArgs,
}

/// Arguments of `history`.
#[derive(Args, Clone, Debug)]
pub struct HistoryArgs {
    /// The file system.
    #[arg(value_parser = spec())]
    pub spec: Spec,
    /// The object.
    pub path: OsString,
}

/// Arguments of `diff`.
#[derive(Args, Clone, Debug)]
pub struct DiffArgs {
    /// The file system.
    #[arg(value_parser = spec())]
    pub spec: Spec,
    /// The file or tree.
    #[arg(default_value = "/")]
    pub path: OsString,
    /// The earlier state; what --as-of takes.
    #[arg(long, value_name = "TID", value_parser = asof::parse)]
    pub from: AsOf,
    /// The later state; the current one if not given.
    #[arg(long, value_name = "TID", value_parser = asof::parse)]
    pub to: Option<AsOf>,
}

/// Arguments of `mirror-dump`.
#[derive(Args, Clone, Debug)]
pub struct MirrorDumpArgs {
    /// Print only the stream's first header.
    #[arg(value_enum)]
    pub what: Option<DumpWhat>,
}

/// What of a stream to print.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum DumpWhat {
    /// The first header.
    Header,
}

/// Arguments of `completions`.
#[derive(Args, Clone, Debug)]
pub struct CompletionsArgs {
    /// The shell.
    #[arg(value_enum)]
    pub shell: clap_complete::Shell,
}

/// Arguments of `man`.
#[derive(Args, Clone, Debug)]
pub struct ManArgs {
    /// The command whose page is wanted; the page of the program if not given.
    pub command: Option<String>,
    /// Write every page into this folder instead.
    #[arg(long, value_name = "FOLDER", conflicts_with = "command")]
    pub all: Option<PathBuf>,
}

#[cfg(test)]
mod tests;
