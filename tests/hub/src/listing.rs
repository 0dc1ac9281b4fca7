//! Listings of a repository's files, in pages.

use std::collections::BTreeSet;

use crate::content::{Stored, Tree};
use crate::http::{Answer, Request};

/// A page of a listing, with a `Link` to the next.
///
/// * `size`: entries of a page
pub(crate) fn page(request: &Request, files: &Tree, size: usize) -> Answer {
    let entries = entries(files);
    let (path, query) = request.target.split_once('?').unwrap_or((&request.target, ""));
    let cursor = query.split('&').find_map(|part| part.strip_prefix("cursor="));
    let first: usize = cursor.and_then(|cursor| cursor.parse().ok()).unwrap_or(0);
    let first = first.min(entries.len());
    let end = first.saturating_add(size.max(1)).min(entries.len());
    let text = format!("[{}]", entries[first..end].join(","));
    let mut answer = Answer::new(200, &[("Content-Type", "application/json")], &text);
    if end < entries.len() {
        let host = request.header("Host").unwrap_or_default();
        let next = format!("http://{host}{path}?recursive=true&cursor={end}");
        answer.set("Link", &format!("<{next}>; rel=\"next\""));
    }
    answer
}

/// Folders and files as the Hub describes them.
fn entries(files: &Tree) -> Vec<String> {
    let folders: BTreeSet<&str> =
        files.keys().filter_map(|path| Some(path.rsplit_once('/')?.0)).collect();
    let folder = |path: &&str| {
        let (kind, oid) = ("directory", "0".repeat(40));
        format!(r#"{{"type":"{kind}","oid":"{oid}","size":0,"path":{}}}"#, quoted(path))
    };
    let file = |(path, file): (&String, &Stored)| {
        let (size, id) = (file.bytes.len(), &file.id);
        let lfs = match file.is_large {
            true => format!(r#","lfs":{{"oid":"{id}","size":{size},"pointerSize":134}}"#),
            false => String::new(),
        };
        let path = quoted(path);
        format!(r#"{{"type":"file","oid":"{id}","size":{size},"path":{path}{lfs}}}"#)
    };
    folders.iter().map(folder).chain(files.iter().map(file)).collect()
}

/// Text as JSON has it.
fn quoted(text: &str) -> String {
    let mut quoted = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            c if c.is_control() => quoted.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}
