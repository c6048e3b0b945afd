//! Subscriptions on a log in memory; most of them on time that tokio moves.

use super::*;
use crate::clock::ManualClock;
use crate::engine::NewConsumer;
use crate::engine::tests::{arn, engine, new_stream, put_one};
use millstream_wire::HashKey;
use std::collections::{BTreeMap, BTreeSet};
use tokio::time::{advance, timeout};

async fn register(engine: &Engine, name: &str) -> ConsumerArn {
    let new = NewConsumer {
        stream: arn(),
        name: name.parse().unwrap(),
        tags: BTreeMap::new(),
    };
    engine.register_consumer(new).await.unwrap().arn(&arn())
}

async fn fixture(limits: Limits, shards: u32) -> (Engine, Arc<ManualClock>, ConsumerArn) {
    let (engine, clock) = engine(limits);
    engine.create_stream(new_stream(shards)).await.unwrap();
    let consumer = register(&engine, "a").await;
    (engine, clock, consumer)
}

async fn subscribe(
    engine: &Engine,
    consumer: &ConsumerArn,
    shard: u32,
    start: Start,
) -> Result<Subscription, Error> {
    let shard = ShardId(shard).to_string();
    let target = engine.subscription_target(consumer, &shard, start).await?;
    engine.subscribe(target)
}

async fn event(subscription: &mut Subscription) -> Pushed {
    subscription.wait().await;
    subscription.next().await.unwrap().unwrap()
}

fn data(pushed: &Pushed) -> Vec<String> {
    let text = |record: &ReadRecord| String::from_utf8(record.data().to_vec()).unwrap();
    pushed.records.iter().map(text).collect()
}

#[tokio::test(start_paused = true)]
async fn an_event_every_five_seconds_for_five_minutes() {
    let (engine, _, consumer) = fixture(Limits::Aws, 1).await;
    let began = Instant::now();
    let mut subscription = subscribe(&engine, &consumer, 0, Start::Latest)
        .await
        .unwrap();
    for n in 0..60 {
        let pushed = event(&mut subscription).await;
        assert!(pushed.records.is_empty() && pushed.continuation.is_some());
        let expected = Duration::from_secs(5 * n);
        let late = began.elapsed().saturating_sub(expected);
        assert!(
            began.elapsed() >= expected && late < Duration::from_millis(200),
            "{n}: {late:?}"
        );
    }
    subscription.wait().await;
    assert!(subscription.next().await.is_none());
    let lasted = began.elapsed();
    assert!((300..302).contains(&lasted.as_secs()), "{lasted:?}");
    assert!(subscription.next().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn a_second_subscription_waits_five_seconds_and_then_takes_over() {
    let (engine, _, consumer) = fixture(Limits::Aws, 2).await;
    let other = register(&engine, "b").await;
    let mut first = subscribe(&engine, &consumer, 0, Start::Latest)
        .await
        .unwrap();
    event(&mut first).await;
    // Other consumers and other shards are not in the way.
    let _second = subscribe(&engine, &other, 0, Start::Latest).await.unwrap();
    let _third = subscribe(&engine, &consumer, 1, Start::Latest)
        .await
        .unwrap();
    advance(Duration::from_millis(4_900)).await;
    let early = subscribe(&engine, &consumer, 0, Start::Latest).await;
    let shard = ShardId(0);
    let is_refused = matches!(
        &early,
        Err(Error::Consumer(ConsumerError::Subscribed { shard: s, .. })) if *s == shard
    );
    assert!(is_refused, "{early:?}");
    advance(Duration::from_millis(100)).await;
    let mut second = subscribe(&engine, &consumer, 0, Start::Latest)
        .await
        .unwrap();
    first.wait().await;
    let ended = first.next().await.unwrap();
    assert!(matches!(
        ended,
        Err(Error::Consumer(ConsumerError::Subscribed { .. }))
    ));
    assert!(first.next().await.is_none());
    event(&mut second).await;
    // The end of the one that was taken over does not end the one that holds the place.
    drop(first);
    let young = subscribe(&engine, &consumer, 0, Start::Latest).await;
    assert!(matches!(
        young,
        Err(Error::Consumer(ConsumerError::Subscribed { .. }))
    ));
}

#[tokio::test(start_paused = true)]
async fn one_call_a_second_once_the_last_one_has_ended() {
    let (engine, _, consumer) = fixture(Limits::Aws, 1).await;
    drop(
        subscribe(&engine, &consumer, 0, Start::Latest)
            .await
            .unwrap(),
    );
    let fast = subscribe(&engine, &consumer, 0, Start::Latest).await;
    assert!(matches!(
        fast,
        Err(Error::Consumer(ConsumerError::SubscribesTooFast { .. }))
    ));
    advance(Duration::from_secs(1)).await;
    drop(
        subscribe(&engine, &consumer, 0, Start::Latest)
            .await
            .unwrap(),
    );
    advance(Duration::from_secs(1)).await;
    engine.sweep().await.unwrap();
    assert!(engine.inner.subscriptions.held().is_empty());

    let (engine, _, consumer) = fixture(Limits::Off, 1).await;
    for _ in 0..10 {
        drop(
            subscribe(&engine, &consumer, 0, Start::Latest)
                .await
                .unwrap(),
        );
    }
}

#[tokio::test]
async fn a_put_wakes_the_subscriber() {
    let (engine, _, consumer) = fixture(Limits::Aws, 1).await;
    let mut subscription = subscribe(&engine, &consumer, 0, Start::Latest)
        .await
        .unwrap();
    event(&mut subscription).await;
    let began = Instant::now();
    let (placed, pushed) = tokio::join!(put_one(&engine, "a", b"x"), event(&mut subscription));
    assert_eq!(data(&pushed), ["x"]);
    assert_eq!(pushed.records[0].sequence, placed.sequence);
    assert!(
        began.elapsed() < Duration::from_secs(2),
        "{:?}",
        began.elapsed()
    );
}

#[tokio::test]
async fn the_end_of_the_consumer_or_of_the_stream_is_told_at_once() {
    let limit = Duration::from_secs(2);
    let (engine, _, consumer) = fixture(Limits::Off, 1).await;
    let other = register(&engine, "b").await;
    let mut first = subscribe(&engine, &consumer, 0, Start::Latest)
        .await
        .unwrap();
    let mut second = subscribe(&engine, &other, 0, Start::Latest).await.unwrap();
    event(&mut first).await;
    event(&mut second).await;
    engine
        .deregister_consumer(&arn(), &consumer.name)
        .await
        .unwrap();
    timeout(limit, first.wait()).await.unwrap();
    let gone = first.next().await.unwrap();
    assert!(
        matches!(gone, Err(Error::Consumer(ConsumerError::NotFound { .. }))),
        "{gone:?}"
    );
    assert!(first.next().await.is_none());
    // One of the same name is another consumer.
    register(&engine, "a").await;
    assert!(
        timeout(Duration::from_millis(100), second.wait())
            .await
            .is_err()
    );
    engine.delete_stream_and_consumers(&arn()).await.unwrap();
    timeout(limit, second.wait()).await.unwrap();
    let gone = second.next().await.unwrap();
    assert!(matches!(gone, Err(Error::StreamNotFound(_))), "{gone:?}");
    assert!(second.next().await.is_none());
}

#[tokio::test]
async fn what_does_not_exist_cannot_be_subscribed_to() {
    let (engine, clock, consumer) = fixture(Limits::Off, 1).await;
    let no_shard = subscribe(&engine, &consumer, 7, Start::Latest).await;
    assert!(matches!(no_shard, Err(Error::ShardNotFound { .. })));
    let earlier = ConsumerArn {
        created_seconds: consumer.created_seconds - 1,
        ..consumer.clone()
    };
    let no_consumer = subscribe(&engine, &earlier, 0, Start::Latest).await;
    assert!(matches!(
        no_consumer,
        Err(Error::Consumer(ConsumerError::NotFound { .. }))
    ));
    let future = Start::AtTimestamp(engine.now_ms() + 1);
    let too_early = subscribe(&engine, &consumer, 0, future).await;
    assert!(matches!(too_early, Err(Error::FutureTimestamp { .. })));
    clock.advance_ms(1);
    subscribe(&engine, &consumer, 0, future).await.unwrap();
}

#[tokio::test]
async fn every_starting_position_begins_where_it_says() {
    let (engine, clock, consumer) = fixture(Limits::Off, 1).await;
    let mut placed = Vec::new();
    for text in [&b"0"[..], b"1", b"2"] {
        clock.advance_ms(1_000);
        placed.push(put_one(&engine, "a", text).await);
    }
    let second_ms = engine.now_ms() - 1_000;
    for (start, expected) in [
        (Start::TrimHorizon, vec!["0", "1", "2"]),
        (Start::Latest, vec![]),
        (Start::AtTimestamp(second_ms), vec!["1", "2"]),
        (Start::AtSequence(placed[1].sequence), vec!["1", "2"]),
        (Start::AfterSequence(placed[1].sequence), vec!["2"]),
    ] {
        let mut subscription = subscribe(&engine, &consumer, 0, start).await.unwrap();
        assert_eq!(data(&event(&mut subscription).await), expected, "{start:?}");
    }
}

/// Wherever a subscription stopped, with or without records, the next one misses and repeats nothing.
#[tokio::test]
async fn a_continuation_resumes_exactly_at_and_after() {
    let (engine, clock, consumer) = fixture(Limits::Off, 1).await;
    for resume in [Start::AtSequence as fn(_) -> _, Start::AfterSequence] {
        let mut start = Start::Latest;
        let mut next = 0;
        for round in 0..6 {
            let mut subscription = subscribe(&engine, &consumer, 0, start).await.unwrap();
            let mut last = event(&mut subscription).await;
            assert_eq!(data(&last).len(), next, "{round}");
            // Records of one second and of several, and rounds without any.
            next = round % 3;
            for n in 0..round % 2 {
                put_one(&engine, "a", b"seen").await;
                last = event(&mut subscription).await;
                assert_eq!(data(&last), ["seen"], "{n}");
            }
            drop(subscription);
            for n in 0..next {
                clock.advance_ms(700 * u64::try_from(n).unwrap());
                put_one(&engine, "a", b"later").await;
            }
            start = resume(last.continuation.unwrap());
        }
    }
}

#[tokio::test]
async fn a_continuation_on_an_empty_shard_misses_nothing() {
    let (engine, _, consumer) = fixture(Limits::Off, 1).await;
    let mut subscription = subscribe(&engine, &consumer, 0, Start::TrimHorizon)
        .await
        .unwrap();
    let from = event(&mut subscription).await.continuation.unwrap();
    drop(subscription);
    put_one(&engine, "a", b"x").await;
    for start in [Start::AtSequence(from), Start::AfterSequence(from)] {
        let mut subscription = subscribe(&engine, &consumer, 0, start).await.unwrap();
        assert_eq!(data(&event(&mut subscription).await), ["x"], "{start:?}");
    }
}

/// A shard that is split while it is subscribed to ends with its children, which have the rest.
#[tokio::test]
async fn a_closed_shard_ends_with_its_children() {
    let (engine, _, consumer) = fixture(Limits::Off, 1).await;
    let mut subscription = subscribe(&engine, &consumer, 0, Start::Latest)
        .await
        .unwrap();
    event(&mut subscription).await;
    let stream = arn();
    let split = engine.split_shard(&stream, ShardId(0), HashKey(1 << 127));
    let before = put_one(&engine, "a", b"before").await;
    assert_eq!(before.shard, ShardId(0));
    let (split, first) = tokio::join!(split, event(&mut subscription));
    split.unwrap();
    assert_eq!(data(&first), ["before"]);
    let mut last = first;
    while last.continuation.is_some() {
        last = event(&mut subscription).await;
        assert!(last.records.is_empty());
    }
    let children: Vec<u32> = last.children.iter().map(|child| child.index).collect();
    assert_eq!(children, [1, 2]);
    assert!(subscription.next().await.is_none());
    for n in 0..20 {
        put_one(&engine, &n.to_string(), b"after").await;
    }
    let mut after = 0;
    for child in children {
        let mut subscription = subscribe(&engine, &consumer, child, Start::TrimHorizon)
            .await
            .unwrap();
        after += event(&mut subscription).await.records.len();
    }
    assert_eq!(after, 20);
    let mut again = subscribe(&engine, &consumer, 0, Start::TrimHorizon)
        .await
        .unwrap();
    // Records and the end never come in one event, and the end does not wait for five seconds.
    let records = event(&mut again).await;
    assert_eq!(data(&records), ["before"]);
    assert!(records.continuation.is_some() && records.children.is_empty());
    let waited = Instant::now();
    again.wait().await;
    let end = event(&mut again).await;
    assert!(end.records.is_empty() && end.continuation.is_none());
    assert_eq!(end.children.len(), 2);
    assert!(waited.elapsed() < Duration::from_secs(4));
}

#[tokio::test]
async fn a_backlog_comes_in_events_of_a_mebibyte() {
    const LARGE: &[u8] = &[7; 300_000];
    let (engine, _, consumer) = fixture(Limits::Off, 1).await;
    for _ in 0..10 {
        put_one(&engine, "a", LARGE).await;
    }
    let mut subscription = subscribe(&engine, &consumer, 0, Start::TrimHorizon)
        .await
        .unwrap();
    let mut sequences = BTreeSet::new();
    while sequences.len() < 10 {
        let pushed = event(&mut subscription).await;
        assert!(
            (1..=3).contains(&pushed.records.len()),
            "{}",
            pushed.records.len()
        );
        sequences.extend(pushed.records.iter().map(|record| record.sequence));
    }
}

#[tokio::test(start_paused = true)]
async fn under_limits_a_subscriber_gets_two_mebibytes_a_second() {
    const LARGE: &[u8] = &[7; 1_000_000];
    let (engine, clock, consumer) = fixture(Limits::Aws, 1).await;
    for _ in 0..10 {
        clock.advance_ms(1_000);
        put_one(&engine, "a", LARGE).await;
    }
    let began = Instant::now();
    let mut subscription = subscribe(&engine, &consumer, 0, Start::TrimHorizon)
        .await
        .unwrap();
    let mut records = 0;
    while records < 10 {
        records += event(&mut subscription).await.records.len();
    }
    let took = began.elapsed();
    assert!(
        took >= Duration::from_secs(4) && took < Duration::from_secs(6),
        "{took:?}"
    );
}

/// A thousand subscriptions wait without a task or a poll of their own; a record wakes those of its shard.
#[tokio::test]
async fn a_thousand_subscribers_of_one_node() {
    let (engine, _, _) = fixture(Limits::Off, 50).await;
    let mut waiting = tokio::task::JoinSet::new();
    for n in 0..20 {
        let consumer = register(&engine, &format!("c{n}")).await;
        for shard in 0..50 {
            let mut subscription = subscribe(&engine, &consumer, shard, Start::Latest)
                .await
                .unwrap();
            event(&mut subscription).await;
            waiting.spawn(async move {
                loop {
                    let pushed = event(&mut subscription).await;
                    if !pushed.records.is_empty() {
                        return (shard, pushed.records.len());
                    }
                }
            });
        }
    }
    assert_eq!(waiting.len(), 1_000);
    let placed = put_one(&engine, "a", b"x").await;
    let began = Instant::now();
    for _ in 0..20 {
        let (shard, records) = timeout(Duration::from_secs(5), waiting.join_next())
            .await
            .expect("twenty subscribers of the shard are woken")
            .unwrap()
            .unwrap();
        assert_eq!((ShardId(shard), records), (placed.shard, 1));
    }
    println!("20 of 1,000 woken in {:?}", began.elapsed());
    let more = timeout(Duration::from_millis(100), waiting.join_next()).await;
    assert!(more.is_err(), "nobody else is woken: {more:?}");
}
