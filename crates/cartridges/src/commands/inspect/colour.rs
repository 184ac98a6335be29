//! Samples on a terminal: the likelier a token, the greener.

use super::samples::{Likelihood, Sample, SampleMessage};
use super::table::{beginning, fields, visible};

/// Lower bounds of the probabilities that share a colour, with their name for people, their colour among
/// the 256 of a terminal and their background on a page.
pub(super) const BANDS: [(f32, &str, u8, &str); 4] = [
    (0.9, "90 % and more", 34, "#c9efc9"),
    (0.5, "50 to 90 %", 148, "#ecf3b5"),
    (0.1, "10 to 50 %", 214, "#ffdfae"),
    (0.0, "less", 203, "#ffc4bd"),
];

/// Characters of a message that are shown without colours.
const PLAIN_LIMIT: usize = 400;
/// Characters of a message that are shown with colours.
const COLOURED_LIMIT: usize = 1200;

/// The band of a token; none where nothing is stored.
pub(super) fn band(likelihood: Likelihood) -> Option<usize> {
    match likelihood {
        Likelihood::NotStored => None,
        Likelihood::NotAmongThem => Some(BANDS.len() - 1),
        Likelihood::Probability(p) => {
            let fits = |(least, ..): &(f32, &str, u8, &str)| p >= *least;
            Some(BANDS.iter().position(fits).unwrap_or(BANDS.len() - 1))
        }
    }
}

fn painted(text: &str, band: usize) -> String {
    format!("\x1b[38;5;{}m{text}\x1b[0m", BANDS[band].2)
}

/// What the colours mean.
pub(super) fn legend() -> String {
    let bands: Vec<String> = (0..BANDS.len()).map(|i| painted(BANDS[i].1, i)).collect();
    format!("teacher's probability  {}", bands.join("  "))
}

/// A conversation, with colours if they are wanted and known.
pub(super) fn sample(sample: &Sample, coloured: bool) -> String {
    let mut text = format!("\nsample: row {}\n", sample.row);
    let mut lines = vec![
        ("seed", sample.seed_prompt.clone()),
        ("system", sample.system_prompt.clone()),
    ];
    lines.extend(sample.messages.iter().map(|message| {
        let shown = match coloured && !message.pieces.is_empty() {
            true => coloured_message(message),
            false => beginning(&message.content, PLAIN_LIMIT),
        };
        (message.role, shown)
    }));
    lines.retain(|(_, content)| !content.is_empty());
    text += &fields(&lines);
    text
}

fn coloured_message(message: &SampleMessage) -> String {
    let mut shown = String::new();
    let mut length = 0;
    for piece in &message.pieces {
        if length > COLOURED_LIMIT {
            shown.push('…');
            break;
        }
        // A colour ends before a line does; a break is shown so that the token is not lost.
        let text = visible(&piece.text).replace('\n', "⏎");
        length += text.chars().count();
        shown += &match band(piece.likelihood) {
            Some(band) => painted(&text, band),
            None => text,
        };
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::super::samples::Piece;
    use super::*;

    #[test]
    fn colours_follow_the_probability_and_text_cannot_paint() {
        let piece = |text: &str, likelihood| Piece {
            text: text.to_owned(),
            likelihood,
            candidates: Vec::new(),
        };
        let message = SampleMessage {
            role: "assistant",
            content: String::new(),
            pieces: vec![
                piece("a", Likelihood::Probability(0.9)),
                piece("b\n", Likelihood::Probability(0.1)),
                piece("\x1b[2J", Likelihood::NotAmongThem),
                piece("d", Likelihood::NotStored),
            ],
        };
        let wanted = "\x1b[38;5;34ma\x1b[0m\x1b[38;5;214mb⏎\x1b[0m\x1b[38;5;203m\\u{1b}[2J\x1b[0md";
        assert_eq!(coloured_message(&message), wanted);
    }
}
