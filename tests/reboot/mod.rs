//! A system that looks as if it had been started anew: with another number for the time that it is up,
//! in a mount namespace of its own.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

pub struct System {
    boot_id: PathBuf,
}

impl System {
    /// For a process that has its mounts for itself. The directory is for a file.
    pub fn new(directory: &Path) -> System {
        let boot_id = directory.join("boot_id");
        fs::copy(BOOT_ID, &boot_id).unwrap();
        let mount = Command::new("mount").arg("--bind").arg(&boot_id).arg(BOOT_ID).status();
        assert!(mount.unwrap().success(), "mounting over {BOOT_ID} needs root");
        System { boot_id }
    }

    /// From here on the system has been started anew.
    pub fn restart(&self, rng: &mut fastrand::Rng) {
        fs::write(&self.boot_id, format!("{:032x}\n", rng.u128(..))).unwrap();
    }
}

/// A command that runs `process` with its mounts for itself.
pub fn unshared(process: &Command) -> Command {
    let mut unshare = Command::new("unshare");
    unshare
        .args(["--mount", "--propagation=private", "--fork"])
        .arg(process.get_program())
        .args(process.get_args())
        .envs(process.get_envs().filter_map(|(name, value)| Some((name, value?))));
    unshare
}
