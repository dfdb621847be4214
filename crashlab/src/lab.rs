//! The system resources around the daemon: its mount, the disk that it serves, and the slots for
//! images.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::thread::JoinHandle;

use nix::mount::{MntFlags, umount2};

use crate::device::{Device, Files};
use crate::mounts::{Kind, attach, detach, mount, unmount};
use crate::slot::Slot;

/// Number of images checked in parallel. A check mostly waits for the kernel.
const SLOTS: usize = 4;

/// Every mount and attached device. Its drop undoes them.
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
    /// The reason why the lab cannot run on this machine, if any.
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

    /// Path of the disk's sequence number for the workload's process.
    pub(crate) fn sequence(&self) -> PathBuf {
        self.dir.join("sequence")
    }

    /// Where the live filesystem is mounted.
    pub(crate) fn live(&self) -> PathBuf {
        self.dir.join("live")
    }

    /// Creates a filesystem on the live disk, and starts its trace.
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

/// A directory in memory with room for the images of a few disks, if the machine has one.
fn memory() -> PathBuf {
    const ROOM: u64 = 1 << 30;
    let memory = Path::new("/dev/shm");
    let free = nix::sys::statvfs::statvfs(memory)
        .map_or(0, |place| place.blocks_available() * place.fragment_size());
    if free >= ROOM { memory.into() } else { std::env::temp_dir() }
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

/// Removes the remains of killed labs.
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

/// Unmounts and detaches everything in a directory, or of a file, and removes it.
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
