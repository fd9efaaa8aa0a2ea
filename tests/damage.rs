//! Whatever the two files hold, opening answers with the right contents or with an error that says
//! where the damage is, and never with a panic, a signal or somebody else's bytes.
//!
//! Databases are made through the public interface, copied, damaged and opened again. The last
//! part writes files of its own, sealed as the library would, with values that it never writes.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{symlink, FileExt};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};

use rawdb::{Database, Error, ErrorKind, Options, MAX_NAME_LEN};
use tempfile::TempDir;

mod seed;

const PAGE: usize = rawdb::PAGE_SIZE as usize;
const SECTOR: usize = 512;

type Contents = BTreeMap<String, Vec<u8>>;

/// Half a million opened databases sync more than half a million times, so they lie in memory.
fn scratch() -> TempDir {
    tempfile::tempdir_in("/dev/shm").expect("the tests need a directory in memory, /dev/shm")
}

/// Says which case it was when the test panics in it.
struct Case<'a>(&'a dyn Fn() -> String);

impl Drop for Case<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("in this case: {}", (self.0)());
        }
    }
}

/// The two files of a database. `data` is sparse: what follows its bytes up to its length is zero.
#[derive(Clone)]
struct Image {
    data: Vec<u8>,
    data_len: u64,
    regions: Vec<u8>,
}

impl Image {
    fn of(dir: &Path) -> Image {
        let mut data = fs::read(dir.join("data")).unwrap();
        let data_len = data.len() as u64;
        data.truncate(data.iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1));
        Image { data, data_len, regions: fs::read(dir.join("regions")).unwrap() }
    }

    fn put(&self, dir: &Path) {
        let data = overwrite(&dir.join("data"), &self.data);
        data.set_len(self.data_len).unwrap();
        overwrite(&dir.join("regions"), &self.regions);
    }

    /// Puts back what opening and closing changes.
    fn put_tables(&self, dir: &Path) {
        let open = |name| fs::OpenOptions::new().write(true).open(dir.join(name)).unwrap();
        open("data").set_len(self.data_len).unwrap();
        open("regions").write_all_at(&self.regions, 0).unwrap();
    }

    /// Whether the files in `dir` are still these.
    fn is_in(&self, dir: &Path) -> bool {
        let data = fs::File::open(dir.join("data")).unwrap();
        let mut bytes = vec![0; self.data.len()];
        data.read_exact_at(&mut bytes, 0).unwrap();
        data.metadata().unwrap().len() == self.data_len
            && bytes == self.data
            && fs::read(dir.join("regions")).unwrap() == self.regions
    }

    fn page(&self, page: usize) -> &[u8] {
        &self.regions[page * PAGE..][..PAGE]
    }

    fn page_mut(&mut self, page: usize) -> &mut [u8] {
        &mut self.regions[page * PAGE..][..PAGE]
    }

    fn pages(&self) -> usize {
        self.regions.len() / PAGE
    }
}

fn overwrite(path: &Path, bytes: &[u8]) -> fs::File {
    let file = fs::OpenOptions::new().read(true).write(true).create(true).truncate(true).open(path);
    let file = file.unwrap();
    file.write_all_at(bytes, 0).unwrap();
    file
}

/// A database to be damaged, and what it is allowed to say.
struct Subject {
    name: &'static str,
    image: Image,
    /// The files at earlier times in the life of the same database.
    earlier: Vec<Image>,
    /// What opening the undamaged files gives.
    right: Contents,
    /// What it gave one flush earlier. A page that is missing or older than it should be is just
    /// what a crash inside the last flush leaves, and then this is what the database must hold.
    before_last_flush: Contents,
    /// Closed, and so with two equal headers, which tell that there was no such crash.
    closed: bool,
}

impl Subject {
    /// How many bytes of a page anyone reads.
    fn used(&self, file: &str, page: usize) -> usize {
        let page = if file == "data" { &self.image.data } else { self.image.page(page) };
        used(page).max(64)
    }
}

fn bytes(len: usize, seed: u8) -> Vec<u8> {
    (0..len).map(|at| (at as u8).wrapping_mul(31).wrapping_add(seed)).collect()
}

fn contents(db: &Database) -> Contents {
    let list = db.list().unwrap();
    let found: Contents = list
        .iter()
        .map(|(name, info)| {
            let region = db.region(name).unwrap();
            let view = region.view(0, u64::MAX).unwrap();
            assert_eq!(view.len() as u64, info.len);
            assert_eq!(region.create_reader().read_all().unwrap(), &*view);
            (name.clone(), view.to_vec())
        })
        .collect();
    assert_eq!(found.len(), list.len(), "a name is listed once");
    found
}

fn long_name() -> String {
    "n".repeat(MAX_NAME_LEN)
}

/// A life of several flushes, so that both sides of slots hold entries; then closed, or cut off by
/// copying the files while it is open.
fn subjects() -> Vec<Subject> {
    let dir = scratch();
    let path = dir.path();
    let mut earlier = Vec::new();

    let db = Database::open(path).unwrap();
    let short = db.create_region_if_needed("short").unwrap();
    short.write(&bytes(5000, 1)).unwrap();
    let removed = db.create_region_if_needed("removed").unwrap();
    removed.write(&bytes(300, 2)).unwrap();
    db.create_region_if_needed("ü").unwrap();
    db.flush().unwrap();
    earlier.push(Image::of(path));

    let long = db.create_region_if_needed(&long_name()).unwrap();
    long.write(&bytes(100, 3)).unwrap();
    removed.remove().unwrap();
    short.write(&bytes(700, 4)).unwrap();
    let before_last_flush = contents(&db);
    db.flush().unwrap();
    earlier.push(Image::of(path));

    long.write(&bytes(100, 5)).unwrap();
    short.write(&bytes(50, 6)).unwrap();
    db.create_region_if_needed("last").unwrap().write(&bytes(20, 7)).unwrap();
    let right = contents(&db);
    db.flush().unwrap();
    let killed = Image::of(path);
    let killed_earlier = earlier.clone();

    short.write(&bytes(600, 11)).unwrap();
    let right_with_tail = contents(&db);
    db.flush().unwrap();
    earlier.push(killed.clone());
    // What has been appended is in the entry, and nowhere else.
    let with_tail = Image { data: killed.data.clone(), ..Image::of(path) };

    // Nothing of this overwrites a flushed byte, which would show even without a flush: the view
    // makes the region move.
    let view = long.view(0, 10).unwrap();
    long.write_at(&bytes(200, 8), 0).unwrap();
    drop(view);
    short.write(&bytes(15_000, 9)).unwrap();
    db.create_region_if_needed("unflushed").unwrap().write(&bytes(20, 10)).unwrap();
    db.rename("last", "renamed", false).unwrap();
    db.remove("ü").unwrap();
    let killed_in_between = Image::of(path);
    let right_when_closed = contents(&db);
    db.close().unwrap();
    let closed = Image::of(path);

    let subject = |name, image, before: &Contents, right: &Contents, closed| Subject {
        name,
        image,
        earlier: earlier.clone(),
        right: right.clone(),
        before_last_flush: before.clone(),
        closed,
    };
    // A crash inside the third flush, before its header reached the disk; then opened and closed.
    let mut interrupted = killed.clone();
    let newest = (0..2).max_by_key(|&page| generation(killed.page(page))).unwrap();
    interrupted.page_mut(newest).copy_from_slice(earlier[1].page(newest));
    let healed = scratch();
    interrupted.put(healed.path());
    let db = Database::open(healed.path()).unwrap();
    assert_eq!(contents(&db), before_last_flush);
    db.close().unwrap();

    vec![
        subject("closed", closed, &right_with_tail, &right_when_closed, true),
        Subject {
            earlier: killed_earlier,
            ..subject("killed after a flush", killed, &before_last_flush, &right, false)
        },
        subject("killed after a flush of a tail", with_tail, &right, &right_with_tail, false),
        subject(
            "killed with changes since its flush",
            killed_in_between,
            &right,
            &right_with_tail,
            false,
        ),
        subject(
            "closed after a crash inside a flush",
            Image::of(healed.path()),
            &before_last_flush,
            &before_last_flush,
            true,
        ),
    ]
}

fn generation(page: &[u8]) -> u64 {
    u64::from_le_bytes(page[16..24].try_into().unwrap())
}

fn used(page: &[u8]) -> usize {
    u16::from_le_bytes(page[12..14].try_into().unwrap()) as usize
}

/// What came of damage.
#[derive(Default)]
struct Counts {
    right: AtomicU64,
    older: AtomicU64,
    refused: AtomicU64,
}

impl Counts {
    fn print(&self, what: &str) {
        let [right, older, refused] =
            [&self.right, &self.older, &self.refused].map(|count| count.load(Ordering::Relaxed));
        println!("{what}: {right} right, {older} one flush older, {refused} refused");
    }
}

/// A refusal says what it is, in which file and page, and why.
fn check_refusal(error: &Error) {
    assert!(matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::Incompatible), "{error:?}");
    let message = error.to_string();
    assert!(["data page ", "regions page "].iter().any(|it| message.contains(it)), "{message}");
    assert!(["field ", "digest", "blank"].iter().any(|it| message.contains(it)), "{message}");
}

/// Opens the damaged `image` in `dir` and judges the answer. `names` is the page that a refusal
/// must name; `may_be_older` says whether a crash can have left the files so.
fn open_damaged(
    dir: &Path,
    subject: &Subject,
    options: &Options,
    names: Option<&str>,
    may_be_older: bool,
    counts: &Counts,
) -> Option<Contents> {
    let db = match Database::open_with(dir, options) {
        Ok(db) => db,
        Err(error) => {
            check_refusal(&error);
            if let Some(names) = names {
                assert!(error.to_string().contains(names), "names {names:?}: {error}");
            }
            counts.refused.fetch_add(1, Ordering::Relaxed);
            return None;
        }
    };
    let found = contents(&db);
    db.close().unwrap();
    if found == subject.right {
        counts.right.fetch_add(1, Ordering::Relaxed);
    } else if found == subject.before_last_flush {
        assert!(may_be_older, "older contents, although no crash leaves the files so");
        counts.older.fetch_add(1, Ordering::Relaxed);
    } else {
        panic!("opened with wrong contents: {:?}", lengths(&found));
    }
    Some(found)
}

fn lengths(contents: &Contents) -> Vec<(&str, usize)> {
    contents.iter().map(|(name, bytes)| (&**name, bytes.len())).collect()
}

/// A database that opened must also work, and keep what it says it keeps.
fn use_and_reopen(dir: &Path, mut expected: Contents) {
    let db = Database::open(dir).unwrap();
    assert_eq!(contents(&db), expected, "opened once more");
    let append = |db: &Database, expected: &mut Contents, name: &str, more: &[u8]| {
        db.create_region_if_needed(name).unwrap().write(more).unwrap();
        expected.entry(name.to_owned()).or_default().extend_from_slice(more);
    };
    append(&db, &mut expected, "new", &bytes(5000, 90));
    db.flush().unwrap();
    assert_eq!(contents(&db), expected, "after an append to a new region");
    db.close().unwrap();

    let db = Database::open(dir).unwrap();
    assert_eq!(contents(&db), expected, "reopened after an append to a new region");
    let names: Vec<String> = expected.keys().cloned().collect();
    for (number, name) in names.iter().enumerate() {
        if number % 2 == 0 {
            append(&db, &mut expected, name, &bytes(40_000, 91));
        } else {
            db.remove(name).unwrap();
            expected.remove(name);
        }
    }
    db.flush().unwrap();
    append(&db, &mut expected, "newer", &bytes(70_000, 92));
    db.compact().unwrap();
    assert_eq!(contents(&db), expected, "after appends and removals");
    db.close().unwrap();

    let db = Database::open(dir).unwrap();
    assert_eq!(contents(&db), expected, "reopened after appends and removals");
    db.close().unwrap();
}

/// Runs `work` for every number below `count`, on all processors, each with a directory.
fn in_parallel(count: usize, work: impl Fn(&Path, usize) + Sync) {
    let threads = std::thread::available_parallelism().map_or(1, |threads| threads.get());
    let next = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                let dir = scratch();
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed) as usize;
                    if number >= count {
                        break;
                    }
                    work(dir.path(), number);
                }
            });
        }
    });
}

/// The damaged files, as a case: the verdict, and where it opened, whether it works.
fn check_damaged(dir: &Path, subject: &Subject, image: &Image, may_be_older: bool, to: &Counts) {
    image.put(dir);
    let read_only = Options { read_only: true, ..Options::default() };
    let uncounted = Counts::default();
    let seen = open_damaged(dir, subject, &read_only, None, may_be_older, &uncounted);
    assert!(image.is_in(dir), "opened for reading only, it was written to");
    let found = open_damaged(dir, subject, &Options::default(), None, may_be_older, to);
    assert!(seen == found, "reading and writing see the same");
    if let Some(found) = found {
        use_and_reopen(dir, found);
    }
}

/// Opens the database once with each bit of the `pages` of `file` wrong (of bytes that no one reads
/// a sample will do, if it was not closed). `torn` says for which pages older contents are right.
fn flip_every_bit(
    subject: &Subject,
    file: &str,
    pages: std::ops::Range<usize>,
    torn: impl Fn(usize) -> bool + Sync,
    counts: &Counts,
) {
    // One piece of work is a sector.
    in_parallel(pages.len() * PAGE / SECTOR, |dir, number| {
        subject.image.put(dir);
        let open = || fs::OpenOptions::new().read(true).write(true).open(dir.join(file)).unwrap();
        let first = pages.start * PAGE + number * SECTOR;
        let mut original = [0; SECTOR];
        open().read_exact_at(&mut original, first as u64).unwrap();
        let used = subject.used(file, first / PAGE);
        for bit in 0..SECTOR * 8 {
            let at = first + bit / 8;
            let (page, offset) = (at / PAGE, at % PAGE);
            // Bytes that no one reads: all of them once, and later a sample, at prime distances.
            let every = |distance: usize| (at * 8 + bit % 8) % distance == 0;
            let matters = offset < used;
            if !matters && !subject.closed && !every(13) {
                continue;
            }
            let _case = Case(&|| {
                format!("{}: {file} page {page} byte {offset} bit {}", subject.name, bit % 8)
            });
            open().write_all_at(&[original[bit / 8] ^ 1 << (bit % 8)], at as u64).unwrap();
            let names = format!("{file} page {page}: ");
            if every(if matters { 5 } else { 977 }) {
                let options = Options { read_only: true, ..Options::default() };
                let uncounted = Counts::default();
                open_damaged(dir, subject, &options, Some(&names), torn(page), &uncounted);
            }
            let options = Options::default();
            match open_damaged(dir, subject, &options, Some(&names), torn(page), counts) {
                Some(found) => {
                    if every(if matters { 11 } else { 1999 }) {
                        use_and_reopen(dir, found);
                        subject.image.put(dir);
                    } else {
                        subject.image.put_tables(dir);
                    }
                }
                None => {
                    let harmless = file == "regions" && page < 2 && subject.closed;
                    assert!(!harmless, "the other header is as good");
                }
            }
            open().write_all_at(&[original[bit / 8]], at as u64).unwrap();
        }
    });
}

/// A single wrong bit never shows as anything but an error, and one in a header of a closed
/// database not at all. There is one exception, of databases that were not closed: an entry whose
/// name or tail takes it over several sectors looks the same with a wrong bit as torn by a crash inside
/// the flush that wrote it.
#[test]
fn every_bit_of_regions() {
    for mut subject in subjects().into_iter().take(3) {
        // What follows the last slot in use is room for more.
        let slots = u64::from_le_bytes(subject.image.page(0)[48..56].try_into().unwrap());
        subject.image.regions.truncate((2 + 2 * slots as usize) * PAGE);
        let image = &subject.image;
        let newest = generation(image.page(0)).max(generation(image.page(1)));
        let torn = |page: usize| {
            let page = image.page(page.max(2));
            !subject.closed && used(page) > SECTOR && generation(page) == newest
        };
        let counts = Counts::default();
        flip_every_bit(&subject, "regions", 0..image.pages(), torn, &counts);
        counts.print(&format!("{}, every bit of regions", subject.name));
        let refused = counts.refused.load(Ordering::Relaxed);
        assert!(refused > 1000, "entries are checked at all");
    }
}

#[test]
fn every_bit_of_the_identity_page() {
    for subject in &subjects()[..2] {
        let counts = Counts::default();
        flip_every_bit(subject, "data", 0..1, |_| false, &counts);
        counts.print(&format!("{}, every bit of data page 0", subject.name));
        // Used are 48 bytes.
        assert_eq!(counts.refused.load(Ordering::Relaxed), 48 * 8);
    }
}

/// Runs `damage` as one case per item on every subject.
fn every_case<T: Sync + std::fmt::Debug>(
    what: &str,
    items: impl Fn(&Subject) -> Vec<T>,
    damage: impl Fn(&Subject, &mut Image, &T) + Sync,
    may_be_older: impl Fn(&Subject, &T) -> bool + Sync,
) {
    for subject in &subjects() {
        let counts = Counts::default();
        let items = items(subject);
        in_parallel(items.len(), |dir, number| {
            let item = &items[number];
            let _case = Case(&|| format!("{}: {what} {item:?}", subject.name));
            let mut image = subject.image.clone();
            damage(subject, &mut image, item);
            check_damaged(dir, subject, &image, may_be_older(subject, item), &counts);
        });
        counts.print(&format!("{}, {what}", subject.name));
    }
}

#[test]
fn regions_cut_short() {
    every_case(
        "regions cut to",
        |subject| (0..=subject.image.regions.len()).step_by(SECTOR).collect(),
        |_, image, &len| image.regions.truncate(len),
        |_, _| false,
    );
}

#[test]
fn data_cut_short() {
    every_case(
        "data cut to",
        |subject| {
            let bytes = subject.image.data.len().next_multiple_of(PAGE) as u64;
            // Behind the last region's bytes there is only the sparse end.
            let sparse = (bytes..subject.image.data_len).step_by(1 << 20);
            (0..bytes).step_by(SECTOR).chain(sparse).collect()
        },
        |_, image, &len| {
            image.data_len = len;
            image.data.truncate(len as usize);
        },
        |_, _| false,
    );
}

#[test]
fn garbage_at_the_end() {
    let noise = |len: usize| {
        let mut rng = fastrand::Rng::with_seed(len as u64);
        (0..len).map(|_| rng.u8(..)).collect::<Vec<u8>>()
    };
    let lengths = vec![1, 100, 511, 512, 4095, 4096, 4097, 8192, 40_000, 300_000];
    every_case(
        "garbage after regions of",
        |_| lengths.clone(),
        |_, image, &len| image.regions.extend(noise(len)),
        |_, _| false,
    );
    every_case(
        "garbage after data of",
        |_| lengths.clone(),
        |_, image, &len| {
            image.data_len = image.data.len().next_multiple_of(PAGE) as u64;
            image.data.resize(image.data_len as usize, 0);
            image.data.extend(noise(len));
            image.data_len = image.data.len() as u64;
        },
        |_, _| false,
    );
    every_case(
        "the whole file once more after regions, times",
        |_| vec![1, 2],
        |_, image, &times| {
            let once = image.regions.clone();
            (0..times).for_each(|_| image.regions.extend_from_slice(&once));
        },
        |_, _| false,
    );
}

/// A sector that has turned to zeros (or to something else) is damage, except for one that the
/// last flush has written: there it may be what was before.
#[test]
fn sectors_overwritten() {
    let newest = |subject: &Subject, sector: usize| {
        let image = &subject.image;
        let generations = (0..image.pages()).map(|page| generation(image.page(page)));
        generation(image.page(sector * SECTOR / PAGE)) == generations.max().unwrap()
    };
    for fill in [0x00, 0xFF, 0x5A] {
        every_case(
            &format!("regions filled with {fill:#04x} in sector"),
            |subject| (0..subject.image.regions.len() / SECTOR).collect(),
            |_, image, &sector| image.regions[sector * SECTOR..][..SECTOR].fill(fill),
            |subject, &sector| {
                let page = sector * SECTOR / PAGE;
                let torn = used(subject.image.page(page)) > SECTOR && sector * SECTOR % PAGE > 0;
                !subject.closed && page >= 2 && newest(subject, sector) && (fill == 0 || torn)
            },
        );
        every_case(
            &format!("data page 0 filled with {fill:#04x} in sector"),
            |_| (0..PAGE / SECTOR).collect(),
            |_, image, &sector| image.data[sector * SECTOR..][..SECTOR].fill(fill),
            |_, _| false,
        );
    }
}

fn pairs(subject: &Subject) -> Vec<(usize, usize)> {
    let pages = subject.image.pages();
    (0..pages).flat_map(|a| (0..pages).map(move |b| (a, b))).filter(|(a, b)| a != b).collect()
}

/// Pages that are gone, in another place or of another time may be all that a crash inside the
/// last flush has left, if the database was not closed since. Never do they show as a mixture.
#[test]
fn pages_in_the_wrong_place() {
    every_case(
        "pages of regions swapped",
        |subject| pairs(subject).into_iter().filter(|(a, b)| a < b).collect(),
        |_, image, &(a, b)| {
            let first = image.page(a).to_vec();
            image.regions.copy_within(b * PAGE..(b + 1) * PAGE, a * PAGE);
            image.page_mut(b).copy_from_slice(&first);
        },
        |subject, _| !subject.closed,
    );
    every_case(
        "page of regions copied over another",
        pairs,
        |_, image, &(a, b)| image.regions.copy_within(a * PAGE..(a + 1) * PAGE, b * PAGE),
        |subject, _| !subject.closed,
    );
    every_case(
        "data page 0 copied over regions page",
        |subject| (0..subject.image.pages()).collect(),
        |_, image, &page| {
            let identity = image.data[..PAGE].to_vec();
            image.page_mut(page).copy_from_slice(&identity);
        },
        |_, _| false,
    );
}

#[test]
fn pages_of_an_earlier_time() {
    every_case(
        "older (file, page) in its place",
        |subject| {
            let times = 0..subject.earlier.len();
            times
                .flat_map(|time| (0..subject.image.pages()).map(move |page| (time, page)))
                .collect()
        },
        |subject, image, &(time, page)| {
            let older = subject.earlier[time].page(page).to_vec();
            image.page_mut(page).copy_from_slice(&older);
        },
        |subject, _| !subject.closed,
    );
    // All of `regions`, from before the last flush: what it says is where the bytes still are.
    for subject in subjects().iter().filter(|subject| !subject.closed) {
        let dir = scratch();
        let regions = subject.earlier.last().unwrap().regions.clone();
        Image { regions, ..subject.image.clone() }.put(dir.path());
        use_and_reopen(dir.path(), subject.before_last_flush.clone());
    }
}

#[test]
fn halves_of_two_databases() {
    for subject in &subjects() {
        let dir = scratch();
        let other = subjects().remove(0).image;
        let mixed = Image { regions: other.regions.clone(), ..subject.image.clone() };
        mixed.put(dir.path());
        let error = Database::open(dir.path()).unwrap_err();
        check_refusal(&error);
        assert!(error.to_string().contains("another database"), "{error}");

        // A single page of the other one.
        for page in 0..subject.image.pages() {
            let _case = Case(&|| format!("{}: page {page} of another database", subject.name));
            let mut mixed = subject.image.clone();
            mixed.page_mut(page).copy_from_slice(other.page(page));
            let counts = Counts::default();
            check_damaged(dir.path(), subject, &mixed, !subject.closed && page >= 2, &counts);
            let opened = counts.refused.load(Ordering::Relaxed) == 0;
            assert!(page >= 2 || !opened, "a header of another database is none");
        }
    }
}

/// What is not even a pair of files.
#[test]
fn strange_files() {
    let subject = &subjects()[0];
    let fifo = |path: &Path| {
        let path = std::ffi::CString::new(path.to_str().unwrap()).unwrap();
        // SAFETY: a system call with a string that outlives it.
        assert_eq!(unsafe { libc::mkfifo(path.as_ptr(), 0o600) }, 0);
    };
    type Make<'a> = &'a dyn Fn(&Path);
    let kinds: [(&str, Make); 5] = [
        ("nothing", &|_| ()),
        ("a directory", &|path| fs::create_dir(path).unwrap()),
        ("a FIFO", &fifo),
        ("a link to itself", &|path| symlink(path, path).unwrap()),
        ("a device", &|path| symlink("/dev/zero", path).unwrap()),
    ];
    for name in ["data", "regions"] {
        for (kind, make) in &kinds {
            for read_only in [true, false] {
                let _case = Case(&|| format!("{name} is {kind}, read_only {read_only}"));
                let dir = scratch();
                subject.image.put(dir.path());
                fs::remove_file(dir.path().join(name)).unwrap();
                make(&dir.path().join(name));
                let options = Options { read_only, ..Options::default() };
                let error = Database::open_with(dir.path(), &options).unwrap_err();
                assert!(error.to_string().contains(name), "{error}");
            }
        }
    }
}

/// Pages written from the description of the format at the top of `src/format.rs`, by other code.
mod forge {
    use super::*;

    #[derive(Clone, Debug)]
    pub struct Header {
        pub kind: u16,
        pub used: u16,
        pub generation: u64,
        pub version: u32,
        pub page_size: u32,
        pub uuid: [u8; 16],
        pub slots: u64,
        /// `None` for what the entries amount to.
        pub regions: Option<u64>,
        pub digest: Option<u128>,
        pub closed: u32,
    }

    #[derive(Clone, Debug)]
    pub struct Entry {
        /// Which page of `regions` it is written to.
        pub page: usize,
        pub kind: u16,
        /// `None` for what the name takes.
        pub used: Option<u16>,
        pub generation: u64,
        pub slot: u64,
        pub state: u32,
        pub name: Vec<u8>,
        pub name_len: Option<u16>,
        pub tail_len: Option<u16>,
        pub tail: Vec<u8>,
        pub start: u64,
        pub len: u64,
        pub reserved: u64,
        /// Whether the headers' sums count it.
        pub counted: bool,
    }

    #[derive(Clone, Debug)]
    pub struct Files {
        pub identity: Header,
        pub headers: [Header; 2],
        pub entries: Vec<Entry>,
        pub pages: usize,
        pub data_len: u64,
    }

    fn seal(fields: &[(usize, &[u8])], used: u16) -> Vec<u8> {
        let mut page = vec![0; PAGE];
        let fixed: [(usize, &[u8]); 2] = [(0, b"rawdb\r\n\x1a"), (12, &used.to_le_bytes())];
        for (at, bytes) in fixed.iter().chain(fields) {
            page[*at..*at + bytes.len()].copy_from_slice(bytes);
        }
        let crc = crc32c::crc32c(&page[..(used as usize).min(PAGE)]);
        page[8..12].copy_from_slice(&crc.to_le_bytes());
        page
    }

    impl Header {
        fn page(&self, regions: u64, digest: u128) -> Vec<u8> {
            let mut fields: Vec<(usize, Vec<u8>)> = vec![
                (14, self.kind.to_le_bytes().to_vec()),
                (16, self.generation.to_le_bytes().to_vec()),
                (24, self.version.to_le_bytes().to_vec()),
                (28, self.page_size.to_le_bytes().to_vec()),
                (32, self.uuid.to_vec()),
            ];
            if self.kind != 1 {
                fields.push((48, self.slots.to_le_bytes().to_vec()));
                fields.push((56, self.regions.unwrap_or(regions).to_le_bytes().to_vec()));
                fields.push((64, self.digest.unwrap_or(digest).to_le_bytes().to_vec()));
                fields.push((80, self.closed.to_le_bytes().to_vec()));
            }
            let fields: Vec<(usize, &[u8])> = fields.iter().map(|(at, it)| (*at, &**it)).collect();
            seal(&fields, self.used)
        }
    }

    impl Entry {
        fn page(&self) -> Vec<u8> {
            let used = self.used.unwrap_or(64 + (self.name.len() + self.tail.len()) as u16);
            let name_len = self.name_len.unwrap_or(self.name.len() as u16);
            let tail_len = self.tail_len.unwrap_or(self.tail.len() as u16);
            seal(
                &[
                    (14, &self.kind.to_le_bytes()),
                    (16, &self.generation.to_le_bytes()),
                    (24, &self.slot.to_le_bytes()),
                    (32, &self.state.to_le_bytes()),
                    (36, &name_len.to_le_bytes()),
                    (38, &tail_len.to_le_bytes()),
                    (40, &self.start.to_le_bytes()),
                    (48, &self.len.to_le_bytes()),
                    (56, &self.reserved.to_le_bytes()),
                    (64, &self.name),
                    (64 + self.name.len(), &self.tail),
                ],
                used,
            )
        }
    }

    impl Files {
        pub fn image(&self) -> Image {
            let mut regions = vec![0; self.pages * PAGE];
            let mut count = 0;
            let mut digest = 0u128;
            for entry in &self.entries {
                let page = entry.page();
                if entry.counted {
                    count += 1;
                    let used = super::used(&page).min(PAGE);
                    digest = digest.wrapping_add(xxhash_rust::xxh3::xxh3_128(&page[..used]));
                }
                regions[entry.page * PAGE..][..PAGE].copy_from_slice(&page);
            }
            for (number, header) in self.headers.iter().enumerate() {
                regions[number * PAGE..][..PAGE].copy_from_slice(&header.page(count, digest));
            }
            let mut data = self.identity.page(0, 0);
            data.extend(bytes(80_000, 50));
            data.truncate(self.data_len.min(70_000) as usize);
            Image { data, data_len: self.data_len, regions }
        }
    }

    pub const A: usize = 0;
    pub const B: usize = 1;
    pub const VACANT: usize = 2;

    /// A sound database: region "a" of 5000 bytes, region "b" of 100 bytes after it, one vacant
    /// slot, one that was never used, and room for more.
    pub fn sound() -> Files {
        let header = Header {
            kind: 2,
            used: 84,
            generation: 7,
            version: 1,
            page_size: 4096,
            uuid: *b"0123456789abcdef",
            slots: 4,
            regions: None,
            digest: None,
            closed: 1,
        };
        let entry = Entry {
            page: 2,
            kind: 3,
            used: None,
            generation: 5,
            slot: 0,
            state: 1,
            name: b"a".to_vec(),
            name_len: None,
            tail_len: None,
            tail: Vec::new(),
            start: 4096,
            len: 5000,
            reserved: 32768,
            counted: true,
        };
        let b = Entry {
            page: 5,
            generation: 7,
            slot: 1,
            name: b"b".to_vec(),
            start: 36864,
            len: 100,
            ..entry.clone()
        };
        let vacant = Entry {
            page: 6,
            slot: 2,
            state: 0,
            name: Vec::new(),
            start: 0,
            len: 0,
            reserved: 0,
            counted: false,
            ..entry.clone()
        };
        Files {
            identity: Header { kind: 1, used: 48, generation: 0, ..header.clone() },
            headers: [header.clone(), header],
            entries: vec![entry, b, vacant],
            pages: 2 + 2 * 8,
            data_len: 36864 + 32768,
        }
    }
}

use forge::{sound, Files, A, B, VACANT};

#[derive(Clone, Copy, Debug, PartialEq)]
enum Expect {
    /// With both regions.
    Opens,
    Empty,
    Corrupt,
    /// The same, and the message names this page and field.
    Field(&'static str, &'static str),
    Incompatible,
    /// Either will do, if it works afterwards.
    Any,
}

fn check_forged(dir: &Path, files: &Files, expect: Expect) -> bool {
    files.image().put(dir);
    let read_only = Options { read_only: true, ..Options::default() };
    let seen = Database::open_with(dir, &read_only).map(|db| contents(&db));
    let opened = Database::open(dir).map(|db| {
        let found = contents(&db);
        db.close().unwrap();
        found
    });
    assert_eq!(seen.is_ok(), opened.is_ok(), "reading and writing see the same: {opened:?}");
    match &opened {
        Ok(found) => {
            assert_eq!(&seen.unwrap(), found);
            let names: Vec<&str> = found.keys().map(|name| &**name).collect();
            match expect {
                Expect::Opens => assert_eq!(names, ["a", "b"]),
                Expect::Empty => assert!(names.is_empty()),
                Expect::Any => {}
                _ => panic!("opened: {:?}", lengths(found)),
            }
            use_and_reopen(dir, found.clone());
            true
        }
        Err(error) => {
            check_refusal(error);
            match expect {
                Expect::Any => {}
                Expect::Corrupt => assert_eq!(error.kind(), ErrorKind::Corrupt),
                Expect::Incompatible => assert_eq!(error.kind(), ErrorKind::Incompatible),
                Expect::Field(page, field) => {
                    assert_eq!(error.kind(), ErrorKind::Corrupt);
                    let message = error.to_string();
                    assert!(message.contains(&format!("{page}: ")), "names {page}: {message}");
                    assert!(message.contains(&format!("field {field}:")), "{field}: {message}");
                }
                Expect::Opens | Expect::Empty => panic!("refused: {error}"),
            }
            false
        }
    }
}

/// Values that no library writes, on pages that are sealed well.
#[test]
fn forged_values() {
    let dir = scratch();
    let mut cases = 0;
    let mut opened = 0;
    let mut case = |name: &str, expect: Expect, change: &dyn Fn(&mut Files)| {
        let _case = Case(&|| format!("forged: {name}"));
        let mut files = sound();
        change(&mut files);
        opened += u32::from(check_forged(dir.path(), &files, expect));
        cases += 1;
    };
    use Expect::*;
    const EXBI: u64 = 1 << 60;
    const PAGE_A: &str = "regions page 2";
    const PAGE_B: &str = "regions page 5";

    case("nothing", Opens, &|_| ());

    // Places.
    for start in [0, 1, 512, 4097, 36864 + 1, EXBI + 1, EXBI + 4096, 1 << 63, u64::MAX] {
        case("start of b", Field(PAGE_B, "start"), &move |it| it.entries[B].start = start);
    }
    case("start of b without room", Field(PAGE_B, "start"), &|it| {
        it.entries[B].reserved = 0;
        it.entries[B].len = 0;
    });
    for start in [36864 + 32768, EXBI, EXBI - 4096, 1 << 40] {
        case("start of b beyond data", Field(PAGE_B, "len"), &move |it| {
            it.entries[B].start = start;
        });
    }
    for start in [4096, 8192, 32768] {
        case("b overlaps a", Field(PAGE_B, "start"), &move |it| it.entries[B].start = start);
    }
    case("b inside a", Field(PAGE_B, "start"), &|it| {
        it.entries[A].reserved = 1 << 20;
    });
    case("b overlaps a where both are empty", Field(PAGE_B, "start"), &|it| {
        it.entries[A].len = 0;
        it.entries[B].len = 0;
        it.entries[B].start = 4096;
    });
    for reserved in [1, 4095, 32767, EXBI + 1, EXBI + 4096, 1 << 63, u64::MAX, u64::MAX - 4095] {
        case("reserved of b", Field(PAGE_B, "reserved"), &move |it| {
            it.entries[B].reserved = reserved;
        });
    }
    case("no room for a's bytes", Field(PAGE_A, "len"), &|it| it.entries[A].reserved = 4096);
    for len in [32769, EXBI, 1 << 63, u64::MAX] {
        case("len of a", Field(PAGE_A, "len"), &move |it| it.entries[A].len = len);
    }
    for reserved in [32768 + 4096, 1 << 30, 1 << 45, EXBI] {
        // A crash may cost the file an end that was only reserved.
        case("room of b beyond data", Opens, &move |it| it.entries[B].reserved = reserved);
        case("bytes of b beyond data", Field(PAGE_B, "len"), &move |it| {
            it.entries[B].reserved = reserved;
            it.entries[B].len = reserved;
        });
    }
    case("all of b's room missing", Empty, &|it| {
        it.entries.remove(A);
        it.entries.remove(B - 1);
        it.data_len = 4096;
        it.headers[0].slots = 0;
        it.headers[1].slots = 0;
    });
    case("b is empty and begins where data ends", Opens, &|it| {
        it.entries[B].len = 0;
        it.data_len = 36864;
    });
    case("b is empty and begins behind the end of data", Field(PAGE_B, "len"), &|it| {
        it.entries[B].len = 0;
        it.data_len = 36864 - 4096;
    });
    for data_len in
        [36864 + 4096, 36864 + 4097, 36864 + 5000, 36864 + 32767, 1 << 20, (1 << 30) + 7]
    {
        case("another length of data", Opens, &move |it| it.data_len = data_len);
    }
    for data_len in [4096, 4097, 8192, 36864, 36864 + 99] {
        case("data too short", Corrupt, &move |it| it.data_len = data_len);
    }
    for data_len in [0, 1, 47, 48, 4095] {
        case("data without a whole page", Corrupt, &move |it| it.data_len = data_len);
    }

    // Names.
    let name = |bytes: &'static [u8]| move |it: &mut Files| it.entries[B].name = bytes.to_vec();
    let bad: [&[u8]; 14] = [
        b"\xff",
        b"b\x80",
        b"\xc0\x80",
        b"\xed\xa0\x80",
        b"\xf4\x90\x80\x80",
        b"\xe2\x82",
        b"",
        b"\0",
        b"b\0",
        b"a\nb",
        b"\x1b[2J",
        b"\x7f",
        b"\xc2\x85",
        b"\t",
    ];
    for bytes in bad {
        case("name of b", Field(PAGE_B, "name"), &name(bytes));
    }
    case("two regions of one name", Field(PAGE_B, "name"), &name(b"a"));
    case("longest name", Any, &|it| it.entries[B].name = vec![b'n'; 1024]);
    case("name too long", Field(PAGE_B, "name"), &|it| it.entries[B].name = vec![b'n'; 1025]);
    for len in [0, 2, 1024, 4032, u16::MAX] {
        case("name_len of b", Field(PAGE_B, "name_len"), &move |it| {
            it.entries[B].name_len = Some(len);
        });
    }
    for used in [0, 1, 8, 12, 24, 31, 32, 63, 4097, u16::MAX] {
        case("used of b", Field(PAGE_B, "used"), &move |it| it.entries[B].used = Some(used));
        case("used of a header", Any, &move |it| it.headers[0].used = used);
        case("used of the identity", Field("data page 0", "used"), &move |it| {
            it.identity.used = used;
        });
    }

    // Tails, which count where the database was not closed.
    for used in [66, 1089, 4096] {
        case("used of b, as if it had a tail", Field(PAGE_B, "name_len"), &move |it| {
            it.entries[B].used = Some(used);
        });
    }
    let tail = |len: usize, open: bool| {
        move |it: &mut Files| {
            it.entries[B].tail = vec![b't'; len];
            it.headers[0].closed = u32::from(!open);
        }
    };
    for open in [false, true] {
        case("tail of b", Opens, &tail(100, open));
        for len in [1, 99, 101, 612, 4031] {
            case("tail of b, of no whole sectors", Field(PAGE_B, "tail_len"), &tail(len, open));
        }
        case("longest tail of a", Opens, &move |it| {
            it.entries[A].len = 512 + 4031;
            it.entries[A].tail = vec![b't'; 4031];
            it.headers[0].closed = u32::from(!open);
        });
    }
    for len in [1, 100, u16::MAX] {
        case("tail_len of b without a tail", Field(PAGE_B, "name_len"), &move |it| {
            it.entries[B].tail_len = Some(len);
        });
    }

    // Slots and what they are.
    for state in [2, 3, 1 << 31, u32::MAX] {
        case("state of b", Field(PAGE_B, "state"), &move |it| it.entries[B].state = state);
    }
    case("b is vacant, with numbers", Corrupt, &|it| it.entries[B].state = 0);
    for kind in [0, 1, 2, 4, u16::MAX] {
        case("kind of b", Field(PAGE_B, "kind"), &move |it| it.entries[B].kind = kind);
    }
    for slot in [0, 2, 100, 1 << 62, u64::MAX] {
        case("slot of b", Field(PAGE_B, "slot"), &move |it| it.entries[B].slot = slot);
    }
    case("numbers in a vacant entry", Any, &|it| it.entries[VACANT].start = 4096);
    case("a region in a slot that is not in the table", Opens, &|it| {
        let entry =
            forge::Entry { page: 14, slot: 6, name: b"c".to_vec(), ..it.entries[B].clone() };
        it.entries.push(forge::Entry { counted: false, ..entry });
    });
    case("the other side of b has the same generation", Any, &|it| {
        it.entries.push(forge::Entry { page: 4, len: 50, counted: false, ..it.entries[B].clone() });
    });
    for generation in [0, 6] {
        case("the other side of b is older", Opens, &move |it| {
            let len = 50;
            let entry = forge::Entry { page: 4, len, generation, ..it.entries[B].clone() };
            it.entries.push(forge::Entry { counted: false, ..entry });
        });
    }
    // An entry of a flush that did not complete.
    for generation in [8, 9, 1 << 32, 1 << 61] {
        for of in [A, B, VACANT] {
            case("an entry from the future", Opens, &move |it| {
                let page = it.entries[of].page ^ 1;
                let entry = forge::Entry { page, generation, ..it.entries[of].clone() };
                it.entries.push(forge::Entry { len: 0, counted: false, ..entry });
            });
        }
    }
    case("a region from the future in a vacant slot", Opens, &|it| {
        let entry = forge::Entry { page: 7, slot: 2, name: b"c".to_vec(), ..it.entries[B].clone() };
        it.entries.push(forge::Entry { generation: 8, counted: false, ..entry });
    });

    // Headers.
    for slots in [0, 1, 3, 9, 1 << 20, 1 << 48, (1 << 48) + 1, 1 << 63, u64::MAX] {
        case("slots", if slots == 3 { Opens } else { Corrupt }, &move |it| {
            it.headers.iter_mut().for_each(|header| header.slots = slots);
        });
    }
    case("more slots than ever used", Opens, &|it| {
        it.headers.iter_mut().for_each(|header| header.slots = 8);
    });
    for regions in [0, 1, 3, 4, 5, 1 << 48, u64::MAX] {
        case("regions", Corrupt, &move |it| {
            it.headers.iter_mut().for_each(|header| header.regions = Some(regions));
        });
    }
    for digest in [0, 1, u128::MAX] {
        case("digest", Corrupt, &move |it| {
            it.headers.iter_mut().for_each(|header| header.digest = Some(digest));
        });
        case("digest of one header", Any, &move |it| it.headers[0].digest = Some(digest));
    }
    for generation in [0, 1, 6] {
        case("headers older than b", Corrupt, &move |it| {
            it.headers.iter_mut().for_each(|header| header.generation = generation);
        });
    }
    for closed in [2, 3, 1 << 31, u32::MAX] {
        case("closed", Field("regions page 0", "closed"), &move |it| {
            it.headers.iter_mut().for_each(|header| header.closed = closed);
        });
    }
    for (first, second) in [(0, 0), (0, 1), (1, 0)] {
        case("not closed", Opens, &move |it| {
            it.headers[0].closed = first;
            it.headers[1].closed = second;
        });
    }
    case("everything of generation 0", Opens, &|it| {
        it.headers.iter_mut().for_each(|header| header.generation = 0);
        it.entries.iter_mut().for_each(|entry| entry.generation = 0);
    });
    for generation in [1 << 62, 1 << 63, u64::MAX] {
        case("generation of both headers", Field("regions page 0", "generation"), &move |it| {
            it.headers.iter_mut().for_each(|header| header.generation = generation);
        });
        case("generation of an entry", Field(PAGE_B, "generation"), &move |it| {
            it.entries[B].generation = generation;
        });
    }
    for version in [2, 3, 1 << 16, u32::MAX] {
        case("version of the identity", Incompatible, &move |it| it.identity.version = version);
        for page in 0..2 {
            case("version of a header", Incompatible, &move |it| {
                it.headers[page].version = version;
            });
        }
        // A newer format may also have more to say.
        case("version of everything", Incompatible, &move |it| {
            for header in it.headers.iter_mut().chain([&mut it.identity]) {
                header.version = version;
                header.used = 300;
                header.page_size = 8192;
            }
        });
    }
    case("version 0 of the identity", Field("data page 0", "version"), &|it| {
        it.identity.version = 0;
    });
    case("version 0 of the headers", Field("regions page 0", "version"), &|it| {
        it.headers.iter_mut().for_each(|header| header.version = 0);
    });
    for page_size in [0, 1, 512, 8192, 65536, u32::MAX] {
        case("page_size of the identity", Field("data page 0", "page_size"), &move |it| {
            it.identity.page_size = page_size;
        });
        case("page_size of the headers", Field("regions page 1", "page_size"), &move |it| {
            it.headers.iter_mut().for_each(|header| header.page_size = page_size);
        });
    }
    for kind in [0, 1, 3, u16::MAX] {
        case("kind of the headers", Field("regions page 0", "kind"), &move |it| {
            it.headers.iter_mut().for_each(|header| header.kind = kind);
        });
    }
    case("kind of the identity", Field("data page 0", "kind"), &|it| it.identity.kind = 2);
    case("uuid of one header", Field("regions page 1", "uuid"), &|it| it.headers[1].uuid[7] ^= 1);
    case("uuid of the identity", Field("regions page 0", "uuid"), &|it| it.identity.uuid[7] ^= 1);
    println!("forged values: {cases} cases, {opened} opened");
    assert!(opened > 20 && cases - opened > 100);
}

/// Generations end somewhere. A database that is almost there opens or does not, and a flush
/// succeeds or does not; but what is there can be opened again.
#[test]
fn last_generations() {
    for generation in [(1 << 62) - 1, (1 << 62) - 2, (1 << 62) - 3, (1 << 61) - 1, 1 << 61] {
        for what in ["header", "entry from the future"] {
            let _case = Case(&|| format!("{what} of generation {generation}"));
            let dir = scratch();
            let mut files = sound();
            if what == "header" {
                files.headers.iter_mut().for_each(|header| header.generation = generation);
            } else {
                let entry = forge::Entry { page: 4, generation, ..files.entries[B].clone() };
                files.entries.push(forge::Entry { counted: false, ..entry });
            }
            files.image().put(dir.path());
            let mut expected = None;
            for round in 0..5u8 {
                let db = match Database::open(dir.path()) {
                    Ok(db) => db,
                    Err(error) if round == 0 => {
                        check_refusal(&error);
                        break;
                    }
                    Err(error) => panic!("cannot be opened after {round} flushes: {error}"),
                };
                assert!(expected.is_none_or(|expected| expected == contents(&db)));
                let name = format!("new {round}");
                db.create_region_if_needed(&name).unwrap().write(&[round]).unwrap();
                let flushed = db.flush().is_ok();
                // What could not be flushed is in the mirror, which a close that fails leaves.
                expected = Some(contents(&db));
                let closed = db.close();
                assert!(!flushed || closed.is_ok());
            }
        }
    }
}

/// Lengths that no file system would give the file for real.
#[test]
fn huge_sparse_files() {
    for data_len in [1u64 << 42, 1 << 45, 1 << 50, 1 << 60, (1 << 60) + 1, i64::MAX as u64] {
        for read_only in [true, false] {
            let _case = Case(&|| format!("data of {data_len} bytes, read_only {read_only}"));
            let dir = scratch();
            let mut image = sound().image();
            image.data_len = data_len;
            image.put(dir.path());
            let options = Options { read_only, ..Options::default() };
            match Database::open_with(dir.path(), &options) {
                Ok(db) => {
                    assert_eq!(contents(&db).len(), 2);
                    if !read_only {
                        let region = db.create_region_if_needed("c").unwrap();
                        region.write(&bytes(70_000, 3)).unwrap();
                        db.flush().unwrap();
                    }
                    db.close().unwrap();
                }
                Err(error) => {
                    let kinds = [ErrorKind::NoMemory, ErrorKind::TooLarge, ErrorKind::Corrupt];
                    assert!(kinds.contains(&error.kind()), "{error:?}");
                }
            }
        }
    }
}

/// Blank slots cost whoever makes the file nothing, and so must not cost memory.
#[test]
fn blank_slots_take_no_memory() {
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child_with_blank_slots", "--ignored", "--nocapture"])
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&child.stdout);
    let errors = String::from_utf8_lossy(&child.stderr);
    assert!(child.status.success() && text.contains("1 passed"), "{text}{errors}");
}

#[test]
#[ignore = "run in a child process by the test above"]
fn child_with_blank_slots() {
    // Not in memory, where `regions` is read and not mapped.
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    // A byte for each slot would be 128 MiB, and to look at each would take an hour.
    let len = 1 << 40;
    for table_has_them in [false, true] {
        let _case = Case(&|| format!("blank slots, in the table: {table_has_them}"));
        let mut files = sound();
        if table_has_them {
            files.headers.iter_mut().for_each(|header| header.slots = len / (2 * PAGE as u64) - 1);
        }
        files.image().put(dir.path());
        let regions = dir.path().join("regions");
        fs::OpenOptions::new().write(true).open(&regions).unwrap().set_len(len).unwrap();
        limit_data(4 << 20);

        let db = Database::open(dir.path()).unwrap();
        let mut expected = contents(&db);
        for number in 0..100 {
            let name = format!("new {number}");
            db.create_region_if_needed(&name).unwrap().write(name.as_bytes()).unwrap();
            expected.insert(name.clone(), name.into());
        }
        db.close().unwrap();
        let options = Options { read_only: true, ..Options::default() };
        assert_eq!(contents(&Database::open_with(dir.path(), &options).unwrap()), expected);
        assert_eq!(regions.metadata().unwrap().len(), len, "vacant slots are used first");
        limit_data(libc::RLIM_INFINITY >> 1);
    }
}

/// Lets this process have `bytes` more of memory that is its own.
fn limit_data(bytes: u64) {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmData:")).unwrap();
    let has: u64 = line.trim().strip_suffix(" kB").unwrap().parse().unwrap();
    let limit = libc::rlimit { rlim_cur: (has * 1024 + bytes) as _, rlim_max: libc::RLIM_INFINITY };
    // SAFETY: passes a valid struct.
    assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_DATA, &limit) }, 0);
}

/// Interesting values in random fields of sealed pages, and bytes at random without a seal.
/// `RAWDB_SEED` repeats a run.
#[test]
fn random_damage() {
    let seed = seed::seed();
    let opened = AtomicU64::new(0);
    let cases = 20_000;
    in_parallel(cases, |dir, number| {
        let _case = Case(&|| format!("random: RAWDB_SEED={seed}, number {number}"));
        let mut rng = fastrand::Rng::with_seed(seed.wrapping_add(number as u64));
        let mut files = sound();
        for _ in 0..rng.u32(1..4) {
            forge_one(&mut rng, &mut files);
        }
        if rng.u32(..4) > 0 {
            opened.fetch_add(check_forged(dir, &files, Expect::Any).into(), Ordering::Relaxed);
            return;
        }
        let mut image = files.image();
        for _ in 0..rng.u32(1..20) {
            let at = rng.usize(..image.regions.len());
            image.regions[at] = rng.u8(..);
        }
        image.put(dir);
        match Database::open(dir) {
            Ok(db) => {
                let found = contents(&db);
                db.close().unwrap();
                use_and_reopen(dir, found);
            }
            Err(error) => check_refusal(&error),
        }
    });
    println!("random damage: {cases} cases, {opened:?} opened");
    assert!(opened.into_inner() > cases as u64 / 100);
}

fn forge_one(rng: &mut fastrand::Rng, files: &mut Files) {
    // Between the two large ones generations end, which has a test of its own.
    let large = [1 << 20, 1 << 32, 1 << 40, 1 << 48, 1 << 60, 1 << 62, 1 << 63, u64::MAX];
    let number = match rng.u32(..4) {
        0 => rng.u64(..20),
        1 => rng.u64(..40) * 4096,
        2 => large[rng.usize(..large.len())],
        _ => rng.u64(..100_000),
    };
    if rng.u32(..3) == 0 {
        let header = match rng.u32(..3) {
            0 => &mut files.identity,
            page => &mut files.headers[page as usize - 1],
        };
        match rng.u32(..9) {
            0 => header.kind = number as u16,
            1 => header.used = number as u16,
            2 => header.generation = number,
            3 => header.version = number as u32,
            4 => header.page_size = number as u32,
            5 => header.uuid[rng.usize(..16)] = rng.u8(..),
            6 => header.slots = number,
            7 => header.regions = Some(number),
            _ => header.digest = Some(number.into()),
        }
        return;
    }
    let pages = files.pages;
    let index = rng.usize(..files.entries.len());
    if rng.u32(..4) == 0 {
        let page = rng.usize(2..pages);
        let mut entry = files.entries[index].clone();
        (entry.page, entry.slot) = (page, (page as u64 - 2) / 2);
        files.entries.push(entry);
        return;
    }
    let entry = &mut files.entries[index];
    match rng.u32(..13) {
        0 => entry.kind = number as u16,
        1 => entry.used = Some(number as u16),
        2 => entry.generation = number,
        3 => entry.slot = number,
        4 => entry.state = number as u32,
        5 => entry.name = (0..rng.usize(..4)).map(|_| rng.u8(..)).collect(),
        6 => entry.name_len = Some(number as u16),
        7 => entry.start = number,
        8 => entry.len = number,
        9 => entry.reserved = number,
        10 => entry.tail_len = Some(number as u16),
        11 => entry.tail = vec![rng.u8(..); rng.usize(..3000)],
        _ => files.data_len = number.min(1 << 30),
    }
}

/// Files without any sense.
#[test]
fn noise() {
    let dir = scratch();
    let mut rng = fastrand::Rng::with_seed(1);
    for number in 0..2000 {
        let _case = Case(&|| format!("noise {number}"));
        let mut noise = |most: usize| -> Vec<u8> {
            let len = rng.usize(..most);
            match rng.u32(..3) {
                0 => vec![rng.u8(..); len],
                _ => (0..len).map(|_| rng.u8(..)).collect(),
            }
        };
        let (data, regions) = (noise(20_000), noise(60_000));
        // Zeros alone are what the creation of a database leaves when it is interrupted.
        let nothing = |bytes: &[u8]| bytes.iter().all(|&byte| byte == 0);
        let blank = nothing(&data) && nothing(&regions) && data.len() <= PAGE;
        Image { data_len: data.len() as u64, data, regions }.put(dir.path());
        match Database::open(dir.path()) {
            Ok(db) => assert!(blank && db.list().unwrap().is_empty()),
            Err(error) => check_refusal(&error),
        }
    }
}
