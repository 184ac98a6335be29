//! Comments out, the body and what belongs to it of the preamble kept.

/// Environments whose content is taken literally.
const LITERAL: [&str; 3] = ["verbatim", "lstlisting", "minted"];
/// Preamble commands that are part of the text, or without which its formulas cannot be read.
const KEPT: [&str; 12] = [
    "title",
    "author",
    "date",
    "abstract",
    "newcommand",
    "renewcommand",
    "providecommand",
    "DeclareMathOperator",
    "newtheorem",
    "def",
    "newenvironment",
    "DeclarePairedDelimiter",
];

/// A text without comments: what stands behind an unescaped `%` in a line, with the line where nothing
/// else is in it, and `comment` environments. Literal environments are left alone.
pub(super) fn without_comments(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut literal: Option<&str> = None;
    let mut in_comment = false;
    for line in text.split_inclusive('\n') {
        if in_comment {
            in_comment = !line.contains(r"\end{comment}");
            continue;
        }
        if let Some(name) = literal {
            out.push_str(line);
            if line.contains(&format!(r"\end{{{name}")) {
                literal = None;
            }
            continue;
        }
        let kept = match comment_start(line) {
            Some(at) => &line[..at],
            None => line,
        };
        if kept.trim_start().starts_with(r"\begin{comment}") {
            in_comment = !kept.contains(r"\end{comment}");
            continue;
        }
        literal = LITERAL.into_iter().find(|name| {
            kept.rfind(&format!(r"\begin{{{name}"))
                .is_some_and(|at| !kept[at..].contains(&format!(r"\end{{{name}")))
        });
        if kept.len() == line.len() {
            out.push_str(line);
        } else if !kept.trim().is_empty() {
            // TeX drops the line break too; here it stays, so that words stay apart.
            out.push_str(kept.trim_end());
            out.push('\n');
        }
    }
    out
}

/// Where the comment of a line begins: the first `%` with an even number of backslashes before it.
fn comment_start(line: &str) -> Option<usize> {
    let bytes = line.as_bytes();
    let mut backslashes = 0;
    for (at, &byte) in bytes.iter().enumerate() {
        match byte {
            b'%' if backslashes % 2 == 0 => return Some(at),
            b'\\' => backslashes += 1,
            _ => backslashes = 0,
        }
    }
    None
}

/// The text between `\begin{document}` and `\end{document}`, behind the commands of the preamble that
/// belong to it; the whole text if there is no such thing.
pub(super) fn body(text: &str) -> String {
    const BEGIN: &str = r"\begin{document}";
    let Some((preamble, rest)) = text.split_once(BEGIN) else {
        return text.to_owned();
    };
    let body = rest.split_once(r"\end{document}").map_or(rest, |b| b.0);
    let mut out = String::new();
    let mut at = 0;
    while let Some(found) = preamble[at..].find('\\') {
        let start = at + found;
        let name: &str = {
            let rest = &preamble[start + 1..];
            let end = rest
                .find(|c: char| !c.is_ascii_alphabetic())
                .unwrap_or(rest.len());
            &rest[..end]
        };
        at = start + 1 + name.len();
        if !KEPT.contains(&name) {
            continue;
        }
        let end = arguments_end(preamble, at);
        out.push_str(preamble[start..end].trim_end());
        out.push('\n');
        at = end;
    }
    format!("{out}{body}")
}

/// The end of a command's arguments: all braces and brackets that follow each other, and the name and
/// parameters that `\def` has before them.
fn arguments_end(text: &str, start: usize) -> usize {
    let bytes = text.as_bytes();
    let mut at = start;
    let mut end = start;
    // Whether a brace was closed: before, names and parameters may stand between.
    let mut closed = false;
    while at < bytes.len() {
        match bytes[at] {
            b'{' | b'[' => {
                let Some(close) = closing(bytes, at) else {
                    return end;
                };
                closed |= bytes[at] == b'{';
                at = close + 1;
                end = at;
            }
            b' ' | b'\t' | b'*' => at += 1,
            b'\n' if bytes.get(at + 1) != Some(&b'\n') => at += 1,
            b'\n' => break,
            _ if closed => break,
            _ => at += 1,
        }
    }
    end
}

fn closing(bytes: &[u8], open: usize) -> Option<usize> {
    let (opening, closing) = match bytes[open] {
        b'{' => (b'{', b'}'),
        _ => (b'[', b']'),
    };
    let mut depth = 0_usize;
    let mut at = open;
    while at < bytes.len() {
        match bytes[at] {
            b'\\' => at += 1,
            byte if byte == opening => depth += 1,
            byte if byte == closing => {
                depth -= 1;
                if depth == 0 {
                    return Some(at);
                }
            }
            _ => {}
        }
        at += 1;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn comments_go_and_escaped_signs_stay() {
        let text = "50\\% of it % comment\n% whole line\n\\\\% after a break\nkept\n\
                    \\begin{comment}\ngone\n\\end{comment}\n\\begin{verbatim}\n% literal\n\
                    \\end{verbatim}\nend % last";
        assert_eq!(
            without_comments(text),
            "50\\% of it\n\\\\\nkept\n\\begin{verbatim}\n% literal\n\\end{verbatim}\nend\n"
        );
    }

    #[test]
    fn the_preamble_loses_what_is_layout_only() {
        let text = "\\documentclass[11pt]{article}\n\\usepackage{amsmath}\n\\title{On {nested} \
                    lamps}\n\\newcommand{\\R}[1]{\\mathbb{R}^{#1}}\n\\def\\half#1{\\frac{#1}{2}}\n\
                    \\setlength{\\x}{1pt}\n\\begin{document}\nBody $\\R{2}$.\n\\end{document}\njunk";
        assert_eq!(
            body(text),
            "\\title{On {nested} lamps}\n\\newcommand{\\R}[1]{\\mathbb{R}^{#1}}\n\
             \\def\\half#1{\\frac{#1}{2}}\n\nBody $\\R{2}$.\n"
        );
        assert_eq!(body("no document"), "no document");
    }

    proptest! {
        #[test]
        fn odd_text_never_panics(
            text in "(\\\\(begin|end|def|title|newcommand)|[{}\\[\\]%\\\\\n aé]|\\{(document|comment|verbatim)\\}){0,60}",
        ) {
            let clean = without_comments(&text);
            let _ = body(&clean);
            let _ = body(&text);
        }
    }
}
