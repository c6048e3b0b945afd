// Subscriptions of the AWS SDK for JavaScript: consumers that follow a stream, and the rule of takeover.

import { ResourceInUseException, paginateListStreamConsumers } from '@aws-sdk/client-kinesis';
import { Wrong, number, sleep, until } from './records.mjs';
import { expect, expectError } from './sdk_client.mjs';

/** Events after which a subscription is left and taken up where it was. */
const EVENTS = 7;
/** Seconds within which a subscription that was left must be over. */
const LEFT_SECONDS = 3;
/** Seconds a subscription is safe from another one of its consumer. */
const PROTECTED_SECONDS = 5;

/** One consumer: every shard of a stream, children after their parents. */
class Follower {
    constructor(client, arn, count) {
        Object.assign(this, { client, arn, count });
        Object.assign(this, { came: [], numbers: new Set(), events: 0, resumed: 0, over: false });
        Object.assign(this, { started: new Set(), ended: new Set(), first: new Set(), reading: [] });
    }

    follow(shard, position) {
        if (!this.started.has(shard)) {
            this.started.add(shard);
            const reading = this.shard(shard, position);
            // Whoever waits for all of them is told of it.
            reading.catch((failure) => (this.failure ??= failure));
            this.reading.push(reading);
        }
    }

    async shard(shard, start) {
        let position = start;
        for (;;) {
            const { children, continuation } = await this.subscription(shard, position);
            if (this.over) {
                return;
            }
            if (children) {
                this.ended.add(shard);
                const ready = children.filter((one) => one.ParentShards.every((p) => this.ended.has(p)));
                ready.forEach((child) => this.follow(child.ShardId, { Type: 'TRIM_HORIZON' }));
                return;
            }
            this.resumed += 1;
            const kind = ['AFTER_SEQUENCE_NUMBER', 'AT_SEQUENCE_NUMBER'][this.resumed % 2];
            position = { Type: kind, SequenceNumber: continuation };
        }
    }

    /** Begins a subscription. */
    async open(shard, position, abortSignal) {
        const input = { ConsumerARN: this.arn, ShardId: shard, StartingPosition: position };
        let answer;
        const opens = async () => {
            try {
                answer = await this.client.send('SubscribeToShard', input, { abortSignal });
                return true;
            } catch (refused) {
                // The server needs a moment to see that the connection of the one before is gone.
                if (position.SequenceNumber && refused instanceof ResourceInUseException) {
                    return false;
                }
                throw refused;
            }
        };
        await until('end of the subscription that was left', opens, LEFT_SECONDS);
        return answer.EventStream;
    }

    /** Reads some events: how they ended. */
    async subscription(shard, position) {
        // The SDK keeps the connection of an event stream that is left; only an abort ends it.
        const leave = new AbortController();
        const events = await this.open(shard, position, leave.signal);
        let continuation;
        let seen = 0;
        try {
            for await (const { SubscribeToShardEvent: event } of events) {
                this.events += 1;
                this.first.add(shard);
                event.Records.forEach((record) => this.take(record, shard));
                if (event.ChildShards?.length) {
                    expect('a closed shard goes on', event.ContinuationSequenceNumber, undefined);
                    return { children: event.ChildShards };
                }
                continuation = event.ContinuationSequenceNumber;
                if (++seen === EVENTS && !this.complete()) {
                    leave.abort();
                    return { continuation };
                }
            }
        } catch (ended) {
            // Nothing but the end of its consumer ends a subscription.
            if (!this.over) {
                throw ended;
            }
            expectError('ResourceNotFoundException', ended, `the subscription to ${shard}`);
            return {};
        }
        throw new Wrong(`the subscription to ${shard} ended without a reason`);
    }

    take(record, shard) {
        this.came.push({ ...record, ShardId: shard });
        this.numbers.add(number(record.Data));
    }

    complete() {
        return this.numbers.size >= this.count;
    }

    async wait() {
        await until('end of the records', () => this.failure || this.complete(), 60);
        if (this.failure) {
            throw this.failure;
        }
    }
}

async function register(client, stream, name) {
    const { Consumer: made } = await client.send('RegisterStreamConsumer', {
        StreamARN: stream,
        ConsumerName: name,
        Tags: { kind: 'test' },
    });
    expect('the name of a new consumer', [made.ConsumerName, made.ConsumerStatus], [name, 'CREATING']);
    const again = { StreamARN: stream, ConsumerName: name };
    await client.refused('ResourceInUseException', 'RegisterStreamConsumer', again);
    const active = async () => {
        const found = await client.send('DescribeStreamConsumer', { ConsumerARN: made.ConsumerARN });
        return found.ConsumerDescription.ConsumerStatus === 'ACTIVE';
    };
    await until('active consumer', active, 20);
    return made.ConsumerARN;
}

/**
 * Two consumers, one from LATEST and one from TRIM_HORIZON, get the records that `act` puts. Both are gone
 * in the end; what each of them got is not compared yet.
 */
export async function follow(client, stream, count, act) {
    const { StreamARN: arn } = await client.summary(stream);
    const shards = (await client.openShards(stream)).map((shard) => shard.ShardId);
    const followers = [];
    for (const type of ['LATEST', 'TRIM_HORIZON']) {
        const follower = new Follower(client, await register(client, arn, type), count);
        shards.forEach((shard) => follower.follow(shard, { Type: type }));
        followers.push(follower);
    }
    // LATEST counts from the moment the server has the subscription.
    const all = () => followers.every((one) => one.failure || one.first.size === shards.length);
    await until('first event', all, 20);
    await act();
    await Promise.all(followers.map((follower) => follower.wait()));
    // Anything doubled comes right behind.
    await sleep(500);
    await deregister(client, stream, arn, followers);
    return {
        came: followers.map((follower) => follower.came),
        events: followers.reduce((sum, one) => sum + one.events, 0),
        resumed: followers.reduce((sum, one) => sum + one.resumed, 0),
    };
}

/** A stream with consumers stays; one without ends what they read. */
async function deregister(client, stream, arn, followers) {
    await client.refused('ResourceInUseException', 'DeleteStream', { StreamName: stream });
    const names = [];
    const pages = { client: client.kinesis, pageSize: 1 };
    for await (const page of paginateListStreamConsumers(pages, { StreamARN: arn })) {
        names.push(...page.Consumers.map((consumer) => consumer.ConsumerName));
    }
    expect('consumers', names.sort(), ['LATEST', 'TRIM_HORIZON']);
    for (const follower of followers) {
        follower.over = true;
        await client.send('DeregisterStreamConsumer', { ConsumerARN: follower.arn });
        await Promise.all(follower.reading);
    }
    const { Consumers: left } = await client.send('ListStreamConsumers', { StreamARN: arn });
    expect('consumers left', left, []);
}

/** Reads a subscription to its end: the records, and the error that ended it. */
async function drain(events, came) {
    try {
        for await (const { SubscribeToShardEvent: event } of events) {
            came.push(...event.Records.map((record) => Buffer.from(record.Data).toString()));
        }
    } catch (ended) {
        return ended;
    }
    return undefined;
}

/** A second subscription is refused at first; after five seconds it takes over, and the first one ends. */
export async function takeover(client, stream) {
    await client.send('CreateStream', { StreamName: stream, ShardCount: 1 });
    const { StreamARN: arn } = await client.summary(stream);
    const consumer = await register(client, arn, 'contested');
    const input = {
        ConsumerARN: consumer,
        ShardId: 'shardId-000000000000',
        StartingPosition: { Type: 'TRIM_HORIZON' },
    };
    const put = (data) =>
        client.send('PutRecord', { StreamName: stream, PartitionKey: 'k', Data: Buffer.from(data) });
    await put('before');
    const first = [];
    const asked = Date.now();
    const { EventStream: events } = await client.send('SubscribeToShard', input);
    const begun = Date.now();
    const firstEnd = drain(events, first);
    await client.refused('ResourceInUseException', 'SubscribeToShard', input);
    await until('record', () => first.length === 1, 5);
    await sleep(asked + (PROTECTED_SECONDS - 2) * 1000 - Date.now());
    await client.refused('ResourceInUseException', 'SubscribeToShard', input);
    await sleep(begun + PROTECTED_SECONDS * 1000 + 100 - Date.now());
    const second = [];
    const secondEnd = drain((await client.send('SubscribeToShard', input)).EventStream, second);
    expectError('ResourceInUseException', await firstEnd, 'the subscription that was taken over');
    await put('after');
    await until('record', () => second.length === 2, 5);
    await client.send('DeregisterStreamConsumer', { ConsumerARN: consumer });
    expectError('ResourceNotFoundException', await secondEnd, 'the subscription without a consumer');
    expect('records of both', [first, second], [['before'], ['before', 'after']]);
    await client.send('DeleteStream', { StreamName: stream });
    return { takeovers: 1 };
}
