//! Registered consumers of a stream (enhanced fan-out): register, deregister, find.

use crate::engine::catalog::{Catalog, Change, Consumer, Event, Status, Stream};
use crate::engine::error::ConsumerError;
use crate::engine::reshard::Moment;
use crate::engine::streams::{change_only, check_added_tags, check_tags};
use crate::engine::{Engine, Error, Limits, check_ready};
use millstream_wire::limits::{
    CONSUMERS_CREATING, CONSUMERS_PER_STREAM, CONSUMERS_PER_STREAM_UNLIMITED,
};
use millstream_wire::{ConsumerArn, ConsumerName, StreamArn};
use std::collections::BTreeMap;
use std::sync::Arc;

/// A consumer to be registered.
#[derive(Debug, Clone)]
pub struct NewConsumer {
    /// The stream it will read.
    pub stream: StreamArn,
    /// Its name.
    pub name: ConsumerName,
    /// Its tags.
    pub tags: BTreeMap<String, String>,
}

impl Engine {
    /// Registers a consumer with a stream that is ACTIVE or UPDATING.
    pub async fn register_consumer(&self, new: NewConsumer) -> Result<Consumer, Error> {
        let limits = self.inner.settings.limits;
        let (arn, name) = (new.stream.clone(), new.name.clone());
        let catalog = self
            .transact(move |catalog, moment| registration(catalog, limits, new, moment).map(Some))
            .await?;
        let stream = catalog.stored_stream(&arn);
        let registered = stream.and_then(|stream| stream.consumers.get(name.as_str()));
        registered
            .cloned()
            .ok_or_else(|| ConsumerError::NotFound { stream: arn, name }.into())
    }

    /// Takes a consumer away; one that is DELETING already is left to it.
    pub async fn deregister_consumer(
        &self,
        stream: &StreamArn,
        name: &ConsumerName,
    ) -> Result<(), Error> {
        let catalog = self
            .transact(|catalog, moment| {
                let (_, consumer) = find(catalog, stream, name, moment.now_ms)?;
                let (arn, name) = (stream.clone(), name.clone());
                match consumer.status(moment.now_ms) {
                    Some(Status::Deleting) | None => Ok(None),
                    Some(_) if moment.state_delay_ms == 0 => {
                        Ok(Some(change_only(&Event::ConsumerRemoved { arn, name })))
                    }
                    Some(_) => Ok(Some(change_only(&Event::ConsumerDeregistering {
                        arn,
                        name,
                        gone_ms: moment.settled_ms(),
                    }))),
                }
            })
            .await?;
        if let Some(stored) = catalog.stored_stream(stream) {
            let shards = stored.log_shards();
            self.inner.subscriptions.end_consumer(&shards, name);
        }
        Ok(())
    }

    /// Sets tags of a consumer and removes others.
    pub async fn change_consumer_tags(
        &self,
        consumer: &ConsumerArn,
        added: BTreeMap<String, String>,
        remove: &[String],
    ) -> Result<(), Error> {
        self.set_consumer(consumer, |found| {
            check_added_tags(&consumer.stream, &found.tags, &added)?;
            found.tags.extend(added);
            found.tags.retain(|key, _| !remove.contains(key));
            Ok(())
        })
        .await
    }

    /// Attaches a resource policy to a consumer, or removes it, once the consumer is ACTIVE. Source: an error
    /// of AWS in a public issue (cloudformation-coverage-roadmap 2442).
    pub async fn set_consumer_policy(
        &self,
        consumer: &ConsumerArn,
        policy: Option<String>,
    ) -> Result<(), Error> {
        let now_ms = self.now_ms();
        self.set_consumer(consumer, |found| {
            if let Some(status @ (Status::Creating | Status::Deleting)) = found.status(now_ms) {
                let consumer = consumer.clone();
                return Err(ConsumerError::NotActive { consumer, status }.into());
            }
            found.policy = policy;
            Ok(())
        })
        .await
    }

    async fn set_consumer(
        &self,
        consumer: &ConsumerArn,
        change: impl FnOnce(&mut Consumer) -> Result<(), Error>,
    ) -> Result<(), Error> {
        self.transact(|catalog, moment| {
            let found = find_arn(catalog, consumer, moment.now_ms)?;
            let mut changed = found.clone();
            change(&mut changed)?;
            let event = Event::ConsumerSet {
                arn: consumer.stream.clone(),
                name: consumer.name.clone(),
                tags: changed.tags.clone(),
                policy: changed.policy.clone(),
            };
            Ok((changed != *found).then(|| change_only(&event)))
        })
        .await?;
        Ok(())
    }

    /// The consumer of an ARN, in whatever state.
    pub fn consumer_of(&self, consumer: &ConsumerArn) -> Result<Consumer, Error> {
        find_arn(&self.catalog(), consumer, self.now_ms()).cloned()
    }

    /// A consumer, in whatever state.
    pub fn consumer(&self, stream: &StreamArn, name: &ConsumerName) -> Result<Consumer, Error> {
        let catalog = self.catalog();
        find(&catalog, stream, name, self.now_ms()).map(|(_, consumer)| consumer.clone())
    }

    /// Removes every deregistered consumer whose DELETING time is over.
    pub(super) async fn remove_gone_consumers(&self) -> Result<(), Error> {
        let now_ms = self.now_ms();
        let catalog = self.catalog();
        for stream in catalog.stored_streams() {
            let gone = |consumer: &&Consumer| consumer.status(now_ms).is_none();
            for Consumer { name, .. } in stream.consumers.values().filter(gone) {
                self.remove_if_gone_consumer(&stream.arn, name).await?;
            }
        }
        Ok(())
    }

    async fn remove_if_gone_consumer(
        &self,
        arn: &StreamArn,
        name: &ConsumerName,
    ) -> Result<(), Error> {
        self.transact(|catalog, moment| {
            let stream = catalog.stored_stream(arn);
            let stored = stream.and_then(|stream| stream.consumers.get(name.as_str()));
            let is_gone = stored.is_some_and(|stored| stored.status(moment.now_ms).is_none());
            Ok(is_gone.then(|| {
                change_only(&Event::ConsumerRemoved {
                    arn: arn.clone(),
                    name: name.clone(),
                })
            }))
        })
        .await?;
        Ok(())
    }
}

/// A stream's consumer and the stream.
pub(super) fn find<'a>(
    catalog: &'a Catalog,
    stream: &StreamArn,
    name: &ConsumerName,
    now_ms: u64,
) -> Result<(&'a Arc<Stream>, &'a Consumer), Error> {
    let found = catalog
        .stream(stream, now_ms)
        .ok_or_else(|| Error::StreamNotFound(stream.clone()))?;
    let consumer = found.consumer(name, now_ms);
    let consumer = consumer.ok_or_else(|| ConsumerError::NotFound {
        stream: stream.clone(),
        name: name.clone(),
    })?;
    Ok((found, consumer))
}

/// The consumer of an ARN; one with other seconds names an earlier consumer of this name.
fn find_arn<'a>(
    catalog: &'a Catalog,
    consumer: &ConsumerArn,
    now_ms: u64,
) -> Result<&'a Consumer, Error> {
    let (_, found) = find(catalog, &consumer.stream, &consumer.name, now_ms)?;
    if found.created_ms / 1_000 != consumer.created_seconds {
        return Err(ConsumerError::NotFound {
            stream: consumer.stream.clone(),
            name: consumer.name.clone(),
        }
        .into());
    }
    Ok(found)
}

fn registration(
    catalog: &Catalog,
    limits: Limits,
    new: NewConsumer,
    moment: Moment,
) -> Result<crate::log::Transaction, Error> {
    let now_ms = moment.now_ms;
    let not_found = || Error::StreamNotFound(new.stream.clone());
    let stream = catalog.stream(&new.stream, now_ms).ok_or_else(not_found)?;
    check_ready(stream, now_ms)?;
    if stream.consumer(&new.name, now_ms).is_some() {
        return Err(ConsumerError::Exists {
            stream: new.stream,
            name: new.name,
        }
        .into());
    }
    check_limits(stream, limits, now_ms)?;
    check_tags(&new.stream, new.tags.len())?;
    let consumer = Consumer {
        name: new.name,
        created_ms: now_ms,
        change: Some(Change {
            status: Status::Creating,
            until_ms: moment.settled_ms(),
        }),
        tags: new.tags,
        policy: None,
    };
    let arn = new.stream;
    Ok(change_only(&Event::ConsumerRegistered { arn, consumer }))
}

fn check_limits(stream: &Stream, limits: Limits, now_ms: u64) -> Result<(), Error> {
    let limit = match limits {
        Limits::Aws => CONSUMERS_PER_STREAM,
        Limits::Off => CONSUMERS_PER_STREAM_UNLIMITED,
    };
    if stream.listed_consumers(now_ms).count() >= limit {
        return Err(ConsumerError::Limit {
            stream: stream.arn.clone(),
            limit,
        }
        .into());
    }
    let is_creating = |c: &&Consumer| c.status(now_ms) == Some(Status::Creating);
    let creating = stream.consumers.values().filter(is_creating).count();
    if limits == Limits::Aws && creating >= CONSUMERS_CREATING {
        return Err(ConsumerError::Creating {
            stream: stream.arn.clone(),
            limit: CONSUMERS_CREATING,
        }
        .into());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::ManualClock;
    use crate::engine::Settings;
    use crate::engine::tests::{NOW_MS, arn, engine, engine_with, new_stream};
    use crate::log::{MemoryDisk, Metadata};

    fn consumer(name: &str) -> NewConsumer {
        NewConsumer {
            stream: arn(),
            name: name.parse().unwrap(),
            tags: BTreeMap::from([("team".to_owned(), "a".to_owned())]),
        }
    }

    fn status(engine: &Engine, name: &str) -> Option<Status> {
        let consumer = engine.consumer(&arn(), &name.parse().unwrap()).ok()?;
        consumer.status(engine.now_ms())
    }

    #[tokio::test]
    async fn states_take_their_time_and_survive_a_restart() {
        let (clock, disk) = (ManualClock::at(NOW_MS), MemoryDisk::new());
        let settings = Settings {
            state_delay_ms: 500,
            ..Settings::default()
        };
        let engine = engine_with(&clock, &disk, settings);
        engine.create_stream(new_stream(1)).await.unwrap();
        let creating = engine.register_consumer(consumer("a")).await;
        assert!(matches!(creating, Err(Error::StreamNotActive { .. })));
        clock.advance_ms(500);
        engine.register_consumer(consumer("a")).await.unwrap();
        assert_eq!(status(&engine, "a"), Some(Status::Creating));
        let again = engine.register_consumer(consumer("a")).await;
        assert!(matches!(
            again,
            Err(Error::Consumer(ConsumerError::Exists { .. }))
        ));
        engine.close().await;
        drop(engine);

        let engine = engine_with(&clock, &disk, settings);
        clock.advance_ms(500);
        assert_eq!(status(&engine, "a"), Some(Status::Active));
        let name = "a".parse().unwrap();
        let stored = engine.consumer(&arn(), &name).unwrap();
        assert_eq!((stored.created_ms, stored.tags.len()), (NOW_MS + 500, 1));
        engine.deregister_consumer(&arn(), &name).await.unwrap();
        assert_eq!(status(&engine, "a"), Some(Status::Deleting));
        engine.deregister_consumer(&arn(), &name).await.unwrap();
        clock.advance_ms(500);
        assert_eq!(status(&engine, "a"), None);
        engine.sweep().await.unwrap();
        assert!(engine.stream(&arn()).unwrap().consumers.is_empty());
        engine.register_consumer(consumer("a")).await.unwrap();
    }

    #[tokio::test]
    async fn twenty_consumers_five_of_them_being_created() {
        let (clock, disk) = (ManualClock::at(NOW_MS), MemoryDisk::new());
        let settings = Settings {
            state_delay_ms: 10,
            ..Settings::default()
        };
        let engine = engine_with(&clock, &disk, settings);
        engine.create_stream(new_stream(1)).await.unwrap();
        for n in 0..20 {
            if n % 5 == 0 {
                clock.advance_ms(10);
            }
            engine
                .register_consumer(consumer(&format!("c{n}")))
                .await
                .unwrap();
            if n == 4 {
                let sixth = engine.register_consumer(consumer("sixth")).await;
                assert!(matches!(
                    sixth,
                    Err(Error::Consumer(ConsumerError::Creating { limit: 5, .. }))
                ));
            }
        }
        clock.advance_ms(10);
        let more = engine.register_consumer(consumer("more")).await;
        assert!(matches!(
            more,
            Err(Error::Consumer(ConsumerError::Limit { limit: 20, .. }))
        ));
    }

    #[tokio::test]
    async fn consumers_keep_their_stream_unless_they_go_with_it() {
        let (engine, _) = engine(Limits::Aws);
        engine.create_stream(new_stream(1)).await.unwrap();
        engine.register_consumer(consumer("a")).await.unwrap();
        let kept = engine.delete_stream(&arn()).await;
        assert!(matches!(
            kept,
            Err(Error::Consumer(ConsumerError::KeepStream(_)))
        ));
        engine.delete_stream_and_consumers(&arn()).await.unwrap();
        engine.create_stream(new_stream(1)).await.unwrap();
        assert_eq!(status(&engine, "a"), None);
        engine.register_consumer(consumer("a")).await.unwrap();
        let name = "a".parse().unwrap();
        engine.deregister_consumer(&arn(), &name).await.unwrap();
        let gone = engine.deregister_consumer(&arn(), &name).await;
        assert!(matches!(
            gone,
            Err(Error::Consumer(ConsumerError::NotFound { .. }))
        ));
        engine.delete_stream(&arn()).await.unwrap();
    }

    #[tokio::test]
    async fn a_catalog_from_before_consumers_opens() {
        let (engine, _) = engine(Limits::Aws);
        engine.create_stream(new_stream(2)).await.unwrap();
        let catalog = engine.catalog();
        let stored = String::from_utf8(catalog.encode()).unwrap();
        let before = stored.replace(",\"consumers\":{}", "");
        assert_ne!(stored, before);
        assert_eq!(Catalog::decode(before.as_bytes()).unwrap(), *catalog);
    }
}
