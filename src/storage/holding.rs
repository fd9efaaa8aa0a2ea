//! Who has a database open, for the message of an open that is refused.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use super::descriptor::{read_text, SHORT};
use super::list::List;

/// Bytes of `/proc/locks` to look at: some 50 for each lock of the system.
const MOST_LOCKS: usize = 1 << 20;

/// What this process has open, and its ancestors had. Entries are used again.
static HOLDINGS: List<Holding> = List::new();

/// A database that is open in this process.
#[derive(Debug)]
pub struct Holding {
    /// Of the process that has it open; 0 in an entry that is free. A forked child has its parent's entries.
    process: AtomicU32,
    device: AtomicU64,
    inode: AtomicU64,
    /// It was closed, and is still locked.
    is_closed: AtomicBool,
    /// How many views are open of regions that are gone, by removal or by the end of the database.
    views: AtomicU64,
}

impl Holding {
    pub(crate) const fn new() -> Holding {
        Holding {
            process: AtomicU32::new(0),
            device: AtomicU64::new(0),
            inode: AtomicU64::new(0),
            is_closed: AtomicBool::new(false),
            views: AtomicU64::new(0),
        }
    }

    /// Enters a database, whose file `data` this process has locked.
    pub(super) fn begin(data: &fs::Metadata) -> &'static Holding {
        let process = std::process::id();
        let free = HOLDINGS.iter().find(|entry| {
            let (success, failure) = (Ordering::Acquire, Ordering::Relaxed);
            entry.process.compare_exchange(0, process, success, failure).is_ok()
        });
        let holding = free
            .unwrap_or_else(|| HOLDINGS.add(Holding { process: process.into(), ..Holding::new() }));
        holding.is_closed.store(false, Ordering::Relaxed);
        holding.views.store(0, Ordering::Relaxed);
        holding.device.store(data.dev(), Ordering::Relaxed);
        holding.inode.store(data.ino(), Ordering::Relaxed);
        holding
    }

    /// It is locked no more.
    pub(super) fn end(&self) {
        self.inode.store(0, Ordering::Relaxed);
        self.process.store(0, Ordering::Release);
    }

    /// The database is closed; what is still out keeps it locked.
    pub(crate) fn close(&self) {
        self.is_closed.store(true, Ordering::Relaxed);
    }

    /// A region is gone of which there are views.
    pub(crate) fn keep(&self, views: u64) {
        self.views.fetch_add(views, Ordering::Relaxed);
    }

    /// One of these views has been released.
    pub(crate) fn release(&self) {
        self.views.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Says who has locked this file, as far as that can be known.
pub(super) fn holder_of(data: &fs::Metadata) -> String {
    let process = std::process::id();
    let own = HOLDINGS.iter().find(|entry| {
        entry.process.load(Ordering::Acquire) == process
            && entry.device.load(Ordering::Relaxed) == data.dev()
            && entry.inode.load(Ordering::Relaxed) == data.ino()
    });
    if let Some(own) = own {
        return match (own.is_closed.load(Ordering::Relaxed), own.views.load(Ordering::Relaxed)) {
            (false, _) => "is open already in this process".to_owned(),
            (true, 0) => "was closed in this process while an append or a flush was in progress, \
                          which has not ended"
                .to_owned(),
            (true, 1) => "was closed in this process, and 1 view of it is not released".to_owned(),
            (true, views) => {
                format!("was closed in this process, and {views} views of it are not released")
            }
        };
    }
    match owner_in(&read_text("/proc/locks", MOST_LOCKS).unwrap_or_default(), data) {
        Some(owner) => {
            let name = read_text(&format!("/proc/{owner}/comm"), SHORT).unwrap_or_default();
            match name.trim() {
                // A lock stays with the children of a process that has ended.
                "" => format!("is locked by a child of process {owner}, which has ended"),
                name => format!("is open in process {owner} ({name})"),
            }
        }
        None => "is open in another process".to_owned(),
    }
}

/// The process that has locked the file, out of lines as "3: FLOCK  ADVISORY  WRITE 1234 fe:00:5678 0 EOF".
fn owner_in(locks: &str, data: &fs::Metadata) -> Option<u32> {
    let (major, minor) = (libc::major(data.dev()), libc::minor(data.dev()));
    let file = format!("{major:02x}:{minor:02x}:{}", data.ino());
    locks.lines().find_map(|line| {
        let mut fields = line.split_whitespace().skip(1);
        let is_flock = fields.next() == Some("FLOCK");
        let owner = fields.nth(2)?.parse().ok()?;
        // 0 where it is a process that this one cannot see.
        (is_flock && fields.next()? == file && owner > 0).then_some(owner)
    })
}
