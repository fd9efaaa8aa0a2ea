//! The lock that leans, by itself: a plain mutex stands for it in the other models. What it protects
//! is a cell that loom watches.

use std::sync::Arc;

use loom::cell::UnsafeCell;

use super::{check, run, thread, Thread};
use crate::biased::BiasedMutex;

struct Counter(UnsafeCell<u32>);

// SAFETY: loom says so if it is used by two threads at once.
unsafe impl Send for Counter {}

type Lock = Arc<BiasedMutex<Counter>>;

fn lock() -> Lock {
    Arc::new(BiasedMutex::new(Counter(UnsafeCell::new(0))))
}

fn count(lock: &Lock) -> u32 {
    let counter = lock.lock_if_leaning().unwrap_or_else(|| lock.lock());
    counter.0.with_mut(|count| {
        // SAFETY: loom says so if another thread uses it.
        let count = unsafe { &mut *count };
        *count += 1;
        *count
    })
}

fn counting(lock: &Lock, times: u32) -> Thread {
    let lock = lock.clone();
    thread(move || {
        for _ in 0..times {
            count(&lock);
        }
    })
}

/// The lock comes to lean to one thread, is revoked by the other, and leans to that.
#[test]
fn a_lock_that_leans() {
    check("a lock that leans", 3, || {
        let lock = lock();
        run([counting(&lock, 4), counting(&lock, 5)]);
        assert_eq!(count(&lock), 10);
    });
}

/// A third thread comes in between.
#[test]
fn a_lock_of_three() {
    check("a lock of three", 2, || {
        let lock = lock();
        run([counting(&lock, 3), counting(&lock, 5), counting(&lock, 1)]);
        assert_eq!(count(&lock), 10);
    });
}
