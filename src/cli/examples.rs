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

/// Of `mirror-plan`.
pub const MIRROR_PLAN: &str = "\
Examples:
  mallet mirror-plan 'volume.img#1' --from 0x00000001000b02d1
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
            DIFF,
            MIRROR_READ,
            MIRROR_PLAN,
        ];
        let lines = all.iter().flat_map(|text| text.lines());
        let mut tried = 0;
        for line in lines.filter(|line| line.starts_with("  mallet ")) {
            let words = line.split_whitespace();
            let words = words.take_while(|word| !matches!(*word, ">" | "|"));
            let words: Vec<&str> = words.map(|word| word.trim_matches('\'')).collect();
            Cli::try_parse_from(words).unwrap_or_else(|e| panic!("{line}: {e}"));
            tried += 1;
        }
        assert!(tried > 10);
    }
}
