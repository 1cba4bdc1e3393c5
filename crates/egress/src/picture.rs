//! A picture's URL, taken apart for the dialects that want it so.

use crate::codec::Unsupported;

/// Where a picture is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Picture<'a> {
    /// In the request.
    Data {
        /// `image/png` and its like.
        media_type: &'a str,
        /// Base64.
        data: &'a str,
    },
    /// Elsewhere; the provider fetches it.
    Url(&'a str),
}

/// Reads an `http(s)` or a `data:` URL.
///
/// # Errors
/// [`Unsupported`] for anything else.
pub(crate) fn read(url: &str) -> Result<Picture<'_>, Unsupported> {
    let wrong = |what: &str| Err(Unsupported::new("messages.content.image_url", what));
    let Some(rest) = url.strip_prefix("data:") else {
        if url.starts_with("https://") || url.starts_with("http://") {
            return Ok(Picture::Url(url));
        }
        return wrong("a picture's URL must begin with https:// or data:");
    };
    let Some((head, data)) = rest.split_once(',') else {
        return wrong("the data: URL has no comma before its data");
    };
    let Some(head) = head.strip_suffix(";base64") else {
        return wrong("the data: URL must be base64: data:image/png;base64,…");
    };
    let media_type = head.split(';').next().unwrap_or(head);
    if !media_type.starts_with("image/") {
        return wrong("the data: URL must name its type: data:image/png;base64,…");
    }
    Ok(Picture::Data { media_type, data })
}

/// The type that a URL's ending tells, for providers that want it said.
pub(crate) fn media_type_of(url: &str) -> Option<&'static str> {
    let path = url.split(['?', '#']).next().unwrap_or(url);
    let (_, ending) = path.rsplit_once('.')?;
    Some(match ending.to_ascii_lowercase().as_str() {
        "png" => "image/png",
        "jpg" | "jpeg" => "image/jpeg",
        "webp" => "image/webp",
        "gif" => "image/gif",
        "heic" => "image/heic",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn urls_are_taken_apart() {
        let data = Picture::Data {
            media_type: "image/png",
            data: "AA==",
        };
        assert_eq!(read("data:image/png;base64,AA==").unwrap(), data);
        assert_eq!(read("https://a/b").unwrap(), Picture::Url("https://a/b"));
        for wrong in ["ftp://a", "data:image/png,AA", "data:;base64,AA", "data:x"] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
        assert_eq!(media_type_of("https://a/b.JPG?x=.png"), Some("image/jpeg"));
        assert_eq!(media_type_of("https://a.b/c"), None);
    }
}
