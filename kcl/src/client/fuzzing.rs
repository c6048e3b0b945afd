//! The decoders for the fuzz suite of this workspace, which has no other way to them. Not part of the API.

use crate::client::dialect::encoding_of;
use crate::client::json::RecordsAnswer;
use crate::client::{RecordsPage, cbor, subscribe};
use crate::error::{Error, ErrorKind};
use bytes::Bytes;
use millstream_wire::Encoding;

/// What came of an event stream.
#[derive(Debug, Default)]
pub struct Events {
    /// Events.
    pub events: usize,
    /// Records in them.
    pub records: usize,
    /// What ended it, unless it ended in order.
    pub error: Option<Error>,
}

/// The answer to `SubscribeToShard`, to its end. To be called within a runtime with time.
pub async fn events(body: Vec<u8>) -> Events {
    let mut read = Events::default();
    let mut subscription = match subscribe::of_answer(body).await {
        Ok(subscription) => subscription,
        Err(error) => {
            read.error = Some(error);
            return read;
        }
    };
    loop {
        subscription.begun().await;
        match subscription.next().await {
            None => return read,
            Some(Ok(event)) => {
                read.events += 1;
                read.records += event.records.len();
            }
            Some(Err(error)) => {
                read.error = Some(error);
                return read;
            }
        }
    }
}

/// The answer to `GetRecords`, in either encoding.
///
/// # Errors
/// `Protocol`: it is none.
pub fn page(body: Vec<u8>) -> Result<RecordsPage, Error> {
    let body = Bytes::from(body);
    match encoding_of(&body) {
        Encoding::Cbor => cbor::records_page(&body),
        Encoding::Json => {
            let answer: RecordsAnswer<'_> = serde_json::from_slice(&body)
                .map_err(|error| Error::with_source(ErrorKind::Protocol, "no page", error))?;
            answer.page()
        }
    }
}
