//! In which of these ranges is a number? The arithmetic of a list of networks, for both sizes of addresses.

/// Numbers that addresses are.
pub(super) trait Bits: Copy + Ord {
    /// The next number, if there is one.
    fn next(self) -> Option<Self>;
    /// How far it is behind `first`, without the last `shift` bits.
    fn stretch(self, first: Self, shift: u32) -> usize;
    /// How many bits the distance to `first` takes.
    fn bits(self, first: Self) -> u32;
}

macro_rules! bits {
    ($($type:ty),*) => { $(
        impl Bits for $type {
            fn next(self) -> Option<Self> {
                self.checked_add(1)
            }

            fn stretch(self, first: Self, shift: u32) -> usize {
                // A number far behind the last range is in a stretch far behind the last, and not in the one that the lower
                // half of its own would name.
                (self - first).checked_shr(shift).map_or(0, |stretch| usize::try_from(stretch).unwrap_or(usize::MAX))
            }

            fn bits(self, first: Self) -> u32 {
                <$type>::BITS - (self - first).leading_zeros()
            }
        }
    )* };
}

bits!(u32, u128);

/// Ranges in order, none of which touches another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Ranges<T> {
    /// The first and the last number of each.
    ranges: Vec<(T, T)>,
    /// For each stretch, how many ranges begin before it.
    index: Vec<u32>,
    shift: u32,
}

impl<T> Default for Ranges<T> {
    fn default() -> Self {
        Self { ranges: Vec::new(), index: Vec::new(), shift: 0 }
    }
}

impl<T: Bits> Ranges<T> {
    /// The set of all numbers that are in one of these ranges.
    pub(super) fn new(mut ranges: Vec<(T, T)>) -> Self {
        ranges.sort_unstable();
        let ranges = melted(ranges);
        let (Some(&(first, _)), Some(&(last, _))) = (ranges.first(), ranges.last()) else { return Self::default() };
        // As many stretches as ranges, or up to twice as many.
        let index_bits = usize::BITS - ranges.len().leading_zeros();
        let shift = last.bits(first).saturating_sub(index_bits);
        let mut index = vec![0; last.stretch(first, shift) + 2];
        for (begin, _) in &ranges {
            index[begin.stretch(first, shift) + 1] += 1;
        }
        let mut before = 0;
        for count in &mut index {
            before += *count;
            *count = before;
        }
        Self { ranges, index, shift }
    }

    pub(super) fn contains(&self, number: T) -> bool {
        let Some(&(first, _)) = self.ranges.first() else { return false };
        if number < first {
            return false;
        }
        let stretch = number.stretch(first, self.shift).min(self.index.len() - 2);
        // The range that holds it begins in its stretch, or is the last that begins before.
        let (from, to) = (self.index[stretch] as usize, self.index[stretch + 1] as usize);
        let begun = from + self.ranges[from..to].partition_point(|(begin, _)| *begin <= number);
        begun > 0 && number <= self.ranges[begun - 1].1
    }

    pub(super) fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }
}

/// The same numbers in as few ranges as can be; `ranges` are in order.
fn melted<T: Bits>(ranges: Vec<(T, T)>) -> Vec<(T, T)> {
    let mut melted: Vec<(T, T)> = Vec::with_capacity(ranges.len());
    for (begin, end) in ranges {
        match melted.last_mut() {
            Some((_, last)) if last.next().is_none_or(|next| begin <= next) => *last = end.max(*last),
            Some(_) | None => melted.push((begin, end)),
        }
    }
    melted
}
