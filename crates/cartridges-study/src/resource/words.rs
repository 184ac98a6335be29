//! Keys, values and names drawn at random.

use rand::{Rng, RngExt};
use serde::{Deserialize, Serialize};

const ADJECTIVES: [&str; 48] = [
    "amber", "bold", "brief", "bright", "calm", "careful", "clever", "cold", "curly", "dark",
    "deep", "distant", "dusty", "early", "faint", "fast", "gentle", "glad", "golden", "grand",
    "heavy", "hollow", "honest", "humble", "idle", "keen", "late", "light", "lively", "lucky",
    "mellow", "narrow", "noble", "odd", "pale", "patient", "plain", "proud", "quiet", "rapid",
    "rough", "sharp", "silent", "steady", "tall", "tidy", "warm", "wild",
];
const NOUNS: [&str; 48] = [
    "anchor", "apple", "arrow", "basket", "bell", "bridge", "candle", "canyon", "castle", "cloud",
    "compass", "copper", "desert", "engine", "feather", "fiddle", "forest", "garden", "glacier",
    "hammer", "harbour", "island", "kettle", "ladder", "lantern", "lemon", "marble", "meadow",
    "mirror", "mountain", "needle", "orchard", "paper", "pebble", "pepper", "piano", "river",
    "saddle", "sparrow", "spoon", "stable", "thunder", "ticket", "tunnel", "valley", "violin",
    "walnut", "window",
];

/// How many words of [`ValueKind::Words`] there are.
pub(super) const NUM_WORDS: usize = ADJECTIVES.len() * NOUNS.len();

/// What a key or a value looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ValueKind {
    /// A number of seven digits.
    Numbers,
    /// An adjective and a noun: `quiet-harbour`.
    Words,
    /// A random UUID of version 4.
    Uuids,
    /// Five capital letters.
    Letters,
}

impl ValueKind {
    /// The kind's name in the plural.
    pub(super) fn plural(self) -> &'static str {
        match self {
            Self::Numbers => "numbers",
            Self::Words => "words",
            Self::Uuids => "uuids",
            Self::Letters => "letters",
        }
    }

    /// A random one.
    pub(super) fn draw(self, rng: &mut impl Rng) -> String {
        match self {
            Self::Numbers => rng.random_range(1_000_000..=9_999_999).to_string(),
            Self::Words => format!(
                "{}-{}",
                ADJECTIVES[rng.random_range(0..ADJECTIVES.len())],
                NOUNS[rng.random_range(0..NOUNS.len())]
            ),
            Self::Uuids => uuid(rng.random()),
            Self::Letters => (0..5)
                .map(|_| char::from(rng.random_range(b'A'..=b'Z')))
                .collect(),
        }
    }

    /// `count` different ones, none of which is in `taken`. There have to be enough.
    pub(super) fn draw_distinct(
        self,
        count: usize,
        taken: &[String],
        rng: &mut impl Rng,
    ) -> Vec<String> {
        let mut out: Vec<String> = Vec::with_capacity(count);
        while out.len() < count {
            let drawn = self.draw(rng);
            if !out.contains(&drawn) && !taken.contains(&drawn) {
                out.push(drawn);
            }
        }
        out
    }
}

/// RFC 9562, section 5.4.
fn uuid(random: u128) -> String {
    let bits = random & !(0xf << 76) & !(0x3 << 62) | (0x4 << 76) | (0x2 << 62);
    let hex = format!("{bits:032x}");
    [
        &hex[..8],
        &hex[8..12],
        &hex[12..16],
        &hex[16..20],
        &hex[20..],
    ]
    .join("-")
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    #[test]
    fn values_look_as_they_should() {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        for _ in 0..50 {
            let number = ValueKind::Numbers.draw(&mut rng);
            assert!(number.len() == 7 && number.parse::<u32>().is_ok());
            let (a, b) = {
                let word = ValueKind::Words.draw(&mut rng);
                let (a, b) = word.split_once('-').unwrap();
                (a.to_owned(), b.to_owned())
            };
            assert!(ADJECTIVES.contains(&a.as_str()) && NOUNS.contains(&b.as_str()));
            assert_eq!(ValueKind::Letters.draw(&mut rng).len(), 5);
        }
        assert_eq!(uuid(0), "00000000-0000-4000-8000-000000000000");
        assert_eq!(uuid(u128::MAX), "ffffffff-ffff-4fff-bfff-ffffffffffff");
        let words = ValueKind::Words.draw_distinct(NUM_WORDS / 2, &[], &mut rng);
        let all: std::collections::BTreeSet<&String> = words.iter().collect();
        assert_eq!(all.len(), NUM_WORDS / 2);
    }
}
