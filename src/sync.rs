//! Locks, atomics and what else threads meet at.
//!
//! Normally these are parking_lot's and the standard library's own. Where the models run (tests
//! compiled with `--cfg loom`) they are loom's, in the shape that the library uses them: loom then
//! runs the same code in every order of its steps, and with every value that the memory model lets
//! a load return. `Arc` is the standard library's in both, as `self: &Arc<Self>` works with no
//! other.

pub(crate) use std::sync::atomic::Ordering;

#[cfg(all(test, loom))]
pub(crate) use modelled::*;
#[cfg(not(all(test, loom)))]
pub(crate) use real::*;

#[cfg(not(all(test, loom)))]
mod real {
    use std::cell::Cell;
    pub(crate) use std::collections::HashMap;
    use std::sync::atomic::Ordering;
    pub(crate) use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, AtomicU8, AtomicUsize};
    pub(crate) use std::sync::OnceLock;

    pub(crate) use parking_lot::{Mutex, MutexGuard};

    /// How many threads can run at once.
    pub(crate) fn parallelism() -> usize {
        std::thread::available_parallelism().map_or(1, |threads| threads.get())
    }

    /// A number for this thread; threads started one after the other get numbers in a row.
    pub(crate) fn thread_number() -> usize {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        thread_local! {
            static NUMBER: Cell<usize> = const { Cell::new(usize::MAX) };
        }
        NUMBER.with(|number| {
            if number.get() == usize::MAX {
                number.set(NEXT.fetch_add(1, Ordering::Relaxed));
            }
            number.get()
        })
    }

    /// Tells the models of a store through a window; loom sees no plain memory.
    #[inline(always)]
    pub(crate) fn stored(_to: *mut u8, _len: usize) {}
}

#[cfg(all(test, loom))]
mod modelled {
    use std::cell::{Cell, UnsafeCell};
    use std::ops::{Deref, DerefMut};

    use loom::sync::atomic::Ordering;
    pub(crate) use loom::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, AtomicU8, AtomicUsize};

    pub(crate) use crate::models::stored;

    /// One that is walked through in the same order every time, as loom needs it.
    pub(crate) type HashMap<K, V> = std::collections::HashMap<
        K,
        V,
        std::hash::BuildHasherDefault<std::collections::hash_map::DefaultHasher>,
    >;

    /// parking_lot's mutex, as far as it is used.
    pub(crate) struct Mutex<T> {
        /// The guard of whoever holds `lock`, kept here so that a lock can be let go without its
        /// own guard. It borrows `lock`, and so is dropped first.
        held: UnsafeCell<Option<loom::sync::MutexGuard<'static, ()>>>,
        lock: loom::sync::Mutex<()>,
        data: UnsafeCell<T>,
    }

    // SAFETY: as of any mutex; `held` and `data` are accessed by the holder of `lock` only.
    unsafe impl<T: Send> Send for Mutex<T> {}
    // SAFETY: as above.
    unsafe impl<T: Send> Sync for Mutex<T> {}

    pub(crate) struct MutexGuard<'a, T>(&'a Mutex<T>);

    impl<T> Mutex<T> {
        pub(crate) fn new(data: T) -> Mutex<T> {
            Mutex {
                held: UnsafeCell::new(None),
                lock: loom::sync::Mutex::new(()),
                data: UnsafeCell::new(data),
            }
        }

        fn hold(&self, guard: loom::sync::MutexGuard<'_, ()>) -> MutexGuard<'_, T> {
            // SAFETY: a mutex neither moves nor goes away while it is locked, or `drop` ends the
            // guard first.
            let guard: loom::sync::MutexGuard<'static, ()> = unsafe { std::mem::transmute(guard) };
            // SAFETY: the lock is held.
            unsafe { *self.held.get() = Some(guard) };
            MutexGuard(self)
        }

        pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
            self.hold(self.lock.lock().expect("loom has no poisoning"))
        }

        /// loom would rarely try at a moment when another thread is between locking and unlocking,
        /// so a model can have every try fail.
        pub(crate) fn try_lock(&self) -> Option<MutexGuard<'_, T>> {
            if crate::models::every_try_fails() {
                return None;
            }
            self.lock.try_lock().ok().map(|guard| self.hold(guard))
        }

        pub(crate) fn data_ptr(&self) -> *mut T {
            // SAFETY: the caller says that it holds the lock; nothing worse than a wrong answer
            // comes of it if not, as the threads of a model are coroutines of one thread.
            assert!(unsafe { (*self.held.get()).is_some() }, "the data of a mutex let go");
            self.data.get()
        }

        /// # Safety
        ///
        /// This thread holds the lock, and its guard was forgotten.
        pub(crate) unsafe fn force_unlock(&self) {
            // SAFETY: the lock is held.
            let guard = unsafe { (*self.held.get()).take() };
            drop(guard.expect("who unlocks has locked"));
        }
    }

    impl<T: Default> Default for Mutex<T> {
        fn default() -> Mutex<T> {
            Mutex::new(T::default())
        }
    }

    impl<T> Deref for MutexGuard<'_, T> {
        type Target = T;

        fn deref(&self) -> &T {
            // SAFETY: the lock is held.
            unsafe { &*self.0.data.get() }
        }
    }

    impl<T> DerefMut for MutexGuard<'_, T> {
        fn deref_mut(&mut self) -> &mut T {
            // SAFETY: the lock is held, and `&mut self` makes this the only access.
            unsafe { &mut *self.0.data.get() }
        }
    }

    impl<T> Drop for MutexGuard<'_, T> {
        fn drop(&mut self) {
            // SAFETY: this guard is going away.
            unsafe { self.0.force_unlock() }
        }
    }

    /// The standard library's, as far as it is used.
    pub(crate) struct OnceLock<T> {
        initialised: AtomicBool,
        lock: Mutex<()>,
        value: loom::cell::UnsafeCell<Option<T>>,
    }

    // SAFETY: `value` is written once, under `lock`, before `initialised` says so.
    unsafe impl<T: Send + Sync> Sync for OnceLock<T> {}

    impl<T> OnceLock<T> {
        pub(crate) fn new() -> OnceLock<T> {
            OnceLock {
                initialised: AtomicBool::new(false),
                lock: Mutex::new(()),
                value: loom::cell::UnsafeCell::new(None),
            }
        }

        pub(crate) fn get(&self) -> Option<&T> {
            if !self.initialised.load(Ordering::Acquire) {
                return None;
            }
            // SAFETY: it is initialised and so never written to again.
            self.value.with(|value| unsafe { (*value).as_ref() })
        }

        pub(crate) fn get_or_init(&self, value: impl FnOnce() -> T) -> &T {
            let locked = self.lock.lock();
            if self.get().is_none() {
                let value = Some(value());
                // SAFETY: nobody reads it before it is initialised, and the lock is held.
                self.value.with_mut(|place| unsafe { *place = value });
                self.initialised.store(true, Ordering::Release);
            }
            drop(locked);
            self.get().expect("it has just been initialised")
        }
    }

    /// Enough for stripes beside the first.
    pub(crate) fn parallelism() -> usize {
        2
    }

    loom::thread_local! {
        pub(crate) static THREAD_NUMBER: Cell<usize> = Cell::new(0);
    }

    pub(crate) fn thread_number() -> usize {
        THREAD_NUMBER.with(Cell::get)
    }
}
