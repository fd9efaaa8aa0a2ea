//! The key-value stores: what an append to a region is to them is a new record under the next key.

use std::path::Path;
use std::time::Instant;

use heed::byteorder::NativeEndian;
use heed::types::{Bytes, U64};
use heed::{EnvFlags, EnvOpenOptions, IntegerComparator, PutFlags};
use redb::{Durability, TableDefinition};

pub trait Store: 'static {
    const NAME: &'static str;

    /// `durable`: whether each commit is synced; if not, the store is given its fastest mode.
    fn open(dir: &Path, durable: bool) -> Self;
    /// Puts records `first..first + count` in one transaction, each of 64 bytes that begin with its
    /// key.
    fn append(&mut self, first: u64, count: u64);
    /// Number of records, and the sum of what they begin with.
    fn check(&mut self) -> (u64, u64);
}

pub fn record(number: u64) -> [u8; 64] {
    let mut bytes = [7; 64];
    bytes[..8].copy_from_slice(&number.to_ne_bytes());
    bytes
}

fn number(bytes: &[u8]) -> u64 {
    u64::from_ne_bytes(bytes[..8].try_into().unwrap())
}

type Records = heed::Database<U64<NativeEndian>, Bytes, IntegerComparator>;

fn lmdb_options() -> EnvOpenOptions<heed::WithTls> {
    let mut options = EnvOpenOptions::new();
    options.map_size(16 << 30);
    options
}

pub struct Lmdb(heed::Env, Records);

impl Lmdb {
    /// Opens what is there and was closed, reads one record, and closes again. Nothing is written,
    /// unlike in `open`.
    pub fn open_and_read(dir: &Path, key: u64, read: impl FnOnce(&[u8])) {
        // SAFETY: the directory is this program's alone.
        let env = unsafe { lmdb_options().open(dir) }.unwrap();
        let txn = env.read_txn().unwrap();
        let records: Records = env
            .database_options()
            .types::<U64<NativeEndian>, Bytes>()
            .key_comparator::<IntegerComparator>()
            .open(&txn)
            .unwrap()
            .unwrap();
        read(records.get(&txn, &key).unwrap().unwrap());
    }
}

impl Store for Lmdb {
    const NAME: &'static str = "LMDB";

    fn open(dir: &Path, durable: bool) -> Self {
        std::fs::create_dir_all(dir).unwrap();
        let mut options = lmdb_options();
        if !durable {
            // SAFETY: nobody needs these files after a crash.
            unsafe { options.flags(EnvFlags::WRITE_MAP | EnvFlags::NO_SYNC) };
        }
        // SAFETY: the directory is this program's alone.
        let env = unsafe { options.open(dir) }.unwrap();
        let mut txn = env.write_txn().unwrap();
        let records = env
            .database_options()
            .types::<U64<NativeEndian>, Bytes>()
            .key_comparator::<IntegerComparator>()
            .create(&mut txn)
            .unwrap();
        txn.commit().unwrap();
        Lmdb(env, records)
    }

    fn append(&mut self, first: u64, count: u64) {
        let mut txn = self.0.write_txn().unwrap();
        for key in first..first + count {
            self.1.put_with_flags(&mut txn, PutFlags::APPEND, &key, &record(key)).unwrap();
        }
        txn.commit().unwrap();
    }

    fn check(&mut self) -> (u64, u64) {
        let txn = self.0.read_txn().unwrap();
        let records = self.1.iter(&txn).unwrap();
        records.fold((0, 0), |(count, sum), entry| (count + 1, sum + number(entry.unwrap().1)))
    }
}

/// LMDB in its default mode, with names as keys, as regions have names: an empty record for each, and
/// one more for each append, under the name, a zero and a number.
pub struct LmdbNames(heed::Env, heed::Database<Bytes, Bytes>);

impl LmdbNames {
    pub fn key(name: &str, append: u8) -> Vec<u8> {
        [name.as_bytes(), &[0, append]].concat()
    }

    pub fn open(dir: &Path) -> Self {
        std::fs::create_dir_all(dir).unwrap();
        // SAFETY: the directory is this program's alone.
        let env = unsafe { lmdb_options().open(dir) }.unwrap();
        let mut txn = env.write_txn().unwrap();
        let records = env.create_database(&mut txn, None).unwrap();
        txn.commit().unwrap();
        LmdbNames(env, records)
    }

    /// Puts all of them in one transaction; seconds of the puts, and of the commit. `last`: they
    /// come after all that is there, in ascending order.
    pub fn put<'a>(
        &self,
        last: bool,
        records: impl Iterator<Item = (&'a [u8], &'a [u8])>,
    ) -> [f64; 2] {
        let flags = if last { PutFlags::APPEND } else { PutFlags::empty() };
        let start = Instant::now();
        let mut txn = self.0.write_txn().unwrap();
        for (key, value) in records {
            self.1.put_with_flags(&mut txn, flags, key, value).unwrap();
        }
        let puts = start.elapsed().as_secs_f64();
        txn.commit().unwrap();
        [puts, start.elapsed().as_secs_f64() - puts]
    }

    pub fn check<'a>(&self, records: impl Iterator<Item = (&'a [u8], &'a [u8])>) {
        let txn = self.0.read_txn().unwrap();
        for (key, value) in records {
            assert_eq!(self.1.get(&txn, key).unwrap(), Some(value));
        }
    }
}

const TABLE: TableDefinition<u64, &[u8]> = TableDefinition::new("records");

pub struct Redb(redb::Database, Durability);

impl Store for Redb {
    const NAME: &'static str = "redb";

    fn open(dir: &Path, durable: bool) -> Self {
        std::fs::create_dir_all(dir).unwrap();
        let durability = if durable { Durability::Immediate } else { Durability::None };
        Redb(redb::Database::create(dir.join("redb")).unwrap(), durability)
    }

    fn append(&mut self, first: u64, count: u64) {
        let mut txn = self.0.begin_write().unwrap();
        txn.set_durability(self.1).unwrap();
        {
            let mut table = txn.open_table(TABLE).unwrap();
            for key in first..first + count {
                table.insert(key, record(key).as_slice()).unwrap();
            }
        }
        txn.commit().unwrap();
    }

    fn check(&mut self) -> (u64, u64) {
        use redb::{ReadableDatabase, ReadableTable};
        let table = self.0.begin_read().unwrap().open_table(TABLE).unwrap();
        let records = table.iter().unwrap();
        records
            .fold((0, 0), |(count, sum), entry| (count + 1, sum + number(entry.unwrap().1.value())))
    }
}

pub struct Sqlite(rusqlite::Connection);

impl Store for Sqlite {
    const NAME: &'static str = "SQLite (WAL)";

    fn open(dir: &Path, durable: bool) -> Self {
        std::fs::create_dir_all(dir).unwrap();
        let connection = rusqlite::Connection::open(dir.join("sqlite")).unwrap();
        let mode: String =
            connection.query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0)).unwrap();
        assert_eq!(mode, "wal");
        let synchronous = if durable { "FULL" } else { "OFF" };
        connection
            .execute_batch(&format!(
                "PRAGMA synchronous = {synchronous}; PRAGMA locking_mode = EXCLUSIVE;
                 CREATE TABLE records (key INTEGER PRIMARY KEY, value BLOB)"
            ))
            .unwrap();
        Sqlite(connection)
    }

    fn append(&mut self, first: u64, count: u64) {
        let txn = self.0.transaction().unwrap();
        {
            let mut insert = txn.prepare_cached("INSERT INTO records VALUES (?1, ?2)").unwrap();
            for key in first..first + count {
                insert.execute((key as i64, record(key).as_slice())).unwrap();
            }
        }
        txn.commit().unwrap();
    }

    fn check(&mut self) -> (u64, u64) {
        let mut select = self.0.prepare("SELECT value FROM records").unwrap();
        let mut rows = select.query([]).unwrap();
        let (mut count, mut sum) = (0, 0);
        while let Some(row) = rows.next().unwrap() {
            count += 1;
            sum += number(row.get_ref(0).unwrap().as_blob().unwrap());
        }
        (count, sum)
    }
}
