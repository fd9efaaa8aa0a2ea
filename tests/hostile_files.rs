//! Files changed by random inputs, as by the fuzzer of `fuzz/`: what the library says of them is
//! what `docs/format.md` says, and what opens works. `RAWDB_SEED` repeats a run.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

#[path = "../fuzz/harness/mod.rs"]
mod harness;
mod seed;

/// How many random inputs there are, unless `RAWDB_INPUTS` says otherwise.
const INPUTS: u64 = 300_000;

/// Says which input it was when the test panics in it, and ends the other threads.
struct Case<'a>(String, &'a [u8], &'a AtomicU64);

impl Drop for Case<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("in this case: {}, {:?}", self.0, self.1);
            self.2.store(u64::MAX / 2, Ordering::Relaxed);
        }
    }
}

#[test]
fn corpus() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/files");
    let mut inputs = 0;
    for file in fs::read_dir(corpus).unwrap() {
        let path = file.unwrap().path();
        let bytes = fs::read(&path).unwrap();
        let _case = Case(path.display().to_string(), &bytes, &AtomicU64::new(0));
        harness::run(&bytes);
        inputs += 1;
    }
    println!("{inputs} inputs");
    assert!(inputs > 0);
}

#[test]
fn random_changes() {
    let seed = seed::seed();
    let inputs = std::env::var("RAWDB_INPUTS").map_or(INPUTS, |it| it.parse().unwrap());
    let next = AtomicU64::new(0);
    let work = || {
        let mut outcomes = BTreeMap::new();
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= inputs {
                return outcomes;
            }
            let mut rng = fastrand::Rng::with_seed(seed.wrapping_add(number));
            // Few changes at a time: files with many are refused for the first.
            let most = 1 << rng.u32(1..8);
            let len = 4 + rng.usize(..most);
            let mut input: Vec<u8> = (0..len).map(|_| rng.u8(..)).collect();
            // Changed entries are looked at only behind headers that fit.
            input[2] &= if rng.u32(..4) > 0 { 0b01011 } else { 0b11111 };
            if rng.bool() {
                input[2] |= 0b01011;
            }
            let _case = Case(format!("number {number}"), &input, &next);
            *outcomes.entry(harness::run(&input)).or_insert(0u64) += 1;
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, |threads| threads.get());
    let outcomes = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        let mut sum = BTreeMap::new();
        for outcomes in threads.into_iter().map(|thread| thread.join().unwrap()) {
            for (outcome, count) in outcomes {
                *sum.entry(outcome).or_insert(0) += count;
            }
        }
        sum
    });
    println!("{outcomes:?}");
}
