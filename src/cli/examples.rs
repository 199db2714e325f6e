//! What the long help and the manual pages add to each command.

/// Of `newfs`.
pub const NEWFS: &str = "\
Examples:
  mallet newfs -L backup --size 20g volume.img
  mallet newfs -L data /dev/sdb /dev/sdc
  mallet newfs -L old -V 4 -u 64m -f volume.img

An image file that does not exist is made with --size, sparse. Refused are volumes that hold
something known (-f overwrites it) and devices that are mounted or in use (unmount them). With -n
nothing is written. DragonFly writes to file systems of 304 MiB and more.
";

/// Of `show`.
pub const SHOW: &str = "\
Examples:
  mallet show volume.img
  mallet show volume.img --lo 10001 --obj 0000000100048566
  mallet show --json volume.img

Marks before nodes and elements: B wrong CRC, T type, N count, O order, L below and R above its
bounds, C child, parent or data missing, M a mirror_tid that hides changes.
";

/// Of `check`.
pub const CHECK: &str = "\
Examples:
  mallet check volume.img
  mallet check --data --json a.img,b.img,c.img

Ends with status 6 if there are errors; warnings are for what healthy volumes can have too.
";

/// Of `ls`.
pub const LS: &str = "\
Examples:
  mallet ls -l volume.img /etc
  mallet ls -R --sha256 --json 'volume.img#home' /
  mallet ls --as-of 30d volume.img /
";

/// Of `get`.
pub const GET: &str = "\
Examples:
  mallet get volume.img /etc/rc.conf .
  mallet get --as-of 0x0000000100003e80 'volume.img#home' / restored
";

/// Of `put`.
pub const PUT: &str = "\
Examples:
  mallet put volume.img disk.img /images/disk.img
  mallet put volume.img /dev/sdb /images/sdb
  mallet put 'volume.img#home' /home/ann /ann
  mallet put -n volume.img disk.img /images/disk.img

PATH is exact: a file goes to PATH, not into it. A folder's contents go into the directory
PATH, which is made if need be: files of the same path are updated; other objects in the way are
replaced, but no directory is; directories are added to; what only PATH has stays.

A file that is there already is updated by its blocks (of 16 KiB in the first MiB, 64 KiB
behind): those whose bytes differ are written, all others stay. Blocks of nothing but zeros
become holes. All of a call is one transaction: if anything cannot be read, nothing is changed.
Mode, owner, group (by number), times and hard links come along; extended attributes and ACLs
do not. Files that are written to meanwhile are copied as they are met: take a snapshot of a disk
in use first.
";

/// Of `chmod`.
pub const CHMOD: &str = "\
Examples:
  mallet chmod volume.img 640 /etc/secret
  mallet chmod volume.img u+rwx,go-w /bin/tool
";

/// Of `batch`.
pub const BATCH: &str = "\
Examples:
  mallet batch volume.img < script

Lines are commands without the file system: put, append, truncate, mkdir, rm, mv, ln, chmod,
chown. Quotes and backslashes are those of a shell, # begins a comment. All lines up to one that
says sync, or up to the end, are one transaction: if one of them fails, none of them was done,
and the rest of the script is left.

  mkdir -p /etc/rc.d
  put 'local file' /etc/rc.conf
  chmod 600 /etc/rc.conf
  sync
  rm -r /tmp/old
";

/// Of `pfs-master`, `pfs-slave` and `pfs-update`.
pub const PFS: &str = "\
Examples:
  mallet pfs-master volume.img label=home --link /home
  mallet pfs-slave 'backup.img#1' shared-uuid=45bfab25-ee10-d74b-87c0-3e37ca6742eb
  mallet pfs-update 'volume.img#home' prune-min=60d snapshots-clear
  mallet pfs-upgrade 'backup.img#1'
  mallet pfs-destroy 'volume.img#home' --link /home

A slave takes streams of the master whose shared-uuid it has (pfs-status shows it). sync-beg-tid,
sync-end-tid and shared-uuid are best left to mirroring: what is changed there by hand is believed.
";

/// Of `diff`.
pub const DIFF: &str = "\
Examples:
  mallet diff volume.img / --from 0x0000000100003e80
  mallet diff volume.img /etc --from 7d --to 2d
";

/// Of `mirror-read`.
pub const MIRROR_READ: &str = "\
Examples:
  mallet mirror-read 'volume.img#1' > full.mir
  mallet mirror-read 'volume.img#1' 0x00000001000b02d1 > incremental.mir
  mallet mirror-read -b 20m 'volume.img#1' | ssh host hammer mirror-write /path/to/slave
";

/// Of `mirror-read-stream`.
pub const MIRROR_READ_STREAM: &str = "\
Two-way (-2), as the other end of mirror-stream calls it, the target says where to begin.

Examples:
  mallet mirror-read-stream 'volume.img#1' | ssh host hammer mirror-write /path/to/slave
  mallet mirror-read-stream -i 30 'volume.img#1' 0x00000001000b02d1 > since.mir
";

/// Of `mirror-write`.
pub const MIRROR_WRITE: &str = "\
Examples:
  mallet mirror-write -y 'copy.img#1' < full.mir
  mallet mirror-write 'copy.img#1' < incremental.mir
  ssh host hammer mirror-read /path/to/master | mallet mirror-write 'copy.img#1'
";

/// Of `mirror-plan`.
pub const MIRROR_PLAN: &str = "\
Examples:
  mallet mirror-plan 'volume.img#1' --from 0x00000001000b02d1
";

/// Of `mirror-status`.
pub const MIRROR_STATUS: &str = "\
Examples:
  mallet mirror-status 'master.img#1' 'slave.img#1'
  mallet mirror-status --live --json /dev/sdb#home 'slave.img#1' 'cellar.img#3'
  mallet mirror-status 'master.img#1' 'backup@attic:/srv/home.img#1'

Behind are TIDs from the slave's to the newest of its master's PFS; bytes of data of what the master
has made since, each version of it; and seconds from the slave's newest change to the master's, left
out where the slave has not changed in many TIDs.

PFSs of other machines are asked there, by mallet: mirror-status -2 with one SPEC answers, on standard
output, what is asked on standard input.
";

/// Of `mirror-verify`.
pub const MIRROR_VERIFY: &str = "\
Examples:
  mallet mirror-verify 'master.img#1' 'slave.img#1'
  mallet mirror-verify --data 'master.img#home' 'slave.img#1'
  mallet mirror-verify --live 'master.img#1' 'backup@attic:/srv/home.img#1'

Equal ends with status 0, different with 7, another master's slave with 3. History that was pruned
makes no difference, but for what the slave still shows: a record that the source deleted after the
slave's TID and has pruned since, or changed without history, is no longer there to compare with, and
counts as different. Copy first.

With --live a writer may overtake a view; the next one goes on where that ended. Where writers are
faster than anything can be read, status 9 says so.

Either end, or both, may be on another machine. It is mallet that is called there, with -2 and the one
SPEC: it says what its PFS is, and answers, on standard output, questions about ranges of keys that
come on standard input. Keys, counts, TIDs and digests cross the link, and no data. The status of an
end that fails there is the status here; a link that breaks ends with 11.
";

/// Of `mirror-copy`.
pub const MIRROR_COPY: &str = "\
Examples:
  mallet mirror-copy 'master.img#1' 'slave.img#1'
  mallet mirror-copy -y 'a.img,b.img#home' 'slave.img#3' /dev/sdc#3
  mallet mirror-copy -n 'master.img#1' 'slave.img#1'
  mallet mirror-copy -y root@dragonfly:/home 'home.img#1'
  mallet mirror-copy 'home.img#1' 'backup@attic:/srv/home.img#1'
";

/// Of `mirror-stream`.
pub const MIRROR_STREAM: &str = "\
Examples:
  mallet mirror-stream 'master.img#1' 'slave.img#1'
  mallet mirror-stream -y -i 10 -b 2m 'a.img,b.img#home' 'slave.img#3' /dev/sdc#3
  mallet mirror-stream --json --retries 20 'master.img#1' 'slave.img#1' > passes.json
  mallet mirror-stream -b 2m 'master.img#1' 'backup@host:/srv/home.img#1' 'other:/pfs/slave'
";

/// Of `ssh-remote`.
pub const SSH_REMOTE: &str = "\
In authorized_keys, before the key, one line:
  command=\"mallet ssh-remote --only mirror-write --path /srv/home.img#1\",restrict ssh-ed25519 ...

The peer's command line is in SSH_ORIGINAL_COMMAND, where sshd puts it. It is not read by a shell.
A key for whoever checks a slave, and cannot read it, has --only mirror-verify,mirror-status.
";

/// Of `info`.
pub const INFO: &str = "\
Examples:
  mallet info volume.img
  mallet info --map a.img,b.img
  mallet info /dev/sdb@1m
";

#[cfg(test)]
mod tests {
    use super::super::args::Cli;
    use super::*;
    use clap::Parser;

    #[test]
    fn examples_are_accepted() {
        let all = [
            NEWFS,
            INFO,
            SHOW,
            CHECK,
            LS,
            GET,
            PUT,
            CHMOD,
            BATCH,
            DIFF,
            MIRROR_READ,
            MIRROR_READ_STREAM,
            MIRROR_PLAN,
            MIRROR_STATUS,
            MIRROR_VERIFY,
            MIRROR_COPY,
            MIRROR_STREAM,
        ];
        let lines = all.iter().flat_map(|text| text.lines());
        let mut tried = 0;
        for line in lines.filter(|line| line.starts_with("  mallet ")) {
            let words = line.split_whitespace();
            let words = words.take_while(|word| !matches!(*word, ">" | "<" | "|"));
            let words: Vec<&str> = words.map(|word| word.trim_matches('\'')).collect();
            Cli::try_parse_from(words).unwrap_or_else(|e| panic!("{line}: {e}"));
            tried += 1;
        }
        assert!(tried > 10);
    }
}
