//! A registered consumer: records pushed by SubscribeToShard, resumed, and followed to the children.

use crate::records::{Arrived, put, reshard};
use crate::sdk::{Carrier, client, create, server};
use aws_sdk_kinesis::Client;
use aws_sdk_kinesis::types::{
    ConsumerStatus, ShardIteratorType, StartingPosition, SubscribeToShardEventStream,
};
use std::collections::{HashSet, VecDeque};
use std::time::Duration;
use tokio::time::timeout;

const RECORDS: usize = 1_000;

async fn register(client: &Client, stream: &str) -> String {
    let register = client.register_stream_consumer().stream_arn(stream);
    let registered = register
        .consumer_name("c")
        .send()
        .await
        .expect("registered");
    let arn = registered.consumer.expect("a consumer").consumer_arn;
    for _ in 0..100 {
        let described = client.describe_stream_consumer().consumer_arn(&arn).send();
        let described = described.await.expect("described").consumer_description;
        if described.expect("a consumer").consumer_status == ConsumerStatus::Active {
            return arn;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("the consumer does not become active");
}

/// Where the reading of a shard stands.
enum Stand {
    /// Everything there is was read; it goes on after this number.
    Tip(String),
    /// The shard has ended, and these come after it.
    Ended(Vec<String>),
}

fn after(number: Option<&str>) -> StartingPosition {
    let position = StartingPosition::builder();
    let position = match number {
        None => position.r#type(ShardIteratorType::TrimHorizon),
        Some(number) => position
            .r#type(ShardIteratorType::AfterSequenceNumber)
            .sequence_number(number),
    };
    position.build().expect("a position")
}

/// One subscription, until it has been at the tip for two events or the shard has ended.
async fn follow(
    client: &Client,
    consumer: &str,
    shard: &str,
    from: Option<&str>,
    arrived: &mut Arrived,
) -> Stand {
    let subscribe = client.subscribe_to_shard().consumer_arn(consumer);
    let subscribe = subscribe.shard_id(shard).starting_position(after(from));
    let mut events = subscribe.send().await.expect("subscribed").event_stream;
    let mut at_tip = None;
    loop {
        let event = timeout(Duration::from_secs(20), events.recv());
        let event = event.await.expect("an event every five seconds");
        let Some(SubscribeToShardEventStream::SubscribeToShardEvent(event)) =
            event.expect("an event")
        else {
            panic!("the subscription ended at {at_tip:?}");
        };
        for record in &event.records {
            arrived.add(record.partition_key(), record.data.as_ref());
        }
        if let Some(children) = event.child_shards {
            return Stand::Ended(children.into_iter().map(|child| child.shard_id).collect());
        }
        let number = event.continuation_sequence_number;
        if event.millis_behind_latest == 0 && event.records.is_empty() {
            return Stand::Tip(number);
        }
        at_tip = Some(number);
    }
}

async fn pushed_through_a_split_and_a_merge(carrier: Carrier) {
    let server = server().await;
    let client = client(&server, carrier);
    let stream = create(&client, "orders", 2).await;
    let consumer = register(&client, &stream).await;
    put(&client, "orders", 0, RECORDS / 2).await;
    let mut arrived = Arrived::default();
    let shards = ["shardId-000000000000", "shardId-000000000001"];
    let mut waiting: VecDeque<(String, Option<String>)> = VecDeque::new();
    for shard in shards {
        match follow(&client, &consumer, shard, None, &mut arrived).await {
            Stand::Tip(number) => waiting.push_back((shard.to_owned(), Some(number))),
            Stand::Ended(children) => panic!("{shard} ended with {children:?}"),
        }
    }
    arrived.assert_whole(RECORDS / 2);

    reshard(&client, "orders").await;
    put(&client, "orders", RECORDS / 2, RECORDS).await;
    // A second must have passed since the shard was subscribed to.
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    let (mut known, mut resumed) = (HashSet::new(), 0);
    while let Some((shard, from)) = waiting.pop_front() {
        resumed += usize::from(from.is_some());
        let stand = follow(&client, &consumer, &shard, from.as_deref(), &mut arrived).await;
        if let Stand::Ended(children) = stand {
            let new = children
                .into_iter()
                .filter(|child| known.insert(child.clone()));
            waiting.extend(new.map(|child| (child, None)));
        }
    }
    assert_eq!(resumed, 2);
    arrived.assert_whole(RECORDS);
    server.shutdown().await;
}

#[tokio::test]
async fn every_record_is_pushed_over_http() {
    pushed_through_a_split_and_a_merge(Carrier::Plain).await;
}

#[tokio::test]
async fn every_record_is_pushed_over_tls() {
    pushed_through_a_split_and_a_merge(Carrier::Tls).await;
}

#[tokio::test]
async fn a_second_subscription_is_refused_within_five_seconds() {
    let server = server().await;
    let client = client(&server, Carrier::Plain);
    let stream = create(&client, "orders", 1).await;
    let consumer = register(&client, &stream).await;
    let subscribe = || {
        let subscribe = client.subscribe_to_shard().consumer_arn(&consumer);
        let subscribe = subscribe.shard_id("shardId-000000000000");
        subscribe.starting_position(after(None)).send()
    };
    let first = subscribe().await.expect("subscribed");
    let second = subscribe().await.expect_err("two").into_service_error();
    assert!(second.is_resource_in_use_exception(), "{second:?}");
    drop(first);
    server.shutdown().await;
}
