//! A mutex that leans to one thread.
//!
//! Most regions are used by one thread at a time, for long. A mutex costs that thread a locked
//! instruction to enter and one to leave, some 4 ns each, and each waits until the loads before it
//! have come from memory, so that calls that miss the cache cannot overlap. So a lock that one
//! thread has taken a number of times in a row comes to *lean* to it: that thread enters and leaves
//! by plain loads and stores. Anybody else, who has to hold the mutex beside it, [`plain`], first
//! *revokes* that, which is slow.
//!
//! [`plain`]: BiasedMutex::plain
//!
//! # Why two are never inside
//!
//! The owner stores that it is inside, and then looks whether the lock still leans to it. Who revokes
//! stores that it does not, and then looks whether the owner is inside. One of them must see the
//! other's store (as in Dekker's algorithm), and for that nothing may delay a store beyond the load
//! that follows it. The owner has nothing but a fence for the compiler there; the processor may well
//! delay its store. Who revokes makes up for that by `membarrier`, which has every other thread of
//! the process pass a full barrier, at some point of what its processor does, before it returns. If
//! the owner's second load comes before that point, so does its first store, and who revokes sees
//! it. If it comes after, it sees what was stored before `membarrier` was called. That is all that
//! is used, and Linux gives it on every architecture, whatever it may reorder otherwise.
//!
//! The owner leaves by a store with release ordering, for whoever revokes and finds it outside. Then
//! it looks whether anybody at all is revoking; who revokes says so before the barrier, and looks,
//! after it, whether the owner is inside. So one sees the other here, too: either the owner is seen
//! to have left, or it wakes who waits. It must not look into the lock for that: it has left, and
//! may be the last who had a reason to keep the lock's memory.
//!
//! # Seats
//!
//! An owner may be suspended between its first look and the store that it is inside, and come to that
//! store long after the lock has been revoked. The store does no harm, as it looks again and leaves,
//! unless another owner uses the same word by then. So each thread that a lock leans to has a word of
//! its own, a *seat*. There are two: for the thread that fills a region, and one that works with it
//! after. A lock does not lean to a third thread. A thread that had the last seat gets it again.
//!
//! # When a lock leans
//!
//! After [`FIRST_STREAK`] acquisitions in a row by one thread, and twice as many after each
//! revocation, so that locks that threads share end up as plain mutexes, and what revocations cost
//! is little against what was saved between them. One more limit keeps the cost of a thread that
//! comes to many regions once (a flush, closing) in proportion to the work that was done: a streak must
//! be longer than there are locks that lean. Where there is no `membarrier`, no lock leans; where it
//! is refused later, who revokes ends the process, as it cannot know what the owner has seen.

use std::cell::UnsafeCell;
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};

use crate::sync::asymmetric::{self, heavy_fence, light_fence, shared, this_thread};
use crate::sync::{AtomicBool, AtomicUsize, Mutex, MutexGuard, Ordering};

/// Revoking costs 1 to 4 us, which leaning must save first, some 8 ns each time.
const FIRST_STREAK: u16 = if cfg!(test) { 2 } else { 64 };
/// Doubled no more often, which is as far as a streak is counted.
const MOST_DOUBLINGS: u8 = if cfg!(test) { 3 } else { 9 };

/// Odd, and without a pattern: multiplied by it, a number's top bits depend on all of its bits.
const SPREAD: usize = 0x9E37_79B9_7F4A_7C15_u64 as usize;

/// In `owner`, beside the address: the lock leans to that thread; the number of its seat.
const LEANS: usize = 1;
const SEAT: usize = 2;

pub(crate) struct BiasedMutex<T> {
    /// The thread that has a seat, or had the last one, and the bits above; 0 before the first.
    /// Changes with `plain` locked.
    owner: AtomicUsize,
    /// The owner of that seat holds the lock, or looks whether it may.
    seats: [AtomicBool; 2],
    plain: Mutex<History>,
    data: UnsafeCell<T>,
}

// SAFETY: as of any mutex: `data` is accessed by one thread at a time, as the module says.
unsafe impl<T: Send> Send for BiasedMutex<T> {}
// SAFETY: as above.
unsafe impl<T: Send> Sync for BiasedMutex<T> {}

/// Of the acquisitions with `plain` locked.
#[derive(Default)]
struct History {
    /// So many in a row by one thread,
    streak: u16,
    /// which is this one. Not the whole of its address: a lock may come to lean where it had better
    /// not.
    last: u8,
    doublings: u8,
}

pub(crate) struct BiasedGuard<'a, T> {
    lock: &'a BiasedMutex<T>,
    held: Held<'a>,
    /// Let go in the thread that has locked.
    _not_send: PhantomData<*const ()>,
}

/// How a lock is held, which ends when this is dropped.
enum Held<'a> {
    Seat(&'a AtomicBool),
    Plain {
        _guard: MutexGuard<'a, History>,
    },
    /// The same after waiting for another thread.
    Met {
        _guard: MutexGuard<'a, History>,
    },
}

impl Drop for Held<'_> {
    #[inline]
    fn drop(&mut self) {
        if let Held::Seat(seat) = *self {
            leave(seat);
        }
    }
}

#[inline(always)]
fn leave(seat: &AtomicBool) {
    seat.store(false, Ordering::Release);
    light_fence();
    // From here on the lock may be gone.
    if shared().revoking.load(Ordering::Relaxed) != 0 {
        asymmetric::wake();
    }
}

impl<T> BiasedMutex<T> {
    pub fn new(data: T) -> BiasedMutex<T> {
        BiasedMutex {
            owner: AtomicUsize::new(0),
            seats: [AtomicBool::new(false), AtomicBool::new(false)],
            plain: Mutex::new(History::default()),
            data: UnsafeCell::new(data),
        }
    }

    /// Locks where that is done by plain loads and stores.
    #[inline(always)]
    pub fn lock_if_leaning(&self) -> Option<BiasedGuard<'_, T>> {
        self.enter(this_thread()).map(|held| self.guard(held))
    }

    #[inline(always)]
    pub fn lock(&self) -> BiasedGuard<'_, T> {
        self.lock_or_meet().0
    }

    /// Locks, and tells whether another thread was met here, that is, had to be waited for.
    #[inline(always)] // what it returns is to stay in registers
    pub fn lock_or_meet(&self) -> (BiasedGuard<'_, T>, bool) {
        let thread = this_thread();
        let held = self.enter(thread).unwrap_or_else(|| self.lock_plain(thread));
        let met = matches!(held, Held::Met { .. });
        (self.guard(held), met)
    }

    #[inline(always)]
    fn guard<'a>(&'a self, held: Held<'a>) -> BiasedGuard<'a, T> {
        BiasedGuard { lock: self, held, _not_send: PhantomData }
    }

    #[inline(always)]
    fn seat(&self, owner: usize) -> &AtomicBool {
        &self.seats[(owner & SEAT) / SEAT]
    }

    #[inline(always)]
    fn enter(&self, thread: usize) -> Option<Held<'_>> {
        let owner = self.owner.load(Ordering::Relaxed);
        // None but this thread has it lean to this thread.
        if owner & !SEAT != thread | LEANS {
            return None;
        }
        let seat = self.seat(owner);
        // Acquire, for a thread that has ended may have had the same address. It can do nothing here
        // any more, so that there is nothing else to tell the two apart for.
        assert!(!seat.load(Ordering::Acquire), "a lock is taken twice by one thread");
        seat.store(true, Ordering::Relaxed);
        let held = Held::Seat(seat);
        light_fence();
        (self.owner.load(Ordering::Acquire) == owner).then_some(held)
    }

    #[inline(never)]
    fn lock_plain(&self, thread: usize) -> Held<'_> {
        let (mut history, mut met) = match self.plain.try_lock() {
            Some(history) => (history, false),
            None => (self.plain.lock(), true),
        };
        let owner = self.owner.load(Ordering::Relaxed);
        if owner & LEANS != 0 {
            met |= self.revoke(owner);
            history.streak = 0;
            history.doublings = (history.doublings + 1).min(MOST_DOUBLINGS);
        }
        let tag = (thread.wrapping_mul(SPREAD) >> (usize::BITS - 8)) as u8;
        if history.last != tag {
            history.last = tag;
            history.streak = 0;
        }
        history.streak = history.streak.saturating_add(1);
        if met {
            return Held::Met { _guard: history };
        }
        if history.streak >= FIRST_STREAK << history.doublings && shared().may_lean(history.streak)
        {
            if let Some(seat) = self.lean(owner & !LEANS, thread) {
                return Held::Seat(seat);
            }
        }
        Held::Plain { _guard: history }
    }

    /// Has the lock lean to this thread, with `plain` locked, and enters, if there is a seat.
    #[cold]
    fn lean(&self, last: usize, thread: usize) -> Option<&AtomicBool> {
        let owner = match last {
            0 => thread,
            _ if last & !SEAT == thread => last,
            _ if last & SEAT == 0 => thread | SEAT,
            _ => return None,
        };
        let seat = self.seat(owner);
        seat.store(true, Ordering::Relaxed);
        self.owner.store(owner | LEANS, Ordering::Relaxed);
        shared().leaning.fetch_add(1, Ordering::Relaxed);
        Some(seat)
    }

    /// Takes the lock from the thread that it leans to, with `plain` locked. Tells whether that was
    /// inside.
    #[cold]
    fn revoke(&self, owner: usize) -> bool {
        let shared = shared();
        shared.revoking.fetch_add(1, Ordering::Relaxed);
        self.owner.store(owner & !LEANS, Ordering::Relaxed);
        heavy_fence();
        let seat = self.seat(owner);
        let met = seat.load(Ordering::Acquire);
        if met {
            asymmetric::wait(seat);
        }
        shared.revoking.fetch_sub(1, Ordering::Relaxed);
        shared.leaning.fetch_sub(1, Ordering::Relaxed);
        met
    }
}

impl<T> Drop for BiasedMutex<T> {
    fn drop(&mut self) {
        if self.owner.load(Ordering::Relaxed) & LEANS != 0 {
            // In the child of a fork one may go that is the parent's, and is not counted.
            let one_less = |leaning: usize| leaning.checked_sub(1);
            let _ = shared().leaning.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_less);
        }
    }
}

impl<T: Default> Default for BiasedMutex<T> {
    fn default() -> BiasedMutex<T> {
        BiasedMutex::new(T::default())
    }
}

impl<T> BiasedGuard<'_, T> {
    /// What dropping it does, for a hot call: without a call of a function.
    #[inline(always)]
    pub fn unlock(self) {
        if let Held::Seat(seat) = self.held {
            std::mem::forget(self);
            leave(seat);
        }
    }
}

impl<T> Deref for BiasedGuard<'_, T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: the lock is held.
        unsafe { &*self.lock.data.get() }
    }
}

impl<T> DerefMut for BiasedGuard<'_, T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: the lock is held, and `&mut self` makes this the only access.
        unsafe { &mut *self.lock.data.get() }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::hint::spin_loop;
    use std::path::Path;
    use std::sync::mpsc::channel;
    use std::sync::Barrier;
    use std::thread::{scope, sleep};
    use std::time::{Duration, Instant};

    use super::*;
    use crate::fork::process_mark;

    /// Two numbers that are equal whenever nobody is inside.
    type Pair = BiasedMutex<[u64; 2]>;

    fn count(lock: &Pair) {
        let mut pair = lock.lock();
        assert_eq!(pair[0], pair[1], "two are inside");
        pair[0] += 1;
        // Long enough for who comes in when it should not.
        (0..4).for_each(|_| spin_loop());
        pair[1] += 1;
    }

    /// As opening a database does; locks lean from then on.
    fn begin() {
        process_mark(Path::new("")).unwrap();
    }

    fn leans<T>(lock: &BiasedMutex<T>) -> bool {
        lock.owner.load(Ordering::Relaxed) & LEANS != 0
    }

    /// As often as it takes here for a lock to lean, whatever happened to it before, and enough locks
    /// of other tests.
    fn lean(lock: &Pair) {
        (0..1000).for_each(|_| count(lock));
        assert!(leans(lock));
    }

    /// Which thread revokes, and when, is left to chance.
    #[test]
    fn no_two_threads_are_inside() {
        begin();
        let lock = Pair::default();
        let end = Instant::now() + Duration::from_secs(2);
        let mut revocations = 0;
        let total: u64 = scope(|scope| {
            let threads: Vec<_> = (0..3)
                .map(|number| {
                    let lock = &lock;
                    scope.spawn(move || {
                        let mut rng = fastrand::Rng::with_seed(number);
                        let mut total = 0;
                        while Instant::now() < end {
                            // Two that come by, and one that stays.
                            let burst = if number == 0 { 1000 } else { rng.u64(1..40) };
                            (0..burst).for_each(|_| count(lock));
                            total += burst;
                            (0..rng.u32(..2000)).for_each(|_| spin_loop());
                        }
                        total
                    })
                })
                .collect();
            while Instant::now() < end {
                // One that is hardly there.
                revocations += u64::from(leans(&lock));
                count(&lock);
                sleep(Duration::from_micros(50));
            }
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        let pair = *lock.lock();
        assert!(pair[0] == pair[1] && pair[0] > total, "{pair:?} for {total}");
        assert!(revocations > 10, "{revocations}");
    }

    /// One thread enters and leaves all the time, and another takes the lock from it again and again.
    #[test]
    fn who_revokes_sees_the_owner() {
        begin();
        let rounds = 1_000;
        let lock = Pair::default();
        let done = AtomicBool::new(false);
        let mut revocations = 0;
        let mut rng = fastrand::Rng::with_seed(0);
        let counted: u64 = scope(|scope| {
            let owner = scope.spawn(|| {
                let mut counted = 0;
                while !done.load(Ordering::Relaxed) {
                    count(&lock);
                    counted += 1;
                }
                counted
            });
            for _ in 0..rounds {
                // Not to wait for the lock to lean would be to meet at a plain mutex.
                let patience = Instant::now() + Duration::from_millis(1);
                while !leans(&lock) && Instant::now() < patience {}
                // The owner is inside as long as it takes to say so; then it comes and goes.
                (0..rng.u32(..100)).for_each(|_| spin_loop());
                revocations += u64::from(leans(&lock));
                count(&lock);
            }
            done.store(true, Ordering::Relaxed);
            owner.join().unwrap()
        });
        assert_eq!(*lock.lock(), [counted + rounds; 2]);
        assert!(revocations > 10, "{revocations}");
    }

    #[test]
    fn who_revokes_waits_for_the_owner() {
        begin();
        let lock = Pair::default();
        let inside = Barrier::new(2);
        scope(|scope| {
            scope.spawn(|| {
                lean(&lock);
                let mut pair = lock.lock();
                inside.wait();
                sleep(Duration::from_millis(50));
                *pair = [7; 2];
            });
            inside.wait();
            let (pair, met) = lock.lock_or_meet();
            assert!(met && *pair == [7; 2]);
        });
        assert!(!leans(&lock));
    }

    /// Whose end leaves the lock leaning; a later thread may have its address.
    #[test]
    fn threads_end() {
        begin();
        let lock = Pair::default();
        let rounds = 200;
        for _ in 0..rounds {
            scope(|scope| scope.spawn(|| (0..50).for_each(|_| count(&lock))).join().unwrap());
        }
        assert_eq!(*lock.lock(), [rounds * 50; 2]);
    }

    /// One that goes while it leans is not counted any more.
    #[test]
    fn locks_go() {
        begin();
        for _ in 0..1000 {
            lean(&Pair::default());
        }
    }

    #[test]
    fn a_third_thread_finds_a_plain_mutex() {
        begin();
        let lock = Pair::default();
        scope(|scope| {
            // Threads that all live, so that each has an address of its own.
            let (sender, receiver) = channel::<()>();
            let mut senders = vec![sender];
            let work = |expected: bool, wait: std::sync::mpsc::Receiver<()>| {
                let (ready, is_ready) = channel();
                let lock = &lock;
                scope.spawn(move || {
                    (0..1000).for_each(|_| count(lock));
                    ready.send(leans(lock)).unwrap();
                    let _ = wait.recv();
                });
                assert_eq!(is_ready.recv().unwrap(), expected);
            };
            work(true, receiver);
            for expected in [true, false] {
                let (sender, receiver) = channel();
                senders.push(sender);
                work(expected, receiver);
            }
        });
    }

    #[test]
    #[should_panic = "taken twice"]
    fn a_thread_that_comes_back_is_refused() {
        begin();
        let lock = Pair::default();
        lean(&lock);
        let _first = lock.lock();
        let _second = lock.lock();
    }
}
