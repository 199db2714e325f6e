//! Volumes matched to a set (format.md §4.3).

use super::Disks;
use crate::error::{Class, Error, Result};
use crate::format::volume::{FSTYPE, HEADER_SIZE, VolumeHeader};
use crate::format::{BUFFER, Fault, Offset, Rule, VOLUMES_MAX, Zone};
use crate::io::Device;

/// The volumes of one file system, in any order, checked to belong together.
pub struct VolumeSet {
    pub(super) disks: Disks,
    members: Vec<Member>,
    /// Position in `members` by volume number.
    by_number: Box<[Option<u8>; VOLUMES_MAX]>,
    warnings: Vec<Fault>,
}

/// One volume of a set.
struct Member {
    number: u8,
    /// Position among the devices.
    disk: usize,
    header: VolumeHeader,
}

impl VolumeSet {
    /// Reads the headers of `devices` and checks that they are all volumes of one file system.
    ///
    /// Errors: class `Incompatible` where a device holds no HAMMER volume, one of an unknown version,
    /// or the devices do not make one set; `Damage` where a header contradicts itself; `Io`.
    /// All but `Io` carry the violated rule.
    pub fn open(devices: Vec<Box<dyn Device>>) -> Result<VolumeSet> {
        if devices.is_empty() {
            return Err(Error::usage("no volumes given"));
        }
        let mut disks = Disks::new(devices);
        let mut members = Vec::new();
        for disk in 0..disks.len() {
            members.push(Member::read(&mut disks, disk)?);
        }
        let mut by_number = Box::new([None; VOLUMES_MAX]);
        for (index, member) in members.iter().enumerate() {
            let slot = &mut by_number[usize::from(member.number)];
            if let Some(other) = slot {
                let other: &Member = &members[usize::from(*other)];
                let same = other.header.fsid == member.header.fsid;
                let found = match same {
                    true => format!("{} as well", disks.name(other.disk)),
                    false => format!("{} of another file system", disks.name(other.disk)),
                };
                let expected = format!("one volume {}", member.number);
                return Err(set_fault(member, &disks, expected, found));
            }
            // A duplicate number is found before the count passes 256.
            *slot = Some(index as u8);
        }
        let mut set = VolumeSet {
            disks,
            members,
            by_number,
            warnings: Vec::new(),
        };
        set.check()?;
        set.members.sort_by_key(|member| member.number);
        for (index, member) in set.members.iter().enumerate() {
            set.by_number[usize::from(member.number)] = Some(index as u8);
            set.warnings.extend(member.header.stale_sums(member.at()));
        }
        Ok(set)
    }

    /// What must hold across the set.
    fn check(&self) -> Result<()> {
        let Some(root) = self.by_number[0].map(|index| &self.members[usize::from(index)]) else {
            let count = self.members[0].header.vol_count.get();
            let expected = format!("all {count} volumes of the file system");
            return Err(set_fault(
                &self.members[0],
                &self.disks,
                expected,
                "no volume 0 among those given".into(),
            ));
        };
        root.header.check_root(root.at()).map_err(|fault| {
            let class = match fault.rule {
                Rule::VolumeVersion => Class::Incompatible,
                _ => Class::Damage,
            };
            Error::from(fault)
                .context(self.disks.name(root.disk))
                .with_class(class)
        })?;
        for member in &self.members {
            if member.header.fsid != root.header.fsid {
                let uuid =
                    |header: &VolumeHeader| uuid::Uuid::from_bytes_le(header.fsid).to_string();
                let expected = format!("file system {}", uuid(&root.header));
                let found = uuid(&member.header);
                return Err(set_fault(member, &self.disks, expected, found));
            }
        }
        let count = root.header.vol_count.get();
        if usize::try_from(count) != Ok(self.members.len()) {
            let expected = format!("all {count} volumes of the file system");
            let numbers: Vec<String> = self.members.iter().map(|m| m.number.to_string()).collect();
            let found = format!("volumes {}", numbers.join(", "));
            return Err(set_fault(root, &self.disks, expected, found));
        }
        Ok(())
    }

    /// The root volume's header as it was on the device when the set was opened.
    pub fn root_header(&self) -> &VolumeHeader {
        // `check` found a volume 0, and sorting put it first.
        &self.members[0].header
    }

    /// The root volume's header as the device has it now, unchecked: somebody else may be writing it.
    ///
    /// Errors: class `Io`.
    pub fn root_header_now(&mut self) -> Result<VolumeHeader> {
        let disk = self.root_disk();
        let buf = self.disks.read(disk, 0, BUFFER)?;
        VolumeHeader::from_prefix(&buf)
            .ok_or_else(|| Error::damage("a buffer is shorter than a header"))
    }

    /// Every volume's number, device name and header, by number.
    pub fn volumes(&self) -> impl Iterator<Item = (u8, &str, &VolumeHeader)> {
        let tell = |m: &'_ Member| (m.number, m.disk);
        self.members.iter().map(move |member| {
            let (number, disk) = tell(member);
            (number, self.disks.name(disk), &member.header)
        })
    }

    /// What is advisory and not right: stale header CRCs.
    pub fn warnings(&self) -> &[Fault] {
        &self.warnings
    }

    /// Position of the root volume among the devices.
    pub(super) fn root_disk(&self) -> usize {
        self.members[0].disk
    }

    /// Position of volume `number` among the devices.
    pub(super) fn header_disk(&self, number: u8) -> Option<usize> {
        let index = self.by_number[usize::from(number)]?;
        Some(self.members[usize::from(index)].disk)
    }

    /// Where `len` bytes at the blockmapped or raw-buffer address `at` lie: position among the
    /// devices, byte offset there. The range must lie inside one big-block of an existing volume.
    pub(super) fn place(&self, at: Offset, len: usize) -> Result<(usize, u64)> {
        let zone = at.zone();
        let fault = |expected: &str| {
            let text = format!("address {at} (+{len}): {expected}");
            Err(Error::damage(text))
        };
        if zone != Zone::RAW_BUFFER && !zone.is_blockmapped() {
            return fault("not in a zone that holds data");
        }
        let Some(index) = self.by_number[usize::from(at.volume())] else {
            return fault("no such volume");
        };
        let Member { disk, header, .. } = &self.members[usize::from(index)];
        let end = at.short().saturating_add(len as u64);
        if end > header.buffer_space() {
            return fault("behind the end of the volume");
        }
        Ok((*disk, header.buf_beg.get().cast_unsigned() + at.short()))
    }
}

impl Member {
    fn read(disks: &mut Disks, disk: usize) -> Result<Member> {
        let size = disks.size(disk);
        if size < BUFFER as u64 {
            let text = format!(
                "{}: {size} bytes are too few for a volume",
                disks.name(disk)
            );
            return Err(Error::new(Class::Incompatible, text));
        }
        let buf = disks.read(disk, 0, BUFFER)?;
        let header = VolumeHeader::from_prefix(&buf);
        // A buffer is longer than a header.
        let header = header.unwrap_or_else(|| unreachable!("{HEADER_SIZE} bytes in {BUFFER}"));
        let at = Offset::new(Zone::RAW_VOLUME, header.vol_no.get().clamp(0, 255) as u8, 0);
        if let Err(fault) = header.check(at, size) {
            let (class, hint) = match fault.rule {
                // The rest of a header is there: a volume that was damaged.
                Rule::VolumeSignature if header.fstype == FSTYPE => (Class::Damage, None),
                Rule::VolumeSignature => {
                    let hint = super::probe::explain(disks.device(disk));
                    (Class::Incompatible, hint)
                }
                Rule::VolumeRange if cut_short(&header, size) => {
                    let hint = format!(
                        "the device has {size} bytes and its header speaks of {}: a copy that was \
                         cut short?",
                        header.buf_end.get()
                    );
                    (Class::Damage, Some(hint))
                }
                Rule::VolumeType | Rule::VolumeSet => (Class::Incompatible, None),
                _ => (Class::Damage, None),
            };
            let error = Error::from(fault).with_class(class);
            return Err(match hint {
                Some(hint) => error.context(format!("{}: {hint}", disks.name(disk))),
                None => error.context(disks.name(disk)),
            });
        }
        Ok(Member {
            // `check` saw to the range.
            number: header.vol_no.get() as u8,
            disk,
            header,
        })
    }

    fn at(&self) -> Offset {
        Offset::new(Zone::RAW_VOLUME, self.number, 0)
    }
}

/// Whether a header makes sense but for the device being too short for it.
fn cut_short(header: &VolumeHeader, size: u64) -> bool {
    let end = u64::try_from(header.buf_end.get()).unwrap_or(0);
    end > size && header.check(Offset::NULL, end).is_ok()
}

fn set_fault(member: &Member, disks: &Disks, expected: String, found: String) -> Error {
    Error::from(Fault::new(Rule::VolumeSet, member.at(), expected, found))
        .context(disks.name(member.disk))
        .with_class(Class::Incompatible)
}
