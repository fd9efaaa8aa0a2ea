//! The window on `data`, and what happens where address space is short.

use std::collections::BTreeSet;
use std::process::Command;

use rawdb::{Database, ErrorKind, Options};

const MIB: u64 = 1 << 20;

/// The lengths of this process's windows on the file `data` in `dir`. A window is one mapping from
/// offset 0 on, of which the system lists parts with different access by themselves.
fn windows(dir: &std::path::Path) -> Vec<u64> {
    let path = dir.join("data");
    let mut windows = Vec::new();
    for line in std::fs::read_to_string("/proc/self/maps").unwrap().lines() {
        if !line.ends_with(path.to_str().unwrap()) {
            continue;
        }
        let fields: Vec<&str> = line.split_whitespace().collect();
        let (from, to) = fields[0].split_once('-').unwrap();
        let number = |text| u64::from_str_radix(text, 16).unwrap();
        if number(fields[2]) == 0 {
            windows.push(0);
        }
        *windows.last_mut().unwrap() += number(to) - number(from);
    }
    windows
}

fn limit_address_space(bytes: u64) {
    let limit = libc::rlimit { rlim_cur: bytes as _, rlim_max: libc::RLIM_INFINITY };
    // SAFETY: passes a valid struct.
    assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_AS, &limit) }, 0);
}

/// Runs the ignored test `name` of this file in a process of its own, whose limits it may change.
fn in_child(name: &str) {
    in_child_by(Command::new(std::env::current_exe().unwrap()), name);
}

/// The same by a command that runs this program with the arguments that are added to it.
fn in_child_by(mut command: Command, name: &str) {
    let output = command.args(["--exact", name, "--ignored", "--nocapture"]).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && text.contains("1 passed"),
        "{text}{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// Large folios begin where pieces of 2 MiB do, and so do writes of whole megabytes then.
#[test]
fn a_region_that_becomes_large_moves_to_pieces_of_its_own() {
    const PIECE: u64 = 2 * MIB;
    let dir = tempfile::tempdir().unwrap();
    let db = Database::open(dir.path()).unwrap();
    let region = db.create_region_if_needed("alone").unwrap();
    let append = |byte: u8, len: u64| region.write(&vec![byte; len as usize]).unwrap();
    append(1, MIB);
    assert_ne!(region.info().unwrap().start % PIECE, 0, "a small region shares a piece");
    append(2, MIB);
    let large = region.info().unwrap();
    assert_eq!(large.start % PIECE, 0);
    // From here on it stays, as nothing lies behind it.
    append(3, 100 * MIB);
    assert_eq!(region.info().unwrap().start, large.start);
    let bytes = region.view(0, 102 * MIB).unwrap();
    let parts = [(1, MIB), (2, MIB), (3, 100 * MIB)];
    let expected = parts.iter().flat_map(|&(byte, len)| std::iter::repeat_n(byte, len as usize));
    assert!(bytes.iter().copied().eq(expected));
}

#[test]
fn a_file_that_outgrows_its_window_gets_another() {
    in_child("child_outgrows_window");
}

#[test]
#[ignore = "run in a child process by the test above"]
fn child_outgrows_window() {
    let dir = tempfile::tempdir().unwrap();
    limit_address_space(2048 * MIB);
    let db = Database::open(dir.path()).unwrap();
    let first = windows(dir.path());
    assert!(first.len() == 1 && first[0] < 2048 * MIB, "{first:?}");

    let region = db.create_region_if_needed("a").unwrap();
    region.write(&[1; 10_000]).unwrap();
    let view = region.view(0, u64::MAX).unwrap();
    let error = db.reserve_file(first[0] + MIB).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NoMemory, "{error}");
    let error = region.reserve(first[0]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NoMemory, "{error}");

    limit_address_space(libc::RLIM_INFINITY);
    db.reserve_file(first[0] + MIB).unwrap();
    assert_eq!(windows(dir.path()).len(), 2, "a bigger one beside it");
    // Regions of the old window go on, and what moves goes to the new one.
    region.write_at(&[2; 10], 5).unwrap();
    region.write(&[3; 100_000]).unwrap();
    let other = db.create_region_if_needed("b").unwrap();
    other.write(&[4; 100_000]).unwrap();
    assert!(view.iter().all(|&byte| byte == 1));
    assert_eq!(windows(dir.path()).len(), 2, "the view still needs the old one");
    drop(view);
    region.write_at(&[5; 1], 0).unwrap();
    let all = region.view(0, u64::MAX).unwrap();
    assert_eq!((all[0], all[5], all[20], all[20_000], all.len()), (5, 2, 1, 3, 110_000));
    assert_eq!(windows(dir.path()).len(), 1, "nobody needs the old one");
}

/// Each window is several times the last, so that there are few, however long the file gets.
#[test]
fn windows_are_few() {
    const TIB: u64 = 1 << 40;
    let dir = tempfile::tempdir().unwrap();
    let db = Database::open(dir.path()).unwrap();
    let mut lengths = BTreeSet::new();
    for len in (TIB / 4..12 * TIB).step_by(1 << 38) {
        db.reserve_file(len).unwrap();
        lengths.extend(windows(dir.path()));
    }
    assert!(lengths.len() <= 3, "{lengths:?}");
}

/// Without /proc nobody says how much address space is in use. Trying says how much is left.
#[test]
fn leaves_half_without_proc() {
    let mut command = Command::new("unshare");
    let script = "mount -t tmpfs none /proc && exec \"$0\" \"$@\"";
    command.args(["--mount", "sh", "-c", script]).arg(std::env::current_exe().unwrap());
    in_child_by(command, "child_leaves_half_without_proc");
}

#[test]
#[ignore = "run in a child process by the test above"]
fn child_leaves_half_without_proc() {
    assert!(!std::path::Path::new("/proc/self").exists());
    let dir = tempfile::tempdir().unwrap();
    // A window of a power of two would be nearly all of it.
    limit_address_space((4096 + 256) * MIB);
    let db = Database::open(dir.path()).unwrap();
    db.create_region_if_needed("a").unwrap().write(&vec![1; 10 << 20]).unwrap();
    let memory = Vec::<u8>::with_capacity(1536 << 20);
    assert!(memory.capacity() >= 1536 << 20);
    db.close().unwrap();
}

#[test]
fn max_address_space_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options { max_address_space: 64 * MIB, ..Options::default() };
    let db = Database::open_with(dir.path(), &options).unwrap();
    assert_eq!(windows(dir.path()), [64 * MIB]);
    let region = db.create_region_if_needed("a").unwrap();
    // Fills most of the window in steps that would like to reserve more than there is.
    let piece = vec![7; MIB as usize];
    while let Ok(offset) = region.write(&piece) {
        assert!(offset < 64 * MIB);
    }
    assert!(region.len() >= 16 * MIB, "only {} bytes fit", region.len());
    let (len, error) = (region.len(), region.write(&piece).unwrap_err());
    assert_eq!((error.kind(), region.len()), (ErrorKind::NoMemory, len), "{error}");
    assert!(region.view(0, u64::MAX).unwrap().iter().all(|&byte| byte == 7));
    // Small things still fit.
    db.create_region_if_needed("b").unwrap().write(b"small").unwrap();
    db.close().unwrap();
    assert_eq!(
        Database::open_with(dir.path(), &Options { max_address_space: MIB, ..options })
            .unwrap_err()
            .kind(),
        ErrorKind::NoMemory
    );
    assert_eq!(Database::open(dir.path()).unwrap().region("a").unwrap().len(), len);
}

#[test]
fn opens_within_eight_gigabytes_of_address_space() {
    in_child("child_opens_in_eight_gigabytes");
}

#[test]
#[ignore = "run in a child process by the test above"]
fn child_opens_in_eight_gigabytes() {
    limit_address_space(8_000_000 * 1024);
    let dir = tempfile::tempdir().unwrap();
    let db = Database::open(dir.path()).unwrap();
    let region = db.create_region_if_needed("a").unwrap();
    for _ in 0..64 {
        region.write(&vec![1; MIB as usize]).unwrap();
    }
    db.flush().unwrap();
    assert!(region.view(0, u64::MAX).unwrap().iter().all(|&byte| byte == 1));
}
