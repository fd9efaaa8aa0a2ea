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
    use std::sync::atomic::Ordering;
    pub(crate) use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, AtomicU8, AtomicUsize};
    pub(crate) use std::sync::OnceLock;

    pub(crate) use hashbrown::DefaultHashBuilder as RandomState;
    pub(crate) use parking_lot::{Mutex, MutexGuard, ReentrantMutex};

    pub(crate) use crate::biased::{BiasedGuard, BiasedMutex};

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
    use std::sync::atomic::{compiler_fence, AtomicBool, AtomicUsize, Ordering};
    use std::sync::{Condvar, Mutex, PoisonError};
    use std::time::Duration;

    /// Of all locks of the process.
    pub(crate) struct Shared {
        /// There is `membarrier`.
        available: AtomicBool,
        /// How many threads are revoking.
        pub revoking: AtomicUsize,
        /// How many locks lean.
        pub leaning: AtomicUsize,
    }

    static SHARED: Shared = Shared {
        available: AtomicBool::new(false),
        revoking: AtomicUsize::new(0),
        leaning: AtomicUsize::new(0),
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

    /// Asks the system for [`heavy_fence`]. In a process with threads the first time takes some
    /// 10 ms. Old kernels, emulators and filters of system calls may refuse it.
    pub(crate) fn register() {
        let available = membarrier(libc::MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED);
        SHARED.available.store(available, Ordering::Relaxed);
    }

    /// In a child that has just been forked: there is nobody to wait for.
    pub(crate) fn forked() {
        SHARED.revoking.store(0, Ordering::Relaxed);
    }

    /// Orders what comes before it in this thread, and what comes after, for threads with a
    /// [`heavy_fence`].
    #[inline(always)]
    pub(crate) fn light_fence() {
        compiler_fence(Ordering::SeqCst);
    }

    pub(crate) fn heavy_fence() {
        if !membarrier(libc::MEMBARRIER_CMD_PRIVATE_EXPEDITED) {
            // A filter of system calls that came later. What another processor has delayed is
            // visible within a microsecond, though nothing but the barrier guarantees it.
            SHARED.available.store(false, Ordering::Relaxed);
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// The addresses of flags that threads wait for. What is in it is whole at any time, so a panic
    /// of a holder does not matter.
    static WAITED_FOR: Mutex<Vec<usize>> = Mutex::new(Vec::new());
    static WOKEN: Condvar = Condvar::new();

    /// Waits until `flag` is false. Who makes it false calls [`wake`] after it.
    pub(crate) fn wait(flag: &AtomicBool) {
        let address = std::ptr::from_ref(flag) as usize;
        let mut waited_for = WAITED_FOR.lock().unwrap_or_else(PoisonError::into_inner);
        waited_for.push(address);
        while flag.load(Ordering::Acquire) {
            waited_for = WOKEN.wait(waited_for).unwrap_or_else(PoisonError::into_inner);
        }
        let own = waited_for.iter().position(|&it| it == address).expect("it is there till now");
        waited_for.swap_remove(own);
    }

    /// Wakes who waits for the flag at this address, where it need not be any more.
    #[cold]
    pub(crate) fn wake(flag: *const AtomicBool) {
        let waited_for = WAITED_FOR.lock().unwrap_or_else(PoisonError::into_inner);
        if waited_for.contains(&(flag as usize)) {
            WOKEN.notify_all();
        }
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

        pub(crate) fn register() {}

        pub(crate) fn forked() {}

        pub(crate) fn wait(flag: &AtomicBool) {
            let mut parked = SHARED.parked.lock().expect("loom has no poisoning");
            while flag.load(Ordering::Acquire) {
                parked = SHARED.woken.wait(parked).expect("loom has no poisoning");
            }
        }

        pub(crate) fn wake(_flag: *const AtomicBool) {
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
