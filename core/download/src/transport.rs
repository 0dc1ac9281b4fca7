//! Requests, one at a time and without following redirects: who is asked, and with which headers, is decided
//! for each.

use std::time::Duration;

use ureq::http::{Response, Uri, Version};
use ureq::tls::{RootCerts, TlsConfig};

use crate::environment::Environment;
use crate::error::DownloadError;
use crate::token::Token;

/// An answer whose body has not been read.
pub(crate) type Answer = Response<ureq::Body>;

/// Why an attempt failed.
#[derive(Debug)]
pub(crate) enum RequestError {
    /// It may go better the next time.
    Passing {
        /// Who was asked.
        host: String,
        /// What happened.
        problem: String,
        /// How long the server asks to be left alone.
        wait: Option<Duration>,
    },
    /// A signed address is not valid any longer.
    Expired {
        /// Who says so.
        host: String,
        /// By which status.
        status: u16,
    },
    /// It will not.
    Final(DownloadError),
}

impl RequestError {
    pub(crate) fn passing(url: &str, problem: impl Into<String>) -> Self {
        Self::Passing { host: host_of(url), problem: problem.into(), wait: None }
    }
}

impl From<DownloadError> for RequestError {
    fn from(error: DownloadError) -> Self {
        Self::Final(error)
    }
}

/// Scheme, host and port: whom a secret is meant for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Origin {
    scheme: String,
    host: String,
    port: u16,
}

impl Origin {
    pub(crate) fn of(url: &str) -> Option<Self> {
        let uri: Uri = url.parse().ok()?;
        let scheme = uri.scheme_str()?.to_lowercase();
        let port = uri.port_u16().unwrap_or(if scheme == "https" { 443 } else { 80 });
        Some(Self { host: uri.host()?.to_lowercase(), scheme, port })
    }

    pub(crate) fn is_https(&self) -> bool {
        self.scheme == "https"
    }

    pub(crate) fn host(&self) -> &str {
        &self.host
    }
}

/// Whether a host is this machine.
pub(crate) fn is_loopback(host: &str) -> bool {
    let address = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || address.parse().is_ok_and(|ip: std::net::IpAddr| ip.is_loopback())
}

/// Whom an address asks, for people: without a name and a password that it may have.
pub(crate) fn host_of(url: &str) -> String {
    let uri: Option<Uri> = url.parse().ok();
    let host = uri.as_ref().and_then(|uri| uri.authority()?.as_str().rsplit('@').next());
    host.map_or_else(|| "the server".into(), String::from)
}

/// An address without a name and a password that it may have.
pub(crate) fn public(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return url.into() };
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let host = authority.rsplit('@').next().unwrap_or(authority);
    format!("{scheme}://{host}{path}")
}

/// Addresses that lead to one another, by redirects and links. Once one of them is HTTPS, none that follows is plain
/// HTTP, where others could change what comes; but this machine is no other.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Chain {
    is_private: bool,
}

impl Chain {
    /// With these addresses so far.
    pub(crate) fn of(urls: &[&str]) -> Self {
        Self { is_private: urls.iter().any(|url| is_https(url)) }
    }

    /// The address that a `Location` or a `Link` means, seen from an address; `None` where it means none.
    ///
    /// * `address`: what is fetched, for people
    ///
    /// # Errors
    ///
    /// [`DownloadError::Downgrade`]
    pub(crate) fn next(
        &mut self,
        from: &str,
        location: &str,
        address: &str,
    ) -> Result<Option<String>, DownloadError> {
        let Some(next) = resolved(from, location) else { return Ok(None) };
        let is_here = Origin::of(&next).is_some_and(|origin| is_loopback(origin.host()));
        if self.is_private && !is_https(&next) && !is_here {
            return Err(DownloadError::Downgrade { address: address.into(), host: host_of(&next) });
        }
        self.is_private |= is_https(&next);
        Ok(Some(next))
    }
}

fn is_https(url: &str) -> bool {
    Origin::of(url).is_some_and(|origin| origin.is_https())
}

/// Whether a `Location` names its host, and not only in its query.
pub(crate) fn is_absolute(location: &str) -> bool {
    let scheme = location.split_once("://").map(|(scheme, _)| scheme);
    location.starts_with("//")
        || scheme.is_some_and(|scheme| scheme.bytes().all(|b| b.is_ascii_alphanumeric()))
}

/// The address that a `Location` means, seen from an address.
fn resolved(base: &str, location: &str) -> Option<String> {
    let (scheme, rest) = base.split_once("://")?;
    if let Some(there) = location.strip_prefix("//") {
        return Some(format!("{scheme}://{there}"));
    }
    if is_absolute(location) {
        return Some(location.into());
    }
    let (host, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    if location.starts_with('/') {
        return Some(format!("{scheme}://{host}{location}"));
    }
    let path = path.split(['?', '#']).next().unwrap_or_default();
    let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
    Some(format!("{scheme}://{host}{folder}/{location}"))
}

/// The value of a header, where it is text.
pub(crate) fn header<'a>(answer: &'a Answer, name: &str) -> Option<&'a str> {
    answer.headers().get(name)?.to_str().ok().map(str::trim)
}

/// A header that is a whole number.
pub(crate) fn number(answer: &Answer, name: &str) -> Option<u64> {
    header(answer, name)?.parse().ok()
}

/// Whether an answer comes in chunks, of which the last one is its end. One without chunks and without a length ends
/// where the connection does, and so where that breaks (RFC 9112, section 6.3).
pub(crate) fn is_chunked(answer: &Answer) -> bool {
    let codings = header(answer, "Transfer-Encoding").unwrap_or_default();
    let has_chunks = codings.split(',').any(|c| c.trim().eq_ignore_ascii_case("chunked"));
    has_chunks && answer.version() != Version::HTTP_10
}

/// Makes requests through the proxy that the environment names, with the system's certificates.
#[derive(Debug)]
pub(crate) struct Transport {
    agent: ureq::Agent,
}

impl Transport {
    pub(crate) fn new(environment: &Environment) -> Self {
        let tls = TlsConfig::builder().root_certs(RootCerts::PlatformVerifier).build();
        let config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .user_agent(concat!("tintype/", env!("CARGO_PKG_VERSION")))
            .timeout_connect(Some(environment.answer_timeout))
            .timeout_recv_response(Some(environment.answer_timeout))
            .timeout_per_read(Some(environment.read_timeout))
            .proxy(if environment.has_proxy { ureq::Proxy::try_from_env() } else { None })
            .tls_config(tls)
            .build();
        Self { agent: config.new_agent() }
    }

    pub(crate) fn head(&self, url: &str, token: Option<&Token>) -> Result<Answer, RequestError> {
        self.call(self.agent.head(url), url, &[], token)
    }

    pub(crate) fn get(
        &self,
        url: &str,
        headers: &[(&str, String)],
        token: Option<&Token>,
    ) -> Result<Answer, RequestError> {
        self.call(self.agent.get(url), url, headers, token)
    }

    fn call(
        &self,
        request: ureq::RequestBuilder<ureq::typestate::WithoutBody>,
        url: &str,
        headers: &[(&str, String)],
        token: Option<&Token>,
    ) -> Result<Answer, RequestError> {
        // A compressed answer would have a length of its own.
        let mut request = request.header("Accept-Encoding", "identity");
        for (name, value) in headers {
            request = request.header(*name, value);
        }
        if let Some(Token(token)) = token {
            request = request.header("Authorization", format!("Bearer {token}"));
        }
        request.call().map_err(|error| match error {
            // No other attempt changes an address or a token.
            ureq::Error::BadUri(_) | ureq::Error::Http(_) | ureq::Error::InvalidProxyUrl => {
                let (address, host) = (public(url), host_of(url));
                DownloadError::Unreachable { address, host, problem: error.to_string() }.into()
            }
            error => RequestError::passing(url, error.to_string()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locations_are_resolved() {
        let base = "https://hub.example/a/b/c.pt?x=1";
        let is =
            |location: &str, url: &str| assert_eq!(resolved(base, location).as_deref(), Some(url));
        is("/api/x", "https://hub.example/api/x");
        is("d.pt", "https://hub.example/a/b/d.pt");
        is("//cdn.example/x", "https://cdn.example/x");
        is("http://cdn.example/x", "http://cdn.example/x");
        is("/login?to=https://x.example/y", "https://hub.example/login?to=https://x.example/y");
        assert!(!is_absolute("/login?to=https://x.example/y"));
        assert_eq!(resolved("https://hub.example", "/x").as_deref(), Some("https://hub.example/x"));
    }

    #[test]
    fn origins_are_scheme_host_and_port() {
        assert_eq!(Origin::of("https://A.example/x"), Origin::of("https://a.example:443/y"));
        assert_ne!(Origin::of("https://a.example/x"), Origin::of("http://a.example/x"));
        assert_ne!(Origin::of("http://127.0.0.1:1/x"), Origin::of("http://127.0.0.1:2/x"));
        assert!(is_loopback("127.0.0.1") && is_loopback("[::1]") && is_loopback("localhost"));
        assert!(!is_loopback("127.0.0.1.example"));
        assert_eq!(host_of("https://me:secret@a.example:8443/x"), "a.example:8443");
        assert_eq!(public("https://me:secret@a.example/x@y"), "https://a.example/x@y");
    }

    #[test]
    fn what_was_private_once_stays_so() {
        // Whether each address may lead to the next.
        let goes = |urls: &[&str]| {
            let mut chain = Chain::of(&urls[..1]);
            urls.windows(2).all(|pair| chain.next(pair[0], pair[1], "x").is_ok())
        };
        let (far, open, here) =
            ("https://a.example/x", "http://b.example/x", "http://127.0.0.1:8/x");
        assert!(goes(&[far, "https://b.example/x"]) && goes(&[open, "http://c.example/x"]));
        assert!(goes(&[open, far]) && goes(&[far, here]) && goes(&[here, open]));
        assert!(goes(&[far, here, far]) && goes(&[far, here, "/y"]));
        assert!(!goes(&[far, open]) && !goes(&[open, far, open]));
        assert!(!goes(&[far, here, open]), "by way of this machine");
        assert!(!goes(&[far, here, "//b.example/x"]), "by way of this machine");
        assert!(Chain::of(&[here, far]).next(here, open, "x").is_err(), "one of those so far");
    }
}
