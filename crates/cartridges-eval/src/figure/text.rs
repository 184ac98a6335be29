//! Words and numbers as figures and pages write them.

/// Advance widths of ` ` to `~` in DejaVu Sans, in thousandths of the font size. It is among the widest
/// faces in use, so that what has room in it has room in others.
const WIDTHS: [u16; 95] = [
    318, 401, 460, 838, 636, 950, 780, 275, 390, 390, 500, 838, 318, 361, 318, 337, 636, 636, 636,
    636, 636, 636, 636, 636, 636, 636, 337, 337, 838, 838, 838, 531, 1000, 684, 686, 698, 770, 632,
    575, 775, 752, 295, 295, 656, 557, 863, 748, 787, 603, 787, 695, 635, 611, 732, 684, 989, 685,
    611, 685, 390, 337, 390, 838, 500, 500, 613, 635, 550, 635, 615, 352, 635, 634, 278, 278, 579,
    278, 974, 634, 612, 635, 635, 411, 521, 392, 634, 592, 818, 592, 592, 525, 636, 337, 636, 838,
];

/// Text for XML and HTML, in content and in quoted attributes. Characters that XML does not allow
/// become the replacement character.
pub fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            '\t' | '\n' | '\r' => out.push(c),
            '\u{fffe}' | '\u{ffff}' => out.push('\u{fffd}'),
            c if c.is_control() => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}

/// Width of a line of text; never too small by much.
pub(crate) fn width(text: &str, size: f64) -> f64 {
    let thousandths: u64 = text
        .chars()
        .map(|c| match (c as usize).checked_sub(32) {
            Some(place) if place < WIDTHS.len() => u64::from(WIDTHS[place]),
            _ if c == '\u{a0}' => u64::from(WIDTHS[0]),
            // Letters with marks are as wide as those without; ideographs fill their square.
            _ if (c as u32) < 0x1100 => 800,
            _ => 1000,
        })
        .sum();
    thousandths as f64 / 1000.0 * size
}

/// The text, or as much of it as there is room for, with an ellipsis in the middle: names that
/// differ often do so at their end.
pub(crate) fn shortened(text: &str, size: f64, room: f64) -> String {
    if width(text, size) <= room {
        return text.to_owned();
    }
    let chars: Vec<char> = text.chars().collect();
    for kept in (2..chars.len()).rev() {
        let head: String = chars[..kept.div_ceil(2)].iter().collect();
        let tail: String = chars[chars.len() - kept / 2..].iter().collect();
        let short = format!("{}…{}", head.trim_end(), tail.trim_start());
        if width(&short, size) <= room {
            return short;
        }
    }
    "…".to_owned()
}

/// Three significant digits; whole numbers from 100 on.
pub(crate) fn number(value: f64) -> String {
    if !value.is_finite() {
        return "–".to_owned();
    }
    let size = value.abs();
    let text = match size {
        _ if size >= 99.95 => return signed(value, &count(size.round() as u64)),
        _ if size >= 9.995 => format!("{size:.1}"),
        _ if size >= 0.0995 || size == 0.0 => format!("{size:.2}"),
        _ if size >= 0.000_95 => format!("{size:.4}"),
        _ => format!("{size:.1e}"),
    };
    signed(value, &text)
}

/// A minus as wide as a plus; none before a zero.
fn signed(value: f64, size: &str) -> String {
    let zero = size.chars().all(|c| matches!(c, '0' | '.'));
    match value < 0.0 && !zero {
        true => format!("−{size}"),
        false => size.to_owned(),
    }
}

/// A share in percent.
pub(crate) fn per_cent(share: f64) -> String {
    if !share.is_finite() {
        return "–".to_owned();
    }
    let size = (share * 100.0).abs();
    signed(share, &count(size.round() as u64)) + "\u{a0}%"
}

/// A whole number with thin gaps between thousands, from five digits on.
pub(crate) fn count(value: u64) -> String {
    let digits = value.to_string();
    if digits.len() < 5 {
        return digits;
    }
    let mut out = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            out.push('\u{a0}');
        }
        out.push(digit);
    }
    out
}

/// Wall time in the unit that gives a handy number.
pub(crate) fn duration(seconds: f64) -> String {
    let in_unit = |unit: f64, name: &str| {
        let value = seconds / unit;
        match value {
            _ if value < 9.95 => format!("{value:.1}\u{a0}{name}").replace(".0\u{a0}", "\u{a0}"),
            _ => format!("{}\u{a0}{name}", count(value.round() as u64)),
        }
    };
    match seconds {
        _ if !seconds.is_finite() => "–".to_owned(),
        _ if seconds < 0.0 => format!("−{}", duration(-seconds)),
        0.0 => "0\u{a0}s".to_owned(),
        _ if seconds < 0.95 => in_unit(0.001, "ms"),
        _ if seconds < 120.0 => in_unit(1.0, "s"),
        _ if seconds < 7200.0 => in_unit(60.0, "min"),
        _ if seconds < 172_800.0 => in_unit(3600.0, "h"),
        _ => in_unit(86_400.0, "d"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn markup_and_forbidden_characters_do_not_pass() {
        assert_eq!(
            escaped("<a href=\"x\">'&'\u{0}\u{8}é\n"),
            "&lt;a href=&quot;x&quot;&gt;&#39;&amp;&#39;\u{fffd}\u{fffd}é\n"
        );
    }

    #[test]
    fn numbers_keep_three_digits() {
        let cases = [
            (0.0, "0.00"),
            (-0.001, "−0.0010"),
            (-0.0, "0.00"),
            (0.5, "0.50"),
            (9.994, "9.99"),
            (9.996, "10.0"),
            (99.96, "100"),
            (-1234.6, "−1235"),
            (12_345.0, "12\u{a0}345"),
            (0.000_01, "1.0e-5"),
        ];
        for (value, text) in cases {
            assert_eq!(number(value), text);
        }
        assert_eq!(number(f64::NAN), "–");
        assert_eq!(per_cent(-0.001), "0\u{a0}%");
        assert_eq!(per_cent(-0.5), "−50\u{a0}%");
        assert_eq!(count(1_234_567), "1\u{a0}234\u{a0}567");
    }

    #[test]
    fn times_have_handy_units() {
        let cases = [
            (0.0, "0 s"),
            (0.0012, "1.2 ms"),
            (0.25, "250 ms"),
            (1.0, "1 s"),
            (75.2, "75 s"),
            (600.0, "10 min"),
            (9_000.0, "2.5 h"),
            (864_000.0, "10 d"),
        ];
        for (seconds, text) in cases {
            assert_eq!(duration(seconds), text.replace(' ', "\u{a0}"));
        }
    }

    #[test]
    fn long_names_keep_both_ends() {
        let short = shortened("cartridge-of-the-handbook-512", 12.0, 120.0);
        assert!(width(&short, 12.0) <= 120.0);
        assert!(
            short.starts_with("cart") && short.ends_with("512"),
            "{short}"
        );
        assert_eq!(shortened("short", 12.0, 120.0), "short");
    }
}
