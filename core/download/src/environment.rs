//! What the process' environment says: the variables of Python's `huggingface_hub`, and two of our own.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::time::Duration;

use directories::{BaseDirs, ProjectDirs};

use crate::disk;
use crate::error::DownloadError;
use crate::token::{NoText, Token};
use crate::transport::{Origin, is_loopback};

/// The Hub where none is named.
const HUB: &str = "https://huggingface.co";
/// The variables that name a proxy; their values are read where requests are made.
const PROXIES: [&str; 6] =
    ["ALL_PROXY", "all_proxy", "HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy"];
/// Time limits where none are set, as Python's.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Where files are fetched from and kept. [`Environment::of_process`] reads the variables.
#[derive(Clone, Debug)]
pub struct Environment {
    /// `HF_ENDPOINT`: the Hub or a mirror, without a trailing slash.
    pub endpoint: String,
    /// `HF_TOKEN`, or the file `HF_TOKEN_PATH`.
    pub(crate) token: Option<Token>,
    /// That file, where it is no text: a Hub is not asked without the token that was meant for it.
    pub(crate) unread_token: Option<PathBuf>,
    /// `HF_HUB_CACHE`, by default `$HF_HOME/hub`.
    pub hub_cache: PathBuf,
    /// `TINTYPE_CACHE`: where files of plain addresses are kept, by default a folder of the user's caches.
    pub cache: PathBuf,
    /// `TINTYPE_CATALOGUE`, by default `models.json` in the user's configuration folder.
    pub catalogue: Option<PathBuf>,
    pub(crate) catalogue_is_named: bool,
    /// `HF_HUB_OFFLINE`, `TRANSFORMERS_OFFLINE`: no request is made.
    pub offline: bool,
    /// Whether a variable names a proxy.
    pub(crate) has_proxy: bool,
    /// Not `HF_HUB_DISABLE_SYMLINKS`: snapshots are links to blobs.
    pub symlinks: bool,
    /// `HF_HUB_ETAG_TIMEOUT`: longest wait for the answer to a request.
    pub answer_timeout: Duration,
    /// `HF_HUB_DOWNLOAD_TIMEOUT`: longest wait between two reads of a file.
    pub read_timeout: Duration,
    /// How a wait between attempts is spent. Tests put a clock here that does not wait.
    pub sleep: fn(Duration),
    /// Free bytes of the disk that holds a path, where that can be told.
    pub free_space: fn(&Path) -> Option<u64>,
}

impl Environment {
    /// The environment of this process.
    pub fn of_process() -> Self {
        Self::of(|name| std::env::var_os(name))
    }

    /// An environment by its variables; an empty one counts as not set. Paths need not be Unicode. Of another text,
    /// what is not Unicode becomes U+FFFD, which no address, no token and no number has.
    pub fn of(variable: impl Fn(&str) -> Option<OsString>) -> Self {
        let given = |name: &str| variable(name).filter(|value| !is_blank(value));
        let text = |name: &str| given(name).map(|value| value.to_string_lossy().into_owned());
        let is_set = |name: &str| text(name).is_some_and(|value| is_true(&value));
        let path = |name: &str| given(name).map(|value| expanded(value, &variable));
        let home = || BaseDirs::new().map_or_else(|| PathBuf::from("."), |d| d.home_dir().into());
        let caches = path("XDG_CACHE_HOME").unwrap_or_else(|| home().join(".cache"));
        let hf_home = path("HF_HOME").unwrap_or_else(|| caches.join("huggingface"));
        let hub_cache = path("HF_HUB_CACHE").or_else(|| path("HUGGINGFACE_HUB_CACHE"));
        let own = ProjectDirs::from("", "", "tintype");
        let own_cache = || own.as_ref().map_or(caches.join("tintype"), |d| d.cache_dir().into());
        let own_catalogue = || own.as_ref().map(|d| d.config_dir().join("models.json"));
        let seconds = |name: &str| {
            let seconds = text(name).and_then(|value| value.trim().parse::<f64>().ok());
            let duration = seconds.and_then(|s| Duration::try_from_secs_f64(s).ok());
            duration.filter(|d| !d.is_zero()).unwrap_or(TIMEOUT)
        };
        let endpoint = text("HF_ENDPOINT").unwrap_or_else(|| HUB.into());
        let token_file = path("HF_TOKEN_PATH").unwrap_or_else(|| hf_home.join("token"));
        let named = text("HF_TOKEN").or_else(|| text("HUGGING_FACE_HUB_TOKEN"));
        let (token, unread_token) = match named {
            _ if is_set("HF_HUB_DISABLE_IMPLICIT_TOKEN") => (None, None),
            Some(named) => (Token::of(&named), None),
            None => match Token::read(&token_file) {
                Ok(token) => (token, None),
                Err(NoText) => (None, Some(token_file)),
            },
        };
        let named = path("TINTYPE_CATALOGUE");
        Self {
            endpoint: endpoint.trim().trim_end_matches('/').into(),
            token,
            unread_token,
            hub_cache: hub_cache.unwrap_or_else(|| hf_home.join("hub")),
            cache: path("TINTYPE_CACHE").unwrap_or_else(own_cache),
            catalogue_is_named: named.is_some(),
            catalogue: named.or_else(own_catalogue),
            offline: is_set("HF_HUB_OFFLINE") || is_set("TRANSFORMERS_OFFLINE"),
            has_proxy: PROXIES.iter().any(|name| text(name).is_some()),
            symlinks: !is_set("HF_HUB_DISABLE_SYMLINKS"),
            answer_timeout: seconds("HF_HUB_ETAG_TIMEOUT"),
            read_timeout: seconds("HF_HUB_DOWNLOAD_TIMEOUT"),
            sleep: std::thread::sleep,
            free_space: disk::free_space,
        }
    }

    /// The token, if it may be sent to an address: to the endpoint alone, and in the clear only to this machine.
    pub(crate) fn token_for(&self, url: &str) -> Option<&Token> {
        let (there, endpoint) = (Origin::of(url)?, Origin::of(&self.endpoint)?);
        let is_private = there.is_https() || is_loopback(there.host());
        self.token.as_ref().filter(|_| there == endpoint && is_private)
    }

    /// Fails where a token is meant for the Hub and cannot be read.
    pub(crate) fn check_token(&self) -> Result<(), DownloadError> {
        match &self.unread_token {
            Some(path) => Err(DownloadError::TokenFile { path: path.clone() }),
            None => Ok(()),
        }
    }
}

fn is_blank(value: &OsStr) -> bool {
    value.to_str().is_some_and(|text| text.trim().is_empty())
}

/// What Python takes for true.
fn is_true(value: &str) -> bool {
    ["1", "on", "yes", "true"].contains(&value.trim().to_lowercase().as_str())
}

/// A path with `~` and then `$VARIABLE` or `${VARIABLE}` replaced, as Python does; unknown variables stay. One that is
/// not Unicode is taken as it is.
fn expanded(value: OsString, variable: &impl Fn(&str) -> Option<OsString>) -> PathBuf {
    let Some(text) = value.to_str() else { return value.into() };
    let mut rest = text.trim();
    let mut path = OsString::new();
    let below = rest.strip_prefix('~').filter(|b| b.is_empty() || b.starts_with(['/', '\\']));
    if let (Some(below), Some(dirs)) = (below, BaseDirs::new()) {
        path.push(dirs.home_dir());
        rest = below;
    }
    while let Some((before, after)) = rest.split_once('$') {
        path.push(before);
        let braced = after.strip_prefix('{').and_then(|after| after.split_once('}'));
        let plain = || {
            let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
            after.split_at(after.find(|c| !is_part(c)).unwrap_or(after.len()))
        };
        let (name, end) = braced.unwrap_or_else(plain);
        match variable(name) {
            Some(value) => path.push(value),
            None => path.push(&rest[before.len()..rest.len() - end.len()]),
        }
        rest = end;
    }
    path.push(rest);
    path.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(variables: &[(&str, &str)]) -> Environment {
        Environment::of(|name| {
            variables.iter().find(|(n, _)| *n == name).map(|(_, value)| value.into())
        })
    }

    #[test]
    fn caches_lie_where_python_looks() {
        let there = of(&[("XDG_CACHE_HOME", "/c")]);
        assert_eq!(there.hub_cache, Path::new("/c/huggingface/hub"));
        assert_eq!(there.endpoint, "https://huggingface.co");
        assert!(!there.has_proxy && of(&[("https_proxy", "http://p.example")]).has_proxy);
        let there = of(&[("HF_HOME", "/h"), ("HF_ENDPOINT", "https://mirror.example/hub/")]);
        assert_eq!(there.hub_cache, Path::new("/h/hub"));
        assert_eq!(there.endpoint, "https://mirror.example/hub");
        let there =
            of(&[("HF_HUB_CACHE", "${BIG}/$NAME/x$UNKNOWN"), ("BIG", "/big"), ("NAME", "n")]);
        assert_eq!(there.hub_cache, Path::new("/big/n/x$UNKNOWN"));
        let home = BaseDirs::new().expect("a home").home_dir().to_path_buf();
        assert_eq!(of(&[("HUGGINGFACE_HUB_CACHE", "~/x")]).hub_cache, home.join("x"));
    }

    /// File systems of Unix have names of any bytes.
    #[cfg(unix)]
    #[test]
    fn paths_need_not_be_unicode() {
        use std::os::unix::ffi::OsStringExt;
        let odd = |text: &str| OsString::from_vec([text.as_bytes(), b"\xff"].concat());
        let of = |name: &'static str, value: OsString| {
            let odd = odd("/disk");
            Environment::of(move |asked| match asked {
                "ODD" => Some(odd.clone()),
                asked => (asked == name).then(|| value.clone()),
            })
        };
        assert_eq!(of("HF_HOME", odd("/h")).hub_cache, Path::new(&odd("/h")).join("hub"));
        assert_eq!(of("HF_HUB_CACHE", odd("/h")).hub_cache, Path::new(&odd("/h")));
        assert_eq!(of("TINTYPE_CACHE", odd("/c")).cache, Path::new(&odd("/c")));
        let named = of("TINTYPE_CATALOGUE", odd("/m"));
        assert_eq!(named.catalogue.as_deref(), Some(Path::new(&odd("/m"))));
        let below = of("TINTYPE_CACHE", "$ODD/x".into()).cache;
        assert_eq!(below, Path::new(&odd("/disk")).join("x"));
        // What has to be Unicode is not taken for what is not set.
        let endpoint = of("HF_ENDPOINT", odd("https://mirror.example")).endpoint;
        assert_eq!(endpoint, "https://mirror.example\u{fffd}");
        assert!(of("HF_TOKEN", odd("hf_")).token.is_some());
    }

    #[test]
    fn true_is_what_python_takes_for_true() {
        for yes in ["1", "on", "YES", "True"] {
            assert!(of(&[("HF_HUB_OFFLINE", yes)]).offline, "{yes}");
        }
        for no in ["0", "off", "", "2"] {
            assert!(!of(&[("TRANSFORMERS_OFFLINE", no)]).offline, "{no}");
        }
        assert_eq!(
            of(&[("HF_HUB_ETAG_TIMEOUT", "0.5")]).answer_timeout,
            Duration::from_millis(500)
        );
        assert_eq!(of(&[("HF_HUB_ETAG_TIMEOUT", "soon")]).answer_timeout, TIMEOUT);
    }

    #[test]
    fn a_token_goes_to_the_endpoint_alone() {
        let there = of(&[("HF_TOKEN", " secret\n"), ("HF_HOME", "/none")]);
        assert!(there.token_for("https://huggingface.co/a/b").is_some());
        assert!(there.token_for("https://huggingface.co:443/a").is_some());
        for other in [
            "https://huggingface.co:8443/a",
            "http://huggingface.co/a",
            "https://cdn.huggingface.co/a",
        ] {
            assert!(there.token_for(other).is_none(), "{other}");
        }
        assert!(!format!("{there:?}").contains("secret"));
        let open = of(&[("HF_TOKEN", "s"), ("HF_ENDPOINT", "http://mirror.example")]);
        assert!(
            open.token_for("http://mirror.example/a").is_none(),
            "it would travel in the clear"
        );
        let here = of(&[("HF_TOKEN", "s"), ("HF_ENDPOINT", "http://127.0.0.1:8000")]);
        assert!(here.token_for("http://127.0.0.1:8000/a").is_some());
        assert!(here.token_for("http://127.0.0.1:8001/a").is_none());
        let none = of(&[("HF_TOKEN", "s"), ("HF_HUB_DISABLE_IMPLICIT_TOKEN", "1")]);
        assert!(none.token.is_none());
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join("token"), "of a file\n").expect("it is written");
        let file = of(&[("HF_HOME", &folder.path().display().to_string())]);
        assert_eq!(file.token, Some(Token("of a file".into())));
    }
}
