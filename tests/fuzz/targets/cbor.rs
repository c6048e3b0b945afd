//! CBOR of whatever shape, and of the two with the most in them.

use crate::engine::{Target, outcome, shape};
use millstream_wire::cbor;
use millstream_wire::shapes::{GetRecordsResponse, PutRecordsRequest};
use serde::de::IgnoredAny;

pub(crate) struct Cbor;

impl Target for Cbor {
    fn seeds(&self) -> Vec<Vec<u8>> {
        let seeds: [&[u8]; 9] = [
            b"\xbf\x6aStreamName\x66orders\x67Records\x9f\xbf\x64Data\x45hello\x6cPartitionKey\x61k\xff\xff\xff",
            b"\xbf\x67Records\x9f\xbf\x6eSequenceNumber\x615\x64Data\x41x\x6cPartitionKey\x61k\x78\x1bApproximateArrivalTimestamp\xc1\x1b\x00\x00\x01\x8b\xcf\xe5\x68\x00\xff\xff\x72MillisBehindLatest\x00\xff",
            b"\xa1\x61a\xfb\x3f\xf8\x00\x00\x00\x00\x00\x00",
            b"\x9f\x01\x20\xf9\x3c\x00\xff",
            b"\xbf\x7f\x61a\x61b\xff\x5f\x41a\x41b\xff\xff",
            b"\xc1\x01",
            b"\xf6",
            b"\xd9\xd9\xf7\xa0",
            b"",
        ];
        seeds.map(<[u8]>::to_vec).to_vec()
    }

    fn tokens(&self) -> &'static [&'static [u8]] {
        &[
            b"\xbf",
            b"\xff",
            b"\x9f",
            b"\x5f",
            b"\x7f",
            b"\xf6",
            b"\xf7",
            b"\xc1",
            b"\xdb\xff\xff\xff\xff\xff\xff\xff\xff",
            b"\x5b\xff\xff\xff\xff\xff\xff\xff\xff",
            b"\x9b\x00\x00\x00\x01\x00\x00\x00\x00",
            b"\xbb\x80\x00\x00\x00\x00\x00\x00\x00",
            b"\x1b",
            b"\x3b",
            b"\xf8\x20",
            b"\xfc",
            b"\x1c",
            b"\x64Data",
            b"\x67Records",
        ]
    }

    fn run(&mut self, input: &[u8]) -> u64 {
        let any = cbor::from_slice::<IgnoredAny>(input);
        assert!(any.is_ok() || !cbor::is_map(input));
        let put = cbor::from_slice::<PutRecordsRequest<'_>>(input);
        if let Ok(put) = &put {
            let written = cbor::to_vec(put).unwrap();
            assert_eq!(
                &cbor::from_slice::<PutRecordsRequest<'_>>(&written).unwrap(),
                put
            );
        }
        let page = cbor::from_slice::<GetRecordsResponse>(input);
        if let Ok(page) = &page {
            let written = cbor::to_vec(page).unwrap();
            assert_eq!(
                &cbor::from_slice::<GetRecordsResponse>(&written).unwrap(),
                page
            );
        }
        let put = outcome(&put, |put| shape(put.records.is_some()));
        let page = outcome(&page, |page| shape(page.records.len().min(3)));
        put ^ page.rotate_left(1) ^ outcome(&any, |_| 1).rotate_left(2)
    }
}
