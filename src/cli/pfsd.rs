//! The text of a PFS's state, as `pfs-status` and `mirror-dump header` print it (mirroring.md
//! §9.7). Scripts read these lines.

use super::escape;
use crate::format::record::PfsData;
use std::fmt;
use uuid::Uuid;

const MINUTE: u32 = 60;
const HOUR: u32 = 60 * MINUTE;
const DAY: u32 = 24 * HOUR;

/// A PFS's state as lines, indented by four blanks.
pub struct Lines<'a>(pub &'a PfsData);

impl fmt::Display for Lines<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let pfs = self.0;
        writeln!(f, "    sync-beg-tid=0x{:016x}", pfs.sync_beg_tid)?;
        writeln!(f, "    sync-end-tid=0x{:016x}", pfs.sync_end_tid)?;
        writeln!(
            f,
            "    shared-uuid={}",
            Uuid::from_bytes_le(pfs.shared_uuid)
        )?;
        writeln!(
            f,
            "    unique-uuid={}",
            Uuid::from_bytes_le(pfs.unique_uuid)
        )?;
        writeln!(f, "    label=\"{}\"", escape::name(pfs.label()))?;
        if !pfs.snapshots().is_empty() {
            writeln!(f, "    snapshots=\"{}\"", escape::name(pfs.snapshots()))?;
        }
        writeln!(f, "    prune-min={}", Age(pfs.prune_min.get()))?;
        let kind = if pfs.is_slave() { "SLAVE" } else { "MASTER" };
        writeln!(f, "    operating as a {kind}")
    }
}

/// Seconds as `hh:mm:ss`, `Nd/hh:mm:ss` or `Nd`.
pub struct Age(pub u32);

impl fmt::Display for Age {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (days, rest) = (self.0 / DAY, self.0 % DAY);
        let (hours, minutes, seconds) = (rest / HOUR, rest % HOUR / MINUTE, rest % MINUTE);
        match (days, rest) {
            (0, _) => write!(f, "{hours:02}:{minutes:02}:{seconds:02}"),
            (_, 0) => write!(f, "{days}d"),
            _ => write!(f, "{days}d/{hours:02}:{minutes:02}:{seconds:02}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_originals_lines() {
        let mut pfs = PfsData::default_for([0; 16]);
        pfs.sync_beg_tid.set(1);
        pfs.sync_end_tid.set(0x1_000b_83a0);
        pfs.shared_uuid = [
            0x25, 0xab, 0xbf, 0x45, 0x10, 0xee, 0x4b, 0xd7, 0x87, 0xc0, 0x3e, 0x37, 0xca, 0x67,
            0x42, 0xeb,
        ];
        pfs.label[..3].copy_from_slice(b"a\x1bb");
        assert_eq!(
            Lines(&pfs).to_string(),
            "    sync-beg-tid=0x0000000000000001\n\
             \x20   sync-end-tid=0x00000001000b83a0\n\
             \x20   shared-uuid=45bfab25-ee10-d74b-87c0-3e37ca6742eb\n\
             \x20   unique-uuid=00000000-0000-0000-0000-000000000000\n\
             \x20   label=\"a\\x1bb\"\n\
             \x20   prune-min=00:00:00\n\
             \x20   operating as a MASTER\n"
        );
        pfs.mirror_flags.set(PfsData::SLAVE);
        pfs.snapshots[..2].copy_from_slice(b"/s");
        let text = Lines(&pfs).to_string();
        assert!(text.contains("    snapshots=\"/s\"\n    prune-min="));
        assert!(text.ends_with("    operating as a SLAVE\n"));
    }

    #[test]
    fn ages() {
        for (seconds, text) in [
            (59, "00:00:59"),
            (DAY - 1, "23:59:59"),
            (DAY, "1d"),
            (60 * DAY, "60d"),
            (DAY + 3661, "1d/01:01:01"),
        ] {
            assert_eq!(Age(seconds).to_string(), text);
        }
    }
}
