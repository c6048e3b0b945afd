//! Requests and answers in one of the two encodings, both spoken by hand; the suite sees JSON values.

use crate::cbor;
use crate::model::Model;
use serde_json::{Map, Value};
use support::RawClient;
use support::client::CallError;

/// How bodies are encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Encoding {
    Json,
    Cbor,
}

impl Encoding {
    /// Its content type.
    pub(crate) fn content_type(self) -> &'static str {
        match self {
            Encoding::Json => "application/x-amz-json-1.1",
            Encoding::Cbor => "application/x-amz-cbor-1.1",
        }
    }

    /// A value of a shape.
    pub(crate) fn encode(self, model: &Model, shape: &Value, value: &Value) -> Vec<u8> {
        match self {
            Encoding::Json => value.to_string().into_bytes(),
            Encoding::Cbor => {
                let mut bytes = Vec::new();
                let value = cbor::encode(model, shape, value);
                ciborium::into_writer(&value, &mut bytes).expect("a vector takes it");
                bytes
            }
        }
    }

    /// A value of a shape, out of all these bytes; the shape `null` takes anything.
    pub(crate) fn decode(
        self,
        model: &Model,
        shape: &Value,
        mut bytes: &[u8],
    ) -> Result<Value, String> {
        match self {
            Encoding::Json => serde_json::from_slice(bytes).map_err(|error| error.to_string()),
            Encoding::Cbor => {
                let value: ciborium::Value =
                    ciborium::from_reader(&mut bytes).map_err(|error| error.to_string())?;
                if !bytes.is_empty() {
                    return Err(format!("{} bytes follow the answer", bytes.len()));
                }
                cbor::decode(model, shape, &value)
            }
        }
    }
}

/// A client of an endpoint that speaks one encoding.
#[derive(Debug, Clone)]
pub(crate) struct Exchange {
    pub(crate) model: &'static Model,
    pub(crate) encoding: Encoding,
    client: RawClient,
}

impl Exchange {
    pub(crate) async fn with(url: &str, encoding: Encoding) -> Exchange {
        Exchange {
            model: Model::get().await,
            encoding,
            client: RawClient::new(url),
        }
    }

    /// Calls an operation. An operation without an output answers `null` and sends no body.
    ///
    /// # Panics
    /// The answer is not of the encoding or not of the types of the model.
    pub(crate) async fn call(&self, operation: &str, input: &Value) -> Result<Value, CallError> {
        let (status, response) = self.send(operation, input).await?;
        let headers = response.headers().clone();
        let body = response.bytes().await.map_err(CallError::unanswered)?;
        assert!(headers.contains_key("x-amzn-requestid"), "{headers:?}");
        if !body.is_empty() {
            let content_type = self.encoding.content_type();
            assert_eq!(headers["content-type"], content_type, "{operation}");
        }
        if status != 200 {
            return Err(self.refused(operation, status, &body));
        }
        match self.model.output(operation) {
            None => {
                assert!(
                    body.is_empty(),
                    "{operation} has no output, and answers {body:?}"
                );
                Ok(Value::Null)
            }
            Some(shape) => {
                let answer = self.encoding.decode(self.model, shape, &body);
                Ok(answer.unwrap_or_else(|why| panic!("{operation} answers {body:?}: {why}")))
            }
        }
    }

    /// Sends a request; its status, and the answer whose body is not read yet.
    pub(crate) async fn send(
        &self,
        operation: &str,
        input: &Value,
    ) -> Result<(u16, reqwest::Response), CallError> {
        let content_type = self.encoding.content_type();
        let shape = self.model.input(operation);
        let body = self.encoding.encode(self.model, shape, input);
        let response = self.client.send(operation, content_type, body).await?;
        Ok((response.status().as_u16(), response))
    }

    /// An error answer.
    pub(crate) fn refused(&self, operation: &str, status: u16, body: &[u8]) -> CallError {
        let decoded = self.encoding.decode(self.model, &Value::Null, body);
        let members: Map<String, Value> = match decoded {
            Ok(Value::Object(members)) => members,
            other => panic!("{operation} answers {status} with {body:?}: {other:?}"),
        };
        let text = |name: &str| {
            let text = members.get(name).and_then(Value::as_str);
            text.unwrap_or_default().to_owned()
        };
        // SerializationException has a capital M.
        let message = text("message") + &text("Message");
        CallError::Refused {
            status,
            code: text("__type"),
            message,
        }
    }
}
