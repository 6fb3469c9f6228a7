//! HTTP/1.1 as a client needs it inside a lab: requests to bytes, bytes to responses.

use std::fmt::Write;

use super::outcome::Refusal;

/// Largest head of a response; a server that sends more is not speaking HTTP.
const HEAD_BYTES_MAX: usize = 64 * 1024;

/// Largest body that is taken.
pub const BODY_BYTES_MAX: usize = 32 * 1024 * 1024;

/// Where a request goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Url {
    pub host: String,
    pub port: u16,
    /// With the query, beginning with a slash.
    pub target: String,
    pub credentials: Option<String>,
}

impl Url {
    pub fn parse(text: &str) -> Result<Self, Refusal> {
        let rest = match text.split_once("://") {
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("http") => rest,
            Some((scheme, _)) => {
                let why = format!("`{text}`: {scheme} is not spoken here, only http");
                return Err(Refusal::new(why));
            }
            None => {
                return Err(Refusal::new(format!(
                    "`{text}` does not begin with http://"
                )));
            }
        };
        let rest = rest.split('#').next().unwrap_or(rest);
        let (authority, target) = match rest.find(['/', '?']) {
            Some(at) => rest.split_at(at),
            None => (rest, "/"),
        };
        let (credentials, address) = match authority.rsplit_once('@') {
            Some((credentials, address)) => (Some(credentials.to_owned()), address),
            None => (None, authority),
        };
        let (host, port) = split_port(address);
        let wrong = || Refusal::new(format!("`{text}` names no host and port"));
        if host.is_empty()
            || target.contains(|char: char| char.is_whitespace() || char.is_control())
        {
            return Err(wrong());
        }
        Ok(Self {
            host: host.trim_matches(['[', ']']).to_owned(),
            port: port.map_or(Ok(80), str::parse).map_err(|_| wrong())?,
            target: if target.starts_with('/') {
                target.to_owned()
            } else {
                format!("/{target}")
            },
            credentials,
        })
    }

    /// Returns the URL that a `Location` names, seen from this one.
    pub fn join(&self, location: &str) -> Result<Self, Refusal> {
        if location.contains("://") {
            return Self::parse(location);
        }
        let target = if location.starts_with('/') {
            location.to_owned()
        } else {
            let path = self.target.split('?').next().unwrap_or("/");
            let directory = path.rsplit_once('/').map_or("", |(directory, _)| directory);
            format!("{directory}/{location}")
        };
        Ok(Self {
            target,
            ..self.clone()
        })
    }

    /// Returns the `Host` field.
    pub fn authority(&self) -> String {
        let host = if self.host.contains(':') {
            format!("[{}]", self.host)
        } else {
            self.host.clone()
        };
        match self.port {
            80 => host,
            port => format!("{host}:{port}"),
        }
    }
}

fn split_port(address: &str) -> (&str, Option<&str>) {
    let after_bracket = address.rfind(']').unwrap_or(0);
    match address[after_bracket..].rfind(':') {
        Some(at) => {
            let at = after_bracket + at;
            (&address[..at], Some(&address[at + 1..]))
        }
        None => (address, None),
    }
}

/// One request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request<'a> {
    pub method: &'a str,
    pub url: &'a Url,
    pub headers: Vec<(String, String)>,
    pub body: &'a [u8],
    /// Whether the connection stays open afterwards.
    pub keep_open: bool,
}

impl Request<'_> {
    pub fn encode(&self) -> Result<Vec<u8>, Refusal> {
        let is_token =
            |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic());
        if !is_token(self.method) {
            return Err(Refusal::new(format!("`{}` is not a method", self.method)));
        }
        let mut head = format!("{} {} HTTP/1.1\r\n", self.method, self.url.target);
        let given = |name: &str| {
            self.headers
                .iter()
                .any(|(known, _)| known.eq_ignore_ascii_case(name))
        };
        let mut field = |name: &str, value: &str| {
            write!(head, "{name}: {value}\r\n").expect("writing to a text cannot fail");
        };
        if !given("host") {
            field("Host", &self.url.authority());
        }
        if !given("connection") {
            field(
                "Connection",
                if self.keep_open {
                    "keep-alive"
                } else {
                    "close"
                },
            );
        }
        if !given("accept") {
            field("Accept", "*/*");
        }
        if !self.body.is_empty() || matches!(self.method, "POST" | "PUT" | "PATCH") {
            field("Content-Length", &self.body.len().to_string());
        }
        for (name, value) in &self.headers {
            if !is_token(name) || name.contains(':') || value.contains(['\r', '\n']) {
                return Err(Refusal::new(format!("`{name}` cannot be sent as a header")));
            }
            field(name, value);
        }
        head.push_str("\r\n");
        let mut bytes = head.into_bytes();
        bytes.extend_from_slice(self.body);
        Ok(bytes)
    }
}

/// One whole response.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Response {
    pub status: u16,
    pub reason: String,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Response {
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self
            .headers
            .iter()
            .find(|(known, _)| known.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// Returns where a redirection leads.
    pub fn redirection(&self) -> Option<&str> {
        match self.status {
            301 | 302 | 303 | 307 | 308 => self.header("location"),
            _ => None,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HttpError {
    #[error("the answer is not HTTP: `{0}`")]
    NotHttp(String),
    #[error("the answer's head is longer than {HEAD_BYTES_MAX} bytes")]
    HeadTooLong,
    #[error("the answer's body is longer than {BODY_BYTES_MAX} bytes")]
    BodyTooLong,
    #[error("the answer's chunks are broken")]
    Chunks,
    #[error("the connection ended within the answer")]
    CutOff,
}

/// Collects an answer's bytes until it is whole.
#[derive(Debug)]
pub struct Reader {
    bytes: Vec<u8>,
    /// The answer to HEAD has no body, whatever its head says.
    has_body: bool,
}

/// How far the answer's body goes.
enum Extent {
    Length(usize),
    Chunked,
    UntilEnd,
}

impl Reader {
    pub fn new(method: &str) -> Self {
        Self {
            bytes: Vec::new(),
            has_body: method != "HEAD",
        }
    }

    pub fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// Returns the response when it is whole; `at_end`: no more bytes will come.
    pub fn response(&self, at_end: bool) -> Result<Option<Response>, HttpError> {
        let more = || {
            if at_end {
                Err(HttpError::CutOff)
            } else {
                Ok(None)
            }
        };
        let Some(head_length) = find(&self.bytes, b"\r\n\r\n") else {
            if self.bytes.len() > HEAD_BYTES_MAX {
                return Err(HttpError::HeadTooLong);
            }
            return more();
        };
        let mut response = parse_head(&self.bytes[..head_length])?;
        let rest = &self.bytes[head_length + 4..];
        if (100..200).contains(&response.status) {
            let rest = Self {
                bytes: rest.to_vec(),
                has_body: self.has_body,
            };
            return rest.response(at_end);
        }
        match self.extent(&response)? {
            Extent::Length(length) if rest.len() < length => return more(),
            Extent::Length(length) => response.body = rest[..length].to_vec(),
            Extent::Chunked => match chunks(rest)? {
                None => return more(),
                Some(body) => response.body = body,
            },
            Extent::UntilEnd if rest.len() > BODY_BYTES_MAX => return Err(HttpError::BodyTooLong),
            Extent::UntilEnd if !at_end => return Ok(None),
            Extent::UntilEnd => response.body = rest.to_vec(),
        }
        Ok(Some(response))
    }

    fn extent(&self, response: &Response) -> Result<Extent, HttpError> {
        if !self.has_body || matches!(response.status, 204 | 304) {
            return Ok(Extent::Length(0));
        }
        let encoding = response.header("transfer-encoding").unwrap_or("");
        if encoding.to_ascii_lowercase().contains("chunked") {
            return Ok(Extent::Chunked);
        }
        match response.header("content-length") {
            None => Ok(Extent::UntilEnd),
            Some(length) => {
                let length = length
                    .trim()
                    .parse()
                    .map_err(|_| HttpError::NotHttp(length.to_owned()))?;
                if length > BODY_BYTES_MAX {
                    Err(HttpError::BodyTooLong)
                } else {
                    Ok(Extent::Length(length))
                }
            }
        }
    }
}

fn parse_head(head: &[u8]) -> Result<Response, HttpError> {
    let head = String::from_utf8_lossy(head);
    let mut lines = head.split("\r\n");
    let first = lines.next().unwrap_or_default();
    let not_http = || HttpError::NotHttp(first.chars().take(80).collect());
    let rest = first.strip_prefix("HTTP/1.").ok_or_else(not_http)?;
    let mut words = rest.splitn(3, ' ').skip(1);
    let status = words.next().and_then(|word| word.parse().ok());
    Ok(Response {
        status: status
            .filter(|status| (100..1000).contains(status))
            .ok_or_else(not_http)?,
        reason: words.next().unwrap_or_default().to_owned(),
        headers: lines
            .filter_map(|line| line.split_once(':'))
            .map(|(name, value)| (name.trim().to_owned(), value.trim().to_owned()))
            .collect(),
        body: Vec::new(),
    })
}

/// Puts the chunks of a body together; `None`: the last one has not come.
fn chunks(mut rest: &[u8]) -> Result<Option<Vec<u8>>, HttpError> {
    let mut body = Vec::new();
    loop {
        let Some(end) = find(rest, b"\r\n") else {
            return Ok(None);
        };
        let line = String::from_utf8_lossy(&rest[..end]);
        let size = line.split(';').next().unwrap_or_default().trim();
        let size = usize::from_str_radix(size, 16).map_err(|_| HttpError::Chunks)?;
        if size > BODY_BYTES_MAX - body.len() {
            return Err(HttpError::BodyTooLong);
        }
        rest = &rest[end + 2..];
        if size == 0 {
            // What follows are trailers, which nobody reads here.
            return Ok(
                (rest.starts_with(b"\r\n") || find(rest, b"\r\n\r\n").is_some()).then_some(body),
            );
        }
        let (Some(chunk), Some(end)) = (rest.get(..size), rest.get(size..size + 2)) else {
            return Ok(None);
        };
        if end != b"\r\n" {
            return Err(HttpError::Chunks);
        }
        body.extend_from_slice(chunk);
        rest = &rest[size + 2..];
    }
}

fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes
        .windows(wanted.len())
        .position(|window| window == wanted)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn urls_are_taken_apart() {
        let url = Url::parse("http://ann:x@10.0.0.1:8080/a?b#c").expect("valid");
        assert_eq!(
            (url.host.as_str(), url.port, url.target.as_str()),
            ("10.0.0.1", 8080, "/a?b")
        );
        assert_eq!(url.credentials.as_deref(), Some("ann:x"));
        let url = Url::parse("http://[::1]").expect("valid");
        assert_eq!(
            (url.host.as_str(), url.port, url.authority().as_str()),
            ("::1", 80, "[::1]")
        );
        assert_eq!(Url::parse("http://h?q").expect("valid").target, "/?q");
        for wrong in ["https://h/", "h", "http://", "http://h:x/", "http://h/a b"] {
            assert!(Url::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_redirection_is_seen_from_where_it_came() {
        let url = Url::parse("http://h/a/b?q").expect("valid");
        assert_eq!(url.join("c").expect("valid").target, "/a/c");
        assert_eq!(url.join("/c").expect("valid").target, "/c");
        assert_eq!(url.join("http://g/").expect("valid").host, "g");
    }

    #[test]
    fn a_request_has_what_servers_need_and_nothing_smuggled() {
        let url = Url::parse("http://h:81/x").expect("valid");
        let mut request = Request {
            method: "GET",
            url: &url,
            headers: vec![],
            body: b"",
            keep_open: false,
        };
        let text = String::from_utf8(request.encode().expect("valid")).expect("text");
        assert_eq!(
            text,
            "GET /x HTTP/1.1\r\nHost: h:81\r\nConnection: close\r\nAccept: */*\r\n\r\n"
        );
        request.headers = vec![("X".to_owned(), "a\r\nY: b".to_owned())];
        request.encode().unwrap_err();
    }

    fn read(bytes: &[u8], cut: usize) -> Result<Option<Response>, HttpError> {
        let mut reader = Reader::new("GET");
        for piece in bytes.chunks(cut) {
            reader.push(piece);
            if let Some(response) = reader.response(false)? {
                return Ok(Some(response));
            }
        }
        reader.response(true)
    }

    proptest! {
        #[test]
        fn answers_are_whole_however_they_are_cut(cut in 1usize..40) {
            let plain = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabcMORE";
            let chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2;x\r\nab\r\n1\r\nc\r\n0\r\n\r\n";
            let until_end = b"HTTP/1.0 200 OK\r\n\r\nabc";
            for bytes in [&plain[..], chunked, until_end] {
                let response = read(bytes, cut).expect("valid").expect("whole");
                prop_assert_eq!((response.status, response.text()), (200, "abc".to_owned()));
            }
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), chunked in any::<bool>()) {
            let head: &[u8] = if chunked { b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" } else { b"" };
            let _ = read(&[head, &bytes].concat(), 7);
        }
    }

    #[test]
    fn what_ends_early_or_is_no_http_is_an_error() {
        assert_eq!(
            read(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc", 100),
            Err(HttpError::CutOff)
        );
        assert!(matches!(
            read(b"SSH-2.0-x\r\n\r\n", 100),
            Err(HttpError::NotHttp(_))
        ));
    }
}
