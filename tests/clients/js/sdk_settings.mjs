// What the AWS SDK for JavaScript can ask of a stream besides its records, and the errors it knows.

import { waitUntilStreamExists, waitUntilStreamNotExists } from '@aws-sdk/client-kinesis';
import { expect } from './sdk_client.mjs';

const KEY = 'alias/aws/kinesis';

/** Creates a stream, changes and reads every setting, deletes it. */
export async function settings(client, stream) {
    const name = { StreamName: stream };
    await client.send('CreateStream', { ...name, ShardCount: 2, Tags: { made: 'by a test' } });
    await waitUntilStreamExists({ client: client.kinesis, maxWaitTime: 20 }, name);
    await client.refused('ResourceInUseException', 'CreateStream', { ...name, ShardCount: 1 });
    const summary = await client.summary(stream);
    expect('open shards', summary.OpenShardCount, 2);
    expect('time of creation', summary.StreamCreationTimestamp instanceof Date, true);
    const arn = summary.StreamARN;
    await pages(client, stream);
    await retention(client, stream);
    await tags(client, stream, arn);
    await encryption(client, stream);
    await monitoring(client, stream);
    await policy(client, arn);
    await size(client, stream, arn);
    await account(client);
    await channels(client, arn);
    await capacity(client, stream, arn);
    await client.send('DeleteStream', name);
    await waitUntilStreamNotExists({ client: client.kinesis, maxWaitTime: 20 }, name);
}

async function pages(client, stream) {
    const one = { StreamName: stream, Limit: 1 };
    const { StreamDescription: first } = await client.send('DescribeStream', one);
    expect('a page of shards', [first.Shards.length, first.HasMoreShards], [1, true]);
    const { ShardId: after } = first.Shards[0];
    const rest = { StreamName: stream, ExclusiveStartShardId: after };
    const { StreamDescription: second } = await client.send('DescribeStream', rest);
    expect('the rest', [second.Shards.length, second.HasMoreShards], [1, false]);
    const listed = await client.send('ListShards', { StreamName: stream, MaxResults: 1 });
    const more = await client.send('ListShards', { NextToken: listed.NextToken });
    const ids = [...listed.Shards, ...more.Shards].map((shard) => shard.ShardId);
    expect('shards', [ids, more.NextToken], [['shardId-000000000000', 'shardId-000000000001'], undefined]);
    const streams = await client.send('ListStreams', { ExclusiveStartStreamName: stream.slice(0, -1) });
    expect('first of the streams', streams.StreamNames[0], stream);
    expect('its summary', streams.StreamSummaries[0].StreamStatus, 'ACTIVE');
}

async function retention(client, stream) {
    const hours = async (operation, given) => {
        await client.send(operation, { StreamName: stream, RetentionPeriodHours: given });
        expect('hours', (await client.summary(stream)).RetentionPeriodHours, given);
    };
    await hours('IncreaseStreamRetentionPeriod', 48);
    await hours('DecreaseStreamRetentionPeriod', 24);
}

async function tags(client, stream, arn) {
    const name = { StreamName: stream };
    const sorted = (found) => found.map(({ Key, Value }) => `${Key}=${Value}`).sort();
    await client.send('AddTagsToStream', { ...name, Tags: { 'größe': 'klein', other: '' } });
    const { Tags: added } = await client.send('ListTagsForStream', name);
    expect('tags', sorted(added), ['größe=klein', 'made=by a test', 'other=']);
    await client.send('RemoveTagsFromStream', { ...name, TagKeys: ['other', 'made'] });
    await client.send('TagResource', { ResourceARN: arn, Tags: { third: '3' } });
    const { Tags: both } = await client.send('ListTagsForResource', { ResourceARN: arn });
    expect('tags of the resource', sorted(both), ['größe=klein', 'third=3']);
    await client.send('UntagResource', { ResourceARN: arn, TagKeys: ['third', 'größe'] });
    expect('no tags', (await client.send('ListTagsForStream', name)).Tags, []);
}

async function encryption(client, stream) {
    const key = { StreamName: stream, EncryptionType: 'KMS', KeyId: KEY };
    const record = { StreamName: stream, PartitionKey: 'k', Data: Buffer.from('secret') };
    await client.send('StartStreamEncryption', key);
    const { EncryptionType: type, KeyId: id } = await client.summary(stream);
    expect('encryption', [type, id], ['KMS', KEY]);
    expect('of a record', (await client.send('PutRecord', record)).EncryptionType, 'KMS');
    await client.send('StopStreamEncryption', key);
    expect('no encryption', (await client.summary(stream)).EncryptionType, 'NONE');
}

async function monitoring(client, stream) {
    const change = (operation, metrics) =>
        client.send(operation, { StreamName: stream, ShardLevelMetrics: metrics });
    const on = await change('EnableEnhancedMonitoring', ['IncomingBytes', 'IteratorAgeMilliseconds']);
    expect('metrics', on.DesiredShardLevelMetrics.sort(), ['IncomingBytes', 'IteratorAgeMilliseconds']);
    const off = await change('DisableEnhancedMonitoring', ['ALL']);
    expect('no metrics', off.DesiredShardLevelMetrics, []);
}

async function policy(client, arn) {
    const statement = {
        Sid: 'read',
        Effect: 'Allow',
        Principal: { AWS: '111122223333' },
        Action: ['kinesis:GetRecords'],
        Resource: arn,
    };
    const text = JSON.stringify({ Version: '2012-10-17', Statement: [statement] });
    await client.send('PutResourcePolicy', { ResourceARN: arn, Policy: text });
    const found = await client.send('GetResourcePolicy', { ResourceARN: arn });
    expect('policy', JSON.parse(found.Policy), JSON.parse(text));
    await client.send('DeleteResourcePolicy', { ResourceARN: arn });
    expect('no policy', (await client.send('GetResourcePolicy', { ResourceARN: arn })).Policy, '{}');
}

async function size(client, stream, arn) {
    await client.send('UpdateMaxRecordSize', { StreamARN: arn, MaxRecordSizeInKiB: 2_048 });
    expect('size of records', (await client.summary(stream)).MaxRecordSizeInKiB, 2_048);
    const record = { StreamName: stream, PartitionKey: 'k', Data: Buffer.alloc(1_500_000) };
    await client.send('PutRecord', record);
}

async function account(client) {
    const limits = await client.send('DescribeLimits');
    const counts = [limits.ShardLimit, limits.OpenShardCount, limits.OnDemandStreamCountLimit];
    expect('limits', counts.every(Number.isInteger), true);
    // It lasts a day at least, so it may be that of an earlier run.
    const commit = { MinimumThroughputBillingCommitment: { Status: 'ENABLED' } };
    const changed = await client.send('UpdateAccountSettings', commit);
    expect('a commitment', changed.MinimumThroughputBillingCommitment.Status, 'ENABLED');
    const { MinimumThroughputBillingCommitment: kept } = await client.send('DescribeAccountSettings');
    expect('its beginning', kept.StartedAt instanceof Date, true);
}

/** Channels are not served, and an SDK is told so in a way that it knows. */
async function channels(client, stream) {
    const channel = { ChannelARN: 'arn:aws:kinesis:us-east-1:000000000000:channel/one' };
    const bucket = { BucketARN: 'arn:aws:s3:::bucket', ExpectedBucketOwner: '000000000000' };
    const made = {
        ChannelName: 'one',
        ServiceExecutionRoleARN: 'arn:aws:iam::000000000000:role/one',
        StreamConfigurationList: [{ StreamARN: stream, RecordConfiguration: { RecordFormatType: 'JSON' } }],
        S3DestinationConfiguration: { StorageConfiguration: { ...bucket, CompressionType: 'NONE' } },
    };
    const inputs = { CreateChannel: made, DescribeChannel: channel, ListChannels: {} };
    Object.assign(inputs, { UpdateChannel: channel, DeleteChannel: channel });
    for (const [operation, input] of Object.entries(inputs)) {
        await client.refused('InvalidArgumentException', operation, input);
    }
}

async function capacity(client, stream, arn) {
    const target = { StreamName: stream, TargetShardCount: 4, ScalingType: 'UNIFORM_SCALING' };
    const scaled = await client.send('UpdateShardCount', target);
    expect('shard count', [scaled.CurrentShardCount, scaled.TargetShardCount], [2, 4]);
    expect('open shards', (await client.summary(stream)).OpenShardCount, 4);
    const mode = { StreamARN: arn, StreamModeDetails: { StreamMode: 'ON_DEMAND' } };
    await client.send('UpdateStreamMode', mode);
    expect('mode', (await client.summary(stream)).StreamModeDetails.StreamMode, 'ON_DEMAND');
    const warm = { StreamARN: arn, WarmThroughputMiBps: 6 };
    const { WarmThroughput: throughput } = await client.send('UpdateStreamWarmThroughput', warm);
    expect('warm throughput', throughput.TargetMiBps, 6);
    const strategy = { StreamARN: arn, RecordDistributionStrategy: 'AUTO' };
    await client.send('UpdateStreamRecordDistributionStrategy', strategy);
    const { ShardId: shard } = await client.send('PutRecord', { StreamName: stream, Data: Buffer.from('x') });
    expect('a record without a key', /^shardId-\d{12}$/.test(shard), true);
}

/** The classes of errors a request can meet; some others are expected elsewhere. */
export async function errors(client, prefix) {
    const unknown = { StreamName: `${prefix}-nowhere` };
    const record = { ...unknown, PartitionKey: 'k', Data: Buffer.from('x') };
    await client.refused('ResourceNotFoundException', 'DescribeStreamSummary', unknown);
    await client.refused('ResourceNotFoundException', 'PutRecord', record);
    await client.refused('ValidationException', 'DescribeStream', { StreamName: 'no name!' });
    await client.refused('ValidationException', 'PutRecords', { ...unknown, Records: [] });
    await client.refused('InvalidArgumentException', 'GetRecords', { ShardIterator: 'x' });
    await client.refused('LimitExceededException', 'CreateStream', { ...unknown, ShardCount: 1_000_000 });
    const stream = `${prefix}-errors`;
    await client.send('CreateStream', { StreamName: stream, ShardCount: 1 });
    const dry = { StreamName: stream, PartitionKey: 'k', Data: Buffer.from('x'), DryRun: true };
    await client.refused('DryRunOperationException', 'PutRecord', dry);
    await client.send('DeleteStream', { StreamName: stream });
}
