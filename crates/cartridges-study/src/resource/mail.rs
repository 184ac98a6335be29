//! E-mail: mailboxes in the mbox format, and single messages.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use mail_parser::{Address, HeaderName, HeaderValue, Message, MessageParser, MimeHeaders};
use serde::{Deserialize, Serialize};

use super::error::ResourceError;
use super::material::{ItemText, Material, Shape};
use super::notes::Notes;
use super::read::{MAX_TEXT_BYTES, file_name, read_bytes};

/// The largest mailbox that is read, in bytes.
const MAX_MAILBOX_BYTES: u64 = 2 << 30;
/// The header in which Gmail exports labels.
const LABELS: &str = "X-Gmail-Labels";

/// An `.mbox` file, such as Google Takeout and Thunderbird export, or an `.eml` file. A context is a
/// chunk of one thread: its messages in the order of their dates, with sender, date, subject and
/// text. Attachments are not read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MailConfig {
    /// The file.
    pub path: PathBuf,
    /// Only messages with one of these Gmail labels (default: all messages).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub labels: Vec<String>,
    /// Only messages of this day or later, as `YYYY-MM-DD` in UTC (default: no limit).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
    /// Only messages before this day, as `YYYY-MM-DD` in UTC (default: no limit).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<String>,
    /// Whether lines that quote an earlier message (`> ...`) stay (default true).
    #[serde(default = "yes")]
    pub keep_quoted: bool,
}

fn yes() -> bool {
    true
}

impl MailConfig {
    /// All messages of a file.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            labels: Vec::new(),
            after: None,
            before: None,
            keep_quoted: true,
        }
    }

    pub(super) fn material(&self) -> Result<Material, ResourceError> {
        self.material_of(&read_bytes(&self.path, MAX_MAILBOX_BYTES)?)
    }

    fn material_of(&self, bytes: &[u8]) -> Result<Material, ResourceError> {
        let after = day("after", self.after.as_deref())?;
        let before = day("before", self.before.as_deref())?;
        let mut notes = Notes::default();
        let mut mails = Vec::new();
        let parser = MessageParser::default();
        for (i, raw) in messages(bytes).into_iter().enumerate() {
            let number = (i + 1).to_string();
            let Some(message) = parser.parse(&raw) else {
                notes.add("message cannot be read, left out", number);
                continue;
            };
            let time = message
                .date()
                .filter(|date| date.is_valid())
                .map(mail_parser::DateTime::to_timestamp);
            if !self.labels.is_empty() && !has_label(&message, &self.labels) {
                notes.add("message without a chosen label left out", number);
            } else if (after.is_some() || before.is_some()) && time.is_none() {
                notes.add("message without a date left out", number);
            } else if after.is_some_and(|day| time < Some(day))
                || before.is_some_and(|day| time >= Some(day))
            {
                notes.add("message outside the chosen days left out", number);
            } else if let Some(mail) = self.mail(&message, time, &mut notes) {
                mails.push(mail);
            } else {
                notes.add("message without text left out", number);
            }
        }
        if mails.is_empty() {
            let told: Vec<String> = notes.finish().iter().map(ToString::to_string).collect();
            return Err(ResourceError::Missing {
                path: self.path.clone(),
                what: format!("e-mail message to study [{}]", told.join("; ")),
            });
        }
        let mut all = ItemText::default();
        for thread in threads(mails) {
            let subject = thread.first().map_or("", |mail| mail.subject.as_str());
            let bodies: Vec<&str> = thread.iter().map(|mail| mail.text.as_str()).collect();
            let line = format!("\n\n{}\n\n", "=".repeat(50));
            all.push(format!("E-mail thread: {subject}"), &bodies.join(&line));
            if all.text.len() as u64 > MAX_TEXT_BYTES {
                return Err(ResourceError::TooLarge {
                    path: self.path.clone(),
                    limit: MAX_TEXT_BYTES,
                });
            }
        }
        Ok(Material {
            name: file_name(&self.path),
            text: all.text,
            shape: Shape::Items(all.items),
            notes,
        })
    }

    fn mail(&self, message: &Message, time: Option<i64>, notes: &mut Notes) -> Option<Mail> {
        notes.add_count("attachment not read", message.attachment_count());
        let mut body = String::new();
        for i in 0..message.text_body_count() {
            if message
                .text_part(u32::try_from(i).ok()?)
                .is_some_and(|part| part.attachment_name().is_some())
            {
                continue;
            }
            if let Some(text) = message.body_text(i) {
                body.push_str(&text.replace("\r\n", "\n"));
                body.push('\n');
            }
        }
        if !self.keep_quoted {
            let (quoted, own): (Vec<&str>, Vec<&str>) =
                body.lines().partition(|line| line.starts_with('>'));
            notes.add_count("quoted line left out", quoted.len());
            body = own.join("\n");
        }
        let body = body.trim();
        if body.is_empty() {
            return None;
        }
        let subject = message.subject().unwrap_or("(no subject)").trim();
        let mut text = format!("From: {}\n", people(message.from()));
        for (name, address) in [("To", message.to()), ("Cc", message.cc())] {
            if address.is_some() {
                text.push_str(&format!("{name}: {}\n", people(address)));
            }
        }
        if let Some(date) = message.date().filter(|date| date.is_valid()) {
            text.push_str(&format!("Date: {}\n", date.to_rfc3339()));
        }
        text.push_str(&format!("Subject: {subject}\n\n{body}"));
        let mut before = ids(message.references());
        before.extend(ids(message.in_reply_to()));
        Some(Mail {
            id: message.message_id().unwrap_or_default().to_owned(),
            before,
            subject: subject.to_owned(),
            time,
            text,
        })
    }
}

struct Mail {
    id: String,
    /// Ids of the messages that this one follows, the oldest first.
    before: Vec<String>,
    subject: String,
    time: Option<i64>,
    text: String,
}

/// The messages of a mailbox: a line that begins with `From ` behind an empty one, or at the very
/// beginning, starts a new one. Without such a line the file is one message.
fn messages(bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut out: Vec<Vec<u8>> = Vec::new();
    if !bytes.starts_with(b"From ") {
        return vec![bytes.to_vec()];
    }
    let mut empty_before = true;
    for line in bytes.split_inclusive(|&b| b == b'\n') {
        if empty_before && is_separator(line) || out.is_empty() {
            out.push(Vec::new());
            empty_before = false;
            continue;
        }
        empty_before = line.trim_ascii().is_empty();
        // Mailboxes put a `>` before lines of the text that look like a separator.
        let quotes = line.iter().take_while(|&&b| b == b'>').count();
        let line = match quotes > 0 && line[quotes..].starts_with(b"From ") {
            true => &line[1..],
            false => line,
        };
        if let Some(message) = out.last_mut() {
            message.extend_from_slice(line);
        }
    }
    out
}

/// `From someone Mon Jan 01 00:00:00 2024`: a sentence that begins with "From" has no time in it.
fn is_separator(line: &[u8]) -> bool {
    line.starts_with(b"From ")
        && line.windows(5).any(|w| {
            let digit = |i: usize| w[i].is_ascii_digit();
            digit(0) && digit(1) && w[2] == b':' && digit(3) && digit(4)
        })
}

/// Messages that follow each other, in the order of their dates; threads in the order of their first.
fn threads(mut mails: Vec<Mail>) -> Vec<Vec<Mail>> {
    // Messages without a date stay where they are, before the others.
    mails.sort_by_key(|mail| mail.time);
    let mut of_id: BTreeMap<String, usize> = BTreeMap::new();
    let mut out: Vec<Vec<Mail>> = Vec::new();
    for mail in mails {
        let thread = std::iter::once(&mail.id)
            .chain(&mail.before)
            .filter(|id| !id.is_empty())
            .find_map(|id| of_id.get(id).copied())
            .unwrap_or_else(|| {
                out.push(Vec::new());
                out.len() - 1
            });
        for id in std::iter::once(&mail.id).chain(&mail.before) {
            if !id.is_empty() {
                of_id.entry(id.clone()).or_insert(thread);
            }
        }
        out[thread].push(mail);
    }
    out
}

fn ids(value: &HeaderValue) -> Vec<String> {
    match value {
        HeaderValue::Text(id) => vec![id.to_string()],
        HeaderValue::TextList(ids) => ids.iter().map(ToString::to_string).collect(),
        _ => Vec::new(),
    }
}

fn people(address: Option<&Address>) -> String {
    let shown: Vec<String> = address
        .map(|address| {
            address
                .iter()
                .map(|person| match (person.name(), person.address()) {
                    (Some(name), Some(address)) => format!("{name} <{address}>"),
                    (Some(one), None) | (None, Some(one)) => one.to_owned(),
                    (None, None) => "unknown".to_owned(),
                })
                .collect()
        })
        .unwrap_or_default();
    match shown.is_empty() {
        true => "unknown".to_owned(),
        false => shown.join(", "),
    }
}

fn has_label(message: &Message, wanted: &[String]) -> bool {
    let value = message.header(HeaderName::Other(LABELS.into()));
    let labels = ids(value.unwrap_or(&HeaderValue::Empty)).join(",");
    labels
        .split(',')
        .any(|label| wanted.iter().any(|w| w.eq_ignore_ascii_case(label.trim())))
}

/// Seconds from 1970 to the beginning of a day.
fn day(field: &'static str, text: Option<&str>) -> Result<Option<i64>, ResourceError> {
    let Some(text) = text else { return Ok(None) };
    parse_day(text)
        .map(Some)
        .ok_or_else(|| ResourceError::Field {
            kind: "mail",
            field,
            found: format!("{text:?}"),
            expected: "a day such as \"2025-01-31\"",
        })
}

fn parse_day(text: &str) -> Option<i64> {
    let mut parts = text.split('-');
    let (year, month, day) = (parts.next()?, parts.next()?, parts.next()?);
    if parts.next().is_some() || year.len() != 4 {
        return None;
    }
    let date = mail_parser::DateTime {
        year: year.parse().ok()?,
        month: month.parse().ok()?,
        day: day.parse().ok()?,
        hour: 0,
        minute: 0,
        second: 0,
        tz_before_gmt: false,
        tz_hour: 0,
        tz_minute: 0,
    };
    (date.is_valid() && date.year >= 1900 && date.day <= 31).then(|| date.to_timestamp())
}

/// Whether a path is named like a mailbox or a message.
pub(super) fn is_mail(path: &Path) -> bool {
    path.extension().is_some_and(|e| {
        ["mbox", "mbx", "eml"].contains(&e.to_string_lossy().to_lowercase().as_str())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MAILBOX: &str = "From a@x.example Mon Jan 01 10:00:00 2024\n\
        From: Ann <a@x.example>\nTo: b@x.example\nDate: Mon, 1 Jan 2024 10:00:00 +0000\n\
        Subject: =?utf-8?q?L=C3=A4mps?=\nMessage-ID: <1@x>\nX-Gmail-Labels: Inbox,Work\n\n\
        The lamp is red.\n>From then on it was.\nFrom here it is far.\n\n\
        From b@x.example Wed Jan 03 10:00:00 2024\n\
        From: b@x.example\nDate: Wed, 3 Jan 2024 10:00:00 +0000\nSubject: Re: lamps\n\
        Message-ID: <3@x>\nReferences: <1@x>\nIn-Reply-To: <1@x>\nX-Gmail-Labels: Work\n\
        MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=q\n\n\
        --q\nContent-Type: text/html\n\n<p>Why <b>red</b>?</p>\n\
        --q\nContent-Type: application/pdf\nContent-Disposition: attachment; filename=a.pdf\n\n\
        x\n--q--\n\n\
        From c@x.example Tue Jan 02 10:00:00 2024\n\
        From: Cem <c@x.example>\nDate: Tue, 2 Jan 2024 10:00:00 +0000\nSubject: Doors\n\
        Message-ID: <2@x>\n\n> The door is?\nThe door is blue.\n\n\
        From d@x.example Tue Jan 02 11:00:00 2024\nSubject: Nothing\n\n\n";

    fn read(config: &MailConfig) -> (String, Vec<String>) {
        let material = config.material_of(MAILBOX.as_bytes()).unwrap();
        let notes = material.notes.finish();
        (material.text, notes.iter().map(|n| n.to_string()).collect())
    }

    #[test]
    fn messages_stand_in_their_threads() {
        let (text, notes) = read(&MailConfig::new("a.mbox"));
        let expected = format!(
            "E-mail thread: Lämps\n\nFrom: Ann <a@x.example>\nTo: b@x.example\n\
             Date: 2024-01-01T10:00:00Z\nSubject: Lämps\n\nThe lamp is red.\nFrom then on it was.\n\
             From here it is far.\n\n{}\n\nFrom: b@x.example\nDate: 2024-01-03T10:00:00Z\n\
             Subject: Re: lamps\n\nWhy red?\n\nE-mail thread: Doors\n\nFrom: Cem <c@x.example>\n\
             Date: 2024-01-02T10:00:00Z\nSubject: Doors\n\n> The door is?\nThe door is blue.",
            "=".repeat(50)
        );
        assert_eq!(text, expected);
        assert_eq!(
            notes,
            [
                "attachment not read (1)",
                "message without text left out (1: 4)"
            ]
        );
    }

    #[test]
    fn messages_are_chosen_by_label_and_day() {
        let mut config = MailConfig::new("a.mbox");
        config.labels = vec!["inbox".to_owned()];
        let (text, notes) = read(&config);
        assert!(text.contains("lamp is") && !text.contains("Why"), "{text}");
        assert!(
            notes[0].contains("label") && notes[0].contains("(3:"),
            "{notes:?}"
        );
        config = MailConfig::new("a.mbox");
        config.after = Some("2024-01-02".to_owned());
        config.before = Some("2024-01-03".to_owned());
        config.keep_quoted = false;
        let (text, notes) = read(&config);
        assert!(
            text.starts_with("E-mail thread: Doors") && text.ends_with("\n\nThe door is blue.")
        );
        assert!(
            notes.contains(&"quoted line left out (1)".to_owned()),
            "{notes:?}"
        );
        config.after = Some("2024-13-02".to_owned());
        assert!(config.material_of(b"").is_err());
        // 2024 began 54 years, 13 of them leap years, after 1970.
        assert_eq!(parse_day("2024-01-01"), Some((54 * 365 + 13) * 86_400));
    }

    #[test]
    fn a_single_message_is_read_and_an_empty_file_is_named() {
        let config = MailConfig::new("a.eml");
        let one = config.material_of(b"Subject: Hi\n\nHello.\n").unwrap();
        assert!(one.text.ends_with("Subject: Hi\n\nHello."), "{}", one.text);
        let error = config.material_of(b"").err().unwrap().to_string();
        assert!(error.contains("a.eml"), "{error}");
    }

    proptest! {
        #[test]
        fn odd_bytes_never_panic(
            bytes in proptest::collection::vec(any::<u8>(), 0..200),
            lines in "((From a 10:00|Subject: |Date: |Content-Type: multipart/mixed; boundary=a|--a|References: <|[a-z0-9 =?,:<>]{0,9})\n){0,25}",
        ) {
            let config = MailConfig { labels: vec!["a".to_owned()], ..MailConfig::new("x.mbox") };
            for config in [config, MailConfig::new("x.mbox")] {
                let _ = config.material_of(&bytes);
                let _ = config.material_of(lines.as_bytes());
                let _ = config.material_of(&[b"From a 10:00\n".as_slice(), &bytes].concat());
            }
        }
    }
}
