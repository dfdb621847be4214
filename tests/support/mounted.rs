//! A filesystem in a file, mounted for a test.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::support::Temp;

pub fn run(program: &str, args: &[&str], path: &Path) -> bool {
    Command::new(program).args(args).arg(path).output().is_ok_and(|out| out.status.success())
}

/// A mounted filesystem. Its drop unmounts it.
pub struct Mounted {
    pub image: PathBuf,
    pub path: PathBuf,
}

impl Mounted {
    /// Mounts an ext4 of this size. `None`: the test lacks root, loop devices, or the programs.
    pub fn ext4(temp: &Temp, bytes: u64, options: &[&str]) -> Option<Self> {
        let (image, path) = (temp.path().join("image"), temp.path().join("mount"));
        std::fs::File::create(&image).unwrap().set_len(bytes).unwrap();
        std::fs::create_dir(&path).unwrap();
        let made = run("mkfs.ext4", &[&["-q", "-F"], options].concat(), &image);
        let options = ["-o", "loop", image.to_str().unwrap()];
        let mounted = made && run("mount", &options, &path);
        mounted.then_some(Mounted { image, path })
    }

    pub fn unmount(&self) -> bool {
        run("umount", &[], &self.path)
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        self.unmount();
    }
}
