//! The real things around the daemon: its mount, loop devices, and the filesystems on them.

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::thread::JoinHandle;

use nix::mount::{MntFlags, MsFlags, umount2};

use crate::device::{Device, Files};
use crate::slot::Slot;

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

    /// Bytes of the disk: about the least that mkfs takes.
    pub(crate) fn size(self) -> u64 {
        match self {
            Kind::Ext4 => 64 << 20,
            Kind::Xfs => 320 << 20,
        }
    }

    fn mkfs(self, device: &str) -> io::Result<()> {
        match self {
            Kind::Ext4 => {
                let lazy = "lazy_itable_init=0,lazy_journal_init=0,nodiscard";
                run("mkfs.ext4", &["-q", "-F", "-E", lazy, device])
            }
            Kind::Xfs => run("mkfs.xfs", &["-q", "-f", "-K", device]),
        }
    }

    /// Other data than the log's must not keep XFS from mounting a copy: there is one at a time.
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

/// Images that are looked at together: most of the time goes into waiting for the kernel.
const SLOTS: usize = 4;

/// Everything that is mounted and attached; undone when it goes.
#[derive(Debug)]
pub(crate) struct Lab {
    dir: PathBuf,
    pub(crate) device: Arc<Device>,
    session: Option<fuser::BackgroundSession>,
    server: Option<JoinHandle<()>>,
    disk: String,
    pub(crate) slots: Vec<Slot>,
    pub(crate) kind: Kind,
}

impl Lab {
    /// Why there can be no lab here, if there cannot.
    pub(crate) fn missing(kind: Kind) -> Option<String> {
        if !nix::unistd::geteuid().is_root() {
            return Some("it needs root, to mount".into());
        }
        for path in ["/dev/fuse", "/dev/loop-control"] {
            if !Path::new(path).exists() {
                return Some(format!("there is no {path}"));
            }
        }
        let mkfs = format!("mkfs.{kind}");
        for (program, argument) in [(mkfs.as_str(), "-V"), ("losetup", "--version")] {
            if let Err(e) = Command::new(program).arg(argument).output() {
                return Some(format!("{program} cannot be run: {e}"));
            }
        }
        None
    }

    pub(crate) fn new(kind: Kind) -> io::Result<Self> {
        clear_stale();
        let dir = std::env::temp_dir().join(format!("crashlab-{}-{kind}", std::process::id()));
        for sub in ["fuse", "live"] {
            fs::create_dir_all(dir.join(sub))?;
        }
        let page = dir.join("sequence");
        let file = fs::OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .open(&page)?;
        file.set_len(4096)?;
        let device = Device::new(memmap2::MmapOptions::new().len(4096).map_raw(&file)?);
        device.reset(kind.size(), 0);
        let server = {
            let device = Arc::clone(&device);
            std::thread::spawn(move || device.serve())
        };
        let options = [fuser::MountOption::FSName("crashlab".into())];
        let files = Files(Arc::clone(&device));
        let session = fuser::spawn_mount2(files, dir.join("fuse"), &options)?;
        let mut lab = Lab {
            device,
            session: Some(session),
            server: Some(server),
            disk: String::new(),
            slots: Vec::new(),
            kind,
            dir,
        };
        lab.disk = attach(&lab.dir.join("fuse/disk"), "--direct-io=on")?;
        for n in 0..SLOTS {
            let at = lab.dir.join(format!("check{n}"));
            fs::create_dir_all(&at)?;
            let path = memory().join(format!("crashlab-{}-image{n}", std::process::id()));
            lab.slots.push(Slot::new(kind, path, at)?);
        }
        Ok(lab)
    }

    /// Where the workload's process finds the sequence of the disk.
    pub(crate) fn sequence(&self) -> PathBuf {
        self.dir.join("sequence")
    }

    /// Where the live filesystem is mounted.
    pub(crate) fn live(&self) -> PathBuf {
        self.dir.join("live")
    }

    /// A new filesystem on the live disk, and the beginning of its trace.
    pub(crate) fn make(&self, seed: u64) -> io::Result<()> {
        self.device.reset(self.kind.size(), seed);
        self.kind.mkfs(&self.disk)?;
        self.device.begin_trace();
        Ok(())
    }

    pub(crate) fn mount_live(&self) -> io::Result<()> {
        mount(self.kind, &self.disk, &self.live()).map_err(Into::into)
    }

    pub(crate) fn unmount_live(&self) -> io::Result<()> {
        unmount(&self.live())
    }
}

/// Where files are memory, if the machine has such a place.
fn memory() -> PathBuf {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { memory.into() } else { std::env::temp_dir() }
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

/// A mount may be busy for a moment after its last user has gone: the kernel lets go of the files of a ring
/// in its own time, which on a busy machine is seconds.
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

impl Drop for Lab {
    fn drop(&mut self) {
        self.device.stall(false);
        self.device.end();
        self.slots.clear();
        let _ = umount2(&self.live(), MntFlags::MNT_DETACH);
        if !self.disk.is_empty() {
            detach(&self.disk);
        }
        drop(self.session.take());
        if let Some(server) = self.server.take() {
            let _ = server.join();
        }
        let _ = fs::remove_dir_all(&self.dir);
    }
}

/// What labs that were killed have left.
fn clear_stale() {
    for place in [std::env::temp_dir(), memory()] {
        for entry in fs::read_dir(place).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let pid = name.strip_prefix("crashlab-").and_then(|rest| rest.split('-').next());
            let Some(Ok(pid)) = pid.map(str::parse::<u32>) else { continue };
            if !Path::new("/proc").join(pid.to_string()).exists() {
                clear(&entry.path());
            }
        }
    }
}

/// Unmounts and detaches what lies in a directory, or is a file, and removes it.
fn clear(path: &Path) {
    for entry in fs::read_dir(path).into_iter().flatten().flatten() {
        let _ = umount2(&entry.path(), MntFlags::MNT_DETACH);
    }
    let listed = Command::new("losetup").args(["-l", "-n", "-O", "NAME,BACK-FILE"]).output();
    let listed = listed.map(|o| String::from_utf8_lossy(&o.stdout).into_owned());
    for line in listed.unwrap_or_default().lines() {
        if let Some((device, file)) = line.trim().split_once(char::is_whitespace)
            && Path::new(file.trim()).starts_with(path)
        {
            detach(device);
        }
    }
    let _ = fs::remove_dir_all(path);
    let _ = fs::remove_file(path);
}
