//! Which cartridges a request may use, and under which names.

use crate::api_error::{ApiError, Dialect, Kind};
use crate::inference::CartridgeInfo;
use crate::job::{CartridgeSpec, Source};
use crate::options::ServerOptions;
use crate::request::body::CartridgeField;

/// Most letters of a name.
const MAX_ID: usize = 128;

/// The local name of a cartridge or adapter, as Tokasaurus makes it: path separators become `-`,
/// signs that some file systems do not take become `_`, and runs of dots, `_` or `-` become one
/// `_`. (A single dot inside a name stays, as in `qwen3-0.6b`.)
pub(crate) fn sanitise(id: &str) -> Option<String> {
    let replaced = id.trim().chars().map(|sign| match sign {
        '/' | '\\' => '-',
        ':' | '|' | '*' | '?' | '<' | '>' | '"' | '\'' => '_',
        sign if sign.is_control() => '_',
        sign => sign,
    });
    let replaced: Vec<char> = replaced.collect();
    let mut name = String::new();
    let mut at = 0;
    while let Some(&sign) = replaced.get(at) {
        let same_kind = |other: &char| match sign {
            '.' => *other == '.',
            '_' | '-' => matches!(other, '_' | '-'),
            _ => false,
        };
        let run = replaced
            .iter()
            .skip(at)
            .take_while(|other| same_kind(other))
            .count()
            .max(1);
        name.push(if run > 1 { '_' } else { sign });
        at += run;
    }
    let name = name.trim_start_matches('.').trim();
    let allowed = |sign: char| sign.is_ascii_alphanumeric() || matches!(sign, '.' | '_' | '-');
    (!name.is_empty() && name.len() <= MAX_ID && name.chars().all(allowed)).then(|| name.to_owned())
}

/// The cartridges a request asks for, in the order in which they will stand.
pub(crate) fn read_cartridges(
    fields: &[CartridgeField],
    dialect: Dialect,
    options: &ServerOptions,
    present: impl Fn() -> Vec<CartridgeInfo>,
) -> Result<Vec<CartridgeSpec>, ApiError> {
    if fields.len() > options.max_cartridges {
        let most = options.max_cartridges;
        let message = format!(
            "{} cartridges are more than the {most} allowed",
            fields.len()
        );
        return Err(ApiError::field("cartridges", message));
    }
    let mut specs = Vec::with_capacity(fields.len());
    for (at, field) in fields.iter().enumerate() {
        let id = sanitise(&field.id).ok_or_else(|| {
            let message = format!(
                "cartridge id {:?} must have 1 to {MAX_ID} letters, digits, `.`, `_` or `-`",
                field.id
            );
            ApiError::field(format!("cartridges.{at}.id"), message)
        })?;
        let left_out = match dialect {
            Dialect::OpenAi => Source::Local,
            Dialect::Tokasaurus => Source::Wandb,
        };
        let mut spec = CartridgeSpec {
            id,
            requested: field.id.clone(),
            source: field.source.unwrap_or(left_out),
            force_redownload: field.force_redownload.unwrap_or(false),
        };
        if spec.source != Source::Local && !options.allow_remote.contains(&spec.source) {
            // What is already here needs no download. The reference's client cannot even name
            // another source than a remote one.
            let here =
                !spec.force_redownload && present().iter().any(|cartridge| cartridge.id == spec.id);
            if !here {
                let message = format!(
                    "cartridge `{}` is not on this server, and fetching from {} is not allowed",
                    spec.id,
                    spec.source.as_str()
                );
                return Err(ApiError {
                    kind: Kind::Invalid,
                    message,
                    param: Some(format!("cartridges.{at}.source")),
                });
            }
            spec.source = Source::Local;
        }
        specs.push(spec);
    }
    if dialect == Dialect::Tokasaurus {
        specs.sort_by(|a, b| a.id.cmp(&b.id));
    }
    Ok(specs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_sanitised() {
        let name = |id: &str| sanitise(id).unwrap();
        assert_eq!(
            name("hazyresearch/cartridge-wauoq23f"),
            "hazyresearch-cartridge-wauoq23f"
        );
        assert_eq!(name("a:b|c"), "a_b_c");
        assert_eq!(name("a__b--c_-d"), "a_b_c_d");
        assert_eq!(name("qwen3-0.6b"), "qwen3-0.6b");
        assert_eq!(name(" a "), "a");
        assert_eq!(name("../../etc/passwd"), "_-_-etc-passwd");
        assert_eq!(name("a..b"), "a_b");
        assert_eq!(name(".hidden"), "hidden");
        for id in ["", " ", ".", "é", "a b", &"x".repeat(129)] {
            assert_eq!(sanitise(id), None, "{id}");
        }
        assert!(sanitise(&"x".repeat(128)).is_some());
    }

    fn field(id: &str, source: Option<Source>, force: bool) -> CartridgeField {
        CartridgeField {
            id: id.into(),
            source,
            force_redownload: Some(force),
        }
    }

    fn present() -> Vec<CartridgeInfo> {
        vec![CartridgeInfo {
            id: "here".into(),
            tokens: 16,
            bytes: 1,
            origin: String::new(),
            resident: false,
        }]
    }

    #[test]
    fn remote_places_must_be_allowed() {
        let mut options = ServerOptions::default();
        let read = |fields: &[CartridgeField], options: &ServerOptions| {
            read_cartridges(fields, Dialect::OpenAi, options, present)
        };
        assert!(read(&[field("x", Some(Source::Wandb), false)], &options).is_err());
        let here = read(&[field("here", Some(Source::Wandb), false)], &options).unwrap();
        assert_eq!(here[0].source, Source::Local);
        assert!(read(&[field("here", Some(Source::Wandb), true)], &options).is_err());
        assert!(read(&[field("x", None, false)], &options).is_ok());
        options.allow_remote = vec![Source::Wandb];
        let fetched = read(&[field("o/x", Some(Source::Wandb), true)], &options).unwrap();
        assert_eq!(
            (fetched[0].id.as_str(), fetched[0].requested.as_str()),
            ("o-x", "o/x")
        );
        assert!(read(&[field("x", Some(Source::HuggingFace), false)], &options).is_err());
    }

    #[test]
    fn only_tokasaurus_paths_sort() {
        let fields = [
            field("b", Some(Source::Local), false),
            field("a", Some(Source::Local), false),
        ];
        let ids = |dialect| -> Vec<String> {
            let specs = read_cartridges(&fields, dialect, &ServerOptions::default(), present);
            specs.unwrap().into_iter().map(|spec| spec.id).collect()
        };
        assert_eq!(ids(Dialect::OpenAi), ["b", "a"]);
        assert_eq!(ids(Dialect::Tokasaurus), ["a", "b"]);
    }
}
