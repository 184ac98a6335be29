//! The files of an artifact or a run.

use std::fs;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use md5::Md5;
use serde_json::{Value, json};

use super::client::WandbClient;
use super::error::WandbError;
use super::source::WandbSource;
use crate::atomic_file::{WriteError, write_atomic};
use crate::digest::{hex, of_file, pass_on};

/// Files in one answer.
const PER_PAGE: usize = 100;
/// Pages that are read at most.
const MOST_PAGES: usize = 100;

/// A file on the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WandbFile {
    /// Its path in the artifact or the run.
    pub name: String,
    /// Its length in bytes.
    pub bytes: u64,
    url: String,
    md5: Option<String>,
}

const FILES: &str = "pageInfo { endCursor hasNextPage } \
    edges { node { name: displayName directUrl sizeBytes digest md5 } }";
const RUN_FILES: &str = "pageInfo { endCursor hasNextPage } \
    edges { node { name directUrl sizeBytes md5 } }";

/// The files of an artifact, or of a run if there is no such artifact and no version is given.
///
/// # Errors
/// [`WandbError::Missing`] if there is neither; [`WandbError`] if the server does not answer as it
/// should.
pub fn list_files(
    client: &WandbClient,
    source: &WandbSource,
) -> Result<Vec<WandbFile>, WandbError> {
    let missing = |what| WandbError::Missing {
        base: client.base().to_owned(),
        what,
        name: source.to_string(),
    };
    let artifact = format!(
        "query ArtifactMembershipFiles($entity: String!, $project: String!, $name: String!, \
         $alias: String!, $cursor: String, $perPage: Int) {{ \
         project(name: $project, entityName: $entity) {{ artifactCollection(name: $name) {{ \
         artifactMembership(aliasName: $alias) {{ \
         files(after: $cursor, first: $perPage) {{ {FILES} }} }} }} }} }}"
    );
    let path = [
        "project",
        "artifactCollection",
        "artifactMembership",
        "files",
    ];
    if let Some(files) = pages(client, source, &artifact, &path)? {
        return Ok(files);
    }
    if source.version.is_some() {
        return Err(missing("artifact"));
    }
    let run = format!(
        "query RunFiles($entity: String!, $project: String!, $name: String!, $cursor: String, \
         $perPage: Int) {{ project(name: $project, entityName: $entity) {{ run(name: $name) {{ \
         files(after: $cursor, first: $perPage) {{ {RUN_FILES} }} }} }} }}"
    );
    let files = pages(client, source, &run, &["project", "run", "files"])?;
    files.ok_or_else(|| missing("artifact or run"))
}

/// All pages of a list of files; `None` if something on the path to it is not there.
fn pages(
    client: &WandbClient,
    source: &WandbSource,
    query: &str,
    path: &[&str],
) -> Result<Option<Vec<WandbFile>>, WandbError> {
    let what = format!("files of {source}");
    let mut variables = json!({
        "entity": source.entity,
        "project": source.project,
        "name": source.name,
        "perPage": PER_PAGE,
    });
    if query.contains("$alias") {
        variables["alias"] = json!(source.version.as_deref().unwrap_or("latest"));
    }
    let mut files = Vec::new();
    for _ in 0..MOST_PAGES {
        let data = client.graphql(&what, query, variables.clone())?;
        let list = path.iter().try_fold(&data, |at, part| at.get(part));
        let Some(list) = list.filter(|list| list.is_object()) else {
            return Ok(None);
        };
        let edges = list["edges"].as_array();
        let edges = edges.ok_or_else(|| client.answer(&what, "there is no list of files"))?;
        for edge in edges {
            let file = file(&edge["node"]);
            files.push(
                file.ok_or_else(|| client.answer(&what, "a file has no name, address or length"))?,
            );
        }
        let info = &list["pageInfo"];
        if info["hasNextPage"] != true {
            return Ok(Some(files));
        }
        variables["cursor"] = info["endCursor"].clone();
    }
    Err(client.answer(&what, "there are more than 10 000 files"))
}

fn file(node: &Value) -> Option<WandbFile> {
    let text = |field: &str| node[field].as_str().filter(|text| !text.is_empty());
    // Large numbers come as texts.
    let size = &node["sizeBytes"];
    Some(WandbFile {
        name: text("name")?.to_owned(),
        bytes: size.as_u64().or_else(|| size.as_str()?.parse().ok())?,
        url: text("directUrl")?.to_owned(),
        md5: text("digest").or(text("md5")).map(str::to_owned),
    })
}

/// Fetches a file into a folder, under its own name, and checks its length and digest. What is there
/// with the same digest stays.
///
/// # Errors
/// [`WandbError`]; a file that is not whole is not kept.
pub fn download(
    client: &WandbClient,
    file: &WandbFile,
    folder: &Path,
) -> Result<PathBuf, WandbError> {
    let damaged = |problem: String| WandbError::Damaged {
        name: file.name.clone(),
        problem,
    };
    let parts = file.name.split('/');
    if parts
        .clone()
        .any(|part| matches!(part, "" | "." | "..") || part.contains('\\'))
    {
        return Err(damaged("its name leads out of the folder".to_owned()));
    }
    let path = parts.fold(folder.to_owned(), |path, part| path.join(part));
    let unreadable = |source| WriteError {
        path: path.clone(),
        source,
    };
    if let Some(stated) = &file.md5
        && fs::metadata(&path).is_ok_and(|there| there.len() == file.bytes)
        && is_digest(stated, &of_file::<Md5>(&path).map_err(unreadable)?) == Some(true)
    {
        return Ok(path);
    }
    // One byte more would be too many.
    let most = file.bytes.saturating_add(1);
    let mut answer = client.get(&file.name, &file.url)?.take(most);
    let mut problem = None;
    let written = write_atomic(&path, |sink| {
        problem = receive(&mut answer, file, sink)?;
        match problem {
            None => Ok(()),
            Some(_) => Err(io::ErrorKind::InvalidData.into()),
        }
    });
    if let Some(problem) = problem {
        return Err(damaged(problem));
    }
    written?;
    Ok(path)
}

/// Passes on what comes of a file; what is wrong with it, if something is. An error is the sink's.
fn receive(
    answer: &mut impl Read,
    file: &WandbFile,
    sink: &mut dyn Write,
) -> io::Result<Option<String>> {
    let (digest, length) = match pass_on::<Md5>(answer, sink)? {
        Ok(all) => all,
        Err(error) => return Ok(Some(format!("the connection broke: {error}"))),
    };
    if length != file.bytes {
        let stated = file.bytes;
        return Ok(Some(format!(
            "{length} bytes or more came instead of {stated}"
        )));
    }
    Ok(match &file.md5 {
        Some(stated) if is_digest(stated, &digest) == Some(false) => {
            Some(format!("its digest is not {stated}"))
        }
        _ => None,
    })
}

/// Whether a digest is the stated one, in hexadecimal or in base64; `None` if the statement is neither,
/// as for files that are only referred to.
fn is_digest(stated: &str, found: &[u8]) -> Option<bool> {
    match stated.len() {
        32 => Some(stated.eq_ignore_ascii_case(&hex(found))),
        24 => Some(stated == STANDARD.encode(found)),
        _ => None,
    }
}
