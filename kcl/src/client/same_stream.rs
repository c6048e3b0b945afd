//! A client that gives no iterator of another stream of the same name (K13).
//!
//! Streams are asked for by name, and one that was deleted and created anew has the same name and the same shard ids. An iterator after a
//! sequence number is refused by the new stream, for the number is not its own; one at the beginning or at a time is not. So such an iterator
//! is given out only once a description *asked for after it was made* still shows the stream that the worker is there for. One description serves
//! all that wait for one.

use super::{
    IteratorStart, KinesisApi, PutRecord, RecordsPage, Shard, StreamConsumer, StreamSummary,
    SubscribeRequest, Subscription,
};
use crate::clock::{self, Instant};
use crate::error::{Error, ErrorKind};
#[cfg(test)]
use crate::seeded_bug::{Bug, made};
use async_trait::async_trait;
use millstream_wire::SequenceNumber;
use std::sync::Arc;
use tokio::sync::Mutex;

/// The stream with this identity, and no other.
#[derive(Debug)]
pub(crate) struct SameStream {
    inner: Arc<dyn KinesisApi>,
    identity: String,
    /// When the last description that showed it was asked for. An async mutex because it is held across the call: who waits for it needs
    /// no call of its own.
    seen: Mutex<Option<Instant>>,
}

impl SameStream {
    pub(crate) fn new(inner: Arc<dyn KinesisApi>, identity: String) -> Self {
        SameStream {
            inner,
            identity,
            seen: Mutex::new(None),
        }
    }

    /// Proves that the stream was still there at an instant before this call.
    async fn confirm(&self, stream: &str) -> Result<(), Error> {
        let at = clock::now();
        let mut seen = self.seen.lock().await;
        if seen.is_some_and(|seen| at < seen) {
            return Ok(());
        }
        let asked = clock::now();
        let found = self.inner.describe_stream(stream).await?.identity();
        let same = found == self.identity;
        #[cfg(test)]
        let same = same || made(Bug::AnyStream);
        if !same {
            return Err(other(stream, &found, &self.identity));
        }
        *seen = Some(asked);
        Ok(())
    }

    /// The same where the start does not tell streams apart.
    async fn confirm_start(&self, stream: &str, start: IteratorStart) -> Result<(), Error> {
        match start {
            IteratorStart::TrimHorizon | IteratorStart::AtTimestamp(_) => {
                self.confirm(stream).await
            }
            IteratorStart::AtSequence(_) | IteratorStart::AfterSequence(_) => Ok(()),
        }
    }

    fn arn(&self) -> &str {
        let (arn, _) = self
            .identity
            .rsplit_once('@')
            .unwrap_or((&self.identity, ""));
        arn
    }
}

/// The stream of this name is another one by now.
pub(crate) fn other(stream: &str, found: &str, expected: &str) -> Error {
    Error::new(
        ErrorKind::NotFound,
        format!(
            "stream {stream} was deleted and created anew: it is {found}, the leases belong to {expected}; start the worker again to begin with the new stream"
        ),
    )
}

#[async_trait]
impl KinesisApi for SameStream {
    async fn describe_stream(&self, stream: &str) -> Result<StreamSummary, Error> {
        self.inner.describe_stream(stream).await
    }

    async fn list_shards(&self, stream: &str) -> Result<Vec<Shard>, Error> {
        self.inner.list_shards(stream).await
    }

    async fn shard_iterator(
        &self,
        stream: &str,
        shard_id: &str,
        start: IteratorStart,
    ) -> Result<String, Error> {
        let iterator = self.inner.shard_iterator(stream, shard_id, start).await?;
        self.confirm_start(stream, start).await?;
        Ok(iterator)
    }

    async fn get_records(&self, iterator: &str, limit: u32) -> Result<RecordsPage, Error> {
        self.inner.get_records(iterator, limit).await
    }

    async fn put_record(&self, record: PutRecord<'_>) -> Result<SequenceNumber, Error> {
        self.inner.put_record(record).await
    }

    /// A consumer's ARN holds when it was registered, so it names none of a later stream; but it must not be that stream's itself.
    async fn register_consumer(
        &self,
        stream_arn: &str,
        name: &str,
    ) -> Result<StreamConsumer, Error> {
        let consumer = self.inner.register_consumer(stream_arn, name).await?;
        self.confirm(stream_arn).await?;
        Ok(consumer)
    }

    async fn describe_consumer(&self, consumer_arn: &str) -> Result<StreamConsumer, Error> {
        self.inner.describe_consumer(consumer_arn).await
    }

    /// Consumers of both streams that were registered within one second have the same ARN.
    async fn subscribe(
        &self,
        request: SubscribeRequest<'_>,
    ) -> Result<Box<dyn Subscription>, Error> {
        let subscription = self.inner.subscribe(request).await?;
        self.confirm_start(self.arn(), request.start).await?;
        Ok(subscription)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::{FakeKinesis, shard_id};
    use std::time::Duration;

    const BEGINNING: IteratorStart = IteratorStart::TrimHorizon;

    async fn of_now(kinesis: &FakeKinesis) -> SameStream {
        let summary = kinesis.describe_stream("orders").await.unwrap();
        SameStream::new(Arc::new(kinesis.clone()), summary.identity())
    }

    #[tokio::test(start_paused = true)]
    async fn k13_no_iterator_of_a_stream_created_anew() {
        let kinesis = FakeKinesis::new(2);
        let stream = of_now(&kinesis).await;
        for start in [BEGINNING, IteratorStart::AtTimestamp(1)] {
            let iterator = stream.shard_iterator("orders", &shard_id(0), start).await;
            iterator.unwrap();
        }
        kinesis.recreate();
        for start in [BEGINNING, IteratorStart::AtTimestamp(1)] {
            let iterator = stream.shard_iterator("orders", &shard_id(0), start).await;
            assert_eq!(iterator.unwrap_err().kind(), ErrorKind::NotFound);
        }
    }

    /// Goal: no subscription to another stream of the same name, and no consumer registered with it is used. Method: a stream created
    /// anew, whose consumer happens to have the same ARN.
    #[tokio::test(start_paused = true)]
    async fn k13_no_subscription_to_a_stream_created_anew() {
        let kinesis = FakeKinesis::new(1);
        let stream = of_now(&kinesis).await;
        let summary = kinesis.describe_stream("orders").await.unwrap();
        let consumer = stream.register_consumer(&summary.arn, "app").await.unwrap();
        let shard_id = shard_id(0);
        let request = SubscribeRequest {
            consumer_arn: &consumer.arn,
            shard_id: &shard_id,
            start: BEGINNING,
        };
        stream.subscribe(request).await.unwrap();
        kinesis.recreate();
        let refused = stream.register_consumer(&summary.arn, "app").await;
        assert_eq!(refused.unwrap_err().kind(), ErrorKind::NotFound);
        let consumer = kinesis
            .register_consumer(&summary.arn, "app")
            .await
            .unwrap();
        let request = SubscribeRequest {
            consumer_arn: &consumer.arn,
            ..request
        };
        kinesis.subscribe(request).await.unwrap();
        let refused = stream.subscribe(request).await;
        assert_eq!(refused.unwrap_err().kind(), ErrorKind::NotFound);
    }

    /// Goal: a thousand shards that begin at once do not ask a thousand times. Method: every call takes a millisecond.
    #[tokio::test(start_paused = true)]
    async fn one_description_serves_all_that_wait() {
        let kinesis = FakeKinesis::new(1);
        let stream = Arc::new(of_now(&kinesis).await);
        let began = clock::now();
        let mut all = tokio::task::JoinSet::new();
        for _ in 0..1000 {
            let stream = Arc::clone(&stream);
            all.spawn(async move {
                let iterator = stream
                    .shard_iterator("orders", &shard_id(0), BEGINNING)
                    .await;
                iterator.unwrap();
            });
        }
        all.join_all().await;
        let took = clock::now() - began;
        assert!(took < Duration::from_millis(10), "it took {took:?}");
    }
}
