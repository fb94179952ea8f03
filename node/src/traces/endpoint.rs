//! Where a collector takes traces, as its owner writes it.

use std::fmt;
use std::str::FromStr;

use hyper::Uri;

/// Where OTLP has traces, behind the address of a collector. Source: opentelemetry.io/docs/specs/otlp, "OTLP/HTTP".
const PATH: &str = "/v1/traces";
/// Of a URL that names none.
const PORT: u16 = 80;

/// Why an address is none of a collector.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadEndpoint {
    /// It is no URL, or another kind of one.
    #[error("use http://HOST:PORT, such as http://127.0.0.1:4318")]
    NoHttp,
    /// A collector behind TLS.
    #[error(
        "a node speaks no TLS: let a collector on this machine or network take http://HOST:4318 and pass it on"
    )]
    Tls,
    /// What no collector has.
    #[error("leave out user names and what follows a `?`")]
    More,
}

/// The address of a collector of traces over OTLP/HTTP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) path: String,
}

impl FromStr for Endpoint {
    type Err = BadEndpoint;

    fn from_str(text: &str) -> Result<Self, BadEndpoint> {
        let url: Uri = text.parse().map_err(|_| BadEndpoint::NoHttp)?;
        match url.scheme_str() {
            Some("http") => {}
            Some("https") => return Err(BadEndpoint::Tls),
            _ => return Err(BadEndpoint::NoHttp),
        }
        let authority = url.authority().ok_or(BadEndpoint::NoHttp)?;
        if url.query().is_some() || authority.as_str().contains('@') {
            return Err(BadEndpoint::More);
        }
        let host = authority.host();
        if host.is_empty() {
            return Err(BadEndpoint::NoHttp);
        }
        let base = url.path().trim_end_matches('/');
        // Whoever wrote all of it means the same.
        let base = base.strip_suffix(PATH).unwrap_or(base);
        Ok(Self {
            host: host.to_owned(),
            port: authority.port_u16().unwrap_or(PORT),
            path: format!("{base}{PATH}"),
        })
    }
}

impl Endpoint {
    /// The host and port, as a request names them.
    pub(super) fn authority(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "http://{}{}", self.authority(), self.path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_path_of_traces_is_added_where_it_is_missing() {
        let read = |text: &str| text.parse::<Endpoint>().map(|read| read.to_string());
        let whole = |text: &str| Ok(text.to_owned());
        assert_eq!(read("http://127.0.0.1:4318"), whole("http://127.0.0.1:4318/v1/traces"));
        assert_eq!(read("http://[::1]:4318/"), whole("http://[::1]:4318/v1/traces"));
        assert_eq!(read("http://box/tempo/"), whole("http://box:80/tempo/v1/traces"));
        assert_eq!(read("http://box:4318/v1/traces"), whole("http://box:4318/v1/traces"));
        assert_eq!(read("https://box:4318"), Err(BadEndpoint::Tls));
        assert_eq!(read("http://me@box:4318"), Err(BadEndpoint::More));
        assert_eq!(read("http://box:4318/?a=b"), Err(BadEndpoint::More));
        for wrong in ["", "box", "box:4318", "ftp://box:4318", "/v1/traces", "http://", "http://:1"] {
            assert_eq!(read(wrong), Err(BadEndpoint::NoHttp), "{wrong}");
        }
    }
}
