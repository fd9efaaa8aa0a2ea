//! What the calls that programs make most often cost: medians of several rounds, on one thread.
//!
//! Figures of one machine at one time. They are there to see a change by, not to be quoted.

use std::hint::black_box;
use std::time::Instant;

use rawdb::Database;

const ROUNDS: usize = 7;
const CALLS: u64 = 2_000_000;

/// Median and best nanoseconds per call of `ROUNDS` rounds, each prepared by `prepare`.
fn measure<T>(what: &str, mut prepare: impl FnMut() -> T, mut call: impl FnMut(&mut T, u64)) {
    let mut rounds: Vec<f64> = (0..ROUNDS)
        .map(|_| {
            let mut state = prepare();
            let start = Instant::now();
            for number in 0..CALLS {
                call(&mut state, number);
            }
            start.elapsed().as_nanos() as f64 / CALLS as f64
        })
        .collect();
    rounds.sort_by(f64::total_cmp);
    println!("{what:<58} {:>7.1} ns (best {:.1})", rounds[ROUNDS / 2], rounds[0]);
}

fn main() {
    let dir = tempfile::tempdir().unwrap();
    let db = Database::open(dir.path()).unwrap();
    let bytes = [7u8; 64];
    let mut number = 0;
    let mut fresh = || {
        number += 1;
        db.create_region_if_needed(&format!("fresh {number}")).unwrap()
    };

    measure("append 64 bytes, new blocks and pages included", &mut fresh, |region, _| {
        black_box(region.write(black_box(&bytes)).unwrap());
    });
    // One mebibyte over and over: what the library itself costs.
    measure("append 64 bytes, blocks and pages there", &mut fresh, |region, number| {
        if number % 16384 == 0 {
            region.truncate(0).unwrap();
        }
        black_box(region.write(black_box(&bytes)).unwrap());
    });

    let region = fresh();
    region.write(&vec![1; 1 << 20]).unwrap();
    let offset = |number: u64| number.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 44 & !63;
    measure(
        "overwrite 64 bytes at random in 1 MiB",
        || (),
        |(), number| {
            region.write_at(black_box(&bytes), offset(number)).unwrap();
        },
    );
    measure(
        "open a view of 64 bytes, read it, release it",
        || (),
        |(), number| {
            let view = region.view(offset(number), 64).unwrap();
            black_box(view.iter().fold(0u64, |sum, &byte| sum + u64::from(byte)));
        },
    );
    measure(
        "open a view and release it",
        || (),
        |(), number| {
            black_box(region.view(black_box(offset(number)), 64).unwrap());
        },
    );
    for regions in [10u32, 10_000] {
        for other in 0..regions {
            db.create_region_if_needed(&format!("other {other}")).unwrap();
        }
        measure(
            &format!("open and release a view among {regions} regions"),
            || (),
            |(), number| drop(black_box(region.view(black_box(offset(number)), 64).unwrap())),
        );
    }
}
