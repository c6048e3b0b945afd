//! Where requests go and how they look: endpoint, encoding, authorization. One request at a time on a connection.
//!
//! A [`Request`] is made once and sent often, so that the client takes as little of the machine as it can from the server it measures.

pub mod h1;
pub mod h2;
mod head;
mod sign;

use bytes::Bytes;
use clap::ValueEnum;
use http::HeaderMap;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::io;

/// An answer may be no longer: `GetRecords` gives 10 MiB of data at most, a third more in Base64, and what is around it.
const ANSWER_MAX_BYTES: usize = 64 << 20;

/// How bodies are encoded.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Encoding {
    /// AWS JSON 1.1.
    #[default]
    Json,
    /// CBOR, as the SDKs for Java speak it.
    Cbor,
}

impl Encoding {
    /// The value of `Content-Type` that stands for it.
    pub fn content_type(self) -> &'static str {
        match self {
            Encoding::Json => "application/x-amz-json-1.1",
            Encoding::Cbor => "application/x-amz-cbor-1.1",
        }
    }
}

/// What requests are authorized with.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Auth {
    /// A header that names a key and has a signature of zeros: for servers that check none.
    #[default]
    Fixed,
    /// Signature Version 4 over each body. One that is sent again keeps its signature, which is good for five minutes.
    Sigv4,
}

/// Which HTTP is spoken.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
pub enum Http {
    /// HTTP/1.1, connections kept.
    #[default]
    #[value(name = "1")]
    #[serde(rename = "1")]
    One,
    /// HTTP/2 with prior knowledge.
    #[value(name = "2")]
    #[serde(rename = "2")]
    Two,
}

/// Where requests go, and what they have in common.
#[derive(Debug, Clone)]
pub struct Endpoint {
    /// `host:port`.
    pub host: String,
    /// What is spoken there.
    pub http: Http,
    /// How bodies are encoded, those of [`Endpoint::control`] excepted.
    pub encoding: Encoding,
    /// What requests are authorized with.
    pub auth: Auth,
}

/// A request that can be sent many times.
#[derive(Debug, Clone)]
pub struct Request {
    /// Its head in HTTP/1.1, with the empty line at the end.
    head: Bytes,
    /// Its headers in HTTP/2.
    headers: HeaderMap,
    /// The whole URI in HTTP/2.
    uri: http::Uri,
    body: Bytes,
}

impl Request {
    /// Its body.
    pub fn body(&self) -> &Bytes {
        &self.body
    }
}

/// An answer; its body lies in the connection until the next request.
#[derive(Debug, Clone, Copy)]
pub struct Answer<'c> {
    /// The HTTP status.
    pub status: u16,
    /// The body.
    pub body: &'c [u8],
}

impl<'c> Answer<'c> {
    /// The body of a success; anything else is an error with what the server said.
    pub fn success(self, operation: &str) -> io::Result<&'c [u8]> {
        if self.status == 200 {
            return Ok(self.body);
        }
        let said = String::from_utf8_lossy(self.body);
        let said: String = said.chars().take(500).collect();
        Err(io::Error::other(format!(
            "{operation}: status {}: {said}",
            self.status
        )))
    }

    /// Whether the server is too busy to answer now.
    pub fn is_busy(self) -> bool {
        self.status == 503
    }
}

impl Endpoint {
    /// Of a URL, or of `host:port`. TLS is not spoken.
    pub fn parse(given: &str) -> Result<Endpoint, String> {
        let host = given.strip_prefix("http://").unwrap_or(given);
        let host = host.trim_end_matches('/');
        let port = host.rsplit_once(':').map(|(_, port)| port.parse::<u16>());
        if host.contains('/') || !matches!(port, Some(Ok(_))) {
            return Err(format!(
                "{given:?} is no endpoint: write http://HOST:PORT, without a path"
            ));
        }
        Ok(Endpoint {
            host: host.to_owned(),
            http: Http::default(),
            encoding: Encoding::default(),
            auth: Auth::default(),
        })
    }

    /// A request for `operation`.
    pub fn request(&self, operation: &str, body: Bytes) -> io::Result<Request> {
        let kind = self.encoding.content_type();
        let authorization = match self.auth {
            Auth::Fixed => sign::fixed(),
            Auth::Sigv4 => sign::signed(&self.host, kind, &body)?,
        };
        let uri = format!("http://{}/", self.host);
        let uri = uri.parse().map_err(io::Error::other)?;
        let target = format!("Kinesis_20131202.{operation}");
        let mut lines = vec![("content-type", kind), ("x-amz-target", &target)];
        let signed = authorization.iter();
        lines.extend(signed.map(|(name, value)| (name.as_str(), value.as_str())));
        Ok(Request {
            head: head::write(&self.host, &lines, body.len()),
            headers: head::headers(&lines).map_err(io::Error::other)?,
            uri,
            body,
        })
    }

    /// A connection.
    pub async fn connect(&self) -> io::Result<Connection> {
        Ok(match self.http {
            Http::One => Connection::One(h1::Connection::open(&self.host).await?),
            Http::Two => Connection::Two(h2::Connection::open(&self.host).await?),
        })
    }

    /// Calls an operation once, on a connection of its own and in JSON: for what is not measured.
    pub async fn control(&self, operation: &str, body: &Value) -> io::Result<Value> {
        let plain = Endpoint {
            http: Http::One,
            encoding: Encoding::Json,
            ..self.clone()
        };
        let request = plain.request(operation, Bytes::from(body.to_string()))?;
        let mut connection = plain.connect().await?;
        let answer = connection.send(&request).await?.success(operation)?;
        if answer.is_empty() {
            return Ok(Value::Null);
        }
        serde_json::from_slice(answer).map_err(io::Error::other)
    }
}

/// A connection; dropping it closes it.
#[derive(Debug)]
pub enum Connection {
    /// In HTTP/1.1.
    One(h1::Connection),
    /// In HTTP/2.
    Two(h2::Connection),
}

impl Connection {
    /// Sends a request and waits for the whole answer.
    ///
    /// # Cancel safety
    /// None: a connection whose request was given up is in the middle of it.
    pub async fn send(&mut self, request: &Request) -> io::Result<Answer<'_>> {
        match self {
            Connection::One(connection) => connection.send(request).await,
            Connection::Two(connection) => connection.send(request).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_are_urls_without_a_path() {
        for given in [
            "http://127.0.0.1:80",
            "127.0.0.1:80",
            "http://127.0.0.1:80/",
        ] {
            assert_eq!(Endpoint::parse(given).unwrap().host, "127.0.0.1:80");
        }
        for given in [
            "",
            "http://127.0.0.1",
            "https://h:1/x",
            "h:http",
            "https://h:1",
        ] {
            Endpoint::parse(given).unwrap_err();
        }
    }
}
