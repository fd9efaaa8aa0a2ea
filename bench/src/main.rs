//! rawdb through its C interface against its peers, in one run. `make bench` runs it.
//!
//! - `RAWDB_BENCH_SCALE=small`: a smoke run of seconds, whose figures mean nothing.
//! - `RAWDB_BENCH_DIR`: where the databases go; has to be on ext4. Default: next to the build.
//! - `RAWDB_BENCH_OUT`: where benchmarks.md and its plots go. Default: docs, or next to the build
//!   for a smoke run.
//! - `RAWDB_BENCH_ONLY`: the workloads whose name contains this, for a start.

mod engines;
mod memory;
mod plot;
mod report;
mod stores;
mod workloads;

use std::env;
use std::fs;
use std::panic::{catch_unwind, resume_unwind, AssertUnwindSafe};
use std::path::{Path, PathBuf};

use workloads::{Contender, Scale, OURS, PANICKED};

const MIB: u64 = 1 << 20;

/// The samples of a workload: for each contender, for each metric, one for each round.
pub type Samples = Vec<Vec<Vec<f64>>>;

fn run(
    contenders: Vec<Contender>,
    names: &[&'static str],
    metrics: usize,
    rounds: usize,
    touched: usize,
    dir: &Path,
) -> Samples {
    let mut samples: Samples = contenders.iter().map(|_| vec![vec![]; metrics]).collect();
    let mut contenders: Vec<_> = contenders
        .into_iter()
        .enumerate()
        .map(|(number, contender)| {
            let dir = dir.join(format!("prepared {number}"));
            fs::create_dir(&dir).unwrap();
            (contender.setup)(dir)
        })
        .collect();
    for number in 0..rounds {
        for turn in 0..contenders.len() {
            // Another one begins each time, and there and back, so that nobody always follows the
            // same.
            let turn = if number % 2 == 0 { turn } else { contenders.len() - 1 - turn };
            let contender = (turn + number) % contenders.len();
            let dir = dir.join("round");
            fs::create_dir(&dir).unwrap();
            memory::warm_huge(touched);
            let round = &mut contenders[contender];
            match catch_unwind(AssertUnwindSafe(|| round(&dir))) {
                Ok(result) => {
                    assert_eq!(result.len(), metrics);
                    for (samples, value) in samples[contender].iter_mut().zip(result) {
                        if !value.is_nan() {
                            samples.push(value);
                        }
                    }
                }
                // Two threads that append to rawdb 0.5.10 while its file grows meet this now and then.
                Err(panic) => {
                    let mut panicked = PANICKED.lock().unwrap();
                    let times = panicked.entry(names[contender]).or_default();
                    *times += 1;
                    if names[contender] == OURS || *times == rounds {
                        resume_unwind(panic);
                    }
                }
            }
            fs::remove_dir_all(&dir).unwrap();
        }
    }
    samples
}

/// Where the library has been built.
fn target_dir(root: &Path) -> PathBuf {
    env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from)
}

fn main() {
    let small = match env::var("RAWDB_BENCH_SCALE").as_deref() {
        Ok("small") => true,
        Ok("full") | Err(_) => false,
        Ok(other) => panic!("RAWDB_BENCH_SCALE={other}: it is small or full"),
    };
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let directory = |name: &str, default: PathBuf| {
        let dir = env::var_os(name).map_or(default, PathBuf::from);
        fs::create_dir_all(&dir).unwrap();
        dir.canonicalize().unwrap()
    };
    let target = target_dir(root);
    let parent = directory("RAWDB_BENCH_DIR", target.clone());
    let default = if small { target.join("bench-smoke") } else { root.join("docs") };
    let out = directory("RAWDB_BENCH_OUT", default);
    let only = env::var("RAWDB_BENCH_ONLY").unwrap_or_default();

    let rounds = if small { 2 } else { 5 };
    let dir = parent.join(format!("bench-data-{}", std::process::id()));
    let mut report = report::Report::begin(root, &parent, rounds, small);
    let divisor = if small { 256 } else { 1 };
    memory::warm((8 << 30) / divisor);
    for mut workload in workloads::all(&Scale { divisor: divisor as u64 }) {
        if !workload.id.contains(&only) {
            continue;
        }
        let start = std::time::Instant::now();
        fs::create_dir(&dir).unwrap();
        let contenders = std::mem::take(&mut workload.contenders);
        let names: Vec<&'static str> = contenders.iter().map(|contender| contender.name).collect();
        let touched = workload.touched * MIB as usize / divisor;
        let samples = run(contenders, &names, workload.metrics.len(), rounds, touched, &dir);
        fs::remove_dir_all(&dir).unwrap();
        eprintln!("{}: {:.1} s", workload.id, start.elapsed().as_secs_f64());
        report.add(&workload, &names, &samples);
    }
    report.finish(&out);
}
