//! Views: bytes of a region that stay as they are until the view is released, and the pins that
//! keep them so.
//!
//! Every view is recorded in one *stripe* of its region, under that stripe's lock. A writer that
//! is about to change published bytes takes all stripes, so that no view comes or goes meanwhile,
//! looks whether one covers the bytes, and if so leaves them behind and moves the region. A region
//! begins with a single stripe; when two threads meet there it gets several, on cache lines of
//! their own, and each thread keeps to one.
//!
//! A region that moves or goes away while views pin its bytes leaves a *retired place* behind,
//! whose extent is given back when its last view is released.

use std::cell::Cell;
use std::fmt;
use std::mem;
use std::ops::Deref;
use std::ptr;
use std::sync::Arc;

use crate::error::{Error, ErrorKind, Result};
use crate::prefetch::prefetch;
use crate::region::RegionInner;
use crate::space::Extent;
use crate::storage::Window;
use crate::sync::{
    parallelism, thread_number, Apart, AtomicU64, AtomicU8, BiasedGuard, BiasedMutex, Mutex,
    OnceLock, Ordering,
};

/// Views whose range a stripe remembers exactly. With more at a time, the range that encloses the
/// others has to do, and an overwrite between them moves the region without need.
const EXACT_RANGES: usize = 4;

/// More stripes than this make an overwrite, which takes all of them, too slow.
const MAX_STRIPES: usize = 16;

/// A half-open range of offsets in a region. Empty where `end` is 0.
#[derive(Clone, Copy, Default)]
struct Range {
    start: u64,
    end: u64,
}

impl Range {
    fn overlaps(&self, start: u64, end: u64) -> bool {
        self.start < end && start < self.end
    }
}

struct Stripe {
    state: BiasedMutex<StripeState>,
    region: Cell<*const RegionInner>,
}

// SAFETY: `region` is written before the stripe can be reached by a second thread (the first
// stripe's when the region is made, the others' before they are published) and read-only after.
unsafe impl Send for Stripe {}
// SAFETY: as above; everything else is behind the mutex.
unsafe impl Sync for Stripe {}

#[derive(Default)]
struct StripeState {
    /// The region is removed or its database closed: no further views.
    closed: bool,
    /// The stripe keeps the region's memory alive, from its first view on until it is closed and
    /// its last view released. Taking a reference per view would make views of one region write
    /// to a cache line that they share.
    holds_region: bool,
    /// Views opened through this stripe and not released, wherever their bytes are.
    open: usize,
    /// Of these, views of the place where the region is now, with their ranges.
    exact: [Range; EXACT_RANGES],
    /// How many of them are not in `exact`, and a range that encloses those.
    others: usize,
    enclosing: Range,
}

impl StripeState {
    /// Whether the range could be recorded exactly.
    #[inline(always)]
    fn pin_exactly(&mut self, range: Range) -> bool {
        let free = self.exact.iter_mut().find(|exact| exact.end == 0);
        let found = free.is_some();
        if let Some(free) = free {
            *free = range;
            self.open += 1;
        }
        found
    }

    fn pin(&mut self, range: Range) {
        if self.pin_exactly(range) {
            return;
        }
        self.enclosing = match self.others {
            0 => range,
            _ => Range {
                start: self.enclosing.start.min(range.start),
                end: self.enclosing.end.max(range.end),
            },
        };
        self.others += 1;
        self.open += 1;
    }

    /// Whether the range was recorded exactly. Views of equal ranges need no telling apart.
    #[inline(always)]
    fn unpin_exactly(&mut self, range: Range) -> bool {
        let exact = self
            .exact
            .iter_mut()
            .find(|exact| exact.end == range.end && exact.start == range.start);
        let found = exact.is_some();
        if let Some(exact) = exact {
            *exact = Range::default();
            self.open -= 1;
        }
        found
    }

    fn unpin(&mut self, range: Range) {
        if !self.unpin_exactly(range) {
            self.others -= 1;
            self.open -= 1;
        }
    }

    fn pinned(&self) -> usize {
        self.others + self.exact.iter().filter(|exact| exact.end != 0).count()
    }

    fn overlaps(&self, start: u64, end: u64) -> bool {
        self.open > 0
            && (self.exact.iter().any(|exact| exact.overlaps(start, end))
                || (self.others > 0 && self.enclosing.overlaps(start, end)))
    }

    fn forget_pins(&mut self) {
        self.exact = Default::default();
        self.others = 0;
    }
}

/// Bytes that a region has left behind because views pin them.
pub(crate) struct Retired {
    pub first: *const u8,
    pub extent: Extent,
    /// See [`Writer::in_table`](crate::region::Writer::in_table): the first flush after which no
    /// durable table has the extent, or `None` if none ever had it.
    pub epoch: Option<u64>,
    pub views: usize,
    /// Keeps the bytes mapped.
    pub _window: Arc<Window>,
}

// SAFETY: `first` is only compared, never followed.
unsafe impl Send for Retired {}

/// The views of one region.
#[repr(C)] // see `RegionInner`
pub(crate) struct Pins {
    first: Stripe,
    viewed_end: AtomicU64,
    /// LIVE, REMOVED or CLOSED. Changes under the writer lock. It is the region's, and here because
    /// what lies at the end is hardly ever to be written to.
    pub region_state: AtomicU8,
    /// Hardly any region has one, and there may be millions: in a box it is two words of them.
    rare: OnceLock<Box<Rare>>,
}

/// What comes of threads that meet at a region's views, and of views that it leaves behind.
struct Rare {
    more: OnceLock<Box<[Apart<Stripe>]>>,
    retired: Mutex<Vec<Retired>>,
}

impl Pins {
    pub fn new(region_state: u8, len: u64) -> Pins {
        Pins {
            first: Stripe { state: BiasedMutex::default(), region: Cell::new(ptr::null()) },
            viewed_end: AtomicU64::new(len),
            region_state: AtomicU8::new(region_state),
            rare: OnceLock::new(),
        }
    }

    fn rare(&self) -> &Rare {
        let rare = || Box::new(Rare { more: OnceLock::new(), retired: Mutex::default() });
        self.rare.get_or_init(rare)
    }

    /// The stripes beside the first, if there are any.
    #[inline(always)]
    fn more(&self) -> Option<&[Apart<Stripe>]> {
        Some(self.rare.get()?.more.get()?)
    }

    /// No view of the region's place ends behind this. It and the following are for the holder of the
    /// writer lock.
    #[inline]
    pub fn viewed_end(&self) -> u64 {
        self.viewed_end.load(Ordering::Relaxed)
    }

    pub fn set_viewed_end(&self, end: u64) {
        self.viewed_end.store(end, Ordering::Relaxed);
    }

    #[inline]
    pub fn raise_viewed_end(&self, end: u64) {
        self.viewed_end.store(end.max(self.viewed_end()), Ordering::Relaxed);
    }

    /// Tells the pins whose they are. Called once, before the region is shared.
    pub fn attach(&self, region: *const RegionInner) {
        self.first.region.set(region);
    }

    /// Locks the stripe that this thread is to use.
    #[inline(always)]
    fn lock_one(&self) -> (&Stripe, BiasedGuard<'_, StripeState>) {
        let stripe = self.more().map_or(&self.first, own_stripe);
        let (state, met) = stripe.state.lock_or_meet();
        if met {
            self.make_more(stripe, &state);
        }
        (stripe, state)
    }

    #[cold]
    fn make_more(&self, met_at: &Stripe, state: &StripeState) {
        if !ptr::eq(met_at, &self.first) {
            return;
        }
        // Made under the first stripe's lock: whoever holds that lock and sees one stripe can rely
        // on there being only one.
        self.rare().more.get_or_init(|| {
            (0..parallelism().next_power_of_two().clamp(2, MAX_STRIPES))
                .map(|_| {
                    let state = StripeState { closed: state.closed, ..Default::default() };
                    let region = self.first.region.clone();
                    Apart(Stripe { state: BiasedMutex::new(state), region })
                })
                .collect()
        });
    }

    /// Locks all stripes. Until the result is dropped no view of the region is opened or released.
    #[inline(always)] // an overwrite of a region with one stripe has little more to do than that
    pub fn lock_all(&self) -> AllStripes<'_> {
        let first = self.first.state.lock();
        let more = self.more().map(lock_each);
        AllStripes { first, more, pins: self }
    }
}

// Out of the way of a region with one stripe:

#[inline(never)]
fn own_stripe(more: &[Apart<Stripe>]) -> &Stripe {
    &more[thread_number() % more.len()]
}

#[inline(never)]
fn lock_each(more: &[Apart<Stripe>]) -> Vec<BiasedGuard<'_, StripeState>> {
    more.iter().map(|stripe| stripe.state.lock()).collect()
}

/// What the stripes of a region still have when they are closed.
pub(crate) struct Closed {
    /// How many of them have views, each of which will be reported by [`RegionInner::stripe_drained`].
    pub draining: usize,
    /// How many views these are, each of which will be reported by [`RegionInner::view_ended`].
    pub views: usize,
    /// How many references to the region the other stripes held, which are the caller's now.
    pub references: usize,
}

/// All stripes of a region, locked.
pub(crate) struct AllStripes<'a> {
    first: BiasedGuard<'a, StripeState>,
    more: Option<Vec<BiasedGuard<'a, StripeState>>>,
    pins: &'a Pins,
}

impl AllStripes<'_> {
    /// Whether a view covers any of the bytes from `start` to `end`.
    #[inline]
    pub fn overlap(&self, start: u64, end: u64) -> bool {
        self.first.overlaps(start, end)
            || self.more.iter().flatten().any(|state| state.overlaps(start, end))
    }

    fn for_each(&mut self, mut visit: impl FnMut(&mut StripeState)) {
        visit(&mut self.first);
        self.more.iter_mut().flatten().for_each(|state| visit(state));
    }

    /// How many views pin the place where the region is.
    pub fn pinned(&mut self) -> usize {
        let mut pinned = 0;
        self.for_each(|state| pinned += state.pinned());
        pinned
    }

    /// The region leaves the place that its views pin; `retired` stands for them from now on.
    pub fn retire(&mut self, retired: Retired) {
        assert!(retired.views == self.pinned() && retired.views > 0);
        self.pins.rare().retired.lock().push(retired);
        self.for_each(StripeState::forget_pins);
    }

    /// No view can be opened from now on.
    pub fn close(&mut self) -> Closed {
        let mut closed = Closed { draining: 0, views: 0, references: 0 };
        self.for_each(|state| {
            assert!(!state.closed, "a region goes away once");
            state.closed = true;
            closed.views += state.open;
            if state.open > 0 {
                closed.draining += 1;
            } else if std::mem::take(&mut state.holds_region) {
                closed.references += 1;
            }
        });
        closed
    }
}

/// Bytes of a region that do not change, move or vanish before the view is dropped, whatever
/// happens to the region or the database meanwhile.
///
/// Opening and dropping a view allocates nothing and waits for no disk. A view may be dropped on
/// another thread than the one that opened it. It keeps the file lock of a closed database.
pub struct View {
    data: *const u8,
    len: usize,
    /// The stripe that records the view; null for an empty view, which pins nothing.
    pin: *const Stripe,
}

// SAFETY: the bytes are immutable while the view exists, and the stripe is locked before use.
unsafe impl Send for View {}
// SAFETY: as above.
unsafe impl Sync for View {}

/// A view taken apart for the C interface.
pub(crate) struct RawView {
    pub data: *const u8,
    pub len: usize,
    /// Null: pins nothing.
    pub pin: *const std::ffi::c_void,
}

impl View {
    /// Opens a view of `len` bytes of `region` from `offset` on, or up to the end where `len` is
    /// `u64::MAX`.
    #[inline(always)] // what it returns is to stay in registers
    pub(crate) fn open(region: &RegionInner, offset: u64, len: u64) -> Result<View> {
        match View::open_as_usual(region, offset, len) {
            Some(view) => Ok(view),
            None => View::open_anyhow(region, offset, len),
        }
    }

    /// What nearly every call comes to. The fewer instructions it takes, the more calls the processor
    /// has in flight that wait for memory.
    #[inline(always)]
    fn open_as_usual(region: &RegionInner, offset: u64, len: u64) -> Option<View> {
        let first = region.place.first.load(Ordering::Relaxed);
        // Bytes that are viewed are going to be looked at.
        prefetch(first.wrapping_add(offset as usize));
        let stripe = &region.pins.first;
        if !region.engine.is_own_process() || region.pins.more().is_some() {
            return None;
        }
        let mut state = stripe.state.lock_if_leaning()?;
        let end = offset.checked_add(len)?;
        if len == 0
            || end > region.len.load(Ordering::Acquire)
            || state.closed
            || !state.holds_region
            || !state.pin_exactly(Range { start: offset, end })
        {
            return None;
        }
        Some(View::of_place(region, stripe, offset, len))
    }

    #[cold]
    fn open_anyhow(region: &RegionInner, offset: u64, len: u64) -> Result<View> {
        region.engine.check_process()?;
        let (stripe, mut state) = region.pins.lock_one();
        if state.closed {
            drop(state);
            return Err(region.gone());
        }
        // Under the stripe's lock neither the place nor a length below the published one can
        // change; the length may grow, and either value will do.
        let region_len = region.len.load(Ordering::Acquire);
        let end = match len {
            u64::MAX if offset <= region_len => region_len,
            _ => match offset.checked_add(len) {
                Some(end) if end <= region_len => end,
                _ => {
                    drop(state);
                    return Err(region.out_of_bounds("view", offset, len, region_len));
                }
            },
        };
        if end == offset {
            return Ok(View { data: ptr::NonNull::dangling().as_ptr(), len: 0, pin: ptr::null() });
        }
        if !state.holds_region {
            // SAFETY: regions live in an `Arc` from `RegionInner::new` on, and `region` borrows it.
            unsafe { Arc::increment_strong_count(region as *const RegionInner) };
            state.holds_region = true;
        }
        state.pin(Range { start: offset, end });
        Ok(View::of_place(region, stripe, offset, end - offset))
    }

    /// A view that `stripe`, which is locked, has recorded.
    #[inline(always)]
    fn of_place(region: &RegionInner, stripe: &Stripe, offset: u64, len: u64) -> View {
        let first = region.place.first.load(Ordering::Relaxed);
        // The range lies in the region and so in its window, which is mapped: it fits `usize`.
        View { data: first.wrapping_add(offset as usize), len: len as usize, pin: stripe }
    }

    pub(crate) fn into_raw(self) -> RawView {
        let raw = RawView { data: self.data, len: self.len, pin: self.pin.cast() };
        std::mem::forget(self);
        raw
    }

    /// Drops a view that has been taken apart.
    ///
    /// # Safety
    ///
    /// `raw` comes from [`into_raw`](View::into_raw) and has not been used for this before.
    #[inline(always)]
    pub(crate) unsafe fn drop_raw(raw: RawView) {
        // To drop is to call a function, with the view in memory; this keeps it in registers.
        let view = View { data: raw.data, len: raw.len, pin: raw.pin.cast() };
        mem::ManuallyDrop::new(view).end();
    }
}

impl Drop for View {
    fn drop(&mut self) {
        self.end();
    }
}

impl View {
    #[inline(always)]
    fn end(&self) {
        if !self.pin.is_null() && !self.release_as_usual() {
            self.release();
        }
    }

    /// Whether the view is released: nearly always.
    #[inline(always)]
    fn release_as_usual(&self) -> bool {
        let (stripe, region) = self.pinned_in();
        if !region.engine.is_own_process() {
            return false;
        }
        let Some(mut state) = stripe.state.lock_if_leaning() else { return false };
        !state.closed && self.range(region).is_some_and(|range| state.unpin_exactly(range))
    }

    #[cold]
    fn release(&self) {
        let (stripe, region) = self.pinned_in();
        if region.engine.check_process().is_err() {
            // The lock may be held by a thread that the child does not have.
            return;
        }
        let mut state = stripe.state.lock();
        match self.range(region) {
            Some(range) => state.unpin(range),
            None => {
                // Retired bytes never become the region's place again, so the lock can be let go.
                // The view still counts as open, which keeps the region's memory alive.
                drop(state);
                release_retired(region, self.data);
                state = stripe.state.lock();
                state.open -= 1;
            }
        }
        if state.closed {
            region.view_ended();
        }
        if state.closed && state.open == 0 {
            state.holds_region = false;
            drop(state);
            region.stripe_drained();
            // SAFETY: the reference that `holds_region` stood for; nothing uses the region after.
            unsafe { Arc::decrement_strong_count(region as *const RegionInner) };
        }
    }

    /// For a view that is not empty.
    #[inline(always)]
    fn pinned_in(&self) -> (&Stripe, &RegionInner) {
        // SAFETY: the stripe is part of its region, whose memory it keeps alive
        // (`holds_region`) while any of its views exists, and this one does.
        let stripe = unsafe { &*self.pin };
        // SAFETY: as above; the pointer was set before the stripe was first used.
        (stripe, unsafe { &*stripe.region.get() })
    }

    /// The range in the region, if that is where it was. With the stripe locked, under which the
    /// place does not change.
    #[inline(always)]
    fn range(&self, region: &RegionInner) -> Option<Range> {
        let first = region.place.first.load(Ordering::Relaxed).cast_const();
        let start = (self.data as usize).wrapping_sub(first as usize) as u64;
        let here = !first.is_null() && start < region.place.reserved.load(Ordering::Relaxed);
        here.then_some(Range { start, end: start + self.len as u64 })
    }
}

/// Counts down the retired place that `data` lies in, and gives it back after its last view.
#[cold]
fn release_retired(region: &RegionInner, data: *const u8) {
    let mut places = region.pins.rare().retired.lock();
    let index = places
        .iter()
        .position(|place| {
            let offset = (data as usize).wrapping_sub(place.first as usize) as u64;
            offset < place.extent.len
        })
        .expect("a view's bytes are in the region's place or in a retired one");
    places[index].views -= 1;
    if places[index].views == 0 {
        let retired = places.swap_remove(index);
        drop(places);
        region.engine.release_pinned(&retired);
    }
}

impl Deref for View {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        // SAFETY: `open` checked the range against the published length, and while the view is
        // recorded no one writes to, unmaps or punches these bytes. An empty view has a dangling,
        // non-null pointer, as a slice wants it.
        unsafe { std::slice::from_raw_parts(self.data, self.len) }
    }
}

impl AsRef<[u8]> for View {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl fmt::Debug for View {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("View").field("len", &self.len).finish_non_exhaustive()
    }
}

/// A region as it was when the reader was made.
///
/// Making one does not fail; where the region was gone by then, reading says so.
#[derive(Debug)]
pub struct Reader(Result<View>);

impl Reader {
    pub(crate) fn new(view: Result<View>) -> Reader {
        Reader(view)
    }

    fn view(&self) -> Result<&View> {
        self.0.as_ref().map_err(Error::clone)
    }

    /// All bytes of the region. They stay as they are while the reader exists.
    ///
    /// # Errors
    ///
    /// `Removed` or `Closed` where the region had gone when the reader was made.
    pub fn read_all(&self) -> Result<&[u8]> {
        Ok(self.view()?)
    }

    /// `len` bytes from `offset` on. They stay as they are while the reader exists.
    ///
    /// # Errors
    ///
    /// `OutOfBounds` beyond what the region held when the reader was made; `Removed` or `Closed`
    /// where it had gone by then.
    pub fn read(&self, offset: u64, len: u64) -> Result<&[u8]> {
        let all = self.read_all()?;
        offset
            .checked_add(len)
            .filter(|&end| end <= all.len() as u64)
            .map(|end| &all[offset as usize..end as usize])
            .ok_or_else(|| {
                Error::new(
                    ErrorKind::OutOfBounds,
                    format!("read of {len} bytes at {offset} in a reader of {} bytes", all.len()),
                )
            })
    }
}
