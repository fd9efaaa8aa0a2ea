//! Random programs as plain lists of operations, so that one that fails can be cut down, written
//! out and read in again.

use std::fmt;
use std::str::FromStr;

/// What an operation does with its region, unless said otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Create,
    Append,
    /// Writes at a share `at` of the length.
    Write,
    /// The same, and the region ends there.
    TruncateWrite,
    /// Several values in one call.
    Batch,
    Truncate,
    Reserve,
    /// Gives it the name `other`, whoever has that.
    Rename,
    Remove,
    /// Removes all but it and `other`.
    Retain,
    /// Takes a view and keeps it.
    View,
    /// Lets go of all views.
    Release,
    /// Takes an append buffer and keeps it.
    BufferBegin,
    BufferEnd,
    /// Of the database.
    Flush,
    FlushRegion,
    /// A flush in which the call number `at` fails, with a part of its work done or not.
    FailFlush,
    Compact,
    /// Closes the database and opens it again.
    Reopen,
    /// The process dies, and the next one opens the database, or fails at call number `at`.
    Die,
    /// The same, and nothing is known of what the process did since its last flush.
    DieForgotten,
}

const KINDS: [(Kind, &str, u32); 21] = [
    (Kind::Create, "create", 6),
    (Kind::Append, "append", 26),
    (Kind::Write, "write", 14),
    (Kind::TruncateWrite, "truncate-write", 5),
    (Kind::Batch, "batch", 3),
    (Kind::Truncate, "truncate", 10),
    (Kind::Reserve, "reserve", 2),
    (Kind::Rename, "rename", 6),
    (Kind::Remove, "remove", 6),
    (Kind::Retain, "retain", 1),
    (Kind::View, "view", 9),
    (Kind::Release, "release", 3),
    (Kind::BufferBegin, "buffer-begin", 2),
    (Kind::BufferEnd, "buffer-end", 3),
    (Kind::Flush, "flush", 11),
    (Kind::FlushRegion, "flush-region", 1),
    (Kind::FailFlush, "fail-flush", 5),
    (Kind::Compact, "compact", 6),
    (Kind::Reopen, "reopen", 3),
    (Kind::Die, "die", 3),
    (Kind::DieForgotten, "die-forgotten", 1),
];

impl Kind {
    pub fn changes_regions(self) -> bool {
        !matches!(
            self,
            Kind::Flush
                | Kind::FlushRegion
                | Kind::FailFlush
                | Kind::Compact
                | Kind::Reopen
                | Kind::Die
                | Kind::DieForgotten
        )
    }
}

/// What the operations of one program are drawn from. Each program has its own: where a few kinds on
/// a few regions follow each other, they meet what hardly ever comes about among all of them.
struct Mix {
    weights: [u32; KINDS.len()],
    /// How many of the names are used.
    names: u8,
}

impl Mix {
    fn random(rng: &mut fastrand::Rng) -> Mix {
        let weights = KINDS.map(|(kind, _, weight)| match rng.u32(..6) {
            // Without any of these there is nothing to lose.
            0 if kind != Kind::Append => 0,
            1 => 4 * weight,
            _ => weight,
        });
        let names = if rng.bool() { NAMES } else { rng.u8(1..NAMES) };
        Mix { weights, names }
    }

    fn kind(&self, rng: &mut fastrand::Rng) -> Kind {
        let mut ticket = rng.u32(..self.weights.iter().sum::<u32>());
        for ((kind, _, _), weight) in KINDS.iter().zip(self.weights) {
            match ticket.checked_sub(weight) {
                Some(rest) => ticket = rest,
                None => return *kind,
            }
        }
        unreachable!("the ticket is below the sum of the weights")
    }

    fn operation(&self, rng: &mut fastrand::Rng) -> Operation {
        let len = match rng.u32(..12) {
            0..=1 => rng.u32(..40_000),
            2..=5 => rng.u32(..200),
            _ => rng.u32(..1_500),
        };
        Operation {
            kind: self.kind(rng),
            region: rng.u8(..self.names),
            other: rng.u8(..self.names),
            at: rng.u16(..),
            len,
            fill: rng.u8(1..),
            inside: false,
        }
    }
}

/// One operation. Fields that its kind has no use for are ignored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Operation {
    pub kind: Kind,
    pub region: u8,
    pub other: u8,
    /// In 65536ths.
    pub at: u16,
    pub len: u32,
    /// What the bytes are made from.
    pub fill: u8,
    /// Happens while the flush or compaction before it is under way.
    pub inside: bool,
}

impl Operation {
    pub fn of(kind: Kind) -> Operation {
        Operation { kind, region: 0, other: 0, at: 0, len: 0, fill: 0, inside: false }
    }

    /// The bytes that it writes. No two sectors of it are equal.
    pub fn data(&self) -> Vec<u8> {
        let byte = |at: u32| self.fill.wrapping_add((at / 97) as u8).wrapping_mul(167) | 1;
        (0..self.len).map(byte).collect()
    }

    /// A place in `0..=len`.
    pub fn share_of(&self, len: usize) -> usize {
        len * self.at as usize / usize::from(u16::MAX)
    }
}

const NAMES: u8 = 6;

/// The names of two regions make their entries cross a sector, and one of them more than one.
pub fn name(region: u8) -> String {
    match region {
        0 => "long ".repeat(150),
        1 => "l".repeat(500),
        _ => format!("r{region}"),
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = KINDS.iter().find(|it| it.0 == self.kind).expect("all kinds are listed").1;
        write!(
            f,
            "{name:14} region={} other={} at={} len={} fill={}{}",
            self.region,
            self.other,
            self.at,
            self.len,
            self.fill,
            if self.inside { " inside" } else { "" }
        )
    }
}

impl FromStr for Operation {
    type Err = String;

    fn from_str(line: &str) -> Result<Operation, String> {
        let mut words = line.split_whitespace();
        let kind = words.next().and_then(|word| KINDS.iter().find(|it| it.1 == word));
        let kind = kind.ok_or(format!("{line:?} names no operation"))?.0;
        let mut operation = Operation::of(kind);
        for word in words {
            let bad = |_| format!("{word:?} in {line:?} is no number");
            match word.split_once('=') {
                Some(("region", it)) => operation.region = it.parse().map_err(bad)?,
                Some(("other", it)) => operation.other = it.parse().map_err(bad)?,
                Some(("at", it)) => operation.at = it.parse().map_err(bad)?,
                Some(("len", it)) => operation.len = it.parse().map_err(bad)?,
                Some(("fill", it)) => operation.fill = it.parse().map_err(bad)?,
                None if word == "inside" => operation.inside = true,
                _ => return Err(format!("{word:?} in {line:?} is unknown")),
            }
        }
        Ok(operation)
    }
}

/// A program, and how the database is opened for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program {
    /// Chooses the outcomes of its crashes.
    pub seed: u64,
    pub guarded: bool,
    /// Free space is given back at every occasion.
    pub eager: bool,
    /// There is a mirror of the table, as the system says when it was started.
    pub mirrored: bool,
    /// The first open fails at this call.
    pub fail: Option<u64>,
    pub operations: Vec<Operation>,
}

impl Program {
    pub fn random(seed: u64) -> Program {
        let mut rng = fastrand::Rng::with_seed(seed);
        let (guarded, eager, mirrored) = (rng.u32(..4) == 0, rng.bool(), rng.u32(..4) > 0);
        let mix = Mix::random(&mut rng);
        let mut operations: Vec<Operation> = Vec::new();
        let mut can_be_inside = false;
        for _ in 0..rng.usize(10..50) {
            let mut operation = mix.operation(&mut rng);
            operation.inside = can_be_inside && operation.kind.changes_regions() && rng.bool();
            let begins = matches!(operation.kind, Kind::Flush | Kind::Compact);
            can_be_inside = begins || operation.inside;
            operations.push(operation);
        }
        // Creating a database and opening it takes fewer calls.
        let fail = rng.bool().then(|| rng.u64(..45));
        Program { seed, guarded, eager, mirrored, fail, operations }
    }

    /// The operations one by one, each with those inside it.
    pub fn steps(&self) -> impl Iterator<Item = (Operation, &[Operation])> {
        let mut rest = &self.operations[..];
        std::iter::from_fn(move || {
            let (first, others) = rest.split_first()?;
            let inside = others.iter().take_while(|it| it.inside).count();
            let (inside, others) = others.split_at(inside);
            rest = others;
            Some((*first, inside))
        })
    }

    /// Programs that are a little simpler, the much simpler ones first.
    pub fn simpler(&self) -> Vec<Program> {
        let mut simpler = Vec::new();
        let mut chunk = self.operations.len();
        while chunk > 0 {
            for start in (0..self.operations.len()).step_by(chunk) {
                let mut program = self.clone();
                let end = (start + chunk).min(program.operations.len());
                program.operations.drain(start..end);
                simpler.push(program);
            }
            chunk /= 2;
        }
        for (index, operation) in self.operations.iter().enumerate() {
            for (change, applies) in [
                (Operation { inside: false, ..*operation }, operation.inside),
                (Operation { len: 1, ..*operation }, operation.len > 1),
                (Operation { len: operation.len / 2, ..*operation }, operation.len > 1),
                (Operation { at: 0, ..*operation }, operation.at > 0),
                (Operation { region: 2, ..*operation }, operation.region != 2),
            ] {
                if applies {
                    let mut program = self.clone();
                    program.operations[index] = change;
                    simpler.push(program);
                }
            }
        }
        if self.fail.is_some() {
            simpler.push(Program { fail: None, ..self.clone() });
        }
        for (guarded, eager) in [(false, self.eager), (self.guarded, false)] {
            if (guarded, eager) != (self.guarded, self.eager) {
                simpler.push(Program { guarded, eager, ..self.clone() });
            }
        }
        simpler
    }
}

impl fmt::Display for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Program { seed, guarded, eager, mirrored, .. } = self;
        let fail = self.fail.map_or("none".into(), |call| call.to_string());
        writeln!(f, "seed={seed} guarded={guarded} eager={eager} mirrored={mirrored} fail={fail}")?;
        self.operations.iter().try_for_each(|operation| writeln!(f, "{operation}"))
    }
}

impl FromStr for Program {
    type Err = String;

    fn from_str(text: &str) -> Result<Program, String> {
        let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
        let head = lines.next().unwrap_or_default();
        let setting = |name: &str| {
            let mut words = head.split_whitespace().filter_map(|word| word.split_once('='));
            let found = words.find(|(it, _)| *it == name);
            found.map(|(_, value)| value).ok_or(format!("{name} is missing in {head:?}"))
        };
        Ok(Program {
            seed: setting("seed")?.parse().map_err(|_| format!("{head:?} has no seed"))?,
            guarded: setting("guarded")? == "true",
            eager: setting("eager")? == "true",
            mirrored: setting("mirrored")? == "true",
            fail: setting("fail")?.parse().ok(),
            operations: lines.map(str::parse).collect::<Result<_, _>>()?,
        })
    }
}
