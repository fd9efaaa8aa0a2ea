//! Locks, atomics and what else threads meet at.
//!
//! Normally these are parking_lot's and the standard library's own. Where the models run (tests
//! compiled with `--cfg loom`) they are loom's, in the shape that the library uses them: loom then
//! runs the same code in every order of its steps, and with every value that the memory model lets
//! a load return. `Arc` is the standard library's in both, as `self: &Arc<Self>` works with no
//! other.

use std::ops::Deref;
pub(crate) use std::sync::atomic::Ordering;

#[cfg(all(test, loom))]
pub(crate) use modelled::*;
#[cfg(not(all(test, loom)))]
pub(crate) use real::*;

pub(crate) type HashMap<K, V> = hashbrown::HashMap<K, V, RandomState>;
pub(crate) type HashSet<T> = hashbrown::HashSet<T, RandomState>;

/// Keeps a value off the cache lines (fetched in pairs) of its neighbours.
#[repr(align(128))]
pub(crate) struct Apart<T>(pub T);

impl<T> Deref for Apart<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

#[cfg(not(all(test, loom)))]
mod real {
    use std::cell::Cell;
    use std::hint::spin_loop;
    use std::ptr;
    pub(crate) use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, AtomicU8, AtomicUsize};
    use std::sync::atomic::{AtomicU32, Ordering};
    pub(crate) use std::sync::OnceLock;

    pub(crate) use hashbrown::DefaultHashBuilder as RandomState;
    use parking_lot::lock_api::{self, GuardNoSend, RawMutex};
    use parking_lot::RawThreadId;

    pub(crate) use crate::biased::{BiasedGuard, BiasedMutex};

    /// See [`BiasedGuard::unlock`].
    #[inline(always)]
    pub(crate) fn unlock<T>(guard: BiasedGuard<'_, T>) {
        guard.unlock();
    }

    pub(crate) type Mutex<T> = lock_api::Mutex<Lock, T>;
    pub(crate) type MutexGuard<'a, T> = lock_api::MutexGuard<'a, Lock, T>;
    pub(crate) type ReentrantMutex<T> = lock_api::ReentrantMutex<Lock, RawThreadId, T>;

    /// What is locked by parking_lot's mutex here: one word, and nothing besides. parking_lot's own
    /// lock has threads wait in a table of the process. There, the child of a fork would find
    /// threads that it does not have, and would never be woken.
    pub(crate) struct Lock(AtomicU32);

    const FREE: u32 = 0;
    const LOCKED: u32 = 1;
    /// Locked, and somebody may be waiting.
    const AWAITED: u32 = 2;

    // SAFETY: one thread at a time changes the word from FREE to something else, which acquires, and
    // that thread changes it back, which releases.
    unsafe impl RawMutex for Lock {
        #[allow(clippy::declare_interior_mutable_const, reason = "the trait has it so")]
        const INIT: Lock = Lock(AtomicU32::new(FREE));

        type GuardMarker = GuardNoSend;

        #[inline]
        fn lock(&self) {
            if !self.try_lock() {
                self.wait_and_lock();
            }
        }

        #[inline]
        fn try_lock(&self) -> bool {
            self.0.compare_exchange(FREE, LOCKED, Ordering::Acquire, Ordering::Relaxed).is_ok()
        }

        #[inline]
        unsafe fn unlock(&self) {
            if self.0.swap(FREE, Ordering::Release) == AWAITED {
                futex_wake(&self.0, 1);
            }
        }
    }

    impl Lock {
        #[cold]
        fn wait_and_lock(&self) {
            // Most are let go sooner than a thread is put to sleep.
            for _ in 0..100 {
                match self.0.load(Ordering::Relaxed) {
                    FREE if self.try_lock() => return,
                    AWAITED => break,
                    _ => spin_loop(),
                }
            }
            // Whoever has waited cannot know whether others still do.
            while self.0.swap(AWAITED, Ordering::Acquire) != FREE {
                futex_wait(&self.0, AWAITED);
            }
        }
    }

    /// Waits to be woken, if `word` has this value. May return without a reason.
    pub(super) fn futex_wait(word: &AtomicU32, value: u32) {
        let operation = libc::FUTEX_WAIT | libc::FUTEX_PRIVATE_FLAG;
        let no_timeout = ptr::null::<libc::timespec>();
        // SAFETY: the word is borrowed during the call, which has no other effect on memory.
        unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), operation, value, no_timeout) };
    }

    /// Wakes so many of those who wait. The word may be gone: it is not looked at.
    #[cold]
    #[inline(never)]
    pub(super) fn futex_wake(word: *const AtomicU32, count: i32) {
        let operation = libc::FUTEX_WAKE | libc::FUTEX_PRIVATE_FLAG;
        // SAFETY: takes an address, and has no effect on memory.
        unsafe { libc::syscall(libc::SYS_futex, word, operation, count) };
    }

    /// How many threads can run at once, about. The standard library's answer would also be true of
    /// control groups, at the price of the code that reads their files.
    pub(crate) fn parallelism() -> usize {
        // SAFETY: a question without arguments that could be wrong.
        let online = unsafe { libc::sysconf(libc::_SC_NPROCESSORS_ONLN) };
        online.max(1) as usize
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

/// What [`biased`](crate::biased) stands on: barriers that cost one side all and the other nothing.
#[cfg(not(all(test, loom)))]
pub(crate) mod asymmetric {
    use std::sync::atomic::{compiler_fence, AtomicBool, AtomicU32, AtomicUsize, Ordering};

    use super::real::{futex_wait, futex_wake};

    /// Of all locks of the process.
    pub(crate) struct Shared {
        /// There is `membarrier`.
        available: AtomicBool,
        /// How many threads are revoking.
        pub revoking: AtomicUsize,
        /// How many locks lean.
        pub leaning: AtomicUsize,
        /// Counts how often an owner has left while somebody was revoking.
        left: AtomicU32,
    }

    static SHARED: Shared = Shared {
        available: AtomicBool::new(false),
        revoking: AtomicUsize::new(0),
        leaning: AtomicUsize::new(0),
        left: AtomicU32::new(0),
    };

    #[inline(always)]
    pub(crate) fn shared() -> &'static Shared {
        &SHARED
    }

    impl Shared {
        pub(crate) fn may_lean(&self, streak: u16) -> bool {
            usize::from(streak) > self.leaning.load(Ordering::Relaxed)
                && self.available.load(Ordering::Relaxed)
        }
    }

    fn membarrier(command: libc::c_int) -> bool {
        // SAFETY: touches no memory.
        unsafe { libc::syscall(libc::SYS_membarrier, command, 0) == 0 }
    }

    /// In a process that has no lock yet which it may use: the locks and threads that are counted here
    /// are its parent's.
    ///
    /// Asks the system for [`heavy_fence`]. In a process with threads that takes some 10 ms. Old
    /// kernels, emulators and filters of system calls may refuse it.
    pub(crate) fn begin() {
        SHARED.revoking.store(0, Ordering::Relaxed);
        SHARED.leaning.store(0, Ordering::Relaxed);
        let available = membarrier(libc::MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED);
        SHARED.available.store(available, Ordering::Relaxed);
    }

    /// Orders what comes before it in this thread, and what comes after, for threads with a
    /// [`heavy_fence`].
    #[inline(always)]
    pub(crate) fn light_fence() {
        compiler_fence(Ordering::SeqCst);
    }

    pub(crate) fn heavy_fence() {
        if !membarrier(libc::MEMBARRIER_CMD_PRIVATE_EXPEDITED) {
            // A filter of system calls that came later. Nothing else proves that the owner has seen the
            // lock revoked, or that it ever will: it may be computing for hours. To go on would be to
            // have two threads inside.
            let message =
                "rawdb: membarrier() is refused since locks rely on it: let filters of system \
                           calls pass it, or set them before a database is opened\n";
            // Not the standard library's stderr, which may be locked.
            // SAFETY: the bytes are there during the call.
            unsafe { libc::write(libc::STDERR_FILENO, message.as_ptr().cast(), message.len()) };
            std::process::abort();
        }
    }

    /// Waits until `flag` is false. Who makes it false calls [`wake`] after it.
    pub(crate) fn wait(flag: &AtomicBool) {
        loop {
            let seen = SHARED.left.load(Ordering::Acquire);
            if !flag.load(Ordering::Acquire) {
                return;
            }
            futex_wait(&SHARED.left, seen);
        }
    }

    /// Wakes who waits for a flag.
    #[cold]
    pub(crate) fn wake() {
        SHARED.left.fetch_add(1, Ordering::Release);
        futex_wake(&SHARED.left, i32::MAX);
    }

    /// A number that no other thread has as long as this one lives, a multiple of 4 and not 0: the
    /// address of something that is the thread's own.
    #[inline(always)]
    #[allow(unreachable_code, reason = "where there is something better")]
    pub(crate) fn this_thread() -> usize {
        // In a shared library, asking for the address of a thread-local variable is a call. The
        // register that such variables are found by is not.
        #[cfg(all(target_arch = "x86_64", target_pointer_width = "64"))]
        {
            let pointer: usize;
            // SAFETY: the word that the register points to holds that address (System V ABI for
            // thread-local storage).
            unsafe {
                std::arch::asm!(
                    "mov {}, fs:[0]",
                    out(reg) pointer,
                    options(pure, readonly, nostack, preserves_flags)
                );
            }
            return pointer;
        }
        #[cfg(target_arch = "aarch64")]
        {
            let pointer: usize;
            // SAFETY: reads a register.
            unsafe {
                std::arch::asm!(
                    "mrs {}, tpidr_el0",
                    out(reg) pointer,
                    options(pure, nomem, nostack, preserves_flags)
                );
            }
            return pointer;
        }
        thread_local! {
            static OWN: u64 = const { 0 };
        }
        // A thread that is ending keeps its variables that have no destructor.
        OWN.with(|own| std::ptr::from_ref(own) as usize)
    }
}

#[cfg(all(test, loom))]
pub(crate) use modelled::asymmetric;

#[cfg(all(test, loom))]
mod modelled {
    use std::cell::Cell;

    use loom::sync::atomic::Ordering;
    pub(crate) use loom::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, AtomicU8, AtomicUsize};

    pub(crate) use crate::models::stored;

    /// Maps are walked through in the same order every time, as loom needs it.
    pub(crate) type RandomState =
        std::hash::BuildHasherDefault<std::collections::hash_map::DefaultHasher>;

    /// parking_lot's mutex, as far as it is used.
    #[derive(Default)]
    pub(crate) struct Mutex<T>(loom::sync::Mutex<T>);

    pub(crate) use loom::sync::MutexGuard;

    /// In models of the engine a plain mutex stands for it; it has models of its own.
    pub(crate) use Mutex as BiasedMutex;
    pub(crate) use MutexGuard as BiasedGuard;

    pub(crate) fn unlock<T>(guard: BiasedGuard<'_, T>) {
        drop(guard);
    }

    impl<T> Mutex<T> {
        pub(crate) fn new(data: T) -> Mutex<T> {
            Mutex(loom::sync::Mutex::new(data))
        }

        pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
            self.0.lock().expect("loom has no poisoning")
        }

        pub(crate) fn lock_if_leaning(&self) -> Option<MutexGuard<'_, T>> {
            (!crate::models::threads_always_meet()).then(|| self.lock())
        }

        pub(crate) fn try_lock(&self) -> Option<MutexGuard<'_, T>> {
            self.0.try_lock().ok()
        }

        /// loom would rarely come here at a moment when another thread is between locking and
        /// unlocking, so a model can have threads meet every time.
        pub(crate) fn lock_or_meet(&self) -> (MutexGuard<'_, T>, bool) {
            if crate::models::threads_always_meet() {
                return (self.lock(), true);
            }
            self.try_lock().map_or_else(|| (self.lock(), true), |guard| (guard, false))
        }
    }

    /// The same, where no model comes to one that its own thread holds.
    pub(crate) struct ReentrantMutex<T>(Mutex<T>);

    impl<T> ReentrantMutex<T> {
        pub(crate) fn new(data: T) -> ReentrantMutex<T> {
            ReentrantMutex(Mutex::new(data))
        }

        pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
            self.0.lock()
        }

        pub(crate) fn is_owned_by_current_thread(&self) -> bool {
            false
        }
    }

    pub(crate) mod asymmetric {
        use loom::sync::atomic::{fence, AtomicBool, AtomicUsize, Ordering};
        use loom::sync::{Condvar, Mutex};

        pub(crate) struct Shared {
            pub revoking: AtomicUsize,
            pub leaning: AtomicUsize,
            /// Stands for where threads park.
            parked: Mutex<()>,
            woken: Condvar,
        }

        loom::lazy_static! {
            static ref SHARED: Shared = Shared {
                revoking: AtomicUsize::new(0),
                leaning: AtomicUsize::new(0),
                parked: Mutex::new(()),
                woken: Condvar::new(),
            };
        }

        pub(crate) fn shared() -> &'static Shared {
            &SHARED
        }

        impl Shared {
            pub(crate) fn may_lean(&self, _streak: u16) -> bool {
                true
            }
        }

        /// Between two threads of which one passes the other fence, both do what this does.
        pub(crate) fn light_fence() {
            fence(Ordering::SeqCst);
        }

        pub(crate) fn heavy_fence() {
            fence(Ordering::SeqCst);
        }

        pub(crate) fn begin() {}

        pub(crate) fn wait(flag: &AtomicBool) {
            let mut parked = SHARED.parked.lock().expect("loom has no poisoning");
            while flag.load(Ordering::Acquire) {
                parked = SHARED.woken.wait(parked).expect("loom has no poisoning");
            }
        }

        pub(crate) fn wake() {
            drop(SHARED.parked.lock().expect("loom has no poisoning"));
            SHARED.woken.notify_all();
        }

        pub(crate) fn this_thread() -> usize {
            (super::thread_number() + 1) * 4
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
