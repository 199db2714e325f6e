//! Arguments about other machines.

use super::super::spec::Spec;
use super::spec;
use clap::Args;
use std::ffi::OsString;

/// How other machines are reached: by ssh, or what the environment has in `HAMMER_RSH`.
#[derive(Args, Clone, Debug)]
pub struct RemoteArgs {
    /// The port of ssh over there.
    #[arg(short = 'p', value_name = "PORT")]
    pub port: Option<u16>,
    /// Let ssh compress.
    #[arg(short = 'X')]
    pub compress: bool,
    /// The program to run over there; `hammer`, and `mallet` where there is none, if not given.
    #[arg(long, value_name = "CMD")]
    pub remote_command: Option<OsString>,
}

/// Arguments of `ssh-remote`.
#[derive(Args, Clone, Debug)]
pub struct SshRemoteArgs {
    /// The directives that may be run: mirror-read, mirror-read-stream, mirror-write,
    /// mirror-verify, mirror-status.
    #[arg(
        long,
        required = true,
        value_delimiter = ',',
        value_name = "DIRECTIVES"
    )]
    pub only: Vec<String>,
    /// The file system that may be reached; with a PFS, that PFS alone.
    #[arg(long, required = true, value_parser = spec(), value_name = "SPEC")]
    pub path: Spec,
}
