//! Filesystems and loop devices of the system.

use std::fmt;
use std::io;
use std::path::Path;
use std::process::Command;

use nix::mount::{MntFlags, MsFlags, umount2};

/// The filesystem to crash.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Kind {
    Ext4,
    Xfs,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Kind::Ext4 => "ext4",
            Kind::Xfs => "xfs",
        }
    }

    /// Bytes of the disk: about the least that mkfs accepts.
    pub(crate) fn size(self) -> u64 {
        match self {
            Kind::Ext4 => 64 << 20,
            Kind::Xfs => 320 << 20,
        }
    }

    pub(crate) fn mkfs(self, device: &str) -> io::Result<()> {
        match self {
            Kind::Ext4 => {
                let lazy = "lazy_itable_init=0,lazy_journal_init=0,nodiscard";
                run("mkfs.ext4", &["-q", "-F", "-E", lazy, device])
            }
            Kind::Xfs => run("mkfs.xfs", &["-q", "-f", "-K", device]),
        }
    }

    /// Mount options. XFS refuses a second filesystem with the same UUID, so copies mount with
    /// `nouuid`.
    fn options(self) -> &'static str {
        match self {
            Kind::Ext4 => "",
            Kind::Xfs => "nouuid",
        }
    }
}

fn run(program: &str, args: &[&str]) -> io::Result<()> {
    let out = Command::new(program).args(args).output();
    let out = out.map_err(|e| io::Error::new(e.kind(), format!("{program}: {e}")))?;
    if out.status.success() {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&out.stderr).trim().to_owned();
    Err(io::Error::other(format!("{program} {}: {text}", args.join(" "))))
}

pub(crate) fn mount(kind: Kind, device: &str, at: &Path) -> nix::Result<()> {
    let (name, options) = (kind.name(), kind.options());
    nix::mount::mount(Some(device), at, Some(name), MsFlags::MS_NOATIME, Some(options))
}

pub(crate) fn attach(file: &Path, direct: &str) -> io::Result<String> {
    let out = Command::new("losetup").args([direct, "-f", "--show"]).arg(file).output()?;
    if !out.status.success() {
        return Err(io::Error::other(String::from_utf8_lossy(&out.stderr).into_owned()));
    }
    Ok(String::from_utf8_lossy(&out.stdout).trim().to_owned())
}

pub(crate) fn detach(device: &str) {
    let _ = run("losetup", &["-d", device]);
}

/// Unmounts, with retries. A mount may be busy after its last user has ended: the kernel releases
/// the files of a ring late, on a busy machine after seconds.
pub(crate) fn unmount(at: &Path) -> io::Result<()> {
    for _ in 0..100_000 {
        match umount2(at, MntFlags::empty()) {
            Err(nix::errno::Errno::EBUSY) => {
                std::thread::sleep(std::time::Duration::from_micros(200));
            }
            other => return other.map_err(Into::into),
        }
    }
    Err(io::Error::other(format!("{} stays busy", at.display())))
}
