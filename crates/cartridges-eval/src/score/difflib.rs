//! How alike two texts are: Python's `difflib.SequenceMatcher` (Ratcliff and Metzener 1988).

use std::collections::HashMap;
use std::ops::Range;

/// From this length on, signs of the second text that make up more than a hundredth of it do not
/// begin a match.
const POPULAR_FROM: usize = 200;

/// `SequenceMatcher(None, a, b).ratio()`: twice the signs in matching blocks over all signs, from
/// 0 to 1. Two empty texts are alike. The order of the texts matters.
pub fn difflib_ratio(a: &str, b: &str) -> f64 {
    let a: Vec<char> = a.chars().collect();
    let b: Vec<char> = b.chars().collect();
    ratio_of(&a, &b)
}

/// Place and ratio of the option that is most like the text, the first of equal ones:
/// `max(options, key=lambda option: SequenceMatcher(None, text, option).ratio())`.
///
/// `difflib.get_close_matches` swaps the two texts and takes the alphabetically last of equal
/// ones, so its choice can differ. `None` without options.
pub fn difflib_nearest<S: AsRef<str>>(text: &str, options: &[S]) -> Option<(usize, f64)> {
    let text: Vec<char> = text.chars().collect();
    let mut best: Option<(usize, f64)> = None;
    for (place, option) in options.iter().enumerate() {
        let option: Vec<char> = option.as_ref().chars().collect();
        let ratio = ratio_of(&text, &option);
        if best.is_none_or(|(_, so_far)| ratio > so_far) {
            best = Some((place, ratio));
        }
    }
    best
}

fn ratio_of(a: &[char], b: &[char]) -> f64 {
    if a.is_empty() && b.is_empty() {
        return 1.0;
    }
    let matched = Matcher::new(a, b).matched();
    2.0 * matched as f64 / (a.len() + b.len()) as f64
}

struct Matcher<'a> {
    a: &'a [char],
    b: &'a [char],
    /// Where each sign stands in `b`, popular ones left out.
    places: HashMap<char, Vec<usize>>,
}

/// `size` equal signs from `a` of the first and `b` of the second text on.
#[derive(Clone, Copy)]
struct Block {
    a: usize,
    b: usize,
    size: usize,
}

impl<'a> Matcher<'a> {
    fn new(a: &'a [char], b: &'a [char]) -> Self {
        let mut places: HashMap<char, Vec<usize>> = HashMap::new();
        for (place, sign) in b.iter().enumerate() {
            places.entry(*sign).or_default().push(place);
        }
        if b.len() >= POPULAR_FROM {
            let most = b.len() / 100 + 1;
            places.retain(|_, places| places.len() <= most);
        }
        Self { a, b, places }
    }

    /// Number of signs in matching blocks: the longest block, and those to its left and right.
    fn matched(&self) -> usize {
        let mut matched = 0;
        let mut open = vec![(0..self.a.len(), 0..self.b.len())];
        while let Some((a, b)) = open.pop() {
            let block = self.longest(a.clone(), b.clone());
            if block.size == 0 {
                continue;
            }
            matched += block.size;
            open.push((a.start..block.a, b.start..block.b));
            open.push((block.a + block.size..a.end, block.b + block.size..b.end));
        }
        matched
    }

    /// The longest block within the ranges that holds no popular sign, the first in `a` and then
    /// in `b` of equal ones, and then grown at both ends by any equal signs.
    fn longest(&self, a: Range<usize>, b: Range<usize>) -> Block {
        let mut best = Block {
            a: a.start,
            b: b.start,
            size: 0,
        };
        // Lengths of the blocks that end at the sign before and at each place of `b`.
        let mut before: HashMap<usize, usize> = HashMap::new();
        for (at, sign) in self.a.iter().enumerate().take(a.end).skip(a.start) {
            let places = self.places.get(sign).map_or(&[][..], Vec::as_slice);
            let from = places.partition_point(|place| *place < b.start);
            let to = places.partition_point(|place| *place < b.end);
            let mut here = HashMap::with_capacity(to - from);
            for &place in &places[from..to] {
                let previous = place.checked_sub(1).and_then(|place| before.get(&place));
                let size = previous.map_or(1, |size| size + 1);
                here.insert(place, size);
                if size > best.size {
                    best = Block {
                        a: at + 1 - size,
                        b: place + 1 - size,
                        size,
                    };
                }
            }
            before = here;
        }
        while best.a > a.start && best.b > b.start && self.a[best.a - 1] == self.b[best.b - 1] {
            best.a -= 1;
            best.b -= 1;
            best.size += 1;
        }
        while best.a + best.size < a.end
            && best.b + best.size < b.end
            && self.a[best.a + best.size] == self.b[best.b + best.size]
        {
            best.size += 1;
        }
        best
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixtures::{cases, close, number, text};
    use super::*;

    #[test]
    fn the_ratio_is_pythons() {
        for case in cases("difflib") {
            let (a, b) = (text(&case, "a"), text(&case, "b"));
            close(difflib_ratio(&a, &b), number(&case, "ratio"), &case);
            close(difflib_ratio(&b, &a), number(&case, "swapped"), &case);
        }
    }

    #[test]
    fn the_first_of_equal_options_is_nearest() {
        assert_eq!(
            difflib_nearest("ab", &["xy", "abcd", "cdab"]),
            Some((1, 2.0 / 3.0))
        );
        assert_eq!(difflib_nearest("ab", &["xy", "yz"]), Some((0, 0.0)));
        assert_eq!(difflib_nearest::<&str>("ab", &[]), None);
    }
}
