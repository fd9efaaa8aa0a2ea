//! What a flush has to know of each slot in the durable table: on which side its entry is, and what that
//! adds to the table's digest.

/// Of every slot with an entry there is one in memory, so it is as small as can be.
#[derive(Clone, Copy)]
pub(crate) struct DurableSlot {
    pub side: u8,
    /// 0 for a vacant slot.
    digest: [u8; 16],
}

/// A slot that has never been written takes its first entry on side 0.
const NEVER_WRITTEN: DurableSlot = DurableSlot { side: 1, digest: [0; 16] };

impl DurableSlot {
    pub fn new(side: u8, digest: u128) -> DurableSlot {
        DurableSlot { side, digest: digest.to_ne_bytes() }
    }

    pub fn digest(&self) -> u128 {
        u128::from_ne_bytes(self.digest)
    }
}

/// Neighbours share a chunk, and chunks lie in the order of their slots. Where no slot has an entry
/// there is none: a sparse file has any number of slots.
#[derive(Default)]
pub(crate) struct DurableSlots {
    chunks: Vec<(u64, Box<[DurableSlot; CHUNK as usize]>)>,
}

const CHUNK: u64 = 32;

impl DurableSlots {
    pub fn get(&self, slot: u64) -> DurableSlot {
        let place = self.place(slot / CHUNK);
        place.map_or(NEVER_WRITTEN, |place| self.chunks[place].1[(slot % CHUNK) as usize])
    }

    pub fn set(&mut self, slot: u64, durable: DurableSlot) {
        let number = slot / CHUNK;
        // Recovery goes through them in order, and new regions take slots behind the others.
        let place = match self.chunks.last() {
            Some((last, _)) if *last == number => Ok(self.chunks.len() - 1),
            Some((last, _)) if *last > number => self.place(number),
            _ => Err(self.chunks.len()),
        };
        let place = place.unwrap_or_else(|place| {
            self.chunks.insert(place, (number, Box::new([NEVER_WRITTEN; CHUNK as usize])));
            place
        });
        self.chunks[place].1[(slot % CHUNK) as usize] = durable;
    }

    /// Where a chunk is, or belongs.
    fn place(&self, number: u64) -> Result<usize, usize> {
        self.chunks.binary_search_by_key(&number, |&(number, _)| number)
    }
}
