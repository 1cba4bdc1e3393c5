//! Who may call over TCP: programs on this device, not web pages.
//!
//! A page that a browser shows can send requests to a loopback port. Two checks
//! stop it. The `Host` header must be a name that only this device answers to,
//! or a foreign DNS name that was re-bound to a loopback address would be of the
//! same origin as we are. And `Origin`, which browsers send and pages cannot
//! change, must be our own. There are no CORS headers.

use std::net::IpAddr;

use axum::http::uri::Authority;
use axum::http::{HeaderMap, Uri, header};

use super::problem::Problem;

/// The addresses that the daemon was told to listen on.
#[derive(Clone, Debug)]
pub(crate) struct Hosts {
    listen: Vec<IpAddr>,
    any_name: bool,
}

/// A host and a port as a client wrote them.
#[derive(PartialEq)]
struct Place {
    host: String,
    port: u16,
}

impl Hosts {
    pub(crate) fn new(listen: impl IntoIterator<Item = IpAddr>) -> Self {
        Self {
            listen: listen.into_iter().collect(),
            any_name: false,
        }
    }

    /// The same, whatever name the device is called by: for listeners on which
    /// every request needs a key. Pages of other origins stay out.
    pub(crate) fn of_any_name(mut self) -> Self {
        self.any_name = true;
        self
    }

    /// Checks one request that came in on `local`.
    ///
    /// # Errors
    /// A 403 that names the header at fault.
    pub(crate) fn check(
        &self,
        uri: &Uri,
        headers: &HeaderMap,
        local: IpAddr,
    ) -> Result<(), Problem> {
        let host = self.host(uri, headers, local)?;
        for origin in headers.get_all(header::ORIGIN) {
            let same = origin
                .to_str()
                .ok()
                .and_then(|text| text.strip_prefix("http://"))
                .and_then(Place::read)
                .is_some_and(|origin| origin == host);
            if !same {
                return Err(foreign_page());
            }
        }
        // Browsers tell this even where they leave `Origin` out.
        match headers.get("sec-fetch-site").map(|v| v.as_bytes()) {
            None | Some(b"none" | b"same-origin") => Ok(()),
            Some(_) => Err(foreign_page()),
        }
    }

    fn host(&self, uri: &Uri, headers: &HeaderMap, local: IpAddr) -> Result<Place, Problem> {
        let mut named = headers.get_all(header::HOST).iter();
        let (Some(host), None) = (named.next(), named.next()) else {
            return Err(wrong_host("Send one Host header."));
        };
        let host = host.to_str().ok().and_then(Place::read);
        // `GET http://name/path`: both names count.
        let in_target = uri
            .authority()
            .map(|authority| Place::read(authority.as_str()));
        match (host, in_target) {
            (Some(host), None) if self.is_ours(&host, local) => Ok(host),
            (Some(host), Some(Some(target)))
                if self.is_ours(&host, local) && self.is_ours(&target, local) =>
            {
                Ok(host)
            }
            _ => Err(wrong_host(
                "The Host header must be localhost, a loopback address or the address that \
                 nearfar listens on.",
            )),
        }
    }

    fn is_ours(&self, place: &Place, local: IpAddr) -> bool {
        if self.any_name || place.host == "localhost" {
            return true;
        }
        let Ok(ip) = place.host.parse::<IpAddr>() else {
            return false;
        };
        let ip = ip.to_canonical();
        // The connection's own address stands for `0.0.0.0`, which names none.
        ip.is_loopback() || ip == local.to_canonical() || self.listen.contains(&ip)
    }
}

impl Place {
    fn read(text: &str) -> Option<Self> {
        if text.contains('@') {
            return None;
        }
        let authority: Authority = text.parse().ok()?;
        let host = authority.host();
        let host = host
            .strip_prefix('[')
            .and_then(|rest| rest.strip_suffix(']'))
            .unwrap_or(host);
        let host = host.strip_suffix('.').unwrap_or(host);
        let port = match authority.port_u16() {
            Some(port) => port,
            None if authority.as_str() == authority.host() => 80,
            // There is a port, and it is no number.
            None => return None,
        };
        Some(Self {
            host: host.to_ascii_lowercase(),
            port,
        })
    }
}

fn wrong_host(message: &str) -> Problem {
    Problem::forbidden("host_not_allowed", message)
}

fn foreign_page() -> Problem {
    Problem::forbidden(
        "origin_not_allowed",
        "Requests from web pages of another origin are refused. Call nearfar from a program, or \
         through a server of your own.",
    )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn check(hosts: &Hosts, uri: &str, pairs: &[(&'static str, &str)]) -> bool {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, value.parse().unwrap());
        }
        hosts
            .check(
                &uri.parse().unwrap(),
                &headers,
                "192.168.1.5".parse().unwrap(),
            )
            .is_ok()
    }

    #[test]
    fn only_names_of_this_device_are_hosts() {
        let hosts = Hosts::new(["10.0.0.7".parse().unwrap()]);
        for good in [
            "localhost",
            "LOCALHOST.:4141",
            "127.0.0.1:4141",
            "127.9.9.9",
            "[::1]:4141",
            "[::ffff:127.0.0.1]:1",
            "192.168.1.5:4141",
            "10.0.0.7:4141",
        ] {
            assert!(check(&hosts, "/", &[("host", good)]), "{good}");
        }
        for bad in [
            "evil.example",
            "evil.example:4141",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "10.0.0.8",
            "localhost@evil.example",
            "evil.example@localhost",
            "0.0.0.0:4141",
            "[::]",
            "",
            "2130706433",
            "localhost:99999",
        ] {
            assert!(!check(&hosts, "/", &[("host", bad)]), "{bad}");
        }
        assert!(!check(&hosts, "/", &[]), "no Host at all");
        let twice = [("host", "localhost"), ("host", "evil.example")];
        assert!(!check(&hosts, "/", &twice));
        let absolute = "http://evil.example/v1/models";
        assert!(!check(&hosts, absolute, &[("host", "localhost")]));
    }

    #[test]
    fn where_a_key_is_needed_any_name_will_do_and_pages_stay_out() {
        let hosts = Hosts::new([]).of_any_name();
        assert!(check(&hosts, "/", &[("host", "box.lan:4141")]));
        assert!(!check(&hosts, "/", &[]), "no Host at all");
        let page = [("host", "box.lan"), ("origin", "http://evil.example")];
        assert!(!check(&hosts, "/", &page));
    }

    #[test]
    fn pages_of_another_origin_are_refused() {
        let hosts = Hosts::new([]);
        let with = |origin: &str| {
            let pairs = [("host", "127.0.0.1:4141"), ("origin", origin)];
            check(&hosts, "/v1/models", &pairs)
        };
        assert!(with("http://127.0.0.1:4141"));
        for bad in [
            "http://127.0.0.1:3000",
            "http://localhost:4141",
            "https://127.0.0.1:4141",
            "http://evil.example",
            "null",
            "",
            "file://",
            "chrome-extension://abc",
        ] {
            assert!(!with(bad), "{bad}");
        }
        for (site, fine) in [("none", true), ("same-origin", true), ("cross-site", false)] {
            let pairs = [("host", "localhost"), ("sec-fetch-site", site)];
            assert_eq!(check(&hosts, "/", &pairs), fine, "{site}");
        }
    }
}
