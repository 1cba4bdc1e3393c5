//! A provider's base URL, as far as configuration must understand it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// How far away an address is, as far as its name tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Nearness {
    /// This device.
    Loopback,
    /// A private network, by its number or its top-level name.
    Private,
    /// A public number.
    Public,
    /// A name that tells nothing.
    Unknown,
}

/// The parts of a URL that were checked.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct BaseUrl {
    /// The URL without a trailing slash.
    pub(super) text: String,
    pub(super) https: bool,
    pub(super) nearness: Nearness,
}

/// Reads `http(s)://host[:port][/path]`. Azure's `?api-version=…` may follow, and
/// `{model}` may stand in the path.
///
/// # Errors
/// What is wrong and the mend.
pub(super) fn parse(text: &str) -> Result<BaseUrl, (&'static str, &'static str)> {
    const FORM: &str = "write it like \"https://api.example.com/v1\"";
    let lower = text.to_ascii_lowercase();
    let (https, rest) = if lower.starts_with("https://") {
        (true, &text[8..])
    } else if lower.starts_with("http://") {
        (false, &text[7..])
    } else {
        return Err(("this is not an http or https address", FORM));
    };
    if rest.chars().any(|c| c.is_whitespace() || c.is_control()) {
        return Err(("an address has no spaces", FORM));
    }
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    let version = query.strip_prefix("api-version=");
    let plain = version.is_some_and(|version| {
        !version.is_empty()
            && version
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || c == '-')
    });
    if rest.contains('#') || !(query.is_empty() || plain) || text.ends_with('?') {
        return Err(("a base address has no query and no fragment", FORM));
    }
    let authority = rest.split('/').next().unwrap_or_default();
    if authority.contains('@') {
        return Err((
            "an address with a user name or a key in it",
            "put the key into a file and name it with key_file",
        ));
    }
    let (host, port) = split_port(authority).ok_or(("this host is not readable", FORM))?;
    if let Some(port) = port
        && port.parse::<u16>().ok().filter(|port| *port > 0).is_none()
    {
        return Err(("the port must be a number from 1 to 65535", FORM));
    }
    let nearness = nearness(host).ok_or(("this is not a host's name or number", FORM))?;
    Ok(BaseUrl {
        text: text.trim_end_matches('/').to_owned(),
        https,
        nearness,
    })
}

fn split_port(authority: &str) -> Option<(&str, Option<&str>)> {
    if authority.starts_with('[') {
        let end = authority.find(']')?;
        let after = &authority[end + 1..];
        return match after.strip_prefix(':') {
            Some(port) => Some((&authority[..=end], Some(port))),
            None if after.is_empty() => Some((authority, None)),
            None => None,
        };
    }
    Some(match authority.split_once(':') {
        Some((host, port)) => (host, Some(port)),
        None => (authority, None),
    })
}

fn nearness(host: &str) -> Option<Nearness> {
    if let Some(inner) = host.strip_prefix('[') {
        let ip: Ipv6Addr = inner.strip_suffix(']')?.parse().ok()?;
        return Some(of_ip(IpAddr::V6(ip)));
    }
    if let Ok(ip) = host.parse::<Ipv4Addr>() {
        return Some(of_ip(IpAddr::V4(ip)));
    }
    let host = host.to_ascii_lowercase();
    let fits = !host.is_empty()
        && host.len() <= 253
        && host.split('.').all(|label| {
            !label.is_empty()
                && label.len() <= 63
                && !label.starts_with('-')
                && !label.ends_with('-')
                && label
                    .chars()
                    .all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_')
        })
        // A last label of digits is a number that is wrong, not a name.
        && !host.rsplit('.').next().unwrap_or("").chars().all(|c| c.is_ascii_digit());
    if !fits {
        return None;
    }
    Some(if host == "localhost" || host.ends_with(".localhost") {
        Nearness::Loopback
    } else if [".local", ".lan", ".internal", ".home.arpa"]
        .iter()
        .any(|end| host.ends_with(end))
    {
        Nearness::Private
    } else {
        Nearness::Unknown
    })
}

fn of_ip(ip: IpAddr) -> Nearness {
    let private = match ip {
        IpAddr::V4(ip) => ip.is_private() || ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_unique_local() || ip.is_unicast_link_local(),
    };
    if ip.is_loopback() {
        Nearness::Loopback
    } else if private {
        Nearness::Private
    } else {
        Nearness::Public
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nearness_is_read_from_the_host() {
        for (url, nearness) in [
            ("http://127.0.0.1:8000/v1/", Nearness::Loopback),
            ("http://[::1]:8000", Nearness::Loopback),
            ("http://localhost", Nearness::Loopback),
            ("http://192.168.1.5:8000/v1", Nearness::Private),
            ("http://box.lan/v1", Nearness::Private),
            ("http://8.8.8.8/v1", Nearness::Public),
            ("HTTPS://api.openai.com/v1", Nearness::Unknown),
        ] {
            assert_eq!(parse(url).map(|u| u.nearness), Ok(nearness), "{url}");
        }
        assert_eq!(
            parse("http://a/v1//").map(|u| u.text),
            Ok("http://a/v1".to_owned())
        );
    }

    #[test]
    fn what_is_not_an_address_is_refused() {
        for bad in [
            "",
            "api.openai.com",
            "ftp://a",
            "https://",
            "https://a b",
            "https://a?x=1",
            "https://u:p@a",
            "https://a:0",
            "https://a:99999",
            "https://[::1",
            "https://-a",
            "https://1.2.3",
            "https://a..b",
            "https:///v1",
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
