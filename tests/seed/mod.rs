//! Where random choices of a test begin.

/// That of an ordinary run: the same choices every time, so that what fails is what has changed.
/// `make soak` looks further.
const FIXED: u64 = 1;

/// `RAWDB_SEED` is a number, which repeats a run, or `random`. Printed, because only a seed repeats
/// what went wrong.
pub fn seed() -> u64 {
    let seed = match std::env::var("RAWDB_SEED") {
        Ok(it) if it == "random" => fastrand::u64(..),
        Ok(it) => it.parse().unwrap_or_else(|_| panic!("RAWDB_SEED={it} is no number")),
        Err(_) => FIXED,
    };
    println!("RAWDB_SEED={seed}");
    seed
}
