//! What the kernel says of a mounted btrfs: `btrfs filesystem show --raw`, sysfs and statfs. Exact numbers only.
//!
//! It decides nothing. The invariant: nothing here reads rounded output or text meant for people.

use std::io;
use std::path::{Path, PathBuf};

use hostler_common::bytes::Bytes;
use hostler_common::error::excerpt;
use nix::sys::statvfs::statvfs;
use thiserror::Error;

use crate::storage::block::{names_in, number_in};
use crate::storage::pool::Profile;

/// A device of a btrfs, as the kernel numbers it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct DeviceId(pub(super) u64);

/// A device that the kernel counts to the pool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Shown {
    pub(super) id: DeviceId,
    /// What the pool may use of it. 0 while the kernel removes it.
    pub(super) share: Bytes,
    pub(super) allocated: Bytes,
    /// The kernel's path of it. Nothing when it is missing.
    pub(super) path: Option<PathBuf>,
}

/// A btrfs and its devices.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Show {
    pub(super) uuid: String,
    pub(super) devices: Vec<Shown>,
}

/// Output that is not as expected.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("the line {line:?} of `btrfs filesystem show` is not understood")]
pub(super) struct NotUnderstood {
    line: String,
}

/// Reads what `btrfs filesystem show --raw` prints for one file system.
pub(super) fn parse_show(text: &str) -> Result<Show, NotUnderstood> {
    let mut uuid = None;
    let mut devices = Vec::new();
    for line in text.lines() {
        if let Some((_, found)) = line
            .strip_prefix("Label: ")
            .and_then(|rest| rest.rsplit_once("uuid: "))
        {
            uuid = Some(found.trim().to_owned());
        } else if line.trim_start().starts_with("devid ") {
            devices.push(parse_device(line).ok_or_else(|| NotUnderstood {
                line: excerpt(line).into_owned(),
            })?);
        }
    }
    match (uuid, devices.is_empty()) {
        (Some(uuid), false) => Ok(Show { uuid, devices }),
        _ => Err(NotUnderstood {
            line: excerpt(text.lines().next().unwrap_or_default()).into_owned(),
        }),
    }
}

/// `devid    1 size 1073741824 used 223084544 path /dev/loop0`, or `path  MISSING`, or `path /dev/sdb MISSING`.
fn parse_device(line: &str) -> Option<Shown> {
    let (numbers, path) = line.split_once(" path ")?;
    let words: Vec<&str> = numbers.split_whitespace().collect();
    let ["devid", id, "size", share, "used", allocated] = words[..] else {
        return None;
    };
    let missing = path.ends_with(" MISSING") || path.is_empty();
    Some(Shown {
        id: DeviceId(id.parse().ok()?),
        share: Bytes(share.parse().ok()?),
        allocated: Bytes(allocated.parse().ok()?),
        path: (!missing).then(|| PathBuf::from(path)),
    })
}

/// Metadata of all kinds on one device, from what `btrfs device usage -b` prints. Nothing when it does not name the
/// device.
pub(super) fn parse_metadata_on(usage: &str, id: DeviceId) -> Option<Bytes> {
    let title = format!(", ID: {}", id.0);
    let mut lines = usage.lines().skip_while(|line| !line.ends_with(&title));
    lines.next()?;
    let mut metadata = Bytes::ZERO;
    for line in lines.take_while(|line| line.starts_with(' ')) {
        let (kind, bytes) = line.trim().rsplit_once(':')?;
        // In mixed chunks there is both, and then all of it counts.
        if kind.contains("Metadata") || kind.starts_with("System") {
            metadata = metadata.plus(Bytes(bytes.trim().parse().ok()?));
        }
    }
    Some(metadata)
}

/// What has the pool to itself, so that nothing else of its kind may start
/// (`exclusive_operation` of sysfs; btrfs_exclusive_operation of the kernel).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Exclusive {
    Nothing,
    Remove,
    Resize,
    /// By the kernel's name, as `balance`.
    Other(String),
}

/// How one kind of content is laid out and how much there is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Space {
    /// The most demanding one, when an interrupted conversion left several.
    pub(super) profile: Profile,
    /// Before copies.
    pub(super) used: Bytes,
    /// What its chunks take, with copies.
    pub(super) on_devices: Bytes,
    /// With copies.
    pub(super) used_on_devices: Bytes,
    /// What its chunks could still take, with copies.
    pub(super) free_on_devices: Bytes,
}

/// The folder of one mounted btrfs in sysfs.
#[derive(Debug, Clone)]
pub(super) struct Sysfs(PathBuf);

impl Sysfs {
    pub(super) fn of(uuid: &str) -> Self {
        Self(Path::new("/sys/fs/btrfs").join(uuid))
    }

    pub(super) fn exclusive(&self) -> io::Result<Exclusive> {
        let text = std::fs::read_to_string(self.0.join("exclusive_operation"))?;
        Ok(parse_exclusive(&text))
    }

    /// What a device's size is rounded down to.
    pub(super) fn sector(&self) -> io::Result<u64> {
        number_in(&self.0.join("sectorsize"))
    }

    /// How many writes to a device were lost, superblocks included. Kept over restarts.
    pub(super) fn lost_writes(&self, id: DeviceId) -> io::Result<u64> {
        let path = self.0.join("devinfo").join(id.0.to_string()).join("error_stats");
        Ok(parse_lost_writes(&std::fs::read_to_string(path)?))
    }

    /// What the chunks of the kernel's own trees take, with copies.
    pub(super) fn trees_on_devices(&self) -> io::Result<Bytes> {
        number_in(&self.0.join("allocation/system/disk_total")).map(Bytes)
    }

    /// Data and metadata. They are one in a pool of mixed block groups.
    pub(super) fn spaces(&self) -> io::Result<(Space, Space)> {
        let mixed = self.0.join("allocation/mixed");
        if mixed.is_dir() {
            let space = space(&mixed)?;
            return Ok((space.clone(), space));
        }
        let of = |kind| space(&self.0.join("allocation").join(kind));
        Ok((of("data")?, of("metadata")?))
    }
}

fn space(folder: &Path) -> io::Result<Space> {
    let mut profiles = Vec::new();
    for name in names_in(folder)? {
        if let Some(profile) = parse_profile(&name) {
            let total = number_in(&folder.join(&name).join("total_bytes"))?;
            profiles.push((profile, Bytes(total)));
        }
    }
    let none = || {
        io::Error::new(
            io::ErrorKind::InvalidData,
            format!("{} names no profile", folder.display()),
        )
    };
    let used_on_devices = Bytes(number_in(&folder.join("disk_used"))?);
    let total_on_devices = Bytes(number_in(&folder.join("disk_total"))?);
    Ok(Space {
        profile: most_demanding(&profiles).ok_or_else(none)?,
        used: Bytes(number_in(&folder.join("bytes_used"))?),
        on_devices: total_on_devices,
        used_on_devices,
        free_on_devices: total_on_devices.minus(used_on_devices),
    })
}

/// A profile whose last chunk is gone may still have its folder, so empty ones count only when all are.
fn most_demanding(profiles: &[(Profile, Bytes)]) -> Option<Profile> {
    let filled = profiles.iter().filter(|(_, total)| *total > Bytes::ZERO);
    let hardest = |(profile, _): &&(Profile, Bytes)| (profile.min_devices(), profile.copies());
    let found = filled
        .max_by_key(hardest)
        .or_else(|| profiles.iter().max_by_key(hardest));
    found.map(|(profile, _)| *profile)
}

pub(super) fn parse_profile(name: &str) -> Option<Profile> {
    Some(match name {
        "single" => Profile::Single,
        "dup" => Profile::Dup,
        "raid0" => Profile::Raid0,
        "raid1" => Profile::Raid1,
        "raid1c3" => Profile::Raid1c3,
        "raid1c4" => Profile::Raid1c4,
        "raid10" => Profile::Raid10,
        "raid5" => Profile::Raid5,
        "raid6" => Profile::Raid6,
        _ => return None,
    })
}

pub(super) fn parse_lost_writes(text: &str) -> u64 {
    let counts = text.lines().filter_map(|line| {
        let (name, count) = line.split_once(' ')?;
        ["write_errs", "flush_errs"]
            .contains(&name)
            .then(|| count.trim().parse::<u64>().ok())?
    });
    counts.fold(0, u64::saturating_add)
}

pub(super) fn parse_exclusive(text: &str) -> Exclusive {
    match text.trim() {
        "none" => Exclusive::Nothing,
        "device remove" => Exclusive::Remove,
        "resize" => Exclusive::Resize,
        other => Exclusive::Other(excerpt(other).into_owned()),
    }
}

/// Size and use of the file system, as statfs(2) says.
pub(super) fn size_and_used(path: &Path) -> io::Result<(Bytes, Bytes)> {
    let told = statvfs(path)?;
    let bytes = |blocks: u64| Bytes(blocks.saturating_mul(told.fragment_size()));
    let size = bytes(told.blocks());
    Ok((size, size.minus(bytes(told.blocks_free()))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_devices_are_read_as_the_kernel_numbers_them() {
        let text = "Label: 'my uuid: pool'  uuid: d71514d2-a01c-403f-9912-d0143e994bc1\n\
                    \tTotal devices 2 FS bytes used 147456\n\
                    \tdevid    1 size 1073741824 used 132513792 path /dev/loop0\n\
                    \tdevid   12 size 536870912 used 0 path /dev/mapper/with path in it\n\n";
        let show = parse_show(text).unwrap();
        assert_eq!(show.uuid, "d71514d2-a01c-403f-9912-d0143e994bc1");
        assert_eq!(
            show.devices,
            [
                Shown {
                    id: DeviceId(1),
                    share: Bytes(1_073_741_824),
                    allocated: Bytes(132_513_792),
                    path: Some("/dev/loop0".into()),
                },
                Shown {
                    id: DeviceId(12),
                    share: Bytes(536_870_912),
                    allocated: Bytes::ZERO,
                    path: Some("/dev/mapper/with path in it".into()),
                },
            ]
        );
    }

    #[test]
    fn the_metadata_of_one_device_is_told_from_its_data_and_from_other_devices() {
        let usage = "/dev/loop0, ID: 1\n   Device size:          1073741824\n   Device slack:                  0\n\
                     \x20  Data,single:             8388608\n   Metadata,DUP:          107347968\n\
                     \x20  System,DUP:             16777216\n   Unallocated:           941228032\n\n\
                     /dev/with, ID: 1 in it, ID: 21\n   Device size:          1073741824\n\
                     \x20  Data+Metadata,single:     1024\n   Unallocated:          1073741824\n\n";
        let metadata = |id| parse_metadata_on(usage, DeviceId(id));
        assert_eq!(metadata(1), Some(Bytes(107_347_968 + 16_777_216)));
        assert_eq!(metadata(21), Some(Bytes(1024)));
        assert_eq!(metadata(2), None);
    }

    #[test]
    fn a_device_that_is_gone_is_missing() {
        for path in ["path  MISSING", "path /dev/sdb MISSING", "path "] {
            let text = format!(
                "Label: none  uuid: 96a0d36d\n\tTotal devices 2 FS bytes used 147456\n\
                 \tdevid    1 size 1073741824 used 223084544 path /dev/loop0\n\tdevid    2 size 0 used 0 {path}\n"
            );
            assert_eq!(parse_show(&text).unwrap().devices[1].path, None, "{path}");
        }
    }

    #[test]
    fn output_of_another_kind_is_an_error_and_never_an_empty_pool() {
        for text in [
            "",
            "Label: none  uuid: 96a0d36d\n\tTotal devices 2 FS bytes used 147456\n",
            "\tdevid    1 size 1073741824 used 223084544 path /dev/loop0\n",
            "Label: none  uuid: 96a0d36d\n\tdevid    1 size 1.00GiB used 223084544 path /dev/loop0\n",
        ] {
            parse_show(text).unwrap_err();
        }
    }

    #[test]
    fn of_several_profiles_the_most_demanding_one_counts() {
        let some = Bytes(1);
        for (profiles, most) in [
            (vec![(Profile::Single, some)], Some(Profile::Single)),
            (
                vec![(Profile::Single, some), (Profile::Dup, some)],
                Some(Profile::Dup),
            ),
            (
                vec![(Profile::Raid1, some), (Profile::Dup, some)],
                Some(Profile::Raid1),
            ),
            (
                vec![(Profile::Raid1c3, Bytes::ZERO), (Profile::Dup, some)],
                Some(Profile::Dup),
            ),
            (vec![(Profile::Raid1c3, Bytes::ZERO)], Some(Profile::Raid1c3)),
            (vec![], None),
        ] {
            assert_eq!(most_demanding(&profiles), most, "{profiles:?}");
        }
    }

    #[test]
    fn lost_writes_and_flushes_are_counted_and_nothing_else() {
        let text = "write_errs 2\nread_errs 5\nflush_errs 1\ncorruption_errs 7\ngeneration_errs 0\n";
        assert_eq!(parse_lost_writes(text), 3);
    }

    #[test]
    fn what_runs_alone_is_known_by_the_kernels_words() {
        assert_eq!(parse_exclusive("none\n"), Exclusive::Nothing);
        assert_eq!(parse_exclusive("device remove\n"), Exclusive::Remove);
        assert_eq!(
            parse_exclusive("balance paused\n"),
            Exclusive::Other("balance paused".into())
        );
    }
}
