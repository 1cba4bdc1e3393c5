//! Where a file is, and what its server answers.

use std::time::Duration;

use nearfar_domain::frames::Download;
use reqwest::header::{
    ACCEPT_ENCODING, AUTHORIZATION, CONTENT_LENGTH, CONTENT_RANGE, ETAG, HeaderMap, HeaderName,
    HeaderValue, LOCATION, RANGE,
};
use reqwest::{Response, StatusCode, Url};
use secrecy::zeroize::Zeroizing;
use secrecy::{ExposeSecret, SecretString};
use tokio::time::timeout;

use super::Trouble;
use super::part::Part;
use crate::exchange::innermost;

/// How long a server may take to answer with its head.
const HEAD: Duration = Duration::from_secs(30);
/// Hugging Face redirects once, to its store.
const MAX_REDIRECTS: usize = 8;
/// Longer names do not fit a folder's entry together with our endings.
const MAX_NAME: usize = 200;

/// One remote file.
pub(super) struct Source {
    url: Url,
    token: Option<SecretString>,
    repo: String,
    file: String,
}

/// What the server said before the file's bytes.
pub(super) struct Head {
    /// The bytes to come; `None` when the server says that none is missing.
    pub(super) response: Option<Response>,
    /// The place in the file where they begin.
    pub(super) from: u64,
    /// Whether the place asked for lies at or beyond the end.
    pub(super) beyond: bool,
    /// Bytes of the whole file.
    pub(super) total: Option<u64>,
    /// Names this version of the file.
    pub(super) version: Option<String>,
    /// SHA-256 of the whole file, where the server names it (large files).
    pub(super) sha256: Option<String>,
}

impl Head {
    /// Whether the bytes to come go on where the part ends, in the same version.
    pub(super) fn continues(&self, part: &Part) -> bool {
        let same = self.version.is_some() && self.version.as_deref() == part.version();
        let place = if self.beyond {
            self.total == Some(part.len())
        } else {
            self.from == part.len()
        };
        same && place
    }
}

impl Source {
    /// Checks every name before it becomes part of a path or URL.
    pub(super) fn new(
        endpoint: &str,
        token: Option<SecretString>,
        download: &Download,
    ) -> Result<Self, Trouble> {
        check_names(download).map_err(Trouble::fatal)?;
        let mut url = Url::parse(endpoint.trim())
            .ok()
            .filter(|url| matches!(url.scheme(), "http" | "https"))
            .ok_or_else(|| Trouble::fatal("HF_ENDPOINT is not an http(s) URL"))?;
        {
            let mut path = url
                .path_segments_mut()
                .map_err(|()| Trouble::fatal("HF_ENDPOINT is not an http(s) URL"))?;
            path.pop_if_empty()
                .extend(download.repo.split('/'))
                .push("resolve")
                .push(&download.revision)
                .extend(download.file.split('/'));
        }
        Ok(Self {
            url,
            token,
            repo: download.repo.clone(),
            file: download.file.clone(),
        })
    }

    /// Asks for the file from a place on, through redirects.
    pub(super) async fn request(
        &self,
        client: &reqwest::Client,
        from: u64,
    ) -> Result<Head, Trouble> {
        let mut url = self.url.clone();
        // What the endpoint itself says of the file; the store behind it counts
        // in its own way.
        let mut said: Option<HeaderMap> = None;
        for _ in 0..=MAX_REDIRECTS {
            let at_home = url.origin() == self.url.origin();
            let response = self.get(client, &url, from, at_home).await?;
            let headers = said.get_or_insert_with(|| response.headers().clone());
            if !response.status().is_redirection() {
                let headers = headers.clone();
                return self.head(response, &headers, from);
            }
            url = self.redirected(&url, &response)?;
        }
        Err(Trouble::fatal(format!(
            "{} redirects without end",
            self.host()
        )))
    }

    async fn get(
        &self,
        client: &reqwest::Client,
        url: &Url,
        from: u64,
        at_home: bool,
    ) -> Result<Response, Trouble> {
        let mut request = client
            .get(url.clone())
            .header(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        if from > 0 {
            request = request.header(RANGE, format!("bytes={from}-"));
        }
        // The token is for the endpoint, not for where it points.
        if at_home && let Some(token) = &self.token {
            let text = Zeroizing::new(format!("Bearer {}", token.expose_secret()));
            if let Ok(mut value) = HeaderValue::from_str(&text) {
                value.set_sensitive(true);
                request = request.header(AUTHORIZATION, value);
            }
        }
        match timeout(HEAD, request.send()).await {
            Ok(Ok(response)) => Ok(response),
            Ok(Err(error)) => Err(Trouble::Broke(format!(
                "{} cannot be reached: {}",
                self.host(),
                innermost(&error)
            ))),
            Err(_) => Err(Trouble::Broke(format!("{} does not answer", self.host()))),
        }
    }

    fn redirected(&self, from: &Url, response: &Response) -> Result<Url, Trouble> {
        let place = text(response.headers(), LOCATION);
        let url = place
            .and_then(|place| from.join(place).ok())
            .filter(|url| matches!(url.scheme(), "http" | "https"))
            .ok_or_else(|| Trouble::fatal(format!("{} redirects to nowhere", self.host())))?;
        if from.scheme() == "https" && url.scheme() == "http" {
            return Err(Trouble::fatal(format!(
                "{} redirects from https to http, which is not followed",
                self.host()
            )));
        }
        Ok(url)
    }

    fn head(&self, response: Response, said: &HeaderMap, from: u64) -> Result<Head, Trouble> {
        let linked = text(said, HeaderName::from_static("x-linked-etag")).map(bare_etag);
        let version = linked
            .or_else(|| text(said, ETAG).map(bare_etag))
            .map(str::to_owned);
        let sha256 = linked
            .filter(|etag| etag.len() == 64 && etag.bytes().all(|b| b.is_ascii_hexdigit()))
            .map(str::to_ascii_lowercase);
        let range = text(response.headers(), CONTENT_RANGE).map(str::to_owned);
        let (first, range_total) = range.as_deref().map(read_range).unwrap_or_default();
        let head = |response, at, beyond, total| Head {
            response,
            from: at,
            beyond,
            total,
            version: version.clone(),
            sha256: sha256.clone(),
        };
        match response.status() {
            StatusCode::PARTIAL_CONTENT => {
                let at = first.unwrap_or(from);
                Ok(head(Some(response), at, false, range_total))
            }
            StatusCode::RANGE_NOT_SATISFIABLE if from > 0 => {
                Ok(head(None, from, true, range_total))
            }
            status if status.is_success() => {
                let total = text(response.headers(), CONTENT_LENGTH)
                    .and_then(|length| length.parse().ok())
                    .or(range_total);
                Ok(head(Some(response), 0, false, total))
            }
            status => Err(self.refused(status, response.headers())),
        }
    }

    /// A status that is not a success, for people.
    fn refused(&self, status: StatusCode, headers: &HeaderMap) -> Trouble {
        let (host, repo, file) = (self.host(), &self.repo, &self.file);
        let code = text(headers, HeaderName::from_static("x-error-code")).unwrap_or_default();
        let token = if self.token.is_some() {
            "the token that is set has no right to it"
        } else {
            "set a token: HF_TOKEN, or the credential hf_token"
        };
        match (status.as_u16(), code) {
            (_, "GatedRepo") => Trouble::fatal(format!(
                "{repo} is gated: accept its licence at {host}/{repo}; then, {token}"
            )),
            (_, "RepoNotFound") => Trouble::fatal(format!(
                "there is no repository {repo} at {host}; if it is private, {token}"
            )),
            (_, "RevisionNotFound") => {
                Trouble::fatal(format!("{repo} has no such branch, tag or commit"))
            }
            (_, "EntryNotFound") => Trouble::fatal(format!("{repo} has no file {file}")),
            (401, _) => Trouble::fatal(format!("{host} asks for a token to read {repo}: {token}")),
            (403, _) => Trouble::fatal(format!("{host} forbids reading {repo}: {token}")),
            (404 | 410, _) => Trouble::fatal(format!("{host} has no {repo}/{file}")),
            (408 | 429 | 500..=599, _) => {
                Trouble::Broke(format!("{host} answered with HTTP {}", status.as_u16()))
            }
            (status, _) => Trouble::fatal(format!("{host} answered with HTTP {status}")),
        }
    }

    fn host(&self) -> &str {
        self.url.host_str().unwrap_or("the server")
    }
}

fn text(headers: &HeaderMap, name: HeaderName) -> Option<&str> {
    headers.get(name)?.to_str().ok()
}

/// An entity tag without its quotes and its mark of weakness.
fn bare_etag(etag: &str) -> &str {
    etag.trim().trim_start_matches("W/").trim_matches('"')
}

/// `bytes 5-9/10` or `bytes */10`: (first, total).
fn read_range(text: &str) -> (Option<u64>, Option<u64>) {
    let Some((range, total)) = text
        .trim()
        .strip_prefix("bytes ")
        .and_then(|t| t.split_once('/'))
    else {
        return (None, None);
    };
    let first = range.split('-').next().and_then(|n| n.parse().ok());
    (first, total.parse().ok())
}

/// Why a download's names are no names, if they are not.
fn check_names(download: &Download) -> Result<(), String> {
    let plain = |name: &str| {
        !name.is_empty()
            && !matches!(name, "." | "..")
            && name.len() <= MAX_NAME
            && !name.contains(['/', '\\', '\0'])
            && !name.chars().any(char::is_control)
    };
    let word = |name: &str| {
        plain(name)
            && name
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_'))
    };
    let repo: Vec<&str> = download.repo.split('/').collect();
    if repo.len() > 2 || !repo.iter().all(|name| word(name)) {
        return Err("the repository must be written owner/name".to_owned());
    }
    if !download.revision.split('/').all(word) {
        return Err("the revision must be a branch, tag or commit".to_owned());
    }
    if !download.file.split('/').all(plain) {
        return Err("the file must be a path inside the repository".to_owned());
    }
    if !plain(&download.save_as)
        || download.save_as.starts_with('.')
        || download.save_as.ends_with(".part")
    {
        return Err("the name to save as must be a plain file name".to_owned());
    }
    let hex = |digest: &String| digest.len() == 64 && digest.bytes().all(|b| b.is_ascii_hexdigit());
    if !download.sha256.as_ref().is_none_or(hex) {
        return Err("the SHA-256 must have 64 hexadecimal digits".to_owned());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use nearfar_domain::ids::JobId;

    use super::*;

    fn download() -> Download {
        Download {
            job: JobId(1),
            repo: "owner/name".into(),
            revision: "main".into(),
            file: "dir/model q4.gguf".into(),
            into: "/x".into(),
            save_as: "model.gguf".into(),
            sha256: None,
            max_bytes: 10,
        }
    }

    #[test]
    fn the_url_is_built_from_checked_names() {
        let mut d = download();
        d.revision = "refs/pr/1".into();
        let source = Source::new("https://hf.example/mirror/", None, &d)
            .ok()
            .unwrap();
        assert_eq!(
            source.url.as_str(),
            "https://hf.example/mirror/owner/name/resolve/refs%2Fpr%2F1/dir/model%20q4.gguf"
        );
        assert!(Source::new("ftp://x", None, &d).is_err());
        assert!(Source::new("not a url", None, &d).is_err());
    }

    #[test]
    fn names_that_lead_elsewhere_are_refused() {
        let spoil: [fn(&mut Download); 9] = [
            |d| d.repo = "../name".into(),
            |d| d.repo = "a/b/c".into(),
            |d| d.repo = "a b/c".into(),
            |d| d.revision = "..".into(),
            |d| d.file = "a/../../b".into(),
            |d| d.file = "/etc/passwd".into(),
            |d| d.save_as = "../x".into(),
            |d| d.save_as = ".hidden".into(),
            |d| d.sha256 = Some("abc".into()),
        ];
        for (number, spoil) in spoil.iter().enumerate() {
            let mut d = download();
            spoil(&mut d);
            assert!(check_names(&d).is_err(), "case {number}");
        }
        assert!(check_names(&download()).is_ok());
    }

    #[test]
    fn tags_and_ranges_are_read() {
        assert_eq!(bare_etag("W/\"abc\""), "abc");
        assert_eq!(read_range("bytes 5-9/10"), (Some(5), Some(10)));
        assert_eq!(read_range("bytes */10"), (None, Some(10)));
        assert_eq!(read_range("items 1"), (None, None));
    }
}
