//! Hugging Face's file endpoint: `/{repo}/resolve/{revision}/{path}`, and the
//! store that large files live in.

use std::sync::Arc;

use sha2::{Digest, Sha256};

use super::http::{Body, Reply};
use super::{File, Seen, State};

const COMMIT: &str = "607a30d783dfa663caf39e06633721c8d4cfcd7e";

/// Answers a request for a file.
pub(super) fn resolve(state: &State, request: &Seen) -> Reply {
    let path = request.path.trim_start_matches('/').replace("%20", " ");
    if let Some(digest) = path.strip_prefix("cdn/") {
        let files = state.files.lock().unwrap();
        let found = files.values().find(|file| sha256(&file.bytes) == digest);
        return match found {
            Some(file) => bytes(file, request, vec![]),
            None => Reply::text(404, "not found"),
        };
    }
    let repo = path
        .split("/resolve/")
        .next()
        .unwrap_or_default()
        .to_owned();
    let token = request.header("authorization").map(str::to_owned);
    if let Some(needed) = state.gated.lock().unwrap().get(&repo)
        && token != Some(format!("Bearer {needed}"))
    {
        let status = if token.is_some() { 403 } else { 401 };
        return refusal(status, "GatedRepo", "Access to model is restricted.");
    }
    let files = state.files.lock().unwrap();
    let Some(file) = files.get(&path).cloned() else {
        let known = |part: &str| files.keys().any(|place| place.starts_with(part));
        return if !known(&format!("{repo}/resolve/")) {
            refusal(401, "RepoNotFound", "Repository not found")
        } else {
            refusal(404, "EntryNotFound", "Entry not found")
        };
    };
    let digest = sha256(&file.bytes);
    if file.large {
        let mut reply = Reply::text(302, &format!("Found. Redirecting to /cdn/{digest}"));
        reply.headers.extend([
            ("X-Repo-Commit".to_owned(), COMMIT.to_owned()),
            ("Accept-Ranges".to_owned(), "bytes".to_owned()),
            ("X-Linked-Size".to_owned(), file.bytes.len().to_string()),
            ("X-Linked-ETag".to_owned(), format!("\"{digest}\"")),
            ("ETag".to_owned(), format!("\"{}\"", &digest[..32])),
            ("Location".to_owned(), format!("/cdn/{digest}")),
        ]);
        return reply;
    }
    let headers = vec![
        ("X-Repo-Commit".to_owned(), COMMIT.to_owned()),
        ("ETag".to_owned(), format!("\"{}\"", &digest[..40])),
    ];
    bytes(&file, request, headers)
}

/// The bytes, whole or from a place on.
fn bytes(file: &File, request: &Seen, mut headers: Vec<(String, String)>) -> Reply {
    let all = &file.bytes;
    headers.push(("Accept-Ranges".to_owned(), "bytes".to_owned()));
    let from = request
        .header("range")
        .and_then(|range| range.strip_prefix("bytes="))
        .and_then(|range| range.strip_suffix('-'))
        .and_then(|from| from.parse::<usize>().ok());
    let (status, body) = match from {
        None => (200, all.to_vec()),
        Some(from) if from < all.len() => {
            let range = format!("bytes {from}-{}/{}", all.len() - 1, all.len());
            headers.push(("Content-Range".to_owned(), range));
            (206, all[from..].to_vec())
        }
        Some(_) => {
            headers.push(("Content-Range".to_owned(), format!("bytes */{}", all.len())));
            (416, Vec::new())
        }
    };
    Reply {
        status,
        content_type: "application/octet-stream",
        headers,
        body: Body::Whole(body),
    }
}

fn refusal(status: u16, code: &str, message: &str) -> Reply {
    let mut reply = Reply::text(status, message);
    reply.headers.extend([
        ("X-Error-Code".to_owned(), code.to_owned()),
        ("X-Error-Message".to_owned(), message.to_owned()),
    ]);
    reply
}

/// SHA-256 in hexadecimal.
pub fn sha256(bytes: &Arc<Vec<u8>>) -> String {
    let digest = Sha256::digest(bytes.as_slice());
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}
